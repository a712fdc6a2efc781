//! A daemon as a program: configuration, log, runtime, loop. `xennetd` and `xennet node run` are this with their own flags.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use xennet_identity::Role;

use crate::config::{Config, ConfigArgs, claim};
use crate::{daemon, store};

/// Runs a daemon in this process until it is told to stop; errors go to stderr in one line each, with their causes.
pub fn run(args: &ConfigArgs, role: Role) -> ExitCode {
    match try_run(args, role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // It may be a full disk that stderr is on.
            let _ = writeln!(std::io::stderr(), "xennetd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(args: &ConfigArgs, role: Role) -> anyhow::Result<()> {
    let config = Config::load(args, role)?;
    store::create_private_dir(&config.data_dir)?;
    claim(&config)?;
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log).context("the log filter cannot be read")?;
    // What cannot be logged is not complained of there either: where the log is on a full disk, that would be a panic.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(is_terminal());
    log.log_internal_errors(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads can be started")?;
    let dir = config.data_dir.clone();
    runtime.block_on(daemon::run(config, || {
        tracing::info!(version = env!("CARGO_PKG_VERSION"), %role, data_dir = %dir.display(), "ready");
    }))
}

fn is_terminal() -> bool {
    use std::io::IsTerminal;
    std::io::stderr().is_terminal()
}
