//! What the publisher may ask of a node: pipes to the one target. Everything else is refused here; the library would
//! accept most of it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelOpenFailure};

use super::DialConfig;
use super::bridge;
use crate::cut::Cut;
use crate::error::why_ended;
use crate::keys;
use crate::places::Pipes;
use crate::settings::PIPE_VERSION;

/// The wrong host key that was shown, in OpenSSH's format.
pub(super) type Trouble = Arc<OnceLock<String>>;

/// The handler of one attempt.
pub(super) struct Caller {
    config: Arc<DialConfig>,
    pipes: Pipes,
    /// How long the TCP connection took, which is a round trip.
    round_trip: Duration,
    over: Cut,
    trouble: Trouble,
}

impl Caller {
    pub(super) fn new(config: Arc<DialConfig>, pipes: Pipes, round_trip: Duration, over: Cut) -> Self {
        Self { config, pipes, round_trip, over, trouble: Trouble::default() }
    }

    pub(super) fn trouble(&self) -> Trouble {
        Arc::clone(&self.trouble)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // However the library's session ended, by a panic too, the node must notice.
        self.over.cut("the connection was closed");
    }
}

impl Handler for Caller {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let found = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                if keys::raw(key) == Some(self.config.host_key) {
                    return Ok(true);
                }
                key.to_string()
            }
            PublicKeyOrCertificate::Certificate(_) => "of a certificate".to_owned(),
        };
        let _ = self.trouble.set(found);
        Ok(false)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        connected_address: &str,
        connected_port: u32,
        _: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if connected_address != self.config.pipe || connected_port != PIPE_VERSION {
            return Ok(());
        }
        let Ok(port) = u16::try_from(originator_port) else { return Ok(()) };
        let Some(target) = self.config.target.borrow().clone() else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        let Ok(place) = self.pipes.place() else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        // In a task of its own: the session must go on while the guest is connected to.
        tokio::spawn(bridge::join(channel, reply, (target, port), place, self.round_trip));
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(said) => {
                self.over.cut(readable(&said.message));
                Ok(())
            }
            DisconnectReason::Error(e) => {
                self.over.cut(why_ended(&e));
                Err(e)
            }
        }
    }

    // Dropping the reply refuses.

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_session(&mut self, _: Channel<Msg>, _: ChannelOpenHandle, _: &mut Session) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// What the other end wrote, fit for a terminal.
fn readable(message: &str) -> String {
    let text: String = message.chars().filter(|c| !c.is_control()).take(200).collect();
    if text.is_empty() {
        return "the publisher hung up".to_owned();
    }
    text
}
