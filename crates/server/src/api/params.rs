//! Query strings: repeated names, and the several ways in which times and durations are written.

use std::time::Duration;

use axum::extract::Query;
use axum::http::Uri;
use query::instant::{NANOS_PER_SECOND, parse_duration, parse_rfc3339};

/// The parameters of one request, in order.
pub struct Params(Vec<(String, String)>);

/// A parameter that cannot be read; the text names it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadParam(pub String);

impl Params {
    pub fn of(uri: &Uri) -> Result<Params, BadParam> {
        match Query::<Vec<(String, String)>>::try_from_uri(uri) {
            Ok(Query(pairs)) => Ok(Params(pairs)),
            Err(error) => Err(BadParam(format!("the query string cannot be read: {error}"))),
        }
    }

    /// The first value that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).find(|value| !value.is_empty())
    }

    /// The first of several names for one parameter.
    pub fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }

    pub fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Reads the first value with `read`, which says what would have been right.
    pub fn read<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Option<T>,
        expected: &str,
    ) -> Result<Option<T>, BadParam> {
        self.read_any(&[name], read, expected)
    }

    pub fn read_any<T>(
        &self,
        names: &[&str],
        read: impl FnOnce(&str) -> Option<T>,
        expected: &str,
    ) -> Result<Option<T>, BadParam> {
        let Some(value) = self.first(names) else {
            return Ok(None);
        };
        let shown: String = value.chars().take(64).collect();
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(BadParam(format!(
                "unable to parse param '{}': `{shown}` is not {expected}",
                names[0]
            ))),
        }
    }

    pub fn duration(&self, names: &[&str]) -> Result<Option<Duration>, BadParam> {
        self.read_any(names, parse_duration, "a duration such as 100ms, 5s or 1h30m")
    }

    pub fn flag(&self, name: &str) -> Result<bool, BadParam> {
        let read = |value: &str| match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "t" => Some(true),
            "false" | "0" | "f" => Some(false),
            _ => None,
        };
        Ok(self.read(name, read, "true or false")?.unwrap_or(false))
    }

    pub fn limit(&self, names: &[&str]) -> Result<Option<usize>, BadParam> {
        self.read_any(names, |value| value.parse().ok(), "a number of traces")
    }

    /// An integer in units of `unit_ns`, as an instant in ns.
    pub fn instant_in(&self, name: &str, unit_ns: u64) -> Result<Option<u64>, BadParam> {
        let read = |value: &str| value.parse::<u64>().ok().map(|number| number.saturating_mul(unit_ns));
        let unit = match unit_ns {
            1_000 => "a time in microseconds since 1970",
            1_000_000 => "a time in milliseconds since 1970",
            _ => "a time",
        };
        self.read(name, read, unit)
    }
}

/// An instant as Trackline's own API takes it: ns since 1970, or RFC 3339.
pub fn instant(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| parse_rfc3339(text))
}

/// A range of time from any two of start, end and lookback; what is missing is counted from now.
pub fn range(
    start: Option<u64>,
    end: Option<u64>,
    lookback: Option<Duration>,
    default: Duration,
    now: u64,
) -> std::ops::Range<u64> {
    // Clocks of services may be ahead of ours; a search "until now" must not hide what they sent just now.
    const AHEAD_NS: u64 = 5 * 60 * NANOS_PER_SECOND;
    let back = u64::try_from(lookback.unwrap_or(default).as_nanos()).unwrap_or(u64::MAX);
    let start = start.unwrap_or_else(|| end.unwrap_or(now).saturating_sub(back));
    let end = end.map_or(now.saturating_add(AHEAD_NS), |end| end.saturating_add(1));
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params::of(&format!("/x?{query}").parse().unwrap()).unwrap()
    }

    #[test]
    fn names_may_repeat_and_values_are_decoded() {
        let params = params("tag=a%3Db&tag=c+d%26&limit=&limit=5");
        assert_eq!(params.all("tag").collect::<Vec<_>>(), ["a=b", "c d&"]);
        assert_eq!(params.limit(&["limit"]).unwrap(), Some(5));
        assert_eq!(params.get("absent"), None);
    }

    #[test]
    fn a_bad_value_is_named_with_what_would_be_right() {
        let error = params("minDuration=5").duration(&["minDuration"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unable to parse param 'minDuration': `5` is not a duration such as 100ms, 5s or 1h30m"
        );
    }

    #[test]
    fn ranges_come_from_any_two_ends() {
        let hour = Duration::from_secs(3600);
        let now = 10_000 * NANOS_PER_SECOND;
        assert_eq!(range(Some(1), Some(2), None, hour, now), 1..3);
        assert_eq!(range(None, None, None, hour, now).start, 6_400 * NANOS_PER_SECOND);
        assert_eq!(
            range(None, Some(now), Some(Duration::from_secs(10)), hour, now).start,
            9_990 * NANOS_PER_SECOND
        );
        assert!(range(None, None, None, hour, now).end > now);
    }
}
