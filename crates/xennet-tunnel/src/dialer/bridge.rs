//! Joins a pipe to the node's guest.

use std::io;
use std::time::Duration;

use russh::client::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use super::PipeTarget;
use crate::cut::Cut;
use crate::pipe::{Pipe, PipeParts};
use crate::settings::TARGET_WITHIN;

/// How much is copied at a time.
const BUFFER: usize = 64 * 1024;
/// When the publisher has closed a pipe, the guest has this long to take the rest.
const LINGER: Duration = Duration::from_secs(10);

/// Connects to the target, accepts the pipe, and copies until either end is done.
pub(super) async fn join(channel: Channel<Msg>, reply: ChannelOpenHandle, target: PipeTarget, parts: PipeParts, cut: Cut) {
    let connected = match &target {
        PipeTarget::Tcp(address) => match within(TcpStream::connect(address)).await {
            Ok(stream) => {
                // Keystrokes must not wait for each other.
                let _ = stream.set_nodelay(true);
                Ok(Either::Tcp(stream))
            }
            Err(e) => Err(e),
        },
        PipeTarget::Unix(path) => within(UnixStream::connect(path)).await.map(Either::Unix),
    };
    match connected {
        Ok(stream) => {
            reply.accept().await;
            let pipe = Pipe::new(channel, parts);
            match stream {
                Either::Tcp(stream) => copy(stream, pipe, cut).await,
                Either::Unix(stream) => copy(stream, pipe, cut).await,
            }
        }
        Err(e) => {
            tracing::debug!("cannot reach the guest at {target:?}: {e}");
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
    }
}

enum Either {
    Tcp(TcpStream),
    Unix(UnixStream),
}

async fn within<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(TARGET_WITHIN, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn copy(mut guest: impl AsyncRead + AsyncWrite + Unpin, mut pipe: Pipe, cut: Cut) {
    let drained = pipe.drained();
    let closed = async {
        drained.await;
        sleep(LINGER).await;
    };
    tokio::select! {
        _ = copy_bidirectional_with_sizes(&mut guest, &mut pipe, BUFFER, BUFFER) => (),
        // A guest that never hangs up would otherwise keep a pipe nobody is at the other end of.
        () = closed => (),
        _ = cut.wait() => (),
    }
}
