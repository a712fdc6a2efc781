//! Identities and the work that stands behind them.
//!
//! Pure: no clock, socket, file, thread or random source. Mining takes a starting nonce and a count, so that whoever
//! owns the threads decides how long a call lasts.

mod identity;
mod target;
mod work;

pub use identity::{Anchor, Identity, IdentityError, IdentityId, IdentityTemplate, Role};
pub use target::{Target, TargetError, TargetSchedule};
pub use work::{WorkBits, double_sha256, grind, work_of};
