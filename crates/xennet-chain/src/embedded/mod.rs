//! The embedded chain: Bitcoin's regtest in our own processes.
//!
//! ```text
//!  daemon A                     daemon B
//!  Chain ──┐                    Chain ──┐
//!          ├── DIR/chain.sock ──────────┘
//!  Host: socket ─ engine thread ─ Bitcoin Core's validation, index, mempool
//!        holds the lock on DIR/chain.lock
//! ```
//! Whoever gets the lock hosts; all processes, the host's own too, are clients of the socket, so that there is one way
//! to do everything. The system frees the lock when the host dies, another client takes over within moments, and all
//! clients catch up by height.

mod asking;
mod engine;
mod faucet;
mod follow;
mod host;
mod index;
mod kernel;
mod limits;
mod look;
mod mempool;
mod place;
mod policy;
mod records;
mod template;
#[cfg(test)]
mod vectors;
mod wire;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::Network;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};

use self::host::{Ending, Host};
use self::place::Place;
use self::wire::{Ask, MAX_ASK, MAX_SAID, PROTOCOL, Said, Told};
use crate::wishes::{Wish, Wishes};
use crate::{ChainError, ChainEvent};

/// How long opening and requests wait for a host before they fail. A start takes a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a host may think about an answer.
const ANSWER: Duration = Duration::from_secs(60);
/// Between two tries to reach a host.
const RETRY: Duration = Duration::from_millis(20);
/// Between two looks whether the directory has become free, if nobody asks for it.
const LOOK: Duration = Duration::from_secs(1);

/// What the tasks of one [`Embedded`] share.
struct Shared {
    place: Place,
    block_interval: Duration,
    host: tokio::sync::Mutex<Option<Host>>,
    /// Somebody could not reach the host.
    missed: Notify,
    /// Why this process could not host, for error messages.
    trouble: Mutex<Option<String>>,
    wishes: Wishes,
    wished: Notify,
}

/// A client of the embedded chain, and its host if no other process is.
pub(crate) struct Embedded {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<Ending>>,
}

/// Why one try at a request failed.
enum Failed {
    /// The host has not got the request.
    Unsent(std::io::Error),
    /// The host may have got the request.
    Unanswered,
    /// Trying again would not help.
    For(ChainError),
}

impl Embedded {
    pub(crate) async fn open(dir: &Path, block_interval: Duration, events: mpsc::Sender<ChainEvent>) -> Result<Embedded, ChainError> {
        let shared = Arc::new(Shared {
            place: Place::open(dir)?,
            block_interval,
            host: tokio::sync::Mutex::new(None),
            missed: Notify::new(),
            trouble: Mutex::new(None),
            wishes: Wishes::default(),
            wished: Notify::new(),
        });
        let begun = Instant::now();
        loop {
            // The caller is to hear of a full disk or a damaged chain at once, so errors are not retried here.
            shared.host_if_free().await?;
            match shared.connect().await {
                Ok(_) => break,
                Err(Failed::For(why)) => return Err(why),
                Err(_) if begun.elapsed() > PATIENCE => {
                    let place = &shared.place;
                    let waited_s = begun.elapsed().as_secs();
                    return Err(ChainError::Locked { dir: place.dir().to_owned(), pid: place.holder(), waited_s });
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
        let tasks = vec![Ending(tokio::spawn(keep_hosted(shared.clone()))), Ending(tokio::spawn(follow::follow(shared.clone(), events)))];
        Ok(Embedded { shared, tasks: Mutex::new(tasks) })
    }

    pub(crate) async fn close(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let host = self.shared.host.lock().await.take();
        if let Some(host) = host {
            host.stop().await;
        }
    }

    pub(crate) async fn is_host(&self) -> bool {
        self.shared.host.lock().await.as_ref().is_some_and(Host::is_alive)
    }

    /// Asks the host, whoever it is by then.
    async fn ask(&self, ask: Ask) -> Result<Told, ChainError> {
        let begun = Instant::now();
        loop {
            let why = match self.shared.ask_once(&ask).await {
                Ok(told) => return told.map_err(ChainError::from),
                Err(Failed::For(why)) => return Err(why),
                Err(Failed::Unsent(why)) => why.to_string(),
                Err(Failed::Unanswered) => match ask.must_not_repeat() {
                    Some(what) => return Err(ChainError::Interrupted { what }),
                    None => "the host went away".to_owned(),
                },
            };
            let waited = begun.elapsed();
            if waited > PATIENCE {
                let trouble = self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let dir = self.shared.place.dir().to_owned();
                return Err(ChainError::Unreachable { dir, waited_s: waited.as_secs(), why: trouble.unwrap_or(why) });
            }
            self.shared.missed.notify_one();
            tokio::time::sleep(RETRY).await;
        }
    }

    /// The error for an answer to another question.
    fn astray(&self, told: &Told) -> ChainError {
        self.shared.protocol(format!("an answer that was not asked for: {told:.80?}"))
    }

    /// For the follower, which looks at once.
    pub(crate) fn wish(&self, wish: Wish) {
        self.shared.wishes.add(wish);
        self.shared.wished.notify_one();
    }
}

impl Shared {
    /// Becomes the host if nobody is.
    async fn host_if_free(&self) -> Result<(), ChainError> {
        let mut host = self.host.lock().await;
        if host.as_ref().is_some_and(Host::is_alive) {
            return Ok(());
        }
        *host = None;
        if let Some(lock) = self.place.try_lock()? {
            *host = Some(Host::start(&self.place, lock, self.block_interval).await?);
            tracing::info!(dir = %self.place.dir().display(), "this process hosts the chain");
        }
        Ok(())
    }

    /// Connects, and checks that the other end is a host of our chain.
    async fn connect(&self) -> Result<UnixStream, Failed> {
        let mut stream = UnixStream::connect(self.place.socket()).await.map_err(Failed::Unsent)?;
        let hello = tokio::time::timeout(PATIENCE, wire::read_frame::<Said>(&mut stream, MAX_SAID)).await;
        match hello {
            Ok(Ok(Some(Said::Hello { protocol, .. }))) if protocol != PROTOCOL => {
                let why = format!("it speaks version {protocol} of the protocol, and this is version {PROTOCOL}");
                Err(Failed::For(self.protocol(why)))
            }
            Ok(Ok(Some(Said::Hello { network, .. }))) if network != Network::Regtest => Err(Failed::For(ChainError::WrongNetwork {
                what: self.place.dir().display().to_string(),
                expected: Network::Regtest.to_string(),
                found: network.to_string(),
            })),
            Ok(Ok(Some(Said::Hello { .. }))) => Ok(stream),
            Ok(Ok(Some(_))) => Err(Failed::For(self.protocol("no greeting".to_owned()))),
            Ok(Ok(None)) => Err(Failed::Unsent(std::io::ErrorKind::UnexpectedEof.into())),
            Ok(Err(why)) => Err(Failed::Unsent(why)),
            Err(_) => Err(Failed::Unsent(std::io::ErrorKind::TimedOut.into())),
        }
    }

    /// One connection, one question, one answer.
    async fn ask_once(&self, ask: &Ask) -> Result<Result<Told, crate::error::Fault>, Failed> {
        let frame = wire::frame(ask).map_err(Failed::Unsent)?;
        if frame.len() > MAX_ASK {
            let (value, allowed) = (frame.len() as u64, format!("at most {MAX_ASK}"));
            return Err(Failed::For(ChainError::OutOfRange { field: "the size of the request".to_owned(), value, allowed }));
        }
        let mut stream = self.connect().await?;
        stream.write_all(&frame).await.map_err(Failed::Unsent)?;
        match tokio::time::timeout(ANSWER, wire::read_frame::<Said>(&mut stream, MAX_SAID)).await {
            Ok(Ok(Some(Said::Told(told)))) => Ok(told),
            Ok(Ok(Some(_))) => Err(Failed::For(self.protocol("a fact that was not asked for".to_owned()))),
            Ok(Ok(None) | Err(_)) | Err(_) => Err(Failed::Unanswered),
        }
    }

    fn protocol(&self, why: String) -> ChainError {
        ChainError::Protocol { dir: self.place.dir().to_owned(), why }
    }
}

/// Takes over whenever the directory is free.
async fn keep_hosted(shared: Arc<Shared>) {
    loop {
        let trouble = shared.host_if_free().await.err().map(|why| {
            tracing::warn!(%why, "this process cannot host the chain");
            why.to_string()
        });
        let failed = trouble.is_some();
        *shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        if failed {
            tokio::time::sleep(LOOK).await;
        } else {
            let _ = tokio::time::timeout(LOOK, shared.missed.notified()).await;
        }
    }
}
