//! One attempt to get a session up.

use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Msg};
use russh::keys::PrivateKeyWithHashAlg;
use russh::{Channel, ChannelMsg};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::DialConfig;
use super::caller::{Caller, Trouble};
use crate::cut::Cut;
use crate::error::why_ended;
use crate::keys;
use crate::places::Pipes;
use crate::settings::{self, PIPE_VERSION, READY_WITHIN, SUBSYSTEM};
use crate::transport::Transport;

/// For the TCP connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// For the key exchange.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(15);
/// For the login: the publisher may itself wait 10 s for the acceptance to reach it.
const LOGIN_WITHIN: Duration = Duration::from_secs(25);

/// A session with lease pipe and forward.
pub(super) struct Attempt {
    pub(super) ssh: client::Handle<Caller>,
    pub(super) channel: Channel<Msg>,
    /// Cut when the session of the library has ended.
    pub(super) over: Cut,
}

/// Why there is none.
pub(super) enum NotUp {
    /// It is worth to try again.
    Yet(String),
    /// It is not.
    Never(String),
}

/// Connects, checks the host key, logs in, and asks for lease pipe and forward.
pub(super) async fn connect(config: &Arc<DialConfig>, pipes: &Pipes, cut: &Cut) -> Result<Attempt, NotUp> {
    let address = config.address;
    let called = Instant::now();
    let stream = match timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => return Err(NotUp::Yet(format!("cannot reach {address}: {e}"))),
        Err(_) => return Err(NotUp::Yet(format!("cannot reach {address}: no answer"))),
    };
    let round_trip = called.elapsed();
    settings::tune(&stream);

    let over = Cut::default();
    let caller = Caller::new(Arc::clone(config), pipes.clone(), round_trip, over.clone());
    let trouble = caller.trouble();
    let transport = Transport::new(stream, cut.clone());
    let handshake = client::connect_stream(settings::client(), transport, caller);
    let mut ssh = match timeout(HANDSHAKE_WITHIN, handshake).await {
        Ok(Ok(ssh)) => ssh,
        Ok(Err(e)) => return Err(refused_key(&trouble, config).unwrap_or_else(|| yet(&e))),
        Err(_) => return Err(NotUp::Yet(format!("{address} does not speak SSH in time"))),
    };

    let key = PrivateKeyWithHashAlg::new(Arc::new(keys::private(&config.key_seed)), None);
    let login = ssh.authenticate_publickey(&config.user, key);
    match timeout(LOGIN_WITHIN, login).await {
        Ok(Ok(answer)) if answer.success() => (),
        Ok(Ok(_)) => {
            return Err(NotUp::Yet("the publisher refused the login; it may not have seen the acceptance yet".to_owned()));
        }
        Ok(Err(e)) => return Err(yet(&e)),
        Err(_) => return Err(NotUp::Yet("the publisher did not answer the login".to_owned())),
    }
    match timeout(READY_WITHIN, ask(&ssh, config)).await {
        Ok(Ok(channel)) => Ok(Attempt { ssh, channel, over }),
        Ok(Err(e)) => Err(yet(&e)),
        Err(_) => Err(NotUp::Yet("the publisher did not open the lease pipe".to_owned())),
    }
}

/// Asks for the lease pipe and the forward.
async fn ask(ssh: &client::Handle<Caller>, config: &DialConfig) -> Result<Channel<Msg>, russh::Error> {
    let mut channel = ssh.channel_open_session().await?;
    channel.request_subsystem(true, SUBSYSTEM).await?;
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => break,
            Some(ChannelMsg::Failure | ChannelMsg::Close | ChannelMsg::Eof) => {
                return Err(russh::Error::RequestDenied);
            }
            Some(_) => (),
            None => return Err(russh::Error::Disconnect),
        }
    }
    ssh.tcpip_forward(config.pipe.as_str(), PIPE_VERSION).await?;
    Ok(channel)
}

fn yet(e: &russh::Error) -> NotUp {
    NotUp::Yet(why_ended(e))
}

/// If the handshake ended because of the host key, that is for good: dialling again would give whoever sits at that
/// address another chance.
fn refused_key(trouble: &Trouble, config: &DialConfig) -> Option<NotUp> {
    let found = trouble.get()?;
    Some(NotUp::Never(format!(
        "{} showed the host key {found}, but the task commits to {}; either the task names a wrong address or \
         somebody stands in between, so it is not dialled again",
        config.address,
        keys::openssh_public_key(&config.host_key),
    )))
}
