//! Bytes through the tunnel beside the stock `ssh -R`.

use xennet_tunnel::measure::{self, Speeds};

use super::report::{Figure, Section, Target, Unit};
use super::{BenchError, Effort};

/// The tunnel must not be slower than `ssh -R`.
const LEAST_RATIO: f64 = 1.0;

pub(super) async fn run(effort: Effort, section: &mut Section) -> Result<(), BenchError> {
    let bytes = effort.pick(32, 128) << 20;
    let throughput = measure::throughput(bytes, effort.pick(3, 9)).await?;
    let mut add = |way: &str, speeds: Speeds| {
        section.figures.extend([
            Figure::new(format!("{way}, ÷ ssh -R"), Unit::Ratio, speeds.ratio_percent as f64 / 100.0)
                .to_reach(Target::AtLeast(LEAST_RATIO)),
            Figure::new(format!("{way}, tunnel"), Unit::BytesPerSecond, speeds.tunnel_bytes_s as f64),
            Figure::new(format!("{way}, ssh -R"), Unit::BytesPerSecond, speeds.ssh_bytes_s as f64),
        ]);
    };
    add("into the guest", throughput.to_guest);
    add("out of the guest", throughput.from_guest);
    section.notes.push(format!("Both with {} over loopback, {} MiB a transfer, in turns.", measure::CIPHER, bytes >> 20));
    Ok(())
}
