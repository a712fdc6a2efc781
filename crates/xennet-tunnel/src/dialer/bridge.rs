//! Joins a pipe to the node's guest.

use std::io;
use std::time::Duration;

use russh::client::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::PipeTarget;
use crate::pipe::Pipe;
use crate::places::Place;
use crate::settings::TARGET_WITHIN;

/// Connects to the target, accepts the pipe, and copies until either end is done.
pub(super) async fn join(channel: Channel<Msg>, reply: ChannelOpenHandle, target: PipeTarget, place: Place, round_trip: Duration) {
    let guest = match connect(&target).await {
        Ok(guest) => guest,
        Err(e) => {
            tracing::debug!("cannot reach the guest at {target:?}: {e}");
            return reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
    };
    reply.accept().await;
    let pipe = Pipe::new(channel, place, round_trip);
    let joined = match guest {
        Either::Tcp(stream) => pipe.join(stream).await,
        Either::Unix(stream) => pipe.join(stream).await,
    };
    if let Err(e) = joined {
        tracing::debug!("a pipe to the guest ended: {e}");
    }
}

async fn connect(target: &PipeTarget) -> io::Result<Either> {
    match target {
        PipeTarget::Tcp(address) => {
            let stream = within(TcpStream::connect(address)).await?;
            // Keystrokes must not wait for each other.
            stream.set_nodelay(true)?;
            Ok(Either::Tcp(stream))
        }
        PipeTarget::Unix(path) => Ok(Either::Unix(within(UnixStream::connect(path)).await?)),
    }
}

enum Either {
    Tcp(TcpStream),
    Unix(UnixStream),
}

async fn within<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(TARGET_WITHIN, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
