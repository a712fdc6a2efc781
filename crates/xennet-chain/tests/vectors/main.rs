//! Published vectors through the wallet's own doors. The files are in docs/vectors/bitcoin, whose README says where they come from.
#![allow(clippy::unwrap_used, clippy::panic)]

mod addresses;
mod keys;

/// A file of vectors.
fn vectors(name: &str) -> serde_json::Value {
    let path = format!("{}/../../docs/vectors/bitcoin/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}
