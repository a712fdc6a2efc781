//! What publisher and node say to each other: task, acceptance, proposal, cancellation, and their wire format.
//!
//! Pure: no clock, socket, file, thread or random source.

mod acceptance;
mod announcement;
mod amounts;
mod proposal;
mod sealed;
mod task;
mod toml_task;
mod wire;

pub use acceptance::Acceptance;
pub use amounts::{Msat, Rates, Usage};
pub use announcement::{Announcement, AnnouncementHash, Cancellation, Kind, Said, Unworked};
pub use proposal::{LeaseId, Proposal};
pub use sealed::{Sealed, SealError};
pub use task::{Compute, LeaseRange, PayoutInterval, Requirements, Storage, Task, TaskId};
pub use toml_task::{TaskFile, TaskFileError};
pub use wire::DecodeError;
