//! Laws of the wire: what is said is heard, and nothing else is.
#![allow(clippy::unwrap_used)]

mod any;

use any::*;
use proptest::prelude::*;
use secp256k1::{Message, SECP256K1};
use sha2::{Digest, Sha256};
use xennet_identity::double_sha256;
use xennet_task::{
    Acceptance, Announcement, AnnouncementHash, Cancellation, Compute, DecodeError, Kind, Proposal, Said, SignError, Task, Unworked,
};

fn bytes_of(said: &Said) -> Vec<u8> {
    Unworked::sign(said, 12, &signer(said)).unwrap().with_nonce(7)
}

/// Puts another body into an announcement and signs it anew, as a stranger with a key of his own could.
fn forged(bytes: &[u8], body: &[u8], said_by: u8) -> Vec<u8> {
    let mut forged = [&bytes[..5], body].concat();
    let tag = Sha256::digest(b"xennet/announcement");
    let digest = Sha256::new().chain_update(tag).chain_update(tag).chain_update(&forged).finalize();
    let signature = SECP256K1.sign_schnorr_no_aux_rand(&Message::from_digest(digest.into()), &keypair(said_by));
    forged.extend_from_slice(&signature.serialize());
    forged.extend_from_slice(&[0; 8]);
    forged
}

fn body(bytes: &[u8]) -> &[u8] {
    &bytes[5..bytes.len() - 72]
}

proptest! {
    #[test]
    fn what_is_said_is_heard(said in saids(), work_bits in 0..=64u8, nonce: u64) {
        let unworked = Unworked::sign(&said, work_bits, &signer(&said)).unwrap();
        let hash = unworked.hash();
        let bytes = unworked.with_nonce(nonce);
        prop_assert!(bytes.len() <= Announcement::MAX_LEN);
        prop_assert_eq!(Announcement::peek_work_bits(&bytes), Some(work_bits));
        let heard = Announcement::decode(&bytes).unwrap();
        prop_assert_eq!(heard, Announcement { work_bits, said, hash, nonce });
    }

    #[test]
    fn what_is_heard_survives_json(said in saids()) {
        let heard = Announcement::decode(&bytes_of(&said)).unwrap();
        let json = serde_json::to_string(&heard).unwrap();
        prop_assert_eq!(serde_json::from_str::<Announcement>(&json).unwrap(), heard);
    }

    #[test]
    fn no_byte_string_makes_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), kind in 1..=4u8) {
        prop_assert!(Announcement::decode(&bytes).is_err());
        let _ = Proposal::decode(&bytes);
        let begun = [b"XN\x01".as_slice(), &[kind, 12], &bytes].concat();
        prop_assert!(Announcement::decode(&begun).is_err());
    }

    // Signed anew after each change, so that not the signature but the strictness of the encoding is put to the test.
    #[test]
    fn nothing_that_is_heard_would_be_said_differently(
        said in saids(), at: prop::sample::Index, byte: u8, change in 0..3, said_by in 1..=2u8,
    ) {
        let bytes = bytes_of(&said);
        let mut altered = body(&bytes).to_vec();
        let at = at.index(altered.len());
        match change {
            0 => altered[at] = byte,
            1 => altered.insert(at, byte),
            _ => drop(altered.remove(at)),
        }
        let forged = forged(&bytes, &altered, said_by);
        if let Ok(heard) = Announcement::decode(&forged) {
            let again = Unworked::sign(&heard.said, heard.work_bits, &keypair(said_by));
            // A key of the other parity has the same signatures but is another identity's: it cannot say it again.
            if let Ok(again) = again {
                prop_assert_eq!(again.with_nonce(heard.nonce), forged);
            }
        }
    }

    #[test]
    fn any_changed_bit_before_the_nonce_is_noticed(said in saids(), at: prop::sample::Index, bit in 0..8) {
        let mut bytes = bytes_of(&said);
        let at = at.index(bytes.len() - 8);
        bytes[at] ^= 1u8 << bit;
        prop_assert!(Announcement::decode(&bytes).is_err());
    }

    #[test]
    fn a_proposal_is_read_back_as_it_was_written(proposal in proposals()) {
        prop_assert_eq!(Proposal::decode(&proposal.encode().unwrap()), Ok(proposal));
    }

    #[test]
    fn a_proposal_that_is_read_is_written_the_same(proposal in proposals(), at: prop::sample::Index, byte: u8) {
        let mut bytes = proposal.encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = Proposal::decode(&bytes) {
            prop_assert_eq!(read.encode().unwrap(), bytes);
        }
    }
}

#[test]
fn a_typical_task_has_at_most_300_bytes_and_the_longest_at_most_520() {
    let typical = bytes_of(&Said::Task(typical_task()));
    assert!(typical.len() <= 300, "{} bytes", typical.len());
    let longest = bytes_of(&Said::Task(longest_task()));
    assert_eq!(longest.len(), 516);
    let acceptance = bytes_of(&Said::Acceptance(typical_acceptance()));
    assert!(acceptance.len() <= 300, "{} bytes", acceptance.len());
}

#[test]
fn the_hash_stays_the_same_whatever_the_nonce() {
    let unworked = Unworked::sign(&Said::Task(typical_task()), 0, &keypair(1)).unwrap();
    let hash = |nonce| Announcement::decode(&unworked.clone().with_nonce(nonce)).unwrap().hash;
    assert_eq!(hash(1), hash(2));
    assert_eq!(hash(1), AnnouncementHash(double_sha256(unworked.as_bytes())));
}

#[test]
fn saying_it_twice_makes_the_same_bytes() {
    let said = Said::Task(typical_task());
    assert_eq!(bytes_of(&said), bytes_of(&said));
}

#[test]
fn only_the_sender_can_sign_and_only_in_its_role() {
    let said = Said::Task(typical_task());
    assert!(matches!(Unworked::sign(&said, 0, &keypair(2)), Err(SignError::WrongKey { .. })));
    let by_node = Said::Task(Task { publisher: node(), ..typical_task() });
    let error = Unworked::sign(&by_node, 0, &keypair(2)).unwrap_err();
    assert_eq!(error.to_string(), "a node's identity cannot say a task; use a publisher's");

    let bytes = bytes_of(&said);
    let mut body = body(&bytes).to_vec();
    body[8 + 1] = 2; // the publisher's role, after the task's number and the identity's version
    let error = Announcement::decode(&forged(&bytes, &body, 1)).unwrap_err();
    assert_eq!(error.to_string(), "task comes from a node, but only a publisher may say it");
}

#[test]
fn a_signature_of_another_key_is_refused() {
    let bytes = bytes_of(&Said::Task(typical_task()));
    assert!(Announcement::decode(&forged(&bytes, body(&bytes), 1)).is_ok());
    assert_eq!(Announcement::decode(&forged(&bytes, body(&bytes), 2)), Err(DecodeError::Signature));
}

#[test]
fn the_header_is_refused_for_what_is_wrong_with_it() {
    let bytes = bytes_of(&Said::Task(typical_task()));
    let refused = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        assert_eq!(Announcement::peek_work_bits(&bytes), None);
        Announcement::decode(&bytes).unwrap_err().to_string()
    };
    assert_eq!(refused(0, b'Y'), "does not begin with \"XN\", so it is not Xennet's");
    assert_eq!(refused(2, 2), "the announcement has version 2, but only 1 is known; a newer program may know it");
    assert_eq!(refused(3, 0), "kind 0 is unknown; it must be from 1 to 4");
    assert_eq!(refused(4, 65), "work_bits is 65, but it must be from 0 to 64");
    assert_eq!(Announcement::decode(&[0; 521]).unwrap_err().to_string(), "521 bytes, but an announcement has at most 520");
    assert_eq!(Announcement::decode(b"XN").unwrap_err(), DecodeError::Truncated { field: "header" });
    assert_eq!(Announcement::decode(&bytes[..60]).unwrap_err(), DecodeError::Truncated { field: "signature" });
}

#[test]
fn a_number_in_needless_bytes_is_refused() {
    let bytes = bytes_of(&Said::Task(Task { info: String::new(), ..typical_task() }));
    let (last, front) = body(&bytes).split_last().unwrap();
    assert_eq!(*last, 0); // the length of the information
    let longer = [front, &[0x80, 0]].concat();
    assert_eq!(Announcement::decode(&forged(&bytes, &longer, 1)), Err(DecodeError::Number { field: "info" }));
    let endless = [front, &[0xff; 12]].concat();
    assert_eq!(Announcement::decode(&forged(&bytes, &endless, 1)), Err(DecodeError::Number { field: "info" }));
}

#[test]
fn bytes_after_the_last_field_are_refused() {
    for said in [Said::Task(typical_task()), Said::Acceptance(typical_acceptance())] {
        let bytes = bytes_of(&said);
        let longer = [body(&bytes), &[0, 0]].concat();
        let by = if said.kind() == Kind::Task { 1 } else { 2 };
        assert_eq!(Announcement::decode(&forged(&bytes, &longer, by)), Err(DecodeError::Trailing { found: 2 }));
    }
}

#[test]
fn an_ipv4_address_written_as_ipv6_is_refused() {
    let said = Said::Task(Task { address: "[2001:db8::1]:22".parse().unwrap(), ..typical_task() });
    let bytes = bytes_of(&said);
    let mut body = body(&bytes).to_vec();
    let at = 8 + 79 + 32;
    assert_eq!(body[at], 6);
    body[at + 1..at + 17].copy_from_slice(&"::ffff:1.2.3.4".parse::<std::net::Ipv6Addr>().unwrap().octets());
    let error = Announcement::decode(&forged(&bytes, &body, 1)).unwrap_err();
    assert!(error.to_string().contains("written as IPv4"), "{error}");
}

#[test]
fn what_may_not_be_said_is_named_with_what_would_be_right() {
    fn refused(change: impl FnOnce(&mut Task)) -> String {
        let mut task = typical_task();
        change(&mut task);
        Unworked::sign(&Said::Task(task), 0, &keypair(1)).unwrap_err().to_string()
    }
    let seconds = std::time::Duration::from_secs;
    assert_eq!(refused(|t| t.machines = 0), "machines is 0, but it must be from 1 to 65535");
    assert_eq!(refused(|t| t.lease.max = seconds(599)), "lease max_s is 599, but it must be at least the shortest lease, 600");
    assert_eq!(
        refused(|t| t.payout = xennet_task::PayoutInterval::InAdvance(seconds(90_000))),
        "payout interval is -90000 s, but it must be at most the longest lease, 86400 s"
    );
    assert_eq!(
        refused(|t| t.proposal_within = std::time::Duration::from_millis(1_500)),
        "proposal_within_s is 1.5s, but it must be whole seconds"
    );
    assert_eq!(refused(|t| t.address.set_port(0)), "address's port is 0, but it must be from 1 to 65535");
    assert_eq!(
        refused(|t| t.address.set_ip("0.0.0.0".parse().unwrap())),
        "address is 0.0.0.0:9022, but it must be the address of one host, such as 203.0.113.7:9022"
    );
    assert_eq!(
        refused(|t| t.requirements.operating_systems.push("Thin".to_owned())),
        "operating system is \"Thin\", but it must be 1 to 20 lower-case letters, digits, `-` or `.`"
    );
    assert_eq!(
        refused(|t| t.requirements.operating_systems.push("thin".to_owned())),
        "operating_systems is `thin` twice, but it must be a list of different names"
    );
    assert_eq!(refused(|t| t.requirements.compute.push(Compute { cores: 0, mhz: 1 })), "cores is 0, but it must be from 1 to 4096");
    assert_eq!(
        refused(|t| t.rates.disk_msat_per_gib_hour = 1 << 42),
        "disk_msat_per_gib_hour is 4398046511104, but it must be from 0 to 4398046511103"
    );
    assert_eq!(refused(|t| t.info = "x".repeat(97)), "info is 97 bytes long, but it must be at most 96 bytes");
    assert_eq!(refused(|t| t.info = "\u{1b}[2J".to_owned()), "info is \"\\u{1b}[2J\", but it must be without control characters");
}

#[test]
fn an_acceptance_and_a_cancellation_say_whose_they_are() {
    let acceptance = Said::Acceptance(typical_acceptance());
    let cancellation = Said::Cancellation(Cancellation { publisher: publisher(), task: AnnouncementHash([5; 32]) });
    assert_eq!(Announcement::decode(&bytes_of(&acceptance)).unwrap().sender(), &node());
    assert_eq!(Announcement::decode(&bytes_of(&cancellation)).unwrap().sender(), &publisher());
    let no_name = Said::Acceptance(Acceptance { operating_system: String::new(), ..typical_acceptance() });
    assert!(matches!(Unworked::sign(&no_name, 0, &keypair(2)), Err(SignError::Field(_))));
}
