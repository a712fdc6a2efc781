//! Recent announcements for late joiners: `/xennet/<network>/recent/1`.
//!
//! ```text
//! question   count u16 │ count × id [20]                        what the asker has already
//! answer     more u8 │ count u16 │ count × (age_s u32 │ length u16 │ bytes)
//! ```
//! Big-endian. Whoever asks closes the write side after the question, whoever answers after the answer. A question has at most 1,024 ids,
//! an answer at most 256 KiB; both are read with those limits and decoded strictly.
use std::{
    collections::{HashMap, VecDeque},
    io,
    time::{Duration, Instant},
};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{PeerId, StreamProtocol, request_response};

use crate::{
    MAX_MESSAGE_BYTES,
    recent::{Aged, MAX_RECENT, MessageId, More},
    strikes::{Allowance, Rate},
};

/// Message bytes in one answer.
pub(crate) const ANSWER_BUDGET: usize = 256 << 10;
const ID_BYTES: usize = size_of::<MessageId>();
const ENTRY_HEAD: usize = 6;
const MAX_QUESTION: usize = 2 + MAX_RECENT * ID_BYTES;
const MAX_ANSWER: usize = 3 + MAX_RECENT * ENTRY_HEAD + ANSWER_BUDGET;

/// How often one peer may ask.
const QUESTIONS: Allowance = Allowance { burst: 12, period: Duration::from_secs(10) };
/// Questions under way at once: more would bring the same messages several times.
const MAX_IN_FLIGHT: usize = 2;
/// Rounds with one peer, while it says that it has more.
const MAX_ROUNDS: u8 = 8;
/// A message announced between a peer's first answer and its place in the mesh would be missed, so each peer is asked twice.
const SECOND_LOOK: Duration = Duration::from_secs(3);
/// And now and then some peer, to heal what a split or a full queue has lost.
const EVERY: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) type Sync = request_response::Behaviour<Codec>;

pub(crate) fn behaviour(protocol: StreamProtocol) -> Sync {
    let config = request_response::Config::default().with_request_timeout(TIMEOUT).with_max_concurrent_streams(4);
    Sync::new([(protocol, request_response::ProtocolSupport::Full)], config)
}

/// An answer: messages newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) more: More,
    pub(crate) messages: Vec<Aged>,
}

#[derive(Clone, Default)]
pub(crate) struct Codec;

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Vec<MessageId>;
    type Response = Answer;

    async fn read_request<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<MessageId>> {
        let bytes = read_bounded(io, MAX_QUESTION).await?;
        decode_question(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Answer> {
        let bytes = read_bounded(io, MAX_ANSWER).await?;
        decode_answer(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        known: Vec<MessageId>,
    ) -> io::Result<()> {
        io.write_all(&encode_question(&known)).await?;
        io.close().await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T, answer: Answer) -> io::Result<()> {
        io.write_all(&encode_answer(&answer)).await?;
        io.close().await
    }
}

async fn read_bounded<T: AsyncRead + Unpin + Send>(io: &mut T, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io.take(most as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.len() > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(bytes)
}

fn encode_question(known: &[MessageId]) -> Vec<u8> {
    let known = &known[..known.len().min(MAX_RECENT)];
    let mut bytes = (known.len() as u16).to_be_bytes().to_vec();
    known.iter().for_each(|id| bytes.extend_from_slice(id));
    bytes
}

fn decode_question(bytes: &[u8]) -> Option<Vec<MessageId>> {
    let (count, ids) = bytes.split_first_chunk::<2>()?;
    let count = usize::from(u16::from_be_bytes(*count));
    let (ids, rest) = ids.as_chunks::<ID_BYTES>();
    (count <= MAX_RECENT && ids.len() == count && rest.is_empty()).then(|| ids.to_vec())
}

fn encode_answer(answer: &Answer) -> Vec<u8> {
    let mut bytes = vec![u8::from(answer.more == More::Yes)];
    bytes.extend_from_slice(&(answer.messages.len() as u16).to_be_bytes());
    for message in &answer.messages {
        bytes.extend_from_slice(&u32::try_from(message.age.as_secs()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&(message.bytes.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&message.bytes);
    }
    bytes
}

fn decode_answer(bytes: &[u8]) -> Option<Answer> {
    let (more, bytes) = bytes.split_first()?;
    let more = match more {
        0 => More::No,
        1 => More::Yes,
        _ => return None,
    };
    let (count, mut bytes) = bytes.split_first_chunk::<2>()?;
    let count = usize::from(u16::from_be_bytes(*count));
    if count > MAX_RECENT {
        return None;
    }
    let mut messages = Vec::with_capacity(count);
    for _ in 0..count {
        let (age_s, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (message, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        if message.len() > MAX_MESSAGE_BYTES {
            return None;
        }
        messages.push(Aged { age: Duration::from_secs(u32::from_be_bytes(*age_s).into()), bytes: message.to_vec() });
        bytes = rest;
    }
    bytes.is_empty().then_some(Answer { more, messages })
}

/// Who is to be asked and when, and who asks us too often.
#[derive(Default)]
pub(crate) struct SyncState {
    asks: HashMap<PeerId, Ask>,
    next_round: Option<Instant>,
}

struct Ask {
    due: VecDeque<Instant>,
    rounds: u8,
    in_flight: bool,
    asked_us: Rate,
}

impl SyncState {
    /// A peer has joined our topic.
    pub(crate) fn joined(&mut self, peer: PeerId, now: Instant) {
        let fresh = || Ask { due: VecDeque::new(), rounds: 0, in_flight: false, asked_us: Rate::new(now) };
        let ask = self.asks.entry(peer).or_insert_with(fresh);
        if ask.due.is_empty() {
            ask.due.extend([now, now + SECOND_LOOK]);
        }
    }

    pub(crate) fn left(&mut self, peer: &PeerId) {
        self.asks.remove(peer);
    }

    /// Peers to ask now. `any` picks the peer of the regular round.
    pub(crate) fn due(&mut self, now: Instant, any: u64) -> Vec<PeerId> {
        if *self.next_round.get_or_insert(now + EVERY) <= now {
            self.next_round = Some(now + EVERY);
            let count = self.asks.len().max(1) as u64;
            if let Some(ask) = self.asks.values_mut().nth((any % count) as usize) {
                ask.due.push_back(now);
            }
        }
        let mut free = MAX_IN_FLIGHT.saturating_sub(self.asks.values().filter(|ask| ask.in_flight).count());
        let mut peers = Vec::new();
        for (peer, ask) in &mut self.asks {
            if free > 0 && !ask.in_flight && ask.due.front().is_some_and(|at| *at <= now) {
                ask.due.pop_front();
                ask.in_flight = true;
                ask.rounds = 0;
                free -= 1;
                peers.push(*peer);
            }
        }
        peers
    }

    /// An answer came, or (with [`More::No`]) failed to; true if the same peer is to be asked for more at once.
    pub(crate) fn answered(&mut self, peer: &PeerId, more: More) -> bool {
        let Some(ask) = self.asks.get_mut(peer) else { return false };
        ask.rounds += 1;
        ask.in_flight = more == More::Yes && ask.rounds < MAX_ROUNDS;
        ask.in_flight
    }

    /// Whether a question of this peer is answered.
    pub(crate) fn may_ask(&mut self, peer: PeerId, now: Instant) -> bool {
        let fresh = || Ask { due: VecDeque::new(), rounds: 0, in_flight: false, asked_us: Rate::new(now) };
        let rate = &mut self.asks.entry(peer).or_insert_with(fresh).asked_us;
        if rate.is_spent(QUESTIONS, now) {
            return false;
        }
        rate.spend(QUESTIONS, now);
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn aged(age_s: u64, bytes: &[u8]) -> Aged {
        Aged { age: Duration::from_secs(age_s), bytes: bytes.to_vec() }
    }

    #[test]
    fn questions_and_answers_survive_the_wire() {
        let known: Vec<MessageId> = (0..200_u8).map(|n| [n; ID_BYTES]).collect();
        assert_eq!(decode_question(&encode_question(&known)).unwrap(), known);
        let answer = Answer { more: More::Yes, messages: vec![aged(7, b"task"), aged(86_400, &[1; MAX_MESSAGE_BYTES])] };
        assert_eq!(decode_answer(&encode_answer(&answer)).unwrap(), answer);
    }

    #[test]
    fn anything_but_the_exact_form_is_refused() {
        let question = encode_question(&[[1; ID_BYTES], [2; ID_BYTES]]);
        let answer = encode_answer(&Answer { more: More::No, messages: vec![aged(1, b"a"), aged(2, b"bc")] });
        for cut in 0..question.len() {
            assert_eq!(decode_question(&question[..cut]), None);
        }
        for cut in 0..answer.len() {
            assert_eq!(decode_answer(&answer[..cut]), None);
        }
        assert_eq!(decode_question(&[question, vec![0]].concat()), None);
        assert_eq!(decode_answer(&[answer, vec![0]].concat()), None);
        assert_eq!(decode_answer(&[2, 0, 0]), None);
        let many = MAX_RECENT as u16 + 1;
        assert_eq!(decode_question(&[many.to_be_bytes().to_vec(), vec![0; usize::from(many) * ID_BYTES]].concat()), None);
    }

    #[test]
    fn a_peer_is_asked_when_it_joins_and_once_more() {
        let now = Instant::now();
        let mut state = SyncState::default();
        let peer = PeerId::random();
        state.joined(peer, now);
        assert_eq!(state.due(now, 0), [peer]);
        assert_eq!(state.due(now + SECOND_LOOK, 0), [], "the first question is still under way");
        assert!(!state.answered(&peer, More::No));
        assert_eq!(state.due(now + SECOND_LOOK, 0), [peer]);
        state.answered(&peer, More::No);
        assert_eq!(state.due(now + SECOND_LOOK * 2, 0), []);
        assert_eq!(state.due(now + EVERY, 0), [peer], "the regular round");
    }

    #[test]
    fn few_questions_are_under_way_at_once() {
        let now = Instant::now();
        let mut state = SyncState::default();
        (0..50).for_each(|_| state.joined(PeerId::random(), now));
        assert_eq!(state.due(now, 0).len(), MAX_IN_FLIGHT);
        assert_eq!(state.due(now, 0).len(), 0);
    }

    #[test]
    fn a_peer_that_always_has_more_is_not_asked_for_ever() {
        let now = Instant::now();
        let mut state = SyncState::default();
        let peer = PeerId::random();
        state.joined(peer, now);
        state.due(now, 0);
        assert_eq!((0..100).filter(|_| state.answered(&peer, More::Yes)).count(), usize::from(MAX_ROUNDS) - 1);
    }

    #[test]
    fn a_peer_that_asks_too_often_gets_no_answer() {
        let now = Instant::now();
        let mut state = SyncState::default();
        let peer = PeerId::random();
        assert_eq!((0..100).filter(|_| state.may_ask(peer, now)).count(), QUESTIONS.burst as usize);
        assert!(state.may_ask(peer, now + QUESTIONS.period));
    }
}
