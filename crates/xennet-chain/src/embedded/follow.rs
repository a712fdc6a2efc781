//! Follows the chain from wherever we are, and tells the daemon what happens.

use std::collections::VecDeque;
use std::sync::Arc;

use bitcoin::ScriptBuf;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;

use super::host::Ending;
use super::wire::{self, Ask, Fact, History, MAX_SAID, Said, Since, Told};
use super::{Failed, RETRY, Shared};
use crate::ChainEvent;
use crate::error::Fault;
use crate::watch::Watcher;
use crate::wishes::Wish;

/// Frames read ahead.
const AHEAD: usize = 16;

/// Follows for ever, through any number of hosts.
pub(super) async fn follow(shared: Arc<Shared>, events: mpsc::Sender<ChainEvent>) {
    let mut follower = Follower { events, watcher: Watcher::default(), lost: false };
    loop {
        let why = match shared.connect().await {
            Ok(stream) => follower.session(&shared, stream).await,
            Err(Failed::For(why)) => why.to_string(),
            Err(_) => "nobody hosts the chain".to_owned(),
        };
        if !follower.lost {
            follower.lost = true;
            follower.tell(vec![ChainEvent::Lost { why }]).await;
        }
        shared.missed.notify_one();
        tokio::time::sleep(RETRY).await;
    }
}

struct Follower {
    events: mpsc::Sender<ChainEvent>,
    watcher: Watcher,
    lost: bool,
}

/// A connection that is read by a task of its own, because reading must not be broken off in the middle of a frame.
struct Line {
    writing: OwnedWriteHalf,
    said: mpsc::Receiver<Said>,
    _reader: Ending,
}

impl Line {
    fn new(stream: UnixStream) -> Line {
        let (mut reading, writing) = stream.into_split();
        let (read, said) = mpsc::channel(AHEAD);
        let reader = Ending(tokio::spawn(async move {
            while let Ok(Some(frame)) = wire::read_frame(&mut reading, MAX_SAID).await {
                if read.send(frame).await.is_err() {
                    return;
                }
            }
        }));
        Line { writing, said, _reader: reader }
    }

    async fn send(&mut self, ask: &Ask) -> Result<(), String> {
        wire::write_frame(&mut self.writing, ask).await.map_err(|why| why.to_string())
    }

    async fn next(&mut self) -> Result<Said, String> {
        self.said.recv().await.ok_or_else(|| "the host went away".to_owned())
    }

    /// Asks before the subscription, when nothing but the answer can come.
    async fn ask(&mut self, ask: &Ask) -> Result<Told, String> {
        self.send(ask).await?;
        match self.next().await? {
            Said::Told(Ok(told)) => Ok(told),
            Said::Told(Err(fault)) => Err(crate::ChainError::from(fault).to_string()),
            _ => Err("the host said what it was not asked".to_owned()),
        }
    }
}

impl Follower {
    /// Follows over one connection, and returns why it ended.
    async fn session(&mut self, shared: &Shared, stream: UnixStream) -> String {
        let mut line = Line::new(stream);
        match self.catch_up(&mut line).await {
            Ok(()) => {}
            Err(why) => return why,
        }
        // Scripts from before the connection broke are asked for again: their past may have changed.
        let mut to_ask: VecDeque<(ScriptBuf, u32)> = self.watcher.watched().map(|script| (script.clone(), 0)).collect();
        let mut asking: Option<ScriptBuf> = None;
        loop {
            self.hear_wishes(shared, &mut to_ask);
            if asking.is_none()
                && let Some((script, skip)) = to_ask.pop_front()
            {
                asking = Some(script.clone());
                if let Err(why) = line.send(&Ask::History { script, skip }).await {
                    return why;
                }
            }
            tokio::select! {
                said = line.next() => match said {
                    Ok(Said::Fact(fact)) => self.hear(fact).await,
                    Ok(Said::Told(Ok(Told::History(History { past, next })))) => {
                        if let (Some(script), Some(next)) = (asking.take(), next) {
                            to_ask.push_front((script, next));
                        }
                        let past = past.iter().map(|(tx, status)| (&tx.0, *status));
                        let events = self.watcher.history(past);
                        self.tell(events).await;
                    }
                    Ok(Said::Told(Err(Fault::Kernel(why)))) => return why,
                    Ok(_) => return "the host said what it was not asked".to_owned(),
                    Err(why) => return why,
                },
                () = shared.wished.notified() => {}
            }
        }
    }

    /// Comes to the tip by height, then subscribes to what follows.
    async fn catch_up(&mut self, line: &mut Line) -> Result<(), String> {
        loop {
            let Told::Since(Since { fork_height, fork_hash, blocks, tip_height }) =
                line.ask(&Ask::Since { locator: self.watcher.locator() }).await?
            else {
                return Err("the host did not say what happened".to_owned());
            };
            let mut events = self.watcher.rewind(fork_height, fork_hash);
            let mut height = fork_height;
            for block in blocks {
                height += 1;
                events.extend(self.watcher.connected(height, &block.0));
            }
            self.tell(events).await;
            let Some((_, tip)) = self.watcher.tip().filter(|(height, _)| *height >= tip_height) else { continue };
            match line.ask(&Ask::Subscribe { tip }).await? {
                Told::Mempool(txs) => {
                    let mut events = self.watcher.mempool_is(txs.iter().map(|tx| &tx.0));
                    if std::mem::take(&mut self.lost) {
                        events.insert(0, ChainEvent::Back);
                    }
                    events.push(ChainEvent::Tip { height, hash: tip });
                    self.tell(events).await;
                    return Ok(());
                }
                Told::Moved => {}
                _ => return Err("the host did not subscribe us".to_owned()),
            }
        }
    }

    async fn hear(&mut self, fact: Fact) {
        let events = match fact {
            Fact::Disconnected { hash, .. } => self.watcher.disconnected(hash),
            Fact::Connected { height, block } => {
                let mut events = self.watcher.connected(height, &block.0);
                events.push(ChainEvent::Tip { height, hash: block.0.block_hash() });
                events
            }
            Fact::Entered(tx) => self.watcher.entered(&tx.0),
            Fact::Left(txid) => self.watcher.left(txid),
        };
        self.tell(events).await;
    }

    fn hear_wishes(&mut self, shared: &Shared, to_ask: &mut VecDeque<(ScriptBuf, u32)>) {
        for wish in shared.wishes.take() {
            match wish {
                Wish::Watch(script) => {
                    self.watcher.watch(script.clone());
                    to_ask.push_back((script, 0));
                }
                Wish::Unwatch(script) => {
                    self.watcher.unwatch(&script);
                    to_ask.retain(|(waiting, _)| *waiting != script);
                }
            }
        }
    }

    /// Waits for a slow daemon: meanwhile the host cuts us off, and we catch up by height. A daemon that no longer
    /// listens does not matter here.
    async fn tell(&mut self, events: Vec<ChainEvent>) {
        for event in events {
            let _ = self.events.send(event).await;
        }
    }
}
