//! The tracking ID as application code sees it: a trace id that prints itself, or `no-trace`.

use std::fmt;

use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, TraceId};

/// What stands where no trace is (SPEC T6).
pub const NO_TRACE: &str = "no-trace";

/// The id that a person uses to find everything about one request: the trace id, 32 lower-case hex digits.
///
/// Displays, compares and serialises as that text; `no-trace` when there is no trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackingId([u8; 16]);

impl TrackingId {
    /// The id of the current span's trace.
    pub fn current() -> TrackingId {
        Context::map_current(TrackingId::of)
    }

    /// The id of the trace that `context` is in.
    pub fn of(context: &Context) -> TrackingId {
        TrackingId(context.span().span_context().trace_id().to_bytes())
    }

    /// The trace id, if there is one.
    pub fn trace_id(&self) -> Option<TraceId> {
        (!self.is_none()).then(|| TraceId::from_bytes(self.0))
    }

    /// True for `no-trace`.
    pub fn is_none(&self) -> bool {
        self.0 == [0; 16]
    }

    /// The 32 hex digits as ASCII bytes in a caller's buffer, or `no-trace`: no allocation.
    pub fn encode<'b>(&self, buffer: &'b mut [u8; 32]) -> &'b str {
        if self.is_none() {
            return NO_TRACE;
        }
        hex::encode_to_slice(self.0, buffer).expect("32 digits are room for 16 bytes");
        std::str::from_utf8(buffer).expect("hex digits are ASCII")
    }
}

impl From<TraceId> for TrackingId {
    fn from(id: TraceId) -> TrackingId {
        TrackingId(id.to_bytes())
    }
}

impl fmt::Display for TrackingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encode(&mut [0; 32]))
    }
}

impl serde::Serialize for TrackingId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.encode(&mut [0; 32]))
    }
}

/// Reads what a caller may put into `X-Tracking-ID` (SPEC T4): 32 hex digits, or a UUID v4 with its dashes. Anything
/// else, and the all-zero id, is `None`.
pub fn suggested_trace_id(text: &str) -> Option<TraceId> {
    let bytes = text.trim_matches([' ', '\t']).as_bytes();
    let mut digits = [0u8; 32];
    match bytes.len() {
        32 => digits.copy_from_slice(bytes),
        36 => {
            let mut at = 0;
            for (position, byte) in bytes.iter().enumerate() {
                if matches!(position, 8 | 13 | 18 | 23) {
                    if *byte != b'-' {
                        return None;
                    }
                } else {
                    digits[at] = *byte;
                    at += 1;
                }
            }
            let version_4 = digits[12] == b'4';
            let rfc_variant = matches!(digits[16], b'8' | b'9' | b'a' | b'b' | b'A' | b'B');
            if !version_4 || !rfc_variant {
                return None;
            }
        }
        _ => return None,
    }
    let mut id = [0u8; 16];
    hex::decode_to_slice(digits, &mut id).ok()?;
    (id != [0; 16]).then(|| TraceId::from_bytes(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_may_suggest() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        for (text, expect) in [
            (id, Some(id)),
            ("0AF7651916CD43DD8448EB211C80319C", Some(id)),
            (" 0af7651916cd43dd8448eb211c80319c\t", Some(id)),
            ("0af76519-16cd-43dd-8448-eb211c80319c", Some(id)),
            ("0AF76519-16CD-43DD-8448-EB211C80319C", Some(id)),
            // Version 1, and a variant that is not RFC 9562's.
            ("0af76519-16cd-13dd-8448-eb211c80319c", None),
            ("0af76519-16cd-43dd-c448-eb211c80319c", None),
            ("0af76519-16cd-43dd-8448eb-211c80319c", None),
            ("00000000000000000000000000000000", None),
            ("0af7651916cd43dd8448eb211c80319", None),
            ("0af7651916cd43dd8448eb211c80319c0", None),
            ("0af7651916cd43dd8448eb211c80319g", None),
            ("{0af76519-16cd-43dd-8448-eb211c80319}", None),
            ("no-trace", None),
            ("", None),
        ] {
            assert_eq!(
                suggested_trace_id(text).map(|id| id.to_string()).as_deref(),
                expect,
                "{text:?}"
            );
        }
    }

    #[test]
    fn outside_a_trace_it_says_so() {
        assert_eq!(TrackingId::current().to_string(), NO_TRACE);
        assert_eq!(
            serde_json::to_string(&TrackingId::current()).expect("a string serialises"),
            "\"no-trace\""
        );
    }
}
