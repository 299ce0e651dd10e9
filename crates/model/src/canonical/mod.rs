//! The canonical form of a payload, made once at the door so that everything behind it may rely on it.
//!
//! Protobuf lets a sender repeat a singular field, give a oneof twice, split a message in two that merge, or put the
//! scope after the items. A view that reads the first value where a backend reads the last would let data bypass
//! redaction, so none of that passes the door. In canonical form
//!
//! - singular fields and oneofs stand once, and repeated numbers are packed, once;
//! - `resource` and `scope` stand before what they describe;
//! - the keys of a list of attributes are unique (the last one given wins);
//! - trace ids are 16 bytes and span ids 8, or absent; a span has both, neither all zeros;
//! - text is UTF-8; values nest at most `MAX_VALUE_DEPTH` deep; there are no groups;
//! - fields that OTLP does not define are kept as they came.
//!
//! `walk` proves that a payload already has this form, without allocating; only if it does not, `rewrite` encodes it
//! anew from what protobuf says the bytes mean.

mod keys;
mod rewrite;
mod walk;

use bytes::Bytes;

use crate::batch::Signal;
use crate::schema;

/// How deep an attribute's value may nest. With key-value lists all the way down, 32 levels make 99 nested messages,
/// and 100 is where the usual protobuf decoders (prost, upb) stop: what we take, those behind us can take too.
pub const MAX_VALUE_DEPTH: u32 = 32;

/// The longest payload, in bytes: offsets are kept in 32 bits. The doors' limits are far below.
pub const MAX_PAYLOAD_BYTES: usize = u32::MAX as usize;

/// The longest list of attributes. Telling its keys apart takes 16 bytes each, on every thread that works for a door; real
/// lists have about a dozen, and the OpenTelemetry SDKs stop at 128.
pub const MAX_ATTRIBUTES: usize = 1 << 20;

/// In how many parts a message or a packed list may be given that has to be put together: 8 bytes each while that is done.
/// Encoders that do not pack give every number of a list as one part.
pub const MAX_PARTS: usize = 1 << 16;

/// Makes a payload canonical. Bytes that already are come back as the same buffer; legal protobuf that is not is
/// encoded anew; what cannot be decoded is an error that says where.
pub fn canonicalize(signal: Signal, payload: Bytes) -> Result<Canonical, Malformed> {
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(Malformed {
            offset: MAX_PAYLOAD_BYTES,
            what: "the payload is longer than 4 GiB",
        });
    }
    let request = schema::request(signal);
    match walk::walk(request, &payload) {
        Ok(items) => Ok(Canonical {
            payload,
            items,
            rewritten: false,
            repaired_text: 0,
            repaired_ids: 0,
            rejected: Vec::new(),
        }),
        Err(walk::Stop::Malformed(malformed)) => Err(malformed),
        Err(walk::Stop::Rewrite) => rewrite::rewrite(request, &payload),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::put_bytes;

    fn nested(number: u32, body: Vec<u8>) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, number, &body);
        out
    }

    /// A request with one span of these fields.
    fn span(fields: &[(u32, &[u8])]) -> Bytes {
        let mut span = Vec::new();
        for (number, bytes) in fields {
            put_bytes(&mut span, *number, bytes);
        }
        nested(1, nested(2, nested(2, span))).into()
    }

    const IDS: [(u32, &[u8]); 2] = [(1, &[1; 16]), (2, &[2; 8])];

    #[test]
    fn canonical_bytes_come_back_as_the_same_buffer() {
        let payload = span(&[IDS[0], IDS[1], (4, &[]), (5, "größe".as_bytes())]);
        let canonical = canonicalize(Signal::Traces, payload.clone()).expect("is legal");
        assert_eq!((canonical.items, canonical.rewritten), (1, false));
        assert_eq!(canonical.payload.as_ptr(), payload.as_ptr());
    }

    #[test]
    fn spans_without_valid_ids_are_rejected_by_reason() {
        for (fields, reason) in [
            (&[IDS[1]][..], RejectReason::TraceId),
            (&[IDS[0]], RejectReason::SpanId),
            (&[(1, &[0; 16]), IDS[1]], RejectReason::TraceId),
            (&[(1, &[1; 15]), IDS[1]], RejectReason::TraceId),
            (&[IDS[0], (2, &[0; 8])], RejectReason::SpanId),
            (&[IDS[0], (2, &[1; 16])], RejectReason::SpanId),
        ] {
            let canonical = canonicalize(Signal::Traces, span(fields)).expect("is legal");
            assert_eq!((canonical.items, canonical.rejected), (0, vec![(reason, 1)]));
        }
    }

    #[test]
    fn a_parent_of_the_wrong_length_is_removed() {
        let canonical = canonicalize(Signal::Traces, span(&[IDS[0], (4, &[3; 7]), IDS[1]])).expect("is legal");
        assert_eq!((canonical.items, canonical.repaired_ids), (1, 1));
        assert_eq!(canonical.payload, span(&IDS));
    }

    #[test]
    fn text_that_is_not_utf_8_is_repaired() {
        let canonical = canonicalize(Signal::Traces, span(&[IDS[0], IDS[1], (5, b"a\xffb")])).expect("is legal");
        assert_eq!((canonical.items, canonical.repaired_text), (1, 1));
        assert_eq!(canonical.payload, span(&[IDS[0], IDS[1], (5, "a\u{fffd}b".as_bytes())]));
    }

    #[test]
    fn keys_that_become_equal_by_repair_are_one_key() {
        let (first, second) = (nested(1, b"a\xff".to_vec()), nested(1, b"a\xfe".to_vec()));
        let payload = span(&[IDS[0], IDS[1], (9, &first), (9, &second)]);
        let canonical = canonicalize(Signal::Traces, payload).expect("is legal");
        let key = nested(1, "a\u{fffd}".into());
        assert_eq!(canonical.payload, span(&[IDS[0], IDS[1], (9, &key)]));
    }

    fn pair(key: u32, value: &str) -> Vec<u8> {
        [nested(1, key.to_string().into()), nested(2, nested(1, value.into()))].concat()
    }

    fn with_attributes(pairs: &[Vec<u8>]) -> Bytes {
        let attributes = pairs.iter().map(|pair| (9, pair.as_slice()));
        span(&IDS.into_iter().chain(attributes).collect::<Vec<_>>())
    }

    #[test]
    fn a_million_attributes_keep_the_last_of_each_key() {
        let mut pairs: Vec<Vec<u8>> = (0..1_000_000).map(|key| pair(key, "first")).collect();
        let distinct = canonicalize(Signal::Traces, with_attributes(&pairs)).expect("is legal");
        assert!(!distinct.rewritten);
        pairs.push(pair(70_000, "last"));
        let canonical = canonicalize(Signal::Traces, with_attributes(&pairs)).expect("is legal");
        pairs.remove(70_000);
        assert_eq!(canonical.payload, with_attributes(&pairs));
        assert!(
            !canonicalize(Signal::Traces, canonical.payload)
                .expect("is legal")
                .rewritten
        );
    }

    #[test]
    fn more_attributes_than_the_bound_are_refused_whether_they_repeat_or_not() {
        let over = MAX_ATTRIBUTES as u32 + 1;
        for keys in [(0..over).collect::<Vec<_>>(), vec![7; MAX_ATTRIBUTES + 1]] {
            let pairs: Vec<Vec<u8>> = keys.into_iter().map(|key| pair(key, "v")).collect();
            let payload = with_attributes(&pairs);
            let last = payload.len() - pairs.last().expect("there are some").len();
            let error = canonicalize(Signal::Traces, payload).expect_err("is too many");
            assert_eq!((error.offset, error.what), (last, walk::TOO_MANY_ATTRIBUTES));
        }
        assert!(walk::TOO_MANY_ATTRIBUTES.contains(&MAX_ATTRIBUTES.to_string()));
    }

    #[test]
    fn a_hundred_keys_twice_in_each_of_two_thousand_spans() {
        let once: Vec<Vec<u8>> = (0..100).map(|key| pair(key, "")).collect();
        let twice: Vec<Vec<u8>> = once.iter().chain(&once).cloned().collect();
        let repeat = |span: &[u8]| {
            // Around the span lie its resource and its scope, with lengths of their own.
            let span = &span[span
                .windows(2)
                .position(|w| w == [0x0a, 16])
                .expect("begins with its id")..];
            let one = nested(2, span.to_vec());
            Bytes::from(nested(1, nested(2, one.repeat(2_000))))
        };
        let canonical = canonicalize(Signal::Traces, repeat(&with_attributes(&twice))).expect("is legal");
        assert_eq!((canonical.items, canonical.rewritten), (2_000, true));
        assert!(canonical.payload == repeat(&with_attributes(&once)));
    }

    #[test]
    fn a_message_in_more_parts_than_the_bound_is_refused() {
        let status = |parts: usize| {
            let part: (u32, &[u8]) = (15, &[0x18, 1]);
            let fields: Vec<(u32, &[u8])> = IDS.into_iter().chain(std::iter::repeat_n(part, parts)).collect();
            canonicalize(Signal::Traces, span(&fields))
        };
        assert_eq!(
            status(MAX_PARTS).expect("is legal").payload,
            status(1).expect("is legal").payload
        );
        assert_eq!(
            status(MAX_PARTS + 1).expect_err("is too many").what,
            walk::TOO_MANY_PARTS
        );
        assert!(walk::TOO_MANY_PARTS.contains(&MAX_PARTS.to_string()));
    }

    #[test]
    fn values_may_nest_as_deep_as_the_bound_and_no_deeper() {
        let value = |levels: u32| {
            let innermost = nested(1, b"x".to_vec());
            (1..levels).fold(innermost, |value, _| nested(5, nested(1, value)))
        };
        let payload = |levels| span(&[IDS[0], IDS[1], (9, &nested(2, value(levels)))]);
        assert!(
            !canonicalize(Signal::Traces, payload(MAX_VALUE_DEPTH))
                .expect("is legal")
                .rewritten
        );
        let map = |levels: u32| {
            let innermost = nested(1, b"x".to_vec());
            (1..levels).fold(innermost, |value, _| {
                nested(6, nested(1, [nested(1, b"k".to_vec()), nested(2, value)].concat()))
            })
        };
        let payload = |levels| span(&[IDS[0], IDS[1], (9, &nested(2, map(levels)))]);
        assert!(
            !canonicalize(Signal::Traces, payload(MAX_VALUE_DEPTH))
                .expect("is legal")
                .rewritten
        );
        let error = canonicalize(Signal::Traces, payload(MAX_VALUE_DEPTH + 1)).expect_err("is too deep");
        assert_eq!(error.what, "values nest deeper than 32 levels");
        for spoil in [&[][..], &[(5, "twice".as_bytes())]] {
            let deep = nested(2, value(MAX_VALUE_DEPTH + 1));
            let fields = [&IDS[..], &[(5, &b"once"[..]), (9, &deep)], spoil].concat();
            let error = canonicalize(Signal::Traces, span(&fields)).expect_err("is too deep");
            assert_eq!(error.what, "values nest deeper than 32 levels");
        }
    }

    #[test]
    fn malformed_bytes_say_where() {
        let check = |payload: &[u8], offset, what: &str| {
            let error = canonicalize(Signal::Logs, Bytes::copy_from_slice(payload)).expect_err("is malformed");
            assert_eq!((error.offset, error.what), (offset, what), "{payload:?}");
        };
        check(&[0x0a, 2, 0x12, 1], 2, "a length reaches beyond the end of its message");
        check(&[0x0a, 0, 0x0a], 2, "a length reaches beyond the end of its message");
        check(
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            0,
            "a length reaches beyond the end of its message",
        );
        check(
            &[0x0a, 0, 0x08, 1],
            2,
            "a field has another wire type than OTLP gives it",
        );
        check(&[0xa3, 1, 0xa4, 1], 0, "groups are not part of OTLP");
        check(&[0xa7, 1], 0, "a tag has an unknown wire type");
        check(&[0x00, 1], 0, "a tag has no valid field number");
        check(&[0x80; 11], 0, "a tag is cut short or too long");
        check(b"GET / HTTP/1.1\r\n", 0, "a tag has an unknown wire type");
    }

    #[test]
    fn fields_that_otlp_does_not_define_are_kept() {
        let payload = span(&[IDS[0], IDS[1], (77, b"new"), (5, b"a"), (1000, b"newer"), (5, b"b")]);
        let canonical = canonicalize(Signal::Traces, payload).expect("is legal");
        assert_eq!(
            canonical.payload,
            span(&[IDS[0], IDS[1], (77, b"new"), (1000, b"newer"), (5, b"b")])
        );
    }
}
