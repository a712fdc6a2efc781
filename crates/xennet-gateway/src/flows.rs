//! TCP: each flow is a socket of our own stack, joined to a stream of the host.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddrV4;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, Stream};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration as StackDuration, Instant as StackInstant};
use smoltcp::wire::{HardwareAddress, IpCidr};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::counters::add;
use crate::device::Card;
use crate::gateway::Visit;
use crate::{GATEWAY, GUEST};

/// Of each direction of a flow, bytes.
const BUFFER: usize = 128 * 1024;
/// How long a host of the outside has to answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// How long a guest may leave what it was sent without an answer. It may have been paused.
const SILENT_FOR: StackDuration = StackDuration::from_secs(600);

trait Outside: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Outside for T {}

struct Flow {
    handle: SocketHandle,
    outside: Box<dyn Outside>,
    /// Who waits to hear whether the guest takes the connection.
    taken: Option<oneshot::Sender<io::Result<()>>>,
    /// The outside has said its last.
    outside_ended: bool,
    /// The outside was told that the guest has said its last.
    told: bool,
}

/// From which port of the guest to where.
type Key = (u16, SocketAddrV4);
type Opening = BoxFuture<'static, (Key, Vec<u8>, io::Result<TcpStream>)>;

/// All TCP flows of a guest.
pub(crate) struct Flows {
    stack: Interface,
    sockets: SocketSet<'static>,
    flows: Vec<Flow>,
    opening: FuturesUnordered<Opening>,
    keys: HashSet<Key>,
    next_port: u16,
    most: usize,
    begun: std::time::Instant,
}

impl Flows {
    pub(crate) fn new(card: &mut Card, seed: u64, most: usize) -> Flows {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut stack = Interface::new(config, card, StackInstant::ZERO);
        stack.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(GATEWAY.into(), 24));
        });
        // Every address is ours, so that a flow to any of them can be ended here.
        stack.set_any_ip(true);
        let _ = stack.routes_mut().add_default_ipv4_route(GATEWAY);
        Flows {
            stack,
            sockets: SocketSet::new(Vec::new()),
            flows: Vec::new(),
            opening: FuturesUnordered::new(),
            keys: HashSet::new(),
            next_port: 49_152,
            most: most.max(1),
            begun: std::time::Instant::now(),
        }
    }

    fn now(&self) -> StackInstant {
        StackInstant::from_micros(i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.flows.len() + self.opening.len() >= self.most
    }

    pub(crate) fn is_opening(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    /// Connects outward; the guest's first packet waits for how that ends.
    pub(crate) fn open(&mut self, key: Key, packet: Vec<u8>) {
        self.keys.insert(key);
        self.opening.push(Box::pin(async move {
            let stream = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(key.1)).await;
            let stream = stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).and_then(|stream| {
                stream.set_nodelay(true)?;
                // A port that a host dialled at itself by chance, or an address that became its own meanwhile.
                if stream.local_addr()?.ip() == stream.peer_addr()?.ip() {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                Ok(stream)
            });
            (key, packet, stream)
        }));
    }

    /// Connects to a port of the guest.
    pub(crate) fn enter(&mut self, visit: Visit) {
        let mut socket = socket();
        let from = self.next_port;
        self.next_port = from.checked_add(1).unwrap_or(49_152);
        if socket.connect(self.stack.context(), (GUEST, visit.port), (GATEWAY, from)).is_ok() {
            self.add(socket, Box::new(visit.stream), Some(visit.taken));
        }
    }

    fn add(&mut self, socket: Socket<'static>, outside: Box<dyn Outside>, taken: Option<oneshot::Sender<io::Result<()>>>) {
        let handle = self.sockets.add(socket);
        self.flows.push(Flow { handle, outside, taken, outside_ended: false, told: false });
    }

    /// Moves what can be moved. True if something was.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, card: &mut Card) -> bool {
        let mut moved = false;
        while let Poll::Ready(Some((key, packet, stream))) = Pin::new(&mut self.opening).poll_next(context) {
            self.keys.remove(&key);
            if let Ok(stream) = stream {
                let mut socket = socket();
                if socket.listen((*key.1.ip(), key.1.port())).is_ok() {
                    self.add(socket, Box::new(stream), None);
                    add(&card.counters.opened, 1);
                }
            }
            // Nobody listens for it if the connection failed, and the stack refuses it.
            card.packets.push_back(packet);
            moved = true;
        }
        let now = self.now();
        moved |= self.stack.poll(now, card, &mut self.sockets) == smoltcp::iface::PollResult::SocketStateChanged;
        let (sockets, flows) = (&mut self.sockets, &mut self.flows);
        flows.retain_mut(|flow| {
            let socket = sockets.get_mut::<Socket<'_>>(flow.handle);
            flow.tell(socket, context, card);
            moved |= flow.inward(socket, context, card) | flow.outward(socket, context, card);
            let over = matches!(socket.state(), State::Closed | State::TimeWait) && socket.recv_queue() == 0;
            if over {
                sockets.remove(flow.handle);
            }
            !over
        });
        if moved {
            let now = self.now();
            self.stack.poll(now, card, &mut self.sockets);
        }
        moved
    }

    /// When the stack wants to be asked again.
    pub(crate) fn wait(&mut self) -> Option<Duration> {
        let now = self.now();
        self.stack.poll_delay(now, &self.sockets).map(|delay| Duration::from_micros(delay.total_micros()))
    }
}

fn socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);
    socket.set_timeout(Some(SILENT_FOR));
    socket
}

impl Flow {
    /// Tells who waits for it whether the guest takes the connection, or calls it off when nobody waits any more.
    fn tell(&mut self, socket: &mut Socket<'_>, context: &mut Context<'_>, card: &Card) {
        let Some(taken) = &mut self.taken else { return };
        let answer = match socket.state() {
            State::Established | State::CloseWait => Ok(()),
            State::SynSent => {
                if taken.poll_closed(context).is_ready() {
                    self.taken = None;
                    socket.abort();
                }
                return;
            }
            _ => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nothing in the guest listens on that port")),
        };
        if answer.is_ok() {
            add(&card.counters.came_in, 1);
        }
        if let Some(taken) = self.taken.take() {
            let _ = taken.send(answer);
        }
    }

    /// From the outside into the guest.
    fn inward(&mut self, socket: &mut Socket<'_>, context: &mut Context<'_>, card: &Card) -> bool {
        let mut moved = false;
        while !self.outside_ended && socket.can_send() {
            let outside = &mut self.outside;
            let read = socket.send(|place| {
                let mut buffer = ReadBuf::new(place);
                match Pin::new(outside).poll_read(context, &mut buffer) {
                    Poll::Ready(Ok(())) => (buffer.filled().len(), Some(Ok(buffer.filled().len()))),
                    Poll::Ready(Err(error)) => (0, Some(Err(error))),
                    Poll::Pending => (0, None),
                }
            });
            match read {
                Ok(Some(Ok(count @ 1..))) => add(&card.counters.down_payload_bytes, count),
                Ok(Some(Ok(0))) => {
                    self.outside_ended = true;
                    socket.close();
                }
                Ok(None) => break,
                Ok(Some(Err(_))) | Err(_) => {
                    self.outside_ended = true;
                    socket.abort();
                }
            }
            moved = true;
        }
        moved
    }

    /// From the guest to the outside.
    fn outward(&mut self, socket: &mut Socket<'_>, context: &mut Context<'_>, card: &Card) -> bool {
        let mut moved = false;
        while socket.can_recv() {
            let outside = &mut self.outside;
            let wrote = socket.recv(|bytes| match Pin::new(outside).poll_write(context, bytes) {
                Poll::Ready(Ok(count)) => (count, Some(Ok(count))),
                Poll::Ready(Err(error)) => (bytes.len(), Some(Err(error))),
                Poll::Pending => (0, None),
            });
            match wrote {
                Ok(Some(Ok(count @ 1..))) => add(&card.counters.up_payload_bytes, count),
                Ok(None) => return moved,
                Ok(Some(_)) | Err(_) => socket.abort(),
            }
            moved = true;
        }
        let ended = !socket.may_recv() && !matches!(socket.state(), State::SynSent | State::SynReceived | State::Listen);
        if ended && !self.told {
            if Pin::new(&mut self.outside).poll_shutdown(context).is_ready() {
                self.told = true;
                moved = true;
            }
        } else {
            let _ = Pin::new(&mut self.outside).poll_flush(context);
        }
        moved
    }
}
