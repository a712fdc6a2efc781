//! The chain as Xennet uses it: a source of blocks, a wallet, and transactions that carry announcements.
//!
//! [`Chain`] is one handle over whatever the chain comes from: the embedded regtest chain, whose blocks and scripts are checked by Bitcoin
//! Core's own code in process, a bitcoind, peers of the network that serve block filters, or an Electrum server; the sources are an `enum`
//! inside. [`Wallet`] follows a chain and builds transactions. [`payload_of`], [`relay_bytes`] and [`from_relay_bytes`] are for
//! announcements, also those that never saw a chain.
//!
//! This crate decides nothing: what is worth announcing, watching or paying is the business of its callers.

mod address;
mod announcement;
mod bitcoind;
mod chain;
mod database;
mod electrum;
mod embedded;
mod error;
mod estimate;
mod family;
mod follower;
mod light;
mod markers;
mod refusal;
mod refused;
mod secret;
mod source;
mod wallet;
mod watch;
mod wishes;

pub use address::{AddressError, parse_address};
pub use announcement::{
    MAX_PAYLOAD, MAX_RELAY, RelayError, carried, from_relay_bytes, marker_script, marker_witness_script, markers_around, pair_bytes,
    payload_of, relay_bytes,
};
pub use bitcoind::BitcoindAuth;
pub use chain::{Chain, ChainConfig, ChainEvent, Status};
pub use electrum::{ElectrumServer, ElectrumServerError};
pub use error::ChainError;
pub use family::Family;
pub use markers::Marker;
pub use refusal::Refusal;
pub use wallet::{
    Balance, Birthday, Bump, Coin, CoinState, HistoryEntry, Kept, Kind, Noted, Passphrase, PassphraseError, PreparedAnnouncement,
    Protection, Purpose, Seed, Sum, Sweep, Wallet, WalletError, Words, WordsError,
};
