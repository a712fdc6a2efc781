//! Making announcements: sign, put in the work, give the bytes for overlay and chain.

use std::sync::Arc;

use anyhow::Context;
use bitcoin::Transaction;
use xennet_chain::PreparedAnnouncement;
use xennet_identity::{Role, WorkBits, grind};
use xennet_task::{AnnouncementHash, Digest, Said, Unworked};

use super::inspect::TAG_BARE;
use super::shared::{LEAST_WORK_BITS, Shared};
use crate::control::{Quote, What};
use crate::mining::search;

/// An announcement that is ready to go out.
pub struct Ready {
    /// Its hash.
    pub hash: AnnouncementHash,
    /// The bytes for the overlay, tag included.
    pub message: Vec<u8>,
    /// The transaction that carries it, if one does.
    pub transaction: Option<Transaction>,
}

/// Makes an announcement for the overlay alone. The work is that of its bytes.
pub async fn for_overlay(shared: &Arc<Shared>, said: Said, role: Role, work_bits: u8) -> anyhow::Result<Ready> {
    let bits = work_bits.max(LEAST_WORK_BITS);
    let unworked = Unworked::sign(&said, bits, shared.keys.identity(role))?;
    let hash = unworked.hash();
    let nonce = work(shared, unworked.as_bytes().to_vec(), Vec::new(), bits).await?;
    let mut message = vec![TAG_BARE];
    message.extend(unworked.with_nonce(nonce));
    Ok(Ready { hash, message, transaction: None })
}

/// How much of an announcement its transaction holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Its hash; the rest travels beside it.
    Short,
    /// All of it.
    Full,
}

/// Makes an announcement that a Bitcoin transaction carries. The work is that of the transaction's id.
pub async fn for_chain(shared: &Arc<Shared>, said: Said, role: Role, work_bits: u8, form: Form) -> anyhow::Result<Ready> {
    let bits = work_bits.max(LEAST_WORK_BITS);
    let unworked = Unworked::sign(&said, bits, shared.keys.identity(role))?;
    let hash = unworked.hash();
    let prepared = prepare(shared, &said, &unworked, form).await?;
    let nonce = work(shared, prepared.prefix().to_vec(), prepared.suffix().to_vec(), bits).await?;
    let transaction = prepared.finish(nonce)?;
    let message = match form {
        Form::Full => xennet_chain::relay_bytes(&transaction),
        Form::Short => xennet_chain::pair_bytes(&transaction, unworked.as_bytes())
            .context("the transaction spends too many coins to travel on the overlay: send the wallet's coins to itself in one")?,
    };
    Ok(Ready { hash, message, transaction: Some(transaction) })
}

/// The transaction that would carry this, before any work is put in.
async fn prepare(shared: &Shared, said: &Said, unworked: &Unworked, form: Form) -> anyhow::Result<PreparedAnnouncement> {
    let feerate = shared.feerate().await?;
    shared.wallet.sync(&shared.chain).await?;
    let short = Digest::of(said, unworked).filter(|_| form == Form::Short).map(|digest| digest.encode());
    let payload = short.as_deref().unwrap_or(unworked.as_bytes());
    Ok(shared.wallet.prepare_announcement(payload, feerate)?)
}

/// What a transaction would cost that carries this, at the fees of now. Nothing is kept reserved.
pub async fn quote(shared: &Arc<Shared>, said: &Said, role: Role, work_bits: u8, form: Form) -> anyhow::Result<Quote> {
    let unworked = Unworked::sign(said, work_bits.max(LEAST_WORK_BITS), shared.keys.identity(role))?;
    let prepared = prepare(shared, said, &unworked, form).await?;
    let (fee_sat, marker_sat) = (prepared.fee_sat(), prepared.marker_sat());
    let transaction = prepared.finish(0)?;
    shared.wallet.release(&transaction.compute_txid());
    Ok(Quote { vbytes: transaction.vsize() as u64, fee_sat, marker_sat })
}

/// Searches the nonce on all cores, and tells how it goes.
async fn work(shared: &Arc<Shared>, prefix: Vec<u8>, suffix: Vec<u8>, bits: u8) -> anyhow::Result<u64> {
    let shared = Arc::clone(shared);
    let search = move || {
        let expected_hashes = 1_u64.checked_shl(u32::from(bits)).unwrap_or(u64::MAX);
        search(
            0,
            &shared.stop_switch,
            |first, count| grind(&prefix, &suffix, WorkBits(bits), first, count),
            |progress| shared.tell(What::Working { hashes: progress.hashes, expected_hashes }),
        )
    };
    tokio::task::spawn_blocking(search).await.context("the search was cut short")?.context("the daemon stops")
}
