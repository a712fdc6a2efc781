//! What a machine was measured to do, and how large it was made.

use serde::{Deserialize, Serialize};
use xennet_task::Acceptance;

/// What the benchmark found inside a guest, by the publisher's clock or by the node's.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Figures {
    /// Cores that worked at once.
    pub cores: u16,
    /// Effective clock of each core, MHz: steps of a dependent chain of 64-bit operations per microsecond. An emulated core
    /// reaches a few hundred.
    pub core_mhz: u32,
    /// Memory the guest's kernel reports, MiB. A little less than the machine was given.
    pub memory_mib: u32,
    /// Memory speed, MB/s (10^6 bytes per second).
    pub memory_mb_s: u32,
    /// Temporary disk the guest sees, MiB. A little less than the machine was given.
    pub disk_mib: u32,
    /// Sequential write to the temporary disk, synced, MB/s.
    pub disk_write_mb_s: u32,
    /// Sequential read from the temporary disk, MB/s.
    pub disk_read_mb_s: u32,
    /// Into the guest, kbit/s.
    pub down_kbit_s: u32,
    /// Out of the guest, kbit/s.
    pub up_kbit_s: u32,
    /// How long the benchmark took, milliseconds.
    pub took_ms: u32,
}

/// How large a machine was made: what its time is multiplied by.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Size {
    /// Cores.
    pub cores: u16,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Temporary disk, MiB.
    pub disk_mib: u32,
    /// Persistent storage, MiB.
    pub persistent_mib: u32,
}

impl From<&Acceptance> for Size {
    fn from(accepted: &Acceptance) -> Size {
        Size {
            cores: accepted.compute.cores,
            memory_mib: accepted.memory_mib,
            disk_mib: accepted.disk_mib,
            persistent_mib: accepted.persistent_mib,
        }
    }
}
