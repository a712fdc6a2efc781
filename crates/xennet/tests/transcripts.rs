//! The transcripts in `tests/transcripts` are run and compared: they are the command line's documentation and its tests.
//!
//! In a block ```` ```console ```` a line `$ COMMAND` is run by `sh`; the lines after it are what it writes, stdout and stderr
//! together; a last line `? N` is its exit code, 0 if there is none. `[..]` stands for any text within a line, a line `...` for any
//! lines. `xennet` is the program just built; commands run in an empty directory, with `XENNET_DATADIR` a fresh one.
//!
//! `XENNET_TRANSCRIPTS=write cargo test --release -p xennet --test transcripts` writes what is found over what is expected, to be
//! read as a diff.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::path::{Path, PathBuf};
use std::process::Command;

/// A command with what it should write and end with.
struct Step {
    /// The command's line, from 1; its output begins with the next.
    line: usize,
    /// How many lines of output and exit code there are.
    length: usize,
    command: String,
    expected: Vec<String>,
    code: i32,
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (line, content) in (1..).zip(text.lines()) {
        match content {
            "```console" => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            _ => {
                if let Some(command) = content.strip_prefix("$ ") {
                    steps.push(Step { line, length: 0, command: command.into(), expected: Vec::new(), code: 0 });
                    continue;
                }
                let step = steps.last_mut().expect("a command before its output");
                step.length += 1;
                match content.strip_prefix("? ") {
                    Some(code) => step.code = code.parse().expect("a number"),
                    None => step.expected.push(content.into()),
                }
            }
        }
    }
    steps
}

/// Whether a line fits: `[..]` takes any text.
fn line_fits(expected: &str, found: &str) -> bool {
    let mut parts = expected.split("[..]");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = found.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Whether lines fit: `...` takes any lines.
fn lines_fit(expected: &[String], found: &[&str]) -> bool {
    match expected.split_first() {
        None => found.is_empty(),
        Some((any, rest)) if any == "..." => (0..=found.len()).any(|skipped| lines_fit(rest, &found[skipped..])),
        Some((line, rest)) => found.split_first().is_some_and(|(first, others)| line_fits(line, first) && lines_fit(rest, others)),
    }
}

/// Runs a transcript against the daemon, if any, of `data_dir`.
fn play(name: &str, data_dir: &Path) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let here = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_xennet")).parent().unwrap();
    let mut path_variable = std::ffi::OsString::from(programs);
    path_variable.push(":");
    path_variable.push(std::env::var_os("PATH").unwrap());
    let steps = steps(&text);
    assert!(!steps.is_empty(), "{name} has no commands");
    let mut failures = Vec::new();
    let mut wrong = Vec::new();
    for step in &steps {
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!("exec 2>&1; {}", step.command))
            .current_dir(here.path())
            .env("PATH", &path_variable)
            .env("XENNET_DATADIR", data_dir)
            .env("COLUMNS", "100")
            .output()
            .unwrap();
        let written = String::from_utf8_lossy(&output.stdout).replace(&data_dir.display().to_string(), "DATADIR");
        let found: Vec<&str> = written.lines().map(str::trim_end).collect();
        let code = output.status.code().unwrap_or(-1);
        if lines_fit(&step.expected, &found) && code == step.code {
            continue;
        }
        failures.push(format!(
            "{}:{}: $ {}\nexpected, with exit code {}:\n{}\nfound, with exit code {code}:\n{}\n",
            path.display(),
            step.line,
            step.command,
            step.code,
            step.expected.join("\n"),
            found.join("\n")
        ));
        let mut right: Vec<String> = found.iter().map(ToString::to_string).collect();
        right.extend((code != 0).then(|| format!("? {code}")));
        wrong.push((step.line..step.line + step.length, right));
    }
    if std::env::var_os("XENNET_TRANSCRIPTS").is_some_and(|what| what == "write") {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (range, right) in wrong.into_iter().rev() {
            lines.splice(range, right);
        }
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        return;
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    (dir, data_dir)
}

#[test]
fn help() {
    play("help.md", &fresh().1);
}

#[test]
fn errors_without_a_daemon() {
    let (_kept, data_dir) = fresh();
    play("alone.md", &data_dir);
    assert!(!data_dir.exists(), "nothing was started or written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publishers_day() {
    let (_kept, data_dir) = fresh();
    std::fs::create_dir(&data_dir).unwrap();
    fixture::serve(&data_dir);
    let playing = data_dir.clone();
    tokio::task::spawn_blocking(move || play("publisher.md", &playing)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn json() {
    let (_kept, data_dir) = fresh();
    std::fs::create_dir(&data_dir).unwrap();
    fixture::serve(&data_dir);
    let playing = data_dir.clone();
    tokio::task::spawn_blocking(move || play("json.md", &playing)).await.unwrap();
}

#[test]
fn a_pattern_fits_what_it_should() {
    assert!(line_fits("a [..] b [..]", "a x b y"));
    assert!(line_fits("[..]", ""));
    assert!(!line_fits("a[..]b", "abc"));
    assert!(!line_fits("a", "ab"));
    let pattern = ["a".to_string(), "...".into(), "z".into()];
    assert!(lines_fit(&pattern, &["a", "b", "c", "z"]));
    assert!(lines_fit(&pattern, &["a", "z"]));
    assert!(!lines_fit(&pattern, &["a", "b"]));
}
