//! Scripts that somebody wants to be told of, on their way to whoever follows the chain.

use std::sync::{Mutex, PoisonError};

use bitcoin::ScriptBuf;

use crate::watch::Watcher;

/// Scripts to be watched or not to be watched any more.
#[derive(Debug)]
pub(crate) enum Wish {
    Watch(ScriptBuf),
    Unwatch(ScriptBuf),
}

/// What was wished for since the follower last looked.
#[derive(Debug, Default)]
pub(crate) struct Wishes(Mutex<Vec<Wish>>);

impl Wishes {
    pub(crate) fn add(&self, wish: Wish) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(wish);
    }

    pub(crate) fn take(&self) -> Vec<Wish> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hands them to the watcher. Scripts whose past is still to be told go to the end of `fresh`.
    pub(crate) fn grant(&self, watcher: &mut Watcher, fresh: &mut Vec<ScriptBuf>) {
        for wish in self.take() {
            match wish {
                Wish::Watch(script) => {
                    watcher.watch(script.clone());
                    fresh.push(script);
                }
                Wish::Unwatch(script) => {
                    watcher.unwatch(&script);
                    fresh.retain(|waiting| *waiting != script);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_is_no_longer_wanted_is_not_asked_for() {
        let script = |byte| ScriptBuf::from_bytes(vec![byte]);
        let (wishes, mut watcher, mut fresh) = (Wishes::default(), Watcher::default(), Vec::new());
        for wish in [Wish::Watch(script(1)), Wish::Watch(script(2)), Wish::Unwatch(script(1))] {
            wishes.add(wish);
        }
        wishes.grant(&mut watcher, &mut fresh);
        assert_eq!(fresh, [script(2)]);
        assert_eq!(watcher.watched().collect::<Vec<_>>(), [&script(2)]);
        assert!(wishes.take().is_empty());
    }
}
