//! The disks of a guest: raw files with an ext4 that is made once and never looked into again.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::FallocateFlags;

use crate::error::{Doing, VmError};
use crate::host;

/// What stays free on the host's file system after a disk was made, for logs and the daemon's store.
const SPARE_MIB: u64 = 64;

/// The smallest disk that mke2fs makes sense of.
pub(crate) const SMALLEST_MIB: u32 = 8;

/// What a disk is for. It decides about the journal: a temporary disk ends with its guest, so nothing replays it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Temporary,
    Persistent,
}

/// Makes a disk of this size; a file that is there already is replaced.
///
/// The space is taken at once: a guest whose disk was sold must not find out later that the host's is full.
pub(crate) fn make(path: &Path, mib: u32, kind: Kind) -> Result<(), VmError> {
    let mke2fs = host::program("mke2fs", "e2fsprogs")?;
    remove(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    host::need_disk(folder, u64::from(mib) + SPARE_MIB)?;
    let made = reserve(path, mib).and_then(|()| format(&mke2fs, path, kind));
    if made.is_err() {
        // Half a disk would be taken for a whole one by the next lease.
        remove(path)?;
    }
    made
}

/// Uses the disk of an earlier lease, or makes one. What a guest wrote is never read by a program of the host.
pub(crate) fn keep(path: &Path, mib: u32) -> Result<(), VmError> {
    let Some(length) = length(path)? else {
        make_parent(path)?;
        return make(path, mib, Kind::Persistent);
    };
    if length != u64::from(mib) << 20 {
        let (has_mib, asked_mib) = (length >> 20, u64::from(mib));
        return Err(VmError::PersistentSize { path: path.to_owned(), has_mib, asked_mib });
    }
    Ok(())
}

fn make_parent(path: &Path) -> Result<(), VmError> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
    made.doing(|| format!("making the folder {}", parent.display()))
}

/// Deletes a file if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), VmError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).doing(|| format!("deleting {}", path.display())),
        _ => Ok(()),
    }
}

fn length(path: &Path) -> Result<Option<u64>, VmError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing(|| format!("looking at {}", path.display())),
    }
}

fn reserve(path: &Path, mib: u32) -> Result<(), VmError> {
    let doing = || format!("making the disk {}", path.display());
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).doing(doing)?;
    let bytes = u64::from(mib) << 20;
    file.set_len(bytes).doing(doing)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        // Some file systems cannot reserve; there the file stays sparse.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
        Err(rustix::io::Errno::NOSPC) => {
            drop(file);
            remove(path)?;
            let folder = path.parent().unwrap_or(Path::new("."));
            host::need_disk(folder, u64::from(mib) + SPARE_MIB)?;
            Err(rustix::io::Errno::NOSPC).doing(doing)
        }
        Err(error) => Err(error).doing(doing),
    }
}

fn format(mke2fs: &Path, path: &Path, kind: Kind) -> Result<(), VmError> {
    let mut command = Command::new(mke2fs);
    // nodiscard: discarding would give back the space that was just reserved.
    command.args(["-q", "-F", "-t", "ext4", "-m", "0", "-E", "nodiscard,lazy_itable_init=1"]);
    if kind == Kind::Temporary {
        command.args(["-O", "^has_journal"]);
    }
    let doing = || format!("running mke2fs on {}", path.display());
    let output = command.arg(path).stdin(Stdio::null()).output().doing(doing)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(std::io::Error::other(said)).doing(doing);
    }
    match kind {
        Kind::Temporary => Ok(()),
        // mke2fs does not wait for the disk; a persistent one has to be whole after a power failure.
        Kind::Persistent => File::open(path).and_then(|file| file.sync_all()).doing(doing),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_disk_has_the_asked_size_and_its_space_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        make(&path, 32, Kind::Temporary).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), 32 << 20);
        assert!(metadata.blocks() * 512 >= 32 << 20, "only {} bytes are reserved", metadata.blocks() * 512);
    }

    #[test]
    fn a_persistent_disk_is_kept_and_another_size_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("persistent").join("disk");
        keep(&path, 16).unwrap();
        let before = std::fs::metadata(&path).unwrap().modified().unwrap();
        keep(&path, 16).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), before);
        let said = keep(&path, 32).unwrap_err().to_string();
        assert!(said.contains("has 16 MiB, but 32 MiB are asked"), "{said}");
    }

    #[test]
    fn a_disk_that_does_not_fit_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        assert!(matches!(make(&path, u32::MAX, Kind::Temporary), Err(VmError::DiskFull { .. })));
        assert!(!path.exists());
    }
}
