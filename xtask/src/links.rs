//! Links in Markdown that point to a file point to one that exists.
use crate::tree::{Finding, Tree, at};

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| path.ends_with(".md")) {
        for (n, line) in text.lines().enumerate() {
            for target in targets(line) {
                let file = target.split('#').next().unwrap_or_default();
                if !file.is_empty() && !file.contains(':') && !resolve(path, file).is_some_and(|file| tree.has(&file)) {
                    findings.push(at(path, n + 1, format!("links to {target}, which does not exist")));
                }
            }
        }
    }
    findings
}

/// What stands in `](…)`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target.trim()))
}

/// A link's path from the root.
fn resolve(from: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_nowhere_is_found() {
        let tree = Tree::from([
            ("README.md", "[a](docs/a.md) [b](docs/b.md#top) [c](https://example.org/x) [d](#here) ![e](e.svg)"),
            ("docs/a.md", "[up](../README.md) [beside](a.md) [out](../../x) [dir](../docs)"),
        ]);
        let found: Vec<String> = check(&tree).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "README.md:1: links to docs/b.md#top, which does not exist",
                "README.md:1: links to e.svg, which does not exist",
                "docs/a.md:1: links to ../../x, which does not exist",
            ]
        );
    }
}
