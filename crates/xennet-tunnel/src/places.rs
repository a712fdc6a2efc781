//! The pipes of one session, all together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::credit::{Budget, Window};
use crate::cut::Cut;
use crate::error::TunnelError;
use crate::pipe::Traffic;
use crate::settings::MAX_PIPES;

/// The SSH library keeps some 4 KiB of a channel that our end closed first until the session ends. A session that has
/// had this many pipes is therefore closed, and the node comes back with a new one, as soon as no pipe is open.
const RENEW_AFTER: usize = 4096;
/// The session is closed after this many pipes even when one is open.
const RENEW_AT_LAST: usize = 16_384;

/// What is shared by all pipes of a session. Clones are the same.
#[derive(Clone)]
pub(crate) struct Pipes {
    count: Arc<Mutex<Count>>,
    budget: Arc<Budget>,
    pub(crate) traffic: Arc<Traffic>,
    /// Cut when the session is over.
    pub(crate) cut: Cut,
    /// Cut to close the session gracefully.
    pub(crate) closing: Cut,
}

#[derive(Default)]
struct Count {
    open: usize,
    ever: usize,
}

/// A place among the pipes of a session, given back when dropped.
pub(crate) struct Place {
    pub(crate) pipes: Pipes,
}

impl Pipes {
    pub(crate) fn new(traffic: Arc<Traffic>, cut: Cut) -> Self {
        Self { count: Arc::default(), budget: Budget::new(), traffic, cut, closing: Cut::default() }
    }

    /// A place for one more pipe.
    pub(crate) fn place(&self) -> Result<Place, TunnelError> {
        let mut count = self.count();
        if count.open >= MAX_PIPES {
            return Err(TunnelError::TooManyPipes { max: MAX_PIPES });
        }
        count.open += 1;
        count.ever += 1;
        if count.ever >= RENEW_AT_LAST {
            self.renew();
        }
        Ok(Place { pipes: self.clone() })
    }

    fn renew(&self) {
        self.closing.cut("the session had very many pipes and is renewed");
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A window for the pipe, now that the round trip is known.
    pub(crate) fn window(&self, round_trip: Duration) -> Window {
        self.pipes.budget.window(round_trip)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut count = self.pipes.count();
        count.open -= 1;
        if count.open == 0 && count.ever >= RENEW_AFTER {
            self.pipes.renew();
        }
    }
}
