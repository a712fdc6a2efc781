//! What both ends do with a session once it is up.

use std::time::Duration;

use russh::{Channel, ChannelId, ChannelMsg};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::cut::Cut;
use crate::event::TunnelEvent;
use crate::frames::{self, Ended};
use crate::link::LinkEnds;
use crate::settings::CLOSE_WITHIN;

/// How long the other end has to close the connection after it was told the reason.
const HANG_UP_WITHIN: Duration = Duration::from_secs(1);

/// Carries frames in both directions until the session ends, and says why it did. When it returns the connection is
/// cut.
///
/// `over` is done when the SSH library's session has ended; `disconnect` tells the other end a reason.
pub(crate) async fn run<S, O, D>(
    user: &str,
    channel: Channel<S>,
    mut ends: LinkEnds,
    events: &mpsc::Sender<TunnelEvent>,
    cut: &Cut,
    over: O,
    disconnect: D,
) -> String
where
    S: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
    O: Future<Output = String>,
    D: AsyncFnOnce(String),
{
    let (mut reader, writer) = channel.split();
    tokio::pin!(over);
    let ended = {
        let sending = frames::send(&writer, &mut ends.frames, &ends.closing);
        let receiving = frames::receive(&mut reader, user, events);
        tokio::pin!(sending, receiving);
        tokio::select! {
            biased;
            why = cut.wait() => {
                cut.cut(why);
                Ended::Gone
            }
            why = &mut over => {
                cut.cut(why);
                // What came before the end still counts; its channel is closed, so this comes to an end.
                receiving.await
            }
            ended = &mut receiving => ended,
            ended = &mut sending => ended,
            // The queue is sent first, but not for longer than this.
            why = late(&ends.closing) => Ended::Because(why),
        }
    };
    // Nobody reads this channel any more; the session must not wait for us.
    drop(reader);
    ends.frames.close();
    if !cut.is_cut() {
        match ended {
            Ended::Gone => {
                let why = timeout(HANG_UP_WITHIN, over).await;
                cut.cut(why.unwrap_or_else(|_| cut.why()));
            }
            Ended::Because(why) => {
                let farewell = async {
                    disconnect(why.clone()).await;
                    let _ = timeout(HANG_UP_WITHIN, over).await;
                };
                tokio::select! {
                    _ = timeout(CLOSE_WITHIN, farewell) => (),
                    _ = cut.wait() => (),
                }
                cut.cut(why);
            }
        }
    }
    cut.why()
}

/// Waits for the order to close and then as long as a graceful close may take.
async fn late(closing: &Cut) -> String {
    let why = closing.wait().await;
    sleep(CLOSE_WITHIN).await;
    why
}
