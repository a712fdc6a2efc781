//! Renewal: a further channel takes over before the present one's time or money is used up. The guest does not notice.
//!
//! ```text
//! publisher                                   node
//! Renew        (how long, how much, key) ──▶  considers as it did the proposal
//!              ◀── RenewAgreed (key, rate) ─  or RenewRefused (why)
//! funds, RenewFunded ─────────────────────▶   watches; the agreed time is longer from here on
//! ...                                         the present channel is used up
//! Pay on the new channel ─────────────────▶   takes it over, settles the old one
//! ```
//! Until the last step everything is paid on the old channel, whose refund height nobody touches: each channel holds what its own time
//! costs. What both sides count goes on; the new channel pays for what was used beyond the total of the old one.

mod node;

use bitcoin::{OutPoint, ScriptBuf, Transaction};
use secp256k1::PublicKey;
use serde::{Deserialize, Serialize};
use xennet_rama::{ChannelTerms, PublisherChannel, refund_height_for};
use xennet_task::Proposal;

use crate::lease::clip;
use crate::publisher::TIPS_APART_BLOCKS;
use crate::{Action, Channel, Lease, LedgerKind, Message, PublisherSide, Purse, Secret, Side, Stage};

/// How long the publisher waits for the node's answer, milliseconds.
const ANSWER_WITHIN_MS: u64 = 60_000;
/// A lease that is to go on is renewed when so many blocks are left of its time.
const LEAD_BLOCKS: u64 = 12;

/// A renewal under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Renewal {
    /// What it adds to the agreed time, seconds.
    pub adds_s: u64,
    /// What the new channel holds, satoshi.
    pub capacity_sat: u64,
    /// The new channel's refund height; the publisher fixes it when it asks.
    pub refund_height: u32,
    /// Node: the publisher's key in the new channel.
    pub publisher_key: Option<PublicKey>,
    /// The own key's secret, once the wallet gave one.
    pub secret: Option<Secret>,
    /// The new channel, from the node's answer on.
    pub channel: Option<Channel>,
    /// Publisher: whether it looks for a funding that it may have forgotten, before it makes one.
    pub looking: bool,
    /// When it was asked for, unix milliseconds.
    pub since_ms: u64,
}

/// Publisher: the lease is to be renewed again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoOn {
    /// What each renewal adds, seconds.
    pub adds_s: u64,
    /// What is left for the channels to come, satoshi.
    pub budget_sat: u64,
    /// When the last one was asked for, unix milliseconds.
    pub asked_ms: u64,
}

impl Renewal {
    fn funding_of(&self, transaction: &Transaction) -> Option<OutPoint> {
        self.channel.as_ref()?.terms.outpoint_in(transaction)
    }

    pub(crate) fn is_funded(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.funding.is_some())
    }
}

impl Lease {
    /// The agreed time with what renewals added, milliseconds.
    pub fn length_ms(&self) -> u64 {
        let agreed_s = self.proposal.map_or(0, |proposal| proposal.lease.as_secs());
        agreed_s.saturating_add(self.added_s).saturating_mul(1000)
    }

    /// When the agreed time is over, unix milliseconds; `None` before it begins.
    pub fn ends_at_ms(&self) -> Option<u64> {
        Some(self.live_since_ms?.saturating_add(self.length_ms()))
    }

    pub(super) fn left_s(&self, now_ms: u64) -> u64 {
        self.ends_at_ms().unwrap_or(now_ms).saturating_sub(now_ms).div_ceil(1000)
    }

    /// A channel that the wallet is to fund: its script, and satoshi.
    pub fn wants_funding(&self) -> Option<(ScriptBuf, u64)> {
        let channel = match &self.stage {
            Stage::Agreed => &self.account.as_ref()?.channel,
            Stage::Live => self.next.as_ref()?.channel.as_ref()?,
            _ => return None,
        };
        channel.funding.is_none().then(|| (channel.terms.script_pubkey(), channel.terms.capacity_sat))
    }

    /// What a renewal by so many seconds would lock, satoshi.
    ///
    /// # Errors
    /// Why this lease cannot be renewed now: what is wrong, and what to do.
    pub fn check_renewal(&self, adds_s: u64, budget_sat: u64) -> Result<u64, String> {
        let (Side::Publisher(side), Some(proposal)) = (&self.side, &self.proposal) else {
            return Err("only the publisher renews a lease; a node waits to be asked".into());
        };
        if self.stage != Stage::Live {
            return Err("it is not live; only a live lease can be renewed".into());
        }
        let on_its_way = side.unacknowledged || self.restarted || !self.greeted;
        if self.next.is_some() && !self.can_take_over() {
            return Err("a renewal is under way, and its channel is in no block yet; ask again when it is".into());
        }
        if self.next.is_some() && on_its_way {
            return Err("the node has to confirm a payment before the next channel takes over; ask again in a moment".into());
        }
        let (least_s, most_s) = (self.task.lease.min.as_secs(), self.task.lease.max.as_secs());
        if !(least_s..=most_s).contains(&adds_s) {
            return Err(format!("{adds_s} s were asked for, and the task says {least_s} to {most_s} s; renew more than once for more"));
        }
        let capacity_sat = self.renewal_capacity_sat(side, proposal, adds_s);
        if capacity_sat > budget_sat {
            return Err(format!(
                "{adds_s} s need a channel of {capacity_sat} sat, and the budget is {budget_sat} sat; raise it, or ask for less time"
            ));
        }
        Ok(capacity_sat)
    }

    /// Enough for what is added, and with what the channel before it still holds, enough for all that is left.
    fn renewal_capacity_sat(&self, side: &PublisherSide, proposal: &Proposal, adds_s: u64) -> u64 {
        let before = self.channels().last();
        let unspent_sat = before.map_or(0, |channel| channel.terms.max_total_sat().saturating_sub(channel.total_sat()));
        let all_s = self.left_s(self.seen_ms).saturating_add(adds_s);
        let missing_sat = self.capacity_for(side, &proposal.rates, proposal.core_mhz, all_s).saturating_sub(unspent_sat);
        self.capacity_for(side, &proposal.rates, proposal.core_mhz, adds_s).max(missing_sat)
    }

    pub(super) fn next_number(&self) -> u32 {
        self.account.as_ref().map_or(1, |account| account.channel.number.saturating_add(1))
    }

    pub(crate) fn publisher_renews(&mut self, now_ms: u64, adds_s: u64, budget_sat: u64, go_on: bool, out: &mut Vec<Action>) {
        let capacity_sat = match self.check_renewal(adds_s, budget_sat) {
            Ok(capacity_sat) => capacity_sat,
            Err(why) => return out.push(self.record(now_ms, LedgerKind::NotRenewed, why)),
        };
        if let Side::Publisher(side) = &mut self.side {
            let budget_sat = budget_sat.saturating_sub(capacity_sat);
            side.go_on = go_on.then_some(GoOn { adds_s, budget_sat, asked_ms: now_ms });
        }
        if self.next.is_some() {
            // One waits at a time. What the present channel does not pay any more comes back with its end.
            self.take_over();
            self.pay(now_ms, out);
        }
        self.next = Some(Renewal {
            adds_s,
            capacity_sat,
            refund_height: 0,
            publisher_key: None,
            secret: None,
            channel: None,
            looking: false,
            since_ms: now_ms,
        });
        self.not_renewed = None;
        self.revision += 1;
        out.push(Action::AskKey);
    }

    /// A lease that is to go on asks for more time by itself.
    pub(crate) fn renew_if_due(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let Side::Publisher(side) = &self.side else { return };
        let Some(go_on) = side.go_on else { return };
        let due = self.left_s(now_ms) <= LEAD_BLOCKS.saturating_mul(side.block_s);
        let ready = self.next.is_none() || self.can_take_over();
        if ready && due && self.greeted && !side.unacknowledged && now_ms.saturating_sub(go_on.asked_ms) >= ANSWER_WITHIN_MS {
            if let Err(why) = self.check_renewal(go_on.adds_s, go_on.budget_sat) {
                return self.drop_renewal(now_ms, why, true, out);
            }
            self.publisher_renews(now_ms, go_on.adds_s, go_on.budget_sat, true, out);
        }
    }

    /// It will not be renewed now; with `for_good` not by itself later either. The lease goes on as agreed.
    pub(super) fn drop_renewal(&mut self, now_ms: u64, why: String, for_good: bool, out: &mut Vec<Action>) {
        // What is funded stays: it will take over, or be given back.
        let capacity_sat = self.next.take_if(|renewal| !renewal.is_funded()).map_or(0, |renewal| renewal.capacity_sat);
        if let Side::Publisher(side) = &mut self.side {
            side.go_on = side.go_on.filter(|_| !for_good);
            if let Some(go_on) = &mut side.go_on {
                go_on.budget_sat = go_on.budget_sat.saturating_add(capacity_sat);
            }
        }
        self.revision += 1;
        out.push(self.record(now_ms, LedgerKind::NotRenewed, why.clone()));
        self.not_renewed = Some(why);
    }

    pub(crate) fn publisher_has_key(&mut self, secret: Secret, out: &mut Vec<Action>) {
        let Side::Publisher(side) = &self.side else { return };
        let ends_in_s = self.left_s(self.seen_ms).saturating_add(self.next.as_ref().map_or(0, |renewal| renewal.adds_s));
        let lease_end_height = self.height_after(ends_in_s, side.block_s).saturating_add(TIPS_APART_BLOCKS);
        let Some(renewal) = self.next.as_mut().filter(|renewal| renewal.secret.is_none()) else { return };
        renewal.secret = Some(secret);
        renewal.refund_height = refund_height_for(lease_end_height);
        self.revision += 1;
        self.say_renewal(0, out);
    }

    /// Says again what the node may not have heard. `their_channel` is the one that it is paid on.
    pub(crate) fn say_renewal(&self, their_channel: u32, out: &mut Vec<Action>) {
        self.say_taken_over(their_channel, out);
        let Some(renewal) = &self.next else { return };
        match (&renewal.channel, &renewal.secret) {
            (Some(channel), _) => {
                if let (Some(funding), Some(outpoint)) = (&channel.funding, channel.outpoint) {
                    out.push(Action::Send(renew_funded(channel.number, funding, outpoint)));
                }
            }
            (None, Some(secret)) => out.push(Action::Send(Message::Renew {
                channel: self.next_number(),
                adds_s: renewal.adds_s,
                capacity_sat: renewal.capacity_sat,
                channel_key: secret.0.public_key(secp256k1::SECP256K1).to_string(),
                refund_height: renewal.refund_height,
            })),
            (None, None) => out.push(Action::AskKey),
        }
    }

    /// What a node lacks that does not know yet which channel has taken over, in order.
    fn say_taken_over(&self, their_channel: u32, out: &mut Vec<Action>) {
        let Some(account) = self.account.as_ref().filter(|account| account.channel.number > their_channel && their_channel > 0) else {
            return;
        };
        let usage = account.meter.usage();
        if let Some(Purse::Publisher(last)) = self.past.iter().find(|channel| channel.number == their_channel).map(|channel| &channel.purse)
            && let Some(update) = last.last_update()
        {
            out.push(Action::Send(Message::Pay { number: account.payments, channel: their_channel, usage, update }));
        }
        if let (Some(funding), Some(outpoint)) = (&account.channel.funding, account.channel.outpoint) {
            out.push(Action::Send(renew_funded(account.channel.number, funding, outpoint)));
        }
    }

    pub(crate) fn publisher_may_renew(&mut self, now_ms: u64, number: u32, node_key: &str, feerate: u64, out: &mut Vec<Action>) {
        if number != self.next_number() || self.stage != Stage::Live {
            return;
        }
        let Side::Publisher(side) = &self.side else { return };
        let Some(renewal) = self.next.as_mut().filter(|renewal| renewal.channel.is_none()) else { return };
        let Some(secret) = &renewal.secret else { return };
        let channel = (|| {
            let terms = ChannelTerms {
                publisher_key: secret.0.public_key(secp256k1::SECP256K1),
                node_key: node_key.parse().map_err(|error| format!("channel key {}: {error}", clip(node_key)))?,
                capacity_sat: renewal.capacity_sat,
                refund_height: renewal.refund_height,
                close_feerate_sat_per_kvb: feerate,
            };
            terms.check().map_err(|error| error.to_string())?;
            side.check_close(&terms).map_err(|error| error.to_string())?;
            let channel = PublisherChannel::new(terms.clone(), secret.0).map_err(|error| error.to_string())?;
            Ok::<_, String>(Channel::new(number, terms, Purse::Publisher(channel)))
        })();
        match channel {
            Ok(channel) => {
                let (script, sat) = (channel.terms.script_pubkey(), channel.terms.capacity_sat);
                renewal.channel = Some(channel);
                self.revision += 1;
                out.push(Action::Fund { script, sat });
            }
            Err(why) => self.drop_renewal(now_ms, why, true, out),
        }
    }

    pub(crate) fn publisher_may_not_renew(&mut self, now_ms: u64, number: u32, reasons: &[String], out: &mut Vec<Action>) {
        let waits = self.next.as_ref().is_some_and(|renewal| !renewal.is_funded());
        if waits && number == self.next_number() {
            let reasons: Vec<_> = reasons.iter().take(16).map(|reason| clip(reason)).collect();
            self.drop_renewal(now_ms, format!("the node refuses: {}", reasons.join("; ")), true, out);
        }
    }

    pub(crate) fn publisher_cannot_fund_renewal(&mut self, now_ms: u64, why: &str, out: &mut Vec<Action>) {
        if self.next.as_ref().is_some_and(|renewal| !renewal.is_funded()) {
            self.drop_renewal(now_ms, format!("the new channel could not be funded: {}", clip(why)), true, out);
        }
    }

    /// The funding is signed, or was found on the chain. Once this lease is on disk it may be broadcast.
    pub(crate) fn publisher_funded_renewal(&mut self, now_ms: u64, transaction: &Transaction, out: &mut Vec<Action>) {
        if self.stage != Stage::Live {
            return;
        }
        let Some(renewal) = self.next.as_mut().filter(|renewal| !renewal.is_funded()) else { return };
        let (Some(outpoint), adds_s) = (renewal.funding_of(transaction), renewal.adds_s) else { return };
        let Some(channel) = &mut renewal.channel else { return };
        if let Purse::Publisher(purse) = &mut channel.purse
            && let Err(error) = purse.funded(outpoint)
        {
            return self.drop_renewal(now_ms, error.to_string(), true, out);
        }
        channel.outpoint = Some(outpoint);
        channel.funding = Some(transaction.clone());
        renewal.looking = false;
        out.push(Action::Watch(channel.terms.script_pubkey()));
        out.push(Action::Broadcast(transaction.clone()));
        out.push(Action::Send(renew_funded(channel.number, transaction, outpoint)));
        self.added_s = self.added_s.saturating_add(adds_s);
        self.revision += 1;
        out.push(self.record_renewed(now_ms, adds_s, outpoint));
    }

    pub(crate) fn renewal_tick(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let unanswered = |renewal: &Renewal| renewal.channel.is_none() && now_ms.saturating_sub(renewal.since_ms) > ANSWER_WITHIN_MS;
        if self.next.as_ref().is_some_and(unanswered) {
            let why = format!("the node did not answer within {} s", ANSWER_WITHIN_MS / 1000);
            self.drop_renewal(now_ms, why, false, out);
        }
        self.renew_if_due(now_ms, out);
    }

    /// The publisher pays on the new channel from now on. The last payment on the old one is acknowledged.
    pub(crate) fn take_over(&mut self) {
        let Some(channel) = self.next.take_if(|renewal| renewal.is_funded()).and_then(|renewal| renewal.channel) else { return };
        if let Some(account) = &mut self.account {
            self.past.push(account.take_over(channel));
            self.revision += 1;
        }
    }

    /// Whether the new channel's funding is in a block.
    pub(crate) fn can_take_over(&self) -> bool {
        self.next.as_ref().and_then(|renewal| renewal.channel.as_ref()).is_some_and(|channel| channel.funded_height.is_some())
    }

    /// Whether it is to take over now: the present channel holds no more, or comes near the height of its last payment.
    pub(crate) fn is_time_to_take_over(&self) -> bool {
        let Some(channel) = self.account.as_ref().map(|account| &account.channel) else { return false };
        let last = channel.terms.last_update_height().saturating_sub(TIPS_APART_BLOCKS);
        channel.total_sat() >= channel.terms.max_total_sat() || self.tip >= last
    }

    pub(super) fn record_renewed(&self, now_ms: u64, adds_s: u64, outpoint: OutPoint) -> Action {
        self.record(now_ms, LedgerKind::Renewed, format!("{adds_s} s more, channel {} at {outpoint}", self.next_number()))
    }
}

fn renew_funded(channel: u32, funding: &Transaction, outpoint: OutPoint) -> Message {
    let transaction = bitcoin::consensus::encode::serialize_hex(funding);
    Message::RenewFunded { channel, transaction, vout: outpoint.vout }
}
