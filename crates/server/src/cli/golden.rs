//! The tree as it was approved: stories assembled from records, drawn, and compared with files in `golden/`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p server` rewrites the files; the diff is then what a reviewer judges.

use std::path::PathBuf;
use std::sync::Arc;

use model::record::{Attributes, EventRecord, LogRecord, SpanRecord, Value};
use model::{SpanId, TraceId};
use query::assemble::{self, Material, Reach, Wanted};
use query::story::{More, TableRows};

use super::terminal::Terminal;
use super::tree;

const MS: u64 = 1_000_000;
const START: u64 = 1_795_201_445_123_000_000;
const PLAIN: Terminal = Terminal {
    columns: 110,
    colour: false,
    unicode: true,
};

fn id() -> TraceId {
    TraceId::parse("4bf92f3577b34da6a3ce929d0e0e4736").unwrap()
}

fn span_id(id: u16) -> SpanId {
    SpanId((u64::from(id) + 0xa000).to_be_bytes())
}

fn text(pairs: &[(&str, &str)]) -> Attributes {
    pairs
        .iter()
        .map(|&(key, value)| (key.to_owned(), Value::Str(value.to_owned())))
        .collect()
}

/// A span from and to so many ms after the start; parent 0 is none.
fn span(service: &str, name: &str, ids: (u16, u16), from: u64, to: u64) -> SpanRecord {
    SpanRecord {
        trace_id: id(),
        span_id: span_id(ids.0),
        parent_span_id: (ids.1 > 0).then(|| span_id(ids.1)),
        name: name.to_owned(),
        kind: 1,
        start_unix_nano: START + from * MS,
        end_unix_nano: START + to * MS,
        resource: Arc::new(text(&[("service.name", service), ("host.name", service)])),
        ..SpanRecord::default()
    }
}

fn log(service: &str, span: u16, at: u64, severity: u8, message: &str) -> LogRecord {
    LogRecord {
        time_unix_nano: START + at * MS,
        severity_number: severity,
        body: Value::Str(message.to_owned()),
        trace_id: Some(id()),
        span_id: (span > 0).then(|| span_id(span)),
        flags: 1,
        resource: Arc::new(text(&[("service.name", service)])),
        ..LogRecord::default()
    }
}

/// A failed chat over four services, with everything that a story can hold.
fn failed_request() -> Material {
    let mut root = span("api-gateway", "POST /api/v1/chat", (1, 0), 0, 1240);
    root.status_code = 2;
    let call = SpanRecord {
        kind: 3,
        status_code: 2,
        status_message: "502 Bad Gateway".into(),
        ..span("api-gateway", "POST workflow-agent", (2, 1), 4, 1230)
    };
    let mut agent = SpanRecord {
        kind: 2,
        status_code: 2,
        ..span("workflow-agent", "POST /generate", (3, 2), 10, 1220)
    };
    agent.status_message = "planning failed".into();
    let mut model_call = SpanRecord {
        kind: 3,
        ..span("workflow-agent", "chat gpt-4o-mini", (4, 3), 20, 480)
    };
    model_call.attributes = text(&[
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "gpt-4o-mini"),
    ]);
    model_call.attributes.extend([
        ("gen_ai.usage.input_tokens".to_owned(), Value::Int(2412)),
        ("gen_ai.usage.output_tokens".to_owned(), Value::Int(187)),
        ("cost.usd".to_owned(), Value::Double(0.000474)),
    ]);
    let mut database = SpanRecord {
        kind: 3,
        ..span("workflow-agent", "INSERT sessions", (5, 3), 490, 493)
    };
    database.attributes = text(&[
        ("db.system.name", "sqlite"),
        (
            "db.statement",
            "INSERT INTO sessions\n  (id, user_id, tracking_id)\n  VALUES (?, ?, ?)",
        ),
    ]);
    database
        .attributes
        .push(("db.response.returned_rows".to_owned(), Value::Int(1)));
    let mut engine = SpanRecord {
        kind: 2,
        status_code: 2,
        ..span("workflow-engine", "execute_node[EXTERNAL_ACTION]", (6, 3), 700, 1210)
    };
    let exception = text(&[
        ("exception.type", "reqwest::Error"),
        ("exception.message", "connection refused (os error 111)"),
        (
            "exception.stacktrace",
            "engine::node::run\n    at src/node.rs:88\nengine::main\n    at src/main.rs:12",
        ),
    ]);
    engine.events = vec![EventRecord {
        time_unix_nano: START + 1205 * MS,
        name: "exception".into(),
        attributes: exception,
        ..EventRecord::default()
    }];
    let mut lost_log = log(
        "workflow-scheduler",
        77,
        1235,
        13,
        "took note \u{1b}[2Jof a run\nthat nobody knows",
    );
    lost_log.attributes = text(&[("logger", "scheduler")]);
    Material {
        spans: vec![engine, database, model_call, agent, call, root],
        logs: vec![
            log("api-gateway", 1, 1, 9, "session loaded"),
            log("workflow-agent", 3, 15, 5, "planning with 3 tools"),
            log("workflow-engine", 6, 1205, 17, "connection refused (os error 111)"),
            lost_log,
        ],
        rows: vec![TableRows {
            source: "sqlite:demo.db".into(),
            table: "sessions".into(),
            columns: vec!["id".into(), "user_id".into(), "tracking_id".into(), "status".into()],
            rows: vec![vec![
                7.into(),
                "u-1".into(),
                id().to_string().into(),
                serde_json::Value::Null,
            ]],
            cut: false,
        }],
        ..Material::default()
    }
}

/// Draws and compares with `golden/{name}.txt`.
fn check(name: &str, material: Material, wanted: Wanted, terminal: &Terminal, all: bool) {
    let reach = Reach {
        now_unix_nano: START + 3_600_000 * MS,
        horizon_unix_nano: Some(START - 7 * 86_400_000 * MS),
        retention_ns: Some(7 * 86_400_000 * MS),
    };
    let story = assemble::story(id(), wanted, material, reach);
    // What the command line draws has been through JSON.
    let json = serde_json::to_string(&story).unwrap();
    let read: query::Story = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), json);
    let drawn = tree::draw(&read, terminal, all);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/cli/golden")
        .join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &drawn).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(drawn == expected, "{} differs; it is now:\n{drawn}", path.display());
}

#[test]
fn a_failed_request_shows_everything() {
    check("failed", failed_request(), Wanted::Auto, &PLAIN, false);
}

#[test]
fn a_failed_request_in_colour() {
    check(
        "failed_colour",
        failed_request(),
        Wanted::Auto,
        &Terminal { colour: true, ..PLAIN },
        false,
    );
}

#[test]
fn a_narrow_ascii_terminal_has_no_bars() {
    let terminal = Terminal {
        columns: 64,
        colour: false,
        unicode: false,
    };
    check("failed_narrow_ascii", failed_request(), Wanted::Auto, &terminal, false);
}

#[test]
fn a_very_narrow_terminal_stacks_what_does_not_fit() {
    let terminal = Terminal { columns: 40, ..PLAIN };
    check("failed_40_columns", failed_request(), Wanted::Auto, &terminal, false);
}

#[test]
fn clocks_that_disagree_are_marked() {
    let call = SpanRecord {
        kind: 3,
        ..span("gateway", "call engine", (1, 0), 0, 100)
    };
    let served = SpanRecord {
        kind: 2,
        ..span("engine", "serve", (2, 1), 10_000, 10_080)
    };
    let below = span("engine", "work", (3, 2), 10_010, 10_070);
    check(
        "skew",
        Material {
            spans: vec![call, served, below],
            ..Material::default()
        },
        Wanted::Auto,
        &PLAIN,
        false,
    );
}

#[test]
fn a_missing_root_is_said() {
    let spans = vec![
        span("engine", "serve", (2, 1), 0, 50),
        span("engine", "work", (3, 2), 5, 45),
    ];
    check(
        "partial",
        Material {
            spans,
            ..Material::default()
        },
        Wanted::Auto,
        &PLAIN,
        false,
    );
}

#[test]
fn logs_of_a_trace_that_was_not_sampled_are_shown() {
    let mut logs = vec![
        log("gateway", 1, 0, 9, "GET /health - 200"),
        log("engine", 2, 5, 13, "slow"),
    ];
    logs.iter_mut().for_each(|log| log.flags = 0);
    check(
        "not_sampled",
        Material {
            logs,
            ..Material::default()
        },
        Wanted::Auto,
        &PLAIN,
        false,
    );
}

#[test]
fn an_unknown_id_says_how_far_the_data_goes_back() {
    check("unknown", Material::default(), Wanted::Auto, &PLAIN, false);
}

/// 600 spans in 20 branches, one of which failed deep inside.
fn long_trace() -> Material {
    let mut spans = vec![span("engine", "batch", (1, 0), 0, 2000)];
    for branch in 0..20u16 {
        let top = 100 + branch * 30;
        spans.push(span(
            "engine",
            "item",
            (top, 1),
            u64::from(branch) * 100,
            u64::from(branch) * 100 + 90,
        ));
        for step in 1..30u16 {
            let from = u64::from(branch) * 100 + u64::from(step);
            let mut child = span(
                "worker",
                &format!("step {step}"),
                (top + step, top + step - 1),
                from,
                from + 30,
            );
            if (branch, step) == (7, 12) {
                child.status_code = 2;
                child.status_message = "no space left".into();
            }
            spans.push(child);
        }
    }
    let logs = (0..40)
        .map(|i| log("engine", 1, i, if i == 35 { 13 } else { 9 }, &format!("line {i}")))
        .collect();
    Material {
        spans,
        logs,
        more: More {
            spans_cut: 0,
            logs_cut: 3,
            errors_cut: 0,
        },
        ..Material::default()
    }
}

#[test]
fn a_long_trace_is_cut_to_what_matters() {
    check("long", long_trace(), Wanted::Outline, &PLAIN, false);
}

#[test]
fn a_hostile_depth_stays_on_the_page() {
    let chain = (1..=3000u16).map(|i| span("deep", "level", (i, i - 1), u64::from(i), 4000));
    let story = assemble::story(
        id(),
        Wanted::Outline,
        Material {
            spans: chain.collect(),
            ..Material::default()
        },
        Reach::default(),
    );
    let drawn = tree::draw(&story, &PLAIN, true);
    assert_eq!(drawn.lines().filter(|line| line.contains("level")).count(), 3000);
    let widest = drawn.lines().map(super::terminal::columns).max();
    assert!(widest <= Some(PLAIN.columns), "{widest:?}");
}
