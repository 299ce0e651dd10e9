//! Times as programs write them into lines, by layouts of three kinds: `strptime` (directives with `%`, with the meanings that the collector gives them),
//! `gotime` (an example of a time, as Go's package `time` has it) and `epoch` (a number of seconds or of a part of one).
//!
//! As in Go, a fraction behind the seconds is read whether or not the layout has it, several spaces are as good as one, and numbers need no leading zero. A
//! time without a year is in this year, or in the last one if it would be more than a week ahead.

use super::zone::Zone;
use model::instant::{MONTHS, WEEKDAYS, days_of};

const NANOS: i64 = 1_000_000_000;
const DAY: i64 = 86_400;
/// How far ahead of the clock a time without a year may be.
const AHEAD_SECONDS: i64 = 7 * DAY;
/// Bytes of a layout.
const MAX_LAYOUT_BYTES: usize = 1_024;

/// A form of times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    Parts(Vec<Piece>, Zone),
    /// Digits that a unit is behind nanoseconds.
    Epoch(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    Char(char),
    /// One or more.
    Spaces,
    Year,
    /// The last two digits.
    ShortYear,
    Month,
    MonthName,
    Day,
    DayOfYear,
    WeekdayName,
    Hour,
    HalfDayHour,
    Minute,
    Second,
    /// With its point, if it is there.
    Fraction,
    /// So many digits at most, without a point.
    FractionDigits(usize),
    AmPm,
    Offset,
    ZoneName,
}

/// The year of a second since 1970.
pub fn year_of(second: i64) -> i64 {
    let days = second.div_euclid(DAY);
    // Not later than it, and close.
    let about = 1970 + days.div_euclid(if days < 0 { 365 } else { 366 });
    (about..).find(|year| days_of(year + 1, 1, 1) > days).unwrap_or(about)
}

impl Layout {
    /// Reads a layout of this kind, `strptime` where none is named; what is wrong comes with its key.
    pub fn read(
        layout: Option<&str>,
        kind: Option<&str>,
        location: Option<&str>,
    ) -> Result<Layout, (&'static str, String)> {
        // As the text is: what is around it is no part of a time.
        let layout = layout.map(str::trim);
        let layout = layout.ok_or(("layout", "a time needs its `layout`".to_owned()))?;
        if layout.len() > MAX_LAYOUT_BYTES {
            return Err(("layout", format!("is longer than {MAX_LAYOUT_BYTES} bytes")));
        }
        let pieces = match kind.unwrap_or("strptime") {
            "strptime" => directives(layout),
            "gotime" => Ok(example(layout)),
            "epoch" => {
                let digits = match layout {
                    "s" | "s.ms" | "s.us" | "s.ns" => 9,
                    "ms" => 6,
                    "us" => 3,
                    "ns" => 0,
                    other => {
                        return Err((
                            "layout",
                            format!("`{other}` is none of s, ms, us, ns, s.ms, s.us and s.ns"),
                        ));
                    }
                };
                return Ok(Layout::Epoch(digits));
            }
            other => {
                return Err((
                    "layout_type",
                    format!("`{other}` is none of strptime, epoch and gotime"),
                ));
            }
        };
        let pieces = pieces.map_err(|problem| ("layout", problem))?;
        if pieces
            .iter()
            .all(|piece| matches!(piece, Piece::Char(_) | Piece::Spaces))
        {
            return Err(("layout", format!("`{layout}` has no part of a time in it")));
        }
        let zone = Zone::load(location.unwrap_or_default()).map_err(|problem| ("location", problem))?;
        Ok(Layout::Parts(pieces, zone))
    }

    /// Nanoseconds since 1970 of a text in this form.
    pub fn parse(&self, text: &str, now_unix_nano: u64) -> Option<u64> {
        match self {
            Layout::Parts(pieces, zone) => {
                let time = Time::read(pieces, text.trim())?;
                let now = i64::try_from(now_unix_nano).ok()? / NANOS;
                let second = match time.year {
                    Some(year) => time.second_in(year, zone)?,
                    None => {
                        let year = year_of(now);
                        let this = time.second_in(year, zone);
                        match this.filter(|second| *second <= now + AHEAD_SECONDS) {
                            Some(second) => second,
                            None => time.second_in(year - 1, zone).or(this)?,
                        }
                    }
                };
                u64::try_from(second.checked_mul(NANOS)?.checked_add(time.nanos)?).ok()
            }
            Layout::Epoch(digits) => decimal(text.trim(), *digits),
        }
    }

    /// The same of a number, which only `epoch` reads.
    pub fn parse_number(&self, number: f64) -> Option<u64> {
        let Layout::Epoch(digits) = self else { return None };
        let nanos = number * 10f64.powi(*digits as i32);
        (nanos > 0.0 && nanos < 1.8e19).then_some(nanos as u64)
    }
}

/// `1700000000.123456789` of a unit that is so many digits behind nanoseconds, to the last digit.
fn decimal(text: &str, digits: u32) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(part) {
        return None;
    }
    let part = format!("{:0<width$}", part, width = digits as usize);
    let part = match digits {
        0 => 0,
        digits => part[..digits as usize].parse().ok()?,
    };
    let nanos = whole
        .parse::<u64>()
        .ok()?
        .checked_mul(10u64.pow(digits))?
        .checked_add(part)?;
    (nanos > 0).then_some(nanos)
}

/// A layout with `%`.
fn directives(layout: &str) -> Result<Vec<Piece>, String> {
    use Piece::*;
    let mut pieces = Vec::new();
    let mut chars = layout.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            push_char(c, &mut pieces);
            continue;
        }
        let directive = chars.next().ok_or_else(|| format!("`{layout}` ends with a single %"))?;
        let several: &[Piece] = match directive {
            'Y' => &[Year],
            'y' => &[ShortYear],
            'm' | 'o' | 'q' => &[Month],
            'b' | 'h' | 'B' => &[MonthName],
            'd' | 'e' | 'g' => &[Day],
            'a' | 'A' => &[WeekdayName],
            'H' => &[Hour],
            'I' | 'l' => &[HalfDayHour],
            'p' | 'P' => &[AmPm],
            'M' => &[Minute],
            'S' => &[Second],
            'L' | 'f' | 's' => {
                let digits = match directive {
                    'L' => 3,
                    'f' => 6,
                    _ => 9,
                };
                match pieces.last() {
                    Some(Char('.' | ',')) => {
                        pieces.pop();
                        &[Fraction]
                    }
                    _ => {
                        pieces.push(FractionDigits(digits));
                        &[]
                    }
                }
            }
            'z' | 'i' | 'j' | 'k' | 'w' => &[Offset],
            'Z' => &[ZoneName],
            'D' | 'x' => &[Month, Char('/'), Day, Char('/'), Year],
            'F' => &[Year, Char('-'), Month, Char('-'), Day],
            'T' | 'X' => &[Hour, Char(':'), Minute, Char(':'), Second],
            'r' => &[HalfDayHour, Char(':'), Minute, Char(':'), Second, Spaces, AmPm],
            'R' => &[Hour, Char(':'), Minute],
            'c' => &[
                WeekdayName,
                Spaces,
                MonthName,
                Spaces,
                Day,
                Spaces,
                Hour,
                Char(':'),
                Minute,
                Char(':'),
                Second,
                Spaces,
                Year,
            ],
            'n' => &[Char('\n')],
            't' => &[Char('\t')],
            '%' => &[Char('%')],
            other => return Err(format!("`%{other}` is a directive that is not known")),
        };
        pieces.extend(several);
    }
    Ok(pieces)
}

fn push_char(c: char, pieces: &mut Vec<Piece>) {
    match c {
        ' ' if pieces.last() == Some(&Piece::Spaces) => {}
        ' ' => pieces.push(Piece::Spaces),
        c => pieces.push(Piece::Char(c)),
    }
}

/// The parts of Go's example time, Mon Jan 2 15:04:05 MST 2006, the longer before what they begin with.
const EXAMPLES: [(&str, Piece); 34] = [
    ("January", Piece::MonthName),
    ("Jan", Piece::MonthName),
    ("Monday", Piece::WeekdayName),
    ("Mon", Piece::WeekdayName),
    ("MST", Piece::ZoneName),
    ("2006", Piece::Year),
    ("_2006", Piece::Year),
    ("__2", Piece::DayOfYear),
    ("002", Piece::DayOfYear),
    ("01", Piece::Month),
    ("02", Piece::Day),
    ("03", Piece::HalfDayHour),
    ("04", Piece::Minute),
    ("05", Piece::Second),
    ("06", Piece::ShortYear),
    ("_2", Piece::Day),
    ("15", Piece::Hour),
    ("1", Piece::Month),
    ("2", Piece::Day),
    ("3", Piece::HalfDayHour),
    ("4", Piece::Minute),
    ("5", Piece::Second),
    ("PM", Piece::AmPm),
    ("pm", Piece::AmPm),
    ("-07:00:00", Piece::Offset),
    ("-070000", Piece::Offset),
    ("-07:00", Piece::Offset),
    ("-0700", Piece::Offset),
    ("-07", Piece::Offset),
    ("Z07:00:00", Piece::Offset),
    ("Z070000", Piece::Offset),
    ("Z07:00", Piece::Offset),
    ("Z0700", Piece::Offset),
    ("Z07", Piece::Offset),
];

/// A layout that is an example.
fn example(layout: &str) -> Vec<Piece> {
    let (mut pieces, mut rest) = (Vec::new(), layout);
    while let Some(c) = rest.chars().next() {
        let part = EXAMPLES.iter().find(|(name, _)| {
            rest.strip_prefix(name).is_some_and(|after| {
                // `Janet` is no month.
                let goes_on = after.starts_with(|c: char| c.is_ascii_lowercase());
                !(matches!(*name, "Jan" | "Mon") && goes_on)
            })
        });
        if let Some((name, piece)) = part {
            // That is no day with a space before it.
            pieces.extend((*name == "_2006").then_some(Piece::Char('_')));
            pieces.push(*piece);
            rest = &rest[name.len()..];
            continue;
        }
        let digits = rest[c.len_utf8()..].trim_start_matches(if rest[c.len_utf8()..].starts_with('0') {
            '0'
        } else {
            '9'
        });
        let fraction = rest.len() - c.len_utf8() - digits.len();
        if matches!(c, '.' | ',') && fraction > 0 && !digits.starts_with(|c: char| c.is_ascii_digit()) {
            pieces.push(Piece::Fraction);
            rest = digits;
            continue;
        }
        push_char(c, &mut pieces);
        rest = &rest[c.len_utf8()..];
    }
    pieces
}

/// What was read of a time.
struct Time {
    year: Option<i64>,
    month: i64,
    day: i64,
    day_of_year: Option<i64>,
    seconds: i64,
    nanos: i64,
    offset: Option<i64>,
}

impl Time {
    fn read(pieces: &[Piece], text: &str) -> Option<Time> {
        let mut time = Time {
            year: None,
            month: 1,
            day: 1,
            day_of_year: None,
            seconds: 0,
            nanos: 0,
            offset: None,
        };
        let (mut hour, mut minute, mut second, mut is_afternoon) = (0, 0, 0, None);
        let rest = &mut &*text;
        for (at, piece) in pieces.iter().enumerate() {
            match piece {
                Piece::Char(c) => *rest = rest.strip_prefix(*c)?,
                Piece::Spaces => {
                    let after = rest.trim_start_matches(' ');
                    // At the end, where the text was trimmed, none are needed.
                    if after.len() == rest.len() && !rest.is_empty() {
                        return None;
                    }
                    *rest = after;
                }
                Piece::Year => time.year = Some(exactly(rest, 4)?),
                Piece::ShortYear => {
                    let year = exactly(rest, 2)?;
                    time.year = Some(year + if year < 69 { 2000 } else { 1900 });
                }
                Piece::Month => time.month = number(rest, 2)?,
                Piece::MonthName => time.month = named(rest, &MONTHS)? + 1,
                Piece::Day => time.day = number(rest, 2)?,
                Piece::DayOfYear => time.day_of_year = Some(number(rest, 3)?),
                Piece::WeekdayName => drop(named(rest, &WEEKDAYS)?),
                Piece::Hour => hour = number(rest, 2)?,
                Piece::HalfDayHour => hour = Some(number(rest, 2)?).filter(|hour| *hour <= 12)?,
                Piece::Minute => minute = number(rest, 2)?,
                Piece::Second => {
                    second = number(rest, 2)?;
                    let has_own = matches!(pieces.get(at + 1), Some(Piece::Fraction | Piece::Char('.' | ',')));
                    if !has_own {
                        time.nanos = fraction(rest).unwrap_or(0);
                    }
                }
                Piece::Fraction => time.nanos = fraction(rest).unwrap_or(0),
                Piece::FractionDigits(width) => time.nanos = scaled(rest, *width)?,
                Piece::AmPm => {
                    let mark = rest.get(..2)?;
                    is_afternoon = Some(match () {
                        () if mark.eq_ignore_ascii_case("am") => false,
                        () if mark.eq_ignore_ascii_case("pm") => true,
                        () => return None,
                    });
                    *rest = &rest[2..];
                }
                Piece::Offset => time.offset = Some(offset(rest)?),
                Piece::ZoneName => {
                    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
                    let (name, after) = rest.split_at(end);
                    match name {
                        "UTC" | "GMT" | "Z" => time.offset = Some(0),
                        // A zone without letters in its name.
                        "" => {
                            time.offset = Some(offset(rest)?);
                            continue;
                        }
                        // Several zones share a short name; which one it is, `location` says.
                        _ if (3..=5).contains(&name.len()) => {}
                        _ => return None,
                    }
                    *rest = after;
                }
            }
        }
        if let Some(is_afternoon) = is_afternoon {
            hour = hour % 12 + if is_afternoon { 12 } else { 0 };
        }
        time.seconds = hour * 3_600 + minute * 60 + second;
        (rest.is_empty() && hour < 24 && minute < 60 && second <= 60).then_some(time)
    }

    fn second_in(&self, year: i64, zone: &Zone) -> Option<i64> {
        let month_end = match self.month {
            12 => days_of(year + 1, 1, 1),
            month @ 1..=11 => days_of(year, month + 1, 1),
            _ => return None,
        };
        let days = match self.day_of_year {
            None => Some(days_of(year, self.month, self.day)).filter(|day| self.day >= 1 && *day < month_end)?,
            Some(day) => Some(days_of(year, 1, day)).filter(|days| day >= 1 && *days < days_of(year + 1, 1, 1))?,
        };
        let local = days * DAY + self.seconds;
        Some(local - self.offset.unwrap_or_else(|| zone.offset_of_local(local)))
    }
}

/// One to `width` digits; spaces that fill a number up go.
fn number(rest: &mut &str, width: usize) -> Option<i64> {
    let text = rest.trim_start_matches(' ');
    let len = text.bytes().take(width).take_while(u8::is_ascii_digit).count();
    let number = text[..len].parse().ok()?;
    *rest = &text[len..];
    Some(number)
}

fn exactly(rest: &mut &str, width: usize) -> Option<i64> {
    let len = rest.bytes().take(width).take_while(u8::is_ascii_digit).count();
    if len < width { None } else { number(rest, width) }
}

/// `.123` or `,123`, of any length.
fn fraction(rest: &mut &str) -> Option<i64> {
    let mut digits = rest.strip_prefix(['.', ','])?;
    let nanos = scaled(&mut digits, usize::MAX)?;
    *rest = digits;
    Some(nanos)
}

/// Digits of a second as nanoseconds; those behind the ninth are cut off.
fn scaled(rest: &mut &str, width: usize) -> Option<i64> {
    let len = rest.bytes().take(width).take_while(u8::is_ascii_digit).count();
    let nanos = format!("{:0<9}", &rest[..len.min(9)]).parse().ok()?;
    *rest = &rest[len..];
    (len > 0).then_some(nanos)
}

fn named(rest: &mut &str, names: &[&str]) -> Option<i64> {
    let starts = |name: &str| {
        rest.get(..name.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(name))
    };
    let (at, len) = names.iter().enumerate().find_map(|(at, name)| {
        [*name, &name[..3]]
            .iter()
            .find(|name| starts(name))
            .map(|name| (at, name.len()))
    })?;
    *rest = &rest[len..];
    Some(at as i64)
}

/// `Z`, `+01`, `+0100`, `+01:00`, `+01:00:00`, in seconds.
fn offset(rest: &mut &str) -> Option<i64> {
    if let Some(after) = rest.strip_prefix(['Z', 'z']) {
        *rest = after;
        return Some(0);
    }
    let sign = if rest.starts_with('-') { -1 } else { 1 };
    let mut text = rest.strip_prefix(['+', '-'])?;
    let mut seconds = exactly(&mut text, 2)? * 3_600;
    for unit in [60, 1] {
        let mut after = text.strip_prefix(':').unwrap_or(text);
        match exactly(&mut after, 2) {
            Some(number) => seconds += number * unit,
            None => break,
        }
        text = after;
    }
    *rest = text;
    Some(sign * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2023-11-14T22:13:20Z
    const NOW: u64 = 1_700_000_000_000_000_000;

    fn check(kind: &str, layout: &str, text: &str, expect: impl Into<Option<u64>>) {
        check_in("", kind, layout, text, expect);
    }

    fn check_in(location: &str, kind: &str, layout: &str, text: &str, expect: impl Into<Option<u64>>) {
        let read =
            Layout::read(Some(layout), Some(kind), Some(location)).unwrap_or_else(|why| panic!("{layout}: {why:?}"));
        assert_eq!(read.parse(text, NOW), expect.into(), "{layout}: {text}");
    }

    #[test]
    fn directives_of_strptime() {
        for (layout, text) in [
            ("%Y-%m-%d %H:%M:%S", "2023-11-14 22:13:20"),
            ("%Y-%m-%dT%H:%M:%S%z", "2023-11-14T22:13:20Z"),
            ("%FT%T%j", "2023-11-14T23:13:20+01:00"),
            ("%d/%b/%Y:%H:%M:%S %z", "14/Nov/2023:23:13:20 +0100"),
            ("%a %b %e %H:%M:%S %Z %Y", "Tue Nov 14 22:13:20 UTC 2023"),
            ("%A, %d. %B %y %I.%M.%S %p", "Tuesday, 14. November 23 10.13.20 PM"),
            ("%c", "Tue Nov 14 22:13:20 2023"),
            ("%D %r", "11/14/2023 10:13:20 pm"),
            ("%b %d %T", "Nov 14 22:13:20"),
            ("[%Y%m%d%H%M%S] 100%%", "[20231114221320] 100%"),
            ("%g.%q.%Y %X", "14.11.2023 22:13:20"),
        ] {
            check("strptime", layout, text, NOW);
        }
        check(
            "strptime",
            "%Y-%m-%d %H:%M:%S.%L",
            "2023-11-14 22:13:20.5",
            NOW + 500_000_000,
        );
        check(
            "strptime",
            "%Y-%m-%d %H:%M:%S,%L",
            "2023-11-14 22:13:20,123",
            NOW + 123_000_000,
        );
        check("strptime", "%Y-%m-%d %H:%M:%S.%f", "2023-11-14 22:13:20", NOW);
        check(
            "strptime",
            "%Y-%m-%d %H:%M:%S",
            "2023-11-14 22:13:20.123456789012",
            NOW + 123_456_789,
        );
        check(
            "strptime",
            "%H:%M:%S:%L %F",
            "22:13:20:042 2023-11-14",
            NOW + 42_000_000,
        );
        check("strptime", "%Y %s", "2023 000000007", 1_672_531_200_000_000_007);
    }

    #[test]
    fn examples_of_go() {
        for (layout, text) in [
            ("2006-01-02T15:04:05Z07:00", "2023-11-14T22:13:20Z"),
            ("2006-01-02T15:04:05.999999999Z07:00", "2023-11-14T23:13:20+01:00"),
            ("Mon, 02 Jan 2006 15:04:05 MST", "Tue, 14 Nov 2023 22:13:20 GMT"),
            ("Monday, 02-Jan-06 15:04:05 MST", "Tuesday, 14-Nov-23 22:13:20 UTC"),
            ("Jan _2 15:04:05", "Nov 14 22:13:20"),
            ("Mon Jan _2 15:04:05 2006", "Tue Nov 14 22:13:20 2023"),
            ("1/2/2006 3:4:5 PM", "11/14/2023 10:13:20 PM"),
            ("2006.002 15h04 05s -0700", "2023.318 23h13 20s +0100"),
            ("Janet 20060102150405", "Janet 20231114221320"),
            ("02.01.2006 15:04:05", "14.11.2023 22:13:20"),
        ] {
            check("gotime", layout, text, NOW);
        }
        check(
            "gotime",
            "2006-01-02 15:04:05,000",
            "2023-11-14 22:13:20,007",
            NOW + 7_000_000,
        );
        check(
            "gotime",
            "Jan _2 15:04:05",
            "Nov  4 22:13:20",
            NOW - 10 * 86_400_000_000_000,
        );
    }

    #[test]
    fn numbers_since_1970() {
        check("epoch", "s", "1700000000", NOW);
        check("epoch", "s.ns", "1700000000.123456789", NOW + 123_456_789);
        check("epoch", "ms", "1700000000123.5", NOW + 123_500_000);
        check("epoch", "us", "1700000000000001", NOW + 1_000);
        check("epoch", "ns", "1700000000000000001.9", NOW + 1);
        for text in ["", "0", "-1", "1e9", "x", "99999999999999999999", "1.x"] {
            check("epoch", "s", text, None);
        }
        let read = Layout::read(Some("ms"), Some("epoch"), None).unwrap();
        assert_eq!(read.parse_number(1_700_000_000_000.0), Some(NOW));
        assert_eq!(read.parse_number(-1.0), None);
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "2023-11-14",
            "2023-13-14 00:00:00",
            "2023-11-31 00:00:00",
            "2023-02-29 00:00:00",
            "2023-11-00 00:00:00",
            "2023-11-14 24:00:00",
            "2023-11-14 22:60:00",
            "2023-11-14 22:13:20 x",
            "23-11-14 22:13:20",
            "2023-11-14 22:13:20.",
            "1900-01-01 00:00:00",
            "2023-11-14  ",
        ] {
            check("strptime", "%Y-%m-%d %H:%M:%S", text, None);
        }
        check(
            "strptime",
            "%Y-%m-%d %H:%M:%S",
            "2024-02-29 00:00:00",
            1_709_164_800_000_000_000,
        );
        check("strptime", "%H %p", "13 XM", None);
        check("strptime", "%Y %z", "2023 0100", None);
        check("strptime", "%Y %b", "2023 Foo", None);
        check("strptime", "%Y %b", "2023 ééé", None);
    }

    #[test]
    fn a_time_without_a_year_is_near() {
        // A week and more ahead: last year's.
        check("strptime", "%b %d %T", "Dec 24 00:00:00", 1_671_840_000_000_000_000);
        check("strptime", "%b %d %T", "Nov 20 00:00:00", 1_700_438_400_000_000_000);
    }

    #[test]
    fn a_location_has_its_summer() {
        if !std::path::Path::new("/usr/share/zoneinfo/Europe/Vienna").exists() {
            eprintln!("skipped: this system has no database of time zones");
            return;
        }
        check_in("Europe/Vienna", "strptime", "%F %T", "2023-11-14 23:13:20", NOW);
        check_in(
            "Europe/Vienna",
            "strptime",
            "%F %T",
            "2023-07-14 23:13:20",
            1_689_369_200_000_000_000,
        );
        // What the text says counts.
        check_in(
            "Europe/Vienna",
            "strptime",
            "%F %T %z",
            "2023-11-14 22:13:20 +0000",
            NOW,
        );
        check_in(
            "America/New_York",
            "strptime",
            "%F %T %Z",
            "2023-11-14 17:13:20 EST",
            NOW,
        );
    }

    /// The text was trimmed and the layout was not, so that they never met.
    #[test]
    fn spaces_around_a_layout_were_waited_for() {
        check("strptime", " %Y-%m-%d %H:%M:%S\n", "2023-11-14 22:13:20", NOW);
        check("gotime", " 2006-01-02 15:04:05 ", " 2023-11-14 22:13:20 ", NOW);
        check("epoch", "s ", "1700000000", NOW);
    }

    #[test]
    fn mistakes() {
        for (layout, kind, location, expect) in [
            (None, "strptime", "", "needs its `layout`"),
            (Some("%Q"), "strptime", "", "`%Q` is a directive that is not known"),
            (Some("%Y %"), "strptime", "", "ends with a single %"),
            (Some("yyyy"), "strptime", "", "no part of a time"),
            (Some("yyyy"), "gotime", "", "no part of a time"),
            (Some("h"), "epoch", "", "none of s, ms"),
            (Some("%Y"), "posix", "", "none of strptime"),
            (
                Some("%Y"),
                "strptime",
                "Nowhere/At all",
                "is not the name of a time zone",
            ),
        ] {
            let said = Layout::read(layout, Some(kind), Some(location)).unwrap_err().1;
            assert!(said.contains(expect), "{layout:?}: {said}");
        }
    }

    #[test]
    fn years() {
        for (date, year) in [
            ((1970, 1, 1), 1970),
            ((1969, 12, 31), 1969),
            ((2024, 12, 31), 2024),
            ((2025, 1, 1), 2025),
            ((2400, 2, 29), 2400),
            ((1, 1, 1), 1),
        ] {
            assert_eq!(year_of(days_of(date.0, date.1, date.2) * DAY), year);
        }
    }
}
