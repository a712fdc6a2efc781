//! Words by which something gives itself away as unfinished, and names that say nothing.
use crate::{
    rust::{Source, paths},
    tree::{Finding, Tree, about, at},
};

/// In prose: comments, strings, documents, scripts.
const PHRASES: &[&str] = &[
    "stub",
    "stubbed",
    "simplified",
    "for now",
    "placeholder",
    "in a real system",
    "in a real implementation",
    "todo",
    "fixme",
    "xxx",
    "not yet implemented",
    "/home/",
    "/root/.c",
];

/// In code.
const IDENTIFIERS: &[&str] = &["stub", "mock", "placeholder", "todo", "unimplemented", "simplified"];

/// Names of files and folders that collect what has no place.
const NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc"];

/// The one file that must name them.
const THIS: &str = "xtask/src/words.rs";

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| *path != THIS) {
        if let Some(name) = path.trim_end_matches(".rs").split('/').find(|part| NAMES.contains(part)) {
            findings.push(about(path, format!("`{name}` says nothing: name it after what it is about")));
        }
        match path.rsplit_once('.').map(|(_, extension)| extension) {
            Some("rs") => {
                let source = Source::new(text);
                findings.extend(phrases(path, &source.prose));
                findings.extend(identifiers(path, &source.code));
            }
            Some("md" | "sh" | "yml" | "yaml" | "qml" | "py") => findings.extend(phrases(path, text)),
            // Scripts without an extension, such as ./demo.
            None if text.starts_with("#!") => findings.extend(phrases(path, text)),
            _ => {}
        }
    }
    findings
}

fn phrases(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.to_lowercase();
        for phrase in PHRASES.iter().filter(|phrase| has_phrase(&line, phrase)) {
            findings.push(at(path, n + 1, format!("says \"{phrase}\": finish it, or say what is so and why")));
        }
    }
    findings
}

/// Whole words only: "for nowhere" is no "for now".
fn has_phrase(line: &str, phrase: &str) -> bool {
    let inside_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let is_path = phrase.starts_with('/');
    line.match_indices(phrase).any(|(at, _)| {
        let (before, after) = (line[..at].chars().last(), line[at + phrase.len()..].chars().next());
        is_path || (!inside_word(before) && !inside_word(after))
    })
}

fn identifiers(path: &str, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, used) in paths(code) {
        let parts = used.split([':', '_']).flat_map(camel_parts).map(str::to_lowercase).collect::<Vec<_>>();
        for word in IDENTIFIERS.iter().filter(|word| parts.iter().any(|part| part == *word)) {
            findings.push(at(path, line, format!("`{used}` says \"{word}\": make it the thing itself")));
        }
        if used == "ignore" && code.lines().nth(line - 1).is_some_and(|text| text.trim_start().starts_with("#[ignore")) {
            findings.push(at(path, line, "a test that is ignored proves nothing: make it run, or remove it"));
        }
    }
    findings
}

/// "MockChain" → "Mock", "Chain".
fn camel_parts(word: &str) -> Vec<&str> {
    let mut starts: Vec<usize> = word.char_indices().filter(|(at, c)| *at == 0 || c.is_uppercase()).map(|(at, _)| at).collect();
    starts.push(word.len());
    starts.windows(2).map(|pair| &word[pair[0]..pair[1]]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(&Tree::from([(path, text)])).len()
    }

    #[test]
    fn each_phrase_is_found_in_comments_strings_documents_and_scripts() {
        for phrase in PHRASES {
            assert_eq!(found("a.rs", &format!("let a = 1; // {phrase}.")), 1, "{phrase}");
            assert_eq!(found("a.rs", &format!("/// It is {}\nfn f() {{}}", phrase.to_uppercase())), 1, "{phrase}");
            assert_eq!(found("a.rs", &format!("let a = \"{phrase}\";")), 1, "{phrase}");
            assert_eq!(found("A.md", &format!("This is {phrase}.")), 1, "{phrase}");
            assert_eq!(found("demo", &format!("#!/bin/sh\n# {phrase}\n")), 1, "{phrase}");
        }
    }

    #[test]
    fn each_identifier_is_found_in_code() {
        for word in IDENTIFIERS {
            assert_eq!(found("a.rs", &format!("fn {word}_chain() {{}}")), 1, "{word}");
        }
        assert_eq!(found("a.rs", "struct MockChain;"), 1);
        assert_eq!(found("a.rs", "fn f() { todo!() }"), 1);
    }

    #[test]
    fn an_ignored_test_is_found() {
        assert_eq!(found("a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}"), 1);
        assert_eq!(found("a.rs", "fn f() { Judgement::Ignore; x.ignore(); }"), 0);
    }

    #[test]
    fn a_name_that_says_nothing_is_found() {
        for path in ["crates/x/src/utils.rs", "crates/x/src/common/mod.rs", "crates/x/tests/helpers.rs"] {
            assert_eq!(found(path, ""), 1, "{path}");
        }
    }

    #[test]
    fn ordinary_words_pass() {
        assert_eq!(found("a.rs", "for now in times { stubborn(now) } // a stubborn peer, for nowhere else"), 0);
        assert_eq!(found("Cargo.toml", "todo = \"warn\""), 0);
        assert_eq!(found("LICENSE", "for now"), 0);
    }
}
