//! One daemon for each data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::StoreError;

/// Held while a daemon uses a data directory. The kernel gives it free when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct DataDirLock {
    _file: File,
}

impl DataDirLock {
    /// Takes the lock and writes this process's id into it, for the message a second daemon prints.
    pub(super) fn take(dir: &Path) -> Result<DataDirLock, StoreError> {
        let path = dir.join("lock");
        let failed = |e| StoreError::io("take the lock", &path, e);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The id is a courtesy: without it the message is still right.
                let _ = (&file).take(32).read_to_string(&mut text);
                return Err(StoreError::InUse { dir: dir.to_path_buf(), holder: text.trim().parse().ok() });
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        // On a full disk the lock holds all the same.
        let _ = writeln!(file, "{}", std::process::id());
        Ok(DataDirLock { _file: file })
    }
}
