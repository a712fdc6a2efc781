//! The one thread that writes, and the opening of the database.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::batch::Change;
use super::medium::{Doubt, existing};
use super::sealer::Sealer;
use super::sequence::{self, DatabaseId, SequenceFile, sync_dir};
use super::{Batch, Medium, Shared, StoreError, database_path, record};

/// A batch that waits for the writer.
pub(super) struct Write {
    pub(super) batch: Batch,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// The sequence reached, or the batch back with the reason.
pub(super) type Answer = Result<u64, (StoreError, Batch)>;

pub(super) type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Ledgers of all leases: lease id ‖ index, big-endian, so that a lease's entries lie together in order.
pub(super) const LEDGER: Bytes = TableDefinition::new("ledger");

/// Holds one record: the database's id, under the newest sequence.
const NEWEST: Bytes = TableDefinition::new("newest");
const NEWEST_KEY: &[u8] = b"newest";

/// redb's page cache. The whole state of a hundred leases is a few MB.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// The most batches and bytes in one commit, so that no caller waits without limit behind others.
const MAX_GROUP: usize = 512;
const MAX_GROUP_BYTES: usize = 8 * 1024 * 1024;

/// The largest batch.
const MAX_BATCH_BYTES: usize = 64 * 1024 * 1024;

/// Opens the database and holds it against the sequence file.
pub(super) fn open(dir: &Path, medium: &Medium, doubt: &Doubt) -> Result<(Database, SequenceFile), StoreError> {
    let path = database_path(dir);
    if !path.exists() {
        if let Some(acknowledged) = sequence::read(dir, medium)? {
            return Err(StoreError::RolledBack { path, found: 0, acknowledged: acknowledged.sequence });
        }
        create(dir, &path, medium, doubt)?;
    }
    let acknowledged = sequence::read(dir, medium)?;
    let database = reopen(&path, medium, doubt)?;
    let (id, newest) = newest(&database, &path)?;
    match acknowledged {
        Some(a) if a.id != id => return Err(StoreError::Foreign { path }),
        Some(a) if a.sequence > newest => {
            return Err(StoreError::RolledBack { path, found: newest, acknowledged: a.sequence });
        }
        Some(_) => {}
        None => tracing::warn!(
            "{} is missing: whether {} is the newest state cannot be told this time",
            sequence::path(dir).display(),
            path.display()
        ),
    }
    let file = SequenceFile::open(dir, id, newest, medium)?;
    Ok((database, file))
}

/// Makes the database under another name first: a crash half-way leaves nothing that looks like one.
fn create(dir: &Path, path: &Path, medium: &Medium, doubt: &Doubt) -> Result<(), StoreError> {
    let new = path.with_extension("redb.new");
    let failed = |e| StoreError::io("create", path, e);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(failed)?;
    let database = medium.database(&builder(), file, doubt).map_err(|e| StoreError::database("create", path, e))?;
    let id: DatabaseId = rand::random();
    commit(&database, path, |transaction| note_newest(transaction, path, &id, 1))?;
    drop(database);
    fs::rename(&new, path).and_then(|()| sync_dir(dir)).map_err(failed)?;
    SequenceFile::open(dir, id, 1, medium).map(drop)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    // A record's own checksum tells when it is damaged, but not when damage above it in the tree hides it: a lease that is not
    // found would be a channel that is not settled. So every page is checked before any is believed.
    builder.set_check_integrity_on_open(true);
    builder
}

fn reopen(path: &Path, medium: &Medium, doubt: &Doubt) -> Result<Database, StoreError> {
    let file = existing(path).map_err(|e| StoreError::io("open", path, e))?;
    medium.database(&builder(), file, doubt).map_err(|e| StoreError::database("open", path, e))
}

fn newest(database: &Database, path: &Path) -> Result<(DatabaseId, u64), StoreError> {
    let failed = |e: redb::Error| StoreError::database("read", path, e);
    let transaction = database.begin_read().map_err(|e| failed(e.into()))?;
    let table = transaction.open_table(NEWEST).map_err(|e| failed(e.into()))?;
    let found = table.get(NEWEST_KEY).map_err(|e| failed(e.into()))?;
    found
        .and_then(|found| {
            let (sequence, id) = record::open("newest", NEWEST_KEY, found.value())?;
            Some((id.try_into().ok()?, sequence))
        })
        .ok_or_else(|| StoreError::damaged(path, "its newest sequence is missing or has a wrong checksum"))
}

/// Starts the writer. It ends when the queue is closed and empty.
pub(super) fn spawn(shared: Arc<Shared>, file: SequenceFile, waiting: mpsc::Receiver<Write>) -> Result<JoinHandle<()>, StoreError> {
    let path = shared.path.clone();
    let writer = Writer { shared, file, unacknowledged: Vec::new(), in_doubt: None };
    thread::Builder::new()
        .name("store".into())
        .spawn(move || writer.run(waiting))
        .map_err(|e| StoreError::io("start the thread that writes", &path, e))
}

struct Writer {
    shared: Arc<Shared>,
    file: SequenceFile,
    /// Batches that are in the database and were not acknowledged, for the disk failed after that. They will come again.
    unacknowledged: Vec<Weak<()>>,
    /// A commit that failed. Whether it is in the database shows when that is opened anew.
    in_doubt: Option<InDoubt>,
}

struct InDoubt {
    /// What the database said before, and what it says with the commit.
    before: u64,
    after: u64,
    batches: Vec<Weak<()>>,
}

impl Writer {
    fn run(mut self, mut waiting: mpsc::Receiver<Write>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut bytes = 0;
            let mut group = Vec::new();
            let mut next = Some(first);
            while let Some(write) = next {
                if write.batch.bytes() > MAX_BATCH_BYTES {
                    let error = StoreError::TooLarge { bytes: write.batch.bytes(), limit: MAX_BATCH_BYTES };
                    let _ = write.reply.send(Err((error, write.batch)));
                } else {
                    bytes += write.batch.bytes();
                    group.push(write);
                }
                next = if group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES { waiting.try_recv().ok() } else { None };
            }
            let outcome = self.write(&group);
            for Write { batch, reply } in group {
                // A caller that no longer waits has lost nothing: its batch is on disk, or it never heard that it is.
                let _ = match &outcome {
                    Ok(sequence) => reply.send(Ok(*sequence)),
                    Err(error) => reply.send(Err((error.clone(), batch))),
                };
            }
        }
    }

    /// Writes a group in one commit, then the sequence file: only then may anything be acknowledged.
    fn write(&mut self, group: &[Write]) -> Result<u64, StoreError> {
        let outcome = self.try_write(group);
        if let Err(error) = &outcome {
            tracing::error!("{error}");
            self.fails(Some(error.clone()));
            // After an IO error redb refuses all work until it is opened anew. What it then holds is what was committed.
            *self.shared.database.write().unwrap_or_else(PoisonError::into_inner) = None;
            if let Err(e) = self.open_anew() {
                tracing::error!("{e}");
            }
        } else {
            self.fails(None);
        }
        outcome
    }

    fn fails(&self, why: Option<StoreError>) {
        *self.shared.failing.write().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Opens the database after a failure, and sees whether the commit that failed is in it.
    fn open_anew(&mut self) -> Result<(), StoreError> {
        let Shared { path, medium, doubt, .. } = &*self.shared;
        if doubt.is_raised() {
            medium.renew(path, doubt).map_err(|e| StoreError::io("write anew", path, e))?;
        }
        let fresh = reopen(path, medium, doubt)?;
        let (_, newest) = newest(&fresh, path)?;
        if let Some(InDoubt { before, after, batches }) = self.in_doubt.take() {
            match newest {
                newest if newest == after => self.unacknowledged.extend(batches),
                newest if newest == before => {}
                other => {
                    let what = format!("its newest sequence is {other}, but {before} was there and {after} was to be written");
                    return Err(StoreError::damaged(path, what));
                }
            }
        }
        *self.shared.database.write().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        Ok(())
    }

    fn try_write(&mut self, group: &[Write]) -> Result<u64, StoreError> {
        if self.shared.database.read().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.open_anew()?;
        }
        let path = &self.shared.path;
        let guard = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or(StoreError::Stopped)?;
        let (id, before) = newest(database, path)?;
        // What is there already is not written twice, a ledger would have its lines twice. The commit is made all the same: it is what
        // makes sure that all of it is on the disk.
        let is_there = |mark: &Weak<()>| self.unacknowledged.iter().any(|other| other.ptr_eq(mark));
        let fresh: Vec<&Batch> = group.iter().map(|write| &write.batch).filter(|batch| !is_there(&batch.mark())).collect();
        let after = before + fresh.iter().map(|batch| batch.changes.len() as u64).sum::<u64>();
        let batches: Vec<_> = fresh.iter().map(|batch| batch.mark()).collect();
        self.in_doubt = Some(InDoubt { before, after, batches: batches.clone() });
        commit(database, path, |transaction| {
            let changes = fresh.iter().flat_map(|batch| &batch.changes);
            for (sequence, change) in (before + 1..).zip(changes) {
                apply(transaction, path, sequence, change, self.shared.sealer.get())?;
            }
            note_newest(transaction, path, &id, after)
        })?;
        self.in_doubt = None;
        self.unacknowledged.extend(batches);
        self.file.write(after)?;
        // Those that nobody has any more never come again.
        self.unacknowledged.retain(|mark| mark.strong_count() > 0 && !group.iter().any(|write| write.batch.mark().ptr_eq(mark)));
        Ok(after)
    }
}

fn commit(database: &Database, path: &Path, fill: impl FnOnce(&WriteTransaction) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let failed = |e: redb::Error| StoreError::database("write", path, e);
    let mut transaction = database.begin_write().map_err(|e| failed(e.into()))?;
    transaction.set_durability(Durability::Immediate).map_err(|e| failed(e.into()))?;
    // One phase trusts checksums to tell a torn commit from a whole one; two phases need not.
    transaction.set_two_phase_commit(true);
    fill(&transaction)?;
    transaction.commit().map_err(|e| failed(e.into()))
}

fn note_newest(transaction: &WriteTransaction, path: &Path, id: &DatabaseId, sequence: u64) -> Result<(), StoreError> {
    put(transaction, path, NEWEST, "newest", NEWEST_KEY, sequence, id)
}

fn put(
    transaction: &WriteTransaction,
    path: &Path,
    definition: Bytes,
    name: &str,
    key: &[u8],
    sequence: u64,
    value: &[u8],
) -> Result<(), StoreError> {
    let failed = |e: redb::Error| StoreError::database("write", path, e);
    let mut table = transaction.open_table(definition).map_err(|e| failed(e.into()))?;
    let record = record::seal(name, key, sequence, value);
    table.insert(key, record.as_slice()).map_err(|e| failed(e.into()))?;
    Ok(())
}

fn apply(transaction: &WriteTransaction, path: &Path, sequence: u64, change: &Change, sealer: Option<&Sealer>) -> Result<(), StoreError> {
    let failed = |e: redb::Error| StoreError::database("write", path, e);
    match change {
        Change::Put { table, key, value } => {
            let definition = TableDefinition::new(table.name());
            let sealed = match sealer {
                Some(sealer) if table.is_secret() => Some(sealer.seal(table.name(), key, value)?),
                _ => None,
            };
            let value = sealed.as_ref().unwrap_or(value);
            put(transaction, path, definition, table.name(), key, sequence, value)
        }
        Change::Delete { table, key } => {
            let definition: Bytes = TableDefinition::new(table.name());
            let mut table = transaction.open_table(definition).map_err(|e| failed(e.into()))?;
            table.remove(key.as_slice()).map_err(|e| failed(e.into()))?;
            Ok(())
        }
        Change::Append { lease, entry } => {
            let next = {
                let table = transaction.open_table(LEDGER).map_err(|e| failed(e.into()))?;
                ledger_length(&table, &lease.0).map_err(|e| failed(e.into()))?
            };
            let key = ledger_key(&lease.0, next);
            put(transaction, path, LEDGER, "ledger", &key, sequence, entry)
        }
    }
}

pub(super) fn ledger_key(lease: &[u8; 8], index: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(lease);
    key[8..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Entries of a lease's ledger: one more than its last index.
pub(super) fn ledger_length(table: &impl ReadableTable<&'static [u8], &'static [u8]>, lease: &[u8; 8]) -> Result<u64, redb::StorageError> {
    let first = ledger_key(lease, 0);
    let last = ledger_key(lease, u64::MAX);
    let Some(newest) = table.range(first.as_slice()..=last.as_slice())?.next_back() else {
        return Ok(0);
    };
    let (key, _) = newest?;
    let index = key.value().last_chunk::<8>().map_or(0, |index| u64::from_be_bytes(*index));
    Ok(index.saturating_add(1))
}
