//! What was measured, beside what was to be reached.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::hardware::Hardware;
use super::statistics::Spread;

/// Everything one run of the benchmarks found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The program's version.
    pub version: String,
    /// Whether less was measured, for a first look.
    pub quick: bool,
    /// Where it was measured.
    pub hardware: Hardware,
    /// Each benchmark in its turn.
    pub sections: Vec<Section>,
}

impl Report {
    /// The figures that were to reach something and did not, and the benchmarks that could not be done.
    pub fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for section in &self.sections {
            let figures = section.figures.iter().filter(|figure| figure.is_met() == Some(false));
            missed.extend(
                figures.map(|figure| format!("{}: {} is {figure}, but the target is {}", section.name, figure.what, figure.goal())),
            );
            missed.extend(section.trouble.iter().map(|trouble| format!("{}: {trouble}", section.name)));
        }
        missed
    }
}

/// One benchmark's figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// Its name, as given to `xennet bench`.
    pub name: String,
    /// What it is about, one line.
    pub title: String,
    /// What was measured, in the order it is read.
    pub figures: Vec<Figure>,
    /// What bounds it, and what else belongs to the figures.
    pub notes: Vec<String>,
    /// Why it could not be done, with the remedy. The figures before that stand.
    pub trouble: Option<String>,
    /// How long it took, milliseconds.
    pub took_ms: u64,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is, e.g. `sign a payment`.
    pub what: String,
    /// The value, in `unit`.
    pub value: f64,
    /// What it counts.
    pub unit: Unit,
    /// The middle half of the measurements, if there were several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
    /// What was to be reached, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Whether it was reached; left out where there is no target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A rate or a time divided by another of the same run.
    Ratio,
    /// So many each second.
    PerSecond,
    /// Bytes each second.
    BytesPerSecond,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Virtual bytes of a Bitcoin transaction (BIP 141).
    VirtualBytes,
    /// A plain number.
    Count,
}

/// What a figure is to reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Not less than this.
    AtLeast(f64),
    /// Not more than this.
    AtMost(f64),
}

impl Figure {
    /// One value.
    pub fn new(what: impl Into<String>, unit: Unit, value: f64) -> Figure {
        Figure { what: what.into(), value, unit, spread: None, target: None, met: None }
    }

    /// The median of several.
    pub fn median(what: impl Into<String>, unit: Unit, spread: Spread) -> Figure {
        Figure { spread: Some(spread), ..Figure::new(what, unit, spread.median) }
    }

    /// The same, to be judged by `target`.
    #[must_use]
    pub fn to_reach(self, target: Target) -> Figure {
        let met = match target {
            Target::AtLeast(least) => self.value >= least,
            Target::AtMost(most) => self.value <= most,
        };
        Figure { target: Some(target), met: Some(met), ..self }
    }

    /// Whether it reached its target; `None` if it has none.
    pub fn is_met(&self) -> Option<bool> {
        self.met
    }

    /// The middle half in words; empty for a single value.
    pub fn middle_half(&self) -> String {
        match self.spread {
            Some(spread) if spread.samples > 1 => {
                format!("{} … {}", shown(spread.low, self.unit), shown(spread.high, self.unit))
            }
            _ => String::new(),
        }
    }

    /// The target in words; empty if there is none.
    pub fn goal(&self) -> String {
        match self.target {
            Some(Target::AtLeast(least)) => format!("≥ {}", shown(least, self.unit)),
            Some(Target::AtMost(most)) => format!("≤ {}", shown(most, self.unit)),
            None => String::new(),
        }
    }

    /// The judgement in words; empty if there is none.
    pub fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        }
    }
}

/// The value with its unit.
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.value, self.unit))
    }
}

/// Three digits are all that a shared machine can vouch for.
fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Ratio => format!("{value:.3} ×"),
        Unit::PerSecond => with_prefix(value, "/s"),
        Unit::BytesPerSecond => with_prefix(value, "B/s"),
        Unit::Microseconds => format!("{} µs", digits(value)),
        Unit::Milliseconds => format!("{} ms", digits(value)),
        Unit::Seconds => format!("{} s", digits(value)),
        Unit::Bytes => format!("{value:.0} B"),
        Unit::VirtualBytes => format!("{value:.0} vB"),
        Unit::Count => digits(value),
    }
}

fn with_prefix(value: f64, unit: &str) -> String {
    let (scaled, prefix) = match value {
        value if value >= 1e9 => (value / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e3 => (value / 1e3, "k"),
        value => (value, ""),
    };
    format!("{} {prefix}{unit}", digits(scaled))
}

/// Three digits, or all of them before the point.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 || size == 0.0 => 2,
        _ => 3,
    };
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn section(figures: Vec<Figure>, trouble: Option<&str>) -> Section {
        Section { name: "payments".into(), title: String::new(), figures, notes: Vec::new(), trouble: trouble.map(Into::into), took_ms: 1 }
    }

    fn report(sections: Vec<Section>) -> Report {
        Report { version: "1".into(), quick: false, hardware: Hardware::default(), sections }
    }

    #[test]
    fn a_figure_at_its_target_meets_it_and_one_beside_it_does_not() {
        let met = |value, target| Figure::new("x", Unit::Ratio, value).to_reach(target).is_met().unwrap();
        assert!(met(0.9, Target::AtLeast(0.9)));
        assert!(!met(0.899_999, Target::AtLeast(0.9)));
        assert!(met(10.0, Target::AtMost(10.0)));
        assert!(!met(10.000_1, Target::AtMost(10.0)));
        assert!(!met(f64::NAN, Target::AtLeast(0.0)), "what is no number meets nothing");
    }

    #[test]
    fn a_miss_and_a_benchmark_that_could_not_be_done_are_both_named() {
        let slow = Figure::new("sign a payment", Unit::Ratio, 0.8).to_reach(Target::AtLeast(0.9));
        let fine = Figure::new("check a payment", Unit::Ratio, 0.95).to_reach(Target::AtLeast(0.9));
        let plain = Figure::new("signatures", Unit::PerSecond, 30_000.0);
        let missed = report(vec![section(vec![slow, fine, plain], None), section(vec![], Some("sshd is not installed"))]).missed();
        assert_eq!(missed, ["payments: sign a payment is 0.800 ×, but the target is ≥ 0.900 ×", "payments: sshd is not installed"]);
    }

    #[test]
    fn three_digits_are_shown_with_the_unit() {
        let text = |unit, value| Figure::new("x", unit, value).to_string();
        assert_eq!(text(Unit::PerSecond, 28_112.0), "28.1 k/s");
        assert_eq!(text(Unit::PerSecond, 9_520_000.0), "9.52 M/s");
        assert_eq!(text(Unit::PerSecond, 212.4), "212 /s");
        assert_eq!(text(Unit::BytesPerSecond, 312e6), "312 MB/s");
        assert_eq!(text(Unit::Microseconds, 0.4321), "0.432 µs");
        assert_eq!(text(Unit::Milliseconds, 4_321.9), "4322 ms");
        assert_eq!(text(Unit::VirtualBytes, 411.0), "411 vB");
    }

    #[test]
    fn json_says_value_unit_target_and_verdict() {
        let figure = Figure::new("sign a payment", Unit::Ratio, 0.97).to_reach(Target::AtLeast(0.9));
        let json = serde_json::to_value(&figure).unwrap();
        let wanted =
            serde_json::json!({"what": "sign a payment", "value": 0.97, "unit": "ratio", "target": {"at_least": 0.9}, "met": true});
        assert_eq!(json, wanted);
        assert_eq!(serde_json::from_value::<Figure>(json).unwrap(), figure);
    }
}
