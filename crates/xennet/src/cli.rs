//! The grammar of the command line.

mod image;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use xennetd::config::ConfigArgs;

use crate::fee::Consent;
use crate::forward::ForwardArgs;
use crate::numbers;

pub use image::{AddArgs, ImageOrder, PruneArgs};

/// Rent virtual machines from anybody, or rent out your own, and pay by the second in bitcoin.
#[derive(Debug, Parser)]
#[command(
    name = "xennet",
    version,
    propagate_version = true,
    after_help = "Examples:\n  \
        xennet node run                                 sell: take tasks and run their machines\n  \
        xennet run --in data.csv --out sum.txt -- sh -c 'sort data.csv > sum.txt'\n  \
        xennet leases                                   what runs, and what it has cost so far\n\n\
        Exit codes: 0 done, 1 not done, 2 wrong usage; `run` exits with the job's own code, or 125 if xennet failed."
)]
pub struct Cli {
    /// Print JSON instead of tables and sentences
    #[arg(long, global = true)]
    pub json: bool,
    /// Settings that the daemon is started with.
    #[command(flatten)]
    pub settings: ConfigArgs,
    /// What to do.
    #[command(subcommand)]
    pub order: Order,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Order {
    /// Identities: the proof of work that others ask of whoever speaks on the network
    Identity {
        /// What about them.
        #[command(subcommand)]
        order: IdentityOrder,
    },
    /// The bitcoin wallet that pays for leases or is paid
    Wallet {
        /// What about it.
        #[command(subcommand)]
        order: WalletOrder,
    },
    /// Sell: take tasks that suit and run their machines
    Node {
        /// What about it.
        #[command(subcommand)]
        order: NodeOrder,
    },
    /// Images of guests: what came as a file, named by its SHA-256
    Image {
        /// What about them.
        #[command(subcommand)]
        order: ImageOrder,
    },
    /// Announce a task, so that nodes offer machines for it
    #[command(
        after_help = "Examples:\n  xennet publish --example > task.toml\n  xennet publish --dry-run task.toml\n  xennet publish --max-fee 500 task.toml"
    )]
    Publish(PublishArgs),
    /// Rent a machine, run a command on files sent in, bring back its output and files, and settle
    #[command(after_help = "Examples:\n  \
            xennet run -- uname -a\n  \
            xennet run --in input.txt --out result.txt -- sh -c 'sort input.txt > result.txt'\n  \
            xennet run --task task.toml --in prog --in data:in --out out -- ./prog in out\n\n\
            The command runs in /data/job of the machine, where the files are. It survives a cut connection. Exits with the \
            command's own code, 126 if it cannot be run, 127 if there is none, 128 + n if signal n ended it, 125 if xennet \
            failed, 130 after Ctrl-C.")]
    Run(RunArgs),
    /// List the tasks this daemon knows, own ones and those of others
    #[command(after_help = "Example:\n  xennet tasks\n  xennet tasks --json | jq '.[].refusals'")]
    Tasks,
    /// List leases: what runs, for whom, and what it has cost so far
    #[command(after_help = "Example:\n  xennet leases\n  xennet leases --open --json | jq '.[].totals'")]
    Leases {
        /// Leave out leases that are over
        #[arg(long)]
        open: bool,
    },
    /// Open a shell in a leased machine, or run a command in it, with the stock ssh
    #[command(after_help = "Examples:\n  \
            xennet ssh 77c0                          a shell\n  \
            xennet ssh 77c0 -- df -h                 a command\n  \
            xennet ssh 77c0 --print                  the commands for ssh and scp themselves")]
    Ssh(SshArgs),
    /// Listen on ports here that lead to ports of a leased machine, until Ctrl-C
    #[command(after_help = "Examples:\n  \
            xennet forward 77c0 8080:80              then open http://127.0.0.1:8080\n  \
            xennet forward 77c0 0:80 5432            any free port for 80, and 5432 on both sides\n  \
            xennet forward 77c0 0:80 --json | jq -r '.[0].address'\n  \
            xennet forward 77c0 8080:80 --address 0.0.0.0\n\n\
            Bytes go through the tunnel and count as the lease's traffic. Whoever reaches the address here reaches the machine's \
            port: keep to 127.0.0.1 unless others are to use it.")]
    Forward(ForwardArgs),
    /// Join stdin and stdout to a pipe of a lease (what ssh uses as its ProxyCommand)
    #[command(after_help = "Example:\n  ssh -o ProxyCommand='xennet pipe %n' root@77c0b5f2a1d3e4c5")]
    Pipe {
        /// The lease: its name, or the beginning of it
        lease: String,
        /// The pipe; `ssh` leads to the machine's SSH server, a number to that port
        #[arg(default_value = xennetd::control::GUEST_SSH)]
        name: String,
    },
    /// Show a lease's ledger: usage, what was owed and what was paid, line by line
    #[command(after_help = "Example:\n  xennet ledger 77c0\n  xennet ledger 77c0 --from 100 --limit 50 --json")]
    Ledger(LedgerArgs),
    /// Take a transaction of the chain apart: what it costs, what it spends, what it pays
    #[command(after_help = "Example:\n  xennet tx 00002bdc9ccb993853e932d6e89962743c9daf4ba60124f893fb54056e02eeea")]
    Tx {
        /// Its id
        txid: String,
    },
    /// Take a task back; leases that run go on
    #[command(after_help = "Example:\n  xennet cancel 5a2b")]
    Cancel {
        /// The task: its hash, or the beginning of it
        task: String,
    },
    /// End a lease: the last payment, then settlement on chain
    #[command(after_help = "Example:\n  xennet close 77c0")]
    Close {
        /// The lease: its name, or the beginning of it
        lease: String,
        /// Do not wait until it is settled
        #[arg(long)]
        no_wait: bool,
    },
    /// Ask the node of a lease for more time; the machine runs on
    #[command(after_help = "Examples:\n  \
            xennet renew 77c0 --for 2h\n  \
            xennet renew 77c0 --for 1h --keep-on --budget 500_000    an hour more whenever time runs out, for 500,000 sat at most\n\n\
            The price stays as agreed. A further channel is funded; it takes over when blocks have buried it, and the old one is settled.")]
    Renew(RenewArgs),
    /// Show how the daemon is: identity, chain, overlay, money, leases
    #[command(after_help = "Example:\n  xennet status")]
    Status,
    /// Show what happens, as it happens, until Ctrl-C
    #[command(after_help = "Example:\n  xennet events --json | jq -c 'select(.event == \"paid\")'")]
    Events,
    /// Stop the daemon; its leases go on when it starts again
    #[command(after_help = "Example:\n  xennet stop")]
    Stop,
    /// Measure: payments, mining, refusals, sizes, tunnel, start of a machine, its network, a whole lease; each beside something in the same run
    #[command(after_help = "Examples:\n  \
            xennet bench                              all of them, some four minutes\n  \
            xennet bench mining payments --quick\n  \
            xennet bench --json | jq '.sections[].figures[] | select(.met == false)'\n\n\
            Names: payments, mining, refusal, sizes, tunnel, machine, network, lease. Needs ssh and sshd for tunnel, QEMU for \
            machine, network and lease. docs/bench.md says how each figure is measured and what it was where.")]
    Bench(BenchArgs),
}

/// What to do about identities.
#[derive(Debug, Subcommand)]
pub enum IdentityOrder {
    /// Mine an identity on all cores, or go on with mining it; the daemon mines by itself when it needs one
    #[command(after_help = "Example:\n  xennet identity mine\n  xennet identity mine --role node")]
    Mine {
        /// Whose identity [default: that of the daemon's side]
        #[arg(long, value_enum)]
        role: Option<Side>,
    },
    /// Show the identities of this data directory
    #[command(after_help = "Example:\n  xennet identity show")]
    Show,
}

/// A side of the market.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// Rents machines and pays
    Publisher,
    /// Runs machines and is paid
    Node,
}

/// What to do about the wallet.
#[derive(Debug, Subcommand)]
pub enum WalletOrder {
    /// Show what it holds
    #[command(after_help = "Example:\n  xennet wallet balance --json | jq .confirmed_sat")]
    Balance,
    /// Show an address to pay to
    #[command(after_help = "Example:\n  xennet wallet address")]
    Address,
    /// List what moved its money and what for, with fees and the balance after each
    #[command(after_help = "Example:\n  xennet wallet history --json | jq 'map(.fee_sat) | add'")]
    History,
    /// List its coins: value, confirmations, where each came from, and which lease it is reserved for
    #[command(after_help = "Example:\n  xennet wallet coins --json | jq -r '.[] | select(.state == \"free\").coin'")]
    Coins,
    /// Pay to an address
    #[command(after_help = "Examples:\n  \
            xennet wallet send --dry-run bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4 50_000\n  \
            xennet wallet send bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4 all\n  \
            xennet wallet send --coin $(xennet wallet coins --json | jq -r '.[0].coin') bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4 all")]
    Send(SendArgs),
    /// Take back what old announcements locked in markers, own ones and those of others, if that is worth its fee
    #[command(after_help = "Example:\n  xennet wallet sweep --dry-run\n\n\
            A marker holds 330 sat and is anyone's: whoever sweeps first has it. Markers of the last two days stay, for light clients look \
            for them. It takes two markers and a feerate below 7 sat/vB to be worth it.")]
    Sweep(SweepArgs),
    /// Raise the fee of a transaction that waits
    #[command(after_help = "Example:\n  \
            xennet wallet bump 5a5b5c5d5e5f505152535455565758595a5b5c5d5e5f50515253545556575859\n\n\
            A payment is replaced by another one. A funding, a close or an announcement keeps its id, which others wait for, and what \
            others sent cannot be replaced: a child that spends what it pays to this wallet pays for both.")]
    Bump(BumpArgs),
    /// Make a new wallet, shown once as 12 or 24 words
    #[command(after_help = "Example:\n  xennet wallet create --words 24")]
    Create(CreateArgs),
    /// Bring a wallet back from its words or a backup
    ///
    /// A backup goes into a data directory that is empty or not there, with keys, tasks, ledgers and leases. Leases sign nothing before the
    /// other side has said what was signed since the backup.
    #[command(after_help = "Examples:\n  \
            xennet wallet restore --birthday-height 930_000\n  \
            xennet wallet restore --no-passphrase < words.txt\n  \
            xennet wallet restore --from xennet.backup")]
    Restore(RestoreArgs),
    /// Encrypt it with a passphrase, or with another one
    #[command(after_help = "Example:\n  xennet stop; xennet wallet encrypt")]
    Encrypt {
        /// File that holds the new passphrase in its one line [default: it is asked for]
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
    },
    /// Write all that cannot be had again to a file, encrypted, to be kept elsewhere: seed, keys, leases and their channels
    #[command(after_help = "Example:\n  xennet wallet backup /media/stick/xennet-$(date +%F).backup\n\n\
            The daemon may run meanwhile. Payments go on, so a newer backup is better than an old one; after an old one the other side of \
            each channel is asked what was signed since.")]
    Backup {
        /// The file to write; one that is there stays
        file: PathBuf,
        /// Let it take the place of a file that is there
        #[arg(long)]
        overwrite: bool,
    },
}

/// See [`WalletOrder::Send`].
#[derive(Debug, Args)]
pub struct SendArgs {
    /// Where to
    pub address: String,
    /// Satoshi, or `all`
    #[arg(value_name = "SAT|all")]
    pub amount: String,
    /// Satoshi per virtual byte [default: what the chain estimates]
    #[arg(long, value_name = "SAT/VB", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub feerate: Option<u64>,
    /// Spend this coin and no others that are not named too, as `xennet wallet coins` shows it
    #[arg(long = "coin", value_name = "TXID:VOUT")]
    pub coins: Vec<String>,
    /// Only say what it would cost now
    #[arg(long)]
    pub dry_run: bool,
    /// Send without being asked
    #[arg(long)]
    pub yes: bool,
}

/// See [`WalletOrder::Sweep`].
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Satoshi per virtual byte [default: what the chain estimates]
    #[arg(long, value_name = "SAT/VB", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub feerate: Option<u64>,
    /// The most to pay to the miner; above that nothing is sent
    #[arg(long, value_name = "SAT")]
    pub max_fee: Option<u64>,
    /// How many of the last blocks to look through [default: 1008, a week]
    #[arg(long, value_name = "COUNT")]
    pub blocks: Option<u32>,
    /// Only say what it would bring now
    #[arg(long)]
    pub dry_run: bool,
    /// Sweep without being asked
    #[arg(long)]
    pub yes: bool,
}

/// See [`WalletOrder::Bump`].
#[derive(Debug, Args)]
pub struct BumpArgs {
    /// The transaction that waits
    pub txid: String,
    /// Satoshi per virtual byte [default: what the chain estimates, and half as much again as it paid]
    #[arg(long, value_name = "SAT/VB", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub feerate: Option<u64>,
    /// Only say what it would cost now
    #[arg(long)]
    pub dry_run: bool,
    /// Do it without being asked
    #[arg(long)]
    pub yes: bool,
}

/// See [`WalletOrder::Create`].
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// How many words; 24 are longer to write down and no safer against anything known
    #[arg(long, value_enum, default_value_t = WordCount::Twelve)]
    pub words: WordCount,
    /// Keep the words readable by whoever can read the data directory; for play money
    #[arg(long)]
    pub no_passphrase: bool,
}

/// How many words a seed has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WordCount {
    /// 128 bits
    #[value(name = "12")]
    Twelve,
    /// 256 bits
    #[value(name = "24")]
    TwentyFour,
}

/// See [`WalletOrder::Restore`].
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// A file that `xennet wallet backup` wrote [default: the words are asked for, or read from stdin]
    #[arg(long, alias = "backup", value_name = "FILE", conflicts_with_all = ["no_passphrase", "birthday_height"])]
    pub from: Option<PathBuf>,
    /// Keep the words readable by whoever can read the data directory; for play money
    #[arg(long)]
    pub no_passphrase: bool,
    /// Block before which it has no coins; a later one saves time
    #[arg(long, value_name = "HEIGHT", default_value_t = 0, value_parser = numbers::height)]
    pub birthday_height: u32,
}

/// What to do as a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum NodeOrder {
    /// Run a node here until Ctrl-C; it listens on no port
    #[command(after_help = "Example:\n  xennet --datadir ~/node node run --bootstrap /ip4/203.0.113.7/tcp/28750")]
    Run,
}

/// See [`Order::Publish`].
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The task file; - reads it from stdin
    #[arg(required_unless_present = "example")]
    pub file: Option<PathBuf>,
    /// Print a task file that works, with every field explained
    #[arg(long, conflicts_with = "file")]
    pub example: bool,
    /// Only say what announcing it would cost now
    #[arg(long)]
    pub dry_run: bool,
    /// Whether the fee is agreed to.
    #[command(flatten)]
    pub consent: Consent,
}

/// See [`Order::Run`].
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A task file, or the hash of an own task that is announced already [default: one small machine for an hour at most]
    #[arg(long, value_name = "FILE|TASK")]
    pub task: Option<String>,
    /// File or directory to send; NAME is what it is called there [default: its own name]; may be repeated
    #[arg(long = "in", value_name = "FILE[:NAME]")]
    pub input: Vec<String>,
    /// File or directory to bring back; LOCAL is where it goes [default: its name, here]; may be repeated
    #[arg(long = "out", value_name = "NAME[:LOCAL]")]
    pub output: Vec<String>,
    /// Seconds to wait for a machine
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub wait: u64,
    /// Leave the lease open afterwards, to be used with `xennet ssh` and ended with `xennet close`
    #[arg(long)]
    pub keep: bool,
    /// Whether the announcement's fee is agreed to.
    #[command(flatten)]
    pub consent: Consent,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// See [`Order::Renew`].
#[derive(Debug, Args)]
pub struct RenewArgs {
    /// The lease: its name, or the beginning of it
    pub lease: String,
    /// How much more time, e.g. 90s, 45m, 2h, 1d
    #[arg(long = "for", value_name = "TIME", value_parser = numbers::seconds)]
    pub adds_s: u64,
    /// The most to lock for it, satoshi [default: what is left of the task's budget]
    #[arg(long, value_name = "SAT", value_parser = numbers::sat)]
    pub budget: Option<u64>,
    /// Go on renewing by as much, as far as the budget goes
    #[arg(long)]
    pub keep_on: bool,
    /// Do not wait until it is renewed
    #[arg(long)]
    pub no_wait: bool,
}

/// See [`Order::Ssh`].
#[derive(Debug, Args)]
pub struct SshArgs {
    /// The lease: its name, or the beginning of it
    pub lease: String,
    /// Print the commands for ssh and scp instead of running one
    #[arg(long, conflicts_with = "command")]
    pub print: bool,
    /// A command to run instead of a shell
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// See [`Order::Ledger`].
#[derive(Debug, Args)]
pub struct LedgerArgs {
    /// The lease: its name, or the beginning of it
    pub lease: String,
    /// The first line to show, from 0
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// The most lines to show [default: all]
    #[arg(long)]
    pub limit: Option<u64>,
}

/// See [`Order::Bench`].
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Which benchmarks [default: all]
    #[arg(value_name = "NAME")]
    pub which: Vec<xennetd::bench::Bench>,
    /// Measure for seconds only, for a first look
    #[arg(long)]
    pub quick: bool,
    /// Exit with 1 if a target was missed or a benchmark could not be done
    #[arg(long)]
    pub check: bool,
    /// Directory whose disk is measured; what is made in it is deleted again [default: the data directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
