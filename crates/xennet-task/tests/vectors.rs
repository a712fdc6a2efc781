//! The published test vectors hold: other programs may rely on them.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use secp256k1::{Keypair, SECP256K1, SecretKey};
use serde_json::Value;
use xennet_identity::{Identity, IdentityId, Target, TargetSchedule, double_sha256, work_of};
use xennet_task::{Announcement, Proposal, Said, Unworked};

fn vectors(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/vectors").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn each<'a>(file: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    let list = file[list].as_array().unwrap();
    assert!(!list.is_empty());
    list.iter()
}

fn bytes(vector: &Value, field: &str) -> Vec<u8> {
    hex::decode(vector[field].as_str().unwrap()).unwrap()
}

fn secret(vector: &Value, field: &str) -> SecretKey {
    SecretKey::from_slice(&bytes(vector, field)).unwrap()
}

#[test]
fn what_was_published_is_heard_and_said_the_same() {
    for file in ["task.json", "acceptance.json", "proposal.json", "cancellation.json"] {
        for vector in each(&vectors(file), "valid") {
            let published = bytes(vector, "bytes");
            let heard = Announcement::decode(&published).unwrap();
            assert_eq!(serde_json::to_value(&heard).unwrap(), vector["fields"], "{file}");
            assert_eq!(serde_json::from_value::<Announcement>(vector["fields"].clone()).unwrap(), heard);

            let keys = Keypair::from_secret_key(SECP256K1, &secret(vector, "secret_key"));
            let said = Unworked::sign(&heard.said, heard.work_bits, &keys).unwrap();
            assert_eq!(said.with_nonce(heard.nonce), published, "{file}");

            let hash = double_sha256(&published);
            assert_eq!(IdentityId(hash).to_string(), vector["hash_with_nonce"].as_str().unwrap());
            assert_eq!(u64::from(work_of(&hash)), vector["work"].as_u64().unwrap());
            assert!(work_of(&hash) >= heard.work_bits);
            let target = TargetSchedule::REGTEST.target_at(heard.sender().anchor.height);
            assert_eq!(heard.sender().check(&target), Ok(()));
        }
    }
}

#[test]
fn what_was_published_as_wrong_is_refused_for_the_reason_given() {
    for file in ["task.json", "acceptance.json", "proposal.json", "cancellation.json"] {
        for vector in each(&vectors(file), "invalid") {
            let error = Announcement::decode(&bytes(vector, "bytes")).unwrap_err();
            assert_eq!(error.to_string(), vector["error"].as_str().unwrap(), "{file}: {}", vector["name"]);
        }
    }
}

#[test]
fn the_published_proposal_opens_with_the_nodes_key() {
    for vector in each(&vectors("proposal.json"), "valid") {
        let Said::Proposal(sealed) = Announcement::decode(&bytes(vector, "bytes")).unwrap().said else { unreachable!("not a proposal") };
        let proposal = sealed.open(&secret(vector, "node_secret_key")).unwrap();
        assert_eq!(serde_json::to_value(proposal).unwrap(), vector["proposal"]);
        assert_eq!(proposal.encode().unwrap(), bytes(vector, "plain"));
        assert_eq!(Proposal::decode(&bytes(vector, "plain")), Ok(proposal));
        assert_eq!(proposal.lease_id().to_string(), vector["lease"].as_str().unwrap());

        let node = secret(vector, "node_secret_key").public_key(SECP256K1);
        let ephemeral = secret(vector, "ephemeral_secret_key");
        let again = xennet_task::Sealed::seal(sealed.publisher, &proposal, &node, &ephemeral);
        assert_eq!(again, Ok(sealed));
    }
}

#[test]
fn the_published_identities_and_targets_hold() {
    let file = vectors("identity.json");
    for vector in each(&file, "valid") {
        let identity = Identity::decode(&bytes(vector, "bytes")).unwrap();
        assert_eq!(serde_json::to_value(identity).unwrap(), vector["fields"]);
        assert_eq!(identity.id().to_string(), vector["id"].as_str().unwrap());
        assert_eq!(identity.key, secret(vector, "secret_key").public_key(SECP256K1));
        assert_eq!(TargetSchedule::REGTEST.check(&identity, identity.anchor.height + 6), Ok(()));
    }
    for vector in each(&file, "invalid") {
        let error = Identity::decode(&bytes(vector, "bytes")).unwrap_err();
        assert_eq!(error.to_string(), vector["error"].as_str().unwrap());
    }
    for vector in each(&file, "targets") {
        let height = u32::try_from(vector["anchor_height"].as_u64().unwrap()).unwrap();
        let target: Target = vector["target"].as_str().unwrap().parse().unwrap();
        assert_eq!(TargetSchedule::MAINNET.target_at(height), target);
    }
}
