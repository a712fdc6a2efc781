//! The guest's only network: every frame of a guest ends here, and nothing but what the owner's policy allows goes on.
//!
//! ```text
//!  guest ══ Ethernet frames ══▶ read ──▶ ARP, DHCP, ping of the gateway: answered
//!        (QEMU's stream socket)   │ ───▶ names: asked elsewhere, answers that name a forbidden address refused
//!                                 │ ───▶ UDP: policy ─▶ a socket of the host for each flow
//!                                 └────▶ TCP: policy ─▶ ended by our own stack ══▶ a connection of the host
//!  tunnel ══ Gateway::connect(port) ══▶ our own stack ══▶ the guest's port
//! ```
//!
//! What this crate does *not* do: it knows neither leases nor hypervisors, and listens on nothing. What holds:
//! - no packet of a guest reaches a host's socket: flows are ended here, and their payload goes on in other packets;
//! - the address that is connected to is the one that was checked, and a guest has no IPv6: its frames are dropped;
//! - memory, sockets and questions for names that a guest can cause are bounded, and no frame makes it panic;
//! - every frame is counted in both directions, and both are shaped, at rates that may be changed at any time.

mod bucket;
mod counters;
mod datagrams;
mod device;
mod dns;
mod engine;
mod flows;
mod frame;
mod gateway;
mod policy;

use std::net::Ipv4Addr;

pub use counters::Counts;
pub use gateway::{Gateway, Limits, Rates, Settings};
pub use policy::{Forbidden, Network, Policy, Profile, Protocol, is_public_v4, is_public_v6};

/// The guest's address. Its network is /24.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The gateway's address.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The address of the server of names.
pub const NAMES: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// The hardware address of a guest's card; QEMU's first.
pub const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
/// The hardware address of the gateway.
pub const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
