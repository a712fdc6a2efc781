//! Bytes through the tunnel against the stock `ssh -R`: `throughput [MEGABYTES [ROUNDS]]`.

use xennet_tunnel::measure::{CIPHER, throughput};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let megabytes: u64 = args.next().map_or(Ok(300), |a| a.parse())?;
    let rounds: usize = args.next().map_or(Ok(5), |a| a.parse())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let measured = runtime.block_on(throughput(megabytes * 1_000_000, rounds))?;
    println!("{megabytes} MB over loopback, {CIPHER}, median of {rounds}");
    for (way, speeds) in [("to the guest", measured.to_guest), ("from the guest", measured.from_guest)] {
        println!(
            "{way:15} tunnel {:6} MB/s   ssh -R {:6} MB/s   ratio {:.2}",
            speeds.tunnel_bytes_s / 1_000_000,
            speeds.ssh_bytes_s / 1_000_000,
            speeds.ratio(),
        );
    }
    Ok(())
}
