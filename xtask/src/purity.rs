//! Words, judgement and flow are pure: time and randomness are arguments, and nothing is read or written.
use crate::{
    rust::{Source, paths},
    tree::{Finding, Kind, Tree, about, at},
};

const PURE: &[&str] = &["identity", "task", "meter", "market", "rama", "lease"];

/// Crates that bring a clock, a socket, a file, a thread or a random source.
const CRATES: &[&str] = &[
    "tokio",
    "tokio-util",
    "futures",
    "async-std",
    "rand",
    "getrandom",
    "fastrand",
    "libp2p",
    "russh",
    "rustix",
    "redb",
    "axum",
    "hyper",
    "tempfile",
    "socket2",
    "chrono",
    "time",
    "rayon",
    "crossbeam",
    "tracing",
    "log",
    "libc",
    "nix",
    "mio",
    "reqwest",
];

/// Paths that must not be used, and what to do instead.
const PATHS: &[(&str, &str)] = &[
    ("std::time::SystemTime", "take the time as an argument"),
    ("std::time::UNIX_EPOCH", "take the time as an argument"),
    ("SystemTime", "take the time as an argument"),
    ("std::fs", "leave files to the daemon"),
    ("std::thread", "leave threads to the daemon: take a start and a count"),
    ("std::process", "leave processes to the hands"),
    ("std::env", "take the setting as an argument"),
    ("std::io::stdin", "take the input as an argument"),
    ("std::io::stdout", "return what is to be said"),
    ("std::io::stderr", "return what is to be said"),
    ("std::os", "leave the operating system to the hands"),
    ("std::sync::mpsc", "leave threads to the daemon"),
    ("tokio", "leave the runtime to the hands"),
    ("rand", "take the random bytes as an argument"),
    ("getrandom", "take the random bytes as an argument"),
    ("secp256k1::rand", "take the random bytes as an argument"),
    ("bitcoin::secp256k1::rand", "take the random bytes as an argument"),
    ("bitcoin::key::rand", "take the random bytes as an argument"),
    ("thread_rng", "take the random bytes as an argument"),
    ("OsRng", "take the random bytes as an argument"),
];

/// Of `std::net`, only what is a plain value.
const NET_VALUES: &[&str] = &["SocketAddr", "SocketAddrV4", "SocketAddrV6", "IpAddr", "Ipv4Addr", "Ipv6Addr", "AddrParseError"];

const MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let (manifests, _) = tree.manifests();
    let mut findings = Vec::new();
    for name in PURE {
        let directory = format!("crates/xennet-{name}/");
        for manifest in manifests.iter().filter(|manifest| manifest.path == format!("{directory}Cargo.toml")) {
            for used in manifest.dependencies(Kind::Normal).into_iter().filter(|used| CRATES.contains(used)) {
                findings.push(about(&manifest.path, format!("a pure crate depends on {used}")));
            }
        }
        let sources = format!("{directory}src/");
        for (path, text) in tree.files().filter(|(path, _)| path.starts_with(&sources) && path.ends_with(".rs")) {
            if !is_test(tree, path) {
                findings.extend(check_source(path, text));
            }
        }
    }
    findings
}

fn check_source(path: &str, text: &str) -> Vec<Finding> {
    let code = Source::new(text).code_without_tests();
    let mut findings: Vec<Finding> =
        paths(&code).into_iter().filter_map(|(line, used)| wrong(&used).map(|why| at(path, line, format!("uses {used}: {why}")))).collect();
    for (n, line) in code.lines().enumerate() {
        for name in MACROS.iter().filter(|name| calls_macro(line, name)) {
            findings.push(at(path, n + 1, format!("uses {name}!: return what is to be said")));
        }
    }
    findings
}

/// Why a path must not be used, if it must not.
fn wrong(path: &str) -> Option<&'static str> {
    let path = path.strip_prefix("core::").map_or_else(|| path.to_owned(), |rest| format!("std::{rest}"));
    if let Some(rest) = path.strip_prefix("std::net") {
        let value = rest.strip_prefix("::").and_then(|rest| rest.split("::").next()).unwrap_or_default();
        return (!NET_VALUES.contains(&value)).then_some("leave sockets to the hands; of std::net only addresses are values");
    }
    // Whatever clock it is, and whatever name it was imported under.
    if path.ends_with("::now") {
        return Some("take the time as an argument");
    }
    let under = |forbidden: &str| path == forbidden || path.strip_prefix(forbidden).is_some_and(|rest| rest.starts_with("::"));
    PATHS.iter().find(|(forbidden, _)| under(forbidden)).map(|(_, why)| *why)
}

fn calls_macro(line: &str, name: &str) -> bool {
    line.match_indices(&format!("{name}!")).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// Whether a file is a module that its parent declares under `#[cfg(test)]`.
fn is_test(tree: &Tree, path: &str) -> bool {
    let Some((directory, file)) = path.rsplit_once('/') else { return false };
    let (parents, module) = match file.trim_end_matches(".rs") {
        "mod" => match directory.rsplit_once('/') {
            Some((above, module)) => (vec![format!("{above}/lib.rs"), format!("{above}/mod.rs"), format!("{above}.rs")], module),
            None => return false,
        },
        module => (vec![format!("{directory}/lib.rs"), format!("{directory}/mod.rs"), format!("{directory}.rs")], module),
    };
    let declares = |parent: &String| {
        let Some(code) = tree.text(parent).map(|text| Source::new(text).code) else { return false };
        let words: Vec<&str> = code.split_whitespace().collect();
        words.windows(3).any(|w| w == ["#[cfg(test)]", "mod", &format!("{module};")])
    };
    parents.iter().any(declares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(code: &str) -> Vec<String> {
        check(&Tree::from([("crates/xennet-rama/src/lib.rs", code)])).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_way_out_of_a_pure_crate_is_found() {
        for code in [
            "use std::time::SystemTime;",
            "fn f() { let now = std::time::Instant::now(); }",
            "use std::time::Instant as Clock;\nfn f() { Clock::now(); }",
            "use std::{fs, collections::BTreeMap};",
            "use std::net::TcpStream;",
            "use std::net::{SocketAddr, ToSocketAddrs};",
            "use std::net;",
            "fn f() { std::thread::sleep(d); }",
            "fn f() { std::env::var(\"X\"); }",
            "use rand::Rng;",
            "use bitcoin::secp256k1::rand::rngs::OsRng;",
            "use tokio::sync::mpsc;",
            "fn f() { println!(\"x\"); }",
        ] {
            assert_eq!(found(code).len(), 1, "{code}: {:?}", found(code));
        }
    }

    #[test]
    fn a_finding_names_the_line_and_the_way_out() {
        assert_eq!(found("//\nuse std::fs;\n"), ["crates/xennet-rama/src/lib.rs:2: uses std::fs: leave files to the daemon"]);
    }

    #[test]
    fn values_comments_and_tests_are_free() {
        for code in [
            "use std::net::{SocketAddr, IpAddr};\nuse std::time::{Duration, Instant};",
            "// std::fs would be wrong here\nconst A: &str = \"tokio::spawn\";",
            "fn f(now: Instant) -> bool { now > x }",
            "#[cfg(test)]\nmod tests { fn f() { std::fs::read(\"x\"); } }",
        ] {
            assert_eq!(found(code), Vec::<String>::new(), "{code}");
        }
    }

    #[test]
    fn a_test_module_in_its_own_file_is_free_and_another_is_not() {
        let tree = |declaration| {
            Tree::from([("crates/xennet-task/src/lib.rs", declaration), ("crates/xennet-task/src/vectors.rs", "use std::fs;")])
        };
        assert_eq!(check(&tree("#[cfg(test)]\nmod vectors;")).len(), 0);
        assert_eq!(check(&tree("mod vectors;")).len(), 1);
    }

    #[test]
    fn a_dependency_that_brings_io_is_found_but_tests_may_have_it() {
        let tree = |table| {
            let manifest = format!("[package]\nname = \"xennet-lease\"\n[{table}]\ntokio = \"1\"\n");
            Tree::from([("crates/xennet-lease/Cargo.toml", manifest.as_str())])
        };
        assert_eq!(check(&tree("dependencies")).len(), 1);
        assert_eq!(check(&tree("dev-dependencies")).len(), 0);
    }

    #[test]
    fn the_hands_may_use_everything() {
        assert_eq!(check(&Tree::from([("crates/xennet-vm/src/lib.rs", "use std::fs;")])).len(), 0);
    }
}
