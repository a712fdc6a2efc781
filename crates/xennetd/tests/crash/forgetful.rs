//! A disk that forgets: what was not synced is gone, in part or whole, when the power fails; one that is full; and one that fails.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use rustix::io::Errno;
use xennetd::store::{Backend, Layer};

/// What goes wrong, and at which operation of the disk, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The power fails. Of what was not synced, the disk has written what these bits choose.
    PowerLoss { at: u64, survives: u64 },
    /// The disk is full for so many operations that need room.
    Full { at: u64, times: u64 },
    /// So many writes fail with an error of the device, each half done.
    BadWrite { at: u64, times: u64 },
    /// So many syncs fail. As on a real system: of what was not synced, the disk has what these bits choose, and the rest is called clean and
    /// never written, though it can be read until the power fails.
    BadSync { at: u64, times: u64, survives: u64 },
}

impl Fault {
    /// Whether a process outlives it.
    pub fn is_outlived(self) -> bool {
        !matches!(self, Fault::PowerLoss { .. })
    }
}

/// One file: what is safe, what was written since, and what can be read.
#[derive(Debug, Default)]
struct Image {
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    current: Vec<u8>,
}

impl Image {
    /// Of what was not synced, the disk has written what these bits choose: in whatever order it likes, any of it may be there, any not.
    fn keep_some(&mut self, survives: &mut u64) {
        for change in self.unsynced.drain(..) {
            *survives = survives.rotate_right(1);
            if *survives & 1 == 1 {
                apply(&mut self.synced, &change);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<u64, Image>,
    operations: u64,
    /// Operations that failed so far, other than for want of power.
    failed: u64,
    fault: Option<Fault>,
    /// Nothing works until it is on again.
    off: bool,
}

/// All files of one side's store. They live here; the files that the store makes stay empty and only have names.
#[derive(Debug, Clone, Default)]
pub struct Forgetful {
    state: Arc<Mutex<State>>,
}

impl Forgetful {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to go wrong from now on; operations are counted from here.
    pub fn arm(&self, fault: Option<Fault>) {
        let mut state = self.state();
        state.fault = fault;
        state.operations = 0;
    }

    /// How many operations that change something there were since then.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// What is going wrong, or has.
    pub fn fault(&self) -> Option<Fault> {
        self.state().fault
    }

    /// How many operations failed so far, other than for want of power.
    pub fn failed(&self) -> u64 {
        self.state().failed
    }

    /// The power fails now.
    pub fn lose_power(&self, survives: u64) {
        self.state().lose_power(survives);
    }

    pub fn is_off(&self) -> bool {
        self.state().off
    }

    /// The power is back.
    pub fn turn_on(&self) {
        self.state().off = false;
    }
}

impl Layer for Forgetful {
    fn attach(&self, file: File) -> io::Result<Backend> {
        let inode = file.metadata()?.ino();
        self.state().files.entry(inode).or_default();
        Ok(Box::new(Handle { disk: self.clone(), inode }))
    }
}

impl State {
    fn lose_power(&mut self, mut survives: u64) {
        self.off = true;
        for image in self.files.values_mut() {
            image.keep_some(&mut survives);
            image.current.clone_from(&image.synced);
        }
    }

    /// Counts an operation; says what becomes of it.
    fn operate(&mut self, kind: Kind) -> io::Result<()> {
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        let nth = self.operations;
        self.operations += 1;
        let (fault, error) = match (self.fault, kind) {
            (Some(Fault::PowerLoss { at, survives }), _) if nth >= at => {
                self.lose_power(survives);
                return Err(io::Error::other("the power is off"));
            }
            (Some(Fault::Full { at, times }), Kind::Write) if nth >= at && times > 0 => {
                (Fault::Full { at, times: times - 1 }, Errno::NOSPC)
            }
            (Some(Fault::BadWrite { at, times }), Kind::Write) if nth >= at && times > 0 => {
                (Fault::BadWrite { at, times: times - 1 }, Errno::IO)
            }
            (Some(Fault::BadSync { at, times, survives }), Kind::Sync) if nth >= at && times > 0 => {
                (Fault::BadSync { at, times: times - 1, survives: survives.rotate_right(7) }, Errno::IO)
            }
            _ => return Ok(()),
        };
        self.fault = Some(fault);
        self.failed += 1;
        Err(io::Error::from_raw_os_error(error.raw_os_error()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It may need room.
    Write,
    Sync,
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, data) => {
            let (begin, end) = (*offset as usize, *offset as usize + data.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[begin..end].copy_from_slice(data);
        }
        Change::Length(length) => bytes.resize(*length as usize, 0),
    }
}

#[derive(Debug)]
struct Handle {
    disk: Forgetful,
    inode: u64,
}

impl Handle {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.operate(Kind::Write);
        let done = match (&outcome, change) {
            (Ok(()), change) => change,
            (Err(error), Change::Write(offset, data)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                Change::Write(offset, data[..data.len() / 2].to_vec())
            }
            _ => return outcome,
        };
        let image = state.files.get_mut(&self.inode).expect("an attached file");
        apply(&mut image.current, &done);
        image.unsynced.push(done);
        outcome
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[&self.inode].current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state();
        if state.off {
            return Err(io::Error::other("the power is off"));
        }
        let from = &state.files[&self.inode].current;
        let (begin, end) = (offset as usize, offset as usize + out.len());
        out.copy_from_slice(from.get(begin..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Change::Length(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let mut survives = match state.fault {
            Some(Fault::BadSync { survives, .. }) => survives,
            _ => 0,
        };
        let outcome = state.operate(Kind::Sync);
        if !state.off {
            if outcome.is_ok() {
                survives = u64::MAX;
            }
            state.files.get_mut(&self.inode).expect("an attached file").keep_some(&mut survives);
        }
        outcome
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset, data.to_vec()))
    }
}

/// The layer itself: what is synced stays, what is not may go, and nothing works without power.
#[test]
fn it_forgets_what_was_not_synced_and_only_that() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Forgetful::default();
    let open = || disk.attach(File::options().read(true).write(true).create(true).truncate(false).open(dir.path().join("file")).unwrap());
    let file = open().unwrap();
    let read = |file: &Backend| {
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read(0, &mut bytes).unwrap();
        bytes
    };
    file.write(0, b"synced").unwrap();
    file.sync_data().unwrap();
    file.write(0, b"un").unwrap();
    file.write(2, b"SYNC").unwrap();
    assert_eq!(read(&file), b"unSYNC");
    disk.lose_power(0b100);
    assert!(file.write(0, b"x").is_err() && file.sync_data().is_err() && disk.is_off());
    disk.turn_on();
    assert_eq!(read(&open().unwrap()), b"sySYNC", "the second write was on the disk, the first was not");
    disk.arm(Some(Fault::Full { at: 1, times: 1 }));
    file.write(0, b"a").unwrap();
    assert_eq!(file.write(0, b"b").unwrap_err().raw_os_error(), Some(28));
    file.write(0, b"c").unwrap();
    disk.arm(Some(Fault::PowerLoss { at: 0, survives: 0 }));
    assert!(file.sync_data().is_err());
    disk.turn_on();
    assert_eq!(read(&file), b"sySYNC");
    disk.arm(Some(Fault::BadWrite { at: 0, times: 1 }));
    assert_eq!(file.write(0, b"half").unwrap_err().raw_os_error(), Some(5));
    assert_eq!(read(&file), b"haSYNC");
    disk.arm(Some(Fault::BadSync { at: 0, times: 1, survives: 0 }));
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    file.write(2, b"re").unwrap();
    file.sync_data().unwrap();
    assert_eq!(read(&file), b"hareNC", "what a failed sync lost can be read");
    disk.lose_power(0);
    disk.turn_on();
    assert_eq!(read(&file), b"syreNC", "and is gone with the power, whatever was synced after it");
    assert_eq!(disk.failed(), 3);
}
