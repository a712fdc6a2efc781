//! Ports of this computer that lead to ports of a leased machine.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use xennetd::control::{Client, LeaseId, LeaseStage};

use crate::background;
use crate::commands::Context;
use crate::fail::Fail;
use crate::progress::Progress;
use crate::{resolve, show};

/// After an error of `accept` (too many open files, say) the next attempt waits this long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// See [`Order::Forward`](crate::cli::Order::Forward).
#[derive(Debug, Args)]
pub struct ForwardArgs {
    /// The lease: its name, or the beginning of it
    pub lease: String,
    /// A port here and the machine's port it leads to; 0 here is any free one; one number is both
    #[arg(required = true, value_name = "LOCAL:REMOTE")]
    pub ports: Vec<Mapping>,
    /// The address to listen on
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub address: IpAddr,
}

/// A port here and the port over there that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// 0: any that is free.
    local: u16,
    remote: u16,
}

/// What is shown of a mapping.
#[derive(Serialize)]
struct Door {
    lease: LeaseId,
    address: SocketAddr,
    port: u16,
}

impl FromStr for Mapping {
    type Err = &'static str;

    /// `8080:80`, `0:80` for any free port, or `80` for the same port on both sides.
    fn from_str(text: &str) -> Result<Mapping, Self::Err> {
        let number = |text: &str| text.parse::<u16>().map_err(|_| "write PORT:PORT such as 8080:80, each up to 65535");
        let (local, remote) = text.split_once(':').unwrap_or((text, text));
        let mapping = Mapping { local: number(local)?, remote: number(remote)? };
        if mapping.remote == 0 {
            return Err("the machine's port must be 1 to 65535");
        }
        Ok(mapping)
    }
}

/// Listens on every mapping's port until Ctrl-C.
pub async fn forward(context: &Context, args: ForwardArgs) -> Result<ExitCode, Fail> {
    background::ensure(&context.settings, &context.client, &Progress::new(context.json)).await?;
    let lease = resolve::lease(&context.client, &args.lease).await?;
    let view = resolve::lease_view(&context.client, lease).await?;
    if !matches!(view.stage, LeaseStage::Live | LeaseStage::Interrupted) {
        return Err(Fail::new(format!("lease {lease} is {}: only a live lease has ports to forward", view.stage.name()))
            .next("`xennet leases` shows how far each lease is"));
    }
    let (mut listeners, mut doors) = (Vec::new(), Vec::new());
    for mapping in &args.ports {
        let (listener, address) = listen(args.address, mapping.local).await?;
        listeners.push((listener, mapping.remote));
        doors.push(Door { lease, address, port: mapping.remote });
    }
    show::print(context.json, &doors, |doors| {
        doors.iter().map(|door| format!("{} leads to port {} of {lease}\n", door.address, door.port)).collect()
    })?;
    let mut at_work = JoinSet::new();
    for (listener, port) in listeners {
        at_work.spawn(serve(listener, context.client.clone(), lease, port));
    }
    tokio::signal::ctrl_c().await.map_err(|e| Fail::new("cannot wait for Ctrl-C").because(e))?;
    Ok(ExitCode::SUCCESS)
}

async fn listen(address: IpAddr, port: u16) -> Result<(TcpListener, SocketAddr), Fail> {
    let wanted = SocketAddr::from((address, port));
    let listening = async {
        let listener = TcpListener::bind(wanted).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listening.await.map_err(|e: std::io::Error| {
        Fail::new(format!("cannot listen on {wanted}")).because(e).next("choose another port on the left, or 0 for any that is free")
    })
}

async fn serve(listener: TcpListener, client: Client, lease: LeaseId, port: u16) {
    // Ended with this task, so that nothing is carried once nobody listens.
    let mut visits = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((visitor, from)) => {
                let client = client.clone();
                visits.spawn(async move {
                    if let Err(fail) = join(visitor, &client, lease, port).await {
                        fail.show_as_note(&format!("a connection from {from}"));
                    }
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
        }
        while visits.try_join_next().is_some() {}
    }
}

async fn join(mut visitor: TcpStream, client: &Client, lease: LeaseId, port: u16) -> Result<(), Fail> {
    // Keystrokes must not wait for each other.
    let _ = visitor.set_nodelay(true);
    let mut pipe = client.pipe(&lease, &port.to_string()).await?;
    // Either end may hang up at any time; that is how connections end.
    let _ = copy_bidirectional(&mut visitor, &mut pipe).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mapping_is_read_or_refused() {
        assert_eq!("8080:80".parse(), Ok(Mapping { local: 8080, remote: 80 }));
        assert_eq!("0:80".parse(), Ok(Mapping { local: 0, remote: 80 }));
        assert_eq!("5432".parse(), Ok(Mapping { local: 5432, remote: 5432 }));
        for wrong in ["", "a", "80:", ":", "70000:80", "80:0", "0", "1:2:3", "-1:80"] {
            assert!(wrong.parse::<Mapping>().is_err(), "{wrong}");
        }
    }
}
