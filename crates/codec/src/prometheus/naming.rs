//! Why: one metric has one name in Prometheus, whichever way it comes there. Dots, units and kinds become the name that the rules of OpenTelemetry and
//! Prometheus give, with no suffix twice: `request_count` is `request_count_total`, `request_duration_seconds` in `s` stays.

use model::view::metrics::{Data, Metric};
use serde::Deserialize;

use super::Kind;

/// `translation_strategy`: what becomes of characters and suffixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Strategy {
    /// Letters, digits and underscores; unit and kind as suffixes.
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// Letters, digits and underscores; nothing is added.
    UnderscoreEscapingWithoutSuffixes,
    /// Any UTF-8 stays; unit and kind as suffixes.
    NoUTF8EscapingWithSuffixes,
    /// Names stay as they are.
    NoTranslation,
}

impl Strategy {
    /// What `add_metric_suffixes` means where no strategy is named.
    pub fn escaping(add_suffixes: bool) -> Strategy {
        if add_suffixes {
            Strategy::UnderscoreEscapingWithSuffixes
        } else {
            Strategy::UnderscoreEscapingWithoutSuffixes
        }
    }

    pub fn keeps_utf8(self) -> bool {
        matches!(self, Strategy::NoUTF8EscapingWithSuffixes | Strategy::NoTranslation)
    }

    pub fn adds_suffixes(self) -> bool {
        matches!(
            self,
            Strategy::UnderscoreEscapingWithSuffixes | Strategy::NoUTF8EscapingWithSuffixes
        )
    }
}

/// The words for the units of UCUM that telemetry uses, as a main unit.
fn main_unit(unit: &str) -> &str {
    match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "1" => "",
        "%" => "percent",
        other => other,
    }
}

/// The same behind a slash.
fn per_unit(unit: &str) -> &str {
    match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => other,
    }
}

/// Both parts of a unit as they may stand in a name; empty where there is none. What braces hold is a remark, not a unit.
fn unit_words(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let word = |part: &str, of: fn(&str) -> &str| {
        let part = part.trim();
        if part.contains(['{', '}']) {
            return String::new();
        }
        let mut word = String::new();
        push_tokens(&mut word, of(part));
        word
    };
    (word(main, main_unit), word(per, per_unit))
}

/// A unit in words, as a name ends in it: `bytes_per_second`.
pub fn unit(unit: &str) -> String {
    let (main, per) = unit_words(unit);
    match (main.is_empty(), per.is_empty()) {
        (_, true) => main,
        (true, false) => format!("per_{per}"),
        (false, false) => format!("{main}_per_{per}"),
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// The parts of a name between characters that cannot stand in one.
fn tokens(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c| !is_name_char(c)).filter(|token| !token.is_empty())
}

fn push_token(out: &mut String, token: &str) {
    if !out.is_empty() {
        out.push('_');
    }
    out.push_str(token);
}

fn push_tokens(out: &mut String, text: &str) {
    for token in tokens(text) {
        push_token(out, token);
    }
}

/// The unit as far as a name tells it: `1` makes a ratio of a gauge, but in a sum that may go down it says that things are counted.
pub fn told_unit<'a>(metric: &Metric<'a>) -> &'a str {
    match metric.data {
        Data::Sum {
            is_monotonic: false, ..
        } if metric.unit == "1" => "",
        _ => metric.unit,
    }
}

/// Writes the name of a metric's family; for a counter it ends in `_total`, if suffixes are wanted.
pub fn metric(out: &mut String, strategy: Strategy, namespace: &str, name: &str, unit: &str, kind: Kind) {
    out.clear();
    let ends = Ends::of(strategy, unit, kind);
    if strategy.keeps_utf8() {
        keep(out, namespace, name, &ends);
    } else {
        escape(out, namespace, name, &ends);
    }
}

/// What a name is to end in.
#[derive(Default)]
struct Ends {
    main: String,
    per: String,
    last: &'static str,
}

impl Ends {
    fn of(strategy: Strategy, unit: &str, kind: Kind) -> Ends {
        if !strategy.adds_suffixes() {
            return Ends::default();
        }
        let (main, per) = match unit {
            "" | "1" => <(String, String)>::default(),
            _ => unit_words(unit),
        };
        let last = match kind {
            Kind::Counter => "total",
            Kind::Gauge if unit == "1" => "ratio",
            Kind::Info => "info",
            _ => "",
        };
        Ends { main, per, last }
    }
}

fn escape(out: &mut String, namespace: &str, name: &str, ends: &Ends) {
    push_tokens(out, namespace);
    let (mut has_main, mut has_per) = (false, false);
    for token in tokens(name) {
        has_main |= token == ends.main;
        has_per |= token == ends.per;
        // It is put at the end, once.
        if ends.last.is_empty() || token != ends.last {
            push_token(out, token);
        }
    }
    // A unit of several words is no token, but may stand at the end all the same.
    if !has_main && !ends.main.is_empty() && !out.ends_with(&ends.main) {
        push_token(out, &ends.main);
    }
    if !has_per && !ends.per.is_empty() {
        push_token(out, "per");
        push_token(out, &ends.per);
    }
    if !ends.last.is_empty() {
        push_token(out, ends.last);
    }
    if out.is_empty() || out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
}

fn keep(out: &mut String, namespace: &str, name: &str, ends: &Ends) {
    out.push_str(namespace);
    if !namespace.is_empty() {
        out.push('_');
    }
    out.push_str(name);
    let without = |out: &mut String, word: &str| {
        if let Some(rest) = out.strip_suffix(word)
            && rest.ends_with(|c: char| !c.is_alphanumeric())
        {
            let length = rest.trim_end_matches(|c: char| !c.is_alphanumeric()).len();
            out.truncate(length);
        }
    };
    if !ends.last.is_empty() {
        without(out, ends.last);
    }
    let per = if ends.per.is_empty() {
        String::new()
    } else {
        format!("per_{}", ends.per)
    };
    for word in [&per, &ends.main].into_iter().filter(|word| !word.is_empty()) {
        without(out, word);
    }
    for word in [&ends.main, &per, ends.last]
        .into_iter()
        .filter(|word| !word.is_empty())
    {
        push_token(out, word);
    }
    if out.is_empty() {
        out.push('_');
    }
}

/// Appends the name of a label. Attributes never become names that begin with an underscore, which are Prometheus' own; where names stay as they are, they
/// may have come from there (`__replica__`), and only the one that is the metric's name is changed.
pub fn label(out: &mut String, strategy: Strategy, key: &str) {
    if strategy.keeps_utf8() {
        if key.is_empty() || key == "__name__" {
            out.push_str("key_");
        }
        out.push_str(key);
        return;
    }
    let start = out.len();
    // The bytes of a character beyond ASCII are one stretch, and a stretch is one underscore.
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric();
    let mut rest = key;
    while !rest.is_empty() {
        let plain = rest.bytes().position(|byte| !is_plain(&byte)).unwrap_or(rest.len());
        out.push_str(&rest[..plain]);
        rest = &rest[plain..];
        if !rest.is_empty() {
            out.push('_');
            let other = rest.bytes().position(|byte| is_plain(&byte)).unwrap_or(rest.len());
            rest = &rest[other..];
        }
    }
    match out[start..].chars().next() {
        Some(first) if first.is_ascii_digit() => out.insert_str(start, "key_"),
        Some('_') => out.insert_str(start, "key"),
        Some(_) => {}
        None => out.push_str("key_"),
    }
}

/// Whether a name may stand unquoted in the text formats.
pub fn is_plain_metric(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
}

/// The same of a label's name.
pub fn is_plain_label(name: &str) -> bool {
    is_plain_metric(name) && !name.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, name: &str, unit: &str, expect: &str) {
        let mut out = String::new();
        metric(&mut out, Strategy::default(), "", name, unit, kind);
        assert_eq!(out, expect, "{name} in {unit:?}");
        // A name that has been through it once is not changed by the next collector on its way.
        let once = out.clone();
        metric(&mut out, Strategy::default(), "", &once, unit, kind);
        assert_eq!(out, once, "twice");
    }

    #[test]
    fn names_of_the_catalogue() {
        check(Kind::Counter, "request_count", "", "request_count_total");
        check(Kind::Counter, "request_count", "{request}", "request_count_total");
        check(Kind::Counter, "request_errors_total", "1", "request_errors_total");
        check(
            Kind::Histogram,
            "request_duration_seconds",
            "s",
            "request_duration_seconds",
        );
        check(Kind::Counter, "ai_cost_total", "{USD}", "ai_cost_total");
        check(Kind::Counter, "ai_cost_total", "USD", "ai_cost_USD_total");
        check(Kind::Gauge, "active_requests", "{request}", "active_requests");
    }

    #[test]
    fn units_as_the_specification_has_them() {
        check(
            Kind::Histogram,
            "http.server.request.duration",
            "s",
            "http_server_request_duration_seconds",
        );
        check(
            Kind::Gauge,
            "system.filesystem.usage",
            "By",
            "system_filesystem_usage_bytes",
        );
        check(
            Kind::Counter,
            "system.network.io",
            "By",
            "system_network_io_bytes_total",
        );
        check(
            Kind::Gauge,
            "system.cpu.utilization",
            "1",
            "system_cpu_utilization_ratio",
        );
        check(Kind::Counter, "redis.commands", "1", "redis_commands_total");
        check(Kind::Gauge, "disk.speed", "By/s", "disk_speed_bytes_per_second");
        check(Kind::Gauge, "broker.rate", "{msgs}/s", "broker_rate_per_second");
        check(Kind::Gauge, "hertz of it", "/m", "hertz_of_it_per_minute");
        check(Kind::Gauge, "load", "%", "load_percent");
        check(Kind::Gauge, "speed", "m/s", "speed_meters_per_second");
        check(Kind::Gauge, "odd", "a__b§c", "odd_a_b_c");
        check(Kind::Counter, "total.requests", "", "requests_total");
        check(Kind::Gauge, "1st", "", "_1st");
        check(Kind::Gauge, "a...b__c", "", "a_b_c");
        check(Kind::Gauge, "größe", "", "gr_e");
        check(Kind::Counter, "", "", "total");
        check(Kind::Gauge, "§§", "", "_");
        check(Kind::Gauge, "ns:rule", "", "ns:rule");
    }

    #[test]
    fn strategies() {
        let all = [
            (Strategy::UnderscoreEscapingWithSuffixes, "n_s_http_size_bytes_total"),
            (Strategy::UnderscoreEscapingWithoutSuffixes, "n_s_http_size_total"),
            (Strategy::NoUTF8EscapingWithSuffixes, "n.s_http.size_bytes_total"),
            (Strategy::NoTranslation, "n.s_http.size.total"),
        ];
        let mut out = String::new();
        for (strategy, expect) in all {
            metric(&mut out, strategy, "n.s", "http.size.total", "By", Kind::Counter);
            assert_eq!(out, expect, "{strategy:?}");
        }
        metric(
            &mut out,
            Strategy::NoUTF8EscapingWithSuffixes,
            "",
            "größe.seconds",
            "s",
            Kind::Gauge,
        );
        assert_eq!(out, "größe_seconds");
        metric(
            &mut out,
            Strategy::NoUTF8EscapingWithSuffixes,
            "",
            "rate",
            "By/s",
            Kind::Gauge,
        );
        assert_eq!(out, "rate_bytes_per_second");
    }

    #[test]
    fn labels() {
        let of = |strategy, key| {
            let mut out = String::from("before");
            label(&mut out, strategy, key);
            out.split_off("before".len())
        };
        for (key, expect) in [
            ("http.request.method", "http_request_method"),
            ("plain", "plain"),
            ("a..b", "a_b"),
            ("0day", "key_0day"),
            ("__name__", "key_name_"),
            ("", "key_"),
            ("größe", "gr_e"),
            ("日本", "key_"),
        ] {
            assert_eq!(of(Strategy::default(), key), expect, "{key}");
            assert!(is_plain_label(expect));
        }
        assert_eq!(of(Strategy::NoTranslation, "größe.x"), "größe.x");
        assert_eq!(of(Strategy::NoTranslation, "__name__"), "key___name__");
    }
}
