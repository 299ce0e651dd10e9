//! Why: to see on the terminal what comes through.
//!
//! ```yaml
//! exporters:
//!   debug: { verbosity: detailed, sampling_initial: 5, sampling_thereafter: 100 }
//! ```

use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::view::{AnyValue, Attributes, logs, metrics, traces};
use model::{Batch, Signal};
use pipeline::config::{Problems, Section};
use pipeline::{BoxFuture, Exporter, Outcome, Reason};
use serde::Deserialize;

/// Sampling begins anew after this long, as in the collector.
const SAMPLING_PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `basic`: a line per request. `normal`: a line per item. `detailed`: everything. Default `basic`.
    pub verbosity: Verbosity,
    /// How many requests a second are shown in any case. Default 2.
    pub sampling_initial: u32,
    /// Of the others, every which one. Default 1: all. 0: none.
    pub sampling_thereafter: u32,
    /// A setting of the Go collector's logger; accepted, without effect.
    pub use_internal_logger: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            verbosity: Verbosity::Basic,
            sampling_initial: 2,
            sampling_thereafter: 1,
            use_internal_logger: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verbosity {
    Basic,
    Normal,
    Detailed,
}

pub fn parse(section: &Section<'_>) -> Result<Config, Problems> {
    section.parse()
}

/// Writes what it is sent to a terminal.
pub struct Debug {
    config: Config,
    name: Arc<str>,
    screen: Mutex<Screen>,
}

struct Screen {
    out: Box<dyn Write + Send>,
    period: Instant,
    seen: u32,
}

impl Debug {
    /// `out` is standard error, unless a test looks.
    pub fn new(name: &str, config: Config, out: Box<dyn Write + Send>) -> Debug {
        Debug {
            config,
            name: name.into(),
            screen: Mutex::new(Screen {
                out,
                period: Instant::now(),
                seen: 0,
            }),
        }
    }

    fn show(&self, batch: &Batch) -> Outcome {
        let mut screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        if screen.period.elapsed() >= SAMPLING_PERIOD {
            screen.period = Instant::now();
            screen.seen = 0;
        }
        screen.seen = screen.seen.saturating_add(1);
        let beyond = screen.seen.saturating_sub(self.config.sampling_initial);
        if beyond > 0
            && (self.config.sampling_thereafter == 0 || !beyond.is_multiple_of(self.config.sampling_thereafter))
        {
            return Outcome::Delivered;
        }
        let mut text = format!("{}: {} {}\n", self.name, batch.items, batch.signal.items());
        if self.config.verbosity > Verbosity::Basic {
            let detailed = self.config.verbosity == Verbosity::Detailed;
            match batch.signal {
                Signal::Traces => write_traces(&mut text, &batch.payload, detailed),
                Signal::Logs => write_logs(&mut text, &batch.payload, detailed),
                Signal::Metrics => write_metrics(&mut text, &batch.payload, detailed),
            }
        }
        match screen.out.write_all(text.as_bytes()).and_then(|()| screen.out.flush()) {
            Ok(()) => Outcome::Delivered,
            // A closed terminal is no reason to hold data back for ever.
            Err(error) => Outcome::rejected(Reason::BackendRejected, format!("cannot write: {error}"), batch.items),
        }
    }
}

impl Exporter for Debug {
    fn takes(&self, _signal: Signal) -> bool {
        true
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.show(&batch) })
    }
}

fn write_traces(out: &mut String, payload: &[u8], detailed: bool) {
    for resource in traces::resource_spans(payload) {
        write_resource(out, &resource.owner().attributes, detailed);
        for scope in resource.list() {
            for span in scope.list() {
                let micros = span.end_unix_nano.saturating_sub(span.start_unix_nano) / 1000;
                let _ = writeln!(
                    out,
                    "  {} {} {} {micros} µs",
                    span.trace_id,
                    span.span_id,
                    printable(span.name)
                );
                if !detailed {
                    continue;
                }
                if let Some(parent) = span.parent_span_id {
                    let _ = writeln!(out, "    parent: {parent}");
                }
                let _ = writeln!(
                    out,
                    "    kind: {}, start: {}, end: {}",
                    span.kind, span.start_unix_nano, span.end_unix_nano
                );
                if span.status_code != 0 {
                    let _ = writeln!(
                        out,
                        "    status: {} {}",
                        span.status_code,
                        printable(span.status_message)
                    );
                }
                write_attributes(out, "    ", &span.attributes);
                for event in span.events.iter() {
                    let _ = writeln!(out, "    event: {} {}", event.time_unix_nano, printable(event.name));
                    write_attributes(out, "      ", &event.attributes);
                }
                for link in span.links.iter() {
                    if let (Some(trace), Some(span)) = (link.trace_id, link.span_id) {
                        let _ = writeln!(out, "    link: {trace} {span}");
                    }
                }
            }
        }
    }
}

fn write_logs(out: &mut String, payload: &[u8], detailed: bool) {
    for resource in logs::resource_logs(payload) {
        write_resource(out, &resource.owner().attributes, detailed);
        for scope in resource.list() {
            for record in scope.list() {
                let _ = write!(out, "  {} {} ", record.time_unix_nano, printable(record.severity_text));
                write_value(out, &record.body);
                out.push('\n');
                if !detailed {
                    continue;
                }
                if let (Some(trace), Some(span)) = (record.trace_id, record.span_id) {
                    let _ = writeln!(out, "    span: {trace} {span}");
                }
                write_attributes(out, "    ", &record.attributes);
            }
        }
    }
}

fn write_metrics(out: &mut String, payload: &[u8], detailed: bool) {
    for resource in metrics::resource_metrics(payload) {
        write_resource(out, &resource.owner().attributes, detailed);
        for scope in resource.list() {
            for metric in scope.list() {
                let _ = writeln!(out, "  {} ({})", printable(metric.name), printable(metric.unit));
                if detailed && !metric.description.is_empty() {
                    let _ = writeln!(out, "    {}", printable(metric.description));
                }
            }
        }
    }
}

fn write_resource(out: &mut String, attributes: &Attributes<'_>, detailed: bool) {
    let service = attributes.get_str("service.name").unwrap_or("(no service.name)");
    let _ = writeln!(out, " {}", printable(service));
    if detailed {
        write_attributes(out, "  resource ", attributes);
    }
}

fn write_attributes(out: &mut String, indent: &str, attributes: &Attributes<'_>) {
    for pair in attributes.iter() {
        let _ = write!(out, "{indent}{}: ", printable(pair.key));
        write_value(out, &pair.value);
        out.push('\n');
    }
}

fn write_value(out: &mut String, value: &AnyValue<'_>) {
    let _ = match value {
        AnyValue::Empty => write!(out, "-"),
        AnyValue::Str(text) => write!(out, "{}", printable(text)),
        AnyValue::Bool(value) => write!(out, "{value}"),
        AnyValue::Int(number) => write!(out, "{number}"),
        AnyValue::Double(number) => write!(out, "{number}"),
        AnyValue::Bytes(bytes) => write!(out, "{} bytes", bytes.len()),
        AnyValue::Array(values) => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_value(out, &value);
            }
            write!(out, "]")
        }
        AnyValue::KvList(pairs) => {
            out.push('{');
            for (index, pair) in pairs.iter().enumerate() {
                let separator = if index > 0 { ", " } else { "" };
                let _ = write!(out, "{separator}{}: ", printable(pair.key));
                write_value(out, &pair.value);
            }
            write!(out, "}}")
        }
    };
}

/// Telemetry is a stranger's text: what would move the cursor or colour the terminal is shown, not obeyed.
fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.chars()
            .flat_map(|c| {
                if c.is_control() {
                    c.escape_default().collect::<Vec<_>>()
                } else {
                    vec![c]
                }
            })
            .collect()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Screenshot, spans};

    fn shown(config: Config, batches: usize) -> String {
        let screenshot = Screenshot::default();
        let debug = Debug::new("debug", config, Box::new(screenshot.clone()));
        for _ in 0..batches {
            assert_eq!(
                debug.show(&spans(&["GET /chat", "bad\u{1b}[31mname"])),
                Outcome::Delivered
            );
        }
        screenshot.text()
    }

    #[test]
    fn basic_is_a_line_a_request() {
        assert_eq!(shown(Config::default(), 3), "debug: 2 spans\n".repeat(3));
    }

    #[test]
    fn detailed_shows_everything_and_obeys_nothing() {
        let text = shown(
            Config {
                verbosity: Verbosity::Detailed,
                ..Config::default()
            },
            1,
        );
        assert!(text.contains(" api-gateway\n"), "{text}");
        assert!(
            text.contains("GET /chat") && text.contains("http.request.method: GET"),
            "{text}"
        );
        assert!(
            text.contains("bad\\u{1b}[31mname") && !text.contains('\u{1b}'),
            "{text}"
        );
    }

    #[test]
    fn sampling_shows_the_first_and_then_every_nth() {
        let config = Config {
            sampling_initial: 2,
            sampling_thereafter: 3,
            ..Config::default()
        };
        assert_eq!(shown(config.clone(), 8).lines().count(), 4);
        assert_eq!(
            shown(
                Config {
                    sampling_thereafter: 0,
                    ..config
                },
                8
            )
            .lines()
            .count(),
            2
        );
    }
}
