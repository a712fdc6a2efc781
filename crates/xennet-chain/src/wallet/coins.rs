//! The wallet's coins, one by one.

use std::collections::HashSet;

use bdk_wallet::chain::ChainPosition;
use bitcoin::{OutPoint, Txid};

use super::{Inner, Ticket, Wallet, WalletError};

/// A coin of the wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coin {
    /// Where it is.
    pub outpoint: OutPoint,
    /// What it holds, satoshi.
    pub sat: u64,
    /// The address it was paid to.
    pub address: Option<String>,
    /// The block it is in; `None`: it waits.
    pub height: Option<u32>,
    /// Whether it can be spent.
    pub state: CoinState,
}

/// Whether a coin can be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoinState {
    /// It can.
    Free,
    /// A transaction spends it that is built and not yet sent; its id, if it is finished.
    Reserved(Option<Txid>),
    /// It came from others and is in no block yet: they can still take it back.
    Untrusted,
}

impl Wallet {
    /// All coins, the oldest first.
    pub fn coins(&self) -> Vec<Coin> {
        let inner = self.lock();
        let untrusted = inner.untrusted();
        let mut coins: Vec<Coin> = inner
            .bdk
            .list_unspent()
            .map(|coin| Coin {
                outpoint: coin.outpoint,
                sat: coin.txout.value.to_sat(),
                address: bitcoin::Address::from_script(&coin.txout.script_pubkey, self.network).ok().map(|address| address.to_string()),
                height: match coin.chain_position {
                    ChainPosition::Confirmed { anchor, .. } => Some(anchor.block_id.height),
                    ChainPosition::Unconfirmed { .. } => None,
                },
                state: inner.state(&coin.outpoint, &untrusted),
            })
            .collect();
        coins.sort_by_key(|coin| (coin.height.unwrap_or(u32::MAX), coin.outpoint));
        coins
    }
}

impl Inner {
    fn state(&self, coin: &OutPoint, untrusted: &HashSet<OutPoint>) -> CoinState {
        let by = self.reservations.iter().find(|(_, coins)| coins.contains(coin));
        match by {
            Some((Ticket::Built(txid), _)) => CoinState::Reserved(Some(*txid)),
            Some((Ticket::Draft(_), _)) => CoinState::Reserved(None),
            None if untrusted.contains(coin) => CoinState::Untrusted,
            None => CoinState::Free,
        }
    }

    /// That these coins, which somebody chose, can be spent.
    pub(super) fn check_choice(&self, chosen: &[OutPoint]) -> Result<(), WalletError> {
        let untrusted = self.untrusted();
        let known: HashSet<OutPoint> = self.bdk.list_unspent().map(|coin| coin.outpoint).collect();
        for (at, coin) in chosen.iter().enumerate() {
            let why = match self.state(coin, &untrusted) {
                _ if !known.contains(coin) => "the wallet has no such coin, or it is spent".to_owned(),
                _ if chosen.iter().take(at).any(|before| before == coin) => "it is named twice".to_owned(),
                CoinState::Free => continue,
                CoinState::Reserved(Some(txid)) => format!("it is reserved for transaction {txid}, which is built and not yet sent"),
                CoinState::Reserved(None) => "it is reserved for a transaction that is being made".to_owned(),
                CoinState::Untrusted => "it came from others and is in no block yet: wait for one".to_owned(),
            };
            return Err(WalletError::Coin { coin: *coin, why });
        }
        Ok(())
    }
}
