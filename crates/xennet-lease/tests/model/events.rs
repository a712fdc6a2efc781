//! What can happen, and what must hold whatever does.

use std::sync::Arc;

use bitcoin::Transaction;
use bitcoin::consensus::encode::deserialize;
use stateright::{Model, Property};
use xennet_lease::{Channel, CloseReason, Input, Message};
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
    /// The publisher's user wants more time.
    Renew,
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
        if left.renewals > 0 {
            events.push(Event::Renew);
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
            Event::Renew => {
                state.left.renewals -= 1;
                self.feed(&mut state, Who::Publisher, Input::Renew { adds_s: 60, budget_sat: 10_000_000, go_on: false });
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
                let known = BOTH.into_iter().flat_map(|who| state.lease(who).channels());
                let refunds: std::collections::BTreeSet<u32> = known.map(|channel| channel.terms.refund_height).collect();
                // A block short of each at first: what must happen before the refund has its last chance there.
                for height in refunds.into_iter().flat_map(|refund| [refund.saturating_sub(1), refund]) {
                    let height = height.max(state.height + 1);
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
            Property::<World>::always("the refund comes only if the node is gone, or was never paid on that channel", |_, state| {
                let taken = |(channel, spend): &(&Channel, Spend)| matches!(spend, Spend::Refund { .. }) && channel.total_sat() > 0;
                state.gone || !state.endings().iter().any(taken)
            }),
            Property::<World>::always("the node works for at most one interval unpaid, and one tick more", |world, state| {
                let interval = state.lease(Who::Node).totals().map_or(0, |totals| totals.interval_msat.0);
                state.exposed_msat <= interval + interval * world.tick_ms / super::INTERVAL_MS + 1_000
            }),
            Property::<World>::always("every satoshi is in an output or in the fee", |_, state| {
                state.endings().into_iter().all(|(channel, spend)| match spend {
                    Spend::Close { total_sat, change_sat, .. } => total_sat + change_sat == channel.terms.capacity_sat,
                    Spend::Refund { returned_sat, fee_sat } => returned_sat + fee_sat == channel.terms.capacity_sat,
                })
            }),
            Property::<World>::sometimes("a lease is settled by the node's close", |_, state| {
                state.over() && state.endings().iter().any(|(_, spend)| matches!(spend, Spend::Close { .. }))
            }),
            Property::<World>::sometimes("a payment arrives", |world, state| state.acknowledged_sat > world.start.acknowledged_sat),
        ];
        if self.budget.vanishes {
            let back = |_: &World, state: &State| state.endings().iter().any(|(_, spend)| matches!(spend, Spend::Refund { .. }));
            properties.push(Property::<World>::sometimes("the refund comes back", back));
        }
        if self.budget.renewals > 0 {
            let over =
                |_: &World, state: &State| state.endings().iter().filter(|(_, spend)| matches!(spend, Spend::Close { .. })).count() > 1;
            properties.push(Property::<World>::sometimes("a further channel takes over, and both are closed", over));
        }
        if self.budget.restores == 0 {
            let law = |_: &World, state: &State| {
                let [publisher, node] = BOTH.map(|who| state.lease(who));
                // What is buried, each side keeps as a sum only.
                publisher.channels().all(|channel| total(node, channel.number as usize) <= channel.total_sat())
            };
            properties.push(Property::<World>::always("the node holds nothing that the publisher does not know to have signed", law));
        }
        properties
    }
}
