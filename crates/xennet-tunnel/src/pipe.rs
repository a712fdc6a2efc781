//! A pipe: one stream of bytes inside a session, from the publisher to the node's guest.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures::task::AtomicWaker;
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::credit::{GRANT, INITIAL, Window, decode_grant, encode_grant};
use crate::cut::Cut;
use crate::queue::ByteQueue;

/// A grant is told at the latest this long after something was read, so that on a slow path, where a quarter of the
/// window takes long, the sender still hears from the reader.
const GRANT_EVERY: Duration = Duration::from_secs(1);

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

/// What a new pipe needs beside its channel.
pub(crate) struct PipeParts {
    pub(crate) window: Window,
    pub(crate) permit: OwnedSemaphorePermit,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) cut: Cut,
}

/// One stream of bytes through the tunnel. Shutting down the writing end leaves the reading end open; dropping the
/// pipe closes both. When the session breaks, reading and writing fail, and a new pipe must be opened in the next one.
pub struct Pipe {
    shared: Arc<Shared>,
    writer: Pin<Box<dyn AsyncWrite + Send>>,
    sent: u64,
    is_shut: bool,
    /// The place among the pipes of the session, given back when the pipe is dropped.
    _permit: OwnedSemaphorePermit,
}

/// What a [`Pipe`] and its pump share.
struct Shared {
    inbox: Mutex<Inbox>,
    /// How many bytes the other end lets us have sent in all.
    allowed: AtomicU64,
    writer: AtomicWaker,
    /// The pump is wanted: to tell a grant or to close.
    call: Notify,
    /// Nothing we write reaches anybody any more.
    over: CancellationToken,
    /// `over`, and all that came was read.
    drained: CancellationToken,
    window: Window,
    traffic: Arc<Traffic>,
}

#[derive(Default)]
struct Inbox {
    queue: ByteQueue,
    /// How many bytes came, were read, and were allowed, in all.
    received: u64,
    consumed: u64,
    granted: u64,
    reader: Option<Waker>,
    end: Option<End>,
    dropped: bool,
}

/// How the stream from the other end ended.
#[derive(Clone, Copy)]
enum End {
    Finished,
    Broken(&'static str),
}

impl Pipe {
    /// Makes a pipe of an open channel. Needs a running tokio runtime.
    pub(crate) fn new<S>(channel: Channel<S>, parts: PipeParts) -> Self
    where
        S: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
    {
        let (reader, writer) = channel.split();
        let shared = Arc::new(Shared {
            inbox: Mutex::new(Inbox { granted: INITIAL, ..Inbox::default() }),
            allowed: AtomicU64::new(INITIAL),
            writer: AtomicWaker::new(),
            call: Notify::new(),
            over: CancellationToken::new(),
            drained: CancellationToken::new(),
            window: parts.window,
            traffic: parts.traffic,
        });
        let pipe =
            Self { shared: Arc::clone(&shared), writer: Box::pin(writer.make_writer()), sent: 0, is_shut: false, _permit: parts.permit };
        tokio::spawn(pump(reader, writer, shared, parts.cut));
        pipe
    }

    /// A future that is done when the other end has closed the pipe and all that came from there was read.
    pub(crate) fn drained(&self) -> impl Future<Output = ()> + Send + 'static {
        self.shared.drained.clone().cancelled_owned()
    }
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipe").field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut inbox = self.shared.inbox();
        inbox.dropped = true;
        inbox.queue.clear();
        drop(inbox);
        self.shared.call.notify_one();
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let shared = &self.shared;
        let mut inbox = shared.inbox();
        let n = inbox.queue.read(buf) as u64;
        if n > 0 {
            inbox.consumed += n;
            if inbox.ungranted(&shared.window) >= shared.window.bytes / 4 {
                shared.call.notify_one();
            }
            if inbox.queue.is_empty() && shared.over.is_cancelled() {
                shared.drained.cancel();
            }
            return Poll::Ready(Ok(()));
        }
        match inbox.end {
            Some(End::Finished) => Poll::Ready(Ok(())),
            Some(End::Broken(why)) => Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, why))),
            None => {
                inbox.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.shared.writer.register(cx.waker());
        if this.shared.over.is_cancelled() || this.is_shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let allowed = this.shared.allowed.load(Ordering::Acquire);
        let credit = usize::try_from(allowed.saturating_sub(this.sent)).unwrap_or(usize::MAX);
        if credit == 0 {
            return Poll::Pending;
        }
        let n = ready!(this.writer.as_mut().poll_write(cx, &buf[..buf.len().min(credit)]))?;
        this.sent += n as u64;
        this.shared.traffic.add(n);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().writer.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.shared.writer.register(cx.waker());
        if this.is_shut || this.shared.over.is_cancelled() {
            return Poll::Ready(Ok(()));
        }
        ready!(this.writer.as_mut().poll_shutdown(cx))?;
        this.is_shut = true;
        Poll::Ready(Ok(()))
    }
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the stream from the other end has ended; the first end counts.
    fn end(&self, end: End) {
        let mut inbox = self.inbox();
        inbox.end.get_or_insert(end);
        if let Some(reader) = inbox.reader.take() {
            reader.wake();
        }
    }

    /// Notes that nothing goes through this pipe any more.
    fn close(&self, end: End) {
        self.over.cancel();
        self.end(end);
        if self.inbox().queue.is_empty() {
            self.drained.cancel();
        }
        self.writer.wake();
    }
}

impl Inbox {
    /// How much more the other end may be allowed than it knows of.
    fn ungranted(&self, window: &Window) -> u64 {
        (self.consumed + window.bytes).saturating_sub(self.granted)
    }
}

/// What one message does to a pipe.
enum After {
    Goes,
    Ends(End),
}

/// Takes everything off the channel as soon as it comes, tells grants, and closes the channel in the end.
async fn pump<S>(mut reader: ChannelReadHalf, writer: ChannelWriteHalf<S>, shared: Arc<Shared>, cut: Cut)
where
    S: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    // While a grant waits for its place in the session, reading must go on: the session may be waiting for us to read.
    let mut granting: Option<Sending<'_>> = None;
    let mut closed_by_peer = false;
    let mut every = interval(GRANT_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first grant widens the window at once.
    shared.call.notify_one();
    let end = loop {
        let unhurried = granting.is_none() && shared.inbox().ungranted(&shared.window) > 0;
        tokio::select! {
            msg = reader.wait() => match msg {
                Some(ChannelMsg::Close) => {
                    closed_by_peer = true;
                    break End::Broken("the other end dropped the pipe");
                }
                None => break End::Broken("the tunnel broke"),
                Some(msg) => if let After::Ends(end) = take(&shared, msg) { break end },
            },
            () = shared.call.notified() => {
                if shared.inbox().dropped {
                    break End::Finished;
                }
                if granting.is_none() {
                    granting = grant(&writer, &shared);
                }
            }
            _ = every.tick(), if unhurried => granting = grant(&writer, &shared),
            sent = async { match granting.as_mut() {
                Some(sending) => Pin::new(sending).await,
                None => std::future::pending().await,
            } } => {
                granting = None;
                if sent.is_err() {
                    break End::Broken("the tunnel broke");
                }
                // More may have been read meanwhile.
                shared.call.notify_one();
            }
            _ = cut.wait() => break End::Broken("the tunnel broke"),
        }
    };
    drop(granting);
    shared.close(end);
    // The channel must be let go of before waiting for a place to close it, else the session might wait for us.
    drop(reader);
    if !closed_by_peer {
        tokio::select! {
            _ = writer.close() => (),
            _ = cut.wait() => (),
        }
    }
}

/// Applies one message of the channel.
fn take(shared: &Shared, msg: ChannelMsg) -> After {
    match msg {
        ChannelMsg::Data { data } => {
            let mut inbox = shared.inbox();
            inbox.received += data.len() as u64;
            if inbox.received > inbox.granted {
                return After::Ends(End::Broken("the other end sent more than it was allowed"));
            }
            if inbox.dropped || data.is_empty() {
                return After::Goes;
            }
            shared.traffic.add(data.len());
            inbox.queue.push(data);
            if let Some(reader) = inbox.reader.take() {
                reader.wake();
            }
        }
        ChannelMsg::ExtendedData { data, ext: GRANT } => {
            if let Some(total) = decode_grant(&data) {
                shared.allowed.fetch_max(total, Ordering::AcqRel);
                shared.writer.wake();
            }
        }
        ChannelMsg::Eof => shared.end(End::Finished),
        _ => (),
    }
    After::Goes
}

type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), russh::Error>> + Send + 'a>>;

/// Begins to tell the other end how much it may have sent in all, if that is more than it knows and worth a packet.
fn grant<'a, S>(writer: &'a ChannelWriteHalf<S>, shared: &Shared) -> Option<Sending<'a>>
where
    S: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    let mut inbox = shared.inbox();
    if inbox.ungranted(&shared.window) == 0 || inbox.end.is_some() {
        return None;
    }
    inbox.granted = inbox.consumed + shared.window.bytes;
    let bytes = encode_grant(inbox.granted);
    Some(Box::pin(writer.extended_data_bytes(GRANT, bytes)))
}
