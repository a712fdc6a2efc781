//! The stock `ssh` and `scp` on their way into a guest.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::process::Command as Program;
use tokio::task::JoinHandle;
use xennet_task::LeaseId;
use xennetd::control::GUEST_SSH;
use xennetd::guest::stock_ssh;

use crate::market::Market;

/// How long one command may take. An emulated guest encrypts a few MB a second.
const WITHIN: Duration = Duration::from_secs(180);

/// The files that `xennet` writes for the stock programs, and in place of `xennet pipe` a port of this test that leads to the
/// same pipe of the publisher's daemon.
pub struct StockSsh {
    config: PathBuf,
    port: u16,
    lease: LeaseId,
    door: JoinHandle<()>,
}

impl StockSsh {
    pub async fn new(market: &Market, lease: LeaseId) -> StockSsh {
        let view = market.publisher.lease(lease).await;
        let config = stock_ssh(&market.publisher.dir, "xennet".as_ref(), &[view]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = market.publisher.client.clone();
        let door = tokio::spawn(async move {
            while let Ok((mut stock, _)) = listener.accept().await {
                let mut pipe = client.pipe(&lease, GUEST_SSH).await.unwrap();
                tokio::spawn(async move { copy_bidirectional(&mut stock, &mut pipe).await });
            }
        });
        StockSsh { config, port, lease, door }
    }

    /// How `scp` calls a file in the guest.
    pub fn remote(&self, path: &str) -> String {
        format!("{}:{path}", self.lease)
    }

    /// Runs a command in the guest and gives what it wrote.
    pub async fn ssh(&self, command: &str) -> String {
        let lease = self.lease.to_string();
        self.run("ssh", &[&lease, command]).await.0
    }

    /// Copies a file; gives the seconds it took.
    pub async fn scp(&self, from: &str, to: &str) -> f64 {
        self.run("scp", &["-q", from, to]).await.1
    }

    async fn run(&self, program: &str, args: &[&str]) -> (String, f64) {
        let begun = Instant::now();
        let mut stock = Program::new(program);
        stock.arg("-F").arg(&self.config).args(["-o", "BatchMode=yes", "-o", "ProxyCommand=none", "-o", "HostName=127.0.0.1"]);
        stock.args(["-o", &format!("Port={}", self.port), "-o", &format!("HostKeyAlias={}", self.lease)]).args(args);
        let child = stock.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
        let child = child.unwrap_or_else(|error| panic!("{program} does not start: {error}; run `apt-get install openssh-client`"));
        let output = tokio::time::timeout(WITHIN, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{program} {args:?}: not within {WITHIN:?}")).unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8(output.stdout).unwrap(), begun.elapsed().as_secs_f64())
    }
}

impl Drop for StockSsh {
    fn drop(&mut self) {
        self.door.abort();
    }
}
