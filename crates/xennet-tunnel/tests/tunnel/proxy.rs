//! A way between node and publisher that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Weather {
    Fair,
    /// Everything is swallowed, and nobody is told.
    Blackhole,
}

/// Forwards TCP connections until told otherwise.
pub struct Proxy {
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    kill: watch::Sender<u32>,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    pub async fn to(upstream: SocketAddr) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (weather, sky) = watch::channel(Weather::Fair);
        let (kill, killed) = watch::channel(0);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((down, _)) = socket.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (sky, mut killed) = (sky.clone(), killed.clone());
                killed.mark_unchanged();
                tokio::spawn(async move {
                    if *sky.borrow() == Weather::Blackhole {
                        // Not even refused.
                        let _ = killed.changed().await;
                        return;
                    }
                    let Ok(up) = TcpStream::connect(upstream).await else { return };
                    let (down_r, down_w) = down.into_split();
                    let (up_r, up_w) = up.into_split();
                    tokio::select! {
                        _ = killed.changed() => (),
                        () = async {
                            tokio::join!(
                                carry(down_r, up_w, sky.clone()),
                                carry(up_r, down_w, sky),
                            );
                        } => (),
                    }
                });
            }
        });
        Self { address, weather, kill, connections }
    }

    /// Closes all connections.
    pub fn kill(&self) {
        self.kill.send_modify(|n| *n += 1);
    }

    /// Stops carrying anything, in the connections there are and in new ones.
    pub fn blackhole(&self) {
        self.weather.send_replace(Weather::Blackhole);
    }

    /// Carries again, in new connections.
    pub fn heal(&self) {
        self.kill();
        self.weather.send_replace(Weather::Fair);
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut sky: watch::Receiver<Weather>) {
    let mut piece = vec![0; 64 * 1024];
    loop {
        let n = tokio::select! {
            n = from.read(&mut piece) => n,
            () = blackhole(&mut sky) => std::future::pending().await,
        };
        match n {
            Ok(n) if n > 0 => {
                if to.write_all(&piece[..n]).await.is_err() {
                    return;
                }
            }
            _ => {
                let _ = to.shutdown().await;
                return;
            }
        }
    }
}

async fn blackhole(sky: &mut watch::Receiver<Weather>) {
    let _ = sky.wait_for(|weather| *weather == Weather::Blackhole).await;
}
