//! From publish to the first shell prompt, on two real daemons: how long, and where the time goes.

mod pair;
mod steps;

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use xennet_task::{LeaseId, TaskFile};
use xennet_tunnel::{ExecEvent, GuestSsh};

use super::report::{Figure, Section, Unit};
use super::{BenchError, DaemonCommand};
use crate::clock;
use crate::control::{Client, Command, Event, GUEST_SSH, LeaseStage, Reply, What};
use crate::keys::Keys;
use pair::Pair;
use steps::{Milestone, Side, split};

/// How long a daemon may take to open its chain, mine its identity and, as a node, make its image and measure itself.
const READY_WITHIN: Duration = Duration::from_secs(15 * 60);
/// How long everything may take from publish to the lease being live.
const LIVE_WITHIN: Duration = Duration::from_secs(300);
/// How long a shell may take to say something.
const PROMPT_WITHIN: Duration = Duration::from_secs(60);
/// How long settling may take.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// How often it is tried: on a machine that others use as well, a node may measure itself in a quiet moment and then rightly
/// refuse what the publisher measures in a busy one.
const TRIES: u32 = 3;
/// Events that may wait while this program does something else.
const WAITING: usize = 4096;

pub(super) async fn run(command: &DaemonCommand, dir: &Path, section: &mut Section, tell: &mut impl FnMut(&str)) -> Result<(), BenchError> {
    let dir = dir.join("lease");
    crate::store::create_private_dir(&dir)?;
    let mut pair = Pair::start(command, &dir)?;
    let done = measure(&mut pair, section, tell).await;
    pair.stop().await;
    done
}

async fn measure(pair: &mut Pair, section: &mut Section, tell: &mut impl FnMut(&str)) -> Result<(), BenchError> {
    tell("starting a publisher and a node; their identities and the guest image come first and are not counted");
    let mined = |status: &crate::control::StatusView| status.identity.id.is_some() && status.overlay_peers > 0;
    pair.publisher.until(READY_WITHIN, mined, "was not ready").await?;
    let sells = |status: &crate::control::StatusView| mined(status) && status.accelerator.is_some();
    let node = pair.node.until(READY_WITHIN, sells, "was not ready").await?;

    let (to, mut events) = mpsc::channel(WAITING);
    let _ears = [listen(&pair.publisher.client, Side::Publisher, to.clone()).await?, listen(&pair.node.client, Side::Node, to).await?];
    let mut tries = 0;
    let (begun_ms, lease, mut told) = loop {
        tries += 1;
        tell("publishing");
        let begun_ms = clock::unix_ms();
        let publish = Command::Publish { task_toml: TaskFile::example().to_owned(), max_fee_sat: None };
        let published = pair.publisher.client.command(&publish).await?;
        let mut told = Vec::new();
        match live(pair, &mut events, begun_ms, &mut told).await? {
            Ok(lease) => break (begun_ms, lease, told),
            Err(why) if tries == TRIES => return Err(BenchError::Lease { tries, why }),
            Err(why) => section.notes.push(format!("Not counted, a lease that ended before it was live: {why}")),
        }
        if let Reply::Task(task) = published {
            pair.publisher.client.command(&Command::Cancel { task: task.task }).await?;
        }
    };
    tell("live; logging in");
    told.extend(prompt(pair, lease).await?);

    let ended_ms = told.last().map_or(begun_ms, |(at_ms, _)| *at_ms);
    section.figures.push(Figure::new("publish to first shell prompt", Unit::Seconds, ended_ms.saturating_sub(begun_ms) as f64 / 1e3));
    for (step, ms) in split(begun_ms, &told) {
        section.figures.push(Figure::new(format!("· {step}"), Unit::Milliseconds, ms as f64));
    }
    tell("closing");
    let begun = Instant::now();
    pair.publisher.client.command(&Command::CloseLease { lease }).await?;
    settled(pair, &mut events, lease).await?;
    section.figures.push(Figure::new("close to settled on chain", Unit::Seconds, begun.elapsed().as_secs_f64()));
    section.notes.push(format!(
        "The task is that of `xennet publish --example`; guests run under {}; a block each second while transactions wait. Both \
         identities were mined and the image was there.",
        node.accelerator.unwrap_or_default()
    ));
    Ok(())
}

/// Passes on what one daemon tells.
async fn listen(client: &Client, side: Side, to: mpsc::Sender<(Side, Event)>) -> Result<AbortOnDropHandle<()>, BenchError> {
    let mut events = client.events().await?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok(Some(event)) = events.next().await {
            if to.send((side, event)).await.is_err() {
                return;
            }
        }
    })))
}

/// Waits until a lease is live for the publisher, noting what is told on the way. If it ends instead: the reason.
async fn live(
    pair: &Pair,
    events: &mut mpsc::Receiver<(Side, Event)>,
    begun_ms: u64,
    told: &mut Vec<(u64, Milestone)>,
) -> Result<Result<LeaseId, String>, BenchError> {
    let deadline = Instant::now() + LIVE_WITHIN;
    loop {
        let Ok(Some((side, event))) = timeout_at(deadline, events.recv()).await else {
            return Err(pair.node.failed("did not bring the lease to life", LIVE_WITHIN));
        };
        if event.at_ms < begun_ms {
            // About an earlier try.
            continue;
        }
        if let Some(milestone) = Milestone::of(side, &event.what) {
            told.push((event.at_ms, milestone));
        }
        if let (Side::Publisher, What::Lease { lease, stage, note, .. }) = (side, &event.what) {
            match stage {
                LeaseStage::Live => return Ok(Ok(*lease)),
                stage if stage.is_over() => return Ok(Err(format!("{}: {note}", stage.name()))),
                _ => {}
            }
        }
    }
}

/// Logs in to the guest and waits for what an interactive shell says first.
async fn prompt(pair: &Pair, lease: LeaseId) -> Result<[(u64, Milestone); 2], BenchError> {
    let keys = Keys::open(&pair.publisher.dir)?;
    let pipe = pair.publisher.client.pipe(&lease, GUEST_SSH).await?;
    let (guest, _) = GuestSsh::connect(pipe, "root", keys.ssh_guest_seed(), None).await?;
    let logged_in_ms = clock::unix_ms();
    let mut shell = guest.exec("exec sh -i").await?;
    loop {
        match timeout(PROMPT_WITHIN, shell.output.next()).await {
            Ok(Some(ExecEvent::Stdout(said) | ExecEvent::Stderr(said))) if said.ends_with(b"# ") => break,
            Ok(Some(ExecEvent::Stdout(_) | ExecEvent::Stderr(_))) => {}
            _ => return Err(pair.publisher.failed("led to a guest whose shell gave no prompt", PROMPT_WITHIN)),
        }
    }
    Ok([(logged_in_ms, Milestone::LoggedIn), (clock::unix_ms(), Milestone::Prompt)])
}

async fn settled(pair: &Pair, events: &mut mpsc::Receiver<(Side, Event)>, wanted: LeaseId) -> Result<(), BenchError> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    while let Ok(Some((side, event))) = timeout_at(deadline, events.recv()).await {
        if let (Side::Publisher, What::Settled { lease, .. }) = (side, &event.what)
            && *lease == wanted
        {
            return Ok(());
        }
    }
    Err(pair.publisher.failed("did not see the lease settled", SETTLED_WITHIN))
}

/// Ends guests that a daemon left running.
pub(super) async fn tidy(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir.join("lease/node/vm")) else { return };
    for entry in entries.flatten() {
        // The folder is deleted in any case.
        let _ = xennet_vm::Vm::discard(&entry.path()).await;
    }
}
