//! Where a wallet begins to look for its coins.

use bdk_wallet::Update;
use bdk_wallet::chain::{BlockId, CheckPoint};

use super::{Wallet, WalletError, notes};
use crate::Chain;

/// Blocks by which a wallet begins before the tip, for the chain may be reorganised.
const MARGIN: u32 = 12;

impl Wallet {
    /// No coin of the wallet is in a block before this height.
    pub fn birthday_height(&self) -> Result<u32, WalletError> {
        let inner = self.lock();
        notes::number(&inner.database, notes::BIRTHDAY).map_err(|why| WalletError::database(&inner.dir, why))
    }

    /// Before its first look at the chain, a wallet that knows its birthday skips what is older.
    pub(super) async fn begin(&self, chain: &Chain) -> Result<(), WalletError> {
        let (height, genesis, fresh, birthday) = {
            let inner = self.lock();
            let number = |name| notes::number(&inner.database, name).map_err(|why| WalletError::database(&inner.dir, why));
            let first = inner.bdk.latest_checkpoint();
            (first.height(), first.block_id(), number(notes::FRESH)? == 1, number(notes::BIRTHDAY)?)
        };
        if height > 0 || (birthday == 0 && !fresh) {
            return Ok(());
        }
        let tip = chain.tip().await?.0;
        let from = if fresh { tip } else { birthday.min(tip) }.saturating_sub(MARGIN);
        let Some(hash) = chain.block_hash(from).await? else { return Ok(()) };
        if from == 0 {
            return Ok(());
        }
        let mut inner = self.lock();
        let start = CheckPoint::from_block_ids([genesis, BlockId { height: from, hash }]).ok();
        inner
            .bdk
            .apply_update(Update { chain: start, ..Update::default() })
            .map_err(|why| WalletError::Build(format!("the wallet cannot begin at block {from}: {why}")))?;
        inner.persist()?;
        if fresh {
            inner.set_number(notes::BIRTHDAY, from)?;
            inner.set_number(notes::FRESH, 0)?;
        }
        Ok(())
    }
}
