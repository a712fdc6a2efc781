//! What the store's two files are on: a disk, or something over it that misbehaves, to see that nothing is lost then either.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend};

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

impl Medium {
    /// Opens a database that exists.
    pub(super) fn database(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
        match self {
            Medium::Disk => builder.open(path),
            Medium::Through(layer) => builder.create_with_backend(Attached(layer.attach(existing(path)?)?)),
        }
    }

    /// Makes a database in an empty file.
    pub(super) fn new_database(&self, builder: &Builder, file: File) -> Result<Database, DatabaseError> {
        match self {
            Medium::Disk => builder.create_with_backend(FileBackend::new(file)?),
            Medium::Through(layer) => builder.create_with_backend(Attached(layer.attach(file)?)),
        }
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

/// A backend whose kind is only known at run time.
#[derive(Debug)]
struct Attached(Backend);

impl StorageBackend for Attached {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}
