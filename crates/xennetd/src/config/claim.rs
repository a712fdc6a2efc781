//! What a data directory is bound to: one side of the market, and one chain. Noted at the first start, so that no node's wallet
//! and leases are ever taken up by a publisher's daemon, and no channel is looked for on a chain it was never on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use xennet_identity::Role;

use super::{ChainSettings, Config, ConfigError, network_name};

/// The side noted in a data directory; `None` if no daemon ever ran on it.
pub fn noted_role(data_dir: &Path) -> Result<Option<Role>, ConfigError> {
    let path = role_path(data_dir);
    match read(&path)?.as_deref() {
        None => Ok(None),
        Some("publisher") => Ok(Some(Role::Publisher)),
        Some("node") => Ok(Some(Role::Node)),
        Some(_) => Err(ConfigError::RoleNote { path }),
    }
}

/// The directory of the embedded chain that this data directory's money is on.
pub(super) fn noted_chain_dir(data_dir: &Path) -> Result<Option<PathBuf>, ConfigError> {
    Ok(read(&chain_path(data_dir))?.map(PathBuf::from))
}

/// Notes what this daemon's data directory is bound to, or refuses if it is bound to something else.
pub(crate) fn claim(config: &Config) -> Result<(), ConfigError> {
    let (dir, role) = (&config.data_dir, config.role);
    match noted_role(dir)? {
        Some(noted) if noted != role => return Err(ConfigError::OtherRole { dir: dir.clone(), noted, wanted: role }),
        Some(_) => {}
        None => write(&role_path(dir), &role.to_string())?,
    }
    let other = |noted: String, wanted: String, path: PathBuf| ConfigError::OtherChain { dir: dir.clone(), noted, wanted, note: path };
    let embedded = |place: &Path| format!("the embedded chain in {}", place.display());
    let (chain, network) = (noted_chain_dir(dir)?, read(&network_path(dir))?);
    match (&config.chain, chain, network) {
        (ChainSettings::Embedded { dir: wanted, .. }, Some(noted), _) if noted != *wanted => {
            Err(other(embedded(&noted), embedded(wanted), chain_path(dir)))
        }
        (ChainSettings::Embedded { .. }, Some(_), _) => Ok(()),
        (ChainSettings::Embedded { dir: wanted, .. }, None, Some(noted)) => Err(other(noted, embedded(wanted), network_path(dir))),
        (ChainSettings::Embedded { dir: wanted, .. }, None, None) => write(&chain_path(dir), &wanted.display().to_string()),
        (public, Some(noted), _) => Err(other(embedded(&noted), network_name(public.network()).to_owned(), chain_path(dir))),
        (public, None, Some(noted)) if noted != network_name(public.network()) => {
            Err(other(noted, network_name(public.network()).to_owned(), network_path(dir)))
        }
        (_, None, Some(_)) => Ok(()),
        (public, None, None) => write(&network_path(dir), network_name(public.network())),
    }
}

/// Which network the money is on, whatever source it is followed through. Not for the embedded chain, of which there can be many.
fn network_path(data_dir: &Path) -> PathBuf {
    data_dir.join("network")
}

fn role_path(data_dir: &Path) -> PathBuf {
    data_dir.join("role")
}

fn chain_path(data_dir: &Path) -> PathBuf {
    data_dir.join("chain-dir")
}

fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end_matches('\n').to_string())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::File { path: path.to_path_buf(), source }),
    }
}

/// Whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), ConfigError> {
    let new = path.with_extension("new");
    let written = fs::write(&new, format!("{text}\n")).and_then(|()| fs::rename(&new, path));
    written.map_err(|source| ConfigError::File { path: path.to_path_buf(), source })
}
