//! The guest that is wanted.

use std::path::PathBuf;

use crate::accelerator::Accelerator;
use crate::disk;
use crate::error::VmError;

/// Below this the kernel and its file system leave a publisher next to nothing.
const SMALLEST_MEMORY_MIB: u32 = 96;

/// A disk that outlives its guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersistentDisk {
    /// Its file, made if it is not there.
    pub path: PathBuf,
    /// Its size in MiB. A file from an earlier lease must have the same.
    pub mib: u32,
}

/// The guest that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSpec {
    /// The guest's folder. Everything about it lies there; only the persistent disk may lie elsewhere.
    pub dir: PathBuf,
    /// The guest's name for itself: letters, digits and hyphens.
    pub hostname: String,
    /// Virtual processors, 1 to 255.
    pub cores: u16,
    /// Memory in MiB, at least 96.
    pub memory_mib: u32,
    /// The temporary disk on `/data` in MiB: none (0), or at least 8.
    pub disk_mib: u32,
    /// The disk on `/persistent`, if any.
    pub persistent: Option<PersistentDisk>,
    /// One line of OpenSSH's `authorized_keys`: who may log in as root.
    pub authorized_key: String,
    /// How the guest is run, from [`Accelerator::probe`].
    pub accelerator: Accelerator,
}

impl VmSpec {
    /// Checks every field, naming the first that cannot be.
    pub(crate) fn check(&self) -> Result<(), VmError> {
        let wrong = |field, value: String, expected| Err(VmError::Spec { field, value, expected });
        if !(1..=255).contains(&self.cores) {
            return wrong("cores", self.cores.to_string(), "1 to 255");
        }
        if self.memory_mib < SMALLEST_MEMORY_MIB {
            return wrong("memory_mib", self.memory_mib.to_string(), "at least 96");
        }
        if self.disk_mib != 0 && self.disk_mib < disk::SMALLEST_MIB {
            return wrong("disk_mib", self.disk_mib.to_string(), "0 (no disk) or at least 8");
        }
        if let Some(persistent) = &self.persistent
            && persistent.mib < disk::SMALLEST_MIB
        {
            return wrong("persistent.mib", persistent.mib.to_string(), "at least 8");
        }
        let label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if self.hostname.is_empty() || self.hostname.len() > 63 || !self.hostname.bytes().all(label) {
            return wrong("hostname", format!("{:?}", self.hostname), "1 to 63 letters, digits and hyphens");
        }
        // One line: a second one would let somebody else in.
        let key = &self.authorized_key;
        if key.len() > 1024 || key.split(' ').count() < 2 || !key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return wrong("authorized_key", format!("{} bytes", key.len()), "one line as in an OpenSSH .pub file");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn good() -> VmSpec {
        VmSpec {
            dir: "/tmp".into(),
            hostname: "vm-1".into(),
            cores: 1,
            memory_mib: 128,
            disk_mib: 0,
            persistent: None,
            authorized_key: "ssh-ed25519 AAAA".into(),
            accelerator: Accelerator::Tcg,
        }
    }

    #[test]
    fn a_field_that_cannot_be_is_named_with_what_would_be_right() {
        assert!(good().check().is_ok());
        let refused = [
            VmSpec { cores: 0, ..good() },
            VmSpec { memory_mib: 95, ..good() },
            VmSpec { disk_mib: 1, ..good() },
            VmSpec { persistent: Some(PersistentDisk { path: "/x".into(), mib: 0 }), ..good() },
            VmSpec { hostname: "a b".into(), ..good() },
            VmSpec { authorized_key: "ssh-ed25519 AAAA\nssh-ed25519 BBBB".into(), ..good() },
        ];
        for spec in refused {
            let said = spec.check().unwrap_err().to_string();
            assert!(said.contains(" is ") && said.contains("but must be"), "{said}");
        }
    }
}
