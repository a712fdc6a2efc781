//! How fast the tunnel is, against the stock `ssh -R` in the same run.
//!
//! Both ways have the same shape: a client connects to a TCP port on loopback, the bytes go through one encrypted
//! connection on loopback with the same cipher, and come out at a TCP port that stands for the guest.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::error::TunnelError;
use crate::{DialConfig, Dialer, Link, ListenConfig, ListenLimits, Listener, PipeTarget, TunnelEvent, public_key};

mod stock;

use stock::StockTunnel;

/// The cipher both ways use.
pub const CIPHER: &str = "aes256-gcm@openssh.com";
/// How much is written and copied at a time.
const BUFFER: usize = 64 * 1024;
/// Either way must be up within this time, and each transfer done within ten times as much.
const WITHIN: Duration = Duration::from_secs(30);
const LEASE: &str = "bench";
const PIPE: &str = "vm-bench";
/// What a client says first: what the guest is to do.
const TAKE: u8 = b't';
const GIVE: u8 = b'g';

/// The speed of the tunnel and of `ssh -R`.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// How much went through in each transfer, in bytes.
    pub bytes: u64,
    /// From the publisher to the guest.
    pub to_guest: Speeds,
    /// From the guest to the publisher.
    pub from_guest: Speeds,
}

/// The speeds of one direction: medians over the rounds, in which both took turns.
#[derive(Clone, Copy, Debug)]
pub struct Speeds {
    /// The tunnel's, in bytes per second.
    pub tunnel_bytes_s: u64,
    /// That of `ssh -R`, in bytes per second.
    pub ssh_bytes_s: u64,
    /// How many times as fast the tunnel is, in hundredths. The median of each round's own ratio, because both turns of
    /// a round met about the same load of the machine.
    pub ratio_percent: u64,
}

impl Speeds {
    /// How many times as fast the tunnel is.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.ratio_percent as f64 / 100.0
    }
}

/// What was measured in the rounds of one direction.
#[derive(Default)]
struct Rounds {
    tunnel: Vec<u64>,
    ssh: Vec<u64>,
}

impl Rounds {
    fn speeds(self) -> Speeds {
        let ratios = self.tunnel.iter().zip(&self.ssh).map(|(tunnel, ssh)| tunnel.saturating_mul(100) / ssh.max(&1)).collect();
        Speeds { ratio_percent: median(ratios), tunnel_bytes_s: median(self.tunnel), ssh_bytes_s: median(self.ssh) }
    }
}

/// Sends `bytes` through the tunnel and through `ssh -R`, in turns, `rounds` times in each direction.
///
/// # Errors
/// [`TunnelError::Program`] if `ssh` or `sshd` is missing or does not come up, else what the tunnel met.
pub async fn throughput(bytes: u64, rounds: usize) -> Result<Throughput, TunnelError> {
    let (guest, _guest) = start_guest().await?;
    let tunnel = OurTunnel::start(guest).await?;
    let stock = StockTunnel::start(guest).await?;
    let (mut to_guest, mut from_guest) = (Rounds::default(), Rounds::default());
    for _ in 0..rounds.max(1) {
        for (direction, what) in [(&mut to_guest, TAKE), (&mut from_guest, GIVE)] {
            direction.tunnel.push(transfer(tunnel.entry, what, bytes).await?);
            direction.ssh.push(transfer(stock.entry, what, bytes).await?);
        }
    }
    Ok(Throughput { bytes, to_guest: to_guest.speeds(), from_guest: from_guest.speeds() })
}

fn median(mut all: Vec<u64>) -> u64 {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0)
}

/// One transfer, in bytes per second.
async fn transfer(entry: SocketAddr, what: u8, bytes: u64) -> Result<u64, TunnelError> {
    let moving = async {
        let mut stream = TcpStream::connect(entry).await?;
        let mut order = vec![what];
        order.extend_from_slice(&bytes.to_be_bytes());
        let started = Instant::now();
        stream.write_all(&order).await?;
        if what == TAKE {
            give(&mut stream, bytes).await?;
            stream.shutdown().await?;
            // The guest says when it has all.
            stream.read_u8().await?;
        } else {
            take(&mut stream, bytes).await?;
        }
        let nanos = started.elapsed().as_nanos().max(1);
        let speed = u128::from(bytes) * 1_000_000_000 / nanos;
        Ok(u64::try_from(speed).unwrap_or(u64::MAX))
    };
    timeout(WITHIN * 10, moving).await.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
}

async fn give(stream: &mut TcpStream, bytes: u64) -> std::io::Result<()> {
    let piece = vec![0x5a; BUFFER];
    let mut left = bytes;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER);
        stream.write_all(&piece[..n]).await?;
        left -= n as u64;
    }
    Ok(())
}

async fn take(stream: &mut TcpStream, bytes: u64) -> std::io::Result<()> {
    let mut piece = vec![0; BUFFER];
    let mut left = bytes;
    while left > 0 {
        match stream.read(&mut piece).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => left = left.saturating_sub(n as u64),
        }
    }
    Ok(())
}

/// Listens on any free port of loopback.
async fn loopback() -> std::io::Result<(TcpListener, SocketAddr)> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

/// What stands for the guest: takes or gives as many bytes as it is told.
async fn start_guest() -> Result<(SocketAddr, AbortOnDropHandle<()>), TunnelError> {
    let (socket, address) = loopback().await?;
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            tokio::spawn(async move {
                let what = stream.read_u8().await?;
                let bytes = stream.read_u64().await?;
                if what == GIVE {
                    return give(&mut stream, bytes).await;
                }
                take(&mut stream, bytes).await?;
                stream.write_u8(1).await
            });
        }
    });
    Ok((address, AbortOnDropHandle::new(serving)))
}

/// A publisher and a node, and a port that leads through them. Each has a runtime of its own, as the two daemons have,
/// and as `ssh` and `sshd` are processes of their own.
struct OurTunnel {
    entry: SocketAddr,
    _publisher: Side,
    _node: Side,
}

/// One end of the tunnel. Ends when it is dropped.
struct Side(Option<Runtime>);

impl Side {
    fn new(name: &str) -> std::io::Result<Self> {
        Ok(Self(Some(Builder::new_multi_thread().thread_name(name).enable_all().build()?)))
    }

    /// Runs something here and gives its result there.
    async fn run<T: Send + 'static>(&self, doing: impl Future<Output = Result<T, TunnelError>> + Send + 'static) -> Result<T, TunnelError> {
        let stopped = || TunnelError::Closed { why: "the runtime stopped".to_owned() };
        let task = self.0.as_ref().ok_or_else(stopped)?.spawn(doing);
        timeout(WITHIN, task).await.map_err(|_| stopped())?.map_err(|_| stopped())?
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // A runtime must not be waited for inside another.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl OurTunnel {
    async fn start(guest: SocketAddr) -> Result<Self, TunnelError> {
        let (publisher, node) = (Side::new("publisher")?, Side::new("node")?);
        let (events, told) = mpsc::channel(16);
        let listener = publisher.run(publish(events)).await?;
        let address = listener.local_addr();
        node.run(async move {
            sell(address, guest);
            Ok(())
        })
        .await?;
        let entry = publisher.run(open_entry(listener, told)).await?;
        Ok(Self { entry, _publisher: publisher, _node: node })
    }
}

const HOST_SEED: [u8; 32] = [1; 32];
const NODE_SEED: [u8; 32] = [2; 32];

async fn publish(events: mpsc::Sender<TunnelEvent>) -> Result<Listener, TunnelError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = ListenConfig { address, host_key_seed: HOST_SEED, limits: ListenLimits::default() };
    Listener::bind(config, Arc::new(|_| Box::pin(async { true })), events).await
}

/// Dials for as long as this runtime lives.
fn sell(address: SocketAddr, guest: SocketAddr) {
    let (events, mut told) = mpsc::channel(16);
    let config = DialConfig {
        address,
        host_key: public_key(&HOST_SEED),
        user: LEASE.to_owned(),
        key_seed: NODE_SEED,
        pipe: PIPE.to_owned(),
        target: watch::channel(Some(PipeTarget::Tcp(guest))).1,
    };
    let dialer = Dialer::start(config, events);
    tokio::spawn(async move {
        while told.recv().await.is_some() {}
        drop(dialer);
    });
}

/// A port each connection of which gets a pipe of its own.
async fn open_entry(listener: Listener, mut told: mpsc::Receiver<TunnelEvent>) -> Result<SocketAddr, TunnelError> {
    let link = loop {
        match told.recv().await {
            Some(TunnelEvent::Up { link, .. }) => break link,
            Some(_) => (),
            None => return Err(TunnelError::Closed { why: "it did not come up".to_owned() }),
        }
    };
    let (socket, entry) = loopback().await?;
    tokio::spawn(async move {
        let _kept = (listener, told);
        while let Ok((stream, _)) = socket.accept().await {
            tokio::spawn(bridge(stream, link.clone()));
        }
    });
    Ok(entry)
}

async fn bridge(stream: TcpStream, link: Link) {
    // As `ssh` and `sshd` do for what they forward.
    let _ = stream.set_nodelay(true);
    if let Ok(pipe) = link.open_pipe(PIPE).await {
        // A transfer that failed is seen at its ends.
        let _ = pipe.join(stream).await;
    }
}
