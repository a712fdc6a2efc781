//! What moves the wallet's money: send, bump, sweep. Each shows its fee before it is paid.

use std::io::{BufRead, IsTerminal, Write};

use xennetd::control::{Command, PaymentView, Reply, SweepView};

use crate::cli::{BumpArgs, SendArgs, SweepArgs};
use crate::commands::Context;
use crate::fail::Fail;
use crate::progress::Progress;
use crate::resolve::strange;
use crate::show::{self, units};

/// Play money needs no agreement.
const PLAY: &str = "regtest";
/// By how much a fee may rise between the agreement and the sending, in hundredths.
const MAY_RISE_PERCENT: u64 = 25;

impl Context {
    pub(crate) async fn send(&self, args: &SendArgs) -> Result<(), Fail> {
        let progress = Progress::new(self.json);
        crate::background::ensure(&self.settings, &self.client, &progress).await?;
        let amount_sat = match args.amount.as_str() {
            "all" => None,
            text => Some(text.replace(['_', ','], "").parse::<u64>().map_err(|_| {
                Fail::new(format!("`{text}` is no amount")).next("write satoshi, such as 50_000 (0.0005 bitcoin), or `all`")
            })?),
        };
        let feerate_sat_per_kvb = args.feerate.map(|rate| rate.saturating_mul(1_000));
        let command = |dry_run, max_fee_sat| Command::WalletSend {
            address: args.address.clone(),
            amount_sat,
            feerate_sat_per_kvb,
            max_fee_sat,
            dry_run,
            coins: args.coins.clone(),
        };
        let preview = self.payment(command(true, None)).await?;
        if args.dry_run {
            progress.done();
            return show::print(self.json, &preview, show::payment);
        }
        let question = format!(
            "send {} to {} on {}, fee {} ({} vB)",
            units::sat(preview.amount_sat),
            args.address,
            preview.network,
            units::sat(preview.fee_sat),
            units::grouped(preview.vbytes)
        );
        agreed(&question, &preview.network, args.yes, &progress)?;
        let sent = self.payment(command(false, Some(may_rise(preview.fee_sat)))).await?;
        progress.done();
        show::print(self.json, &sent, show::payment)
    }

    pub(crate) async fn bump(&self, args: &BumpArgs) -> Result<(), Fail> {
        let progress = Progress::new(self.json);
        crate::background::ensure(&self.settings, &self.client, &progress).await?;
        let feerate_sat_per_kvb = args.feerate.map(|rate| rate.saturating_mul(1_000));
        let command = |dry_run, max_fee_sat| Command::WalletBump { txid: args.txid.clone(), feerate_sat_per_kvb, max_fee_sat, dry_run };
        let preview = self.payment(command(true, None)).await?;
        if !args.dry_run {
            let what = match (&preview.replaces, &preview.lifts) {
                (Some(_), _) => "put another transaction in its place",
                _ => "spend what it pays to this wallet in a child that pays for both",
            };
            agreed(&format!("{what}, fee {}", units::sat(preview.fee_sat)), &preview.network, args.yes, &progress)?;
            let sent = self.payment(command(false, Some(may_rise(preview.fee_sat)))).await?;
            progress.done();
            return show::print(self.json, &sent, show::payment);
        }
        progress.done();
        show::print(self.json, &preview, show::payment)
    }

    async fn payment(&self, command: Command) -> Result<PaymentView, Fail> {
        match self.client.command(&command).await? {
            Reply::Payment(view) => Ok(*view),
            other => Err(strange(&other)),
        }
    }

    pub(crate) async fn sweep(&self, args: &SweepArgs) -> Result<(), Fail> {
        let progress = Progress::new(self.json);
        crate::background::ensure(&self.settings, &self.client, &progress).await?;
        let feerate_sat_per_kvb = args.feerate.map(|rate| rate.saturating_mul(1_000));
        let ask = async |dry_run, max_fee_sat| {
            let command = Command::WalletSweep { feerate_sat_per_kvb, max_fee_sat, blocks: args.blocks, dry_run };
            match self.client.command(&command).await? {
                Reply::Sweep(view) => Ok::<SweepView, Fail>(view),
                other => Err(strange(&other)),
            }
        };
        progress.doing("looking for markers");
        let preview = ask(true, None).await?;
        if args.dry_run {
            progress.done();
            return show::print(self.json, &preview, show::sweep);
        }
        if preview.txid.is_none() {
            progress.done();
            return Err(not_worth_it(&preview));
        }
        if let Some(at_most) = args.max_fee.filter(|at_most| preview.fee_sat > *at_most) {
            let text = format!("the fee is {} now, and --max-fee is {}", units::sat(preview.fee_sat), units::sat(at_most));
            return Err(Fail::new(text).next("nothing was sent; agree to more, or wait until fees fall"));
        }
        let question = format!(
            "take {} markers that hold {}, fee {} ({} vB), on {}",
            preview.taken,
            units::sat(preview.worth_sat),
            units::sat(preview.fee_sat),
            units::grouped(preview.vbytes),
            preview.network
        );
        agreed(&question, &preview.network, args.yes, &progress)?;
        let swept = ask(false, Some(args.max_fee.unwrap_or_else(|| may_rise(preview.fee_sat)))).await?;
        progress.done();
        if !swept.sent {
            return Err(not_worth_it(&swept));
        }
        show::print(self.json, &swept, show::sweep)
    }
}

fn not_worth_it(view: &SweepView) -> Fail {
    let next = match view.worth_at_sat_per_kvb {
        0 => "nothing was sent; `--blocks` looks further back".to_owned(),
        at => format!("nothing was sent; it is worth it at {} sat/kvB and below", units::grouped(at)),
    };
    Fail::new(show::sweep(view).trim_end().to_owned()).next(next)
}

fn may_rise(fee_sat: u64) -> u64 {
    fee_sat.saturating_add(fee_sat.saturating_mul(MAY_RISE_PERCENT) / 100)
}

/// Only a clear yes is one; play money needs none.
fn agreed(question: &str, network: &str, yes: bool, progress: &Progress) -> Result<(), Fail> {
    if yes || network == PLAY {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Fail::new(format!("{question}: nobody is there to agree")).next("give --yes"));
    }
    let said = progress.aside(|| {
        eprint!("{question}. Go on? [y/N] ");
        let _ = std::io::stderr().flush();
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
    });
    if said { Ok(()) } else { Err(Fail::new("nothing was sent")) }
}
