//! Hosts the embedded chain for this process and others: a thread that runs the engine, and a socket around it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use super::engine::Engine;
use super::place::{HostLock, Place};
use super::wire::{self, Ask, Fact, MAX_ASK, PROTOCOL, Said, Told};
use crate::ChainError;
use crate::error::Fault;

/// Most clients at once; more wait in the socket's queue.
const MAX_CLIENTS: usize = 64;
/// Frames that wait for one client. A client that reads slower is cut off, and comes back by height.
const QUEUE: usize = 4_096;

/// A frame on its way to a client.
type Frame = Arc<Vec<u8>>;

/// Where the engine sends what a client must hear.
#[derive(Clone)]
struct Client {
    queue: mpsc::Sender<Frame>,
    cut: Arc<Notify>,
}

enum Work {
    Ask(Ask, Client),
    Mine,
}

/// A running host. Dropping it closes the socket; the engine then ends, and gives the directory free, by itself.
pub(super) struct Host {
    serving: Ending,
    engine: std::thread::JoinHandle<()>,
    _work: mpsc::Sender<Work>,
}

impl Host {
    /// Opens the chain and its socket. Returns when both answer.
    pub(super) async fn start(place: &Place, lock: HostLock, block_interval: Duration) -> Result<Host, ChainError> {
        let (work, works) = mpsc::channel(MAX_CLIENTS);
        let (ready, is_ready) = oneshot::channel();
        let dir = place.dir().to_owned();
        let engine = std::thread::Builder::new()
            .name("chain-engine".to_owned())
            .spawn(move || {
                run_engine(&dir, works, ready);
                // Not before the databases are written out: the next host reads them.
                drop(lock);
            })
            .map_err(ChainError::io("cannot start the chain's thread for", place.dir()))?;
        is_ready.await.map_err(|_| ChainError::Kernel("the chain's thread ended at once".to_owned()))??;

        let socket = place.socket();
        match std::fs::remove_file(socket) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(ChainError::io("cannot remove the old socket", socket)(e));
            }
            _ => {}
        }
        let listener = UnixListener::bind(socket).map_err(ChainError::io("cannot listen on", socket))?;
        let serving = Ending(tokio::spawn(serve(listener, work.clone(), block_interval)));
        Ok(Host { serving, engine, _work: work })
    }

    /// Whether it still serves.
    pub(super) fn is_alive(&self) -> bool {
        !self.engine.is_finished() && !self.serving.0.is_finished()
    }

    /// Ends it, and waits until the chain is written out and the directory free.
    pub(super) async fn stop(self) {
        let Host { serving, engine, _work } = self;
        drop((serving, _work));
        let _ = tokio::task::spawn_blocking(move || engine.join()).await;
    }
}

/// Ends a task when it is dropped.
pub(super) struct Ending(pub(super) JoinHandle<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(listener: UnixListener, work: mpsc::Sender<Work>, block_interval: Duration) {
    let miner = work.clone();
    let _mining = (!block_interval.is_zero()).then(|| {
        Ending(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(block_interval);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                if miner.send(Work::Mine).await.is_err() {
                    return;
                }
            }
        }))
    });
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < MAX_CLIENTS => match accepted {
                Ok((stream, _)) => {
                    clients.spawn(attend(stream, work.clone()));
                }
                Err(why) => {
                    tracing::warn!(%why, "a client of the chain could not be let in");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = clients.join_next() => {}
            () = work.closed() => return,
        }
    }
}

/// Serves one client until it goes away or is too slow.
async fn attend(stream: UnixStream, work: mpsc::Sender<Work>) {
    let (mut reading, mut writing) = stream.into_split();
    let (queue, mut frames) = mpsc::channel::<Frame>(QUEUE);
    let cut = Arc::new(Notify::new());
    let client = Client { queue, cut: cut.clone() };
    let network = bitcoin::Network::Regtest;
    let genesis = bitcoin::constants::genesis_block(network).block_hash();
    if wire::write_frame(&mut writing, &Said::Hello { protocol: PROTOCOL, network, genesis }).await.is_err() {
        return;
    }
    let (asked, mut asks) = mpsc::channel::<Ask>(1);
    // A task of its own, for reading must not be broken off in the middle of a frame.
    let reader = Ending(tokio::spawn(async move {
        while let Ok(Some(ask)) = wire::read_frame(&mut reading, MAX_ASK).await {
            if asked.send(ask).await.is_err() {
                return;
            }
        }
    }));
    loop {
        tokio::select! {
            ask = asks.recv() => {
                let Some(ask) = ask else { return };
                if work.send(Work::Ask(ask, client.clone())).await.is_err() {
                    return;
                }
            }
            frame = frames.recv() => {
                let Some(frame) = frame else { return };
                if tokio::io::AsyncWriteExt::write_all(&mut writing, &frame).await.is_err() {
                    return;
                }
            }
            () = cut.notified() => {
                tracing::warn!("a client of the chain reads too slowly and is cut off");
                drop(reader);
                return;
            }
            () = work.closed() => return,
        }
    }
}

fn run_engine(dir: &Path, mut works: mpsc::Receiver<Work>, ready: oneshot::Sender<Result<(), ChainError>>) {
    let mut engine = match Engine::open(dir) {
        Ok(engine) => engine,
        Err(why) => {
            let _ = ready.send(Err(why));
            return;
        }
    };
    if ready.send(Ok(())).is_err() {
        return engine.close();
    }
    let mut subscribers: Vec<Client> = Vec::new();
    while let Some(work) = works.blocking_recv() {
        let facts = match work {
            Work::Mine => engine.mine_if_waiting().unwrap_or_else(|why| {
                tracing::warn!(%why, "no block was mined");
                Vec::new()
            }),
            Work::Ask(Ask::Subscribe { tip }, client) => {
                let answer = match engine.tip() {
                    Ok((_, hash)) if hash == tip => {
                        subscribers.push(client.clone());
                        Ok(Told::Mempool(engine.mempool()))
                    }
                    Ok(_) => Ok(Told::Moved),
                    Err(why) => Err(fault(why)),
                };
                send(&client, &Said::Told(answer));
                Vec::new()
            }
            Work::Ask(ask, client) => {
                let (answer, facts) = match answer(&mut engine, ask) {
                    Ok((told, facts)) => (Ok(told), facts),
                    Err(why) => (Err(fault(why)), Vec::new()),
                };
                // Facts first: whoever is told that a thing is done has already heard what it changed.
                publish(&mut subscribers, facts);
                send(&client, &Said::Told(answer));
                Vec::new()
            }
        };
        publish(&mut subscribers, facts);
        if engine.is_broken() {
            // Bitcoin Core's library asks to be torn down then. Whoever takes over finds what was written out.
            break;
        }
    }
    engine.close();
}

fn answer(engine: &mut Engine, ask: Ask) -> Result<(Told, Vec<Fact>), ChainError> {
    let told = match ask {
        Ask::Tip | Ask::Subscribe { .. } => {
            let (height, hash) = engine.tip()?;
            Told::Tip { height, hash }
        }
        Ask::BlockHash { height } => Told::BlockHash(engine.hash_at(height)),
        Ask::Since { locator } => Told::Since(engine.since(&locator)?),
        Ask::Mempool => Told::Mempool(engine.mempool()),
        Ask::Transaction { txid } => Told::Transaction(engine.transaction(&txid)?.map(|(tx, status)| (wire::HexTx(tx), status))),
        Ask::History { script, skip } => Told::History(engine.history(&script, skip)?),
        Ask::Feerate => Told::Feerate { sat_per_kvb: engine.feerate_sat_per_kvb() },
        Ask::Broadcast { tx } => {
            let (txid, facts) = engine.broadcast(tx.0)?;
            return Ok((Told::Txid(txid), facts));
        }
        Ask::Faucet { script, sat } => {
            let (txid, facts) = engine.faucet(script, sat)?;
            return Ok((Told::Txid(txid), facts));
        }
        Ask::Generate { count } => {
            let (hashes, facts) = engine.generate(count)?;
            return Ok((Told::Hashes(hashes), facts));
        }
        Ask::Reorganise { depth, with } => {
            let (hashes, facts) = engine.reorganise(depth, with.into_iter().map(|tx| tx.0).collect())?;
            return Ok((Told::Hashes(hashes), facts));
        }
    };
    Ok((told, Vec::new()))
}

fn publish(subscribers: &mut Vec<Client>, facts: Vec<Fact>) {
    if subscribers.is_empty() {
        return;
    }
    for fact in facts {
        let Ok(bytes) = wire::frame(&Said::Fact(fact)) else { continue };
        let frame = Arc::new(bytes);
        subscribers.retain(|client| deliver(client, frame.clone()));
    }
}

fn send(client: &Client, said: &Said) {
    match wire::frame(said) {
        Ok(bytes) => {
            deliver(client, Arc::new(bytes));
        }
        Err(_) => client.cut.notify_one(),
    }
}

fn deliver(client: &Client, frame: Frame) -> bool {
    let delivered = client.queue.try_send(frame).is_ok();
    if !delivered {
        client.cut.notify_one();
    }
    delivered
}

fn fault(why: ChainError) -> Fault {
    match why {
        ChainError::Refused { txid, why } => Fault::Refused { txid, why },
        ChainError::DiskFull { dir, free_mib, need_mib } => Fault::DiskFull { dir, free_mib, need_mib },
        ChainError::FaucetEmpty { asked_sat, available_sat } => Fault::FaucetEmpty { asked_sat, available_sat },
        ChainError::OutOfRange { field, value, allowed } => Fault::OutOfRange { field, value, allowed },
        ChainError::Kernel(why) => Fault::Kernel(why),
        // With its sources, for they cannot cross the socket.
        other => Fault::Kernel(with_sources(&other)),
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
