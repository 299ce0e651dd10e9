//! Configurations as data: every `*.good.yaml` becomes the plan in its `.txt`, every `*.bad.yaml` the messages in its `.txt`, as a person would see them.
//!
//! `UPDATE_GOLDEN=1` rewrites the expectations.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::Signal;
use pipeline::MakeStage;
use pipeline::config::{Config, Problems, Section, Source};
use pipeline::plan::{Connector, Kind, Removed, Tables, plan};
use pipeline::processors::{
    Step, attributes, batch, filter, memory_limiter, probabilistic_sampler, redaction, resource, transform,
};
use pipeline::sending::{Queue, Retry};
use serde::Deserialize;

/// Settings such as a receiver has.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only whether it reads matters")]
struct Receiver {
    protocols: Protocols,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only whether it reads matters")]
struct Protocols {
    #[serde(default, deserialize_with = "pipeline::config::present")]
    grpc: Option<Listener>,
    #[serde(default, deserialize_with = "pipeline::config::present")]
    http: Option<Listener>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(dead_code, reason = "only whether it reads matters")]
struct Listener {
    endpoint: String,
}

/// Settings such as a sender has.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only whether it reads matters")]
struct Sender {
    endpoint: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "pipeline::config::optional_duration")]
    timeout: Option<Duration>,
    #[serde(default)]
    retry_on_failure: Retry,
    #[serde(default)]
    sending_queue: Queue,
}

fn sender(section: &Section<'_>) -> Result<(), Problems> {
    let sender: Sender = section.parse()?;
    if sender.endpoint.is_empty() {
        return Err(section.problem(&["endpoint"], "the endpoint is empty"));
    }
    Ok(())
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Nothing {}

fn nothing(section: &Section<'_>) -> Result<(), Problems> {
    section.parse::<Nothing>().map(drop)
}

fn never_made() -> MakeStage {
    Arc::new(|| panic!("a plan starts nothing"))
}

const TABLES: Tables<'_, (), (), ()> = Tables {
    removed: &[Removed {
        what: "exporter",
        name: "logging",
        instead: "write `debug`, which does the same",
    }],
    receivers: &[Kind {
        name: "otlp",
        also: &[],
        signals: &[],
        parse: |section| section.parse::<Receiver>().map(drop),
    }],
    processors: &[
        Kind {
            name: "memory_limiter",
            also: &[],
            signals: &[],
            parse: memory_limiter::parse,
        },
        Kind {
            name: "resource",
            also: &[],
            signals: &[],
            parse: resource::parse,
        },
        Kind {
            name: "redaction",
            also: &[],
            signals: &[],
            parse: redaction::parse,
        },
        Kind {
            name: "probabilistic_sampler",
            also: &[],
            signals: &[Signal::Traces, Signal::Logs],
            parse: probabilistic_sampler::parse,
        },
        Kind {
            name: "filter",
            also: &[],
            signals: &[],
            parse: filter::parse,
        },
        Kind {
            name: "transform",
            also: &[],
            signals: &[],
            parse: transform::parse,
        },
        Kind {
            name: "attributes",
            also: &[],
            signals: &[],
            parse: attributes::parse,
        },
        Kind {
            name: "tail_sampling",
            also: &[],
            signals: &[Signal::Traces],
            parse: |section| nothing(section).map(|()| Step::Stage(never_made())),
        },
        Kind {
            name: "batch",
            also: &[],
            signals: &[],
            parse: batch::parse,
        },
    ],
    exporters: &[
        Kind {
            name: "otlp",
            also: &["otlp_grpc"],
            signals: &[],
            parse: sender,
        },
        Kind {
            name: "store",
            also: &[],
            signals: &[Signal::Traces, Signal::Logs],
            parse: nothing,
        },
        Kind {
            name: "debug",
            also: &[],
            signals: &[],
            parse: nothing,
        },
    ],
    connectors: &[
        Connector {
            name: "spanmetrics",
            also: &["span_metrics"],
            pairs: &[(Signal::Traces, Signal::Metrics)],
            parse: |section| nothing(section).map(|()| never_made()),
        },
        Connector {
            name: "forward",
            also: &[],
            pairs: &[(Signal::Traces, Signal::Traces), (Signal::Metrics, Signal::Metrics)],
            parse: |section| nothing(section).map(|()| never_made()),
        },
    ],
    extensions: &[Kind {
        name: "health_check",
        also: &[],
        signals: &[],
        parse: nothing,
    }],
};

fn describe(path: &Path) -> String {
    // Relative, so that the expectations are the same wherever the sources lie.
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).expect("reads");
    let mut sources = vec![Source::new(name.clone(), text)];
    // `NAME.over.yaml` is laid over `NAME.good.yaml`.
    let over = path.with_file_name(name.replace(".good.yaml", ".over.yaml"));
    if over != path
        && let Ok(text) = std::fs::read_to_string(&over)
    {
        sources.push(Source::new(over.file_name().expect("a name").to_string_lossy(), text));
    }
    let env = |name: &str| match name {
        "ENVIRONMENT" => Some("prod".to_owned()),
        "LIMIT" => Some("256".to_owned()),
        "BATCH" => Some("{ timeout: 2s, send_batch_size: 100 }".to_owned()),
        "EXPORTERS" => Some("[otlp_grpc/b, debug]".to_owned()),
        "NUMBER" => Some("0042".to_owned()),
        "NOTHING" => Some(String::new()),
        "API_KEY" => Some("glc_0123456789".to_owned()),
        _ => None,
    };
    let result = Config::load(sources, &env).and_then(|config| {
        let plan = plan(&config, &TABLES)?;
        let journal = match &plan.journal {
            pipeline::config::Journal::None => None,
            pipeline::config::Journal::Default => Some("DATA/journal".to_owned()),
            pipeline::config::Journal::Settings(settings) => Some(format!("{settings:?}")),
        };
        let mut out = plan.describe(journal.as_deref());
        let extensions: Vec<&str> = plan.extensions.iter().map(|extension| &*extension.name).collect();
        let _ = writeln!(out, "extensions: {}", extensions.join(", "));
        let _ = write!(out, "\n{}", config.to_yaml());
        if !plan.warnings.list.is_empty() {
            let _ = write!(out, "\n{}", plan.warnings);
        }
        Ok(out)
    });
    result.unwrap_or_else(|problems| format!("MISTAKES\n\n{problems}"))
}

#[test]
fn configurations_mean_what_is_expected() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    // Which warning a file gets must not depend on how the sources were checked out.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let value = directory.join("substitution.value");
        std::fs::set_permissions(value, PermissionsExt::from_mode(0o644)).expect("ours");
    }
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&directory)
        .expect("lists")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            [".good.yaml", ".bad.yaml"]
                .iter()
                .any(|end| path.to_string_lossy().ends_with(end))
        })
        .collect();
    paths.sort();
    assert!(paths.len() >= 10, "the examples are gone");
    for path in paths {
        let got = describe(&path);
        let good = path.to_string_lossy().ends_with(".good.yaml");
        assert_eq!(!got.starts_with("MISTAKES"), good, "{}:\n{got}", path.display());
        let expected = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&expected, &got).expect("writes");
        }
        let expect = std::fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(got, expect, "{} (UPDATE_GOLDEN=1 rewrites it)", expected.display());
    }
}

/// Whatever bytes somebody calls a configuration: an answer, no panic, and not for long.
#[test]
fn hostile_documents_are_refused() {
    let deep = format!("a: {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut bomb = "x-0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
    for level in 1..12 {
        let previous = level - 1;
        let _ = writeln!(
            bomb,
            "x-{level}: &a{level} [{}]",
            vec![format!("*a{previous}"); 10].join(",")
        );
    }
    let mut tower = "x-0: &t0 [1]\n".to_owned();
    for level in 1..200 {
        let _ = writeln!(tower, "x-{level}: &t{level} [*t{}]", level - 1);
    }
    let ring = "x-0: &a [*a]\n".to_owned();
    let huge = "x".repeat(5 << 20);
    for (text, expect) in [
        (deep, "recursion limit"),
        (bomb, "more than 200000 values, aliases included"),
        (tower, "nested deeper than 64 levels"),
        (ring, "alias"),
        (huge, "larger than"),
        ("\u{0}\u{1}".to_owned(), ""),
        ("? [a]\n: b\n".to_owned(), "a key must be a plain text"),
        ("a: 1\n--- \nb: 2\n".to_owned(), "a second YAML document"),
        ("a: 1\na: 2\n".to_owned(), "`a` is set twice"),
        ("just text".to_owned(), "expected a map"),
        (String::new(), "`service` is missing"),
    ] {
        let loaded = Config::load(vec![Source::new("hostile.yaml", text)], &|_| None);
        let problems = loaded
            .and_then(|config| plan(&config, &TABLES).map(drop))
            .expect_err("refused")
            .to_string();
        assert!(problems.contains(expect) && problems.len() < 4096, "{problems}");
    }
}
