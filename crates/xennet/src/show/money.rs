//! What moves the wallet's money.

use xennetd::control::{CoinStateView, CoinView, HistoryView, LeaseId, PaymentView, Status, SweepView};

use super::lists::or_none;
use super::table::{Align, Table};
use super::{short, units};

/// The wallet's history.
pub fn history(history: &[HistoryView]) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("WHEN", Left),
        ("BLOCK", Right),
        ("WHAT", Left),
        ("AMOUNT", Right),
        ("FEE", Right),
        ("BALANCE", Right),
        ("TRANSACTION", Left),
        ("LEASE", Left),
    ]);
    for entry in history {
        let came_in = entry.received_sat >= entry.sent_sat;
        let moved = entry.received_sat.abs_diff(entry.sent_sat);
        table.row(vec![
            entry.block_time.map_or_else(|| "waits".to_owned(), units::time),
            match entry.status {
                Status::Confirmed { height } => units::grouped(u64::from(height)),
                Status::Mempool => String::new(),
            },
            entry.kind.name().to_owned(),
            format!("{}{}", if came_in { '+' } else { '-' }, units::sat(moved)),
            entry.fee_sat.map_or_else(String::new, units::sat),
            units::sat(entry.balance_sat),
            short(entry.txid),
            leases(&entry.leases),
        ]);
    }
    or_none(&table, "Nothing has come in yet. `xennet wallet address` says where to pay to.")
}

/// The wallet's coins.
pub fn coins(coins: &[CoinView]) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[("VALUE", Right), ("CONFIRMED", Right), ("FROM", Left), ("STATE", Left), ("COIN", Left)]);
    for coin in coins {
        let state = match coin.state {
            CoinStateView::Free if coin.confirmations == 0 => "free, waits".to_owned(),
            CoinStateView::Free => "free".to_owned(),
            CoinStateView::Untrusted => "waits for a block".to_owned(),
            CoinStateView::Reserved if coin.reserved_for.is_empty() => "reserved".to_owned(),
            CoinStateView::Reserved => format!("reserved for {}", leases(&coin.reserved_for)),
        };
        table.row(vec![
            units::sat(coin.sat),
            units::grouped(u64::from(coin.confirmations)),
            coin.kind.name().to_owned(),
            state,
            coin.coin.clone(),
        ]);
    }
    or_none(&table, "There are no coins. `xennet wallet address` says where to pay to.")
}

fn leases(leases: &[LeaseId]) -> String {
    leases.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// What taking old markers back brings, or would bring.
pub fn sweep(view: &SweepView) -> String {
    let found = format!(
        "{} old markers in the last {} blocks that nobody has taken, {} of them own ones\n",
        view.markers,
        units::grouped(u64::from(view.blocks)),
        view.own_markers
    );
    if view.markers == 0 {
        return found;
    }
    let feerate = units::grouped(view.feerate_sat_per_kvb);
    let fee = format!("fee {} ({} vB at {feerate} sat/kvB)", units::sat(view.fee_sat), units::grouped(view.vbytes));
    let Some(txid) = &view.txid else {
        let holds = units::sat(view.worth_sat);
        let at = match view.worth_at_sat_per_kvb {
            0 => "one alone leaves only dust".to_owned(),
            at => format!("it is from {} sat/kvB on down", units::grouped(at)),
        };
        return format!("{found}not worth it now: they hold {holds}, {fee}; {at}\n");
    };
    let what = if view.sent { "swept" } else { "would sweep" };
    let mut text = format!("{found}{what} {} of them: {} come back\n{fee}\n", view.taken, units::sat(view.gain_sat));
    if view.sent {
        text.push_str(&format!("transaction {txid}\n"));
    }
    text
}

/// A payment, made or only worked out.
pub fn payment(view: &PaymentView) -> String {
    let mut text = String::new();
    let what = if view.sent { "sent" } else { "would send" };
    let to = view.address.as_ref().map_or_else(String::new, |address| format!(" to {address}"));
    text.push_str(&format!("{what} {}{to}\n", units::sat(view.amount_sat)));
    text.push_str(&format!(
        "fee {} ({} vB at {} sat/kvB)\n",
        units::sat(view.fee_sat),
        units::grouped(view.vbytes),
        units::grouped(view.feerate_sat_per_kvb)
    ));
    if let Some(old) = &view.replaces {
        text.push_str(&format!("in the place of {old}\n"));
    }
    if let Some(old) = &view.lifts {
        text.push_str(&format!("a child of {old}"));
        let together = view.together_sat_per_kvb.map_or_else(String::new, |rate| format!(", {} sat/kvB together", units::grouped(rate)));
        match view.lifted_fee_sat {
            Some(paid) => text.push_str(&format!(", which pays {} itself{together}\n", units::sat(paid))),
            None => text.push_str(&format!(", whose own fee is not known here: it is paid in full{together} at least\n")),
        }
    }
    if view.sent {
        text.push_str(&format!("transaction {}\n", view.txid));
    }
    text
}
