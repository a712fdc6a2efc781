//! A guest's own TCP stack at the other end of the frames: what gets through the gateway, and what does not.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xennet_gateway::{GATEWAY, GATEWAY_MAC, GUEST, GUEST_MAC, Gateway, Policy, Profile, Rates, Settings};

const SOON: Duration = Duration::from_secs(20);

/// The guest's card.
struct Card {
    stream: UnixStream,
    input: Vec<u8>,
    packets: VecDeque<Vec<u8>>,
    bytes: u64,
}

impl Card {
    fn send(&mut self, frame: &[u8]) {
        let mut whole = u32::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
        whole.extend(frame);
        self.bytes += frame.len() as u64;
        self.stream.set_nonblocking(false).unwrap();
        let _ = self.stream.write_all(&whole);
        self.stream.set_nonblocking(true).unwrap();
    }

    fn take(&mut self) {
        let mut bytes = [0; 65_536];
        while let Ok(count @ 1..) = self.stream.read(&mut bytes) {
            self.input.extend(&bytes[..count]);
        }
        while self.input.len() >= 4 {
            let length = u32::from_be_bytes(self.input[..4].try_into().unwrap()) as usize;
            if self.input.len() < 4 + length {
                break;
            }
            let frame: Vec<u8> = self.input.drain(..4 + length).skip(4).collect();
            self.bytes += frame.len() as u64;
            assert_eq!((&frame[..6], &frame[6..12]), (&GUEST_MAC[..], &GATEWAY_MAC[..]));
            self.packets.push_back(frame[14..].to_vec());
        }
    }
}

struct Packet(Vec<u8>);
struct Place<'a>(&'a mut Card);

impl RxToken for Packet {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Place<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = [&GATEWAY_MAC[..], &GUEST_MAC, &[8, 0]].concat();
        frame.resize(14 + length, 0);
        let result = write(&mut frame[14..]);
        self.0.send(&frame);
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Packet;
    type TxToken<'a> = Place<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Packet, Place<'_>)> {
        self.take();
        let packet = self.packets.pop_front()?;
        Some((Packet(packet), Place(self)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Place<'_>> {
        Some(Place(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1_500;
        capabilities
    }
}

struct Guest {
    card: Card,
    stack: Interface,
    sockets: SocketSet<'static>,
    begun: Instant,
}

impl Guest {
    fn new(stream: UnixStream) -> Guest {
        stream.set_nonblocking(true).unwrap();
        let mut card = Card { stream, input: Vec::new(), packets: VecDeque::new(), bytes: 0 };
        let mut stack = Interface::new(Config::new(HardwareAddress::Ip), &mut card, StackInstant::ZERO);
        stack.update_ip_addrs(|addresses| addresses.push(IpCidr::new(GUEST.into(), 24)).unwrap());
        stack.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        Guest { card, stack, sockets: SocketSet::new(Vec::new()), begun: Instant::now() }
    }

    fn poll(&mut self) {
        let now = StackInstant::from_micros(self.begun.elapsed().as_micros() as i64);
        self.stack.poll(now, &mut self.card, &mut self.sockets);
        std::thread::sleep(Duration::from_micros(200));
    }

    /// How a connection outward ends up: established, or refused.
    fn dial(&mut self, to: [u8; 4], port: u16, from: u16) -> bool {
        let mut socket = socket();
        socket.connect(self.stack.context(), (IpAddress::from(std::net::Ipv4Addr::from(to)), port), from).unwrap();
        let handle = self.sockets.add(socket);
        let end = Instant::now() + SOON;
        while self.sockets.get::<Socket<'_>>(handle).state() == State::SynSent {
            assert!(Instant::now() < end, "neither taken nor refused");
            self.poll();
        }
        self.sockets.get::<Socket<'_>>(handle).state() == State::Established
    }

    /// Gives back what comes on port 22, until told to stop.
    fn echo(mut self, stop: &AtomicBool) -> Guest {
        let mut socket = socket();
        socket.listen(22).unwrap();
        let handle = self.sockets.add(socket);
        while !stop.load(Ordering::Relaxed) {
            self.poll();
            let socket = self.sockets.get_mut::<Socket<'_>>(handle);
            let room = socket.send_capacity() - socket.send_queue();
            if socket.can_recv() && room > 0 {
                let bytes = socket.recv(|bytes| (bytes.len().min(room), bytes[..bytes.len().min(room)].to_vec())).unwrap();
                assert_eq!(socket.send_slice(&bytes).unwrap(), bytes.len());
            }
            if socket.state() == State::CloseWait && socket.recv_queue() == 0 {
                socket.close();
            }
        }
        self
    }
}

fn socket() -> Socket<'static> {
    Socket::new(SocketBuffer::new(vec![0; 65_536]), SocketBuffer::new(vec![0; 65_536]))
}

fn pair(policy: Policy, rates: Rates) -> (Gateway, Guest) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let settings = Settings { policy: Arc::new(policy), rates, ..Settings::default() };
    (Gateway::start(ours, settings).unwrap(), Guest::new(theirs))
}

async fn echoed(gateway: &Gateway, length: usize) -> Duration {
    let begun = Instant::now();
    let stream = gateway.connect(22).await.unwrap();
    let (mut from, mut to) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        to.write_all(&copy).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    tokio::time::timeout(Duration::from_secs(60), from.read_to_end(&mut back)).await.unwrap().unwrap();
    writer.await.unwrap();
    assert!(back == sent, "{} bytes of {length} came back, or others", back.len());
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_from_the_tunnel_is_carried_whole_and_every_frame_is_counted() {
    let (gateway, guest) = pair(Policy::default(), Rates::default());
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let guest = tokio::task::spawn_blocking(move || guest.echo(&told));
    echoed(&gateway, 3_000_000).await;
    // What is still on the wire has time to be counted by both.
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let guest = guest.await.unwrap();
    let counts = gateway.counts();
    assert_eq!((counts.up_payload_bytes, counts.down_payload_bytes, counts.came_in), (3_000_000, 3_000_000, 1));
    assert_eq!(counts.up_frame_bytes + counts.down_frame_bytes, guest.card.bytes);
    assert_eq!((counts.dropped_malformed, counts.dropped_spoofed, counts.opened), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_keep_to_their_rates() {
    let rates = Rates { up_bytes_per_s: Some(500_000), down_bytes_per_s: Some(500_000) };
    let (gateway, guest) = pair(Policy::default(), rates);
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let guest = tokio::task::spawn_blocking(move || guest.echo(&told));
    let slow = echoed(&gateway, 1_000_000).await;
    assert!(slow > Duration::from_millis(1_700), "a megabyte at 500 kB/s took {slow:?}");
    stop.store(true, Ordering::Relaxed);
    guest.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_scans_reaches_nothing_and_learns_so_at_once() {
    // Somebody listens on the host, and hears nothing.
    let host = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    host.set_nonblocking(true).unwrap();
    let port = host.local_addr().unwrap().port();
    let policy = Policy { profile: Profile::OpenInternet, allow: vec!["127.0.0.0/8".parse().unwrap()] };
    let (gateway, mut guest) = pair(policy, Rates::default());
    let guest = tokio::task::spawn_blocking(move || {
        let targets = [[127, 0, 0, 1], [10, 0, 2, 2], [10, 0, 2, 3], [169, 254, 169, 254], [192, 168, 0, 1], [100, 64, 0, 1], [0, 0, 0, 1]];
        for (number, to) in targets.into_iter().enumerate() {
            assert!(!guest.dial(to, port, 40_000 + number as u16), "{to:?}");
        }
        // Spoofed and broken frames are counted, and nothing else happens.
        let mut frame = [&GATEWAY_MAC[..], &[2, 0, 0, 0, 0, 9], &[8, 0]].concat();
        guest.card.send(&frame);
        frame[6..12].copy_from_slice(&GUEST_MAC);
        guest.card.send(&frame);
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        guest.card.send(&frame);
        guest
    });
    drop(guest.await.unwrap().card.stream.shutdown(std::net::Shutdown::Write));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(host.accept().is_err());
    let counts = gateway.counts();
    assert_eq!((counts.dropped_forbidden, counts.opened), (7, 0));
    assert_eq!((counts.dropped_spoofed, counts.dropped_malformed, counts.dropped_other), (1, 1, 1));
}
