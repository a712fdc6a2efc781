//! Addresses: which form they have, which network they belong to, and which of them we are willing to dial.
use std::{
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, Transport,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    multiaddr::Protocol,
};

use crate::OverlayError;

/// Accepts `/ip4|ip6/…/tcp/…` with an optional `/p2p/…`.
pub(crate) fn check(role: &'static str, address: &Multiaddr) -> Result<(), OverlayError> {
    let parts: Vec<_> = address.iter().take(4).collect();
    match parts.as_slice() {
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)] => Ok(()),
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(port), Protocol::P2p(_)] if *port != 0 => Ok(()),
        _ => Err(OverlayError::Address { role, address: address.to_string() }),
    }
}

/// The IP address at the front of an address, with IPv4-mapped IPv6 written as IPv4.
pub(crate) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip).to_canonical()),
        _ => None,
    }
}

/// One IPv4 address or one IPv6 /64: about what one household or one rented server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Network {
    /// None for loopback, where many peers of one machine share an address, and for addresses without an IP.
    pub(crate) fn of(address: &Multiaddr) -> Option<Network> {
        match ip(address)? {
            ip if ip.is_loopback() => None,
            IpAddr::V4(ip) => Some(Network::V4(ip.octets())),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Some(Network::V6([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Global,
    Private,
    Loopback,
    Never,
}

fn reach(ip: IpAddr) -> Reach {
    if ip.is_loopback() {
        return Reach::Loopback;
    }
    if ip.is_unspecified() || ip.is_multicast() {
        return Reach::Never;
    }
    let private = match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || v4.is_link_local() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    match ip {
        IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0 => Reach::Never,
        _ if private => Reach::Private,
        _ => Reach::Global,
    }
}

/// Which addresses may be dialed. Other peers tell us addresses, and a hostile one would like us to knock at our own host or LAN; so
/// loopback and private addresses are dialed only if the owner's own configuration already lives there.
#[derive(Debug, Default)]
pub(crate) struct Fence {
    loopback: AtomicBool,
    private: AtomicBool,
}

impl Fence {
    /// Opens the fence for the surroundings of an address that the owner configured.
    pub(crate) fn trust(&self, address: &Multiaddr) {
        match ip(address).map(reach) {
            Some(Reach::Loopback) => self.loopback.store(true, Ordering::Relaxed),
            Some(Reach::Private) => self.private.store(true, Ordering::Relaxed),
            _ => {}
        }
    }

    pub(crate) fn allows(&self, address: &Multiaddr) -> bool {
        match ip(address).map(reach) {
            Some(Reach::Global) => true,
            Some(Reach::Private) => self.private.load(Ordering::Relaxed),
            Some(Reach::Loopback) => self.loopback.load(Ordering::Relaxed),
            Some(Reach::Never) | None => false,
        }
    }
}

/// A transport that dials only what the fence allows.
pub(crate) struct Fenced<T> {
    pub(crate) inner: T,
    pub(crate) fence: Arc<Fence>,
}

impl<T: Transport + Unpin> Transport for Fenced<T> {
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        if !self.fence.allows(&address) {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        self.inner.dial(address, options)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_without_ip_or_port_is_refused_with_an_example() {
        for text in ["/dns4/example.org/tcp/1", "/ip4/1.2.3.4", "/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4/tcp/1/ws"] {
            let error = check("bootstrap", &address(text)).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("/ip4/203.0.113.7/tcp/7400"), "{error}");
        }
        check("listen", &address("/ip6/::/tcp/0")).unwrap();
    }

    #[test]
    fn strangers_cannot_make_us_dial_our_own_host_or_lan() {
        let fence = Fence::default();
        for text in ["127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"] {
            assert!(!fence.allows(&address(&format!("/ip4/{text}/tcp/22"))), "{text}");
        }
        for text in ["::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "::", "ff02::1"] {
            assert!(!fence.allows(&address(&format!("/ip6/{text}/tcp/22"))), "{text}");
        }
        assert!(fence.allows(&address("/ip4/203.0.113.7/tcp/22")));
    }

    #[test]
    fn an_owner_who_bootstraps_from_the_lan_may_dial_the_lan_but_not_the_host() {
        let fence = Fence::default();
        fence.trust(&address("/ip4/192.168.1.5/tcp/1"));
        assert!(fence.allows(&address("/ip4/192.168.1.6/tcp/1")));
        assert!(!fence.allows(&address("/ip4/127.0.0.1/tcp/1")));
    }

    #[test]
    fn addresses_of_one_ipv6_subnet_count_as_one_network() {
        let network = |text: &str| Network::of(&address(text));
        assert_eq!(network("/ip6/2001:db8::1/tcp/1"), network("/ip6/2001:db8::2/tcp/9"));
        assert_ne!(network("/ip4/203.0.113.1/tcp/1"), network("/ip4/203.0.113.2/tcp/1"));
        assert_eq!(network("/ip4/127.0.0.1/tcp/1"), None);
    }
}
