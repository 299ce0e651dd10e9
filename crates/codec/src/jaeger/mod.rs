//! Jaeger's model, as protobuf (`jaeger.api_v2`) and as Thrift (`jaeger.thrift`), to and from OTLP.
//!
//! Outwards it is the OpenTelemetry specification's "OpenTelemetry to Jaeger Transformation"; inwards its reverse. There and back is identity but for
//! what Jaeger has no place for:
//! - lists and maps become JSON text, an empty value an empty text;
//! - schema URLs, dropped-attribute counts of resources, scopes and links, a link's attributes, trace state and flags, and all trace flags but
//!   *sampled* are not carried;
//! - a span that ends before it starts ends when it starts;
//! - what is told in tags (`span.kind`, `error`, `otel.*`, `w3c.tracestate`) is read from tags, so an attribute with such a name is taken for it;
//!   a process tag `hostname` becomes `host.name`; an event `error` that has OpenTracing's fields becomes an `exception`;
//! - an unknown kind or status becomes *unspecified*, an event named by an attribute `event` has that name.
//!
//! Source: jaeger-idl `proto/api_v2/model.proto`, `collector.proto`, `thrift/jaeger.thrift`.

mod otlp;
mod protobuf;
mod span;
mod thrift;
mod write;

pub use protobuf::from_protobuf;
pub use thrift::from_thrift;
pub use write::{Post, Posts, posts};

/// Tags of what OTLP has fields for.
mod tag {
    pub const KIND: &str = "span.kind";
    pub const ERROR: &str = "error";
    pub const STATUS_CODE: &str = "otel.status_code";
    pub const STATUS_DESCRIPTION: &str = "otel.status_description";
    pub const TRACE_STATE: &str = "w3c.tracestate";
    pub const SCOPE_NAME: &str = "otel.scope.name";
    pub const SCOPE_VERSION: &str = "otel.scope.version";
    /// Before the keys of a scope's attributes. The specification leaves them out; they would be lost.
    pub const SCOPE_PREFIX: &str = "otel.scope.";
    /// What `otel.scope.*` was called before.
    pub const LIBRARY_NAME: &str = "otel.library.name";
    pub const LIBRARY_VERSION: &str = "otel.library.version";
    pub const DROPPED_ATTRIBUTES: &str = "otel.dropped_attributes_count";
    pub const DROPPED_EVENTS: &str = "otel.dropped_events_count";
    pub const DROPPED_LINKS: &str = "otel.dropped_links_count";
    /// The field of a log that names the event.
    pub const EVENT: &str = "event";
    /// How a link tells that it was a reference to a parent.
    pub const REFERENCE: &str = "opentracing.ref_type";
    pub const CHILD_OF: &str = "child_of";
    /// Where Jaeger itself puts what it has to say about a span.
    pub const WARNINGS: &str = "@jaeger@warnings";
}

/// The service name of a resource that has none.
const NO_SERVICE_NAME: &str = "OTLPResourceNoServiceName";

/// Kinds by OTLP's numbers.
const KINDS: [&str; 6] = ["", "internal", "server", "client", "producer", "consumer"];

/// `SpanRefType` and the numbers of `ValueType` in `model.proto`.
const CHILD_OF: u64 = 0;
const FOLLOWS_FROM: u64 = 1;
const BOOL: u64 = 1;
const INT64: u64 = 2;
const FLOAT64: u64 = 3;
const BINARY: u64 = 4;

const NANOS: u64 = 1_000_000_000;

/// Tags, log fields, logs, references and warnings of one span that are looked at; a real span has a few dozen. It bounds the memory beside the request.
const MAX_ELEMENTS: usize = 1 << 18;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadJaeger {
    #[error("malformed Jaeger protobuf in {0}")]
    Protobuf(&'static str),
    #[error("malformed Thrift at byte {at}: {what}")]
    Thrift { at: usize, what: &'static str },
    #[error("a span has more than {MAX_ELEMENTS} tags, logs and references")]
    TooMany,
}
