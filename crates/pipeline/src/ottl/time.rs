//! Why: times and durations as texts, in the forms that people write into attributes. No time zones but UTC and fixed offsets.

use std::fmt::Write;

use model::instant::{MONTHS, WEEKDAYS, date_of, days_of};

const NANOS: i64 = 1_000_000_000;

/// A time in its parts, in UTC.
pub struct Parts {
    pub year: i64,
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    pub nanosecond: u32,
    /// Sunday is 0.
    pub weekday: u32,
}

pub fn parts(nanos: i64) -> Parts {
    let seconds = nanos.div_euclid(NANOS);
    let days = seconds.div_euclid(86_400);
    let of_day = seconds.rem_euclid(86_400) as u32;
    let (year, month, day) = date_of(days);
    let (month, day) = (month as u32, day as u32);
    Parts {
        year,
        month,
        day,
        hour: of_day / 3600,
        minute: of_day / 60 % 60,
        second: of_day % 60,
        nanosecond: nanos.rem_euclid(NANOS) as u32,
        weekday: (days + 4).rem_euclid(7) as u32,
    }
}

/// RFC 3339 with as many digits of a second as are needed.
pub fn rfc3339(nanos: i64) -> String {
    let p = parts(nanos);
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        p.year, p.month, p.day, p.hour, p.minute, p.second
    );
    if p.nanosecond > 0 {
        let digits = format!("{:09}", p.nanosecond);
        let _ = write!(text, ".{}", digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// `1h2m3.5s`, as Go writes durations.
pub fn duration_text(nanos: i64) -> String {
    let size = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let (unit, name) = match size {
        0 => return "0s".to_owned(),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => {
            let seconds = size / NANOS as u64;
            let mut text = sign.to_owned();
            if seconds >= 3600 {
                let _ = write!(text, "{}h", seconds / 3600);
            }
            if seconds >= 60 {
                let _ = write!(text, "{}m", seconds / 60 % 60);
            }
            let _ = write!(text, "{}s", decimal(seconds % 60, size % NANOS as u64, 9));
            return text;
        }
    };
    let width = match unit {
        1 => 0,
        1_000 => 3,
        _ => 6,
    };
    format!("{sign}{}{name}", decimal(size / unit, size % unit, width))
}

fn decimal(whole: u64, part: u64, width: usize) -> String {
    if part == 0 {
        return whole.to_string();
    }
    let digits = format!("{part:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// A duration as Go and OTTL write it: `100ms`, `1h30m`, `-1.5s`.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let len = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..len].parse().ok()?;
        rest = &rest[len..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        rest = &rest[end..];
        total += number * unit;
    }
    (total.abs() < i64::MAX as f64).then_some((sign * total) as i64)
}

/// Writes a time in a format of `%` directives; `None` if it has one that is not supported.
pub fn format(nanos: i64, format: &str) -> Option<String> {
    let p = parts(nanos);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let written = match chars.next()? {
            'Y' => write!(out, "{:04}", p.year),
            'y' => write!(out, "{:02}", p.year.rem_euclid(100)),
            'm' => write!(out, "{:02}", p.month),
            'd' => write!(out, "{:02}", p.day),
            'e' => write!(out, "{:2}", p.day),
            'H' => write!(out, "{:02}", p.hour),
            'I' => write!(out, "{:02}", (p.hour + 11) % 12 + 1),
            'p' => write!(out, "{}", if p.hour < 12 { "AM" } else { "PM" }),
            'M' => write!(out, "{:02}", p.minute),
            'S' => write!(out, "{:02}", p.second),
            'L' => write!(out, "{:03}", p.nanosecond / 1_000_000),
            'f' => write!(out, "{:06}", p.nanosecond / 1_000),
            's' => write!(out, "{:09}", p.nanosecond),
            'b' | 'h' => write!(out, "{}", &MONTHS[p.month as usize - 1][..3]),
            'B' => write!(out, "{}", MONTHS[p.month as usize - 1]),
            'a' => write!(out, "{}", &WEEKDAYS[p.weekday as usize][..3]),
            'A' => write!(out, "{}", WEEKDAYS[p.weekday as usize]),
            'z' => write!(out, "+0000"),
            'Z' => write!(out, "UTC"),
            'F' => write!(out, "{:04}-{:02}-{:02}", p.year, p.month, p.day),
            'T' => write!(out, "{:02}:{:02}:{:02}", p.hour, p.minute, p.second),
            '%' => write!(out, "%"),
            _ => return None,
        };
        written.ok()?;
    }
    Some(out)
}

/// Reads a time in a format of `%` directives, in UTC if the format has no offset.
pub fn parse(text: &str, format: &str) -> Option<i64> {
    let (mut year, mut month, mut day) = (1970, 1, 1);
    let (mut hour, mut minute, mut second, mut nanos, mut offset) = (0, 0, 0, 0, 0);
    let mut afternoon = None;
    let mut rest = text;
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            rest = rest.strip_prefix(c)?;
            continue;
        }
        match chars.next()? {
            'Y' => year = digits(&mut rest, 4)?,
            'y' => year = digits(&mut rest, 2).map(|year| year + if year < 69 { 2000 } else { 1900 })?,
            'm' => month = digits(&mut rest, 2)?,
            'd' => day = digits(&mut rest, 2)?,
            'e' => {
                rest = rest.trim_start_matches(' ');
                day = digits(&mut rest, 2)?;
            }
            'H' | 'I' => hour = digits(&mut rest, 2)?,
            'M' => minute = digits(&mut rest, 2)?,
            'S' => second = digits(&mut rest, 2)?,
            'L' => nanos = digits(&mut rest, 3)? * 1_000_000,
            'f' => nanos = digits(&mut rest, 6)? * 1_000,
            's' => nanos = digits(&mut rest, 9)?,
            'p' => {
                let mark = rest.get(..2)?.to_ascii_uppercase();
                afternoon = Some(match mark.as_str() {
                    "AM" => false,
                    "PM" => true,
                    _ => return None,
                });
                rest = &rest[2..];
            }
            'b' | 'h' => month = named(&mut rest, &MONTHS, 3)? + 1,
            'B' => month = named(&mut rest, &MONTHS, usize::MAX)? + 1,
            'a' => drop(named(&mut rest, &WEEKDAYS, 3)?),
            'A' => drop(named(&mut rest, &WEEKDAYS, usize::MAX)?),
            'F' => {
                year = digits(&mut rest, 4)?;
                rest = rest.strip_prefix('-')?;
                month = digits(&mut rest, 2)?;
                rest = rest.strip_prefix('-')?;
                day = digits(&mut rest, 2)?;
            }
            'T' => {
                hour = digits(&mut rest, 2)?;
                rest = rest.strip_prefix(':')?;
                minute = digits(&mut rest, 2)?;
                rest = rest.strip_prefix(':')?;
                second = digits(&mut rest, 2)?;
            }
            'z' | 'Z' => offset = zone(&mut rest)?,
            '%' => rest = rest.strip_prefix('%')?,
            _ => return None,
        }
    }
    if let Some(afternoon) = afternoon {
        hour = hour % 12 + if afternoon { 12 } else { 0 };
    }
    let valid = rest.is_empty()
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && (1678..=2261).contains(&year);
    let days = valid.then(|| days_of(year, month, day))?;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(NANOS)?.checked_add(nanos)
}

/// At most `width` digits.
fn digits(rest: &mut &str, width: usize) -> Option<i64> {
    let len = rest.bytes().take(width).take_while(u8::is_ascii_digit).count();
    let number = rest[..len].parse().ok()?;
    *rest = &rest[len..];
    Some(number)
}

fn named(rest: &mut &str, names: &[&str], width: usize) -> Option<i64> {
    let at = names.iter().position(|name| {
        let name = &name[..name.len().min(width)];
        rest.get(..name.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(name))
    })?;
    *rest = &rest[names[at].len().min(width)..];
    Some(at as i64)
}

fn zone(rest: &mut &str) -> Option<i64> {
    for name in ["UTC", "GMT", "Z"] {
        if let Some(after) = rest.strip_prefix(name) {
            *rest = after;
            return Some(0);
        }
    }
    let sign = match rest.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    *rest = &rest[1..];
    let hours = digits(rest, 2)?;
    *rest = rest.strip_prefix(':').unwrap_or(rest);
    Some(sign * (hours * 3600 + digits(rest, 2)? * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_back() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_700_000_000_500_000_000, "2023-11-14T22:13:20.5Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
        ] {
            assert_eq!(rfc3339(nanos), text);
        }
        let format_text = "%Y-%m-%dT%H:%M:%S.%s%z";
        let nanos = 1_700_000_000_123_456_789;
        let text = format(nanos, format_text).expect("is supported");
        assert_eq!(parse(&text, format_text), Some(nanos));
        assert_eq!(
            parse("14/Nov/2023:23:13:20 +0100", "%d/%b/%Y:%H:%M:%S %z"),
            Some(1_700_000_000_000_000_000)
        );
        assert_eq!(parse("2023-13-01", "%Y-%m-%d"), None);
        assert_eq!(format(0, "%Q"), None);
    }

    #[test]
    fn durations() {
        for (text, nanos, back) in [
            ("100ms", 100_000_000, "100ms"),
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            ("-1.5s", -1_500_000_000, "-1.5s"),
            ("0", 0, "0s"),
            ("2us", 2_000, "2µs"),
        ] {
            assert_eq!(parse_duration(text), Some(nanos), "{text}");
            assert_eq!(duration_text(nanos), back);
        }
        assert_eq!(parse_duration("5 apples"), None);
        assert_eq!(parse_duration("5"), None);
    }
}
