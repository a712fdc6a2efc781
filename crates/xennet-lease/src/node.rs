//! The node's side: serve, meter, check each payment, and settle in time.

use bitcoin::{OutPoint, Transaction};
use xennet_market::consider_proposal;
use xennet_rama::{ChannelTerms, NodeChannel, Update};
use xennet_task::{PayoutInterval, Proposal, Usage};

use crate::lease::clip;
use crate::{Account, Action, Channel, CloseReason, EndReason, Input, Lease, LedgerKind, Message, Purse, Side, Stage};

/// How long past the agreed time the node waits for the publisher's last payment, milliseconds.
const OVERTIME_MS: u64 = 10_000;
/// How long a connection may stand without a hello: it has the guest at its disposal, and the meter waits for the hello, milliseconds.
const GREETED_WITHIN_MS: u64 = 10_000;
/// How long a guest stands still for want of payment before the node settles, milliseconds.
const UNPAID_PATIENCE_MS: u64 = 60_000;
/// The same while the funding waits for blocks, milliseconds.
const UNCONFIRMED_PATIENCE_MS: u64 = 7_200_000;

impl Lease {
    fn node(&mut self) -> Option<&mut crate::NodeSide> {
        match &mut self.side {
            Side::Node(side) => Some(side),
            Side::Publisher(_) => None,
        }
    }

    pub(crate) fn handle_as_node(&mut self, now_ms: u64, input: Input, out: &mut Vec<Action>) {
        match input {
            Input::Start => self.node_start(out),
            Input::LinkUp => {
                self.say_ready(out);
                self.say_paused(out);
                if let Stage::Closing { reason } = &self.stage {
                    out.push(Action::Send(Message::Close { reason: reason.clone() }));
                }
                self.say_settling(out);
            }
            Input::Heard(message) => self.node_heard(now_ms, message, out),
            Input::MachineReady(machine) => {
                self.machine = Some(machine);
                self.revision += 1;
                if self.is_paused() {
                    // Taken up again after a restart it runs; what it stood still for is not paid yet.
                    out.push(Action::Pause);
                }
                if self.link.is_ok() {
                    self.say_ready(out);
                }
            }
            Input::MachineFailed(why) => self.node_lost_machine(now_ms, &why, out),
            Input::Proposal(proposal) => self.node_considers(now_ms, &proposal, out),
            Input::Tick | Input::Traffic(_) => self.node_tick(now_ms, out),
            Input::Tip(_) => self.node_tip(now_ms, out),
            Input::Destination { to, feerate_sat_per_kvb } => self.node_settles(now_ms, to, feerate_sat_per_kvb, out),
            Input::Seen { transaction, height } => self.node_seen(now_ms, &transaction, height, out),
            Input::Gone(txid) => self.note_gone(now_ms, &txid),
            Input::FreshKey(secret) => self.node_has_key(secret, out),
            Input::Close(reason) => match self.stage {
                Stage::Live => self.node_closes(now_ms, reason, "", out),
                Stage::Closing { .. } => {}
                _ => self.end(now_ms, EndReason::Cancelled, out),
            },
            _ => {}
        }
    }

    fn node_start(&mut self, out: &mut Vec<Action>) {
        out.extend(self.channels().map(|channel| Action::Watch(channel.terms.script_pubkey())));
        if self.is_over() {
            return;
        }
        out.extend(self.channels().filter_map(|channel| channel.funding.clone()).map(Action::Broadcast));
        if self.next.as_ref().is_some_and(|renewal| renewal.secret.is_none()) {
            out.push(Action::AskKey);
        }
        if let Side::Node(side) = &mut self.side {
            side.asked_destination = false;
        }
        if let Stage::Closing { .. } = self.stage {
            out.push(Action::StopMachine);
            if self.awaits_the_other_side() {
                out.push(Action::Dial);
            }
            self.ask_destination(out);
        } else {
            out.push(Action::Dial);
            if let Side::Node(side) = &self.side {
                out.extend(side.guest_key.map(|guest_key| Action::Boot { guest_key }));
            }
        }
    }

    fn say_ready(&self, out: &mut Vec<Action>) {
        if let Some(machine) = &self.machine {
            out.push(Action::Send(Message::Ready { machine: machine.clone() }));
        }
    }

    fn node_heard(&mut self, now_ms: u64, message: Message, out: &mut Vec<Action>) {
        match message {
            Message::Hello { usage, guest_key, .. } => self.node_greeted(now_ms, &usage, guest_key, out),
            Message::Funded { transaction, vout } => {
                if let Err(why) = self.node_funded(now_ms, &transaction, vout, out) {
                    self.break_off(now_ms, why, out);
                }
            }
            Message::Pay { channel, update, .. } => self.node_paid(now_ms, channel, &update, out),
            Message::Renew { .. } => self.node_asked_to_renew(now_ms, &message, out),
            Message::RenewFunded { channel, transaction, vout } => self.node_renewal_funded(now_ms, channel, &transaction, vout, out),
            Message::Close { reason } => match self.stage {
                Stage::Live => self.node_closes(now_ms, reason, "", out),
                Stage::Closing { .. } => self.say_settling(out),
                _ => self.end(now_ms, EndReason::HungUp(reason.to_string()), out),
            },
            _ => {}
        }
    }

    fn node_greeted(&mut self, now_ms: u64, their_usage: &Usage, guest_key: Option<[u8; 32]>, out: &mut Vec<Action>) {
        if let (true, Some(account)) = (self.restarted, &mut self.account) {
            // What the publisher has counted it will pay for.
            account.meter.raise_to(their_usage);
        }
        self.restarted = false;
        if self.stage == Stage::Live && !self.is_paused() {
            self.resume_meter(now_ms);
        }
        let Side::Node(side) = &mut self.side else { return };
        if let (None, Some(guest_key)) = (side.guest_key, guest_key) {
            side.guest_key = Some(guest_key);
            self.revision += 1;
            out.push(Action::Boot { guest_key });
        }
    }

    /// Own figures and the owner's floor against the publisher's terms.
    fn node_considers(&mut self, now_ms: u64, proposal: &Proposal, out: &mut Vec<Action>) {
        if proposal.task != self.task_hash || proposal.acceptance != self.acceptance_hash {
            return;
        }
        if self.stage == Stage::Agreed && self.proposal == Some(*proposal) {
            return self.say_agreed(out);
        }
        if !matches!(self.stage, Stage::Connected | Stage::Measuring) || self.machine.is_none() {
            return;
        }
        let Side::Node(side) = &self.side else { return };
        let now_unix = u32::try_from(now_ms / 1000).unwrap_or(u32::MAX);
        let verdict = consider_proposal(proposal, &self.task, &self.acceptance, &side.own_figures, &side.policy, now_unix);
        let reasons = match verdict {
            Ok(()) => self.node_agrees(now_ms, proposal, out).err().map(|why| vec![why]),
            Err(reasons) => Some(reasons.iter().map(ToString::to_string).collect()),
        };
        if let Some(reasons) = reasons {
            self.proposal = Some(*proposal);
            out.push(Action::Send(Message::Refused { reasons: reasons.clone() }));
            self.end(now_ms, EndReason::ProposalRefused(reasons), out);
        }
    }

    fn node_agrees(&mut self, now_ms: u64, proposal: &Proposal, out: &mut Vec<Action>) -> Result<(), String> {
        let Side::Node(side) = &self.side else { return Ok(()) };
        let secret = side.channel_secret.0;
        let publisher_key =
            secp256k1::PublicKey::from_slice(&proposal.channel_key).map_err(|error| format!("the proposal's channel key: {error}"))?;
        let terms = ChannelTerms {
            publisher_key,
            node_key: secret.public_key(secp256k1::SECP256K1),
            capacity_sat: proposal.capacity_sat,
            refund_height: proposal.refund_height,
            close_feerate_sat_per_kvb: side.close_feerate_sat_per_kvb,
        };
        let lease_end_height = self.height_after(proposal.lease.as_secs(), side.block_s);
        terms.check().and_then(|()| terms.check_refund(lease_end_height)).map_err(|error| error.to_string())?;
        let channel = NodeChannel::new(terms.clone(), secret).map_err(|error| error.to_string())?;
        self.proposal = Some(*proposal);
        self.account = Some(Account::new(Channel::new(1, terms, Purse::Node(channel)), self.size(), now_ms));
        self.go(now_ms, Stage::Agreed);
        out.push(self.record(now_ms, LedgerKind::Agreed, ""));
        self.say_agreed(out);
        Ok(())
    }

    fn say_agreed(&self, out: &mut Vec<Action>) {
        if let Some(account) = &self.account {
            let close_feerate_sat_per_kvb = account.channel.terms.close_feerate_sat_per_kvb;
            let channel_key = account.channel.terms.node_key.to_string();
            out.push(Action::Send(Message::Agreed { channel_key, close_feerate_sat_per_kvb }));
        }
    }

    fn node_funded(&mut self, now_ms: u64, transaction: &str, vout: u32, out: &mut Vec<Action>) -> Result<(), String> {
        if self.stage != Stage::Agreed {
            return Ok(());
        }
        let transaction: Transaction = bitcoin::consensus::encode::deserialize_hex(transaction)
            .map_err(|error| format!("the funding transaction cannot be read: {error}"))?;
        let outpoint = OutPoint { txid: transaction.compute_txid(), vout };
        let Some(account) = &mut self.account else { return Ok(()) };
        let Purse::Node(channel) = &mut account.channel.purse else { return Ok(()) };
        channel.funded(&transaction, vout).map_err(|error| error.to_string())?;
        account.channel.outpoint = Some(outpoint);
        account.channel.funding = Some(transaction.clone());
        account.last_payment_ms = now_ms;
        let script = account.channel.terms.script_pubkey();
        self.live_since_ms = Some(now_ms);
        self.go(now_ms, Stage::Live);
        self.resume_meter(now_ms);
        out.push(Action::Watch(script));
        // The publisher has done so too; that the chain takes it from this side is what counts here.
        out.push(Action::Broadcast(transaction));
        out.push(self.record(now_ms, LedgerKind::Funded, outpoint.to_string()));
        Ok(())
    }

    /// A payment is acknowledged only from disk: the acknowledgement is an action, and actions follow the persisting.
    fn node_paid(&mut self, now_ms: u64, number: u32, update: &Update, out: &mut Vec<Action>) {
        if !matches!(self.stage, Stage::Live | Stage::Closing { .. }) {
            return;
        }
        if self.past.iter().any(|channel| channel.number == number) {
            // Said again after the next one has taken over: it counts already.
            return;
        }
        let tip = self.tip;
        let Some(account) = &self.account else { return };
        let takes_over = number != account.channel.number;
        let waiting = self.next.as_mut().and_then(|renewal| renewal.channel.as_mut()).filter(|channel| channel.funding.is_some());
        let paid_on = if takes_over { waiting } else { self.account.as_mut().map(|account| &mut account.channel) };
        let Some(paid_on) = paid_on.filter(|channel| channel.number == number) else {
            let why = format!("a payment on channel {number}, which was not agreed on");
            return self.break_off_as_node(now_ms, why, out);
        };
        let Purse::Node(channel) = &mut paid_on.purse else { return };
        let before = channel.total_sat();
        if let Err(error) = channel.accept(update, tip) {
            let why = error.to_string();
            return self.break_off_as_node(now_ms, why, out);
        }
        if takes_over {
            self.take_over();
            self.ask_destination(out);
        }
        let Some(account) = &mut self.account else { return };
        let total_sat = account.total_sat();
        account.meter.advance(now_ms);
        let usage = account.meter.usage();
        account.acked_total_sat = total_sat;
        account.last_payment_ms = now_ms;
        let (payments, again) = (account.payments, total_sat == before && account.payments > 0);
        account.payments = if again { payments } else { payments + 1 };
        self.restored_is_paid(total_sat);
        if again {
            // The same payment again, as after a cut. It is on disk already; a ledger line each would let a stranger fill the disk.
            return out.push(Action::Send(Message::Ack { total_sat, usage }));
        }
        self.revision += 1;
        out.push(Action::Send(Message::Ack { total_sat, usage }));
        out.push(self.record(now_ms, LedgerKind::Paid, ""));
        self.node_resumes_if_paid(now_ms, out);
    }

    fn break_off_as_node(&mut self, now_ms: u64, why: String, out: &mut Vec<Action>) {
        if self.stage == Stage::Live {
            self.node_closes(now_ms, CloseReason::Protocol, &clip(&why), out);
        }
    }

    fn node_tick(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        self.ask_destination(out);
        if self.stage != Stage::Live {
            return;
        }
        if let Some(account) = &mut self.account {
            account.meter.advance(now_ms);
        }
        let over = self.ends_at_ms().is_some_and(|end| now_ms > end.saturating_add(OVERTIME_MS));
        if over {
            return self.node_closes(now_ms, CloseReason::LeaseOver, "", out);
        }
        let Side::Node(side) = &self.side else { return };
        if self.link.is_err_and(|since| now_ms.saturating_sub(since) > side.patience_ms) {
            return self.node_closes(now_ms, CloseReason::TunnelLost, "", out);
        }
        if !self.greeted && self.link.is_ok_and(|since| now_ms.saturating_sub(since) > GREETED_WITHIN_MS) {
            return self.node_closes(now_ms, CloseReason::Protocol, "connected, but no hello", out);
        }
        let renewing = self.next.as_ref().and_then(|renewal| renewal.channel.as_ref()).is_some_and(|channel| channel.funding.is_some());
        let unpaid_patience_ms = if renewing || self.waits_for_blocks() { UNCONFIRMED_PATIENCE_MS } else { UNPAID_PATIENCE_MS };
        match side.paused_since_ms {
            Some(since) if now_ms.saturating_sub(since) > unpaid_patience_ms => {
                self.node_closes(now_ms, CloseReason::Unpaid, "", out);
            }
            Some(_) => self.node_resumes_if_paid(now_ms, out),
            None => self.node_pauses_if_unpaid(now_ms, out),
        }
    }

    /// On a new connection the publisher takes it that the guest runs.
    fn say_paused(&self, out: &mut Vec<Action>) {
        if let (true, Some((owed_msat, _))) = (self.is_paused(), self.node_exposure()) {
            out.push(Action::Send(Message::Paused { owed_msat }));
        }
    }

    /// Whether more blocks are needed on the funding, and not more payments: it is in none, or more was earned than a reorganisation
    /// may take back.
    fn waits_for_blocks(&self) -> bool {
        let (Some(price), Some(account), Side::Node(side)) = (self.price(), &self.account, &self.side) else { return false };
        if account.channel.funded_height.is_none() {
            return true;
        }
        let buried = account.channel.is_buried(self.tip);
        !buried && account.used_msat(&price).is_ok_and(|used_msat| used_msat >= side.policy.max_unburied_msat)
    }

    fn is_paused(&self) -> bool {
        matches!(&self.side, Side::Node(side) if side.paused_since_ms.is_some())
    }

    /// What is owed, and the most that may be. Until the funding is in a block, signatures on it count for nothing.
    fn node_exposure(&self) -> Option<(u64, u64)> {
        let (price, account) = (self.price()?, self.account.as_ref()?);
        let used_msat = account.used_msat(&price).unwrap_or(u64::MAX);
        let confirmed = account.channel.funded_height.is_some();
        let exposure = if confirmed { account.exposure_msat(&price).unwrap_or(u64::MAX) } else { used_msat };
        let arrears = matches!(price.proposal.payout, PayoutInterval::InArrears(_));
        if confirmed && self.waits_for_blocks() {
            let Side::Node(side) = &self.side else { return None };
            return Some((used_msat, side.policy.max_unburied_msat));
        }
        // A satoshi is the least that can be paid, so the least that can be owed.
        let limit = if arrears || !confirmed { price.interval().0.max(1000) } else { 1000 };
        Some((exposure, limit))
    }

    fn node_pauses_if_unpaid(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let Some((owed_msat, limit)) = self.node_exposure() else { return };
        if owed_msat < limit {
            return;
        }
        self.pause_meter(now_ms);
        if let Some(side) = self.node() {
            side.paused_since_ms = Some(now_ms);
        }
        self.revision += 1;
        out.push(Action::Pause);
        out.push(Action::Send(Message::Paused { owed_msat }));
        out.push(self.record(now_ms, LedgerKind::Withheld, format!("{owed_msat} msat owed, {limit} msat allowed")));
    }

    fn node_resumes_if_paid(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let Some((owed_msat, limit)) = self.node_exposure() else { return };
        if !self.is_paused() || owed_msat >= limit || self.stage != Stage::Live {
            return;
        }
        if let Some(side) = self.node() {
            side.paused_since_ms = None;
        }
        if self.link.is_ok() {
            self.resume_meter(now_ms);
        }
        self.revision += 1;
        out.push(Action::Resume);
        if let Some(account) = &self.account {
            out.push(Action::Send(Message::Resumed { usage: account.meter.usage() }));
        }
    }

    fn node_lost_machine(&mut self, now_ms: u64, why: &str, out: &mut Vec<Action>) {
        self.machine = None;
        if self.stage == Stage::Live {
            self.node_closes(now_ms, CloseReason::MachineLost, &clip(why), out);
        } else {
            self.end(now_ms, EndReason::MachineFailed(clip(why)), out);
        }
    }

    pub(crate) fn node_closes(&mut self, now_ms: u64, reason: CloseReason, note: &str, out: &mut Vec<Action>) {
        self.begin_closing(now_ms, reason.clone(), note, out);
        out.push(Action::StopMachine);
        if self.link.is_ok() {
            out.push(Action::Send(Message::Close { reason }));
        }
        self.ask_destination(out);
    }

    fn node_seen(&mut self, now_ms: u64, transaction: &Transaction, height: Option<u32>, out: &mut Vec<Action>) {
        let noted = self.note_seen(transaction, height);
        self.node_resumes_if_paid(now_ms, out);
        let present = self.account.as_ref().map_or(0, |account| account.channel.number);
        if self.stage == Stage::Live && noted.iter().any(|one| one.number == present) {
            self.node_closes(now_ms, CloseReason::ChannelClosed, "", out);
        }
        self.ends(now_ms, &noted, out);
    }
}
