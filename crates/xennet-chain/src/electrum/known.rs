//! What is known of scripts: the state that the server last told, and the transactions that touch them.

use std::collections::{HashMap, HashSet};

use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::{BlockHash, Script, ScriptBuf, Transaction, Txid};
use serde_json::{Value, json};

use super::Shared;
use super::line::{Failed, Line};
use crate::ChainError;
use crate::source::BlockAt;

/// Scripts remembered; beyond that all are asked for anew.
const MOST_SCRIPTS: usize = 50_000;
/// Most of a state that is remembered: it is a hash.
const MAX_STATE: usize = 64;
/// Unconfirmed transactions of one script that are looked at. Markers are paid by strangers.
const MOST_WAITING: usize = 1_000;

/// A transaction that touches a script, as the server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Item {
    pub(super) txid: Txid,
    /// `None`: it waits.
    pub(super) height: Option<u32>,
}

/// What the server says of a script.
#[derive(Debug, Default)]
struct State {
    /// A hash over the items; `None` if there are none.
    hash: Option<String>,
    items: Vec<Item>,
    /// The tip when this was last asked for.
    asked_at: Option<BlockHash>,
}

/// All scripts that were asked for, and unconfirmed transactions that touch them.
#[derive(Debug, Default)]
pub(super) struct Known {
    scripts: HashMap<sha256::Hash, State>,
    waiting: HashMap<Txid, Transaction>,
}

/// By what a server knows a script.
pub(super) fn script_hash(script: &Script) -> sha256::Hash {
    let mut bytes = sha256::Hash::hash(script.as_bytes()).to_byte_array();
    bytes.reverse();
    // In the order in which it is written, for a server writes it backwards.
    sha256::Hash::from_byte_array(bytes)
}

impl Known {
    /// The line is another one: nobody tells of changes any more.
    pub(super) fn ask_anew(&mut self) {
        for state in self.scripts.values_mut() {
            state.asked_at = None;
        }
    }

    pub(super) fn asked_at(&self, script: &Script, tip: BlockHash) -> bool {
        self.scripts.get(&script_hash(script)).is_some_and(|state| state.asked_at == Some(tip))
    }

    /// Items of these scripts, each once.
    pub(super) fn items<'a>(&self, scripts: impl IntoIterator<Item = &'a ScriptBuf>) -> Vec<Item> {
        let mut seen = HashSet::new();
        let states = scripts.into_iter().filter_map(|script| self.scripts.get(&script_hash(script)));
        states.flat_map(|state| &state.items).filter(|item| seen.insert(**item)).copied().collect()
    }

    /// Unconfirmed transactions of all scripts.
    pub(super) fn waiting(&self) -> Vec<Transaction> {
        self.waiting.values().cloned().collect()
    }

    pub(super) fn waits(&self, txid: &Txid) -> Option<&Transaction> {
        self.waiting.get(txid)
    }

    /// Drops what waits nowhere any more.
    fn tidy(&mut self) {
        let still: HashSet<Txid> =
            self.scripts.values().flat_map(|state| &state.items).filter(|item| item.height.is_none()).map(|item| item.txid).collect();
        self.waiting.retain(|txid, _| still.contains(txid));
    }
}

impl Shared {
    /// Asks how these scripts stand. Gives back those that changed; what cannot be had of those in `spare` is left as it was, for
    /// strangers can make a script's past too long for a server.
    pub(super) async fn refresh(
        &self,
        line: &Line,
        scripts: &[ScriptBuf],
        spare: &HashSet<ScriptBuf>,
    ) -> Result<Vec<ScriptBuf>, ChainError> {
        let tip = self.tip()?;
        if self.known().scripts.len() + scripts.len() > MOST_SCRIPTS {
            self.known().scripts.clear();
        }
        let mut changed = Vec::new();
        let asked = scripts.iter().map(|script| json!([script_hash(script).to_string()])).collect();
        for (script, answer) in scripts.iter().zip(line.call_each("blockchain.scripthash.subscribe", asked).await?) {
            let hash = match answer {
                Ok(Value::Null) => None,
                Ok(Value::String(hash)) if hash.len() <= MAX_STATE => Some(hash),
                Ok(_) => return Err(self.untrue("answers blockchain.scripthash.subscribe in a form that cannot be read".to_owned())),
                Err(Failed::Refused(why)) if spare.contains(script) => {
                    tracing::warn!(%why, "the server does not tell of a marker: announcements of its day may not be found");
                    continue;
                }
                Err(why) => return Err(line.plain("blockchain.scripthash.subscribe", why)),
            };
            let mut known = self.known();
            let state = known.scripts.entry(script_hash(script)).or_default();
            if state.hash == hash {
                state.asked_at = Some(tip.hash);
            } else {
                changed.push((script.clone(), hash));
            }
        }
        let asked = changed.iter().map(|(script, _)| json!([script_hash(script).to_string()])).collect();
        let answers = line.call_each("blockchain.scripthash.get_history", asked).await?;
        let mut found = Vec::new();
        for ((script, hash), answer) in changed.into_iter().zip(answers) {
            let items = match answer {
                Ok(answer) => self.read_items(&answer)?,
                Err(Failed::Refused(why)) if spare.contains(&script) => {
                    tracing::warn!(%why, "the server does not tell of a marker: announcements of its day may not be found");
                    continue;
                }
                Err(why) => return Err(line.plain("blockchain.scripthash.get_history", why)),
            };
            self.known().scripts.insert(script_hash(&script), State { hash, items, asked_at: Some(tip.hash) });
            found.push(script);
        }
        self.known().tidy();
        Ok(found)
    }

    pub(super) fn read_items(&self, answer: &Value) -> Result<Vec<Item>, ChainError> {
        let unreadable = || self.untrue("answers blockchain.scripthash.get_history in a form that cannot be read".to_owned());
        let mut waiting = 0;
        let mut items = Vec::new();
        for entry in answer.as_array().ok_or_else(unreadable)? {
            let txid = entry.get("tx_hash").and_then(Value::as_str).and_then(|txid| txid.parse().ok()).ok_or_else(unreadable)?;
            let height = entry.get("height").and_then(Value::as_i64).ok_or_else(unreadable)?;
            // 0 and −1: it waits; the one rests on confirmed ones only.
            let height = if height > 0 { Some(u32::try_from(height).map_err(|_| unreadable())?) } else { None };
            waiting += usize::from(height.is_none());
            if height.is_some() || waiting <= MOST_WAITING {
                items.push(Item { txid, height });
            }
        }
        Ok(items)
    }

    /// The unconfirmed ones of these items, and those of blocks that are not known yet, as far as they can still be had.
    pub(super) async fn fetch_waiting(&self, line: &Line, items: &[Item], tip: BlockAt) -> Result<Vec<Transaction>, ChainError> {
        let txids = items.iter().filter(|item| item.height.is_none_or(|height| height > tip.height)).map(|item| item.txid);
        let (mut there, mut missing) = (Vec::new(), Vec::new());
        {
            let known = self.known();
            for txid in txids {
                match known.waits(&txid) {
                    Some(tx) => there.push(tx.clone()),
                    None => missing.push(txid),
                }
            }
        }
        for tx in self.fetch(line, &missing).await?.into_iter().flatten() {
            self.known().waiting.insert(tx.compute_txid(), tx.clone());
            there.push(tx);
        }
        Ok(crate::source::parents_first(there))
    }

    /// Transactions by their ids; `None` where the server has none.
    pub(super) async fn fetch(&self, line: &Line, txids: &[Txid]) -> Result<Vec<Option<Transaction>>, ChainError> {
        let answers = line.call_each("blockchain.transaction.get", txids.iter().map(|txid| json!([txid])).collect()).await?;
        let mut txs = Vec::with_capacity(txids.len());
        for (txid, answer) in txids.iter().zip(answers) {
            txs.push(match answer {
                Ok(raw) => {
                    let tx: Option<Transaction> = raw.as_str().and_then(|text| bitcoin::consensus::encode::deserialize_hex(text).ok());
                    match tx {
                        Some(tx) if tx.compute_txid() == *txid => Some(tx),
                        _ => return Err(self.untrue(format!("gave for transaction {txid} what is not that transaction"))),
                    }
                }
                Err(Failed::Refused(_)) => None,
                Err(why) => return Err(line.plain("blockchain.transaction.get", why)),
            });
        }
        Ok(txs)
    }
}
