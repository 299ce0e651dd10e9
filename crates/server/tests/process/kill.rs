//! Kills the real process under load, again and again: everything it acknowledged is there afterwards, nothing twice.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::running::{Ports, Server, post};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

const KILLS: usize = 4;
const SENDERS: usize = 4;
pub const SPANS_A_REQUEST: u64 = 5;
const LOGS_A_REQUEST: u64 = 3;
/// Acknowledgements that a round waits for before its kill, so that each kill falls into load.
const ACKS_A_ROUND: usize = 60;

/// What the server said about one request: each half of it is acknowledged on its own.
#[derive(Clone, Copy, Default)]
struct Acked {
    spans: bool,
    logs: bool,
}

#[test]
fn everything_acknowledged_survives_kill_9_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let ports = Ports::free();
    let acked: Mutex<HashMap<u64, Acked>> = Mutex::default();
    let next = AtomicU64::new(1);
    for round in 0..KILLS {
        let server = Server::start(directory.path(), ports);
        let before = acked.lock().expect("no sender panicked").len();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| send_until(&stop, ports.http, &next, &acked));
            }
            while acked.lock().expect("no sender panicked").len() < before + ACKS_A_ROUND * (round + 1) {
                std::thread::yield_now();
            }
            server.kill();
            stop.store(true, Ordering::Relaxed);
        });
    }

    let server = Server::start(directory.path(), ports);
    let acked = acked.into_inner().expect("no sender panicked");
    assert!(acked.len() >= ACKS_A_ROUND * KILLS);
    for (number, halves) in &acked {
        let story = server.json(&format!("/api/trackline/v1/tracking/{number:032x}"));
        let (spans, logs) = (
            story["trace"]["span_count"].as_u64(),
            story["logs"].as_array().map_or(0, Vec::len) as u64,
        );
        if halves.spans {
            assert_eq!(spans, Some(SPANS_A_REQUEST), "acknowledged spans of request {number}");
        }
        if halves.logs {
            assert_eq!(logs, LOGS_A_REQUEST, "acknowledged records of request {number}");
        }
    }
    let status = server.json("/api/trackline/v1/status");
    let ledger = server.json("/api/trackline/v1/ledger");
    assert_eq!(ledger["balanced"], true, "{ledger}");
    assert!(status["ready"].as_bool().unwrap_or(false), "{status}");
    assert_eq!(server.stop(), Some(0));
}

/// Sends numbered requests and notes which were acknowledged.
fn send_until(stop: &AtomicBool, port: u16, next: &AtomicU64, acked: &Mutex<HashMap<u64, Acked>>) {
    while !stop.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let spans = post(port, "/v1/traces", &spans(number)) == Some(200);
        let logs = post(port, "/v1/logs", &logs(number)) == Some(200);
        if spans || logs {
            acked
                .lock()
                .expect("no sender panicked")
                .insert(number, Acked { spans, logs });
        }
    }
}

fn resource() -> Option<Resource> {
    let name = AnyValue {
        value: Some(Value::StringValue("killed".to_owned())),
    };
    let attribute = KeyValue {
        key: "service.name".to_owned(),
        value: Some(name),
        ..KeyValue::default()
    };
    Some(Resource {
        attributes: vec![attribute],
        ..Resource::default()
    })
}

pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_nanos() as u64
}

/// One request's spans; the number is the trace id.
pub fn spans(number: u64) -> Vec<u8> {
    let start = now();
    let spans = (1..=SPANS_A_REQUEST).map(|at| Span {
        trace_id: u128::from(number).to_be_bytes().to_vec(),
        span_id: at.to_be_bytes().to_vec(),
        parent_span_id: if at == 1 {
            Vec::new()
        } else {
            1u64.to_be_bytes().to_vec()
        },
        name: format!("step {at}"),
        start_time_unix_nano: start,
        end_time_unix_nano: start + 1_000_000 * at,
        ..Span::default()
    });
    let scope_spans = vec![ScopeSpans {
        spans: spans.collect(),
        ..ScopeSpans::default()
    }];
    let resource_spans = vec![ResourceSpans {
        resource: resource(),
        scope_spans,
        ..ResourceSpans::default()
    }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// One request's log records.
pub fn logs(number: u64) -> Vec<u8> {
    let records = (1..=LOGS_A_REQUEST).map(|at| LogRecord {
        time_unix_nano: now(),
        severity_number: 9,
        body: Some(AnyValue {
            value: Some(Value::StringValue(format!("line {at} of {number}"))),
        }),
        trace_id: u128::from(number).to_be_bytes().to_vec(),
        span_id: 1u64.to_be_bytes().to_vec(),
        flags: 1,
        ..LogRecord::default()
    });
    let scope_logs = vec![ScopeLogs {
        log_records: records.collect(),
        ..ScopeLogs::default()
    }];
    let resource_logs = vec![ResourceLogs {
        resource: resource(),
        scope_logs,
        ..ResourceLogs::default()
    }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}
