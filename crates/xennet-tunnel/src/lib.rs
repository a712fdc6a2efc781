//! The tunnel: one SSH connection that the node dials, with named pipes inside.
//!
//! ```text
//!  publisher                                              node
//!  Listener ◀═══════════ one SSH connection ═══════════ Dialer        listens on no port
//!     │ Link              lease pipe: frames              │ Link
//!     │ Link::open_pipe   pipe "vm-<lease>"               └─▶ PipeTarget, a port of the guest
//!     └ GuestSsh          SSH inside that pipe
//! ```
//!
//! Invariants:
//! - A [`Listener`] gives a login one lease pipe and one forward, named after the lease, and nothing else.
//! - A [`Dialer`] speaks only to the host key it was given, and connects pipes only to the target it was given.
//! - Nobody can make either end hold more than a fixed amount of memory, or wait without a limit.
//! - A pipe that nobody reads holds up neither the frames nor the other pipes of its session.
//! - For one lease at most one session is up; the newest wins.
//!
//! The crate decides nothing: who may log in, and what frames mean, is the daemon's business. The bytes on the wire
//! are described in `docs/tunnel.md`.

mod credit;
mod cut;
mod dialer;
mod error;
mod event;
mod frames;
mod guest;
mod keys;
mod link;
mod listener;
mod pipe;
mod places;
mod queue;
mod session;
mod settings;
mod transport;

pub mod measure;

pub use dialer::{DialConfig, Dialer, GuestPorts, PipeTarget};
pub use error::TunnelError;
pub use event::TunnelEvent;
pub use guest::{ExecEvent, ExecInput, ExecOutput, ExecStream, GuestSsh, Output};
pub use keys::{openssh_private_key, openssh_public_key, public_key};
pub use link::Link;
pub use listener::{Authorize, ListenConfig, ListenCounters, ListenLimits, Listener, Login};
pub use pipe::Pipe;
pub use settings::{KEEPALIVE, KEEPALIVE_MISSED, MAX_FRAME, MAX_PIPES, PIPE_VERSION, SUBSYSTEM};
