//! A disk that forgets: what was not synced is gone, in part or whole, when the power fails; and one that is full.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use xennetd::store::{Backend, Layer};

/// What goes wrong, and at which operation of the disk, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The power fails. Of what was not synced, the disk has written what these bits choose.
    PowerLoss { at: u64, survives: u64 },
    /// The disk is full for so many operations that need room.
    Full { at: u64, times: u64 },
}

/// One file: what is safe, and what was written since.
#[derive(Debug, Default)]
struct Image {
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    current: Vec<u8>,
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
            let mut bytes = std::mem::take(&mut image.synced);
            for change in image.unsynced.drain(..) {
                // A disk writes in whatever order it likes: any of them may be there, and any not.
                survives = survives.rotate_right(1);
                if survives & 1 == 1 {
                    apply(&mut bytes, &change);
                }
            }
            image.current.clone_from(&bytes);
            image.synced = bytes;
        }
    }

    /// Counts an operation; says what becomes of it.
    fn operate(&mut self, needs_room: bool) -> io::Result<()> {
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        let nth = self.operations;
        self.operations += 1;
        match self.fault {
            Some(Fault::PowerLoss { at, survives }) if nth >= at => {
                self.lose_power(survives);
                Err(io::Error::other("the power is off"))
            }
            Some(Fault::Full { at, times }) if needs_room && nth >= at && times > 0 => {
                self.fault = Some(Fault::Full { at, times: times - 1 });
                Err(io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()))
            }
            _ => Ok(()),
        }
    }
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
        state.operate(true)?;
        let image = state.files.get_mut(&self.inode).expect("an attached file");
        apply(&mut image.current, &change);
        image.unsynced.push(change);
        Ok(())
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
        state.operate(false)?;
        let image = state.files.get_mut(&self.inode).expect("an attached file");
        image.unsynced.clear();
        image.synced.clone_from(&image.current);
        Ok(())
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
}
