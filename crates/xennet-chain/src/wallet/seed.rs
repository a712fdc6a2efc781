//! Where the wallet's keys come from, and how its files are opened.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use bdk_wallet::bip39::Mnemonic;
use bdk_wallet::rusqlite::Connection;
use bdk_wallet::{KeychainKind, LoadError, LoadMismatch, LoadWithPersistError};
use bitcoin::bip32::{ChildNumber, DerivationPath, Xpriv, Xpub};
use bitcoin::key::rand::{RngCore as _, rngs::OsRng};
use bitcoin::secp256k1::{SECP256K1, SecretKey};
use bitcoin::{Network, NetworkKind};

use super::{Inner, WalletError};
use crate::secret::write_secret;

/// The words.
const SEED: &str = "seed.txt";
/// The state.
pub(super) const DATABASE: &str = "wallet.sqlite";
/// Longest file that is read for 12 words.
const MAX_SEED: u64 = 4_096;

/// Opens or makes all files of a wallet.
pub(super) fn open(dir: &Path, network: Network) -> Result<Inner, WalletError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(WalletError::io("cannot create", dir))?;
    let lock = lock(dir)?;
    let database_path = dir.join(DATABASE);
    let seed_path = dir.join(SEED);
    let existed = database_path.exists();
    let words = match read_words(&seed_path)? {
        Some(words) => words,
        None if existed => {
            return Err(WalletError::Seed {
                path: seed_path,
                why: format!("it is missing, and {DATABASE} is there: put the 12 words back, without them nothing can be spent"),
            });
        }
        None => make_words(&seed_path)?,
    };
    let master = Xpriv::new_master(network, &words.to_seed("")).map_err(build)?;
    let external = descriptor(&master, network, 0)?;
    let internal = descriptor(&master, network, 1)?;

    let database_error = |why| WalletError::database(dir, why);
    let mut database = Connection::open(&database_path).map_err(database_error)?;
    database.pragma_update(None, "journal_mode", "WAL").map_err(database_error)?;
    database.pragma_update(None, "synchronous", "FULL").map_err(database_error)?;
    let loaded = bdk_wallet::Wallet::load()
        .descriptor(KeychainKind::External, Some(external.clone()))
        .descriptor(KeychainKind::Internal, Some(internal.clone()))
        .check_network(network)
        .load_wallet(&mut database);
    let bdk = match loaded {
        Ok(Some(wallet)) => wallet,
        Ok(None) => bdk_wallet::Wallet::create(external, internal)
            .network(network)
            .create_wallet(&mut database)
            .map_err(|why| WalletError::Mismatch { path: database_path, why: why.to_string() })?,
        Err(LoadWithPersistError::Persist(why)) => return Err(database_error(why)),
        Err(LoadWithPersistError::InvalidChangeSet(why)) => return Err(misfit(dir, why)),
    };
    let clock = bdk.tx_graph().full_txs().filter_map(|tx| tx.last_seen).max().unwrap_or(0);
    Ok(Inner { bdk, database, master, dir: dir.to_owned(), reservations: HashMap::new(), tickets: 0, clock, _lock: lock })
}

/// A public descriptor for BIP84's account 0: what is stored and watched needs no secret.
fn descriptor(master: &Xpriv, network: Network, keychain: u8) -> Result<String, WalletError> {
    let path = account_path(network)?;
    let account = master.derive_priv(SECP256K1, &path).map_err(build)?;
    let public = Xpub::from_priv(SECP256K1, &account);
    Ok(format!("wpkh([{}/{path}]{public}/{keychain}/*)", master.fingerprint(SECP256K1)))
}

/// The secret of an external address.
pub(super) fn key(master: &Xpriv, network: Network, index: u32) -> Result<SecretKey, WalletError> {
    let address = [0, index].map(|number| ChildNumber::Normal { index: number });
    let path = account_path(network)?.extend(address);
    Ok(master.derive_priv(SECP256K1, &path).map_err(build)?.private_key)
}

fn account_path(network: Network) -> Result<DerivationPath, WalletError> {
    let coin = match NetworkKind::from(network) {
        NetworkKind::Main => 0,
        NetworkKind::Test => 1,
    };
    format!("84h/{coin}h/0h").parse().map_err(build)
}

fn build(why: bitcoin::bip32::Error) -> WalletError {
    WalletError::Build(why.to_string())
}

fn read_words(path: &Path) -> Result<Option<Mnemonic>, WalletError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(WalletError::io("cannot open", path)(e)),
    };
    let mode = file.metadata().map_err(WalletError::io("cannot read", path))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(WalletError::Seed {
            path: path.to_owned(),
            why: format!("its mode is {:03o}, so that others can read the words: chmod 600 {}", mode & 0o777, path.display()),
        });
    }
    let mut text = String::new();
    file.take(MAX_SEED).read_to_string(&mut text).map_err(WalletError::io("cannot read", path))?;
    let words: Vec<&str> = text.split_whitespace().collect();
    Mnemonic::parse_normalized(&words.join(" ")).map(Some).map_err(|why| WalletError::Seed {
        path: path.to_owned(),
        why: format!("it holds no BIP39 seed in English ({why}): put the 12 words into it"),
    })
}

fn make_words(path: &Path) -> Result<Mnemonic, WalletError> {
    let mut entropy = [0; 16];
    OsRng.fill_bytes(&mut entropy);
    let words = Mnemonic::from_entropy(&entropy).map_err(|why| WalletError::Seed { path: path.to_owned(), why: why.to_string() })?;
    write_secret(path, &format!("{words}\n")).map_err(WalletError::io("cannot write", path))?;
    Ok(words)
}

fn lock(dir: &Path) -> Result<File, WalletError> {
    let path = dir.join("wallet.lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(WalletError::io("cannot open", &path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let pid = file.take(20).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok()).unwrap_or(0);
            return Err(WalletError::Locked { dir: dir.to_owned(), pid });
        }
        Err(e) => return Err(WalletError::io("cannot lock", &path)(e.into())),
    }
    let note = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    note.map_err(WalletError::io("cannot write", &path))?;
    Ok(file)
}

fn misfit(dir: &Path, why: LoadError) -> WalletError {
    match why {
        LoadError::Mismatch(LoadMismatch::Network { loaded, expected }) => {
            WalletError::WrongNetwork { dir: dir.to_owned(), expected: expected.to_string(), found: loaded.to_string() }
        }
        LoadError::Mismatch(LoadMismatch::Descriptor { .. }) => WalletError::Seed {
            path: dir.join(SEED),
            why: format!("it is not the seed that {DATABASE} was made with: put the right one back, or remove {DATABASE}"),
        },
        other => WalletError::Mismatch { path: dir.join(DATABASE), why: other.to_string() },
    }
}
