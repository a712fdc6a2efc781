//! The overlay: peers that find each other from a bootstrap address and pass announcements on by libp2p gossip.
//!
//! It decides nothing. What a message is worth is for the daemon to say through a [`Judge`], which is asked before anything is done
//! with a message that was not seen before: a refused message is counted and leaves no other trace, costs no reply, and
//! counts as a strike against the peer that sent it. What the crate does hold is bounds: on connections, message sizes, rates, remembered
//! messages and bans, so that what a stranger can cause stays finite.
//!
//! ```text
//!            frames                    new, well formed                Relay
//!  stranger ────────▶ Guarded ───────────▶ Judge ────────────────────▶ gossip to the mesh, Recent, OverlayEvent::Message
//!             rate, bans, size, repeats       │ Ignore: counted, not passed on
//!                                             ╰ Reject: counted, a strike; enough strikes and the peer is cut off
//! ```
//! A peer that arrives late asks its neighbours for what was announced recently, and what they send goes through the same judge. A peer
//! configured without listen addresses opens no listening socket at all. `docs/overlay.md` lays out the bytes and the bounds.
mod address;
mod behaviour;
mod bootstrap;
mod config;
mod counters;
mod desk;
mod discovery;
mod error;
mod gossip;
mod guard;
mod node;
mod overlay;
mod recent;
mod strikes;
mod sync;

pub use config::{MAX_MESSAGE_BYTES, OverlayConfig};
pub use counters::OverlayCounters;
pub use error::OverlayError;
pub use libp2p::{Multiaddr, PeerId};
pub use overlay::{Direction, Overlay, OverlayEvent, Peer};

use std::sync::Arc;

/// What the daemon says about one message.
///
/// Reasons are fixed texts, so that counting by reason is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Valid: pass it on, remember it for late joiners, and hand it to the daemon.
    Relay,
    /// Of no use here, but an honest peer may well have sent it (expired a moment ago, against our own policy): drop it without blame.
    Ignore(&'static str),
    /// No honest peer passes this on (no work, malformed, forged): drop it and count a strike against the sender.
    Reject(&'static str),
}

/// Judges a message. It is called on the overlay's own task, so it must be quick and must not block; it may be called again for the same
/// bytes later, to find out whether a remembered announcement is still valid, so it must not itself treat a repeat as a fault.
pub type Judge = Arc<dyn Fn(&[u8]) -> Judgement + Send + Sync>;
