//! The second synced file: which sequence was acknowledged last.
//!
//! Two slots, one page apart, written in turn: a write torn by a power cut leaves the other slot whole.
//! A slot is `"XNSEQ\0\0\1" ‖ database id 16 ‖ sequence 8 (little-endian) ‖ checksum 8`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{StoreError, record};

const MAGIC: &[u8; 8] = b"XNSEQ\0\0\x01";
const SLOT: usize = 40;
const PAGE: u64 = 4096;

/// Ties a sequence file to its database. Random.
pub(super) type DatabaseId = [u8; 16];

#[derive(Debug)]
pub(super) struct SequenceFile {
    file: File,
    path: PathBuf,
    id: DatabaseId,
    next_slot: u64,
}

/// What the file said when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub(super) id: DatabaseId,
    pub(super) sequence: u64,
}

pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("state.sequence")
}

/// What was acknowledged; `None` if there is no such file.
pub(super) fn read(dir: &Path) -> Result<Option<Acknowledged>, StoreError> {
    let path = path(dir);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::io("read", &path, e)),
    };
    let first = decode(&bytes);
    let second = bytes.get(PAGE as usize..).and_then(decode);
    let newest = [first, second].into_iter().flatten().max_by_key(|a| a.sequence);
    match newest {
        Some(acknowledged) => Ok(Some(acknowledged)),
        None => Err(StoreError::damaged(&path, "neither of its two copies has a valid checksum")),
    }
}

impl SequenceFile {
    /// Opens the file, or makes it whole at once, saying `sequence`.
    pub(super) fn open(dir: &Path, id: DatabaseId, sequence: u64) -> Result<SequenceFile, StoreError> {
        let path = path(dir);
        if !path.exists() {
            create(dir, &path, id, sequence)?;
        }
        let file = OpenOptions::new().write(true).open(&path).map_err(|e| StoreError::io("open", &path, e))?;
        let mut file = SequenceFile { file, path, id, next_slot: 0 };
        // Both slots now say the same, so it does not matter which one is written next.
        file.write(sequence)?;
        file.write(sequence)?;
        Ok(file)
    }

    /// Writes and syncs. In place, so a full disk does not hinder it.
    pub(super) fn write(&mut self, sequence: u64) -> Result<(), StoreError> {
        let slot = encode(&self.id, sequence);
        self.file
            .write_all_at(&slot, self.next_slot * PAGE)
            .and_then(|()| self.file.sync_data())
            .map_err(|e| StoreError::io("write", &self.path, e))?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }
}

fn create(dir: &Path, path: &Path, id: DatabaseId, sequence: u64) -> Result<(), StoreError> {
    let new = dir.join("state.sequence.new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let mut page = encode(&id, sequence).to_vec();
        page.resize(PAGE as usize, 0);
        file.write_all(&page)?;
        file.write_all(&page)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_dir(dir)
    };
    write().map_err(|e| StoreError::io("create", path, e))
}

/// Makes a file's new name durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn encode(id: &DatabaseId, sequence: u64) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..24].copy_from_slice(id);
    slot[24..32].copy_from_slice(&sequence.to_le_bytes());
    slot[32..].copy_from_slice(&record::checksum("sequence", id, sequence, MAGIC));
    slot
}

fn decode(bytes: &[u8]) -> Option<Acknowledged> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (id, rest) = rest.split_first_chunk::<16>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (sum, _) = rest.split_first_chunk::<8>()?;
    let sequence = u64::from_le_bytes(*sequence);
    (record::checksum("sequence", id, sequence, MAGIC) == *sum).then_some(Acknowledged { id: *id, sequence })
}
