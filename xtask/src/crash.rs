//! `cargo xtask crash`: a process dies at every numbered step of a lease, and nothing is lost.

use std::process::Command;

use anyhow::{Context, bail};

/// How much of the programme is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Every step, both sides in this process: a minute.
    Steps,
    /// Whole daemons as well, with guests: some 25 minutes.
    Processes,
}

/// Runs it; its own output says what was tried.
pub fn run(part: Part, json: bool) -> anyhow::Result<()> {
    let mut steps = cargo_test("crash");
    steps.args(["--", "--nocapture", "--test-threads=1"]).env("XENNET_CRASH", "full");
    if json {
        steps.args(["whatever_dies"]).env("XENNET_CRASH_OUTPUT", "json");
    }
    succeed(steps, "the crash programme")?;
    if part == Part::Processes {
        let mut processes = cargo_test("lease");
        processes.args(["--", "--nocapture", "crashes::"]).env("XENNET_CRASH_PROCESSES", "all");
        succeed(processes, "the crash programme with whole daemons")?;
    }
    Ok(())
}

fn cargo_test(test: &str) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--locked", "--release", "--quiet", "--workspace", "--test", test]);
    command
}

fn succeed(mut command: Command, what: &str) -> anyhow::Result<()> {
    if !command.status().context("cargo cannot be run")?.success() {
        bail!("{what} found something");
    }
    Ok(())
}
