//! The commands that ask the daemon one thing and show the answer.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use xennetd::clock;
use xennetd::config::{ConfigArgs, noted_role};
use xennetd::control::{Client, ClientError, Command, IdentityView, LeaseId, LeaseView, LedgerPage, Reply, Role, TaskFile, TaskView, What};

use crate::background::{self, Daemon};
use crate::cli::{Cli, IdentityOrder, LedgerArgs, NodeOrder, Order, PublishArgs, RenewArgs, Side};
use crate::fail::Fail;
use crate::fee;
use crate::progress::Progress;
use crate::resolve::{self, strange};
use crate::{bench, forward, image, run, show, ssh};

/// How long a settlement may take before a command stops waiting for it: blocks come when they come.
const SETTLED_WITHIN: Duration = Duration::from_secs(600);

/// What every command needs.
pub struct Context {
    /// The flags the daemon is started with.
    pub settings: ConfigArgs,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Talks to its daemon.
    pub client: Client,
    /// Whether JSON is wanted.
    pub json: bool,
}

impl Context {
    /// From the command line.
    pub fn new(cli: &Cli) -> Result<Context, Fail> {
        let data_dir = cli.settings.data_dir()?;
        let client = Client::new(&data_dir);
        Ok(Context { settings: cli.settings.clone(), data_dir, client, json: cli.json })
    }

    /// Does what was ordered.
    pub async fn carry_out(&self, order: Order) -> Result<ExitCode, Fail> {
        match order {
            Order::Identity { order: IdentityOrder::Mine { role } } => self.mine(role).await?,
            Order::Identity { order: IdentityOrder::Show } => match self.ask(Command::IdentityShow {}).await? {
                Reply::Identities(all) => show::print(self.json, &all, |all| show::identities(all))?,
                other => return Err(strange(&other)),
            },
            Order::Wallet { order } => self.wallet(order).await?,
            // `main` runs a node itself: it needs no runtime of ours.
            Order::Node { order: NodeOrder::Run } => return Ok(xennetd::program::run(&self.settings, Role::Node)),
            Order::Image { order } => image::image(self, &order)?,
            Order::Publish(args) => self.publish(&args).await?,
            Order::Run(args) => return run::run(self, args).await,
            Order::Tasks => {
                self.daemon().await?;
                show::print(self.json, &resolve::tasks(&self.client).await?, |tasks| show::tasks(tasks))?;
            }
            Order::Leases { open } => {
                self.daemon().await?;
                let mut leases = resolve::leases(&self.client).await?;
                leases.retain(|lease| !open || !lease.stage.is_over());
                show::print(self.json, &leases, |leases| show::leases(leases, clock::unix_ms()))?;
            }
            Order::Ssh(args) => return ssh::ssh(self, args).await,
            Order::Forward(args) => return forward::forward(self, args).await,
            Order::Pipe { lease, name } => return ssh::pipe(self, &lease, &name).await,
            Order::Ledger(args) => self.ledger(&args).await?,
            Order::Tx { txid } => match self.ask(Command::Transaction { txid }).await? {
                Reply::Transaction(transaction) => show::print(self.json, &*transaction, show::transaction)?,
                other => return Err(strange(&other)),
            },
            Order::Cancel { task } => {
                self.daemon().await?;
                let task = resolve::task(&self.client, &task).await?;
                let task = self.task(Command::Cancel { task }).await?;
                show::print(self.json, &task, |task| format!("task {} is taken back\n", task.task))?;
            }
            Order::Close { lease, no_wait } => self.close(&lease, no_wait).await?,
            Order::Renew(args) => self.renew(&args).await?,
            Order::Status => match self.client.command(&Command::Status {}).await? {
                Reply::Status(status) => show::print(self.json, &*status, |status| show::status(status, clock::unix_s()))?,
                other => return Err(strange(&other)),
            },
            Order::Events => self.events().await?,
            Order::Stop => self.stop().await?,
            Order::Bench(args) => return bench::bench(self, args).await,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Makes sure a daemon answers.
    async fn daemon(&self) -> Result<Daemon, Fail> {
        let progress = Progress::new(self.json);
        background::ensure(&self.settings, &self.client, &progress).await
    }

    /// Asks the daemon, starting it where needed.
    pub(crate) async fn ask(&self, command: Command) -> Result<Reply, Fail> {
        self.daemon().await?;
        Ok(self.client.command(&command).await?)
    }

    /// Asks for something that is answered with a task.
    pub async fn task(&self, command: Command) -> Result<TaskView, Fail> {
        match self.client.command(&command).await? {
            Reply::Task(task) => Ok(*task),
            other => Err(strange(&other)),
        }
    }

    async fn mine(&self, role: Option<Side>) -> Result<(), Fail> {
        let role = match role {
            Some(Side::Publisher) => Role::Publisher,
            Some(Side::Node) => Role::Node,
            None => noted_role(&self.data_dir)?.unwrap_or(Role::Publisher),
        };
        let progress = Progress::new(self.json);
        background::ensure(&self.settings, &self.client, &progress).await?;
        let mut events = self.client.events().await?;
        let mut identity = self.identity(Command::IdentityMine { role }, role).await?;
        while identity.id.is_none() {
            // An event tells how it goes; whether it is over, only the daemon's answer tells.
            let heard = tokio::time::timeout(Duration::from_secs(1), events.next()).await;
            match heard {
                Ok(Ok(Some(event))) => match &event.what {
                    What::Mining(view) if view.role == role => progress.event(&event),
                    _ => continue,
                },
                Ok(Ok(None)) => return Err(Fail::new("the daemon has stopped; mining goes on from here when it starts again")),
                Ok(Err(e)) => return Err(e.into()),
                Err(_) => {}
            }
            identity = self.identity(Command::IdentityShow {}, role).await?;
        }
        progress.done();
        show::print(self.json, &identity, show::identity)
    }

    async fn identity(&self, command: Command, role: Role) -> Result<IdentityView, Fail> {
        let reply = self.client.command(&command).await?;
        match reply {
            Reply::Identity(identity) => Ok(identity),
            Reply::Identities(ref all) => all.iter().find(|identity| identity.role == role).cloned().ok_or_else(|| strange(&reply)),
            other => Err(strange(&other)),
        }
    }

    async fn publish(&self, args: &PublishArgs) -> Result<(), Fail> {
        let Some(path) = args.file.as_deref().filter(|_| !args.example) else {
            return show::write(TaskFile::example());
        };
        let text = read_task_file(path)?;
        // The same check as the daemon's, so that a wrong file does not even start one.
        check_task_file(&path.display().to_string(), &text)?;
        let progress = Progress::new(self.json);
        background::ensure(&self.settings, &self.client, &progress).await?;
        if args.dry_run {
            let quote = fee::quote(self, &text).await?;
            progress.done();
            return show::print(self.json, &quote, fee::show);
        }
        let max_fee_sat = fee::agree(self, &text, &args.consent, &progress).await?;
        let task = self.announce(&text, max_fee_sat, &progress).await?;
        progress.done();
        show::print(self.json, &task, show::task)
    }

    /// Announces a task, showing the work that takes.
    pub async fn announce(&self, text: &str, max_fee_sat: Option<u64>, progress: &Progress) -> Result<TaskView, Fail> {
        let mut events = self.client.events().await?;
        let publish = self.task(Command::Publish { task_toml: text.to_string(), max_fee_sat });
        tokio::pin!(publish);
        loop {
            tokio::select! {
                task = &mut publish => return task,
                event = events.next() => match event {
                    Ok(Some(event)) => if matches!(event.what, What::Working { .. } | What::Mining(_)) {
                        progress.event(&event);
                    },
                    // The answer to the command says what is wrong.
                    Ok(None) | Err(_) => return publish.await,
                },
            }
        }
    }

    async fn ledger(&self, args: &LedgerArgs) -> Result<(), Fail> {
        self.daemon().await?;
        let lease = resolve::lease(&self.client, &args.lease).await?;
        let mut whole: Option<LedgerPage> = None;
        loop {
            let have = whole.as_ref().map_or(0, |page| page.entries.len() as u64);
            let want = args.limit.unwrap_or(u64::MAX).saturating_sub(have).min(u64::from(Command::MAX_LEDGER_PAGE));
            let from = args.from.saturating_add(have);
            let command = Command::Ledger { lease, from, limit: u32::try_from(want).unwrap_or(Command::MAX_LEDGER_PAGE) };
            let Reply::Ledger(page) = self.client.command(&command).await? else {
                return Err(Fail::new("the daemon answers something else than a ledger"));
            };
            let last = page.entries.is_empty() || want == 0;
            match &mut whole {
                Some(whole) => whole.entries.extend(page.entries),
                None => whole = Some(page),
            }
            if last {
                break;
            }
        }
        let page = whole.unwrap_or(LedgerPage { lease, from: args.from, total: 0, entries: Vec::new() });
        if page.total == 0 {
            // An empty ledger and a mistyped lease look alike.
            resolve::lease_view(&self.client, lease).await?;
        }
        show::print(self.json, &page, show::ledger)
    }

    async fn close(&self, lease: &str, no_wait: bool) -> Result<(), Fail> {
        self.daemon().await?;
        let lease = resolve::lease(&self.client, lease).await?;
        let progress = Progress::new(self.json);
        let Reply::Lease(view) = self.client.command(&Command::CloseLease { lease }).await? else {
            return Err(Fail::new("the daemon answers something else than a lease"));
        };
        let view = if no_wait { *view } else { self.settled(lease, &progress).await? };
        progress.done();
        show::print(self.json, &view, show::lease)
    }

    async fn renew(&self, args: &RenewArgs) -> Result<(), Fail> {
        self.daemon().await?;
        let lease = resolve::lease(&self.client, &args.lease).await?;
        let progress = Progress::new(self.json);
        let command = Command::Renew { lease, adds_s: args.adds_s, budget_sat: args.budget, go_on: args.keep_on };
        let Reply::Lease(view) = self.client.command(&command).await? else {
            return Err(Fail::new("the daemon answers something else than a lease"));
        };
        let mut view = *view;
        while !args.no_wait && view.renewal.as_ref().is_some_and(|renewal| renewal.funding_txid.is_none()) {
            let agreed = view.renewal.as_ref().is_some_and(|renewal| renewal.agreed);
            progress.doing(if agreed { "the node agrees; funding the new channel" } else { "asking the node for more time" });
            tokio::time::sleep(Duration::from_millis(300)).await;
            view = resolve::lease_view(&self.client, lease).await?;
        }
        progress.done();
        if let Some(why) = &view.not_renewed {
            return Err(Fail::new(format!("lease {lease} is not renewed: {}", show::tame(why)))
                .next("it goes on as agreed; `xennet leases` shows it"));
        }
        show::print(self.json, &view, show::lease)
    }

    /// Waits until nothing more will happen to a lease, or for some minutes; gives it as it is then.
    pub async fn settled(&self, lease: LeaseId, progress: &Progress) -> Result<LeaseView, Fail> {
        let until = tokio::time::Instant::now() + SETTLED_WITHIN;
        loop {
            let view = resolve::lease_view(&self.client, lease).await?;
            if view.stage.is_over() {
                return Ok(view);
            }
            if tokio::time::Instant::now() > until {
                progress.say(&format!("lease {lease} is {} still; the daemon goes on and settles it", view.stage.name()));
                return Ok(view);
            }
            progress.doing(&format!("lease {lease}: {}, waiting for the chain", view.stage.name()));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    async fn events(&self) -> Result<(), Fail> {
        let mut events = self.client.events().await?;
        while let Some(event) = events.next().await? {
            if self.json {
                let line = serde_json::to_string(&event).map_err(|e| Fail::new("an event has no JSON form").because(e))?;
                show::write(&format!("{line}\n"))?;
            } else if let Some(line) = show::describe(&event) {
                show::write(&format!("{} {line}\n", show::units::time(event.at_ms / 1000)))?;
            }
        }
        Ok(())
    }

    async fn stop(&self) -> Result<(), Fail> {
        match self.stop_daemon().await {
            Err(ClientError::NoDaemon { data_dir }) => {
                let text = format!("no daemon runs on {}\n", data_dir.display());
                show::print(self.json, &serde_json::json!({"stopped": false}), |_| text)
            }
            Err(error) => Err(error.into()),
            Ok(()) => show::print(self.json, &serde_json::json!({"stopped": true}), |_| "the daemon has stopped\n".into()),
        }
    }

    /// Tells the daemon to stop and waits until it has.
    pub async fn stop_daemon(&self) -> Result<(), ClientError> {
        match self.client.command(&Command::Stop {}).await {
            // It may be gone before its answer has left.
            Ok(_) | Err(ClientError::Broken(_)) => {}
            Err(error) => return Err(error),
        }
        while self.client.is_there().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// Whether the text of a task file of that name is one. Every problem is shown, with the file and the line first, as compilers do.
pub fn check_task_file(name: &str, text: &str) -> Result<(), Fail> {
    let Err(error) = TaskFile::parse(text) else { return Ok(()) };
    let problems: Vec<String> = error.problems.iter().map(|problem| format!("{name}, {problem}")).collect();
    Err(Fail::new(problems.join("\n")).next("correct the task file; `xennet publish --example` prints one that works"))
}

/// The text of a task file, or of stdin.
pub fn read_task_file(path: &Path) -> Result<String, Fail> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(path).map(|content| text = content)
    };
    read.map_err(|e| {
        Fail::new(format!("cannot read the task file {}", path.display()))
            .because(e)
            .next("`xennet publish --example > task.toml` writes one to begin with")
    })?;
    Ok(text)
}
