//! The two datasets and the day that a row lies in.

use model::instant::date_of;
use serde::{Deserialize, Serialize};

/// Nanoseconds in a day of UTC.
pub const DAY_NANOS: u64 = 86_400 * 1_000_000_000;

/// What a part holds. A part never mixes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dataset {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
}

impl Dataset {
    /// Both.
    pub const ALL: [Dataset; 2] = [Dataset::Traces, Dataset::Logs];

    /// Its name in paths and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Dataset::Traces => "traces",
            Dataset::Logs => "logs",
        }
    }
}

/// A day of UTC, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Day(pub u32);

impl Day {
    /// The day that an instant lies in.
    pub const fn of(unix_nano: u64) -> Day {
        Day((unix_nano / DAY_NANOS) as u32)
    }

    /// The day of a row: its own, if that is within [arrival − retention, arrival + 1 day], else the day it arrived.
    /// A row without a time (0) lies in its arrival day.
    pub fn of_row(row_unix_nano: u64, arrival_unix_nano: u64, retention_nanos: u64) -> Day {
        let oldest = arrival_unix_nano.saturating_sub(retention_nanos);
        let newest = arrival_unix_nano.saturating_add(DAY_NANOS);
        if row_unix_nano != 0 && (oldest..=newest).contains(&row_unix_nano) {
            Day::of(row_unix_nano)
        } else {
            Day::of(arrival_unix_nano)
        }
    }

    /// First instant of the day.
    pub const fn start_unix_nano(self) -> u64 {
        (self.0 as u64).saturating_mul(DAY_NANOS)
    }

    /// First instant of the next day.
    pub const fn end_unix_nano(self) -> u64 {
        (self.0 as u64 + 1).saturating_mul(DAY_NANOS)
    }

    /// `2026-11-20`, as the day's folder is called.
    pub fn folder(self) -> String {
        let (year, month, day) = date_of(i64::from(self.0));
        format!("{year:04}-{month:02}-{day:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_civil_names() {
        assert_eq!(Day(0).folder(), "1970-01-01");
        assert_eq!(Day(19_782).folder(), "2024-02-29");
        assert_eq!(Day::of(1_795_132_800_000_000_000).folder(), "2026-11-20");
        assert_eq!(Day::of(u64::MAX).folder(), "2554-07-21");
    }

    #[test]
    fn rows_from_1970_and_2100_lie_in_their_arrival_day() {
        let arrival = 1_795_132_800_000_000_000;
        let week = 7 * DAY_NANOS;
        assert_eq!(Day::of_row(5, arrival, week), Day::of(arrival));
        assert_eq!(Day::of_row(4_102_444_800_000_000_000, arrival, week), Day::of(arrival));
        assert_eq!(
            Day::of_row(arrival - 3 * DAY_NANOS, arrival, week),
            Day::of(arrival - 3 * DAY_NANOS)
        );
        assert_eq!(Day::of_row(0, arrival, u64::MAX), Day::of(arrival));
    }
}
