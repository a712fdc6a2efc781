//! A lease that was brought back from a backup. How old the backup is nobody here can tell: the other side knows.
//!
//! A publisher signs nothing before the node's hello, as after any restart. A node could settle alone, and on an old payment it would lose
//! what was paid since: so it asks for its publisher, and settles once it holds what the publisher says to have signed, or when the refund's
//! height comes near.

use serde::{Deserialize, Serialize};

use crate::{Lease, Purse, Side};

/// Whether what is known of a lease may be older than what was signed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restored {
    /// It is not.
    #[default]
    No,
    /// It came from a backup, and the other side has not said hello since.
    AwaitsHello,
    /// Node: the publisher says that it has signed this total, and has not sent it yet.
    AwaitsPayment {
        /// Satoshi.
        total_sat: u64,
    },
}

impl Lease {
    /// Marks a lease that comes out of a backup. One that is over stays as it is.
    pub fn came_from_backup(&mut self) {
        if self.is_over() {
            return;
        }
        self.restored = Restored::AwaitsHello;
        self.restarted = true;
        self.revision += 1;
    }

    /// Whether the other side is still to say what was signed after the backup.
    pub fn awaits_the_other_side(&self) -> bool {
        self.restored != Restored::No
    }

    /// The other side said hello, and what it knows to have been signed.
    pub(crate) fn restored_hears_hello(&mut self, channel: u32, total_sat: u64) {
        if self.restored == Restored::No {
            return;
        }
        let own_sat = self.account.as_ref().map_or(0, crate::Account::total_sat);
        let known = self.account.as_ref().is_none_or(|account| account.channel.number == channel);
        // Of a channel that another has taken over from, the last payment is said again, whatever this side holds.
        let total_sat = if known { total_sat } else { own_sat };
        let waits = matches!(self.side, Side::Node(_)) && (total_sat > own_sat || !known);
        self.restored = if waits { Restored::AwaitsPayment { total_sat } } else { Restored::No };
        self.revision += 1;
    }

    /// A payment was taken.
    pub(crate) fn restored_is_paid(&mut self, total_sat: u64) {
        if matches!(self.restored, Restored::AwaitsPayment { total_sat: wanted } if total_sat >= wanted) {
            self.restored = Restored::No;
            self.revision += 1;
        }
    }

    /// Whether settling would put on the chain what may be an old payment, and there is still time to ask.
    pub(crate) fn settles_too_early(&self) -> bool {
        let Some(Purse::Node(channel)) = self.account.as_ref().map(|account| &account.channel.purse) else { return false };
        self.awaits_the_other_side() && !channel.must_settle(self.tip)
    }
}
