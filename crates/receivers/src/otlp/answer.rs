//! Partial success in OTLP's words.
//!
//! Source: the OTLP specification, "OTLP/gRPC Response", "OTLP/HTTP Response".

use model::{Signal, wire};

use crate::answer::Accepted;

impl Accepted {
    /// `Export…ServiceResponse`; the three signals number their fields alike.
    pub(super) fn proto(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.rejected > 0 || !self.message.is_empty() {
            let mut partial = Vec::new();
            if self.rejected > 0 {
                wire::put_tag(&mut partial, 1, wire::VARINT);
                wire::put_varint(&mut partial, self.rejected);
            }
            wire::put_bytes(&mut partial, 2, self.message.as_bytes());
            wire::put_bytes(&mut out, 1, &partial);
        }
        out
    }

    /// The same as JSON.
    pub(super) fn json(&self, signal: Signal) -> Vec<u8> {
        if self.rejected == 0 && self.message.is_empty() {
            return b"{}".to_vec();
        }
        let field = match signal {
            Signal::Traces => "rejectedSpans",
            Signal::Logs => "rejectedLogRecords",
            Signal::Metrics => "rejectedDataPoints",
        };
        // 64-bit integers are strings in protobuf's JSON.
        serde_json::json!({
            "partialSuccess": { field: self.rejected.to_string(), "errorMessage": self.message }
        })
        .to_string()
        .into_bytes()
    }
}
