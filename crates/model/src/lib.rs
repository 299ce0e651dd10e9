//! **What:** what telemetry *is*: batches of encoded requests, ids, views, edits and owned rows.
//!
//! **In:** encoded OTLP requests, as any client may send them.
//!
//! **Out:** `Batch`es in canonical form, views that read them without allocating, edits that splice them, writers that make new ones, and the owned
//! records that a query answers with.
//!
//! **Invariants:** the payload of every `Batch` is canonical (see `canonical`); what a view reads is what an
//! independent decoder reads; nothing here does I/O, reads a clock, or panics on any input.

pub mod base64;
pub mod batch;
pub mod canonical;
pub mod edit;
pub mod gzip;
pub mod id;
pub mod instant;
pub mod payload;
pub mod record;
pub mod schema;
pub mod view;
pub mod wire;
pub mod write;

pub use batch::{Batch, Compression, Encoding, Headers, Meta, Signal, Wire};
pub use id::{BadId, SpanId, TraceId};
pub use payload::Payload;
