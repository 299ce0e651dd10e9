//! Why: the collector's files say under `service.telemetry` how the process reports on itself. They are to run unchanged, and whoever wrote a setting there
//! should hear whether it does anything here.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::de;
use super::diagnostic::{Problem, suggest};
use super::yaml::Entry;

/// What is taken from `service.telemetry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// The process's own log.
    pub logs: Logs,
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
const KEYS: [(&str, &[(&str, bool)]); 4] = [
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
        &[
            ("level", false),
            ("address", false),
            ("readers", false),
            ("views", false),
        ],
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
    de::read(&heeded).unwrap_or_else(|more| {
        problems.extend(more);
        Telemetry::default()
    })
}
