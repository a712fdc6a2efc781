//! What is asked of the host: its programs, free memory and free disk.

use std::path::{Path, PathBuf};

use crate::error::{Doing, VmError};

/// Finds a program on the path, or where an unprivileged user's path leaves off.
pub(crate) fn program(name: &'static str, package: &'static str) -> Result<PathBuf, VmError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or(match name {
            QEMU => VmError::QemuMissing,
            _ => VmError::ToolMissing { tool: name, package },
        })
}

/// The one QEMU that is used.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// QEMU's program.
pub(crate) fn qemu() -> Result<PathBuf, VmError> {
    program(QEMU, "qemu-system-x86")
}

/// Fails if the kernel does not call this much memory available.
pub(crate) fn need_memory(needed_mib: u64) -> Result<(), VmError> {
    let text = std::fs::read_to_string("/proc/meminfo").doing(|| "reading /proc/meminfo".into())?;
    match available_mib(&text) {
        Some(available_mib) if available_mib < needed_mib => Err(VmError::NotEnoughMemory { needed_mib, available_mib }),
        _ => Ok(()),
    }
}

fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// Fails if the file system that holds `path` has less than this free for us.
pub(crate) fn need_disk(path: &Path, needed_mib: u64) -> Result<(), VmError> {
    let stat = rustix::fs::statvfs(path).doing(|| format!("asking how full {} is", path.display()))?;
    let available_mib = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    if available_mib < needed_mib {
        return Err(VmError::DiskFull { path: path.to_owned(), needed_mib, available_mib });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn available_memory_is_read_from_meminfo() {
        assert_eq!(available_mib("MemTotal: 9 kB\nMemAvailable:   25165824 kB\n"), Some(24_576));
        assert_eq!(available_mib("MemTotal: 9 kB\n"), None);
    }

    #[test]
    fn too_little_memory_or_disk_is_told_with_both_figures() {
        let said = need_memory(1 << 40).unwrap_err().to_string();
        assert!(said.contains("needs 1099511627776 MiB of memory, but only"), "{said}");
        let said = need_disk(Path::new("/"), 1 << 40).unwrap_err().to_string();
        assert!(said.starts_with("/ has ") && said.contains("but 1099511627776 MiB are needed"), "{said}");
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let said = program("no-such-program", "nothing").unwrap_err().to_string();
        assert_eq!(said, "no-such-program is not installed: apt-get install nothing");
    }
}
