//! Files for the stock `ssh` and `scp`, so that they get in the way every admin knows.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use xennet_tunnel::{openssh_private_key, openssh_public_key};

use super::{GuestError, USER, host_key, quoted};
use crate::control::LeaseView;
use crate::keys::Keys;

/// Writes `ssh/config`, the key and the known host keys of these leases into the data directory, and gives the path of the
/// configuration. With it `ssh -F CONFIG LEASE` and `scp -F CONFIG FILE LEASE:` get into a live lease; the bytes go through
/// `xennet pipe LEASE`, where `program` is the path of `xennet`.
pub fn stock_ssh(data_dir: &Path, program: &Path, leases: &[LeaseView]) -> Result<PathBuf, GuestError> {
    let dir = data_dir.join("ssh");
    let failed = |source| GuestError::File { action: "write", path: dir.clone(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed)?;
    let key = openssh_private_key(&Keys::open(data_dir)?.ssh_guest_seed())?;
    write(&dir.join("id_ed25519"), &key).map_err(failed)?;
    let mut hosts = String::new();
    for lease in leases {
        if let Some(key) = host_key(lease)? {
            hosts.push_str(&format!("{} {}\n", lease.lease, openssh_public_key(&key)));
        }
    }
    write(&dir.join("known_hosts"), &hosts).map_err(failed)?;
    let config = dir.join("config");
    write(&config, &config_text(&dir, data_dir, program)).map_err(failed)?;
    Ok(config)
}

fn config_text(dir: &Path, data_dir: &Path, program: &Path) -> String {
    // ssh passes the command to a shell, after replacing what begins with a percent sign.
    let word = |path: &Path| quoted(&path.display().to_string()).replace('%', "%%");
    let file = |name: &str| format!("\"{}\"", dir.join(name).display().to_string().replace('%', "%%"));
    format!(
        "# Written by xennet. Each lease is a host: ssh -F {config} LEASE\n\
         Host *\n\
         \x20   User {USER}\n\
         \x20   ProxyCommand {program} --datadir {data_dir} pipe %n\n\
         \x20   IdentityFile {key}\n\
         \x20   IdentitiesOnly yes\n\
         \x20   UserKnownHostsFile {hosts}\n\
         \x20   GlobalKnownHostsFile none\n\
         \x20   StrictHostKeyChecking yes\n\
         \x20   UpdateHostKeys no\n\
         \x20   HostKeyAlgorithms ssh-ed25519\n",
        config = dir.join("config").display(),
        program = word(program),
        data_dir = word(data_dir),
        key = file("id_ed25519"),
        hosts = file("known_hosts"),
    )
}

/// Writes a file of mode 0600 whole: another `ssh` may be reading it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path)
}
