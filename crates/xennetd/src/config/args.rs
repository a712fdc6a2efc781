//! The flags that every program with a daemon inside understands.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use xennet_identity::Role;
use xennet_overlay::Multiaddr;

use super::section::{LOG_HINT, check_log};
use super::{ChainSettings, Config, ConfigError, FieldProblem, Origin};

/// Names the data directory when `--datadir` does not.
pub const DATADIR_VARIABLE: &str = "XENNET_DATADIR";

/// Flags over the configuration file.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Settings")]
pub struct ConfigArgs {
    /// Directory for keys, wallet and state [default: $XENNET_DATADIR, else ~/.local/share/xennet, a node's xennet-node]
    #[arg(long, global = true, value_name = "DIR")]
    pub datadir: Option<PathBuf>,
    #[allow(rustdoc::broken_intra_doc_links, reason = "[chain] is a section of that file")]
    /// Configuration file; its [chain] says where the chain comes from: embedded, bitcoind, light or electrum [default: xennet.toml in the
    /// data directory]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the embedded chain; daemons with the same one share it [default: ~/.local/share/xennet-chain]
    #[arg(long, global = true, value_name = "DIR")]
    pub chain_dir: Option<PathBuf>,
    /// Seconds between blocks of the embedded chain while transactions wait [default: 5]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub block_interval: Option<u64>,
    /// Overlay address to listen on, or `none`; may be repeated [default: a publisher on 127.0.0.1:28750, a node on none]
    #[arg(long, global = true, value_name = "MULTIADDR")]
    pub overlay_listen: Vec<String>,
    /// Overlay address to start from; may be repeated [default: a node from /ip4/127.0.0.1/tcp/28750]
    #[arg(long, global = true, value_name = "MULTIADDR")]
    pub bootstrap: Vec<Multiaddr>,
    /// Where the publisher's SSH server listens for nodes [default: 127.0.0.1:28722]
    #[arg(long, global = true, value_name = "IP:PORT")]
    pub tunnel_listen: Option<SocketAddr>,
    /// What the daemon logs, e.g. `warn` or `info,xennetd=debug` [default: info]
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
}

impl ConfigArgs {
    /// The data directory: the flag, the environment, or the default. Made absolute, so that it means the same to the daemon
    /// that may be started from it.
    ///
    /// Publisher and node have different defaults, because one machine may well be both.
    pub fn data_dir_of(&self, role: Role) -> Result<PathBuf, ConfigError> {
        let chosen = match (&self.datadir, std::env::var_os(DATADIR_VARIABLE)) {
            (Some(dir), _) => dir.clone(),
            (None, Some(dir)) if !dir.is_empty() => PathBuf::from(dir),
            (None, _) => user_data_dir()?.join(match role {
                Role::Publisher => "xennet",
                Role::Node => "xennet-node",
            }),
        };
        Ok(absolute(&chosen))
    }

    /// The publisher's data directory: most commands talk to that daemon.
    pub fn data_dir(&self) -> Result<PathBuf, ConfigError> {
        self.data_dir_of(Role::Publisher)
    }

    /// These flags again, for a daemon that is started in the background.
    pub fn to_args(&self) -> Result<Vec<OsString>, ConfigError> {
        let mut args: Vec<OsString> = vec!["--datadir".into(), self.data_dir()?.into()];
        let mut add = |flag: &str, value: OsString| args.extend([flag.into(), value]);
        if let Some(config) = &self.config {
            add("--config", absolute(config).into());
        }
        if let Some(dir) = &self.chain_dir {
            add("--chain-dir", absolute(dir).into());
        }
        if let Some(seconds) = self.block_interval {
            add("--block-interval", seconds.to_string().into());
        }
        for address in &self.overlay_listen {
            add("--overlay-listen", address.into());
        }
        for address in &self.bootstrap {
            add("--bootstrap", address.to_string().into());
        }
        if let Some(address) = self.tunnel_listen {
            add("--tunnel-listen", address.to_string().into());
        }
        if let Some(log) = &self.log {
            add("--log", log.into());
        }
        Ok(args)
    }

    pub(super) fn config_file(&self, data_dir: &Path) -> PathBuf {
        self.config.clone().unwrap_or_else(|| data_dir.join("xennet.toml"))
    }

    /// A file that was asked for must be there; the default one need not.
    pub(super) fn names_its_file(&self) -> bool {
        self.config.is_some()
    }

    pub(super) fn apply(&self, config: &mut Config) -> Result<(), ConfigError> {
        self.apply_to_chain(&mut config.chain)?;
        if !self.overlay_listen.is_empty() {
            config.overlay.listen = self.listen_addresses()?;
        }
        if !self.bootstrap.is_empty() {
            config.overlay.bootstrap = self.bootstrap.clone();
        }
        if let Some(listen) = self.tunnel_listen {
            config.tunnel.listen = listen;
        }
        if let Some(log) = &self.log {
            config.log = check_log(log).map_err(|problem| wrong_flag("--log", log, problem, LOG_HINT))?;
        }
        Ok(())
    }

    fn apply_to_chain(&self, chain: &mut ChainSettings) -> Result<(), ConfigError> {
        let ChainSettings::Embedded { dir, block_interval } = chain else {
            let given = [
                ("--chain-dir", self.chain_dir.as_ref().map(|dir| dir.display().to_string())),
                ("--block-interval", self.block_interval.map(|seconds| seconds.to_string())),
            ];
            return match given.into_iter().find_map(|(flag, value)| Some((flag, value?))) {
                Some((flag, value)) => {
                    let problem = "it is for the embedded chain, and [chain] names another source".to_owned();
                    Err(wrong_flag(flag, &value, problem, "leave it out, or write source = \"embedded\""))
                }
                None => Ok(()),
            };
        };
        if let Some(chosen) = &self.chain_dir {
            *dir = absolute(chosen);
        }
        if let Some(seconds) = self.block_interval {
            *block_interval = Duration::from_secs(seconds);
        }
        Ok(())
    }

    fn listen_addresses(&self) -> Result<Vec<Multiaddr>, ConfigError> {
        let given = self.overlay_listen.iter().filter(|address| *address != "none");
        given
            .map(|address| {
                address.parse().map_err(|e| {
                    let hint = "write for example /ip4/0.0.0.0/tcp/28750, or none";
                    wrong_flag("--overlay-listen", address, format!("it is no address ({e})"), hint)
                })
            })
            .collect()
    }
}

fn wrong_flag(flag: &'static str, value: &str, problem: String, remedy: &str) -> ConfigError {
    ConfigError::from(FieldProblem {
        origin: Origin::Flag(flag),
        field: None,
        value: Some(value.to_string()),
        problem,
        remedy: remedy.to_string(),
    })
}

/// Where a user's programs keep what they must not forget.
pub(super) fn user_data_dir() -> Result<PathBuf, ConfigError> {
    data_home(std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME"))
}

/// Where other programs of the user keep their files.
pub(super) fn home() -> Result<PathBuf, ConfigError> {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from).ok_or(ConfigError::NoHome)
}

fn data_home(xdg: Option<OsString>, home: Option<OsString>) -> Result<PathBuf, ConfigError> {
    let given = |dir: Option<OsString>| dir.filter(|dir| !dir.is_empty()).map(PathBuf::from);
    // The XDG directories must be absolute, else they are to be ignored.
    if let Some(xdg) = given(xdg).filter(|dir| dir.is_absolute()) {
        return Ok(xdg);
    }
    given(home).map(|home| home.join(".local/share")).ok_or(ConfigError::NoHome)
}

/// Without a working directory a relative path stays as it is, and whoever opens it will say so.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
