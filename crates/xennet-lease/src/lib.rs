//! The lease: one row from announced to settled, as one pure state machine for both sides.
//!
//! ```text
//! Accepted ─▶ Connected ─▶ Measuring ─▶ Proposed ─▶ Agreed ─▶ Live ─▶ Closing ─▶ Settled
//!     │            │            │           │          │               │
//!     └────────────┴────────────┴───────────┴──────────┴──▶ Ended ◀────┘ (nothing was locked on chain)
//! ```
//! `docs/protocol.md` has all ways between them. `handle(now, input) → actions`. It reads no clock, socket, file or random source. Whoever drives it persists the lease
//! *before* carrying out the actions; every action may be carried out twice without harm.

mod account;
mod action;
mod channel;
mod greeting;
mod input;
mod lease;
mod message;
mod node;
mod pay;
mod publisher;
mod renewal;
mod restored;
mod settle;
mod side;
mod stage;
mod view;
mod watch;

pub use account::{Account, CloseReason};
pub use action::{Action, LedgerEntry, LedgerKind};
pub use channel::{Channel, Ending, Purse};
pub use input::{Input, Machine};
pub use lease::{Closed, Lease};
pub use message::{Message, MessageError};
pub use renewal::{GoOn, Renewal};
pub use restored::Restored;
pub use side::{LEAST_CLOSE_FEERATE_SAT_PER_KVB, NodeSide, PublisherSide, Secret, Side, most_close_feerate};
pub use stage::{EndReason, Stage};
pub use view::Totals;
