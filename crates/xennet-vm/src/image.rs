//! The thin image: made on this machine from Debian packages, named by its hash, kept in a cache.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::error::{Doing, VmError};

/// The recipe travels inside the program, so an installed daemon can make the image without the source tree.
const RECIPE: [(&str, &str); 9] = [
    ("build.sh", include_str!("../../../images/thin/build.sh")),
    ("init", include_str!("../../../images/thin/init")),
    ("inittab", include_str!("../../../images/thin/inittab")),
    ("shutdown", include_str!("../../../images/thin/shutdown")),
    ("profile", include_str!("../../../images/thin/profile")),
    ("packages", include_str!("../../../images/thin/packages")),
    ("files", include_str!("../../../images/thin/files")),
    ("modules", include_str!("../../../images/thin/modules")),
    ("known", include_str!("../../../images/thin/known")),
];

/// What a build needs at its height: packages, unpacked packages, the image.
const BUILD_MIB: u64 = 400;

/// A build downloads 33 MB and takes seconds of work; apt gives up a silent server after 30 s, with retries.
const BUILD_WITHIN: Duration = Duration::from_secs(20 * 60);

/// How far the making of an image has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageProgress {
    /// The step under way, such as `2/5 fetching 12 packages`.
    pub step: String,
}

/// An image whose files have the hashes that its manifest names.
#[derive(Debug, Clone)]
pub struct Image {
    hash: String,
    folder: PathBuf,
    packages: Vec<String>,
}

impl Image {
    /// The SHA-256 of the manifest in hex: the image's name.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Name, version and SHA-256 of each Debian package that it was made from.
    #[must_use]
    pub fn packages(&self) -> &[String] {
        &self.packages
    }

    /// The kernel, an ELF file that is entered by PVH.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    /// The file system, an uncompressed cpio archive.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.folder.join("initrd.cpio")
    }

    /// Reads the image in this folder and checks its files. `None` if there is none, or a damaged one.
    fn open(folder: &Path) -> Option<Image> {
        let manifest = read_bounded(&folder.join("manifest"))?;
        let text = String::from_utf8(manifest).ok()?;
        let mut files = 0;
        let mut packages = Vec::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["file", name @ ("vmlinux" | "initrd.cpio"), hash, _] => {
                    if hash_file(&folder.join(name)).ok()? != hash {
                        return None;
                    }
                    files += 1;
                }
                ["package", ..] => packages.push(words[1..].join(" ")),
                _ => {}
            }
        }
        let hash = hex::encode(Sha256::digest(text.as_bytes()));
        (files == 2).then(|| Image { hash, folder: folder.to_owned(), packages })
    }
}

/// Where images are kept. Several daemons may share one.
#[derive(Debug, Clone)]
pub struct ImageStore {
    cache: PathBuf,
}

impl ImageStore {
    /// A store in this folder, which is made when it is first needed.
    #[must_use]
    pub fn new(cache: impl Into<PathBuf>) -> ImageStore {
        ImageStore { cache: cache.into() }
    }

    /// The thin image: from the cache, or made now. Making it takes some 5 s and downloads 33 MB.
    ///
    /// # Errors
    /// When packages or tools for it cannot be had; the message holds the remedy.
    pub async fn thin(&self, progress: impl FnMut(ImageProgress)) -> Result<Image, VmError> {
        let _lock = self.lock().await?;
        match self.cached() {
            Some(image) => Ok(image),
            None => self.build(progress).await,
        }
    }

    /// Makes the thin image anew from today's packages, for instance after a security update of the kernel.
    ///
    /// # Errors
    /// As [`ImageStore::thin`].
    pub async fn refresh(&self, progress: impl FnMut(ImageProgress)) -> Result<Image, VmError> {
        let _lock = self.lock().await?;
        self.build(progress).await
    }

    /// The image that this program's recipe gave last time.
    fn cached(&self) -> Option<Image> {
        let hash = String::from_utf8(read_bounded(&self.pointer())?).ok()?;
        let image = Image::open(&self.cache.join(hash.trim()))?;
        (image.hash == hash.trim()).then_some(image)
    }

    /// The file that names the image of this recipe. Another version of the program has another one.
    fn pointer(&self) -> PathBuf {
        let mut digest = Sha256::new();
        for (name, content) in RECIPE {
            digest.update(format!("{name} {}\n{content}", content.len()));
        }
        self.cache.join(format!("thin-{}", hex::encode(&digest.finalize()[..8])))
    }

    async fn lock(&self) -> Result<File, VmError> {
        let path = self.cache.join("lock");
        let doing = || format!("locking the image cache {}", path.display());
        std::fs::create_dir_all(&self.cache).doing(doing)?;
        let file = File::create(&path).doing(doing)?;
        let begun = tokio::time::Instant::now();
        while file.try_lock().is_err() {
            if begun.elapsed() > BUILD_WITHIN {
                let why = format!("another process holds {} since {} min", path.display(), BUILD_WITHIN.as_secs() / 60);
                return Err(VmError::ImageBuild { why });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(file)
    }

    async fn build(&self, progress: impl FnMut(ImageProgress)) -> Result<Image, VmError> {
        crate::host::need_disk(&self.cache, BUILD_MIB)?;
        let doing = || format!("writing to the image cache {}", self.cache.display());
        // Inside the cache, so that the finished image can be renamed into place.
        let work = tempfile::Builder::new().prefix(".build-").tempdir_in(&self.cache).doing(doing)?;
        for (name, content) in RECIPE {
            std::fs::write(work.path().join(name), content).doing(doing)?;
        }
        let made = work.path().join("image");
        run_script(work.path(), &made, &self.cache.join("packages"), progress).await?;
        let image = Image::open(&made).ok_or_else(|| VmError::ImageBuild { why: "what was built is not whole".into() })?;
        let folder = self.cache.join(&image.hash);
        match std::fs::rename(&made, &folder) {
            // The same image is there already. Replaced all the same: it may have been damaged.
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
                std::fs::remove_dir_all(&folder).doing(doing)?;
                std::fs::rename(&made, &folder).doing(doing)?;
            }
            other => other.doing(doing)?,
        }
        let pointer = work.path().join("pointer");
        std::fs::write(&pointer, &image.hash).doing(doing)?;
        std::fs::rename(&pointer, self.pointer()).doing(doing)?;
        Ok(Image { folder, ..image })
    }
}

async fn run_script(recipe: &Path, out: &Path, packages: &Path, mut progress: impl FnMut(ImageProgress)) -> Result<(), VmError> {
    let doing = || "running the image's build script".to_owned();
    let mut child = tokio::process::Command::new("/bin/sh")
        .arg(recipe.join("build.sh"))
        .arg(out)
        .arg(packages)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .doing(doing)?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(VmError::ImageBuild { why: "its output cannot be read".into() });
    };
    let mut said = Vec::new();
    let report = async {
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await? {
            if let Some(step) = line.strip_prefix("step ") {
                progress(ImageProgress { step: step.to_owned() });
            }
        }
        std::io::Result::Ok(())
    };
    let complaints = async {
        let mut stderr = stderr.take(64 * 1024);
        stderr.read_to_end(&mut said).await?;
        // The rest is read too, else the script would wait for ever to write it.
        tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await
    };
    let all = async { tokio::try_join!(report, complaints, child.wait()) };
    let (_, _, status) = tokio::time::timeout(BUILD_WITHIN, all)
        .await
        .map_err(|_| VmError::ImageBuild { why: format!("it took more than {} min", BUILD_WITHIN.as_secs() / 60) })?
        .doing(doing)?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason");
    Err(VmError::ImageBuild { why: last.trim_start_matches("error: ").to_owned() })
}

fn read_bounded(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(64 * 1024).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut digest = Sha256::new();
    std::io::copy(&mut File::open(path)?, &mut digest)?;
    Ok(hex::encode(digest.finalize()))
}
