//! From a task to a login in a machine.

use tokio::time::{Instant, sleep, timeout};
use xennetd::control::{AnnouncementHash, Command, LeaseStage, LeaseView, Reply};
use xennetd::guest::Guest;

use super::plan::Source;
use super::{Announced, LOOK, Run};
use crate::fail::Fail;
use crate::fee;
use crate::resolve;
use crate::show::{short, tame};

/// How long a cut connection may take to come back. The lease itself ends earlier if its terms say so.
const BACK_WITHIN: std::time::Duration = std::time::Duration::from_secs(900);

impl Run<'_> {
    /// Announces the task, or finds it.
    pub(super) async fn find_task(&self) -> Result<AnnouncementHash, Fail> {
        let task = match &self.plan.task {
            Source::New { text } => {
                let max_fee_sat = fee::agree(self.context, text, &self.plan.consent, self.progress).await?;
                let task = self.context.task(Command::Publish { task_toml: text.clone(), max_fee_sat }).await?.task;
                self.task.set(Some((task, Announced::ByThisRun)));
                self.progress.say(&format!("task {} is announced", short(task)));
                task
            }
            Source::Announced { name } => {
                let task = resolve::task(&self.context.client, name).await?;
                self.task.set(Some((task, Announced::Before)));
                task
            }
        };
        self.progress.doing("waiting for a node to take the task");
        Ok(task)
    }

    /// Waits for a lease of the task and until its machine is ours. A lease that comes to nothing makes way for the next.
    pub(super) async fn rent(&self, task: AnnouncementHash) -> Result<LeaseView, Fail> {
        let found = timeout(self.plan.wait, async {
            loop {
                let Reply::Lease(view) = self.context.client.command(&Command::Rent { task }).await? else {
                    return Err(Fail::new("the daemon answers something else than a lease"));
                };
                self.lease.set(Some(view.lease));
                let view = self.until_live_or_over(*view).await?;
                if view.stage == LeaseStage::Live {
                    return Ok(view);
                }
                let reasons = tame(&view.reasons.join("; "));
                self.progress.say(&format!("lease {} came to nothing: {}: {reasons}", view.lease, view.stage.name()));
                self.lease.set(None);
                self.progress.doing("waiting for another node to take the task");
            }
        });
        found.await.unwrap_or_else(|_| {
            Err(Fail::new(format!("no machine within {} s: {}", self.plan.wait.as_secs(), self.how_far())).next(
                "a node says in `xennet tasks` why it does not take a task; `xennet node run` starts one of your own; --wait waits longer",
            ))
        })
    }

    fn how_far(&self) -> String {
        match self.lease.get() {
            None => "no node has taken the task".into(),
            Some(lease) => format!("lease {lease} was not ready"),
        }
    }

    async fn until_live_or_over(&self, mut view: LeaseView) -> Result<LeaseView, Fail> {
        while view.stage != LeaseStage::Live && !view.stage.is_over() {
            sleep(LOOK).await;
            view = resolve::lease_view(&self.context.client, view.lease).await?;
        }
        Ok(view)
    }

    /// Logs in, waiting for a cut tunnel to come back.
    pub(super) async fn enter(&self, lease: &LeaseView) -> Result<Guest, Fail> {
        let until = Instant::now() + BACK_WITHIN;
        loop {
            match Guest::connect(&self.context.client, &self.context.data_dir, lease).await {
                Ok(guest) => return Ok(guest),
                Err(error) if !error.is_passing() || Instant::now() > until => return Err(error.into()),
                Err(_) => {}
            }
            let now = resolve::lease_view(&self.context.client, lease.lease).await?;
            if !matches!(now.stage, LeaseStage::Live | LeaseStage::Interrupted) {
                let reasons = tame(&now.reasons.join("; "));
                return Err(Fail::new(format!("lease {} is {}: {reasons}", now.lease, now.stage.name()))
                    .next(format!("`xennet ledger {}` shows what was paid", now.lease)));
            }
            self.progress.doing("waiting for the connection into the machine");
            sleep(LOOK).await;
        }
    }
}
