//! What is written down about a running guest, so that a later daemon can take it over.
//!
//! The file's name holds the host's boot identifier. So a record is never read after the host has restarted, when no
//! process of it lives, and needs not be forced to the disk: a power failure that garbles it also makes it void.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::accelerator::Accelerator;
use crate::error::{Doing, VmError};
use crate::privilege::Privilege;

/// What the names of all records begin with, those of earlier boots too.
const PREFIX: &str = "guest-";

/// A guest that was started. Members are added as they become known; each is written before the next step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// A random name, among QEMU's arguments too. It finds the process when its number was not yet written.
    pub name: String,
    pub pid: Option<u32>,
    pub start_time: Option<u64>,
    pub user: Privilege,
    pub cores: u16,
    pub memory_mib: u32,
    pub disk_mib: u32,
    pub persistent: bool,
    pub accelerator: Accelerator,
    pub image: String,
}

impl Record {
    /// Reads the record of a folder. `None` if no guest was started there since the host booted.
    pub(crate) fn read(folder: &Path) -> Result<Option<Record>, VmError> {
        let path = path_in(folder)?;
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| VmError::Record { path }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(|| format!("reading {}", path.display())),
        }
    }

    /// Writes it so that a crash of the daemon leaves the old one or the new one.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), VmError> {
        let path = path_in(folder)?;
        let doing = || format!("writing {}", path.display());
        let bytes = serde_json::to_vec_pretty(self).map_err(std::io::Error::from).doing(doing)?;
        let new = path.with_extension("new");
        std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, &path)).doing(doing)
    }

    /// Forgets the guest of a folder.
    pub(crate) fn remove(folder: &Path) -> Result<(), VmError> {
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.doing(|| format!("looking into {}", folder.display()))?,
        };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                crate::disk::remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

fn path_in(folder: &Path) -> Result<PathBuf, VmError> {
    let file = "/proc/sys/kernel/random/boot_id";
    let boot = std::fs::read_to_string(file).doing(|| format!("reading {file}"))?;
    let boot: String = boot.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    Ok(folder.join(format!("{PREFIX}{boot}.json")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_and_a_damaged_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), None);
        let record = Record {
            name: "xennet-1".into(),
            pid: Some(7),
            start_time: None,
            user: Privilege::Own(61_200),
            cores: 1,
            memory_mib: 128,
            disk_mib: 16,
            persistent: false,
            accelerator: Accelerator::Tcg,
            image: String::new(),
        };
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), Some(record));
        std::fs::write(path_in(dir.path()).unwrap(), b"{").unwrap();
        let said = Record::read(dir.path()).unwrap_err().to_string();
        assert!(said.contains(".json is damaged"), "{said}");
        // What an earlier boot left goes too.
        std::fs::write(dir.path().join("guest-0.json"), b"").unwrap();
        Record::remove(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        Record::remove(&dir.path().join("never made")).unwrap();
    }
}
