//! The repository's text files, and what is said about them.
use std::{collections::BTreeMap, fmt, fs, path::Path};

use anyhow::Context;

/// Path (with '/', from the root) → text.
#[derive(Default)]
pub struct Tree {
    files: BTreeMap<String, String>,
}

/// Something to be mended: where, and what.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: String,
    /// Its line, from 1, if it is about one.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.what),
            None => write!(f, "{}: {}", self.path, self.what),
        }
    }
}

/// A finding about a whole file.
pub fn about(path: &str, what: impl Into<String>) -> Finding {
    Finding { path: path.to_owned(), line: None, what: what.into() }
}

/// A finding about one line.
pub fn at(path: &str, line: usize, what: impl Into<String>) -> Finding {
    Finding { path: path.to_owned(), line: Some(line), what: what.into() }
}

impl Tree {
    /// Reads all text files below `root`, but not what is built or kept by git.
    ///
    /// # Errors
    /// A directory or file cannot be read.
    pub fn read(root: &Path) -> anyhow::Result<Tree> {
        let mut tree = Tree::default();
        tree.walk(root, "")?;
        Ok(tree)
    }

    fn walk(&mut self, directory: &Path, prefix: &str) -> anyhow::Result<()> {
        let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() && !matches!(name.as_str(), ".git" | "target") {
                self.walk(&entry.path(), &format!("{path}/"))?;
            } else if kind.is_file()
                && let Ok(text) = fs::read_to_string(entry.path())
            {
                // What is not UTF-8 is no text: an image, a test vector in bytes.
                self.files.insert(path, text);
            }
        }
        Ok(())
    }

    /// The text of a file.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// All files, in order of their paths.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Whether there is a file or a directory of this path.
    pub fn has(&self, path: &str) -> bool {
        let directory = format!("{path}/");
        self.files.contains_key(path) || self.files.keys().any(|file| file.starts_with(&directory))
    }

    /// The manifests of the workspace's members, parsed; those that do not parse become findings.
    pub fn manifests(&self) -> (Vec<Manifest>, Vec<Finding>) {
        let mut manifests = Vec::new();
        let mut findings = Vec::new();
        for (path, text) in self.files().filter(|(path, _)| path.ends_with("Cargo.toml")) {
            match text.parse::<toml::Table>() {
                Ok(table) => manifests.push(Manifest { path: path.to_owned(), table }),
                Err(error) => findings.push(about(path, format!("is no valid TOML: {}", error.message()))),
            }
        }
        (manifests, findings)
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Tree {
    fn from(files: [(&str, &str); N]) -> Self {
        Tree { files: files.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect() }
    }
}

/// One Cargo.toml.
pub struct Manifest {
    /// Its path from the root.
    pub path: String,
    table: toml::Table,
}

/// Which of a manifest's dependency tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `[dependencies]` and `[build-dependencies]`: what ends up in the crate.
    Normal,
    /// `[dev-dependencies]`: what its tests use.
    Dev,
    /// `[workspace.dependencies]`.
    Workspace,
}

impl Manifest {
    /// The package's name; none for the workspace's root.
    pub fn package(&self) -> Option<&str> {
        self.table.get("package")?.get("name")?.as_str()
    }

    /// Whether the workspace's lints apply.
    pub fn inherits_lints(&self) -> bool {
        self.table.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
    }

    /// The names of direct dependencies, those for one platform only included.
    pub fn dependencies(&self, kind: Kind) -> Vec<&str> {
        let platforms = self.table.get("target").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::values);
        let holders: Vec<&toml::Table> = match kind {
            Kind::Workspace => self.table.get("workspace").and_then(toml::Value::as_table).into_iter().collect(),
            Kind::Normal | Kind::Dev => std::iter::once(&self.table).chain(platforms.filter_map(toml::Value::as_table)).collect(),
        };
        let tables: &[&str] = match kind {
            Kind::Normal => &["dependencies", "build-dependencies"],
            Kind::Dev => &["dev-dependencies"],
            Kind::Workspace => &["dependencies"],
        };
        let mut names = Vec::new();
        for holder in holders {
            for table in tables.iter().filter_map(|table| holder.get(*table)?.as_table()) {
                names.extend(table.keys().map(String::as_str));
            }
        }
        names
    }
}
