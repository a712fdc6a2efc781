//! Whole leases between real parts: two daemons in processes of their own, an embedded chain, a real guest, real SSH. Each
//! test ends with what the chain says against what was used.
//!
//! Guests need a processor core each, so the tests take turns. They need what a node needs: QEMU, and at the first run the
//! Debian packages that the guest image is made from.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod books;
mod crashes;
mod cuts;
mod daemon;
mod full_disk;
mod left_alone;
mod market;
mod prepaid;
mod processes;
mod refused;
mod renewal;
mod restored;
mod shared_funding;
mod stock_ssh;
mod wait;
mod wallet;
mod whole;
mod wire;
