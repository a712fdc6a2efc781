//! One connection to the publisher, from the first byte to the last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use russh::server::{Msg, run_stream};
use russh::{Channel, Disconnect, server};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::door::Place;
use super::gate::{Gate, Progress, Step, forward_name};
use super::{Session, Shared};
use crate::cut::Cut;
use crate::error::why_ended;
use crate::event::TunnelEvent;
use crate::link::{Link, LinkEnds, Opener};
use crate::places::Pipes;
use crate::session;
use crate::settings::{SUPERSEDED, tune};
use crate::transport::Transport;

/// More than the steps a peer can take.
const STEPS: usize = 8;

/// Why a visit came to nothing.
enum Left {
    TooSlow,
    Gone,
}

/// Runs one connection. `place` is kept until the session is up, so that strangers cannot take more than their share.
pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, place: Place) {
    tune(&stream);
    let cut = Cut::default();
    let (steps_in, mut steps) = mpsc::channel(STEPS);
    let gate = Gate { shared: Arc::clone(&shared), peer, steps: steps_in, progress: Progress::default() };
    let login_by = Instant::now() + shared.limits.login_within;
    let transport = Transport::new(stream, cut.clone());
    let arrived = async {
        let starting = run_stream(Arc::clone(&shared.ssh), transport, gate);
        let ssh = match timeout_at(login_by, starting).await {
            Ok(ssh) => ssh.map_err(|_| Left::Gone)?,
            Err(_) => return Err(Left::TooSlow),
        };
        let (user, channel) = arrive(&mut steps, login_by, shared.limits.login_within).await?;
        Ok((ssh, user, channel))
    };
    let arrived = tokio::select! {
        arrived = arrived => arrived,
        () = shared.closing.cancelled() => Err(Left::Gone),
    };
    match arrived {
        Ok((ssh, user, channel)) => {
            let visit = Visit { shared, peer, user, cut };
            visit.up(ssh, channel, place).await;
        }
        Err(left) => {
            cut.cut("the login took too long");
            if matches!(left, Left::TooSlow) {
                shared.counts.too_slow.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Waits for the login, and then for lease pipe and forward.
async fn arrive(steps: &mut mpsc::Receiver<Step>, login_by: Instant, then_within: Duration) -> Result<(String, Channel<Msg>), Left> {
    let mut by = login_by;
    let (mut user, mut channel) = (None, None);
    let (mut lease_pipe, mut forward) = (false, false);
    loop {
        match timeout_at(by, steps.recv()).await {
            Err(_) => return Err(Left::TooSlow),
            Ok(None) => return Err(Left::Gone),
            Ok(Some(Step::LoggedIn(name))) => {
                user = Some(name);
                by = Instant::now() + then_within;
            }
            Ok(Some(Step::Opened(opened))) => channel = Some(opened),
            Ok(Some(Step::LeasePipe)) => lease_pipe = true,
            Ok(Some(Step::Forward)) => forward = true,
        }
        if lease_pipe && forward {
            return user.zip(channel).ok_or(Left::Gone);
        }
    }
}

/// A session with all it needs.
struct Visit {
    shared: Arc<Shared>,
    peer: SocketAddr,
    user: String,
    cut: Cut,
}

impl Visit {
    async fn up(self, ssh: server::RunningSession<Gate>, channel: Channel<Msg>, place: Place) {
        let number = self.shared.next_session.fetch_add(1, Ordering::Relaxed);
        let gone = CancellationToken::new();
        let (link, ends) = self.enter(number, &ssh, &gone).await;
        drop(place);
        self.shared.counts.sessions.fetch_add(1, Ordering::Relaxed);
        let events = &self.shared.events;
        let up = TunnelEvent::Up { user: self.user.clone(), link, peer: self.peer };
        if events.send(up).await.is_ok() {
            let why = self.run(ssh, channel, ends).await;
            let user = self.user.clone();
            // If nobody listens any more there is nobody to tell.
            let _ = events.send(TunnelEvent::Down { user, why }).await;
        }
        self.cut.cut("the daemon stopped");
        if let Some(lease) = self.shared.leases().get_mut(&self.user)
            && lease.session.as_ref().is_some_and(|s| s.number == number)
        {
            lease.session = None;
        }
        gone.cancel();
    }

    /// Takes the place of the lease's session. The newest wins: after a cut the node is back long before the old
    /// session is known to be dead. Returns when the `Down` of the old one was told.
    async fn enter(&self, number: u64, ssh: &server::RunningSession<Gate>, gone: &CancellationToken) -> (Link, LinkEnds) {
        let opener = Opener { session: ssh.handle(), forward: forward_name(&self.user) };
        let (link, ends, old) = {
            let mut leases = self.shared.leases();
            let lease = leases.entry(self.user.clone()).or_default();
            let pipes = Pipes::new(Arc::clone(&lease.traffic), self.cut.clone());
            let (link, ends) = Link::new(&self.user, pipes, Some(opener));
            let old = lease.session.replace(Session { number, link: link.clone(), gone: gone.clone() });
            (link, ends, old)
        };
        // A listener that closed between our arrival and here did not see this session.
        if self.shared.closing.is_cancelled() {
            link.close("the publisher stopped");
        }
        if let Some(old) = old {
            self.shared.counts.superseded.fetch_add(1, Ordering::Relaxed);
            old.link.close(SUPERSEDED);
            old.gone.cancelled().await;
        }
        (link, ends)
    }

    async fn run(&self, ssh: server::RunningSession<Gate>, channel: Channel<Msg>, ends: LinkEnds) -> String {
        let handle = ssh.handle();
        let over = async {
            match ssh.await {
                Ok(()) => "the node hung up".to_owned(),
                Err(e) => why_ended(&e),
            }
        };
        let disconnect = async |why: String| {
            let reason = Disconnect::ByApplication;
            let _ = handle.disconnect(reason, why, String::new()).await;
        };
        let (user, events) = (&self.user, &self.shared.events);
        session::run(user, channel, ends, events, &self.cut, over, disconnect).await
    }
}
