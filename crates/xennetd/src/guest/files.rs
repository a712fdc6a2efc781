//! Files into the machine and back, as tar streams. The machine is a stranger's: what comes back is checked entry by entry.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Builder, EntryType, HeaderMode};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use xennet_tunnel::ExecEvent;

use super::{Complaints, Guest, GuestError, JOB_DIR, quoted};

/// A local file or directory, and the name it gets in the job's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// What is sent.
    pub from: PathBuf,
    /// Its name there: relative, below the job's directory.
    pub name: String,
}

/// A file or directory of the job's directory, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Its name there: relative, below the job's directory.
    pub name: String,
    /// Where it goes.
    pub to: PathBuf,
}

/// Bytes between the thread that reads or writes files and the connection at a time.
const PIECE: usize = 64 * 1024;
const PIECES: usize = 16;

impl Guest {
    /// Sends files. `on_bytes` hears how many bytes have left so far. Gives their number.
    pub async fn send(&self, files: Vec<Send>, mut on_bytes: impl FnMut(u64)) -> Result<u64, GuestError> {
        let (to, mut pieces) = mpsc::channel(PIECES);
        let packing = spawn_blocking(move || pack(files, PieceWriter { to, piece: Vec::with_capacity(PIECE) }));
        let command = format!("mkdir -p {JOB_DIR} && tar -x -f - -C {JOB_DIR}");
        let xennet_tunnel::ExecStream { mut input, mut output } = self.ssh.exec(&command).await?;
        let feed = async {
            let mut sent = 0;
            while let Some(piece) = pieces.recv().await {
                let piece: Vec<u8> = piece;
                // A full disk over there ends the command; its exit status and words say so.
                if input.write_all(&piece).await.is_err() {
                    break;
                }
                sent += piece.len() as u64;
                on_bytes(sent);
            }
            // Packing now fails if it has not finished; its error is the one to show.
            drop(pieces);
            let packed = packing.await.unwrap_or_else(|e| Err(failed("pack", Path::new("files"), io::Error::other(e))));
            if packed.is_ok() {
                let _ = input.shutdown().await;
            }
            (sent, packed)
        };
        let listen = async {
            let (mut complaints, mut end) = (Complaints::default(), None);
            while let Some(event) = output.next().await {
                match event {
                    ExecEvent::Stdout(_) => {}
                    ExecEvent::Stderr(piece) => complaints.add(&piece),
                    other => end = Some(other),
                }
            }
            complaints.judge(end)
        };
        tokio::pin!(feed, listen);
        let (sent, packed, unpacked) = tokio::select! {
            (sent, packed) = &mut feed => {
                // Files that could not be read end the stream early: nobody over there may take it for whole.
                packed?;
                (sent, Ok(()), listen.await)
            }
            unpacked = &mut listen => {
                let (sent, packed) = feed.await;
                (sent, packed, unpacked)
            }
        };
        unpacked?;
        packed?;
        Ok(sent)
    }

    /// Fetches files and puts each where it shall go, replacing what is there. The machine may send at most `limit` bytes.
    /// `on_bytes` hears how many have come so far. Gives their number.
    pub async fn fetch(&self, files: Vec<Fetch>, limit: u64, mut on_bytes: impl FnMut(u64)) -> Result<u64, GuestError> {
        let names: Vec<String> = files.iter().map(|file| quoted(&format!("./{}", file.name))).collect();
        let command = format!("tar -c -f - -C {JOB_DIR} {}", names.join(" "));
        let (to, from) = mpsc::channel(PIECES);
        let unpacking = spawn_blocking(move || unpack(&files, PieceReader { from, piece: Vec::new(), at: 0 }));
        let mut output = self.ssh.exec(&command).await?.output;
        let (mut received, mut complaints, mut end) = (0_u64, Complaints::default(), None);
        while let Some(event) = output.next().await {
            match event {
                ExecEvent::Stdout(piece) => {
                    received = received.saturating_add(piece.len() as u64);
                    if received > limit {
                        let why = format!("the machine sends more than the {limit} bytes that fit on its disk");
                        return Err(GuestError::Unfetchable { name: "the job's result".into(), why });
                    }
                    on_bytes(received);
                    // Unpacking that has failed takes no more; its error is shown below.
                    let _ = to.send(piece).await;
                }
                ExecEvent::Stderr(piece) => complaints.add(&piece),
                other => end = Some(other),
            }
        }
        drop(to);
        let unpacked = unpacking.await.unwrap_or_else(|e| Err(failed("unpack", Path::new("files"), io::Error::other(e))));
        // What the other side says went wrong explains an archive that ends too early.
        complaints.judge(end)?;
        unpacked?;
        Ok(received)
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> GuestError {
    GuestError::File { action, path: path.to_path_buf(), source }
}

fn pack(files: Vec<Send>, to: PieceWriter) -> Result<(), GuestError> {
    let mut archive = Builder::new(to);
    // Owner, times and umask of this machine are nobody's business over there.
    archive.mode(HeaderMode::Deterministic);
    for file in &files {
        let metadata = fs::metadata(&file.from).map_err(|e| failed("send", &file.from, e))?;
        let packed = if metadata.is_dir() {
            archive.append_dir_all(&file.name, &file.from)
        } else {
            archive.append_path_with_name(&file.from, &file.name)
        };
        packed.map_err(|e| failed("send", &file.from, e))?;
    }
    let last = || Path::new("the end of the archive");
    let mut to = archive.into_inner().map_err(|e| failed("send", last(), e))?;
    to.flush().map_err(|e| failed("send", last(), e))
}

fn unpack(files: &[Fetch], from: PieceReader) -> Result<(), GuestError> {
    let mut archive = Archive::new(from);
    let broken = |e| failed("unpack", Path::new("what the machine sent"), e);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.into_owned();
        let Some(to) = destination(files, &name) else {
            return Err(GuestError::Unasked { found: format!("{:?}", name.display().to_string()) });
        };
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&to).map_err(|e| failed("create", &to, e))?,
            EntryType::Regular | EntryType::Continuous => {
                let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
                let size = entry.size();
                keep(&mut entry, size, &to, if executable { 0o777 } else { 0o666 })?;
            }
            _ => {
                let why = "it is a link or a device; only files and directories are brought back".into();
                return Err(GuestError::Unfetchable { name: name.display().to_string(), why });
            }
        }
    }
    Ok(())
}

/// Where an entry goes: below the place of the file that was asked for, or nowhere.
fn destination(files: &[Fetch], entry: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in entry.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(name) => plain.push(name),
            _ => return None,
        }
    }
    files.iter().find_map(|file| {
        let below = plain.strip_prefix(&file.name).ok()?;
        Some(if below.as_os_str().is_empty() { file.to.clone() } else { file.to.join(below) })
    })
}

/// Writes a file beside its place and moves it there when it is whole.
fn keep(from: &mut impl Read, size: u64, to: &Path, mode: u32) -> Result<(), GuestError> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|e| failed("create", parent, e))?;
    }
    let mut part = to.as_os_str().to_owned();
    part.push(format!(".part-{}", std::process::id()));
    let part = PathBuf::from(part);
    let mut write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&part)?;
        // An archive that ends early looks like a short file.
        if io::copy(from, &mut file)? != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        fs::rename(&part, to)
    };
    write().map_err(|e| {
        // Nothing half is left behind.
        let _ = fs::remove_file(&part);
        failed("write", to, e)
    })
}

/// Where the packing thread writes to.
struct PieceWriter {
    to: mpsc::Sender<Vec<u8>>,
    piece: Vec<u8>,
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.to.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Where the unpacking thread reads from.
struct PieceReader {
    from: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for PieceReader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.from.blocking_recv() {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let from = &self.piece[self.at..];
        let count = from.len().min(to.len());
        to[..count].copy_from_slice(&from[..count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn received(archive: Vec<u8>) -> PieceReader {
        let (to, from) = mpsc::channel(archive.len() / 1000 + 1);
        for piece in archive.chunks(1000) {
            to.try_send(piece.to_vec()).unwrap();
        }
        PieceReader { from, piece: Vec::new(), at: 0 }
    }

    /// An archive as a hostile machine may make it: no check of ours on the way in.
    fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            if *kind == EntryType::Symlink {
                header.as_gnu_mut().unwrap().linkname[..4].copy_from_slice(b"/etc");
            }
            header.set_cksum();
            archive.append(&header, *content).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn files_land_where_they_were_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let wanted =
            [Fetch { name: "out".into(), to: dir.path().join("here") }, Fetch { name: "a/b".into(), to: dir.path().join("deep/b") }];
        let sent = archive(&[
            ("./out/", EntryType::Directory, b""),
            ("./out/x", EntryType::Regular, b"one"),
            ("./a/b", EntryType::Regular, b"two"),
        ]);
        unpack(&wanted, received(sent)).unwrap();
        assert_eq!(fs::read(dir.path().join("here/x")).unwrap(), b"one");
        assert_eq!(fs::read(dir.path().join("deep/b")).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path().join("here")).unwrap().count(), 1);
    }

    #[test]
    fn what_was_not_asked_for_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = [Fetch { name: "out".into(), to: dir.path().join("in/out") }];
        for name in ["other", "../out", "out/../../evil", "/etc/passwd", "outside", "."] {
            let outcome = unpack(&wanted, received(archive(&[(name, EntryType::Regular, b"evil")])));
            assert!(matches!(outcome, Err(GuestError::Unasked { .. })), "{name}: {outcome:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = [Fetch { name: "out".into(), to: dir.path().join("out") }];
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Fifo] {
            let outcome = unpack(&wanted, received(archive(&[("out", kind, b"")])));
            assert!(matches!(outcome, Err(GuestError::Unfetchable { .. })), "{kind:?}: {outcome:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_archive_that_ends_early_leaves_no_half_file() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = [Fetch { name: "out".into(), to: dir.path().join("out") }];
        let mut sent = archive(&[("out", EntryType::Regular, &[7; 5000])]);
        sent.truncate(2000);
        unpack(&wanted, received(sent)).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
