//! One typical task, announced as a daemon would: real keys, a mined identity, a transaction of the wallet's on a chain of
//! its own. Its bytes are what is mined, refused and weighed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Transaction;
use bitcoin::hashes::Hash;
use rand::rngs::OsRng;
use secp256k1::{Keypair, SECP256K1};
use tokio::sync::mpsc;
use xennet_chain::{Chain, ChainConfig, Wallet};
use xennet_identity::{Anchor, Identity, IdentityTemplate, Role, TargetSchedule, WorkBits, grind};
use xennet_task::{Said, TaskFile, TaskId, Unworked};

use super::BenchError;
use crate::clock;
use crate::config::TUNNEL_PORT;
use crate::daemon::{Anchors, Inspector, LEAST_WORK_BITS};

/// What the wallet gets: enough for fees.
const COINS_SAT: u64 = 1_000_000;

/// The task of `xennet publish --example`, as bytes.
pub(crate) struct Sample {
    /// The announcement without its nonce.
    pub unworked: Unworked,
    /// The same, but with the least work that is relayed committed to.
    pub cheap: Unworked,
    /// What stands before the nonce in the transaction that carries `unworked`.
    pub prefix: Vec<u8>,
    /// What stands after it.
    pub suffix: Vec<u8>,
    /// Prefix and suffix for `cheap`.
    pub cheap_prefix: Vec<u8>,
    /// The transaction, with its work and signed.
    pub transaction: Transaction,
    /// The publisher's identity, without its nonce.
    pub template: IdentityTemplate,
    /// The work that `unworked` commits to.
    pub work_bits: u8,
    /// Checks announcements against that chain.
    pub inspector: Inspector,
}

impl Sample {
    /// Makes it, with a chain and a wallet in `dir`.
    pub(crate) async fn make(dir: &Path) -> Result<Sample, BenchError> {
        // Nobody listens: the chain's events are about this wallet alone.
        let (events, _told) = mpsc::channel(1024);
        let config = ChainConfig::Embedded { dir: dir.join("sample-chain"), block_interval: Duration::ZERO };
        let chain = Chain::open(config, events).await?;
        let sample = Sample::announce(&chain, &dir.join("sample-wallet")).await;
        chain.close().await;
        sample
    }

    async fn announce(chain: &Chain, dir: &Path) -> Result<Sample, BenchError> {
        std::fs::create_dir_all(dir).map_err(|source| BenchError::io("make a directory for a wallet", dir, source))?;
        let wallet = Wallet::open(dir, chain.network())?;
        chain.faucet(wallet.address()?.script_pubkey(), COINS_SAT).await?;
        chain.generate(1).await?;
        wallet.sync(chain).await?;

        let schedule = TargetSchedule::REGTEST;
        let (tip, tip_hash) = chain.tip().await?;
        let anchors = Arc::new(Anchors::default());
        anchors.set_tip(tip, tip_hash.to_byte_array());
        let height = tip.saturating_sub(schedule.min_anchor_age);
        let block = chain.block_hash(height).await?.ok_or(BenchError::Sample { why: format!("the new chain has no block {height}") })?;
        let anchor = Anchor { height, hash: block.to_byte_array() };
        anchors.set(height, anchor.hash);

        let key = Keypair::new(SECP256K1, &mut OsRng);
        let template = IdentityTemplate { role: Role::Publisher, key: key.public_key(), anchor };
        let target = schedule.target_at(height);
        let nonce = template.search(&target, 0, u64::MAX).ok_or_else(|| not_found("identity"))?;
        let (task, work_bits) = task(template.with_nonce(nonce))?;
        let unworked = Unworked::sign(&task, work_bits, &key)?;
        let cheap = Unworked::sign(&task, LEAST_WORK_BITS, &key)?;

        let feerate = chain.feerate().await?;
        let prepared = wallet.prepare_announcement(cheap.as_bytes(), feerate)?;
        let cheap_prefix = prepared.prefix().to_vec();
        drop(prepared);
        let prepared = wallet.prepare_announcement(unworked.as_bytes(), feerate)?;
        let (prefix, suffix) = (prepared.prefix().to_vec(), prepared.suffix().to_vec());
        let nonce = grind(&prefix, &suffix, WorkBits(work_bits), 0, u64::MAX).ok_or_else(|| not_found("transaction"))?;
        let transaction = prepared.finish(nonce)?;
        let inspector = Inspector::new(anchors, schedule, LEAST_WORK_BITS);
        Ok(Sample { unworked, cheap, prefix, suffix, cheap_prefix, transaction, template, work_bits, inspector })
    }
}

fn task(publisher: Identity) -> Result<(Said, u8), BenchError> {
    let file = TaskFile::parse(TaskFile::example()).map_err(|why| BenchError::Sample { why: why.to_string() })?;
    let host_key = xennet_tunnel::public_key(&[5; 32]);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, TUNNEL_PORT));
    let now = u32::try_from(clock::unix_s()).unwrap_or(u32::MAX);
    Ok((Said::Task(file.task(TaskId([6; 8]), publisher, host_key, address, now)), file.work_bits))
}

fn not_found(what: &str) -> BenchError {
    BenchError::Sample { why: format!("no nonce gives the {what} its work") }
}
