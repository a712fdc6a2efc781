//! What host and clients of the embedded chain say to each other over the socket.
//!
//! A frame is a length (u32, big-endian) and that many bytes of JSON. The host greets with [`Said::Hello`]; then the
//! client asks, one question at a time, and the host answers. After [`Ask::Subscribe`] facts come in between, in the
//! order in which they became true.

use bitcoin::consensus::serde::{Hex, With};
use bitcoin::{Block, BlockHash, Network, ScriptBuf, Transaction, Txid};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::Status;
use crate::error::Fault;

/// Changes with every change of this file that an older version cannot understand.
pub(super) const PROTOCOL: u32 = 1;
/// Longest question: a relayed transaction in hexadecimal, and its frame.
pub(super) const MAX_ASK: usize = 1_000_000;
/// Longest answer: the whole mempool in hexadecimal, or a full block.
pub(super) const MAX_SAID: usize = 16_000_000;

/// A transaction, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct HexTx(#[serde(with = "With::<Hex>")] pub(crate) Transaction);

/// A block, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct HexBlock(#[serde(with = "With::<Hex>")] pub(crate) Block);

/// A question.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    Tip,
    BlockHash {
        height: u32,
    },
    /// What follows the newest of these blocks that is in the best chain. Without any: the recent past.
    Since {
        locator: Vec<BlockHash>,
    },
    /// Facts from now on, if this is still the tip.
    Subscribe {
        tip: BlockHash,
    },
    Mempool,
    Transaction {
        txid: Txid,
    },
    /// Everything that pays to or spends from a script, after the first `skip`.
    History {
        script: ScriptBuf,
        skip: u32,
    },
    Broadcast {
        tx: HexTx,
    },
    Feerate,
    Faucet {
        script: ScriptBuf,
        sat: u64,
    },
    Generate {
        count: u32,
    },
    Reorganise {
        depth: u32,
        with: Vec<HexTx>,
    },
}

impl Ask {
    /// What is asked, if asking it twice could do it twice.
    pub(super) fn must_not_repeat(&self) -> Option<&'static str> {
        match self {
            Ask::Faucet { .. } => Some("pay from the faucet"),
            Ask::Generate { .. } => Some("generate blocks"),
            Ask::Reorganise { .. } => Some("reorganise the chain"),
            _ => None,
        }
    }
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    Tip {
        height: u32,
        hash: BlockHash,
    },
    BlockHash(Option<BlockHash>),
    Since(Since),
    /// The tip is another one by now.
    Moved,
    /// All that is unconfirmed, parents first.
    Mempool(Vec<HexTx>),
    Transaction(Option<(HexTx, Status)>),
    History(History),
    Txid(Txid),
    Feerate {
        sat_per_kvb: u64,
    },
    Hashes(Vec<BlockHash>),
}

/// What follows a known block. Whoever reaches `tip_height` has all of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Since {
    /// The newest block both know.
    pub(crate) fork_height: u32,
    pub(crate) fork_hash: BlockHash,
    /// The blocks after it, some at a time.
    pub(crate) blocks: Vec<HexBlock>,
    pub(crate) tip_height: u32,
}

/// A part of a script's past, in the order of the chain, then of arrival.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct History {
    pub(crate) past: Vec<(HexTx, Status)>,
    /// Where the next part begins, if this is not the last.
    pub(crate) next: Option<u32>,
}

/// Something became true.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fact {
    Disconnected {
        height: u32,
        hash: BlockHash,
    },
    Connected {
        height: u32,
        block: HexBlock,
    },
    /// Into the mempool.
    Entered(HexTx),
    /// Out of the mempool, unconfirmed.
    Left(Txid),
}

/// Anything from the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    Hello { protocol: u32, network: Network, genesis: BlockHash },
    Told(Result<Told, Fault>),
    Fact(Fact),
}

/// A frame, ready to be written.
pub(super) fn frame(what: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, what).map_err(std::io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).map_err(std::io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

/// Reads one frame of at most `at_most` bytes. `None` at the end of the stream.
pub(super) async fn read_frame<T: for<'a> Deserialize<'a>>(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    at_most: usize,
) -> std::io::Result<Option<T>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let length = u32::from_be_bytes(length) as usize;
    if length > at_most {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes, and at most {at_most} are allowed"),
        ));
    }
    let mut bytes = Vec::new();
    stream.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Ok(None);
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e))
}

/// Writes one frame.
pub(super) async fn write_frame(stream: &mut (impl tokio::io::AsyncWrite + Unpin), what: &impl Serialize) -> std::io::Result<()> {
    stream.write_all(&frame(what)?).await
}
