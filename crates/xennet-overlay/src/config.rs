//! What the overlay is told, and the bounds it keeps.
use std::time::Duration;

use libp2p::Multiaddr;

use crate::{OverlayError, address};

/// The longest message peers take, in bytes. An announcement has at most 520 bytes of payload; a transaction around it, or a sealed
/// proposal, fits with room to spare.
pub const MAX_MESSAGE_BYTES: usize = 2048;

/// Connections. Outgoing ones have slots of their own, so that strangers who dial us cannot take them all.
pub(crate) const MAX_INCOMING: u32 = 96;
pub(crate) const MAX_OUTGOING: u32 = 32;
pub(crate) const MAX_PENDING_INCOMING: u32 = 32;
pub(crate) const MAX_PENDING_OUTGOING: u32 = 16;
pub(crate) const MAX_PER_PEER: u32 = 2;
/// Incoming connections, pending ones included, from one IPv4 address or one IPv6 /64. Loopback is exempt.
pub(crate) const MAX_PER_NETWORK: u32 = 8;
pub(crate) const MAX_STREAMS: usize = 32;
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// With fewer connected peers than this we look for more.
pub(crate) const WANTED_PEERS: usize = 8;
pub(crate) const MAX_BOOTSTRAP: usize = 64;

/// Messages waiting for a peer to publish them to, events waiting for the daemon, commands waiting for the overlay.
pub(crate) const MAX_UNSENT: usize = 256;
pub(crate) const MAX_OUTBOX: usize = 1024;
pub(crate) const MAX_COMMANDS: usize = 256;

/// How to start the overlay.
#[derive(Clone)]
pub struct OverlayConfig {
    /// Seed of the ed25519 key that the peer id comes from. Not the identity's key: peers need no mined identity.
    pub secret: [u8; 32],
    /// Addresses to listen on. Empty: this peer dials only and has no listening socket.
    pub listen: Vec<Multiaddr>,
    /// Addresses to start from, re-dialed for ever. With or without a `/p2p/` suffix.
    pub bootstrap: Vec<Multiaddr>,
    /// The network's name, part of every protocol name, so that networks never mix: 1 to 32 of a-z, 0-9, '-'.
    pub network: String,
}

impl OverlayConfig {
    pub(crate) fn check(&self) -> Result<(), OverlayError> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.network.is_empty() || self.network.len() > 32 || !self.network.chars().all(good) {
            return Err(OverlayError::Network { name: self.network.chars().take(64).collect() });
        }
        if self.bootstrap.len() > MAX_BOOTSTRAP {
            return Err(OverlayError::TooManyAddresses { given: self.bootstrap.len(), most: MAX_BOOTSTRAP });
        }
        for address in &self.listen {
            address::check("listen", address)?;
        }
        for address in &self.bootstrap {
            address::check("bootstrap", address)?;
        }
        Ok(())
    }

    /// `/xennet/<network>/<what>`, the form of all protocol names.
    pub(crate) fn protocol(&self, what: &str) -> String {
        format!("/xennet/{}/{what}", self.network)
    }
}

impl std::fmt::Debug for OverlayConfig {
    /// Leaves the secret out, so that no log can hold it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OverlayConfig")
            .field("listen", &self.listen)
            .field("bootstrap", &self.bootstrap)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}
