//! Trace and span ids, and every form in which a person may paste one: an id that is read differently at two places
//! is an id that is not found.

use std::fmt;

use serde::{Serialize, Serializer};

/// The longest text `TraceId::parse` looks at, in bytes. The longest form it knows, a header line with a
/// `traceparent`, is under 80; whatever is longer is not an id, and an error must not repeat a pasted page.
const MAX_PASTED_BYTES: usize = 256;

/// A trace id: 128 bits, shown as 32 lower-case hex digits. It is the tracking ID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TraceId(pub [u8; 16]);

/// A span id: 64 bits, shown as 16 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SpanId(pub [u8; 8]);

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadId {
    #[error("an id is expected, but the text is empty")]
    Empty,
    #[error("the text is {0} bytes long, which no form of an id is")]
    TooLong(usize),
    #[error("{0:?} is not an id: expected {1}")]
    Form(String, &'static str),
    #[error("the id is all zeros, which means \"no id\"")]
    Zero,
}

const TRACE_FORMS: &str = "up to 32 hex digits, a UUID, a traceparent header or base64 of 16 bytes";

impl TraceId {
    /// All zeros mean that there is no id (W3C Trace Context).
    pub fn is_zero(&self) -> bool {
        u128::from_ne_bytes(self.0) == 0
    }

    /// Exactly 32 hex digits, in either case.
    pub fn from_hex(text: &str) -> Result<Self, BadId> {
        hex_digits(text)
            .map(TraceId)
            .ok_or_else(|| BadId::Form(shown(text), "32 hex digits"))
    }

    /// Exactly 16 bytes that are not all zero.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id = TraceId(bytes.try_into().ok()?);
        (!id.is_zero()).then_some(id)
    }

    /// Reads an id from whatever a person pastes: hex digits in either case, with or without `0x` (fewer than 32 are
    /// padded on the left), a dashed UUID, a `traceparent`, base64 of 16 bytes (either alphabet), or a line such as `X-Tracking-ID: …` around
    /// one of them. A text that is both hex and base64 is hex.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        if text.len() > MAX_PASTED_BYTES {
            return Err(BadId::TooLong(text.len()));
        }
        let value = text.rsplit_once(':').map_or(text, |(_, value)| value);
        let value = value.trim_matches(|c: char| c.is_whitespace() || "\"'`,;{}<>()[]".contains(c));
        if value.is_empty() {
            return Err(BadId::Empty);
        }
        let id = padded_hex(without_0x(value))
            .or_else(|| uuid(value))
            .or_else(|| traceparent(value))
            .or_else(|| base64(value))
            .ok_or_else(|| BadId::Form(shown(value), TRACE_FORMS))?;
        let id = TraceId(id);
        if id.is_zero() { Err(BadId::Zero) } else { Ok(id) }
    }
}

impl SpanId {
    /// All zeros mean that there is no id.
    pub fn is_zero(&self) -> bool {
        u64::from_ne_bytes(self.0) == 0
    }

    /// Exactly 16 hex digits, in either case.
    pub fn from_hex(text: &str) -> Result<Self, BadId> {
        hex_digits(text)
            .map(SpanId)
            .ok_or_else(|| BadId::Form(shown(text), "16 hex digits"))
    }

    /// Exactly 8 bytes that are not all zero.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id = SpanId(bytes.try_into().ok()?);
        (!id.is_zero()).then_some(id)
    }

    /// Hex digits in either case, with or without `0x`, fewer than 16 padded on the left; or base64 of 8 bytes.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        if text.len() > MAX_PASTED_BYTES {
            return Err(BadId::TooLong(text.len()));
        }
        let value = text.trim();
        if value.is_empty() {
            return Err(BadId::Empty);
        }
        let digits = without_0x(value);
        let short = || padded_hex(digits).filter(|_| digits.len() <= 16)?[8..].try_into().ok();
        let id: [u8; 8] = short()
            .or_else(|| base64(value))
            .ok_or_else(|| BadId::Form(shown(value), "up to 16 hex digits or base64 of 8 bytes"))?;
        let id = SpanId(id);
        if id.is_zero() { Err(BadId::Zero) } else { Ok(id) }
    }
}

/// Exactly `2 * N` hex digits.
fn hex_digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut id = [0; N];
    for (byte, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(id)
}

/// Debuggers and some loggers write numbers so.
fn without_0x(text: &str) -> &str {
    text.strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or(text)
}

fn padded_hex(text: &str) -> Option<[u8; 16]> {
    if text.is_empty() || text.len() > 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes())
}

/// `8-4-4-4-12` hex digits.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let mut groups = text.split('-');
    let mut digits = String::with_capacity(32);
    for length in [8, 4, 4, 4, 12] {
        let group = groups.next()?;
        if group.len() != length {
            return None;
        }
        digits.push_str(group);
    }
    if groups.next().is_some() {
        return None;
    }
    hex_digits(&digits)
}

/// `version-trace_id-parent_id-flags`; a later version may have more fields (W3C Trace Context, "Versioning").
fn traceparent(text: &str) -> Option<[u8; 16]> {
    let mut fields = text.split('-');
    let hex = |s: &str| s.bytes().all(|b| b.is_ascii_hexdigit());
    fields.next().filter(|v| v.len() == 2 && hex(v))?;
    let id = hex_digits(fields.next()?)?;
    fields.next().filter(|p| p.len() == 16 && hex(p))?;
    fields.next().filter(|f| f.len() == 2 && hex(f))?;
    Some(id)
}

/// Exactly `N` bytes in base64.
fn base64<const N: usize>(text: &str) -> Option<[u8; N]> {
    crate::base64::decode(text)?.try_into().ok()
}

/// What an error may repeat of a text that someone pasted.
fn shown(text: &str) -> String {
    const SHOWN_CHARS: usize = 64;
    text.chars().take(SHOWN_CHARS).collect()
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0u8; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    let text = &text[..bytes.len() * 2];
    f.pad(std::str::from_utf8(text).unwrap_or_default())
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Serialize for SpanId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: TraceId = TraceId([
        0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36,
    ]);

    #[test]
    fn every_form_a_person_pastes() {
        for text in [
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "4BF92F3577B34DA6A3CE929D0E0E4736",
            "  4bf92f3577b34da6a3ce929d0e0e4736\n",
            "\"4bf92f3577b34da6a3ce929d0e0e4736\",",
            "4bf92f35-77b3-4da6-a3ce-929d0e0e4736",
            "{4BF92F35-77B3-4DA6-A3CE-929D0E0E4736}",
            "urn:uuid:4bf92f35-77b3-4da6-a3ce-929d0e0e4736",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-later",
            "X-Tracking-ID: 4bf92f3577b34da6a3ce929d0e0e4736",
            "x-tracking-id:4bf92f35-77b3-4da6-a3ce-929d0e0e4736",
            "\"tracking_id\": \"4bf92f3577b34da6a3ce929d0e0e4736\"",
            "S/kvNXezTaajzpKdDg5HNg==",
            "S_kvNXezTaajzpKdDg5HNg",
            "0x4bf92f3577b34da6a3ce929d0e0e4736",
            "trace_id: 0X4BF92F3577B34DA6A3CE929D0E0E4736",
        ] {
            assert_eq!(TraceId::parse(text), Ok(ID), "{text}");
        }
        let short = TraceId::parse("aBc").expect("short ids are padded");
        assert_eq!(short.to_string(), "00000000000000000000000000000abc");
        assert_eq!(TraceId::parse("0xabc"), Ok(short));
        assert_eq!(
            SpanId::parse("0x00f067aa0ba902b7"),
            SpanId::from_hex("00f067aa0ba902b7")
        );
    }

    #[test]
    fn what_is_not_an_id_says_so() {
        assert_eq!(TraceId::parse(" "), Err(BadId::Empty));
        assert_eq!(TraceId::parse("X-Tracking-ID:"), Err(BadId::Empty));
        assert_eq!(TraceId::parse("00000000-0000-0000-0000-000000000000"), Err(BadId::Zero));
        assert_eq!(TraceId::parse(&"a".repeat(1000)), Err(BadId::TooLong(1000)));
        for text in [
            "no-trace",
            "4bf92f3577b34da6a3ce929d0e0e47361",
            "00-4bf9-00f0-01",
            "ä",
            "S/kvNXezTaajzpKdDg5HN===",
            "+1",
            "0x",
            "0x+1",
            "0x4bf92f35-77b3-4da6-a3ce-929d0e0e4736",
        ] {
            assert!(matches!(TraceId::parse(text), Err(BadId::Form(..))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn display_is_read_back(bytes: [u8; 16]) {
            let id = TraceId(bytes);
            prop_assume!(!id.is_zero());
            prop_assert_eq!(TraceId::parse(&id.to_string()), Ok(id));
            prop_assert_eq!(TraceId::from_hex(&id.to_string()), Ok(id));
            let half = SpanId(bytes[..8].try_into().unwrap());
            prop_assert_eq!(SpanId::from_hex(&half.to_string()), Ok(half));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = TraceId::parse(&text);
            let _ = SpanId::parse(&text);
        }
    }
}
