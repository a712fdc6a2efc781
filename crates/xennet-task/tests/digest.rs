//! The short form: it names one announcement and says what that says.
#![allow(clippy::unwrap_used)]

mod any;

use any::*;
use proptest::prelude::*;
use xennet_task::{Announcement, DecodeError, Digest, Kind, Said, Unworked};

proptest! {
    #[test]
    fn what_expires_has_a_short_form_that_agrees(said in saids(), other in saids(), work_bits in 0..=64u8, nonce: u64) {
        let unworked = Unworked::sign(&said, work_bits, &signer(&said)).unwrap();
        let Some(digest) = Digest::of(&said, &unworked) else {
            prop_assert!(matches!(said, Said::Proposal(_) | Said::Cancellation(_)));
            return Ok(());
        };
        let payload = [digest.encode(), nonce.to_le_bytes().to_vec()].concat();
        prop_assert_eq!(payload.len(), Digest::LEN);
        prop_assert!(Digest::is_digest(&payload) && Announcement::decode(&payload).is_err());
        prop_assert_eq!(Digest::decode(&payload).unwrap(), digest);
        prop_assert!(digest.names(unworked.as_bytes()));
        let announcement = Announcement::decode(&unworked.clone().with_nonce(0)).unwrap();
        prop_assert!(digest.agrees_with(&announcement));

        // Another announcement is not the one it names, and what it says beside the hash must be right as well.
        let stranger = Unworked::sign(&other, work_bits, &signer(&other)).unwrap();
        prop_assert_eq!(digest.names(stranger.as_bytes()), stranger == unworked);
        for lie in [
            Digest { work_bits: digest.work_bits ^ 1, ..digest },
            Digest { expires_at: digest.expires_at ^ 1, ..digest },
            Digest { kind: if digest.kind == Kind::Task { Kind::Acceptance } else { Kind::Task }, ..digest },
        ] {
            prop_assert!(!lie.agrees_with(&announcement));
        }
    }

    #[test]
    fn only_the_exact_form_is_read(hash: [u8; 32], kind: u8, work_bits: u8, expires_at: u32) {
        let payload = [b"XN\x01".as_slice(), &[kind, work_bits], &expires_at.to_le_bytes(), &hash, &[0; 8]].concat();
        let good = matches!(kind, 0x81 | 0x82) && work_bits <= 64;
        prop_assert_eq!(Digest::decode(&payload).is_ok(), good);
        for cut in 0..payload.len() {
            prop_assert!(Digest::decode(&payload[..cut]).is_err());
        }
        prop_assert!(Digest::decode(&[payload.as_slice(), &[0]].concat()).is_err());
    }
}

#[test]
fn the_errors_name_what_is_wrong() {
    let payload = |header: &[u8]| [header, &[0; 44]].concat();
    assert_eq!(Digest::decode(&payload(b"YN\x01\x81\x00")), Err(DecodeError::NotXennet));
    assert_eq!(Digest::decode(&payload(b"XN\x01\x83\x00")), Err(DecodeError::Kind { found: 0x83 }));
    assert_eq!(Digest::decode(&payload(b"XN\x01\x01\x00")), Err(DecodeError::Kind { found: 1 }));
    let version = DecodeError::Version { what: "the announcement", found: 2, known: 1 };
    assert_eq!(Digest::decode(&payload(b"XN\x02\x81\x00")), Err(version));
}
