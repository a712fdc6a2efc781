//! The lease itself: what both sides keep, and how it moves.

use bitcoin::OutPoint;
use serde::{Deserialize, Serialize};
use xennet_meter::{Figures, Size};
use xennet_task::{Acceptance, AnnouncementHash, LeaseId, Proposal, Task};

use crate::account::Price;
use crate::{
    Account, Action, Channel, CloseReason, EndReason, Ending, Input, LedgerEntry, LedgerKind, Machine, Message, Purse, Renewal, Restored,
    Side, Stage,
};

/// One lease, one side of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lease {
    /// Its name on both sides.
    pub id: LeaseId,
    /// The task.
    pub task: Task,
    /// The task announcement's hash.
    pub task_hash: AnnouncementHash,
    /// The acceptance.
    pub acceptance: Acceptance,
    /// The acceptance announcement's hash.
    pub acceptance_hash: AnnouncementHash,
    /// When the node took the task, as this side knows it, unix milliseconds.
    pub accepted_at_ms: u64,
    /// How far it has come.
    pub stage: Stage,
    /// Since when, unix milliseconds.
    pub stage_since_ms: u64,
    /// Since when the tunnel is up (`Ok`) or down (`Err`), unix milliseconds.
    pub link: Result<u64, u64>,
    /// Bytes through the lease's pipes since this process began, as last heard.
    pub pipe_bytes: u64,
    /// When the tunnel first came up, unix milliseconds: the time for the proposal runs from here.
    pub first_link_ms: Option<u64>,
    /// Whether the other side has said hello on the present connection.
    pub greeted: bool,
    /// Whether this process has heard no hello yet: what an earlier one counted after it last wrote is not in the meter.
    pub restarted: bool,
    /// Whether what is known here may be older than what was signed.
    #[serde(default)]
    pub restored: Restored,
    /// When the guest became the publisher's, unix milliseconds.
    pub live_since_ms: Option<u64>,
    /// The guest.
    pub machine: Option<Machine>,
    /// The ed25519 key the guest's SSH server showed the publisher.
    pub guest_host_key: Option<[u8; 32]>,
    /// What the publisher measured.
    pub figures: Option<Figures>,
    /// The terms.
    pub proposal: Option<Proposal>,
    /// Channel and meter, from the agreement on.
    pub account: Option<Account>,
    /// The chain's best height, as last heard.
    pub tip: u32,
    /// When the last input came, unix milliseconds.
    pub seen_ms: u64,
    /// A renewal under way.
    #[serde(default)]
    pub next: Option<Renewal>,
    /// Channels that are paid on no more and whose ends are not buried yet, oldest first.
    #[serde(default)]
    pub past: Vec<Channel>,
    /// What came of the channels before those.
    #[serde(default)]
    pub closed: Closed,
    /// What renewals added to the agreed time, seconds.
    #[serde(default)]
    pub added_s: u64,
    /// Why the last renewal came to nothing, if it did.
    #[serde(default)]
    pub not_renewed: Option<String>,
    /// The own side's part.
    pub side: Side,
    /// Grows with every change worth persisting.
    pub revision: u64,
}

/// Channels whose ends nothing takes back any more, added up.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// What went over them, satoshi.
    pub total_sat: u64,
    /// The node's reserve for closing fees in that, satoshi.
    pub close_reserve_sat: u64,
    /// What they held, satoshi.
    pub capacity_sat: u64,
    /// The coin that each was, and what ended it.
    pub transactions: Vec<(OutPoint, Ending)>,
}

/// A tick comes several times a second; with a longer gap than this nobody was there to see what was used, milliseconds.
const UNSEEN_MS: u64 = 5_000;
/// A settled lease watches its channel until so many blocks stand on the one with its end: what M4 expects of reorganisations.
const FINAL_BLOCKS: u32 = 6;
/// How long a side waits for the tunnel's first coming up, milliseconds.
const TUNNEL_WITHIN_MS: u64 = 90_000;

impl Lease {
    /// A lease just accepted. Drive it with [`Input::Start`].
    pub fn new(
        task: Task,
        task_hash: AnnouncementHash,
        acceptance: Acceptance,
        acceptance_hash: AnnouncementHash,
        side: Side,
        tip: u32,
        now_ms: u64,
    ) -> Self {
        Self {
            id: LeaseId::of(&task_hash, &acceptance_hash),
            task,
            task_hash,
            acceptance,
            acceptance_hash,
            accepted_at_ms: now_ms,
            stage: Stage::Accepted,
            stage_since_ms: now_ms,
            link: Err(now_ms),
            pipe_bytes: 0,
            first_link_ms: None,
            greeted: false,
            restarted: true,
            restored: Restored::No,
            live_since_ms: None,
            machine: None,
            guest_host_key: None,
            figures: None,
            proposal: None,
            account: None,
            tip,
            seen_ms: now_ms,
            next: None,
            past: Vec::new(),
            closed: Closed::default(),
            added_s: 0,
            not_renewed: None,
            side,
            revision: 1,
        }
    }

    /// Takes one input and says what must be done, in order, once the lease is on disk.
    pub fn handle(&mut self, now_ms: u64, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        if now_ms.saturating_sub(self.seen_ms) > UNSEEN_MS
            && let Some(account) = &mut self.account
        {
            // The process slept, stood still, or its clock was set: nobody saw that time, so nobody pays for it.
            account.meter.skip_to(now_ms);
        }
        self.seen_ms = now_ms;
        if self.is_over() && !self.concerns_the_end(&input) {
            return out;
        }
        match &input {
            Input::Start => self.start(now_ms),
            Input::LinkUp => self.link_up(now_ms, &mut out),
            Input::LinkDown => self.link_down(now_ms, &mut out),
            Input::Tip(height) => self.note_tip(now_ms, *height, &mut out),
            Input::Traffic(bytes) => {
                let more = bytes.saturating_sub(self.pipe_bytes);
                self.pipe_bytes = *bytes;
                // What went through before was for measuring, and that is free.
                if let (Stage::Live, Some(account)) = (&self.stage, &mut self.account) {
                    account.add_traffic(more);
                }
            }
            Input::Heard(Message::Hello { version, lease, channel, total_sat, .. }) => {
                if *version != Message::VERSION || *lease != self.id {
                    let why = format!("hello of version {version} for lease {lease}, but this is {} for {}", Message::VERSION, self.id);
                    self.break_off(now_ms, why, &mut out);
                    return out;
                }
                self.greeted = true;
                self.restored_hears_hello(*channel, *total_sat);
            }
            Input::Heard(Message::Bye { reason }) => {
                let reason = clip(reason);
                self.end(now_ms, EndReason::HungUp(reason), &mut out);
            }
            Input::Tick => self.check_deadlines(now_ms, &mut out),
            _ => {}
        }
        if self.is_over() && !self.concerns_the_end(&input) {
            return out;
        }
        match self.side {
            Side::Publisher(_) => self.handle_as_publisher(now_ms, input, &mut out),
            Side::Node(_) => self.handle_as_node(now_ms, input, &mut out),
        }
        out
    }

    /// Whether nothing more will happen, unless the chain takes back what settled it: see [`Lease::is_final`].
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Settled { .. } | Stage::Ended { .. })
    }

    /// Whether it is over for good: what settled it is too deep in the chain to be taken back, or nothing was ever locked.
    pub fn is_final(&self) -> bool {
        match &self.stage {
            Stage::Ended { .. } => true,
            Stage::Settled { .. } => self.channels().filter(|channel| self.matters(channel)).all(|channel| self.is_closed(channel)),
            _ => false,
        }
    }

    /// Whether a channel's end is too deep in the chain to be taken back.
    pub(crate) fn is_closed(&self, channel: &Channel) -> bool {
        let deep = |height: u32| self.tip.saturating_sub(height) >= FINAL_BLOCKS;
        channel.unseen_blocks.is_none() && channel.ending.and_then(|ending| ending.height).is_some_and(deep)
    }

    /// Whether something of the own side is in the channel. What the node was never paid on is the publisher's to take back.
    pub(crate) fn matters(&self, channel: &Channel) -> bool {
        match self.side {
            Side::Publisher(_) => channel.funding.is_some(),
            Side::Node(_) => channel.total_sat() > 0,
        }
    }

    /// Whether each channel's end is in a block.
    pub(crate) fn is_all_ended(&self) -> bool {
        self.channels().filter(|channel| self.matters(channel)).all(|channel| channel.ended().is_some())
    }

    /// The lease's channels, oldest first, with the one that is to take over.
    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.paid_on().chain(self.next.as_ref().and_then(|renewal| renewal.channel.as_ref()))
    }

    /// The channels that are paid on, or were.
    pub(crate) fn paid_on(&self) -> impl Iterator<Item = &Channel> {
        self.past.iter().chain(self.account.as_ref().map(|account| &account.channel))
    }

    pub(crate) fn channels_mut(&mut self) -> impl Iterator<Item = &mut Channel> {
        let next = self.next.as_mut().and_then(|renewal| renewal.channel.as_mut());
        self.past.iter_mut().chain(self.account.as_mut().map(|account| &mut account.channel)).chain(next)
    }

    /// Whether a lease that is over still has to hear this.
    fn concerns_the_end(&self, input: &Input) -> bool {
        match input {
            Input::Gone(_) => true,
            Input::Start | Input::Tip(_) | Input::Seen { .. } => matches!(self.stage, Stage::Settled { .. }) && !self.is_final(),
            _ => false,
        }
    }

    /// Whether this transaction is what settled the lease, as known before.
    pub(crate) fn is_settled_by(&self, txid: &bitcoin::Txid) -> bool {
        matches!(&self.stage, Stage::Settled { txid: known, .. } if known == txid)
    }

    /// Whether money is locked on chain, or may be.
    pub fn is_locked(&self) -> bool {
        !self.is_over() && self.account.as_ref().is_some_and(|account| account.channel.funding.is_some())
    }

    /// What the acceptance offers.
    pub fn size(&self) -> Size {
        Size {
            cores: self.acceptance.compute.cores,
            memory_mib: self.acceptance.memory_mib,
            disk_mib: self.acceptance.disk_mib,
            persistent_mib: self.acceptance.persistent_mib,
        }
    }

    pub(crate) fn price(&self) -> Option<Price<'_>> {
        self.proposal.as_ref().map(|proposal| Price { proposal, size: self.size() })
    }

    /// The height the chain is expected to have so many seconds from now.
    pub(crate) fn height_after(&self, seconds: u64, block_s: u64) -> u32 {
        let blocks = seconds.div_ceil(block_s.max(1));
        self.tip.saturating_add(u32::try_from(blocks).unwrap_or(u32::MAX))
    }

    pub(crate) fn go(&mut self, now_ms: u64, stage: Stage) {
        self.stage = stage;
        self.stage_since_ms = now_ms;
        self.revision += 1;
    }

    pub(crate) fn hello(&self) -> Message {
        let (usage, total_sat) = match &self.account {
            Some(account) => (account.meter.usage(), account.total_sat()),
            None => Default::default(),
        };
        let best = match self.account.as_ref().map(|account| &account.channel.purse) {
            Some(Purse::Node(channel)) => channel.best(),
            _ => None,
        };
        let guest_key = match &self.side {
            Side::Publisher(side) => Some(side.guest_key),
            Side::Node(_) => None,
        };
        let channel = self.account.as_ref().map_or(1, |account| account.channel.number);
        Message::Hello { version: Message::VERSION, lease: self.id, usage, restarted: self.restarted, channel, total_sat, guest_key, best }
    }

    /// Ends a lease that has nothing locked on chain; leaves any other alone.
    pub(crate) fn end(&mut self, now_ms: u64, reason: EndReason, out: &mut Vec<Action>) {
        if self.is_locked() || self.is_over() {
            return;
        }
        let word = reason.to_string();
        if !matches!(reason, EndReason::HungUp(_)) && self.link.is_ok() {
            out.push(Action::Send(Message::Bye { reason: word.clone() }));
        }
        self.go(now_ms, Stage::Ended { reason });
        out.push(self.record(now_ms, LedgerKind::Refused, word.clone()));
        if matches!(self.side, Side::Node(_)) {
            out.push(Action::StopMachine);
        }
        out.push(Action::HangUp(word));
    }

    /// The other side said what it never may: end, or settle what is locked.
    pub(crate) fn break_off(&mut self, now_ms: u64, why: String, out: &mut Vec<Action>) {
        if self.is_locked() {
            self.begin_closing(now_ms, CloseReason::Protocol, &why, out);
        } else {
            self.end(now_ms, EndReason::Protocol(why), out);
        }
    }

    /// Stops serving and paying; what follows on chain is each side's own.
    pub(crate) fn begin_closing(&mut self, now_ms: u64, reason: CloseReason, note: &str, out: &mut Vec<Action>) {
        if matches!(self.stage, Stage::Closing { .. }) || self.is_over() {
            return;
        }
        self.pause_meter(now_ms);
        self.go(now_ms, Stage::Closing { reason: reason.clone() });
        out.push(self.record(now_ms, LedgerKind::Closing, format!("{reason} {note}").trim_end()));
    }

    /// A line of the ledger with the figures of now.
    pub fn record(&self, now_ms: u64, kind: LedgerKind, note: impl Into<String>) -> Action {
        let usage = self.account.as_ref().map(|account| account.meter.usage()).unwrap_or_default();
        let owed = self.price().and_then(|price| price.owed(&usage).ok()).unwrap_or_default();
        let paid_sat = self.paid_sat();
        let note = note.into();
        Action::Record(LedgerEntry { at_ms: now_ms, kind, usage, owed, paid_sat, fee_sat: 0, txid: None, note })
    }

    pub(crate) fn pause_meter(&mut self, now_ms: u64) {
        if let Some(account) = &mut self.account {
            account.meter.pause(now_ms);
        }
    }

    pub(crate) fn resume_meter(&mut self, now_ms: u64) {
        if let Some(account) = &mut self.account {
            account.meter.resume(now_ms);
        }
    }

    /// Whatever ran when the last process ended runs no more, and nobody measured the time since.
    fn start(&mut self, now_ms: u64) {
        self.link = Err(now_ms);
        self.pipe_bytes = 0;
        self.greeted = false;
        self.restarted = true;
        if let Some(account) = &mut self.account {
            account.meter.skip_to(now_ms);
            account.meter.pause(now_ms);
        }
        // The chain may have moved meanwhile; what follows the watching says where they stand now.
        for channel in self.channels_mut() {
            if channel.ended().is_some() {
                channel.unseen_blocks = Some(0);
            } else {
                channel.funded_height = None;
                channel.ending = None;
            }
        }
        if self.stage == Stage::Measuring {
            self.go(now_ms, Stage::Connected);
        }
        self.revision += 1;
    }

    fn link_up(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        self.link = Ok(now_ms);
        self.greeted = false;
        self.first_link_ms.get_or_insert(now_ms);
        if self.stage == Stage::Accepted {
            self.go(now_ms, Stage::Connected);
        }
        out.push(Action::Send(self.hello()));
        out.push(self.record(now_ms, LedgerKind::Connected, ""));
        self.revision += 1;
    }

    fn link_down(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        if self.link.is_err() {
            return;
        }
        self.link = Err(now_ms);
        self.greeted = false;
        self.pause_meter(now_ms);
        if self.stage == Stage::Measuring {
            // The measurement went down with the connection; the node will say again that the guest is ready.
            self.go(now_ms, Stage::Connected);
        }
        out.push(self.record(now_ms, LedgerKind::Disconnected, ""));
        self.revision += 1;
    }

    fn check_deadlines(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let within_s = self.task.proposal_within.as_secs();
        let reason = match (&self.stage, self.first_link_ms) {
            (Stage::Accepted, _) if now_ms.saturating_sub(self.stage_since_ms) > TUNNEL_WITHIN_MS => {
                EndReason::NoTunnel { within_s: TUNNEL_WITHIN_MS / 1000 }
            }
            (Stage::Connected | Stage::Measuring | Stage::Proposed | Stage::Agreed, Some(since))
                if now_ms.saturating_sub(since) > within_s.saturating_mul(1000) =>
            {
                EndReason::TooLate { within_s }
            }
            _ => return,
        };
        self.end(now_ms, reason, out);
    }
}

/// As much of a stranger's words as is worth keeping.
pub(crate) fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(Message::MAX_REASON).collect()
}
