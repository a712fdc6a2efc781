//! A transaction: its size and fee in one line, then where its satoshis come from and go.

use xennetd::control::TransactionView;

use super::table::{Align, Table};
use super::units;

/// A transaction.
pub fn transaction(tx: &TransactionView) -> String {
    let place = tx.height.map_or("waits for a block".to_string(), |height| format!("in block {height}"));
    let fee = tx.fee_sat.map_or("unknown".to_string(), units::sat);
    let mut text = format!("transaction {}\n{place}, {} bytes, {} vB, fee {fee}\n", tx.txid, tx.size_bytes, tx.vsize_vb);
    if tx.payload_bytes > 0 {
        text += &format!("carries an announcement of {} bytes\n", tx.payload_bytes);
    }
    let mut table = Table::new(&[("", Align::Left), ("AMOUNT", Align::Right), ("", Align::Left)]);
    for input in &tx.inputs {
        let sat = input.sat.map_or("unknown".to_string(), units::sat);
        table.row(vec!["spends".into(), sat, format!("{}:{}", input.txid, input.vout)]);
    }
    for output in &tx.outputs {
        let to = output.address.clone().unwrap_or_else(|| "data".into());
        table.row(vec!["pays".into(), units::sat(output.sat), to]);
    }
    format!("{text}\n{table}")
}
