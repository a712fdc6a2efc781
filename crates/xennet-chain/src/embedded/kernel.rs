//! Bitcoin Core's own validation, in this process. What it calls valid is valid; nothing here decides that.

use std::path::Path;
use std::sync::{Arc, Mutex, Once, PoisonError};

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash as _;
use bitcoin::{Block, BlockHash, Transaction, TxOut};
use bitcoinkernel as core;
use bitcoinkernel::prelude::*;

use super::index::Coin;
use crate::ChainError;

/// The last error Bitcoin Core logged: its interface says that something failed, only its log says what.
static LAST_ERROR: Mutex<String> = Mutex::new(String::new());

struct ToTracing;

impl core::Log for ToTracing {
    fn log(&self, message: &str) {
        let message = message.trim_end();
        if message.contains("[error]") {
            message.clone_into(&mut LAST_ERROR.lock().unwrap_or_else(PoisonError::into_inner));
        }
        tracing::debug!(target: "bitcoin_core", "{message}");
    }
}

/// Without a reader Bitcoin Core keeps its log in memory for ever, so it gets one for the life of the process.
fn read_log_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| match core::Logger::new(ToTracing) {
        Ok(logger) => std::mem::forget(logger),
        Err(_) => core::disable_logging(),
    });
}

fn last_error() -> String {
    let last = LAST_ERROR.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_empty() { "no reason was logged".to_owned() } else { last.clone() }
}

/// What the callbacks told while a block was processed.
#[derive(Default)]
struct Told {
    verdict: Option<core::BlockValidationResult>,
    fatal: Option<String>,
}

/// The validation engine over one directory.
pub(super) struct Kernel {
    // Declared first, so that it is dropped, and flushed to disk, before the context that it uses.
    manager: core::ChainstateManager,
    _context: core::Context,
    told: Arc<Mutex<Told>>,
}

impl Kernel {
    /// Opens or creates the block store and the coin database under `dir`.
    pub(super) fn open(dir: &Path) -> Result<Kernel, ChainError> {
        read_log_once();
        let told = Arc::new(Mutex::new(Told::default()));
        let (checked, flush, fatal) = (told.clone(), told.clone(), told.clone());
        let context = core::ContextBuilder::new()
            .chain_type(core::ChainType::Regtest)
            .with_block_checked_validation(move |_: core::Block, state: core::BlockValidationStateRef<'_>| {
                // An invalid branch makes the old one be connected again, whose blocks are valid: the first no counts.
                if state.mode() != core::ValidationMode::Valid {
                    lock(&checked).verdict.get_or_insert(state.result());
                }
            })
            .with_flush_error_notification(move |message: String| lock(&flush).fatal = Some(message))
            .with_fatal_error_notification(move |message: String| lock(&fatal).fatal = Some(message))
            .build()
            .map_err(|_| ChainError::Kernel(last_error()))?;
        let data = dir.join("core");
        let blocks = data.join("blocks");
        let (Some(data), Some(blocks)) = (data.to_str(), blocks.to_str()) else {
            return Err(ChainError::Kernel(format!("{} is not UTF-8: choose another directory", dir.display())));
        };
        let manager = core::ChainstateManager::new(&context, data, blocks).map_err(|_| ChainError::Kernel(last_error()))?;
        manager.import_blocks().map_err(|_| ChainError::Kernel(last_error()))?;
        Ok(Kernel { manager, _context: context, told })
    }

    /// Whether a fatal error has made it useless.
    pub(super) fn is_broken(&self) -> bool {
        lock(&self.told).fatal.is_some()
    }

    /// Height of the best chain's last block.
    pub(super) fn height(&self) -> u32 {
        u32::try_from(self.manager.active_chain().height()).unwrap_or(0)
    }

    /// Hash of the best chain's block at this height.
    pub(super) fn hash_at(&self, height: u32) -> Option<BlockHash> {
        let entry = self.manager.active_chain().at_height(usize::try_from(height).ok()?)?;
        Some(BlockHash::from_byte_array(entry.block_hash().to_bytes()))
    }

    /// Whether the block is known, on whichever branch.
    pub(super) fn knows(&self, hash: &BlockHash) -> bool {
        self.manager.get_block_tree_entry(&core::BlockHash::from(hash.to_byte_array())).is_some()
    }

    /// Reads a block, on whichever branch.
    pub(super) fn block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        let entry = self.entry(hash)?;
        let block = self.manager.read_block_data(&entry).map_err(|_| ChainError::Kernel(last_error()))?;
        let bytes = block.consensus_encode().map_err(|e| ChainError::Kernel(e.to_string()))?;
        deserialize(&bytes).map_err(|e| ChainError::Kernel(format!("block {hash} cannot be read: {e}")))
    }

    /// The coins that a block spent: for each transaction but the coinbase, for each input.
    pub(super) fn spent_by(&self, hash: &BlockHash) -> Result<Vec<Vec<Coin>>, ChainError> {
        let entry = self.entry(hash)?;
        let undo = self.manager.read_spent_outputs(&entry).map_err(|_| ChainError::Kernel(last_error()))?;
        Ok(undo
            .iter()
            .map(|transaction| {
                transaction
                    .coins()
                    .map(|coin| {
                        let output = coin.output();
                        Coin {
                            output: TxOut {
                                value: bitcoin::Amount::from_sat(u64::try_from(output.value()).unwrap_or(0)),
                                script_pubkey: output.script_pubkey().to_bytes().into(),
                            },
                            height: coin.confirmation_height(),
                            is_coinbase: coin.is_coinbase(),
                        }
                    })
                    .collect()
            })
            .collect())
    }

    /// Hands a block to Bitcoin Core. `Ok` means that it is valid as far as it was checked; it is the new tip only if
    /// its branch has the most work.
    pub(super) fn process(&self, block: &Block) -> Result<(), ChainError> {
        let raw = core::Block::new(&serialize(block)).map_err(|_| ChainError::Kernel(last_error()))?;
        lock(&self.told).verdict = None;
        let result = self.manager.process_block(&raw);
        let mut told = lock(&self.told);
        if let Some(fatal) = &told.fatal {
            return Err(ChainError::Kernel(fatal.clone()));
        }
        match (result, told.verdict.take()) {
            (core::ProcessBlockResult::Rejected, None) => {
                Err(ChainError::Kernel(format!("block {} was rejected: {}", block.block_hash(), last_error())))
            }
            (_, Some(verdict)) => {
                Err(ChainError::Kernel(format!("block {} is invalid ({verdict:?}): {}", block.block_hash(), last_error())))
            }
            (_, None) => Ok(()),
        }
    }

    fn entry(&self, hash: &BlockHash) -> Result<core::BlockTreeEntry<'_>, ChainError> {
        self.manager
            .get_block_tree_entry(&core::BlockHash::from(hash.to_byte_array()))
            .ok_or_else(|| ChainError::Kernel(format!("block {hash} is unknown")))
    }
}

/// A transaction does not satisfy a script, or breaks a rule that needs no chain.
#[derive(Debug)]
pub(super) enum Broken {
    Shape(String),
    Script(usize),
}

/// Runs Bitcoin Core's context-free checks, then its interpreter on every input. `spent` are the outputs that the
/// inputs spend, in their order.
pub(super) fn check_transaction(tx: &Transaction, spent: &[TxOut]) -> Result<(), Broken> {
    check_under(core::VERIFY_ALL, tx, spent)
}

/// The same under some of the rules only: the published vectors say for which of them they hold.
pub(super) fn check_under(rules: core::ScriptVerificationFlags, tx: &Transaction, spent: &[TxOut]) -> Result<(), Broken> {
    let shape = |why: core::KernelError| Broken::Shape(why.to_string());
    let raw = core::Transaction::new(&serialize(tx)).map_err(shape)?;
    if let core::TxCheckResult::Invalid(why) = raw.check() {
        return Err(Broken::Shape(format!("{why:?}")));
    }
    let mut outputs = Vec::with_capacity(spent.len());
    for output in spent {
        let script = core::ScriptPubkey::new(output.script_pubkey.as_bytes()).map_err(shape)?;
        let sat = i64::try_from(output.value.to_sat()).unwrap_or(i64::MAX);
        outputs.push(core::TxOut::new(&script, sat));
    }
    let hashes = core::PrecomputedTransactionData::new(&raw, &outputs).map_err(shape)?;
    for (index, output) in outputs.iter().enumerate() {
        core::verify(&output.script_pubkey(), Some(output.value()), &raw, index, Some(rules), &hashes)
            .map_err(|_| Broken::Script(index))?;
    }
    Ok(())
}

/// Runs only Bitcoin Core's context-free checks.
pub(super) fn check_shape(tx: &Transaction) -> Result<(), String> {
    let raw = core::Transaction::new(&serialize(tx)).map_err(|e| e.to_string())?;
    match raw.check() {
        core::TxCheckResult::Valid => Ok(()),
        core::TxCheckResult::Invalid(why) => Err(format!("{why:?}")),
    }
}

fn lock(told: &Mutex<Told>) -> std::sync::MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
