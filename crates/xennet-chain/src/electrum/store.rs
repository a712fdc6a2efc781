//! What is kept of the chain: headers, and the transactions that were proved to be in it. All of it can be had again from a server.

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
const FILE: &str = "electrum.sqlite";
/// Most proved transactions remembered.
const MOST_PROVED: u32 = 100_000;
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS headers (height INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, header BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS proved (
        txid BLOB PRIMARY KEY, tx BLOB NOT NULL, height INTEGER NOT NULL, hash BLOB NOT NULL, position INTEGER NOT NULL
    ) STRICT;
";

#[derive(Debug)]
pub(super) struct Store(Database);

/// A transaction that a branch led to the root of this block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proved {
    pub(super) tx: Transaction,
    pub(super) at: BlockAt,
    /// Its place in the block.
    pub(super) position: u32,
}

impl Store {
    /// Opens what an earlier run left, or makes it. One process at a time.
    pub(super) fn open(dir: &Path, network: Network) -> Result<Store, ChainError> {
        Database::open(dir, FILE, TABLES, network).map(Store)
    }

    /// The last header.
    pub(super) fn best(&self) -> Result<Option<BlockAt>, ChainError> {
        self.0.one("SELECT height, hash FROM headers ORDER BY height DESC LIMIT 1", [], |row| {
            Ok(BlockAt { height: row.get(0)?, hash: BlockHash::from_byte_array(row.get(1)?) })
        })
    }

    /// The header of this height, with its hash.
    pub(super) fn header(&self, height: u32) -> Result<Option<(BlockHash, Header)>, ChainError> {
        let found: Option<([u8; 32], Vec<u8>)> =
            self.0.one("SELECT hash, header FROM headers WHERE height = ?1", params![height], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let Some((hash, bytes)) = found else { return Ok(None) };
        let header = deserialize(&bytes).map_err(|why| self.0.broken(why.to_string()))?;
        Ok(Some((BlockHash::from_byte_array(hash), header)))
    }

    pub(super) fn at(&self, height: u32) -> Result<Option<BlockAt>, ChainError> {
        self.0.one("SELECT hash FROM headers WHERE height = ?1", params![height], |row| {
            Ok(BlockAt { height, hash: BlockHash::from_byte_array(row.get(0)?) })
        })
    }

    /// Where a block stands.
    pub(super) fn place(&self, hash: BlockHash) -> Result<Option<BlockAt>, ChainError> {
        self.0.one("SELECT height FROM headers WHERE hash = ?1", params![hash.as_byte_array()], |row| {
            Ok(BlockAt { height: row.get(0)?, hash })
        })
    }

    /// The headers from this height on, in order, at most so many.
    pub(super) fn headers(&self, from: u32, most: u32) -> Result<Vec<Header>, ChainError> {
        let query = "SELECT header FROM headers WHERE height >= ?1 ORDER BY height LIMIT ?2";
        let rows: Vec<Vec<u8>> = self.0.all(query, params![from, most], |row| row.get(0))?;
        rows.iter().map(|bytes| deserialize(bytes).map_err(|why| self.0.broken(why.to_string()))).collect()
    }

    /// Takes headers in from this height on, in the place of whatever stood there and above.
    pub(super) fn put_headers(&mut self, from: u32, headers: &[Header]) -> Result<(), ChainError> {
        self.0.together(|commit| {
            commit.execute("DELETE FROM headers WHERE height >= ?1", params![from])?;
            let mut insert = commit.prepare_cached("INSERT INTO headers VALUES (?1, ?2, ?3)")?;
            for (height, header) in (from..).zip(headers) {
                insert.execute(params![height, header.block_hash().as_byte_array(), serialize(header)])?;
            }
            Ok(())
        })
    }

    pub(super) fn put_proved(&self, proved: &Proved) -> Result<(), ChainError> {
        let Proved { tx, at, position } = proved;
        self.0.run(
            "INSERT OR REPLACE INTO proved VALUES (?1, ?2, ?3, ?4, ?5)",
            params![tx.compute_txid().as_byte_array(), serialize(tx), at.height, at.hash.as_byte_array(), position],
        )?;
        let most = MOST_PROVED;
        self.0.run("DELETE FROM proved WHERE rowid <= (SELECT max(rowid) FROM proved) - ?1", params![most])
    }

    /// A transaction that was once proved to be in a block, which need not be in the best chain any more.
    pub(super) fn proved(&self, txid: &Txid) -> Result<Option<Proved>, ChainError> {
        let read = |row: &Row<'_>| -> bdk_wallet::rusqlite::Result<(Vec<u8>, u32, [u8; 32], u32)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        };
        let found = self.0.one("SELECT tx, height, hash, position FROM proved WHERE txid = ?1", params![txid.as_byte_array()], read)?;
        Ok(found.and_then(|(tx, height, hash, position)| {
            let at = BlockAt { height, hash: BlockHash::from_byte_array(hash) };
            Some(Proved { tx: deserialize(&tx).ok()?, at, position })
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bitcoin::absolute::LockTime;
    use bitcoin::constants::genesis_block;
    use bitcoin::transaction::Version;

    use super::*;

    #[test]
    fn what_was_kept_is_there_again_and_branches_take_the_place_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut header = genesis_block(Network::Regtest).header;
        let mut headers = vec![header];
        for nonce in 1..=5 {
            header = Header { prev_blockhash: header.block_hash(), nonce, ..header };
            headers.push(header);
        }
        let tx = Transaction { version: Version::TWO, lock_time: LockTime::from_consensus(7), input: Vec::new(), output: Vec::new() };
        let proved = Proved { tx, at: BlockAt { height: 2, hash: headers[2].block_hash() }, position: 3 };
        let branch = Header { nonce: 77, ..headers[3] };
        {
            let mut store = Store::open(dir.path(), Network::Regtest).unwrap();
            assert_eq!(store.best().unwrap(), None);
            store.put_headers(0, &headers).unwrap();
            assert_eq!(store.best().unwrap(), Some(BlockAt { height: 5, hash: headers[5].block_hash() }));
            store.put_proved(&proved).unwrap();
            // A shorter branch than what stood there: nothing of the old one is left above it.
            store.put_headers(3, &[branch]).unwrap();
        }
        let store = Store::open(dir.path(), Network::Regtest).unwrap();
        let best = BlockAt { height: 3, hash: branch.block_hash() };
        assert_eq!((store.best().unwrap(), store.at(3).unwrap(), store.at(4).unwrap()), (Some(best), Some(best), None));
        assert_eq!(store.place(headers[3].block_hash()).unwrap(), None);
        assert_eq!(store.place(best.hash).unwrap(), Some(best));
        assert_eq!(store.headers(2, 9).unwrap(), [headers[2], branch]);
        assert_eq!(store.header(3).unwrap(), Some((best.hash, branch)));
        assert_eq!(store.proved(&proved.tx.compute_txid()).unwrap(), Some(proved));
        drop(store);
        let why = Store::open(dir.path(), Network::Signet).unwrap_err().to_string();
        assert!(why.contains("is for regtest, and signet was expected"), "{why}");
    }
}
