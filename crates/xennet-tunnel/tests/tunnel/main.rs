//! The tunnel over loopback: real sockets, the stock `ssh` and `sshd`, and a proxy that cuts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod door;
mod frames;
mod guest;
mod pipes;
mod proxy;
mod reconnect;
mod rogue;
mod stock;
mod world;
