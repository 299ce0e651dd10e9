//! Telemetry for a Rust service with one call: traces, logs and a tracking ID that leads to both.
//!
//! ```no_run
//! # async fn serve() {}
//! #[tokio::main]
//! async fn main() {
//!     let telemetry = trackline_sdk::init("api-gateway");
//!     serve().await;
//!     telemetry.shutdown().await;
//! }
//! ```
//!
//! **What.** Sets up OpenTelemetry tracing and logging from code and the `OTEL_*` variables, feeds `tracing` events into
//! both JSON lines on stdout and OTLP logs, and carries the tracking ID, which is the trace id, in and out of the process.
//!
//! **In.** [`init`] or [`Telemetry::builder`]; `tracing` events; spans made with [`span`]; headers given to [`w3c`].
//!
//! **Out.** OTLP over gRPC or HTTP to a collector; JSON lines (`docs/log-schema.md`); [`Stats`] about both.
//!
//! **Invariants.** Telemetry never fails, blocks or grows its service: set-up problems are log lines, queues are bounded
//! and lose their oldest items, sending happens on threads of its own. Nothing here knows a web framework; that is
//! `trackline-sdk-axum`.

pub mod ai;
mod export;
mod ids;
mod logs;
pub mod panics;
mod queue;
mod reach;
pub mod request;
mod resource;
mod sampler;
mod settings;
mod span;
mod telemetry;
pub mod tls;
mod traces;
mod tracking;
pub mod w3c;

pub use logs::Field;
pub use opentelemetry::trace::SpanKind;
pub use opentelemetry::{Context, KeyValue, Value};
pub use request::{set_session, set_user};
pub use sampler::Sampling;
pub use settings::{Protocol, Trust, short_environment};
pub use span::{ActiveSpan, SpanBuilder, event, record_failure, set_attribute, span, start_server_span};
pub use telemetry::{Builder, Guard, Stats, Telemetry};
pub use tracking::{NO_TRACE, TrackingId, suggested_trace_id};

/// Turns telemetry on for this process with everything at its default or from `OTEL_*` variables.
pub fn init(service: impl Into<String>) -> Guard {
    Telemetry::builder(service).init()
}

/// The tracking ID of what is running now.
pub fn tracking_id() -> TrackingId {
    TrackingId::current()
}
