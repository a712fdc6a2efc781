//! Starting the daemon in the background when nobody else has.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use xennetd::config::{Config, ConfigArgs, PASSPHRASE_VARIABLE, noted_role};
use xennetd::control::{Client, Command, Role};
use xennetd::wallet::{self, Kept, Passphrase, Wallet};

use crate::fail::{Fail, chain};
use crate::progress::Progress;

/// How long a daemon may take until it answers: it opens its chain, which checks every block.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Whose the daemon is that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    /// It ran already.
    Found,
    /// This command started it.
    Started,
}

/// Makes sure that a daemon answers, starting one for a publisher if none does, and says so.
pub async fn ensure(settings: &ConfigArgs, client: &Client, progress: &Progress) -> Result<Daemon, Fail> {
    if client.is_there().await {
        return Ok(Daemon::Found);
    }
    let data_dir = settings.data_dir()?;
    if noted_role(&data_dir)? == Some(Role::Node) {
        return Err(Fail::new(format!("no node runs on {}", data_dir.display()))
            .next(format!("start it: `xennet --datadir {} node run`", data_dir.display())));
    }
    let program = program()?;
    let (mut log, log_path) = open_log(&data_dir)?;
    let begin = log.seek(SeekFrom::End(0)).map_err(|e| cannot_log(&log_path, e))?;
    let mut command = std::process::Command::new(&program);
    let passphrase = passphrase(settings)?;
    command.args(flags(settings, &data_dir)?).stdout(Stdio::null());
    match &passphrase {
        // A pipe has no name that others could open, and what was in it is gone once it is read.
        Some(_) => command.stdin(Stdio::piped()).env(PASSPHRASE_VARIABLE, "/dev/stdin"),
        None => command.stdin(Stdio::null()),
    };
    command.stderr(log.try_clone().map_err(|e| cannot_log(&log_path, e))?);
    // In a process group of its own, Ctrl-C here does not end it in the middle of a lease.
    command.process_group(0);
    let mut child = command.spawn().map_err(|e| Fail::new(format!("cannot start {}", program.display())).because(e))?;
    if let (Some(passphrase), Some(mut stdin)) = (passphrase, child.stdin.take()) {
        // A daemon that does not read it ends, and says why.
        let _ = passphrase.write_line(&mut stdin);
    }
    progress.doing("starting the daemon");
    wait_until_ready(client, &mut child).await.map_err(|why| {
        let said = last_words(&mut log, begin);
        let said = if said.is_empty() { why } else { said };
        Fail::new(format!("the daemon did not start: {said}")).next(format!("the whole story is in {}", log_path.display()))
    })?;
    progress.say(&format!("no daemon ran, so one was started (pid {}, log {})", child.id(), log_path.display()));
    Ok(Daemon::Started)
}

/// The passphrase that the daemon will ask for and cannot, for it has no terminal.
fn passphrase(settings: &ConfigArgs) -> Result<Option<Passphrase>, Fail> {
    let config = Config::load(settings, Role::Publisher)?;
    if config.wallet.passphrase_file.is_some() || Wallet::kept(&config.data_dir) != Kept::Encrypted {
        return Ok(None);
    }
    wallet::ask("passphrase of the wallet: ").map_err(|why| Fail::new(format!("{why:#}")))
}

/// The flags to start the daemon with: those given, else those of last time. A lease's node dials the address it was told, and a
/// wallet is on its chain, so a daemon that is started again by `xennet leases` must be the one that was started by `xennet run`.
fn flags(settings: &ConfigArgs, data_dir: &Path) -> Result<Vec<OsString>, Fail> {
    let path = data_dir.join("flags");
    let given = settings.to_args()?;
    let place = ConfigArgs { datadir: Some(data_dir.to_path_buf()), ..ConfigArgs::default() }.to_args()?;
    if given == place {
        let kept = fs::read(&path).unwrap_or_default();
        let kept = kept.split(|byte| *byte == 0).filter(|flag| !flag.is_empty());
        return Ok(place.into_iter().chain(kept.map(|flag| OsString::from_vec(flag.to_vec()))).collect());
    }
    // An argument holds no zero byte, so zeros can stand between them.
    let others: Vec<&[u8]> = given.iter().skip(place.len()).map(|flag| flag.as_bytes()).collect();
    fs::write(&path, others.join(&0)).map_err(|e| Fail::new(format!("cannot write {}", path.display())).because(e))?;
    Ok(given)
}

async fn wait_until_ready(client: &Client, child: &mut Child) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        // A socket that can be connected to is not enough: the daemon may yet fail to open its ports. One that answers runs.
        let left = READY_WITHIN.saturating_sub(begun.elapsed());
        if let Ok(Ok(_)) = tokio::time::timeout(left, client.command(&Command::Status {})).await {
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("it ended with {status}"));
        }
        if begun.elapsed() > READY_WITHIN {
            // Not ours to keep: it would go on holding the data directory with nobody knowing.
            let _ = child.kill();
            return Err(format!("it did not answer within {} s", READY_WITHIN.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// `xennetd` beside this program.
pub fn program() -> Result<PathBuf, Fail> {
    let own = std::env::current_exe().map_err(|e| Fail::new("this program cannot find itself").because(e))?;
    let beside = own.with_file_name("xennetd");
    if beside.is_file() {
        return Ok(beside);
    }
    Err(Fail::new(format!("there is no daemon program {}", beside.display()))
        .next("build or install both: `cargo build --release -p xennet -p xennetd`"))
}

fn open_log(data_dir: &Path) -> Result<(File, PathBuf), Fail> {
    let path = data_dir.join("xennetd.log");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|e| Fail::new(format!("cannot create the data directory {}", data_dir.display())).because(e))?;
    let log = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(&path);
    Ok((log.map_err(|e| cannot_log(&path, e))?, path))
}

fn cannot_log(path: &Path, error: std::io::Error) -> Fail {
    Fail::new(format!("cannot write the daemon's log {}: {}", path.display(), chain(&error)))
}

/// The last line the daemon wrote before it ended: `xennetd: …`, its error.
fn last_words(log: &mut File, begin: u64) -> String {
    let mut text = String::new();
    let read = log.seek(SeekFrom::Start(begin)).and_then(|_| log.take(64 * 1024).read_to_string(&mut text));
    let error = text.lines().rev().find_map(|line| line.strip_prefix("xennetd: "));
    match (read, error) {
        (Ok(_), Some(error)) => error.to_string(),
        (Ok(_), None) => text.lines().last().unwrap_or_default().to_string(),
        (Err(_), _) => String::new(),
    }
}
