//! Reading: straight from the database, beside the writer. Readers see whole commits only.

use std::sync::PoisonError;

use redb::{ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use serde::de::DeserializeOwned;
use xennet_lease::LedgerEntry;
use xennet_task::LeaseId;

use super::writer::{Bytes, LEDGER, ledger_key, ledger_length};
use super::{Store, StoreError, Table, record, sealer};
use crate::control::LedgerPage;

/// A record's key and value.
pub type KeyValue<T> = (Vec<u8>, T);

impl Store {
    /// A record's value.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(table.name(), |opened| {
            let found = opened.get(key).map_err(|e| self.failed(e))?;
            found.map(|found| self.value(table.name(), key, found.value())).transpose()
        })
        .map(Option::flatten)
    }

    /// A record's value, read as JSON.
    pub fn get_json<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.get(table, key)?.map(|value| from_json(table.name(), &value)).transpose()
    }

    /// All records of a table, by key. For the tables that hold what is alive; ledgers are read by page.
    pub fn scan(&self, table: Table) -> Result<Vec<KeyValue<Vec<u8>>>, StoreError> {
        let all = self.read(table.name(), |opened| {
            let mut all = Vec::new();
            for found in opened.iter().map_err(|e| self.failed(e))? {
                let (key, record) = found.map_err(|e| self.failed(e))?;
                let value = self.value(table.name(), key.value(), record.value())?;
                all.push((key.value().to_vec(), value));
            }
            Ok(all)
        })?;
        Ok(all.unwrap_or_default())
    }

    /// The records of a table that lie there in the clear.
    pub(super) fn bare(&self, table: Table) -> Result<Vec<KeyValue<Vec<u8>>>, StoreError> {
        let all = self.read(table.name(), |opened| {
            let mut bare = Vec::new();
            for found in opened.iter().map_err(|e| self.failed(e))? {
                let (key, record) = found.map_err(|e| self.failed(e))?;
                if record::open(table.name(), key.value(), record.value()).is_some_and(|(_, value)| !sealer::is_sealed(value)) {
                    bare.push((key.value().to_vec(), self.value(table.name(), key.value(), record.value())?));
                }
            }
            Ok(bare)
        })?;
        Ok(all.unwrap_or_default())
    }

    /// All records of a table, by key, read as JSON.
    pub fn scan_json<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<KeyValue<T>>, StoreError> {
        self.scan(table)?.into_iter().map(|(key, value)| Ok((key, from_json(table.name(), &value)?))).collect()
    }

    /// A page of a lease's ledger: at most `limit` entries from index `from`, and how many there are in all.
    pub fn ledger(&self, lease: LeaseId, from: u64, limit: u32) -> Result<LedgerPage, StoreError> {
        let page = self.read("ledger", |opened| {
            let total = ledger_length(opened, &lease.0).map_err(|e| self.failed(e))?;
            let first = ledger_key(&lease.0, from);
            let last = ledger_key(&lease.0, u64::MAX);
            let range = opened.range(first.as_slice()..=last.as_slice()).map_err(|e| self.failed(e))?;
            let mut entries: Vec<LedgerEntry> = Vec::new();
            for found in range.take(limit as usize) {
                let (key, record) = found.map_err(|e| self.failed(e))?;
                let value = self.value("ledger", key.value(), record.value())?;
                entries.push(from_json("ledger", &value)?);
            }
            Ok((total, entries))
        })?;
        let (total, entries) = page.unwrap_or_default();
        Ok(LedgerPage { lease, from, total, entries })
    }

    /// Runs `look` on a table; `None` if nothing was ever written to it.
    fn read<T>(
        &self,
        name: &'static str,
        look: impl FnOnce(&redb::ReadOnlyTable<&'static [u8], &'static [u8]>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let definition: Bytes = if name == "ledger" { LEDGER } else { TableDefinition::new(name) };
        let guard = self.inner.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or_else(|| self.inner.shared.away())?;
        let transaction: ReadTransaction = database.begin_read().map_err(|e| self.failed(e))?;
        match transaction.open_table(definition) {
            Ok(opened) => look(&opened).map(Some),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(e) => Err(self.failed(e)),
        }
    }

    pub(super) fn value(&self, table: &str, key: &[u8], found: &[u8]) -> Result<Vec<u8>, StoreError> {
        match record::open(table, key, found) {
            Some((_, value)) if sealer::is_sealed(value) => {
                let path = &self.inner.shared.path;
                let opened = self.inner.shared.sealer.get().and_then(|sealer| sealer.open(table, key, value));
                opened.ok_or_else(|| StoreError::OtherWallet { path: path.clone(), record: hex::encode(key) })
            }
            Some((_, value)) => Ok(value.to_vec()),
            None => Err(StoreError::damaged(
                &self.inner.shared.path,
                format!("the record {} of the table {table} has a wrong checksum", hex::encode(key)),
            )),
        }
    }

    pub(super) fn failed(&self, error: impl Into<redb::Error>) -> StoreError {
        StoreError::database("read", &self.inner.shared.path, error)
    }
}

fn from_json<T: DeserializeOwned>(table: &'static str, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|e| StoreError::Json { table, why: e.to_string() })
}
