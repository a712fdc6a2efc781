//! `xennet bench`: runs the daemon's benchmarks and shows the figures.

use std::process::ExitCode;

use xennetd::bench::{Bench, DaemonCommand, Effort, Hardware, Options, Report, Section, run};

use crate::background;
use crate::cli::BenchArgs;
use crate::commands::Context;
use crate::fail::Fail;
use crate::progress::Progress;
use crate::show;
use crate::show::table::{Align, Table};

/// Measures and shows; exits with 1 if a target was missed.
pub async fn bench(context: &Context, args: BenchArgs) -> Result<ExitCode, Fail> {
    let which = if args.which.is_empty() { Bench::ALL.to_vec() } else { args.which };
    let program = background::program()?;
    let as_role = |role: &str| vec!["--role".into(), role.into()];
    let options = Options {
        effort: if args.quick { Effort::Quick } else { Effort::Full },
        dir: args.dir.unwrap_or_else(std::env::temp_dir),
        daemon: DaemonCommand { program, publisher: as_role("publisher"), node: as_role("node") },
    };
    let progress = Progress::new(context.json);
    let report = run(&which, &options, |line| progress.doing(line)).await.map_err(|e| Fail::new(crate::fail::chain(&e)))?;
    progress.done();
    show::print(context.json, &report, text)?;
    Ok(if report.missed().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(report: &Report) -> String {
    let Hardware { cpu, cores, memory_mib, kernel, kvm, load_before, .. } = &report.hardware;
    let mut out = format!(
        "xennet {}{}\n{cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}, KVM {kvm}, load {load_before:.1}\n",
        report.version,
        if report.quick { ", quick" } else { "" }
    );
    for section in &report.sections {
        out.push_str(&format!("\n{}: {}\n", section.name, section.title));
        out.push_str(&figures(section));
        for note in &section.notes {
            out.push_str(&format!("  {note}\n"));
        }
        if let Some(trouble) = &section.trouble {
            out.push_str(&format!("  not measured: {trouble}\n"));
        }
    }
    let missed = report.missed();
    if !missed.is_empty() {
        out.push_str(&format!("\nmissed:\n  {}\n", missed.join("\n  ")));
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
