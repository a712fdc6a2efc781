//! Numbers and times as people write them on a command line.

/// A height, with or without separators.
pub fn height(text: &str) -> Result<u32, std::num::ParseIntError> {
    text.replace(['_', ','], "").parse()
}

/// Satoshi, with or without separators.
pub fn sat(text: &str) -> Result<u64, std::num::ParseIntError> {
    text.replace(['_', ','], "").parse()
}

/// A time as people write it.
pub fn seconds(text: &str) -> Result<u64, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let each = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(format!("`{unit}` is no unit of time; write 90s, 45m, 2h or 1d")),
    };
    let count: u64 = text[..text.len() - unit.len()].parse().map_err(|_| "a number comes first; write 90s, 45m, 2h or 1d".to_owned())?;
    count.checked_mul(each).filter(|seconds| *seconds > 0).ok_or_else(|| "that is no time at all, or more than there is".to_owned())
}
