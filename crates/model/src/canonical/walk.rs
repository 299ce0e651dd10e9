//! The fast path: one pass that proves a payload canonical, or stops at the first thing that is not.

use super::keys::{KeyIndex, TooMany};
use super::{MAX_VALUE_DEPTH, Malformed};
use crate::schema::{self, Action, Message, Role, STEPS};
use crate::view::is_ascii;
use crate::wire::{self, take, varint};

/// Keys of one list of attributes that are compared with each other directly; a longer list is sorted instead, so that
/// the cost stays linear but for a logarithm. Real lists have about a dozen.
const COMPARED_KEYS: usize = 64;
/// Keys held at a time over all lists that are open, a list within a list included.
const HELD_KEYS: usize = 256;

/// Why the walk ended early.
pub(super) enum Stop {
    /// Legal, as far as it was walked, but not canonical.
    Rewrite,
    Malformed(Malformed),
}

/// Counts the items of a canonical payload.
pub(super) fn walk(request: &'static Message, payload: &[u8]) -> Result<u32, Stop> {
    let mut walk = Walk::new(payload);
    walk.message(request, payload)?;
    Ok(walk.items)
}

/// The keys of one list of attributes, on top of `Walk::keys`.
struct KeyList {
    first: usize,
    /// One of 256 bits for each key: where it is off, the key is new.
    bits: [u64; 4],
    too_many: bool,
}

pub(super) struct Walk<'a> {
    /// Address of the payload's first byte, from which offsets are told.
    start: usize,
    items: u32,
    /// Values that are open around the current one.
    depth: u32,
    /// A stack of the keys seen so far in each open list.
    keys: [&'a [u8]; HELD_KEYS],
    held: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Walk {
            start: payload.as_ptr() as usize,
            items: 0,
            depth: 0,
            keys: [&[]; HELD_KEYS],
            held: 0,
        }
    }

    /// Whether one message of the payload, which lies in no value, is canonical.
    pub(super) fn is_canonical(&mut self, message: &'static Message, whole: &'a [u8]) -> Result<bool, Malformed> {
        (self.depth, self.held) = (0, 0);
        match self.message(message, whole) {
            Ok(()) => Ok(true),
            Err(Stop::Rewrite) => Ok(false),
            Err(Stop::Malformed(malformed)) => Err(malformed),
        }
    }

    fn message(&mut self, message: &'static Message, whole: &'a [u8]) -> Result<(), Stop> {
        let mut rest = whole;
        let mut seen = 0;
        let mut list = KeyList {
            first: self.held,
            bits: [0; 4],
            too_many: false,
        };
        while !rest.is_empty() {
            let at = rest;
            let tag = varint(&mut rest).ok_or_else(|| self.malformed(at, "a tag is cut short or too long"))?;
            let (number, wire_type) = (tag >> 3, (tag & 7) as u8);
            let Some(step) = message.steps.get(number as usize).filter(|_| number < STEPS as u64) else {
                self.unknown(tag, at, &mut rest)?;
                continue;
            };
            if wire_type != step.wire_type || step.action == Action::Unknown {
                self.unexpected(message, tag, at, &mut rest)?;
                continue;
            }
            if seen & step.conflicts != 0 {
                return Err(Stop::Rewrite);
            }
            seen |= step.sets;
            if wire_type != wire::BYTES {
                self.scalar(wire_type, at, &mut rest)?;
                continue;
            }
            let body = self.delimited(at, &mut rest)?;
            match step.action {
                Action::Text => self.text(body)?,
                Action::Attribute => {
                    let key = self.key_value(body)?;
                    self.hold_key(&mut list, key)?;
                    // Attributes come in runs; the rest of a run needs no look at the schema.
                    while rest.first() == at.first() && tag < 0x80 {
                        let at = rest;
                        rest = &rest[1..];
                        let body = self.delimited(at, &mut rest)?;
                        let key = self.key_value(body)?;
                        self.hold_key(&mut list, key)?;
                    }
                }
                Action::Child => match step.child {
                    Some(child) if child.role == Role::AnyValue => self.any_value(body)?,
                    Some(child) => self.message(child, body)?,
                    None => {}
                },
                Action::Id(len) if body.is_empty() || body.len() == usize::from(len) => {}
                Action::RequiredId(len) if body.len() == usize::from(len) && body.iter().any(|b| *b != 0) => {}
                Action::Id(_) | Action::RequiredId(_) => return Err(Stop::Rewrite),
                Action::PackedFixed64 if !body.len().is_multiple_of(8) => {
                    return Err(self.malformed(at, "packed 64-bit numbers are cut short"));
                }
                Action::PackedVarint => self.packed_varints(body)?,
                Action::Skip | Action::Unknown | Action::PackedFixed64 => {}
            }
        }
        self.held = list.first;
        if seen & message.required != message.required {
            return Err(Stop::Rewrite);
        }
        if list.too_many {
            self.all_keys(message, whole)?;
        }
        self.items += u32::from(message.role == Role::Item);
        Ok(())
    }

    /// The key of a pair. A copy of `message` for the two fields that most bytes lie in.
    fn key_value(&mut self, whole: &'a [u8]) -> Result<&'a [u8], Stop> {
        const KEY: u64 = 1 << 3 | wire::BYTES as u64;
        const VALUE: u64 = 2 << 3 | wire::BYTES as u64;
        if self.depth < MAX_VALUE_DEPTH
            && let Some((key, value)) = wire::plain_pair(whole)
        {
            match wire::plain_text(value) {
                // Tags and lengths are ASCII here, so that one look at all of the pair checks key and value.
                Some(_) if is_ascii(whole) => {}
                Some(text) => {
                    self.text(key)?;
                    self.text(text)?;
                }
                None => {
                    self.text(key)?;
                    self.any_value(value)?;
                }
            }
            return Ok(key);
        }
        let mut rest = whole;
        let mut key: Option<&[u8]> = None;
        let (mut has_value, mut has_index) = (false, false);
        while !rest.is_empty() {
            let at = rest;
            let tag = varint(&mut rest).ok_or_else(|| self.malformed(at, "a tag is cut short or too long"))?;
            let repeated = match tag {
                KEY => {
                    let body = self.delimited(at, &mut rest)?;
                    self.text(body)?;
                    key.replace(body).is_some()
                }
                VALUE => {
                    let body = self.delimited(at, &mut rest)?;
                    self.any_value(body)?;
                    std::mem::replace(&mut has_value, true)
                }
                _ => {
                    let known = tag == 3 << 3;
                    self.unexpected(&schema::KEY_VALUE, tag, at, &mut rest)?;
                    known && std::mem::replace(&mut has_index, true)
                }
            };
            if repeated {
                return Err(Stop::Rewrite);
            }
        }
        Ok(key.unwrap_or_default())
    }

    fn any_value(&mut self, whole: &'a [u8]) -> Result<(), Stop> {
        if self.depth == MAX_VALUE_DEPTH {
            return Err(self.malformed(whole, TOO_DEEP));
        }
        let mut rest = whole;
        let mut has_value = false;
        while !rest.is_empty() {
            let at = rest;
            let tag = varint(&mut rest).ok_or_else(|| self.malformed(at, "a tag is cut short or too long"))?;
            let number = tag >> 3;
            let Some(step) = schema::ANY_VALUE
                .steps
                .get(number as usize)
                .filter(|_| number < STEPS as u64)
            else {
                self.unknown(tag, at, &mut rest)?;
                continue;
            };
            let wire_type = (tag & 7) as u8;
            if wire_type != step.wire_type || step.action == Action::Unknown {
                self.unexpected(&schema::ANY_VALUE, tag, at, &mut rest)?;
                continue;
            }
            if std::mem::replace(&mut has_value, true) {
                return Err(Stop::Rewrite);
            }
            if wire_type != wire::BYTES {
                self.scalar(wire_type, at, &mut rest)?;
                continue;
            }
            let body = self.delimited(at, &mut rest)?;
            match (step.action, step.child) {
                (Action::Text, _) => self.text(body)?,
                (_, Some(child)) => {
                    self.depth += 1;
                    self.message(child, body)?;
                    self.depth -= 1;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A tag that is not what the schema expects at its number.
    #[cold]
    fn unexpected(&self, message: &'static Message, tag: u64, at: &'a [u8], rest: &mut &'a [u8]) -> Result<(), Stop> {
        if let Some(field) = message.field((tag >> 3) as u32).filter(|_| tag >> 3 < STEPS as u64) {
            let wire_type = (tag & 7) as u8;
            if field.rule == schema::Rule::Packed && wire_type == field.kind.wire_type() {
                return Err(Stop::Rewrite);
            }
            if wire_type != field.kind.wire_type() {
                return Err(self.malformed(at, "a field has another wire type than OTLP gives it"));
            }
        }
        self.unknown(tag, at, rest)
    }

    /// Steps over a field that OTLP does not define.
    #[cold]
    fn unknown(&self, tag: u64, at: &'a [u8], rest: &mut &'a [u8]) -> Result<(), Stop> {
        skip_unknown(tag, rest).map_err(|what| self.malformed(at, what))
    }

    #[inline(always)]
    fn scalar(&self, wire_type: u8, at: &'a [u8], rest: &mut &'a [u8]) -> Result<(), Stop> {
        let read = match wire_type {
            wire::VARINT => varint(rest).is_some(),
            wire::FIXED64 => take(rest, 8).is_some(),
            _ => take(rest, 4).is_some(),
        };
        if read {
            Ok(())
        } else {
            Err(self.malformed(at, "a number is cut short or too long"))
        }
    }

    #[inline(always)]
    fn delimited(&self, at: &'a [u8], rest: &mut &'a [u8]) -> Result<&'a [u8], Stop> {
        wire::delimited(rest).ok_or_else(|| self.malformed(at, CUT_LENGTH))
    }

    #[inline(always)]
    fn text(&self, text: &[u8]) -> Result<(), Stop> {
        if is_ascii(text) || simdutf8::basic::from_utf8(text).is_ok() {
            Ok(())
        } else {
            Err(Stop::Rewrite)
        }
    }

    fn packed_varints(&self, mut rest: &'a [u8]) -> Result<(), Stop> {
        while !rest.is_empty() {
            let at = rest;
            varint(&mut rest).ok_or_else(|| self.malformed(at, "a number is cut short or too long"))?;
        }
        Ok(())
    }

    /// Adds a key to a list.
    #[inline(always)]
    fn hold_key(&mut self, list: &mut KeyList, key: &'a [u8]) -> Result<(), Stop> {
        let hash = key_hash(key);
        let (word, bit) = ((hash >> 6 & 3) as usize, 1 << (hash & 63));
        if list.bits[word] & bit != 0 && self.keys[list.first..self.held].contains(&key) {
            return Err(Stop::Rewrite);
        }
        list.bits[word] |= bit;
        if self.held == HELD_KEYS || self.held - list.first == COMPARED_KEYS {
            list.too_many = true;
        } else {
            self.keys[self.held] = key;
            self.held += 1;
        }
        Ok(())
    }

    /// Looks at the keys of a whole list again, for lists too long to compare key by key.
    #[cold]
    fn all_keys(&self, message: &'static Message, whole: &[u8]) -> Result<(), Stop> {
        let mut index = KeyIndex::default();
        for (position, (number, payload)) in (0..).zip(wire::Fields::new(whole)) {
            if message
                .field(number)
                .is_some_and(|field| field.rule == schema::Rule::Map)
            {
                let pair = payload.bytes();
                let key = wire::Fields::new(pair).find(|(number, _)| *number == 1);
                index
                    .insert(key.map_or(&[], |(_, key)| key.bytes()), position)
                    .map_err(|TooMany| self.malformed(pair, TOO_MANY_ATTRIBUTES))?;
            }
        }
        if index.repeats() { Err(Stop::Rewrite) } else { Ok(()) }
    }

    #[cold]
    fn malformed(&self, at: &[u8], what: &'static str) -> Stop {
        Stop::Malformed(Malformed {
            offset: at.as_ptr() as usize - self.start,
            what,
        })
    }
}

pub(super) const TOO_DEEP: &str = "values nest deeper than 32 levels";
pub(super) const TOO_MANY_ATTRIBUTES: &str = "a list has more than 1048576 attributes";
pub(super) const TOO_MANY_PARTS: &str = "a field that may stand once is given in more than 65536 parts";
pub(super) const CUT_LENGTH: &str = "a length reaches beyond the end of its message";

/// Steps over the value of a field that OTLP does not define.
pub(super) fn skip_unknown(tag: u64, rest: &mut &[u8]) -> Result<(), &'static str> {
    if tag >> 3 == 0 || tag > u64::from(u32::MAX) {
        return Err("a tag has no valid field number");
    }
    let (read, what) = match (tag & 7) as u8 {
        wire::VARINT => (varint(rest).is_some(), "a number is cut short or too long"),
        wire::FIXED64 => (take(rest, 8).is_some(), "a number is cut short"),
        wire::FIXED32 => (take(rest, 4).is_some(), "a number is cut short"),
        wire::BYTES => (wire::delimited(rest).is_some(), CUT_LENGTH),
        3 | 4 => (false, "groups are not part of OTLP"),
        _ => (false, "a tag has an unknown wire type"),
    };
    if read { Ok(()) } else { Err(what) }
}

/// Eight bits that differ between most keys of a list, from its ends and its length.
#[inline(always)]
fn key_hash(key: &[u8]) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let ends = match (key.first_chunk::<8>(), key.last_chunk::<8>()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(32),
        _ => match (key.first_chunk::<4>(), key.last_chunk::<4>()) {
            (Some(first), Some(last)) => {
                u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
            }
            _ => key.iter().fold(0, |ends, byte| ends << 8 | u64::from(*byte)),
        },
    };
    (ends ^ key.len() as u64).wrapping_mul(SPREAD) >> 56
}
