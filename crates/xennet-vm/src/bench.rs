//! What starting a guest through this crate costs beyond QEMU itself, and guests to hold networks beside each other.

mod exchange;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

use crate::accelerator::Accelerator;
use crate::control::knock;
use crate::cpio::Archive;
use crate::error::{Doing, VmError};
use crate::host;
use crate::image::Image;
use crate::spec::VmSpec;
use crate::vm::{READY, Vm};

pub use exchange::{Exchange, SINK, SOURCE, SOURCE_BYTES};

/// From the first system call to the greeting of the guest's SSH server, in the order of the rounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootComparison {
    /// QEMU started by hand: the same image, machine and memory, no disk, no jail, no control socket.
    pub bare: Vec<Duration>,
    /// [`Vm::start`] and [`Vm::wait_ready`], with a temporary disk that is made first.
    pub ours: Vec<Duration>,
}

impl BootComparison {
    /// The middle one of the rounds' ratios, ours over bare. The two of a round ran one after the other under much the same
    /// load, so this tells the two ways apart on a busy machine too, where medians of each tell little.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        let mut ratios: Vec<f64> = self.bare.iter().zip(&self.ours).map(|(bare, ours)| ours.as_secs_f64() / bare.as_secs_f64()).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// The middle one of some durations; of an even number the upper.
#[must_use]
pub fn median(durations: &[Duration]) -> Duration {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

const MEMORY_MIB: u32 = 256;
const WITHIN: Duration = Duration::from_secs(120);

/// Boots the image `rounds` times each way, by turns, so that a change of the host's load meets both. `open` takes a guest's
/// network and gives what connects to its SSH server.
///
/// # Errors
/// As [`Vm::start`], or when a guest does not answer within two minutes.
pub async fn compare_boot<C, S, F>(
    image: &Image,
    accelerator: Accelerator,
    dir: &Path,
    rounds: u32,
    open: impl Fn(UnixStream) -> std::io::Result<C>,
) -> Result<BootComparison, VmError>
where
    C: Fn() -> F,
    S: AsyncRead + Unpin,
    F: Future<Output = std::io::Result<S>>,
{
    let mut comparison = BootComparison { bare: Vec::new(), ours: Vec::new() };
    for round in 0..rounds {
        // Whoever comes first alternates: the second finds the files in the host's cache, and a load that ebbs favours it.
        if round % 2 == 0 {
            comparison.bare.push(bare(image, accelerator, dir).await?);
            comparison.ours.push(ours(image, accelerator, dir, &open).await?);
        } else {
            comparison.ours.push(ours(image, accelerator, dir, &open).await?);
            comparison.bare.push(bare(image, accelerator, dir).await?);
        }
    }
    Ok(comparison)
}

async fn ours<C, S, F>(
    image: &Image,
    accelerator: Accelerator,
    dir: &Path,
    open: &impl Fn(UnixStream) -> std::io::Result<C>,
) -> Result<Duration, VmError>
where
    C: Fn() -> F,
    S: AsyncRead + Unpin,
    F: Future<Output = std::io::Result<S>>,
{
    let spec = VmSpec {
        dir: dir.join("ours"),
        hostname: "bench".into(),
        cores: 1,
        memory_mib: MEMORY_MIB,
        disk_mib: 256,
        persistent: None,
        authorized_key: "ssh-ed25519 AAAA".into(),
        accelerator,
    };
    let begun = Instant::now();
    let vm = Vm::start(spec, image).await?;
    let ready = async {
        let connect = open(vm.network().await?).doing(|| "taking the guest's network".into())?;
        vm.wait_ready(WITHIN, connect).await
    };
    let ready = ready.await;
    let took = begun.elapsed();
    vm.stop().await?;
    ready.map(|_| took)
}

async fn bare(image: &Image, accelerator: Accelerator, dir: &Path) -> Result<Duration, VmError> {
    let initrd = initrd_with(image, dir.join("bare.cpio"), Archive::new().file("etc/hostname", 0o644, b"bench\n"))?;
    let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    let address = free.doing(|| "looking for a free port on 127.0.0.1".into())?;

    let begun = Instant::now();
    let mut child = by_hand(image, &initrd, accelerator, "")?
        .args(["-serial", "stdio"])
        .args(["-netdev", &format!("user,id=net,restrict=on,ipv6=off,hostfwd=tcp:{address}-:22")])
        .args(["-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random"])
        .args(["-device", "virtio-balloon-pci,free-page-reporting=on"])
        .stdin(Stdio::null())
        .spawn()
        .doing(|| "starting QEMU".into())?;
    let answered = match child.stdout.take() {
        Some(console) => timeout(WITHIN, first_greeting(console, address)).await.is_ok(),
        None => false,
    };
    let took = begun.elapsed();
    // Collected here, so that the next round has the processor to itself.
    let _ = child.kill().await;
    crate::disk::remove(&initrd)?;
    if answered { Ok(took) } else { Err(VmError::NotReady { waited: took, console: "(not kept)".into() }) }
}

/// The image's initramfs with more in it, at this path, whose directory is made.
fn initrd_with(image: &Image, path: PathBuf, more: Archive) -> Result<PathBuf, VmError> {
    let doing = || format!("writing {}", path.display());
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).doing(doing)?;
    let mut bytes = std::fs::read(image.initrd()).doing(doing)?;
    bytes.extend(more.finish());
    std::fs::write(&path, bytes).doing(doing)?;
    Ok(path)
}

/// QEMU as one would start it by hand, with one core and a card on the network `net`, which is still to be named.
fn by_hand(image: &Image, initrd: &Path, accelerator: Accelerator, append: &str) -> Result<Command, VmError> {
    let (accelerator, cpu) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Tcg => ("tcg,thread=multi,tb-size=64", "max"),
    };
    let mut command = Command::new(host::qemu()?);
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-machine", "q35,usb=off,smbus=off,vmport=off,sata=off", "-smp", "1"])
        .args(["-m", &format!("{MEMORY_MIB}M"), "-accel", accelerator, "-cpu", cpu])
        .arg("-kernel")
        .arg(image.kernel())
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", format!("console=ttyS0 quiet cryptomgr.notests panic=5 {append}").trim_end()])
        .args(["-device", "virtio-net-pci,netdev=net,romfile="])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

/// Reads the console up to the image's word that it is up, or to the end.
async fn is_up(console: ChildStdout) -> bool {
    let mut lines = BufReader::new(console).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.contains(READY) {
            return true;
        }
    }
    false
}

/// Reads the console for the image's word that its SSH server starts, then asks the server.
async fn first_greeting(console: ChildStdout, address: SocketAddr) {
    is_up(console).await;
    knock(|| tokio::net::TcpStream::connect(address)).await;
}
