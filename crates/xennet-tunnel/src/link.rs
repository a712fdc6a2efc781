//! One living session, as the daemon sees it.

use std::sync::Arc;

use russh::server;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cut::Cut;
use crate::error::TunnelError;
use crate::frames::check_len;
use crate::pipe::Pipe;
use crate::places::Pipes;
use crate::settings::{FRAME_QUEUE, PIPE_OPEN_WITHIN, PIPE_VERSION};

/// A session between a publisher and a node. Clones are the same session; when it is down, all of them fail.
#[derive(Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    user: String,
    frames: mpsc::Sender<Vec<u8>>,
    pipes: Pipes,
    opener: Option<Opener>,
}

/// How the publisher opens a pipe.
pub(crate) struct Opener {
    pub(crate) session: server::Handle,
    pub(crate) forward: String,
}

/// The other ends of a [`Link`], for the task that runs the session.
pub(crate) struct LinkEnds {
    pub(crate) frames: mpsc::Receiver<Vec<u8>>,
    pub(crate) closing: Cut,
}

impl Link {
    pub(crate) fn new(user: &str, pipes: Pipes, opener: Option<Opener>) -> (Self, LinkEnds) {
        let (frames, frames_out) = mpsc::channel(FRAME_QUEUE);
        let closing = pipes.closing.clone();
        let link = Self { inner: Arc::new(Inner { user: user.to_owned(), frames, pipes, opener }) };
        let ends = LinkEnds { frames: frames_out, closing };
        (link, ends)
    }

    /// The lease.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.inner.user
    }

    /// Sends a frame of 1 to 65,536 bytes over the lease pipe. Waits while 64 frames are queued. That it returned says
    /// that the frame is queued, not that it arrived: the messages of the lease carry their own acknowledgements.
    ///
    /// # Errors
    /// [`TunnelError::FrameLength`], or [`TunnelError::Closed`] when the session is over.
    pub async fn send(&self, frame: Vec<u8>) -> Result<(), TunnelError> {
        check_len(frame.len())?;
        if self.inner.frames.send(frame).await.is_err() {
            return Err(self.closed());
        }
        Ok(())
    }

    /// (Publisher only.) Opens a pipe to the SSH server of the guest that the node offers under `name`, which is `vm-` and
    /// the lease.
    ///
    /// # Errors
    /// [`TunnelError::UnknownPipe`] for another name, [`TunnelError::TooManyPipes`], [`TunnelError::PipeRefused`] when
    /// the node cannot reach its guest, [`TunnelError::PipeTimeout`] after 15 s, [`TunnelError::Closed`].
    pub async fn open_pipe(&self, name: &str) -> Result<Pipe, TunnelError> {
        self.open_port(name, 0).await
    }

    /// (Publisher only.) Opens a pipe to a port of the guest; 0 is its SSH server, wherever that listens.
    ///
    /// # Errors
    /// As [`Link::open_pipe`]; [`TunnelError::PipeRefused`] also when nothing in the guest listens on the port.
    pub async fn open_port(&self, name: &str, port: u16) -> Result<Pipe, TunnelError> {
        let Some(opener) = &self.inner.opener else {
            return Err(TunnelError::NotPublisher);
        };
        if name != opener.forward {
            return Err(TunnelError::UnknownPipe { name: name.to_owned(), offered: opener.forward.clone() });
        }
        if self.is_closed() {
            return Err(self.closed());
        }
        let place = self.inner.pipes.place()?;
        let session = opener.session.clone();
        let forward = opener.forward.clone();
        // A task of its own: if our caller goes away in the middle, the channel is still taken up and then closed,
        // instead of staying open at the node.
        let opening = tokio::spawn(async move {
            let asked = Instant::now();
            let channel = session.channel_open_forwarded_tcpip(forward, PIPE_VERSION, "xennet", u32::from(port)).await?;
            Ok::<_, russh::Error>(Pipe::new(channel, place, asked.elapsed()))
        });
        tokio::select! {
            opened = tokio::time::timeout(PIPE_OPEN_WITHIN, opening) => match opened {
                Ok(Ok(Ok(pipe))) => Ok(pipe),
                Ok(Ok(Err(russh::Error::ChannelOpenFailure(why)))) => Err(TunnelError::PipeRefused {
                    why: format!("{why:?}"),
                }),
                Ok(_) => Err(self.closed()),
                Err(_) => Err(TunnelError::PipeTimeout {
                    seconds: PIPE_OPEN_WITHIN.as_secs(),
                }),
            },
            _ = self.inner.pipes.cut.wait() => Err(self.closed()),
        }
    }

    /// Bytes that went through the pipes of this lease in both directions, without SSH's overhead. The count goes on
    /// over a reconnection as long as the same `Listener` or `Dialer` lives.
    #[must_use]
    pub fn traffic(&self) -> u64 {
        self.inner.pipes.traffic.total()
    }

    /// Closes the session: frames that are queued are sent first, then the reason, and after 2 s at the latest the
    /// connection is cut. Returns at once; `Down` tells when it is done. A node's `Dialer` that is not stopped
    /// connects again.
    pub fn close(&self, why: &str) {
        self.inner.pipes.closing.cut(why);
    }

    /// Whether the session is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.frames.is_closed() || self.inner.pipes.cut.is_cut()
    }

    /// Waits until the session is over and says why.
    pub async fn closed_because(&self) -> String {
        self.inner.pipes.cut.wait().await
    }

    fn closed(&self) -> TunnelError {
        TunnelError::Closed { why: self.inner.pipes.cut.why() }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("user", &self.inner.user).field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}
