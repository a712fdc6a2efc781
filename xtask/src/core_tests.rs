//! `cargo xtask core-tests`: the tests that need a real Bitcoin Core, and how one is had.
//!
//! Its sources lie in a crate that we depend on anyway, so nothing has to be downloaded from elsewhere. The build takes about 20 minutes of
//! one core and is kept outside the clone, under the crate's version.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};

/// The crate that holds Bitcoin Core's sources.
const CRATE: &str = "libbitcoinkernel-sys";
/// Names a bitcoind that is there already.
const PROGRAM: &str = "XENNET_BITCOIND";
/// Only what the tests need: a node with its RPC.
const OPTIONS: &[&str] = &[
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_CLI=ON",
    "-DENABLE_WALLET=OFF",
    "-DBUILD_TESTS=OFF",
    "-DBUILD_BENCH=OFF",
    "-DBUILD_TX=OFF",
    "-DBUILD_WALLET_TOOL=OFF",
    "-DBUILD_BITCOIN_BIN=OFF",
    "-DENABLE_IPC=OFF",
    "-DWITH_ZMQ=OFF",
    "-DENABLE_EXTERNAL_SIGNER=OFF",
    "-DWITH_EMBEDDED_ASMAP=OFF",
];
/// What the build needs beyond what the workspace needs, with the Debian package that holds it.
const EVENT_HEADER: (&str, &str) = ("/usr/include/event2/event.h", "libevent-dev");

/// What to do where no bitcoind has been built yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Build,
    /// Say so, and leave it at that.
    Leave,
}

/// Runs the tests. They cannot be passed over: the variable that they look for is set.
pub fn run(missing: Missing) -> anyhow::Result<()> {
    let program = match std::env::var_os(PROGRAM) {
        Some(given) => PathBuf::from(given),
        None => {
            let (version, sources) = sources()?;
            let build = cache()?.join(format!("core-{version}")).join("build");
            let program = build.join("bin/bitcoind");
            if !answers(&program) {
                if missing == Missing::Leave {
                    println!("not run: no Bitcoin Core has been built yet; `cargo xtask core-tests` builds one and runs them");
                    return Ok(());
                }
                compile(&sources, &build)?;
            }
            program
        }
    };
    if !answers(&program) {
        bail!("{} does not answer to -version: build it anew, or name another one in {PROGRAM}", program.display());
    }
    let status = Command::new(env!("CARGO"))
        // With the features of the whole workspace, so that nothing is compiled a second time.
        .args(["test", "--locked", "--release", "--workspace", "--test", "core"])
        .env(PROGRAM, &program)
        .status()
        .context("cargo cannot be run")?;
    if !status.success() {
        bail!("the tests against {} failed", program.display());
    }
    Ok(())
}

fn answers(program: &Path) -> bool {
    Command::new(program).arg("-version").output().is_ok_and(|output| output.status.success())
}

fn cache() -> anyhow::Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME is set: there is no place to keep the build")?.join("xennet"))
}

/// The crate's version and the directory with Bitcoin Core's sources, as cargo has them.
fn sources() -> anyhow::Result<(String, PathBuf)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .context("cargo metadata cannot be run")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata is no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let package = packages.iter().find(|package| package["name"] == CRATE).with_context(|| format!("{CRATE} is no dependency"))?;
    let text = |field: &str| package[field].as_str().map(str::to_owned).with_context(|| format!("{CRATE} has no {field}"));
    let manifest = PathBuf::from(text("manifest_path")?);
    let sources = manifest.parent().context("a manifest has a directory")?.join("bitcoin");
    Ok((text("version")?, sources))
}

fn compile(sources: &Path, build: &Path) -> anyhow::Result<()> {
    let (header, package) = EVENT_HEADER;
    if !Path::new(header).exists() {
        bail!("{header} is missing: install {package}, then run this again");
    }
    println!("Building Bitcoin Core into {}, once: about 20 minutes of one core.", build.display());
    let begun = Instant::now();
    let jobs = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(sources).arg("-B").arg(build).args(OPTIONS);
    let mut compile = Command::new("cmake");
    compile.arg("--build").arg(build).args(["--parallel", &jobs]);
    for (what, mut command) in [("configure", configure), ("compile", compile)] {
        let status = command.status().context("cmake cannot be run: install cmake, then run this again")?;
        if !status.success() {
            bail!("cmake could not {what} Bitcoin Core in {}; its last lines say why", build.display());
        }
    }
    println!("Built in {} s.", begun.elapsed().as_secs());
    Ok(())
}
