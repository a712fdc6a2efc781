//! UDP: each flow has a socket of the host, connected to the one address that was checked. Names are among them.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rand::RngCore;
use rand::rngs::OsRng;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use crate::counters::add;
use crate::device::Card;
use crate::policy::Policy;
use crate::{NAMES, dns, frame};

/// UDP flows that a guest may have at once.
const MOST_FLOWS: usize = 64;
/// Questions for names under way at once.
const MOST_QUESTIONS: usize = 32;
/// How long a flow is kept after its last datagram.
const KEPT: Duration = Duration::from_secs(60);
/// How long a name server has to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Datagrams of one socket that are taken before others have their turn.
const TURN: usize = 32;

struct Flow {
    socket: UdpSocket,
    last: Instant,
}

/// A question under way: what was sent, and what its asker called it.
struct Question {
    socket: UdpSocket,
    asked: Vec<u8>,
    number: [u8; 2],
    from_port: u16,
    since: Instant,
}

/// All UDP flows of a guest, and its questions.
#[derive(Default)]
pub(crate) struct Datagrams {
    flows: HashMap<(u16, SocketAddrV4), Flow>,
    questions: Vec<Question>,
}

impl Datagrams {
    pub(crate) fn knows(&self, key: &(u16, SocketAddrV4)) -> bool {
        self.flows.contains_key(key)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.flows.len() >= MOST_FLOWS
    }

    /// Sends a datagram that the policy allows.
    pub(crate) fn send(&mut self, key: (u16, SocketAddrV4), payload: &[u8], card: &Card) {
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.last = Instant::now();
            // What the host cannot send at once is lost, as on any wire.
            if flow.socket.try_send(payload).is_ok() {
                add(&card.counters.up_payload_bytes, payload.len());
            }
        } else {
            // The first goes with the socket's making, before the runtime knows whether it can be written to.
            let Ok(socket) = sent(SocketAddr::V4(key.1), payload) else { return };
            add(&card.counters.opened, 1);
            add(&card.counters.up_payload_bytes, payload.len());
            self.flows.insert(key, Flow { socket, last: Instant::now() });
        }
    }

    /// Passes a question on. False if it cannot be.
    pub(crate) fn ask(&mut self, from_port: u16, question: &[u8], server: Option<SocketAddr>) -> bool {
        let Some(server) = server else { return false };
        if self.questions.len() >= MOST_QUESTIONS || !dns::is_question(question) {
            return false;
        }
        let mut asked = question.to_vec();
        // A number that the guest does not know, so that it cannot answer itself through a friend outside.
        let mut number = [0; 2];
        OsRng.fill_bytes(&mut number);
        let Some(number) = dns::renumber(&mut asked, number) else { return false };
        // Sent once: what is lost is asked again by the guest.
        let Ok(socket) = sent(server, &asked) else { return false };
        self.questions.push(Question { socket, asked, number, from_port, since: Instant::now() });
        true
    }

    /// Moves what can be moved. True if something was.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, card: &mut Card, policy: &Policy) -> bool {
        let mut moved = false;
        let mut bytes = [0; dns::LONGEST];
        for ((port, from), flow) in &mut self.flows {
            for _ in 0..TURN {
                if !card.has_room() {
                    break;
                }
                let mut buffer = ReadBuf::new(&mut bytes);
                match flow.socket.poll_recv(context, &mut buffer) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => continue,
                    Poll::Pending => break,
                }
                moved = true;
                flow.last = Instant::now();
                if let Some(frame) = frame::udp(*from, *port, buffer.filled()) {
                    add(&card.counters.down_payload_bytes, buffer.filled().len());
                    card.put(&frame);
                }
            }
        }
        self.flows.retain(|_, flow| flow.last.elapsed() < KEPT);
        self.questions.retain_mut(|question| !question.poll(context, card, policy, &mut moved));
        moved
    }

    /// Whether something waits for a time to pass.
    pub(crate) fn is_idle(&self) -> bool {
        self.flows.is_empty() && self.questions.is_empty()
    }
}

impl Question {
    /// True when it is answered or given up.
    fn poll(&mut self, context: &mut Context<'_>, card: &mut Card, policy: &Policy, moved: &mut bool) -> bool {
        let mut bytes = [0; dns::LONGEST];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match self.socket.poll_recv(context, &mut buffer) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return true,
                Poll::Pending => return self.since.elapsed() >= ANSWER_WITHIN,
            }
            *moved = true;
            if !dns::answers(&self.asked, buffer.filled()) {
                continue;
            }
            let mut answer = if dns::may_be_told(policy, buffer.filled()) {
                buffer.filled().to_vec()
            } else {
                add(&card.counters.names_refused, 1);
                dns::refusal(&self.asked).unwrap_or_default()
            };
            dns::renumber(&mut answer, self.number);
            if let Some(frame) = frame::udp(SocketAddrV4::new(NAMES, 53), self.from_port, &answer) {
                card.put(&frame);
            }
            return true;
        }
    }
}

/// A socket that hears from one address alone, to which this was sent.
fn sent(to: SocketAddr, payload: &[u8]) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    socket.send(payload)?;
    UdpSocket::from_std(socket)
}
