//! `xennetd`: a daemon for one side of the market.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use xennetd::config::ConfigArgs;
use xennetd::control::Role;

/// The Xennet daemon. `xennet` talks to it, and starts it where needed.
#[derive(Parser)]
#[command(version, after_help = "Example:\n  xennetd --role node --datadir ~/xennet-node")]
struct Program {
    /// Which side of the market this daemon takes
    #[arg(long, value_enum, default_value_t = Side::Publisher)]
    role: Side,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Side {
    /// Rents machines and pays
    Publisher,
    /// Runs machines and is paid
    Node,
}

fn main() -> ExitCode {
    if let Some(code) = xennetd::image::confined() {
        return code;
    }
    let program = Program::parse();
    let role = match program.role {
        Side::Publisher => Role::Publisher,
        Side::Node => Role::Node,
    };
    xennetd::program::run(&program.config, role)
}
