//! What is written down about a running guest, so that a later daemon can take it over.

use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::accelerator::Accelerator;
use crate::error::{Doing, VmError};
use crate::privilege::Privilege;

/// The file in a guest's folder.
const FILE: &str = "guest.json";

/// A guest that was started. Members are added as they become known; each is on disk before the next step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// A random name, among QEMU's arguments too. It finds the process when its number was not yet written.
    pub name: String,
    /// Changes with each start of the host, after which no process of the record lives.
    pub host_boot: String,
    pub pid: Option<u32>,
    pub start_time: Option<u64>,
    /// The port on 127.0.0.1 that leads to the guest's SSH server.
    pub port: Option<u16>,
    pub user: Privilege,
    pub cores: u16,
    pub memory_mib: u32,
    pub disk_mib: u32,
    pub persistent: bool,
    pub accelerator: Accelerator,
    pub image: String,
}

impl Record {
    /// Reads the record of a folder. `None` if no guest was started there.
    pub(crate) fn read(folder: &Path) -> Result<Option<Record>, VmError> {
        let path = folder.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| VmError::Record { path }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing(|| format!("reading {}", path.display())),
        }
    }

    /// Writes it so that a crash leaves the old one or the new one.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), VmError> {
        let doing = || format!("writing {}", folder.join(FILE).display());
        let bytes = serde_json::to_vec_pretty(self).map_err(std::io::Error::from).doing(doing)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).doing(doing)?;
        file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).doing(doing)?;
        file.persist(folder.join(FILE)).map_err(|error| error.error).doing(doing)?;
        Ok(())
    }

    /// Forgets the guest of a folder.
    pub(crate) fn remove(folder: &Path) -> Result<(), VmError> {
        crate::disk::remove(&folder.join(FILE))
    }
}

/// What tells one start of the host from another.
pub(crate) fn host_boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
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
            host_boot: host_boot(),
            pid: Some(7),
            start_time: None,
            port: None,
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
        std::fs::write(dir.path().join(FILE), b"{").unwrap();
        let said = Record::read(dir.path()).unwrap_err().to_string();
        assert!(said.contains("guest.json is damaged"), "{said}");
        Record::remove(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), None);
    }
}
