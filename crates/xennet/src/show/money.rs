//! What moves the wallet's money.

use xennetd::control::{HistoryEntry, Kind, PaymentView, Status};

use super::lists::or_none;
use super::table::{Align, Table};
use super::{short, units};

/// The wallet's history.
pub fn history(history: &[HistoryEntry]) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("WHEN", Left),
        ("BLOCK", Right),
        ("WHAT", Left),
        ("AMOUNT", Right),
        ("FEE", Right),
        ("BALANCE", Right),
        ("TRANSACTION", Left),
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
            match entry.kind {
                Kind::Receive => "received",
                Kind::Send => "sent",
                Kind::Internal => "to oneself",
                Kind::Announcement => "announced",
            }
            .to_owned(),
            format!("{}{}", if came_in { '+' } else { '-' }, units::sat(moved)),
            entry.fee_sat.map_or_else(String::new, units::sat),
            units::sat(entry.balance_sat),
            short(entry.txid),
        ]);
    }
    or_none(&table, "Nothing has come in yet. `xennet wallet address` says where to pay to.")
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
        text.push_str(&format!("a child of {old}\n"));
    }
    if view.sent {
        text.push_str(&format!("transaction {}\n", view.txid));
    }
    text
}
