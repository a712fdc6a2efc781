//! The byte stream under an SSH session.
//!
//! The SSH library writes and reads in one loop, and while it waits to write it does not read. Two ends that both have
//! much to write would then wait for each other for ever. So this stream keeps reading into memory while a write is
//! blocked. What can pile up is bounded by the credit of the pipes (see `credit`) and by [`READ_AHEAD`].
//!
//! It also ends when the session is [`Cut`], which works in every state the library may be in.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::bytes::BytesMut;
use tokio_util::io::poll_read_buf;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::cut::Cut;
use crate::queue::ByteQueue;

/// At most this much is read ahead. All credit of a session together is less.
const READ_AHEAD: usize = 32 * 1024 * 1024;
/// How much is read ahead at a time.
const CHUNK: usize = 64 * 1024;
/// A write that makes no progress for this long fails. (On Linux TCP itself gives up sooner.)
const STALLED: Duration = Duration::from_secs(30);

/// A stream that reads ahead while a write is blocked, and that can be cut.
pub(crate) struct Transport<S> {
    stream: S,
    ahead: ByteQueue,
    /// How the stream ended, if that was met while reading ahead.
    end: Option<io::Result<()>>,
    cut: Cut,
    cut_waiting: Pin<Box<WaitForCancellationFutureOwned>>,
    stalled: Pin<Box<Sleep>>,
    is_stalling: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    pub(crate) fn new(stream: S, cut: Cut) -> Self {
        Self {
            stream,
            ahead: ByteQueue::default(),
            end: None,
            cut_waiting: Box::pin(cut.waiting()),
            cut,
            stalled: Box::pin(sleep(STALLED)),
            is_stalling: false,
        }
    }

    /// True when the session was cut. Otherwise the task is woken when that happens.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> bool {
        self.cut.is_cut() || self.cut_waiting.as_mut().poll(cx).is_ready()
    }

    /// Reads what there is, and leaves the task to be woken by more.
    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        while self.end.is_none() && self.ahead.len() < READ_AHEAD {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            match poll_read_buf(Pin::new(&mut self.stream), cx, &mut chunk) {
                Poll::Ready(Ok(0)) => self.end = Some(Ok(())),
                Poll::Ready(Ok(_)) => self.ahead.push(chunk.freeze()),
                Poll::Ready(Err(e)) => self.end = Some(Err(e)),
                Poll::Pending => return,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Transport<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.poll_cut(cx) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, this.cut.why())));
        }
        if !this.ahead.is_empty() {
            this.ahead.read(buf);
            return Poll::Ready(Ok(()));
        }
        match this.end.take() {
            Some(end) => {
                // Asked again after an error, the stream has simply ended.
                this.end = Some(Ok(()));
                Poll::Ready(end)
            }
            None => Pin::new(&mut this.stream).poll_read(cx, buf),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.poll_cut(cx) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if let Poll::Ready(written) = Pin::new(&mut this.stream).poll_write(cx, buf) {
            this.is_stalling = false;
            return Poll::Ready(written);
        }
        if !this.is_stalling {
            this.is_stalling = true;
            this.stalled.as_mut().reset(Instant::now() + STALLED);
        }
        this.read_ahead(cx);
        ready!(this.stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other end took no data for 30 s")))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.poll_cut(cx) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn two_ends_that_only_write_do_not_wait_for_each_other() {
        let (a, b) = duplex(1000);
        let mut a = Transport::new(a, Cut::default());
        let mut b = Transport::new(b, Cut::default());
        let load = vec![5; 1_000_000];
        // Neither reads before it has written everything.
        let exchange = |mut end: Transport<_>, load: Vec<u8>| async move {
            end.write_all(&load).await.unwrap();
            let mut got = vec![0; load.len()];
            end.read_exact(&mut got).await.unwrap();
            assert!(got == load);
            end
        };
        let (end_a, end_b) =
            tokio::time::timeout(Duration::from_secs(20), futures::future::join(exchange(a, load.clone()), exchange(b, load)))
                .await
                .unwrap();
        (a, b) = (end_a, end_b);
        drop(a);
        assert_eq!(b.read(&mut [0; 9]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_cut_ends_reading_and_writing() {
        let (a, _b) = duplex(10);
        let cut = Cut::default();
        let mut a = Transport::new(a, cut.clone());
        let reading = tokio::spawn(async move {
            let error = a.read(&mut [0; 9]).await.unwrap_err();
            (a, error.to_string())
        });
        cut.cut("enough");
        let (mut a, why) = reading.await.unwrap();
        assert_eq!(why, "enough");
        assert_eq!(a.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
