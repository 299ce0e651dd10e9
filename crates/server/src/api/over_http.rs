//! The API as clients see it: a real store, real sockets, the command line's own HTTP client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Bytes;
use model::{Batch, Meta, Signal};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use query::instant::{NANOS_PER_SECOND, now_unix_nano};
use query::rows::{DatabaseSettings, Rows};
use query::{Querier, Story};
use serde_json::Value as Json;

use super::{ApiState, router};
use crate::cli::Server;

pub const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const MS: u64 = 1_000_000;

fn id() -> Vec<u8> {
    model::TraceId::parse(ID).unwrap().0.to_vec()
}

fn text(key: &str, value: &str) -> KeyValue {
    any(key, Value::StringValue(value.to_owned()))
}

fn any(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn span(id_: u8, parent: u8, name: &str, kind: i32, from: u64, to: u64) -> Span {
    Span {
        trace_id: id(),
        span_id: vec![0, 0, 0, 0, 0, 0, 0, id_],
        parent_span_id: if parent == 0 {
            vec![]
        } else {
            vec![0, 0, 0, 0, 0, 0, 0, parent]
        },
        name: name.to_owned(),
        kind,
        start_time_unix_nano: from,
        end_time_unix_nano: to,
        ..Span::default()
    }
}

fn of_service(service: &str, spans: Vec<Span>) -> ResourceSpans {
    ResourceSpans {
        resource: Some(Resource {
            attributes: vec![text("service.name", service)],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope {
                name: "test".into(),
                ..InstrumentationScope::default()
            }),
            spans,
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    }
}

fn batch(signal: Signal, payload: Vec<u8>) -> Batch {
    let canonical = model::canonical::canonicalize(signal, Bytes::from(payload)).unwrap();
    let meta = Meta {
        received_at_unix_nano: now_unix_nano(),
        receiver: "otlp".into(),
        peer: None,
        headers: vec![],
        source_offset: None,
    };
    Batch::from_canonical(signal, canonical, None, Arc::new(meta))
}

/// A server with one failed request in its store, listening on a port of its own.
pub struct Running {
    pub url: String,
    server: Server,
    ready: Arc<AtomicBool>,
    start: u64,
    _runtime: tokio::runtime::Runtime,
    _writer: store::Writer,
    _directory: tempfile::TempDir,
}

pub fn run() -> Running {
    let directory = tempfile::tempdir().unwrap();
    let settings = store::Settings {
        upkeep: store::Upkeep::ByHand,
        ..store::Settings::default()
    };
    let (writer, reader) = store::Store::open(directory.path().join("store"), settings).unwrap();
    let start = now_unix_nano() - 60 * NANOS_PER_SECOND;

    let mut root = span(1, 0, "POST /chat", 2, start, start + 100 * MS);
    root.attributes = vec![any("http.response.status_code", Value::IntValue(502))];
    let call = span(2, 1, "POST engine", 3, start + 10 * MS, start + 90 * MS);
    let mut served = span(3, 2, "run", 2, start + 20 * MS, start + 80 * MS);
    served.status = Some(Status {
        code: 2,
        message: "out of luck".into(),
    });
    let spans = ExportTraceServiceRequest {
        resource_spans: vec![
            of_service("gateway", vec![root, call]),
            of_service("engine", vec![served]),
        ],
    };
    let record = LogRecord {
        time_unix_nano: start + 30 * MS,
        severity_number: 9,
        body: Some(AnyValue {
            value: Some(Value::StringValue("rolling dice".into())),
        }),
        trace_id: id(),
        span_id: vec![0, 0, 0, 0, 0, 0, 0, 3],
        flags: 1,
        ..LogRecord::default()
    };
    let logs = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: vec![text("service.name", "engine")],
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs {
                log_records: vec![record],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    writer
        .append("test", [1; 16], 0..=0, &[batch(Signal::Traces, spans.encode_to_vec())])
        .unwrap();
    writer
        .append("test", [1; 16], 1..=1, &[batch(Signal::Logs, logs.encode_to_vec())])
        .unwrap();

    let missing = format!("sqlite:{}", directory.path().join("absent.db").display());
    let rows = Rows::new(vec![DatabaseSettings {
        url: missing,
        tables: vec![],
    }])
    .unwrap();
    let ready = Arc::new(AtomicBool::new(true));
    let is_ready = ready.clone();
    let state = ApiState {
        querier: Querier::new(reader, Some(rows)),
        status: Arc::new(|| serde_json::json!({"uptime_seconds": 1})),
        ledger: Arc::new(|| serde_json::json!({"books": []})),
        ready: Arc::new(move || is_ready.load(Ordering::SeqCst)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move { axum::serve(listener, router(state)).await });
    let server = Server::parse(&address.to_string()).unwrap();
    Running {
        url: format!("http://{address}"),
        server,
        ready,
        start,
        _runtime: runtime,
        _writer: writer,
        _directory: directory,
    }
}

impl Running {
    fn get(&self, path: &str) -> (u16, Json) {
        let answer = self.server.get(path).unwrap();
        let body = serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}"));
        (answer.status, body)
    }

    fn ok(&self, path: &str) -> Json {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }
}

#[test]
fn a_story_is_told_under_every_form_of_its_id() {
    let running = run();
    for form in [
        ID.to_uppercase(),
        "4bf92f35-77b3-4da6-a3ce-929d0e0e4736".into(),
        "S%2FkvNXezTaajzpKdDg5HNg%3D%3D".into(),
    ] {
        let body = running
            .server
            .get(&format!("/api/trackline/v1/tracking/{form}"))
            .unwrap()
            .body;
        let story: Story = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (story.tracking_id.to_string().as_str(), story.status.as_str()),
            (ID, "found"),
            "{form}"
        );
        assert_eq!(story.trace.spans.len(), 3);
        assert_eq!(story.trace.root.as_ref().unwrap().operation, "POST /chat");
        assert_eq!((story.logs.len(), story.errors.len()), (1, 1));
        assert_eq!(story.errors[0].message, "out of luck");
        assert!(story.rows_error.unwrap().contains("absent.db"));
    }
    let outline = running.ok(&format!("/api/trackline/v1/tracking/{ID}?detail=outline"));
    assert_eq!(outline["trace"]["spans"][0].get("attributes"), None);
    let span = running.ok(&format!("/api/trackline/v1/tracking/{ID}/spans/0000000000000001"));
    assert_eq!(span["attributes"]["http.response.status_code"], 502);
    let unknown = running.ok("/api/trackline/v1/tracking/abc");
    assert_eq!(unknown["status"], "unknown");
    assert_eq!(
        unknown["explanation"],
        "No span and no log here has this id, and nothing has been removed yet."
    );
}

#[test]
fn searches_find_by_everything_that_may_be_asked() {
    let running = run();
    let found = |query: &str| {
        running.ok(&format!("/api/trackline/v1/search?{query}"))["traces"]
            .as_array()
            .unwrap()
            .len()
    };
    for (query, expected) in [
        ("", 1),
        ("service=gateway", 1),
        ("service=nobody", 0),
        ("service=engine&operation=run&errors=true", 1),
        ("service=gateway&errors=true", 0),
        ("tag=http.status_code%3D502", 1),
        ("tag=http.status_code%3D200", 0),
        ("tag=http.response.status_code", 1),
        ("tag=error%3Dtrue", 1),
        ("min_duration=90ms", 1),
        ("min_duration=200ms", 0),
        ("operation=run&max_duration=10ms", 0),
        ("lookback=5s", 0),
        ("limit=0", 0),
    ] {
        assert_eq!(found(query), expected, "{query}");
    }
    let summary = &running.ok("/api/trackline/v1/search")["traces"][0];
    assert_eq!(summary["services"], serde_json::json!(["gateway", "engine"]));
    assert_eq!(
        (&summary["span_count"], &summary["status_code"]),
        (&Json::from(3), &Json::from(502))
    );
    assert_eq!(summary["start_unix_nano"], running.start.to_string());
    let names = running.ok("/api/trackline/v1/services");
    assert_eq!(
        names["services"],
        serde_json::json!([{"name": "engine"}, {"name": "gateway"}])
    );
    let operations = running.ok("/api/trackline/v1/services/gateway/operations");
    assert_eq!(
        operations["operations"],
        serde_json::json!(["POST /chat", "POST engine"])
    );
}

#[test]
fn jaegers_legacy_paths_answer_at_the_root_and_below_jaeger() {
    let running = run();
    for prefix in ["", "/jaeger"] {
        let services = running.ok(&format!("{prefix}/api/services"));
        assert_eq!(
            services.to_string(),
            r#"{"data":["engine","gateway"],"errors":null,"limit":0,"offset":0,"total":2}"#
        );
        let operations = running.ok(&format!("{prefix}/api/operations?service=gateway&spanKind=client"));
        assert_eq!(
            operations["data"],
            serde_json::json!([{"name": "POST engine", "spanKind": "client"}])
        );
        assert_eq!(
            running.ok(&format!("{prefix}/api/services/engine/operations"))["data"],
            serde_json::json!(["run"])
        );
        let trace = running.ok(&format!("{prefix}/api/traces/{ID}"));
        assert_eq!(trace["data"][0]["spans"].as_array().unwrap().len(), 3);
        let query = "service=engine&tags=%7B%22error%22%3A%22true%22%7D&lookback=1h&limit=20";
        assert_eq!(
            running.ok(&format!("{prefix}/api/traces?{query}"))["data"][0]["traceID"],
            ID
        );
        let both = running.ok(&format!("{prefix}/api/traces?traceID={ID}&traceID=abc"));
        assert_eq!(both["data"].as_array().unwrap().len(), 1);
        assert_eq!(
            both["errors"],
            serde_json::json!([{"msg": "trace not found", "traceID": "0000000000000abc"}])
        );
        let now = now_unix_nano() / MS;
        let graph = running.ok(&format!("{prefix}/api/dependencies?endTs={now}&lookback=3600000"));
        assert_eq!(
            graph["data"],
            serde_json::json!([{"parent": "gateway", "child": "engine", "callCount": 1}])
        );
    }
    let (status, missing) = running.get("/api/traces/abc");
    assert_eq!(status, 404);
    assert_eq!(
        missing.to_string(),
        r#"{"data":null,"errors":[{"code":404,"msg":"trace not found"}],"limit":0,"offset":0,"total":0}"#
    );
}

#[test]
fn jaegers_v3_answers_in_otlp_json() {
    let running = run();
    let at = |offset: i64| query::instant::rfc3339(running.start.saturating_add_signed(offset), 9);
    let times = format!(
        "query.startTimeMin={}&query.startTimeMax={}",
        at(-1000),
        at(NANOS_PER_SECOND as i64)
    );
    assert_eq!(
        running.ok("/api/v3/services")["services"],
        serde_json::json!(["engine", "gateway"])
    );
    let operations = running.ok("/api/v3/operations?service=engine");
    assert_eq!(
        operations["operations"],
        serde_json::json!([{"name": "run", "spanKind": "server"}])
    );
    for path in [
        format!("/api/v3/traces/{ID}"),
        format!("/api/v3/traces?query.serviceName=engine&{times}"),
    ] {
        let spans = running.ok(&path)["result"]["resourceSpans"].to_string();
        let request = format!(r#"{{"resourceSpans":{spans}}}"#);
        let decoded: ExportTraceServiceRequest = serde_json::from_str(&request).unwrap();
        let count: usize = decoded
            .resource_spans
            .iter()
            .flat_map(|r| &r.scope_spans)
            .map(|s| s.spans.len())
            .sum();
        assert_eq!(count, 3, "{path}");
    }
    let summaries = running.ok(&format!("/api/v3/trace-summaries?{times}"));
    assert_eq!(summaries["summaries"][0]["traceId"], ID);
    let (status, refused) = running.get("/api/v3/traces");
    assert_eq!((status, &refused["error"]["httpCode"]), (400, &Json::from(400)));
    let (status, missing) = running.get("/api/v3/traces/abc");
    assert_eq!(
        (status, &missing["error"]["message"]),
        (404, &Json::from("No traces found"))
    );
}

#[test]
fn bad_questions_get_precise_errors_in_their_protocols_shape() {
    let running = run();
    for (path, field) in [
        ("/api/trackline/v1/tracking/no-trace", "error"),
        ("/api/trackline/v1/search?min_duration=5", "error"),
        ("/api/trackline/v1/search?limit=many", "error"),
        ("/api/trackline/v1/search?min_duration=2s&max_duration=1s", "error"),
        ("/api/traces/xyz!", "errors"),
        ("/api/traces?start=yesterday", "errors"),
        ("/api/operations", "errors"),
        ("/api/v3/traces/xyz!", "error"),
    ] {
        let (status, body) = running.get(path);
        assert_eq!(status, 400, "{path}: {body}");
        assert!(!body[field].is_null(), "{path}: {body}");
    }
    let (status, nothing) = running.get("/api/trackline/v1/nothing");
    let said = "there is nothing at /api/trackline/v1/nothing";
    assert_eq!((status, &nothing["error"]), (404, &Json::from(said)));
    assert_eq!(running.get("/api/nothing").0, 404);
}

#[test]
fn before_replay_is_over_questions_are_refused_and_the_status_is_not() {
    let running = run();
    running.ready.store(false, Ordering::SeqCst);
    for path in ["/api/trackline/v1/services", "/api/services", "/api/v3/services"] {
        assert_eq!(running.get(path).0, 503, "{path}");
    }
    assert_eq!(running.ok("/api/trackline/v1/status")["ready"], false);
    running.ok("/api/trackline/v1/ledger");
    running.ready.store(true, Ordering::SeqCst);
    assert_eq!(running.ok("/api/trackline/v1/status")["ready"], true);
    running.ok("/api/services");
}

#[test]
fn addresses_of_pages_all_lead_to_the_page() {
    let running = run();
    let page = running.server.get("/").unwrap();
    assert_eq!(page.status, 200);
    for path in [
        format!("/trace/{ID}"),
        format!("/tracking/{ID}"),
        "/search?service=x".to_owned(),
    ] {
        assert_eq!(running.server.get(&path).unwrap().body, page.body, "{path}");
    }
    assert_eq!(running.server.get("/assets/nothing-here.js").unwrap().status, 404);
}
