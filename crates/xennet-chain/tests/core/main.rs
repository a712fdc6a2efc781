//! The sources `bitcoind`, `light` and `electrum` against a real Bitcoin Core on regtest.
//!
//! The program is named by `XENNET_BITCOIND`, with `bitcoin-cli` beside it. Without that each test says that it did not run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bitcoind;
mod coins;
mod electrum;
mod electrum_lies;
mod electrum_server;
mod follows;
mod liar;
mod lies;
mod light;
mod rig;
