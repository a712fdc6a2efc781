//! A guest's network: the gateway that ends its frames, and the ways to its ports.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::Context;
use futures::future::BoxFuture;
use tokio::io::DuplexStream;
use xennet_gateway::{Gateway, Settings};
use xennet_tunnel::GuestPorts;
use xennet_vm::Vm;

use crate::control::NetworkView;

/// Where a guest's SSH server listens.
pub const SSH: u16 = 22;

/// Takes a guest's network, so that it has what the owner allows and nothing else.
pub async fn open(vm: &Vm, settings: &Settings) -> anyhow::Result<Arc<Gateway>> {
    let gateway = Gateway::start(vm.network().await?, settings.clone()).context("the guest's gateway cannot be started")?;
    Ok(Arc::new(gateway))
}

/// For the tunnel: every port of the guest, and nothing beside the guest.
pub fn ports(gateway: &Arc<Gateway>) -> GuestPorts {
    let gateway = Arc::clone(gateway);
    GuestPorts::new(move |port| {
        let gateway = Arc::clone(&gateway);
        async move { gateway.connect(port).await }
    })
}

/// For a guest that only has to answer: what connects to its SSH server.
pub fn ssh(network: UnixStream) -> io::Result<impl Fn() -> BoxFuture<'static, io::Result<DuplexStream>>> {
    let gateway = Arc::new(Gateway::start(network, Settings::default())?);
    Ok(move || -> BoxFuture<'static, io::Result<DuplexStream>> {
        let gateway = Arc::clone(&gateway);
        Box::pin(async move { gateway.connect(SSH).await })
    })
}

/// What it lets through and what went through.
pub fn view(gateway: &Gateway) -> NetworkView {
    let counts = gateway.counts();
    NetworkView {
        outbound: gateway.policy().profile.to_string(),
        out_bytes: counts.up_frame_bytes,
        in_bytes: counts.down_frame_bytes,
        opened: counts.opened,
        came_in: counts.came_in,
        refused: counts.dropped_forbidden.saturating_add(counts.dropped_limit),
    }
}
