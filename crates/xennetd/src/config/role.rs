//! Which side of the market a data directory belongs to. Noted at the first start, so that no node's wallet and leases are
//! ever taken up by a publisher's daemon or the other way round.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use xennet_identity::Role;

use super::ConfigError;

/// The role noted in a data directory; `None` if no daemon ever ran on it.
pub fn noted_role(data_dir: &Path) -> Result<Option<Role>, ConfigError> {
    let path = path(data_dir);
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim() {
            "publisher" => Ok(Some(Role::Publisher)),
            "node" => Ok(Some(Role::Node)),
            _ => Err(ConfigError::RoleFile { path }),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::File { path, source }),
    }
}

/// Notes the role, or refuses if another one is noted.
pub(crate) fn claim_role(data_dir: &Path, role: Role) -> Result<(), ConfigError> {
    match noted_role(data_dir)? {
        Some(noted) if noted == role => Ok(()),
        Some(noted) => Err(ConfigError::OtherRole { dir: data_dir.to_path_buf(), noted, wanted: role }),
        None => {
            let path = path(data_dir);
            let new = path.with_extension("new");
            let written = fs::write(&new, format!("{role}\n")).and_then(|()| fs::rename(&new, &path));
            written.map_err(|source| ConfigError::File { path, source })
        }
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("role")
}
