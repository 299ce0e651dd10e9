//! Loki's push API to and from OTLP logs: `logproto.PushRequest` as protobuf (without its snappy) and as JSON.
//!
//! Outwards, labels and lines are those of the OpenTelemetry Collector's `loki` exporter, hints included, so that dashboards keep working. Inwards a
//! stream's labels are the resource, a line is a body.
//!
//! Source: Loki's HTTP API, "Ingest logs"; `pkg/push/push.proto`.

mod labels;
mod line;
mod read;
mod selector;
mod write;

pub use read::{BadPush, from_json, from_protobuf};
pub use write::{DefaultLabels, Encoding, Format, Options, Push, Pushes, pushes};

const NANOS: u64 = 1_000_000_000;
