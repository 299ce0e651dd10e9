//! Instants as RFC 3339 has them. Log lines, databases, requests to our APIs and the terminal all write them so, and are to agree on what they mean.

pub const NANOS_PER_SECOND: u64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

pub const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// 1970-01-01 was a Thursday.
pub const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// `2026-11-20T19:04:05.123Z`; as many digits of the fraction as asked for (0 to 9).
pub fn rfc3339(unix_nano: u64, digits: usize) -> String {
    let seconds = (unix_nano / NANOS_PER_SECOND) as i64;
    let (year, month, day) = date_of(seconds.div_euclid(SECONDS_PER_DAY));
    let clock = seconds.rem_euclid(SECONDS_PER_DAY);
    let mut text = format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        clock / 3600,
        clock / 60 % 60,
        clock % 60
    );
    if digits > 0 {
        let fraction = format!("{:09}", unix_nano % NANOS_PER_SECOND);
        text.push('.');
        text.push_str(&fraction[..digits.min(9)]);
    }
    text.push('Z');
    text
}

/// Days since 1970-01-01 to year, month, day (the proleptic Gregorian calendar, in eras of 400 years from March 1st).
pub fn date_of(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse; a day or month beyond the end of its month or year is one of the next.
pub fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Seconds since 1970 of a date as HTTP has it: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7, the form that is to be sent).
pub fn parse_http_date(text: &str) -> Option<u64> {
    let mut parts = text.split_once(", ")?.1.split(' ');
    let day: i64 = parts.next()?.parse().ok()?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|month| month[..3] == *name)? as i64 + 1;
    let year: i64 = parts
        .next()?
        .parse()
        .ok()
        .filter(|year| (1970..10_000).contains(year))?;
    let mut clock = parts.next()?.split(':').map(str::parse::<u64>);
    let (hours, minutes, seconds) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    if parts.next() != Some("GMT") || hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    let days = days_of(year, month, day);
    let is_date = date_of(days) == (year, month, day);
    let clock = hours * 3600 + minutes * 60 + seconds;
    is_date.then_some(days as u64 * SECONDS_PER_DAY as u64 + clock)
}

/// An instant in ns since 1970 from RFC 3339 with any offset; a space may stand for the `T`, and a missing offset is
/// UTC (databases write both). `None` for anything else and for instants that 64 bits cannot hold.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let text = text.trim();
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < 19 {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let separators = [(4, b"-"), (7, b"-"), (13, b":"), (16, b":")];
    if separators.iter().any(|&(at, mark)| bytes[at] != mark[0]) || !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let days = days_of(year, month, day);
    // The calendar is checked by going back: February 30th comes out as March.
    if date_of(days) != (year, month, day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &text[19..];
    let mut nanos = 0u64;
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if length == 0 {
            return None;
        }
        for i in 0..9 {
            nanos = nanos * 10
                + fraction.as_bytes()[..length]
                    .get(i)
                    .map_or(0, |digit| u64::from(digit - b'0'));
        }
        rest = &fraction[length..];
    }
    let offset = match rest {
        "" | "Z" | "z" => 0,
        _ => {
            let sign = match rest.as_bytes()[0] {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let digits: String = rest[1..].chars().filter(|&c| c != ':').collect();
            if !matches!(digits.len(), 2 | 4) || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            let hours: i64 = digits[..2].parse().ok()?;
            let minutes: i64 = digits
                .get(2..)
                .filter(|m| !m.is_empty())
                .map_or(Some(0), |m| m.parse().ok())?;
            sign * (hours * 3600 + minutes * 60)
        }
    };
    let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset;
    u64::try_from(seconds)
        .ok()?
        .checked_mul(NANOS_PER_SECOND)?
        .checked_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_go_there_and_back() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2000-02-29T23:59:59Z",
            "2026-11-20T19:04:05Z",
            "2100-03-01T00:00:00Z",
        ] {
            assert_eq!(rfc3339(parse_rfc3339(text).unwrap(), 0), text);
        }
        assert_eq!(
            parse_rfc3339("2026-11-20T19:04:05Z"),
            Some(1_795_201_445 * NANOS_PER_SECOND)
        );
        assert_eq!(rfc3339(1_795_201_445_123_456_789, 3), "2026-11-20T19:04:05.123Z");
    }

    #[test]
    fn offsets_fractions_and_databases_ways_are_read() {
        let noon = parse_rfc3339("2026-11-20T12:00:00Z").unwrap();
        assert_eq!(parse_rfc3339("2026-11-20T14:30:00+02:30"), Some(noon));
        assert_eq!(parse_rfc3339("2026-11-20 12:00:00"), Some(noon));
        assert_eq!(parse_rfc3339("2026-11-20 12:00:00+00"), Some(noon));
        assert_eq!(parse_rfc3339("2026-11-20T12:00:00.000000001Z"), Some(noon + 1));
        assert_eq!(
            parse_rfc3339("2026-11-20T12:00:00.1234567899Z"),
            Some(noon + 123_456_789)
        );
    }

    #[test]
    fn what_is_not_an_instant_is_refused() {
        for text in [
            "",
            "now",
            "2026-02-30T00:00:00Z",
            "2026-11-20T25:00:00Z",
            "2026-11-20T12:00:00.Z",
            "2026-11-20",
            "1969-01-01T00:00:00Z",
            "2026-11-20T12:00:00+1",
            "2026-11-20T12:00:00€",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
