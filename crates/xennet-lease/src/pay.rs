//! The publisher's payments: when, how much, and on which channel.

use xennet_task::Msat;

use crate::{Action, CloseReason, Lease, LedgerKind, Message, Purse, Renewal, Side, Stage};

/// Payments made for traffic between two intervals are at least this far apart, milliseconds.
const SHORTEST_PAUSE_MS: u64 = 100;

impl Lease {
    /// Pays when three quarters of the interval are over, or of what may be owed is used up: the node must not have to wait.
    pub(crate) fn pay_if_due(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        if self.stage != Stage::Live || self.link.is_err() {
            return;
        }
        if let Some(account) = &mut self.account {
            account.meter.advance(now_ms);
        }
        let (Some(price), Some(account)) = (self.price(), &self.account) else { return };
        let since_ms = now_ms.saturating_sub(account.last_payment_ms);
        let exposure = account.exposure_msat(&price).unwrap_or(u64::MAX);
        let by_time = since_ms.saturating_mul(4) >= price.interval_ms().saturating_mul(3);
        let by_use = since_ms >= SHORTEST_PAUSE_MS && exposure >= (price.interval().0 / 4).saturating_mul(3).max(1000);
        if by_time || by_use {
            self.pay(now_ms, out);
        }
    }

    /// Pays for what was used, and for the interval to come if that was agreed.
    pub(crate) fn pay(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let ahead = self.price().map_or(Msat(0), |price| price.in_advance());
        self.pay_with(now_ms, ahead, 0, out);
    }

    /// The same, with something to pay ahead, and in any case so much.
    pub(crate) fn pay_with(&mut self, now_ms: u64, ahead: Msat, least_sat: u64, out: &mut Vec<Action>) {
        if self.restarted {
            // The store may be an old copy. The node's hello says what was signed before; until then nothing is.
            return;
        }
        // As long as the node has not confirmed one payment it may be gone, and what is signed beyond that be lost. A
        // connection that is up loses nothing; a new one begins with what the node has.
        if matches!(&self.side, Side::Publisher(side) if side.unacknowledged) {
            return;
        }
        let (Some(price), Some(account)) = (self.price(), &self.account) else { return };
        let usage = account.meter.usage();
        let due = match account.due_sat(&price, &usage, ahead) {
            Ok(due) => due,
            Err(error) => return self.begin_publisher_closing(now_ms, CloseReason::ChannelExhausted, &error.to_string(), out),
        };
        let (due, max) = (due.max(account.total_sat()).max(least_sat), account.channel.terms.max_total_sat());
        let Some(account) = &mut self.account else { return };
        let Purse::Publisher(channel) = &mut account.channel.purse else { return };
        account.last_payment_ms = now_ms;
        if account.payments > 0 && due.min(max) <= channel.signed_total_sat() {
            return;
        }
        let update = match channel.pay(due.min(max)) {
            Ok(update) => update,
            Err(error) => return self.begin_publisher_closing(now_ms, CloseReason::ChannelExhausted, &error.to_string(), out),
        };
        account.payments += 1;
        let (number, on_channel) = (account.payments, account.channel.number);
        if let Some(side) = self.publisher() {
            side.unacknowledged = true;
        }
        self.revision += 1;
        out.push(Action::Send(Message::Pay { number, channel: on_channel, usage, update }));
        out.push(self.record(now_ms, LedgerKind::Paid, ""));
        if due > max && self.next.as_ref().is_none_or(|renewal| renewal.channel.is_none()) {
            self.begin_publisher_closing(now_ms, CloseReason::ChannelExhausted, "", out);
        }
    }

    /// The present channel has done its part: what is owed is paid on it, and the rest on the new one.
    pub(crate) fn take_over_if_time(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let waits = matches!(&self.side, Side::Publisher(side) if side.unacknowledged);
        if self.is_time_to_take_over() && self.can_take_over() && !waits && !self.restarted && self.link.is_ok() {
            self.take_over();
            self.pay(now_ms, out);
        }
    }

    /// A new channel that never took over is paid the least that the node can claim, so that it ends it and the rest comes back now.
    pub(crate) fn give_back_unused(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        let waits = matches!(&self.side, Side::Publisher(side) if side.unacknowledged);
        let open = self.account.as_ref().is_some_and(|account| account.channel.ended().is_none());
        if self.next.as_ref().is_some_and(Renewal::is_funded) && open && !waits && !self.restarted && self.greeted {
            self.take_over();
            let least_sat = self.account.as_ref().map_or(0, |account| account.channel.terms.claimable_from_sat());
            self.pay_with(now_ms, Msat(0), least_sat, out);
        }
    }
}
