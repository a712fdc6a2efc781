//! The disk that does not take what it is given: nothing is sent, commands are answered, and soon the tunnels are cut.
//!
//! ```text
//! write ─▶ refused, or no answer ─▶ again each second ─▶ taken: what was decided is done, tunnels come back
//!                │ 2 s                     │
//!                └▶ tunnels are cut        └▶ commands that change nothing are answered, the others refused
//! ```
//! Tunnels are cut because time goes on for both meters while neither side can record or pay: what was used after that would be one side's
//! loss. A cut is what each lease knows how to come back from.

use std::time::{Duration, Instant};

use xennet_identity::Role;
use xennet_lease::Input;
use xennet_task::LeaseId;

use super::{Daemon, clock};
use crate::control::{Command, Failure, FailureKind, Request, What};
use crate::store::{Batch, Persisted, StoreError};

/// How long the loop waits before it tries again to write what the disk refused.
const RETRY: Duration = Duration::from_secs(1);
/// How long the disk may refuse or not answer before tunnels are cut.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a closing tunnel may take: a peer that floods the queues must not hold up the loop.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);
/// How long a port that was just closed may take to be free.
const FREE_WITHIN: Duration = Duration::from_secs(10);
/// How long a command that asks for the end may be on its way.
const STOP_WITHIN: Duration = Duration::from_millis(200);

/// What is wrong with the disk.
pub(super) struct Trouble {
    /// For the user.
    pub(super) why: String,
    /// What was cut, once it was.
    cut: Option<Cut>,
}

/// Tunnels that were cut for want of a disk.
struct Cut {
    at_ms: u64,
    /// Bytes that the tunnels that were up had carried.
    up: Vec<(LeaseId, Option<u64>)>,
    /// Where the publisher listened.
    listened: Option<std::net::SocketAddr>,
    /// Whom the node dialed for.
    dialed: Vec<LeaseId>,
}

impl Daemon {
    /// Tries until the disk takes it, or the daemon is to stop. Until then nothing is sent, paid, acknowledged or closed.
    pub(super) async fn persist<T>(&mut self, mut batch: Batch, mut value: T) -> Option<Persisted<T>> {
        let (store, begun) = (self.shared.store.clone(), Instant::now());
        loop {
            let unpersisted = match self.wait(store.persist(batch, value), begun).await? {
                Ok(persisted) => return Some(persisted),
                Err(unpersisted) => unpersisted,
            };
            self.note_trouble(in_words(&unpersisted.error));
            (batch, value) = (unpersisted.batch, unpersisted.value);
            self.wait(tokio::time::sleep(RETRY), begun).await?;
        }
    }

    /// Waits, and answers commands as long as there is trouble. `None`: the daemon is to stop. What was decided is then forgotten with this
    /// process; the next one decides it anew from what is on disk.
    async fn wait<F: Future>(&mut self, waited_for: F, begun: Instant) -> Option<F::Output> {
        tokio::pin!(waited_for);
        loop {
            let in_trouble = self.trouble.is_some();
            let mut stop_asked = self.stop_asked.clone();
            let stop = async { drop(stop_asked.wait_for(|asked| *asked).await) };
            let is_cut = self.trouble.as_ref().is_some_and(|trouble| trouble.cut.is_some());
            tokio::select! {
                biased;
                outcome = &mut waited_for => return Some(outcome),
                Some(request) = self.requests.recv(), if in_trouble => self.answer_without_disk(request),
                () = stop, if in_trouble => {
                    // The command that asked for it wants an answer.
                    if let Ok(Some(request)) = tokio::time::timeout(STOP_WITHIN, self.requests.recv()).await {
                        self.answer_without_disk(request);
                    }
                    self.stopping = true;
                }
                () = tokio::time::sleep_until((begun + PATIENCE).into()), if !is_cut => self.cut_tunnels().await,
            }
            if self.stopping {
                return None;
            }
        }
    }

    fn note_trouble(&mut self, why: String) {
        let text = format!("nothing is paid or acknowledged until it can be written: {why}");
        tracing::error!("{text}");
        self.tell(What::Notice { text });
        match &mut self.trouble {
            Some(trouble) => trouble.why = why,
            None => self.trouble = Some(Trouble { why, cut: None }),
        }
    }

    /// Answers what changes nothing and refuses the rest.
    fn answer_without_disk(&mut self, request: Request) {
        match request {
            Request::Command { command, reply } if changes_something(&command) => {
                let why = self.trouble.as_ref().map_or_else(String::new, |trouble| trouble.why.clone());
                let message = format!("nothing was done, for it could not be recorded: {why}");
                let remedy = "ask again when `xennet status` shows no more trouble with the disk";
                let _ = reply.send(Err(Failure::new(FailureKind::Unavailable, message, remedy)));
            }
            request => self.on_request(request),
        }
    }

    async fn cut_tunnels(&mut self) {
        if self.trouble.is_none() {
            self.note_trouble(format!("the disk has not answered for {} s; the daemon waits for it", PATIENCE.as_secs()));
        }
        let at_ms = clock::unix_ms();
        let (mut up, mut dialed) = (Vec::new(), Vec::new());
        for (id, running) in &mut self.leases {
            let outbox = running.outbox.take();
            if running.lease.link.is_ok() {
                up.push((*id, outbox.as_ref().map(|outbox| outbox.link.traffic())));
            }
            if let Some(outbox) = outbox {
                outbox.close("the disk here takes nothing at the moment");
            }
            if let Some(dialer) = running.dialer.take() {
                dialed.push(*id);
                tokio::spawn(async move { tokio::time::timeout(CLOSED_WITHIN, dialer.stop()).await });
            }
        }
        let listened = self.listener.as_ref().map(xennet_tunnel::Listener::local_addr);
        if let Some(listener) = self.listener.take() {
            let _ = tokio::time::timeout(CLOSED_WITHIN, listener.close()).await;
        }
        tracing::error!("tunnels are cut: what is used while nothing can be recorded could not be paid for");
        if let Some(trouble) = &mut self.trouble {
            trouble.cut = Some(Cut { at_ms, up, listened, dialed });
        }
    }

    /// The disk takes things again: what was cut comes back, and for the leases it was down since it was cut.
    pub(super) async fn recover(&mut self) {
        let Some(Trouble { cut, .. }) = self.trouble.take() else { return };
        let text = "the disk takes what it is given again; all goes on".to_owned();
        tracing::info!("{text}");
        self.tell(What::Notice { text });
        let Some(Cut { at_ms, up, listened, dialed }) = cut else { return };
        for (id, bytes) in up {
            if let Some(bytes) = bytes {
                self.feed_at(at_ms, id, Input::Traffic(bytes));
            }
            self.feed_at(at_ms, id, Input::LinkDown);
        }
        if let (Some(address), Role::Publisher) = (listened, self.shared.config.role) {
            let begun = Instant::now();
            while let Err(error) = self.bind(address).await {
                if begun.elapsed() > FREE_WITHIN {
                    tracing::error!("{error:#}");
                    self.failed = Some(error);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        for id in dialed {
            self.dial(id);
        }
    }
}

/// What a user reads: the whole chain of causes, and what to do.
fn in_words(error: &StoreError) -> String {
    let text = format!("{:#}", anyhow::Error::new(error.clone()));
    match error {
        StoreError::Io { .. } => format!(
            "{text}; what was recorded is safe and the daemon tries again each second. If it does not pass, see what the system's log says of \
             this disk, and move the data directory to another one"
        ),
        _ => text,
    }
}

/// Whether a command does something that has to be recorded.
fn changes_something(command: &Command) -> bool {
    match command {
        Command::Status {}
        | Command::IdentityShow {}
        | Command::WalletBalance {}
        | Command::WalletHistory {}
        | Command::WalletCoins {}
        | Command::WalletBackup { .. }
        | Command::Quote { .. }
        | Command::Tasks {}
        | Command::Leases {}
        | Command::Lease { .. }
        | Command::Ledger { .. }
        | Command::Transaction { .. }
        | Command::Stop {} => false,
        Command::IdentityMine { .. }
        | Command::WalletAddress {}
        | Command::WalletSend { .. }
        | Command::WalletBump { .. }
        | Command::WalletSweep { .. }
        | Command::Publish { .. }
        | Command::Cancel { .. }
        | Command::Rent { .. }
        | Command::Renew { .. }
        | Command::CloseLease { .. } => true,
    }
}
