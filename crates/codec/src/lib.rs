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

/// What is made of a payload where each item brings along what it shares in OTLP with others, such as its resource's attributes: so many bytes beyond
/// [`MAX_GROWTH`] times the payload. A full batch of 8,192 items may have resources of 8 KiB.
const MAX_GROWTH_BYTES: usize = 64 << 20;

/// Times the payload, so that a long request of short records with a usual resource fits.
const MAX_GROWTH: usize = 16;

/// The most that is made of a payload of this length. A hostile one of a few MiB, with a large resource and many items, would otherwise become terabytes.
fn max_made_bytes(payload_len: usize) -> usize {
    MAX_GROWTH_BYTES.saturating_add(payload_len.saturating_mul(MAX_GROWTH))
}
