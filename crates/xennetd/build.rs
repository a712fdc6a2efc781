//! Builds the program that measures guests, linked statically because a guest may have any C library or none, so that it can be
//! part of this crate.

// A build script has nobody to hand an error to.
#![allow(clippy::panic)]

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let dir = PathBuf::from("../xennet-probe/src");
    println!("cargo:rerun-if-changed=../xennet-probe/src/main.rs");
    println!("cargo:rerun-if-changed=../xennet-probe/src/chain.rs");
    println!("cargo:rerun-if-changed=build.rs");
    let (Some(rustc), Some(out)) = (std::env::var_os("RUSTC"), std::env::var_os("OUT_DIR")) else {
        panic!("cargo sets RUSTC and OUT_DIR for build scripts");
    };
    let status = Command::new(rustc)
        .args(["--edition", "2024", "--crate-name", "xennet_probe", "--crate-type", "bin"])
        .args(["-C", "opt-level=3", "-C", "strip=symbols", "-C", "target-feature=+crt-static", "-C", "panic=abort"])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .arg(dir.join("main.rs"))
        .arg("-o")
        .arg(PathBuf::from(out).join("xennet-probe"))
        .status();
    match status {
        Ok(status) if status.success() => {}
        other => panic!("the guest's measuring program did not build ({other:?}); it needs a static C library: apt-get install libc6-dev"),
    }
}
