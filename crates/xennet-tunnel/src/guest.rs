//! The publisher in its guest: SSH inside a pipe, in this process, without a local port.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use russh::client::{self, Handle, Handler};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::cut::Cut;
use crate::error::TunnelError;
use crate::keys;
use crate::settings;
use crate::transport::Transport;

mod exec;

pub use exec::{ExecEvent, ExecInput, ExecOutput, ExecStream, Output};

/// For handshake and login. An emulated guest that is still starting other things needs seconds.
const CONNECT_WITHIN: Duration = Duration::from_secs(60);
/// For the guest to say yes to a command.
const EXEC_WITHIN: Duration = Duration::from_secs(30);

/// A login in the guest. Dropping it hangs up when its commands are done.
pub struct GuestSsh {
    ssh: Handle<Checker>,
}

impl GuestSsh {
    /// Logs in over any stream that leads to an SSH server with an Ed25519 host key, such as a
    /// [`Pipe`](crate::Pipe). Gives the host key too; with `expected_host_key` another one is refused. Without it the
    /// key is new: the pipe's own host key and the node's login are what vouches for it, so keep it and expect it
    /// next time.
    ///
    /// # Errors
    /// [`TunnelError::GuestHostKey`], [`TunnelError::GuestLogin`], [`TunnelError::GuestTimeout`] after 60 s,
    /// [`TunnelError::Ssh`].
    pub async fn connect<S>(
        stream: S,
        user: &str,
        key_seed: [u8; 32],
        expected_host_key: Option<[u8; 32]>,
    ) -> Result<(Self, [u8; 32]), TunnelError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let login = log_in(stream, user, key_seed, expected_host_key);
        timeout(CONNECT_WITHIN, login)
            .await
            .unwrap_or(Err(TunnelError::GuestTimeout { what: "the login", seconds: CONNECT_WITHIN.as_secs() }))
    }

    /// Starts a command.
    ///
    /// # Errors
    /// [`TunnelError::GuestExec`] if the guest refuses, [`TunnelError::GuestTimeout`] if it does not answer for 30 s,
    /// [`TunnelError::Ssh`].
    pub async fn exec(&self, command: &str) -> Result<ExecStream, TunnelError> {
        let starting = async {
            let channel = self.ssh.channel_open_session().await?;
            ExecStream::start(channel, command).await
        };
        timeout(EXEC_WITHIN, starting)
            .await
            .unwrap_or(Err(TunnelError::GuestTimeout { what: "starting a command", seconds: EXEC_WITHIN.as_secs() }))
    }

    /// Runs a command to its end, with `stdin` as its input, and keeps up to 4 MiB of either output. Bound the time
    /// from outside: a command may run for ever.
    ///
    /// # Errors
    /// As [`GuestSsh::exec`], and [`TunnelError::OutputTooLong`].
    pub async fn run(&self, command: &str, stdin: &[u8]) -> Result<Output, TunnelError> {
        self.exec(command).await?.run(stdin).await
    }

    /// Whether the login is gone, as it is when the tunnel broke.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.ssh.is_closed()
    }
}

impl std::fmt::Debug for GuestSsh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestSsh").finish_non_exhaustive()
    }
}

async fn log_in<S>(stream: S, user: &str, key_seed: [u8; 32], expected: Option<[u8; 32]>) -> Result<(GuestSsh, [u8; 32]), TunnelError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shown = Arc::new(OnceLock::new());
    let checker = Checker { expected, shown: Arc::clone(&shown) };
    let transport = Transport::new(stream, Cut::default());
    let mut ssh = match client::connect_stream(settings::guest(), transport, checker).await {
        Ok(ssh) => ssh,
        Err(e) => {
            return Err(match (expected, shown.get()) {
                (Some(expected), Some(found)) if expected != *found => {
                    TunnelError::GuestHostKey { expected: keys::openssh_public_key(&expected), found: keys::openssh_public_key(found) }
                }
                _ => e.into(),
            });
        }
    };
    let host_key = *shown.get().ok_or(russh::Error::UnknownKey)?;
    let key = PrivateKeyWithHashAlg::new(Arc::new(keys::private(&key_seed)), None);
    if !ssh.authenticate_publickey(user, key).await?.success() {
        return Err(TunnelError::GuestLogin { user: user.to_owned() });
    }
    Ok((GuestSsh { ssh }, host_key))
}

/// Checks the guest's host key.
struct Checker {
    expected: Option<[u8; 32]>,
    shown: Arc<OnceLock<[u8; 32]>>,
}

impl Handler for Checker {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else {
            return Ok(false);
        };
        let Some(key) = keys::raw(key) else {
            return Ok(false);
        };
        // A key that changes in the middle of a session is refused as well.
        let first = *self.shown.get_or_init(|| key);
        Ok(key == first && self.expected.is_none_or(|expected| key == expected))
    }

    // A guest has nothing to ask of the publisher. The library would accept these.

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: &str,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: &str,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: &str,
        _: u32,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}
