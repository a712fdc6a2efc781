//! `xennet bench`: runs the daemon's benchmarks and shows the figures.

use std::process::ExitCode;

use xennetd::bench::{Bench, BenchError, DaemonCommand, Effort, Options, Report, Section, run};

use crate::background;
use crate::cli::BenchArgs;
use crate::commands::Context;
use crate::fail::{Fail, chain};
use crate::progress::Progress;
use crate::show;
use crate::show::table::{Align, Table};

/// The exit code of a shell's own commands that Ctrl-C ended: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

/// Measures and shows. A missed target is a result like any other; only `--check` makes it an exit code.
pub async fn bench(context: &Context, args: BenchArgs) -> Result<ExitCode, Fail> {
    let which = if args.which.is_empty() { Bench::ALL.to_vec() } else { args.which };
    let program = background::program()?;
    let as_role = |role: &str| vec!["--role".into(), role.into()];
    let options = Options {
        effort: if args.quick { Effort::Quick } else { Effort::Full },
        dir: args.dir.unwrap_or_else(|| context.data_dir.clone()),
        daemon: DaemonCommand { program, publisher: as_role("publisher"), node: as_role("node") },
    };
    let progress = Progress::new(context.json);
    let report = run(&which, &options, |line| progress.doing(line)).await.map_err(|error| {
        let code = if matches!(error, BenchError::Interrupted) { INTERRUPTED } else { 1 };
        Fail::new(chain(&error)).code(code)
    })?;
    progress.done();
    show::print(context.json, &report, text)?;
    let failed = args.check && !report.missed().is_empty();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(report: &Report) -> String {
    let quick = if report.quick { ", quick: a first look" } else { "" };
    let mut out = format!("xennet {}{quick}\n{}\n", report.version, report.hardware);
    for section in &report.sections {
        out.push_str(&format!("\n{}: {}\n", section.name, section.title));
        out.push_str(&figures(section));
        for note in &section.notes {
            out.push_str(&wrapped(note));
        }
        if let Some(trouble) = &section.trouble {
            out.push_str(&wrapped(&format!("not measured: {trouble}")));
        }
    }
    let missed = report.missed();
    if !missed.is_empty() {
        out.push_str("\nmissed:\n");
        missed.iter().for_each(|line| out.push_str(&wrapped(line)));
    }
    out
}

fn figures(section: &Section) -> String {
    if section.figures.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("  FIGURE", Align::Left),
        ("VALUE", Align::Right),
        ("MIDDLE HALF", Align::Left),
        ("TARGET", Align::Left),
        ("", Align::Left),
    ]);
    for figure in &section.figures {
        table.row(vec![
            format!("  {}", figure.what),
            figure.to_string(),
            figure.middle_half(),
            figure.goal(),
            figure.verdict().to_string(),
        ]);
    }
    table.to_string()
}

/// A paragraph, indented by two, in lines that a terminal shows whole.
fn wrapped(text: &str) -> String {
    const WIDTH: usize = 98;
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            out.push('\n');
            column = 0;
        }
        out.push_str(if column == 0 { "  " } else { " " });
        out.push_str(word);
        column += 1 + length;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn a_paragraph_keeps_its_words_and_no_line_is_longer_than_a_terminal() {
        let text = "word ".repeat(60);
        let lines = wrapped(&text);
        assert!(lines.lines().all(|line| line.starts_with("  word") && line.len() <= 100), "{lines}");
        assert_eq!(lines.split_whitespace().count(), 60);
        assert_eq!(wrapped("one"), "  one\n");
    }
}
