//! The process that reads a stranger's file, and nothing else: what it may do, and what it is asked.
//!
//! ```text
//! stdin: the file ──▶ own user, no capabilities, no network ──▶ stdout: a raw disk or a plain tar
//!                     limits on memory, time and size       └──▶ stderr: one line of JSON, the verdict
//!                     seccomp: reads and writes what it has open, opens nothing
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{SeccompAction, SeccompFilter};
use serde::{Deserialize, Serialize};

use super::kind::{HEAD, ImageKind, Magic, agree, magic};
use super::layers;
use super::qcow2;
use super::refusal::Refusal;

/// The argument that turns a program of ours into this process.
pub const CONFINED: &str = "confine-image";

/// Memory it may have, bytes. The lists of an archive's paths and the windows of decompressors fit.
const MEMORY: u64 = 768 << 20;
/// Processor time it may take, seconds.
const SECONDS: u64 = 1800;

/// What it found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The image is taken.
    Taken {
        /// What it is.
        kind: ImageKind,
        /// Bytes of the disk, or of all files of the archive.
        unpacked_bytes: u64,
    },
    /// It is not, and why.
    Refused {
        /// The reason.
        why: String,
    },
}

/// If this program was started as the confined process, is that and returns its exit code. To be called first in `main`.
#[must_use]
pub fn confined() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().take(4).collect();
    let [_, word, most, said] = &arguments[..] else { return None };
    if word != CONFINED {
        return None;
    }
    let verdict = most.parse().map_err(|_| Refusal::Unknown).and_then(|most| read(most, said.parse().ok()));
    let answer = match verdict {
        Ok((kind, unpacked_bytes)) => Answer::Taken { kind, unpacked_bytes },
        Err(refusal) => Answer::Refused { why: refusal.to_string() },
    };
    let line = serde_json::to_string(&answer).unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "{line}");
    Some(ExitCode::SUCCESS)
}

fn read(most: u64, said: Option<ImageKind>) -> Result<(ImageKind, u64), Refusal> {
    let mut input = Handle(File::from(std::io::stdin().as_fd().try_clone_to_owned()?));
    let mut output = Handle(File::from(std::io::stdout().as_fd().try_clone_to_owned()?));
    confine(most)?;
    let length = input.seek(SeekFrom::End(0))?;
    input.seek(SeekFrom::Start(0))?;
    let mut head = vec![0; HEAD.min(usize::try_from(length).unwrap_or(HEAD))];
    input.read_exact(&mut head)?;
    let found = magic(&head)?;
    agree(said, found)?;
    match found {
        Magic::Disk if length > most => Err(Refusal::TooLarge { what: "the disk", bytes: length, most }),
        Magic::Disk => Ok((ImageKind::Raw, length)),
        Magic::Qcow2 => {
            let size = qcow2::unpack(&mut input, &mut output, most)?;
            rustix::fs::ftruncate(&output.0, size.next_multiple_of(512)).map_err(std::io::Error::from)?;
            Ok((ImageKind::Qcow2, size))
        }
        Magic::Tar | Magic::Gzip | Magic::Xz | Magic::Zstd => {
            let container = if found == Magic::Tar && said != Some(ImageKind::RootTar) { layers::of_container(&mut input)? } else { None };
            if container.is_none() && said == Some(ImageKind::Container) {
                return Err(Refusal::Container {
                    why: "it holds neither oci-layout nor manifest.json; a compressed one must be unpacked first".into(),
                });
            }
            let kind = if container.is_some() { ImageKind::Container } else { ImageKind::RootTar };
            let spans = container.map_or_else(|| layers::whole(&mut input), Ok)?;
            let bytes = layers::join(&mut input, std::io::BufWriter::with_capacity(1 << 16, output), &spans, most)?;
            Ok((kind, bytes))
        }
    }
}

/// Gives up what reading a file does not need.
fn confine(most: u64) -> Result<(), Refusal> {
    let limit = |resource, bytes| setrlimit(resource, Rlimit { current: Some(bytes), maximum: Some(bytes) }).map_err(std::io::Error::from);
    limit(Resource::As, MEMORY)?;
    limit(Resource::Cpu, SECONDS)?;
    // An archive's headers come on top of its files.
    limit(Resource::Fsize, most.saturating_add(most / 4).saturating_add(512 << 20))?;
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, 8)?;
    rustix::thread::set_no_new_privs(true).map_err(std::io::Error::from)?;
    let unconfined = |error: String| Refusal::Unreadable { why: format!("this process cannot be confined: {error}") };
    let filter: seccompiler::BpfProgram = filter().map_err(|error| unconfined(error.to_string()))?;
    seccompiler::apply_filter(&filter).map_err(|error| unconfined(error.to_string()))
}

/// Reading and writing what is open, memory, and the end. Anything else ends the process.
fn filter() -> Result<seccompiler::BpfProgram, seccompiler::BackendError> {
    let allowed = [
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_pread64,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_pwrite64,
        libc::SYS_lseek,
        libc::SYS_ftruncate,
        libc::SYS_close,
        libc::SYS_fsync,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_getrandom,
        libc::SYS_clock_gettime,
        libc::SYS_sigaltstack,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        // How a Rust program ends itself when memory is refused.
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_tgkill,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let rules: BTreeMap<i64, Vec<seccompiler::SeccompRule>> = allowed.into_iter().map(|call| (call, Vec::new())).collect();
    let arch = if cfg!(target_arch = "aarch64") { seccompiler::TargetArch::aarch64 } else { seccompiler::TargetArch::x86_64 };
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?.try_into()
}

/// A file without the shortcuts that the standard library takes for files, which need other system calls.
struct Handle(File);

impl Read for Handle {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Handle {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Seek for Handle {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}
