//! How the wallet's files are opened and made.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use bdk_wallet::rusqlite::Connection;
use bdk_wallet::{KeychainKind, LoadError, LoadMismatch, LoadWithPersistError};
use bitcoin::bip32::{ChildNumber, DerivationPath, Xpriv, Xpub};
use bitcoin::secp256k1::{SECP256K1, SecretKey};
use bitcoin::{Network, NetworkKind};

use super::seed::{self, Birthday, Kept, PLAIN, Protection, SEALED, Seed};
use super::{Inner, Passphrase, Purpose, WalletError, Words, notes};

/// The state.
pub(super) const DATABASE: &str = "wallet.sqlite";
/// How many addresses beyond the last one handed out are watched. Each lease takes a key, also one that comes to nothing, so between
/// two that hold coins there may be many that never did; a wallet restored from its words alone must find both.
const LOOKAHEAD: u32 = 500;

/// Who asks for the wallet.
#[derive(Clone, Copy)]
pub(super) enum Access<'a> {
    /// Somebody without a passphrase. Makes a wallet of bare words if there is none.
    Plain,
    /// Somebody with the passphrase.
    With(&'a Passphrase),
    /// Somebody who brings the seed of a new wallet.
    New(&'a Seed, Protection<'a>),
}

/// Opens or makes all files of a wallet.
pub(super) fn open(dir: &Path, network: Network, access: Access<'_>) -> Result<Inner, WalletError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(WalletError::io("cannot create", dir))?;
    let lock = lock(dir)?;
    let seed = seed_of(dir, network, access)?;
    open_database(dir, network, seed, lock)
}

fn seed_of(dir: &Path, network: Network, access: Access<'_>) -> Result<Seed, WalletError> {
    let bare = |words| Seed { words, birthday: Birthday::Height(0) };
    let kept = seed::kept(dir);
    let database = dir.join(DATABASE).exists();
    match (access, kept) {
        (Access::New(..), Kept::Plain | Kept::Encrypted) => Err(WalletError::Exists { dir: dir.to_owned() }),
        (Access::New(seed, protection), Kept::Nothing) if !database => {
            if let Protection::Passphrase(passphrase) = protection {
                passphrase.check_new()?;
            }
            seed::write(dir, network, seed, protection)?;
            Ok(seed.clone())
        }
        (Access::Plain, Kept::Plain) => seed::read_plain(dir)?.map(bare).ok_or_else(|| WalletError::NoWallet { dir: dir.to_owned() }),
        (Access::Plain, Kept::Encrypted) => Err(WalletError::NeedsPassphrase { dir: dir.to_owned() }),
        (Access::Plain, Kept::Nothing) if !database => {
            let seed = bare(Words::random());
            seed::write(dir, network, &seed, Protection::None)?;
            Ok(seed)
        }
        (Access::With(passphrase), Kept::Encrypted) => seed::read_sealed(dir, network, passphrase),
        (Access::With(_), Kept::Plain) => Err(WalletError::NotEncrypted { dir: dir.to_owned() }),
        (Access::With(_), Kept::Nothing) if !database => Err(WalletError::NoWallet { dir: dir.to_owned() }),
        (_, Kept::Nothing) => Err(WalletError::Seed {
            path: dir.join(PLAIN),
            why: format!("it is missing, as is {SEALED}, and {DATABASE} is there: put the seed back, without it nothing can be spent"),
        }),
    }
}

fn open_database(dir: &Path, network: Network, seed: Seed, lock: File) -> Result<Inner, WalletError> {
    let master = Xpriv::new_master(network, &*seed.words.seed()).map_err(build)?;
    let external = descriptor(&master, network, 0)?;
    let internal = descriptor(&master, network, 1)?;
    let database_path = dir.join(DATABASE);
    let database_error = |why| WalletError::database(dir, why);
    let mut database = Connection::open(&database_path).map_err(database_error)?;
    database.pragma_update(None, "journal_mode", "WAL").map_err(database_error)?;
    database.pragma_update(None, "synchronous", "FULL").map_err(database_error)?;
    let loaded = bdk_wallet::Wallet::load()
        .descriptor(KeychainKind::External, Some(external.clone()))
        .descriptor(KeychainKind::Internal, Some(internal.clone()))
        .check_network(network)
        .lookahead(LOOKAHEAD)
        .load_wallet(&mut database);
    let bdk = match loaded {
        Ok(Some(wallet)) => wallet,
        Ok(None) => bdk_wallet::Wallet::create(external, internal)
            .network(network)
            .lookahead(LOOKAHEAD)
            .create_wallet(&mut database)
            .map_err(|why| WalletError::Mismatch { path: database_path, why: why.to_string() })?,
        Err(LoadWithPersistError::Persist(why)) => return Err(database_error(why)),
        Err(LoadWithPersistError::InvalidChangeSet(why)) => return Err(misfit(dir, why)),
    };
    notes::prepare(&database, seed.birthday).map_err(database_error)?;
    let clock = bdk.tx_graph().full_txs().filter_map(|tx| tx.last_seen).max().unwrap_or(0);
    Ok(Inner { bdk, database, master, seed, dir: dir.to_owned(), reservations: HashMap::new(), tickets: 0, clock, _lock: lock })
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

/// The secret of a purpose: m/1481524564h/PURPOSEh, where the first number is "XNET".
pub(super) fn branch(master: &Xpriv, purpose: Purpose) -> Result<SecretKey, WalletError> {
    let path = [u32::from_be_bytes(*b"XNET"), purpose as u32].map(|number| ChildNumber::Hardened { index: number });
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
            path: dir.join(if seed::kept(dir) == Kept::Encrypted { SEALED } else { PLAIN }),
            why: format!("it is not the seed that {DATABASE} was made with: put the right one back, or remove {DATABASE}"),
        },
        other => WalletError::Mismatch { path: dir.join(DATABASE), why: other.to_string() },
    }
}
