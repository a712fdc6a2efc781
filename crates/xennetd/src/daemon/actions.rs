//! Carrying out what the leases decided. Only what is on disk gets here: [`Persisted`] is the proof.

use std::sync::Arc;

use rand::rngs::OsRng;
use xennet_identity::Role;
use xennet_lease::{Action, EndReason, Input, LedgerEntry, LedgerKind, Secret, Side, Stage};
use xennet_task::{LeaseId, Proposal, Said, Sealed};

use super::fund::Wanted;
use super::happening::Happening;
use super::machine::{self, Order};
use super::shared::height_of;
use super::step::{self, Moment};
use super::{Daemon, announce, measure};
use crate::clock;
use crate::control::What;
use crate::store::Persisted;

/// What one turn decided: actions of leases, and messages for the overlay.
pub type Decided = (Vec<(LeaseId, Action)>, Vec<Vec<u8>>);

impl Daemon {
    pub(super) fn carry_out(&mut self, persisted: Persisted<Decided>) {
        let (actions, outgoing) = persisted.into_inner();
        for message in outgoing {
            if let Err(error) = self.shared.overlay.publish(message) {
                tracing::warn!(%error, "an announcement did not go out on the overlay; it goes out again with the next peer");
            }
        }
        for (id, action) in actions {
            let done = action.clone();
            self.carry_out_one(id, action);
            step::passes(Moment::Done, &done);
        }
    }

    fn carry_out_one(&mut self, id: LeaseId, action: Action) {
        match action {
            Action::Send(message) => {
                if let Some(outbox) = self.leases.get(&id).and_then(|running| running.outbox.as_ref()) {
                    outbox.send(&message);
                }
            }
            Action::Record(entry) => self.recorded(id, &entry),
            Action::Dial => self.dial(id),
            Action::Boot { guest_key } => self.boot(id, guest_key),
            Action::Pause => self.order(id, Order::Pause),
            Action::Resume => self.order(id, Order::Resume),
            Action::StopMachine => self.stop_machine(id),
            Action::HangUp(why) => self.hang_up(id, &why),
            Action::Measure => self.measure(id),
            Action::SpreadProposal(proposal) => self.spread_proposal(id, *proposal),
            Action::Fund { script, sat } => self.fund(Wanted { lease: id, script, sat }),
            Action::Watch(script) => {
                self.shared.chain.watch_script(script.clone());
                let shared = Arc::clone(&self.shared);
                tokio::spawn(async move {
                    // What was there before is told of too; the order makes sure that nothing falls in between.
                    // Tried until the chain answers: the other side may have spent the channel while nobody was looking.
                    let history = loop {
                        match shared.chain.history(&script).await {
                            Ok(history) => break history,
                            Err(error) => tracing::warn!(lease = %id, %error, "the channel's past is unknown yet; asking again"),
                        }
                        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
                    };
                    for (transaction, status) in history {
                        let input = Input::Seen { transaction, height: height_of(status) };
                        shared.happen(Happening::Lease(id, input)).await;
                    }
                    shared.happen(Happening::Lease(id, Input::PastTold(script))).await;
                });
            }
            Action::Broadcast(transaction) => {
                let shared = Arc::clone(&self.shared);
                tokio::spawn(async move {
                    let txid = transaction.compute_txid();
                    match shared.chain.broadcast(&transaction).await {
                        Ok(_) => {
                            tracing::info!(lease = %id, %txid, "broadcast");
                            if let Err(error) = shared.wallet.sent(&transaction) {
                                tracing::warn!(%error, "the wallet does not know yet what was sent");
                            }
                        }
                        Err(error) => {
                            let text = format!("lease {id}: the chain does not take {txid}: {error}");
                            tracing::warn!("{text}");
                            shared.tell(What::Notice { text });
                        }
                    }
                });
            }
            Action::AskDestination => self.ask_destination(id),
            Action::AskKey => self.ask_key(id),
        }
    }

    /// Does work for a lease and feeds it what comes of it.
    fn spawn<F>(&self, id: LeaseId, work: impl FnOnce(Arc<super::Shared>) -> F + Send + 'static)
    where
        F: Future<Output = Input> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let input = work(Arc::clone(&shared)).await;
            shared.happen(Happening::Lease(id, input)).await;
        });
    }

    /// An own script and a fee rate. Tried until the chain answers: what is at stake is a settlement.
    fn ask_destination(&self, id: LeaseId) {
        self.spawn(id, move |shared| async move {
            loop {
                let address = shared.wallet.address();
                match (address, shared.settling_feerate().await) {
                    (Ok(address), Ok(feerate_sat_per_kvb)) => {
                        return Input::Destination { to: address.script_pubkey(), feerate_sat_per_kvb };
                    }
                    (Err(error), _) => tracing::warn!(lease = %id, %error, "no destination for a settlement yet"),
                    (_, Err(error)) => tracing::warn!(lease = %id, %error, "no fee rate for a settlement yet"),
                }
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            }
        });
    }

    /// A key for a further channel. Without one there is no renewal; the lease goes on.
    fn ask_key(&self, id: LeaseId) {
        self.spawn(id, move |shared| async move {
            loop {
                match shared.wallet.fresh_key() {
                    Ok(key) => return Input::FreshKey(Secret(key)),
                    Err(error) => tracing::warn!(lease = %id, %error, "no key for a channel yet"),
                }
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            }
        });
    }

    fn recorded(&self, id: LeaseId, entry: &LedgerEntry) {
        match entry.kind {
            LedgerKind::Renewed => self.tell(What::Notice { text: format!("lease {id} is renewed: {}", entry.note) }),
            LedgerKind::NotRenewed => self.tell(What::Notice { text: format!("lease {id} is not renewed: {}", entry.note) }),
            _ => {}
        }
        if entry.kind == LedgerKind::Paid
            && let Some(account) = self.leases.get(&id).and_then(|running| running.lease.account.as_ref())
        {
            self.tell(What::Paid { lease: id, number: u64::from(account.payments), paid_sat: entry.paid_sat, owed: entry.owed });
        }
    }

    fn measure(&self, id: LeaseId) {
        let Some(outbox) = self.leases.get(&id).and_then(|running| running.outbox.as_ref()) else { return };
        let (link, pipe) = (outbox.link.clone(), machine::pipe_name(id));
        let disk_mib = self.leases.get(&id).map_or(0, |running| running.lease.acceptance.disk_mib);
        self.spawn(id, move |shared| async move {
            let told = Arc::clone(&shared);
            let tell = move |stage: &str| told.tell(What::Benchmark { lease: id, stage: stage.to_owned(), figures: None });
            let measured = async {
                let stream = link.open_pipe(&pipe).await?;
                measure::measure(stream, shared.keys.ssh_guest_seed(), disk_mib, tell).await
            };
            match measured.await {
                Ok(measured) => {
                    shared.tell(What::Benchmark { lease: id, stage: "done".into(), figures: Some(measured.figures) });
                    Input::Measured { figures: measured.figures, host_key: measured.host_key }
                }
                Err(error) => Input::MeasureFailed(format!("{error:#}")),
            }
        });
    }

    /// Seals a proposal to the node's key and gives it to the overlay.
    fn spread_proposal(&self, id: LeaseId, proposal: Proposal) {
        let Some(running) = self.leases.get(&id) else { return };
        let node_key = running.lease.acceptance.node.key;
        let work_bits = running.lease.acceptance.proposal_work_bits;
        self.tell(What::Proposal { lease: id, rates: proposal.rates, capacity_sat: proposal.capacity_sat });
        let publisher = running.lease.task.publisher;
        self.spawn(id, move |shared| async move {
            let ephemeral = secp256k1::SecretKey::new(&mut OsRng);
            let said = async {
                let sealed = Sealed::seal(publisher, &proposal, &node_key, &ephemeral)?;
                let ready = announce::for_overlay(&shared, Said::Proposal(sealed), Role::Publisher, work_bits).await?;
                if let Err(error) = shared.overlay.publish(ready.message.clone()) {
                    tracing::info!(lease = %id, %error, "the overlay does not carry the proposal; the tunnel will");
                }
                anyhow::Ok(ready.message)
            };
            match said.await {
                Ok(message) => Input::ProposalSpread(message),
                Err(error) => {
                    let why = format!("{error:#}");
                    tracing::warn!(lease = %id, why, "the proposal cannot be made");
                    Input::ProposalFailed(why)
                }
            }
        });
    }

    fn hang_up(&mut self, id: LeaseId, why: &str) {
        let Some(running) = self.leases.get_mut(&id) else { return };
        let outbox = running.outbox.take();
        let dialer = running.dialer.take();
        if let Some(outbox) = &outbox {
            outbox.close(why);
        }
        // The last words still have to go out; only then does the node stop coming back.
        tokio::spawn(async move {
            if let Some(outbox) = outbox {
                let _ = tokio::time::timeout(std::time::Duration::from_secs(3), outbox.link.closed_because()).await;
            }
            if let Some(dialer) = dialer {
                dialer.stop().await;
            }
        });
    }

    /// What else ends with a lease.
    pub(super) fn lease_over(&mut self, id: LeaseId) {
        let Some(running) = self.leases.get_mut(&id) else { return };
        running.rented = false;
        let may_pass = match &running.lease.stage {
            Stage::Ended { reason } => {
                !matches!(reason, EndReason::ProposalRefused(_) | EndReason::MachineRefused(_) | EndReason::Cancelled)
            }
            _ => false,
        };
        if may_pass && matches!(running.lease.side, Side::Node(_)) {
            let task = running.lease.task_hash;
            self.book.try_again(&task, clock::unix_s());
        }
    }
}
