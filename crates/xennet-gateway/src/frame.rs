//! Frames: what a guest's frame is, and the frames that answer it.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket, UdpPacket, UdpRepr,
};

use crate::{GATEWAY, GATEWAY_MAC, GUEST, GUEST_MAC, NAMES};

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;
/// The longest IP packet that the guest's interface carries, bytes.
pub(crate) const MTU: usize = 1_500;
const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
/// How long an address is lent, seconds. It is always the same one.
const LENT: u32 = 86_400;

const MAC: EthernetAddress = EthernetAddress(GATEWAY_MAC);
const GUESTS: EthernetAddress = EthernetAddress(GUEST_MAC);

/// What a guest sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent<'a> {
    /// An answer is ready; nothing else is to be done.
    Answer(Vec<u8>),
    /// A TCP segment.
    Tcp { from_port: u16, to: SocketAddrV4, opens: bool, packet: &'a [u8] },
    /// A datagram.
    Udp { from_port: u16, to: SocketAddrV4, payload: &'a [u8] },
    /// From another address than the guest's.
    Spoofed,
    /// Not to be read.
    Malformed,
    /// Not carried.
    Other,
}

/// Reads a frame.
pub(crate) fn read(frame: &[u8]) -> Sent<'_> {
    let Ok(ethernet) = EthernetFrame::new_checked(frame) else { return Sent::Malformed };
    if ethernet.src_addr() != GUESTS {
        return Sent::Spoofed;
    }
    match ethernet.ethertype() {
        EthernetProtocol::Arp => arp(ethernet.payload()),
        EthernetProtocol::Ipv4 => ipv4(ethernet.payload()),
        _ => Sent::Other,
    }
}

fn arp(bytes: &[u8]) -> Sent<'_> {
    let Ok(ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, target_protocol_addr, .. }) =
        ArpPacket::new_checked(bytes).and_then(|packet| ArpRepr::parse(&packet))
    else {
        return Sent::Malformed;
    };
    // A guest that looks whether its address is taken asks from 0.0.0.0.
    if source_hardware_addr != GUESTS || !(source_protocol_addr == GUEST || source_protocol_addr.is_unspecified()) {
        return Sent::Spoofed;
    }
    if operation != ArpOperation::Request || !(target_protocol_addr == GATEWAY || target_protocol_addr == NAMES) {
        return Sent::Other;
    }
    let answer = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: MAC,
        source_protocol_addr: target_protocol_addr,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    let mut frame = ethernet(EthernetProtocol::Arp, answer.buffer_len());
    answer.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET..]));
    Sent::Answer(frame)
}

fn ipv4(bytes: &[u8]) -> Sent<'_> {
    let Ok(packet) = Ipv4Packet::new_checked(bytes) else { return Sent::Malformed };
    if packet.version() != 4 {
        return Sent::Malformed;
    }
    let total = usize::from(packet.total_len());
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    if packet.more_frags() || packet.frag_offset() != 0 {
        return Sent::Other;
    }
    let payload = packet_payload(bytes, usize::from(packet.header_len()), total);
    if packet.next_header() == IpProtocol::Udp
        && (from.is_unspecified() || from == GUEST)
        && let Ok(udp) = UdpPacket::new_checked(payload)
        && (udp.src_port(), udp.dst_port()) == (68, 67)
    {
        return dhcp(udp.payload());
    }
    if from != GUEST {
        return Sent::Spoofed;
    }
    match packet.next_header() {
        IpProtocol::Tcp => match TcpPacket::new_checked(payload) {
            Ok(tcp) if tcp.src_port() != 0 && tcp.dst_port() != 0 => Sent::Tcp {
                from_port: tcp.src_port(),
                to: SocketAddrV4::new(to, tcp.dst_port()),
                opens: tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin(),
                packet: &bytes[..total],
            },
            _ => Sent::Malformed,
        },
        IpProtocol::Udp => match UdpPacket::new_checked(payload) {
            Ok(udp) if udp.dst_port() != 0 => {
                Sent::Udp { from_port: udp.src_port(), to: SocketAddrV4::new(to, udp.dst_port()), payload: udp.payload() }
            }
            _ => Sent::Malformed,
        },
        IpProtocol::Icmp if to == GATEWAY || to == NAMES => echo(to, payload),
        _ => Sent::Other,
    }
}

/// What stands between an IP packet's header and its end; `new_checked` has seen to the lengths.
fn packet_payload(bytes: &[u8], header: usize, total: usize) -> &[u8] {
    bytes.get(header..total).unwrap_or_default()
}

/// The gateway itself can be pinged, and nothing else.
fn echo(to: Ipv4Addr, bytes: &[u8]) -> Sent<'_> {
    let asked = Icmpv4Packet::new_checked(bytes).ok();
    let asked = asked.as_ref().and_then(|packet| Icmpv4Repr::parse(packet, &ChecksumCapabilities::default()).ok());
    let Some(Icmpv4Repr::EchoRequest { ident, seq_no, data }) = asked else { return Sent::Other };
    if data.len() > MTU - 28 {
        return Sent::Other;
    }
    let answer = Icmpv4Repr::EchoReply { ident, seq_no, data };
    let mut frame = packet(to, GUEST, IpProtocol::Icmp, answer.buffer_len());
    answer.emit(&mut Icmpv4Packet::new_unchecked(&mut frame[ETHERNET + 20..]), &ChecksumCapabilities::default());
    Sent::Answer(frame)
}

fn dhcp(bytes: &[u8]) -> Sent<'_> {
    let packet = DhcpPacket::new_checked(bytes).ok();
    let Some(asked) = packet.as_ref().and_then(|packet| DhcpRepr::parse(packet).ok()) else { return Sent::Malformed };
    if asked.client_hardware_address != GUESTS {
        return Sent::Spoofed;
    }
    let message_type = match asked.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request | DhcpMessageType::Inform if asked.requested_ip.is_none_or(|address| address == GUEST) => {
            DhcpMessageType::Ack
        }
        DhcpMessageType::Request => DhcpMessageType::Nak,
        _ => return Sent::Other,
    };
    let mut names = smoltcp::wire::DhcpRepr { ..blank(&asked) };
    if message_type != DhcpMessageType::Nak {
        names.your_ip = GUEST;
        names.router = Some(GATEWAY);
        names.subnet_mask = Some(MASK);
        names.lease_duration = Some(LENT);
        names.dns_servers = Some([NAMES].into_iter().collect());
    }
    names.message_type = message_type;
    let mut message = vec![0; names.buffer_len()];
    if names.emit(&mut DhcpPacket::new_unchecked(&mut message[..])).is_err() {
        return Sent::Other;
    }
    Sent::Answer(udp_between(SocketAddrV4::new(GATEWAY, 67), SocketAddrV4::new(Ipv4Addr::BROADCAST, 68), &message))
}

/// An answer that lends nothing yet.
fn blank(asked: &DhcpRepr<'_>) -> DhcpRepr<'static> {
    DhcpRepr {
        message_type: DhcpMessageType::Nak,
        transaction_id: asked.transaction_id,
        secs: 0,
        client_hardware_address: asked.client_hardware_address,
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: GATEWAY,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: true,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(GATEWAY),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    }
}

/// A frame with a datagram for the guest. `None` if it does not fit into one frame.
pub(crate) fn udp(from: SocketAddrV4, to_port: u16, payload: &[u8]) -> Option<Vec<u8>> {
    (payload.len() <= MTU - 28).then(|| udp_between(from, SocketAddrV4::new(GUEST, to_port), payload))
}

fn udp_between(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let datagram = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let mut frame = packet(*from.ip(), *to.ip(), IpProtocol::Udp, datagram.header_len() + payload.len());
    datagram.emit(
        &mut UdpPacket::new_unchecked(&mut frame[ETHERNET + 20..]),
        &(*from.ip()).into(),
        &(*to.ip()).into(),
        payload.len(),
        |place| place.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    frame
}

fn packet(from: Ipv4Addr, to: Ipv4Addr, next_header: IpProtocol, payload_len: usize) -> Vec<u8> {
    let header = Ipv4Repr { src_addr: from, dst_addr: to, next_header, payload_len, hop_limit: 64 };
    let mut frame = ethernet(EthernetProtocol::Ipv4, 20 + payload_len);
    header.emit(&mut Ipv4Packet::new_unchecked(&mut frame[ETHERNET..]), &ChecksumCapabilities::default());
    frame
}

fn ethernet(ethertype: EthernetProtocol, payload: usize) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET + payload];
    header(&mut frame, ethertype);
    frame
}

/// Writes the header of a frame that is at least that long.
pub(crate) fn header(frame: &mut [u8], ethertype: EthernetProtocol) {
    let header = EthernetRepr { src_addr: MAC, dst_addr: GUESTS, ethertype };
    header.emit(&mut EthernetFrame::new_unchecked(frame));
}

#[cfg(test)]
mod tests;
