//! What a daemon shows of its inside: plain data for tables and JSON, with units in the names.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use xennet_identity::Role;
use xennet_lease::{LedgerEntry, Totals};
use xennet_meter::Figures;
use xennet_task::{AnnouncementHash, Carrier, Compute, LeaseId, PayoutInterval, Rates, TaskId};

/// How the daemon is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// The daemon's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Its data directory.
    pub data_dir: String,
    /// The side of the market it takes.
    pub role: Role,
    /// Unix seconds when it started.
    pub started_at: u64,
    /// Its identity of that role.
    pub identity: IdentityView,
    /// Where its chain comes from, e.g. `embedded`.
    pub chain_source: String,
    /// The Bitcoin network, e.g. `regtest`.
    pub network: String,
    /// Height of the chain's tip.
    pub tip_height: u32,
    /// Hash of the chain's tip, as block explorers show it.
    pub tip_hash: String,
    /// Why the chain is away; none while it is there.
    pub chain_lost: Option<String>,
    /// Why nothing can be recorded, and so nothing is paid or closed; none while the disk takes what it is given.
    #[serde(default)]
    pub disk_failing: Option<String>,
    /// What the wallet holds.
    pub balance: BalanceView,
    /// Addresses the overlay listens on; empty for a node, which listens on no port.
    pub overlay_listen: Vec<String>,
    /// Overlay peers connected now.
    pub overlay_peers: u32,
    /// Announcements passed on since the start.
    pub announcements_relayed: u64,
    /// Announcements dropped since the start, by reason.
    pub announcements_dropped: Vec<(String, u64)>,
    /// Where the publisher's SSH server listens; none for a node.
    pub tunnel_listen: Option<SocketAddr>,
    /// For a node: `kvm` or `tcg`, or why it cannot run guests.
    pub accelerator: Option<String>,
    /// For a node: what guests may reach beside the tunnel, e.g. `none` or `web, and 10.77.0.0/24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<String>,
    /// Tasks known and not expired.
    pub tasks: u32,
    /// Leases that are neither settled nor ended.
    pub leases_open: u32,
    /// Satoshi locked in channels.
    pub locked_sat: u64,
}

/// One identity of the data directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IdentityView {
    /// For which side of the market.
    pub role: Role,
    /// The public key, compressed, hex.
    pub key: String,
    /// Its id once mined, shown reversed like a txid.
    pub id: Option<String>,
    /// Height of the block it is anchored to, once mining has begun.
    pub anchor_height: Option<u32>,
    /// The mined nonce.
    pub nonce: Option<u64>,
    /// How mining goes, while it does.
    pub mining: Option<MiningView>,
}

/// How mining goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MiningView {
    /// What is mined.
    pub role: Role,
    /// Threads at work.
    pub threads: u32,
    /// Hashes made in all, earlier runs included.
    pub hashes: u64,
    /// Hashes a search needs on average.
    pub expected_hashes: u64,
    /// Hashes a second, all threads together.
    pub hashes_per_s: u64,
    /// Seconds a search takes on average from here; mining has no memory, so it does not shrink as time goes by.
    pub expected_s: u64,
    /// Nonces up to here have been tried; a restart goes on from here.
    pub next_nonce: u64,
    /// Whether it is over.
    pub found: bool,
}

/// What the wallet holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceView {
    /// Spendable now, satoshi.
    pub confirmed_sat: u64,
    /// In transactions no block has yet, satoshi.
    pub pending_sat: u64,
    /// Locked in channels, satoshi.
    pub locked_sat: u64,
}

/// Where to pay to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressView {
    /// The address.
    pub address: String,
    /// The Bitcoin network it belongs to.
    pub network: String,
}

/// A payment, made or only worked out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentView {
    /// The transaction.
    pub txid: String,
    /// The Bitcoin network.
    pub network: String,
    /// Where to, if somebody named it.
    pub address: Option<String>,
    /// What arrives there, satoshi.
    pub amount_sat: u64,
    /// What the miner gets, satoshi.
    pub fee_sat: u64,
    /// The transaction's size, virtual bytes.
    pub vbytes: u64,
    /// What it pays, satoshi per 1,000 virtual bytes.
    pub feerate_sat_per_kvb: u64,
    /// The transaction it takes the place of.
    pub replaces: Option<String>,
    /// The transaction that it is the child of and pays for.
    pub lifts: Option<String>,
    /// What that one and the unconfirmed ones it rests on pay already, satoshi; none if it is no child, or that is not known: then the
    /// child pays for all of them.
    #[serde(default)]
    pub lifted_fee_sat: Option<u64>,
    /// What child and parents pay together, satoshi per 1,000 virtual bytes.
    #[serde(default)]
    pub together_sat_per_kvb: Option<u64>,
    /// Whether it is on its way; if not, nothing was sent.
    pub sent: bool,
}

/// What it costs to announce something in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// The transaction's size, virtual bytes.
    pub vbytes: u64,
    /// What the miner gets, satoshi.
    pub fee_sat: u64,
    /// What its marker holds, satoshi: paid as well, and can be swept back.
    pub marker_sat: u64,
}

/// What announcing a task would cost, in each form it can have on the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteView {
    /// The Bitcoin network, e.g. `signet`.
    pub network: String,
    /// What the task asks for. With [`Carrier::Overlay`] nothing is paid.
    pub carrier: Carrier,
    /// The fees of the moment, satoshi per 1,000 virtual bytes.
    pub feerate_sat_per_kvb: u64,
    /// Its hash on the chain.
    pub short: Quote,
    /// All of it on the chain.
    pub full: Quote,
}

impl QuoteView {
    /// The form that the task asks for; none if it does not go on the chain.
    pub fn chosen(&self) -> Option<Quote> {
        match self.carrier {
            Carrier::Chain => Some(self.short),
            Carrier::ChainFull => Some(self.full),
            Carrier::Overlay => None,
        }
    }
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Its announcement is being worked on or broadcast.
    Publishing,
    /// Announced, and nodes may take it.
    Open,
    /// As many machines as it wanted are leased.
    Filled,
    /// Its publisher took it back.
    Cancelled,
    /// Its time is over.
    Expired,
}

/// A task, own or another's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskView {
    /// Hash of its announcement: what names it in commands.
    pub task: AnnouncementHash,
    /// The publisher's number for it.
    pub id: TaskId,
    /// Whether this daemon published it.
    pub own: bool,
    /// How far it is.
    pub state: TaskState,
    /// The publisher's identity, shown reversed like a txid.
    pub publisher: String,
    /// Where nodes dial to.
    pub address: SocketAddr,
    /// The transaction that announced it, if it came over the chain.
    pub txid: Option<String>,
    /// Height of the block that holds it.
    pub confirmed_height: Option<u32>,
    /// Leading zero bits of work it has.
    pub work_bits: u8,
    /// Machines wanted network-wide.
    pub machines: u16,
    /// Leases of it that this daemon has and that are not over.
    pub leases: u32,
    /// Operating systems to choose from.
    pub operating_systems: Vec<String>,
    /// Cores × clock to choose from.
    pub compute: Vec<Compute>,
    /// Memory for each core, MiB.
    pub memory_per_core_mib: u32,
    /// Temporary disk, MiB.
    pub disk_mib: u32,
    /// Persistent storage, MiB.
    pub persistent_mib: u32,
    /// Shortest lease, seconds.
    pub lease_min_s: u64,
    /// Longest lease, seconds.
    pub lease_max_s: u64,
    /// When it pays.
    pub payout: PayoutInterval,
    /// The most it pays for each part.
    pub rates: Rates,
    /// Unix seconds after which it is void.
    pub expires_at: u32,
    /// Additional information.
    pub info: String,
    /// Why this node does not take it, each with the nearest fix; empty if it does or this is a publisher.
    pub refusals: Vec<String>,
}

/// How far a lease is, as people see it: the row of the design's picture from accepted to settled, and the ways out of it.
/// Derived from the lease's own stage, its tunnel and its machine; nothing decides by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseStage {
    /// The node has accepted the task.
    Accepted,
    /// The node's SSH connection stands; the machine boots.
    Connected,
    /// The machine answers; the publisher measures it.
    Measuring,
    /// The proposal is with the node.
    Proposed,
    /// The node agreed; the channel is being funded.
    Agreed,
    /// In use, metered and paid.
    Live,
    /// Live, but the tunnel is down; the node is reconnecting.
    Interrupted,
    /// No more is served; the last payment is on its way to the chain.
    Closing,
    /// Settled on chain.
    Settled,
    /// The publisher took back what was not paid, after the channel's expiry.
    Refunded,
    /// One side refused; `reasons` says why.
    Refused,
    /// Over before anything was locked on chain; `reasons` says why.
    Ended,
}

impl LeaseStage {
    /// Nothing more will happen.
    pub fn is_over(self) -> bool {
        matches!(self, LeaseStage::Settled | LeaseStage::Refunded | LeaseStage::Refused | LeaseStage::Ended)
    }

    /// The word that JSON and tables show.
    pub fn name(self) -> &'static str {
        match self {
            LeaseStage::Accepted => "accepted",
            LeaseStage::Connected => "connected",
            LeaseStage::Measuring => "measuring",
            LeaseStage::Proposed => "proposed",
            LeaseStage::Agreed => "agreed",
            LeaseStage::Live => "live",
            LeaseStage::Interrupted => "interrupted",
            LeaseStage::Closing => "closing",
            LeaseStage::Settled => "settled",
            LeaseStage::Refunded => "refunded",
            LeaseStage::Refused => "refused",
            LeaseStage::Ended => "ended",
        }
    }
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Its name on both sides.
    pub lease: LeaseId,
    /// Which end this daemon is.
    pub side: Role,
    /// How far it has come.
    pub stage: LeaseStage,
    /// Unix milliseconds when it entered this stage.
    pub stage_since_ms: u64,
    /// Unix milliseconds when the node took the task.
    pub accepted_at_ms: u64,
    /// Unix milliseconds when the machine became the publisher's.
    pub live_since_ms: Option<u64>,
    /// Unix milliseconds when the agreed time is over.
    pub ends_at_ms: Option<u64>,
    /// The other end's identity, shown reversed like a txid.
    pub peer: String,
    /// The task it serves.
    pub task: AnnouncementHash,
    /// Operating system of the machine.
    pub operating_system: String,
    /// Cores and their clock as accepted.
    pub compute: Compute,
    /// Memory of the machine, MiB.
    pub memory_mib: u32,
    /// Temporary disk of the machine, MiB.
    pub disk_mib: u32,
    /// Persistent storage of the machine, MiB.
    pub persistent_mib: u32,
    /// Whether the tunnel stands. If not, the node is reconnecting.
    pub tunnel_up: bool,
    /// On the node: the machine's state, e.g. `running (kvm, pid 4711)`.
    pub vm: Option<String>,
    /// On the node, while the machine runs: its network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkView>,
    /// What the publisher measured the machine to be.
    pub figures: Option<Figures>,
    /// The rates agreed, or proposed while there is no agreement.
    pub rates: Option<Rates>,
    /// When it is paid, agreed or proposed.
    pub payout: Option<PayoutInterval>,
    /// Usage, what is owed, what is paid and what is locked; from the agreement on.
    pub totals: Option<Totals>,
    /// The transaction that funds the channel.
    pub funding_txid: Option<String>,
    /// The transaction that ends the channel, once it is broadcast.
    pub close_txid: Option<String>,
    /// On the publisher, once it was seen: the guest's ed25519 host key, hex. `xennet ssh` pins it.
    pub guest_host_key: Option<String>,
    /// A renewal under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<RenewalView>,
    /// Why the last renewal came to nothing, if it did. The lease goes on as agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_renewed: Option<String>,
    /// Whether a job has taken it for itself (see [`Command::Rent`](super::Command::Rent)).
    pub rented: bool,
    /// Why it was refused, closed or ended, each with the numbers and the nearest fix.
    pub reasons: Vec<String>,
}

/// A guest's network, since this daemon started the guest or took it up. Bytes are those of whole Ethernet frames, as the guest's own
/// interface counts them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkView {
    /// What the guest may reach beside the tunnel: `none`, `web` or `open-internet`.
    pub outbound: String,
    /// Out of the guest, into the tunnel too.
    pub out_bytes: u64,
    /// Into the guest, out of the tunnel too.
    pub in_bytes: u64,
    /// Flows that the guest opened outward.
    pub opened: u64,
    /// Connections into the guest that came through the tunnel.
    pub came_in: u64,
    /// Flows that the policy or the limits turned away.
    pub refused: u64,
}

/// A renewal under way: a further channel that has not taken over yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalView {
    /// What it adds to the agreed time, seconds.
    pub adds_s: u64,
    /// What the further channel holds, satoshi.
    pub capacity_sat: u64,
    /// Whether the node has agreed.
    pub agreed: bool,
    /// The transaction that funds it, once there is one: the agreed time is longer from then on.
    pub funding_txid: Option<String>,
}

/// A page of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerPage {
    /// The lease.
    pub lease: LeaseId,
    /// Index of the first entry given.
    pub from: u64,
    /// Entries in the whole ledger.
    pub total: u64,
    /// The entries, in order.
    pub entries: Vec<LedgerEntry>,
}
