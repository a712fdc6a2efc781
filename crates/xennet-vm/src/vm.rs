//! A running guest.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncRead;
use tokio::time::{sleep, timeout};

use crate::control::{knock, take_control};
use crate::disk;
use crate::error::{Doing, VmError};
use crate::folder::{NETWORK, SOCKET, clean, make_files, make_folder, open_folder};
use crate::host;
use crate::image::Image;
use crate::launch::{self, Launched, Sockets, printable};
use crate::privilege::Privilege;
use crate::process::{self, Process};
use crate::qmp::{Qmp, QmpError, socket_path};
use crate::record::Record;
use crate::spec::VmSpec;

/// What the image's init writes on the console once its SSH server starts.
pub(crate) const READY: &str = "xennet: ready";
/// How much of the console is kept for messages.
const CONSOLE_KEPT: usize = 4 * 1024;
/// Between two looks at the console.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long the console is trusted to tell before the SSH server is tried without its word.
const TRY: Duration = Duration::from_secs(2);
/// How long a guest with a persistent disk has to power off by itself.
const POWER_OFF_WITHIN: Duration = Duration::from_secs(10);
/// How long QEMU has to end, asked or killed.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A running guest and its QEMU.
///
/// Dropping the handle leaves the guest running, as the daemon's end would: [`Vm::adopt`] takes it over again,
/// [`Vm::stop`] ends it.
#[derive(Debug)]
pub struct Vm {
    dir: PathBuf,
    record: Record,
    process: Process,
    qmp: Qmp,
    processors: Vec<u32>,
    processor_nanoseconds: AtomicU64,
    console: Mutex<String>,
    /// What only the daemon that started the guest has.
    own: Mutex<Option<Launched>>,
}

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// QEMU's exit code: 0 when the guest powered off. `None` for a signal, or when an earlier daemon started it.
    pub code: Option<i32>,
    /// What QEMU complained of, at most 64 KiB.
    pub said: String,
}

impl Vm {
    /// Makes the disks and starts QEMU. The guest then boots; [`Vm::network`] is its way out and in.
    ///
    /// # Errors
    /// When the host lacks memory, disk or a program, or the folder has a living guest. Nothing is left behind,
    /// except a persistent disk.
    pub async fn start(spec: VmSpec, image: &Image) -> Result<Vm, VmError> {
        spec.check()?;
        host::qemu()?;
        make_folder(&spec.dir)?;
        if let Some(record) = Record::read(&spec.dir)?
            && let Some(process) = find(&record)
        {
            return Err(VmError::AlreadyRunning { dir: spec.dir, pid: process.pid() });
        }
        clean(&spec.dir)?;
        host::need_memory(u64::from(spec.memory_mib) + u64::from(launch::OVERHEAD_MIB))?;

        let random = random()?;
        let mut record = Record {
            name: format!("xennet-{random:016x}"),
            pid: None,
            start_time: None,
            user: Privilege::choose(random),
            cores: spec.cores,
            memory_mib: spec.memory_mib,
            disk_mib: spec.disk_mib,
            persistent: spec.persistent.is_some(),
            accelerator: spec.accelerator,
            image: image.hash().to_owned(),
        };
        let mut unwind = Unwind { dir: Some(spec.dir.clone()), process: None };
        let files = {
            let (spec, image, user) = (spec.clone(), image.clone(), record.user);
            let made = tokio::task::spawn_blocking(move || make_files(&spec, &image, user)).await;
            made.map_err(std::io::Error::from).doing(|| "making the guest's files".into())??
        };

        // Written before the process exists: whoever finds the record finds the process by its name.
        record.write(&spec.dir)?;
        let folder = open_folder(&spec.dir)?;
        let listen = |name: &str| {
            let listener = std::os::unix::net::UnixListener::bind(socket_path(&folder, name));
            listener.doing(|| format!("listening on {}", spec.dir.join(name).display()))
        };
        let mut launched = launch::launch(&record, &files, Sockets { qmp: listen(SOCKET)?, network: listen(NETWORK)? })?;
        let pid = launched.child.id().unwrap_or_default();
        let process = Process::hold(pid)?;
        record.pid = Some(pid);
        record.start_time = Some(process.start_time());
        unwind.process = Process::find(pid, process.start_time());
        record.write(&spec.dir)?;

        let (qmp, processors) = match take_control(&folder).await {
            Ok(control) => control,
            // A connection that QEMU closes means that it ended; its own words say why.
            Err(VmError::Qmp(QmpError::Closed | QmpError::Io(_))) => {
                process.kill();
                let _ = timeout(END_WITHIN, launched.child.wait()).await;
                return Err(why_it_failed(launched.log.take(), u64::from(spec.memory_mib)));
            }
            Err(error) => return Err(error),
        };
        // QEMU has read it.
        disk::remove(&files.initrd)?;
        unwind.dir = None;
        Ok(Vm::new(spec.dir, record, process, qmp, processors, Some(launched)))
    }

    /// Takes over the guest that an earlier daemon started in this folder. `None` if none runs there; what it
    /// left is then deleted.
    ///
    /// # Errors
    /// When the record is damaged, or the guest's QEMU does not answer; [`Vm::discard`] then ends it.
    pub async fn adopt(dir: &Path) -> Result<Option<Vm>, VmError> {
        let Some(mut record) = Record::read(dir)? else { return Ok(None) };
        let Some(process) = find(&record) else {
            clean(dir)?;
            return Ok(None);
        };
        record.pid = Some(process.pid());
        record.start_time = Some(process.start_time());
        let (qmp, processors) = take_control(&open_folder(dir)?).await?;
        record.write(dir)?;
        Ok(Some(Vm::new(dir.to_owned(), record, process, qmp, processors, None)))
    }

    /// Ends the guest that an earlier daemon started in this folder, if one runs, and deletes what it left.
    ///
    /// # Errors
    /// When the record is damaged or QEMU does not end.
    pub async fn discard(dir: &Path) -> Result<(), VmError> {
        if let Some(record) = Record::read(dir)?
            && let Some(process) = find(&record)
        {
            process.kill();
            timeout(END_WITHIN, process.ended()).await.map_err(|_| VmError::DoesNotEnd { pid: process.pid() })?;
        }
        clean(dir)
    }

    fn new(dir: PathBuf, record: Record, process: Process, qmp: Qmp, processors: Vec<u32>, own: Option<Launched>) -> Vm {
        Vm {
            dir,
            record,
            process,
            qmp,
            processors,
            processor_nanoseconds: AtomicU64::new(0),
            console: Mutex::default(),
            own: Mutex::new(own),
        }
    }

    /// Connects to the guest's card: a stream of Ethernet frames, each behind its length as 32 bits, most significant
    /// first. It has one taker at a time; another one gets nothing until the first has let go. Until somebody takes it,
    /// what the guest sends is lost.
    ///
    /// # Errors
    /// When QEMU has ended or does not answer.
    pub async fn network(&self) -> Result<UnixStream, VmError> {
        let doing = || "connecting to the guest's network".to_owned();
        let stream = UnixStream::connect(socket_path(&open_folder(&self.dir)?, NETWORK)).doing(doing)?;
        stream.set_nonblocking(true).doing(doing)?;
        if lock(&self.own).is_none() {
            // An earlier taker may have let go in the middle of a frame. QEMU then sends nothing at all until its machine
            // has stood still for a moment; the rest of that frame comes first, and a taker has to pass over it.
            self.pause().await?;
            self.resume().await?;
        }
        Ok(stream)
    }

    /// Waits until the guest says on its console that its SSH server starts. Nothing more is known of that server.
    ///
    /// # Errors
    /// As [`Vm::wait_ready`].
    pub async fn wait_booted(&self, within: Duration) -> Result<(), VmError> {
        self.before_the_end(self.says_ready(), within).await
    }

    /// Waits until the guest's SSH server answers, and returns its greeting. `connect` opens a connection to it, by way
    /// of whoever has taken [`Vm::network`]; it is called again and again, and what it gives may be dropped early.
    ///
    /// # Errors
    /// When the guest ends or `within` passes; the message holds the end of its console.
    pub async fn wait_ready<S, F>(&self, within: Duration, connect: impl Fn() -> F) -> Result<String, VmError>
    where
        S: AsyncRead + Unpin,
        F: Future<Output = std::io::Result<S>>,
    {
        let told = async {
            self.says_ready().await;
            knock(&connect).await
        };
        // The console may have been read by an earlier daemon. A knock at a guest that still boots can hang, so this one
        // must not hold up the other.
        let untold = async {
            let started_here = lock(&self.own).is_some();
            sleep(if started_here { TRY } else { Duration::ZERO }).await;
            knock(&connect).await
        };
        let greeting = async {
            tokio::select! {
                greeting = told => greeting,
                greeting = untold => greeting,
            }
        };
        self.before_the_end(greeting, within).await
    }

    async fn says_ready(&self) {
        while !self.console().await.contains(READY) {
            sleep(LOOK_EVERY).await;
        }
    }

    /// What `waited` gives, unless the guest ends or the time passes first.
    async fn before_the_end<T>(&self, waited: impl Future<Output = T>, within: Duration) -> Result<T, VmError> {
        tokio::select! {
            given = waited => Ok(given),
            () = self.process.ended() => {
                let console = format!("{}\n{}", self.console().await, self.take_log()).trim().to_owned();
                Err(VmError::GuestEnded { console })
            }
            () = sleep(within) => Err(VmError::NotReady { waited: within, console: self.console().await }),
        }
    }

    /// The guest's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// QEMU's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Time that the guest's virtual processors have spent on the host's, since the guest was started. It never
    /// goes back, and stays when the guest has ended.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let times = self.processors.iter().filter_map(|thread| self.process.thread_time(*thread));
        let now = u64::try_from(times.sum::<Duration>().as_nanos()).unwrap_or(u64::MAX);
        let before = self.processor_nanoseconds.fetch_max(now, Ordering::Relaxed);
        Duration::from_nanos(before.max(now))
    }

    /// Whether QEMU runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Waits until QEMU has ended, for whatever reason.
    pub async fn exited(&self) -> Exit {
        self.process.ended().await;
        let mut own = lock(&self.own);
        let code = own.as_mut().and_then(|own| own.child.try_wait().ok()?).and_then(|status| status.code());
        let said = own.as_mut().map(|own| own.log.take()).unwrap_or_default();
        Exit { code, said }
    }

    /// Stops the guest's clock and processors; its memory stays.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub async fn pause(&self) -> Result<(), VmError> {
        self.qmp.execute("stop", json!({})).await?;
        Ok(())
    }

    /// Lets a paused guest go on.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub async fn resume(&self) -> Result<(), VmError> {
        self.qmp.execute("cont", json!({})).await?;
        Ok(())
    }

    /// The end of what the guest wrote on its console, at most 4 KiB, safe to print.
    pub async fn console(&self) -> String {
        let arguments = json!({ "device": launch::CONSOLE, "size": launch::CONSOLE_BYTES });
        let new = self.qmp.execute("ringbuf-read", arguments).await.unwrap_or_default();
        let mut kept = lock(&self.console);
        kept.push_str(&printable(new.as_str().unwrap_or_default()));
        let surplus = kept.len().saturating_sub(CONSOLE_KEPT);
        let cut = (surplus..=kept.len()).find(|at| kept.is_char_boundary(*at)).unwrap_or(0);
        kept.drain(..cut);
        kept.clone()
    }

    /// Ends the guest and deletes everything of it but its persistent disk. A guest that has one is asked to power
    /// off first, so that what it wrote there is kept. May be called again.
    ///
    /// # Errors
    /// When QEMU does not even end by SIGKILL, or its files cannot be deleted.
    pub async fn stop(&self) -> Result<(), VmError> {
        if self.record.persistent && self.is_running() {
            // A paused guest would not notice the button. Its refusal is no reason to keep it alive.
            let _ = self.qmp.execute("cont", json!({})).await;
            let _ = self.qmp.execute("system_powerdown", json!({})).await;
            if timeout(POWER_OFF_WITHIN, self.process.ended()).await.is_err() {
                let _ = self.qmp.execute("quit", json!({})).await;
                let _ = timeout(END_WITHIN, self.process.ended()).await;
            }
        }
        let _ = self.cpu_time();
        self.process.kill();
        let ended = timeout(END_WITHIN, self.process.ended()).await;
        ended.map_err(|_| VmError::DoesNotEnd { pid: self.process.pid() })?;
        let own = lock(&self.own).take();
        if let Some(mut own) = own {
            let _ = timeout(END_WITHIN, own.child.wait()).await;
        }
        clean(&self.dir)
    }

    fn take_log(&self) -> String {
        lock(&self.own).as_mut().map(|own| own.log.take()).unwrap_or_default()
    }
}

/// Undoes a start that did not come to its end, also when its caller lost patience.
struct Unwind {
    /// `None` once the guest is a [`Vm`]'s.
    dir: Option<PathBuf>,
    process: Option<Process>,
}

impl Drop for Unwind {
    fn drop(&mut self) {
        let Some(dir) = &self.dir else { return };
        if let Some(process) = &self.process {
            process.kill();
        }
        if let Err(error) = clean(dir) {
            tracing::warn!(%error, "a guest that did not start left files behind");
        }
    }
}

fn find(record: &Record) -> Option<Process> {
    match (record.pid, record.start_time) {
        (Some(pid), Some(start_time)) => Process::find(pid, start_time),
        _ => process::with_argument(&launch::name_argument(&record.name)),
    }
}

fn why_it_failed(said: String, needed_mib: u64) -> VmError {
    let said = said.trim().to_owned();
    if said.contains("annot allocate memory") || said.contains("cannot set up guest memory") {
        // The kernel called it available, and refused it: a limit of a container, or strict overcommit.
        return match host::need_memory(u64::MAX) {
            Err(VmError::NotEnoughMemory { available_mib, .. }) => VmError::NotEnoughMemory { needed_mib, available_mib },
            _ => VmError::QemuFailed { said },
        };
    }
    VmError::QemuFailed { said: if said.is_empty() { "it ended without a word".into() } else { said } }
}

fn random() -> Result<u64, VmError> {
    use std::io::Read as _;
    let mut bytes = [0; 8];
    let doing = || "reading /dev/urandom".to_owned();
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).doing(doing)?;
    Ok(u64::from_le_bytes(bytes))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
