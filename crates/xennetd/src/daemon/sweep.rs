//! Taking back what announcements locked in markers.

use std::sync::Arc;

use xennet_task::Kind;

use super::happening::Answer;
use super::wallet::refused;
use super::{Daemon, Shared};
use crate::control::{Failure, FailureKind, Reply, SweepView};

/// A week: as far back as a bitcoind without an index of block filters is searched for anything.
const USUAL_BLOCKS: u32 = 1_008;
/// The most blocks to look through: two years.
const MOST_BLOCKS: u32 = 105_120;

/// A sweep as it was asked for.
#[derive(Debug, Clone, Copy)]
pub struct SweepWish {
    /// `None`: what the chain estimates.
    pub feerate_sat_per_kvb: Option<u64>,
    /// The most for the miner, satoshi.
    pub max_fee_sat: Option<u64>,
    /// How many of the last blocks to look through; `None`: a week of them.
    pub blocks: Option<u32>,
    /// Nothing is sent.
    pub dry_run: bool,
}

impl Daemon {
    pub(super) fn sweep(&self, wish: SweepWish, answer: Answer) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let _ = answer.send(shared.sweep(wish).await.map(Reply::Sweep));
        });
    }
}

impl Shared {
    async fn sweep(&self, wish: SweepWish) -> Result<SweepView, Failure> {
        let blocks = wish.blocks.unwrap_or(USUAL_BLOCKS);
        if blocks == 0 || blocks > MOST_BLOCKS {
            let text = format!("blocks is {blocks}, and must be from 1 to {MOST_BLOCKS}");
            return Err(Failure::new(FailureKind::BadInput, text, "nothing was sent"));
        }
        let feerate_sat_per_kvb = self.agreed_feerate(wish.feerate_sat_per_kvb).await?;
        self.wallet.sync(&self.chain).await.map_err(refused)?;
        let classes = Kind::ALL.map(Kind::marker_class);
        let markers = self.chain.old_markers(&classes, blocks).await.map_err(|why| {
            Failure::new(FailureKind::Unavailable, format!("the chain could not be searched for markers: {why}"), "nothing was sent")
        })?;
        let sweep = self.wallet.sweep(&markers, feerate_sat_per_kvb).map_err(refused)?;
        let mut view = SweepView {
            network: self.chain.network().to_string(),
            blocks,
            markers: markers.len() as u64,
            own_markers: markers.iter().filter(|marker| self.wallet.announced(marker)).count() as u64,
            taken: sweep.markers as u64,
            worth_sat: sweep.worth_sat,
            fee_sat: sweep.fee_sat,
            gain_sat: sweep.transaction.as_ref().map_or(0, |_| sweep.worth_sat.saturating_sub(sweep.fee_sat)),
            vbytes: sweep.vbytes,
            feerate_sat_per_kvb,
            worth_at_sat_per_kvb: sweep.worth_at_sat_per_kvb,
            txid: sweep.transaction.as_ref().map(|tx| tx.compute_txid().to_string()),
            sent: false,
        };
        let Some(transaction) = sweep.transaction.filter(|_| !wish.dry_run) else { return Ok(view) };
        self.check_agreed(&transaction, view.fee_sat, wish.max_fee_sat)?;
        self.broadcast_for_user(&transaction).await?;
        self.wallet.know_markers(&markers).map_err(refused)?;
        self.wallet.sent(&transaction).map_err(refused)?;
        view.sent = true;
        Ok(view)
    }
}
