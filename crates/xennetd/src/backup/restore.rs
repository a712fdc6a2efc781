//! Out of a backup, a data directory.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bitcoin::Network;
use serde::Serialize;
use xennet_chain::{Birthday, Passphrase, Protection, Purpose, Seed, Wallet};
use xennet_lease::{Lease, LedgerEntry};

use super::{BackupError, Content, MOST_BYTES, fs_write, read_whole, sealed, sync_parent};
use crate::control::TaskState;
use crate::daemon::OwnTask;
use crate::store::{Batch, Snapshot, Store, StoreError, Table, create_private_dir};

/// Bytes of records that are written at once.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// What came out of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Where it is now.
    pub data_dir: String,
    /// The network of its money.
    pub network: Network,
    /// Own tasks; those that were open are taken back.
    pub tasks: u64,
    /// Leases, over or not.
    pub leases: u64,
    /// Those of them that are not over. They sign nothing before the other side has said what was signed after the backup.
    pub unsettled: u64,
}

/// Restores a backup into a directory that is empty or not there. `wanted` is the network that the configuration names, if there is one.
///
/// # Errors
/// Each leaves everything as it was: the directory is not empty, the file is damaged, newer, for another network, or its passphrase wrong.
pub async fn restore(dir: &Path, wanted: Option<Network>, backup: &Path, passphrase: &Passphrase) -> Result<Restored, BackupError> {
    refuse_occupied(dir)?;
    let file = File::open(backup).map_err(BackupError::io("read", backup))?;
    let bytes = read_whole(file, backup, MOST_BYTES)?;
    let (seed, mut content) = sealed::open(&bytes, passphrase, backup)?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != content.network) {
        return Err(BackupError::OtherNetwork { path: backup.to_owned(), found: content.network, wanted });
    }
    let unsettled = distrust(&mut content.snapshot, backup)?;
    let staging = beside(dir);
    let made = match clear(&staging) {
        Ok(()) => make(&staging, &seed, &content, passphrase).await.and_then(|()| move_in(&staging, dir)),
        Err(why) => Err(why),
    };
    if made.is_err() {
        let _ = clear(&staging);
    }
    made?;
    Ok(Restored {
        data_dir: dir.display().to_string(),
        network: content.network,
        tasks: content.count(Table::Tasks),
        leases: content.count(Table::Leases),
        unsettled,
    })
}

fn refuse_occupied(dir: &Path) -> Result<(), BackupError> {
    let first = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next(),
        Err(why) if why.kind() == io::ErrorKind::NotFound => None,
        Err(why) => return Err(BackupError::io("look into the data directory", dir)(why)),
    };
    let Some(found) = first else { return Ok(()) };
    let found = found.map_err(BackupError::io("look into the data directory", dir))?.file_name();
    Err(BackupError::Occupied { dir: dir.to_owned(), found: found.display().to_string() })
}

/// Marks what may have gone on since the backup; gives the number of leases that are not over. A task that was open may have been filled
/// since by a lease that is not in the backup: leasing again could spend its budget twice.
fn distrust(snapshot: &mut Snapshot, path: &Path) -> Result<u64, BackupError> {
    let damaged = |why: serde_json::Error| BackupError::Damaged { path: path.to_owned(), why: why.to_string() };
    let mut unsettled = 0;
    for (table, _, value) in &mut snapshot.records {
        match table {
            Table::Leases => {
                let mut lease: Lease = serde_json::from_slice(value).map_err(damaged)?;
                lease.came_from_backup();
                unsettled += u64::from(!lease.is_over());
                *value = serde_json::to_vec(&lease).map_err(damaged)?;
            }
            Table::Tasks => {
                let mut task: OwnTask = serde_json::from_slice(value).map_err(damaged)?;
                if matches!(task.state, TaskState::Publishing | TaskState::Open) {
                    task.state = TaskState::Cancelled;
                }
                *value = serde_json::to_vec(&task).map_err(damaged)?;
            }
            _ => {}
        }
    }
    Ok(unsettled)
}

/// Where the new data directory is made, on the same file system.
fn beside(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().map_or_else(|| OsString::from("xennet"), OsString::from);
    name.push(".restoring");
    dir.with_file_name(name)
}

fn clear(staging: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(staging) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(BackupError::io("remove", staging)(why)),
        _ => Ok(()),
    }
}

async fn make(dir: &Path, seed: &Seed, content: &Content, passphrase: &Passphrase) -> Result<(), BackupError> {
    create_private_dir(&dir.join("keys"))?;
    for (name, bytes) in &content.files {
        let path = dir.join(name);
        fs_write(&path, bytes).map_err(BackupError::io("write", &path))?;
    }
    sync_parent(&dir.join("keys/any")).map_err(BackupError::io("write", dir))?;
    let seed = Seed { words: seed.words.clone(), birthday: Birthday::Height(content.noted.birthday_height) };
    let wallet = Wallet::create(dir, content.network, &seed, Protection::Passphrase(passphrase))?;
    wallet.take_over(&content.noted)?;
    let store = Store::open(dir)?;
    store.seal_with(&*wallet.secret_for(Purpose::Channels)?).await?;
    let mut batch = Batch::new();
    for (table, key, value) in &content.snapshot.records {
        batch.put(*table, key, value);
        flush(&store, &mut batch, BATCH_BYTES).await?;
    }
    for (lease, entry) in &content.snapshot.ledgers {
        let entry: LedgerEntry = serde_json::from_slice(entry).map_err(|why| StoreError::Json { table: "ledger", why: why.to_string() })?;
        batch.append(*lease, &entry)?;
        flush(&store, &mut batch, BATCH_BYTES).await?;
    }
    flush(&store, &mut batch, 0).await
}

/// Writes what has been gathered, if it is more than this.
async fn flush(store: &Store, batch: &mut Batch, above_bytes: usize) -> Result<(), BackupError> {
    if batch.bytes() > above_bytes {
        let _persisted = store.persist(std::mem::take(batch), ()).await.map_err(StoreError::from)?;
    }
    Ok(())
}

/// The one step that is seen: a directory takes the place of an empty one, or of none.
fn move_in(staging: &Path, dir: &Path) -> Result<(), BackupError> {
    let moved = fs::rename(staging, dir).and_then(|()| sync_parent(dir));
    moved.map_err(BackupError::io("move the restored files to", dir))
}
