//! How the node gets what it was paid: one transaction for each channel, or one for all that wait.

use bitcoin::ScriptBuf;
use xennet_rama::{NodeChannel, RamaError, bumped_feerate};

use crate::{Action, Channel, CloseReason, EndReason, Lease, Message, Purse, Side, Stage};

impl Lease {
    /// Whether the node is to end this channel now. Settling is possible once the funding is in a block: a close is of version 3,
    /// which is not relayed on an unconfirmed coin of version 2.
    fn is_due(&self, channel: &Channel) -> bool {
        let present = self.account.as_ref().is_some_and(|account| account.channel.number == channel.number);
        let over = if present { matches!(self.stage, Stage::Closing { .. }) && !self.settles_too_early() } else { true };
        over && channel.funded_height.is_some() && channel.ended().is_none()
    }

    /// The channels to end: those with no transaction yet, else all whose transaction waits.
    fn due(&self) -> Vec<u32> {
        let due: Vec<_> = self.paid_on().filter(|channel| self.is_due(channel)).collect();
        let new: Vec<_> = due.iter().filter(|channel| channel.end.is_none()).map(|channel| channel.number).collect();
        if new.is_empty() { due.iter().map(|channel| channel.number).collect() } else { new }
    }

    /// Each tick asks again, as long as a channel that is due has no transaction.
    pub(crate) fn ask_destination(&mut self, out: &mut Vec<Action>) {
        let waits = self.paid_on().any(|channel| self.is_due(channel) && channel.end.is_none() && self.can_be_settled(channel));
        let Side::Node(side) = &mut self.side else { return };
        if waits && !side.asked_destination {
            side.asked_destination = true;
            out.push(Action::AskDestination);
        }
    }

    /// An old channel that was never paid on is the publisher's to take back, and there is nothing to say about it; the present one
    /// ends the lease with that.
    fn can_be_settled(&self, channel: &Channel) -> bool {
        let present = self.account.as_ref().is_some_and(|account| account.channel.number == channel.number);
        present || channel.total_sat() > 0
    }

    pub(crate) fn node_tip(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let tip = self.tip;
        for channel in self.channels() {
            if let (Some(funding), None) = (&channel.funding, channel.funded_height) {
                out.push(Action::Broadcast(funding.clone()));
            }
        }
        let Some(account) = &self.account else { return };
        let unfunded = account.channel.funding.is_some() && account.channel.funded_height.is_none();
        if unfunded && matches!(self.stage, Stage::Closing { .. }) && tip >= account.channel.terms.refund_height {
            return self.give_up(now_ms, "the channel's funding never came into a block".into(), out);
        }
        if self.stage == Stage::Live && account.channel.terms.must_settle(tip) {
            return self.node_closes(now_ms, CloseReason::RefundNear, "", out);
        }
        if self.paid_on().any(|channel| self.is_due(channel) && channel.end.is_some()) {
            // A block came without it: build it again at the rate of now.
            out.push(Action::AskDestination);
        }
    }

    pub(crate) fn node_settles(&mut self, now_ms: u64, to: ScriptBuf, feerate_sat_per_kvb: u64, out: &mut Vec<Action>) {
        let Side::Node(side) = &mut self.side else { return };
        side.asked_destination = false;
        let numbers = self.due();
        let (mut channels, mut last) = (Vec::new(), 0);
        for channel in self.paid_on().filter(|channel| numbers.contains(&channel.number)) {
            if let (Purse::Node(purse), true) = (&channel.purse, channel.total_sat() > 0) {
                channels.push(purse);
                last = last.max(channel.end_feerate_sat_per_kvb);
            }
        }
        if channels.is_empty() {
            let present = self.account.as_ref().map_or(0, |account| account.channel.number);
            if numbers.contains(&present) {
                self.give_up(now_ms, "funded, but never paid".into(), out);
            }
            return;
        }
        let wanted = if last == 0 { feerate_sat_per_kvb } else { bumped_feerate(last, feerate_sat_per_kvb) };
        // A fee that would eat the whole payment buys nothing: pay what can be paid.
        let close = NodeChannel::affordable_for(&channels, &to).and_then(|most| {
            let feerate = wanted.min(most);
            NodeChannel::close_many(&channels, to, feerate).map(|settling| (settling, feerate))
        });
        let (settling, feerate) = match close {
            Ok(close) => close,
            Err(error) => return self.cannot_settle(now_ms, &numbers, &error, out),
        };
        for channel in self.channels_mut().filter(|channel| numbers.contains(&channel.number) && channel.total_sat() > 0) {
            channel.end = Some(settling.clone());
            channel.end_feerate_sat_per_kvb = feerate;
        }
        self.revision += 1;
        out.push(Action::Broadcast(settling));
        self.say_settling(out);
    }

    /// With no transaction out, that is the end of a lease that is closing. An old channel may still find a lower rate.
    fn cannot_settle(&mut self, now_ms: u64, numbers: &[u32], error: &RamaError, out: &mut Vec<Action>) {
        let present = self.account.as_ref().filter(|account| numbers.contains(&account.channel.number));
        if present.is_some_and(|account| account.channel.end.is_none()) {
            self.give_up(now_ms, error.to_string(), out);
        }
    }

    /// What was paid cannot be put on chain: the channel is the publisher's to take back.
    fn give_up(&mut self, now_ms: u64, why: String, out: &mut Vec<Action>) {
        if self.past.iter().any(|channel| self.matters(channel) && channel.ended().is_none()) {
            // First what can be had.
            return;
        }
        self.go(now_ms, Stage::Ended { reason: EndReason::NothingToSettle(why.clone()) });
        out.push(Action::StopMachine);
        out.push(Action::HangUp(why));
    }

    pub(crate) fn say_settling(&self, out: &mut Vec<Action>) {
        if let (Side::Node(_), Some(account)) = (&self.side, &self.account)
            && let Some(settling) = &account.channel.end
        {
            let txid = settling.compute_txid().to_string();
            out.push(Action::Send(Message::Settling { txid, total_sat: account.total_sat() }));
        }
    }
}
