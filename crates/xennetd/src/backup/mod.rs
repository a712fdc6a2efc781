//! One file that holds what a person needs after losing a disk: seed, keys, identities, tasks, ledgers, and leases with their channels.
//!
//! It is encrypted as the wallet is, and made while the daemon runs or while it does not. How old it is nobody can tell from it, so each
//! lease that comes out of one signs nothing before the other side has said what was signed since.

mod error;
mod restore;
mod sealed;

pub use error::BackupError;
pub use restore::{Restored, restore};

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bitcoin::Network;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use xennet_chain::{Noted, Passphrase, Purpose, Wallet, WalletError};
use zeroize::Zeroizing;

use crate::config::Config;
use crate::store::{Snapshot, Store, Table, database_path, sync_dir};

/// The longest backup, bytes. A hundred leases have a few MB.
const MOST_BYTES: u64 = 512 * 1024 * 1024;
/// The longest of the files in it, bytes.
const MOST_FILE_BYTES: u64 = 1024 * 1024;

/// The files of a data directory that are backed up as they are. No other name is ever restored.
const FILES: [&str; 10] = [
    "role",
    "network",
    "chain-dir",
    "xennet.toml",
    "keys/publisher.key",
    "keys/node.key",
    "keys/overlay.key",
    "keys/ssh-host.key",
    "keys/ssh-guest.key",
    "keys/derive.key",
];

/// What is in a backup beside the seed.
struct Content {
    network: Network,
    noted: Noted,
    files: Vec<(&'static str, Zeroizing<Vec<u8>>)>,
    snapshot: Snapshot,
}

impl Content {
    fn new(network: Network) -> Content {
        let noted = Noted { birthday_height: 0, received: 0, change: 0 };
        Content { network, noted, files: Vec::new(), snapshot: Snapshot::default() }
    }

    fn count(&self, table: Table) -> u64 {
        self.snapshot.records.iter().filter(|(other, ..)| *other == table).count() as u64
    }
}

/// What may happen to a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays.
    Stays,
    /// The backup takes its place, whole or not at all.
    Replaced,
}

/// A backup that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupView {
    /// Where it is.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Own tasks in it.
    pub tasks: u64,
    /// Leases in it, over or not.
    pub leases: u64,
}

/// Whether a file is a backup of a whole data directory, not of a wallet alone as older versions wrote.
///
/// # Errors
/// If it cannot be read.
pub fn is_whole(path: &Path) -> Result<bool, BackupError> {
    let mut first = Vec::new();
    let read = File::open(path).and_then(|file| file.take(8).read_to_end(&mut first));
    read.map_err(BackupError::io("read", path))?;
    Ok(sealed::begins(&first))
}

/// Backs up the data directory of a daemon that does not run.
///
/// # Errors
/// If one runs, the wallet has no passphrase or another one, or the file is there already or cannot be written.
pub async fn write_alone(config: &Config, passphrase: &Passphrase, file: &Path, existing: Existing) -> Result<BackupView, BackupError> {
    let dir = &config.data_dir;
    let wallet = Wallet::unlock(dir, config.chain.network(), passphrase)?;
    let store = if database_path(dir).exists() { Some(Store::open(dir)?) } else { None };
    if let Some(store) = &store {
        store.seal_with(&*wallet.secret_for(Purpose::Channels)?).await?;
    }
    write(dir, &wallet, store.as_ref(), file, existing)
}

/// Backs up a data directory whose wallet and store are open. The file is whole when this comes back, and on the disk.
///
/// # Errors
/// If the wallet has no passphrase, or the file is there already or cannot be written.
pub fn write(dir: &Path, wallet: &Wallet, store: Option<&Store>, file: &Path, existing: Existing) -> Result<BackupView, BackupError> {
    if existing == Existing::Stays && file.exists() {
        return Err(BackupError::Exists { path: file.to_owned() });
    }
    let sealed_seed = Wallet::backup(dir)?;
    let mut content = Content::new(wallet.network());
    content.noted = wallet.noted()?;
    for name in FILES {
        if let Some(bytes) = read_file(&dir.join(name))? {
            content.files.push((name, bytes));
        }
    }
    if let Some(store) = store {
        content.snapshot = store.snapshot(usize::try_from(MOST_BYTES).unwrap_or(usize::MAX))?;
    }
    let key = wallet.secret_for(Purpose::Backups)?;
    let bytes = sealed::seal(&sealed_seed, &key, &content).map_err(WalletError::Build)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(BackupError::TooLarge { bytes: bytes.len() as u64, limit: MOST_BYTES });
    }
    put(file, &bytes, existing)?;
    let (tasks, leases) = (content.count(Table::Tasks), content.count(Table::Leases));
    Ok(BackupView { file: file.display().to_string(), bytes: bytes.len() as u64, tasks, leases })
}

fn read_file(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, BackupError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(BackupError::io("read", path)(why)),
    };
    read_whole(file, path, MOST_FILE_BYTES).map(Some)
}

/// All of an open file, unless that is more than `limit` bytes.
fn read_whole(file: File, path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, BackupError> {
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(limit + 1).read_to_end(&mut bytes).map_err(BackupError::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(BackupError::TooLarge { bytes: bytes.len() as u64, limit });
    }
    Ok(bytes)
}

/// Writes a file so that it is there whole or not at all.
fn put(path: &Path, bytes: &[u8], existing: Existing) -> Result<(), BackupError> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".new-{}", std::process::id()));
    let new = Path::new(&new);
    let written = fs_write(new, bytes).and_then(|()| match existing {
        Existing::Replaced => fs::rename(new, path),
        Existing::Stays => match renameat_with(CWD, new, CWD, path, RenameFlags::NOREPLACE) {
            // A file system that cannot look and rename in one step.
            Err(rustix::io::Errno::INVAL) if !path.exists() => fs::rename(new, path),
            other => other.map_err(io::Error::from),
        },
    });
    if written.is_err() {
        let _ = fs::remove_file(new);
    }
    written.and_then(|()| sync_parent(path)).map_err(|why| match why.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists { path: path.to_owned() },
        _ => BackupError::io("write the backup", path)(why),
    })
}

fn fs_write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a file's name durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    sync_dir(path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}
