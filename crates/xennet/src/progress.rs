//! What is going on: lines that stay, and one that changes. On a terminal with a spinner or a bar, elsewhere plain lines.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use xennetd::control::{Event, MiningView, What};

use crate::show::{describe, units};

/// Where there is no terminal: time between two lines about the same thing, and how long a thing that is measured lasts before
/// it is worth a line.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
const PLAIN_AFTER: Duration = Duration::from_secs(2);

/// Shows progress on stderr.
#[derive(Debug)]
pub struct Progress {
    way: Way,
    begun: Instant,
    /// The last changing line that was printed, and when.
    last: RefCell<(String, Instant)>,
    /// The thing measured now, and since when.
    begun_with: RefCell<(String, Instant)>,
    /// Whether the bar is one with a length.
    measured: Cell<bool>,
}

#[derive(Debug)]
enum Way {
    /// A terminal.
    Bar(ProgressBar),
    /// No terminal.
    Lines,
    /// JSON: events as they are, nothing else.
    Json,
}

impl Progress {
    /// For this stderr.
    pub fn new(json: bool) -> Progress {
        let way = if json {
            Way::Json
        } else if io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar.set_style(spinner());
            Way::Bar(bar)
        } else {
            Way::Lines
        };
        let nothing = || RefCell::new((String::new(), Instant::now()));
        Progress { way, begun: Instant::now(), last: nothing(), begun_with: nothing(), measured: Cell::new(false) }
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        self.begun_with.borrow_mut().0.clear();
        match &self.way {
            Way::Bar(bar) => bar.println(format!("{} {line}", self.elapsed())),
            Way::Lines => eprintln!("{} {line}", self.elapsed()),
            Way::Json => {}
        }
    }

    /// What is being done right now.
    pub fn doing(&self, line: &str) {
        self.begun_with.borrow_mut().0.clear();
        match &self.way {
            Way::Bar(bar) => {
                if self.measured.replace(false) {
                    bar.set_style(spinner());
                }
                bar.set_message(line.to_string());
            }
            Way::Lines => self.plain(line),
            Way::Json => {}
        }
    }

    /// What is being done right now, of which so much is done.
    pub fn measured(&self, line: &str, done: u64, total: u64) {
        match &self.way {
            Way::Bar(bar) => {
                if !self.measured.replace(true) {
                    bar.set_style(gauge());
                }
                bar.set_length(total.max(1));
                bar.set_position(done.min(total));
                bar.set_message(line.to_string());
            }
            Way::Lines => {
                let since = self.since(line);
                if since.elapsed() >= PLAIN_AFTER {
                    self.plain(&format!("{line} ({} %)", done.saturating_mul(100) / total.max(1)));
                }
            }
            Way::Json => {}
        }
    }

    /// Mining, with its estimate.
    pub fn mining(&self, view: &MiningView) {
        let line = format!(
            "mining the {}'s identity: {} of about {} hashes, {}/s on {} threads, about {} on average",
            view.role,
            units::count(view.hashes),
            units::count(view.expected_hashes),
            units::count(view.hashes_per_s),
            view.threads,
            units::seconds(view.expected_s)
        );
        self.measured(&line, view.hashes, view.expected_hashes);
    }

    /// An event of the daemon, in the way that suits it.
    pub fn event(&self, event: &Event) {
        if let Way::Json = self.way {
            if let Ok(line) = serde_json::to_string(event) {
                eprintln!("{line}");
            }
            return;
        }
        match &event.what {
            What::Mining(view) if !view.found => self.mining(view),
            What::Working { hashes, expected_hashes } => {
                let line =
                    format!("working on the announcement: {} of about {} hashes", units::count(*hashes), units::count(*expected_hashes));
                self.measured(&line, *hashes, *expected_hashes);
            }
            What::Image { step, done, total } if *total > 0 => self.measured(&format!("guest image: {step}"), *done, *total),
            What::Boot { .. } | What::Benchmark { figures: None, .. } | What::Image { .. } | What::Paid { .. } => {
                if let Some(line) = describe(event) {
                    self.doing(&line);
                }
            }
            _ => {
                if let Some(line) = describe(event) {
                    self.say(&line);
                }
            }
        }
    }

    /// Lets a job write to the terminal without the changing line in its way.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.way {
            Way::Bar(bar) => bar.suspend(write),
            _ => write(),
        }
    }

    /// Takes the changing line away.
    pub fn done(&self) {
        if let Way::Bar(bar) = &self.way {
            bar.finish_and_clear();
        }
    }

    /// When the thing that this line is about was first heard of.
    fn since(&self, line: &str) -> Instant {
        let mut begun = self.begun_with.borrow_mut();
        if kind(&begun.0) != kind(line) {
            *begun = (line.to_string(), Instant::now());
        }
        begun.1
    }

    fn plain(&self, line: &str) {
        let mut last = self.last.borrow_mut();
        if kind(&last.0) != kind(line) || last.1.elapsed() >= PLAIN_EVERY {
            *last = (line.to_string(), Instant::now());
            // A stderr that is gone has nobody to tell.
            let _ = writeln!(io::stderr(), "{} {line}", self.elapsed());
        }
    }

    fn elapsed(&self) -> String {
        let tenths = self.begun.elapsed().as_millis() / 100;
        format!("[{:>4}.{} s]", tenths / 10, tenths % 10)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done();
    }
}

/// Lines about the same thing begin with the same two words.
fn kind(line: &str) -> String {
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn gauge() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} [{bar:24}] {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}
