//! A proposal that only the node it is for can read.
//!
//! A fresh key of the publisher and the node's identity key agree on a secret (ECDH over secp256k1), from which comes the
//! key of a ChaCha20-Poly1305 box. Who sealed it, and for whom, is authenticated with it: nobody can pass off another's
//! box as his own, and the announcement around it is signed by the publisher.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use secp256k1::ecdh::SharedSecret;
use secp256k1::{PublicKey, SECP256K1, SecretKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xennet_identity::Identity;

use crate::limits::FieldError;
use crate::names::hex_bytes;
use crate::wire::{DecodeError, Reader};
use crate::{Kind, Proposal};

const TAG_LEN: usize = 16;

/// A sealed proposal. Only the publisher can be read from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Who proposes.
    pub publisher: Identity,
    ephemeral: PublicKey,
    #[serde(with = "hex_bytes")]
    ciphertext: Vec<u8>,
}

/// Why a proposal could not be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// A field that may not be said.
    #[error("the proposal cannot be said")]
    Field(#[from] FieldError),
    /// Sealed to another key, or tampered with.
    #[error("the proposal is not sealed to this key, or was altered")]
    NotForThisKey,
    /// Opened, but what is inside is no proposal.
    #[error("what was sealed is no proposal")]
    Decode(#[from] DecodeError),
}

impl Sealed {
    const MIN_WIRE_LEN: usize = Identity::WIRE_LEN + 33 + TAG_LEN;

    pub(crate) const MAX_WIRE_LEN: usize = Self::MIN_WIRE_LEN + Proposal::MAX_WIRE_LEN;

    /// Seals a proposal to a node's identity key. The ephemeral key must be fresh and random for each proposal: using it
    /// twice for one node would disclose both.
    pub fn seal(publisher: Identity, proposal: &Proposal, to: &PublicKey, ephemeral: &SecretKey) -> Result<Sealed, SealError> {
        let secret = SharedSecret::new(to, ephemeral);
        let ephemeral = ephemeral.public_key(SECP256K1);
        let (cipher, aad) = cipher(&publisher, &ephemeral, to, &secret);
        let plain = proposal.encode()?;
        let ciphertext = cipher.encrypt(&Nonce::default(), Payload { msg: &plain, aad: &aad }).map_err(|_| SealError::NotForThisKey)?;
        Ok(Sealed { publisher, ephemeral, ciphertext })
    }

    /// Opens it with the secret of the node's identity key. That it is not for this key shows only by trying: the
    /// announcement does not say whom it is for.
    pub fn open(&self, with: &SecretKey) -> Result<Proposal, SealError> {
        let secret = SharedSecret::new(&self.ephemeral, with);
        let (cipher, aad) = cipher(&self.publisher, &self.ephemeral, &with.public_key(SECP256K1), &secret);
        let plain =
            cipher.decrypt(&Nonce::default(), Payload { msg: &self.ciphertext, aad: &aad }).map_err(|_| SealError::NotForThisKey)?;
        Ok(Proposal::decode(&plain)?)
    }

    /// Checks that it is no longer than a sealed proposal can be.
    pub(crate) fn check(&self) -> Result<(), FieldError> {
        let range = TAG_LEN..=TAG_LEN + Proposal::MAX_WIRE_LEN;
        if range.contains(&self.ciphertext.len()) {
            return Ok(());
        }
        let found = format!("{} bytes long", self.ciphertext.len());
        Err(FieldError::new("ciphertext", found, format!("from {} to {} bytes", range.start(), range.end())))
    }

    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        self.publisher.encode(to);
        to.extend_from_slice(&self.ephemeral.serialize());
        to.extend_from_slice(&self.ciphertext);
    }

    /// Takes all that is left.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Sealed, DecodeError> {
        let publisher = from.identity(Kind::Proposal)?;
        let key = from.bytes("ephemeral key", 33)?;
        let ephemeral = PublicKey::from_slice(key)
            .map_err(|_| FieldError::new("ephemeral key", hex::encode(key), "a compressed secp256k1 public key"))?;
        let sealed = Sealed { publisher, ephemeral, ciphertext: from.rest().to_vec() };
        sealed.check()?;
        Ok(sealed)
    }
}

/// The box and what is authenticated with it. Each key is used for one message, so the nonce may be zero.
fn cipher(publisher: &Identity, ephemeral: &PublicKey, to: &PublicKey, secret: &SharedSecret) -> (ChaCha20Poly1305, Vec<u8>) {
    let key = Sha256::new()
        .chain_update(b"xennet-seal")
        .chain_update(secret.secret_bytes())
        .chain_update(ephemeral.serialize())
        .chain_update(to.serialize())
        .finalize();
    let mut aad = Vec::with_capacity(Identity::WIRE_LEN + 66);
    publisher.encode(&mut aad);
    aad.extend_from_slice(&ephemeral.serialize());
    aad.extend_from_slice(&to.serialize());
    (ChaCha20Poly1305::new(&key), aad)
}
