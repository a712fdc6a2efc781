//! How the wallet learns what is on the chain.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bdk_wallet::chain::{BlockId, ChainPosition, ConfirmationBlockTime, TxUpdate};
use bdk_wallet::{KeychainKind, Update};
use bitcoin::{ScriptBuf, Transaction, Txid};

use super::{Inner, Ticket, Wallet, WalletError};
use crate::Chain;
use crate::source::{BlockAt, Found, Scan, Step};

/// How often a synchronisation begins anew because the chain changed under it.
const TRIES: u32 = 10;
/// Addresses looked at after the last one that is known to be used, on either keychain. BDK's own look-ahead.
const GAP: u32 = 25;

/// The wallet's scripts as far as they are looked at, and where each stands.
struct Scripts {
    list: Vec<ScriptBuf>,
    places: HashMap<ScriptBuf, (KeychainKind, u32)>,
}

impl Scripts {
    /// The last used place of each keychain in these transactions.
    fn used<'a>(&self, txs: impl IntoIterator<Item = &'a Transaction>) -> BTreeMap<KeychainKind, u32> {
        let mut used = BTreeMap::new();
        for output in txs.into_iter().flat_map(|tx| &tx.output) {
            if let Some((keychain, index)) = self.places.get(&output.script_pubkey) {
                let last = used.entry(*keychain).or_insert(*index);
                *last = (*last).max(*index);
            }
        }
        used
    }
}

impl Wallet {
    /// Takes over what happened on the chain since the last time: new blocks, blocks taken back, the mempool. To be
    /// called at each new tip; when nothing happened it costs one question.
    pub async fn sync(&self, chain: &Chain) -> Result<(), WalletError> {
        if chain.network() != self.network {
            let dir = self.lock().dir.clone();
            let (expected, found) = (chain.network().to_string(), self.network.to_string());
            return Err(WalletError::WrongNetwork { dir, expected, found });
        }
        let _one_at_a_time = self.syncing.lock().await;
        self.begin(chain).await?;
        let mut tries = 0;
        loop {
            let (locator, mut scripts) = {
                let inner = self.lock();
                (inner.locator(), inner.scripts(&BTreeMap::new()))
            };
            // Used addresses move the gap, and what lies behind it may have been paid in the same blocks: as long as that is
            // so, the same blocks are looked at again, and nothing of them is kept before.
            let (mut scan, used) = loop {
                let scan = chain.scan(locator.clone(), &scripts.list).await?;
                let used = scripts.used(scan.steps.iter().flat_map(|step| match &step.found {
                    Found::Block(_) => &[],
                    Found::Touching(txs) => txs.as_slice(),
                }));
                let more = self.lock().scripts(&used);
                if more.list.len() <= scripts.list.len() {
                    break (scan, used);
                }
                scripts = more;
            };
            let passed_over = self.lock().passed_over(&scan);
            if let Some(height) = passed_over {
                let Some(hash) = chain.block_hash(height).await? else {
                    // The other branch is still the shorter one.
                    return Err(WalletError::Restless { tries });
                };
                let step = Step { at: BlockAt { height, hash }, block_unix: 0, found: Found::Touching(Vec::new()) };
                let place = scan.steps.partition_point(|step| step.at.height < height);
                scan.steps.insert(place, step);
            }
            let tip_height = scan.tip_height;
            let reached = {
                let mut inner = self.lock();
                inner.apply(scan, &used)?;
                inner.persist()?;
                scripts = inner.scripts(&used);
                inner.bdk.latest_checkpoint().height()
            };
            if reached < tip_height {
                continue;
            }
            let mempool = chain.unconfirmed(&scripts.list).await?;
            let (_, tip) = chain.tip().await?;
            let mut inner = self.lock();
            // What was confirmed in between would be missing from both.
            if inner.bdk.latest_checkpoint().hash() == tip {
                inner.apply_mempool(mempool);
                return inner.persist();
            }
            drop(inner);
            tries += 1;
            if tries >= TRIES {
                return Err(WalletError::Restless { tries });
            }
        }
    }

    /// Height of the last block the wallet knows.
    pub fn height(&self) -> u32 {
        self.lock().bdk.latest_checkpoint().height()
    }
}

impl Inner {
    /// The newest checkpoints, then sparser ones, and the first.
    fn locator(&self) -> Vec<bitcoin::BlockHash> {
        let mut locator = Vec::new();
        let mut step = 1;
        let mut next = u32::MAX;
        for checkpoint in self.bdk.checkpoints() {
            if checkpoint.height() <= next || checkpoint.height() == 0 {
                locator.push(checkpoint.hash());
                if locator.len() > 10 {
                    step *= 2;
                }
                next = checkpoint.height().saturating_sub(step);
            }
        }
        locator
    }

    /// All scripts up to the gap after the last used ones, known or given.
    fn scripts(&self, used: &BTreeMap<KeychainKind, u32>) -> Scripts {
        let mut scripts = Scripts { list: Vec::new(), places: HashMap::new() };
        for keychain in [KeychainKind::External, KeychainKind::Internal] {
            let known = self.bdk.derivation_index(keychain).max(used.get(&keychain).copied());
            let count = known.map_or(0, |index| index.saturating_add(1)).saturating_add(GAP);
            for (index, script) in self.bdk.unbounded_spk_iter(keychain).take(usize::try_from(count).unwrap_or(usize::MAX)) {
                scripts.places.insert(script.clone(), (keychain, index));
                scripts.list.push(script);
            }
        }
        scripts
    }

    /// The height of the oldest own checkpoint after the fork, if the scan passes over it. BDK gives up its own branch only if
    /// it is told what stands there instead.
    fn passed_over(&self, scan: &Scan) -> Option<u32> {
        let above = self.bdk.checkpoints().map(|own| own.height()).take_while(|height| *height > scan.fork.height).last()?;
        let whole = scan.steps.first().is_some_and(|step| step.at.height == scan.fork.height + 1 && matches!(step.found, Found::Block(_)));
        (!whole && scan.steps.iter().all(|step| step.at.height != above)).then_some(above)
    }

    fn apply(&mut self, scan: Scan, used: &BTreeMap<KeychainKind, u32>) -> Result<(), WalletError> {
        let mut previous = scan.fork;
        let mut parts = Vec::new();
        for Step { at, block_unix, found } in scan.steps {
            match found {
                Found::Block(block) => {
                    self.apply_parts(previous, std::mem::take(&mut parts), used)?;
                    let astray = |why| WalletError::Build(format!("block {} does not connect: {why}", at.height));
                    self.bdk.apply_block_connected_to(&block, at.height, block_id(previous)).map_err(astray)?;
                    previous = at;
                }
                Found::Touching(txs) => parts.push((at, block_unix, txs)),
            }
        }
        self.apply_parts(previous, parts, used)
    }

    /// Blocks of which only some transactions are known. All at once, for BDK wants to see where the two chains part.
    fn apply_parts(
        &mut self,
        fork: BlockAt,
        parts: Vec<(BlockAt, u32, Vec<Transaction>)>,
        used: &BTreeMap<KeychainKind, u32>,
    ) -> Result<(), WalletError> {
        if parts.is_empty() {
            return Ok(());
        }
        let astray = |why: &str| WalletError::Build(format!("the blocks after {} do not connect: {why}", fork.height));
        let mut chain = self.bdk.latest_checkpoint();
        while chain.height() > fork.height {
            chain = chain.prev().ok_or_else(|| astray("no block before them is known"))?;
        }
        let places = std::iter::once(fork).chain(parts.iter().map(|(at, _, _)| *at)).filter(|at| at.height > chain.height());
        let chain = chain.clone().extend(places.map(block_id)).map_err(|_| astray("their heights do not grow"))?;
        let mut tx_update = TxUpdate::default();
        for (at, block_unix, txs) in parts {
            let anchor = ConfirmationBlockTime { block_id: block_id(at), confirmation_time: u64::from(block_unix) };
            tx_update.anchors.extend(txs.iter().map(|tx| (anchor, tx.compute_txid())));
            tx_update.txs.extend(txs.into_iter().map(Arc::new));
        }
        let update = Update { last_active_indices: used.clone(), tx_update, chain: Some(chain) };
        self.bdk.apply_update(update).map_err(|why| astray(&why.to_string()))
    }

    fn apply_mempool(&mut self, mempool: Vec<Transaction>) {
        let present: HashSet<Txid> = mempool.iter().map(Transaction::compute_txid).collect();
        let known: HashSet<Txid> = self
            .bdk
            .transactions()
            .filter(|tx| matches!(tx.chain_position, ChainPosition::Unconfirmed { .. }))
            .map(|tx| tx.tx_node.txid)
            .collect();
        let gone: Vec<Txid> = known.difference(&present).copied().collect();
        if !gone.is_empty() {
            let now = self.tick();
            self.bdk.apply_evicted_txs(gone.into_iter().map(|txid| (txid, now)));
        }
        let new: Vec<Transaction> = mempool.into_iter().filter(|tx| !known.contains(&tx.compute_txid())).collect();
        if !new.is_empty() {
            let now = self.tick();
            self.bdk.apply_unconfirmed_txs(new.into_iter().map(|tx| (tx, now)));
        }
        // What the chain knows needs no reservation: the coins are spent.
        let arrived: Vec<Ticket> = self.bdk.transactions().map(|tx| Ticket::Built(tx.tx_node.txid)).collect();
        for ticket in arrived {
            self.reservations.remove(&ticket);
        }
    }
}

fn block_id(at: BlockAt) -> BlockId {
    BlockId { height: at.height, hash: at.hash }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash as _;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, BlockHash, Network, TxOut};

    use super::*;

    fn at(height: u32, branch: u8) -> BlockAt {
        BlockAt { height, hash: BlockHash::from_byte_array([branch.wrapping_add(height as u8); 32]) }
    }

    fn payment(script: ScriptBuf, sat: u64) -> Transaction {
        let output = TxOut { value: Amount::from_sat(sat), script_pubkey: script };
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: Vec::new(), output: vec![output] }
    }

    fn scan(fork: BlockAt, steps: Vec<(BlockAt, Vec<Transaction>)>) -> Scan {
        let tip_height = steps.last().unwrap().0.height;
        let steps = steps.into_iter().map(|(at, txs)| Step { at, block_unix: 1_700_000_000, found: Found::Touching(txs) });
        Scan { fork, steps: steps.collect(), tip_height }
    }

    fn apply(wallet: &Wallet, scan: Scan) {
        let mut inner = wallet.lock();
        assert_eq!(inner.passed_over(&scan), None);
        let scripts = inner.scripts(&BTreeMap::new());
        let used = scripts.used(scan.steps.iter().flat_map(|step| match &step.found {
            Found::Touching(txs) => txs,
            Found::Block(_) => unreachable!("only parts of blocks here"),
        }));
        inner.apply(scan, &used).unwrap();
        inner.persist().unwrap();
    }

    #[test]
    fn a_source_that_names_only_what_touches_the_wallet_is_followed_through_gaps_and_reorganisations() {
        let dir = tempfile::tempdir().unwrap();
        let wallet = Wallet::open(dir.path(), Network::Regtest).unwrap();
        let script = |index: usize| wallet.lock().bdk.unbounded_spk_iter(KeychainKind::External).nth(index).unwrap().1;
        let genesis = wallet.lock().bdk.latest_checkpoint();
        let genesis = BlockAt { height: 0, hash: genesis.hash() };
        apply(&wallet, scan(genesis, vec![(at(50, 0), vec![payment(script(0), 1_000)]), (at(90, 0), vec![])]));
        apply(&wallet, scan(at(90, 0), vec![(at(96, 0), vec![payment(script(1), 20_000)]), (at(100, 0), vec![])]));
        assert_eq!(wallet.balance().confirmed_sat, 21_000);
        assert_eq!(wallet.height(), 100);

        // Another branch, of whose first blocks nothing is said, and that is not longer in this part.
        let mut branch = scan(at(90, 0), vec![(at(94, 100), vec![payment(script(24), 300_000)]), (at(98, 100), vec![])]);
        assert_eq!(wallet.lock().passed_over(&branch), Some(96));
        branch.steps.insert(1, Step { at: at(96, 100), block_unix: 0, found: Found::Touching(vec![]) });
        apply(&wallet, branch.clone());
        assert_eq!((wallet.height(), wallet.balance().confirmed_sat), (98, 301_000));
        let hashes = [at(98, 100).hash, at(96, 100).hash, at(94, 100).hash, at(90, 0).hash];
        assert_eq!(wallet.lock().locator()[..4], hashes, "nothing of the old branch is left");
        // Twice is the same as once, for parts are asked for again.
        apply(&wallet, branch);
        apply(&wallet, scan(at(98, 100), vec![(at(101, 100), vec![])]));
        assert_eq!((wallet.height(), wallet.balance().confirmed_sat), (101, 301_000));
        drop(wallet);
        let again = Wallet::open(dir.path(), Network::Regtest).unwrap();
        assert_eq!((again.height(), again.balance().confirmed_sat), (101, 301_000));
    }

    #[test]
    fn used_addresses_move_the_gap() {
        let dir = tempfile::tempdir().unwrap();
        let wallet = Wallet::open(dir.path(), Network::Regtest).unwrap();
        let inner = wallet.lock();
        let before = inner.scripts(&BTreeMap::new());
        assert_eq!(before.list.len(), 2 * 25);
        let far = inner.bdk.unbounded_spk_iter(KeychainKind::External).nth(20).unwrap().1;
        let used = before.used([&payment(far, 1_000)]);
        assert_eq!(used, BTreeMap::from([(KeychainKind::External, 20)]));
        assert_eq!(inner.scripts(&used).list.len(), 21 + 25 + 25);
    }
}
