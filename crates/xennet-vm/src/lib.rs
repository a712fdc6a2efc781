//! Guests: the image they boot, the QEMU they run in, from start to stop.
//!
//! ```text
//! ImageStore ──thin()──▶ Image ──Accelerator::probe()──▶ Verdict
//!                          │
//!                 VmSpec ──┴─▶ Vm::start ──▶ Vm::network ──▶ Vm::wait_ready ──▶ Vm::stop
//!                                │                                              ▲
//!                                └── daemon ends, QEMU lives on ──▶ Vm::adopt ──┘
//! ```
//!
//! What this crate does *not* do: it knows nothing of leases, prices or who pays, and opens no port: the guest's
//! only network is a Unix socket in its folder, for a gateway to take. What holds:
//! - everything about a guest lies in its folder, and [`Vm::stop`] leaves nothing of it but a persistent disk;
//! - QEMU runs without privileges, as a user of its own if the daemon is root, and can open no file but its own;
//! - nothing that a guest writes grows without limit on the host, is parsed by a host program, or reaches a terminal
//!   unfiltered;
//! - a handle may be dropped at any time: the guest lives on and is found again.

mod accelerator;
pub mod bench;
mod control;
mod cpio;
mod disk;
mod error;
mod folder;
mod host;
mod image;
mod launch;
mod library;
mod privilege;
mod process;
pub mod qmp;
mod record;
mod spec;
mod vm;

pub use accelerator::{Accelerator, Verdict};
pub use error::VmError;
pub use image::{Image, ImageProgress, ImageStore};
pub use library::{CONFINED, ImageKind, ImageLibrary, LibraryError, Step, StoredImage, confined};
pub use spec::{PersistentDisk, VmSpec};
pub use vm::{Exit, Vm};
