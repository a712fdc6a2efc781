//! What the loop and the work it starts both use.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use anyhow::Context;
use bitcoin::Network;
use bitcoin::hashes::Hash;
use tokio::sync::{Mutex, Notify, broadcast, mpsc};
use xennet_chain::{Chain, Purpose, Status, Wallet};
use xennet_identity::{Anchor, Identity, IdentityTemplate, Role, TargetSchedule};
use xennet_overlay::{Overlay, OverlayConfig};

use super::happening::Happening;
use super::inspect::{Anchors, Inspector};
use crate::config::{ChainSettings, Config};
use crate::control::{Event, What};
use crate::keys::Keys;
use crate::mining::{self, StopSwitch};
use crate::store::Store;
use crate::{clock, control};

/// Leading zero bits below which nothing is relayed. A double SHA-256 a bit more costs a stranger twice as much.
pub const LEAST_WORK_BITS: u8 = 8;
/// What the embedded chain gives a new wallet, satoshi of play money.
const PLAY_MONEY_SAT: u64 = 100_000_000;

/// The hands, the store and the secrets of one daemon.
pub struct Shared {
    /// How it is set up.
    pub config: Config,
    /// Its secrets.
    pub keys: Keys,
    /// What it must not forget.
    pub store: Store,
    /// The chain.
    pub chain: Chain,
    /// Its coins.
    pub wallet: Wallet,
    /// Its peers.
    pub overlay: Overlay,
    /// Checks announcements.
    pub inspector: Inspector,
    /// Blocks identities may be anchored to.
    pub anchors: Arc<Anchors>,
    /// How much work identities need.
    pub schedule: TargetSchedule,
    /// The chain has another tip, for those who do not belong to the loop.
    pub(super) new_tip: Arc<Notify>,
    seen_feerate: AtomicU64,
    /// Ends searches when the daemon stops.
    pub stop_switch: StopSwitch,
    /// One search at a time has all cores.
    pub(super) mining: Mutex<()>,
    pub(super) happen: mpsc::Sender<Happening>,
    events: broadcast::Sender<Event>,
}

impl Shared {
    pub(super) async fn open(
        config: Config,
        happen: mpsc::Sender<Happening>,
        events: broadcast::Sender<Event>,
    ) -> anyhow::Result<Arc<Self>> {
        let store = Store::open(&config.data_dir)?;
        let keys = Keys::open(&config.data_dir)?;
        let (chain_events, incoming) = mpsc::channel(1024);
        let chain = Chain::open(config.chain.source(), chain_events).await?;
        super::forward(incoming, happen.clone(), Happening::Chain);
        let wallet = crate::wallet::open(&config)?;
        let secret = wallet.secret_for(Purpose::Channels)?;
        let in_the_clear = store.seal_with(&secret).await?;
        if in_the_clear > 0 {
            tracing::info!(leases = in_the_clear, "what an older version kept of channels in the clear is encrypted now");
        }
        wallet.sync(&chain).await.context("the wallet cannot read the chain")?;
        let schedule = schedule_of(chain.network());
        let anchors = Arc::new(Anchors::default());
        load_anchors(&chain, &anchors).await?;
        let inspector = Inspector::new(Arc::clone(&anchors), schedule, LEAST_WORK_BITS);
        let judge = inspector.clone();
        let (overlay_events, incoming) = mpsc::channel(1024);
        let overlay = Overlay::start(
            OverlayConfig {
                secret: keys.overlay_seed(),
                listen: config.overlay.listen.clone(),
                bootstrap: config.overlay.bootstrap.clone(),
                network: chain.network().to_string(),
            },
            Arc::new(move |message: &[u8]| judge.judge(message)),
            overlay_events,
        )?;
        super::forward(incoming, happen.clone(), Happening::Overlay);
        let shared = Self {
            config,
            keys,
            store,
            chain,
            wallet,
            overlay,
            inspector,
            anchors,
            schedule,
            new_tip: Arc::default(),
            seen_feerate: AtomicU64::new(0),
            stop_switch: StopSwitch::new(),
            mining: Mutex::new(()),
            happen,
            events,
        };
        if matches!(shared.config.chain, ChainSettings::Embedded { .. }) {
            shared.take_play_money().await?;
        }
        let shared = Arc::new(shared);
        tokio::spawn(follow_tips(Arc::downgrade(&shared), Arc::clone(&shared.new_tip)));
        Ok(shared)
    }

    /// What the chain's estimate was when the last tip came, satoshi per 1000 virtual bytes; 0 as long as there was none.
    pub fn seen_feerate(&self) -> u64 {
        self.seen_feerate.load(Ordering::Relaxed)
    }

    async fn look_at_feerate(&self) {
        match self.chain.feerate().await {
            Ok(feerate) => self.seen_feerate.store(feerate, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "no feerate yet"),
        }
    }

    /// The feerate of the moment, for what can wait. Above what the user allows there is none.
    pub async fn feerate(&self) -> anyhow::Result<u64> {
        let feerate = self.chain.feerate().await?;
        let at_most = self.config.wallet.max_feerate_sat_per_kvb;
        anyhow::ensure!(
            feerate <= at_most,
            "the feerate is {} sat/vB now, and at most {} are allowed: wait until fees fall, or raise max_feerate_sat_vb under [wallet]",
            feerate.div_ceil(1_000),
            at_most / 1_000
        );
        Ok(feerate)
    }

    /// The feerate for what cannot wait, the end of a channel: as much as is needed, up to what the user allows.
    pub async fn settling_feerate(&self) -> anyhow::Result<u64> {
        Ok(self.chain.feerate().await?.min(self.config.wallet.max_feerate_sat_per_kvb))
    }

    /// On the embedded chain a new wallet gets coins that are worth nothing, so that everything can be tried.
    async fn take_play_money(&self) -> anyhow::Result<()> {
        let wallet = &self.wallet;
        let balance = wallet.balance();
        if balance.confirmed_sat + balance.pending_sat > 0 {
            return Ok(());
        }
        let address = wallet.address()?;
        let sat = PLAY_MONEY_SAT;
        self.chain.faucet(address.script_pubkey(), sat).await.context("the embedded chain gave no play money")?;
        self.chain.generate(1).await.context("the embedded chain made no block")?;
        wallet.sync(&self.chain).await?;
        tracing::info!(sat, "play money from the embedded chain");
        Ok(())
    }

    /// Tells whoever listens on the control socket.
    pub fn tell(&self, what: What) {
        // Nobody listening is no fault.
        let _ = self.events.send(Event { at_ms: clock::unix_ms(), what });
    }

    /// Tells the loop.
    pub(super) async fn happen(&self, happening: Happening) {
        // A loop that is gone needs no news.
        let _ = self.happen.send(happening).await;
    }

    /// The mined identity of a role; mines it first if there is none. Takes as long as that takes.
    pub async fn identity(self: &Arc<Self>, role: Role) -> anyhow::Result<Identity> {
        let _turn = self.mining.lock().await;
        if let Some(identity) = mining::mined(&self.store, role)? {
            let tip = self.anchors.tip();
            if self.schedule.check(&identity, tip).is_ok() && self.anchors.get(identity.anchor.height) == Some(identity.anchor.hash) {
                return Ok(identity);
            }
        }
        let tip = self.anchors.tip();
        let height = tip.saturating_sub(self.schedule.min_anchor_age);
        let hash = self.anchors.get(height).context("the chain has too few blocks to anchor an identity to")?;
        let key = self.keys.identity(role).public_key();
        let template = IdentityTemplate { role, key, anchor: Anchor { height, hash } };
        let shared = Arc::clone(self);
        let mined = tokio::task::spawn_blocking(move || {
            let told = Arc::clone(&shared);
            mining::mine_identity(&shared.store, template, &shared.schedule, tip, &shared.stop_switch, |view| told.tell(What::Mining(view)))
        });
        Ok(mined.await.context("mining was cut short")??)
    }

    /// The identity of this daemon's own side, if it is mined.
    pub fn mined(&self, role: Role) -> Option<Identity> {
        mining::mined(&self.store, role).ok().flatten()
    }

    /// Money that can be spent and money that is on its way.
    pub fn balance(&self) -> control::BalanceView {
        let balance = self.wallet.balance();
        control::BalanceView { confirmed_sat: balance.confirmed_sat, pending_sat: balance.pending_sat, locked_sat: 0 }
    }
}

/// How much work identities need on a network.
fn schedule_of(network: Network) -> TargetSchedule {
    match network {
        Network::Bitcoin => TargetSchedule::MAINNET,
        Network::Regtest => TargetSchedule::REGTEST,
        _ => TargetSchedule::TEST_NETWORKS,
    }
}

/// After each tip, or several that came at once: blocks that identities may be anchored to, then the wallet.
async fn follow_tips(shared: Weak<Shared>, new_tip: Arc<Notify>) {
    if let Some(shared) = shared.upgrade() {
        shared.look_at_feerate().await;
    }
    loop {
        new_tip.notified().await;
        let Some(shared) = shared.upgrade() else { return };
        if let Err(error) = complete_anchors(&shared.chain, &shared.anchors).await {
            tracing::warn!(%error, "some blocks are not known that identities may be anchored to");
        }
        if let Err(error) = shared.wallet.sync(&shared.chain).await {
            tracing::warn!(%error, "the wallet is behind the chain");
        }
        shared.look_at_feerate().await;
    }
}

async fn load_anchors(chain: &Chain, anchors: &Anchors) -> anyhow::Result<()> {
    let (tip, hash) = chain.tip().await?;
    anchors.set_tip(tip, hash.to_byte_array());
    let kept = u32::try_from(Anchors::KEPT).unwrap_or(u32::MAX);
    let first = tip.saturating_sub(kept);
    for (height, hash) in (first..tip).zip(chain.block_hashes(first, tip - first).await?) {
        anchors.set(height, hash.to_byte_array());
    }
    Ok(())
}

/// A tip can be several blocks after the one before, and on another branch.
async fn complete_anchors(chain: &Chain, anchors: &Anchors) -> anyhow::Result<()> {
    let tip = anchors.tip();
    let lowest = tip.saturating_sub(u32::try_from(Anchors::KEPT).unwrap_or(u32::MAX));
    for height in (lowest..tip).rev() {
        let Some(hash) = chain.block_hash(height).await? else { break };
        let hash = hash.to_byte_array();
        if anchors.get(height) == Some(hash) {
            break;
        }
        anchors.set(height, hash);
    }
    Ok(())
}

/// The block a transaction is in.
pub fn height_of(status: Status) -> Option<u32> {
    match status {
        Status::Mempool => None,
        Status::Confirmed { height } => Some(height),
    }
}
