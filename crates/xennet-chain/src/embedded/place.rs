//! The chain's directory: who holds it, and its socket.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::ChainError;

/// Longest path of a unix socket that every system takes.
const MAX_SOCKET_PATH: usize = 100;

/// The directory of an embedded chain.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    /// Keeps the short name of a long path valid.
    _handle: File,
    socket: PathBuf,
}

/// Held by the process that hosts the chain. The system lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub(super) struct HostLock(#[allow(dead_code, reason = "held for its lock")] File);

impl Place {
    /// Makes the directory if need be; only its owner may read it, for it holds the faucet's key.
    pub(super) fn open(dir: &Path) -> Result<Place, ChainError> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(ChainError::io("cannot create", dir))?;
        let dir = dir.canonicalize().map_err(ChainError::io("cannot find", dir))?;
        let handle = File::open(&dir).map_err(ChainError::io("cannot open", &dir))?;
        let mut socket = dir.join("chain.sock");
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            socket = PathBuf::from(format!("/proc/self/fd/{}/chain.sock", handle.as_raw_fd()));
        }
        Ok(Place { dir, _handle: handle, socket })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The socket's path, or a shorter name of it.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Becomes the host, unless another process, or this one, already is.
    pub(super) fn try_lock(&self) -> Result<Option<HostLock>, ChainError> {
        let path = self.lock_path();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(ChainError::io("cannot open", &path))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(ChainError::io("cannot lock", &path)(e.into())),
        }
        // For whoever finds the directory locked; the lock itself does not rest on it.
        let note = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        note.map_err(ChainError::io("cannot write", &path))?;
        Ok(Some(HostLock(file)))
    }

    /// The process that last hosted, 0 if unknown.
    pub(super) fn holder(&self) -> u32 {
        let mut text = String::new();
        let read = File::open(self.lock_path()).and_then(|file| file.take(20).read_to_string(&mut text));
        read.ok().and_then(|_| text.trim().parse().ok()).unwrap_or(0)
    }

    fn lock_path(&self) -> PathBuf {
        self.dir.join("chain.lock")
    }
}
