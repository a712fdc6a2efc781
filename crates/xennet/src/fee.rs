//! What an announcement costs on the chain, and whether the user agrees to it.

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;
use xennetd::control::{Command, Quote, QuoteView, Reply};

use crate::commands::Context;
use crate::fail::Fail;
use crate::progress::Progress;
use crate::resolve::strange;
use crate::show::units;

/// Play money needs no agreement.
const PLAY: &str = "regtest";
/// By how much the fee may rise between the agreement and the sending, in hundredths.
const MAY_RISE_PERCENT: u64 = 25;

/// Agreement that is given beforehand.
#[derive(Debug, Default, Clone, Args)]
pub struct Consent {
    /// Agree to the announcement's fee without being asked
    #[arg(long)]
    pub yes: bool,
    /// Announce only if the fee is at most this many satoshi; agrees to it without being asked
    #[arg(long, value_name = "SAT")]
    pub max_fee: Option<u64>,
}

/// What announcing this task would cost.
pub async fn quote(context: &Context, task_toml: &str) -> Result<QuoteView, Fail> {
    match context.client.command(&Command::Quote { task_toml: task_toml.to_owned() }).await? {
        Reply::Quote(quote) => Ok(quote),
        other => Err(strange(&other)),
    }
}

/// The most the announcement may cost, as agreed to; none where nothing is paid, or with play money.
pub async fn agree(context: &Context, task_toml: &str, consent: &Consent, progress: &Progress) -> Result<Option<u64>, Fail> {
    let view = quote(context, task_toml).await?;
    let Some(chosen) = view.chosen() else { return Ok(None) };
    if let Some(at_most) = consent.max_fee {
        if chosen.fee_sat > at_most {
            return Err(Fail::new(format!("the fee is {} now, and --max-fee is {}", units::sat(chosen.fee_sat), units::sat(at_most)))
                .next("nothing was announced; agree to more, write carrier = \"overlay\" in the task file, or wait until fees fall"));
        }
        return Ok(Some(at_most));
    }
    if view.network == PLAY {
        return Ok(None);
    }
    let at_most = chosen.fee_sat.saturating_add(chosen.fee_sat.saturating_mul(MAY_RISE_PERCENT) / 100);
    let text = format!(
        "announcing costs {} ({} vB at {} sat/kvB) on {}, and {} that can be swept back; if fees rise meanwhile, at most {}",
        units::sat(chosen.fee_sat),
        units::grouped(chosen.vbytes),
        units::grouped(view.feerate_sat_per_kvb),
        view.network,
        units::sat(chosen.marker_sat),
        units::sat(at_most)
    );
    if consent.yes {
        progress.say(&text);
        return Ok(Some(at_most));
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Fail::new(format!("{text}; nobody is there to agree")).next("give --yes, or --max-fee SAT"));
    }
    if progress.aside(|| asked(&text)) {
        return Ok(Some(at_most));
    }
    Err(Fail::new("nothing was announced").next("carrier = \"overlay\" in the task file announces without a fee"))
}

/// Only a clear yes is one.
fn asked(text: &str) -> bool {
    eprint!("{text}. Go on? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// For people.
pub fn show(view: &QuoteView) -> String {
    let line = |name: &str, quote: &Quote| {
        format!(
            "{name:<12} {:>6} vB   fee {}   marker {}\n",
            units::grouped(quote.vbytes),
            units::sat(quote.fee_sat),
            units::sat(quote.marker_sat)
        )
    };
    let carrier = match view.chosen() {
        Some(chosen) if chosen == view.short => "chain",
        Some(_) => "chain_full",
        None => "overlay",
    };
    format!(
        "at {} sat/kvB on {}; the task's carrier is \"{carrier}\"\n{}{}overlay      no transaction\n",
        units::grouped(view.feerate_sat_per_kvb),
        view.network,
        line("chain", &view.short),
        line("chain_full", &view.full)
    )
}
