//! A Bitcoin transaction, taken apart for people: what it costs and where its satoshis go.

use serde::{Deserialize, Serialize};

/// A transaction of the chain or the mempool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionView {
    /// Its id.
    pub txid: String,
    /// Height of the block that holds it; none while it waits.
    pub height: Option<u32>,
    /// Its size with witnesses, bytes.
    pub size_bytes: u64,
    /// Its size as fees count it, virtual bytes.
    pub vsize_vb: u64,
    /// What its inputs hold beyond its outputs, satoshi; none if an input is not known here, as those of a coinbase.
    pub fee_sat: Option<u64>,
    /// Bytes of an announcement that it carries; 0 if it carries none.
    pub payload_bytes: u64,
    /// What it spends.
    pub inputs: Vec<InputView>,
    /// What it pays, in order.
    pub outputs: Vec<OutputView>,
}

/// One input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputView {
    /// The transaction whose output it spends.
    pub txid: String,
    /// Which output.
    pub vout: u32,
    /// What that holds, satoshi; none if it is not known here.
    pub sat: Option<u64>,
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputView {
    /// What it holds, satoshi.
    pub sat: u64,
    /// Where it goes; none if its script has no address, as an announcement's data.
    pub address: Option<String>,
}
