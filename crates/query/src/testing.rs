//! Spans and logs for this crate's tests, small enough to read in one line.

use std::sync::Arc;

use model::record::{LogRecord, SpanRecord, Value};
use model::{SpanId, TraceId};

pub const TRACE: TraceId = TraceId([7; 16]);

/// A span of service `web`; `parent` 0 is none.
pub fn span(id: u8, parent: u8, start: u64, end: u64) -> SpanRecord {
    SpanRecord {
        trace_id: TRACE,
        span_id: span_id(id),
        parent_span_id: (parent > 0).then(|| span_id(parent)),
        name: format!("op{id}"),
        start_unix_nano: start,
        end_unix_nano: end,
        resource: resource("web"),
        ..SpanRecord::default()
    }
}

pub fn span_id(id: u8) -> SpanId {
    SpanId([0, 0, 0, 0, 0, 0, 0, id])
}

pub fn resource(service: &str) -> Arc<Vec<(String, Value)>> {
    Arc::new(attributes(&[("service.name", service)]))
}

pub fn attributes(pairs: &[(&str, &str)]) -> Vec<(String, Value)> {
    pairs
        .iter()
        .map(|&(key, value)| (key.to_owned(), Value::Str(value.to_owned())))
        .collect()
}

/// A log of service `web` inside span `span` (0 for none).
pub fn log(span: u8, time: u64, severity: u8, message: &str) -> LogRecord {
    LogRecord {
        time_unix_nano: time,
        severity_number: severity,
        body: Value::Str(message.to_owned()),
        trace_id: Some(TRACE),
        span_id: (span > 0).then(|| span_id(span)),
        flags: 1,
        resource: resource("web"),
        ..LogRecord::default()
    }
}
