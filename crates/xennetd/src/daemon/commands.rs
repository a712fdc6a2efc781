//! Carrying out what comes over the control socket.

use std::sync::Arc;

use xennet_gateway::GUEST;
use xennet_identity::Role;
use xennet_lease::{CloseReason, Input};
use xennet_task::LeaseId;
use xennet_tunnel::TunnelError;

use super::happening::Answer;
use super::sweep::SweepWish;
use super::wallet::{BumpWish, Wish};
use super::{Daemon, machine, views};
use crate::control::{AddressView, Command, Failure, FailureKind, GUEST_SSH, PipeStream, Reply, Request};

impl Daemon {
    pub(super) fn on_request(&mut self, request: Request) {
        match request {
            Request::Command { command, reply } => self.command(command, reply),
            Request::Pipe { lease, name, reply } => self.open_pipe(lease, &name, reply),
        }
    }

    fn command(&mut self, command: Command, answer: Answer) {
        let reply = match command {
            Command::Status {} => return self.answer_with_balance(answer),
            Command::IdentityMine { role } => self.identity_mine(role),
            Command::IdentityShow {} => Ok(Reply::Identities([Role::Publisher, Role::Node].map(|role| self.identity_view(role)).to_vec())),
            Command::WalletBalance {} => return self.answer_with_balance_only(answer),
            Command::WalletAddress {} => return self.answer_with_address(answer),
            Command::WalletHistory {} => return self.history(answer),
            Command::WalletSend { address, amount_sat, feerate_sat_per_kvb, max_fee_sat, dry_run, coins } => {
                return self.send_money(Wish { address, amount_sat, feerate_sat_per_kvb, max_fee_sat, dry_run, coins }, answer);
            }
            Command::WalletBackup { file, overwrite } => return self.back_up(file, overwrite, answer),
            Command::WalletCoins {} => return self.coins(answer),
            Command::WalletSweep { feerate_sat_per_kvb, max_fee_sat, blocks, dry_run } => {
                return self.sweep(SweepWish { feerate_sat_per_kvb, max_fee_sat, blocks, dry_run }, answer);
            }
            Command::WalletBump { txid, feerate_sat_per_kvb, max_fee_sat, dry_run } => {
                return self.bump(&txid, BumpWish { feerate_sat_per_kvb, max_fee_sat, dry_run }, answer);
            }
            Command::Publish { task_toml, max_fee_sat } => return self.publish(&task_toml, max_fee_sat, answer),
            Command::Quote { task_toml } => return self.quote(&task_toml, answer),
            Command::Cancel { task } => return self.cancel(task, answer),
            Command::Tasks {} => {
                let mut tasks: Vec<_> = self.book.known.keys().filter_map(|hash| self.task_view(hash)).collect();
                tasks.sort_by_key(|task| (std::cmp::Reverse(task.expires_at), task.task));
                Ok(Reply::Tasks(tasks))
            }
            Command::Leases {} => {
                let mut leases: Vec<_> = self.leases.values().map(views::lease_view).collect();
                leases.sort_by_key(|lease| (std::cmp::Reverse(lease.accepted_at_ms), lease.lease));
                Ok(Reply::Leases(leases))
            }
            Command::Lease { lease } => self.lease_reply(lease),
            Command::Ledger { lease, from, limit } => self
                .shared
                .store
                .ledger(lease, from, limit.min(Command::MAX_LEDGER_PAGE))
                .map(Reply::Ledger)
                .map_err(|error| Failure::new(FailureKind::Internal, error.to_string(), "")),
            Command::Rent { task } => {
                if !self.book.own.contains_key(&task) {
                    Err(Failure::not_found(format!("own task {task}"), "`xennet tasks` lists them"))
                } else {
                    self.rents.push((task, answer));
                    return self.fill_rents();
                }
            }
            Command::Renew { lease, adds_s, budget_sat, go_on } => self.renew(lease, adds_s, budget_sat, go_on),
            Command::CloseLease { lease } => {
                let reason = match self.shared.config.role {
                    Role::Publisher => CloseReason::PublisherDone,
                    Role::Node => CloseReason::NodeDone,
                };
                self.feed(lease, Input::Close(reason));
                self.lease_reply(lease)
            }
            Command::Transaction { txid } => return self.answer_with_transaction(txid, answer),
            Command::Stop {} => {
                self.stopping = true;
                Ok(Reply::Done)
            }
        };
        let _ = answer.send(reply);
    }

    pub(super) fn lease_reply(&self, id: LeaseId) -> Result<Reply, Failure> {
        match self.leases.get(&id) {
            Some(running) => Ok(Reply::Lease(Box::new(views::lease_view(running)))),
            None => Err(Failure::not_found(format!("lease {id}"), "`xennet leases` lists them")),
        }
    }

    fn identity_mine(&self, role: Role) -> Result<Reply, Failure> {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if let Err(error) = shared.identity(role).await {
                tracing::warn!("mining: {error:#}");
            }
        });
        Ok(Reply::Identity(self.identity_view(role)))
    }

    fn answer_with_balance(&self, answer: Answer) {
        let mut status = self.status_view();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            status.balance = shared.balance();
            status.balance.locked_sat = status.locked_sat;
            let _ = answer.send(Ok(Reply::Status(Box::new(status))));
        });
    }

    fn answer_with_balance_only(&self, answer: Answer) {
        let locked_sat = self.locked_sat();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if let Err(error) = shared.wallet.sync(&shared.chain).await {
                tracing::warn!(%error, "the balance is that of the last time the chain was there");
            }
            let mut balance = shared.balance();
            balance.locked_sat = locked_sat;
            let _ = answer.send(Ok(Reply::Balance(balance)));
        });
    }

    fn answer_with_address(&self, answer: Answer) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let address = shared.wallet.address();
            let reply = match address {
                Ok(address) => {
                    Ok(Reply::Address(AddressView { address: address.to_string(), network: shared.chain.network().to_string() }))
                }
                Err(error) => Err(Failure::new(FailureKind::Internal, error.to_string(), "")),
            };
            let _ = answer.send(reply);
        });
    }

    /// Opens a pipe into a guest; the bytes then flow past the loop.
    fn open_pipe(&mut self, lease: LeaseId, name: &str, reply: tokio::sync::oneshot::Sender<Result<PipeStream, Failure>>) {
        let port = if name == GUEST_SSH { Some(0) } else { name.parse().ok().filter(|port| *port != 0) };
        let Some(port) = port else {
            let remedy = format!("a lease has the pipe {GUEST_SSH}, and one for each port of its machine, 1 to 65535");
            let _ = reply.send(Err(Failure::not_found(format!("pipe {name}"), remedy)));
            return;
        };
        let failure = match self.leases.get(&lease) {
            None => Failure::not_found(format!("lease {lease}"), "`xennet leases` lists them"),
            Some(running) => match &running.outbox {
                Some(outbox) => {
                    let link = outbox.link.clone();
                    tokio::spawn(async move {
                        let pipe = link.open_port(&machine::pipe_name(lease), port).await;
                        let answer = match pipe {
                            Ok(pipe) => Ok(Box::new(pipe) as PipeStream),
                            Err(TunnelError::PipeRefused { .. }) if port != 0 => Err(Failure::new(
                                FailureKind::Unavailable,
                                format!("nothing answers on port {port} of the machine"),
                                format!("start what listens there, on {GUEST} or on all its addresses"),
                            )),
                            Err(error) => Err(Failure::new(FailureKind::Unavailable, error.to_string(), "try again in a moment")),
                        };
                        let _ = reply.send(answer);
                    });
                    return;
                }
                None => Failure::new(
                    FailureKind::Unavailable,
                    format!("the tunnel of lease {lease} is down"),
                    "the node comes back by itself; `xennet leases` shows when",
                ),
            },
        };
        let _ = reply.send(Err(failure));
    }
}
