//! The passphrase of a wallet, and where it is read from.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The least for a new passphrase.
const MIN_LENGTH: usize = 8;
/// The most.
const MAX_LENGTH: usize = 1_024;

/// What a wallet's seed is encrypted with. Never shown by `Debug`, and wiped from memory when dropped.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

/// Why a passphrase cannot be had or used.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// There is none.
    #[error("the passphrase is empty: type one, or put it into the first line of the file")]
    Empty,
    /// Too short to be worth anything.
    #[error("the passphrase has {length} characters, and a new one needs at least {MIN_LENGTH}: take for example five random words")]
    Short {
        /// Its length.
        length: usize,
    },
    /// Longer than any passphrase.
    #[error("the passphrase is longer than {MAX_LENGTH} bytes: is it the right file?")]
    Long,
    /// A file with more than one line.
    #[error("{path} has more than one line, and only the passphrase may be in it: is it the right file?", path = path.display())]
    Lines {
        /// The file.
        path: PathBuf,
    },
    /// Others may read it.
    #[error("{path} has mode {mode:03o}, so that others can read the passphrase: chmod 600 {path}", path = path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file cannot be read.
    #[error("the passphrase cannot be read from {path}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Passphrase {
    /// A passphrase to open something with. Bytes as typed, UTF-8; nothing is trimmed.
    pub fn new(text: impl Into<String>) -> Result<Passphrase, PassphraseError> {
        let text = Zeroizing::new(text.into());
        match text.len() {
            0 => Err(PassphraseError::Empty),
            length if length > MAX_LENGTH => Err(PassphraseError::Long),
            _ => Ok(Passphrase(text)),
        }
    }

    /// The first and only line of a file that nobody else may read.
    pub fn read(path: &Path) -> Result<Passphrase, PassphraseError> {
        let failed = |source| PassphraseError::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let kind = file.metadata().map_err(failed)?;
        let mode = kind.permissions().mode() & 0o777;
        // A pipe, as of a shell's <(…), has nobody else at its end.
        if kind.is_file() && mode & 0o077 != 0 {
            return Err(PassphraseError::TooOpen { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        let most = u64::try_from(MAX_LENGTH).unwrap_or(u64::MAX) + 3;
        file.take(most).read_to_string(&mut text).map_err(failed)?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.contains('\n') {
            return Err(PassphraseError::Lines { path: path.to_owned() });
        }
        Passphrase::new(line)
    }

    /// Writes it as the one line of a file, for a process that reads it with [`Passphrase::read`].
    pub fn write_line(&self, to: &mut impl std::io::Write) -> std::io::Result<()> {
        to.write_all(self.0.as_bytes())?;
        to.write_all(b"\n")
    }

    /// Whether it may protect something new.
    pub fn check_new(&self) -> Result<(), PassphraseError> {
        let length = self.0.chars().count();
        if length < MIN_LENGTH { Err(PassphraseError::Short { length }) } else { Ok(()) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether two are the same, as when a new one is typed twice.
    pub fn is(&self, other: &Passphrase) -> bool {
        *self.0 == *other.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(not shown)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_gives_its_one_line_and_only_to_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        let write = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            Passphrase::read(&path)
        };
        for text in ["a b c d ", "a b c d \n", "a b c d \r\n"] {
            assert!(write(text, 0o600).unwrap().is(&Passphrase::new("a b c d ").unwrap()));
        }
        assert!(matches!(write("two\nlines\n", 0o600), Err(PassphraseError::Lines { .. })));
        assert!(matches!(write("\n", 0o600), Err(PassphraseError::Empty)));
        assert!(matches!(write(&"x".repeat(5_000), 0o400), Err(PassphraseError::Long)));
        let message = write("secret", 0o640).unwrap_err().to_string();
        assert!(message.contains("mode 640") && message.contains("chmod 600"), "{message}");
        assert!(matches!(Passphrase::read(&dir.path().join("none")), Err(PassphraseError::File { .. })));
    }

    #[test]
    fn a_new_one_has_a_least_length() {
        assert!(matches!(Passphrase::new("seven77").unwrap().check_new(), Err(PassphraseError::Short { length: 7 })));
        assert!(Passphrase::new("eight888").unwrap().check_new().is_ok());
        assert!(!format!("{:?}", Passphrase::new("eight888").unwrap()).contains("888"));
    }
}
