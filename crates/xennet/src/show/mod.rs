//! What a person sees: tables, paragraphs, and a sentence for each event.

mod events;
mod lists;
mod money;
mod single;
pub mod table;
mod transaction;
pub mod units;

pub use events::describe;
pub use lists::{leases, ledger, tasks};
pub use money::{coins, history, payment, sweep};
pub use single::{balance, identities, identity, lease, status, task};
pub use transaction::transaction;

use std::io::{self, Write};

use serde::Serialize;

use crate::fail::Fail;

/// How many digits of a hash a table shows. A thousand tasks share their first twelve once in 500 million times.
pub const SHORT: usize = 12;

/// The beginning of a hash.
pub fn short(hash: impl ToString) -> String {
    hash.to_string().chars().take(SHORT).collect()
}

/// Prints a value as JSON, or what `text` makes of it.
pub fn print<T: Serialize>(json: bool, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Fail> {
    let text = if json {
        let text = serde_json::to_string_pretty(value);
        text.map_err(|e| Fail::new("the answer has no JSON form").because(e))? + "\n"
    } else {
        text(value)
    };
    write(&text)
}

/// Writes to stdout. A reader that has seen enough, like `head`, is no error.
pub fn write(text: &str) -> Result<(), Fail> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Fail::new("cannot write to stdout").because(e)),
        _ => Ok(()),
    }
}

/// Strangers' words on one's terminal: no control characters.
pub fn tame(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
