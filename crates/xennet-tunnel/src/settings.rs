//! The numbers of the tunnel, and what both ends ask of the SSH library.

use std::borrow::Cow;
use std::hint::black_box;
use std::sync::{Arc, Once};
use std::time::Duration;

use russh::keys::{Algorithm, PrivateKey};
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, client, compression, kex, mac, server};
use socket2::SockRef;
use tokio::net::TcpStream;

/// The longest frame of the lease pipe, in bytes.
pub const MAX_FRAME: usize = 65_536;
/// The subsystem the node asks for to get the lease pipe.
pub const SUBSYSTEM: &str = "xennet-lease";
/// The port the node names in its request for the forward. It stands for the version of the pipes, not for a TCP port.
pub const PIPE_VERSION: u32 = 2;
/// When nothing was heard for this long, an end asks the other whether it lives.
pub const KEEPALIVE: Duration = Duration::from_secs(2);
/// After this many unanswered questions the next one ends the session: 8 s after the last sign of life.
pub const KEEPALIVE_MISSED: usize = 3;
/// How many pipes may be open at once in one session.
pub const MAX_PIPES: usize = 64;

/// The reason a session is told when a newer one of its lease has taken its place.
pub(crate) const SUPERSEDED: &str = "a newer session of this lease took over";
/// How many frames wait in memory before `Link::send` makes the sender wait.
pub(crate) const FRAME_QUEUE: usize = 64;
/// How long a publisher waits for a node to open a pipe.
pub(crate) const PIPE_OPEN_WITHIN: Duration = Duration::from_secs(15);
/// How long a node tries to reach its guest for one pipe.
pub(crate) const TARGET_WITHIN: Duration = Duration::from_secs(5);
/// How long a node waits for the lease pipe and the forward.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(10);
/// A graceful close may take this long before the connection is cut.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// TCP gives a connection up when what it sent was not acknowledged for this long. The library's keepalive cannot see
/// this case: while it waits to write, its timers stand still.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// How much the kernel may hold unsent. More would only make the frames of the lease wait behind bulk data.
const UNSENT: u32 = 256 * 1024;
/// The window of a channel. Larger than any credit (see `credit`), so that credit alone decides.
const WINDOW: u32 = 16 * 1024 * 1024;
/// The longest packet inside a channel; the library warns of more.
pub(crate) const PACKET: u32 = 65_535;
/// How many packets the library queues for a channel's reader.
const CHANNEL_QUEUE: usize = 64;

/// How much freed memory the process may keep for the next packets, in bytes.
const KEPT: usize = 8 * 1024 * 1024;

/// `sshd` writes such a line first too.
fn version() -> SshId {
    SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-xennet_", env!("CARGO_PKG_VERSION"))))
}

/// Curve25519 with and without ML-KEM, Ed25519, authenticated ciphers, no compression: a stranger must not be able to
/// make us inflate anything.
fn preferred() -> Preferred {
    const KEX: &[kex::Name] = &[
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::EXTENSION_SUPPORT_AS_CLIENT,
        kex::EXTENSION_SUPPORT_AS_SERVER,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    ];
    const CIPHERS: &[cipher::Name] = &[cipher::AES_256_GCM, cipher::CHACHA20_POLY1305];
    const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];
    Preferred {
        kex: Cow::Borrowed(KEX),
        key: Cow::Borrowed(&[Algorithm::Ed25519]),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Borrowed(CIPHERS),
        mac: Cow::Borrowed(MACS),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

/// The publisher's end.
pub(crate) fn server(host_key: PrivateKey, attempts: usize) -> Arc<server::Config> {
    Arc::new(server::Config {
        server_id: version(),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::from_millis(300),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        channel_buffer_size: CHANNEL_QUEUE,
        preferred: preferred(),
        max_auth_attempts: attempts,
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVE_MISSED,
        nodelay: true,
        ..server::Config::default()
    })
}

/// The node's end.
pub(crate) fn client() -> Arc<client::Config> {
    Arc::new(client::Config {
        client_id: version(),
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        channel_buffer_size: CHANNEL_QUEUE,
        preferred: preferred(),
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVE_MISSED,
        nodelay: true,
        ..client::Config::default()
    })
}

/// The publisher as a client of the guest. An emulated guest has no AES instructions, so ChaCha20 goes first, and its
/// small SSH server may know counter mode only.
pub(crate) fn guest() -> Arc<client::Config> {
    const CIPHERS: &[cipher::Name] = &[cipher::CHACHA20_POLY1305, cipher::AES_256_GCM, cipher::AES_128_CTR, cipher::AES_256_CTR];
    const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA256, mac::HMAC_SHA512_ETM, mac::HMAC_SHA512];
    Arc::new(client::Config {
        client_id: version(),
        window_size: 4 * 1024 * 1024,
        channel_buffer_size: CHANNEL_QUEUE,
        preferred: Preferred { cipher: Cow::Borrowed(CIPHERS), mac: Cow::Borrowed(MACS), ..preferred() },
        inactivity_timeout: None,
        // The outer session watches the connection; a guest under load may be silent for long.
        keepalive_interval: None,
        ..client::Config::default()
    })
}

/// Packets are allocated and freed all the time. glibc gives freed memory back to the system as soon as 128 KiB of it
/// are together, and gets it again, zeroed, a moment later: a third of all time in a large transfer. Freeing one large
/// block raises that threshold to twice its size (see `M_TRIM_THRESHOLD` in mallopt(3)), as any program that frees
/// one by chance does.
pub(crate) fn keep_freed_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(KEPT / 2))));
}

/// Small packets at once, short queues, and an end to waiting for a peer that is gone.
pub(crate) fn tune(socket: &TcpStream) {
    let socket = SockRef::from(socket);
    // Each of these only makes things better; a system without them still works.
    let _ = socket.set_tcp_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let _ = socket.set_tcp_notsent_lowat(UNSENT);
    }
}
