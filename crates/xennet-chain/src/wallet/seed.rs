//! The files that hold the seed: `seed.sealed`, encrypted with a passphrase, or `seed.txt`, the bare words.
//!
//! Where both are, the sealed one counts: an encryption was cut short after the sealed file was there for good and before the words
//! were removed. Opening it with the passphrase ends that work.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bitcoin::Network;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::vault::{self, Content, Cost};
use super::{Passphrase, WalletError, Words};
use crate::secret::{remove_secret, write_secret};

/// The bare words.
pub(super) const PLAIN: &str = "seed.txt";
/// The encrypted seed.
pub(super) const SEALED: &str = "seed.sealed";
/// Longest file that is read for a seed.
const MAX_SEED: u64 = 4_096;

/// How a directory keeps its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// There is none.
    Nothing,
    /// Readable by whoever can read the directory.
    Plain,
    /// Encrypted with a passphrase.
    Encrypted,
}

/// What a wallet is made of.
#[derive(Debug, Clone)]
pub struct Seed {
    /// The words.
    pub words: Words,
    /// From where on the chain is to be searched for its coins.
    pub birthday: Birthday,
}

/// Before which block no coin of a wallet can be, so that it need not look there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Birthday {
    /// This block; 0 if nobody knows.
    Height(u32),
    /// The words were made just now: no coin is older than the first look at the chain, unless an address was shown before.
    Now,
}

impl Birthday {
    /// As a height.
    pub(super) fn height(self) -> u32 {
        match self {
            Birthday::Height(height) => height,
            Birthday::Now => 0,
        }
    }
}

/// How a new wallet keeps its seed.
#[derive(Debug, Clone, Copy)]
pub enum Protection<'a> {
    /// Encrypted.
    Passphrase(&'a Passphrase),
    /// As bare words: for play money, or because somebody insists.
    None,
}

/// What is in the sealed file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeedContent {
    pub(super) network: Network,
    pub(super) words: String,
    pub(super) birthday_height: u32,
}

impl SeedContent {
    pub(super) fn of(seed: &Seed, network: Network) -> SeedContent {
        SeedContent { network, words: seed.words.text().to_string(), birthday_height: seed.birthday.height() }
    }

    /// The seed, if it is for this network.
    pub(super) fn seed(&self, network: Network, path: &Path) -> Result<Seed, WalletError> {
        if self.network != network {
            let dir = path.parent().unwrap_or(path).to_owned();
            return Err(WalletError::WrongNetwork { dir, expected: network.to_string(), found: self.network.to_string() });
        }
        let words = Words::parse(&self.words).map_err(|why| WalletError::Damaged { path: path.to_owned(), why: why.to_string() })?;
        Ok(Seed { words, birthday: Birthday::Height(self.birthday_height) })
    }
}

impl Drop for SeedContent {
    fn drop(&mut self) {
        self.words.zeroize();
    }
}

pub(super) fn kept(dir: &Path) -> Kept {
    if dir.join(SEALED).exists() {
        Kept::Encrypted
    } else if dir.join(PLAIN).exists() {
        Kept::Plain
    } else {
        Kept::Nothing
    }
}

/// Writes the seed of a new wallet.
pub(super) fn write(dir: &Path, network: Network, seed: &Seed, protection: Protection<'_>) -> Result<(), WalletError> {
    match protection {
        Protection::Passphrase(passphrase) => write_sealed(dir, network, seed, passphrase, Cost::USUAL),
        Protection::None => {
            let path = dir.join(PLAIN);
            let text = Zeroizing::new(format!("{}\n", seed.words.text().as_str()));
            write_secret(&path, text.as_bytes()).map_err(WalletError::io("cannot write", path))
        }
    }
}

/// Writes the sealed file and reads it back: what cannot be opened again must not take the place of what can.
pub(super) fn write_sealed(dir: &Path, network: Network, seed: &Seed, passphrase: &Passphrase, cost: Cost) -> Result<(), WalletError> {
    let path = dir.join(SEALED);
    let content = Zeroizing::new(serde_json::to_vec(&SeedContent::of(seed, network)).map_err(|why| WalletError::Build(why.to_string()))?);
    let sealed = vault::seal(Content::Seed, &content, passphrase, cost)?;
    let opened = vault::open(Content::Seed, &sealed, passphrase, &path)?;
    if *opened != *content {
        return Err(WalletError::Build("what was encrypted does not come back".to_owned()));
    }
    write_secret(&path, &sealed).map_err(WalletError::io("cannot write", &path))?;
    let on_disk = read_file(&path)?.unwrap_or_default();
    if *on_disk != sealed {
        return Err(WalletError::Damaged { path, why: "the disk gives back something else than was written".to_owned() });
    }
    Ok(())
}

/// Opens the sealed file, and ends an encryption that was cut short.
pub(super) fn read_sealed(dir: &Path, network: Network, passphrase: &Passphrase) -> Result<Seed, WalletError> {
    let path = dir.join(SEALED);
    let file = read_file(&path)?.ok_or_else(|| WalletError::NoWallet { dir: dir.to_owned() })?;
    let seed = open_sealed(&file, network, passphrase, &path)?;
    if let Some(plain) = read_plain(dir)? {
        let left = dir.join(PLAIN);
        if plain != seed.words {
            let why = format!("it holds other words than {SEALED}: move the one that is not this wallet's to another place");
            return Err(WalletError::Seed { path: left, why });
        }
        remove_plain(dir)?;
    }
    Ok(seed)
}

/// The seed in the bytes of a sealed file; `path` is where they come from.
pub(super) fn open_sealed(file: &[u8], network: Network, passphrase: &Passphrase, path: &Path) -> Result<Seed, WalletError> {
    let opened = vault::open(Content::Seed, file, passphrase, path)?;
    let content: SeedContent =
        serde_json::from_slice(&opened).map_err(|why| WalletError::Damaged { path: path.to_owned(), why: why.to_string() })?;
    content.seed(network, path)
}

/// A file from elsewhere, whoever may read it: it is encrypted.
pub(super) fn read_any(path: &Path) -> Result<Vec<u8>, WalletError> {
    let file = File::open(path).map_err(WalletError::io("cannot open", path))?;
    let mut bytes = Vec::new();
    file.take(MAX_SEED).read_to_end(&mut bytes).map_err(WalletError::io("cannot read", path))?;
    Ok(bytes)
}

/// The bare words, if there are any.
pub(super) fn read_plain(dir: &Path) -> Result<Option<Words>, WalletError> {
    let path = dir.join(PLAIN);
    let Some(bytes) = read_file(&path)? else { return Ok(None) };
    let wrong = |why: String| WalletError::Seed {
        path: path.clone(),
        why: format!("it holds no BIP39 seed in English ({why}): put the 12 words into it"),
    };
    let text = std::str::from_utf8(&bytes).map_err(|why| wrong(why.to_string()))?;
    Words::parse(text).map(Some).map_err(|why| wrong(why.to_string()))
}

pub(super) fn remove_plain(dir: &Path) -> Result<(), WalletError> {
    let path: PathBuf = dir.join(PLAIN);
    remove_secret(&path).map_err(WalletError::io("cannot remove", &path))
}

/// A file that only its owner may read; `None` if it is not there.
pub(super) fn read_file(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, WalletError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(WalletError::io("cannot open", path)(e)),
    };
    let mode = file.metadata().map_err(WalletError::io("cannot read", path))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(WalletError::Seed {
            path: path.to_owned(),
            why: format!("its mode is {:03o}, so that others can read it: chmod 600 {}", mode & 0o777, path.display()),
        });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_SEED).read_to_end(&mut bytes).map_err(WalletError::io("cannot read", path))?;
    Ok(Some(bytes))
}
