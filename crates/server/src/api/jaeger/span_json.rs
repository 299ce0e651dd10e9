//! Jaeger's JSON of a trace: spans that refer to processes by `p1`, `p2` …, everything as typed tags.
//!
//! The shape is what Jaeger's legacy HTTP API returns (`internal/uimodel` there) for spans that came in over OTLP
//! (translated as OpenTelemetry's "OpenTelemetry to Jaeger Transformation" says). Serialised straight from records.

use std::collections::HashMap;
use std::sync::Arc;

use model::record::{Attributes, EventRecord, SpanRecord, Value, attribute};
use model::{SpanId, TraceId};
use query::json::Out;
use query::story::Kind;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

/// The name of a resource without `service.name`, as the translation has it.
const NO_SERVICE: &str = "OTLPResourceNoServiceName";
const NANOS_PER_MICRO: u64 = 1_000;

const STATUS_OK: u8 = 1;
const STATUS_ERROR: u8 = 2;
/// The bits of OTLP's span flags that are W3C trace flags; the rest says whether the parent was remote.
const TRACE_FLAGS: u32 = 0xff;

/// One trace.
pub struct TraceJson<'a> {
    id: TraceId,
    spans: &'a [SpanRecord],
    /// The process of each span.
    process_of: Vec<u32>,
    processes: Vec<&'a Arc<Attributes>>,
    /// One warning or none per span.
    warnings: Vec<Option<String>>,
}

impl<'a> TraceJson<'a> {
    /// `spans` are all of one trace.
    pub fn new(spans: &'a [SpanRecord]) -> TraceJson<'a> {
        let mut by_pointer: HashMap<*const Attributes, u32> = HashMap::new();
        let mut processes: Vec<&Arc<Attributes>> = Vec::new();
        let mut process_of = Vec::with_capacity(spans.len());
        for span in spans {
            let index = *by_pointer.entry(Arc::as_ptr(&span.resource)).or_insert_with(|| {
                let known = processes.iter().position(|known| **known == span.resource);
                known.unwrap_or_else(|| {
                    processes.push(&span.resource);
                    processes.len() - 1
                }) as u32
            });
            process_of.push(index);
        }
        let warnings = query::assemble::places(spans)
            .into_iter()
            .zip(spans)
            .map(|(place, span)| match span.parent_span_id {
                Some(parent) if place.orphan => Some(format!("parent span {parent} is not in the trace")),
                _ if place.skew_ns != 0 => Some(format!(
                    "clock skew: by its caller's clock this span is {} {} than its timestamps say",
                    query::instant::duration_text(place.skew_ns.unsigned_abs()),
                    if place.skew_ns > 0 { "later" } else { "earlier" }
                )),
                _ => None,
            })
            .collect();
        TraceJson {
            id: spans.first().map(|span| span.trace_id).unwrap_or_default(),
            spans,
            process_of,
            processes,
            warnings,
        }
    }
}

impl Serialize for TraceJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("traceID", &LegacyId(self.id))?;
        map.serialize_entry("spans", &Spans(self))?;
        map.serialize_entry("processes", &Processes(&self.processes))?;
        map.serialize_entry("warnings", &())?;
        map.end()
    }
}

/// Jaeger leaves the upper half of a trace id out where it is zero.
pub struct LegacyId(pub TraceId);

impl Serialize for LegacyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let hex = self.0.to_string();
        let (upper, lower) = hex.split_at(16);
        serializer.serialize_str(if upper == "0000000000000000" { lower } else { &hex })
    }
}

struct Spans<'a>(&'a TraceJson<'a>);

impl Serialize for Spans<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let trace = self.0;
        let mut seq = serializer.serialize_seq(Some(trace.spans.len()))?;
        for (i, span) in trace.spans.iter().enumerate() {
            seq.serialize_element(&SpanJson {
                trace_id: LegacyId(span.trace_id),
                span_id: span.span_id,
                flags: span.flags & TRACE_FLAGS,
                operation_name: &span.name,
                references: references(span),
                start_time: span.start_unix_nano / NANOS_PER_MICRO,
                duration: span.end_unix_nano.saturating_sub(span.start_unix_nano) / NANOS_PER_MICRO,
                tags: tags(span),
                logs: span.events.iter().map(LogJson::new).collect(),
                process_id: format!("p{}", trace.process_of[i] + 1),
                warnings: trace.warnings[i].as_ref().map(|warning| [warning.as_str()]),
            })?;
        }
        seq.end()
    }
}

#[derive(Serialize)]
struct SpanJson<'a> {
    #[serde(rename = "traceID")]
    trace_id: LegacyId,
    #[serde(rename = "spanID")]
    span_id: SpanId,
    #[serde(skip_serializing_if = "is_zero")]
    flags: u32,
    #[serde(rename = "operationName")]
    operation_name: &'a str,
    references: Vec<Reference>,
    #[serde(rename = "startTime")]
    start_time: u64,
    duration: u64,
    tags: Vec<Tag<'a>>,
    logs: Vec<LogJson<'a>>,
    #[serde(rename = "processID")]
    process_id: String,
    warnings: Option<[&'a str; 1]>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Serialize)]
struct Reference {
    #[serde(rename = "refType")]
    kind: &'static str,
    #[serde(rename = "traceID")]
    trace_id: LegacyId,
    #[serde(rename = "spanID")]
    span_id: SpanId,
}

/// The parent, then the links.
fn references(span: &SpanRecord) -> Vec<Reference> {
    let parent = span.parent_span_id.map(|parent| Reference {
        kind: "CHILD_OF",
        trace_id: LegacyId(span.trace_id),
        span_id: parent,
    });
    let links = span.links.iter().filter_map(|link| {
        let child_of = attribute(&link.attributes, "opentracing.ref_type").and_then(Value::as_str) == Some("child_of");
        Some(Reference {
            kind: if child_of { "CHILD_OF" } else { "FOLLOWS_FROM" },
            trace_id: LegacyId(link.trace_id?),
            span_id: link.span_id?,
        })
    });
    parent.into_iter().chain(links).collect()
}

enum TagValue<'a> {
    Text(&'a str),
    Sent(&'a Value),
    True,
}

struct Tag<'a> {
    key: &'a str,
    value: TagValue<'a>,
}

impl<'a> Tag<'a> {
    fn text(key: &'a str, text: &'a str) -> Tag<'a> {
        Tag {
            key,
            value: TagValue::Text(text),
        }
    }

    fn attribute((key, value): &'a (String, Value)) -> Tag<'a> {
        Tag {
            key,
            value: TagValue::Sent(value),
        }
    }
}

impl Serialize for Tag<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Typed<'a, T> {
            key: &'a str,
            #[serde(rename = "type")]
            kind: &'static str,
            value: T,
        }
        let key = self.key;
        match &self.value {
            TagValue::Text(value) => Typed {
                key,
                kind: "string",
                value,
            }
            .serialize(serializer),
            TagValue::True => Typed {
                key,
                kind: "bool",
                value: true,
            }
            .serialize(serializer),
            TagValue::Sent(value) => match value {
                Value::Str(value) => Typed {
                    key,
                    kind: "string",
                    value,
                }
                .serialize(serializer),
                Value::Bool(value) => Typed {
                    key,
                    kind: "bool",
                    value,
                }
                .serialize(serializer),
                // Large integers become strings on the way.
                Value::Int(_) => Typed {
                    key,
                    kind: "int64",
                    value: Out(value),
                }
                .serialize(serializer),
                Value::Double(_) => Typed {
                    key,
                    kind: "float64",
                    value: Out(value),
                }
                .serialize(serializer),
                Value::Bytes(_) => Typed {
                    key,
                    kind: "binary",
                    value: Out(value),
                }
                .serialize(serializer),
                // Jaeger has no other types: they are their text.
                other => Typed {
                    key,
                    kind: "string",
                    value: query::json::text(other),
                }
                .serialize(serializer),
            },
        }
    }
}

/// The span's attributes among what OTLP keeps in fields of its own.
fn tags(span: &SpanRecord) -> Vec<Tag<'_>> {
    let mut tags = Vec::with_capacity(span.attributes.len() + 6);
    if !span.scope.name.is_empty() {
        tags.push(Tag::text("otel.scope.name", &span.scope.name));
    }
    if !span.scope.version.is_empty() {
        tags.push(Tag::text("otel.scope.version", &span.scope.version));
    }
    tags.extend(span.attributes.iter().map(Tag::attribute));
    let kind = Kind::from_number(span.kind);
    if kind != Kind::Unspecified {
        tags.push(Tag::text("span.kind", kind.as_str()));
    }
    match span.status_code {
        STATUS_OK => tags.push(Tag::text("otel.status_code", "OK")),
        STATUS_ERROR => {
            tags.push(Tag::text("otel.status_code", "ERROR"));
            // One key, once: a span may carry an `error` attribute of its own.
            tags.retain(|tag| tag.key != "error");
            tags.push(Tag {
                key: "error",
                value: TagValue::True,
            });
        }
        _ => {}
    }
    if !span.status_message.is_empty() {
        tags.push(Tag::text("otel.status_description", &span.status_message));
    }
    if !span.trace_state.is_empty() {
        tags.push(Tag::text("w3c.tracestate", &span.trace_state));
    }
    tags
}

#[derive(Serialize)]
struct LogJson<'a> {
    timestamp: u64,
    fields: Vec<Tag<'a>>,
}

impl<'a> LogJson<'a> {
    fn new(event: &'a EventRecord) -> LogJson<'a> {
        let name = (!event.name.is_empty()).then(|| Tag::text("event", &event.name));
        let attributes = event
            .attributes
            .iter()
            .filter(|(key, _)| key != "event" || event.name.is_empty());
        LogJson {
            timestamp: event.time_unix_nano / NANOS_PER_MICRO,
            fields: name.into_iter().chain(attributes.map(Tag::attribute)).collect(),
        }
    }
}

struct Processes<'a>(&'a [&'a Arc<Attributes>]);

impl Serialize for Processes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Process<'a> {
            #[serde(rename = "serviceName")]
            service_name: &'a str,
            tags: Vec<Tag<'a>>,
        }
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (i, resource) in self.0.iter().enumerate() {
            let service_name = attribute(resource, "service.name")
                .and_then(Value::as_str)
                .filter(|name| !name.is_empty());
            let process = Process {
                service_name: service_name.unwrap_or(NO_SERVICE),
                tags: resource
                    .iter()
                    .filter(|(key, _)| key != "service.name")
                    .map(Tag::attribute)
                    .collect(),
            };
            map.serialize_entry(&format!("p{}", i + 1), &process)?;
        }
        map.end()
    }
}
