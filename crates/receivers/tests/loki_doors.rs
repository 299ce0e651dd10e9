//! Loki's push API on a real socket: what is pushed arrives as OTLP, and answers are Loki's.

#[path = "../../codec/tests/support/loki_api.rs"]
mod loki_api;
mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use loki_api as api;
use model::{Batch, Signal};
use net::{Doors, Open};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use pipeline::config::{Config, Source};
use pipeline::{Ack, Budget, Entry, Intake, Ledger, Outcome, Reason};
use prost::Message;
use receivers::Settings;
use support::{JSON, PROTOBUF, gzip, post};

type Headers<'a> = &'a [(&'a str, &'a str)];

const PUSH: &str = "/loki/api/v1/push";

struct Running {
    open: Open,
    http: SocketAddr,
    ledger: Ledger,
    batches: Arc<Mutex<Vec<Batch>>>,
    outcome: Arc<Mutex<Outcome>>,
}

async fn start() -> Running {
    let (ledger, batches) = (Ledger::new(), Arc::new(Mutex::new(Vec::new())));
    let outcome = Arc::new(Mutex::new(Outcome::Delivered));
    let (kept, answer) = (Arc::clone(&batches), Arc::clone(&outcome));
    let entry: Arc<dyn Entry> = Arc::new(move |batch: Batch, ack: Ack| {
        kept.lock().unwrap().push(batch);
        ack.resolve(answer.lock().unwrap().clone());
    });
    let intake = Intake::new(
        "loki",
        &ledger,
        Budget::root("test", 64 << 20),
        vec![(Signal::Logs, entry)],
    );
    let yaml = "receivers: { loki: { protocols: { http: { endpoint: 127.0.0.1:0, max_request_body_size: 1048576 } } } }\n\
         service: { pipelines: { logs: {} } }\n";
    let config = Config::load(vec![Source::new("test", yaml)], &|_| None).unwrap();
    let config = receivers::loki::Config::parse(&config.section(&config.receivers[0])).unwrap();
    let mut doors = Doors::new();
    Box::new(config).mount(intake, &mut doors).unwrap();
    let open = doors.open().await.unwrap();
    Running {
        http: open.address_of("receiver loki (http)").unwrap(),
        open,
        ledger,
        batches,
        outcome,
    }
}

impl Running {
    /// Closes the doors; what arrived, in short: resource, then time, severity, body, trace and attributes of each record.
    async fn finish(self) -> Vec<String> {
        assert!(self.open.shutdown(Duration::from_secs(10)).await);
        self.ledger.balance().unwrap();
        let batches = self.batches.lock().unwrap();
        let requests = batches
            .iter()
            .map(|batch| ExportLogsServiceRequest::decode(batch.payload.bytes()).unwrap());
        requests.map(|request| shown(&request)).collect()
    }
}

fn shown(request: &ExportLogsServiceRequest) -> String {
    let pairs = |pairs: &[KeyValue]| {
        let pair = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Value::StringValue(text)) => format!(" {}={text}", pair.key),
            other => format!(" {}={other:?}", pair.key),
        };
        pairs.iter().map(pair).collect::<String>()
    };
    let mut out = String::new();
    for group in &request.resource_logs {
        out.push_str(&format!("[{}]", pairs(&group.resource.as_ref().unwrap().attributes)));
        for record in group.scope_logs.iter().flat_map(|scope| &scope.log_records) {
            assert!(record.observed_time_unix_nano > 0);
            let Some(Value::StringValue(body)) = record.body.as_ref().and_then(|body| body.value.as_ref()) else {
                panic!("a body");
            };
            out.push_str(&format!(
                " ({} {} {body} {}{})",
                record.time_unix_nano,
                record.severity_number,
                record.trace_id.len(),
                pairs(&record.attributes)
            ));
        }
    }
    out
}

fn request(labels: &str) -> Vec<u8> {
    let pair = |name: &str, value: &str| api::Pair {
        name: name.into(),
        value: value.into(),
    };
    let entry = |seconds: i64, line: &str, structured_metadata| api::Entry {
        timestamp: Some(api::Time { seconds, nanos: 5 }),
        line: line.into(),
        structured_metadata,
    };
    let trace = "0af7651916cd43dd8448eb211c80319c";
    api::PushRequest {
        streams: vec![api::Stream {
            labels: labels.into(),
            entries: vec![
                entry(1, "one", vec![pair("trace_id", trace), pair("user", "u1")]),
                entry(2, "two", vec![pair("trace_id", "none"), pair("level", "error")]),
            ],
            hash: 0,
        }],
    }
    .encode_to_vec()
}

fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

#[tokio::test]
async fn every_form_of_a_push_arrives_as_the_same() {
    let running = start().await;
    let protobuf = snappy(&request(r#"{job="shop/cart", level="warn"}"#));
    let json = br#"{"streams":[{"stream":{"job":"shop/cart","level":"warn"},"values":[
        ["1000000005","one",{"trace_id":"0af7651916cd43dd8448eb211c80319c","user":"u1"}],
        ["2000000005","tw\u006f",{"trace_id":"none","level":"error"}]]}]}"#;
    let pushes: [(Headers<'_>, &[u8]); 4] = [
        (&[PROTOBUF], &protobuf),
        (&[PROTOBUF, ("content-encoding", "snappy")], &protobuf),
        (&[JSON], json),
        (
            &[
                ("content-type", "application/json; charset=utf-8"),
                ("content-encoding", "gzip"),
            ],
            &gzip(json),
        ),
    ];
    for (headers, body) in pushes {
        let answer = post(running.http, PUSH, headers, body).await;
        assert_eq!(answer.status, 204, "{headers:?}: {:?}", String::from_utf8(answer.body));
    }
    // The labels may stand behind the entries.
    let late = br#"{"streams":[{"values":[["7","x"]],"stream":{"service_name":"s"}}],"more":1}"#;
    assert_eq!(post(running.http, PUSH, &[JSON], late).await.status, 204);
    let arrived = running.finish().await;
    let expect = "[ service.name=cart job=shop/cart level=warn] (1000000005 13 one 16 user=u1) (2000000005 17 two 0 trace_id=none level=error)";
    assert_eq!(arrived[..4], [expect; 4]);
    assert_eq!(arrived[4], "[ service.name=s] (7 0 x 0)");
}

#[tokio::test]
async fn what_is_wrong_is_said_as_loki_says_it() {
    let running = start().await;
    let check = async |headers: &[(&str, &str)], body: &[u8], status: u16, expect: &str| {
        let answer = post(running.http, PUSH, headers, body).await;
        let said = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.status, status, "{said}");
        assert!(said.contains(expect), "{said}");
    };
    check(&[JSON], b"{", 400, "EOF while parsing").await;
    check(
        &[JSON],
        br#"{"streams":[{"values":[["soon","x"]]}]}"#,
        400,
        "not a number of nanoseconds",
    )
    .await;
    check(
        &[JSON],
        br#"{"streams":[{"values":[["1"]]}]}"#,
        400,
        "no time or no line",
    )
    .await;
    check(&[JSON], br#"{"streams":{}}"#, 400, "a list of streams").await;
    check(&[PROTOBUF], b"plain", 400, "snappy").await;
    check(&[PROTOBUF], &snappy(b"\x0a\xff"), 400, "PushRequest is no protobuf").await;
    check(
        &[PROTOBUF],
        &snappy(&request("{a=1}")),
        400,
        "error parsing labels {a=1}: the value of a label is not quoted",
    )
    .await;
    check(&[("content-type", "text/plain")], b"", 415, "application/json").await;
    check(&[JSON, ("content-encoding", "br")], b"", 415, "not supported").await;
    // A bomb, and bytes that only claim to be one.
    check(&[PROTOBUF], &snappy(&vec![0; 2 << 20]), 413, "larger than").await;
    check(&[PROTOBUF], b"\xff\xff\xff\xff\x0f", 413, "larger than").await;
    check(&[PROTOBUF], b"\x80\x80\x20\x00", 400, "snappy").await;
    *running.outcome.lock().unwrap() = Outcome::retry(Duration::from_secs(3), Reason::JournalFull);
    check(
        &[JSON],
        br#"{"streams":[{"stream":{},"values":[["1","x"]]}]}"#,
        503,
        "full",
    )
    .await;
    running.finish().await;
}
