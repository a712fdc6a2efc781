//! Gossipsub's settings, and the gate in front of it.
use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use libp2p::{
    PeerId,
    gossipsub::{
        self, ConfigBuilder, DataTransform, IdentTopic, MaxCountSubscriptionFilter, MessageAuthenticity, PeerScoreParams,
        PeerScoreThresholds, RawMessage, TopicHash, TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter,
    },
};

use crate::{
    OverlayConfig, OverlayError,
    desk::{Desk, Found, Source},
    guard::lock,
    recent::id_of,
};

/// One topic is all a peer may subscribe to: without this filter a stranger could fill our tables with topics.
pub(crate) type Filter = MaxCountSubscriptionFilter<WhitelistSubscriptionFilter>;
pub(crate) type Gossip = gossipsub::Behaviour<Gate, Filter>;
/// The peer whose frame is being read.
pub(crate) type Sender = Arc<Mutex<Option<PeerId>>>;

/// Gossipsub calls this for every message before anything else: before its caches, and before any reply.
pub(crate) struct Gate {
    desk: Arc<Desk>,
    topic: TopicHash,
    sender: Sender,
}

impl DataTransform for Gate {
    fn inbound_transform(&self, raw: RawMessage) -> Result<gossipsub::Message, io::Error> {
        // The guard names the sender before each frame; a message without one cannot come from the wire.
        let Some(from) = lock(&self.sender).map(Source::Gossip) else { return Err(io::ErrorKind::InvalidData.into()) };
        let now = Instant::now();
        let found = if raw.topic != self.topic {
            self.desk.reject("wrong topic", from, raw.data.len(), now)
        } else if raw.key.is_some() || raw.signature.is_some() {
            // They are outside the message's id, so they could be used to pass any bytes on with a valid message.
            self.desk.reject("extra fields", from, raw.data.len(), now)
        } else {
            self.desk.inspect(from, &raw.data, Duration::ZERO, now)
        };
        match found {
            Found::Rejected => Err(io::ErrorKind::InvalidData.into()),
            Found::Valid(_) | Found::Repeated | Found::Ignored => {
                Ok(gossipsub::Message { source: None, data: raw.data, sequence_number: None, topic: raw.topic })
            }
        }
    }

    fn outbound_transform(&self, _topic: &TopicHash, data: Vec<u8>) -> Result<Vec<u8>, io::Error> {
        Ok(data)
    }
}

pub(crate) fn topic(config: &OverlayConfig) -> IdentTopic {
    IdentTopic::new(config.protocol("announce/1"))
}

pub(crate) fn gossip(config: &OverlayConfig, desk: Arc<Desk>, sender: Sender) -> Result<Gossip, OverlayError> {
    let topic = topic(config);
    let settings = ConfigBuilder::default()
        .protocol_id_prefix(config.protocol("gossip"))
        // The gate checks more than any of gossipsub's modes, and counts what it refuses.
        .validation_mode(ValidationMode::None)
        .validate_messages()
        .message_id_fn(|message| gossipsub::MessageId::new(&id_of(&message.data)))
        .heartbeat_initial_delay(Duration::from_millis(500))
        .duplicate_cache_time(Duration::from_secs(120))
        // What is buffered for one slow peer: at most this many messages.
        .connection_handler_queue_len(256)
        .max_publish_messages(64)
        // 400 ids of 20 bytes stay below the 16 KiB that a control message may have.
        .max_control_messages_sent(400)
        .build()
        .map_err(|error| OverlayError::Settings { why: error.to_string() })?;
    let filter = MaxCountSubscriptionFilter {
        filter: WhitelistSubscriptionFilter(HashSet::from([topic.hash()])),
        max_subscribed_topics: 1,
        max_subscriptions_per_request: 4,
    };
    let gate = Gate { desk, topic: topic.hash(), sender };
    let mut gossip = Gossip::new_with_subscription_filter_and_transform(MessageAuthenticity::Anonymous, settings, filter, gate)
        .map_err(|why| OverlayError::Settings { why: why.to_owned() })?;
    let (params, thresholds) = scores(topic.hash());
    gossip.with_peer_score(params, thresholds).map_err(|why| OverlayError::Settings { why })?;
    gossip.subscribe(&topic).map_err(|error| OverlayError::Settings { why: error.to_string() })?;
    Ok(gossip)
}

/// A peer's score falls by the square of its rejected messages: after one it leaves the mesh, after four it gets no gossip, after ten
/// nothing we publish. The strikes (see `strikes`) end the connection before gossipsub's own grey list would.
fn scores(topic: TopicHash) -> (PeerScoreParams, PeerScoreThresholds) {
    let per_topic = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 100.0,
        first_message_deliveries_weight: 1.0,
        first_message_deliveries_decay: gossipsub::score_parameter_decay(Duration::from_secs(600)),
        first_message_deliveries_cap: 5.0,
        // Announcements are rare, so silence in the mesh is no fault.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: gossipsub::score_parameter_decay(Duration::from_secs(600)),
        ..TopicScoreParams::default()
    };
    let params = PeerScoreParams {
        topics: HashMap::from([(topic, per_topic)]),
        topic_score_cap: 6.0,
        // The guard limits connections from one address already; a household or a test network is no attack.
        ip_colocation_factor_weight: 0.0,
        ..PeerScoreParams::default()
    };
    let thresholds = PeerScoreThresholds {
        gossip_threshold: -150.0,
        publish_threshold: -1_000.0,
        graylist_threshold: -100_000.0,
        ..PeerScoreThresholds::default()
    };
    (params, thresholds)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Judge, Judgement};

    fn gate() -> (Gate, Arc<Desk>) {
        let judge: Judge = Arc::new(|message| match message {
            b"task" => Judgement::Relay,
            b"old" => Judgement::Ignore("expired"),
            _ => Judgement::Reject("no work"),
        });
        let desk = Arc::new(Desk::new(judge));
        let gate = Gate { desk: desk.clone(), topic: topic(&config()).hash(), sender: Arc::new(Mutex::new(Some(PeerId::random()))) };
        (gate, desk)
    }

    fn config() -> OverlayConfig {
        OverlayConfig { secret: [1; 32], listen: vec![], bootstrap: vec![], network: "test".to_owned() }
    }

    fn raw(data: &[u8]) -> RawMessage {
        let topic = topic(&config()).hash();
        RawMessage { source: None, data: data.to_vec(), sequence_number: None, topic, signature: None, key: None, validated: false }
    }

    #[test]
    fn gossipsub_sees_only_messages_that_were_not_rejected() {
        let (gate, desk) = gate();
        assert_eq!(gate.inbound_transform(raw(b"task")).unwrap().data, b"task");
        assert_eq!(gate.inbound_transform(raw(b"old")).unwrap().data, b"old");
        let elsewhere = RawMessage { topic: IdentTopic::new("elsewhere").hash(), ..raw(b"task") };
        let padded = RawMessage { key: Some(vec![0; 1000]), ..raw(b"task") };
        for bad in [raw(b"rubbish"), raw(b""), elsewhere, padded] {
            assert!(gate.inbound_transform(bad).is_err());
        }
        assert_eq!(desk.counters().rejected, [("no work", 1), ("empty", 1), ("wrong topic", 1), ("extra fields", 1)].into());
    }

    #[test]
    fn the_settings_are_accepted() {
        let (_, desk) = gate();
        gossip(&config(), desk, Sender::default()).unwrap();
    }
}
