//! The tables, as they stand in the documents.

use std::fmt::Write as _;

use xennet_rama::fee_sat;

use crate::lightning::Lightning;
use crate::ours::{Ours, terms};

/// Fee rates, sat/vB.
const RATES: [u64; 3] = [1, 10, 100];
/// Prices of a lease, satoshi.
const PRICES: [u64; 3] = [10_000, 100_000, 1_000_000];
/// Payments over Lightning: a lease of an hour that is paid each minute, and each five seconds.
const PAYMENTS: [u64; 2] = [60, 720];
/// Between two that have no channel with each other.
const ROUTERS: u64 = 2;
/// What a router takes for each payment, thousandths of a satoshi, and for each million that it forwards: the medians of 1ML, rounded.
const ROUTER_BASE_MSAT: u64 = 940;
const ROUTER_PPM: u64 = 85;

fn at(vbytes: u64, rate: u64) -> u64 {
    fee_sat(vbytes, rate * 1_000)
}

/// With commas.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn at_rates(sat: impl Fn(u64) -> u64) -> String {
    RATES.map(|rate| grouped(sat(rate))).join(" | ")
}

/// Docs/money.md: what each thing costs.
pub fn costs(ours: &Ours) -> String {
    let typical = format!("typical task announced on the chain, all of it ({} bytes)", ours.announcement_typical_bytes);
    let short = format!("typical task announced on the chain by its hash ({} bytes)", ours.announcement_short_bytes);
    let rows: [(&str, &str, u64); 13] = [
        ("acceptance, proposal, every payment (overlay, tunnel)", "", 0),
        ("task announced on the overlay alone", "", 0),
        (&short, "publisher", ours.announcement_short),
        (&typical, "publisher", ours.announcement_typical),
        ("its marker taken back, as one more input of another transaction", "publisher", ours.marker_input),
        ("funding of a channel", "publisher", ours.funding),
        ("each further channel in the same funding", "publisher", ours.funding_more),
        ("close", "node, out of the reserve", ours.close),
        ("close of three channels at once", "node, out of the reserves", ours.close_three),
        ("refund, when the node never closed", "publisher", ours.refund),
        ("one coin moved on, or a child that pays for its parent", "who wants it", ours.move_on),
        ("renewal: the old channel's close, a new one's funding", "both, as above", ours.close + ours.funding),
        ("**a lease: task announced by its hash, funded, closed**", "both, as above", ours.announcement_short + ours.funding + ours.close),
    ];
    let mut table = String::from("| what | who pays | vB | at 1 sat/vB | at 10 | at 100 |\n| --- | --- | --- | --- | --- | --- |\n");
    for (what, who, vbytes) in rows {
        writeln!(table, "| {what} | {who} | {vbytes} | {} |", at_rates(|rate| at(vbytes, rate))).unwrap();
    }
    table
}

/// Docs/money.md: the least that makes sense.
pub fn least(ours: &Ours) -> String {
    let of = |rate: u64| terms(1, rate * 1_000);
    let mut table = String::from("| satoshi | at 1 sat/vB | at 10 | at 100 |\n| --- | --- | --- | --- |\n");
    let mut row = |what: &str, sat: &dyn Fn(u64) -> u64| writeln!(table, "| {what} | {} |", at_rates(sat)).unwrap();
    row("close reserve: paid once by the publisher; what the fee leaves of it is the node's", &|rate| of(rate).close_reserve_sat());
    row("a node that holds less than this cannot claim it", &|rate| of(rate).claimable_from_sat());
    row("the smallest channel", &|rate| of(rate).least_capacity_sat());
    row("a marker that is taken back brings", &|rate| ours.marker_sat.saturating_sub(at(ours.marker_input, rate)));
    assert!(
        ours.marker_sat - ours.marker_alone < xennet_rama::PUBLISHER_KEEPS_SAT,
        "docs/money.md says that a marker by itself leaves only dust"
    );
    table
}

/// The decision on Lightning: sizes.
pub fn sizes(ours: &Ours, theirs: &Lightning) -> String {
    let rows: [(&str, u64); 12] = [
        ("either: funding, one input, change", ours.funding),
        ("RAMA: close by the node alone, at any time", ours.close),
        ("RAMA: close of three channels at once", ours.close_three),
        ("RAMA: refund", ours.refund),
        ("Lightning: cooperative close", theirs.cooperative),
        ("Lightning: commitment, nothing under way", theirs.commitment),
        ("Lightning: each payment under way in it", theirs.commitment_more),
        ("Lightning: the anchor's child that brings the fee", theirs.anchor_child),
        ("Lightning: HTLC-success, with a coin for its fee", theirs.htlc_success),
        ("Lightning: the closer's sweep after the delay, with the HTLC's", theirs.closer_sweep),
        ("Lightning: the other side's sweep", theirs.other_sweep),
        ("Lightning: forced close by the payee with one payment under way, until it has its money", theirs.forced_by_payee()),
    ];
    let mut table = String::from("| transaction | vB |\n| --- | --- |\n");
    for (what, vbytes) in rows {
        writeln!(table, "| {what} | {} |", grouped(vbytes)).unwrap();
    }
    table
}

/// A way to pay for a lease, and what that costs at a fee rate and a price.
struct Way {
    name: &'static str,
    sat: Box<dyn Fn(u64, u64) -> u64>,
}

fn ways(ours: &Ours, theirs: &Lightning) -> Vec<Way> {
    let on_chain = |name, vbytes: u64| Way { name, sat: Box::new(move |rate, _| at(vbytes, rate)) };
    let routed = |name, payments: u64| Way { name, sat: Box::new(move |_, price| routers_take(price, payments)) };
    let batch = (ours.funding + 2 * ours.funding_more + ours.close_three).div_ceil(3);
    vec![
        on_chain("RAMA: one channel, one lease", ours.funding + ours.close),
        on_chain("RAMA: three funded together, three closed together, each", batch),
        on_chain("RAMA: the publisher is gone (the node closes alone)", ours.funding + ours.close),
        on_chain("RAMA: the node is gone (refund)", ours.funding + ours.refund),
        on_chain("Lightning: a channel between the two for one lease", ours.funding + theirs.cooperative),
        on_chain("Lightning: the same, and the publisher is gone", ours.funding + theirs.forced_by_payee()),
        on_chain("Lightning: the same, and the node is gone", ours.funding + theirs.commitment + theirs.anchor_child + theirs.other_sweep),
        routed("Lightning: routed over channels that are there, 60 payments", PAYMENTS[0]),
        routed("Lightning: the same, 720 payments", PAYMENTS[1]),
    ]
}

/// Routers' fees, satoshi, rounded up.
fn routers_take(price_sat: u64, payments: u64) -> u64 {
    let forwarded_msat = price_sat * 1_000;
    (ROUTERS * (payments * ROUTER_BASE_MSAT + forwarded_msat * ROUTER_PPM / 1_000_000)).div_ceil(1_000)
}

/// The decision on Lightning: satoshi for a lease of the middle price.
pub fn cost(ours: &Ours, theirs: &Lightning) -> String {
    let price = PRICES[1];
    let mut table = format!("| a lease of {} sat | at 1 sat/vB | at 10 | at 100 |\n| --- | --- | --- | --- |\n", grouped(price));
    for way in ways(ours, theirs) {
        writeln!(table, "| {} | {} |", way.name, at_rates(|rate| (way.sat)(rate, price))).unwrap();
    }
    table
}

/// The decision on Lightning: parts of the price.
pub fn share(ours: &Ours, theirs: &Lightning) -> String {
    let [small, middle, large] = PRICES.map(grouped);
    let mut table = format!(
        "| percent of the price, at 1 / 10 / 100 sat/vB | lease of {small} sat | {middle} sat | {large} sat |\n| --- | --- | --- | --- |\n"
    );
    for way in ways(ours, theirs) {
        let cells = PRICES.map(|price| RATES.map(|rate| percent((way.sat)(rate, price), price)).join(" / "));
        writeln!(table, "| {} | {} |", way.name, cells.join(" | ")).unwrap();
    }
    table
}

/// With two digits that count, as far as there are any; no more than hundredths.
fn percent(part: u64, whole: u64) -> String {
    let hundredths = (part * 10_000 + whole / 2) / whole;
    match hundredths {
        0..100 => format!("{}.{:02}", hundredths / 100, hundredths % 100),
        100..1_000 => format!("{}.{}", hundredths / 100, hundredths % 100 / 10),
        _ => grouped(hundredths / 100),
    }
}
