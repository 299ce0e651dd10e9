//! The messages of OTLP 1.x as data: one table from which the canonical walk, its slow path and OTLP/JSON all work, so
//! that a field is described once. Source: opentelemetry-proto, `opentelemetry/proto/{common,resource,trace,logs,
//! metrics}/v1`.

use crate::batch::Signal;
use crate::wire;

/// What a field holds.
#[derive(Clone, Copy)]
pub enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Enum,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    Text,
    Bytes,
    /// 16 bytes, or none.
    TraceId,
    /// 8 bytes, or none.
    SpanId,
    Message(&'static Message),
}

/// How often a field may stand, and where.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    One,
    /// Once, and before every `Many` of its message.
    Leading,
    /// Once, and the item is rejected if it is missing or all zeros.
    Required,
    /// One of the message's only oneof.
    OneOf,
    Many,
    /// Key-value pairs with unique keys.
    Map,
    /// A repeated number; canonical form is packed, once.
    Packed,
}

pub struct Field {
    pub number: u32,
    /// As in OTLP/JSON.
    pub name: &'static str,
    pub kind: Kind,
    pub rule: Rule,
}

/// What the walk does at a message beyond its fields.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Plain,
    /// `Batch::items` counts these.
    Item,
    KeyValue,
    AnyValue,
}

pub struct Message {
    pub name: &'static str,
    pub role: Role,
    pub fields: &'static [Field],
    pub(crate) steps: [Step; STEPS],
    /// The bits of `Step::sets` that an item must have set.
    pub(crate) required: u32,
}

/// One more than the highest field number that OTLP gives a meaning.
pub(crate) const STEPS: usize = 17;
/// Set by every member of the oneof.
const ONE_OF: u32 = 1 << 31;
/// Set by every `Many`.
const MANY: u32 = 1 << 30;

/// A field as the fast walk sees it, found by its number.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub action: Action,
    /// The wire type that the field must have.
    pub wire_type: u8,
    /// Bits that must not have been set before.
    pub conflicts: u32,
    pub sets: u32,
    pub child: Option<&'static Message>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Unknown,
    /// Nothing to check beyond the wire type.
    Skip,
    Text,
    /// A length of 0 or the given one.
    Id(u8),
    /// Exactly the given length, and not all zeros.
    RequiredId(u8),
    /// A `KeyValue` whose key must be new to its message.
    Attribute,
    Child,
    PackedFixed64,
    PackedVarint,
}

impl Kind {
    /// The wire type of one value, unpacked.
    pub const fn wire_type(self) -> u8 {
        match self {
            Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Sint32 | Kind::Enum => {
                wire::VARINT
            }
            Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => wire::FIXED64,
            Kind::Fixed32 => wire::FIXED32,
            Kind::Text | Kind::Bytes | Kind::TraceId | Kind::SpanId | Kind::Message(_) => wire::BYTES,
        }
    }
}

impl Message {
    const fn new(name: &'static str, role: Role, fields: &'static [Field]) -> Self {
        let mut steps = [Step {
            action: Action::Unknown,
            wire_type: 0,
            conflicts: 0,
            sets: 0,
            child: None,
        }; STEPS];
        let mut required = 0;
        let mut index = 0;
        while index < fields.len() {
            let field = &fields[index];
            let own = 1 << field.number;
            let is_required = matches!(field.rule, Rule::Required);
            let (conflicts, sets) = match field.rule {
                Rule::One | Rule::Packed => (own, own),
                Rule::Required => {
                    required |= own;
                    (own, own)
                }
                Rule::Leading => (own | MANY, own),
                Rule::OneOf => (ONE_OF, ONE_OF),
                Rule::Many | Rule::Map => (0, MANY),
            };
            let packed = matches!(field.rule, Rule::Packed);
            let action = match field.kind {
                Kind::Text => Action::Text,
                Kind::TraceId if is_required => Action::RequiredId(16),
                Kind::TraceId => Action::Id(16),
                Kind::SpanId if is_required => Action::RequiredId(8),
                Kind::SpanId => Action::Id(8),
                Kind::Message(_) if matches!(field.rule, Rule::Map) => Action::Attribute,
                Kind::Message(_) => Action::Child,
                _ if packed && field.kind.wire_type() == wire::FIXED64 => Action::PackedFixed64,
                _ if packed => Action::PackedVarint,
                _ => Action::Skip,
            };
            steps[field.number as usize] = Step {
                action,
                wire_type: if packed { wire::BYTES } else { field.kind.wire_type() },
                conflicts,
                sets,
                child: match field.kind {
                    Kind::Message(child) => Some(child),
                    _ => None,
                },
            };
            index += 1;
        }
        Message {
            name,
            role,
            fields,
            steps,
            required,
        }
    }

    /// The field of this number, if OTLP gives it a meaning.
    pub fn field(&self, number: u32) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}

/// The request of each signal.
pub const fn request(signal: Signal) -> &'static Message {
    match signal {
        Signal::Traces => &TRACES,
        Signal::Logs => &LOGS,
        Signal::Metrics => &METRICS,
    }
}

const fn f(number: u32, name: &'static str, kind: Kind, rule: Rule) -> Field {
    Field {
        number,
        name,
        kind,
        rule,
    }
}

pub static TRACES: Message = Message::new(
    "ExportTraceServiceRequest",
    Role::Plain,
    &[f(1, "resourceSpans", Kind::Message(&RESOURCE_SPANS), Rule::Many)],
);

pub static LOGS: Message = Message::new(
    "ExportLogsServiceRequest",
    Role::Plain,
    &[f(1, "resourceLogs", Kind::Message(&RESOURCE_LOGS), Rule::Many)],
);

pub static METRICS: Message = Message::new(
    "ExportMetricsServiceRequest",
    Role::Plain,
    &[f(1, "resourceMetrics", Kind::Message(&RESOURCE_METRICS), Rule::Many)],
);

pub static RESOURCE_SPANS: Message = Message::new(
    "ResourceSpans",
    Role::Plain,
    &[
        f(1, "resource", Kind::Message(&RESOURCE), Rule::Leading),
        f(2, "scopeSpans", Kind::Message(&SCOPE_SPANS), Rule::Many),
        f(3, "schemaUrl", Kind::Text, Rule::One),
    ],
);

pub static RESOURCE_LOGS: Message = Message::new(
    "ResourceLogs",
    Role::Plain,
    &[
        f(1, "resource", Kind::Message(&RESOURCE), Rule::Leading),
        f(2, "scopeLogs", Kind::Message(&SCOPE_LOGS), Rule::Many),
        f(3, "schemaUrl", Kind::Text, Rule::One),
    ],
);

pub static RESOURCE_METRICS: Message = Message::new(
    "ResourceMetrics",
    Role::Plain,
    &[
        f(1, "resource", Kind::Message(&RESOURCE), Rule::Leading),
        f(2, "scopeMetrics", Kind::Message(&SCOPE_METRICS), Rule::Many),
        f(3, "schemaUrl", Kind::Text, Rule::One),
    ],
);

pub static RESOURCE: Message = Message::new(
    "Resource",
    Role::Plain,
    &[
        f(1, "attributes", Kind::Message(&KEY_VALUE), Rule::Map),
        f(2, "droppedAttributesCount", Kind::Uint32, Rule::One),
        f(3, "entityRefs", Kind::Message(&ENTITY_REF), Rule::Many),
    ],
);

pub static ENTITY_REF: Message = Message::new(
    "EntityRef",
    Role::Plain,
    &[
        f(1, "schemaUrl", Kind::Text, Rule::One),
        f(2, "type", Kind::Text, Rule::One),
        f(3, "idKeys", Kind::Text, Rule::Many),
        f(4, "descriptionKeys", Kind::Text, Rule::Many),
    ],
);

pub static SCOPE: Message = Message::new(
    "InstrumentationScope",
    Role::Plain,
    &[
        f(1, "name", Kind::Text, Rule::One),
        f(2, "version", Kind::Text, Rule::One),
        f(3, "attributes", Kind::Message(&KEY_VALUE), Rule::Map),
        f(4, "droppedAttributesCount", Kind::Uint32, Rule::One),
    ],
);

pub static KEY_VALUE: Message = Message::new(
    "KeyValue",
    Role::KeyValue,
    &[
        f(1, "key", Kind::Text, Rule::One),
        f(2, "value", Kind::Message(&ANY_VALUE), Rule::One),
        f(3, "keyStrindex", Kind::Int32, Rule::One),
    ],
);

pub static ANY_VALUE: Message = Message::new(
    "AnyValue",
    Role::AnyValue,
    &[
        f(1, "stringValue", Kind::Text, Rule::OneOf),
        f(2, "boolValue", Kind::Bool, Rule::OneOf),
        f(3, "intValue", Kind::Int64, Rule::OneOf),
        f(4, "doubleValue", Kind::Double, Rule::OneOf),
        f(5, "arrayValue", Kind::Message(&ARRAY_VALUE), Rule::OneOf),
        f(6, "kvlistValue", Kind::Message(&KEY_VALUE_LIST), Rule::OneOf),
        f(7, "bytesValue", Kind::Bytes, Rule::OneOf),
        f(8, "stringValueStrindex", Kind::Int32, Rule::OneOf),
    ],
);

pub static ARRAY_VALUE: Message = Message::new(
    "ArrayValue",
    Role::Plain,
    &[f(1, "values", Kind::Message(&ANY_VALUE), Rule::Many)],
);

pub static KEY_VALUE_LIST: Message = Message::new(
    "KeyValueList",
    Role::Plain,
    &[f(1, "values", Kind::Message(&KEY_VALUE), Rule::Map)],
);

pub static SCOPE_SPANS: Message = Message::new(
    "ScopeSpans",
    Role::Plain,
    &[
        f(1, "scope", Kind::Message(&SCOPE), Rule::Leading),
        f(2, "spans", Kind::Message(&SPAN), Rule::Many),
        f(3, "schemaUrl", Kind::Text, Rule::One),
    ],
);

pub static SPAN: Message = Message::new(
    "Span",
    Role::Item,
    &[
        f(1, "traceId", Kind::TraceId, Rule::Required),
        f(2, "spanId", Kind::SpanId, Rule::Required),
        f(3, "traceState", Kind::Text, Rule::One),
        f(4, "parentSpanId", Kind::SpanId, Rule::One),
        f(5, "name", Kind::Text, Rule::One),
        f(6, "kind", Kind::Enum, Rule::One),
        f(7, "startTimeUnixNano", Kind::Fixed64, Rule::One),
        f(8, "endTimeUnixNano", Kind::Fixed64, Rule::One),
        f(9, "attributes", Kind::Message(&KEY_VALUE), Rule::Map),
        f(10, "droppedAttributesCount", Kind::Uint32, Rule::One),
        f(11, "events", Kind::Message(&EVENT), Rule::Many),
        f(12, "droppedEventsCount", Kind::Uint32, Rule::One),
        f(13, "links", Kind::Message(&LINK), Rule::Many),
        f(14, "droppedLinksCount", Kind::Uint32, Rule::One),
        f(15, "status", Kind::Message(&STATUS), Rule::One),
        f(16, "flags", Kind::Fixed32, Rule::One),
    ],
);

pub static EVENT: Message = Message::new(
    "Event",
    Role::Plain,
    &[
        f(1, "timeUnixNano", Kind::Fixed64, Rule::One),
        f(2, "name", Kind::Text, Rule::One),
        f(3, "attributes", Kind::Message(&KEY_VALUE), Rule::Map),
        f(4, "droppedAttributesCount", Kind::Uint32, Rule::One),
    ],
);

pub static LINK: Message = Message::new(
    "Link",
    Role::Plain,
    &[
        f(1, "traceId", Kind::TraceId, Rule::One),
        f(2, "spanId", Kind::SpanId, Rule::One),
        f(3, "traceState", Kind::Text, Rule::One),
        f(4, "attributes", Kind::Message(&KEY_VALUE), Rule::Map),
        f(5, "droppedAttributesCount", Kind::Uint32, Rule::One),
        f(6, "flags", Kind::Fixed32, Rule::One),
    ],
);

pub static STATUS: Message = Message::new(
    "Status",
    Role::Plain,
    &[
        f(2, "message", Kind::Text, Rule::One),
        f(3, "code", Kind::Enum, Rule::One),
    ],
);

pub static SCOPE_LOGS: Message = Message::new(
    "ScopeLogs",
    Role::Plain,
    &[
        f(1, "scope", Kind::Message(&SCOPE), Rule::Leading),
        f(2, "logRecords", Kind::Message(&LOG_RECORD), Rule::Many),
        f(3, "schemaUrl", Kind::Text, Rule::One),
    ],
);

pub static LOG_RECORD: Message = Message::new(
    "LogRecord",
    Role::Item,
    &[
        f(1, "timeUnixNano", Kind::Fixed64, Rule::One),
        f(2, "severityNumber", Kind::Enum, Rule::One),
        f(3, "severityText", Kind::Text, Rule::One),
        f(5, "body", Kind::Message(&ANY_VALUE), Rule::One),
        f(6, "attributes", Kind::Message(&KEY_VALUE), Rule::Map),
        f(7, "droppedAttributesCount", Kind::Uint32, Rule::One),
        f(8, "flags", Kind::Fixed32, Rule::One),
        f(9, "traceId", Kind::TraceId, Rule::One),
        f(10, "spanId", Kind::SpanId, Rule::One),
        f(11, "observedTimeUnixNano", Kind::Fixed64, Rule::One),
        f(12, "eventName", Kind::Text, Rule::One),
    ],
);

pub static SCOPE_METRICS: Message = Message::new(
    "ScopeMetrics",
    Role::Plain,
    &[
        f(1, "scope", Kind::Message(&SCOPE), Rule::Leading),
        f(2, "metrics", Kind::Message(&METRIC), Rule::Many),
        f(3, "schemaUrl", Kind::Text, Rule::One),
    ],
);

pub static METRIC: Message = Message::new(
    "Metric",
    Role::Plain,
    &[
        f(1, "name", Kind::Text, Rule::One),
        f(2, "description", Kind::Text, Rule::One),
        f(3, "unit", Kind::Text, Rule::One),
        f(5, "gauge", Kind::Message(&GAUGE), Rule::OneOf),
        f(7, "sum", Kind::Message(&SUM), Rule::OneOf),
        f(9, "histogram", Kind::Message(&HISTOGRAM), Rule::OneOf),
        f(
            10,
            "exponentialHistogram",
            Kind::Message(&EXPONENTIAL_HISTOGRAM),
            Rule::OneOf,
        ),
        f(11, "summary", Kind::Message(&SUMMARY), Rule::OneOf),
        f(12, "metadata", Kind::Message(&KEY_VALUE), Rule::Map),
    ],
);

pub static GAUGE: Message = Message::new(
    "Gauge",
    Role::Plain,
    &[f(1, "dataPoints", Kind::Message(&NUMBER_DATA_POINT), Rule::Many)],
);

pub static SUM: Message = Message::new(
    "Sum",
    Role::Plain,
    &[
        f(1, "dataPoints", Kind::Message(&NUMBER_DATA_POINT), Rule::Many),
        f(2, "aggregationTemporality", Kind::Enum, Rule::One),
        f(3, "isMonotonic", Kind::Bool, Rule::One),
    ],
);

pub static HISTOGRAM: Message = Message::new(
    "Histogram",
    Role::Plain,
    &[
        f(1, "dataPoints", Kind::Message(&HISTOGRAM_DATA_POINT), Rule::Many),
        f(2, "aggregationTemporality", Kind::Enum, Rule::One),
    ],
);

pub static EXPONENTIAL_HISTOGRAM: Message = Message::new(
    "ExponentialHistogram",
    Role::Plain,
    &[
        f(
            1,
            "dataPoints",
            Kind::Message(&EXPONENTIAL_HISTOGRAM_DATA_POINT),
            Rule::Many,
        ),
        f(2, "aggregationTemporality", Kind::Enum, Rule::One),
    ],
);

pub static SUMMARY: Message = Message::new(
    "Summary",
    Role::Plain,
    &[f(1, "dataPoints", Kind::Message(&SUMMARY_DATA_POINT), Rule::Many)],
);

pub static NUMBER_DATA_POINT: Message = Message::new(
    "NumberDataPoint",
    Role::Item,
    &[
        f(2, "startTimeUnixNano", Kind::Fixed64, Rule::One),
        f(3, "timeUnixNano", Kind::Fixed64, Rule::One),
        f(4, "asDouble", Kind::Double, Rule::OneOf),
        f(5, "exemplars", Kind::Message(&EXEMPLAR), Rule::Many),
        f(6, "asInt", Kind::Sfixed64, Rule::OneOf),
        f(7, "attributes", Kind::Message(&KEY_VALUE), Rule::Map),
        f(8, "flags", Kind::Uint32, Rule::One),
    ],
);

pub static HISTOGRAM_DATA_POINT: Message = Message::new(
    "HistogramDataPoint",
    Role::Item,
    &[
        f(2, "startTimeUnixNano", Kind::Fixed64, Rule::One),
        f(3, "timeUnixNano", Kind::Fixed64, Rule::One),
        f(4, "count", Kind::Fixed64, Rule::One),
        f(5, "sum", Kind::Double, Rule::One),
        f(6, "bucketCounts", Kind::Fixed64, Rule::Packed),
        f(7, "explicitBounds", Kind::Double, Rule::Packed),
        f(8, "exemplars", Kind::Message(&EXEMPLAR), Rule::Many),
        f(9, "attributes", Kind::Message(&KEY_VALUE), Rule::Map),
        f(10, "flags", Kind::Uint32, Rule::One),
        f(11, "min", Kind::Double, Rule::One),
        f(12, "max", Kind::Double, Rule::One),
    ],
);

pub static EXPONENTIAL_HISTOGRAM_DATA_POINT: Message = Message::new(
    "ExponentialHistogramDataPoint",
    Role::Item,
    &[
        f(1, "attributes", Kind::Message(&KEY_VALUE), Rule::Map),
        f(2, "startTimeUnixNano", Kind::Fixed64, Rule::One),
        f(3, "timeUnixNano", Kind::Fixed64, Rule::One),
        f(4, "count", Kind::Fixed64, Rule::One),
        f(5, "sum", Kind::Double, Rule::One),
        f(6, "scale", Kind::Sint32, Rule::One),
        f(7, "zeroCount", Kind::Fixed64, Rule::One),
        f(8, "positive", Kind::Message(&BUCKETS), Rule::One),
        f(9, "negative", Kind::Message(&BUCKETS), Rule::One),
        f(10, "flags", Kind::Uint32, Rule::One),
        f(11, "exemplars", Kind::Message(&EXEMPLAR), Rule::Many),
        f(12, "min", Kind::Double, Rule::One),
        f(13, "max", Kind::Double, Rule::One),
        f(14, "zeroThreshold", Kind::Double, Rule::One),
    ],
);

pub static BUCKETS: Message = Message::new(
    "Buckets",
    Role::Plain,
    &[
        f(1, "offset", Kind::Sint32, Rule::One),
        f(2, "bucketCounts", Kind::Uint64, Rule::Packed),
    ],
);

pub static SUMMARY_DATA_POINT: Message = Message::new(
    "SummaryDataPoint",
    Role::Item,
    &[
        f(2, "startTimeUnixNano", Kind::Fixed64, Rule::One),
        f(3, "timeUnixNano", Kind::Fixed64, Rule::One),
        f(4, "count", Kind::Fixed64, Rule::One),
        f(5, "sum", Kind::Double, Rule::One),
        f(6, "quantileValues", Kind::Message(&VALUE_AT_QUANTILE), Rule::Many),
        f(7, "attributes", Kind::Message(&KEY_VALUE), Rule::Map),
        f(8, "flags", Kind::Uint32, Rule::One),
    ],
);

pub static VALUE_AT_QUANTILE: Message = Message::new(
    "ValueAtQuantile",
    Role::Plain,
    &[
        f(1, "quantile", Kind::Double, Rule::One),
        f(2, "value", Kind::Double, Rule::One),
    ],
);

pub static EXEMPLAR: Message = Message::new(
    "Exemplar",
    Role::Plain,
    &[
        f(2, "timeUnixNano", Kind::Fixed64, Rule::One),
        f(3, "asDouble", Kind::Double, Rule::OneOf),
        f(4, "spanId", Kind::SpanId, Rule::One),
        f(5, "traceId", Kind::TraceId, Rule::One),
        f(6, "asInt", Kind::Sfixed64, Rule::OneOf),
        f(7, "filteredAttributes", Kind::Message(&KEY_VALUE), Rule::Map),
    ],
);
