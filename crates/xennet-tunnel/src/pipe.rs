//! A pipe: one stream of bytes inside a session, from the publisher to the node's guest.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use russh::{Channel, ChannelId, ChannelMsg};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::bytes::Bytes;

use crate::places::Place;
use crate::queue::ByteQueue;
use crate::settings::PACKET;

mod join;
mod pump;
mod shared;

use pump::Sending;
use shared::Shared;

/// The most that is taken from a writer or given to a reader at once when a pipe is joined to a stream: whole packets,
/// because a remainder costs as much as a packet. More at a time is fewer calls of the kernel, less is nearer to the
/// processor.
const BATCH: usize = 2 * PACKET as usize;

/// Bytes that went through the pipes of one lease, in both directions, without the overhead of SSH.
#[derive(Debug, Default)]
pub(crate) struct Traffic(AtomicU64);

impl Traffic {
    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One stream of bytes through the tunnel. Shutting down the writing end leaves the reading end open; dropping the
/// pipe closes both, after what was written. When the session breaks, reading and writing fail, and a new pipe must
/// be opened in the next one.
pub struct Pipe {
    reader: Reader,
    writer: Writer,
    /// The place among the pipes of the session, given back when the pipe is dropped.
    _place: Place,
}

/// The end that is read. Dropping either end of a pipe closes the whole.
struct Reader {
    shared: Arc<Shared>,
}

/// The end that is written.
struct Writer {
    shared: Arc<Shared>,
    /// What was taken from the writer and waits for its place in the session.
    sending: Option<Sending>,
    sent: u64,
    is_shut: bool,
}

impl Pipe {
    /// Makes a pipe of an open channel. The round trip of the path decides how much may be under way. Needs a running
    /// tokio runtime.
    pub(crate) fn new<S>(channel: Channel<S>, place: Place, round_trip: Duration) -> Self
    where
        S: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
    {
        let (reader, channel) = channel.split();
        let shared = Arc::new(Shared::new(Arc::new(channel), place.window(round_trip), Arc::clone(&place.pipes.traffic)));
        tokio::spawn(pump::run(reader, Arc::clone(&shared), place.pipes.cut.clone()));
        Self {
            reader: Reader { shared: Arc::clone(&shared) },
            writer: Writer { shared, sending: None, sent: 0, is_shut: false },
            _place: place,
        }
    }

    /// Joins the pipe to a stream and copies in both directions until both have ended, or one has failed.
    ///
    /// # Errors
    /// What the stream or the pipe failed with.
    pub async fn join<T: AsyncRead + AsyncWrite>(self, stream: T) -> io::Result<()> {
        join::join(self, stream).await
    }
}

impl Reader {
    /// The next bytes that came, or none at the end.
    fn poll_chunks(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<ByteQueue>>> {
        self.shared.poll_take(cx, |queue| queue.pop(BATCH))
    }
}

impl Writer {
    /// Waits until what was taken is on its way.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.writer.register(cx.waker());
        if self.shared.over.is_cancelled() {
            self.sending = None;
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if let Some(sending) = &mut self.sending {
            let sent = ready!(sending.as_mut().poll(cx));
            self.sending = None;
            sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Poll::Ready(Ok(()))
    }

    /// How much may be sent now; at least one byte.
    fn poll_credit(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(cx))?;
        if self.is_shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let allowed = self.shared.allowed.load(Ordering::Acquire);
        match allowed.saturating_sub(self.sent) {
            // `poll_sent` has left the waker that a grant wakes.
            0 => Poll::Pending,
            credit => Poll::Ready(Ok(usize::try_from(credit).unwrap_or(usize::MAX))),
        }
    }

    /// Sends no more than the credit.
    fn send(&mut self, chunk: Bytes, cx: &mut Context<'_>) {
        self.sent += chunk.len() as u64;
        self.shared.traffic.add(chunk.len());
        let mut sending = Arc::clone(&self.shared.channel).data(chunk);
        // Mostly there is room at once. An error is met by the next call.
        if sending.as_mut().poll(cx).is_pending() {
            self.sending = Some(sending);
        }
    }

    fn poll_shut(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shared.over.is_cancelled() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_sent(cx))?;
        if !self.is_shut {
            self.is_shut = true;
            self.sending = Some(Arc::clone(&self.shared.channel).eof());
        }
        self.poll_sent(cx)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.drop_reader();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.drop_writer(self.sending.take());
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let shared = &self.reader.shared;
        shared.poll_take(cx, |queue| (!queue.is_empty()).then(|| queue.read(buf))).map_ok(|_| ())
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let writer = &mut self.get_mut().writer;
        let n = ready!(writer.poll_credit(cx))?.min(buf.len()).min(PACKET as usize);
        writer.send(Bytes::copy_from_slice(&buf[..n]), cx);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().writer.poll_sent(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().writer.poll_shut(cx)
    }
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipe").field("sent", &self.writer.sent).finish_non_exhaustive()
    }
}
