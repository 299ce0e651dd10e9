//! Time zones, read from the system's database as compiled by `zic` (RFC 8536), whose last rule is a text of POSIX's `TZ` (IEEE 1003.1, 8.3).
//!
//! The files are part of nearly every system and change several times a year, so none are built in.

use std::path::{Path, PathBuf};

/// Where systems keep the database.
const FOLDERS: [&str; 3] = ["/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/etc/zoneinfo"];
/// Bytes of one file; the largest of 2025 has 3.6 KB in its thick form.
const MAX_BYTES: u64 = 1 << 20;
const DAY: i64 = 86_400;

/// Offsets from UTC, in seconds, by time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Zone {
    /// Since which second of UTC which offset holds, in order.
    changes: Vec<(i64, i64)>,
    /// Before the first of them.
    first: i64,
    /// After the last of them.
    rule: Option<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    standard: i64,
    /// The offset of summer, when it begins in standard time, and when it ends in its own.
    summer: Option<(i64, Day, Day)>,
}

/// A day of each year, and the second of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Day {
    /// `M3.5.0`: month, week (5 for the last), weekday.
    Weekday(i64, i64, i64, i64),
    /// `J60`: 1 to 365, without February 29.
    Julian(i64, i64),
    /// `59`: 0 to 365.
    Ordinal(i64, i64),
}

impl Zone {
    /// The zone of this name, such as `Europe/Vienna`; `Local` is the system's.
    pub fn load(name: &str) -> Result<Zone, String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '+');
        match name {
            "" | "UTC" => return Ok(Zone::default()),
            // The name becomes a path.
            _ if name.starts_with('/') || !name.chars().all(is_name) => {
                return Err(format!("`{name}` is not the name of a time zone such as Europe/Vienna"));
            }
            _ => {}
        }
        let paths: Vec<PathBuf> = match name {
            "Local" => vec!["/etc/localtime".into()],
            _ => FOLDERS.iter().map(|folder| Path::new(folder).join(name)).collect(),
        };
        let Some(path) = paths.iter().find(|path| path.is_file()) else {
            if name == "Local" {
                // As libc does.
                return Ok(Zone::default());
            }
            let has_any = FOLDERS.iter().any(|folder| Path::new(folder).is_dir());
            return Err(match has_any {
                true => format!("there is no time zone `{name}` in this system's database"),
                false => format!(
                    "`{name}` is not known, because this system has no database of time zones (the package tzdata); let the program write an offset, or UTC"
                ),
            });
        };
        let said = |why: String| format!("the time zone `{name}` in {} cannot be read: {why}", path.display());
        let size = std::fs::metadata(path).map_err(|error| said(error.to_string()))?.len();
        if size > MAX_BYTES {
            return Err(said(format!("it is larger than {MAX_BYTES} bytes")));
        }
        let bytes = std::fs::read(path).map_err(|error| said(error.to_string()))?;
        Zone::read(&bytes).ok_or_else(|| said("it is not a file of a time zone".to_owned()))
    }

    fn read(bytes: &[u8]) -> Option<Zone> {
        let first = Header::read(bytes)?;
        if first.version < b'2' {
            return first.zone(bytes.get(Header::BYTES..)?, 4).map(|(zone, _)| zone);
        }
        // Behind what old readers read stands the same with 64 bits.
        let bytes = bytes.get(Header::BYTES + first.len(4)..)?;
        let second = Header::read(bytes)?;
        let (mut zone, rest) = second.zone(bytes.get(Header::BYTES..)?, 8)?;
        let text = std::str::from_utf8(rest).ok()?.strip_prefix('\n')?;
        let text = text.split('\n').next()?;
        zone.rule = match text {
            "" => None,
            text => Some(Rule::read(text)?),
        };
        Some(zone)
    }

    /// The offset that holds at a second of UTC.
    fn offset_at(&self, second: i64) -> i64 {
        match self.changes.partition_point(|(since, _)| *since <= second) {
            0 if !self.changes.is_empty() => self.first,
            at if at == self.changes.len() => match (&self.rule, self.changes.last()) {
                (Some(rule), _) => rule.offset_at(second),
                (None, Some((_, offset))) => *offset,
                (None, None) => self.first,
            },
            at => self.changes[at - 1].1,
        }
    }

    /// The offset of a second of local time. Of the two seconds that a clock put back shows twice it is the first; what it never shows is read as if it had
    /// not been put forward.
    pub fn offset_of_local(&self, local: i64) -> i64 {
        let (before, after) = (self.offset_at(local - DAY), self.offset_at(local + DAY));
        for offset in [before.max(after), before.min(after)] {
            if self.offset_at(local - offset) == offset {
                return offset;
            }
        }
        // Two changes within two days, or a second that no clock shows.
        match self.offset_at(local - before) {
            offset if self.offset_at(local - offset) == offset => offset,
            _ => before,
        }
    }
}

struct Header {
    version: u8,
    /// Of: indicators of UTC, of standard time, leap seconds, changes, kinds, bytes of names.
    counts: [usize; 6],
}

impl Header {
    const BYTES: usize = 44;

    fn read(bytes: &[u8]) -> Option<Header> {
        let rest = bytes.strip_prefix(b"TZif")?;
        let mut counts = [0; 6];
        for (at, count) in counts.iter_mut().enumerate() {
            let from = 16 + 4 * at;
            *count = u32::from_be_bytes(rest.get(from..from + 4)?.try_into().ok()?) as usize;
        }
        let is_possible = counts.iter().all(|count| *count as u64 <= MAX_BYTES);
        is_possible.then_some(Header {
            version: *rest.first()?,
            counts,
        })
    }

    fn len(&self, time_bytes: usize) -> usize {
        let [utc, standard, leap, changes, kinds, names] = self.counts;
        changes * (time_bytes + 1) + kinds * 6 + names + leap * (time_bytes + 4) + standard + utc
    }

    /// The zone, and what stands behind it.
    fn zone<'b>(&self, bytes: &'b [u8], time_bytes: usize) -> Option<(Zone, &'b [u8])> {
        let rest = bytes.get(self.len(time_bytes)..)?;
        let [_, _, _, changes, kinds, _] = self.counts;
        let (times, bytes) = bytes.split_at_checked(changes * time_bytes)?;
        let (of_changes, bytes) = bytes.split_at_checked(changes)?;
        let offsets: Vec<i64> = bytes
            .get(..kinds * 6)?
            .chunks_exact(6)
            .map(|kind| i64::from(i32::from_be_bytes([kind[0], kind[1], kind[2], kind[3]])))
            .collect();
        let time = |bytes: &[u8]| match bytes {
            [a, b, c, d] => i64::from(i32::from_be_bytes([*a, *b, *c, *d])),
            _ => bytes.try_into().map_or(0, i64::from_be_bytes),
        };
        let changes: Option<Vec<(i64, i64)>> = times
            .chunks_exact(time_bytes)
            .zip(of_changes)
            .map(|(bytes, kind)| Some((time(bytes), *offsets.get(usize::from(*kind))?)))
            .collect();
        let changes = changes?;
        let is_sound =
            changes.windows(2).all(|pair| pair[0].0 < pair[1].0) && offsets.iter().all(|offset| offset.abs() < 2 * DAY);
        let zone = Zone {
            changes,
            first: *offsets.first()?,
            rule: None,
        };
        is_sound.then_some((zone, rest))
    }
}

impl Rule {
    /// `CET-1CEST,M3.5.0,M10.5.0/3`.
    fn read(text: &str) -> Option<Rule> {
        let rest = &mut &*text;
        name(rest)?;
        let standard = -time(rest)?;
        if rest.is_empty() {
            return Some(Rule { standard, summer: None });
        }
        name(rest)?;
        let summer = match rest.starts_with(',') {
            true => standard + 3_600,
            false => -time(rest)?,
        };
        let begins = Day::read(rest)?;
        let ends = Day::read(rest)?;
        rest.is_empty().then_some(Rule {
            standard,
            summer: Some((summer, begins, ends)),
        })
    }

    fn offset_at(&self, second: i64) -> i64 {
        let Some((summer, begins, ends)) = &self.summer else {
            return self.standard;
        };
        let year = super::layout::year_of(second + self.standard);
        let begin = begins.second_of(year) - self.standard;
        let end = ends.second_of(year) - summer;
        let is_summer = match begin <= end {
            true => (begin..end).contains(&second),
            // South of the equator.
            false => !(end..begin).contains(&second),
        };
        if is_summer { *summer } else { self.standard }
    }
}

fn name(rest: &mut &str) -> Option<()> {
    let end = match rest.strip_prefix('<') {
        Some(_) => rest.find('>')? + 1,
        None => rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len()),
    };
    let (name, after) = rest.split_at(end);
    *rest = after;
    (!name.is_empty()).then_some(())
}

fn number(rest: &mut &str) -> Option<i64> {
    // No number in these texts has more than three digits.
    let end = rest.bytes().take(3).take_while(u8::is_ascii_digit).count();
    let (digits, after) = rest.split_at(end);
    *rest = after;
    digits.parse().ok()
}

fn takes(rest: &mut &str, sign: char) -> bool {
    let after = rest.strip_prefix(sign);
    *rest = after.unwrap_or(rest);
    after.is_some()
}

/// `[+-]hh[:mm[:ss]]`, in seconds.
fn time(rest: &mut &str) -> Option<i64> {
    let sign = if takes(rest, '-') { -1 } else { 1 };
    let _ = takes(rest, '+');
    let mut seconds = number(rest)? * 3_600;
    for unit in [60, 1] {
        if takes(rest, ':') {
            seconds += number(rest)? * unit;
        }
    }
    Some(sign * seconds)
}

impl Day {
    fn read(rest: &mut &str) -> Option<Day> {
        if !takes(rest, ',') {
            return None;
        }
        let (mut weekday, mut julian) = (None, None);
        if takes(rest, 'M') {
            let month = number(rest).filter(|month| (1..=12).contains(month))?;
            let week = takes(rest, '.').then(|| number(rest)).flatten()?;
            let day = takes(rest, '.').then(|| number(rest)).flatten()?;
            weekday = Some((month, week, day)).filter(|_| (1..=5).contains(&week) && (0..=6).contains(&day));
            weekday?;
        } else if takes(rest, 'J') {
            julian = Some(number(rest)?);
        }
        let ordinal = match (weekday, julian) {
            (None, None) => number(rest)?,
            _ => 0,
        };
        let at = match takes(rest, '/') {
            true => time(rest)?,
            false => 2 * 3_600,
        };
        Some(match (weekday, julian) {
            (Some((month, week, day)), _) => Day::Weekday(month, week, day, at),
            (None, Some(day)) => Day::Julian(day, at),
            (None, None) => Day::Ordinal(ordinal, at),
        })
    }

    /// The second of local time, in this year.
    fn second_of(&self, year: i64) -> i64 {
        use model::instant::days_of;
        let january = days_of(year, 1, 1);
        let (day, at) = match *self {
            Day::Weekday(month, week, weekday, at) => {
                let first = days_of(year, month, 1);
                let next = if month == 12 {
                    days_of(year + 1, 1, 1)
                } else {
                    days_of(year, month + 1, 1)
                };
                // 1970-01-01 was a Thursday.
                let of_first = (first + 4).rem_euclid(7);
                let mut day = first + (weekday - of_first).rem_euclid(7) + (week - 1) * 7;
                if day >= next {
                    day -= 7;
                }
                (day, at)
            }
            Day::Julian(day, at) => {
                let is_leap = days_of(year, 3, 1) - january == 60;
                (january + day - 1 + i64::from(is_leap && day >= 60), at)
            }
            Day::Ordinal(day, at) => (january + day, at),
        };
        day * DAY + at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::instant::days_of;

    /// A file with a rule and nothing else, as zones without a history have it.
    fn of_rule(rule: &str) -> Option<Zone> {
        let mut bytes = Vec::new();
        for _ in 0..2 {
            bytes.extend(b"TZif2");
            bytes.extend([0; 15]);
            for count in [0u32, 0, 0, 0, 1, 4] {
                bytes.extend(count.to_be_bytes());
            }
            bytes.extend(7_200i32.to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(b"LMT\0");
        }
        bytes.extend(format!("\n{rule}\n").as_bytes());
        Zone::read(&bytes)
    }

    fn check(zone: &Zone, date: (i64, i64, i64), time: (i64, i64), expect_hours: f64) {
        let local = days_of(date.0, date.1, date.2) * DAY + time.0 * 3_600 + time.1 * 60;
        let hours = zone.offset_of_local(local) as f64 / 3_600.0;
        assert_eq!(hours, expect_hours, "{date:?} {time:?}");
    }

    #[test]
    fn rules_of_summer() {
        let vienna = of_rule("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        check(&vienna, (2026, 1, 1), (0, 0), 1.0);
        check(&vienna, (2026, 7, 1), (12, 0), 2.0);
        check(&vienna, (2026, 3, 29), (1, 59), 1.0);
        check(&vienna, (2026, 3, 29), (3, 0), 2.0);
        // Never shown: as if it were still winter.
        check(&vienna, (2026, 3, 29), (2, 30), 1.0);
        // Shown twice: the first.
        check(&vienna, (2026, 10, 25), (2, 30), 2.0);
        check(&vienna, (2026, 10, 25), (3, 0), 1.0);
        let sydney = of_rule("AEST-10AEDT,M10.1.0,M4.1.0/3").unwrap();
        check(&sydney, (2026, 1, 1), (0, 0), 11.0);
        check(&sydney, (2026, 7, 1), (0, 0), 10.0);
        let india = of_rule("<+0530>-5:30").unwrap();
        check(&india, (2026, 7, 1), (0, 0), 5.5);
        let julian = of_rule("XXX3YYY,J60/0,J300/0").unwrap();
        check(&julian, (2024, 2, 29), (12, 0), -3.0);
        check(&julian, (2024, 3, 1), (1, 0), -2.0);
        let ordinal = of_rule("XXX3YYY2,59/0,300").unwrap();
        check(&ordinal, (2024, 2, 29), (1, 0), -2.0);
        for wrong in [
            "CET",
            "CET-1CEST",
            "CET-1CEST,M13.1.0,M1.1.0",
            "CET-1CEST,M3.5.0",
            "1",
            "CET-1CEST,M3.5.0,M10.5.0/3x",
        ] {
            assert_eq!(of_rule(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_systems_database() {
        if !Path::new(FOLDERS[0]).is_dir() {
            eprintln!("skipped: this system has no {}", FOLDERS[0]);
            return;
        }
        let new_york = Zone::load("America/New_York").unwrap();
        check(&new_york, (2023, 11, 4), (12, 0), -4.0);
        check(&new_york, (2023, 11, 6), (12, 0), -5.0);
        check(&new_york, (2060, 7, 4), (12, 0), -4.0);
        // Summer ended at the end of October before 2007.
        check(&new_york, (2005, 11, 2), (12, 0), -5.0);
        check(&new_york, (1944, 1, 1), (12, 0), -4.0);
        for (name, expect) in [
            ("Mars/Olympus", "no time zone `Mars/Olympus`"),
            ("../../etc/passwd", "is not the name"),
            ("/etc/localtime", "is not the name"),
            ("zone1970.tab", "is not the name"),
        ] {
            let said = Zone::load(name).err().unwrap_or_default();
            assert!(said.contains(expect), "{name}: {said}");
        }
    }

    #[test]
    fn a_file_that_is_none() {
        for bytes in [&b""[..], b"TZif", &[b'x'; 100], &[0xff; 200]] {
            assert_eq!(Zone::read(bytes), None);
        }
        let mut bytes = b"TZif2".to_vec();
        bytes.extend([0xff; 100]);
        assert_eq!(Zone::read(&bytes), None);
    }
}
