//! A story tells what retention removed from what was never here: on a real store, by age and by size, of spans, of log lines and of both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::{Batch, Meta, Signal, TraceId};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use query::story::{Status, Story};
use query::{Querier, Wanted};
use store::{Clock, DAY_NANOS, Reader, Retention, Settings, Store, Upkeep, Writer};

/// 2026-11-12 12:00:00 UTC.
const NOON: u64 = 1_794_484_800_000_000_000;
const JOURNAL: [u8; 16] = [7; 16];

fn settings(now: &Arc<AtomicU64>, traces: Retention, logs_days: u64) -> Settings {
    let now = Arc::clone(now);
    Settings {
        traces,
        logs: days(logs_days),
        upkeep: Upkeep::ByHand,
        clock: Clock::from_fn(move || now.load(Ordering::SeqCst)),
        ..Settings::default()
    }
}

fn days(days: u64) -> Retention {
    Retention {
        age: Duration::from_secs(days * 24 * 3600),
        bytes: None,
    }
}

fn append(writer: &Writer, seq: u64, signal: Signal, at: u64, payload: Vec<u8>) {
    let canonical = model::canonical::canonicalize(signal, Bytes::from(payload)).expect("the payload is OTLP");
    let meta = Meta {
        received_at_unix_nano: at,
        receiver: "otlp".into(),
        peer: None,
        headers: Vec::new(),
        source_offset: None,
    };
    let batch = Batch::from_canonical(signal, canonical, None, Arc::new(meta));
    writer.append("all", JOURNAL, seq..=seq, &[batch]).expect("takes");
}

fn span(writer: &Writer, seq: u64, id: u8, at: u64) {
    let span = Span {
        trace_id: vec![id; 16],
        span_id: vec![id; 8],
        name: "step".to_owned(),
        start_time_unix_nano: at,
        end_time_unix_nano: at + 5,
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans {
        spans: vec![span],
        ..ScopeSpans::default()
    }];
    let resource_spans = vec![ResourceSpans {
        scope_spans,
        ..ResourceSpans::default()
    }];
    let request = ExportTraceServiceRequest { resource_spans };
    append(writer, seq, Signal::Traces, at, request.encode_to_vec());
}

fn log(writer: &Writer, seq: u64, id: u8, at: u64) {
    let record = LogRecord {
        time_unix_nano: at,
        trace_id: vec![id; 16],
        span_id: vec![id; 8],
        flags: 1,
        ..LogRecord::default()
    };
    let scope_logs = vec![ScopeLogs {
        log_records: vec![record],
        ..ScopeLogs::default()
    }];
    let resource_logs = vec![ResourceLogs {
        scope_logs,
        ..ResourceLogs::default()
    }];
    let request = ExportLogsServiceRequest { resource_logs };
    append(writer, seq, Signal::Logs, at, request.encode_to_vec());
}

fn story(reader: &Reader, id: u8) -> Story {
    let querier = Querier::new(reader.clone(), None).with_retention(Duration::from_secs(3 * 24 * 3600));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime
        .block_on(querier.story(TraceId([id; 16]), Wanted::Auto, |story| story))
        .expect("answers")
}

fn check(reader: &Reader, id: u8, status: Status, explanation: &str) {
    let story = story(reader, id);
    assert_eq!((story.status, story.explanation.as_str()), (status, explanation));
}

#[test]
fn what_age_removed_is_expired_and_what_never_was_is_unknown() {
    let dir = tempfile::tempdir().expect("a directory");
    let now = Arc::new(AtomicU64::new(NOON));
    let (writer, reader) = Store::open(dir.path(), settings(&now, days(3), 30)).expect("opens");
    span(&writer, 0, 1, NOON);
    span(&writer, 1, 2, NOON);
    log(&writer, 2, 2, NOON);
    writer.flush().expect("flushes");
    now.store(NOON + DAY_NANOS, Ordering::SeqCst);
    span(&writer, 3, 1, NOON + DAY_NANOS);
    writer.flush().expect("flushes");
    now.store(NOON + 3 * DAY_NANOS, Ordering::SeqCst);
    span(&writer, 4, 3, NOON + 3 * DAY_NANOS);
    log(&writer, 5, 4, NOON - 30 * DAY_NANOS);
    writer.flush().expect("flushes");
    now.store(NOON + 3 * DAY_NANOS + 5_000_000_000, Ordering::SeqCst);
    writer.maintain().expect("maintains");

    // One day of the trace has gone, the next is here: what is here counts.
    assert_eq!(story(&reader, 1).status, Status::Found);
    check(
        &reader,
        2,
        Status::Partial,
        "1 log line, but no span: its spans of 2026-11-12 were removed by retention, which kept 3 days.",
    );
    assert_eq!(story(&reader, 3).status, Status::Found);
    let never = story(&reader, 9);
    assert_eq!(never.status, Status::Unknown);
    assert!(
        never.explanation.contains("does not tell its age") || never.explanation.contains("nothing has been removed")
    );

    now.store(NOON + 5 * DAY_NANOS, Ordering::SeqCst);
    writer.maintain().expect("maintains");
    check(
        &reader,
        1,
        Status::Expired,
        "It was here: its spans of 2026-11-12 to 2026-11-13 were removed by retention, which kept 3 days.",
    );
    now.store(NOON + 40 * DAY_NANOS, Ordering::SeqCst);
    writer.maintain().expect("maintains");
    drop((writer, reader));
    let (_writer, reader) = Store::open(dir.path(), settings(&now, days(3), 30)).expect("opens");
    let both = story(&reader, 2);
    assert_eq!(both.status, Status::Expired);
    assert!(
        both.explanation.contains("spans and log lines of 2026-11-12 "),
        "{}",
        both.explanation
    );
    assert_eq!(story(&reader, 9).status, Status::Unknown);
}

#[test]
fn what_size_removed_says_how_much_is_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let now = Arc::new(AtomicU64::new(NOON));
    let one_part = Retention {
        bytes: Some(1 << 10),
        ..days(30)
    };
    let (writer, reader) = Store::open(dir.path(), settings(&now, one_part, 30)).expect("opens");
    span(&writer, 0, 1, NOON);
    writer.flush().expect("flushes");
    writer.maintain().expect("maintains");
    check(
        &reader,
        1,
        Status::Expired,
        "It was here: its spans of 2026-11-12 were removed by retention, which kept at most 1 KiB of traces.",
    );
}
