//! Steps at which this process can be made to die, to see that nothing is lost.
//!
//! `XENNET_CRASH_AT` names one: a moment, what is done, and which time it happens, such as `kept Broadcast 1`. The process then ends as if it
//! had been killed, without a word and without tidying up. Nobody but a test sets it; whoever can set a daemon's environment can kill it
//! anyway.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use xennet_lease::Action;

/// Names the step.
pub const CRASH_AT: &str = "XENNET_CRASH_AT";

/// Where in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Decided, nothing is on disk.
    Decided,
    /// On disk, nothing is done.
    Kept,
    /// Done.
    Done,
}

struct Step {
    moment: &'static str,
    what: String,
    nth: u32,
    seen: AtomicU32,
}

/// Ends the process here if this is the step that was named.
pub fn passes(moment: Moment, action: &Action) {
    if let Some(step) = named() {
        step.compare(moment, &what(action));
    }
}

fn named() -> Option<&'static Step> {
    static NAMED: OnceLock<Option<Step>> = OnceLock::new();
    NAMED.get_or_init(|| Step::parse(&std::env::var(CRASH_AT).ok()?)).as_ref()
}

impl Step {
    /// Words that name no step name none; the test then misses the crash.
    fn parse(text: &str) -> Option<Step> {
        let mut words = text.split(' ');
        let (moment, what, nth) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
        let moment = [Moment::Decided, Moment::Kept, Moment::Done].map(Moment::name).into_iter().find(|name| *name == moment)?;
        Some(Step { moment, what: what.to_owned(), nth, seen: AtomicU32::new(0) })
    }

    fn compare(&self, moment: Moment, what: &str) {
        if moment.name() == self.moment && what == self.what && self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.nth {
            // Nothing else in the process runs after this: no destructor, no flush, no answer.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

impl Moment {
    fn name(self) -> &'static str {
        match self {
            Moment::Decided => "decided",
            Moment::Kept => "kept",
            Moment::Done => "done",
        }
    }
}

/// An action's name; of a message, its own.
fn what(action: &Action) -> String {
    let name = |text: String| text.split(['(', ' ', '{']).next().unwrap_or_default().to_owned();
    match action {
        Action::Send(message) => format!("Send:{}", name(format!("{message:?}"))),
        Action::Record(entry) => format!("Record:{:?}", entry.kind),
        other => name(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_step_is_named_by_moment_action_and_count() {
        assert_eq!(what(&Action::Dial), "Dial");
        assert_eq!(what(&Action::HangUp("x".into())), "HangUp");
        assert_eq!(what(&Action::Send(xennet_lease::Message::Paused { owed_msat: 1 })), "Send:Paused");
        let step = Step::parse("kept Send:Pay 3").unwrap();
        assert_eq!((step.moment, step.what.as_str(), step.nth), ("kept", "Send:Pay", 3));
        for wrong in ["", "kept", "kept Dial", "kept Dial x", "later Dial 1"] {
            assert!(Step::parse(wrong).is_none(), "{wrong}");
        }
    }
}
