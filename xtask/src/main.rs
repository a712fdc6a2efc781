//! Checks of the repository itself: `cargo xtask check`; tests against a real Bitcoin Core: `cargo xtask core-tests`; the crash
//! programme: `cargo xtask crash`; the model check of the channel: `cargo xtask model`.
//!
//! What the compiler cannot know: which crate may depend on which, what a pure crate must not touch, which words mean that something was
//! left unfinished. Each check is a function from the [`tree::Tree`] of files to a list of findings, so each has tests that make it fail.
mod core_tests;
mod crash;
mod dependencies;
mod layers;
mod links;
mod model;
mod purity;
mod rust;
mod sizes;
mod tree;
mod words;

use std::process::ExitCode;

use anyhow::{Context, bail};
use tree::{Finding, Tree};

/// A name, and what finds its violations.
type Check = (&'static str, fn(&Tree) -> Vec<Finding>);

const CHECKS: &[Check] = &[
    ("layers: dependencies point down", layers::check),
    ("purity: words, judgement and flow touch no clock, socket, file, thread or random source", purity::check),
    ("words: nothing is left unfinished", words::check),
    ("sizes: a file can be read in one sitting", sizes::check),
    ("dependencies: each has its reason", dependencies::check),
    ("links: each points somewhere", links::check),
];

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["check"] => check(),
        ["core-tests"] => core_tests::run(core_tests::Missing::Build).map(|()| ExitCode::SUCCESS),
        ["core-tests", "--if-cached"] => core_tests::run(core_tests::Missing::Leave).map(|()| ExitCode::SUCCESS),
        ["model"] => model::run().map(|()| ExitCode::SUCCESS),
        ["crash"] => crash::run(crash::Part::Steps, false).map(|()| ExitCode::SUCCESS),
        ["crash", "--json"] => crash::run(crash::Part::Steps, true).map(|()| ExitCode::SUCCESS),
        ["crash", "--processes"] => crash::run(crash::Part::Processes, false).map(|()| ExitCode::SUCCESS),
        _ => bail!("usage: cargo xtask check | core-tests [--if-cached] | crash [--json | --processes] | model"),
    }
}

fn check() -> anyhow::Result<ExitCode> {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").context("run this as `cargo xtask check`")?;
    let root = std::path::Path::new(&manifest).parent().context("xtask has no parent directory")?;
    let tree = Tree::read(root)?;
    let mut found = 0;
    for (name, check) in CHECKS {
        let findings = check(&tree);
        println!("{} {name}", if findings.is_empty() { "ok  " } else { "FAIL" });
        for finding in &findings {
            println!("       {finding}");
        }
        found += findings.len();
    }
    if found > 0 {
        println!("{found} findings");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
