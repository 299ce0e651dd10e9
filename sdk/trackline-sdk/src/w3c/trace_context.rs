//! `traceparent` and `tracestate` as <https://www.w3.org/TR/trace-context-2/> defines them.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of a version 00 `traceparent`: 2 + 32 + 16 + 2 digits and three dashes.
const TRACEPARENT_BYTES: usize = 55;
/// The flags that have a meaning today: sampled (01) and random trace id (02). Others must not be passed on.
const KNOWN_FLAGS: u8 = 0x03;
/// Members of a `tracestate` list (§3.3.1.1 of the specification).
const MAX_MEMBERS: usize = 32;
/// Characters of a member's key and of its value.
const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 256;

/// The caller's span as its headers name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Trace that the request belongs to.
    pub trace_id: TraceId,
    /// The caller's span.
    pub span_id: SpanId,
    /// Flags with a known meaning: 01 sampled, 02 random trace id.
    pub flags: u8,
    /// The caller's `tracestate` in one line, without empty members and later duplicates.
    pub state: Option<String>,
}

pub(super) fn extract(headers: &HeaderMap) -> Option<Caller> {
    let mut lines = headers.get_all(TRACEPARENT).iter();
    let line = lines.next()?;
    if lines.next().is_some() {
        return None;
    }
    let (trace_id, span_id, flags) = parse_traceparent(line.as_bytes())?;
    Some(Caller {
        trace_id,
        span_id,
        flags,
        state: tracestate(headers),
    })
}

/// Reads one `traceparent` value: trace id, parent id and known flags.
pub fn parse_traceparent(value: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let value = trim_ows(value);
    if value.len() < TRACEPARENT_BYTES {
        return None;
    }
    let (head, rest) = value.split_at(TRACEPARENT_BYTES);
    if head[2] != b'-' || head[35] != b'-' || head[52] != b'-' {
        return None;
    }
    let version = lower_hex::<1>(&head[..2])?[0];
    match version {
        0xff => return None,
        0 if !rest.is_empty() => return None,
        // A later version may append fields, each behind a dash.
        _ if !rest.is_empty() && rest[0] != b'-' => return None,
        _ => {}
    }
    let trace_id = lower_hex::<16>(&head[3..35])?;
    let span_id = lower_hex::<8>(&head[36..52])?;
    let flags = lower_hex::<1>(&head[53..55])?[0];
    if trace_id == [0; 16] || span_id == [0; 8] {
        return None;
    }
    Some((
        TraceId::from_bytes(trace_id),
        SpanId::from_bytes(span_id),
        flags & KNOWN_FLAGS,
    ))
}

/// All `tracestate` headers as one list. Anything against the grammar discards the whole of it, as the specification
/// asks; the trace itself goes on.
fn tracestate(headers: &HeaderMap) -> Option<String> {
    let mut joined = String::new();
    let mut members = 0;
    for line in headers.get_all(TRACESTATE) {
        let line = line.to_str().ok()?;
        for member in line.split(',') {
            let member = member.trim_matches([' ', '\t']);
            if member.is_empty() {
                continue;
            }
            members += 1;
            let (key, value) = member.split_once('=')?;
            if members > MAX_MEMBERS || !is_key(key) || !is_value(value) {
                return None;
            }
            let seen = joined
                .split(',')
                .any(|earlier| earlier.split_once('=').is_some_and(|(k, _)| k == key));
            if seen {
                continue;
            }
            if !joined.is_empty() {
                joined.push(',');
            }
            joined.push_str(member);
        }
    }
    (!joined.is_empty()).then_some(joined)
}

fn is_key(key: &str) -> bool {
    let bytes = key.as_bytes();
    bytes.len() <= MAX_KEY
        && bytes
            .first()
            .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'*' | b'/' | b'@'))
}

fn is_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    (1..=MAX_VALUE).contains(&bytes.len())
        && bytes
            .iter()
            .all(|b| (0x20..=0x7e).contains(b) && !matches!(b, b',' | b'='))
        && bytes.last() != Some(&b' ')
}

fn lower_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0u8; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn trim_ows(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

pub(super) fn span_context(caller: &Caller) -> SpanContext {
    let state = caller.state.as_deref().and_then(|state| {
        let members = state.split(',').filter_map(|member| member.split_once('='));
        TraceState::from_key_value(members).ok()
    });
    SpanContext::new(
        caller.trace_id,
        caller.span_id,
        TraceFlags::new(caller.flags),
        true,
        state.unwrap_or_default(),
    )
}

pub(super) fn write(span: &SpanContext, state: Option<&str>, headers: &mut HeaderMap) {
    let mut line = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let filled = hex::encode_to_slice(span.trace_id().to_bytes(), &mut line[3..35])
        .and_then(|()| hex::encode_to_slice(span.span_id().to_bytes(), &mut line[36..52]))
        .and_then(|()| hex::encode_to_slice([span.trace_flags().to_u8() & KNOWN_FLAGS], &mut line[53..55]));
    debug_assert!(filled.is_ok(), "the places are as long as the ids");
    if let Ok(value) = HeaderValue::from_bytes(&line) {
        headers.insert(TRACEPARENT, value);
    }
    match state.map(HeaderValue::from_str) {
        Some(Ok(value)) => {
            headers.insert(TRACESTATE, value);
        }
        _ => {
            headers.remove(TRACESTATE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
            map.append(name, value);
        }
        map
    }

    #[test]
    fn traceparent() {
        let valid = |flags: &str, version: &str, rest: &str| format!("{version}-{TRACE}-{SPAN}-{flags}{rest}");
        for (line, flags) in [
            (valid("01", "00", ""), Some(1)),
            (valid("00", "00", ""), Some(0)),
            (valid("03", "00", ""), Some(3)),
            (valid("ff", "00", ""), Some(3)),
            (valid("01", "01", ""), Some(1)),
            (valid("01", "fe", "-more-1"), Some(1)),
            (valid("01", "cc", "-"), Some(1)),
            (format!(" \t{} \t", valid("01", "00", "")), Some(1)),
            // Version ff is forbidden; 00 has nothing behind its flags; later ones only behind a dash.
            (valid("01", "ff", ""), None),
            (valid("01", "00", "-more"), None),
            (valid("01", "00", "-"), None),
            (valid("01", "cc", ".more"), None),
            (valid("01", "cc", "0"), None),
            // Wrong lengths.
            (valid("01", "000", ""), None),
            (valid("01", "0", ""), None),
            (valid("1", "00", ""), None),
            (valid("001", "00", ""), None),
            (format!("00-{TRACE}0-{SPAN}-01"), None),
            (format!("00-{}-{SPAN}-01", &TRACE[1..]), None),
            (format!("00-{TRACE}-{SPAN}0-01"), None),
            (format!("00-{TRACE}-{}-01", &SPAN[1..]), None),
            // Digits that are none, capitals among them.
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
            (format!("00-{TRACE}-{}-01", SPAN.to_uppercase()), None),
            (valid("0A", "00", ""), None),
            (valid(".0", "00", ""), None),
            (valid("01", ".0", ""), None),
            (format!("00-.{}-{SPAN}-01", &TRACE[1..]), None),
            // The ids that mean "none".
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
            (format!("00_{TRACE}_{SPAN}_01"), None),
            (String::new(), None),
        ] {
            let found = extract(&headers(&[("traceparent", line.trim())]));
            assert_eq!(found.as_ref().map(|c| c.flags), flags, "{line:?}");
            assert_eq!(
                parse_traceparent(line.as_bytes()).map(|(.., flags)| flags),
                flags,
                "{line:?}"
            );
            if let Some(caller) = found {
                assert_eq!(caller.trace_id.to_string(), TRACE);
                assert_eq!(caller.span_id.to_string(), SPAN);
            }
        }
    }

    #[test]
    fn two_traceparents_are_none() {
        let line = format!("00-{TRACE}-{SPAN}-01");
        for second in [line.as_str(), "garbage"] {
            let map = headers(&[("traceparent", &line), ("traceparent", second)]);
            assert_eq!(extract(&map), None);
        }
        assert_eq!(extract(&headers(&[("trace-parent", &line)])), None);
    }

    #[test]
    fn tracestate_lists() {
        let many = |n: usize| (0..n).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
        let key_256 = "k".repeat(256);
        let key_257 = "k".repeat(257);
        let value_256 = "v".repeat(256);
        let value_257 = "v".repeat(257);
        let check = |lines: &[&str], expect: Option<&str>| {
            let mut map = headers(&[("traceparent", &format!("00-{TRACE}-{SPAN}-00"))]);
            for line in lines {
                let value = HeaderValue::from_bytes(line.as_bytes()).expect("a header value");
                map.append(TRACESTATE, value);
            }
            let caller = extract(&map).expect("the trace goes on whatever its state is");
            assert_eq!(caller.state.as_deref(), expect, "{lines:?}");
        };
        check(&[], None);
        check(&[""], None);
        check(&["a=1,b=2"], Some("a=1,b=2"));
        check(&["a=1", "b=2,c=3", "d=4"], Some("a=1,b=2,c=3,d=4"));
        check(&["a=1", "", "b=2"], Some("a=1,b=2"));
        check(&[" a=1 \t , \tb=2,,\t, c=3 "], Some("a=1,b=2,c=3"));
        check(&["a=1,a=2", "a=3,b=4"], Some("a=1,b=4"));
        check(&["a= x y"], Some("a= x y"));
        check(
            &["a=!\"#$%&'()*+-./:;<>?@[]^_`{|}~"],
            Some("a=!\"#$%&'()*+-./:;<>?@[]^_`{|}~"),
        );
        check(&["9a_-*/@z@=1"], Some("9a_-*/@z@=1"));
        check(
            &[&format!("{key_256}={value_256}")],
            Some(&format!("{key_256}={value_256}")),
        );
        check(&[&many(32)], Some(&many(32)));
        // Against the grammar: all of it goes.
        for bad in [
            "A=1", "a =1", "a.b=1", "@a=1", "_a=1", "=1", "a=", "a", "a=1=2", "a=\u{e9}",
        ] {
            check(&[bad], None);
            check(&["ok=1", bad], None);
        }
        check(&[&many(33)], None);
        check(&[&many(32), "one=more"], None);
        check(&["ok=1", &format!("{key_257}=1")], None);
        check(&["ok=1", &format!("a={value_257}")], None);
    }

    #[test]
    fn what_is_written_reads_back() {
        let caller = Caller {
            trace_id: TraceId::from_hex(TRACE).expect("hex"),
            span_id: SpanId::from_hex(SPAN).expect("hex"),
            flags: 3,
            state: Some("a=1,b@@c=2".to_owned()),
        };
        let context = caller.continue_in(&opentelemetry::Context::new());
        let mut map = headers(&[("tracestate", "old=1"), ("traceparent", "old")]);
        crate::w3c::inject(&context, &mut map);
        assert_eq!(extract(&map), Some(caller));
    }
}
