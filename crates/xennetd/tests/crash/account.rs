//! M3: every satoshi that went into a channel is in an output of its end or in its fee, and both ledgers say so.

use std::collections::BTreeMap;

use bitcoin::{OutPoint, Transaction};
use xennet_lease::{LedgerEntry, LedgerKind};
use xennet_rama::{ChannelTerms, Spend};

use crate::pair::{Pair, Who};

/// A transaction that ends channels, and what it does with their money.
struct End<'a> {
    transaction: &'a Transaction,
    /// The channels, and how each is ended.
    channels: Vec<(OutPoint, Spend)>,
    /// What they held, satoshi.
    held_sat: u64,
    /// The totals that they were closed at, satoshi.
    total_sat: u64,
}

impl End<'_> {
    fn fee_sat(&self) -> u64 {
        let out: u64 = self.transaction.output.iter().map(|output| output.value.to_sat()).sum();
        self.held_sat - out
    }
}

/// Satoshi that are still in channels, left them in an unknown way, or are missing in a ledger. What is wrong is added to `wrong`.
pub fn unaccounted_sat(pair: &Pair, channels: &BTreeMap<OutPoint, ChannelTerms>, gone: Option<Who>, wrong: &mut Vec<String>) -> u64 {
    let (ends, mut unaccounted) = ends(pair, channels, wrong);
    for end in &ends {
        for (at, how) in &end.channels {
            // M2: beyond what was used, a publisher whose node is gone loses a fee no larger than the one that was disclosed.
            let (fee, disclosed) = (end.fee_sat(), channels[at].close_reserve_sat());
            if matches!(how, Spend::Refund { .. }) && fee > disclosed {
                wrong.push(format!("M2: the refund costs {fee} sat, the close reserve was {disclosed} sat"));
            }
        }
    }
    for (who, party) in [(Who::Publisher, &pair.publisher), (Who::Node, &pair.node)] {
        if gone != Some(who) {
            unaccounted += missing_sat(who, &party.ledger, &ends, wrong);
        }
    }
    unaccounted
}

/// The transactions on the chain that end channels, and the satoshi of channels that nothing known ends.
fn ends<'a>(pair: &'a Pair, channels: &BTreeMap<OutPoint, ChannelTerms>, wrong: &mut Vec<String>) -> (Vec<End<'a>>, u64) {
    let (mut ends, mut lost_sat): (Vec<End<'a>>, u64) = (Vec::new(), 0);
    let transactions = || pair.chain.iter().map(|(transaction, _)| transaction);
    for funding in transactions().filter(|tx| tx.output.len() == 2 && tx.output[0].script_pubkey.is_p2wsh()) {
        let (at, sat) = (OutPoint::new(funding.compute_txid(), 1), funding.output[1].value.to_sat());
        let Some(terms) = channels.get(&at) else {
            wrong.push(format!("M3: the publisher does not know of the channel {at}"));
            lost_sat += sat;
            continue;
        };
        let Some(end) = transactions().find(|tx| tx.input.iter().any(|input| input.previous_output == at)) else {
            wrong.push(format!("M3: {sat} sat are still in the channel {at}"));
            lost_sat += sat;
            continue;
        };
        let Some(how) = terms.spend_in(at, end) else {
            wrong.push(format!("M3: {} ends the channel {at} in an unknown way", end.compute_txid()));
            lost_sat += sat;
            continue;
        };
        let total_sat = match how {
            Spend::Close { total_sat, .. } => total_sat,
            Spend::Refund { .. } => 0,
        };
        match ends.iter_mut().find(|known| std::ptr::eq(known.transaction, end)) {
            Some(known) => {
                known.channels.push((at, how));
                known.held_sat += sat;
                known.total_sat += total_sat;
            }
            None => ends.push(End { transaction: end, channels: vec![(at, how)], held_sat: sat, total_sat }),
        }
    }
    (ends, lost_sat)
}

/// What this ledger lacks of what the chain says.
fn missing_sat(who: Who, ledger: &[LedgerEntry], ends: &[End<'_>], wrong: &mut Vec<String>) -> u64 {
    let lines: Vec<&LedgerEntry> = ledger.iter().filter(|entry| matches!(entry.kind, LedgerKind::Settled | LedgerKind::Refunded)).collect();
    let mut missing = 0;
    for end in ends {
        let txid = end.transaction.compute_txid().to_string();
        let named: Vec<_> = lines.iter().filter(|entry| entry.txid.as_ref() == Some(&txid)).collect();
        // A fee that several channels share is in no line of one.
        let fee_agrees = end.channels.len() > 1 || named.iter().all(|entry| entry.fee_sat == end.fee_sat());
        if named.len() != end.channels.len() || !fee_agrees {
            wrong.push(format!("M3: {who:?}'s ledger says {named:?} of {txid}, whose fee is {} sat", end.fee_sat()));
            missing += end.held_sat;
        }
    }
    let total_sat: u64 = ends.iter().map(|end| end.total_sat).sum();
    let last_sat = lines.last().map_or(0, |entry| entry.paid_sat);
    if last_sat != total_sat {
        wrong.push(format!("M3: {who:?}'s ledger ends with {last_sat} sat paid, the chain says {total_sat} sat"));
    }
    missing + last_sat.abs_diff(total_sat)
}
