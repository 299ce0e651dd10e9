//! Why: durations and sizes are written with their unit, as people and the collector write them, and are read in one place.
//!
//! For settings: `#[serde(deserialize_with = "pipeline::config::duration")]`, and likewise [`size`], [`optional_duration`], [`optional_size`].

use std::fmt;
use std::time::Duration;

use serde::Deserializer;
use serde::de::{Error, Visitor};

/// `5s`, `200ms`, `1h30m`, `1.5s`, `0`; days, weeks and years (`7d`, `1w`, `1y`) are Prometheus'.
pub fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS_NANOS: [(&str, f64); 10] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 60e9),
        ("h", 3600e9),
        ("d", 86_400e9),
        // Prometheus': a year has no leap day.
        ("w", 7.0 * 86_400e9),
        ("y", 365.0 * 86_400e9),
    ];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut nanos = 0f64;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (_, unit) = UNITS_NANOS.iter().find(|(name, _)| *name == &rest[..end])?;
        nanos += number * unit;
        rest = &rest[end..];
    }
    // 2^63 ns are 292 years: what a longer one would be for is a mistake.
    (nanos < 9.2e18).then(|| Duration::from_nanos(nanos.round() as u64))
}

/// `512`, `512B`, `64KiB`, `512MiB`, `1.5GiB`, `10MB`.
pub fn parse_size(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" | "k" | "ki" => 1 << 10,
        "mib" | "m" | "mi" => 1 << 20,
        "gib" | "g" | "gi" => 1 << 30,
        "tib" | "t" | "ti" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor),
        Err(_) => {
            let bytes = number.parse::<f64>().ok()? * factor as f64;
            (bytes < 1e18).then_some(bytes as u64)
        }
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as `5s`, `200ms` or `1h30m`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse_duration(text).ok_or_else(|| {
            let hint = if text.parse::<f64>().is_ok() {
                " (the unit is missing)"
            } else {
                ""
            };
            E::custom(format_args!(
                "expected a duration such as `5s`, `200ms` or `1h30m`, found `{text}`{hint}"
            ))
        })
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as `512MiB`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse_size(text).ok_or_else(|| {
            E::custom(format_args!(
                "expected a size such as `64KiB`, `512MiB` or a number of bytes, found `{text}`"
            ))
        })
    }
}

/// Reads a [`Duration`].
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(DurationVisitor)
}

/// Reads a duration that may be absent (with `#[serde(default)]`) or null.
pub fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    deserializer.deserialize_option(Optional(DurationVisitor))
}

/// Reads a size in bytes.
pub fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_str(SizeVisitor)
}

/// Reads a size that may be absent (with `#[serde(default)]`) or null.
pub fn optional_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_option(Optional(SizeVisitor))
}

/// For settings whose bare key means "with its defaults", such as `grpc:` of a receiver:
/// `#[serde(default, deserialize_with = "pipeline::config::present")] grpc: Option<Grpc>`.
pub fn present<'de, D: Deserializer<'de>, T: serde::Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

struct Optional<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Optional<V> {
    type Value = Option<V::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self.0).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(parse_duration(text), millis.map(Duration::from_millis), "{text}");
        };
        check("5s", Some(5_000));
        check("200ms", Some(200));
        check("1h30m", Some(5_400_000));
        check("1.5s", Some(1_500));
        check("7d", Some(604_800_000));
        check("1w", Some(604_800_000));
        check("1y1w1d12h", Some((372 * 24 + 36) * 3_600_000));
        check("0", Some(0));
        check("0s", Some(0));
        for wrong in ["", "5", "s", "5 s", "-5s", "5q", "5s5", "1..5s", "9999999999h", "é5s"] {
            check(wrong, None);
        }
    }

    #[test]
    fn sizes() {
        let check = |text: &str, bytes: Option<u64>| assert_eq!(parse_size(text), bytes, "{text}");
        check("512", Some(512));
        check("512MiB", Some(512 << 20));
        check("1.5GiB", Some(3 << 29));
        check("10 MB", Some(10_000_000));
        check("64kib", Some(64 << 10));
        for wrong in ["", "MiB", "5x", "-1", "99999999999999999999", "1.2.3", "9999999999TiB"] {
            check(wrong, None);
        }
    }
}
