//! Takes in the headers that a server gives, after they were checked.

use bip157::HashCheckpoint;
use bitcoin::block::Header;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::constants::genesis_block;
use bitcoin::{BlockHash, Network, Work};
use serde_json::{Value, json};

use super::Shared;
use super::line::Line;
use super::rules::{PERIOD, Rules};
use crate::ChainError;
use crate::source::BlockAt;

/// Headers asked for at once, the most that servers give.
const AT_ONCE: u32 = 2_016;
/// Deepest reorganisation that is followed. Far more than Bitcoin has ever taken back.
const MOST_BACK: u32 = 1_008;
/// Bytes of a header in hexadecimal.
const HEADER_HEX: usize = 160;

/// Where headers begin on the main network: the period that the checkpoint ends, for its first header decides the next difficulty.
const MAIN_BASE: u32 = 709_632 - PERIOD;

/// What a server says is the end of its chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) height: u32,
    pub(super) header: Header,
}

impl Shared {
    /// The lowest height of which there is a header.
    pub(super) fn base(&self) -> u32 {
        if self.settings.network == Network::Bitcoin { MAIN_BASE } else { 0 }
    }

    /// The block of the best chain at this height.
    pub(super) fn at(&self, height: u32) -> Result<Option<BlockAt>, ChainError> {
        if height == 0 {
            return Ok(Some(BlockAt { height, hash: genesis_block(self.settings.network).block_hash() }));
        }
        self.store().at(height)
    }

    pub(super) fn is_best(&self, at: BlockAt) -> Result<bool, ChainError> {
        Ok(self.at(at.height)? == Some(at))
    }

    /// Those of these blocks that are in the best chain, in the order given.
    pub(super) fn known_of(&self, locator: &[BlockHash]) -> Result<Vec<BlockAt>, ChainError> {
        let genesis = self.at(0)?;
        let store = self.store();
        let mut known = Vec::new();
        for hash in locator {
            match genesis.filter(|genesis| genesis.hash == *hash) {
                Some(genesis) => known.push(genesis),
                None => known.extend(store.place(*hash)?),
            }
        }
        Ok(known)
    }

    /// Takes in the chain that ends as the server has told, if it has more work than the one here.
    pub(super) async fn take_headers(&self, line: &Line, told: Told) -> Result<(), ChainError> {
        let end = BlockAt { height: told.height, hash: told.header.block_hash() };
        let mut best = self.begin(line).await?;
        if end == best {
            return Ok(());
        }
        if end.height == 0 && !self.is_best(end)? {
            return Err(self.untrue(format!("has a chain that begins with block {}", end.hash)));
        }
        if self.is_best(end)? || end.height <= self.base() {
            return Err(self.behind(end, best));
        }
        if told.height == best.height + 1 && told.header.prev_blockhash == best.hash {
            return self.extend(best, &[told.header]);
        }
        if told.height <= best.height || !self.goes_on(line, &mut best, told.height).await? {
            best = self.change_branch(line, best, end).await?;
        }
        while best.height < told.height {
            if !self.goes_on(line, &mut best, told.height).await? {
                return Err(self.away("its chain changed while its headers were read"));
            }
        }
        if best == end { Ok(()) } else { Err(self.away("its chain changed while its headers were read")) }
    }

    /// The last header; on the first run the first ones are taken in before.
    async fn begin(&self, line: &Line) -> Result<BlockAt, ChainError> {
        if let Some(best) = self.store().best()? {
            return Ok(best);
        }
        let network = self.settings.network;
        let mut headers = Vec::new();
        if network == Network::Bitcoin {
            let checkpoint = HashCheckpoint::taproot_activation();
            while headers.len() < usize::try_from(PERIOD).unwrap_or(usize::MAX) {
                let from = MAIN_BASE + u32::try_from(headers.len()).unwrap_or(u32::MAX);
                headers.extend(self.headers(line, from, checkpoint.height + 1 - from).await?);
            }
            let linked = headers.windows(2).all(|pair| matches!(pair, [one, next] if next.prev_blockhash == one.block_hash()));
            if !linked || headers.last().map(Header::block_hash) != Some(checkpoint.hash) {
                return Err(self.untrue(format!("gave headers that do not lead to block {} ({})", checkpoint.height, checkpoint.hash)));
            }
        } else {
            headers.push(genesis_block(network).header);
        }
        let mut store = self.store();
        store.put_headers(self.base(), &headers)?;
        store.best()?.ok_or_else(|| self.away("no header is here yet"))
    }

    /// Takes in what follows the best chain here, as far as one answer has it. `false`: the server's chain is another one.
    async fn goes_on(&self, line: &Line, best: &mut BlockAt, to: u32) -> Result<bool, ChainError> {
        let headers = self.headers(line, best.height + 1, to - best.height).await?;
        if headers.first().is_none_or(|first| first.prev_blockhash != best.hash) {
            return Ok(false);
        }
        self.extend(*best, &headers)?;
        *best = self.store().best()?.unwrap_or(*best);
        if best.height.is_multiple_of(20_160) {
            tracing::info!(height = best.height, of = to, "headers are read");
        }
        Ok(true)
    }

    /// Checks headers that follow a block of the best chain, and puts them after it.
    fn extend(&self, after: BlockAt, headers: &[Header]) -> Result<(), ChainError> {
        let mut rules = self.rules(after.height)?;
        for header in headers {
            rules.check(*header).map_err(|why| self.untrue(why))?;
        }
        self.store().put_headers(after.height + 1, headers)
    }

    /// Finds where the server's chain parts from the one here, and takes its branch if that has more work.
    async fn change_branch(&self, line: &Line, best: BlockAt, end: BlockAt) -> Result<BlockAt, ChainError> {
        let mut from = best.height.min(end.height).max(self.base() + 1);
        let mut step = 1;
        let (fork, branch) = loop {
            let headers = self.headers(line, from, end.height - from + 1).await?;
            let before = self.at(from - 1)?.ok_or_else(|| self.away("a header is missing here"))?;
            if headers.first().is_some_and(|first| first.prev_blockhash == before.hash) {
                let mut fork = before;
                let mut parting = headers.len();
                for (nth, header) in headers.iter().enumerate() {
                    let at = BlockAt { height: fork.height + 1, hash: header.block_hash() };
                    if !self.is_best(at)? {
                        parting = nth;
                        break;
                    }
                    fork = at;
                }
                break (fork, headers.get(parting..).unwrap_or_default().to_vec());
            }
            if from <= self.base() + 1 || best.height.saturating_sub(from) >= MOST_BACK {
                let last = best.height.saturating_sub(MOST_BACK).max(self.base());
                return Err(self.untrue(format!("has a chain that parts from the one known here before block {last}")));
            }
            from = from.saturating_sub(step).max(best.height.saturating_sub(MOST_BACK)).max(self.base() + 1);
            step *= 2;
        };
        let mut rules = self.rules(fork.height)?;
        for header in &branch {
            rules.check(*header).map_err(|why| self.untrue(why))?;
        }
        let mut store = self.store();
        let ours = store.headers(fork.height + 1, best.height - fork.height)?;
        if work(&branch) <= work(&ours) {
            drop(store);
            return Err(self.behind(end, best));
        }
        store.put_headers(fork.height + 1, &branch)?;
        store.best()?.ok_or_else(|| self.away("a header is missing here"))
    }

    /// What a header after this height of the best chain must be.
    pub(super) fn rules(&self, height: u32) -> Result<Rules, ChainError> {
        // From the beginning of the period before, so that the last times are there, too.
        let from = (height - height % PERIOD).saturating_sub(PERIOD).max(self.base());
        let headers = self.store().headers(from, height - from + 1)?;
        let mut headers = headers.into_iter();
        let first = headers.next().ok_or_else(|| self.away("a header is missing here"))?;
        let mut rules = Rules::after(self.settings.network, from, first);
        headers.for_each(|header| rules.go_on(header));
        Ok(rules)
    }

    /// At least one header from this height on, and at most so many.
    pub(super) async fn headers(&self, line: &Line, from: u32, count: u32) -> Result<Vec<Header>, ChainError> {
        let most = count.min(AT_ONCE);
        let answer = line.ask("blockchain.block.headers", json!([from, most])).await?;
        let text = answer.get("hex").and_then(Value::as_str).unwrap_or_default();
        let fits = !text.is_empty() && text.is_ascii() && text.len() % HEADER_HEX == 0 && text.len() / HEADER_HEX <= most as usize;
        if !fits {
            return Err(self.untrue(format!("gave no headers for block {from} and after, though it says that its chain has them")));
        }
        let part = |nth: usize| text.get(nth * HEADER_HEX..(nth + 1) * HEADER_HEX).unwrap_or_default();
        let headers = (0..text.len() / HEADER_HEX).map(|nth| deserialize_hex(part(nth)));
        headers.collect::<Result<_, _>>().map_err(|why| self.untrue(format!("gave headers that cannot be read ({why})")))
    }

    /// Reads what the server says is the end of its chain.
    pub(super) fn told(&self, value: &Value) -> Result<Told, ChainError> {
        let height = value.get("height").and_then(Value::as_u64).and_then(|height| u32::try_from(height).ok());
        let header = value.get("hex").and_then(Value::as_str).and_then(|hex| deserialize_hex(hex).ok());
        match (height, header) {
            (Some(height), Some(header)) if height < u32::MAX / 2 => Ok(Told { height, header }),
            _ => Err(self.untrue("names the end of its chain in a form that cannot be read".to_owned())),
        }
    }

    fn behind(&self, end: BlockAt, best: BlockAt) -> ChainError {
        ChainError::Behind { url: self.url(), its_height: end.height, best_height: best.height }
    }
}

fn work(headers: &[Header]) -> Work {
    headers.iter().fold(Work::from_be_bytes([0; 32]), |sum, header| sum + header.work())
}
