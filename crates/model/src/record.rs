//! Owned rows: what a query answers with. The hot path uses `view` instead.

use std::sync::Arc;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::id::{SpanId, TraceId};

/// The value of an attribute or a log body.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Present, but without a value; OTLP allows it.
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Str(String),
    Bytes(Vec<u8>),
    Array(Vec<Value>),
    /// Keys are unique.
    Map(Vec<(String, Value)>),
}

/// Attributes in the order in which they were sent; keys are unique.
pub type Attributes = Vec<(String, Value)>;

/// Finds an attribute by its key.
pub fn attribute<'a>(attributes: &'a [(String, Value)], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|(k, _)| k == key).map(|(_, v)| v)
}

/// The highest `Span.SpanKind`, `Status.StatusCode` and `SeverityNumber` that OTLP defines.
pub(crate) const MAX_SPAN_KIND: u8 = 5;
pub(crate) const MAX_STATUS_CODE: u8 = 2;
pub(crate) const MAX_SEVERITY_NUMBER: u8 = 24;

/// An enumeration's number, or 0 if OTLP does not define it.
pub(crate) fn known(number: i32, max: u8) -> u8 {
    u8::try_from(number).ok().filter(|number| *number <= max).unwrap_or(0)
}

impl Value {
    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }
}

/// The instrumentation scope of a span or a log record.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Scope {
    pub name: String,
    pub version: String,
    #[serde(serialize_with = "as_map")]
    pub attributes: Attributes,
    pub dropped_attributes_count: u32,
    pub schema_url: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct EventRecord {
    #[serde(serialize_with = "as_decimal")]
    pub time_unix_nano: u64,
    pub name: String,
    #[serde(serialize_with = "as_map")]
    pub attributes: Attributes,
    pub dropped_attributes_count: u32,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct LinkRecord {
    /// `None` where the sender gave none, or one of the wrong length.
    pub trace_id: Option<TraceId>,
    pub span_id: Option<SpanId>,
    pub trace_state: String,
    pub flags: u32,
    #[serde(serialize_with = "as_map")]
    pub attributes: Attributes,
    pub dropped_attributes_count: u32,
}

/// A span as a query returns it. Instants are ns since 1970 and serialise as strings of decimal digits, because a
/// JavaScript number cannot hold them.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct SpanRecord {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent_span_id: Option<SpanId>,
    pub trace_state: String,
    pub flags: u32,
    pub name: String,
    /// `opentelemetry.proto.trace.v1.Span.SpanKind`; a number that it does not know reads as 0, unspecified.
    pub kind: u8,
    #[serde(serialize_with = "as_decimal")]
    pub start_unix_nano: u64,
    #[serde(serialize_with = "as_decimal")]
    pub end_unix_nano: u64,
    /// 0 unset, 1 ok, 2 error; another number reads as 0.
    pub status_code: u8,
    pub status_message: String,
    #[serde(serialize_with = "as_shared_map")]
    pub resource: Arc<Attributes>,
    pub resource_schema_url: String,
    #[serde(serialize_with = "as_shared")]
    pub scope: Arc<Scope>,
    #[serde(serialize_with = "as_map")]
    pub attributes: Attributes,
    pub events: Vec<EventRecord>,
    pub links: Vec<LinkRecord>,
    pub dropped_attributes_count: u32,
    pub dropped_events_count: u32,
    pub dropped_links_count: u32,
}

/// A log record as a query returns it.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct LogRecord {
    /// 0 if the source gave none; then `observed_unix_nano` is what is known.
    #[serde(serialize_with = "as_decimal")]
    pub time_unix_nano: u64,
    #[serde(serialize_with = "as_decimal")]
    pub observed_unix_nano: u64,
    /// 1 to 24 as OTLP defines them, 0 unspecified; another number reads as 0.
    pub severity_number: u8,
    pub severity_text: String,
    pub body: Value,
    #[serde(serialize_with = "as_map")]
    pub attributes: Attributes,
    pub dropped_attributes_count: u32,
    pub trace_id: Option<TraceId>,
    pub span_id: Option<SpanId>,
    pub flags: u32,
    pub event_name: String,
    #[serde(serialize_with = "as_shared_map")]
    pub resource: Arc<Attributes>,
    pub resource_schema_url: String,
    #[serde(serialize_with = "as_shared")]
    pub scope: Arc<Scope>,
}

impl Serialize for Value {
    /// Plain JSON-like data: bytes are base64, and doubles that JSON lacks are "NaN", "Infinity", "-Infinity" as in
    /// protobuf's JSON mapping.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => to.serialize_unit(),
            Value::Bool(value) => to.serialize_bool(*value),
            Value::Int(value) => to.serialize_i64(*value),
            Value::Double(value) if value.is_nan() => to.serialize_str("NaN"),
            Value::Double(value) if value.is_infinite() => {
                to.serialize_str(if *value > 0.0 { "Infinity" } else { "-Infinity" })
            }
            Value::Double(value) => to.serialize_f64(*value),
            Value::Str(value) => to.serialize_str(value),
            Value::Bytes(value) => to.serialize_str(&crate::base64::encode(value)),
            Value::Array(values) => {
                let mut seq = to.serialize_seq(Some(values.len()))?;
                for value in values {
                    seq.serialize_element(value)?;
                }
                seq.end()
            }
            Value::Map(entries) => as_map(entries, to),
        }
    }
}

fn as_map<S: Serializer>(entries: &[(String, Value)], to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(entries.len()))?;
    for (key, value) in entries {
        map.serialize_entry(key, value)?;
    }
    map.end()
}

fn as_shared_map<S: Serializer>(entries: &Arc<Attributes>, to: S) -> Result<S::Ok, S::Error> {
    as_map(entries, to)
}

fn as_shared<T: Serialize, S: Serializer>(value: &Arc<T>, to: S) -> Result<S::Ok, S::Error> {
    value.as_ref().serialize(to)
}

fn as_decimal<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_serialise_as_plain_json() {
        let value = Value::Map(vec![
            ("n".into(), Value::Null),
            ("i".into(), Value::Int(i64::MIN)),
            (
                "d".into(),
                Value::Array(vec![
                    Value::Double(0.5),
                    Value::Double(f64::NAN),
                    Value::Double(f64::NEG_INFINITY),
                ]),
            ),
            ("b".into(), Value::Bytes(vec![0, 255, 16])),
        ]);
        let json = serde_json::to_string(&value).expect("serialises");
        assert_eq!(
            json,
            r#"{"n":null,"i":-9223372036854775808,"d":[0.5,"NaN","-Infinity"],"b":"AP8Q"}"#
        );
    }

    #[test]
    fn instants_serialise_as_decimal_strings() {
        let span = SpanRecord {
            start_unix_nano: u64::MAX,
            ..SpanRecord::default()
        };
        let json = serde_json::to_value(&span).expect("serialises");
        assert_eq!(json["start_unix_nano"], "18446744073709551615");
        assert_eq!(json["trace_id"], "00000000000000000000000000000000");
        assert_eq!(json["parent_span_id"], serde_json::Value::Null);
    }
}
