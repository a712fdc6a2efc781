//! The second synced file: which sequence was acknowledged last.
//!
//! Two slots, one page apart, written in turn: a write torn by a power cut leaves the other slot whole.
//! A slot is `"XNSEQ\0\0\1" ‖ database id 16 ‖ sequence 8 (little-endian) ‖ checksum 8`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::medium::existing;
use super::{Backend, Medium, StoreError, record};

const MAGIC: &[u8; 8] = b"XNSEQ\0\0\x01";
const SLOT: usize = 40;
const PAGE: u64 = 4096;

/// Ties a sequence file to its database. Random.
pub(super) type DatabaseId = [u8; 16];

#[derive(Debug)]
pub(super) struct SequenceFile {
    file: Backend,
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
pub(super) fn read(dir: &Path, medium: &Medium) -> Result<Option<Acknowledged>, StoreError> {
    let path = path(dir);
    let read = || -> io::Result<Vec<u8>> {
        let file = medium.file(existing(&path)?)?;
        let mut bytes = vec![0; usize::try_from(file.len()?.min(2 * PAGE)).unwrap_or_default()];
        file.read(0, &mut bytes)?;
        file.close()?;
        Ok(bytes)
    };
    let bytes = match read() {
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
    pub(super) fn open(dir: &Path, id: DatabaseId, sequence: u64, medium: &Medium) -> Result<SequenceFile, StoreError> {
        let path = path(dir);
        if !path.exists() {
            create(dir, &path, id, sequence, medium)?;
        }
        let file = existing(&path).and_then(|file| medium.file(file)).map_err(|e| StoreError::io("open", &path, e))?;
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
            .write(self.next_slot * PAGE, &slot)
            .and_then(|()| self.file.sync_data())
            .map_err(|e| StoreError::io("write", &self.path, e))?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }
}

fn create(dir: &Path, path: &Path, id: DatabaseId, sequence: u64, medium: &Medium) -> Result<(), StoreError> {
    let new = dir.join("state.sequence.new");
    let write = || -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let file = medium.file(file)?;
        let mut page = encode(&id, sequence).to_vec();
        page.resize(PAGE as usize, 0);
        file.set_len(2 * PAGE)?;
        file.write(0, &page)?;
        file.write(PAGE, &page)?;
        file.sync_data()?;
        file.close()?;
        fs::rename(&new, path)?;
        sync_dir(dir)
    };
    write().map_err(|e| StoreError::io("create", path, e))
}

/// Makes a file's new name durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
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
