//! The Xennet daemon as a library: the store, the control API, the configuration, the keys, mining, and the loop that
//! joins the pure parts to the hands.

pub mod backup;
pub mod bench;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod guest;
pub mod image;
pub mod keys;
pub mod mining;
pub mod program;
pub mod store;
pub mod wallet;
