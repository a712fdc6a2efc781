//! What the store's two files are on: a disk, or something over it that misbehaves, to see that nothing is lost then either.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend};

use super::sequence::sync_dir;

/// What a file of the store is read and written through.
pub type Backend = Box<dyn StorageBackend>;

/// Something between the store and its files. It sees every write and every sync, and may fail any of them.
pub trait Layer: Debug + Send + Sync + 'static {
    /// Takes over a file that was opened for reading and writing. A file is known by its inode: it can be renamed meanwhile.
    fn attach(&self, file: File) -> io::Result<Backend>;
}

/// What the store's files are on.
#[derive(Debug, Clone, Default)]
pub enum Medium {
    /// The file system as it is.
    #[default]
    Disk,
    /// Through a layer.
    Through(Arc<dyn Layer>),
}

/// Whether a sync has failed. What was written before it may then be read, and is perhaps on no disk: a system that could not write a page
/// may call it clean and never try again.
#[derive(Debug, Clone, Default)]
pub(super) struct Doubt(Arc<AtomicBool>);

impl Doubt {
    pub(super) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn settle(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// How much is copied at once.
const COPIED_BYTES: usize = 1024 * 1024;

impl Medium {
    /// Opens a database, or makes one in an empty file. Its directory's lock is held, so no other process has it.
    pub(super) fn database(&self, builder: &Builder, file: File, doubt: &Doubt) -> Result<Database, DatabaseError> {
        builder.create_with_backend(Attached { backend: self.file(file)?, doubt: doubt.clone() })
    }

    /// Writes what can be read of a file into a new one, which takes its place once it is synced: what a failed sync left in doubt is then on
    /// the disk. Needs as much room again.
    pub(super) fn renew(&self, path: &Path, doubt: &Doubt) -> io::Result<()> {
        let new = path.with_extension("renewed");
        let copied = self.copy(path, &new).and_then(|()| fs::rename(&new, path)).and_then(|()| sync_dir(path.parent().unwrap_or(path)));
        match &copied {
            Ok(()) => doubt.settle(),
            // Half a copy only takes room.
            Err(_) => drop(fs::remove_file(&new)),
        }
        copied
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let from = self.file(existing(from)?)?;
        let to = self.file(OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(to)?)?;
        let length = from.len()?;
        to.set_len(length)?;
        let mut part = vec![0; COPIED_BYTES];
        let mut at = 0;
        while at < length {
            let left = usize::try_from(length - at).unwrap_or(COPIED_BYTES).min(COPIED_BYTES);
            from.read(at, &mut part[..left])?;
            to.write(at, &part[..left])?;
            at += left as u64;
        }
        to.sync_data()?;
        from.close()?;
        to.close()
    }

    /// A file that is written in place.
    pub(super) fn file(&self, file: File) -> io::Result<Backend> {
        match self {
            Medium::Disk => Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?)),
            Medium::Through(layer) => layer.attach(file),
        }
    }
}

pub(super) fn existing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// A backend whose kind is only known at run time. It notes that a sync has failed.
#[derive(Debug)]
struct Attached {
    backend: Backend,
    doubt: Doubt,
}

impl StorageBackend for Attached {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.backend.sync_data().inspect_err(|_| self.doubt.raise())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.backend.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }
}
