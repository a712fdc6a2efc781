//! One guest's gateway at work: a single task that moves frames, flows and answers.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Sleep;

use crate::bucket::Bucket;
use crate::counters::{Counters, add};
use crate::datagrams::Datagrams;
use crate::device::{Card, LONGEST, next_frame};
use crate::flows::Flows;
use crate::frame::{self, Sent};
use crate::gateway::{Rates, Settings, Visit};
use crate::policy::{Policy, Protocol};
use crate::{GUEST_MAC, NAMES, dns};

/// Packets that wait for the TCP stack; then the guest waits.
const MOST_PACKETS: usize = 256;
/// Questions for names in a second, and at once after a rest.
const ASKED: (u64, u64) = (20, 60);
/// What may go at once after a rest, bytes, or an eighth of a second's worth if that is more.
const BURST: u64 = 64 * 1024;
/// Where the sender's address stands, counted from a frame's length.
const SOURCE: (usize, usize) = (10, 16);
/// Turns before other tasks have theirs.
const TURNS: usize = 16;
/// Between two looks for what has grown old.
const SWEEP: Duration = Duration::from_secs(1);

pub(crate) struct Engine {
    stream: UnixStream,
    policy: Arc<Policy>,
    server: Option<SocketAddr>,
    visits: mpsc::Receiver<Visit>,
    rates: watch::Receiver<Rates>,
    card: Card,
    flows: Flows,
    datagrams: Datagrams,
    up: Bucket,
    down: Bucket,
    opened: Bucket,
    asked: Bucket,
    input: Vec<u8>,
    /// Whether a whole frame was seen, so that each next one begins where the last one ended.
    in_step: bool,
    sleep: Pin<Box<Sleep>>,
}

impl Engine {
    pub(crate) fn new(
        stream: UnixStream,
        settings: Settings,
        server: Option<SocketAddr>,
        visits: mpsc::Receiver<Visit>,
        mut rates: watch::Receiver<Rates>,
        counters: Arc<Counters>,
    ) -> Engine {
        let now = Instant::now();
        let mut card = Card { open: true, counters, ..Card::default() };
        let flows = Flows::new(&mut card, rand::random(), settings.limits.connections);
        rates.mark_changed();
        Engine {
            stream,
            policy: settings.policy,
            server,
            visits,
            rates,
            card,
            flows,
            datagrams: Datagrams::default(),
            up: Bucket::new(None, BURST, now),
            down: Bucket::new(None, BURST, now),
            opened: Bucket::new(Some(settings.limits.opened_per_s), settings.limits.opened_per_s.saturating_mul(2), now),
            asked: Bucket::new(Some(ASKED.0), ASKED.1, now),
            input: Vec::new(),
            in_step: false,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    /// Works until the guest's card or the gateway's handle is gone.
    pub(crate) async fn run(mut self) -> std::io::Result<()> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        for turn in 0.. {
            let now = Instant::now();
            self.set_rates(now);
            self.card.open = self.down.is_open(now);
            let mut moved = false;
            while !self.flows.is_full() {
                match self.visits.poll_recv(context) {
                    Poll::Ready(Some(visit)) => {
                        self.flows.enter(visit);
                        moved = true;
                    }
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => break,
                }
            }
            match self.read(context, now) {
                Ok(read) => moved |= read,
                Err(error) => return Poll::Ready(Err(error)),
            }
            moved |= self.flows.poll(context, &mut self.card);
            moved |= self.datagrams.poll(context, &mut self.card, &self.policy);
            self.down.take(std::mem::take(&mut self.card.fresh));
            match self.write(context) {
                Ok(wrote) => moved |= wrote,
                Err(error) => return Poll::Ready(Err(error)),
            }
            if moved && turn < TURNS {
                continue;
            }
            if moved {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let wait = self.wait(now);
            self.sleep.as_mut().reset(tokio::time::Instant::now() + wait);
            if self.sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Pending
    }

    /// How long nothing has to be done unless something comes. Never zero: a full card would spin.
    fn wait(&mut self, now: Instant) -> Duration {
        let mut wait = self.flows.wait().unwrap_or(Duration::from_secs(60)).max(Duration::from_millis(1));
        if !self.datagrams.is_idle() {
            wait = wait.min(SWEEP);
        }
        for bucket in [&mut self.up, &mut self.down] {
            if !bucket.is_open(now) {
                wait = wait.min(bucket.opens_in().max(Duration::from_micros(100)));
            }
        }
        wait.min(SWEEP)
    }

    fn set_rates(&mut self, now: Instant) {
        if self.rates.has_changed().unwrap_or(false) {
            let rates = *self.rates.borrow_and_update();
            for (bucket, rate) in [(&mut self.up, rates.up_bytes_per_s), (&mut self.down, rates.down_bytes_per_s)] {
                bucket.set(rate, rate.map_or(BURST, |rate| BURST.max(rate / 8)), now);
            }
        }
    }

    /// Takes frames of the guest, as many as there is room and leave for.
    fn read(&mut self, context: &mut Context<'_>, now: Instant) -> std::io::Result<bool> {
        let mut moved = false;
        let mut used = 0;
        while self.up.is_open(now) && self.card.packets.len() < MOST_PACKETS {
            if !self.in_step {
                self.fall_in()?;
            }
            let next = if self.in_step { next_frame(&self.input[used..]) } else { Ok(None) };
            match next {
                Ok(Some(place)) => {
                    let place = used + place.start..used + place.end;
                    used = place.end;
                    self.up.take(place.len());
                    let input = std::mem::take(&mut self.input);
                    self.take(&input[place], now);
                    self.input = input;
                    moved = true;
                }
                Err(length) => {
                    let said = format!("the guest's card sent a frame of {length} bytes, but {LONGEST} are the most: start it anew");
                    return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, said));
                }
                Ok(None) => {
                    self.input.drain(..used);
                    used = 0;
                    let mut bytes = [0; 32 * 1024];
                    let mut buffer = ReadBuf::new(&mut bytes);
                    match Pin::new(&mut self.stream).poll_read(context, &mut buffer)? {
                        Poll::Pending => break,
                        Poll::Ready(()) if buffer.filled().is_empty() => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                        Poll::Ready(()) => self.input.extend_from_slice(buffer.filled()),
                    }
                }
            }
        }
        self.input.drain(..used);
        Ok(moved)
    }

    /// QEMU goes on with the frame it was sending when an earlier taker of the network let go, so the first bytes may be the
    /// end of one. Drops them: a frame begins where its length is followed by the card's own address as the sender's.
    fn fall_in(&mut self) -> std::io::Result<()> {
        let begins = |at: usize| {
            let source = self.input.get(at + SOURCE.0..at + SOURCE.1)?;
            let length = next_frame(&self.input[at..]);
            (source == GUEST_MAC && length.is_ok()).then_some(at)
        };
        if let Some(at) = (0..self.input.len()).find_map(begins) {
            self.input.drain(..at);
            self.in_step = true;
        } else if self.input.len() > 2 * LONGEST {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the guest's card sends no frames of its own"));
        }
        Ok(())
    }

    fn write(&mut self, context: &mut Context<'_>) -> std::io::Result<bool> {
        let mut moved = false;
        while self.card.written < self.card.out.len() {
            match Pin::new(&mut self.stream).poll_write(context, &self.card.out[self.card.written..])? {
                Poll::Ready(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => {
                    self.card.wrote(count);
                    moved = true;
                }
                Poll::Pending => break,
            }
        }
        Ok(moved)
    }

    /// Decides about one frame.
    fn take(&mut self, bytes: &[u8], now: Instant) {
        let counters = Arc::clone(&self.card.counters);
        add(&counters.up_frames, 1);
        add(&counters.up_frame_bytes, bytes.len());
        match frame::read(bytes) {
            Sent::Answer(answer) => self.card.put(&answer),
            Sent::Malformed => add(&counters.dropped_malformed, 1),
            Sent::Spoofed => add(&counters.dropped_spoofed, 1),
            Sent::Other => add(&counters.dropped_other, 1),
            Sent::Tcp { from_port, to, opens, packet } => {
                let key = (from_port, to);
                let packet = packet.to_vec();
                if !opens {
                    self.card.packets.push_back(packet);
                } else if self.flows.is_opening(&key) {
                    // The guest repeats itself while the host still connects.
                } else if self.policy.check(Protocol::Tcp, to).is_err() {
                    add(&counters.dropped_forbidden, 1);
                    // Nobody listens there in the stack, so it refuses: a guest need not wait to learn it.
                    self.card.packets.push_back(packet);
                } else if self.flows.is_full() || !self.opened.try_take(1, now) {
                    add(&counters.dropped_limit, 1);
                } else {
                    self.flows.open(key, packet);
                }
            }
            Sent::Udp { from_port, to, payload } if (*to.ip(), to.port()) == (NAMES, 53) => self.name(from_port, payload, now),
            Sent::Udp { from_port, to, payload } => {
                let key = (from_port, to);
                if self.datagrams.knows(&key) {
                    self.datagrams.send(key, payload, &self.card);
                } else if *to.ip() == Ipv4Addr::BROADCAST || to.ip().is_multicast() {
                    add(&counters.dropped_other, 1);
                } else if self.policy.check(Protocol::Udp, to).is_err() {
                    add(&counters.dropped_forbidden, 1);
                } else if self.datagrams.is_full() || !self.opened.try_take(1, now) {
                    add(&counters.dropped_limit, 1);
                } else {
                    self.datagrams.send(key, payload, &self.card);
                }
            }
        }
    }

    fn name(&mut self, from_port: u16, question: &[u8], now: Instant) {
        let allowed = self.policy.answers_names() && self.asked.try_take(1, now);
        if allowed && self.datagrams.ask(from_port, question, self.server) {
            return add(&self.card.counters.names_asked, 1);
        }
        add(&self.card.counters.names_refused, 1);
        let refusal = dns::is_question(question).then(|| dns::refusal(question)).flatten();
        if let Some(frame) = refusal.and_then(|refusal| frame::udp(SocketAddrV4::new(NAMES, 53), from_port, &refusal)) {
            self.card.put(&frame);
        }
    }
}
