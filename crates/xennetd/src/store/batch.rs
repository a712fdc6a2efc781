//! What is to be written as a whole.

use std::sync::{Arc, Weak};

use serde::Serialize;
use xennet_lease::LedgerEntry;
use xennet_task::LeaseId;

use super::StoreError;

/// The tables of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Mined identities, by role.
    Identities,
    /// How far mining is, by role.
    Mining,
    /// Tasks, by announcement hash.
    Tasks,
    /// Leases, by lease id: state machine, channel and meter in one record, so that they can never disagree.
    Leases,
    /// Everything else that is single, by name.
    Single,
}

impl Table {
    /// All of them. The place of each is its number in a backup, so a new one comes last.
    pub const ALL: [Table; 5] = [Table::Identities, Table::Mining, Table::Tasks, Table::Leases, Table::Single];

    /// Whether its records hold secrets of channels, so that they are encrypted.
    pub(super) fn is_secret(self) -> bool {
        self == Table::Leases
    }

    /// Its name in the database.
    pub(super) fn name(self) -> &'static str {
        match self {
            Table::Identities => "identities",
            Table::Mining => "mining",
            Table::Tasks => "tasks",
            Table::Leases => "leases",
            Table::Single => "single",
        }
    }
}

/// Changes that reach the disk together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) changes: Vec<Change>,
    bytes: usize,
    /// Tells this batch from every other, also when it comes a second time.
    mark: Arc<()>,
}

#[derive(Debug, Clone)]
pub(super) enum Change {
    Put { table: Table, key: Vec<u8>, value: Vec<u8> },
    Delete { table: Table, key: Vec<u8> },
    Append { lease: LeaseId, entry: Vec<u8> },
}

impl Batch {
    /// No changes yet.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Sets a record.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.bytes += key.len() + value.len();
        self.changes.push(Change::Put { table, key: key.to_vec(), value: value.to_vec() });
    }

    /// Sets a record to the JSON form of `value`.
    pub fn put_json<T: Serialize>(&mut self, table: Table, key: &[u8], value: &T) -> Result<(), StoreError> {
        let value = to_json(table.name(), value)?;
        self.put(table, key, &value);
        Ok(())
    }

    /// Removes a record; no harm if there is none.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.bytes += key.len();
        self.changes.push(Change::Delete { table, key: key.to_vec() });
    }

    /// Appends an entry to a lease's ledger. Entries are never changed nor removed.
    pub fn append(&mut self, lease: LeaseId, entry: &LedgerEntry) -> Result<(), StoreError> {
        let entry = to_json("ledger", entry)?;
        self.bytes += entry.len();
        self.changes.push(Change::Append { lease, entry });
        Ok(())
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What this batch is known by as long as somebody has it.
    pub(super) fn mark(&self) -> Weak<()> {
        Arc::downgrade(&self.mark)
    }

    /// Bytes of keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn to_json<T: Serialize>(table: &'static str, value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|e| StoreError::Json { table, why: e.to_string() })
}
