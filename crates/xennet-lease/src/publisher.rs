//! The publisher's side: measure, propose, fund, pay, and take back what was not paid.

use std::time::Duration;

use bitcoin::{OutPoint, Transaction};
use xennet_market::price;
use xennet_meter::interval_price;
use xennet_rama::{ChannelTerms, PublisherChannel, refund_height_for};
use xennet_task::{Msat, Proposal, Rates};

use crate::greeting::Theirs;
use crate::lease::clip;
use crate::{Account, Action, Channel, CloseReason, EndReason, Input, Lease, LedgerKind, Message, PublisherSide, Purse, Side, Stage};

/// How far the node's tip may be ahead of the publisher's when it considers the proposal, blocks.
pub(crate) const TIPS_APART_BLOCKS: u32 = 6;
/// How long a proposal stands, seconds.
const PROPOSAL_VALID_S: u64 = 120;
/// How long the overlay has to carry a proposal before the tunnel carries it too, milliseconds.
const OVERLAY_FIRST_MS: u64 = 3_000;
/// How long a publisher that was left alone waits before it gives the lease up, milliseconds.
const TUNNEL_PATIENCE_MS: u64 = 600_000;

impl Lease {
    pub(crate) fn publisher(&mut self) -> Option<&mut crate::PublisherSide> {
        match &mut self.side {
            Side::Publisher(side) => Some(side),
            Side::Node(_) => None,
        }
    }

    pub(crate) fn handle_as_publisher(&mut self, now_ms: u64, input: Input, out: &mut Vec<Action>) {
        match input {
            Input::Start => self.publisher_start(out),
            Input::LinkUp => self.publisher_link_up(out),
            Input::Heard(message) => self.publisher_heard(now_ms, message, out),
            Input::Measured { figures, host_key } => {
                self.guest_host_key = Some(host_key);
                self.publisher_measured(now_ms, figures, out);
            }
            Input::MeasureFailed(why) if self.stage == Stage::Measuring => {
                self.end(now_ms, EndReason::MeasureFailed(clip(&why)), out);
            }
            // Without its announcement nothing is ever said, and nobody else would end it.
            Input::ProposalFailed(why) if self.stage == Stage::Proposed => {
                self.end(now_ms, EndReason::ProposalFailed(clip(&why)), out);
            }
            Input::ProposalSpread(bytes) => {
                if let Some(side) = self.publisher() {
                    side.announcement = Some(bytes);
                    self.revision += 1;
                }
            }
            Input::FundingBuilt { transaction, .. } if self.next.is_some() => self.publisher_funded_renewal(now_ms, &transaction, out),
            Input::FundingBuilt { transaction, vout } => self.publisher_funded(now_ms, transaction, vout, out),
            Input::FundingFailed(why) if self.next.is_some() => self.publisher_cannot_fund_renewal(now_ms, &why, out),
            Input::FundingFailed(why) => self.end(now_ms, EndReason::FundingFailed(clip(&why)), out),
            Input::Renew { adds_s, budget_sat, go_on } => self.publisher_renews(now_ms, adds_s, budget_sat, go_on, out),
            Input::FreshKey(secret) => self.publisher_has_key(secret, out),
            Input::Traffic(_) => self.pay_if_due(now_ms, out),
            Input::Tick => self.publisher_tick(now_ms, out),
            Input::Tip(_) => self.publisher_tip(out),
            Input::Destination { to, feerate_sat_per_kvb } => self.publisher_refund(to, feerate_sat_per_kvb, out),
            Input::PastTold(script) => self.publisher_funds_if_looking(&script, out),
            Input::Seen { transaction, height } => self.publisher_seen(now_ms, &transaction, height, out),
            Input::Gone(txid) => self.note_gone(now_ms, &txid),
            Input::Close(reason) => self.publisher_close(now_ms, reason, out),
            _ => {}
        }
    }

    fn publisher_start(&mut self, out: &mut Vec<Action>) {
        if let (Stage::Proposed, Some(proposal), Side::Publisher(PublisherSide { announcement: None, .. })) =
            (&self.stage, &self.proposal, &self.side)
        {
            // Decided, and perhaps never said.
            out.push(Action::SpreadProposal(Box::new(*proposal)));
        }
        out.extend(self.channels().map(|channel| Action::Watch(channel.terms.script_pubkey())));
        if self.is_over() {
            return;
        }
        out.extend(self.channels().filter_map(|channel| channel.funding.clone()).map(Action::Broadcast));
        out.extend(self.channels().filter_map(|channel| channel.end.clone()).map(Action::Broadcast));
        // It may have been made by a process that this store does not remember: the chain is asked first.
        let unfunded = |channel: &Channel| channel.funding.is_none();
        let looking = self.stage == Stage::Agreed && self.account.as_ref().is_some_and(|account| unfunded(&account.channel));
        if let Some(side) = self.publisher() {
            side.looking = looking;
        }
        if let Some(renewal) = &mut self.next {
            renewal.looking = renewal.channel.as_ref().is_some_and(unfunded);
            if renewal.secret.is_none() {
                out.push(Action::AskKey);
            }
        }
    }

    fn publisher_link_up(&mut self, out: &mut Vec<Action>) {
        if let Some(side) = self.publisher() {
            // The node says so again if its guest still stands still.
            side.paused = false;
        }
        if self.stage == Stage::Proposed {
            self.say_proposal(out);
        }
        if let Stage::Closing { reason } = &self.stage {
            out.push(Action::Send(Message::Close { reason: reason.clone() }));
        }
    }

    fn publisher_heard(&mut self, now_ms: u64, message: Message, out: &mut Vec<Action>) {
        match message {
            // What it says is about a channel that is still looked for; it says so again on the next connection.
            Message::Hello { .. } if self.is_looking() => {}
            Message::Hello { usage, restarted, channel, total_sat, best, .. } => {
                let theirs = Theirs { usage, restarted, channel, total_sat, best };
                self.publisher_hears_hello(now_ms, &theirs, out);
            }
            Message::Ready { machine } => {
                self.machine = Some(machine);
                self.revision += 1;
                if self.stage == Stage::Connected {
                    self.go(now_ms, Stage::Measuring);
                    out.push(Action::Measure);
                }
            }
            Message::Agreed { channel_key, close_feerate_sat_per_kvb } if self.stage == Stage::Proposed => {
                if let Err(why) = self.publisher_agreed(now_ms, &channel_key, close_feerate_sat_per_kvb, out) {
                    self.end(now_ms, why, out);
                }
            }
            Message::Refused { reasons } if self.stage == Stage::Proposed => {
                let reasons = reasons.iter().take(16).map(|reason| clip(reason)).collect();
                self.end(now_ms, EndReason::ProposalRefused(reasons), out);
            }
            Message::RenewAgreed { channel, channel_key, close_feerate_sat_per_kvb } => {
                self.publisher_may_renew(now_ms, channel, &channel_key, close_feerate_sat_per_kvb, out);
            }
            Message::RenewRefused { channel, reasons } => self.publisher_may_not_renew(now_ms, channel, &reasons, out),
            Message::Ack { total_sat, .. } => {
                self.publisher_acknowledged(total_sat);
            }
            // Said again it changes nothing: a ledger line each would let a stranger fill the disk.
            Message::Paused { .. } if self.publisher().is_some_and(|side| side.paused) => {}
            Message::Paused { .. } if self.stage == Stage::Live => {
                self.pay_if_due(now_ms, out);
                self.pause_meter(now_ms);
                if let Some(side) = self.publisher() {
                    side.paused = true;
                }
                self.revision += 1;
                out.push(self.record(now_ms, LedgerKind::Withheld, ""));
                self.pay(now_ms, out);
            }
            Message::Resumed { .. } if self.stage == Stage::Live => {
                if let Some(side) = self.publisher() {
                    side.paused = false;
                }
                self.resume_meter(now_ms);
                self.revision += 1;
            }
            Message::Close { reason } => {
                if self.stage == Stage::Live {
                    self.publisher_close(now_ms, reason, out);
                } else if !self.is_locked() {
                    self.end(now_ms, EndReason::HungUp(reason.to_string()), out);
                }
            }
            _ => {}
        }
    }

    /// The node has this total on disk.
    pub(crate) fn publisher_acknowledged(&mut self, total_sat: u64) {
        let Some(account) = &mut self.account else { return };
        if total_sat < account.acked_total_sat || total_sat > account.total_sat() {
            return;
        }
        let waiting = total_sat < account.total_sat();
        let changed = total_sat > account.acked_total_sat;
        account.acked_total_sat = total_sat;
        let Some(side) = self.publisher() else { return };
        if changed || side.unacknowledged != waiting {
            side.unacknowledged = waiting;
            self.revision += 1;
        }
    }

    fn publisher_measured(&mut self, now_ms: u64, figures: xennet_meter::Figures, out: &mut Vec<Action>) {
        if self.stage != Stage::Measuring {
            return;
        }
        self.figures = Some(figures);
        let rates = match price(&self.task, &figures, &self.acceptance) {
            Ok(rates) => rates,
            Err(reasons) => {
                let reasons = reasons.iter().map(ToString::to_string).collect();
                return self.end(now_ms, EndReason::MachineRefused(reasons), out);
            }
        };
        let Side::Publisher(side) = &self.side else { return };
        let longest = self.task.lease.max.as_secs();
        let lease_s = side.lease_s.clamp(self.task.lease.min.as_secs(), longest);
        let lease_end_height = self.height_after(lease_s, side.block_s).saturating_add(TIPS_APART_BLOCKS);
        let channel_key = side.channel_secret.0.public_key(secp256k1::SECP256K1).serialize();
        let proposal = Proposal {
            task: self.task_hash,
            acceptance: self.acceptance_hash,
            core_mhz: figures.core_mhz,
            rates,
            lease: Duration::from_secs(lease_s),
            payout: self.task.payout,
            capacity_sat: self.capacity_for(side, &rates, figures.core_mhz, lease_s).min(side.budget_sat),
            channel_key,
            refund_height: refund_height_for(lease_end_height),
            expires_at: u32::try_from(now_ms / 1000 + PROPOSAL_VALID_S).unwrap_or(u32::MAX),
        };
        self.proposal = Some(proposal);
        self.go(now_ms, Stage::Proposed);
        out.push(self.record(now_ms, LedgerKind::Measured, ""));
        out.push(Action::SpreadProposal(Box::new(proposal)));
    }

    /// What the lease will cost by the clock, with a quarter on top for traffic, and something for the fee of the close.
    pub(crate) fn capacity_for(&self, side: &PublisherSide, rates: &Rates, core_mhz: u32, lease_s: u64) -> u64 {
        let by_clock = interval_price(rates, &self.size(), core_mhz, Duration::from_secs(lease_s)).0 / 1000;
        let prepaid = interval_price(rates, &self.size(), core_mhz, self.task.payout.interval()).0 / 1000;
        let traffic = (by_clock / 4).max(rates.traffic_msat_per_gb / 1000);
        by_clock.saturating_add(prepaid).saturating_add(traffic).saturating_add(side.close_allowance_sat())
    }

    fn say_proposal(&self, out: &mut Vec<Action>) {
        if let Side::Publisher(side) = &self.side
            && let Some(announcement) = &side.announcement
        {
            let announcement = announcement.iter().map(|byte| format!("{byte:02x}")).collect();
            out.push(Action::Send(Message::Proposal { announcement }));
        }
    }

    fn publisher_agreed(
        &mut self,
        now_ms: u64,
        node_key: &str,
        close_feerate_sat_per_kvb: u64,
        out: &mut Vec<Action>,
    ) -> Result<(), EndReason> {
        let Side::Publisher(side) = &self.side else { return Ok(()) };
        let broken = EndReason::Protocol;
        let Some(proposal) = &self.proposal else { return Err(broken("agreed to no proposal".into())) };
        let node_key = node_key.parse().map_err(|error| broken(format!("channel key {}: {error}", clip(node_key))))?;
        let secret = side.channel_secret.0;
        let terms = ChannelTerms {
            publisher_key: secret.public_key(secp256k1::SECP256K1),
            node_key,
            capacity_sat: proposal.capacity_sat,
            refund_height: proposal.refund_height,
            close_feerate_sat_per_kvb,
        };
        terms.check().map_err(|error| broken(error.to_string()))?;
        side.check_close(&terms)?;
        let (script, sat) = (terms.script_pubkey(), terms.capacity_sat);
        let channel = PublisherChannel::new(terms.clone(), secret).map_err(|error| broken(error.to_string()))?;
        self.account = Some(Account::new(Channel::new(1, terms, Purse::Publisher(channel)), self.size(), now_ms));
        self.go(now_ms, Stage::Agreed);
        out.push(self.record(now_ms, LedgerKind::Agreed, ""));
        out.push(Action::Fund { script, sat });
        Ok(())
    }

    /// The funding is signed. Once this lease is on disk it may be broadcast: the refund follows from keys and terms alone.
    fn publisher_funded(&mut self, now_ms: u64, transaction: Transaction, vout: u32, out: &mut Vec<Action>) {
        if self.stage != Stage::Agreed {
            return;
        }
        let Some(account) = &mut self.account else { return };
        let outpoint = OutPoint { txid: transaction.compute_txid(), vout };
        if let Purse::Publisher(channel) = &mut account.channel.purse
            && let Err(error) = channel.funded(outpoint)
        {
            return self.end(now_ms, EndReason::FundingFailed(error.to_string()), out);
        }
        account.channel.outpoint = Some(outpoint);
        account.channel.funding = Some(transaction.clone());
        let script = account.channel.terms.script_pubkey();
        self.live_since_ms = Some(now_ms);
        self.go(now_ms, Stage::Live);
        let hex = bitcoin::consensus::encode::serialize_hex(&transaction);
        out.push(Action::Watch(script));
        out.push(Action::Broadcast(transaction));
        out.push(Action::Send(Message::Funded { transaction: hex, vout }));
        out.push(self.record(now_ms, LedgerKind::Funded, outpoint.to_string()));
        if self.link.is_ok() {
            self.resume_meter(now_ms);
        }
        self.pay(now_ms, out);
    }

    fn publisher_tick(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        match self.stage {
            Stage::Proposed if now_ms.saturating_sub(self.stage_since_ms) > OVERLAY_FIRST_MS => {
                self.stage_since_ms = now_ms;
                self.say_proposal(out);
            }
            Stage::Live => {
                self.renewal_tick(now_ms, out);
                if self.ends_at_ms().is_some_and(|end| now_ms >= end) {
                    return self.publisher_close(now_ms, CloseReason::LeaseOver, out);
                }
                if self.link.is_err_and(|since| now_ms.saturating_sub(since) > TUNNEL_PATIENCE_MS) {
                    return self.publisher_close(now_ms, CloseReason::TunnelLost, out);
                }
                self.pay_if_due(now_ms, out);
                self.take_over_if_time(now_ms, out);
            }
            Stage::Closing { .. } => self.give_back_unused(now_ms, out),
            _ => {}
        }
    }

    fn publisher_close(&mut self, now_ms: u64, reason: CloseReason, out: &mut Vec<Action>) {
        match self.stage {
            Stage::Live => {
                if let Some(account) = &mut self.account {
                    account.meter.advance(now_ms);
                }
                // No interval is to come.
                self.pay_with(now_ms, Msat(0), 0, out);
                self.begin_publisher_closing(now_ms, reason, "", out);
            }
            Stage::Closing { .. } => {}
            _ => self.end(now_ms, EndReason::Cancelled, out),
        }
    }

    pub(crate) fn begin_publisher_closing(&mut self, now_ms: u64, reason: CloseReason, note: &str, out: &mut Vec<Action>) {
        if matches!(self.stage, Stage::Closing { .. }) {
            return;
        }
        self.begin_closing(now_ms, reason.clone(), note, out);
        out.push(Action::Send(Message::Close { reason }));
    }

    /// Past the refund's height, with no close by the node: take back what was not paid.
    fn publisher_tip(&mut self, out: &mut Vec<Action>) {
        let (tip, mut ask) = (self.tip, false);
        for channel in self.channels() {
            let Some(funding) = &channel.funding else { continue };
            if channel.funded_height.is_none() && channel.ending.is_none() {
                // It may have fallen out of a mempool, or its block out of the chain.
                out.push(Action::Broadcast(funding.clone()));
            }
            if channel.ending.is_some() || tip < channel.terms.refund_height {
                continue;
            }
            match &channel.end {
                Some(refund) => out.push(Action::Broadcast(refund.clone())),
                None => ask = true,
            }
        }
        if ask {
            out.push(Action::AskDestination);
        }
    }

    fn publisher_refund(&mut self, to: bitcoin::ScriptBuf, feerate_sat_per_kvb: u64, out: &mut Vec<Action>) {
        let (tip, mut refunds) = (self.tip, Vec::new());
        for channel in self.channels_mut() {
            let Purse::Publisher(purse) = &channel.purse else { continue };
            if tip < channel.terms.refund_height || channel.ending.is_some() {
                continue;
            }
            let Ok(refund) = purse.refund_tx(to.clone(), feerate_sat_per_kvb) else { continue };
            channel.end = Some(refund.clone());
            refunds.push(Action::Broadcast(refund));
        }
        self.revision += u64::from(!refunds.is_empty());
        out.extend(refunds);
    }

    fn is_looking(&self) -> bool {
        self.stage == Stage::Agreed && matches!(&self.side, Side::Publisher(side) if side.looking)
    }

    /// Nothing on the chain pays the channel, so the funding was never sent.
    fn publisher_funds_if_looking(&mut self, script: &bitcoin::ScriptBuf, out: &mut Vec<Action>) {
        let Some((wanted, sat)) = self.wants_funding().filter(|(wanted, _)| wanted == script) else { return };
        let looked = if self.is_looking() {
            self.publisher().map(|side| std::mem::take(&mut side.looking))
        } else {
            self.next.as_mut().map(|renewal| std::mem::take(&mut renewal.looking))
        };
        if looked == Some(true) {
            out.push(Action::Fund { script: wanted, sat });
        }
    }

    /// A funding that this store does not remember. What was paid on it, the node shows when it greets the next time.
    fn publisher_finds_funding(&mut self, now_ms: u64, transaction: &Transaction, out: &mut Vec<Action>) {
        let Some(account) = &mut self.account else { return };
        let funding = account.channel.terms.funding_output();
        let Some(vout) = transaction.output.iter().position(|output| *output == funding).and_then(|at| u32::try_from(at).ok()) else {
            return;
        };
        let outpoint = OutPoint { txid: transaction.compute_txid(), vout };
        if let Purse::Publisher(channel) = &mut account.channel.purse
            && channel.funded(outpoint).is_err()
        {
            return;
        }
        account.channel.outpoint = Some(outpoint);
        account.channel.funding = Some(transaction.clone());
        self.live_since_ms = Some(now_ms);
        if let Some(side) = self.publisher() {
            side.looking = false;
        }
        self.go(now_ms, Stage::Live);
        out.push(Action::Broadcast(transaction.clone()));
        out.push(self.record(now_ms, LedgerKind::Funded, format!("{outpoint}, found again")));
        out.push(Action::HangUp("the funding was found again".into()));
    }

    fn publisher_seen(&mut self, now_ms: u64, transaction: &Transaction, height: Option<u32>, out: &mut Vec<Action>) {
        if self.is_looking() {
            self.publisher_finds_funding(now_ms, transaction, out);
        }
        if self.next.as_ref().is_some_and(|renewal| renewal.looking) {
            self.publisher_funded_renewal(now_ms, transaction, out);
        }
        let noted = self.note_seen(transaction, height);
        let present = self.account.as_ref().map_or(0, |account| account.channel.number);
        if self.stage == Stage::Live && noted.iter().any(|one| one.number == present) {
            self.begin_closing(now_ms, CloseReason::ChannelClosed, "", out);
        }
        self.ends(now_ms, &noted, out);
    }
}
