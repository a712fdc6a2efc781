//! Sizes, speeds and durations as people write them: a number and its unit, `512 MiB`, `1.5 h`.

/// What a number with a unit measures, and which units it may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measure {
    /// For messages: "a size".
    pub(super) what: &'static str,
    /// What is right.
    pub(super) example: &'static str,
    /// The unit of the result.
    pub(super) base: &'static str,
    units: &'static [(&'static str, u128)],
    /// How many of what the factors count make one of the base unit.
    per_base: u128,
    rounding: Rounding,
}

/// What becomes of a fraction of the base unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rounding {
    /// A machine must have at least so much.
    Up,
    /// It is refused.
    Refused,
}

const SIZE_UNITS: &[(&str, u128)] =
    &[("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000)];

pub(super) const SIZE: Measure =
    Measure { what: "a size", example: "512 MiB", base: "MiB", units: SIZE_UNITS, per_base: 1 << 20, rounding: Rounding::Up };

pub(super) const SPEED: Measure = Measure {
    what: "a speed",
    example: "100 MB/s",
    base: "MB/s",
    units: &[("MB/s", 1), ("GB/s", 1_000)],
    per_base: 1,
    rounding: Rounding::Up,
};

pub(super) const BANDWIDTH: Measure = Measure {
    what: "a bandwidth",
    example: "10 Mbit/s",
    base: "kbit/s",
    units: &[("kbit/s", 1), ("Mbit/s", 1_000), ("Gbit/s", 1_000_000)],
    per_base: 1,
    rounding: Rounding::Up,
};

pub(super) const CLOCK: Measure = Measure {
    what: "a clock frequency",
    example: "1.5 GHz",
    base: "MHz",
    units: &[("MHz", 1), ("GHz", 1_000)],
    per_base: 1,
    rounding: Rounding::Up,
};

pub(super) const DURATION: Measure = Measure {
    what: "a duration",
    example: "10 min",
    base: "s",
    units: &[("s", 1), ("min", 60), ("h", 3_600), ("d", 86_400)],
    per_base: 1,
    rounding: Rounding::Refused,
};

/// A measured number: how many base units, and on which side of zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) negative: bool,
    pub(super) amount: u64,
}

impl Measure {
    /// Reads a number and its unit. The error says what is wrong, to be put after the value.
    pub(super) fn read(&self, text: &str) -> Result<Measured, String> {
        let trimmed = text.trim();
        let (negative, unsigned) = match trimmed.strip_prefix('-') {
            Some(rest) => (true, rest.trim_start()),
            None => (false, trimmed),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(unsigned.len());
        let (number, unit) = (&unsigned[..end], unsigned[end..].trim());
        let (digits, decimals) = decimal(number).ok_or("does not begin with a number")?;
        if unit.is_empty() {
            return Err("has no unit".to_owned());
        }
        let Some((_, factor)) = self.units.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("has the unit `{}`, which is none of {}", shortened(unit), self.unit_names()));
        };
        let (numerator, denominator) = (digits * factor, 10u128.pow(decimals) * self.per_base);
        if self.rounding == Rounding::Refused && numerator % denominator != 0 {
            return Err(format!("is no whole number of {}", self.base));
        }
        let amount = u64::try_from(numerator.div_ceil(denominator)).unwrap_or(u64::MAX);
        Ok(Measured { negative, amount })
    }

    pub(super) fn unit_names(&self) -> String {
        self.units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }
}

/// A decimal number of at most 18 digits as its digits and how many of them stand after the point.
fn decimal(text: &str) -> Option<(u128, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits: String = whole.chars().chain(fraction.chars()).filter(|c| *c != '_').collect();
    let decimals = fraction.chars().filter(|c| *c != '_').count();
    if whole.is_empty() || decimals == 0 || digits.len() > 18 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, u32::try_from(decimals).ok()?))
}

/// Enough of a text to recognise it in a message.
pub(super) fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut start: String = line.chars().take(60).collect();
    if start.len() < text.trim_end().len() {
        start.push('…');
    }
    start
}
