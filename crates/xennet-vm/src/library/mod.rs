//! The store of images that came from outside, each named by the SHA-256 of the file it came as.
//!
//! ```text
//! FILE ──copied, hashed──▶ source ──read by a confined process──▶ disk.raw or root.tar ──▶ manifest.json, written last
//! ```
//! What holds: no process with the daemon's rights looks into a stranger's file beyond its first bytes; what a guest is
//! started from is a raw disk or a plain archive that was written by code of ours.

mod archive;
mod confined;
mod error;
mod kind;
mod layers;
mod qcow2;
mod reader;
mod refusal;

pub use confined::{CONFINED, confined};
pub use error::LibraryError;
pub use kind::ImageKind;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use confined::Answer;

const MANIFEST: &str = "manifest.json";
const SOURCE: &str = "source";
const ADDING: &str = ".add-";
/// What an interrupted addition left is deleted once it is this old.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// An image of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// The SHA-256 of the file that it came as, in hex: its name.
    pub hash: String,
    /// What it is.
    pub kind: ImageKind,
    /// The name of the file that it came as.
    pub file: String,
    /// The size of that file.
    pub source_bytes: u64,
    /// Bytes of the disk, or of all files of the archive.
    pub unpacked_bytes: u64,
    /// What it takes on the disk, bytes.
    pub stored_bytes: u64,
    /// When it was added, seconds since 1970.
    pub added_unix_s: u64,
    /// The files of the image with their SHA-256.
    pub files: Vec<(String, String)>,
}

/// How far a long step has come: what it is, bytes done, bytes in all.
pub type Step<'a> = &'a mut dyn FnMut(&str, u64, u64);

/// The store.
#[derive(Debug, Clone)]
pub struct ImageLibrary {
    dir: PathBuf,
    program: PathBuf,
    most_bytes: u64,
}

impl ImageLibrary {
    /// A store in this folder, made when it is first needed. `program` is one of ours that calls [`confined`] first;
    /// a disk, or the files of an archive, may have `most_bytes`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, program: impl Into<PathBuf>, most_bytes: u64) -> ImageLibrary {
        ImageLibrary { dir: dir.into(), program: program.into(), most_bytes }
    }

    /// Takes a file. One that is there already is found by its hash and not read again.
    ///
    /// # Errors
    /// When it is refused, with the reason, or the store cannot be written. Nothing is left of it then.
    pub fn add(&self, file: &Path, said: Option<ImageKind>, step: Step<'_>) -> Result<StoredImage, LibraryError> {
        let refused = |why: String| LibraryError::Refused { file: file.to_owned(), why };
        let work = self.workspace()?;
        let (source, output) = (work.path().join(SOURCE), work.path().join("prepared"));
        let (hash, source_bytes) = if file.is_dir() { pack(file, &source)? } else { copy(file, &source, step)? };
        if let Ok(known) = self.find(&hash) {
            return Ok(known);
        }
        step("checking", 0, 0);
        let input = File::open(&source).map_err(io(|| format!("opening {}", source.display())))?;
        let prepared = private(&output)?;
        let (kind, unpacked_bytes) = match reader::read(&self.program, input, prepared, self.most_bytes, said)? {
            Answer::Taken { kind, unpacked_bytes } => (kind, unpacked_bytes),
            Answer::Refused { why } => return Err(refused(refusal::tame_long(&why))),
        };
        let mut files = vec![(SOURCE.to_owned(), hash.clone())];
        let name = match kind {
            ImageKind::Raw | ImageKind::Kernel => None,
            ImageKind::Qcow2 => Some("disk.raw"),
            ImageKind::RootTar | ImageKind::Container => Some("root.tar"),
        };
        match name {
            Some(name) => {
                let to = work.path().join(name);
                std::fs::rename(&output, &to).map_err(io(|| format!("writing {}", to.display())))?;
                files.push((name.to_owned(), hash_of(&to, "hashing", step)?));
            }
            None => std::fs::remove_file(&output).map_err(io(|| format!("deleting {}", output.display())))?,
        }
        let file = file_name(file);
        self.finish(work, StoredImage { hash, kind, file, source_bytes, unpacked_bytes, stored_bytes: 0, added_unix_s: now(), files })
    }

    /// Takes a kernel and its initramfs; they are named by the SHA-256 of both hashes.
    ///
    /// # Errors
    /// As [`ImageLibrary::add`].
    pub fn add_pair(&self, kernel: &Path, initrd: &Path, step: Step<'_>) -> Result<StoredImage, LibraryError> {
        let refused = |why: refusal::Refusal| LibraryError::Refused { file: kernel.to_owned(), why: why.to_string() };
        let work = self.workspace()?;
        let (kernel_hash, kernel_bytes) = copy(kernel, &work.path().join("kernel"), step)?;
        let (initrd_hash, initrd_bytes) = copy(initrd, &work.path().join("initrd"), step)?;
        let source_bytes = kernel_bytes.saturating_add(initrd_bytes);
        if source_bytes > self.most_bytes {
            return Err(refused(refusal::Refusal::TooLarge { what: "the pair", bytes: source_bytes, most: self.most_bytes }));
        }
        kind::kernel_pair(&head_of(&work.path().join("kernel"))?, &head_of(&work.path().join("initrd"))?).map_err(refused)?;
        let hash = hex::encode(Sha256::digest(format!("kernel {kernel_hash}\ninitrd {initrd_hash}\n")));
        if let Ok(known) = self.find(&hash) {
            return Ok(known);
        }
        let files = vec![("kernel".to_owned(), kernel_hash), ("initrd".to_owned(), initrd_hash)];
        let (file, kind) = (file_name(kernel), ImageKind::Kernel);
        let image =
            StoredImage { hash, kind, file, source_bytes, unpacked_bytes: source_bytes, stored_bytes: 0, added_unix_s: now(), files };
        self.finish(work, image)
    }

    /// All images, the one used last first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<StoredImage>, LibraryError> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(io(|| format!("looking into {}", self.dir.display())))?,
        };
        let mut images: Vec<(SystemTime, StoredImage)> = entries.flatten().filter_map(|entry| manifest(&entry.path())).collect();
        images.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.hash.cmp(&b.1.hash)));
        Ok(images.into_iter().map(|(_, image)| image).collect())
    }

    /// The image whose hash begins with this.
    ///
    /// # Errors
    /// When there is none or more than one.
    pub fn find(&self, name: &str) -> Result<StoredImage, LibraryError> {
        let mut found: Vec<StoredImage> = self.list()?.into_iter().filter(|image| image.hash.starts_with(name)).collect();
        match (found.len(), found.pop()) {
            (1, Some(image)) if !name.is_empty() => Ok(image),
            (0, _) | (1, _) => Err(LibraryError::Unknown { name: refusal::tame(name) }),
            (count, _) => Err(LibraryError::Ambiguous { name: refusal::tame(name), count }),
        }
    }

    /// Reads every file of an image again and compares its hash.
    ///
    /// # Errors
    /// When one differs.
    pub fn verify(&self, image: &StoredImage, step: Step<'_>) -> Result<(), LibraryError> {
        for (file, hash) in &image.files {
            if hash_of(&self.path(image, file), "verifying", step)? != *hash {
                return Err(LibraryError::Damaged { hash: image.hash.clone(), file: file.clone() });
            }
        }
        Ok(())
    }

    /// The images that must go for the others to take no more than this, those used longest ago first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn surplus(&self, keep_bytes: u64) -> Result<Vec<StoredImage>, LibraryError> {
        let mut taken = 0_u64;
        let mut surplus = self.list()?;
        surplus.retain(|image| {
            taken = taken.saturating_add(image.stored_bytes);
            taken > keep_bytes
        });
        surplus.reverse();
        Ok(surplus)
    }

    /// Deletes an image.
    ///
    /// # Errors
    /// When its files cannot be deleted.
    pub fn remove(&self, image: &StoredImage) -> Result<(), LibraryError> {
        let folder = self.dir.join(&image.hash);
        // The manifest first: a folder without one is no image, whenever the power fails.
        let gone = std::fs::remove_file(folder.join(MANIFEST)).and_then(|()| std::fs::remove_dir_all(&folder));
        gone.map_err(io(|| format!("deleting {}", folder.display())))
    }

    /// Deletes what interrupted additions left more than a day ago.
    pub fn sweep(&self) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let old = entry.metadata().and_then(|about| about.modified()).ok().and_then(|at| at.elapsed().ok());
            if entry.file_name().to_string_lossy().starts_with(ADDING) && old.is_some_and(|age| age > ABANDONED) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Notes that an image is used now, so that others are pruned before it.
    pub fn touch(&self, image: &StoredImage) {
        let file = File::options().append(true).open(self.path(image, MANIFEST));
        let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Where a file of an image lies.
    #[must_use]
    pub fn path(&self, image: &StoredImage, file: &str) -> PathBuf {
        self.dir.join(&image.hash).join(file)
    }

    fn workspace(&self) -> Result<tempfile::TempDir, LibraryError> {
        let doing = || format!("writing to the image store {}", self.dir.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(io(doing))?;
        tempfile::Builder::new().prefix(ADDING).tempdir_in(&self.dir).map_err(io(doing))
    }

    fn finish(&self, work: tempfile::TempDir, mut image: StoredImage) -> Result<StoredImage, LibraryError> {
        use std::os::unix::fs::MetadataExt;
        let doing = || format!("writing to the image store {}", self.dir.display());
        let blocks = |(file, _): &(String, String)| std::fs::metadata(work.path().join(file)).map_or(0, |about| about.blocks());
        image.stored_bytes = image.files.iter().map(blocks).sum::<u64>().saturating_mul(512);
        for (file, _) in &image.files {
            File::open(work.path().join(file)).and_then(|file| file.sync_all()).map_err(io(doing))?;
        }
        let text = serde_json::to_vec_pretty(&image).map_err(std::io::Error::from).map_err(io(doing))?;
        let mut manifest = private(&work.path().join(MANIFEST))?;
        manifest.write_all(&text).and_then(|()| manifest.sync_all()).map_err(io(doing))?;
        let folder = self.dir.join(&image.hash);
        if folder.exists() {
            // Without a manifest, else it would have been found.
            std::fs::remove_dir_all(&folder).map_err(io(doing))?;
        }
        std::fs::rename(work.keep(), &folder).map_err(io(doing))?;
        Ok(image)
    }
}

fn io(doing: impl FnOnce() -> String) -> impl FnOnce(std::io::Error) -> LibraryError {
    move |source| LibraryError::Io { doing: doing(), source }
}

fn private(path: &Path) -> Result<File, LibraryError> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    file.map_err(io(|| format!("writing {}", path.display())))
}

/// Copies and hashes in one go, so that the hash is of what is kept, whatever happens to the original meanwhile.
fn copy(from: &Path, to: &Path, step: Step<'_>) -> Result<(String, u64), LibraryError> {
    let doing = || format!("reading {}", from.display());
    let about = std::fs::metadata(from).map_err(io(doing))?;
    if !about.is_file() {
        return Err(LibraryError::Refused { file: from.to_owned(), why: "it is neither a file nor the folder of an OCI layout".into() });
    }
    crate::host::need_disk(to.parent().unwrap_or(to), (about.len() >> 20) + 64).map_err(LibraryError::Host)?;
    let mut output = private(to)?;
    let write = |bytes: &[u8]| if bytes.iter().all(|byte| *byte == 0) { Hole::Zeros } else { Hole::Bytes };
    let mut at = 0_u64;
    let mut input = File::open(from).map_err(io(doing))?;
    let hash = hash_stream(&mut input, about.len(), "copying", step, |bytes| {
        use std::io::{Seek, SeekFrom};
        match write(bytes) {
            Hole::Zeros => output.seek(SeekFrom::Current(bytes.len() as i64)).map(drop)?,
            Hole::Bytes => output.write_all(bytes)?,
        }
        at += bytes.len() as u64;
        Ok(())
    });
    let hash = hash.map_err(io(|| format!("copying {} to the image store", from.display())))?;
    output.set_len(at).map_err(io(|| format!("writing {}", to.display())))?;
    Ok((hash, at))
}

/// Whether a piece of a file needs to be written.
enum Hole {
    Zeros,
    Bytes,
}

fn hash_of(path: &Path, what: &str, step: Step<'_>) -> Result<String, LibraryError> {
    let doing = || format!("reading {}", path.display());
    let mut file = File::open(path).map_err(io(doing))?;
    let length = file.metadata().map_err(io(doing))?.len();
    hash_stream(&mut file, length, what, step, |_| Ok(())).map_err(io(doing))
}

fn hash_stream(
    input: &mut impl Read,
    length: u64,
    what: &str,
    step: Step<'_>,
    mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<String> {
    let (mut hasher, mut buffer, mut done) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let got = input.read(&mut buffer)?;
        if got == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(&buffer[..got]);
        each(&buffer[..got])?;
        done += got as u64;
        step(what, done, length.max(done));
    }
}

/// The folder of an OCI layout as an archive that is the same whoever packs it.
fn pack(folder: &Path, to: &Path) -> Result<(String, u64), LibraryError> {
    let doing = || format!("packing {}", folder.display());
    if !folder.join("oci-layout").is_file() {
        return Err(LibraryError::Refused { file: folder.to_owned(), why: "the folder holds no oci-layout".into() });
    }
    let mut names = vec!["index.json".to_owned(), "oci-layout".to_owned()];
    let blobs = std::fs::read_dir(folder.join("blobs/sha256")).map_err(io(doing))?;
    names.extend(blobs.flatten().map(|entry| format!("blobs/sha256/{}", entry.file_name().to_string_lossy())));
    names.sort();
    let mut builder = tar::Builder::new(private(to)?);
    for name in names {
        let mut file = File::open(folder.join(&name)).map_err(io(doing))?;
        let mut header = tar::Header::new_gnu();
        header.set_size(file.metadata().map_err(io(doing))?.len());
        header.set_mode(0o644);
        builder.append_data(&mut header, &name, &mut file).map_err(io(doing))?;
    }
    let file = builder.into_inner().map_err(io(doing))?;
    let length = file.metadata().map_err(io(doing))?.len();
    Ok((hash_of(to, "hashing", &mut |_, _, _| {})?, length))
}

fn manifest(folder: &Path) -> Option<(SystemTime, StoredImage)> {
    let mut bytes = Vec::new();
    let file = File::open(folder.join(MANIFEST)).ok()?;
    let used = file.metadata().and_then(|about| about.modified()).unwrap_or(UNIX_EPOCH);
    file.take(64 * 1024).read_to_end(&mut bytes).ok()?;
    let image: StoredImage = serde_json::from_slice(&bytes).ok()?;
    (folder.file_name()?.to_str()? == image.hash).then_some((used, image))
}

fn head_of(path: &Path) -> Result<Vec<u8>, LibraryError> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(kind::HEAD as u64).read_to_end(&mut head));
    read.map_err(io(|| format!("reading {}", path.display())))?;
    Ok(head)
}

fn file_name(path: &Path) -> String {
    refusal::tame(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
