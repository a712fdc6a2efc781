//! Every direct dependency is used, has a line in docs/dependencies.md that says why it is there, and every line has its dependency.
use std::collections::{BTreeMap, BTreeSet};

use crate::{
    rust::{Source, paths},
    tree::{Finding, Kind, Manifest, Tree, about, at},
};

const LIST: &str = "docs/dependencies.md";
/// A reason shorter than this is none.
const SHORTEST_REASON: usize = 15;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let Some(list) = tree.text(LIST) else { return vec![about(LIST, "is missing")] };
    let (manifests, mut findings) = tree.manifests();
    let ours: Vec<&str> = manifests.iter().filter_map(|manifest| manifest.package()).collect();
    let mut used = BTreeMap::new();
    for manifest in &manifests {
        for kind in [Kind::Normal, Kind::Dev, Kind::Workspace] {
            for name in manifest.dependencies(kind).into_iter().filter(|name| !ours.contains(name)) {
                used.entry(name).or_insert(manifest.path.as_str());
            }
        }
    }
    let listed: BTreeMap<&str, (usize, &str)> =
        list.lines().enumerate().filter_map(|(n, line)| entry(line).map(|(name, why)| (name, (n + 1, why)))).collect();
    for (name, path) in &used {
        if !listed.contains_key(name) {
            findings.push(about(path, format!("depends on {name}, of which {LIST} does not say why")));
        }
    }
    for (name, (line, why)) in listed {
        if !used.contains_key(name) {
            findings.push(at(LIST, line, format!("{name} is no dependency any more: remove its line")));
        }
        if why.len() < SHORTEST_REASON {
            findings.push(at(LIST, line, format!("says too little about why {name} is here")));
        }
    }
    findings.extend(manifests.iter().flat_map(|manifest| unused(tree, manifest)));
    findings
}

/// Dependencies of which a crate's sources, tests included, name nothing.
fn unused(tree: &Tree, manifest: &Manifest) -> Vec<Finding> {
    let directory = manifest.path.trim_end_matches("Cargo.toml");
    let sources = tree.files().filter(|(path, _)| path.starts_with(directory) && path.ends_with(".rs"));
    let code: Vec<String> = sources.map(|(_, text)| Source::new(text).code).collect();
    let roots: BTreeSet<String> =
        code.iter().flat_map(|code| paths(code)).filter_map(|(_, path)| path.split("::").next().map(str::to_owned)).collect();
    let idle = |name: &&str| !roots.contains(&name.replace('-', "_"));
    let finding = |name| about(&manifest.path, format!("depends on {name} but uses nothing of it"));
    [Kind::Normal, Kind::Dev].into_iter().flat_map(|kind| manifest.dependencies(kind)).filter(idle).map(finding).collect()
}

/// The name and the reason in a table's line: "| `name` | reason |".
fn entry(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("| `")?.split_once("` |")?;
    Some((name, rest.trim().trim_end_matches('|').trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "[workspace.dependencies]\nlibp2p = \"1\"\nxennet-task = { path = \"crates/xennet-task\" }\n";
    const MANIFEST: &str = "crates/xennet-task/Cargo.toml";
    const MEMBER: &str = "[package]\nname = \"xennet-task\"\n[dev-dependencies]\nproptest = \"1\"\n";

    fn findings(list: &str) -> Vec<String> {
        let tree =
            Tree::from([("Cargo.toml", ROOT), (MANIFEST, MEMBER), ("crates/xennet-task/src/lib.rs", "use proptest::*;"), (LIST, list)]);
        check(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_complete_list_passes() {
        let list = "| crate | why |\n| --- | --- |\n| `libp2p` | the overlay's protocols |\n| `proptest` | laws tested on random input |\n";
        assert_eq!(findings(list), Vec::<String>::new());
    }

    #[test]
    fn a_missing_a_stale_and_an_empty_reason_are_found() {
        let found = findings("| `libp2p` | net |\n| `serde` | was used for something once |\n");
        assert_eq!(
            found,
            [
                "crates/xennet-task/Cargo.toml: depends on proptest, of which docs/dependencies.md does not say why",
                "docs/dependencies.md:1: says too little about why libp2p is here",
                "docs/dependencies.md:2: serde is no dependency any more: remove its line",
            ]
        );
    }

    #[test]
    fn a_dependency_of_which_nothing_is_used_is_found() {
        let list = "| `proptest` | laws tested on random input |\n";
        for (code, count) in [("use proptest::prelude::*;", 0), ("fn f() { proptest::run(); }", 0), ("// use proptest::*;\nfn f() {}", 1)] {
            let tree = Tree::from([(MANIFEST, MEMBER), ("crates/xennet-task/tests/laws.rs", code), (LIST, list)]);
            assert_eq!(check(&tree).len(), count, "{code}");
        }
    }

    #[test]
    fn a_missing_list_is_found() {
        assert_eq!(check(&Tree::from([("Cargo.toml", ROOT)])).len(), 1);
    }
}
