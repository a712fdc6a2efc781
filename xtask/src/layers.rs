//! Which crate may depend on which: the drawing of ARCHITECTURE.md as a table.
use crate::tree::{Finding, Kind, Tree, about};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Words,
    Judgement,
    Flow,
    Hands,
    Daemon,
    App,
    /// Part of neither the daemon nor an app: it may use none of our crates.
    Apart,
}

const CRATES: &[(&str, Layer)] = &[
    ("xennet-identity", Layer::Words),
    ("xennet-task", Layer::Words),
    ("xennet-market", Layer::Judgement),
    ("xennet-meter", Layer::Judgement),
    ("xennet-rama", Layer::Judgement),
    ("xennet-lease", Layer::Flow),
    ("xennet-overlay", Layer::Hands),
    ("xennet-tunnel", Layer::Hands),
    ("xennet-vm", Layer::Hands),
    ("xennet-chain", Layer::Hands),
    ("xennet-gateway", Layer::Hands),
    ("xennetd", Layer::Daemon),
    ("xennet", Layer::App),
    ("xennet-qt", Layer::App),
    ("xentube", Layer::App),
    ("xennet-probe", Layer::Hands),
    ("xtask", Layer::Apart),
];

fn layer(name: &str) -> Option<Layer> {
    CRATES.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

fn may_use(user: Layer) -> &'static [Layer] {
    match user {
        Layer::Words => &[Layer::Words],
        Layer::Judgement => &[Layer::Words, Layer::Judgement],
        Layer::Flow => &[Layer::Words, Layer::Judgement],
        // Not even another hand: what joins two of them is a decision, and so the daemon's.
        Layer::Hands => &[Layer::Words],
        Layer::Daemon => &[Layer::Words, Layer::Judgement, Layer::Flow, Layer::Hands],
        // Apps see the daemon's public face and nothing behind it.
        Layer::App => &[Layer::Daemon],
        Layer::Apart => &[],
    }
}

pub fn check(tree: &Tree) -> Vec<Finding> {
    let (manifests, mut findings) = tree.manifests();
    for manifest in &manifests {
        let Some(name) = manifest.package() else { continue };
        if !manifest.inherits_lints() {
            findings.push(about(&manifest.path, "lacks `[lints] workspace = true`, so the workspace's lints do not hold here"));
        }
        let Some(user) = layer(name) else {
            findings.push(about(&manifest.path, format!("{name} stands in no layer: give it one in xtask/src/layers.rs")));
            continue;
        };
        for used in manifest.dependencies(Kind::Normal) {
            if let Some(below) = layer(used)
                && !may_use(user).contains(&below)
            {
                findings.push(about(
                    &manifest.path,
                    format!("{name} ({user:?}) depends on {used} ({below:?}); it may use {:?}", may_use(user)),
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_of(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n{rest}")
    }

    fn findings(name: &str, dependency: &str) -> usize {
        let manifest = crate_of(name, &format!("[dependencies]\n{dependency}.workspace = true\n"));
        check(&Tree::from([("crates/x/Cargo.toml", manifest.as_str())])).len()
    }

    #[test]
    fn dependencies_that_point_down_pass() {
        for (name, used) in [
            ("xennet-task", "xennet-identity"),
            ("xennet-lease", "xennet-rama"),
            ("xennet-chain", "xennet-identity"),
            ("xennetd", "xennet-vm"),
            ("xennet", "xennetd"),
            ("xennet-overlay", "libp2p"),
        ] {
            assert_eq!(findings(name, used), 0, "{name} → {used}");
        }
    }

    #[test]
    fn dependencies_that_point_up_or_sideways_are_found() {
        for (name, used) in [
            ("xennet-identity", "xennet-lease"),
            ("xennet-market", "xennet-chain"),
            ("xennet-chain", "xennet-rama"),
            ("xennet-vm", "xennet-tunnel"),
            ("xennet-lease", "xennet-overlay"),
            ("xennet", "xennet-rama"),
            ("xennet-probe", "xennet-meter"),
            ("xtask", "xennet-task"),
        ] {
            assert_eq!(findings(name, used), 1, "{name} → {used}");
        }
    }

    #[test]
    fn build_and_platform_dependencies_count_too() {
        for table in ["build-dependencies", "target.'cfg(unix)'.dependencies"] {
            let manifest = crate_of("xennet-vm", &format!("[{table}]\nxennet-rama = \"1\"\n"));
            assert_eq!(check(&Tree::from([("crates/x/Cargo.toml", manifest.as_str())])).len(), 1, "{table}");
        }
    }

    #[test]
    fn a_crate_without_layer_or_lints_or_with_a_broken_manifest_is_found() {
        assert_eq!(check(&Tree::from([("crates/x/Cargo.toml", crate_of("xennet-new", "").as_str())])).len(), 1);
        assert_eq!(check(&Tree::from([("crates/x/Cargo.toml", "[package]\nname = \"xennet-vm\"\n")])).len(), 1);
        assert_eq!(check(&Tree::from([("crates/x/Cargo.toml", "[package\n")])).len(), 1);
    }
}
