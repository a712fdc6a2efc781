//! What a light client keeps: headers, filters, and the few transactions that mattered. All of it can be had again from peers,
//! except own transactions that wait, which whoever made them keeps as well.

use std::collections::BTreeMap;
use std::path::Path;

use bdk_wallet::rusqlite::{Row, params};
use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, Network, Transaction, Txid};

use crate::ChainError;
use crate::database::Database;
use crate::source::BlockAt;

/// The file in the source's directory.
const FILE: &str = "light.sqlite";
/// Most transactions remembered that were told of.
const MOST_TOLD: u32 = 100_000;
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS headers (height INTEGER PRIMARY KEY, header BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS filters (height INTEGER PRIMARY KEY, hash BLOB NOT NULL, filter BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS told (
        txid BLOB PRIMARY KEY, tx BLOB NOT NULL, height INTEGER NOT NULL, hash BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS own (txid BLOB PRIMARY KEY, tx BLOB NOT NULL) STRICT;
";

#[derive(Debug)]
pub(super) struct Store(Database);

impl Store {
    /// Opens what an earlier run left, or makes it. One process at a time.
    pub(super) fn open(dir: &Path, network: Network) -> Result<Store, ChainError> {
        Database::open(dir, FILE, TABLES, network).map(Store)
    }

    /// The newest headers, without gaps, at most `most`.
    pub(super) fn headers(&self, most: u32) -> Result<BTreeMap<u32, Header>, ChainError> {
        let query = "SELECT height, header FROM headers ORDER BY height DESC LIMIT ?1";
        let rows: Vec<(u32, Vec<u8>)> = self.0.all(query, params![most], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut headers: BTreeMap<u32, Header> = BTreeMap::new();
        for (height, bytes) in rows {
            let Ok(header) = deserialize::<Header>(&bytes) else { break };
            let fits =
                headers.first_key_value().is_none_or(|(next, above)| *next == height + 1 && above.prev_blockhash == header.block_hash());
            if !fits {
                break;
            }
            headers.insert(height, header);
        }
        Ok(headers)
    }

    /// Takes headers in, in the place of whatever stood at these heights and above the last.
    pub(super) fn put_headers(&mut self, headers: &[(u32, Header)]) -> Result<(), ChainError> {
        let Some((last, _)) = headers.last() else { return Ok(()) };
        self.0.together(|commit| {
            for (height, header) in headers {
                commit.execute("INSERT OR REPLACE INTO headers VALUES (?1, ?2)", params![height, serialize(header)])?;
            }
            commit.execute("DELETE FROM headers WHERE height > ?1", params![last])?;
            Ok(())
        })
    }

    pub(super) fn put_filter(&self, at: BlockAt, filter: &[u8]) -> Result<(), ChainError> {
        self.0.run("INSERT OR REPLACE INTO filters VALUES (?1, ?2, ?3)", params![at.height, at.hash.as_byte_array(), filter])
    }

    /// The filter of this block, if it is here.
    pub(super) fn filter(&self, at: BlockAt) -> Result<Option<Vec<u8>>, ChainError> {
        let query = "SELECT filter FROM filters WHERE height = ?1 AND hash = ?2";
        self.0.one(query, params![at.height, at.hash.as_byte_array()], |row| row.get(0))
    }

    pub(super) fn drop_filter(&self, at: BlockAt) -> Result<(), ChainError> {
        self.0.run("DELETE FROM filters WHERE height = ?1 AND hash = ?2", params![at.height, at.hash.as_byte_array()])
    }

    /// Which blocks have their filter here.
    pub(super) fn filtered(&self) -> Result<BTreeMap<u32, BlockHash>, ChainError> {
        let rows = self.0.all("SELECT height, hash FROM filters", [], |row| Ok((row.get(0)?, BlockHash::from_byte_array(row.get(1)?))))?;
        Ok(rows.into_iter().collect())
    }

    /// Drops filters of blocks below this height.
    pub(super) fn drop_filters_below(&self, height: u32) -> Result<(), ChainError> {
        self.0.run("DELETE FROM filters WHERE height < ?1", params![height])
    }

    /// Remembers a transaction that mattered, with its block.
    pub(super) fn put_told(&self, tx: &Transaction, at: BlockAt) -> Result<(), ChainError> {
        self.0.run(
            "INSERT OR REPLACE INTO told VALUES (?1, ?2, ?3, ?4)",
            params![tx.compute_txid().as_byte_array(), serialize(tx), at.height, at.hash.as_byte_array()],
        )?;
        let most = MOST_TOLD;
        self.0.run("DELETE FROM told WHERE rowid <= (SELECT max(rowid) FROM told) - ?1", params![most])
    }

    /// A transaction that mattered, and the block it was in.
    pub(super) fn told(&self, txid: &Txid) -> Result<Option<(Transaction, BlockAt)>, ChainError> {
        let query = "SELECT tx, height, hash FROM told WHERE txid = ?1";
        let read =
            |row: &Row<'_>| -> bdk_wallet::rusqlite::Result<(Vec<u8>, u32, [u8; 32])> { Ok((row.get(0)?, row.get(1)?, row.get(2)?)) };
        let found = self.0.one(query, params![txid.as_byte_array()], read)?;
        Ok(found.and_then(|(tx, height, hash)| {
            let tx = deserialize(&tx).ok()?;
            Some((tx, BlockAt { height, hash: BlockHash::from_byte_array(hash) }))
        }))
    }

    pub(super) fn put_own(&self, tx: &Transaction) -> Result<(), ChainError> {
        self.0.run("INSERT OR REPLACE INTO own VALUES (?1, ?2)", params![tx.compute_txid().as_byte_array(), serialize(tx)])
    }

    pub(super) fn drop_own(&self, txid: &Txid) -> Result<(), ChainError> {
        self.0.run("DELETE FROM own WHERE txid = ?1", params![txid.as_byte_array()])
    }

    /// Own transactions that are not buried yet.
    pub(super) fn own(&self) -> Result<Vec<Transaction>, ChainError> {
        let rows: Vec<Vec<u8>> = self.0.all("SELECT tx FROM own ORDER BY rowid", [], |row| row.get(0))?;
        Ok(rows.iter().filter_map(|bytes| deserialize(bytes).ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bitcoin::absolute::LockTime;
    use bitcoin::constants::genesis_block;
    use bitcoin::transaction::Version;

    use super::*;

    fn chain(count: u32) -> Vec<(u32, Header)> {
        let mut header = genesis_block(Network::Regtest).header;
        (1..=count)
            .map(|height| {
                header = Header { prev_blockhash: header.block_hash(), nonce: height, ..header };
                (height, header)
            })
            .collect()
    }

    #[test]
    fn what_was_kept_is_there_again_and_branches_take_the_place_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let headers = chain(5);
        let at = |nth: usize| BlockAt { height: headers[nth].0, hash: headers[nth].1.block_hash() };
        let tx = |lock: u32| Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(lock),
            input: Vec::new(),
            output: Vec::new(),
        };
        {
            let mut store = Store::open(dir.path(), Network::Regtest).unwrap();
            store.put_headers(&headers).unwrap();
            store.put_filter(at(3), b"filter").unwrap();
            store.put_told(&tx(1), at(2)).unwrap();
            store.put_own(&tx(2)).unwrap();
            store.put_own(&tx(3)).unwrap();
            store.drop_own(&tx(2).compute_txid()).unwrap();
            // A shorter branch than what stood there: nothing of the old one is left above it.
            let branch = Header { nonce: 77, ..headers[2].1 };
            store.put_headers(&[(3, branch)]).unwrap();
        }
        let store = Store::open(dir.path(), Network::Regtest).unwrap();
        let kept = store.headers(100).unwrap();
        assert_eq!(kept.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(kept[&3].nonce, 77);
        assert_eq!(store.headers(2).unwrap().keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(store.filter(at(3)).unwrap().unwrap(), b"filter");
        assert_eq!(store.filter(BlockAt { hash: at(2).hash, ..at(3) }).unwrap(), None, "a filter is one block's");
        assert_eq!(store.filtered().unwrap(), BTreeMap::from([(4, at(3).hash)]));
        store.drop_filter(BlockAt { hash: at(2).hash, ..at(3) }).unwrap();
        assert!(store.filter(at(3)).unwrap().is_some());
        assert_eq!(store.told(&tx(1).compute_txid()).unwrap().unwrap(), (tx(1), at(2)));
        assert_eq!(store.own().unwrap(), [tx(3)]);
        store.drop_filter(at(3)).unwrap();
        assert_eq!(store.filter(at(3)).unwrap(), None);
        store.put_filter(at(3), b"filter").unwrap();
        store.drop_filters_below(5).unwrap();
        assert!(store.filtered().unwrap().is_empty());
    }

    #[test]
    fn another_network_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path(), Network::Regtest).unwrap());
        let why = Store::open(dir.path(), Network::Signet).unwrap_err().to_string();
        assert!(why.contains("is for regtest, and signet was expected"), "{why}");
    }
}
