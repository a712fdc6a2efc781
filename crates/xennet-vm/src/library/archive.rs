//! Tar archives of strangers, entry by entry, with a bound on everything that costs memory or disk.

use std::cell::Cell;
use std::io::Read;
use std::rc::Rc;

use tar::EntryType;

use super::refusal::{Refusal, tame};

/// The most entries of an archive.
const MOST_ENTRIES: u64 = 400_000;
/// The most bytes of a path or of a link's target.
const MOST_PATH: u64 = 4096;
/// The most bytes of all paths together.
const MOST_PATHS: u64 = 48 << 20;

/// What one entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    File,
    Folder,
    Symlink(String),
    /// With the path that it is another name of.
    Hardlink(String),
}

/// One entry, checked: its path is relative, has no `..`, and does not begin with `./`.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub path: String,
    pub what: What,
    pub header: tar::Header,
}

/// Counts what is read, so that a small archive that unpacks to a large one is found out while it is read.
struct Counted<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(std::io::Error::other("too large"));
        }
        let room = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let got = self.inner.read(&mut into[..room])?;
        self.left.set(left - got as u64);
        Ok(got)
    }
}

/// Goes through an archive. Besides `most` bytes of files it may have what the headers take.
pub(crate) fn walk(reader: impl Read, most: u64, mut each: impl FnMut(Item, &mut dyn Read) -> Result<(), Refusal>) -> Result<(), Refusal> {
    let left = Rc::new(Cell::new(most.saturating_add(MOST_ENTRIES * 512)));
    let mut archive = tar::Archive::new(Counted { inner: reader, left: Rc::clone(&left) });
    let walked = walk_entries(&mut archive, most, &mut each);
    match walked {
        Err(_) if left.get() == 0 => Err(too_large(most.saturating_add(1), most)),
        Err(Refusal::Unreadable { .. }) => Err(Refusal::Damaged { what: "the archive" }),
        other => other,
    }
}

fn too_large(bytes: u64, most: u64) -> Refusal {
    Refusal::TooLarge { what: "what is in the archive", bytes, most }
}

fn walk_entries<R: Read>(
    archive: &mut tar::Archive<R>,
    most: u64,
    each: &mut impl FnMut(Item, &mut dyn Read) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let (mut entries, mut paths, mut total) = (0, 0, 0_u64);
    let (mut long_path, mut long_link) = (None, None);
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        entries += 1;
        if entries > MOST_ENTRIES {
            return Err(Refusal::TooMany { what: "entries", found: entries, most: MOST_ENTRIES });
        }
        let header = entry.header().clone();
        let size = header.entry_size()?;
        match header.entry_type() {
            EntryType::GNULongName => {
                long_path = Some(text(&mut entry, size)?);
                continue;
            }
            EntryType::GNULongLink => {
                long_link = Some(text(&mut entry, size)?);
                continue;
            }
            EntryType::XHeader => {
                extended(&mut entry, size, &mut long_path, &mut long_link)?;
                continue;
            }
            // What holds for all entries, such as a comment, matters to nobody here.
            EntryType::XGlobalHeader => continue,
            _ => {}
        }
        let given = long_path.take().unwrap_or_else(|| lossy(&header.path_bytes()));
        let link = long_link.take().or_else(|| header.link_name_bytes().map(|bytes| lossy(&bytes))).unwrap_or_default();
        total = total.saturating_add(size);
        if total > most {
            return Err(too_large(total, most));
        }
        let Some(path) = inside(&given)? else { continue };
        paths += path.len() as u64 + link.len() as u64;
        if paths > MOST_PATHS {
            return Err(Refusal::TooMany { what: "bytes of paths", found: paths, most: MOST_PATHS });
        }
        let what = what(header.entry_type(), &path, link)?;
        each(Item { path, what, header }, &mut entry)?;
    }
    if entries == 0 {
        return Err(Refusal::Damaged { what: "the archive" });
    }
    Ok(())
}

fn what(kind: EntryType, path: &str, link: String) -> Result<What, Refusal> {
    let refused = |what| Err(Refusal::Entry { path: tame(path), what });
    match kind {
        EntryType::Regular | EntryType::Continuous => Ok(What::File),
        EntryType::Directory => Ok(What::Folder),
        EntryType::Symlink => {
            if climbs(path, &link) {
                return Err(Refusal::Escape { path: tame(path), how: "a symbolic link that climbs above the root" });
            }
            Ok(What::Symlink(link))
        }
        EntryType::Link => match inside(&link) {
            Ok(Some(target)) => Ok(What::Hardlink(target)),
            _ => Err(Refusal::Escape { path: tame(path), how: "a hard link to something outside of it" }),
        },
        EntryType::Char | EntryType::Block => refused("a device"),
        EntryType::Fifo => refused("a named pipe"),
        EntryType::GNUSparse => refused("a sparse file in GNU's old form"),
        _ => refused("of an unknown type"),
    }
}

/// A path without `./`. `None` for the root itself.
fn inside(given: &str) -> Result<Option<String>, Refusal> {
    let escape = |how| Err(Refusal::Escape { path: tame(given), how });
    if given.starts_with('/') {
        return escape("absolute");
    }
    if given.contains('\0') {
        return escape("one with a zero byte");
    }
    let parts: Vec<&str> = given.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return escape("one with `..`");
    }
    Ok((!parts.is_empty()).then(|| parts.join("/")))
}

/// Whether a relative link leads above the root. One that is absolute stays in the guest, whose root it means.
fn climbs(path: &str, target: &str) -> bool {
    if target.starts_with('/') {
        return false;
    }
    let mut depth = path.split('/').count() - 1;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return true,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn text(entry: &mut impl Read, size: u64) -> Result<String, Refusal> {
    if size > MOST_PATH {
        return Err(Refusal::TooMany { what: "bytes in one path", found: size, most: MOST_PATH });
    }
    let mut bytes = Vec::new();
    entry.take(size).read_to_end(&mut bytes)?;
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(lossy(&bytes))
}

/// POSIX's extended header: lines `LENGTH KEY=VALUE`.
fn extended(entry: &mut impl Read, size: u64, path: &mut Option<String>, link: &mut Option<String>) -> Result<(), Refusal> {
    const MOST: u64 = 1 << 20;
    if size > MOST {
        return Err(Refusal::TooMany { what: "bytes in one extended header", found: size, most: MOST });
    }
    let mut bytes = Vec::new();
    entry.take(size).read_to_end(&mut bytes)?;
    for record in tar::PaxExtensions::new(&bytes) {
        let record = record?;
        match record.key_bytes() {
            b"path" => *path = Some(text(&mut record.value_bytes(), record.value_bytes().len() as u64)?),
            b"linkpath" => *link = Some(text(&mut record.value_bytes(), record.value_bytes().len() as u64)?),
            key if key == b"size" || key.starts_with(b"GNU.sparse") => {
                return Err(Refusal::Entry { path: tame(path.as_deref().unwrap_or("a file")), what: "sparse or above 8 GiB" });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(inside("./etc//passwd").unwrap().as_deref(), Some("etc/passwd"));
        assert_eq!(inside("./").unwrap(), None);
        for bad in ["/etc", "a/../b", "..", "a\0b"] {
            assert!(matches!(inside(bad), Err(Refusal::Escape { .. })), "{bad}");
        }
        assert!(climbs("a/b", "../../c") && climbs("a", ".."));
        assert!(!climbs("a/b", "../c") && !climbs("a", "/etc/passwd") && !climbs("usr/bin/x", "../lib/y"));
    }
}
