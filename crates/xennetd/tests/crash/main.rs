//! The crash programme: a process dies at every numbered step of a lease, on either side, by a kill or a power loss, or its disk
//! is full or fails; then it starts again, and at the end the chain and both ledgers are looked at.
//!
//! Real are the lease, the channel with its signatures, the store with its database and its second file, and Bitcoin Core's
//! interpreter, which judges every transaction that ends a channel. Simulated are the clock, the wire, the miners and the disk under the
//! store. `cargo xtask crash` runs all of it; a part of it is a test like any other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod account;
mod books;
mod disk;
mod forgetful;
mod hand;
#[path = "../../../xennet-lease/tests/pair/mod.rs"]
#[allow(dead_code)]
mod pair;
mod programme;

use std::io::{IsTerminal, Write};

use hand::Death;
use pair::Who;
use programme::{Tally, Way, one, run};

/// `full`: every step. Anything else, or nothing: some of them.
const HOW_MUCH: &str = "XENNET_CRASH";
/// `json`: for programs.
const OUTPUT: &str = "XENNET_CRASH_OUTPUT";
/// Of so many steps, one is tried.
const SOME: u64 = 7;

#[test]
fn whatever_dies_at_whatever_step_nothing_is_lost_beyond_an_interval() {
    let full = std::env::var_os(HOW_MUCH).is_some_and(|what| what == "full");
    let shown = std::io::stderr().is_terminal();
    let tally = run(if full { 1 } else { SOME }, |way, nth, all| {
        if nth.is_multiple_of(100) && (full || shown) {
            eprint!("{}{way}: {nth} of {all}{}", if shown { "\r\x1b[K" } else { "" }, if shown { "" } else { "\n" });
            let _ = std::io::stderr().flush();
        }
    });
    if shown {
        eprint!("\r\x1b[K");
    }
    show(&tally);
    assert!(tally.violations.is_empty(), "{} violations, the first: {}", tally.violations.len(), tally.violations[0]);
    assert!(
        tally.crashes > 0 && tally.restarts > 0 && tally.endings > 0 && tally.refused.iter().all(|refused| *refused > 0),
        "something was tried"
    );
    assert!(tally.worst_loss_permille <= 1_000 && tally.unaccounted_sat == 0);
}

/// The programme can fail: what is acknowledged before it is written is missed after a power loss.
#[test]
fn a_store_that_acknowledges_what_it_does_not_write_is_caught() {
    let mut tally = Tally::default();
    let steps = one(Way::Arrears, &[], false, &mut tally).steps;
    assert!(tally.violations.is_empty());
    for (who, steps) in [(Who::Publisher, steps[0]), (Who::Node, steps[1])] {
        let mut tally = Tally::default();
        one(Way::Arrears, &[(who, Death::Kill { step: steps / 2 })], true, &mut tally);
        assert!(tally.violations.iter().any(|violation| violation.contains("M1")), "{:?}", tally.violations);
    }
}

fn show(tally: &Tally) {
    if std::env::var_os(OUTPUT).is_some_and(|what| what == "json") {
        let json = serde_json::json!({
            "steps": tally.steps,
            "different_steps": tally.names.len(),
            "disk_operations": tally.operations,
            "runs": tally.runs,
            "crashes": tally.crashes,
            "restarts": tally.restarts,
            "commits_refused_by_a_full_disk": tally.refused[0],
            "commits_whose_writes_failed": tally.refused[1],
            "commits_whose_syncs_failed": tally.refused[2],
            "ledger_lines_checked": tally.lines,
            "endings_judged_by_bitcoin_core": tally.endings,
            "worst_loss_in_interval_x_rate": tally.worst_loss_permille as f64 / 1_000.0,
            "unaccounted_sat": tally.unaccounted_sat,
            "violations": tally.violations,
        });
        println!("{json:#}");
        return;
    }
    for (what, figure) in [
        ("steps of whole leases", tally.steps.to_string()),
        ("different steps", tally.names.len().to_string()),
        ("disk operations", tally.operations.to_string()),
        ("leases run", tally.runs.to_string()),
        ("crashes", tally.crashes.to_string()),
        ("restarts", tally.restarts.to_string()),
        ("commits refused by a full disk", tally.refused[0].to_string()),
        ("commits whose writes failed", tally.refused[1].to_string()),
        ("commits whose syncs failed", tally.refused[2].to_string()),
        ("ledger lines checked", tally.lines.to_string()),
        ("ends of channels, judged by Bitcoin Core", tally.endings.to_string()),
        ("worst loss, in units of interval × rate", format!("{:.3}", tally.worst_loss_permille as f64 / 1_000.0)),
        ("satoshis unaccounted", tally.unaccounted_sat.to_string()),
        ("violations", tally.violations.len().to_string()),
    ] {
        println!("{what:<45} {figure:>9}");
    }
    for violation in tally.violations.iter().take(20) {
        println!("  {violation}");
    }
}
