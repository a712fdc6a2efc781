//! The embedded chain and the wallet, for real: Bitcoin Core's validation in temporary directories.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod announcing;
mod bounds;
mod coins;
mod hosting;
mod paying;
mod relay;
mod reorganising;
mod rig;
mod sealed;
mod spending;
