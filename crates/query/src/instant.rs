//! Instants and durations as people and other programs write them: RFC 3339, `1h30m`, `12.4ms`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use model::instant::{NANOS_PER_SECOND, parse_rfc3339, rfc3339};

/// The wall clock, in ns since 1970.
pub fn now_unix_nano() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A duration as Go writes it (`1h30m`, `1.5s`, `100us`), and in days and weeks (`7d`, `1w`). A bare number needs a unit, except 0.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let seconds = match &rest[..letters] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => return None,
        };
        total += number * seconds;
        rest = &rest[letters..];
    }
    // Rounded to the nanosecond, so that `0.1s` is 100,000,000 ns.
    Duration::try_from_secs_f64((total * 1e9).round() / 1e9).ok()
}

/// A duration for a person, in three significant digits: `840ns`, `12.4ms`, `1.24s`, `2m05s`, `3h10m`, `2d04h`.
pub fn duration_text(ns: u64) -> String {
    let scaled = |value: f64, unit: &str| {
        let digits = if value < 9.995 {
            2
        } else if value < 99.95 {
            1
        } else {
            0
        };
        let text = format!("{value:.digits$}");
        let text = if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.')
        } else {
            &text
        };
        format!("{text}{unit}")
    };
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small:02}{small_unit}"),
    };
    let seconds = ns / NANOS_PER_SECOND;
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..999_500 => scaled(ns as f64 / 1e3, "µs"),
        999_500..999_500_000 => scaled(ns as f64 / 1e6, "ms"),
        999_500_000..59_950_000_000 => scaled(ns as f64 / 1e9, "s"),
        _ if seconds < 3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        _ if seconds < 86_400 => two(seconds / 3600, "h", seconds / 60 % 60, "m"),
        _ => two(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, ns) in [
            ("100ms", 100_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            ("0", 0),
            ("7d", 604_800_000_000_000),
            ("1w", 604_800_000_000_000),
            ("5µs", 5_000),
            ("0.1s", 100_000_000),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_nanos(ns)), "{text}");
        }
        for text in ["", "5", "ms", "-1s", "1x", "1e999h", "1..2s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_shown_in_three_digits() {
        for (ns, text) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_000, "1µs"),
            (12_440, "12.4µs"),
            (999_499, "999µs"),
            (999_500, "1ms"),
            (1_240_000_000, "1.24s"),
            (59_949_000_000, "59.9s"),
            (125_000_000_000, "2m05s"),
            (3_600_000_000_000, "1h"),
            (11_400_000_000_000, "3h10m"),
            (187_200_000_000_000, "2d04h"),
        ] {
            assert_eq!(duration_text(ns), text);
        }
    }
}
