//! The `loki` exporter on a real socket, against a push API written here.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use model::{Batch, Encoding, Meta, Signal};
use net::{At, DoorSettings, Doors, Mount, Request, Response, full_body, handler_fn};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use pipeline::config::{Config, Source};
use pipeline::{Exporter, Outcome, Reason};
use prost::Message;

fn any(text: &str) -> Option<AnyValue> {
    Some(AnyValue {
        value: Some(Value::StringValue(text.into())),
    })
}

/// A record for each tenant.
fn logs(tenants: &[&str]) -> Batch {
    let pair = |key: &str, value: &str| KeyValue {
        key: key.into(),
        value: any(value),
        ..KeyValue::default()
    };
    let record = |tenant: &&str| LogRecord {
        time_unix_nano: 1_700_000_000_000_000_000,
        body: any("hello"),
        attributes: match *tenant {
            "" => Vec::new(),
            tenant => vec![pair("loki.tenant", "org"), pair("org", tenant)],
        },
        ..LogRecord::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records: tenants.iter().map(record).collect(),
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    Batch {
        signal: Signal::Logs,
        encoding: Encoding::Otlp,
        payload: request.encode_to_vec().into(),
        items: tenants.len() as u32,
        wire: None,
        meta: Arc::new(Meta {
            received_at_unix_nano: 0,
            receiver: "otlp".into(),
            peer: None,
            headers: Vec::new(),
            source_offset: None,
        }),
    }
}

fn parse(settings: &str) -> Result<exporters::loki::Config, String> {
    let text = format!("exporters:\n  loki: {{ {settings} }}\nservice: {{ pipelines: {{ logs: {{}} }} }}\n");
    let config = Config::load(vec![Source::new("test.yaml", text)], &|_| None).map_err(|error| error.to_string())?;
    exporters::loki::parse(&config.section(&config.exporters[0])).map_err(|error| error.to_string())
}

fn exporter(address: SocketAddr, more: &str) -> exporters::loki::Loki {
    let config = parse(&format!("endpoint: 'http://{address}/loki/api/v1/push', {more}"));
    exporters::loki::Loki::new(&config.unwrap_or_else(|error| panic!("{error}"))).expect("made")
}

/// What the push API saw, and what it is to answer.
#[derive(Default)]
struct Backend {
    seen: Mutex<Vec<(HeaderMap, Vec<u8>)>>,
    answers: Mutex<VecDeque<(u16, &'static str)>>,
}

impl Backend {
    async fn answer(self: Arc<Backend>, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        self.seen.lock().expect("no panic").push((head.headers, body.to_vec()));
        let (status, text) = self.answers.lock().expect("no panic").pop_front().unwrap_or((204, ""));
        let mut response = Response::new(full_body(text));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        response
            .headers_mut()
            .insert("retry-after", HeaderValue::from_static("7"));
        response
    }

    async fn open(self: &Arc<Backend>) -> (net::Open, SocketAddr) {
        let mut doors = Doors::new();
        let backend = Arc::clone(self);
        let mount = Mount::Http {
            at: At::Path("/loki/api/v1/push".to_owned()),
            service: handler_fn(move |request| Arc::clone(&backend).answer(request)),
        };
        let any = "127.0.0.1:0".parse().expect("an endpoint");
        doors
            .mount_with(&any, "loki", mount, DoorSettings::default())
            .expect("free");
        let open = doors.open().await.expect("opens");
        let address = open.address_of("loki").expect("open");
        (open, address)
    }
}

#[tokio::test]
async fn pushes_are_what_loki_takes() {
    let backend = Arc::new(Backend::default());
    let (_open, address) = backend.open().await;
    let sent = async |more: &str, tenants: &[&str]| {
        let outcome = exporter(address, more).export(logs(tenants)).await;
        assert_eq!(outcome, Outcome::Delivered, "{more}");
        std::mem::take(&mut *backend.seen.lock().expect("no panic"))
    };
    let seen = sent("headers: { authorization: Basic x }, tenant_id: us", &["", "them", ""]).await;
    let tenants: Vec<_> = seen.iter().map(|(headers, _)| &headers["x-scope-orgid"]).collect();
    assert_eq!(tenants, ["us", "them"]);
    let (headers, body) = &seen[0];
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert_eq!(headers["authorization"], "Basic x");
    assert!(!headers.contains_key("content-encoding"));
    let plain = snap::raw::Decoder::new().decompress_vec(body).expect("snappy");
    assert!(plain.windows(17).any(|window| window == br#"{exporter="OTLP"}"#));

    let seen = sent("encoding: json, compression: none, format: raw", &[""]).await;
    assert_eq!(seen[0].0["content-type"], "application/json");
    assert!(!seen[0].0.contains_key("x-scope-orgid"));
    let expect = r#"{"streams":[{"stream":{"exporter":"OTLP"},"values":[["1700000000000000000","hello"]]}]}"#;
    assert_eq!(seen[0].1, expect.as_bytes());
    let seen = sent("encoding: json", &[""]).await;
    assert_eq!(seen[0].0["content-encoding"], "gzip");
}

#[tokio::test]
async fn answers_mean_what_loki_means() {
    let backend = Arc::new(Backend::default());
    let (_open, address) = backend.open().await;
    let exporter = exporter(address, "");
    let after = async |answers: &[(u16, &'static str)]| {
        backend.answers.lock().expect("no panic").extend(answers);
        exporter.export(logs(&["a", "a", "b"])).await
    };
    let later = Outcome::retry(Duration::from_secs(7), Reason::BackendUnavailable);
    for status in [429, 500, 503] {
        assert_eq!(after(&[(status, "busy")]).await, later, "{status}");
    }
    assert_eq!(after(&[(204, ""), (429, "")]).await, later, "the second tenant's");
    let no_token = Outcome::retry(Duration::from_secs(7), Reason::BackendUnauthorized);
    assert_eq!(after(&[(401, "no org id")]).await, no_token);
    let old = "entry with timestamp 1 ignored, reason: 'entry too far behind', total ignored: 1 out of 2";
    let expect = Outcome::rejected(Reason::BackendRejected, format!("HTTP 400: {old}"), 1);
    assert_eq!(after(&[(400, old)]).await, expect, "the other was taken");
    assert!(matches!(
        after(&[(400, "no"), (400, "no")]).await,
        Outcome::Rejected { items: 3, .. }
    ));
}

#[test]
fn mistakes_say_what_to_write() {
    for (settings, expect) in [
        ("endpoint: 'https://x/otlp'", "`otlphttp` is the exporter for it"),
        (
            "endpoint: 'https://x/otlp/v1/logs'",
            "`otlphttp` is the exporter for it",
        ),
        ("endpoint: 'x:3100'", "has no http:// or https://"),
        ("endpoint: 'http://x', tenant: { source: static }", "`tenant` is gone"),
        ("endpoint: 'http://x', labels: { resource: {} }", "`labels` is gone"),
        (
            "endpoint: 'http://x', default_labels_enabled: { jobs: true }",
            "did you mean `job`?",
        ),
        ("endpoint: 'http://x', tenant_id: \"a\\nb\"", "a header cannot carry it"),
    ] {
        let said = parse(settings).expect_err("wrong");
        assert!(
            said.contains(expect) && said.contains("test.yaml:2"),
            "{settings}: {said}"
        );
    }
}
