//! What a task asks of the virtual machine.

use serde::{Deserialize, Serialize};

use crate::limits::{self, FieldError};
use crate::wire::{DecodeError, Reader, put_text, put_varint};

/// What the virtual machine must have. Zero or an empty list: no such requirement.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Requirements {
    /// Operating systems to choose from, best first, e.g. `thin`, `debian-12`. Lower-case ASCII letters, digits, `-`, `.`;
    /// at most 8 names of at most [`Requirements::MAX_NAME`] bytes, together at most [`Requirements::MAX_NAMES`].
    pub operating_systems: Vec<String>,
    /// Network bandwidth of the guest, kbit/s.
    pub bandwidth_kbit_s: u32,
    /// Temporary disk.
    pub storage: Storage,
    /// Size of persistent storage, MiB.
    pub persistent_mib: u32,
    /// Alternatives, at most 8; the node chooses one. Empty: one core of any clock.
    pub compute: Vec<Compute>,
    /// Memory for each core, MiB.
    pub memory_per_core_mib: u32,
    /// Memory speed, MB/s (10^6 bytes per second).
    pub memory_mb_s: u32,
}

/// Temporary disk: how much and how fast.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Storage {
    /// Size, MiB.
    pub size_mib: u32,
    /// Sequential speed, MB/s (10^6 bytes per second).
    pub mb_s: u32,
}

/// Cores, each with at least this clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compute {
    /// Number of cores, at least 1.
    pub cores: u16,
    /// Clock of each as the benchmark measures it, MHz. Zero: any.
    pub mhz: u32,
}

impl Requirements {
    /// The longest name of an operating system, bytes.
    pub const MAX_NAME: usize = 20;
    /// The most that the names of operating systems may have together, bytes.
    pub const MAX_NAMES: usize = 80;

    pub(crate) const MAX_WIRE_LEN: usize = limits::OPERATING_SYSTEMS.wire_len()
        + limits::OPERATING_SYSTEMS.max as usize
        + Self::MAX_NAMES
        + limits::BANDWIDTH.wire_len()
        + limits::STORAGE_SIZE.wire_len()
        + limits::STORAGE_SPEED.wire_len()
        + limits::PERSISTENT.wire_len()
        + limits::COMPUTE.wire_len()
        + limits::COMPUTE.max as usize * Compute::MAX_WIRE_LEN
        + limits::MEMORY_PER_CORE.wire_len()
        + limits::MEMORY_SPEED.wire_len();

    /// Checks that every field may be said and that no list names a thing twice.
    pub fn check(&self) -> Result<(), FieldError> {
        limits::OPERATING_SYSTEMS.check(self.operating_systems.len() as u64)?;
        let mut together = 0;
        for (i, name) in self.operating_systems.iter().enumerate() {
            check_name(name)?;
            together += name.len();
            if self.operating_systems[..i].contains(name) {
                return Err(FieldError::new("operating_systems", format!("`{name}` twice"), "a list of different names"));
            }
        }
        if together > Self::MAX_NAMES {
            let found = format!("names of {together} bytes together");
            return Err(FieldError::new("operating_systems", found, format!("at most {} bytes", Self::MAX_NAMES)));
        }
        limits::BANDWIDTH.check(self.bandwidth_kbit_s)?;
        limits::STORAGE_SIZE.check(self.storage.size_mib)?;
        limits::STORAGE_SPEED.check(self.storage.mb_s)?;
        limits::PERSISTENT.check(self.persistent_mib)?;
        limits::COMPUTE.check(self.compute.len() as u64)?;
        for (i, compute) in self.compute.iter().enumerate() {
            compute.check()?;
            if self.compute[..i].contains(compute) {
                let found = format!("{} cores of {} MHz twice", compute.cores, compute.mhz);
                return Err(FieldError::new("compute", found, "a list of different alternatives"));
            }
        }
        limits::MEMORY_PER_CORE.check(self.memory_per_core_mib)?;
        limits::MEMORY_SPEED.check(self.memory_mb_s)?;
        Ok(())
    }

    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        put_varint(to, self.operating_systems.len() as u64);
        for name in &self.operating_systems {
            put_text(to, name);
        }
        put_varint(to, self.bandwidth_kbit_s);
        put_varint(to, self.storage.size_mib);
        put_varint(to, self.storage.mb_s);
        put_varint(to, self.persistent_mib);
        put_varint(to, self.compute.len() as u64);
        for compute in &self.compute {
            compute.encode(to);
        }
        put_varint(to, self.memory_per_core_mib);
        put_varint(to, self.memory_mb_s);
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Requirements, DecodeError> {
        let names: usize = from.number(&limits::OPERATING_SYSTEMS)?;
        let operating_systems =
            (0..names).map(|_| from.text("operating_systems", Self::MAX_NAME).map(str::to_owned)).collect::<Result<_, _>>()?;
        let bandwidth_kbit_s = from.number(&limits::BANDWIDTH)?;
        let storage = Storage { size_mib: from.number(&limits::STORAGE_SIZE)?, mb_s: from.number(&limits::STORAGE_SPEED)? };
        let persistent_mib = from.number(&limits::PERSISTENT)?;
        let alternatives: usize = from.number(&limits::COMPUTE)?;
        let compute = (0..alternatives).map(|_| Compute::decode(from)).collect::<Result<_, _>>()?;
        Ok(Requirements {
            operating_systems,
            bandwidth_kbit_s,
            storage,
            persistent_mib,
            compute,
            memory_per_core_mib: from.number(&limits::MEMORY_PER_CORE)?,
            memory_mb_s: from.number(&limits::MEMORY_SPEED)?,
        })
    }
}

impl Compute {
    pub(crate) const MAX_WIRE_LEN: usize = limits::CORES.wire_len() + limits::MHZ.wire_len();

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        limits::CORES.check(self.cores)?;
        limits::MHZ.check(self.mhz).map(drop)
    }

    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        put_varint(to, self.cores);
        put_varint(to, self.mhz);
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Compute, DecodeError> {
        Ok(Compute { cores: from.number(&limits::CORES)?, mhz: from.number(&limits::MHZ)? })
    }
}

impl std::fmt::Display for Compute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} × {} MHz", self.cores, self.mhz)
    }
}

/// An operating system's name.
pub(crate) fn check_name(name: &str) -> Result<(), FieldError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || name.len() > Requirements::MAX_NAME || !name.chars().all(allowed) {
        let allowed = format!("1 to {} lower-case letters, digits, `-` or `.`", Requirements::MAX_NAME);
        return Err(FieldError::new("operating system", format!("{name:?}"), allowed));
    }
    Ok(())
}
