//! Why: what `/metrics` answers, in the two text formats that scrapers ask for: 0.0.4, which everything reads, and OpenMetrics 1.0, which has exemplars.
//! Metrics that came as OTLP and the process's own go through the same writer, so that one page has no family twice.

use std::collections::HashSet;
use std::fmt::Write;

use super::labels::Pairs;
use super::{Kind, number};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Text 0.0.4.
    Text,
    OpenMetrics,
}

impl Format {
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// One line of a family.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample<'a> {
    /// `_bucket`, `_sum`, `_count` or nothing; what counters and infos end in belongs to the family's name.
    pub suffix: &'a str,
    /// As [`put_labels`] writes them.
    pub labels: &'a str,
    /// `le` or `quantile` and its value.
    pub extra: Option<(&'a str, f64)>,
    pub value: f64,
    pub time_ms: Option<i64>,
    /// Shown in OpenMetrics, behind counters and buckets.
    pub exemplar: Option<Exemplar<'a>>,
}

#[derive(Debug, Clone, Copy)]
pub struct Exemplar<'a> {
    /// As [`put_labels`] writes them.
    pub labels: &'a str,
    pub value: f64,
    pub time_ms: i64,
}

/// Writes a page, family by family.
#[derive(Debug)]
pub struct Writer {
    format: Format,
    out: String,
    /// What has been written, as the format names it.
    families: HashSet<String>,
    family: String,
    kind: Kind,
    /// The family was there before: its samples are left out.
    is_repeated: bool,
}

impl Writer {
    pub fn new(format: Format) -> Writer {
        Writer {
            format,
            out: String::new(),
            families: HashSet::new(),
            family: String::new(),
            kind: Kind::Unknown,
            is_repeated: false,
        }
    }

    /// Begins a family. `name` is that of its series, for a counter usually with `_total`. `false` if the page has it already; its samples are then left out.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str, unit: &str) -> bool {
        self.family.clear();
        self.family.push_str(name);
        self.kind = kind;
        let mut shown = name;
        if self.format == Format::OpenMetrics {
            let ending = match kind {
                Kind::Counter => "_total",
                Kind::Info => "_info",
                _ => "",
            };
            match name.strip_suffix(ending) {
                Some(base) if !base.is_empty() && !self.families.contains(base) => shown = base,
                // OpenMetrics has no counter that does not end so; nor two families of one name.
                _ => self.kind = Kind::Unknown,
            }
        }
        self.is_repeated = !self.families.insert(shown.to_owned());
        if self.is_repeated {
            return false;
        }
        if !help.is_empty() {
            let _ = write!(self.out, "# HELP {shown} ");
            escape(&mut self.out, help, self.format == Format::OpenMetrics);
            self.out.push('\n');
        }
        let kind = match (self.kind, self.format) {
            (Kind::Unknown, Format::Text) => "untyped",
            // 0.0.4 has no words for these.
            (Kind::Info | Kind::StateSet, Format::Text) => "gauge",
            (Kind::GaugeHistogram, Format::Text) => "untyped",
            (kind, _) => kind.word(),
        };
        let _ = writeln!(self.out, "# TYPE {shown} {kind}");
        let ends_in_unit = || shown.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'));
        if self.format == Format::OpenMetrics && !unit.is_empty() && ends_in_unit() {
            let _ = writeln!(self.out, "# UNIT {shown} {unit}");
        }
        true
    }

    /// Writes a line of the family.
    pub fn sample(&mut self, sample: &Sample<'_>) {
        if self.is_repeated {
            return;
        }
        let out = &mut self.out;
        out.push_str(&self.family);
        out.push_str(sample.suffix);
        if !sample.labels.is_empty() || sample.extra.is_some() {
            out.push('{');
            out.push_str(sample.labels);
            if let Some((name, value)) = sample.extra {
                if !sample.labels.is_empty() {
                    out.push(',');
                }
                out.push_str(name);
                out.push_str("=\"");
                number::canonical(out, value);
                out.push('"');
            }
            out.push('}');
        }
        out.push(' ');
        let open = self.format == Format::OpenMetrics;
        put_number(out, sample.value, open);
        if let Some(time_ms) = sample.time_ms {
            out.push(' ');
            put_time(out, time_ms, open);
        }
        let may = open && (self.kind == Kind::Counter || sample.suffix == "_bucket");
        if let Some(exemplar) = sample.exemplar.filter(|_| may) {
            out.push_str(" # {");
            out.push_str(exemplar.labels);
            out.push_str("} ");
            put_number(out, exemplar.value, true);
            out.push(' ');
            put_time(out, exemplar.time_ms, true);
        }
        out.push('\n');
    }

    /// A family of one kind of lines, as a process tells of itself.
    pub fn plain(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut text = String::new();
        put_labels(&mut text, labels.iter().copied());
        self.sample(&Sample {
            labels: &text,
            value,
            ..Sample::default()
        });
    }

    /// The page.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

fn put_number(out: &mut String, value: f64, open: bool) {
    if open {
        number::canonical(out, value);
    } else {
        number::plain(out, value);
    }
}

/// Milliseconds, in OpenMetrics seconds.
fn put_time(out: &mut String, time_ms: i64, open: bool) {
    if open {
        let _ = write!(out, "{}.{:03}", time_ms / 1000, time_ms.rem_euclid(1000));
    } else {
        number::integer(out, time_ms);
    }
}

/// Appends labels as both formats write them between the braces.
pub fn put_labels<'a>(out: &mut String, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let mut is_first = true;
    for (name, value) in pairs {
        if !std::mem::take(&mut is_first) {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        escape(out, value, true);
        out.push('"');
    }
}

/// The labels of a series but for one, which the family's kind writes itself.
pub fn put_pairs(out: &mut String, pairs: Pairs<'_>, without: &str) {
    put_labels(out, pairs.iter().filter(|(name, _)| *name != without));
}

fn escape(out: &mut String, text: &str, quotes: bool) {
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escaped = match byte {
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'"' if quotes => "\\\"",
            // Neither format can say it, and readers end there.
            0 => "\u{fffd}",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        out.push_str(escaped);
        plain = at + 1;
    }
    out.push_str(&text[plain..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(format: Format) -> String {
        let mut writer = Writer::new(format);
        assert!(writer.family(
            "request_duration_seconds",
            Kind::Histogram,
            "How \"long\"\nit\\took",
            "seconds"
        ));
        let exemplar = Exemplar {
            labels: "trace_id=\"0af7\"",
            value: 0.25,
            time_ms: 1_700_000_000_123,
        };
        let labels = "method=\"GET\"";
        for (bound, value) in [(1.0, 3.0), (1e6, 4.0), (f64::INFINITY, 5.0)] {
            let exemplar = Some(exemplar).filter(|_| bound == 1.0);
            writer.sample(&Sample {
                suffix: "_bucket",
                labels,
                extra: Some(("le", bound)),
                value,
                exemplar,
                ..Sample::default()
            });
        }
        writer.sample(&Sample {
            suffix: "_sum",
            labels,
            value: 7.5,
            ..Sample::default()
        });
        writer.sample(&Sample {
            suffix: "_count",
            labels,
            value: 5.0,
            ..Sample::default()
        });
        assert!(writer.family("request_count_total", Kind::Counter, "", ""));
        writer.sample(&Sample {
            value: 17.0,
            time_ms: Some(1_700_000_000_007),
            exemplar: Some(exemplar),
            ..Sample::default()
        });
        assert!(writer.family("odd", Kind::Counter, "", ""));
        writer.plain(&[("path", "C:\\a \"b\"\n\0"), ("z", "ü")], f64::NAN);
        assert!(writer.family("target_info", Kind::Info, "Target metadata", ""));
        writer.plain(&[], 1.0);
        assert!(!writer.family("odd", Kind::Gauge, "again", ""));
        writer.plain(&[], 2.0);
        writer.finish()
    }

    #[test]
    fn text() {
        let expect = r#"# HELP request_duration_seconds How "long"\nit\\took
# TYPE request_duration_seconds histogram
request_duration_seconds_bucket{method="GET",le="1.0"} 3
request_duration_seconds_bucket{method="GET",le="1e+06"} 4
request_duration_seconds_bucket{method="GET",le="+Inf"} 5
request_duration_seconds_sum{method="GET"} 7.5
request_duration_seconds_count{method="GET"} 5
# TYPE request_count_total counter
request_count_total 17 1700000000007
# TYPE odd counter
odd{path="C:\\a \"b\"\n�",z="ü"} NaN
# HELP target_info Target metadata
# TYPE target_info gauge
target_info 1
"#;
        assert_eq!(page(Format::Text), expect);
    }

    #[test]
    fn open_metrics() {
        let expect = r#"# HELP request_duration_seconds How \"long\"\nit\\took
# TYPE request_duration_seconds histogram
# UNIT request_duration_seconds seconds
request_duration_seconds_bucket{method="GET",le="1.0"} 3.0 # {trace_id="0af7"} 0.25 1700000000.123
request_duration_seconds_bucket{method="GET",le="1e+06"} 4.0
request_duration_seconds_bucket{method="GET",le="+Inf"} 5.0
request_duration_seconds_sum{method="GET"} 7.5
request_duration_seconds_count{method="GET"} 5.0
# TYPE request_count counter
request_count_total 17.0 1700000000.007 # {trace_id="0af7"} 0.25 1700000000.123
# TYPE odd unknown
odd{path="C:\\a \"b\"\n�",z="ü"} NaN
# HELP target Target metadata
# TYPE target info
target_info 1.0
# EOF
"#;
        assert_eq!(page(Format::OpenMetrics), expect);
    }
}
