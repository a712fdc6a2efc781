//! Whole leases where the chain is a real Bitcoin Core's. They run by `cargo xtask core-tests`; without `XENNET_BITCOIND` they say that
//! they did not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// What the tests of leases share is more than is needed here.
#![allow(dead_code)]

#[path = "../lease/books.rs"]
mod books;
#[path = "../lease/daemon.rs"]
mod daemon;
#[path = "../../../xennet-chain/tests/core/electrum_server.rs"]
mod electrum_server;
#[path = "../lease/market.rs"]
mod market;
#[path = "../lease/processes.rs"]
mod processes;
#[path = "../../../xennet-chain/tests/core/rig.rs"]
mod rig;
#[path = "../lease/wait.rs"]
mod wait;
#[path = "../lease/wire.rs"]
mod wire;

mod lease;
