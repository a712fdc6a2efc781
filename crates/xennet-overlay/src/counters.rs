use std::collections::BTreeMap;

use serde::Serialize;

/// What the overlay has done since it started. A message counts once in one of `relayed`, `ignored`, `rejected` and `repeated`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OverlayCounters {
    /// New valid messages from others.
    pub relayed: u64,
    /// Our own messages.
    pub published: u64,
    /// Messages seen before. A mesh brings each message several times, so this is no fault.
    pub repeated: u64,
    /// Messages ignored, by the judge's reason.
    pub ignored: BTreeMap<&'static str, u64>,
    /// Messages rejected, by reason: the judge's, or one of `too long`, `empty`, `wrong topic`, `extra fields`.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Bytes of all messages that arrived, whatever became of them.
    pub bytes_received: u64,
    /// Bytes of the messages under `relayed`.
    pub bytes_relayed: u64,
    /// Frames dropped unread because their sender had used up its rate.
    pub frames_over_rate: u64,
    /// Peers cut off for sending what no honest peer sends.
    pub peers_banned: u64,
    /// Connections refused: a banned peer or network, or too many from one network.
    pub connections_refused: u64,
    /// Recent announcements sent to peers that asked.
    pub recent_sent: u64,
    /// Messages that came as answers to our own questions for recent announcements (each also counted above).
    pub recent_received: u64,
    /// Questions for recent announcements refused because the peer asked too often.
    pub recent_refused: u64,
    /// Valid messages dropped because the daemon was too slow to take them; they are asked for again later.
    pub undelivered: u64,
}

impl OverlayCounters {
    /// All rejected messages, whatever the reason.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.values().sum()
    }

    /// All ignored messages, whatever the reason.
    pub fn ignored_total(&self) -> u64 {
        self.ignored.values().sum()
    }
}
