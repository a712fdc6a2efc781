//! What can go wrong, each with both numbers and the remedy.

use std::path::PathBuf;

use bitcoin::Txid;
use serde::{Deserialize, Serialize};

use crate::Refusal;

/// Why a chain could not be opened or asked.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The mempool's or Bitcoin's rules forbid the transaction.
    #[error("transaction {txid} was refused")]
    Refused {
        /// The transaction.
        txid: Txid,
        /// The rule.
        #[source]
        why: Refusal,
    },
    /// Another process holds the directory and does not answer on its socket.
    #[error(
        "{dir} is in use by process {pid}, which does not answer on {dir}/chain.sock within {waited_s} s: \
         end that process or choose another directory",
        dir = dir.display()
    )]
    Locked {
        /// The chain's directory.
        dir: PathBuf,
        /// The process that holds it, 0 if it did not say.
        pid: u32,
        /// Seconds waited for an answer.
        waited_s: u64,
    },
    /// Bitcoin Core's code refuses to run with less than this.
    #[error(
        "{dir} has {free_mib} MiB free, and the chain needs {need_mib} MiB: free some space or choose a directory on another disk",
        dir = dir.display()
    )]
    DiskFull {
        /// The chain's directory.
        dir: PathBuf,
        /// What is left.
        free_mib: u64,
        /// What is needed.
        need_mib: u64,
    },
    /// Two parts speak of different networks.
    #[error("{what} is for {found}, and {expected} was expected: give it another directory or another network")]
    WrongNetwork {
        /// What was opened.
        what: String,
        /// The network that was expected.
        expected: String,
        /// The network that was found.
        found: String,
    },
    /// Nobody hosts the chain, and this process could not take over in time.
    #[error("the chain in {dir} has not answered for {waited_s} s ({why}): it will be tried again", dir = dir.display())]
    Unreachable {
        /// The chain's directory.
        dir: PathBuf,
        /// Seconds waited.
        waited_s: u64,
        /// The last trouble.
        why: String,
    },
    /// The host went away in the middle of a request that must not be made twice.
    #[error("the chain's host went away while it was asked to {what}: look at the chain before asking again")]
    Interrupted {
        /// What was asked.
        what: &'static str,
    },
    /// The faucet of the embedded chain has not enough ripe coins.
    #[error(
        "the faucet was asked for {asked_sat} sat and has {available_sat} sat that are 100 blocks old: \
         ask for less, or generate blocks first"
    )]
    FaucetEmpty {
        /// What was asked.
        asked_sat: u64,
        /// What could be given now.
        available_sat: u64,
    },
    /// A number outside its range.
    #[error("{field} is {value}, and must be {allowed}")]
    OutOfRange {
        /// What it counts.
        field: String,
        /// What was given.
        value: u64,
        /// What is allowed.
        allowed: String,
    },
    /// Only the embedded chain can do it.
    #[error("only the embedded chain has {what}, and this chain comes from {source_name}: choose the source `embedded` for that")]
    OnlyEmbedded {
        /// What was asked for.
        what: &'static str,
        /// The source in use.
        source_name: &'static str,
    },
    /// The address of a source that cannot be read.
    #[error("the address {url} cannot be used: {why}; write it as http://127.0.0.1:8332")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// bitcoind's cookie does not open it.
    #[error(
        "the cookie {path} does not open bitcoind at {url}: {why}; name the .cookie in the data directory of that bitcoind, or use \
         a user and password of its rpcauth",
        path = path.display()
    )]
    Cookie {
        /// Where bitcoind is.
        url: String,
        /// The cookie's file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// bitcoind does not accept the password.
    #[error("bitcoind at {url} does not accept the password of user {user}: compare it with rpcauth in its bitcoin.conf")]
    Password {
        /// Where bitcoind is.
        url: String,
        /// The user.
        user: String,
    },
    /// A source does not answer.
    #[error("{url} does not answer ({why}): see that it runs and that it can be reached from here")]
    Away {
        /// Where the source is.
        url: String,
        /// The last trouble.
        why: String,
    },
    /// No peer of the network answers.
    #[error(
        "no peer of the {network} network answered within {waited_s} s as it should (asked: {asked}; the last trouble: {why}): see that \
         this machine is connected, that they are on that network and serve block filters (peerblockfilters=1), or name others"
    )]
    NoPeers {
        /// The network.
        network: String,
        /// Who was asked.
        asked: String,
        /// Seconds without anything from anybody.
        waited_s: u64,
        /// What went wrong last.
        why: String,
    },
    /// A server's certificate is not the one that it was.
    #[error(
        "the certificate of {url} {why}: if the server's operator says that it was changed, remove {note}, else choose another server",
        note = note.display()
    )]
    Certificate {
        /// Where the server is.
        url: String,
        /// What is wrong with it.
        why: &'static str,
        /// The file that says which certificate it was.
        note: PathBuf,
    },
    /// A server said what does not hold when it is checked.
    #[error("the Electrum server {url} {what}: nothing of that was taken over; choose another server in chain.url")]
    Untrue {
        /// Where the server is.
        url: String,
        /// What it did.
        what: String,
    },
    /// A server has less of the chain than is known already.
    #[error(
        "the chain of {url} ends at block {its_height}, and one with as much work or more up to block {best_height} is known here: wait \
         until the server has caught up, or choose another server in chain.url"
    )]
    Behind {
        /// Where the server is.
        url: String,
        /// Where its chain ends.
        its_height: u32,
        /// Where the best chain known here ends.
        best_height: u32,
    },
    /// What a light client keeps cannot be read or written.
    #[error("{path}: {why}: end whoever else uses it, or remove it, what it held comes again from the network", path = path.display())]
    Light {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A pruned node no longer has a block.
    #[error(
        "block {height} is needed, and bitcoind at {url} has pruned all below {prune_height}: raise its prune= and reindex, \
         or choose another source for this once"
    )]
    Pruned {
        /// Where bitcoind is.
        url: String,
        /// The block.
        height: u32,
        /// The lowest block that it still has.
        prune_height: u32,
    },
    /// The chain changed again and again while it was read.
    #[error("the chain changed {tries} times while it was searched: try again in a moment")]
    Restless {
        /// How often it was tried.
        tries: u32,
    },
    /// A source answered what cannot be.
    #[error("{url} answered what cannot be used: {why}")]
    Answer {
        /// Where the source is.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// Bitcoin Core's code reported an error.
    #[error("Bitcoin's validation code: {0}")]
    Kernel(String),
    /// A file or socket failed.
    #[error("{what} {path}", path = path.display())]
    Io {
        /// What was tried, as in "cannot open".
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The other end of the socket said something that is not in the protocol.
    #[error("{dir}/chain.sock: {why}: both ends must be of one version of Xennet", dir = dir.display())]
    Protocol {
        /// The chain's directory.
        dir: PathBuf,
        /// What was wrong.
        why: String,
    },
}

impl ChainError {
    /// Whether the same request can succeed later without being changed.
    pub fn may_pass_later(&self) -> bool {
        match self {
            ChainError::Refused { why, .. } => why.may_pass_later(),
            ChainError::Unreachable { .. }
            | ChainError::Away { .. }
            | ChainError::NoPeers { .. }
            | ChainError::Behind { .. }
            | ChainError::Restless { .. }
            | ChainError::DiskFull { .. }
            | ChainError::FaucetEmpty { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> ChainError {
        let path = path.into();
        move |source| ChainError::Io { what, path, source }
    }
}

/// The errors a host can answer with. A part of [`ChainError`] that can be written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    Refused { txid: Txid, why: Refusal },
    DiskFull { dir: PathBuf, free_mib: u64, need_mib: u64 },
    FaucetEmpty { asked_sat: u64, available_sat: u64 },
    OutOfRange { field: String, value: u64, allowed: String },
    Kernel(String),
}

impl From<Fault> for ChainError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused { txid, why } => ChainError::Refused { txid, why },
            Fault::DiskFull { dir, free_mib, need_mib } => ChainError::DiskFull { dir, free_mib, need_mib },
            Fault::FaucetEmpty { asked_sat, available_sat } => ChainError::FaucetEmpty { asked_sat, available_sat },
            Fault::OutOfRange { field, value, allowed } => ChainError::OutOfRange { field, value, allowed },
            Fault::Kernel(why) => ChainError::Kernel(why),
        }
    }
}
