//! What went through one guest's gateway, and what was turned away.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The living counters. They only grow.
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: AtomicU64,)* }

        /// The counters at one moment, since the gateway was started. A frame's bytes are those of the Ethernet frame without
        /// the checksum, as the guest's own interface counts them; a payload's are what its flows carried.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            pub(crate) fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Frames out of the guest.
    up_frames,
    /// Their bytes.
    up_frame_bytes,
    /// Bytes that left the guest in TCP and UDP flows.
    up_payload_bytes,
    /// Frames into the guest.
    down_frames,
    /// Their bytes.
    down_frame_bytes,
    /// Bytes that entered the guest in TCP and UDP flows.
    down_payload_bytes,
    /// Flows that were opened outward.
    opened,
    /// Connections that came in through the tunnel.
    came_in,
    /// Flows that the policy forbids.
    dropped_forbidden,
    /// Flows beyond the limits, of those open at once or of those opened in a second.
    dropped_limit,
    /// Frames whose source is not the guest's own address.
    dropped_spoofed,
    /// Frames that cannot be read.
    dropped_malformed,
    /// Frames of what is not carried: IPv6, fragments, other protocols, broadcasts.
    dropped_other,
    /// Questions for names that were passed on.
    names_asked,
    /// Questions for names that were refused: by the policy, beyond the limits, or for what the answer named.
    names_refused,
}

pub(crate) fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}
