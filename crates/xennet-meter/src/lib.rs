//! What a machine can do, what of it was used, and what is owed for that.
//!
//! All of it is integers. A bill is Σ rate × measured use, added up exactly and rounded once, down, to whole thousandths of
//! a satoshi; use is cumulative, so what one interval rounds off the next one brings back.
//!
//! Pure: no clock, socket, file, thread or random source. Time is an argument, in milliseconds of any clock that both calls
//! share.

mod bill;
mod compare;
mod figures;
mod meter;

pub use bill::{MeterError, interval_price, owed, owed_sat};
pub use compare::{Disagreement, Part, Tolerance, compare};
pub use figures::{Figures, Size};
pub use meter::Meter;
