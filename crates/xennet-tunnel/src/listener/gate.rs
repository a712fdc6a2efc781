//! What a peer may ask of the publisher's SSH server: to log in with a key, one lease pipe, one forward.
//! Everything else is refused here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, VerifiedPublicKey};
use russh::{Channel, ChannelId, Pty, server};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Login, Shared};
use crate::keys;
use crate::settings::{PIPE_VERSION, SUBSYSTEM};

/// The longest user name; a lease is 64 hexadecimal digits.
const MAX_USER: usize = 64;

/// How far a peer has come.
pub(super) enum Step {
    LoggedIn(String),
    /// Handed over before anything comes on it: a channel nobody reads would stop the session.
    Opened(Channel<Msg>),
    LeasePipe,
    Forward,
}

/// The handler of one connection.
pub(super) struct Gate {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: SocketAddr,
    /// Never blocks: it has room for every step there is. Closed when the session of the library ends.
    pub(super) steps: mpsc::Sender<Step>,
    pub(super) progress: Progress,
}

#[derive(Default)]
pub(super) struct Progress {
    user: Option<String>,
    lease_channel: Option<ChannelId>,
    has_lease_pipe: bool,
    has_forward: bool,
}

impl Gate {
    fn tell(&self, step: Step) -> Result<(), russh::Error> {
        self.steps.try_send(step).map_err(|_| russh::Error::SendError)
    }

    /// The daemon's answer, or no when it takes too long.
    async fn is_authorized(&self, login: Login) -> bool {
        let answer = (self.shared.authorize)(login);
        timeout(self.shared.limits.authorise_within, answer).await.unwrap_or(false)
    }
}

/// A user name is only ever a lease; anything else need not reach the daemon.
fn is_lease_name(user: &str) -> bool {
    (1..=MAX_USER).contains(&user.len()) && user.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl Handler for Gate {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        if is_lease_name(user) && keys::raw(offer.public_key).is_some() {
            return Ok(Auth::Accept);
        }
        Ok(Auth::reject())
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        if let Some(key) = keys::raw(key.public_key)
            && is_lease_name(user)
        {
            let login = Login { user: user.to_owned(), key, peer: self.peer };
            if self.is_authorized(login).await {
                self.progress.user = Some(user.to_owned());
                return Ok(Auth::Accept);
            }
        }
        self.shared.counts.refused.fetch_add(1, Ordering::Relaxed);
        Ok(Auth::reject())
    }

    async fn auth_succeeded(&mut self, _: &mut server::Session) -> Result<(), Self::Error> {
        // The only way in is `auth_publickey`.
        let user = self.progress.user.clone();
        self.tell(Step::LoggedIn(user.ok_or(russh::Error::Inconsistent)?))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut server::Session,
    ) -> Result<(), Self::Error> {
        if self.progress.lease_channel.is_none() {
            self.progress.lease_channel = Some(channel.id());
            self.tell(Step::Opened(channel))?;
            reply.accept().await;
        }
        // Dropping the reply refuses.
        Ok(())
    }

    async fn subsystem_request(&mut self, channel: ChannelId, name: &str, session: &mut server::Session) -> Result<(), Self::Error> {
        let p = &mut self.progress;
        if name != SUBSYSTEM || p.lease_channel != Some(channel) || p.has_lease_pipe {
            return session.channel_failure(channel);
        }
        p.has_lease_pipe = true;
        session.channel_success(channel)?;
        self.tell(Step::LeasePipe)
    }

    async fn tcpip_forward(&mut self, address: &str, port: &mut u32, _: &mut server::Session) -> Result<bool, Self::Error> {
        let p = &mut self.progress;
        let is_ours = p.user.as_deref().is_some_and(|u| address == forward_name(u));
        if !is_ours || *port != PIPE_VERSION || p.has_forward {
            return Ok(false);
        }
        p.has_forward = true;
        self.tell(Step::Forward)?;
        Ok(true)
    }

    // The library leaves a request without an answer when its handler does nothing; a stock client would wait.

    async fn shell_request(&mut self, channel: ChannelId, session: &mut server::Session) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn exec_request(&mut self, channel: ChannelId, _: &[u8], session: &mut server::Session) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn env_request(&mut self, channel: ChannelId, _: &str, _: &str, session: &mut server::Session) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }
}

/// The one name a node may offer.
pub(super) fn forward_name(user: &str) -> String {
    format!("vm-{user}")
}
