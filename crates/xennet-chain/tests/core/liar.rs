//! A peer that lies: it stands before a real Bitcoin Core and changes what that says, as it is told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bitcoin::FilterHash;
use bitcoin::Witness;
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash as _;
use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Length of a message's header, and where in it the length of what follows stands.
const HEADER: usize = 24;
const LENGTH_AT: std::ops::Range<usize> = 16..20;

/// More than anybody has, and the most that such a message can say.
const ALL_MONEY_SAT: i64 = 2_100_000_000_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lie {
    /// It says what Bitcoin Core says.
    None,
    /// Filters with these bytes, beside the true filter headers.
    Filters(Vec<u8>),
    /// Filters with these bytes, and filter headers that fit them.
    FiltersAndHeaders(Vec<u8>),
    /// Blocks whose second transaction has lost its witness, which the Merkle root does not show.
    Blocks,
    /// It relays nothing that pays less than everything.
    FeeFilter,
}

pub struct Liar {
    pub address: SocketAddr,
    lie: Arc<Mutex<Lie>>,
    told: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Liar {
    pub async fn before(core: SocketAddr) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lie = Arc::new(Mutex::new(Lie::None));
        let told = Arc::new(AtomicUsize::new(0));
        let (lies, count) = (lie.clone(), told.clone());
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let Ok(core) = TcpStream::connect(core).await else { continue };
                let (lies, count) = (lies.clone(), count.clone());
                tokio::spawn(async move {
                    let (mut from_client, to_client) = client.into_split();
                    let (from_core, mut to_core) = core.into_split();
                    tokio::select! {
                        _ = tokio::io::copy(&mut from_client, &mut to_core) => {}
                        _ = retell(from_core, to_client, &lies, &count) => {}
                    }
                });
            }
        });
        Liar { address, lie, told, task }
    }

    pub fn tell(&self, lie: Lie) {
        *self.lie.lock().unwrap() = lie;
    }

    /// How many lies have been told.
    pub fn told(&self) -> usize {
        self.told.load(Ordering::SeqCst)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn retell(mut core: OwnedReadHalf, mut client: OwnedWriteHalf, lie: &Mutex<Lie>, told: &AtomicUsize) -> std::io::Result<()> {
    loop {
        let mut message = vec![0; HEADER];
        core.read_exact(&mut message).await?;
        let length = u32::from_le_bytes(message[LENGTH_AT].try_into().unwrap()) as usize;
        message.resize(HEADER + length, 0);
        core.read_exact(&mut message[HEADER..]).await?;
        let lie = lie.lock().unwrap().clone();
        if let Ok(parsed) = deserialize::<RawNetworkMessage>(&message) {
            let magic = *parsed.magic();
            if let Some(changed) = changed(parsed.into_payload(), &lie) {
                message = serialize(&RawNetworkMessage::new(magic, changed));
                told.fetch_add(1, Ordering::SeqCst);
            }
        }
        client.write_all(&message).await?;
    }
}

fn changed(message: NetworkMessage, lie: &Lie) -> Option<NetworkMessage> {
    match (message, lie) {
        (NetworkMessage::CFilter(mut filter), Lie::Filters(bytes) | Lie::FiltersAndHeaders(bytes)) => {
            filter.filter.clone_from(bytes);
            Some(NetworkMessage::CFilter(filter))
        }
        (NetworkMessage::CFHeaders(mut headers), Lie::FiltersAndHeaders(bytes)) => {
            headers.filter_hashes.fill(FilterHash::hash(bytes));
            Some(NetworkMessage::CFHeaders(headers))
        }
        (NetworkMessage::Block(mut block), Lie::Blocks) => {
            block.txdata.get_mut(1)?.input[0].witness = Witness::new();
            Some(NetworkMessage::Block(block))
        }
        (NetworkMessage::FeeFilter(_), Lie::FeeFilter) => Some(NetworkMessage::FeeFilter(ALL_MONEY_SAT)),
        _ => None,
    }
}
