//! What the loop waits for.

use tokio::sync::oneshot;
use xennet_chain::ChainEvent;
use xennet_lease::Input;
use xennet_overlay::OverlayEvent;
use xennet_task::{Acceptance, AnnouncementHash, LeaseId};
use xennet_tunnel::TunnelEvent;

use super::announce::Ready;
use super::book::OwnTask;
use super::fund::Funding;
use super::node::Seller;
use crate::control::{Failure, Reply};

/// Where an answer to a command goes.
pub type Answer = oneshot::Sender<Result<Reply, Failure>>;

/// One thing that happened.
pub enum Happening {
    /// On the chain.
    Chain(ChainEvent),
    /// On the overlay.
    Overlay(OverlayEvent),
    /// In a tunnel.
    Tunnel(TunnelEvent),
    /// To a lease, as the result of work done for it.
    Lease(LeaseId, Input),
    /// A transaction that opens channels is ready.
    Funding(Funding),
    /// A node can run guests now.
    CanSell(Box<Seller>),
    /// A node cannot run guests.
    CannotSell(anyhow::Error),
    /// A task's announcement has its work and is ready to go out.
    TaskReady(Box<OwnTask>, Answer),
    /// An acceptance has its work and is ready to go out.
    AcceptanceReady {
        /// What it says.
        acceptance: Box<Acceptance>,
        /// Its hash and its bytes for the overlay.
        ready: Box<Ready>,
        /// What closing is expected to cost, satoshi per 1000 virtual bytes.
        close_feerate: u64,
    },
    /// An acceptance could not be made.
    AcceptanceFailed(AnnouncementHash, String),
    /// A cancellation has its work and is ready to go out.
    CancellationReady(AnnouncementHash, Vec<u8>),
    /// Stop, as asked by a signal.
    Stop,
}
