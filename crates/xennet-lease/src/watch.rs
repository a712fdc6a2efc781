//! What the chain shows of a lease's channels, and takes back.

use bitcoin::{Transaction, Txid};
use xennet_rama::Spend;

use crate::{Action, CloseReason, Closed, Ending, Lease, LedgerEntry, LedgerKind, Side, Stage};

/// A restarted side waits so many blocks for the chain to show again what ended a channel, before it ends it anew.
const MOST_UNSEEN_BLOCKS: u32 = 3;

/// A transaction that ends a channel, as it was noted.
pub(crate) struct Noted {
    /// The channel's number.
    pub number: u32,
    pub ending: Ending,
    /// Whether that it is in a block is news.
    pub news: bool,
}

impl Lease {
    /// Notes a transaction that funds a channel, or ends some.
    pub(crate) fn note_seen(&mut self, transaction: &Transaction, height: Option<u32>) -> Vec<Noted> {
        let txid = transaction.compute_txid();
        let (mut noted, mut changed) = (Vec::new(), false);
        for channel in self.channels_mut() {
            let Some(outpoint) = channel.outpoint else { continue };
            // News of the mempool may come after news of the block; only `Gone` takes a block back.
            if outpoint.txid == txid && height.is_some() && channel.funded_height != height {
                channel.funded_height = height;
                changed = true;
            }
            let Some(how) = channel.terms.spend_in(outpoint, transaction) else { continue };
            let before = channel.ended();
            // What an earlier process knew is no news: the chain may have moved since.
            let known = if channel.unseen_blocks.is_some() { None } else { before };
            if height.is_none() && known.is_some_and(|known| known.txid != txid) {
                // Late news of the mempool, where nothing can be that conflicts with a block.
                continue;
            }
            let height = height.or(known.and_then(|known| known.height));
            let ending = Ending { txid, how, height };
            channel.unseen_blocks = None;
            changed |= channel.ending != Some(ending);
            channel.ending = Some(ending);
            let news = height.is_some() && before.is_none_or(|before| before.txid != txid);
            noted.push(Noted { number: channel.number, ending, news });
        }
        self.revision += u64::from(changed);
        if matches!(self.stage, Stage::Settled { .. }) && !self.is_all_ended() {
            self.go(self.seen_ms, Stage::Closing { reason: CloseReason::LeaseOver });
        }
        noted
    }

    /// Writes what is news of ends, and settles the lease if nothing is left of it.
    pub(crate) fn ends(&mut self, now_ms: u64, noted: &[Noted], out: &mut Vec<Action>) {
        for one in noted.iter().filter(|one| one.news) {
            out.push(self.record_ending(now_ms, one));
        }
        let Some(Ending { txid, how, .. }) = self.account.as_ref().and_then(|account| account.channel.ended()) else { return };
        let open = matches!(self.stage, Stage::Closing { .. } | Stage::Settled { .. });
        if noted.is_empty() || !open || self.is_settled_by(&txid) || !self.is_all_ended() {
            return;
        }
        self.go(now_ms, Stage::Settled { txid, spend: how });
        if matches!(self.side, Side::Node(_)) {
            out.push(Action::StopMachine);
        }
        out.push(Action::HangUp("settled".into()));
    }

    /// The last line of a channel: what the chain says.
    fn record_ending(&self, now_ms: u64, noted: &Noted) -> Action {
        let (kind, fee_sat) = match noted.ending.how {
            Spend::Close { fee_sat, .. } => (LedgerKind::Settled, fee_sat.unwrap_or(0)),
            Spend::Refund { fee_sat, .. } => (LedgerKind::Refunded, fee_sat),
        };
        let several = self.account.as_ref().is_some_and(|account| account.channel.number > 1);
        let note = if several { format!("channel {}", noted.number) } else { String::new() };
        match self.record(now_ms, kind, note) {
            Action::Record(entry) => Action::Record(LedgerEntry { fee_sat, txid: Some(noted.ending.txid.to_string()), ..entry }),
            other => other,
        }
    }

    /// A block came. If it is not known yet whether the chain still has what ended a channel, see to it that it gets there.
    pub(crate) fn note_tip(&mut self, now_ms: u64, height: u32, out: &mut Vec<Action>) {
        self.tip = height;
        let mut lost = false;
        for channel in self.channels_mut() {
            let Some(unseen) = channel.unseen_blocks else { continue };
            let unseen = unseen.saturating_add(1);
            if unseen >= MOST_UNSEEN_BLOCKS {
                (channel.ending, channel.unseen_blocks) = (None, None);
                lost = true;
            } else {
                channel.unseen_blocks = Some(unseen);
                out.extend(channel.end.iter().cloned().map(Action::Broadcast));
            }
        }
        if lost {
            self.reopen(now_ms);
        } else if self.is_final() {
            // The next process need not watch it any more.
            self.revision += 1;
        }
        self.forget_closed();
    }

    /// What nothing takes back is kept as a sum.
    fn forget_closed(&mut self) {
        let closed: Vec<bool> = self
            .past
            .iter()
            .map(|channel| {
                let given_up = !self.matters(channel) && self.tip >= channel.terms.refund_height;
                self.is_closed(channel) || given_up
            })
            .collect();
        if !closed.contains(&true) || self.is_over() {
            return;
        }
        let (gone, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.past).into_iter().zip(closed).partition(|(_, closed)| *closed);
        self.past = stay.into_iter().map(|(channel, _)| channel).collect();
        for (channel, _) in gone {
            let Closed { total_sat, close_reserve_sat, capacity_sat, transactions } = &mut self.closed;
            *total_sat = total_sat.saturating_add(channel.paid_sat());
            *close_reserve_sat = close_reserve_sat.saturating_add(channel.terms.close_reserve_sat());
            *capacity_sat = capacity_sat.saturating_add(channel.terms.capacity_sat);
            transactions.extend(channel.outpoint.zip(channel.ending));
        }
        self.revision += 1;
    }

    /// The chain does not have any more what ended a channel: it is to be ended again.
    fn reopen(&mut self, now_ms: u64) {
        self.revision += 1;
        if matches!(self.stage, Stage::Settled { .. }) {
            self.go(now_ms, Stage::Closing { reason: CloseReason::LeaseOver });
        }
    }

    /// Forgets where a transaction stood that the chain has taken back. A settled lease becomes a closing one again.
    pub(crate) fn note_gone(&mut self, now_ms: u64, txid: &Txid) {
        let (mut changed, mut lost) = (false, false);
        for channel in self.channels_mut() {
            if channel.outpoint.is_some_and(|outpoint| outpoint.txid == *txid) {
                channel.funded_height = None;
                changed = true;
            }
            if channel.ending.is_some_and(|ending| ending.txid == *txid) {
                (channel.ending, channel.unseen_blocks) = (None, None);
                lost = true;
            }
        }
        self.revision += u64::from(changed);
        if lost {
            self.reopen(now_ms);
        }
    }
}
