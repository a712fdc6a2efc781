//! `cargo xtask model`: the channel, explored over everything that can happen within a budget.

use std::process::Command;

use anyhow::{Context, bail};

/// Explores; the test's own output says how far, and what breaks where.
pub fn run() -> anyhow::Result<()> {
    let status = Command::new(env!("CARGO"))
        .args(["test", "--locked", "--release", "--quiet", "--workspace", "--test", "model"])
        .args(["--", "--nocapture", "--test-threads=1"])
        .env("XENNET_MODEL", "full")
        .status()
        .context("cargo cannot be run")?;
    if !status.success() {
        bail!("the exploration found something");
    }
    Ok(())
}
