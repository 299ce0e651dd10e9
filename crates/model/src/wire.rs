//! Protobuf's wire format, as far as OTLP uses it: the smallest pieces that views, edits and the canonical walk share.

/// Wire types (protobuf encoding, "Message structure"). Groups, 3 and 4, are refused at the door.
pub const VARINT: u8 = 0;
pub const FIXED64: u8 = 1;
pub const BYTES: u8 = 2;
pub const FIXED32: u8 = 5;

/// Reads a varint of at most ten bytes and moves past it.
#[inline(always)]
pub fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        *bytes = rest;
        return Some(u64::from(first));
    }
    if let [second, rest @ ..] = rest
        && *second < 0x80
    {
        *bytes = rest;
        return Some(u64::from(first & 0x7f) | u64::from(*second) << 7);
    }
    long_varint(bytes)
}

fn long_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            // The tenth byte has room for one bit.
            if index == 9 && byte > 1 {
                return None;
            }
            *bytes = &bytes[index + 1..];
            return Some(value);
        }
    }
    None
}

/// Reads `len` bytes and moves past them.
#[inline(always)]
pub fn take<'a>(bytes: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let len = usize::try_from(len).ok()?;
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

/// Reads a length and that many bytes, and moves past both.
#[inline(always)]
pub fn delimited<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = varint(bytes)?;
    take(bytes, len)
}

#[inline(always)]
pub fn fixed64(bytes: &mut &[u8]) -> Option<u64> {
    let (value, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*value))
}

#[inline(always)]
pub fn fixed32(bytes: &mut &[u8]) -> Option<u32> {
    let (value, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*value))
}

/// The value of a field, by wire type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Payload<'a> {
    /// Reads the value that follows a tag of this wire type; `None` for groups and for bytes that end too early.
    #[inline(always)]
    pub fn read(wire_type: u8, bytes: &mut &'a [u8]) -> Option<Self> {
        match wire_type {
            VARINT => varint(bytes).map(Payload::Varint),
            FIXED64 => fixed64(bytes).map(Payload::Fixed64),
            BYTES => delimited(bytes).map(Payload::Bytes),
            FIXED32 => fixed32(bytes).map(Payload::Fixed32),
            _ => None,
        }
    }

    #[inline(always)]
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Payload::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    #[inline(always)]
    pub fn varint(self) -> u64 {
        match self {
            Payload::Varint(value) => value,
            _ => 0,
        }
    }

    #[inline(always)]
    pub fn fixed64(self) -> u64 {
        match self {
            Payload::Fixed64(value) => value,
            _ => 0,
        }
    }

    #[inline(always)]
    pub fn fixed32(self) -> u32 {
        match self {
            Payload::Fixed32(value) => value,
            _ => 0,
        }
    }
}

/// Walks the fields of one message: `(number, value)`. It ends early at bytes that are not protobuf, which canonical
/// payloads do not contain.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline(always)]
    pub fn new(message: &'a [u8]) -> Self {
        Fields { rest: message }
    }

    /// Steps over the next field if it is delimited and has this number, which must be below 16.
    #[inline(always)]
    pub(crate) fn next_if(&mut self, number: u32) -> Option<&'a [u8]> {
        let (tag, mut rest) = self.rest.split_first()?;
        if u32::from(*tag) != number << 3 | u32::from(BYTES) {
            return None;
        }
        let body = delimited(&mut rest)?;
        self.rest = rest;
        Some(body)
    }

    /// Steps over fields that have the same tag as the delimited one that begins at `first`.
    #[inline(always)]
    pub(crate) fn skip_run(&mut self, first: &[u8]) {
        let Some(tag) = first.first().filter(|tag| **tag < 0x80) else {
            return;
        };
        while let Some((next, mut rest)) = self.rest.split_first() {
            if next != tag || delimited(&mut rest).is_none() {
                return;
            }
            self.rest = rest;
        }
    }

    /// What has not been walked yet.
    #[inline(always)]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Payload<'a>);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let tag = varint(&mut self.rest)?;
        let payload = Payload::read((tag & 7) as u8, &mut self.rest)?;
        Some(((tag >> 3) as u32, payload))
    }
}

/// A field of this tag that is shorter than 128 bytes: what nearly all keys and values are. Returns it and what follows.
#[inline(always)]
fn short<const TAG: u8>(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match bytes {
        [tag, len, rest @ ..] if *tag == TAG && *len < 0x80 => rest.split_at_checked(usize::from(*len)),
        _ => None,
    }
}

/// The key and the value of a `KeyValue` that is encoded as nearly all are: both, short, in this order, nothing else.
#[inline(always)]
pub(crate) fn plain_pair(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let (key, rest) = short::<{ 1 << 3 | BYTES }>(pair)?;
    let (value, rest) = short::<{ 2 << 3 | BYTES }>(rest)?;
    rest.is_empty().then_some((key, value))
}

/// The text of an `AnyValue` that is a short text and nothing else.
#[inline(always)]
pub(crate) fn plain_text(value: &[u8]) -> Option<&[u8]> {
    let (text, rest) = short::<{ 1 << 3 | BYTES }>(value)?;
    rest.is_empty().then_some(text)
}

/// Bytes that a varint takes.
pub const fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// The fields of a message that nobody has looked at yet: a mistake is told as `None`, and is the last thing told.
pub fn strict_fields(mut message: &[u8]) -> impl Iterator<Item = Option<(u64, Payload<'_>)>> {
    std::iter::from_fn(move || {
        if message.is_empty() {
            return None;
        }
        let mut field = || {
            let tag = varint(&mut message)?;
            let payload = Payload::read((tag & 7) as u8, &mut message)?;
            (tag >> 3 > 0).then_some((tag >> 3, payload))
        };
        let field = field();
        if field.is_none() {
            message = &[];
        }
        Some(field)
    })
}

#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

#[inline]
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[inline]
pub fn put_fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    put_tag(out, number, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

#[inline]
pub fn put_fixed32(out: &mut Vec<u8>, number: u32, value: u32) {
    put_tag(out, number, FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a nested message that `body` writes, with its tag and length. `expected_len` is a guess: a right one (to
/// within the length of its varint) saves moving the body. An error takes back what was written.
pub fn put_message<E>(
    out: &mut Vec<u8>,
    number: u32,
    expected_len: usize,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    put_tag(out, number, BYTES);
    let open = open_length(out, expected_len);
    match body(out) {
        Ok(()) => {
            close_length(out, open);
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// Room for a length that is not known yet.
#[derive(Debug, Clone, Copy)]
pub struct OpenLength {
    at: usize,
    reserved: usize,
}

pub fn open_length(out: &mut Vec<u8>, expected_len: usize) -> OpenLength {
    let open = OpenLength {
        at: out.len(),
        reserved: varint_len(expected_len as u64),
    };
    out.resize(open.at + open.reserved, 0);
    open
}

/// Writes the length of everything after `open`; moves it if the guess was wrong.
pub fn close_length(out: &mut Vec<u8>, open: OpenLength) {
    let body = open.at + open.reserved;
    let len = out.len() - body;
    let needed = varint_len(len as u64);
    if needed > open.reserved {
        out.resize(out.len() + needed - open.reserved, 0);
    }
    if needed != open.reserved {
        out.copy_within(body..body + len, open.at + needed);
        out.truncate(open.at + needed + len);
    }
    let mut value = len as u64;
    for byte in &mut out[open.at..open.at + needed] {
        *byte = value as u8 | 0x80;
        value >>= 7;
    }
    out[open.at + needed - 1] &= 0x7f;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_there_and_back(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            let mut rest = &out[..];
            prop_assert_eq!(varint(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn a_wrong_guess_of_a_length_is_put_right(len in 0usize..40_000, guess in 0usize..40_000) {
            let mut out = vec![7];
            put_message(&mut out, 3, guess, |out| { out.resize(out.len() + len, 9); Ok::<(), ()>(()) }).unwrap();
            let mut plain = vec![7];
            put_bytes(&mut plain, 3, &vec![9; len]);
            prop_assert_eq!(out, plain);
        }
    }

    #[test]
    fn varints_that_are_too_long_are_refused() {
        assert_eq!(varint(&mut &[0x80; 12][..]), None);
        assert_eq!(
            varint(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2][..]),
            None
        );
        assert_eq!(
            varint(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1][..]),
            Some(u64::MAX)
        );
        assert_eq!(varint(&mut &[0x80, 0][..]), Some(0));
        assert_eq!(varint(&mut &[0x80][..]), None);
    }
}
