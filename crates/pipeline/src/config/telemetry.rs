//! Why: the collector's files say under `service.telemetry` how the process reports on itself. They are to run unchanged, and whoever wrote a setting there
//! should hear whether it does anything here.

use model::Signal;
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::de;
use super::diagnostic::{Problem, suggest};
use super::document::Component;
use super::units::size;
use super::yaml::{Entry, Node, Value};

/// What is taken from `service.telemetry`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// The process's own log.
    pub logs: Logs,
    /// The process's own metrics.
    pub metrics: Metrics,
    /// What exporters sent this month, against budgets.
    pub usage: Usage,
}

/// `usage`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// What the backends of exporters take in a month for the price. The log says when 80 % and 100 % are reached, the extension `zpages` and the
    /// process's own metrics what was sent and what it comes to by the month's end. Default: none; what is sent is counted all the same.
    pub budgets: Vec<UsageBudget>,
}

/// One of `budgets`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageBudget {
    /// The exporter, by its name in the configuration.
    pub exporter: String,
    /// `traces`, `logs` or `metrics`.
    #[serde(deserialize_with = "signal")]
    pub signal: Signal,
    /// Bytes of OTLP before compression. Default 50GB, which is what Grafana Cloud's free tier takes of logs and again of traces.
    #[serde(default = "free_tier_bytes", deserialize_with = "size")]
    pub bytes_per_month: u64,
    /// For `prometheusremotewrite`: series that had a sample within the last quarter or half of an hour. Default 10000, which is what the free tier takes.
    #[serde(default = "free_tier_series")]
    pub active_series: u64,
}

fn free_tier_series() -> u64 {
    10_000
}

fn free_tier_bytes() -> u64 {
    50_000_000_000
}

fn signal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Signal, D::Error> {
    let text = String::deserialize(deserializer)?;
    let found = Signal::ALL.into_iter().find(|signal| signal.as_str() == text);
    found.ok_or_else(|| D::Error::custom(format!("expected `traces`, `logs` or `metrics`, found `{text}`")))
}

/// Budgets of exporters that there are not.
pub fn check_budgets(root: &Node, exporters: &[Component], problems: &mut Vec<Problem>) {
    let way = ["service", "telemetry", "usage", "budgets"];
    let found = way
        .iter()
        .try_fold(root, |node, key| node.get(key).map(|entry| &entry.value));
    let Some(Value::List(budgets)) = found.map(Node::shape) else {
        return;
    };
    for named in budgets.iter().filter_map(|budget| budget.get("exporter")) {
        let Value::Scalar(name) = &named.value.value else {
            continue;
        };
        if !exporters.iter().any(|exporter| exporter.id.as_str() == name.text) {
            let problem = Problem::new(named.value.span, format!("the exporter `{}` is not defined", name.text));
            let known = exporters.iter().map(|exporter| exporter.id.as_str());
            problems.push(problem.hint(suggest(&name.text, known)));
        }
    }
}

/// `metrics`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// `none` serves no metrics; `basic`, `normal` and `detailed` are one here.
    pub level: Option<MetricsLevel>,
    /// Where `/metrics` answers. Default 127.0.0.1:8888, if it is free.
    pub address: Option<String>,
    /// The newer way to write it: the first reader that is pulled by Prometheus counts.
    pub readers: Option<Vec<Reader>>,
}

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricsLevel {
    None,
    Basic,
    Normal,
    Detailed,
}

/// One of `readers`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reader {
    /// Whoever wants them fetches them.
    pub pull: Option<Pull>,
    /// Sending them is not supported; accepted, without effect.
    pub periodic: Option<IgnoredAny>,
}

/// `pull`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pull {
    /// Who answers.
    pub exporter: PullExporter,
}

/// `exporter`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PullExporter {
    /// The page for Prometheus.
    pub prometheus: Option<PrometheusReader>,
}

/// `prometheus`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrometheusReader {
    /// Where it listens. Default `localhost`.
    pub host: Option<String>,
    /// On which port. Default 8888.
    pub port: Option<u16>,
    /// Counters without `_total`. Default `false`.
    pub without_type_suffix: bool,
    /// Accepted, without effect: there are no scopes here.
    pub without_scope_info: bool,
    /// Accepted, without effect: names are as `docs/own-telemetry.md` has them.
    pub without_units: bool,
    /// Accepted, without effect: every series names its service.
    pub with_resource_constant_labels: Option<IgnoredAny>,
}

impl Metrics {
    /// Whether none shall be served.
    pub fn is_off(&self) -> bool {
        self.level == Some(MetricsLevel::None)
    }

    fn reader(&self) -> Option<&PrometheusReader> {
        let readers = self.readers.as_deref().unwrap_or_default();
        readers
            .iter()
            .find_map(|reader| reader.pull.as_ref()?.exporter.prometheus.as_ref())
    }

    /// The address that is asked for, if one is.
    pub fn address(&self) -> Option<String> {
        if let Some(reader) = self.reader() {
            let host = reader.host.as_deref().unwrap_or("localhost");
            let port = reader.port.unwrap_or(8888);
            let is_v6 = host.contains(':') && !host.starts_with('[');
            return Some(if is_v6 {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            });
        }
        self.address.clone()
    }

    /// Whether counters are to be called without `_total`.
    pub fn without_total(&self) -> bool {
        self.reader().is_some_and(|reader| reader.without_type_suffix)
    }
}

/// `logs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logs {
    /// `debug`, `info` (default), `warn` or `error`. The variable `RUST_LOG` goes first.
    #[serde(deserialize_with = "level")]
    pub level: Option<Level>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// In capitals or not, as the collector takes it.
fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Level>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    match text.to_ascii_lowercase().as_str() {
        "debug" => Ok(Some(Level::Debug)),
        "info" => Ok(Some(Level::Info)),
        "warn" => Ok(Some(Level::Warn)),
        "error" => Ok(Some(Level::Error)),
        _ => Err(D::Error::custom(format_args!(
            "expected `debug`, `info`, `warn` or `error`, found `{text}`"
        ))),
    }
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

/// The collector's keys, and which of them mean something here.
const KEYS: [(&str, &[(&str, bool)]); 5] = [
    (
        "logs",
        &[
            ("level", true),
            ("encoding", false),
            ("development", false),
            ("disable_caller", false),
            ("disable_stacktrace", false),
            ("disable_zap_resource", false),
            ("sampling", false),
            ("output_paths", false),
            ("error_output_paths", false),
            ("initial_fields", false),
            ("processors", false),
        ],
    ),
    (
        "metrics",
        &[("level", true), ("address", true), ("readers", true), ("views", false)],
    ),
    (
        "traces",
        &[
            ("level", false),
            ("processors", false),
            ("propagators", false),
            ("sampler", false),
        ],
    ),
    ("resource", &[]),
    ("usage", &[("budgets", true)]),
];

/// Reads the section. Unknown keys are mistakes; known ones without effect are warned of.
pub fn read(section: &Entry, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) -> Telemetry {
    let mut heeded = section.value.clone();
    for part in section.value.entries() {
        let Some((name, keys)) = KEYS.iter().find(|(name, _)| *name == part.key) else {
            let problem = Problem::new(part.key_span, format!("unknown key `{}` in `telemetry`", part.key));
            problems.push(problem.hint(suggest(&part.key, KEYS.map(|(name, _)| name))));
            heeded.remove(&[&part.key]);
            continue;
        };
        let without_effect = |what: &str| format!("`service.telemetry.{what}` is accepted and has no effect here");
        if keys.is_empty() || !keys.iter().any(|(_, heeded)| *heeded) {
            heeded.remove(&[&part.key]);
        }
        if keys.is_empty() && !part.value.entries().is_empty() {
            warnings.push(Problem::new(part.key_span, without_effect(name)));
        }
        for entry in part.value.entries().iter().filter(|_| !keys.is_empty()) {
            match keys.iter().find(|(key, _)| *key == entry.key) {
                Some((_, true)) => {}
                Some((key, false)) => {
                    warnings.push(Problem::new(entry.key_span, without_effect(&format!("{name}.{key}"))));
                    heeded.remove(&[&part.key, &entry.key]);
                }
                None => {
                    let problem = Problem::new(entry.key_span, format!("unknown key `{}` in `{name}`", entry.key));
                    problems.push(problem.hint(suggest(&entry.key, keys.iter().map(|(key, _)| *key))));
                    heeded.remove(&[&part.key, &entry.key]);
                }
            }
        }
    }
    let telemetry: Telemetry = de::read(&heeded).unwrap_or_else(|more| {
        problems.extend(more);
        Telemetry::default()
    });
    let mut readers = telemetry.metrics.readers.iter().flatten();
    if readers.any(|reader| reader.periodic.is_some()) {
        let message = "`periodic` readers in `service.telemetry.metrics` are accepted and send nothing; fetch the metrics, or scrape them";
        warnings.push(Problem::new(section.key_span, message));
    }
    telemetry
}
