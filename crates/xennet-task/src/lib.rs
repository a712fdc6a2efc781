//! What publisher and node say to each other: task, acceptance, proposal, cancellation, and their wire format.
//!
//! Pure: no clock, socket, file, thread or random source. `docs/protocol.md` lays the bytes out; `docs/vectors` has examples.

mod acceptance;
mod amounts;
mod announcement;
mod digest;
mod limits;
mod names;
mod proposal;
mod requirements;
mod sealed;
mod task;
mod toml_task;
mod wire;

pub use acceptance::Acceptance;
pub use amounts::{Msat, Rates, Usage};
pub use announcement::{Announcement, AnnouncementHash, Cancellation, Kind, Said, SignError, Unworked};
pub use digest::Digest;
pub use limits::FieldError;
pub use names::NameError;
pub use proposal::{LeaseId, Proposal};
pub use requirements::{Compute, Requirements, Storage};
pub use sealed::{SealError, Sealed};
pub use task::{LeaseRange, PayoutInterval, Task, TaskId};
pub use toml_task::{Carrier, TaskFile, TaskFileError, TaskFileProblem};
pub use wire::DecodeError;
