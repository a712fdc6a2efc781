//! What a guest may reach: the owner's profile, and what no profile opens.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How much of the outside a guest may reach.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Nothing. The tunnel is the only way in and out.
    #[default]
    None,
    /// TCP to ports 80 and 443, UDP to port 443, and names.
    Web,
    /// Every public address and port, and names.
    OpenInternet,
}

/// A protocol that is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// An IPv4 network, such as `10.77.0.2/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: Ipv4Addr,
    bits: u8,
}

/// The outbound policy of a node's owner.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How much is open.
    pub profile: Profile,
    /// Networks that are open on every port although they are not public. Never opens the host itself.
    pub allow: Vec<Network>,
}

/// Why a guest may not reach something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forbidden {
    /// The profile does not open this port.
    Profile,
    /// The address is not a public one.
    NotPublic,
    /// The address is the host's own.
    Host,
}

impl FromStr for Profile {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Profile, Self::Err> {
        match text {
            "none" => Ok(Profile::None),
            "web" => Ok(Profile::Web),
            "open-internet" => Ok(Profile::OpenInternet),
            _ => Err("there is no such profile"),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Profile::None => "none",
            Profile::Web => "web",
            Profile::OpenInternet => "open-internet",
        })
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Network, Self::Err> {
        let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().map_err(|_| "it has no IPv4 address before the slash")?;
        let bits: u8 = bits.parse().map_err(|_| "it has no number after the slash")?;
        if bits > 32 {
            return Err("the number after the slash is above 32");
        }
        let network = Network { address, bits };
        if u32::from(address) & !network.mask() != 0 {
            return Err("the address has bits behind the slash's number");
        }
        Ok(network)
    }
}

impl Network {
    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0)
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == u32::from(self.address)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.profile)?;
        self.allow.iter().try_for_each(|network| write!(f, ", and {network}"))
    }
}

impl Policy {
    /// Whether names are answered at all.
    #[must_use]
    pub fn answers_names(&self) -> bool {
        self.profile != Profile::None
    }

    /// Whether a guest may send to an address, which is the one that will really be used.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, protocol: Protocol, to: SocketAddrV4) -> Result<(), Forbidden> {
        let address = *to.ip();
        let allowed = self.allow.iter().any(|network| network.contains(address));
        // An exception of the owner may open a private network, but nothing that cannot be another host's.
        if never(address) || (!allowed && !is_public_v4(address)) {
            return Err(Forbidden::NotPublic);
        }
        let open = match (self.profile, protocol) {
            _ if allowed => true,
            (Profile::None, _) => false,
            (Profile::Web, Protocol::Tcp) => matches!(to.port(), 80 | 443),
            (Profile::Web, Protocol::Udp) => to.port() == 443,
            (Profile::OpenInternet, _) => true,
        };
        if !open {
            return Err(Forbidden::Profile);
        }
        if is_own(address) {
            return Err(Forbidden::Host);
        }
        Ok(())
    }

    /// Whether a name may lead to this address.
    #[must_use]
    pub fn may_be_named(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => !never(v4) && !is_own(v4) && (is_public_v4(v4) || self.allow.iter().any(|network| network.contains(v4))),
            IpAddr::V6(v6) => is_public_v6(v6),
        }
    }
}

/// Addresses that are this host's, everybody's or nobody's, and the clouds' metadata.
fn never(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first == 0 || address.is_loopback() || address.is_link_local() || first >= 224
}

/// Whether an IPv4 address belongs to the internet at large: the complement of IANA's special-purpose registry.
#[must_use]
pub fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = never(address)
        || address.is_private()
        || (a == 100 && (64..128).contains(&b)) // shared with a provider's NAT (RFC 6598)
        || (a == 192 && b == 0 && c == 0) // protocol assignments
        || (a == 192 && b == 88 && c == 99) // 6to4 relays
        || (a == 198 && (b == 18 || b == 19)) // benchmarks
        || address == Ipv4Addr::new(168, 63, 129, 16) // a cloud's metadata
        || address.is_documentation();
    !special
}

/// Whether an IPv6 address belongs to the internet at large and hides no IPv4 address that does not.
#[must_use]
pub fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let hidden = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    if s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(hidden(s[6], s[7]));
    }
    match s[0] {
        // 6to4 and its hidden address.
        0x2002 => is_public_v4(hidden(s[1], s[2])),
        // Teredo, benchmarks, ORCHID and other assignments; documentation.
        0x2001 => s[1] >= 0x200 && s[1] != 0xdb8,
        // Global unicast. Mapped, loopback, unique local, link-local, multicast and local NAT64 lie outside it.
        first => first & 0xe000 == 0x2000 && first != 0x3fff,
    }
}

/// Whether an address is the host's own. The kernel lets a socket bind to those alone.
fn is_own(address: Ipv4Addr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn to(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    #[test]
    fn no_profile_opens_what_is_not_public() {
        let policy = Policy { profile: Profile::OpenInternet, allow: vec![] };
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.168.1.1",
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "10.0.2.2",
            "168.63.129.16",
        ] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let said = policy.check(protocol, to(&format!("{address}:80")));
                assert_eq!(said, Err(Forbidden::NotPublic), "{address}");
            }
            assert!(!policy.may_be_named(address.parse().unwrap()), "{address}");
        }
        for address in ["1.1.1.1", "100.63.0.1", "100.128.0.1", "172.15.0.1", "172.32.0.1", "198.20.0.1", "223.255.255.255"] {
            assert_eq!(policy.check(Protocol::Tcp, to(&format!("{address}:25"))), Ok(()), "{address}");
        }
    }

    #[test]
    fn an_ipv6_name_hides_no_forbidden_address() {
        for address in [
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:1.1.1.1",
            "::10.0.0.1",
            "fd00:ec2::254",
            "fc00::1",
            "fe80::1",
            "ff02::1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1.1.1.1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001::1",
            "2001:db8::1",
            "fec0::1",
            "100::1",
        ] {
            assert!(!is_public_v6(address.parse().unwrap()), "{address}");
        }
        for address in ["2606:4700:4700::1111", "64:ff9b::1.1.1.1", "2002:101:101::1", "2001:4860:4860::8888"] {
            assert!(is_public_v6(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn each_profile_opens_its_ports_and_an_exception_opens_its_network_but_never_the_host() {
        let at = |profile| Policy { profile, allow: vec![] };
        let web = at(Profile::Web);
        assert_eq!(web.check(Protocol::Tcp, to("1.1.1.1:443")), Ok(()));
        assert_eq!(web.check(Protocol::Tcp, to("1.1.1.1:25")), Err(Forbidden::Profile));
        assert_eq!(web.check(Protocol::Udp, to("1.1.1.1:53")), Err(Forbidden::Profile));
        assert_eq!(at(Profile::None).check(Protocol::Tcp, to("1.1.1.1:443")), Err(Forbidden::Profile));
        assert!(!at(Profile::None).answers_names());
        let allow = vec!["10.77.0.0/24".parse().unwrap(), "127.0.0.0/8".parse().unwrap(), "169.254.0.0/16".parse().unwrap()];
        let with = Policy { profile: Profile::None, allow };
        assert_eq!(with.check(Protocol::Tcp, to("10.77.0.9:7")), Ok(()));
        assert_eq!(with.check(Protocol::Tcp, to("10.77.1.9:7")), Err(Forbidden::NotPublic));
        assert_eq!(with.check(Protocol::Tcp, to("127.0.0.1:7")), Err(Forbidden::NotPublic));
        assert_eq!(with.check(Protocol::Tcp, to("169.254.169.254:80")), Err(Forbidden::NotPublic));
        assert!(is_own(Ipv4Addr::LOCALHOST) && !is_own(Ipv4Addr::new(1, 1, 1, 1)));
    }

    #[test]
    fn a_network_is_read_or_refused() {
        assert!("10.0.0.0/8".parse::<Network>().is_ok() && "0.0.0.0/0".parse::<Network>().is_ok());
        for wrong in ["10.0.0.1/8", "10.0.0.0/33", "x/8", "10.0.0.0/x", ""] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        for profile in [Profile::None, Profile::Web, Profile::OpenInternet] {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
    }
}
