//! Addresses that somebody else gives us to pay to.

use bitcoin::address::{NetworkUnchecked, ParseError};
use bitcoin::{Address, Network};

/// Longest address that is read; the longest that there is has 90 letters.
const MAX_LENGTH: usize = 100;

/// Why something is no address to pay to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Too long to be one.
    #[error("the address has {length} letters, and none has more than {at_most}: copy it again")]
    TooLong {
        /// Of what was given.
        length: usize,
        /// The limit.
        at_most: usize,
    },
    /// No form of address, or a letter is wrong.
    #[error("`{text}` is no address ({why}): a letter may be wrong or missing, copy it again")]
    Unreadable {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// An address of another network.
    #[error("`{text}` is an address of another network, and this wallet is on {network}: ask for an address of {network}")]
    OtherNetwork {
        /// What was given.
        text: String,
        /// The wallet's.
        network: Network,
    },
}

/// Reads an address of one network: base58, Bech32 (BIP173), and Bech32m for every later version of output (BIP350).
///
/// # Errors
/// What is no address, or one of another network. Test networks share their prefixes, so that only regtest's can be told from the rest.
pub fn parse_address(text: &str, network: Network) -> Result<Address, AddressError> {
    let text = text.trim();
    let length = text.chars().count();
    if length > MAX_LENGTH {
        return Err(AddressError::TooLong { length, at_most: MAX_LENGTH });
    }
    let address: Address<NetworkUnchecked> =
        text.parse().map_err(|why: ParseError| AddressError::Unreadable { text: text.to_owned(), why: why.to_string() })?;
    address.require_network(network).map_err(|_| AddressError::OtherNetwork { text: text.to_owned(), network })
}
