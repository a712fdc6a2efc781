//! How a daemon is set up: flags over `xennet.toml` over defaults.
//!
//! Every setting has a default that works on one machine with the embedded chain, so that no file is needed to begin.

mod args;
mod chain;
mod claim;
mod error;
mod file;
mod section;

pub use args::{ConfigArgs, DATADIR_VARIABLE};
pub use chain::{ChainSettings, network_name};
pub(crate) use claim::claim;
pub use claim::noted_role;
pub use error::{ConfigError, FieldProblem, Origin};

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use xennet_identity::Role;
use xennet_market::NodePolicy;
use xennet_overlay::Multiaddr;

/// The port publishers' overlay listens on by default.
pub const OVERLAY_PORT: u16 = 28750;

/// The port the publisher's SSH server listens on by default.
pub const TUNNEL_PORT: u16 = 28722;

/// Names a file that holds the wallet's passphrase.
pub const PASSPHRASE_VARIABLE: &str = "XENNET_PASSPHRASE_FILE";

/// Everything a daemon is told before it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where this daemon keeps everything it must not forget. One daemon at a time.
    pub data_dir: PathBuf,
    /// The side of the market it takes.
    pub role: Role,
    /// Where its chain comes from.
    pub chain: ChainSettings,
    /// How it meets its peers.
    pub overlay: OverlaySettings,
    /// The wallet.
    pub wallet: WalletSettings,
    /// The publisher's SSH server. A node does not use it: it listens on no port.
    pub tunnel: TunnelSettings,
    /// The node's judgement of tasks and proposals.
    pub policy: NodePolicy,
    /// What the node's guests may reach, how fast, and over how many connections.
    pub guest_network: xennet_gateway::Settings,
    /// What the node offers of its machine.
    pub limits: Limits,
    /// How long a node keeps a guest for a publisher that is out of reach, before it settles alone.
    pub patience: Duration,
    /// The most the publisher locks in all channels together, satoshi. `None`: what the wallet holds.
    pub budget_sat: Option<u64>,
    /// What is logged, as a filter: `info`, `warn,xennetd=debug`.
    pub log: String,
}

/// How a daemon meets its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlaySettings {
    /// Addresses to listen on; empty: none.
    pub listen: Vec<Multiaddr>,
    /// Addresses to start from.
    pub bootstrap: Vec<Multiaddr>,
}

/// The wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletSettings {
    /// Holds the passphrase in its one line. `None`: somebody is asked.
    pub passphrase_file: Option<PathBuf>,
    /// Above this nothing is announced, funded or sent, and no channel is settled dearer, satoshi per 1,000 virtual bytes.
    pub max_feerate_sat_per_kvb: u64,
}

/// The publisher's SSH server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What tasks tell nodes to dial, if that is another address, as behind a router that forwards a port.
    pub announce: Option<SocketAddr>,
}

/// What a node offers of its machine. `None`: what is there, less a share for the host.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Cores for all guests together.
    pub cores: Option<u16>,
    /// Memory for all guests together, MiB.
    pub memory_mib: Option<u32>,
    /// Temporary disk for all guests together, MiB.
    pub disk_mib: Option<u32>,
    /// Persistent storage for all guests together, MiB.
    pub persistent_mib: Option<u32>,
    /// The most of one image from outside, unpacked, MiB.
    pub image_mib: Option<u32>,
    /// The most of all images from outside together, MiB.
    pub image_store_mib: Option<u32>,
    /// Bandwidth for all guests together, kbit/s.
    pub bandwidth_kbit_s: Option<u32>,
}

impl Config {
    /// The defaults for a role and a data directory.
    pub fn new(role: Role, data_dir: PathBuf) -> Config {
        // Where a publisher on this machine listens if it is not told otherwise, and where a node looks for it.
        let meeting_point: Vec<Multiaddr> = format!("/ip4/127.0.0.1/tcp/{OVERLAY_PORT}").parse().into_iter().collect();
        let (listen, bootstrap) = match role {
            Role::Publisher => (meeting_point, vec![]),
            Role::Node => (vec![], meeting_point),
        };
        Config {
            role,
            chain: ChainSettings::Embedded { dir: default_chain_dir(&data_dir), block_interval: Duration::from_secs(5) },
            overlay: OverlaySettings { listen, bootstrap },
            tunnel: TunnelSettings { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, TUNNEL_PORT)), announce: None },
            wallet: WalletSettings {
                passphrase_file: std::env::var_os(PASSPHRASE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from),
                max_feerate_sat_per_kvb: 500_000,
            },
            policy: NodePolicy::default(),
            guest_network: xennet_gateway::Settings::default(),
            limits: Limits::default(),
            patience: Duration::from_secs(120),
            budget_sat: None,
            log: "info".into(),
            data_dir,
        }
    }

    /// Reads the environment, then `xennet.toml`, then lets the flags win. Every error names where it is, the field, the
    /// value found and what would be right.
    pub fn load(args: &ConfigArgs, role: Role) -> Result<Config, ConfigError> {
        let data_dir = args.data_dir_of(role)?;
        let mut config = Config::new(role, data_dir);
        if let Some(noted) = claim::noted_chain_dir(&config.data_dir)?
            && let ChainSettings::Embedded { dir, .. } = &mut config.chain
        {
            *dir = noted;
        }
        let path = args.config_file(&config.data_dir);
        if let Some(text) = file::read(&path, args.names_its_file())? {
            file::apply(&mut config, &path, &text)?;
        }
        args.apply(&mut config)?;
        config.leave_out_itself();
        Ok(config)
    }

    /// A daemon that is told to start from the address it listens on itself has nobody to dial there.
    fn leave_out_itself(&mut self) {
        let own = &self.overlay.listen;
        self.overlay.bootstrap.retain(|address| !own.contains(address));
    }
}

/// One chain for all daemons of a user, so that publisher and node on one machine meet on it.
fn default_chain_dir(data_dir: &Path) -> PathBuf {
    args::user_data_dir().map_or_else(|_| data_dir.join("chain"), |home| home.join("xennet-chain"))
}
