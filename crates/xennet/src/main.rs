//! `xennet`: the command line. It decides nothing; it asks the daemon and shows what it says.

mod background;
mod bench;
mod cli;
mod commands;
mod fail;
mod fee;
mod forward;
mod image;
mod numbers;
mod pay;
mod progress;
mod resolve;
mod run;
mod show;
mod ssh;
mod wallet;

use std::process::ExitCode;

use clap::Parser;
use xennetd::control::Role;

use cli::{Cli, NodeOrder, Order};
use commands::Context;
use fail::Fail;

fn main() -> ExitCode {
    if let Some(code) = xennetd::image::confined() {
        return code;
    }
    let cli = Cli::parse();
    if let Order::Node { order: NodeOrder::Run } = cli.order {
        return xennetd::program::run(&cli.settings, Role::Node);
    }
    let json = cli.json;
    match start(cli) {
        Ok(code) => code,
        Err(fail) => fail.show(json),
    }
}

fn start(cli: Cli) -> Result<ExitCode, Fail> {
    let context = Context::new(&cli)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| Fail::new("no threads can be started").because(e))?;
    let outcome = runtime.block_on(context.carry_out(cli.order));
    // A read from stdin cannot be called off; nobody waits for it.
    runtime.shutdown_background();
    outcome
}
