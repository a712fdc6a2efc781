//! The stock `ssh -R`, with throwaway keys and a throwaway `sshd`.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::{CIPHER, WITHIN, loopback};
use crate::error::TunnelError;
use crate::keys::{openssh_private_key, openssh_public_key, public_key};

const HOST_SEED: [u8; 32] = [3; 32];
const USER_SEED: [u8; 32] = [4; 32];

/// `sshd` as the publisher, `ssh -R` as the node. Both end when it is dropped.
pub(super) struct StockTunnel {
    pub(super) entry: SocketAddr,
    _sshd: Child,
    _ssh: Child,
    _folder: TempDir,
}

impl StockTunnel {
    pub(super) async fn start(guest: SocketAddr) -> Result<Self, TunnelError> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let server = free_address().await?;
        let entry = free_address().await?;
        secret(&at("host"), &openssh_private_key(&HOST_SEED)?)?;
        secret(&at("user"), &openssh_private_key(&USER_SEED)?)?;
        let line = openssh_public_key(&public_key(&USER_SEED));
        secret(&at("authorized"), &format!("{line}\n"))?;
        let line = openssh_public_key(&public_key(&HOST_SEED));
        secret(&at("known"), &format!("[{}]:{} {line}\n", server.ip(), server.port()))?;
        let config = format!(
            "ListenAddress {server}\nHostKey {}\nAuthorizedKeysFile {}\nCiphers {CIPHER}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPermitRootLogin prohibit-password\n",
            at("host"),
            at("authorized"),
        );
        secret(&at("config"), &config)?;
        // Root's `sshd` wants this folder, which Debian makes when the service starts.
        let _ = std::fs::create_dir("/run/sshd");

        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f", &at("config")]);
        let sshd = spawn("sshd", &mut sshd)?;
        reachable("sshd", server).await?;

        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-N", "-c", CIPHER, "-p", &server.port().to_string()]);
        ssh.args(["-i", &at("user"), "-R", &format!("{entry}:{guest}")]);
        for option in [
            "BatchMode=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "ExitOnForwardFailure=yes".to_owned(),
            format!("UserKnownHostsFile={}", at("known")),
        ] {
            ssh.args(["-o", &option]);
        }
        ssh.arg(format!("{}@{}", user().await?, server.ip()));
        let ssh = spawn("ssh", &mut ssh)?;
        reachable("ssh", entry).await?;
        Ok(Self { entry, _sshd: sshd, _ssh: ssh, _folder: folder })
    }
}

fn failed(program: &'static str, why: impl ToString) -> TunnelError {
    TunnelError::Program { program, why: why.to_string(), remedy: "apt-get install openssh-client openssh-server" }
}

fn spawn(program: &'static str, command: &mut Command) -> Result<Child, TunnelError> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.kill_on_drop(true).spawn().map_err(|e| failed(program, e))
}

/// An address nobody uses at this moment.
async fn free_address() -> io::Result<SocketAddr> {
    Ok(loopback().await?.1)
}

async fn reachable(program: &'static str, address: SocketAddr) -> Result<(), TunnelError> {
    let trying = async {
        while TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(WITHIN, trying).await.map_err(|_| failed(program, "it does not listen"))
}

/// The name of the user this runs as.
async fn user() -> Result<String, TunnelError> {
    let said = Command::new("id").arg("-un").output().await.map_err(|e| failed("id", e))?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// Writes a file that only its owner may read; `ssh` insists on that.
fn secret(path: &str, text: &str) -> io::Result<()> {
    std::fs::write(path, text)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(Path::new(path), std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}
