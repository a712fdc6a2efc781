//! `xennet run`: rent a machine, send files, run a command, bring back its output and files, settle.

mod machine;
mod plan;

use std::cell::Cell;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use xennetd::control::{AnnouncementHash, Command, Events, LeaseId, LeaseView, What};
use xennetd::guest::{Guest, GuestError, Job, Stream};

use crate::background::{self, Daemon};
use crate::cli::RunArgs;
use crate::commands::Context;
use crate::fail::Fail;
use crate::progress::Progress;
use crate::show::units;
use plan::{After, Plan};

/// What xennet's own failures end with, as docker's do: a job can hardly be mistaken for it.
const OWN_FAILURE: u8 = 125;

/// One run, and what it has set going.
struct Run<'a> {
    context: &'a Context,
    progress: &'a Progress,
    plan: Plan,
    /// The task, and whether this run announced it.
    task: Cell<Option<(AnnouncementHash, Announced)>>,
    lease: Cell<Option<LeaseId>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Announced {
    ByThisRun,
    Before,
}

/// Runs; gives the job's exit code.
pub async fn run(context: &Context, args: RunArgs) -> Result<ExitCode, Fail> {
    let progress = Progress::new(context.json);
    let code = whole(context, &progress, args).await.map_err(|fail| fail.code(OWN_FAILURE));
    progress.done();
    code
}

async fn whole(context: &Context, progress: &Progress, args: RunArgs) -> Result<ExitCode, Fail> {
    let plan = Plan::check(args)?;
    let daemon = background::ensure(&context.settings, &context.client, progress).await?;
    let events = context.client.events().await?;
    let run = Run { context, progress, plan, task: Cell::new(None), lease: Cell::new(None) };
    let mut outcome = tokio::select! {
        code = run.job() => code,
        () = run.show(events) => Err(Fail::new("the daemon has stopped; the lease goes on when it starts again")),
        signal = interrupted() => {
            progress.say("stopped; ending the lease (once more to leave that to the daemon)");
            Ok(signal)
        }
    };
    let settled = tokio::select! {
        settled = run.tidy() => settled,
        _ = interrupted() => {
            progress.say("left to the daemon, which settles by itself");
            Ok(Settled::NotYet)
        }
    };
    match settled {
        Ok(Settled::Yes) if daemon == Daemon::Started => context.stop_daemon().await?,
        Ok(Settled::NotYet) if daemon == Daemon::Started => {
            progress.say("the daemon goes on in the background; `xennet stop` ends it");
        }
        Ok(_) => {}
        // What went wrong first is what is shown.
        Err(fail) => outcome = outcome.and(Err(fail)),
    }
    outcome.map(ExitCode::from)
}

/// Whether anything is left for the daemon to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    Yes,
    NotYet,
}

impl Run<'_> {
    /// Everything from the task to the files that come back; gives the job's exit code.
    async fn job(&self) -> Result<u8, Fail> {
        let task = self.find_task().await?;
        let lease = self.rent(task).await?;
        let mut guest = self.enter(&lease).await?;
        if !self.plan.send.is_empty() {
            let sent = guest.send(self.plan.send.clone(), |sent| self.progress.doing(&format!("sending files: {}", units::bytes(sent))));
            let sent = sent.await?;
            self.progress.say(&format!("sent {}", units::bytes(sent)));
        }
        let mut job = Job::new(&self.plan.command);
        let mut started = false;
        let code = loop {
            let step = async {
                if !started {
                    job.start(&guest).await?;
                    started = true;
                    self.progress.say("the job runs");
                }
                job.follow(&guest, |stream, bytes| self.pass_on(stream, bytes)).await
            };
            match step.await {
                Ok(code) => break code,
                Err(error) if error.is_passing() => {
                    self.progress.say("the connection is cut; the job goes on, and so does this when the node is back");
                    guest = self.enter(&lease).await?;
                }
                Err(error) => return Err(error.into()),
            }
        };
        self.progress.say(&format!("the job ended with exit code {code}"));
        self.fetch(&lease, guest, code).await?;
        Ok(code)
    }

    async fn fetch(&self, lease: &LeaseView, mut guest: Guest, code: u8) -> Result<(), Fail> {
        if self.plan.fetch.is_empty() {
            return Ok(());
        }
        // A job cannot have made more than its machine can hold.
        let limit = u64::from(lease.disk_mib) + u64::from(lease.memory_mib) + u64::from(lease.persistent_mib) + 64;
        loop {
            let shown = |received| self.progress.doing(&format!("fetching files: {}", units::bytes(received)));
            match guest.fetch(self.plan.fetch.clone(), limit.saturating_mul(1 << 20), shown).await {
                Ok(received) => {
                    self.progress.say(&format!("fetched {}", units::bytes(received)));
                    return Ok(());
                }
                Err(error) if error.is_passing() => guest = self.enter(lease).await?,
                // A job that failed may not have made its files: its own code says more than ours.
                Err(error @ GuestError::Command { .. }) if code != 0 => {
                    self.progress.say(&format!("not all files could be fetched: {}", Fail::from(error).message()));
                    return Ok(());
                }
                Err(error) => return Err(Fail::from(error).next("the files that were fetched before this one are here")),
            }
        }
    }

    /// What the job writes, written here.
    fn pass_on(&self, stream: Stream, bytes: &[u8]) {
        self.progress.aside(|| {
            // A reader that has gone away does not end the job.
            let _ = match stream {
                Stream::Stdout => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
                Stream::Stderr => std::io::stderr().write_all(bytes),
            };
        });
    }

    /// Shows what the daemon tells about this run, until the daemon stops.
    async fn show(&self, mut events: Events) {
        while let Ok(Some(event)) = events.next().await {
            let ours = match (&event.what, event.what.lease()) {
                (What::Lease { task, .. } | What::Task { task, .. }, _) => self.task.get().is_some_and(|(own, _)| own == *task),
                (_, Some(lease)) => self.lease.get() == Some(lease),
                (What::Tip { .. }, None) => false,
                (_, None) => true,
            };
            if ours {
                self.progress.event(&event);
            }
        }
    }

    /// Ends what this run has set going: its task, its lease. Says what it has cost.
    async fn tidy(&self) -> Result<Settled, Fail> {
        if let Some((task, Announced::ByThisRun)) = self.task.get() {
            // A task that is filled or expired needs no taking back.
            let _ = self.context.task(Command::Cancel { task }).await;
        }
        let Some(lease) = self.lease.get() else { return Ok(Settled::Yes) };
        if self.plan.after == After::Keep {
            self.progress.say(&format!("lease {lease} stays open: `xennet ssh {lease}` gets in, `xennet close {lease}` ends it"));
            return Ok(Settled::NotYet);
        }
        self.context.client.command(&Command::CloseLease { lease }).await?;
        let view = self.context.settled(lease, self.progress).await?;
        self.account(&view);
        Ok(if view.stage.is_over() { Settled::Yes } else { Settled::NotYet })
    }

    fn account(&self, view: &LeaseView) {
        let lease = view.lease;
        let totals = view.totals.unwrap_or_default();
        let fee = totals.close_reserve_sat.min(totals.total_sat);
        let paid = format!(
            "{} for use and {} towards the closing fee in {} payments",
            units::sat(totals.total_sat - fee),
            units::sat(fee),
            totals.payments
        );
        let by = view.close_txid.as_deref().map(|txid| format!(" by {txid}")).unwrap_or_default();
        self.progress.say(&format!("lease {lease}: {}, paid {paid}{by}; `xennet ledger {lease}` shows each", view.stage.name()));
        if self.context.json {
            eprintln!("{}", serde_json::json!({"event": "done", "lease": view}));
        }
    }
}

/// Waits for Ctrl-C or SIGTERM; gives the exit code that goes with it.
async fn interrupted() -> u8 {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        // Without handlers the signals end this process at once, which the daemon survives.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
    }
}

/// Time between two looks at a lease.
const LOOK: Duration = Duration::from_millis(250);
