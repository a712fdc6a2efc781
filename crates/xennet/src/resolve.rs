//! From what a person types to a lease or a task: a whole name, or the beginning of one that fits only one.

use xennetd::control::{AnnouncementHash, Client, Command, LeaseId, LeaseView, Reply, TaskView};

use crate::fail::Fail;

/// The lease that `text` names.
pub async fn lease(client: &Client, text: &str) -> Result<LeaseId, Fail> {
    if let Ok(lease) = text.parse() {
        return Ok(lease);
    }
    one_of(leases(client).await?.into_iter().map(|lease| lease.lease), text, "lease")
}

/// The task that `text` names.
pub async fn task(client: &Client, text: &str) -> Result<AnnouncementHash, Fail> {
    if let Ok(task) = text.parse() {
        return Ok(task);
    }
    one_of(tasks(client).await?.into_iter().map(|task| task.task), text, "task")
}

/// All leases.
pub async fn leases(client: &Client) -> Result<Vec<LeaseView>, Fail> {
    match client.command(&Command::Leases {}).await? {
        Reply::Leases(leases) => Ok(leases),
        other => Err(strange(&other)),
    }
}

/// All tasks.
pub async fn tasks(client: &Client) -> Result<Vec<TaskView>, Fail> {
    match client.command(&Command::Tasks {}).await? {
        Reply::Tasks(tasks) => Ok(tasks),
        other => Err(strange(&other)),
    }
}

/// One lease, as it is now.
pub async fn lease_view(client: &Client, lease: LeaseId) -> Result<LeaseView, Fail> {
    match client.command(&Command::Lease { lease }).await? {
        Reply::Lease(lease) => Ok(*lease),
        other => Err(strange(&other)),
    }
}

/// A reply that does not belong to the command.
pub fn strange(reply: &Reply) -> Fail {
    Fail::new(format!("the daemon answers {reply:?}, which was not asked for"))
        .next("use xennet and xennetd of one version: `xennet stop` ends the old daemon")
}

fn one_of<T: ToString>(all: impl Iterator<Item = T>, text: &str, what: &str) -> Result<T, Fail> {
    let wanted = text.to_ascii_lowercase();
    let mut fitting: Vec<T> = all.filter(|name| !wanted.is_empty() && name.to_string().starts_with(&wanted)).collect();
    match fitting.len() {
        1 => Ok(fitting.remove(0)),
        0 => Err(Fail::new(format!("there is no {what} {text}")).next(format!("`xennet {what}s` lists them"))),
        count => {
            let names: Vec<String> = fitting.iter().take(5).map(ToString::to_string).collect();
            Err(Fail::new(format!("{text} is the beginning of {count} {what}s: {}", names.join(", "))).next("give more of its digits"))
        }
    }
}
