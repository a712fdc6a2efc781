//! The task behind a pipe: takes everything off its channel at once, tells grants, and closes the channel in the end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use russh::{ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::bytes::Bytes;

use super::shared::{End, Shared};
use crate::credit::{GRANT, decode_grant, encode_grant};
use crate::cut::Cut;

/// A grant is told at the latest this long after something was read, so that on a slow path, where a quarter of the
/// window takes long, the sender still hears from the reader.
const GRANT_EVERY: Duration = Duration::from_secs(1);

/// A message on its way into the session.
pub(super) type Sending = Pin<Box<dyn Future<Output = Result<(), russh::Error>> + Send>>;

/// The writing end of a channel, of a client or of a server.
pub(super) trait Outlet: Send + Sync {
    fn data(self: Arc<Self>, bytes: Bytes) -> Sending;
    fn grant(self: Arc<Self>, total: u64) -> Sending;
    fn eof(self: Arc<Self>) -> Sending;
    fn close(self: Arc<Self>) -> Sending;
}

impl<S> Outlet for ChannelWriteHalf<S>
where
    S: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    fn data(self: Arc<Self>, bytes: Bytes) -> Sending {
        Box::pin(async move { self.data_bytes(bytes).await })
    }

    fn grant(self: Arc<Self>, total: u64) -> Sending {
        Box::pin(async move { self.extended_data_bytes(GRANT, encode_grant(total)).await })
    }

    fn eof(self: Arc<Self>) -> Sending {
        Box::pin(async move { ChannelWriteHalf::eof(&self).await })
    }

    fn close(self: Arc<Self>) -> Sending {
        Box::pin(async move { ChannelWriteHalf::close(&self).await })
    }
}

pub(super) async fn run(mut reader: ChannelReadHalf, shared: Arc<Shared>, cut: Cut) {
    // While a grant waits for its place in the session, reading must go on: the session may be waiting for us to read.
    let mut granting: Option<Sending> = None;
    let mut closed_by_peer = false;
    let mut every = interval(GRANT_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first grant widens the window at once.
    shared.call.notify_one();
    let end = loop {
        let unhurried = granting.is_none() && shared.has_grant();
        tokio::select! {
            msg = reader.wait() => match msg {
                Some(ChannelMsg::Close) => {
                    closed_by_peer = true;
                    break End::Broken("the other end dropped the pipe");
                }
                None => break End::Broken("the tunnel broke"),
                Some(msg) => if let Err(end) = take(&shared, msg) { break end },
            },
            () = shared.call.notified() => {
                if shared.is_dropped() {
                    break End::Finished;
                }
                if granting.is_none() {
                    granting = grant(&shared);
                }
            }
            _ = every.tick(), if unhurried => granting = grant(&shared),
            sent = async { match granting.as_mut() {
                Some(sending) => sending.await,
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
        let farewell = async {
            if let Some(last) = shared.take_last() {
                let _ = last.await;
            }
            let _ = Arc::clone(&shared.channel).close().await;
        };
        tokio::select! {
            () = farewell => (),
            _ = cut.wait() => (),
        }
    }
}

/// Applies one message of the channel.
fn take(shared: &Shared, msg: ChannelMsg) -> Result<(), End> {
    match msg {
        ChannelMsg::Data { data } => shared.put(data)?,
        ChannelMsg::ExtendedData { data, ext: GRANT } => {
            if let Some(total) = decode_grant(&data) {
                shared.allowed.fetch_max(total, Ordering::AcqRel);
                shared.writer.wake();
            }
        }
        ChannelMsg::Eof => shared.end(End::Finished),
        _ => (),
    }
    Ok(())
}

/// Begins to tell a grant, if there is one.
fn grant(shared: &Shared) -> Option<Sending> {
    let total = shared.next_grant()?;
    Some(Arc::clone(&shared.channel).grant(total))
}
