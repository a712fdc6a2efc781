//! What can go wrong with a guest, each with its remedy.

use std::path::PathBuf;
use std::time::Duration;

use crate::qmp::QmpError;

/// Why a guest, its image or its disk cannot be had. A message names the figures and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmError {
    /// QEMU's program is not on the path.
    #[error("qemu-system-x86_64 is not installed: apt-get install qemu-system-x86")]
    QemuMissing,

    /// A program that is needed around QEMU is not on the path.
    #[error("{tool} is not installed: apt-get install {package}")]
    ToolMissing {
        /// The program.
        tool: &'static str,
        /// The Debian package that holds it.
        package: &'static str,
    },

    /// A field of the wanted guest cannot be.
    #[error("{field} is {value}, but must be {expected}")]
    Spec {
        /// The field of [`VmSpec`](crate::VmSpec).
        field: &'static str,
        /// What was asked.
        value: String,
        /// What would be right.
        expected: &'static str,
    },

    /// The host has too little free memory.
    #[error("the guest needs {needed_mib} MiB of memory, but only {available_mib} MiB are free: ask for less, or free some")]
    NotEnoughMemory {
        /// Guest memory and QEMU's own.
        needed_mib: u64,
        /// What the kernel calls available.
        available_mib: u64,
    },

    /// The host has too little free disk.
    #[error("{} has {available_mib} MiB free, but {needed_mib} MiB are needed: free some space, or put the data directory on a larger disk", path.display())]
    DiskFull {
        /// Where the space is wanted.
        path: PathBuf,
        /// What is wanted.
        needed_mib: u64,
        /// What is there.
        available_mib: u64,
    },

    /// A persistent disk from an earlier lease has another size.
    #[error("the persistent disk {} has {has_mib} MiB, but {asked_mib} MiB are asked: ask for {has_mib} MiB, or delete the file", path.display())]
    PersistentSize {
        /// The disk's file.
        path: PathBuf,
        /// Its size.
        has_mib: u64,
        /// The size asked for.
        asked_mib: u64,
    },

    /// The folder already belongs to a living guest.
    #[error("a guest already runs in {} as process {pid}: adopt or stop it first", dir.display())]
    AlreadyRunning {
        /// The guest's folder.
        dir: PathBuf,
        /// Its QEMU.
        pid: u32,
    },

    /// The thin image could not be made.
    #[error("the thin image could not be built: {why}")]
    ImageBuild {
        /// The build script's last words; they hold the remedy.
        why: String,
    },

    /// QEMU ended before it could be spoken to.
    #[error("QEMU did not start: {said}")]
    QemuFailed {
        /// What it wrote.
        said: String,
    },

    /// The guest ended while it was waited for.
    #[error("the guest ended before its SSH server answered; its console said: {console}")]
    GuestEnded {
        /// The end of the guest's console.
        console: String,
    },

    /// The guest's SSH server did not answer in time.
    #[error("the guest's SSH server did not answer within {} s; its console said: {console}", waited.as_secs())]
    NotReady {
        /// How long it was waited for.
        waited: Duration,
        /// The end of the guest's console.
        console: String,
    },

    /// QEMU does not end, not even by SIGKILL.
    #[error("QEMU (process {pid}) does not end: see `ps -o stat,wchan -p {pid}`; a disk that hangs does this")]
    DoesNotEnd {
        /// The process.
        pid: u32,
    },

    /// The file that describes a running guest cannot be read.
    #[error("{} is damaged: end its QEMU by hand if one runs, then delete the folder", path.display())]
    Record {
        /// The file.
        path: PathBuf,
    },

    /// QEMU's control socket failed.
    #[error("QEMU's control socket failed")]
    Qmp(#[from] QmpError),

    /// The system refused something.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Says what was being done when the system refused it.
pub(crate) trait Doing<T> {
    /// Wraps the error; `doing` is called for an error alone.
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, VmError>;
}

impl<T, E: Into<std::io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, VmError> {
        self.map_err(|error| VmError::Io { doing: doing(), source: error.into() })
    }
}
