//! What one side does with an input: decide, write, carry out; and who may stand in between.

use bitcoin::Transaction;
use xennet_lease::{Action, Input, Lease, LedgerEntry};

use super::{Pair, Who, stage_name};

/// Stands between what a side decides, its disk, and what it does.
pub trait Hand {
    /// A step of this side. `false`: its process dies here.
    fn step(&mut self, who: Who, what: &dyn Fn() -> String) -> bool;
    /// Puts on disk what was decided. `false`: its process dies here.
    fn keep(&mut self, who: Who, lease: &Lease, entries: &[&LedgerEntry]) -> bool;
    /// What is on disk when the process starts again.
    fn kept(&mut self, who: Who) -> (Lease, Vec<LedgerEntry>);
    /// A transaction is given to the chain; perhaps it spends channels of this lease.
    fn judge(&mut self, _transaction: &Transaction, _lease: &Lease) {}
}

impl Pair {
    #[allow(dead_code, reason = "one of the tests uses it")]
    /// From now on every step goes through this hand. What is on disk so far is given to it first.
    pub fn with_hand(mut self, mut hand: Box<dyn Hand>) -> Self {
        for who in [Who::Publisher, Who::Node] {
            let party = self.party(who);
            let entries: Vec<&LedgerEntry> = party.ledger.iter().collect();
            assert!(hand.keep(who, &party.lease, &entries), "nothing is to fail before the programme begins");
        }
        self.hand = Some(hand);
        self
    }

    fn passes(&mut self, who: Who, what: &dyn Fn() -> String) -> bool {
        let goes_on = self.hand.as_mut().is_none_or(|hand| hand.step(who, what));
        if !goes_on {
            self.kill(who);
        }
        goes_on
    }

    /// Gives one side an input, puts the lease on disk, then carries out what it decided.
    pub fn feed(&mut self, who: Who, input: Input) {
        let now_ms = self.now_ms;
        let party = self.party(who);
        if !party.alive {
            return;
        }
        let (before, from) = (party.lease.revision, stage_name(&party.lease));
        let heard = format!("{input:?}").split(['(', ' ', '{']).next().unwrap_or_default().to_owned();
        let actions = party.lease.handle(now_ms, input);
        let to = stage_name(&party.lease);
        let changed = party.lease.revision != before;
        if self.hand.is_none() && changed {
            let party = self.party(who);
            party.disk = serde_json::to_string(&party.lease).unwrap();
        }
        if changed || !actions.is_empty() {
            if !self.passes(who, &|| format!("{to}: {heard}, decided")) {
                return;
            }
            if let Some(mut hand) = self.hand.take() {
                let entries: Vec<&LedgerEntry> =
                    actions.iter().filter_map(|action| if let Action::Record(entry) = action { Some(entry) } else { None }).collect();
                let kept = hand.keep(who, &self.party(who).lease, &entries);
                self.hand = Some(hand);
                if !kept {
                    self.kill(who);
                    return;
                }
            }
            if !self.passes(who, &|| format!("{to}: {heard}, on disk")) {
                return;
            }
        }
        if from != to {
            self.ways.insert((from, to.clone()));
        }
        for action in actions {
            let what = format!("{action:?}").split(['(', ' ', '{']).next().unwrap_or_default().to_owned();
            let said = if let Action::Send(message) = &action {
                format!(" {}", format!("{message:?}").split(['(', ' ', '{']).next().unwrap_or_default())
            } else {
                String::new()
            };
            self.carry_out(who, action);
            if !self.party(who).alive || !self.passes(who, &|| format!("{to}: {heard}, {what}{said} done")) {
                return;
            }
        }
    }
}
