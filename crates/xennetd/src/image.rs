//! Images that come from outside: the data directory's store, and what this daemon's limits say about it.

pub use xennet_vm::{ImageKind, ImageLibrary, LibraryError, StoredImage};

use crate::config::Config;

/// What one image may have unpacked, MiB, unless `image_mib` says otherwise.
const MOST_MIB: u32 = 16 * 1024;
/// What all images may take, MiB, unless `image_store_mib` says otherwise.
const STORE_MIB: u32 = 32 * 1024;

/// Becomes the confined process that reads a stranger's image, if this program was started as that. The first call of `main`.
#[must_use]
pub fn confined() -> Option<std::process::ExitCode> {
    xennet_vm::confined()
}

/// The store of a data directory.
///
/// # Errors
/// When this program cannot find itself, to be started as the confined process.
pub fn library(config: &Config) -> std::io::Result<ImageLibrary> {
    let most = u64::from(config.limits.image_mib.unwrap_or(MOST_MIB)) << 20;
    Ok(ImageLibrary::new(config.data_dir.join("images"), std::env::current_exe()?, most))
}

/// What all images of this data directory may take together, bytes.
#[must_use]
pub fn store_bytes(config: &Config) -> u64 {
    u64::from(config.limits.image_store_mib.unwrap_or(STORE_MIB)) << 20
}
