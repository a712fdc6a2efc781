//! A sentence for each event.

use xennetd::control::{Event, LeaseStage, What};

use super::{short, tame, units};

/// The sentence; `None` for what nobody needs to read.
pub fn describe(event: &Event) -> Option<String> {
    let text = match &event.what {
        What::Mining(view) if view.found => format!("the {}'s identity is mined after {} hashes", view.role, units::count(view.hashes)),
        What::Mining(_) | What::Working { .. } | What::Tip { .. } => return None,
        What::Task { task, state, note } => {
            let state = serde_json::to_value(state).ok()?;
            format!("task {}: {}{}", short(task), state.as_str()?, noted(note))
        }
        What::Image { step, done, total } if *total > 0 => format!("guest image: {step}, {done} of {total}"),
        What::Image { step, .. } => format!("guest image: {step}"),
        What::Lease { lease, stage, note, .. } => format!("lease {lease}: {}{}", stage_sentence(*stage), noted(note)),
        What::Tunnel { lease, up: true, note } => format!("lease {lease}: the tunnel stands{}", noted(note)),
        What::Tunnel { lease, up: false, note } => format!("lease {lease}: the tunnel is cut, the node comes back{}", noted(note)),
        What::Boot { lease, step, elapsed_ms } => format!("lease {lease}: {step}, {} s after the start", tenths(*elapsed_ms)),
        What::Benchmark { lease, figures: Some(figures), .. } => format!(
            "lease {lease}: measured {} × {} MHz, memory {} at {} MB/s, disk {} written at {} and read at {} MB/s, network {} kbit/s down and {} up, in {} s",
            figures.cores,
            figures.core_mhz,
            units::mib(figures.memory_mib),
            figures.memory_mb_s,
            units::mib(figures.disk_mib),
            figures.disk_write_mb_s,
            figures.disk_read_mb_s,
            figures.down_kbit_s,
            figures.up_kbit_s,
            tenths(u64::from(figures.took_ms))
        ),
        What::Benchmark { lease, stage, .. } => format!("lease {lease}: measuring {stage}"),
        What::Proposal { lease, rates, capacity_sat } => format!(
            "lease {lease}: proposed, in msat: {} per GHz hour, {} per GiB hour of memory, {} of disk, {} of persistent storage, {} per GB of \
             traffic; {} go into the channel",
            rates.cpu_msat_per_ghz_hour,
            rates.memory_msat_per_gib_hour,
            rates.disk_msat_per_gib_hour,
            rates.persistent_msat_per_gib_hour,
            rates.traffic_msat_per_gb,
            units::sat(*capacity_sat)
        ),
        What::Paid { lease, number, paid_sat, owed } => {
            format!("lease {lease}: payment {number}, {} in all for {} owed", units::sat(*paid_sat), units::msat(*owed))
        }
        What::Settled { lease, paid_sat, txid } => format!("lease {lease}: {} settled on chain by {txid}", units::sat(*paid_sat)),
        What::Notice { text } => tame(text),
        What::Lagged { missed } => format!("{missed} events were missed"),
    };
    Some(text)
}

/// A stage as a part of a sentence.
pub fn stage_sentence(stage: LeaseStage) -> &'static str {
    match stage {
        LeaseStage::Accepted => "a node has taken the task",
        LeaseStage::Connected => "the node has dialed in, the machine boots",
        LeaseStage::Measuring => "the machine answers and is measured",
        LeaseStage::Proposed => "the price is proposed",
        LeaseStage::Agreed => "agreed, the channel is being funded",
        LeaseStage::Live => "live",
        LeaseStage::Interrupted => "the tunnel is cut, the node comes back",
        LeaseStage::Closing => "closing",
        LeaseStage::Settled => "settled",
        LeaseStage::Refunded => "what was not paid is back",
        LeaseStage::Refused => "refused",
        LeaseStage::Ended => "ended",
    }
}

fn noted(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!(" ({})", tame(note)) }
}

fn tenths(milliseconds: u64) -> String {
    format!("{}.{}", milliseconds / 1000, milliseconds / 100 % 10)
}
