//! What can happen, and what must hold whatever does.

use std::sync::Arc;

use bitcoin::Transaction;
use bitcoin::consensus::encode::deserialize;
use stateright::{Model, Property};
use xennet_lease::{CloseReason, Input, Message};
use xennet_rama::Spend;

use super::world::{BOTH, State, Who, World, total};

/// What can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    Tick,
    /// The next message arrives.
    Arrive(Who),
    /// It arrives and is written, and then the process dies before it does anything.
    ArriveAndDie(Who),
    Cut,
    Connect,
    Die(Who),
    /// The publisher's store is put back from the copy, and it starts again.
    Restore,
    /// The publisher's user is done.
    Close,
    Mine,
    /// The last blocks are taken back, and others come in their place, one more; what was in them waits again.
    Reorganise(u32),
    /// What waits longest is thrown out everywhere.
    Evict,
    /// Nothing but empty blocks until the refund is unlocked.
    Jump,
    /// The node goes away and never comes back.
    Vanish,
}

impl Model for World {
    type State = State;
    type Action = Event;

    fn init_states(&self) -> Vec<State> {
        vec![self.start.clone()]
    }

    fn actions(&self, state: &State, events: &mut Vec<Event>) {
        let left = &state.left;
        for who in BOTH.into_iter().filter(|who| *who == Who::Publisher || !state.gone) {
            if !state.tunnel[who.place()].is_empty() {
                events.push(Event::Arrive(who));
                if left.deaths > 0 {
                    events.push(Event::ArriveAndDie(who));
                }
            }
            if left.deaths > 0 {
                events.push(Event::Die(who));
            }
        }
        if left.ticks > 0 {
            events.push(Event::Tick);
        }
        if state.up && left.cuts > 0 {
            events.push(Event::Cut);
        }
        if !state.up && !state.gone && BOTH.iter().any(|who| !state.lease(*who).is_over()) {
            events.push(Event::Connect);
        }
        if left.restores > 0 {
            events.push(Event::Restore);
        }
        if !state.closed {
            events.push(Event::Close);
        }
        if left.blocks > 0 {
            events.push(Event::Mine);
        }
        if left.reorganisations > 0 {
            // Below its funding there is no channel; blocks of the beginning stay.
            let deepest = state.height - self.start.height;
            events.extend((1..=deepest.min(6)).map(Event::Reorganise));
        }
        if left.evictions > 0 && !state.mempool.is_empty() {
            events.push(Event::Evict);
        }
        if !state.jumped {
            events.push(Event::Jump);
        }
        if left.vanishes && !state.gone {
            events.push(Event::Vanish);
        }
    }

    fn next_state(&self, last: &State, event: Event) -> Option<State> {
        let mut state = last.clone();
        match event {
            Event::Tick => {
                state.left.ticks -= 1;
                state.now_ms += self.tick_ms;
                for who in BOTH {
                    self.feed(&mut state, who, Input::Tick);
                }
            }
            Event::Arrive(who) => {
                let message = Message::decode(&state.tunnel[who.place()].remove(0)).ok()?;
                self.feed(&mut state, who, Input::Heard(message));
            }
            Event::ArriveAndDie(who) => {
                state.left.deaths -= 1;
                let message = Message::decode(&state.tunnel[who.place()].remove(0)).ok()?;
                self.decide(&mut state, who, Input::Heard(message));
                let from = self.found(&state, who);
                self.restart(&mut state, who, from);
            }
            Event::Cut => {
                state.left.cuts -= 1;
                self.cut(&mut state);
            }
            Event::Connect => {
                state.up = true;
                for who in BOTH {
                    self.feed(&mut state, who, Input::LinkUp);
                }
            }
            Event::Die(who) => {
                state.left.deaths -= 1;
                let from = self.found(&state, who);
                self.restart(&mut state, who, from);
            }
            Event::Restore => {
                state.left.restores -= 1;
                let from = Arc::clone(&state.copy);
                self.restart(&mut state, Who::Publisher, from);
            }
            Event::Close => {
                state.closed = true;
                self.feed(&mut state, Who::Publisher, Input::Close(CloseReason::PublisherDone));
            }
            Event::Mine => {
                state.left.blocks -= 1;
                self.mine(&mut state);
            }
            Event::Reorganise(depth) => {
                state.left.reorganisations -= 1;
                self.reorganise(&mut state, depth);
            }
            Event::Evict => {
                state.left.evictions -= 1;
                let tx: Transaction = deserialize(&state.mempool.remove(0)).unwrap();
                for who in BOTH {
                    self.feed(&mut state, who, Input::Gone(tx.compute_txid()));
                }
            }
            Event::Vanish => {
                self.cut(&mut state);
                state.gone = true;
            }
            Event::Jump => {
                state.jumped = true;
                let refund = state.lease(Who::Node).account.as_ref()?.terms.refund_height;
                // A block short of it at first: what must happen before the refund has its last chance there.
                for height in [refund.saturating_sub(1), refund].map(|height| height.max(state.height + 1)) {
                    state.height = height - 1;
                    // Hundreds of blocks are days; time passes five times a second.
                    for who in BOTH {
                        self.feed(&mut state, who, Input::Tick);
                    }
                    self.mine(&mut state);
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<World>> {
        let mut properties = vec![
            Property::<World>::always("nothing that is given to the chain is wrong", |_, state| state.wrong.is_none()),
            Property::<World>::always("a payment is never below one that the node holds", |_, state| !state.fell_back),
            Property::<World>::always("the refund comes only if the node is gone", |_, state| {
                state.gone || !matches!(state.ending(), Some((Spend::Refund { .. }, _)))
            }),
            Property::<World>::always("the node works for at most one interval unpaid, and one tick more", |world, state| {
                let interval = state.lease(Who::Node).totals().map_or(0, |totals| totals.interval_msat.0);
                state.exposed_msat <= interval + interval * world.tick_ms / super::INTERVAL_MS + 1_000
            }),
            Property::<World>::always("every satoshi is in an output or in the fee", |_, state| {
                let Some((spend, _)) = state.ending() else { return true };
                let capacity = state.lease(Who::Node).account.as_ref().map_or(0, |account| account.terms.capacity_sat);
                match spend {
                    Spend::Close { total_sat, change_sat, .. } => total_sat + change_sat == capacity,
                    Spend::Refund { returned_sat, fee_sat } => returned_sat + fee_sat == capacity,
                }
            }),
            Property::<World>::sometimes("a lease is settled by the node's close", |_, state| {
                state.over() && matches!(state.ending(), Some((Spend::Close { .. }, _)))
            }),
            Property::<World>::sometimes("a payment arrives", |world, state| state.acknowledged_sat > world.start.acknowledged_sat),
        ];
        if self.budget.vanishes {
            let back = |_: &World, state: &State| matches!(state.ending(), Some((Spend::Refund { .. }, _)));
            properties.push(Property::<World>::sometimes("the refund comes back", back));
        }
        if self.budget.restores == 0 {
            let law = |_: &World, state: &State| total(state.lease(Who::Node)) <= total(state.lease(Who::Publisher));
            properties.push(Property::<World>::always("the node holds nothing that the publisher does not know to have signed", law));
        }
        properties
    }
}
