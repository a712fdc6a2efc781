//! What the daemon must not forget: redb with two-phase commits, written by one thread that groups what arrives together.
//!
//! ```text
//! caller ── Batch ──▶ queue ──▶ writer: one transaction for all that wait ──▶ fsync ──▶ sequence file, fsync ──▶ Persisted
//! ```
//! Invariants:
//! - A batch is on disk as a whole or not at all, and a [`Persisted`] exists only for what is on disk. Senders take
//!   `Persisted<T>`, so nothing leaves this process that a restart could forget (M1 of the design).
//! - Each record carries a checksum over its table, key, sequence and value, and every page is checked when the database is
//!   opened: a damaged, misplaced or hidden record is an error, never an older or another value or none.
//! - The newest sequence also stands in a second synced file. A database that is older than that file was put back from a
//!   copy, or its disk lied about syncing; paying or settling from it would lose money, so it is refused.

mod batch;
mod bench;
mod error;
mod lock;
mod medium;
mod reader;
mod record;
mod sealer;
mod sequence;
mod snapshot;
mod writer;

pub use batch::{Batch, Table};
pub use bench::{GroupCommit, durable_updates};
pub use error::{StoreError, Unpersisted};
pub use medium::{Backend, Layer, Medium};
pub(crate) use sequence::sync_dir;
pub use snapshot::Snapshot;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;

use redb::Database;
use tokio::sync::{mpsc, oneshot};

use lock::DataDirLock;
use medium::Doubt;
use sealer::Sealer;
use writer::{Answer, Write};

/// Proof that `T`'s batch is on disk. Only the store can make one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "what is persisted is meant to be sent"]
pub struct Persisted<T> {
    value: T,
    sequence: u64,
}

impl<T> Persisted<T> {
    /// What may now be sent.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// What may now be sent.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// The sequence the store had reached with this batch.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// The open store of a data directory. Cheap to clone; the last clone closes it and gives the directory free.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    queue: Option<mpsc::Sender<Write>>,
    writer: Option<JoinHandle<()>>,
    // Held until the writer has ended: see the order in `drop`.
    _lock: DataDirLock,
}

/// What writer and readers share.
#[derive(Debug)]
struct Shared {
    /// `None` from an IO error until the writer has opened it anew.
    database: RwLock<Option<Database>>,
    path: PathBuf,
    medium: Medium,
    doubt: Doubt,
    /// Why nothing is written at the moment.
    failing: RwLock<Option<StoreError>>,
    /// Encrypts the tables that hold secrets, once somebody has brought the key.
    sealer: OnceLock<Sealer>,
}

impl Shared {
    /// Why the database cannot be read now.
    fn away(&self) -> StoreError {
        let failing = self.failing.read().unwrap_or_else(PoisonError::into_inner);
        failing.clone().unwrap_or(StoreError::Stopped)
    }
}

/// Batches that may wait for the writer; more callers wait themselves.
const QUEUE: usize = 1024;

impl Store {
    /// Opens the store of the data directory `dir`, creating both if there are none, and takes the directory's lock.
    ///
    /// Errors name the remedy: another daemon holds the directory, the database is older than what was acknowledged,
    /// damaged, or the disk is full.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        Store::open_on(dir, Medium::Disk)
    }

    /// The same on another medium than a plain disk.
    pub fn open_on(dir: &Path, medium: Medium) -> Result<Store, StoreError> {
        create_private_dir(dir)?;
        let lock = DataDirLock::take(dir)?;
        let doubt = Doubt::default();
        let (database, sequence_file) = writer::open(dir, &medium, &doubt)?;
        let (database, path) = (RwLock::new(Some(database)), database_path(dir));
        let shared = Arc::new(Shared { database, path, medium, doubt, failing: RwLock::default(), sealer: OnceLock::new() });
        let (queue, waiting) = mpsc::channel(QUEUE);
        let writer = writer::spawn(Arc::clone(&shared), sequence_file, waiting)?;
        Ok(Store { inner: Arc::new(Inner { shared, queue: Some(queue), writer: Some(writer), _lock: lock }) })
    }

    /// Writes `batch` and, once it is on disk, gives `value` back as something that may be sent. Batches of callers that
    /// wait at the same time share one commit, so many leases cost hardly more than one.
    pub async fn persist<T>(&self, batch: Batch, value: T) -> Result<Persisted<T>, Box<Unpersisted<T>>> {
        let (reply, answer) = oneshot::channel();
        let Some(queue) = &self.inner.queue else {
            return Err(Unpersisted::boxed(StoreError::Stopped, batch, value));
        };
        if let Err(refused) = queue.send(Write { batch, reply }).await {
            return Err(Unpersisted::boxed(StoreError::Stopped, refused.0.batch, value));
        }
        conclude(answer.await, value)
    }

    /// Why nothing is written at the moment; `None` while the disk takes what it is given.
    pub fn failing(&self) -> Option<StoreError> {
        self.inner.shared.failing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same for callers outside the async runtime.
    pub fn persist_blocking<T>(&self, batch: Batch, value: T) -> Result<Persisted<T>, Box<Unpersisted<T>>> {
        let (reply, answer) = oneshot::channel();
        let Some(queue) = &self.inner.queue else {
            return Err(Unpersisted::boxed(StoreError::Stopped, batch, value));
        };
        if let Err(refused) = queue.blocking_send(Write { batch, reply }) {
            return Err(Unpersisted::boxed(StoreError::Stopped, refused.0.batch, value));
        }
        conclude(answer.blocking_recv(), value)
    }

    /// From now on records that hold secrets are encrypted with this key, and those that lie there in the clear are written anew; says
    /// how many. To be called before any of them is read.
    pub async fn seal_with(&self, key: &[u8; 32]) -> Result<usize, StoreError> {
        let _ = self.inner.shared.sealer.set(Sealer::new(key));
        let mut batch = Batch::new();
        let bare = self.bare(Table::Leases)?;
        for (key, value) in &bare {
            batch.put(Table::Leases, key, value);
        }
        if !bare.is_empty() {
            let _persisted = self.persist(batch, ()).await?;
        }
        Ok(bare.len())
    }

    /// Writes all of these records, or none.
    pub async fn put_many(&self, records: &[(Table, &[u8], &[u8])]) -> Result<Persisted<()>, StoreError> {
        let mut batch = Batch::new();
        for (table, key, value) in records {
            batch.put(*table, key, value);
        }
        Ok(self.persist(batch, ()).await?)
    }
}

fn conclude<T>(answer: Result<Answer, oneshot::error::RecvError>, value: T) -> Result<Persisted<T>, Box<Unpersisted<T>>> {
    match answer {
        Ok(Ok(sequence)) => Ok(Persisted { value, sequence }),
        Ok(Err((error, batch))) => Err(Unpersisted::boxed(error, batch, value)),
        Err(_) => Err(Unpersisted::boxed(StoreError::Stopped, Batch::new(), value)),
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Closing the queue ends the writer, which first writes what still waits. Then the database, then the lock.
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        if let Ok(mut database) = self.shared.database.write() {
            *database = None;
        }
    }
}

/// Creates a data directory that only its owner may enter.
pub(crate) fn create_private_dir(dir: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| StoreError::io("create the data directory", dir, e))
}

pub(crate) fn database_path(dir: &Path) -> PathBuf {
    dir.join("state.redb")
}
