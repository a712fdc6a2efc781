//! Bytes between the host and a guest through the gateway, beside QEMU's own user network.

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use xennet_gateway::{Gateway, Settings};
use xennet_vm::bench::{Exchange, SINK, SOURCE, SOURCE_BYTES};

use super::report::{Figure, Section, Target, Unit};
use super::statistics::Spread;
use super::{BenchError, Effort, Hardware, machine};

/// How much of the user network's speed the gateway must reach.
const LEAST_RATIO: f64 = 0.7;
/// Where the guests' files are.
const FOLDER: &str = "network";
/// The longest that one transfer may take.
const WITHIN: Duration = Duration::from_secs(120);
/// Of a connection into the guest, bytes at a time.
const PIECE: usize = 64 * 1024;
const GIGABYTE: f64 = 1e9;

/// What one way and one direction gave, a figure for each round.
#[derive(Default)]
struct Taken {
    bytes_per_s: Vec<f64>,
    /// QEMU's processor seconds for a gigabyte.
    qemu_s: Vec<f64>,
    /// The gateway's.
    gateway_s: Vec<f64>,
}

pub(super) async fn run(
    effort: Effort,
    dir: &Path,
    hardware: &mut Hardware,
    section: &mut Section,
    tell: &mut impl FnMut(&str),
) -> Result<(), BenchError> {
    let (image, verdict) = machine::prepare(hardware, tell).await?;
    tell("booting two guests, one on each network");
    let dir = dir.join(FOLDER);
    let (theirs, addresses) = Exchange::on_own_network(&image, verdict.accelerator, &dir).await?;
    let (ours, card) = Exchange::on_socket(&image, verdict.accelerator, &dir).await?;
    let gateway = Gateway::start(card, Settings::default()).map_err(|source| BenchError::io("start a gateway in", &dir, source))?;
    let broken = |source| BenchError::io("send bytes to a guest of", &dir, source);

    let rounds = effort.pick(3, 9);
    let mut taken: [[Taken; 2]; 2] = Default::default();
    for round in 0..rounds {
        tell(&format!("round {} of {rounds}", round + 1));
        for way in [round % 2, (round + 1) % 2] {
            for (direction, port) in [SINK, SOURCE].into_iter().enumerate() {
                let (qemu, gateways) = (if way == 0 { ours.cpu_time() } else { theirs.cpu_time() }, gateway_time());
                let begun = Instant::now();
                let transfer = async {
                    match way {
                        0 => exchange(gateway.connect(port), port).await,
                        _ => exchange(TcpStream::connect(addresses[direction]), port).await,
                    }
                };
                timeout(WITHIN, transfer).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(broken)?;
                let took = begun.elapsed().as_secs_f64();
                let gigabytes = SOURCE_BYTES as f64 / GIGABYTE;
                let qemu = (if way == 0 { ours.cpu_time() } else { theirs.cpu_time() }).saturating_sub(qemu);
                let taken = &mut taken[way][direction];
                taken.bytes_per_s.push(SOURCE_BYTES as f64 / took);
                taken.qemu_s.push(qemu.as_secs_f64() / gigabytes);
                taken.gateway_s.push(gateway_time().saturating_sub(gateways).as_secs_f64() / gigabytes);
            }
        }
    }
    let counts = gateway.counts();
    let spread = |samples: &[f64]| Spread::of(samples.to_vec()).ok_or(BenchError::Nothing);
    let [ours, theirs] = &taken;
    for (direction, name) in ["into the guest", "out of the guest"].into_iter().enumerate() {
        let (ours, theirs) = (&ours[direction], &theirs[direction]);
        let ratios: Vec<f64> = ours.bytes_per_s.iter().zip(&theirs.bytes_per_s).map(|(ours, theirs)| ours / theirs).collect();
        section.figures.extend([
            Figure::median(format!("{name}, gateway ÷ QEMU's user network"), Unit::Ratio, spread(&ratios)?)
                .to_reach(Target::AtLeast(LEAST_RATIO)),
            Figure::median(format!("{name}, gateway"), Unit::BytesPerSecond, spread(&ours.bytes_per_s)?),
            Figure::median(format!("{name}, user network"), Unit::BytesPerSecond, spread(&theirs.bytes_per_s)?),
            Figure::median(format!("{name}, the gateway's processor time for 1 GB"), Unit::Seconds, spread(&ours.gateway_s)?),
            Figure::median(format!("{name}, QEMU's for 1 GB beside the gateway"), Unit::Seconds, spread(&ours.qemu_s)?),
            Figure::median(format!("{name}, QEMU's for 1 GB on its user network"), Unit::Seconds, spread(&theirs.qemu_s)?),
        ]);
    }
    section.notes.push(format!(
        "{} MiB a transfer over one connection, in turns; one core under {}. QEMU's time holds the guest's own work. \
         The gateway counted {} bytes of payload in and {} out, in frames of {} and {}.",
        SOURCE_BYTES >> 20,
        verdict.accelerator,
        counts.down_payload_bytes,
        counts.up_payload_bytes,
        counts.down_frame_bytes,
        counts.up_frame_bytes
    ));
    Ok(())
}

/// Moves [`SOURCE_BYTES`] over a new connection, and waits until the other end has them.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(connecting: impl Future<Output = io::Result<S>>, port: u16) -> io::Result<()> {
    let mut stream = connecting.await?;
    let mut piece = vec![0; PIECE];
    if port == SINK {
        for _ in 0..SOURCE_BYTES / PIECE as u64 {
            stream.write_all(&piece).await?;
        }
        stream.shutdown().await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await?;
        return check(said.trim().parse().unwrap_or(0));
    }
    let mut came = 0;
    loop {
        match stream.read(&mut piece).await? {
            0 => return check(came),
            count => came += count as u64,
        }
    }
}

fn check(came: u64) -> io::Result<()> {
    if came == SOURCE_BYTES {
        return Ok(());
    }
    Err(io::Error::other(format!("{came} bytes of {SOURCE_BYTES} arrived")))
}

/// What the threads of gateways in this process have spent on a processor.
fn gateway_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten().map(|entry| entry.path());
    let gateways = threads.filter(|path| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "xennet-gateway"));
    let nanoseconds = |path: std::path::PathBuf| -> Option<u64> {
        std::fs::read_to_string(path.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
    };
    Duration::from_nanos(gateways.filter_map(nanoseconds).sum())
}
