//! A publisher and a node on loopback.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use xennet_tunnel::{Authorize, DialConfig, Dialer, Link, ListenConfig, ListenLimits, Listener, PipeTarget, TunnelEvent, public_key};

pub const HOST_SEED: [u8; 32] = [1; 32];
pub const NODE_SEED: [u8; 32] = [2; 32];
pub const LEASE: &str = "5f3a";
pub const PIPE: &str = "vm-5f3a";
pub const LOOPBACK: &str = "127.0.0.1:0";

pub type Events = mpsc::Receiver<TunnelEvent>;

/// Everything here has a bound, so that a test that hangs says where.
pub async fn soon<T>(what: &str, doing: impl Future<Output = T>) -> T {
    let Ok(done) = timeout(Duration::from_secs(60), doing).await else {
        panic!("waited 60 s for {what}");
    };
    done
}

/// Lets in whoever holds one of these keys.
#[derive(Clone, Default)]
pub struct Guests(Arc<Mutex<HashSet<[u8; 32]>>>);

impl Guests {
    pub fn of(seeds: &[[u8; 32]]) -> Self {
        let guests = Self::default();
        seeds.iter().for_each(|seed| guests.add(seed));
        guests
    }

    pub fn add(&self, seed: &[u8; 32]) {
        self.0.lock().unwrap().insert(public_key(seed));
    }

    pub fn authorize(&self) -> Authorize {
        let guests = self.0.clone();
        Arc::new(move |login| {
            let known = guests.lock().unwrap().contains(&login.key);
            Box::pin(async move { known })
        })
    }
}

pub async fn listen(limits: ListenLimits, authorize: Authorize) -> (Listener, Events) {
    let (events, told) = mpsc::channel(16);
    let config = ListenConfig { address: LOOPBACK.parse().unwrap(), host_key_seed: HOST_SEED, limits };
    (Listener::bind(config, authorize, events).await.unwrap(), told)
}

pub fn dial_config(address: SocketAddr, target: Option<PipeTarget>) -> DialConfig {
    DialConfig {
        address,
        host_key: public_key(&HOST_SEED),
        user: LEASE.to_owned(),
        key_seed: NODE_SEED,
        pipe: PIPE.to_owned(),
        target: watch::channel(target).1,
    }
}

pub fn dial(config: DialConfig) -> (Dialer, Events) {
    let (events, told) = mpsc::channel(16);
    (Dialer::start(config, events), told)
}

/// The next event, or a panic.
pub async fn event(events: &mut Events) -> TunnelEvent {
    soon("an event", events.recv()).await.expect("no more events")
}

pub async fn up(events: &mut Events) -> Link {
    loop {
        match event(events).await {
            TunnelEvent::Up { link, user, .. } => {
                assert_eq!(user, LEASE);
                return link;
            }
            TunnelEvent::Retry { .. } => (),
            other => panic!("{other:?} instead of Up"),
        }
    }
}

pub async fn down(events: &mut Events) -> String {
    match event(events).await {
        TunnelEvent::Down { why, .. } => why,
        other => panic!("{other:?} instead of Down"),
    }
}

pub async fn frame(events: &mut Events) -> Vec<u8> {
    match event(events).await {
        TunnelEvent::Frame { bytes, .. } => bytes,
        other => panic!("{other:?} instead of Frame"),
    }
}

/// A publisher and a node whose session is up.
pub struct World {
    pub listener: Listener,
    pub dialer: Dialer,
    pub publisher: Link,
    pub node: Link,
    pub publisher_events: Events,
    pub node_events: Events,
}

impl World {
    pub async fn with(target: PipeTarget) -> Self {
        Self::through(target, |address| async move { address }).await
    }

    /// `way` gives the address the node dials for that of the listener.
    pub async fn through<F: Future<Output = SocketAddr>>(target: PipeTarget, way: impl FnOnce(SocketAddr) -> F) -> Self {
        let guests = Guests::of(&[NODE_SEED]);
        let (listener, mut publisher_events) = listen(ListenLimits::default(), guests.authorize()).await;
        let address = way(listener.local_addr()).await;
        let (dialer, mut node_events) = dial(dial_config(address, Some(target)));
        Self {
            publisher: up(&mut publisher_events).await,
            node: up(&mut node_events).await,
            listener,
            dialer,
            publisher_events,
            node_events,
        }
    }
}

/// A guest that does `what` with each connection.
pub async fn guest<F, R>(what: F) -> PipeTarget
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let socket = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            tokio::spawn(what(stream));
        }
    });
    PipeTarget::Tcp(address)
}

/// A guest that sends back what it gets.
pub async fn echo() -> PipeTarget {
    guest(|mut stream| async move {
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    })
    .await
}

/// Bytes that are the same nowhere.
pub struct Pattern(u64);

impl Pattern {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Writes `len` bytes of a pattern.
pub async fn write_pattern(mut to: impl AsyncWrite + Unpin, seed: u64, len: usize) {
    let mut pattern = Pattern::new(seed);
    let mut piece = vec![0; 64 * 1024];
    let mut left = len;
    while left > 0 {
        let n = left.min(piece.len());
        pattern.fill(&mut piece[..n]);
        to.write_all(&piece[..n]).await.unwrap();
        left -= n;
    }
    to.shutdown().await.unwrap();
}

/// Reads a stream to its end and checks that it is `len` bytes of the pattern.
pub async fn check_pattern(mut from: impl AsyncRead + Unpin, seed: u64, len: usize) {
    let mut pattern = Pattern::new(seed);
    let mut expected = vec![0; 64 * 1024];
    let mut piece = vec![0; 64 * 1024];
    let mut at = 0;
    while at < len {
        let n = (len - at).min(piece.len());
        from.read_exact(&mut piece[..n]).await.unwrap();
        pattern.fill(&mut expected[..n]);
        assert!(piece[..n] == expected[..n], "another byte after {at}");
        at += n;
    }
    assert_eq!(from.read(&mut piece).await.unwrap(), 0, "more than {len}");
}

/// A throwaway `sshd` on loopback, as a guest has one.
pub struct Sshd {
    child: Child,
    pub address: SocketAddr,
    pub user: String,
    pub host_seed: [u8; 32],
    _folder: tempfile::TempDir,
}

impl Sshd {
    /// One that lets in the holder of the key of `seed` as the user who runs this.
    pub async fn start(seed: &[u8; 32]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host_seed = [77; 32];
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            private(&path);
            path.display().to_string()
        };
        let host = write("host", xennet_tunnel::openssh_private_key(&host_seed).unwrap());
        let keys = write("keys", xennet_tunnel::openssh_public_key(&public_key(seed)) + "\n");
        let port = TcpListener::bind(LOOPBACK).await.unwrap().local_addr().unwrap().port();
        let config = write(
            "config",
            format!(
                "ListenAddress 127.0.0.1\nPort {port}\nHostKey {host}\nAuthorizedKeysFile {keys}\nPidFile none\n\
                 UsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
                 Subsystem sftp internal-sftp\nMaxStartups 100\n"
            ),
        );
        // Debian makes this folder when the service starts, which it never does here.
        let _ = std::fs::create_dir("/run/sshd");
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &config])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("apt-get install openssh-server");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let sshd = Self { child, address, user: String::from_utf8(user).unwrap().trim().to_owned(), host_seed, _folder: folder };
        soon("sshd", async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        sshd
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a file readable by its owner only, which `ssh` insists on.
pub fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
