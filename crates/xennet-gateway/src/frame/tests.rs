#![allow(clippy::unwrap_used)]
use super::*;

fn from_guest(mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&GATEWAY_MAC);
    frame[6..12].copy_from_slice(&GUEST_MAC);
    frame
}

fn datagram(from: Ipv4Addr) -> Vec<u8> {
    from_guest(udp_between(SocketAddrV4::new(from, 5), SocketAddrV4::new(Ipv4Addr::new(1, 1, 1, 1), 53), b"hello"))
}

#[test]
fn a_frame_from_another_address_is_spoofed() {
    let good = datagram(GUEST);
    let to = "1.1.1.1:53".parse().unwrap();
    assert_eq!(read(&good), Sent::Udp { from_port: 5, to, payload: b"hello" });
    assert_eq!(read(&datagram(Ipv4Addr::new(10, 0, 2, 16))), Sent::Spoofed);
    let mut other = good.clone();
    other[11] ^= 1;
    assert_eq!(read(&other), Sent::Spoofed);
    for length in 0..good.len() {
        assert!(matches!(read(&good[..length]), Sent::Malformed), "{length}");
    }
}

#[test]
fn the_gateway_and_the_name_server_are_found_and_nobody_else() {
    for (asked, found) in [(GATEWAY, true), (NAMES, true), (Ipv4Addr::new(10, 0, 2, 4), false)] {
        let question = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: GUESTS,
            source_protocol_addr: GUEST,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: asked,
        };
        let mut frame = from_guest(ethernet(EthernetProtocol::Arp, question.buffer_len()));
        question.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET..]));
        assert_eq!(matches!(read(&frame), Sent::Answer(_)), found, "{asked}");
    }
}

#[test]
fn a_guest_that_asks_for_an_address_gets_its_own() {
    let asked = DhcpRepr { message_type: DhcpMessageType::Discover, client_hardware_address: GUESTS, ..blank(&nobody()) };
    let mut message = vec![0; asked.buffer_len()];
    asked.emit(&mut DhcpPacket::new_unchecked(&mut message[..])).unwrap();
    let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
    let frame = from_guest(udp_between(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68), everybody, &message));
    let Sent::Answer(answer) = read(&frame) else { unreachable!("{:?}", read(&frame)) };
    let packet = DhcpPacket::new_checked(&answer[ETHERNET + 28..]).unwrap();
    let offer = DhcpRepr::parse(&packet).unwrap();
    assert_eq!((offer.message_type, offer.your_ip, offer.router), (DhcpMessageType::Offer, GUEST, Some(GATEWAY)));
    assert_eq!(offer.dns_servers.unwrap().as_slice(), [NAMES]);
}

fn nobody() -> DhcpRepr<'static> {
    DhcpRepr {
        message_type: DhcpMessageType::Discover,
        transaction_id: 7,
        secs: 0,
        client_hardware_address: GUESTS,
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: true,
        requested_ip: None,
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    }
}

proptest::proptest! {
    #[test]
    fn no_frame_makes_it_panic(
        kind in 0_usize..4,
        protocol in 0_usize..4,
        cut in 0_usize..120,
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120),
        place in 0_usize..80,
        value in proptest::prelude::any::<u8>(),
    ) {
        let mut frame = datagram(GUEST);
        frame[12..14].copy_from_slice(&[[8, 0], [8, 6], [0x86, 0xdd], [9, 9]][kind]);
        frame[ETHERNET + 9] = [6, 17, 1, 47][protocol];
        frame.truncate(frame.len().min(cut.max(ETHERNET)));
        frame.extend(bytes);
        if let Some(byte) = frame.get_mut(place) {
            *byte = value;
        }
        let _ = read(&frame);
    }
}
