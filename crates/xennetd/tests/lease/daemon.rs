//! One daemon in a process of its own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};

use xennet_task::LeaseId;
use xennetd::control::{BalanceView, Client, ClientError, Command, Failure, LeaseView, Reply, StatusView};

use crate::processes;
use crate::wait::wait_until;

/// The program under test.
const XENNETD: &str = env!("CARGO_BIN_EXE_xennetd");

pub struct Daemon {
    pub dir: PathBuf,
    pub client: Client,
    args: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    /// What is set in its environment at the next start.
    pub variable: Option<(&'static str, String)>,
}

impl Daemon {
    /// A daemon that is not started yet, with a data directory of its own under `root`.
    pub fn new(root: &Path, role: &str, flags: &[String]) -> Daemon {
        let dir = root.join(role);
        fs::create_dir_all(&dir).unwrap();
        let own = ["--role", role, "--datadir", &dir.display().to_string()].map(str::to_owned);
        let args = own.into_iter().chain(flags.iter().cloned()).collect();
        Daemon { client: Client::new(&dir), log: root.join(format!("{role}.log")), dir, args, child: None, variable: None }
    }

    /// Writes its `xennet.toml`.
    pub fn configure(&self, text: &str) {
        fs::write(self.dir.join("xennet.toml"), text).unwrap();
    }

    /// What would start it, e.g. to see it fail.
    pub fn program(&self) -> Program {
        let mut program = Program::new(XENNETD);
        program.args(&self.args).stdin(Stdio::null()).stdout(Stdio::null());
        program
    }

    /// Starts it and waits until it takes commands.
    pub async fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut program = self.program();
        program.envs(self.variable.clone());
        self.child = Some(program.stderr(log).spawn().unwrap());
        wait_until("the daemon's control socket", 120, async || {
            self.must_run();
            self.client.is_there().await
        })
        .await;
    }

    /// Fails with the daemon's own words if it has ended.
    pub fn must_run(&mut self) {
        let Some(child) = &mut self.child else { panic!("it was not started") };
        if let Some(status) = child.try_wait().unwrap() {
            panic!("{} ended, {status}:\n{}", XENNETD, tail(&self.log, 5));
        }
    }

    /// Whether it has died since its start.
    pub fn has_died(&mut self) -> bool {
        let died = self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some());
        if died {
            self.child = None;
        }
        died
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Kills it without warning. Its guests live on.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(&mut self) {
        let Reply::Done = self.ask(Command::Stop {}).await else { panic!("it does not stop") };
        let mut child = self.child.take().unwrap();
        wait_until("the daemon's end", 30, async || child.try_wait().unwrap().is_some()).await;
    }

    pub async fn ask(&self, command: Command) -> Reply {
        self.client.command(&command).await.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Asks for what it must refuse.
    pub async fn ask_in_vain(&self, command: Command) -> Failure {
        match self.client.command(&command).await {
            Err(ClientError::Failed(failure)) => failure,
            other => panic!("{command:?}: {other:?}"),
        }
    }

    pub async fn status(&self) -> StatusView {
        let Reply::Status(status) = self.ask(Command::Status {}).await else { panic!("no status") };
        *status
    }

    pub async fn balance(&self) -> BalanceView {
        let Reply::Balance(balance) = self.ask(Command::WalletBalance {}).await else { panic!("no balance") };
        balance
    }

    /// Spendable now or soon, satoshi.
    pub async fn coins_sat(&self) -> u64 {
        let balance = self.balance().await;
        balance.confirmed_sat + balance.pending_sat
    }

    pub async fn leases(&self) -> Vec<LeaseView> {
        let Reply::Leases(leases) = self.ask(Command::Leases {}).await else { panic!("no leases") };
        leases
    }

    pub async fn lease(&self, lease: LeaseId) -> LeaseView {
        let Reply::Lease(view) = self.ask(Command::Lease { lease }).await else { panic!("no lease") };
        *view
    }

    pub async fn close(&self, lease: LeaseId) {
        let Reply::Lease(_) = self.ask(Command::CloseLease { lease }).await else { panic!("no lease") };
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        for guest in processes::guests_of(&self.dir) {
            processes::kill(guest);
        }
        if std::thread::panicking() {
            eprintln!("--- the end of {}\n{}", self.log.display(), tail(&self.log, 60));
        }
    }
}

fn tail(path: &Path, most: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(most)..].join("\n")
}

/// A port of this machine that nobody has at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap().local_addr().unwrap().port()
}
