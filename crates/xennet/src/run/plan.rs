//! What `xennet run` was asked for, checked before anything costs money.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use xennetd::guest::{Fetch, Send};

use crate::cli::RunArgs;
use crate::commands::{check_task_file, read_task_file};
use crate::fail::Fail;
use crate::fee::Consent;

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// Which task.
    pub task: Source,
    /// What is sent.
    pub send: Vec<Send>,
    /// What is brought back.
    pub fetch: Vec<Fetch>,
    /// How long to wait for a machine.
    pub wait: Duration,
    /// Whether the announcement's fee is agreed to.
    pub consent: Consent,
    /// Whether the lease stays open.
    pub after: After,
    /// What is run.
    pub command: Vec<String>,
}

/// Where the task comes from.
#[derive(Debug)]
pub enum Source {
    /// It is to be announced.
    New {
        /// The task file's text.
        text: String,
    },
    /// It is announced already.
    Announced {
        /// Its hash, or the beginning of it.
        name: String,
    },
}

/// What happens to the lease afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It is closed and settled.
    Close,
    /// It stays open.
    Keep,
}

impl Plan {
    /// Checks what was asked for.
    pub fn check(args: RunArgs) -> Result<Plan, Fail> {
        let task = match args.task {
            None => Source::New { text: include_str!("default_task.toml").to_string() },
            Some(given) => source(given)?,
        };
        let send = args.input.iter().map(|word| send(word)).collect::<Result<Vec<_>, _>>()?;
        let fetch = args.output.iter().map(|word| fetch(word)).collect::<Result<Vec<_>, _>>()?;
        Ok(Plan {
            task,
            send,
            fetch,
            wait: Duration::from_secs(args.wait),
            after: if args.keep { After::Keep } else { After::Close },
            consent: args.consent,
            command: args.command,
        })
    }
}

fn source(given: String) -> Result<Source, Fail> {
    let path = Path::new(&given);
    let is_name = !given.is_empty() && given.len() <= 64 && given.bytes().all(|b| b.is_ascii_hexdigit());
    if path.exists() || given == "-" || !is_name {
        let text = read_task_file(path)?;
        check_task_file(&given, &text)?;
        return Ok(Source::New { text });
    }
    Ok(Source::Announced { name: given })
}

/// `FILE` or `FILE:NAME`. A file whose own name has a colon is taken whole if it is there.
fn send(word: &str) -> Result<Send, Fail> {
    let (from, name) = match word.rsplit_once(':') {
        Some((from, name)) if !Path::new(word).exists() => (PathBuf::from(from), name.to_string()),
        _ => {
            let from = PathBuf::from(word);
            let name = from.canonicalize().ok().and_then(|whole| Some(whole.file_name()?.to_str()?.to_string())).unwrap_or_default();
            (from, name)
        }
    };
    if let Err(e) = std::fs::metadata(&from) {
        return Err(Fail::new(format!("--in {word}: cannot read {}", from.display())).because(e));
    }
    Ok(Send { from, name: inside("--in", word, &name)? })
}

/// `NAME` or `NAME:LOCAL`.
fn fetch(word: &str) -> Result<Fetch, Fail> {
    let (name, to) = match word.split_once(':') {
        Some((name, to)) => (name, PathBuf::from(to)),
        None => (word, Path::new(word).file_name().map(PathBuf::from).unwrap_or_default()),
    };
    let name = inside("--out", word, name)?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
        // Better now than when the result of an hour's work has nowhere to go.
        return Err(Fail::new(format!("--out {word}: there is no directory {}", parent.display())).next("make it, or name another"));
    }
    Ok(Fetch { name, to })
}

/// A name below the job's directory, without `.` and `..`.
fn inside(flag: &str, word: &str, name: &str) -> Result<String, Fail> {
    let plain = Path::new(name).components().filter(|c| !matches!(c, Component::CurDir));
    let parts: Option<Vec<&str>> = plain.map(|c| if let Component::Normal(part) = c { part.to_str() } else { None }).collect();
    match parts {
        Some(parts) if !parts.is_empty() => Ok(parts.join("/")),
        _ => Err(Fail::new(format!("{flag} {word}: \"{name}\" is no name below the job's directory"))
            .next("use a relative name without .., such as results/out.txt")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn the_default_task_is_valid() {
        check_task_file("", include_str!("default_task.toml")).unwrap();
    }

    #[test]
    fn files_get_the_names_that_were_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.txt");
        std::fs::write(&file, "x").unwrap();
        let word = file.display().to_string();
        assert_eq!(send(&word).unwrap(), Send { from: file.clone(), name: "a.txt".into() });
        assert_eq!(send(&format!("{word}:deep/b")).unwrap(), Send { from: file, name: "deep/b".into() });
        let colon = dir.path().join("odd:name");
        std::fs::write(&colon, "x").unwrap();
        assert_eq!(send(&colon.display().to_string()).unwrap().name, "odd:name");
        // A directory's own name, however it is written.
        let dots = format!("{}/.", dir.path().display());
        assert_eq!(Some(send(&dots).unwrap().name.as_str()), dir.path().file_name().unwrap().to_str());

        assert_eq!(fetch("out/x.txt").unwrap(), Fetch { name: "out/x.txt".into(), to: "x.txt".into() });
        assert_eq!(fetch("./x:/tmp/y").unwrap(), Fetch { name: "x".into(), to: "/tmp/y".into() });
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for word in ["../x", "/etc/passwd", "a/../../b", ".", ""] {
            assert!(fetch(word).is_err(), "{word}");
        }
        assert!(fetch("x:/no/such/directory/x").unwrap_err().message().contains("there is no directory /no/such/directory"));
        assert!(send("/no/such/file").unwrap_err().message().starts_with("--in /no/such/file: cannot read"));
    }
}
