//! What the disk takes for one small write that is to survive a power failure: the unit in which durable commits are counted.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use super::BenchError;
use super::statistics::Spread;

/// One page, as a database writes.
const PAGE: usize = 4096;

/// Writes a page and syncs it, `count` times; milliseconds each.
pub(super) fn synced_writes(dir: &Path, count: u64) -> Result<Spread, BenchError> {
    let path = dir.join("synced");
    let failed = |source| BenchError::io("write and sync", &path, source);
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).map_err(failed)?;
    // Written once beforehand, as a database's file is: growing a file costs a sync more.
    file.write_all_at(&[0; 64 * PAGE], 0).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let mut took_ms = Vec::new();
    for number in 0..count {
        let begun = Instant::now();
        file.write_all_at(&[number as u8; PAGE], number % 64 * PAGE as u64).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        took_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Spread::of(took_ms).ok_or(BenchError::Nothing)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn every_write_is_timed() {
        let dir = tempfile::tempdir().unwrap();
        let spread = synced_writes(dir.path(), 5).unwrap();
        assert_eq!(spread.samples, 5);
        assert!(spread.low > 0.0);
        assert!(matches!(synced_writes(dir.path(), 0), Err(BenchError::Nothing)));
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let said = synced_writes(Path::new("/nowhere/at/all"), 1).unwrap_err().chain();
        assert!(said.contains("/nowhere/at/all/synced") && said.contains("No such file"), "{said}");
    }
}
