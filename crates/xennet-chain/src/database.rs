//! The file of a source that keeps what it read: of one network, open in one process at a time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bdk_wallet::rusqlite::{Connection, Error, OptionalExtension as _, Params, Result, Row, Transaction, params};
use bitcoin::Network;

use crate::ChainError;

/// How long another process may hold the file.
const BUSY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Database {
    db: Connection,
    path: PathBuf,
}

impl Database {
    /// Opens what an earlier run left, or makes it with these tables.
    pub(crate) fn open(dir: &Path, file: &str, tables: &str, network: Network) -> Result<Database, ChainError> {
        std::fs::create_dir_all(dir).map_err(ChainError::io("cannot make", dir))?;
        let path = dir.join(file);
        let db = Connection::open(&path).map_err(|why| failed(&path, &why))?;
        let database = Database { db, path };
        let prepare = || {
            database.db.busy_timeout(BUSY)?;
            database.db.execute_batch(
                "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
                 CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;",
            )?;
            database.db.execute_batch(tables)
        };
        prepare().map_err(|why| failed(&database.path, &why))?;
        database.claim(network)?;
        Ok(database)
    }

    fn claim(&self, network: Network) -> Result<(), ChainError> {
        let noted: Option<String> = self.one("SELECT value FROM meta WHERE name = 'network'", [], |row| row.get(0))?;
        let wanted = network.to_string();
        match noted {
            Some(found) if found != wanted => {
                Err(ChainError::WrongNetwork { what: self.path.display().to_string(), expected: wanted, found })
            }
            Some(_) => Ok(()),
            None => self.run("INSERT INTO meta VALUES ('network', ?1)", params![wanted]),
        }
    }

    /// The first row, if there is one.
    pub(crate) fn one<T>(
        &self,
        query: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>, ChainError> {
        let one = || self.db.prepare_cached(query)?.query_row(params, read).optional();
        one().map_err(|why| failed(&self.path, &why))
    }

    /// All rows.
    pub(crate) fn all<T>(&self, query: &str, params: impl Params, read: impl FnMut(&Row<'_>) -> Result<T>) -> Result<Vec<T>, ChainError> {
        let all = || self.db.prepare_cached(query)?.query_map(params, read)?.collect::<Result<_>>();
        all().map_err(|why| failed(&self.path, &why))
    }

    pub(crate) fn run(&self, statement: &str, params: impl Params) -> Result<(), ChainError> {
        self.db.execute(statement, params).map(|_| ()).map_err(|why| failed(&self.path, &why))
    }

    /// All of it, or nothing.
    pub(crate) fn together(&mut self, change: impl FnOnce(&Transaction<'_>) -> Result<()>) -> Result<(), ChainError> {
        let together = || {
            let commit = self.db.transaction()?;
            change(&commit)?;
            commit.commit()
        };
        together().map_err(|why| failed(&self.path, &why))
    }

    /// That what it holds cannot be read.
    pub(crate) fn broken(&self, why: String) -> ChainError {
        ChainError::Light { path: self.path.clone(), why }
    }
}

fn failed(path: &Path, why: &Error) -> ChainError {
    ChainError::Light { path: path.to_owned(), why: why.to_string() }
}
