//! Hears what the server tells, asks what follows from it, and tells the daemon.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bitcoin::{ScriptBuf, Transaction};
use serde_json::json;
use tokio::sync::mpsc;

use super::Shared;
use super::known::{Item, script_hash};
use super::line::Line;
use super::store::Proved;
use crate::source::BlockAt;
use crate::watch::Watcher;
use crate::{ChainError, ChainEvent, Status, markers_around};

/// What a new follower is told of the past: one bucket of markers.
const RECENT_BLOCKS: u32 = 144;
/// As far as the watcher remembers: what a changed script has in older blocks was told before.
const REMEMBERED_BLOCKS: u32 = 288;
/// A server that has said nothing for so long is asked whether it is still there.
const QUIET: Duration = Duration::from_secs(60);
/// Pauses between two tries to connect.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Kinds of announcements, which are the classes of their markers.
const CLASSES: [u8; 4] = [1, 2, 3, 4];

/// Follows until nobody listens any more.
pub(super) async fn follow(shared: Arc<Shared>, events: mpsc::Sender<ChainEvent>) {
    let mut follower =
        Follower { shared, events, watcher: Watcher::default(), fresh: Vec::new(), untold: HashSet::new(), lost: false, begun: false };
    let mut pause = FIRST_PAUSE;
    while !follower.events.is_closed() {
        let line = match follower.shared.line() {
            Ok(line) => Ok(line),
            Err(_) => follower.shared.connect().await,
        };
        let why = match line {
            Ok(line) => follower.listen(&line, &mut pause).await,
            Err(why) => Err(why),
        };
        let Err(why) = why else { return };
        follower.shared.set_line(None);
        follower.lose(why).await;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

struct Follower {
    shared: Arc<Shared>,
    events: mpsc::Sender<ChainEvent>,
    watcher: Watcher,
    /// Watched, and their past not yet told.
    fresh: Vec<ScriptBuf>,
    /// Changed, and the change not yet told.
    untold: HashSet<ScriptBuf>,
    lost: bool,
    begun: bool,
}

/// All that a look has found, read before anything of it is told.
struct Found {
    best: BlockAt,
    /// The newest block that the watcher and the best chain have in common, if the watcher is not at its end.
    fork: Option<BlockAt>,
    /// Of blocks after the fork.
    new: Vec<Proved>,
    /// Of scripts that are watched since a moment ago or that changed.
    past: Vec<Proved>,
    waiting: Vec<Transaction>,
}

impl Follower {
    /// Until nobody listens, or the line is of no use: then why.
    async fn listen(&mut self, line: &Line, pause: &mut Duration) -> Result<(), ChainError> {
        let shared = self.shared.clone();
        while !self.events.is_closed() {
            self.look(line).await?;
            *pause = FIRST_PAUSE;
            if std::mem::take(&mut self.lost) {
                self.tell(vec![ChainEvent::Back]).await;
            }
            tokio::select! {
                () = shared.stir.notified() => {}
                () = tokio::time::sleep(QUIET) => {
                    line.ask("server.ping", json!([])).await?;
                }
            }
        }
        Ok(())
    }

    async fn look(&mut self, line: &Line) -> Result<(), ChainError> {
        let shared = self.shared.clone();
        let heard = line.heard()?;
        shared.wishes.grant(&mut self.watcher, &mut self.fresh);
        if let Some(tip) = heard.tip {
            shared.take_headers(line, shared.told(&tip)?).await?;
        }
        let best = shared.tip()?;
        let markers: HashSet<ScriptBuf> = markers(best).collect();
        let followed: Vec<ScriptBuf> = self.watcher.watched().chain(&markers).cloned().collect();
        let touched = std::mem::take(&mut *shared.touched.lock().unwrap_or_else(PoisonError::into_inner));
        let moved = self.watcher.tip() != Some((best.height, best.hash));
        let asked: Vec<ScriptBuf> = followed
            .iter()
            .filter(|script| {
                // At each new block all are asked for, so that nothing of it is told after it.
                let news = heard.changed.contains(&script_hash(script)) || touched.contains(*script);
                news || self.untold.contains(*script) || !shared.known().asked_at(script, best.hash)
            })
            .cloned()
            .collect();
        if asked.is_empty() && self.fresh.is_empty() && !moved {
            return Ok(());
        }
        self.untold.extend(shared.refresh(line, &asked, &markers).await?);
        let found = self.find(line, best, &followed, moved).await?;
        self.tell_found(found).await;
        Ok(())
    }

    /// Reads and proves what is to be told.
    async fn find(&self, line: &Line, best: BlockAt, followed: &[ScriptBuf], moved: bool) -> Result<Found, ChainError> {
        let shared = &self.shared;
        let all: Vec<Item> = shared.known().items(followed);
        let (mut fork, mut new) = (None, Vec::new());
        if moved {
            let begin = best.height.saturating_sub(RECENT_BLOCKS).max(shared.base());
            let from = match shared.known_of(&self.watcher.locator())?.into_iter().max_by_key(|at| at.height) {
                Some(from) => from,
                None => shared.at(begin)?.unwrap_or(best),
            };
            new = shared.prove(line, &all, from.height + 1, best.height).await?;
            fork = Some(from);
        }
        let fresh = shared.known().items(&self.fresh);
        let changed = shared.known().items(&self.untold);
        let mut past = shared.prove(line, &fresh, 0, best.height).await?;
        past.extend(shared.prove(line, &changed, best.height.saturating_sub(REMEMBERED_BLOCKS), best.height).await?);
        let waiting = shared.fetch_waiting(line, &all, best).await?;
        Ok(Found { best, fork, new, past, waiting })
    }

    async fn tell_found(&mut self, found: Found) {
        let Found { best, fork, new, past, waiting } = found;
        if let Some(fork) = fork {
            let events = self.watcher.rewind(fork.height, fork.hash);
            self.tell(events).await;
            for height in fork.height + 1..=best.height {
                let Ok(Some(at)) = self.shared.at(height) else { break };
                let txs = new.iter().filter(|proved| proved.at == at).map(|proved| &proved.tx);
                let events = self.watcher.passed(height, at.hash, txs);
                self.tell(events).await;
                if self.begun {
                    self.tell(vec![ChainEvent::Tip { height, hash: at.hash }]).await;
                }
            }
            if !std::mem::replace(&mut self.begun, true) {
                self.tell(vec![ChainEvent::Tip { height: best.height, hash: best.hash }]).await;
            }
        }
        self.fresh.clear();
        self.untold.clear();
        let past = past.iter().map(|proved| (&proved.tx, Status::Confirmed { height: proved.at.height }));
        let mut events = self.watcher.history(past);
        events.extend(self.watcher.mempool_is(&waiting));
        self.tell(events).await;
    }

    async fn lose(&mut self, why: ChainError) {
        // Scripts from before are asked for again: their past may have changed.
        self.fresh = self.watcher.watched().cloned().collect();
        if let Ok(best) = self.shared.tip() {
            self.untold.extend(markers(best));
        }
        if std::mem::replace(&mut self.lost, true) {
            tracing::debug!(%why, "the Electrum server still is of no use");
        } else {
            self.tell(vec![ChainEvent::Lost { why: why.to_string() }]).await;
        }
    }

    async fn tell(&mut self, events: Vec<ChainEvent>) {
        for event in events {
            // Nobody listens any more: the loop ends by itself.
            let _ = self.events.send(event).await;
        }
    }
}

/// The scripts by which announcements around this block are found.
fn markers(best: BlockAt) -> impl Iterator<Item = ScriptBuf> {
    CLASSES.iter().flat_map(move |class| markers_around(*class, best.height))
}
