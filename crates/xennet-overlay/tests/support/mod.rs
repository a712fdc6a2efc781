//! Overlays on loopback, each with a port of its own.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use xennet_overlay::{Judge, Judgement, Multiaddr, Overlay, OverlayConfig, OverlayError, OverlayEvent, PeerId};

pub const PATIENCE: Duration = Duration::from_secs(40);
pub const ANY_PORT: &str = "/ip4/127.0.0.1/tcp/0";

pub struct Party {
    pub overlay: Overlay,
    pub events: mpsc::Receiver<OverlayEvent>,
}

/// Valid is what begins with "task", expired what begins with "old".
pub fn judge() -> Judge {
    Arc::new(|message| match message {
        m if m.starts_with(b"task") => Judgement::Relay,
        m if m.starts_with(b"old") => Judgement::Ignore("expired"),
        _ => Judgement::Reject("no work"),
    })
}

pub fn secret() -> [u8; 32] {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    [NEXT.fetch_add(1, Ordering::Relaxed); 32]
}

pub fn config(listen: &[&str], bootstrap: &[&Multiaddr]) -> OverlayConfig {
    OverlayConfig {
        secret: secret(),
        listen: listen.iter().map(|address| address.parse().unwrap()).collect(),
        bootstrap: bootstrap.iter().map(|address| (*address).clone()).collect(),
        network: "test".to_owned(),
    }
}

pub fn start(config: OverlayConfig) -> Result<Party, OverlayError> {
    let (sender, events) = mpsc::channel(64);
    Ok(Party { overlay: Overlay::start(config, judge(), sender)?, events })
}

/// A party that listens, and its address.
pub async fn listener(bootstrap: &[&Multiaddr]) -> (Party, Multiaddr) {
    let party = start(config(&[ANY_PORT], bootstrap)).unwrap();
    let address = party.address().await;
    (party, address)
}

pub fn dialer(bootstrap: &[&Multiaddr]) -> Party {
    start(config(&[], bootstrap)).unwrap()
}

pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Party {
    pub async fn address(&self) -> Multiaddr {
        until("it listens", || !self.overlay.listen_addresses().is_empty()).await;
        self.overlay.listen_addresses()[0].clone()
    }

    pub fn knows(&self, peer: PeerId) -> bool {
        self.overlay.peers().iter().any(|known| known.id == peer)
    }

    pub async fn until_connected(&self, other: &Party) {
        until("both are connected", || self.knows(other.overlay.id()) && other.knows(self.overlay.id())).await;
    }

    pub async fn next_message(&mut self) -> Vec<u8> {
        let wait = async {
            loop {
                if let OverlayEvent::Message(message) = self.events.recv().await.expect("the overlay runs") {
                    return message;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("a message in time")
    }

    /// All messages that are there already.
    pub fn messages_so_far(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.events.try_recv().ok())
            .filter_map(|event| match event {
                OverlayEvent::Message(message) => Some(message),
                _ => None,
            })
            .collect()
    }
}
