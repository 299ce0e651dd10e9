//! From columns back to records. What is not as it was sent is listed in `docs/format/part.md`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use model::record::{Attributes, LogRecord, Scope, SpanRecord, Value};
use model::{SpanId, TraceId};

use crate::arrow::frame_of;
use crate::column::{Kind, Level, parse_column_name, word_value};
use crate::frame::{Data, Frame};
use crate::{Dataset, json, nested};

/// The spans of a batch that a scan of traces returned. Columns that the scan left out read as absent.
pub fn spans(batch: &RecordBatch) -> Vec<SpanRecord> {
    span_records(&frame_of(Dataset::Traces, batch))
}

/// The records of a batch that a scan of logs returned.
pub fn logs(batch: &RecordBatch) -> Vec<LogRecord> {
    log_records(&frame_of(Dataset::Logs, batch))
}

/// The attribute columns of one level of a frame.
struct LevelColumns<'a> {
    columns: Vec<(&'a str, Kind, &'a Data)>,
}

impl<'a> LevelColumns<'a> {
    fn new(frame: &'a Frame, level: Level) -> Self {
        let mut columns: Vec<(&str, Kind, &Data)> = frame
            .columns
            .iter()
            .filter_map(|c| match parse_column_name(&c.spec.name) {
                Some((l, key, kind)) if l == level => Some((key, kind, &c.data)),
                _ => None,
            })
            .collect();
        columns.sort_by_key(|c| c.0);
        Self { columns }
    }

    /// The attributes of a row, by key, with what the rest holds of this level.
    fn attributes(&self, row: usize, rest: &mut Rest, level: Level, trace: Option<TraceId>) -> Attributes {
        let mut out: Attributes = self
            .columns
            .iter()
            .filter_map(|(key, kind, data)| {
                let value = match kind {
                    Kind::TraceHex => data.word(row).and(trace).map(|id| Value::Str(id.to_string())),
                    kind => value_at(data, *kind, row),
                };
                Some(((*key).to_owned(), value?))
            })
            .collect();
        let more = rest.take(level);
        if !more.is_empty() {
            out.extend(more);
            out.sort_by(|a, b| a.0.cmp(&b.0));
        }
        out
    }

    /// What makes two rows alike in this level.
    fn signature(&self, row: usize, out: &mut Vec<u64>) {
        for (_, _, data) in &self.columns {
            out.push(match data {
                Data::Text { codes, .. } => u64::from(codes[row]),
                _ => data.word(row).map_or(u64::MAX, |w| w ^ 1 << 63),
            });
            out.push(u64::from(data.is_present(row)));
        }
    }
}

fn value_at(data: &Data, kind: Kind, row: usize) -> Option<Value> {
    match kind {
        Kind::Text => data.text(row).map(|t| Value::Str(t.to_owned())),
        Kind::Json => data
            .text(row)
            .map(|t| json::parse(t).unwrap_or_else(|| Value::Str(t.to_owned()))),
        kind => data.word(row).map(|w| word_value(kind, w)),
    }
}

/// The attributes of a row that found no column.
#[derive(Default)]
struct Rest(Vec<(String, Value)>);

impl Rest {
    fn of(data: Option<&Data>, row: usize) -> Rest {
        match data.and_then(|d| d.text(row)).and_then(json::parse) {
            Some(Value::Map(pairs)) => Rest(pairs),
            _ => Rest::default(),
        }
    }

    fn take(&mut self, level: Level) -> Attributes {
        if self.0.is_empty() {
            return Vec::new();
        }
        let (mine, others) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(name, _)| name.starts_with(level.prefix()));
        self.0 = others;
        mine.into_iter()
            .map(|(name, value): (String, Value)| (name[level.prefix().len()..].to_owned(), value))
            .collect()
    }
}

/// Resources and scopes of a frame, each built once.
struct Contexts<'a> {
    resource: LevelColumns<'a>,
    scope: LevelColumns<'a>,
    scope_name: Option<&'a Data>,
    scope_version: Option<&'a Data>,
    scope_schema_url: Option<&'a Data>,
    scope_dropped: Option<&'a Data>,
    resources: HashMap<Vec<u64>, Arc<Attributes>>,
    scopes: HashMap<Vec<u64>, Arc<Scope>>,
}

impl<'a> Contexts<'a> {
    fn new(frame: &'a Frame) -> Self {
        Self {
            resource: LevelColumns::new(frame, Level::Resource),
            scope: LevelColumns::new(frame, Level::Scope),
            scope_name: frame.column("scope_name"),
            scope_version: frame.column("scope_version"),
            scope_schema_url: frame.column("scope_schema_url"),
            scope_dropped: frame.column("scope_dropped_attributes_count"),
            resources: HashMap::new(),
            scopes: HashMap::new(),
        }
    }

    fn resource(&mut self, row: usize, rest: &mut Rest) -> Arc<Attributes> {
        if !rest.0.is_empty() {
            return Arc::new(self.resource.attributes(row, rest, Level::Resource, None));
        }
        let mut key = Vec::new();
        self.resource.signature(row, &mut key);
        if let Some(known) = self.resources.get(&key) {
            return Arc::clone(known);
        }
        let resource = Arc::new(self.resource.attributes(row, rest, Level::Resource, None));
        self.resources.insert(key, Arc::clone(&resource));
        resource
    }

    fn scope(&mut self, row: usize, rest: &mut Rest) -> Arc<Scope> {
        let mut key = Vec::new();
        self.scope.signature(row, &mut key);
        for data in [self.scope_name, self.scope_version, self.scope_schema_url] {
            key.push(match data {
                Some(Data::Text { codes, .. }) => u64::from(codes[row]),
                _ => 0,
            });
        }
        key.push(word(self.scope_dropped, row));
        let plain = rest.0.is_empty();
        if plain && let Some(known) = self.scopes.get(&key) {
            return Arc::clone(known);
        }
        let scope = Arc::new(Scope {
            name: text(self.scope_name, row),
            version: text(self.scope_version, row),
            attributes: self.scope.attributes(row, rest, Level::Scope, None),
            dropped_attributes_count: word(self.scope_dropped, row) as u32,
            schema_url: text(self.scope_schema_url, row),
        });
        if plain {
            self.scopes.insert(key, Arc::clone(&scope));
        }
        scope
    }
}

fn text(data: Option<&Data>, row: usize) -> String {
    data.and_then(|d| d.text(row)).unwrap_or_default().to_owned()
}

fn word(data: Option<&Data>, row: usize) -> u64 {
    data.and_then(|d| d.word(row)).unwrap_or_default()
}

fn trace_id(data: Option<&Data>, row: usize) -> Option<TraceId> {
    data.and_then(|d| d.id(row)).and_then(TraceId::from_bytes)
}

fn span_id(data: Option<&Data>, row: usize) -> Option<SpanId> {
    data.and_then(|d| d.id(row)).and_then(SpanId::from_bytes)
}

pub(crate) fn span_records(frame: &Frame) -> Vec<SpanRecord> {
    let column = |name: &str| frame.column(name);
    let ids = (column("trace_id"), column("span_id"), column("parent_span_id"));
    let (name, kind) = (column("name"), column("kind"));
    let (start, duration) = (column("start_unix_nano"), column("duration_ns"));
    let (status_code, status_message) = (column("status_code"), column("status_message"));
    let (trace_state, flags) = (column("trace_state"), column("flags"));
    let (events, links) = (column("events:json"), column("links:json"));
    let (rest_column, schema_url) = (column("rest:json"), column("resource_schema_url"));
    let dropped = (
        column("dropped_attributes_count"),
        column("dropped_events_count"),
        column("dropped_links_count"),
    );
    let attributes = LevelColumns::new(frame, Level::Attr);
    let mut contexts = Contexts::new(frame);
    (0..frame.rows)
        .map(|row| {
            let mut rest = Rest::of(rest_column, row);
            let start_unix_nano = word(start, row);
            SpanRecord {
                trace_id: trace_id(ids.0, row).unwrap_or_default(),
                span_id: span_id(ids.1, row).unwrap_or_default(),
                parent_span_id: span_id(ids.2, row),
                trace_state: text(trace_state, row),
                flags: word(flags, row) as u32,
                name: text(name, row),
                kind: word(kind, row) as u8,
                start_unix_nano,
                end_unix_nano: start_unix_nano.wrapping_add(word(duration, row)),
                status_code: word(status_code, row) as u8,
                status_message: text(status_message, row),
                attributes: attributes.attributes(row, &mut rest, Level::Attr, trace_id(ids.0, row)),
                resource: contexts.resource(row, &mut rest),
                resource_schema_url: text(schema_url, row),
                scope: contexts.scope(row, &mut rest),
                events: events
                    .and_then(|d| d.text(row))
                    .map(nested::read_events)
                    .unwrap_or_default(),
                links: links
                    .and_then(|d| d.text(row))
                    .map(nested::read_links)
                    .unwrap_or_default(),
                dropped_attributes_count: word(dropped.0, row) as u32,
                dropped_events_count: word(dropped.1, row) as u32,
                dropped_links_count: word(dropped.2, row) as u32,
            }
        })
        .collect()
}

pub(crate) fn log_records(frame: &Frame) -> Vec<LogRecord> {
    let column = |name: &str| frame.column(name);
    let ids = (column("trace_id"), column("span_id"));
    let (time, observed, is_observed) = (
        column("time_unix_nano"),
        column("observed_unix_nano"),
        column("time_is_observed"),
    );
    let (number, severity) = (column("severity_number"), column("severity_text"));
    let bodies = [
        (column("body"), Kind::Text),
        (column("body:int"), Kind::Int),
        (column("body:double"), Kind::Double),
        (column("body:bool"), Kind::Bool),
        (column("body:json"), Kind::Json),
    ];
    let (event_name, flags) = (column("event_name"), column("flags"));
    let (rest_column, schema_url) = (column("rest:json"), column("resource_schema_url"));
    let dropped = column("dropped_attributes_count");
    let attributes = LevelColumns::new(frame, Level::Attr);
    let body_columns = LevelColumns::new(frame, Level::Body);
    let mut contexts = Contexts::new(frame);
    (0..frame.rows)
        .map(|row| {
            let mut rest = Rest::of(rest_column, row);
            let from_observed = word(is_observed, row) != 0;
            let body = bodies
                .iter()
                .find_map(|(data, kind)| value_at((*data)?, *kind, row))
                .unwrap_or_else(|| match body_columns.attributes(row, &mut rest, Level::Body, None) {
                    pairs if pairs.is_empty() => Value::Null,
                    pairs => Value::Map(pairs),
                });
            LogRecord {
                time_unix_nano: if from_observed { 0 } else { word(time, row) },
                observed_unix_nano: if from_observed {
                    word(time, row)
                } else {
                    word(observed, row)
                },
                severity_number: word(number, row) as u8,
                severity_text: text(severity, row),
                body,
                attributes: attributes.attributes(row, &mut rest, Level::Attr, trace_id(ids.0, row)),
                dropped_attributes_count: word(dropped, row) as u32,
                trace_id: trace_id(ids.0, row),
                span_id: span_id(ids.1, row),
                flags: word(flags, row) as u32,
                event_name: text(event_name, row),
                resource: contexts.resource(row, &mut rest),
                resource_schema_url: text(schema_url, row),
                scope: contexts.scope(row, &mut rest),
            }
        })
        .collect()
}
