//! Where the chain comes from: `[chain]` of the configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bitcoin::Network;
use xennet_chain::{BitcoindAuth, ChainConfig, ElectrumServer};

use super::section::{Field, Section};
use super::{Config, ConfigError, args};

/// What every network but the embedded chain is named in the configuration.
const NETWORKS: [(&str, Network); 4] =
    [("mainnet", Network::Bitcoin), ("testnet4", Network::Testnet4), ("signet", Network::Signet), ("regtest", Network::Regtest)];
/// Between two blocks, by the difficulty's aim, seconds.
const BLOCK_S: u64 = 600;

/// Where the chain comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainSettings {
    /// A regtest chain inside the process, checked by Bitcoin Core's own consensus code. Daemons with the same `dir` share it.
    Embedded {
        /// Where it is kept.
        dir: PathBuf,
        /// Time between blocks while transactions wait.
        block_interval: Duration,
    },
    /// The user's own full node.
    Bitcoind {
        /// The network it must be on.
        network: Network,
        /// Its RPC, `http://HOST:PORT`.
        url: String,
        /// How it knows that we may ask.
        auth: BitcoindAuth,
    },
    /// Block filters from peers of the network.
    Light {
        /// The network.
        network: Network,
        /// For headers and filters.
        dir: PathBuf,
        /// Peers to ask, and no others; empty: those that the network's seeds name.
        peers: Vec<SocketAddr>,
    },
    /// An Electrum server.
    Electrum {
        /// The network it must be of.
        network: Network,
        /// For headers, proved transactions and the server's certificate.
        dir: PathBuf,
        /// Where it is.
        server: ElectrumServer,
    },
}

impl ChainSettings {
    /// The network that money is on.
    pub fn network(&self) -> Network {
        match self {
            ChainSettings::Embedded { .. } => Network::Regtest,
            ChainSettings::Bitcoind { network, .. } | ChainSettings::Light { network, .. } | ChainSettings::Electrum { network, .. } => {
                *network
            }
        }
    }

    /// How long a block takes, seconds.
    pub fn block_s(&self) -> u64 {
        match self {
            ChainSettings::Embedded { block_interval, .. } => block_interval.as_secs().max(1),
            ChainSettings::Bitcoind { .. } | ChainSettings::Light { .. } | ChainSettings::Electrum { .. } => BLOCK_S,
        }
    }

    /// For the library that follows it.
    pub(crate) fn source(&self) -> ChainConfig {
        match self.clone() {
            ChainSettings::Embedded { dir, block_interval } => ChainConfig::Embedded { dir, block_interval },
            ChainSettings::Bitcoind { network, url, auth } => ChainConfig::Bitcoind { url, auth, network },
            ChainSettings::Light { network, dir, peers } => ChainConfig::Light { network, dir, peers },
            ChainSettings::Electrum { network, dir, server } => ChainConfig::Electrum { server, network, dir },
        }
    }
}

/// The name of a network as users write it.
pub fn network_name(network: Network) -> &'static str {
    NETWORKS.iter().find(|(_, known)| *known == network).map_or("testnet3", |(name, _)| name)
}

/// Reads the section.
pub(super) fn apply(config: &mut Config, mut section: Section<'_>) -> Result<(), ConfigError> {
    let source_field = section.field("source");
    let network_field = section.field("network");
    let network = network_field.as_ref().map(network_of).transpose()?;
    let hint = "write \"embedded\", \"bitcoind\", \"light\" or \"electrum\"";
    let source = match (&source_field, network) {
        (Some(field), _) => field.value::<String>(hint)?,
        // A public network needs no server of one's own.
        (None, Some(network)) if network != Network::Regtest => "light".to_owned(),
        (None, _) => "embedded".to_owned(),
    };
    let data_dir = config.data_dir.clone();
    match (source.as_str(), source_field) {
        ("embedded", _) => {
            if let (Some(field), Some(Network::Bitcoin | Network::Testnet4 | Network::Signet)) = (network_field, network) {
                return Err(field.wrong("the embedded chain is a regtest of its own", "leave it out, or choose another source"));
            }
            embedded(config, &mut section)?;
        }
        ("bitcoind", _) => config.chain = bitcoind(network.unwrap_or(Network::Bitcoin), &data_dir, &mut section)?,
        ("light", _) => config.chain = light(network.unwrap_or(Network::Bitcoin), &data_dir, &mut section)?,
        ("electrum", _) => config.chain = electrum(network.unwrap_or(Network::Bitcoin), &data_dir, &mut section)?,
        (_, Some(field)) => return Err(field.wrong("there is no such source", hint)),
        (_, None) => {}
    }
    section.finish()
}

fn embedded(config: &mut Config, section: &mut Section<'_>) -> Result<(), ConfigError> {
    let ChainSettings::Embedded { dir, block_interval } = &mut config.chain else { return Ok(()) };
    if let Some(field) = section.field("dir") {
        let given: PathBuf = field.value("write a directory in \"quotes\"")?;
        // A relative directory is meant relative to the data directory, wherever the daemon is started.
        *dir = config.data_dir.join(given);
    }
    if let Some(field) = section.field("block_interval_s") {
        *block_interval = Duration::from_secs(field.number(1..=3600, "seconds between blocks")?);
    }
    Ok(())
}

fn light(network: Network, data_dir: &Path, section: &mut Section<'_>) -> Result<ChainSettings, ConfigError> {
    let peers = match section.field("peers") {
        Some(field) => field.parsed_list("write a list of addresses with ports, such as [\"203.0.113.7:8333\"]")?,
        None if network == Network::Regtest => {
            return Err(section.wrong(
                "peers",
                "a regtest has no seeds to find peers by",
                "name at least one, such as [\"127.0.0.1:18444\"]",
            ));
        }
        None => Vec::new(),
    };
    Ok(ChainSettings::Light { network, dir: data_dir.join("light"), peers })
}

fn electrum(network: Network, data_dir: &Path, section: &mut Section<'_>) -> Result<ChainSettings, ConfigError> {
    let hint = "write it as \"ssl://HOST:50002\", or \"tcp://127.0.0.1:50001\" on this machine";
    let Some(field) = section.field("url") else {
        return Err(section.wrong("url", "an Electrum server has to be named", hint));
    };
    Ok(ChainSettings::Electrum { network, dir: data_dir.join("electrum"), server: field.parsed(hint)? })
}

fn bitcoind(network: Network, data_dir: &Path, section: &mut Section<'_>) -> Result<ChainSettings, ConfigError> {
    let url = match section.field("url") {
        Some(field) => url_of(&field)?,
        None => format!("http://127.0.0.1:{}", rpc_port(network)),
    };
    let cookie = section.field("cookie");
    let user: Option<String> = section.field("user").map(|field| field.value("write the user of rpcauth in \"quotes\"")).transpose()?;
    let password = section.field("password_file");
    let auth = match (cookie, user, password) {
        (Some(cookie), Some(_), _) => return Err(cookie.wrong("there is a user as well", "leave one of both out")),
        (Some(cookie), None, None) => {
            let given: PathBuf = cookie.value("write the path of bitcoind's .cookie in \"quotes\"")?;
            BitcoindAuth::CookieFile(data_dir.join(given))
        }
        (None, None, None) => BitcoindAuth::CookieFile(default_cookie(network)?),
        (None, Some(user), Some(field)) => {
            let given: PathBuf = field.value("write the path of a file that holds the password in \"quotes\"")?;
            let path = data_dir.join(given);
            let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::File { path: path.clone(), source })?;
            BitcoindAuth::UserPassword { user, password: text.trim_end_matches(['\r', '\n']).to_owned() }
        }
        (_, None, Some(field)) => return Err(field.wrong("there is no user to it", "write user = \"…\" as well")),
        (None, Some(_), None) => {
            return Err(section.wrong("user", "there is no password to it", "write password_file = \"…\" as well"));
        }
    };
    Ok(ChainSettings::Bitcoind { network, url, auth })
}

/// Only its form: whether anything answers there is found out by asking.
fn url_of(field: &Field<'_>) -> Result<String, ConfigError> {
    let hint = "write it as \"http://127.0.0.1:8332\"";
    let url: String = field.value(hint)?;
    let port = url.strip_prefix("http://").and_then(|rest| rest.trim_end_matches('/').rsplit_once(':'));
    if port.is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
        return Err(field.wrong("it is not of the form http://HOST:PORT", hint));
    }
    Ok(url)
}

fn network_of(field: &Field<'_>) -> Result<Network, ConfigError> {
    let hint = format!("write one of {}", NETWORKS.map(|(name, _)| format!("\"{name}\"")).join(", "));
    let name: String = field.value(&hint)?;
    let known = NETWORKS.iter().find(|(known, _)| *known == name);
    known.map(|(_, network)| *network).ok_or_else(|| field.wrong("there is no such network", &hint))
}

/// Where bitcoind's RPC listens unless told otherwise.
fn rpc_port(network: Network) -> u16 {
    match network {
        Network::Bitcoin => 8332,
        Network::Testnet4 => 48332,
        Network::Signet => 38332,
        Network::Regtest => 18443,
        _ => 18332,
    }
}

/// Where bitcoind puts its cookie unless told otherwise.
fn default_cookie(network: Network) -> Result<PathBuf, ConfigError> {
    let dir = args::home()?.join(".bitcoin");
    Ok(match network {
        Network::Bitcoin => dir,
        Network::Testnet4 => dir.join("testnet4"),
        Network::Signet => dir.join("signet"),
        Network::Regtest => dir.join("regtest"),
        _ => dir.join("testnet3"),
    }
    .join(".cookie"))
}
