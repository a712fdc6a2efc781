//! Counting what was used.

use serde::{Deserialize, Serialize};
use xennet_task::Usage;

use crate::Size;

/// Counts one lease. Use accrues while the machine is at the publisher's disposal, that is between [`Meter::resume`] and
/// [`Meter::pause`]; a new meter is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    size: Size,
    /// Time at the publisher's disposal so far, milliseconds.
    running_ms: u64,
    /// When time was last accrued; `None` while paused.
    since_ms: Option<u64>,
    traffic_bytes: u64,
}

impl Meter {
    /// A paused meter that has counted nothing.
    pub fn new(size: Size) -> Meter {
        Meter { size, running_ms: 0, since_ms: None, traffic_bytes: 0 }
    }

    /// Accrues up to now, if running. A clock that stands still or goes back accrues nothing, and counting goes on from there.
    pub fn advance(&mut self, now_ms: u64) {
        if let Some(since_ms) = &mut self.since_ms {
            let passed_ms = now_ms.saturating_sub(*since_ms);
            self.running_ms = self.running_ms.saturating_add(passed_ms);
            *since_ms = now_ms;
        }
    }

    /// Accrues up to now and stops. Pausing twice is pausing once.
    pub fn pause(&mut self, now_ms: u64) {
        self.advance(now_ms);
        self.since_ms = None;
    }

    /// Counts from now on. Resuming a running meter accrues up to now.
    pub fn resume(&mut self, now_ms: u64) {
        self.advance(now_ms);
        self.since_ms = Some(now_ms);
    }

    /// After a restart: the time since the state was written is not counted, because nobody measured it; a meter that ran
    /// goes on from now, a paused one stays paused.
    pub fn skip_to(&mut self, now_ms: u64) {
        self.since_ms = self.since_ms.map(|_| now_ms);
    }

    /// All bytes through the guest's pipes since the lease began. A number below the last one changes nothing.
    pub fn traffic(&mut self, total_bytes: u64) {
        self.traffic_bytes = self.traffic_bytes.max(total_bytes);
    }

    /// Takes back what was counted beyond this. Never adds anything.
    pub fn lower_to(&mut self, theirs: &Usage) {
        if let Some(their_ms) = theirs.core_ms.checked_div(self.size.cores.into()) {
            self.running_ms = self.running_ms.min(their_ms);
        }
        self.traffic_bytes = self.traffic_bytes.min(theirs.traffic_bytes);
    }

    /// Adds what was counted less than this. Never takes anything back.
    pub fn raise_to(&mut self, theirs: &Usage) {
        if let Some(their_ms) = theirs.core_ms.checked_div(self.size.cores.into()) {
            self.running_ms = self.running_ms.max(their_ms);
        }
        self.traffic(theirs.traffic_bytes);
    }

    /// What was used so far, up to the last time given.
    pub fn usage(&self) -> Usage {
        let for_each = |units: u32| self.running_ms.saturating_mul(u64::from(units));
        Usage {
            core_ms: for_each(self.size.cores.into()),
            memory_mib_ms: for_each(self.size.memory_mib),
            disk_mib_ms: for_each(self.size.disk_mib),
            persistent_mib_ms: for_each(self.size.persistent_mib),
            traffic_bytes: self.traffic_bytes,
        }
    }

    /// The machine's size.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Time at the publisher's disposal so far, milliseconds.
    pub fn running_ms(&self) -> u64 {
        self.running_ms
    }

    /// Whether it is counting.
    pub fn is_running(&self) -> bool {
        self.since_ms.is_some()
    }
}
