//! What can be wrong with the configuration.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;
use xennet_identity::Role;

/// Something is wrong with a flag, an environment variable or the configuration file.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// One field is wrong.
    #[error("{0}")]
    Field(Box<FieldProblem>),
    /// The data directory is the other side's.
    #[error("the data directory {dir} belongs to a {noted}: give this {wanted} one of its own with --datadir")]
    OtherRole {
        /// The data directory.
        dir: PathBuf,
        /// Whose it is.
        noted: Role,
        /// Who wants it.
        wanted: Role,
    },
    /// The data directory's money is on another chain.
    #[error(
        "the wallet and the channels of {dir} are on {noted}, not on {wanted}: set [chain] back, or use another --datadir. If the \
         chain was moved, write its new place into {note}"
    )]
    OtherChain {
        /// The data directory.
        dir: PathBuf,
        /// The chain it is bound to.
        noted: String,
        /// The chain it was to use.
        wanted: String,
        /// What notes it.
        note: PathBuf,
    },
    /// What notes the side is damaged.
    #[error("{path} must hold the word publisher or node: write the one that this data directory was made for")]
    RoleNote {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot open {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no place for the data directory.
    #[error("there is no home directory to keep data in: set HOME, or give --datadir")]
    NoHome,
}

/// What is wrong with one field: `FILE, line 3: chain.block_interval_s = 0: it is out of bounds; write seconds …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// Where: the file and line, or the flag.
    pub origin: Origin,
    /// The field with its section, e.g. `chain.block_interval_s`; none if the line as a whole is wrong, or for a flag.
    pub field: Option<String>,
    /// The value found, as it was written.
    pub value: Option<String>,
    /// What is wrong with it.
    pub problem: String,
    /// What would be right.
    pub remedy: String,
}

/// Where a setting was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a file.
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// By a flag, e.g. `--log`.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Line { path, line } => write!(f, "{}, line {line}", path.display()),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        match (&self.field, &self.value) {
            (None, None) => {}
            (None, Some(value)) => write!(f, "{value}: ")?,
            (Some(field), None) => write!(f, "{field}: ")?,
            (Some(field), Some(value)) => write!(f, "{field} = {value}: ")?,
        }
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

impl From<FieldProblem> for ConfigError {
    fn from(problem: FieldProblem) -> ConfigError {
        ConfigError::Field(Box::new(problem))
    }
}
