//! Speaks with peers, takes in what they send, and tells the daemon.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bip157::chain::{BlockHeaderChanges, ChainState, IndexedHeader};
use bip157::{Builder, Client, Event, HashCheckpoint, IndexedFilter, Node, Requester, Warning};
use bitcoin::{Network, ScriptBuf};
use tokio::sync::mpsc;

use super::{Shared, filter};
use crate::source::BlockAt;
use crate::watch::Watcher;
use crate::{ChainError, ChainEvent, markers_around};

/// What a new follower is told of the past: one bucket of markers.
const RECENT_BLOCKS: u32 = 144;
/// Between two looks at what does not come by itself.
const TICK: Duration = Duration::from_secs(1);
/// Pauses between two tries to find peers.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Without any peer for so long, the chain is away.
const LONELY: Duration = Duration::from_secs(10);
/// Own transactions that wait are offered again after this.
const AGAIN: Duration = Duration::from_secs(600);
/// Headers written at once.
const HEADERS_AT_ONCE: usize = 2_000;
/// Kinds of announcements, which are the classes of their markers.
const CLASSES: [u8; 4] = [1, 2, 3, 4];
/// Peers that must agree on what a block's filter is.
const AGREE: u8 = 2;

/// Follows until nobody listens any more.
pub(super) async fn follow(shared: Arc<Shared>, events: mpsc::Sender<ChainEvent>) {
    let mut follower = Follower {
        shared,
        events,
        watcher: Watcher::default(),
        fresh: Vec::new(),
        headers: Vec::new(),
        lonely: None,
        offered: Instant::now(),
        well: false,
        lost: false,
        begun: false,
    };
    let mut pause = FIRST_PAUSE;
    while !follower.events.is_closed() {
        let (node, client) = follower.node();
        let running = Running(tokio::spawn(async move { node.run().await.map_err(|why| why.to_string()) }));
        follower.set_requester(Some(client.requester.clone()));
        let why = follower.listen(client, running).await;
        follower.set_requester(None);
        let Err(why) = why else { return };
        if std::mem::take(&mut follower.well) {
            // Peers leave, and are left after two hours or after 30 minutes without a block: others are found in a moment.
            tracing::debug!(%why, "light client: peers are looked for again");
            follower.lonely = Some(Instant::now());
            pause = FIRST_PAUSE;
            continue;
        }
        if let (ChainError::Away { why, .. }, None) = (&why, follower.shared.trouble()) {
            follower.note(why.clone());
        }
        follower.lose(why).await;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The task that speaks with the peers, ended with this.
struct Running(tokio::task::JoinHandle<Result<(), String>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Follower {
    shared: Arc<Shared>,
    events: mpsc::Sender<ChainEvent>,
    watcher: Watcher,
    /// Watched, and their past not yet told.
    fresh: Vec<ScriptBuf>,
    /// Not written yet.
    headers: Vec<(u32, bitcoin::block::Header)>,
    /// Since when there has been no peer.
    lonely: Option<Instant>,
    /// When own transactions were last offered.
    offered: Instant,
    /// Whether the peers of now have brought it to the tip.
    well: bool,
    lost: bool,
    begun: bool,
}

impl Follower {
    /// A node that goes on where the headers here end.
    fn node(&self) -> (Node, Client) {
        let settings = &self.shared.settings;
        let headers: Vec<IndexedHeader> =
            self.shared.view().headers.iter().map(|(height, header)| IndexedHeader { height: *height, header: *header }).collect();
        let state = match (headers.is_empty(), settings.network) {
            (false, _) => ChainState::Snapshot(headers),
            (true, Network::Bitcoin) => ChainState::Checkpoint(HashCheckpoint::taproot_activation()),
            (true, network) => ChainState::Checkpoint(HashCheckpoint::from_genesis(network)),
        };
        // Filters are asked for from the height that is needed, once the headers are here.
        let builder = Builder::new(settings.network).chain_state(state).headers_only_sync().fetch_witness_data();
        if settings.peers.is_empty() {
            return builder.required_peers(AGREE).build();
        }
        let agree = u8::try_from(settings.peers.len()).unwrap_or(u8::MAX).min(AGREE);
        builder.add_peers(settings.peers.iter().map(|peer| (*peer).into())).whitelist_only().required_peers(agree).build()
    }

    fn set_requester(&self, requester: Option<Requester>) {
        *self.shared.requester.lock().unwrap_or_else(PoisonError::into_inner) = requester;
    }

    /// Until nobody listens, or the peers are gone: then why.
    async fn listen(&mut self, client: Client, mut running: Running) -> Result<(), ChainError> {
        let Client { requester, mut info_rx, mut warn_rx, mut event_rx } = client;
        let shared = self.shared.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.events.is_closed() {
            tokio::select! {
                event = event_rx.recv() => match event {
                    Some(event) => self.heard(event, &requester).await?,
                    None => return Err(shared.away("the search for peers has ended")),
                },
                info = info_rx.recv() => if info.is_some() {
                    self.progressed();
                },
                warning = warn_rx.recv() => self.warned(warning),
                () = shared.stir.notified() => self.look(&requester).await?,
                _ = tick.tick() => self.look(&requester).await?,
                ended = &mut running.0 => {
                    let why = ended.map_or_else(|why| why.to_string(), |ended| ended.err().unwrap_or_else(|| "it was told to stop".to_owned()));
                    return Err(shared.away(why));
                }
            }
        }
        Ok(())
    }

    async fn heard(&mut self, event: Event, requester: &Requester) -> Result<(), ChainError> {
        self.progressed();
        match event {
            Event::ChainUpdate(BlockHeaderChanges::Connected(header)) => self.connected(&[header])?,
            Event::ChainUpdate(BlockHeaderChanges::Reorganized { accepted, reorganized }) => {
                {
                    let mut view = self.shared.view();
                    for old in &reorganized {
                        view.headers.remove(&old.height);
                    }
                    view.ready = false;
                }
                self.connected(&accepted)?;
            }
            Event::ChainUpdate(BlockHeaderChanges::ForkAdded(_)) => {}
            Event::IndexedFilter(filter) => self.filtered(filter)?,
            Event::FiltersSynced(_) => {
                self.write_headers()?;
                self.lonely = None;
                if self.is_ready(requester)? {
                    self.advance(requester).await?;
                }
            }
        }
        Ok(())
    }

    fn connected(&mut self, headers: &[IndexedHeader]) -> Result<(), ChainError> {
        {
            let mut view = self.shared.view();
            view.ready = false;
            for IndexedHeader { height, header } in headers {
                view.headers.insert(*height, *header);
            }
        }
        self.headers.extend(headers.iter().map(|header| (header.height, header.header)));
        if self.headers.len() >= HEADERS_AT_ONCE { self.write_headers() } else { Ok(()) }
    }

    fn write_headers(&mut self) -> Result<(), ChainError> {
        let headers = std::mem::take(&mut self.headers);
        self.shared.store().put_headers(&headers)
    }

    fn filtered(&self, filter: IndexedFilter) -> Result<(), ChainError> {
        let at = BlockAt { height: filter.height(), hash: filter.block_hash() };
        let contents = filter.into_contents();
        if !filter::is_whole(&contents) {
            return Err(self.shared.away(format!("what peers give for the filter of block {} is no filter", at.height)));
        }
        self.shared.store().put_filter(at, &contents)?;
        self.shared.view().filtered.insert(at.height, at.hash);
        if at.height.is_multiple_of(1_000) {
            tracing::info!(height = at.height, "block filters are read");
        }
        Ok(())
    }

    /// Whether all filters that are needed are here; asks for them if not.
    fn is_ready(&mut self, requester: &Requester) -> Result<bool, ChainError> {
        let from = {
            let mut view = self.shared.view();
            let Some(best) = view.best() else { return Ok(false) };
            let lowest = view.headers.first_key_value().map_or(1, |(height, _)| *height);
            let recent = best.height.saturating_sub(RECENT_BLOCKS);
            view.wanted_from = view.wanted_from.min(recent).max(lowest);
            let from = view.wanted_from;
            view.ready = view.covers(from);
            if view.ready {
                return Ok(true);
            }
            // What is here already need not come again.
            let missing = view.headers.range(from..).find(|(height, header)| view.filtered.get(height) != Some(&header.block_hash()));
            missing.map_or(from, |(height, _)| *height)
        };
        requester.rescan_from(from.saturating_sub(1)).map_err(|why| self.shared.away(why.to_string()))?;
        Ok(false)
    }

    /// What has to be done without anything coming from peers.
    async fn look(&mut self, requester: &Requester) -> Result<(), ChainError> {
        self.shared.wishes.grant(&mut self.watcher, &mut self.fresh);
        if self.lonely.is_some_and(|since| since.elapsed() > LONELY) {
            self.lose(self.shared.away("no peer is connected")).await;
        }
        let ready = self.shared.view().ready;
        if !ready || !self.begun {
            return Ok(());
        }
        if !self.is_ready(requester)? {
            return Ok(());
        }
        self.tell_fresh().await?;
        self.tell_waiting().await;
        if self.offered.elapsed() > AGAIN {
            self.offer(requester);
        }
        Ok(())
    }

    /// Offers own transactions that wait to the peers of now.
    fn offer(&mut self, requester: &Requester) {
        self.offered = Instant::now();
        for tx in self.shared.view().waiting() {
            let requester = requester.clone();
            // Whether a peer wants it is its affair; there is another time.
            tokio::spawn(async move { tokio::time::timeout(AGAIN, requester.submit_package(tx)).await.is_ok() });
        }
    }

    /// Comes to the tip, by whatever branch.
    async fn advance(&mut self, requester: &Requester) -> Result<(), ChainError> {
        let shared = self.shared.clone();
        let (fork, best) = {
            let view = shared.view();
            let Some(best) = view.best() else { return Ok(()) };
            let begin = || view.at(best.height.saturating_sub(RECENT_BLOCKS).max(view.wanted_from.saturating_sub(1)));
            let lowest = view.headers.first_key_value().map(|(height, header)| BlockAt { height: *height, hash: header.block_hash() });
            (view.fork(&self.watcher.locator()).or_else(begin).or(lowest).unwrap_or(best), best)
        };
        let events = self.watcher.rewind(fork.height, fork.hash);
        self.tell(events).await;
        for height in fork.height + 1..=best.height {
            let Some(at) = shared.view().at(height) else { return Ok(()) };
            let markers = CLASSES.iter().flat_map(|class| markers_around(*class, height));
            let own = shared.view().waiting().into_iter().flat_map(|tx| tx.output).map(|output| output.script_pubkey);
            let scripts: Vec<ScriptBuf> =
                self.watcher.watched().cloned().chain(markers).chain(own.filter(|script| !script.is_op_return())).collect();
            let events = if shared.matches(at, &scripts)? {
                let block = shared.block(at).await?;
                let events = self.watcher.connected(height, &block);
                shared.remember(&events, at)?;
                events
            } else {
                self.watcher.passed(height, at.hash, [])
            };
            self.tell(events).await;
            if self.begun {
                self.tell(vec![ChainEvent::Tip { height, hash: at.hash }]).await;
            }
        }
        if !self.begun {
            self.tell(vec![ChainEvent::Tip { height: best.height, hash: best.hash }]).await;
        }
        self.tell_waiting().await;
        self.well = true;
        if !std::mem::replace(&mut self.begun, true) || self.lost {
            self.offer(requester);
        }
        if std::mem::take(&mut self.lost) {
            // Scripts from before are asked for again: their past may have changed.
            self.fresh = self.watcher.watched().cloned().collect();
            self.tell(vec![ChainEvent::Back]).await;
        }
        self.progressed();
        Ok(())
    }

    /// The past of scripts that are watched since a moment ago.
    async fn tell_fresh(&mut self) -> Result<(), ChainError> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        let from = self.shared.window();
        let covered = {
            let mut view = self.shared.view();
            view.wanted_from = view.wanted_from.min(from);
            view.covers(from)
        };
        if !covered {
            self.shared.stir.notify_one();
            return Ok(());
        }
        let scripts = std::mem::take(&mut self.fresh);
        match self.shared.past(&scripts, from).await {
            Ok(past) => {
                let events = self.watcher.history(past.iter().map(|(tx, status)| (tx, *status)));
                self.tell(events).await;
                Ok(())
            }
            Err(why) => {
                self.fresh = scripts;
                Err(why)
            }
        }
    }

    /// Own transactions that wait, and those that no longer do.
    async fn tell_waiting(&mut self) {
        let waiting = self.shared.view().waiting();
        let events = self.watcher.mempool_is(&waiting);
        self.tell(events).await;
    }

    fn warned(&mut self, warning: Option<Warning>) {
        match warning {
            Some(Warning::NeedConnections { connected: 0, .. }) => {
                self.lonely.get_or_insert_with(Instant::now);
            }
            Some(Warning::NeedConnections { .. }) => self.lonely = None,
            Some(warning) => {
                tracing::debug!(%warning, "light client");
                self.note(warning.to_string());
            }
            None => {}
        }
    }

    /// Keeps what went wrong, for whoever waits in vain.
    fn note(&self, trouble: String) {
        *self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
    }

    async fn lose(&mut self, why: ChainError) {
        self.well = false;
        if !std::mem::replace(&mut self.lost, true) {
            self.tell(vec![ChainEvent::Lost { why: why.to_string() }]).await;
        }
    }

    fn progressed(&self) {
        self.shared.progress.send_modify(|count| *count = count.wrapping_add(1));
    }

    async fn tell(&mut self, events: Vec<ChainEvent>) {
        for event in events {
            // Nobody listens any more: the loop ends by itself.
            let _ = self.events.send(event).await;
        }
    }
}
