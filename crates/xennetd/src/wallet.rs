//! The wallet's files as a user deals with them: made, brought back, encrypted, copied. None of it needs a daemon.

use std::io::{BufRead, IsTerminal};
use std::path::Path;

use anyhow::Context;
use bitcoin::Network;
use rand::rngs::OsRng;
pub use xennet_chain::{
    Birthday, HistoryEntry, Kept, Kind, Passphrase, PassphraseError, Protection, Seed, Status, Wallet, WalletError, Words,
};

use crate::config::Config;

/// Opens the wallet of a daemon. Play money needs no ceremony: on regtest a wallet without a passphrase is made where there is none.
///
/// # Errors
/// What is wrong with its files or the passphrase, and what to do.
pub(crate) fn open(config: &Config) -> anyhow::Result<Wallet> {
    let (dir, network) = (&config.data_dir, config.chain.network());
    match Wallet::kept(dir) {
        Kept::Encrypted => {
            let passphrase = passphrase_of(config, "passphrase of the wallet: ")?.with_context(|| {
                format!(
                    "the wallet in {} is encrypted, and nobody is there to ask for its passphrase: name a file that holds it with \
                     XENNET_PASSPHRASE_FILE, or as passphrase_file under [wallet]",
                    dir.display()
                )
            })?;
            Ok(Wallet::unlock(dir, network, &passphrase)?)
        }
        Kept::Plain => Ok(Wallet::open(dir, network)?),
        Kept::Nothing if network == Network::Regtest => Ok(Wallet::open(dir, network)?),
        Kept::Nothing => anyhow::bail!(
            "there is no wallet in {}: make one with `xennet wallet create`, or bring one back with `xennet wallet restore`",
            dir.display()
        ),
    }
}

/// The passphrase out of the file that the configuration names, else as somebody types it; `None` if nobody is there.
///
/// # Errors
/// If the file cannot be used.
pub fn passphrase_of(config: &Config, question: &str) -> anyhow::Result<Option<Passphrase>> {
    match &config.wallet.passphrase_file {
        Some(path) => Ok(Some(Passphrase::read(path)?)),
        None => ask(question),
    }
}

/// Asks on the terminal without showing what is typed; `None` if there is no terminal.
///
/// # Errors
/// If what was typed is no passphrase.
pub fn ask(question: &str) -> anyhow::Result<Option<Passphrase>> {
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    let text = rpassword::prompt_password(question).context("the terminal cannot be read")?;
    Ok(Some(Passphrase::new(text)?))
}

/// Words of a seed, from the terminal without showing them, else from standard input.
///
/// # Errors
/// Which word is wrong, or that they do not belong together.
pub fn ask_words(question: &str) -> anyhow::Result<Words> {
    let text = if std::io::stdin().is_terminal() {
        rpassword::prompt_password(question).context("the terminal cannot be read")?
    } else {
        let mut text = String::new();
        std::io::stdin().lock().read_line(&mut text).context("standard input cannot be read")?;
        text
    };
    Ok(Words::parse(&text)?)
}

/// Which words of a seed to ask for again, from 0: drawn from the system's randomness, none twice.
pub fn places_to_ask(words: usize, asked: usize) -> Vec<usize> {
    rand::seq::index::sample(&mut OsRng, words, asked.min(words)).into_vec()
}

/// Makes a wallet of these words.
///
/// # Errors
/// If there is one already, or it cannot be written.
pub fn create(config: &Config, words: Words, birthday: Birthday, passphrase: Option<&Passphrase>) -> Result<(), WalletError> {
    let protection = passphrase.map_or(Protection::None, Protection::Passphrase);
    let seed = Seed { words, birthday };
    Wallet::create(&config.data_dir, config.chain.network(), &seed, protection).map(drop)
}

/// Brings a wallet back from a backup.
///
/// # Errors
/// If there is a wallet already, or the backup does not open.
pub fn restore_backup(config: &Config, backup: &Path, passphrase: &Passphrase) -> Result<(), WalletError> {
    Wallet::restore_backup(&config.data_dir, config.chain.network(), backup, passphrase).map(drop)
}

/// Encrypts the wallet, or gives it another passphrase.
///
/// # Errors
/// If the current passphrase is wrong, the new one too short, or a daemon holds the wallet.
pub fn encrypt(config: &Config, current: Option<&Passphrase>, new: &Passphrase) -> Result<(), WalletError> {
    let (dir, network) = (&config.data_dir, config.chain.network());
    let wallet = match (Wallet::kept(dir), current) {
        (Kept::Encrypted, Some(current)) => Wallet::unlock(dir, network, current)?,
        (Kept::Encrypted, None) => return Err(WalletError::NeedsPassphrase { dir: dir.clone() }),
        (Kept::Plain, _) => Wallet::open(dir, network)?,
        (Kept::Nothing, _) => return Err(WalletError::NoWallet { dir: dir.clone() }),
    };
    wallet.encrypt(current, new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_word_may_be_asked_for_and_none_is_asked_for_twice() {
        let mut seen = [false; 24];
        for _ in 0..2_000 {
            let places = places_to_ask(24, 3);
            assert_eq!(places.len(), 3);
            for (nth, at) in places.iter().enumerate() {
                assert!(*at < 24 && !places[..nth].contains(at), "{places:?}");
                seen[*at] = true;
            }
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
