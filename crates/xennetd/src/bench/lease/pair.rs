//! A publisher's and a node's daemon, each a process with a data directory of its own, on one chain.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use xennet_identity::Role;

use super::super::{BenchError, DaemonCommand};
use crate::control::{Client, ClientError, Command as Order, Reply, StatusView};

/// The most of a log that goes into an error, bytes.
const LOG_TAIL: usize = 400;
/// Time between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(50);
/// How long a daemon may take to end.
const END_WITHIN: Duration = Duration::from_secs(10);

/// One running daemon. Killed when dropped.
pub(super) struct Running {
    /// How to talk to it.
    pub client: Client,
    /// Its data directory.
    pub dir: PathBuf,
    role: Role,
    child: Child,
}

/// A publisher and a node that know each other.
pub(super) struct Pair {
    pub publisher: Running,
    pub node: Running,
}

impl Pair {
    /// Starts both; their control sockets need not answer yet.
    pub(super) fn start(command: &DaemonCommand, dir: &Path) -> Result<Pair, BenchError> {
        let overlay = format!("/ip4/127.0.0.1/tcp/{}", free_port(dir)?);
        let publisher = ["--overlay-listen", &overlay, "--tunnel-listen", "127.0.0.1:0"];
        let node = ["--bootstrap", &overlay];
        Ok(Pair {
            publisher: Running::start(command, Role::Publisher, dir, &publisher)?,
            node: Running::start(command, Role::Node, dir, &node)?,
        })
    }

    /// Ends both, the node first: it lets go of its guest's tunnel.
    pub(super) async fn stop(&mut self) {
        self.node.stop().await;
        self.publisher.stop().await;
    }
}

impl Running {
    fn start(command: &DaemonCommand, role: Role, dir: &Path, flags: &[&str]) -> Result<Running, BenchError> {
        let data_dir = dir.join(role.to_string());
        crate::store::create_private_dir(&data_dir)?;
        let log_path = data_dir.join("log");
        let log = File::create(&log_path).map_err(|source| BenchError::io("write", &log_path, source))?;
        let child = Command::new(&command.program)
            .args(match role {
                Role::Publisher => &command.publisher,
                Role::Node => &command.node,
            })
            .arg("--datadir")
            .arg(&data_dir)
            .arg("--chain-dir")
            .arg(dir.join("chain"))
            .args(["--block-interval", "1"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| BenchError::io("start", &command.program, source))?;
        Ok(Running { client: Client::new(&data_dir), dir: data_dir, role, child })
    }

    /// Waits until its status is as wanted.
    pub(super) async fn until(
        &mut self,
        within: Duration,
        wanted: impl Fn(&StatusView) -> bool,
        what: &str,
    ) -> Result<StatusView, BenchError> {
        let begun = Instant::now();
        loop {
            match self.client.command(&Order::Status {}).await {
                Ok(Reply::Status(status)) if wanted(&status) => return Ok(*status),
                // Not up yet, or busy opening: a deadline ends this.
                Ok(_) | Err(ClientError::NoDaemon { .. } | ClientError::Broken(_)) => {}
                Err(error) => return Err(error.into()),
            }
            let ended = matches!(self.child.try_wait(), Ok(Some(_)));
            if ended || begun.elapsed() > within {
                return Err(self.failed(what, begun.elapsed()));
            }
            sleep(LOOK).await;
        }
    }

    /// Says what did not happen, with the end of the log.
    pub(super) fn failed(&self, what: &str, waited: Duration) -> BenchError {
        let text = std::fs::read(self.dir.join("log")).unwrap_or_default();
        let tail = text.get(text.len().saturating_sub(LOG_TAIL)..).unwrap_or_default();
        let log = String::from_utf8_lossy(tail).trim().replace('\n', " | ");
        BenchError::Daemon { what: format!("the {}'s daemon {what}", self.role), waited_s: waited.as_secs(), log }
    }

    async fn stop(&mut self) {
        let asked = timeout(END_WITHIN, self.client.command(&Order::Stop {})).await;
        if matches!(asked, Ok(Ok(_))) && timeout(END_WITHIN, self.child.wait()).await.is_ok() {
            return;
        }
        // It does not listen to reason; what it leaves behind is in a directory that goes.
        let _ = self.child.kill().await;
    }
}

/// A port that nobody uses at this moment.
fn free_port(dir: &Path) -> Result<u16, BenchError> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    socket.map(|address| address.port()).map_err(|source| BenchError::io("find a free port on 127.0.0.1 for", dir, source))
}
