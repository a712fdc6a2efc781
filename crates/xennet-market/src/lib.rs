//! Whether a task, a machine, a price is worth it, and if not, why not.
//!
//! Three questions are answered: may this node take that task ([`consider`]), what does the publisher pay for the machine it
//! measured ([`price`]), and does the node take the proposal ([`consider_proposal`]). Every no names the clause, both numbers
//! and the nearest fix ([`Reason`]).
//!
//! Pure: no clock, socket, file, thread or random source. All of it is integers.

mod consider;
mod policy;
mod price;
mod proposal;
mod reason;

pub use consider::{Capabilities, Choice, LEAST_DISK_MIB, LEAST_MEMORY_MIB, check_work, consider};
pub use policy::{Dial, NodePolicy, Payment};
pub use price::{PRORATED_DOWN_TO_PERCENT, check_acceptance, price};
pub use proposal::consider_proposal;
pub use reason::{Clause, Reason};
