//! The channel, explored: every order of messages, cuts, deaths, blocks, reorganisations, evictions and old copies that fits into a
//! budget, from a live lease on. Both sides are the real ones, with real signatures; only the tunnel, the disks and the chain are a model.
//!
//! `cargo xtask model` explores more than the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod events;
#[path = "../pair/mod.rs"]
#[allow(dead_code)]
mod pair;
mod world;

use std::time::{Duration, Instant};

use pair::Pair;
use stateright::{Checker, Model};
use world::{Budget, Flaw, State, World};
use xennet_task::PayoutInterval;

/// `full`: as far as the documentation says. Anything else, or nothing: less far.
const HOW_MUCH: &str = "XENNET_MODEL";
/// Explores only what has this in its name.
const ONLY: &str = "XENNET_MODEL_ONLY";
const INTERVAL_MS: u64 = 2_000;

/// Nothing goes wrong.
const CALM: Budget =
    Budget { ticks: 2, cuts: 0, deaths: 0, restores: 0, blocks: 1, reorganisations: 0, evictions: 0, vanishes: false, renewals: 0 };

fn world(budget: Budget, flaw: Flaw) -> World {
    let mut pair = Pair::new(PayoutInterval::InArrears(Duration::from_millis(INTERVAL_MS)));
    // Funded, one payment made and acknowledged.
    let ready = |pair: &Pair| {
        let acknowledged = |lease: &xennet_lease::Lease| lease.account.as_ref().is_some_and(|a| a.acked_total_sat == a.total_sat());
        pair.both_live()
            && !pair.chain.is_empty()
            && pair.node.lease.account.as_ref().is_some_and(|a| a.payments >= 1)
            && acknowledged(&pair.publisher.lease)
    };
    assert!(pair.until(120, ready));
    let start = State::of(pair.publisher.lease.clone(), pair.node.lease.clone(), pair.now_ms, pair.height, &pair.chain, budget);
    World { start, budget, flaw, tick_ms: INTERVAL_MS / 2 }
}

struct Explored {
    name: &'static str,
    states: usize,
    transitions: usize,
    depth: usize,
    properties: usize,
    seconds: f64,
    broken: Vec<String>,
}

/// Explores it all; what is broken comes with the way there.
fn explore(name: &'static str, world: World) -> Explored {
    let begun = Instant::now();
    let checker = world.checker().threads(std::thread::available_parallelism().map_or(1, usize::from)).spawn_bfs().join();
    let properties = checker.model().properties();
    let mut broken = Vec::new();
    for property in &properties {
        match (&property.expectation, checker.discovery(property.name)) {
            (stateright::Expectation::Sometimes, None) => broken.push(format!("never: {}", property.name)),
            (stateright::Expectation::Sometimes, Some(_)) | (_, None) => {}
            (_, Some(path)) => broken.push(format!("{}: {:?}", property.name, path.into_actions())),
        }
    }
    Explored {
        name,
        states: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        properties: properties.len(),
        seconds: begun.elapsed().as_secs_f64(),
        broken,
    }
}

/// What is explored, from the calm to the wild.
fn programme(full: bool) -> Vec<(&'static str, Budget)> {
    let mut all = vec![
        ("calm", CALM),
        ("a death", Budget { ticks: 1, deaths: 1, blocks: 0, ..CALM }),
        ("a reorganisation and an eviction", Budget { ticks: 1, blocks: 2, reorganisations: 1, evictions: 1, ..CALM }),
        ("an old copy", Budget { ticks: 1, restores: 1, ..CALM }),
        ("the node goes away for good", Budget { vanishes: true, ..CALM }),
        ("a renewal", Budget { ticks: 1, renewals: 1, ..CALM }),
    ];
    if full {
        all.extend([
            ("a cut and a death", Budget { ticks: 1, cuts: 1, deaths: 1, ..CALM }),
            ("two deaths", Budget { ticks: 1, deaths: 2, blocks: 0, ..CALM }),
            ("reorganisations of one to six blocks", Budget { ticks: 1, blocks: 6, reorganisations: 1, evictions: 1, ..CALM }),
            ("an old copy and a cut", Budget { ticks: 1, cuts: 1, restores: 1, blocks: 0, ..CALM }),
            ("an old copy and a reorganisation", Budget { ticks: 1, restores: 1, blocks: 2, reorganisations: 1, ..CALM }),
        ]);
    }
    all
}

#[test]
fn nothing_that_can_happen_breaks_the_channel() {
    let full = std::env::var_os(HOW_MUCH).is_some_and(|what| what == "full");
    let mut broken = Vec::new();
    println!("{:<36} {:>9} {:>12} {:>6} {:>11} {:>8}", "explored", "states", "transitions", "depth", "properties", "seconds");
    let only = std::env::var(ONLY).ok();
    for (name, budget) in programme(full).into_iter().filter(|(name, _)| only.as_ref().is_none_or(|only| name.contains(only.as_str()))) {
        let explored = explore(name, world(budget, Flaw::None));
        println!(
            "{:<36} {:>9} {:>12} {:>6} {:>11} {:>8.1}",
            explored.name, explored.states, explored.transitions, explored.depth, explored.properties, explored.seconds
        );
        broken.extend(explored.broken.into_iter().map(|what| format!("{name}: {what}")));
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The properties notice what is broken on purpose.
#[test]
fn a_flaw_that_is_put_in_is_found() {
    for (flaw, budget, law) in [
        (Flaw::ForgetsLastWrite, Budget { deaths: 1, blocks: 0, ..CALM }, "nothing that is given to the chain is wrong"),
        (Flaw::Blind, CALM, "the refund comes only if the node is gone, or was never paid on that channel"),
    ] {
        let found = explore("flaw", world(budget, flaw)).broken;
        assert!(found.iter().any(|what| what.starts_with(law)), "{flaw:?}: {found:#?}");
        println!("{flaw:?} is found: {}", found.join("; "));
    }
}
