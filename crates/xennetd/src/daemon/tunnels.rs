//! Tunnels as the loop sees them: who may log in, and frames that go out in order.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use xennet_lease::{Input, Message};
use xennet_task::LeaseId;
use xennet_tunnel::{Link, Login, TunnelEvent};

use super::{Daemon, What};

/// How long a login waits for the acceptance that goes with it: both come by different ways.
const ACCEPTANCE_WITHIN: Duration = Duration::from_secs(8);
/// Frames that may wait for a slow peer. It gets an acknowledgement a second; this is minutes of silence.
const MOST_WAITING: usize = 256;

/// Which key may log in for which lease.
#[derive(Debug, Default)]
pub struct Logins {
    keys: Mutex<HashMap<String, [u8; 32]>>,
    changed: Notify,
}

impl Logins {
    /// This key may log in for this lease, and no other may.
    pub fn allow(&self, lease: LeaseId, key: [u8; 32]) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(lease.to_string(), key);
        self.changed.notify_waiters();
    }

    /// Nobody may log in for this lease any more.
    pub fn forbid(&self, lease: &LeaseId) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&lease.to_string());
    }

    fn key_of(&self, user: &str) -> Option<[u8; 32]> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(user).copied()
    }

    /// Whether this login is for a lease whose acceptance names this key. Waits a little for an acceptance on its way.
    pub async fn check(&self, login: Login) -> bool {
        let known = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                // From here on no change is missed, whatever happens before the await.
                changed.as_mut().enable();
                if let Some(key) = self.key_of(&login.user) {
                    return key == login.key;
                }
                changed.await;
            }
        };
        tokio::time::timeout(ACCEPTANCE_WITHIN, known).await.unwrap_or(false)
    }
}

/// Sends frames in order without making the loop wait.
pub struct Outbox {
    /// The connection.
    pub link: Link,
    waiting: mpsc::Sender<Outgoing>,
}

enum Outgoing {
    Frame(Vec<u8>),
    Close(String),
}

impl Outbox {
    /// Starts sending over a link.
    pub fn new(link: Link) -> Self {
        let (waiting, mut next) = mpsc::channel(MOST_WAITING);
        let out = link.clone();
        tokio::spawn(async move {
            while let Some(outgoing) = next.recv().await {
                match outgoing {
                    Outgoing::Frame(bytes) => {
                        if out.send(bytes).await.is_err() {
                            return;
                        }
                    }
                    Outgoing::Close(why) => return out.close(&why),
                }
            }
        });
        Self { link, waiting }
    }

    /// Sends a message after all earlier ones.
    pub fn send(&self, message: &Message) {
        if self.waiting.try_send(Outgoing::Frame(message.encode())).is_err() {
            self.link.close("the other side does not read");
        }
    }

    /// Closes the connection after all earlier messages.
    pub fn close(&self, why: &str) {
        if self.waiting.try_send(Outgoing::Close(why.to_owned())).is_err() {
            self.link.close(why);
        }
    }
}

impl Daemon {
    pub(super) fn on_tunnel(&mut self, event: TunnelEvent) {
        match event {
            TunnelEvent::Up { user, link, peer } => {
                let Ok(id) = user.parse::<LeaseId>() else { return };
                tracing::info!(lease = %id, %peer, "tunnel up");
                let Some(running) = self.leases.get_mut(&id) else { return link.close("no such lease") };
                if running.lease.is_over() {
                    return link.close("the lease is over");
                }
                running.outbox = Some(Outbox::new(link));
                self.feed(id, Input::LinkUp);
            }
            TunnelEvent::Down { user, why } => {
                let Ok(id) = user.parse::<LeaseId>() else { return };
                tracing::info!(lease = %id, %why, "tunnel down");
                if let Some(running) = self.leases.get_mut(&id)
                    && let Some(outbox) = running.outbox.take()
                {
                    let bytes = outbox.link.traffic();
                    self.feed(id, Input::Traffic(bytes));
                }
                self.feed(id, Input::LinkDown);
            }
            TunnelEvent::Frame { user, bytes } => {
                let Ok(id) = user.parse::<LeaseId>() else { return };
                match Message::decode(&bytes) {
                    Ok(Message::Proposal { announcement }) => self.proposal_in_tunnel(id, &announcement),
                    Ok(message) => self.feed(id, Input::Heard(message)),
                    Err(error) => {
                        tracing::warn!(lease = %id, %error, "a frame that is no message: the tunnel is cut");
                        if let Some(running) = self.leases.get(&id)
                            && let Some(outbox) = &running.outbox
                        {
                            outbox.close("a frame that is no message");
                        }
                    }
                }
            }
            TunnelEvent::Retry { user, why, retry_in } => {
                tracing::info!(lease = %user, %why, ?retry_in, "the publisher is out of reach");
            }
            TunnelEvent::Failed { user, why } => {
                let text = format!("lease {user}: {why}");
                tracing::warn!("{text}");
                self.tell(What::Notice { text });
            }
        }
    }
}
