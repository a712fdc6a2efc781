//! The way from publish to the first shell prompt, cut where both daemons told of something.

use crate::control::{LeaseStage, TaskState, What};

/// Who told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Publisher,
    Node,
}

/// Where the way is cut, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Milestone {
    Published,
    Accepted,
    Booting,
    Booted,
    Measured,
    Agreed,
    Live,
    LoggedIn,
    Prompt,
}

impl Milestone {
    /// What an event says about the way; most say nothing.
    pub(super) fn of(side: Side, what: &What) -> Option<Milestone> {
        match (side, what) {
            (Side::Publisher, What::Task { state: TaskState::Open, .. }) => Some(Milestone::Published),
            (Side::Node, What::Boot { step, .. }) if step == "up" => Some(Milestone::Booted),
            (Side::Node, What::Boot { .. }) => Some(Milestone::Booting),
            (Side::Publisher, What::Benchmark { figures: Some(_), .. }) => Some(Milestone::Measured),
            (Side::Publisher, What::Lease { stage, .. }) => match stage {
                LeaseStage::Agreed => Some(Milestone::Agreed),
                LeaseStage::Live => Some(Milestone::Live),
                _ => Some(Milestone::Accepted),
            },
            _ => None,
        }
    }

    /// The step that ends here.
    fn step(self) -> &'static str {
        match self {
            Milestone::Published => "sign the task, give it its work, broadcast",
            Milestone::Accepted => "the node hears, considers, gives its acceptance its work",
            Milestone::Booting => "the node dials in, greetings",
            Milestone::Booted => "the guest starts",
            Milestone::Measured => "the publisher measures the guest",
            Milestone::Agreed => "proposal, consideration, agreement",
            Milestone::Live => "the channel is funded",
            Milestone::LoggedIn => "log in to the guest through the tunnel",
            Milestone::Prompt => "the shell's prompt",
        }
    }
}

/// Milliseconds of each step, in order. Only the first telling of a milestone counts; a step whose end nobody told of is part
/// of the next one, so that the steps always add up to the whole.
pub(super) fn split(begun_ms: u64, told: &[(u64, Milestone)]) -> Vec<(&'static str, u64)> {
    let mut first: Vec<(u64, Milestone)> = Vec::new();
    for (at_ms, milestone) in told {
        match first.iter_mut().find(|(_, known)| known == milestone) {
            Some((earliest, _)) => *earliest = (*earliest).min(*at_ms),
            None => first.push((*at_ms, *milestone)),
        }
    }
    first.sort_by_key(|(_, milestone)| *milestone);
    let mut before = begun_ms;
    let mut steps = Vec::new();
    for (at_ms, milestone) in first {
        // Two daemons tell of what happens at the same time; none may seem to have ended before it began.
        let at_ms = at_ms.max(before);
        steps.push((milestone.step(), at_ms - before));
        before = at_ms;
    }
    steps
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use xennet_task::LeaseId;

    use super::*;
    use Milestone::*;

    fn sum(steps: &[(&str, u64)]) -> u64 {
        steps.iter().map(|(_, ms)| ms).sum()
    }

    #[test]
    fn steps_add_up_to_the_whole() {
        let steps = split(1_000, &[(1_200, Published), (1_500, Accepted), (5_500, Booted), (6_000, Prompt)]);
        assert_eq!(steps.iter().map(|(_, ms)| *ms).collect::<Vec<_>>(), [200, 300, 4_000, 500]);
        assert_eq!(sum(&steps), 5_000);
    }

    #[test]
    fn only_the_first_telling_counts() {
        let steps = split(0, &[(10, Accepted), (20, Accepted), (30, Live), (5, Accepted)]);
        assert_eq!(steps, [(Accepted.step(), 5), (Live.step(), 25)]);
    }

    #[test]
    fn what_is_told_out_of_order_takes_no_negative_time() {
        let steps = split(0, &[(100, Booting), (90, Accepted), (80, Booted), (200, Prompt)]);
        assert_eq!(steps.iter().map(|(_, ms)| *ms).collect::<Vec<_>>(), [90, 10, 0, 100]);
        assert_eq!(sum(&steps), 200);
    }

    #[test]
    fn both_sides_tell_their_own_part() {
        let lease = LeaseId([0; 8]);
        let up = What::Boot { lease, step: "up".into(), elapsed_ms: 1 };
        assert_eq!(Milestone::of(Side::Node, &up), Some(Booted));
        assert_eq!(Milestone::of(Side::Publisher, &up), None);
        assert_eq!(Milestone::of(Side::Node, &What::Tip { height: 1 }), None);
    }
}
