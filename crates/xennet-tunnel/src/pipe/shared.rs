//! What a pipe's two ends and its pump share.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::task::AtomicWaker;
use tokio::sync::Notify;
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::Traffic;
use super::pump::{Outlet, Sending};
use crate::credit::{INITIAL, Window};
use crate::queue::ByteQueue;

pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    pub(super) channel: Arc<dyn Outlet>,
    /// How many bytes the other end lets us have sent in all.
    pub(super) allowed: AtomicU64,
    pub(super) writer: AtomicWaker,
    /// The pump is wanted: to tell a grant or to close.
    pub(super) call: Notify,
    /// Nothing we write reaches anybody any more.
    pub(super) over: CancellationToken,
    /// `over`, and all that came was read.
    pub(super) drained: CancellationToken,
    pub(super) window: Window,
    pub(super) traffic: Arc<Traffic>,
}

/// What came and was not read yet. All counts are from the beginning of the pipe.
struct Inbox {
    queue: ByteQueue,
    received: u64,
    consumed: u64,
    granted: u64,
    reader: Option<Waker>,
    end: Option<End>,
    reader_dropped: bool,
    writer_dropped: bool,
    /// What the writer left behind when it was dropped.
    last: Option<Sending>,
}

/// How the stream from the other end ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Finished,
    Broken(&'static str),
}

impl Shared {
    pub(super) fn new(channel: Arc<dyn Outlet>, window: Window, traffic: Arc<Traffic>) -> Self {
        Self {
            inbox: Mutex::new(Inbox {
                queue: ByteQueue::default(),
                received: 0,
                consumed: 0,
                granted: INITIAL,
                reader: None,
                end: None,
                reader_dropped: false,
                writer_dropped: false,
                last: None,
            }),
            channel,
            allowed: AtomicU64::new(INITIAL),
            writer: AtomicWaker::new(),
            call: Notify::new(),
            over: CancellationToken::new(),
            drained: CancellationToken::new(),
            window,
            traffic,
        }
    }

    /// Takes bytes out of the inbox with `take`, which gives `None` when there are none. Ready with `None` at the end.
    pub(super) fn poll_take<T>(&self, cx: &mut Context<'_>, take: impl FnOnce(&mut ByteQueue) -> Option<T>) -> Poll<io::Result<Option<T>>> {
        let mut inbox = self.inbox();
        let before = inbox.queue.len();
        if let Some(taken) = take(&mut inbox.queue) {
            inbox.consumed += (before - inbox.queue.len()) as u64;
            if inbox.ungranted(&self.window) >= self.window.bytes / 4 {
                self.call.notify_one();
            }
            if inbox.queue.is_empty() && self.over.is_cancelled() {
                self.drained.cancel();
            }
            return Poll::Ready(Ok(Some(taken)));
        }
        match inbox.end {
            Some(End::Finished) => Poll::Ready(Ok(None)),
            Some(End::Broken(why)) => Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, why))),
            None => {
                inbox.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Puts bytes that came into the inbox.
    pub(super) fn put(&self, data: Bytes) -> Result<(), End> {
        let mut inbox = self.inbox();
        inbox.received += data.len() as u64;
        if inbox.received > inbox.granted {
            return Err(End::Broken("the other end sent more than it was allowed"));
        }
        if inbox.reader_dropped || data.is_empty() {
            return Ok(());
        }
        self.traffic.add(data.len());
        inbox.queue.push(data);
        inbox.wake_reader();
        Ok(())
    }

    /// Notes that the stream from the other end has ended; the first end counts.
    pub(super) fn end(&self, end: End) {
        let mut inbox = self.inbox();
        inbox.end.get_or_insert(end);
        inbox.wake_reader();
    }

    /// Notes that nothing goes through this pipe any more.
    pub(super) fn close(&self, end: End) {
        self.over.cancel();
        self.end(end);
        if self.inbox().queue.is_empty() {
            self.drained.cancel();
        }
        self.writer.wake();
    }

    /// What to tell the other end it may have sent in all, if that is more than it knows.
    pub(super) fn next_grant(&self) -> Option<u64> {
        let mut inbox = self.inbox();
        if inbox.ungranted(&self.window) == 0 || inbox.end.is_some() {
            return None;
        }
        inbox.granted = inbox.consumed + self.window.bytes;
        Some(inbox.granted)
    }

    pub(super) fn has_grant(&self) -> bool {
        let inbox = self.inbox();
        inbox.end.is_none() && inbox.ungranted(&self.window) > 0
    }

    /// Whether nobody holds the pipe any more.
    pub(super) fn is_dropped(&self) -> bool {
        let inbox = self.inbox();
        inbox.reader_dropped && inbox.writer_dropped
    }

    pub(super) fn take_last(&self) -> Option<Sending> {
        self.inbox().last.take()
    }

    pub(super) fn drop_reader(&self) {
        let mut inbox = self.inbox();
        inbox.reader_dropped = true;
        inbox.queue.clear();
        drop(inbox);
        self.call.notify_one();
    }

    pub(super) fn drop_writer(&self, last: Option<Sending>) {
        let mut inbox = self.inbox();
        inbox.writer_dropped = true;
        inbox.last = last;
        drop(inbox);
        self.call.notify_one();
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    /// How much more the other end may be allowed than it knows of.
    fn ungranted(&self, window: &Window) -> u64 {
        (self.consumed + window.bytes).saturating_sub(self.granted)
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}
