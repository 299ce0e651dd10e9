//! OTLP's JSON of spans, which Jaeger's v3 API returns: `resourceSpans` → `scopeSpans` → `spans`.
//!
//! Protobuf's JSON mapping as OTLP bends it: ids in hex, enums as numbers, 64-bit integers as strings, fields at their
//! default left out.

use std::sync::Arc;

use model::record::{EventRecord, LinkRecord, SpanRecord, Value};
use model::{SpanId, TraceId};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

/// Spans of any number of traces, grouped by resource and scope as they come.
pub struct ResourceSpans<'a>(pub &'a [SpanRecord]);

impl Serialize for ResourceSpans<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Group<'a> {
            resource: Resource<'a>,
            scope_spans: ScopeSpans<'a>,
            #[serde(skip_serializing_if = "str::is_empty")]
            schema_url: &'a str,
        }
        #[derive(Serialize)]
        struct Resource<'a> {
            #[serde(skip_serializing_if = "KeyValues::is_empty")]
            attributes: KeyValues<'a>,
        }
        let mut seq = serializer.serialize_seq(None)?;
        let same = |a: &SpanRecord, b: &SpanRecord| Arc::ptr_eq(&a.resource, &b.resource) || a.resource == b.resource;
        for spans in self.0.chunk_by(same) {
            seq.serialize_element(&Group {
                resource: Resource {
                    attributes: KeyValues(&spans[0].resource),
                },
                scope_spans: ScopeSpans(spans),
                schema_url: &spans[0].resource_schema_url,
            })?;
        }
        seq.end()
    }
}

struct ScopeSpans<'a>(&'a [SpanRecord]);

impl Serialize for ScopeSpans<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Group<'a> {
            scope: Scope<'a>,
            spans: Spans<'a>,
            #[serde(skip_serializing_if = "str::is_empty")]
            schema_url: &'a str,
        }
        #[derive(Serialize)]
        struct Scope<'a> {
            #[serde(skip_serializing_if = "str::is_empty")]
            name: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            version: &'a str,
            #[serde(skip_serializing_if = "KeyValues::is_empty")]
            attributes: KeyValues<'a>,
        }
        let mut seq = serializer.serialize_seq(None)?;
        let same = |a: &SpanRecord, b: &SpanRecord| Arc::ptr_eq(&a.scope, &b.scope) || a.scope == b.scope;
        for spans in self.0.chunk_by(same) {
            let scope = &spans[0].scope;
            seq.serialize_element(&Group {
                scope: Scope {
                    name: &scope.name,
                    version: &scope.version,
                    attributes: KeyValues(&scope.attributes),
                },
                spans: Spans(spans),
                schema_url: &scope.schema_url,
            })?;
        }
        seq.end()
    }
}

struct Spans<'a>(&'a [SpanRecord]);

impl Serialize for Spans<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|span| SpanJson {
            trace_id: span.trace_id,
            span_id: span.span_id,
            trace_state: &span.trace_state,
            parent_span_id: span.parent_span_id,
            flags: span.flags,
            name: &span.name,
            kind: span.kind,
            start_time_unix_nano: Decimal(span.start_unix_nano),
            end_time_unix_nano: Decimal(span.end_unix_nano),
            attributes: KeyValues(&span.attributes),
            dropped_attributes_count: span.dropped_attributes_count,
            events: span.events.iter().map(EventJson::new).collect(),
            dropped_events_count: span.dropped_events_count,
            links: span.links.iter().map(LinkJson::new).collect(),
            dropped_links_count: span.dropped_links_count,
            status: StatusJson {
                message: &span.status_message,
                code: span.status_code,
            },
        }))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson<'a> {
    trace_id: TraceId,
    span_id: SpanId,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<SpanId>,
    #[serde(skip_serializing_if = "is_default")]
    flags: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    kind: u8,
    #[serde(skip_serializing_if = "is_default")]
    start_time_unix_nano: Decimal,
    #[serde(skip_serializing_if = "is_default")]
    end_time_unix_nano: Decimal,
    #[serde(skip_serializing_if = "KeyValues::is_empty")]
    attributes: KeyValues<'a>,
    #[serde(skip_serializing_if = "is_default")]
    dropped_attributes_count: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<EventJson<'a>>,
    #[serde(skip_serializing_if = "is_default")]
    dropped_events_count: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<LinkJson<'a>>,
    #[serde(skip_serializing_if = "is_default")]
    dropped_links_count: u32,
    status: StatusJson<'a>,
}

#[derive(Serialize)]
struct StatusJson<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    code: u8,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventJson<'a> {
    #[serde(skip_serializing_if = "is_default")]
    time_unix_nano: Decimal,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "KeyValues::is_empty")]
    attributes: KeyValues<'a>,
    #[serde(skip_serializing_if = "is_default")]
    dropped_attributes_count: u32,
}

impl<'a> EventJson<'a> {
    fn new(event: &'a EventRecord) -> EventJson<'a> {
        EventJson {
            time_unix_nano: Decimal(event.time_unix_nano),
            name: &event.name,
            attributes: KeyValues(&event.attributes),
            dropped_attributes_count: event.dropped_attributes_count,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<TraceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<SpanId>,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_state: &'a str,
    #[serde(skip_serializing_if = "KeyValues::is_empty")]
    attributes: KeyValues<'a>,
    #[serde(skip_serializing_if = "is_default")]
    dropped_attributes_count: u32,
    #[serde(skip_serializing_if = "is_default")]
    flags: u32,
}

impl<'a> LinkJson<'a> {
    fn new(link: &'a LinkRecord) -> LinkJson<'a> {
        LinkJson {
            trace_id: link.trace_id,
            span_id: link.span_id,
            trace_state: &link.trace_state,
            attributes: KeyValues(&link.attributes),
            dropped_attributes_count: link.dropped_attributes_count,
            flags: link.flags,
        }
    }
}

/// A 64-bit integer as a string of digits.
#[derive(PartialEq, Default)]
struct Decimal(u64);

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

struct KeyValues<'a>(&'a [(String, Value)]);

impl KeyValues<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for KeyValues<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct KeyValue<'a> {
            key: &'a str,
            value: AnyValue<'a>,
        }
        serializer.collect_seq(self.0.iter().map(|(key, value)| KeyValue {
            key,
            value: AnyValue(value),
        }))
    }
}

struct AnyValue<'a>(&'a Value);

impl Serialize for AnyValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Values<T> {
            values: T,
        }
        let mut map = serializer.serialize_map(None)?;
        match self.0 {
            Value::Null => {}
            Value::Bool(value) => map.serialize_entry("boolValue", value)?,
            Value::Int(value) => map.serialize_entry("intValue", &value.to_string())?,
            // The names of what JSON lacks are protobuf's, which the record's own serialisation knows.
            Value::Double(_) => map.serialize_entry("doubleValue", self.0)?,
            Value::Str(value) => map.serialize_entry("stringValue", value)?,
            Value::Bytes(value) => map.serialize_entry("bytesValue", &model::base64::encode(value))?,
            Value::Array(values) => {
                let values: Vec<AnyValue> = values.iter().map(AnyValue).collect();
                map.serialize_entry("arrayValue", &Values { values })?;
            }
            Value::Map(entries) => map.serialize_entry(
                "kvlistValue",
                &Values {
                    values: KeyValues(entries),
                },
            )?,
        }
        map.end()
    }
}
