//! Every line of both ledgers against the chain and against the other side.

use std::collections::BTreeMap;

use bitcoin::{OutPoint, Transaction};
use xennet_lease::{Lease, LedgerEntry, LedgerKind};
use xennet_rama::{ChannelTerms, Spend};
use xennet_task::{Msat, PayoutInterval};

use crate::pair::{Pair, Party, Who};

/// What a total is rounded to on the chain.
pub const ROUNDED_MSAT: u64 = 1_000;

type Channels = BTreeMap<OutPoint, ChannelTerms>;

/// What is wrong with them; and how many lines were looked at. `channels`: every one that the publisher ever knew of.
pub fn check(pair: &Pair, channels: &Channels) -> (Vec<String>, u64) {
    let mut wrong = Vec::new();
    for (who, party) in [(Who::Publisher, &pair.publisher), (Who::Node, &pair.node)] {
        wrong.extend(alone(&party.lease, &party.ledger, pair, channels).into_iter().map(|what| format!("ledger of the {who:?}: {what}")));
        wrong.extend(with_chain(pair, party, channels).into_iter().map(|what| format!("ledger of the {who:?}: {what}")));
    }
    let (signed, held) = (totals(&pair.publisher.ledger), totals(&pair.node.ledger));
    for total in held.iter().filter(|total| !signed.contains(total)) {
        wrong.push(format!("the node's ledger says {total} sat were paid, the publisher's does not"));
    }
    (wrong, (pair.publisher.ledger.len() + pair.node.ledger.len()) as u64)
}

fn totals(ledger: &[LedgerEntry]) -> Vec<u64> {
    ledger.iter().filter(|entry| entry.kind == LedgerKind::Paid).map(|entry| entry.paid_sat).collect()
}

fn is_end(entry: &LedgerEntry) -> bool {
    matches!(entry.kind, LedgerKind::Settled | LedgerKind::Refunded)
}

/// What a ledger must be, whatever the other says.
fn alone(lease: &Lease, ledger: &[LedgerEntry], pair: &Pair, channels: &Channels) -> Vec<String> {
    let mut wrong = Vec::new();
    for pair in ledger.windows(2) {
        if pair[1].at_ms < pair[0].at_ms {
            wrong.push(format!("{:?} of {} follows {:?} of {}", pair[1].kind, pair[1].at_ms, pair[0].kind, pair[0].at_ms));
        }
    }
    for kind in [LedgerKind::Measured, LedgerKind::Agreed, LedgerKind::Funded, LedgerKind::Closing] {
        let lines = ledger.iter().filter(|entry| entry.kind == kind).count();
        if lines > 1 {
            wrong.push(format!("it has {lines} lines {kind:?}"));
        }
    }
    let ends = ledger.iter().filter(|entry| is_end(entry)).count();
    if ends > channels.len() {
        wrong.push(format!("it has {ends} ends of {} channels", channels.len()));
    }
    let mut paid_sat = 0;
    for entry in ledger.iter().filter(|entry| !is_end(entry)) {
        if entry.kind == LedgerKind::Paid && entry.paid_sat <= paid_sat {
            wrong.push(format!("a payment of {} sat follows one of {paid_sat} sat", entry.paid_sat));
        } else if entry.kind != LedgerKind::Paid && entry.paid_sat != paid_sat {
            wrong.push(format!("{:?} says {} sat are paid, the last payment was {paid_sat} sat", entry.kind, entry.paid_sat));
        }
        paid_sat = entry.paid_sat;
        let Some(account) = &lease.account else { continue };
        // Of a renewed lease each line is the sum over its channels, and which reserves are in it the line does not say.
        if channels.len() > 1 {
            continue;
        }
        // Ahead of the own meter: an interval where that was agreed, and one for what a cut hid.
        let ahead = match lease.task.payout {
            PayoutInterval::InAdvance(_) => 2 * pair.interval_msat(),
            PayoutInterval::InArrears(_) => pair.interval_msat(),
        };
        let earned_msat = account.channel.terms.earned_of(entry.paid_sat) * 1_000;
        if earned_msat > entry.owed.0 + ahead + ROUNDED_MSAT {
            let Msat(owed) = entry.owed;
            wrong.push(format!("{:?}: {earned_msat} msat are paid and {owed} msat owed, {ahead} msat ahead is the most", entry.kind));
        }
    }
    wrong
}

/// The lines that speak of the chain.
fn with_chain(pair: &Pair, party: &Party, channels: &Channels) -> Vec<String> {
    let mut wrong = Vec::new();
    let find = |txid: &str| pair.chain.iter().map(|(transaction, _)| transaction).find(|tx| tx.compute_txid().to_string() == txid);
    for entry in &party.ledger {
        match entry.kind {
            LedgerKind::Funded => {
                let outpoint: Option<OutPoint> = entry.note.parse().ok();
                let output = outpoint.and_then(|at| find(&at.txid.to_string())?.output.get(at.vout as usize));
                let terms = outpoint.and_then(|at| channels.get(&at)).map(ChannelTerms::funding_output);
                if output.is_none() || output != terms.as_ref() {
                    wrong.push(format!("it says {} funds the channel, the chain has {output:?} there", entry.note));
                }
            }
            LedgerKind::Settled | LedgerKind::Refunded => {
                let end = entry.txid.as_ref().and_then(|txid| find(txid));
                if let Some(why) = end.map_or(Some("is not on the chain".to_owned()), |end| against(entry, end, party, channels)) {
                    wrong.push(format!("{:?} by {:?}: {why}", entry.kind, entry.txid));
                }
            }
            _ => {}
        }
    }
    wrong
}

/// Why this is not the end that the line says.
fn against(entry: &LedgerEntry, end: &Transaction, party: &Party, channels: &Channels) -> Option<String> {
    let ended: Vec<_> = end.input.iter().filter_map(|input| channels.get_key_value(&input.previous_output)).collect();
    // Several at once: their sums are held against the chain elsewhere.
    let [(at, terms)] = ended[..] else { return ended.is_empty().then(|| "it ends no channel".to_owned()) };
    let out_sat: u64 = end.output.iter().map(|output| output.value.to_sat()).sum();
    let fee_sat = terms.capacity_sat - out_sat;
    let (kind, paid_sat) = match terms.spend_in(*at, end) {
        Some(Spend::Close { total_sat, .. }) => (LedgerKind::Settled, total_sat),
        Some(Spend::Refund { .. }) => (LedgerKind::Refunded, 0),
        None => return Some("it does not end this channel".to_owned()),
    };
    if channels.len() == 1 && kind == LedgerKind::Settled && !totals(&party.ledger).contains(&paid_sat) {
        return Some(format!("{paid_sat} sat left the channel, and no line says that they were paid"));
    }
    // What a refund takes back was signed, so it stands in the lines before.
    let agrees = entry.kind == kind && entry.fee_sat == fee_sat && (channels.len() > 1 || entry.paid_sat == paid_sat);
    (!agrees).then(|| format!("the chain says {kind:?}, {paid_sat} sat and a fee of {fee_sat} sat, the line {entry:?}"))
}
