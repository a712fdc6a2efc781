//! What a guest's start costs beyond a bare QEMU: `cargo run --release -p xennet-vm --example boot [ROUNDS]`.

use std::sync::Arc;

use xennet_gateway::{Gateway, Settings};
use xennet_vm::bench::{compare_boot, median};
use xennet_vm::{Accelerator, ImageStore, VmError};

#[tokio::main]
async fn main() -> Result<(), VmError> {
    let rounds = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(5);
    let folder = std::env::temp_dir().join(format!("xennet-boot-{}", std::process::id()));
    let image = ImageStore::new(std::env::temp_dir().join("xennet-images")).thin(|progress| println!("{}", progress.step)).await?;
    let verdict = Accelerator::probe(&image, &folder).await?;
    println!("{}: {}", verdict.accelerator, verdict.why);
    let open = |network| {
        let gateway = Arc::new(Gateway::start(network, Settings::default())?);
        Ok(move || {
            let gateway = Arc::clone(&gateway);
            async move { gateway.connect(22).await }
        })
    };
    let compared = compare_boot(&image, verdict.accelerator, &folder, rounds, open).await?;
    println!("bare {:?}\nours {:?}", compared.bare, compared.ours);
    println!("medians {:?} and {:?}, ratio {:.3}", median(&compared.bare), median(&compared.ours), compared.ratio());
    let _ = std::fs::remove_dir_all(folder);
    Ok(())
}
