//! Traffic for tests: the end-to-end benchmark's spans and logs as batches, and what they say as records.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::Arc;

use bytes::Bytes;
use model::record::{Attributes, LogRecord, Scope, SpanRecord, Value};
use model::{Batch, Meta, Signal};

#[path = "../../../../benches/src/logs.rs"]
pub mod logs;
#[path = "../../../../benches/src/spans.rs"]
pub mod spans;

/// 2026-11-20 12:00:00 UTC.
pub const NOON: u64 = 1_795_176_000_000_000_000;
pub const HOUR: u64 = 3_600_000_000_000;
pub const JOURNAL: [u8; 16] = [7; 16];

pub fn batch_at(signal: Signal, payload: impl Into<Bytes>, received_at_unix_nano: u64) -> Batch {
    let canonical = model::canonical::canonicalize(signal, payload.into()).expect("the payload is OTLP");
    let meta = Meta {
        received_at_unix_nano,
        receiver: Arc::from("otlp"),
        peer: None,
        headers: Vec::new(),
        source_offset: None,
    };
    Batch::from_canonical(signal, canonical, None, Arc::new(meta))
}

/// What the store gives back for a batch of spans: attributes by key.
pub fn span_rows(batch: &Batch) -> Vec<SpanRecord> {
    let mut rows = model::view::traces::records(&batch.payload);
    for row in &mut rows {
        row.attributes.sort_by(|a, b| a.0.cmp(&b.0));
        row.resource = sorted(&row.resource);
        row.scope = sorted_scope(&row.scope);
    }
    rows
}

/// What the store gives back for a batch of log records: attributes by key, a body's top level too.
pub fn log_rows(batch: &Batch) -> Vec<LogRecord> {
    let mut rows = model::view::logs::records(&batch.payload);
    for row in &mut rows {
        row.attributes.sort_by(|a, b| a.0.cmp(&b.0));
        row.resource = sorted(&row.resource);
        row.scope = sorted_scope(&row.scope);
        if let Value::Map(pairs) = &mut row.body {
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
        }
    }
    rows
}

fn sorted(attributes: &Arc<Attributes>) -> Arc<Attributes> {
    let mut attributes = Attributes::clone(attributes);
    attributes.sort_by(|a, b| a.0.cmp(&b.0));
    Arc::new(attributes)
}

fn sorted_scope(scope: &Arc<Scope>) -> Arc<Scope> {
    let mut scope = Scope::clone(scope);
    scope.attributes.sort_by(|a, b| a.0.cmp(&b.0));
    Arc::new(scope)
}

/// Spans in an order that does not depend on where they lay.
pub fn by_id(mut rows: Vec<SpanRecord>) -> Vec<SpanRecord> {
    rows.sort_by_key(|r| (r.trace_id, r.start_unix_nano, r.span_id));
    rows
}

/// Records in an order that does not depend on where they lay.
pub fn by_time(mut rows: Vec<LogRecord>) -> Vec<LogRecord> {
    rows.sort_by_cached_key(|r| (r.time_unix_nano, r.observed_unix_nano, format!("{r:?}")));
    rows
}
