//! What a light client keeps: headers, filters, and the few transactions that mattered. All of it can be had again from peers,
//! except own transactions that wait, which whoever made them keeps as well.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bdk_wallet::rusqlite::{Connection, OptionalExtension as _, params};
use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, Network, Transaction, Txid};

use crate::ChainError;
use crate::source::BlockAt;

/// The file in the source's directory.
const FILE: &str = "light.sqlite";
/// Most transactions remembered that were told of.
const MOST_TOLD: u32 = 100_000;
/// How long another process may hold the file.
const BUSY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Store {
    db: Connection,
    path: PathBuf,
}

impl Store {
    /// Opens what an earlier run left, or makes it. One process at a time.
    pub(super) fn open(dir: &Path, network: Network) -> Result<Store, ChainError> {
        std::fs::create_dir_all(dir).map_err(ChainError::io("cannot make", dir))?;
        let path = dir.join(FILE);
        let db = Connection::open(&path).map_err(|why| ChainError::Light { path: path.clone(), why: why.to_string() })?;
        let store = Store { db, path };
        store.db.busy_timeout(BUSY).map_err(|why| store.failed(why))?;
        store
            .db
            .execute_batch(
                "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
                 CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
                 CREATE TABLE IF NOT EXISTS headers (height INTEGER PRIMARY KEY, header BLOB NOT NULL) STRICT;
                 CREATE TABLE IF NOT EXISTS filters (height INTEGER PRIMARY KEY, hash BLOB NOT NULL, filter BLOB NOT NULL) STRICT;
                 CREATE TABLE IF NOT EXISTS told (
                     txid BLOB PRIMARY KEY, tx BLOB NOT NULL, height INTEGER NOT NULL, hash BLOB NOT NULL) STRICT;
                 CREATE TABLE IF NOT EXISTS own (txid BLOB PRIMARY KEY, tx BLOB NOT NULL) STRICT;",
            )
            .map_err(|why| store.failed(why))?;
        store.claim(network)?;
        Ok(store)
    }

    fn claim(&self, network: Network) -> Result<(), ChainError> {
        let noted: Option<String> = self
            .db
            .query_row("SELECT value FROM meta WHERE name = 'network'", [], |row| row.get(0))
            .optional()
            .map_err(|why| self.failed(why))?;
        let wanted = network.to_string();
        match noted {
            Some(found) if found != wanted => {
                Err(ChainError::WrongNetwork { what: self.path.display().to_string(), expected: wanted, found })
            }
            Some(_) => Ok(()),
            None => self.run("INSERT INTO meta VALUES ('network', ?1)", params![wanted]),
        }
    }

    /// The newest headers, without gaps, at most `most`.
    pub(super) fn headers(&self, most: u32) -> Result<BTreeMap<u32, Header>, ChainError> {
        let mut query =
            self.db.prepare("SELECT height, header FROM headers ORDER BY height DESC LIMIT ?1").map_err(|why| self.failed(why))?;
        let rows =
            query.query_map(params![most], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, Vec<u8>>(1)?))).map_err(|why| self.failed(why))?;
        let mut headers: BTreeMap<u32, Header> = BTreeMap::new();
        for row in rows {
            let (height, bytes) = row.map_err(|why| self.failed(why))?;
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
        let path = self.path.clone();
        let failed = |why: bdk_wallet::rusqlite::Error| ChainError::Light { path: path.clone(), why: why.to_string() };
        let commit = self.db.transaction().map_err(failed)?;
        for (height, header) in headers {
            commit.execute("INSERT OR REPLACE INTO headers VALUES (?1, ?2)", params![height, serialize(header)]).map_err(failed)?;
        }
        commit.execute("DELETE FROM headers WHERE height > ?1", params![last]).map_err(failed)?;
        commit.commit().map_err(failed)
    }

    pub(super) fn put_filter(&self, at: BlockAt, filter: &[u8]) -> Result<(), ChainError> {
        self.run("INSERT OR REPLACE INTO filters VALUES (?1, ?2, ?3)", params![at.height, at.hash.as_byte_array(), filter])
    }

    /// The filter of this block, if it is here.
    pub(super) fn filter(&self, at: BlockAt) -> Result<Option<Vec<u8>>, ChainError> {
        let query = "SELECT filter FROM filters WHERE height = ?1 AND hash = ?2";
        self.db.query_row(query, params![at.height, at.hash.as_byte_array()], |row| row.get(0)).optional().map_err(|why| self.failed(why))
    }

    pub(super) fn drop_filter(&self, at: BlockAt) -> Result<(), ChainError> {
        self.run("DELETE FROM filters WHERE height = ?1 AND hash = ?2", params![at.height, at.hash.as_byte_array()])
    }

    /// Which blocks have their filter here.
    pub(super) fn filtered(&self) -> Result<BTreeMap<u32, BlockHash>, ChainError> {
        let mut query = self.db.prepare("SELECT height, hash FROM filters").map_err(|why| self.failed(why))?;
        let rows = query
            .query_map([], |row| Ok((row.get::<_, u32>(0)?, BlockHash::from_byte_array(row.get(1)?))))
            .map_err(|why| self.failed(why))?;
        rows.collect::<Result<_, _>>().map_err(|why| self.failed(why))
    }

    /// Drops filters of blocks below this height.
    pub(super) fn drop_filters_below(&self, height: u32) -> Result<(), ChainError> {
        self.run("DELETE FROM filters WHERE height < ?1", params![height])
    }

    /// Remembers a transaction that mattered, with its block.
    pub(super) fn put_told(&self, tx: &Transaction, at: BlockAt) -> Result<(), ChainError> {
        self.run(
            "INSERT OR REPLACE INTO told VALUES (?1, ?2, ?3, ?4)",
            params![tx.compute_txid().as_byte_array(), serialize(tx), at.height, at.hash.as_byte_array()],
        )?;
        let most = MOST_TOLD;
        self.run("DELETE FROM told WHERE rowid <= (SELECT max(rowid) FROM told) - ?1", params![most])
    }

    /// A transaction that mattered, and the block it was in.
    pub(super) fn told(&self, txid: &Txid) -> Result<Option<(Transaction, BlockAt)>, ChainError> {
        let found: Option<(Vec<u8>, u32, [u8; 32])> = self
            .db
            .query_row("SELECT tx, height, hash FROM told WHERE txid = ?1", params![txid.as_byte_array()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()
            .map_err(|why| self.failed(why))?;
        Ok(found.and_then(|(tx, height, hash)| {
            let tx = deserialize(&tx).ok()?;
            Some((tx, BlockAt { height, hash: BlockHash::from_byte_array(hash) }))
        }))
    }

    pub(super) fn put_own(&self, tx: &Transaction) -> Result<(), ChainError> {
        self.run("INSERT OR REPLACE INTO own VALUES (?1, ?2)", params![tx.compute_txid().as_byte_array(), serialize(tx)])
    }

    pub(super) fn drop_own(&self, txid: &Txid) -> Result<(), ChainError> {
        self.run("DELETE FROM own WHERE txid = ?1", params![txid.as_byte_array()])
    }

    /// Own transactions that are not buried yet.
    pub(super) fn own(&self) -> Result<Vec<Transaction>, ChainError> {
        let mut query = self.db.prepare("SELECT tx FROM own ORDER BY rowid").map_err(|why| self.failed(why))?;
        let rows = query.query_map([], |row| row.get::<_, Vec<u8>>(0)).map_err(|why| self.failed(why))?;
        let rows: Vec<Vec<u8>> = rows.collect::<Result<_, _>>().map_err(|why| self.failed(why))?;
        Ok(rows.iter().filter_map(|bytes| deserialize(bytes).ok()).collect())
    }

    fn run(&self, statement: &str, params: impl bdk_wallet::rusqlite::Params) -> Result<(), ChainError> {
        self.db.execute(statement, params).map(|_| ()).map_err(|why| self.failed(why))
    }

    fn failed(&self, why: bdk_wallet::rusqlite::Error) -> ChainError {
        ChainError::Light { path: self.path.clone(), why: why.to_string() }
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
