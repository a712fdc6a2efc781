//! What the tunnel tells the daemon.

use std::net::SocketAddr;
use std::time::Duration;

use crate::link::Link;

/// Something that happened to a tunnel. Both ends say the same words; `user` is the name of the lease.
///
/// For one user the order is `Up`, any number of `Frame`, `Down`, and again: a second `Up` never comes before the
/// `Down` of the session it replaces.
#[derive(Debug)]
pub enum TunnelEvent {
    /// A session is logged in and both its lease pipe and its forward are there.
    Up {
        /// The lease.
        user: String,
        /// The way to send frames and to open pipes.
        link: Link,
        /// The address of the other end.
        peer: SocketAddr,
    },
    /// The session ended. The node's end connects again by itself.
    Down {
        /// The lease.
        user: String,
        /// Why, in a few plain words.
        why: String,
    },
    /// A frame came over the lease pipe. Frames keep their order.
    Frame {
        /// The lease.
        user: String,
        /// 1 to 65,536 bytes.
        bytes: Vec<u8>,
    },
    /// (Node only.) The publisher could not be reached or refused the login; the node tries again.
    Retry {
        /// The lease.
        user: String,
        /// Why, in a few plain words.
        why: String,
        /// When the next attempt is made.
        retry_in: Duration,
    },
    /// (Node only.) The node gave up for good.
    Failed {
        /// The lease.
        user: String,
        /// Why, and what to do about it.
        why: String,
    },
}
