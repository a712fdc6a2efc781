//! Everything at one moment, for a backup that is made beside the writer.

use std::sync::PoisonError;

use redb::{ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use xennet_task::LeaseId;

use super::writer::{Bytes, LEDGER};
use super::{Store, StoreError, Table};

/// What the store held after one commit, decrypted.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Table, key and value.
    pub records: Vec<(Table, Vec<u8>, Vec<u8>)>,
    /// Entries of all ledgers as JSON, each lease's in order.
    pub ledgers: Vec<(LeaseId, Vec<u8>)>,
}

impl Store {
    /// All that is in the store, out of one read transaction, so that lease and ledger are of one moment. At most so many bytes.
    pub fn snapshot(&self, most_bytes: usize) -> Result<Snapshot, StoreError> {
        let guard = self.inner.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or_else(|| self.inner.shared.away())?;
        let transaction = database.begin_read().map_err(|e| self.failed(e))?;
        let mut bytes = 0;
        let mut snapshot = Snapshot::default();
        for table in Table::ALL {
            self.each(&transaction, TableDefinition::new(table.name()), table.name(), |key, value| {
                bytes += key.len() + value.len();
                snapshot.records.push((table, key.to_vec(), value));
                within(bytes, most_bytes)
            })?;
        }
        self.each(&transaction, LEDGER, "ledger", |key, value| {
            bytes += key.len() + value.len();
            let lease = key.first_chunk::<8>().copied().unwrap_or_default();
            snapshot.ledgers.push((LeaseId(lease), value));
            within(bytes, most_bytes)
        })?;
        Ok(snapshot)
    }

    fn each(
        &self,
        transaction: &ReadTransaction,
        definition: Bytes,
        name: &str,
        mut take: impl FnMut(&[u8], Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let opened = match transaction.open_table(definition) {
            Ok(opened) => opened,
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(e) => return Err(self.failed(e)),
        };
        for found in opened.iter().map_err(|e| self.failed(e))? {
            let (key, record) = found.map_err(|e| self.failed(e))?;
            take(key.value(), self.value(name, key.value(), record.value())?)?;
        }
        Ok(())
    }
}

fn within(bytes: usize, limit: usize) -> Result<(), StoreError> {
    if bytes > limit { Err(StoreError::TooLarge { bytes, limit }) } else { Ok(()) }
}
