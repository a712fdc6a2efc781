//! The stock `ssh` into a leased machine, and the pipe it goes through.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command as Program, ExitCode};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use xennetd::control::{Client, LeaseId, LeaseStage, Pipe};
use xennetd::guest::stock_ssh;

use crate::background;
use crate::cli::SshArgs;
use crate::commands::Context;
use crate::fail::Fail;
use crate::progress::Progress;
use crate::{resolve, show};

/// Bytes at a time between stdin, pipe and stdout.
const BUFFER: usize = 64 * 1024;

/// Becomes `ssh`, or prints how to call it.
pub async fn ssh(context: &Context, args: SshArgs) -> Result<ExitCode, Fail> {
    background::ensure(&context.settings, &context.client, &Progress::new(context.json)).await?;
    let lease = resolve::lease(&context.client, &args.lease).await?;
    let view = resolve::lease_view(&context.client, lease).await?;
    if !matches!(view.stage, LeaseStage::Live | LeaseStage::Interrupted) {
        return Err(Fail::new(format!("lease {lease} is {}: only a live lease has a machine to log in to", view.stage.name()))
            .next("`xennet leases` shows how far each lease is"));
    }
    let own = std::env::current_exe().map_err(|e| Fail::new("this program cannot find itself").because(e))?;
    let config = stock_ssh(&context.data_dir, &own, &resolve::leases(&context.client).await?)?;
    if args.print {
        let shell = format!("ssh -F {} {lease}", quoted(&config.display().to_string()));
        let copy = format!("scp -F {} FILE {lease}:/data/", quoted(&config.display().to_string()));
        let answer = serde_json::json!({"ssh": shell, "scp": copy, "config": config});
        show::print(context.json, &answer, |_| format!("{shell}\n{copy}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut ssh = Program::new("ssh");
    ssh.arg("-F").arg(&config).arg(lease.to_string());
    if !args.command.is_empty() {
        // ssh joins its words with spaces and gives them to a shell over there; quoted, they arrive as they were typed here.
        let words: Vec<String> = args.command.iter().map(|word| quoted(word)).collect();
        ssh.arg("--").arg(words.join(" "));
    }
    // Only returns if there is no ssh.
    let error = ssh.exec();
    Err(Fail::new("cannot start ssh")
        .because(error)
        .next("install it (apt-get install openssh-client), or use `xennet run`, which needs none"))
}

/// Joins stdin and stdout to a pipe of a lease.
pub async fn pipe(context: &Context, lease: &str, name: &str) -> Result<ExitCode, Fail> {
    let lease = resolve::lease(&context.client, lease).await?;
    let pipe = open(&context.client, &lease, name).await?;
    let (mut from, mut to) = tokio::io::split(pipe);
    let (pieces, mut typed) = mpsc::channel(4);
    // A read from stdin cannot be called off when the other end hangs up, so nobody waits for this thread.
    std::thread::spawn(move || {
        let mut buffer = vec![0; BUFFER];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut buffer) {
            if pieces.blocking_send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some(piece) = typed.recv().await {
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // The other end hears that no more comes, and may still say something.
        let _ = to.shutdown().await;
    });
    let mut stdout = std::io::stdout();
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return Ok(ExitCode::SUCCESS),
            Ok(count) => {
                let written = tokio::task::block_in_place(|| stdout.write_all(&buffer[..count]).and_then(|()| stdout.flush()));
                if written.is_err() {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            Err(e) => return Err(Fail::new(format!("the pipe {name} of lease {lease} broke")).because(e)),
        }
    }
}

async fn open(client: &Client, lease: &LeaseId, name: &str) -> Result<Pipe, Fail> {
    Ok(client.pipe(lease, name).await?)
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_string();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
