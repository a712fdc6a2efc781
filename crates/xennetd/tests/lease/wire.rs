//! The network between node and publisher, which a test can cut.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Bytes pass.
    Fair,
    /// Connections are reset, and new ones too.
    Cut,
    /// Nothing passes, and nobody is told.
    BlackHole,
}

/// A TCP proxy in front of the publisher's SSH server.
pub struct Wire {
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
}

impl Wire {
    pub async fn to(server: SocketAddr) -> Wire {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (weather, seen) = watch::channel(Weather::Fair);
        tokio::spawn(async move {
            while let Ok((node, _)) = listener.accept().await {
                tokio::spawn(carry(node, server, seen.clone()));
            }
        });
        Wire { address, weather }
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

/// Carries one connection until it ends or is cut.
async fn carry(node: TcpStream, server: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let ways = weather.clone();
    let carried = async {
        fair(&mut ways.clone()).await;
        // The publisher may be down: then the node sees its connection end, as with any port forward.
        let Ok(publisher) = TcpStream::connect(server).await else { return };
        let ((from_node, to_node), (from_publisher, to_publisher)) = (node.into_split(), publisher.into_split());
        tokio::select! {
            () = one_way(from_node, to_publisher, ways.clone()) => {}
            () = one_way(from_publisher, to_node, ways.clone()) => {}
        }
    };
    tokio::select! {
        () = carried => {}
        _ = weather.wait_for(|now| *now == Weather::Cut) => {}
    }
}

async fn one_way(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, mut weather: watch::Receiver<Weather>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        fair(&mut weather).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Returns when bytes pass.
async fn fair(weather: &mut watch::Receiver<Weather>) {
    // An error means that the test is over.
    let _ = weather.wait_for(|now| *now == Weather::Fair).await;
}
