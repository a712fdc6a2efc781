//! Numbers for people, by integer arithmetic.

use xennetd::control::{Msat, PayoutInterval};

/// `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `12,345 sat`.
pub fn sat(amount: u64) -> String {
    format!("{} sat", grouped(amount))
}

/// `12.345 sat`, exact.
pub fn msat(amount: Msat) -> String {
    format!("{}.{:03} sat", grouped(amount.0 / 1000), amount.0 % 1000)
}

/// `262 thousand`, `4.29 billion`: three digits are enough to compare.
pub fn count(number: u64) -> String {
    const NAMES: [(u64, &str); 4] =
        [(1_000_000_000_000_000, "million billion"), (1_000_000_000, "billion"), (1_000_000, "million"), (1_000, "thousand")];
    for (size, name) in NAMES {
        if number >= size {
            return format!("{} {name}", three_digits(number, size));
        }
    }
    number.to_string()
}

/// `256 MiB`, `1.5 GiB`.
pub fn mib(size: u32) -> String {
    if size >= 1024 && size.is_multiple_of(1024) {
        format!("{} GiB", size / 1024)
    } else if size >= 10_240 {
        format!("{} GiB", three_digits(u64::from(size), 1024))
    } else {
        format!("{size} MiB")
    }
}

/// `5.2 MB`, of 10^6 bytes.
pub fn bytes(number: u64) -> String {
    for (size, name) in [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")] {
        if number >= size {
            return format!("{} {name}", three_digits(number, size));
        }
    }
    format!("{number} B")
}

fn three_digits(number: u64, size: u64) -> String {
    let whole = number / size;
    let hundredths = u128::from(number % size) * 100 / u128::from(size);
    match whole {
        0..10 => format!("{whole}.{hundredths:02}"),
        10..100 => format!("{whole}.{}", hundredths / 10),
        _ => whole.to_string(),
    }
}

/// `45 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`: the two largest units.
pub fn seconds(number: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let Some(first) = UNITS.iter().position(|(size, _)| number >= *size) else { return "0 s".into() };
    let (size, name) = UNITS[first];
    let mut text = format!("{} {name}", number / size);
    if let Some((next, next_name)) = UNITS.get(first + 1) {
        let rest = number % size / next;
        if rest > 0 {
            text = format!("{text} {rest} {next_name}");
        }
    }
    text
}

/// `every 5 s`, `every 5 s, in advance`.
pub fn payout(interval: &PayoutInterval) -> String {
    match interval {
        PayoutInterval::InArrears(time) => format!("every {}", seconds(time.as_secs())),
        PayoutInterval::InAdvance(time) => format!("every {}, in advance", seconds(time.as_secs())),
    }
}

/// `2026-11-23 01:10:46`, in UTC.
pub fn time(unix_s: u64) -> String {
    let (days, rest) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

/// The date of a day since 1970-01-01, in years that begin in March, so that leap days come last (Howard Hinnant's `civil_from_days`).
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        assert_eq!(sat(0), "0 sat");
        assert_eq!(sat(1_234_567), "1,234,567 sat");
        assert_eq!(msat(Msat(1_234_007)), "1,234.007 sat");
        assert_eq!(msat(Msat(u64::MAX)), "18,446,744,073,709,551.615 sat");
    }

    #[test]
    fn sizes_keep_three_digits() {
        assert_eq!(count(999), "999");
        assert_eq!(count(262_144), "262 thousand");
        assert_eq!(count(4_294_967_296), "4.29 billion");
        assert_eq!(count(u64::MAX), "18446 million billion");
        assert_eq!((mib(256), mib(1024), mib(1536)), ("256 MiB".into(), "1 GiB".into(), "1536 MiB".into()));
        assert_eq!((bytes(999), bytes(5_230_000)), ("999 B".into(), "5.23 MB".into()));
    }

    #[test]
    fn durations_show_their_two_largest_units() {
        assert_eq!(seconds(0), "0 s");
        assert_eq!(seconds(61), "1 min 1 s");
        assert_eq!(seconds(7_200), "2 h");
        assert_eq!(seconds(90_061), "1 d 1 h");
    }

    #[test]
    fn times_are_dates_in_utc() {
        assert_eq!(time(0), "1970-01-01 00:00:00");
        assert_eq!(time(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(time(1_709_251_199), "2024-02-29 23:59:59");
        assert_eq!(time(4_102_444_800), "2100-01-01 00:00:00");
    }
}
