//! The canonical form of a payload, made once at the door so that everything behind it may rely on it.

use bytes::Bytes;

/// A payload in canonical form, and what it took to make it so.
#[derive(Debug, Clone)]
pub struct Canonical {
    /// The buffer that was handed in, unless `rewritten`.
    pub payload: Bytes,
    /// Spans, log records or data points that remain.
    pub items: u32,
    /// Whether the payload had to be encoded anew.
    pub rewritten: bool,
    /// Texts that were not UTF-8; their bad bytes became U+FFFD.
    pub repaired_text: u32,
    /// Ids of the wrong length in places where the item is whole without them (parents, links, log records,
    /// exemplars); they were removed.
    pub repaired_ids: u32,
    /// Items that were removed, by reason: the protocol's "partial success".
    pub rejected: Vec<(RejectReason, u32)>,
}

/// Why an item cannot be taken while its neighbours can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectReason {
    /// The trace id is missing, all zeros, or not 16 bytes.
    TraceId,
    /// The span id is missing, all zeros, or not 8 bytes.
    SpanId,
}

impl RejectReason {
    /// The name in counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            RejectReason::TraceId => "invalid_trace_id",
            RejectReason::SpanId => "invalid_span_id",
        }
    }

    /// What to tell the sender.
    pub const fn message(self) -> &'static str {
        match self {
            RejectReason::TraceId => "span without a valid trace id (16 bytes, not all zeros)",
            RejectReason::SpanId => "span without a valid span id (8 bytes, not all zeros)",
        }
    }
}

/// Bytes that are not the protobuf message they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf at byte {offset}: {what}")]
pub struct Malformed {
    /// Byte of the payload at which the walk stopped.
    pub offset: usize,
    pub what: &'static str,
}
