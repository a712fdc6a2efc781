//! The node's end: dials the publisher, again and again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rand::Rng;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cut::Cut;
use crate::event::TunnelEvent;
use crate::link::Link;
use crate::pipe::Traffic;
use crate::places::Pipes;
use crate::session;
use crate::settings::SUPERSEDED;

mod attempt;
mod bridge;
mod caller;

use attempt::{Attempt, NotUp};

/// The first wait after a cut; each next one is twice as long.
const BACK_OFF_FIRST: Duration = Duration::from_millis(250);
/// The longest wait between two attempts.
const BACK_OFF_LAST: Duration = Duration::from_secs(15);
/// A session that was up for this long makes the waits begin anew.
const WAS_GOOD: Duration = Duration::from_secs(10);

/// Whom a node dials and what it offers there.
#[derive(Clone, Debug)]
pub struct DialConfig {
    /// The address in the task.
    pub address: SocketAddr,
    /// The Ed25519 host key the task commits to.
    pub host_key: [u8; 32],
    /// The user name: the lease.
    pub user: String,
    /// The seed of the Ed25519 key the acceptance names.
    pub key_seed: [u8; 32],
    /// The name under which the guest is offered: `vm-` and the lease.
    pub pipe: String,
    /// Where pipes lead. While it is `None` (the guest does not run yet) pipes are refused. Nothing else is ever
    /// connected to, whatever the publisher asks for.
    pub target: watch::Receiver<Option<PipeTarget>>,
}

/// Where a pipe leads at the node's end.
#[derive(Clone, Debug)]
pub enum PipeTarget {
    /// A TCP address, of one SSH server; the guest's other ports do not exist.
    Tcp(SocketAddr),
    /// Every port of the guest, by way of its gateway.
    Guest(GuestPorts),
}

type Opening = BoxFuture<'static, io::Result<DuplexStream>>;

/// Opens connections to the ports of a guest.
#[derive(Clone)]
pub struct GuestPorts(Arc<dyn Fn(u16) -> Opening + Send + Sync>);

impl GuestPorts {
    /// `open` connects to a port, 1 to 65535, and gives the connection once the guest has taken it.
    pub fn new<F>(open: impl Fn(u16) -> F + Send + Sync + 'static) -> GuestPorts
    where
        F: Future<Output = io::Result<DuplexStream>> + Send + 'static,
    {
        GuestPorts(Arc::new(move |port| Box::pin(open(port))))
    }

    pub(crate) fn open(&self, port: u16) -> Opening {
        (self.0)(port)
    }
}

impl std::fmt::Debug for GuestPorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GuestPorts")
    }
}

/// A node's tunnel to one publisher. It connects, and connects again after a cut, until it is stopped or dropped or
/// the publisher turns out to be somebody else.
#[derive(Debug)]
pub struct Dialer {
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Dialer {
    /// Starts to dial and tells `events` what happens. Needs a running tokio runtime.
    #[must_use]
    pub fn start(config: DialConfig, events: mpsc::Sender<TunnelEvent>) -> Self {
        crate::settings::keep_freed_memory();
        let stop = CancellationToken::new();
        let task = tokio::spawn(dial(Arc::new(config), events, stop.clone()));
        Self { stop, task: Some(task) }
    }

    /// Hangs up gracefully and dials no more. Returns when `Down` was told.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

impl Drop for Dialer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Dials until told to stop.
async fn dial(config: Arc<DialConfig>, events: mpsc::Sender<TunnelEvent>, stop: CancellationToken) {
    let traffic = Arc::new(Traffic::default());
    let mut wait = BACK_OFF_FIRST;
    loop {
        let cut = Cut::default();
        let pipes = Pipes::new(Arc::clone(&traffic), cut.clone());
        let attempt = tokio::select! {
            attempt = attempt::connect(&config, &pipes, &cut) => attempt,
            () = stop.cancelled() => return cut.cut("the node stopped"),
        };
        let event = match attempt {
            Ok(attempt) => {
                let started = Instant::now();
                let Some(why) = talk(&config, attempt, pipes, &cut, &events, &stop).await else {
                    return;
                };
                if started.elapsed() >= WAS_GOOD {
                    wait = BACK_OFF_FIRST;
                }
                if why == SUPERSEDED {
                    // Another process holds our key and is up. Two that dial at once would throw each other out.
                    wait = BACK_OFF_LAST;
                }
                None
            }
            Err(not_up) => {
                cut.cut("the attempt failed");
                let user = config.user.clone();
                match not_up {
                    NotUp::Never(why) => {
                        let _ = events.send(TunnelEvent::Failed { user, why }).await;
                        return;
                    }
                    NotUp::Yet(why) => Some((user, why)),
                }
            }
        };
        let retry_in = jitter(wait);
        wait = (wait * 2).min(BACK_OFF_LAST);
        if let Some((user, why)) = event {
            let retry = TunnelEvent::Retry { user, why, retry_in };
            if events.send(retry).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(retry_in) => (),
            () = stop.cancelled() => return,
        }
    }
}

/// Runs a session that is up until it ends, and says why it did, or `None` when no more is to be dialled.
async fn talk(
    config: &DialConfig,
    attempt: Attempt,
    pipes: Pipes,
    cut: &Cut,
    events: &mpsc::Sender<TunnelEvent>,
    stop: &CancellationToken,
) -> Option<String> {
    let user = config.user.clone();
    let (link, ends) = Link::new(&user, pipes, None);
    let up = TunnelEvent::Up { user: user.clone(), link: link.clone(), peer: config.address };
    if events.send(up).await.is_err() {
        cut.cut("the daemon stopped");
        return None;
    }
    let disconnect = async |why: String| {
        let reason = russh::Disconnect::ByApplication;
        let _ = attempt.ssh.disconnect(reason, &why, "").await;
    };
    let over = attempt.over.wait();
    let running = session::run(&user, attempt.channel, ends, events, cut, over, disconnect);
    tokio::pin!(running);
    let why = tokio::select! {
        why = &mut running => why,
        () = stop.cancelled() => {
            link.close("the node stopped");
            running.await
        }
    };
    let down = TunnelEvent::Down { user: user.clone(), why: why.clone() };
    if events.send(down).await.is_err() || stop.is_cancelled() {
        return None;
    }
    Some(why)
}

/// Up to a quarter more, so that the nodes a publisher lost at one moment do not all come back at one moment.
fn jitter(wait: Duration) -> Duration {
    let quarter = u64::try_from(wait.as_millis() / 4).unwrap_or(u64::MAX);
    wait + Duration::from_millis(rand::thread_rng().gen_range(0..=quarter))
}
