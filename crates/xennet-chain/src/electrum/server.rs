//! Where an Electrum server is.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Longest name of a host, by the rules of DNS.
const MAX_HOST: usize = 253;

/// An Electrum server: `ssl://HOST:PORT`, or `tcp://HOST:PORT` without encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElectrumServer {
    tls: bool,
    host: String,
    port: u16,
}

/// Why a text names no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ElectrumServerError(&'static str);

impl ElectrumServer {
    /// Whether the line is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls
    }

    /// Whether the server runs on this machine, as far as its name says so.
    pub fn is_here(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    /// Its name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for ElectrumServer {
    type Err = ElectrumServerError;

    fn from_str(text: &str) -> Result<ElectrumServer, ElectrumServerError> {
        let (tls, rest) = match (text.strip_prefix("ssl://"), text.strip_prefix("tcp://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(ElectrumServerError("it begins neither with ssl:// nor with tcp://")),
        };
        let (host, port) = rest.rsplit_once(':').ok_or(ElectrumServerError("it has no port"))?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(ElectrumServerError("its port is no number from 1 to 65535"))?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inside) if inside.parse::<std::net::Ipv6Addr>().is_ok() => inside,
            Some(_) => return Err(ElectrumServerError("there is no IPv6 address between its brackets")),
            None => host,
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let named = host.parse::<IpAddr>().is_ok() || (!host.is_empty() && host.len() <= MAX_HOST && host.bytes().all(plain));
        if !named {
            return Err(ElectrumServerError("its host is neither a name nor an address"));
        }
        Ok(ElectrumServer { tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for ElectrumServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "ssl" } else { "tcp" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_read_is_written_the_same_and_what_is_no_server_is_told_why() {
        for (text, here) in [
            ("ssl://electrum.example.org:50002", false),
            ("tcp://127.0.0.1:50001", true),
            ("tcp://localhost:1", true),
            ("ssl://[2001:db8::1]:50002", false),
            ("tcp://[::1]:50001", true),
        ] {
            let server: ElectrumServer = text.parse().unwrap();
            assert_eq!((server.to_string().as_str(), server.is_here()), (text, here));
        }
        for (text, words) in [
            ("http://127.0.0.1:8332", "neither with ssl:// nor"),
            ("electrum.example.org:50002", "neither with ssl:// nor"),
            ("ssl://electrum.example.org", "no port"),
            ("ssl://electrum.example.org:0", "1 to 65535"),
            ("ssl://electrum.example.org:70000", "1 to 65535"),
            ("ssl://:50002", "neither a name"),
            ("ssl://user@host:50002", "neither a name"),
            ("ssl://a b:50002", "neither a name"),
            ("ssl://[host]:50002", "brackets"),
        ] {
            let why = text.parse::<ElectrumServer>().unwrap_err().to_string();
            assert!(why.contains(words), "{text}: {why}");
        }
    }
}
