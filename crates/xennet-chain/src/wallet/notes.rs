//! What the wallet notes beside BDK's tables: numbers by name.

use bdk_wallet::rusqlite::{Connection, Error, OptionalExtension as _, params};

use super::seed::Birthday;

/// The height before which no coin of the wallet is.
pub(super) const BIRTHDAY: &str = "birthday_height";
/// 1 while the wallet has shown no address and not seen the chain, so that it may begin at the tip.
pub(super) const FRESH: &str = "fresh";

/// Makes the tables where they are missing. What the seed's file says of its birthday counts for a new database only.
pub(super) fn prepare(database: &Connection, birthday: Birthday) -> Result<(), Error> {
    database.execute_batch("CREATE TABLE IF NOT EXISTS xennet_numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;")?;
    for (name, value) in [(BIRTHDAY, birthday.height()), (FRESH, u32::from(birthday == Birthday::Now))] {
        database.execute("INSERT OR IGNORE INTO xennet_numbers (name, value) VALUES (?1, ?2)", params![name, value])?;
    }
    Ok(())
}

pub(super) fn number(database: &Connection, name: &str) -> Result<u32, Error> {
    let found = database.query_row("SELECT value FROM xennet_numbers WHERE name = ?1", [name], |row| row.get(0)).optional()?;
    Ok(found.unwrap_or(0))
}

pub(super) fn set_number(database: &Connection, name: &str, value: u32) -> Result<(), Error> {
    database.execute("INSERT OR REPLACE INTO xennet_numbers (name, value) VALUES (?1, ?2)", params![name, value]).map(drop)
}
