//! Joins a pipe to a port of the node's guest.

use std::io;
use std::time::Duration;

use russh::client::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PipeTarget;
use crate::pipe::Pipe;
use crate::places::Place;
use crate::settings::TARGET_WITHIN;

/// Where the guest's SSH server listens.
const SSH_PORT: u16 = 22;

/// Connects to the target, accepts the pipe, and copies until either end is done.
pub(super) async fn join(
    channel: Channel<Msg>,
    reply: ChannelOpenHandle,
    (target, port): (PipeTarget, u16),
    place: Place,
    round_trip: Duration,
) {
    let guest = match connect(&target, port).await {
        Ok(guest) => guest,
        Err(e) => {
            tracing::debug!("cannot reach port {port} of the guest at {target:?}: {e}");
            return reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
    };
    reply.accept().await;
    let pipe = Pipe::new(channel, place, round_trip);
    let joined = match guest {
        Either::Tcp(stream) => pipe.join(stream).await,
        Either::Guest(stream) => pipe.join(stream).await,
    };
    if let Err(e) = joined {
        tracing::debug!("a pipe to the guest ended: {e}");
    }
}

async fn connect(target: &PipeTarget, port: u16) -> io::Result<Either> {
    match target {
        PipeTarget::Tcp(_) if port != 0 => Err(io::ErrorKind::ConnectionRefused.into()),
        PipeTarget::Tcp(address) => {
            let stream = within(TcpStream::connect(address)).await?;
            // Keystrokes must not wait for each other.
            stream.set_nodelay(true)?;
            Ok(Either::Tcp(stream))
        }
        PipeTarget::Guest(ports) => {
            let port = if port == 0 { SSH_PORT } else { port };
            Ok(Either::Guest(within(ports.open(port)).await?))
        }
    }
}

enum Either {
    Tcp(TcpStream),
    Guest(DuplexStream),
}

async fn within<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(TARGET_WITHIN, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
