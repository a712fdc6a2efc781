//! Root file systems: one archive, or the layers of a container image, become one plain tar archive without surprises.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek, SeekFrom, Write};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::archive::{What, walk};
use super::kind::{HEAD, Magic, magic};
use super::refusal::{Refusal, tame};

/// The most layers of a container image.
const MOST_LAYERS: usize = 128;
/// The most bytes of an index or manifest.
const MOST_JSON: u64 = 4 << 20;
/// The most files in a container image's archive.
const MOST_BLOBS: usize = 4096;

/// Where an archive lies in the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    offset: u64,
    length: u64,
}

/// Which layer an entry of the result comes from, and whether it is a folder or a symbolic link.
#[derive(Debug, Clone, Copy)]
struct Winner {
    layer: usize,
    folder: bool,
    symlink: bool,
}

/// The whole file.
pub(crate) fn whole(input: &mut impl Seek) -> Result<Vec<Span>, Refusal> {
    Ok(vec![Span { offset: 0, length: input.seek(SeekFrom::End(0))? }])
}

/// The layers of a container image, the lowest first, each with its hash checked. `None`: it is no container image.
pub(crate) fn of_container(input: &mut (impl Read + Seek)) -> Result<Option<Vec<Span>>, Refusal> {
    input.seek(SeekFrom::Start(0))?;
    let mut blobs: HashMap<String, Span> = HashMap::new();
    let mut archive = tar::Archive::new(&mut *input);
    for entry in archive.entries_with_seek()? {
        let Ok(entry) = entry else { break };
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        let root = name.split('/').next().unwrap_or_default();
        if blobs.len() > 64 && !blobs.contains_key("oci-layout") && !blobs.contains_key("manifest.json") && root != "blobs" {
            return Ok(None);
        }
        if blobs.len() >= MOST_BLOBS {
            break;
        }
        blobs.insert(name, Span { offset: entry.raw_file_position(), length: entry.header().entry_size()? });
    }
    let layers = if blobs.contains_key("oci-layout") && blobs.contains_key("index.json") {
        oci(input, &blobs)?
    } else if blobs.contains_key("manifest.json") && !blobs.contains_key("etc") && !blobs.contains_key("etc/") {
        docker(input, &blobs)?
    } else {
        return Ok(None);
    };
    if layers.is_empty() || layers.len() > MOST_LAYERS {
        return Err(Refusal::TooMany { what: "layers", found: layers.len() as u64, most: MOST_LAYERS as u64 });
    }
    Ok(Some(layers))
}

fn wrong<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Container { why: why.into() })
}

fn docker(input: &mut (impl Read + Seek), blobs: &HashMap<String, Span>) -> Result<Vec<Span>, Refusal> {
    let manifest = json(input, blobs["manifest.json"])?;
    let Some([image]) = manifest.as_array().map(Vec::as_slice) else {
        return wrong("manifest.json must hold exactly one image: save them one by one");
    };
    let names = image["Layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    names.iter().map(|name| find(blobs, name.as_str().unwrap_or_default())).collect()
}

fn oci(input: &mut (impl Read + Seek), blobs: &HashMap<String, Span>) -> Result<Vec<Span>, Refusal> {
    let mut document = json(input, blobs["index.json"])?;
    // An index may name an index: one for each architecture.
    for _ in 0..4 {
        if let Some(layers) = document["layers"].as_array() {
            return layers.iter().map(|layer| blob(input, blobs, layer)).collect();
        }
        let all = document["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
        let suits = |entry: &&Value| {
            let platform = &entry["platform"];
            platform.is_null() || (platform["architecture"] == "amd64" && platform["os"] == "linux")
        };
        let suiting: Vec<&Value> = all.iter().filter(suits).collect();
        let [one] = suiting[..] else {
            return wrong(format!("{} of its {} images are for linux/amd64, but there must be exactly one", suiting.len(), all.len()));
        };
        let span = blob(input, blobs, one)?;
        document = json(input, span)?;
    }
    wrong("its indexes name each other")
}

/// A blob by its digest, whose bytes have that hash.
fn blob(input: &mut (impl Read + Seek), blobs: &HashMap<String, Span>, descriptor: &Value) -> Result<Span, Refusal> {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    let Some(hash) = digest.strip_prefix("sha256:").filter(|hash| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit())) else {
        return wrong(format!("the digest {} is no sha256", tame(digest)));
    };
    let span = find(blobs, &format!("blobs/sha256/{hash}"))?;
    input.seek(SeekFrom::Start(span.offset))?;
    let (mut hasher, mut left, mut buffer) = (Sha256::new(), span.length, vec![0; 1 << 16]);
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        input.read_exact(&mut buffer[..want]).map_err(|_| Refusal::Damaged { what: "the archive" })?;
        hasher.update(&buffer[..want]);
        left -= want as u64;
    }
    if hex::encode(hasher.finalize()) != hash {
        return wrong(format!("blob {hash} has another hash than its name"));
    }
    Ok(span)
}

fn find(blobs: &HashMap<String, Span>, name: &str) -> Result<Span, Refusal> {
    match blobs.get(name) {
        Some(span) => Ok(*span),
        None => wrong(format!("it names {}, which is not in it", tame(name))),
    }
}

fn json(input: &mut (impl Read + Seek), span: Span) -> Result<Value, Refusal> {
    if span.length > MOST_JSON {
        return Err(Refusal::TooMany { what: "bytes in one manifest", found: span.length, most: MOST_JSON });
    }
    let mut bytes = vec![0; span.length as usize];
    input.seek(SeekFrom::Start(span.offset))?;
    input.read_exact(&mut bytes)?;
    serde_json::from_slice(&bytes).or_else(|_| wrong("a manifest is no JSON"))
}

/// Joins the layers, the lowest first, into one plain archive, and returns the bytes of its files.
pub(crate) fn join(input: &mut (impl Read + Seek), output: impl Write, layers: &[Span], most: u64) -> Result<u64, Refusal> {
    let container = layers.len() > 1 || layers.first().is_some_and(|span| span.offset > 0);
    let winners = winners(input, layers, most, container)?;
    let mut total = 0_u64;
    let mut builder = tar::Builder::new(output);
    for (layer, span) in layers.iter().enumerate() {
        open(input, *span, |reader| {
            walk(reader, most, |item, content| {
                if winners.get(&item.path).is_none_or(|winner| winner.layer != layer) {
                    return Ok(());
                }
                if ancestors(&item.path).any(|above| winners.get(above).is_some_and(|winner| winner.symlink)) {
                    return Err(Refusal::Escape { path: tame(&item.path), how: "below a symbolic link" });
                }
                let mut header = plain(&item.header)?;
                match &item.what {
                    What::File => {
                        header.set_size(item.header.entry_size()?);
                        total = total.saturating_add(item.header.entry_size()?);
                        if total > most {
                            return Err(Refusal::TooLarge { what: "what is in all layers", bytes: total, most });
                        }
                        builder.append_data(&mut header, &item.path, content)?;
                    }
                    What::Folder => {
                        header.set_entry_type(tar::EntryType::Directory);
                        builder.append_data(&mut header, &item.path, std::io::empty())?;
                    }
                    What::Symlink(target) => {
                        header.set_entry_type(tar::EntryType::Symlink);
                        builder.append_link(&mut header, &item.path, target)?;
                    }
                    What::Hardlink(target) => {
                        let there = winners.get(target).is_some_and(|winner| winner.layer <= layer && !winner.folder && !winner.symlink);
                        if !there {
                            let how = "a hard link to something that is no file of the image";
                            return Err(Refusal::Escape { path: tame(&item.path), how });
                        }
                        header.set_entry_type(tar::EntryType::Link);
                        builder.append_link(&mut header, &item.path, target)?;
                    }
                }
                Ok(())
            })
        })?;
    }
    builder.into_inner()?.flush()?;
    Ok(total)
}

/// Which layer has the last word about each path, with the marks by which a layer takes away what lower ones have.
fn winners(input: &mut (impl Read + Seek), layers: &[Span], most: u64, container: bool) -> Result<HashMap<String, Winner>, Refusal> {
    let mut winners: HashMap<String, Winner> = HashMap::new();
    let (mut gone, mut emptied): (HashSet<String>, HashSet<String>) = (HashSet::new(), HashSet::new());
    for (layer, span) in layers.iter().enumerate().rev() {
        let (mut goes, mut empties) = (Vec::new(), Vec::new());
        open(input, *span, |reader| {
            walk(reader, most, |item, _| {
                let (folder, name) = item.path.rsplit_once('/').unwrap_or(("", &item.path));
                if !container && item.path == "oci-layout" {
                    return wrong("it is compressed as a whole: unpack it first, as `gunzip` does");
                }
                if container && let Some(hidden) = name.strip_prefix(".wh.") {
                    if hidden == ".wh..opq" {
                        empties.push(folder.to_owned());
                    } else {
                        goes.push(if folder.is_empty() { hidden.to_owned() } else { format!("{folder}/{hidden}") });
                    }
                    return Ok(());
                }
                let covered = gone.contains(&item.path)
                    || emptied.contains("")
                    || ancestors(&item.path).any(|above| {
                        let replaced = winners.get(above).is_some_and(|winner| winner.layer > layer && !winner.folder && !winner.symlink);
                        gone.contains(above) || emptied.contains(above) || replaced
                    });
                let taken = winners.get(&item.path).is_some_and(|winner| winner.layer > layer);
                if !covered && !taken {
                    let (folder, symlink) = (item.what == What::Folder, matches!(item.what, What::Symlink(_)));
                    winners.insert(item.path, Winner { layer, folder, symlink });
                }
                Ok(())
            })
        })?;
        gone.extend(goes);
        emptied.extend(empties);
    }
    Ok(winners)
}

/// The folders that a path lies in, without the root.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// A header with what is kept of an entry: rights, owner, time.
fn plain(header: &tar::Header) -> Result<tar::Header, Refusal> {
    let mut kept = tar::Header::new_gnu();
    kept.set_mode(header.mode()? & 0o7777);
    kept.set_uid(header.uid()?);
    kept.set_gid(header.gid()?);
    kept.set_mtime(header.mtime()?);
    kept.set_size(0);
    Ok(kept)
}

/// Reads a layer unpacked.
fn open(input: &mut (impl Read + Seek), span: Span, mut use_it: impl FnMut(&mut dyn Read) -> Result<(), Refusal>) -> Result<(), Refusal> {
    input.seek(SeekFrom::Start(span.offset))?;
    let mut head = vec![0; HEAD.min(usize::try_from(span.length).unwrap_or(HEAD))];
    input.read_exact(&mut head)?;
    let found = magic(&head)?;
    input.seek(SeekFrom::Start(span.offset))?;
    let mut packed = std::io::BufReader::with_capacity(1 << 16, Part { input, left: span.length });
    match found {
        Magic::Tar => use_it(&mut packed),
        Magic::Gzip => use_it(&mut flate2::bufread::MultiGzDecoder::new(packed)),
        Magic::Xz => use_it(&mut lzma_rust2::XzReader::new(packed, true)),
        Magic::Zstd => {
            let reader = ruzstd::decoding::StreamingDecoder::new(packed);
            use_it(&mut reader.map_err(|_| Refusal::Damaged { what: "the archive" })?)
        }
        Magic::Disk | Magic::Qcow2 => wrong("a layer is a disk and no archive"),
    }
}

/// A part of the file.
struct Part<'a, R> {
    input: &'a mut R,
    left: u64,
}

impl<R: Read> Read for Part<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let room = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.input.read(&mut into[..room])?;
        self.left -= got as u64;
        Ok(got)
    }
}
