//! The programme: each way a lease can go, once whole, then once for each step at which a process can die.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bitcoin::OutPoint;
use xennet_lease::{CloseReason, Input, Lease, Stage};
use xennet_rama::ChannelTerms;
use xennet_task::PayoutInterval;

use crate::account;
use crate::books::{self, ROUNDED_MSAT};
use crate::forgetful::Fault;
use crate::hand::{Death, Harmful, Record, place};
use crate::pair::{Pair, Who};

const INTERVAL: Duration = Duration::from_secs(2);
/// Payments after which a lease is ended.
const PAYMENTS: u32 = 3;
/// How long a process that died stays away, ticks of the simulated clock.
const AWAY: u32 = 7;
/// How much time a renewal adds, seconds.
const RENEWED_FOR_S: u64 = 60;
/// What may be locked for a renewal, satoshi.
const BUDGET_SAT: u64 = 10_000_000;
/// How long a renewed lease may take to be paid on its second channel, seconds.
const RENEWED_WITHIN_S: u64 = 300;
/// A channel that another takes over from may cost the smallest output beside its reserve, thousandths of a satoshi.
const SMALLEST_OUTPUT_MSAT: u64 = 294_000;

/// A way that a lease can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Paid after each interval, closed by the publisher.
    Arrears,
    /// Paid before each interval, closed by the publisher.
    Advance,
    /// The publisher goes away for good; the node closes alone.
    PublisherGone,
    /// The node goes away for good; the publisher waits for the refund.
    NodeGone,
    /// Paid in advance; the node closes alone and goes away for good.
    NodeGoneAhead,
    /// The tunnel is cut in between.
    Cut,
    /// Renewed: paid on a second channel, and closed by the publisher.
    Renewed,
}

impl Way {
    pub const ALL: [Way; 7] = [Way::Arrears, Way::Advance, Way::PublisherGone, Way::NodeGone, Way::NodeGoneAhead, Way::Cut, Way::Renewed];

    /// Who can die in it without being gone anyway.
    fn sides(self) -> &'static [Who] {
        match self {
            Way::PublisherGone => &[Who::Node],
            Way::NodeGone | Way::NodeGoneAhead => &[Who::Publisher],
            _ => &[Who::Publisher, Who::Node],
        }
    }

    /// Of so many of its steps one is tried. A renewed lease is fifteen times as long as the others, and most of its steps are payments.
    fn stride(self) -> u64 {
        if self == Way::Renewed { 23 } else { 1 }
    }

    pub fn name(self) -> &'static str {
        match self {
            Way::Arrears => "paid in arrears, closed",
            Way::Advance => "paid in advance, closed",
            Way::PublisherGone => "publisher gone, node closes",
            Way::NodeGone => "node gone, refund",
            Way::NodeGoneAhead => "paid in advance, node closes and is gone",
            Way::Cut => "tunnel cut, closed",
            Way::Renewed => "renewed, closed",
        }
    }
}

/// What came of all runs.
#[derive(Debug, Default)]
pub struct Tally {
    /// Steps of the whole runs, at each of which a process was made to die.
    pub steps: u64,
    /// Disk operations, at each of which power was lost and the disk was full.
    pub operations: u64,
    /// Different steps, by stage, event and what was being done.
    pub names: BTreeSet<String>,
    pub runs: u64,
    pub crashes: u64,
    pub restarts: u64,
    /// Writes of the store that the disk refused: it was full, a write failed, a sync failed.
    pub refused: [u64; 3],
    /// Lines of ledgers held against the chain and the other side.
    pub lines: u64,
    /// The worst loss of either side, thousandths of interval × rate.
    pub worst_loss_permille: u64,
    /// Satoshi on the chain that no ledger accounts for, and satoshi left in channels.
    pub unaccounted_sat: u64,
    /// Transactions that end a channel, each judged by Bitcoin Core's interpreter.
    pub endings: u64,
    pub violations: Vec<String>,
}

/// Runs everything, every `stride`-th step. `said` hears how far it is.
pub fn run(stride: u64, mut said: impl FnMut(&str, u64, u64)) -> Tally {
    let mut tally = Tally::default();
    for way in Way::ALL {
        let whole = one(way, &[], false, &mut tally);
        tally.names.extend(whole.names.iter().cloned());
        let mut deaths: Vec<Vec<(Who, Death)>> = Vec::new();
        let stride = stride * way.stride();
        for who in way.sides() {
            let place = usize::from(*who == Who::Node);
            let (steps, operations) = (whole.steps[place], whole.operations[place]);
            tally.steps += steps;
            tally.operations += operations;
            let chosen = |count: u64, offset: u64| (0..count).filter(move |nth| (nth + offset).is_multiple_of(stride));
            deaths.extend(chosen(steps, 0).map(|step| vec![(*who, Death::Kill { step })]));
            // Which unsynced writes survive is different each time, all and none among them.
            let survives = |nth: u64| match nth % 4 {
                0 => 0,
                1 => u64::MAX,
                _ => nth.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            };
            deaths.extend(chosen(steps, 1).map(|step| vec![(*who, Death::PowerLoss { step, survives: survives(step) })]));
            deaths.extend(chosen(operations, 2).map(|at| vec![(*who, Death::Disk(Fault::PowerLoss { at, survives: survives(at) }))]));
            deaths.extend(chosen(operations, 3).map(|at| vec![(*who, Death::Disk(Fault::Full { at, times: 1 + at % 3 }))]));
            deaths.extend(chosen(operations, 4).map(|at| vec![(*who, Death::Disk(Fault::BadWrite { at, times: 1 + at % 3 }))]));
            // What a failed sync lost is seen once the power fails: so it does, soon after.
            deaths.extend(chosen(operations, 5).map(|at| {
                let step = at * steps / operations.max(1) + 2 + at % 5;
                let sync = Fault::BadSync { at, times: 1 + at % 2, survives: survives(at) };
                vec![(*who, Death::Disk(sync)), (*who, Death::PowerLoss { step: step.min(steps - 1), survives: survives(at + 1) })]
            }));
            // And again soon after it came back, the same side or the other.
            for second in way.sides() {
                let (count, from) = (steps, u64::from(who != second));
                deaths.extend(chosen(count, 4 + from).map(|step| {
                    let again = step + 1 + step.wrapping_mul(0x9e37_79b9) % 24;
                    vec![(*who, Death::Kill { step }), (*second, Death::PowerLoss { step: again, survives: survives(again) })]
                }));
            }
        }
        let all = deaths.len() as u64;
        for (nth, death) in deaths.into_iter().enumerate() {
            said(way.name(), nth as u64, all);
            one(way, &death, false, &mut tally);
        }
    }
    tally
}

/// One lease, and what it came to.
pub fn one(way: Way, deaths: &[(Who, Death)], lying: bool, tally: &mut Tally) -> Record {
    let payout = if matches!(way, Way::Advance | Way::NodeGoneAhead) {
        PayoutInterval::InAdvance(INTERVAL)
    } else {
        PayoutInterval::InArrears(INTERVAL)
    };
    let hand = Harmful::new(deaths, lying);
    let record = Rc::clone(&hand.record);
    let mut pair = Pair::new(payout).with_hand(Box::new(hand));
    let mut scene = Scene { way, record: Rc::clone(&record), channels: BTreeMap::new(), away: [None; 2], restarts: 0, gone: None };
    scene.play(&mut pair);
    let mut wrong = scene.check(&pair, tally);
    if !lying {
        let (lines, looked_at) = books::check(&pair, &scene.channels);
        wrong.extend(lines);
        tally.lines += looked_at;
    }
    drop(pair);
    let record = Rc::try_unwrap(record).map_or_else(|shared| shared.take(), RefCell::into_inner);
    wrong.extend(record.faults.iter().cloned());
    tally.violations.extend(wrong.into_iter().map(|what| format!("{}, {deaths:?}: {what}", way.name())));
    tally.runs += 1;
    tally.crashes += record.deaths;
    tally.restarts += scene.restarts;
    for (sum, more) in tally.refused.iter_mut().zip(record.refused) {
        *sum += more;
    }
    tally.endings += record.endings;
    if deaths.iter().any(|(_, death)| !matches!(death, Death::Disk(fault) if fault.is_outlived())) && record.deaths == 0 {
        // Steps are counted in a run in which nobody dies, so each must be reached when nothing was different until then.
        tally.violations.push(format!("{}, {deaths:?}: it was not reached", way.name()));
    }
    record
}

struct Scene {
    way: Way,
    record: Rc<RefCell<Record>>,
    /// Every channel that the publisher ever knew of.
    channels: BTreeMap<OutPoint, ChannelTerms>,
    /// Ticks until the dead process comes back.
    away: [Option<u32>; 2],
    restarts: u64,
    /// Who is gone for good.
    gone: Option<Who>,
}

impl Scene {
    fn play(&mut self, pair: &mut Pair) {
        let paid = |pair: &Pair, count: u32| pair.node.lease.account.as_ref().is_some_and(|account| account.payments >= count);
        let over = |pair: &Pair| pair.both_over();
        self.until(pair, 200, &|pair| paid(pair, PAYMENTS - 1) || over(pair));
        match self.way {
            Way::Cut => {
                pair.reachable = false;
                pair.cut();
                self.until(pair, 5, &|_| false);
                pair.reachable = true;
            }
            Way::PublisherGone => self.gone = Some(Who::Publisher),
            Way::NodeGone => self.gone = Some(Who::Node),
            Way::NodeGoneAhead => {
                let closed =
                    |pair: &Pair| pair.mempool.iter().chain(pair.chain.iter().map(|(tx, _)| tx)).any(|tx| pair.feerate_of(tx).is_some());
                pair.feed(Who::Node, Input::Close(CloseReason::NodeDone));
                self.until(pair, 60, &closed);
                self.gone = Some(Who::Node);
            }
            Way::Renewed => self.renew(pair),
            _ => {}
        }
        if let Some(gone) = self.gone {
            pair.kill(gone);
        } else if self.way != Way::Renewed {
            self.until(pair, 200, &|pair| paid(pair, PAYMENTS) || over(pair));
        }
        if self.gone != Some(Who::Publisher) && self.way != Way::NodeGoneAhead {
            // Whoever is dead now is told when it is back: its user still wants an end.
            self.until(pair, 10, &|pair| pair.publisher.alive);
            pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
            self.until(pair, 10, &|pair| pair.publisher.alive);
            if !pair.publisher.lease.is_over() && pair.publisher.lease.stage == Stage::Live {
                pair.feed(Who::Publisher, Input::Close(CloseReason::PublisherDone));
            }
        }
        let gone = self.gone;
        let ended = move |pair: &Pair| {
            (gone == Some(Who::Publisher) || pair.publisher.lease.is_over()) && (gone == Some(Who::Node) || pair.node.lease.is_over())
        };
        if self.way == Way::NodeGone {
            let refund = pair.publisher.lease.account.as_ref().map_or(0, |account| account.channel.terms.refund_height);
            while pair.height < refund {
                pair.mine();
                if pair.height.is_multiple_of(64) || pair.height + 3 > refund {
                    self.tick(pair);
                }
            }
        }
        self.until(pair, 900, &ended);
        self.until(pair, 60, &|_| false);
    }

    /// Asks for more time, and again where the wish died with its process; then waits for payments on the second channel.
    fn renew(&mut self, pair: &mut Pair) {
        let on_second = |lease: &Lease| {
            let second = lease.account.as_ref().filter(|account| account.channel.number == 2);
            second.is_some_and(|account| account.channel.terms.earned_of(account.total_sat()) > 0)
        };
        for _ in 0..RENEWED_WITHIN_S * 5 {
            let renewed = on_second(&pair.publisher.lease) && on_second(&pair.node.lease) && self.away == [None; 2];
            if renewed || pair.both_over() {
                return;
            }
            let asked = pair.publisher.lease.next.is_some() || pair.publisher.lease.added_s > 0;
            if pair.publisher.alive && !asked && pair.publisher.lease.stage == Stage::Live {
                pair.feed(Who::Publisher, Input::Renew { adds_s: RENEWED_FOR_S, budget_sat: BUDGET_SAT, go_on: false });
            }
            self.tick(pair);
        }
    }

    fn until(&mut self, pair: &mut Pair, seconds: u64, holds: &dyn Fn(&Pair) -> bool) {
        for _ in 0..seconds * 5 {
            if holds(pair) && self.away == [None; 2] {
                return;
            }
            self.tick(pair);
        }
    }

    fn tick(&mut self, pair: &mut Pair) {
        pair.step();
        let known = pair.publisher.lease.channels().filter_map(|channel| Some((channel.outpoint?, channel.terms.clone())));
        self.channels.extend(known);
        let dead = self.record.borrow().dead;
        for who in [Who::Publisher, Who::Node] {
            if !dead[place(who)] || self.gone == Some(who) {
                continue;
            }
            let away = &mut self.away[place(who)];
            match *away {
                None => *away = Some(AWAY),
                Some(0) => {
                    *away = None;
                    self.restarts += 1;
                    pair.restart(who);
                }
                Some(left) => *away = Some(left - 1),
            }
        }
    }

    /// M1 is checked at each restart; here are the others.
    fn check(&self, pair: &Pair, tally: &mut Tally) -> Vec<String> {
        let mut wrong = Vec::new();
        for (who, party) in [(Who::Publisher, &pair.publisher), (Who::Node, &pair.node)] {
            if self.gone != Some(who) && !party.lease.is_over() {
                wrong.push(format!("{who:?} is still {:?}", party.lease.stage));
            }
        }
        // A death is no reason for a lease to come to nothing.
        if self.gone.is_none() && !matches!(pair.publisher.lease.stage, Stage::Settled { .. }) {
            wrong.push(format!("the lease came to nothing: {:?}, {:?}", pair.publisher.lease.stage, pair.node.lease.stage));
        }
        if self.way == Way::Renewed && pair.publisher.lease.account.as_ref().is_none_or(|account| account.channel.number != 2) {
            wrong.push(format!("the lease was not renewed: {:?}", pair.publisher.lease.not_renewed));
        }
        let total = |lease: &Lease| lease.account.as_ref().map_or(0, xennet_lease::Account::total_sat);
        if total(&pair.node.lease) > total(&pair.publisher.lease) {
            wrong.push("M1: the node holds what the publisher does not know to have signed".to_owned());
        }
        // M5: nothing beyond the budget.
        if total(&pair.publisher.lease) > 10_000_000 {
            wrong.push("M5: more is signed than the budget".to_owned());
        }
        // M2: who lost what, by the simulated clock and chain. Who is gone for good has only itself to blame.
        if pair.publisher.lease.proposal.is_some() {
            let (worth, paid, interval) = (pair.worth_msat(), pair.paid_msat(), pair.interval_msat());
            let prepaid = if matches!(self.way, Way::Advance | Way::NodeGoneAhead) { interval } else { 0 };
            let of_node = if self.gone == Some(Who::Node) { 0 } else { worth.saturating_sub(paid + ROUNDED_MSAT) };
            let taken_over = if self.way == Way::Renewed { SMALLEST_OUTPUT_MSAT } else { 0 };
            let of_publisher = paid.saturating_sub(worth + prepaid + taken_over + ROUNDED_MSAT);
            let lost = of_node.max(of_publisher);
            tally.worst_loss_permille = tally.worst_loss_permille.max(lost * 1_000 / interval.max(1));
            if lost > interval {
                wrong.push(format!("M2: {lost} msat are lost, an interval is {interval} msat (worth {worth}, paid {paid})"));
            }
        }
        // M3: every satoshi that went into a channel is in an output of its end or in its fee, and both ledgers say so.
        let unaccounted = account::unaccounted_sat(pair, &self.channels, self.gone, &mut wrong);
        tally.unaccounted_sat += unaccounted;
        wrong
    }
}
