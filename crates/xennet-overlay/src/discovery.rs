//! Finding more peers: Kademlia for the walk, identify for the addresses.
use std::time::Duration;

use libp2p::{
    Multiaddr, PeerId, StreamProtocol, identify,
    kad::{self, store::MemoryStore, store::MemoryStoreConfig},
};

use crate::{
    OverlayConfig,
    address::{self, Fence},
};

/// Addresses we take from one peer.
const MAX_ADDRESSES: usize = 8;

pub(crate) type Kademlia = kad::Behaviour<MemoryStore>;

pub(crate) fn kademlia(config: &OverlayConfig, local: PeerId, protocol: StreamProtocol) -> Kademlia {
    let mut settings = kad::Config::new(protocol);
    settings
        .set_query_timeout(Duration::from_secs(30))
        // Only the routing table is used: records and providers of strangers are not stored.
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_provider_publication_interval(None)
        .set_publication_interval(None)
        .set_replication_interval(None);
    let nothing = MemoryStoreConfig { max_records: 0, max_value_bytes: 0, max_providers_per_key: 0, max_provided_keys: 0 };
    let mut kademlia = Kademlia::with_config(local, MemoryStore::with_config(local, nothing), settings);
    // A peer that cannot be dialed must not stand in routing tables.
    let mode = if config.listen.is_empty() { kad::Mode::Client } else { kad::Mode::Server };
    kademlia.set_mode(Some(mode));
    kademlia
}

/// The addresses under which a peer that serves Kademlia says it can be reached, as far as we would dial them.
pub(crate) fn dialable(info: &identify::Info, protocol: &StreamProtocol, fence: &Fence) -> Vec<Multiaddr> {
    if !info.protocols.contains(protocol) {
        return Vec::new();
    }
    let good = |a: &&Multiaddr| address::check("peer", a).is_ok() && fence.allows(a);
    info.listen_addrs.iter().filter(good).take(MAX_ADDRESSES).cloned().collect()
}
