//! **What:** other encodings' bytes into ours and back, as pure functions.
//!
//! **In:** bytes as a client sent them, or a canonical payload of `model`.
//!
//! **Out:** protobuf that `model::canonical` takes, or the other encoding's bytes.
//!
//! **Invariants:** no I/O and no panics on any input; what cannot be read is an error that says where; nesting is
//! bounded.

pub mod cloudwatch;
pub mod jaeger;
pub mod kafka;
pub mod log_line;
pub mod loki;
pub mod otlp_json;
pub mod prometheus;
pub mod remote_write;
pub mod value_text;
