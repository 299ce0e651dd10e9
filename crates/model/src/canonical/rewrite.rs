//! The slow path: encodes a payload anew from what protobuf says its bytes mean. Messages that were given in parts are
//! walked part after part rather than joined, so that nesting does not multiply the memory. Items that are canonical
//! are copied, so that one bad item in a thousand costs little more than its own share.

use std::borrow::Cow;

use bytes::Bytes;

use super::keys::{KeyIndex, TooMany};
use super::walk::{CUT_LENGTH, TOO_DEEP, TOO_MANY_ATTRIBUTES, TOO_MANY_PARTS, Walk, skip_unknown};
use super::{Canonical, MAX_PARTS, MAX_VALUE_DEPTH, Malformed, RejectReason};
use crate::schema::{Field, Kind, Message, Role, Rule, STEPS};
use crate::wire::{self, Fields};

/// Encodes a payload in canonical form.
pub(super) fn rewrite(request: &'static Message, payload: &[u8]) -> Result<Canonical, Malformed> {
    let mut rewriter = Rewriter {
        payload,
        walk: Walk::new(payload),
        keys: KeyIndex::default(),
        out: Vec::with_capacity(payload.len()),
        depth: 0,
        items: 0,
        repaired_text: 0,
        repaired_ids: 0,
        rejected: [0; REASONS.len()],
    };
    let whole = Part {
        start: 0,
        end: payload.len() as u32,
    };
    let survey = rewriter.survey(request, &[whole])?;
    rewriter.encode(request, &[whole], survey)?;
    let rejected = REASONS
        .into_iter()
        .zip(rewriter.rejected)
        .filter(|(_, count)| *count > 0)
        .collect();
    Ok(Canonical {
        payload: Bytes::from(rewriter.out),
        items: rewriter.items,
        rewritten: true,
        repaired_text: rewriter.repaired_text,
        repaired_ids: rewriter.repaired_ids,
        rejected,
    })
}

const REASONS: [RejectReason; 2] = [RejectReason::TraceId, RejectReason::SpanId];

/// A stretch of the payload; half the size of a slice, because a hostile payload has many.
#[derive(Clone, Copy)]
struct Part {
    start: u32,
    end: u32,
}

/// What a message says in the end, as positions of fields counted over all its parts.
struct Survey {
    /// The last position of each singular field, or `NEVER`.
    last: [u32; STEPS],
    /// The number that the oneof ended up with; 0 for none.
    one_of: usize,
    /// For each field of singular messages and packed numbers, its parts.
    parts: Vec<(usize, Vec<Part>)>,
    /// The positions of attributes that hold the last value of their key.
    kept: Vec<u32>,
    rejected: Option<RejectReason>,
}

const NEVER: u32 = u32::MAX;

struct Rewriter<'a> {
    payload: &'a [u8],
    /// Proves items and their attributes canonical, which most are even where one is not.
    walk: Walk<'a>,
    /// Of the list that is being surveyed.
    keys: KeyIndex,
    out: Vec<u8>,
    depth: u32,
    items: u32,
    repaired_text: u32,
    repaired_ids: u32,
    rejected: [u32; REASONS.len()],
}

/// One field as it stands in the payload.
struct Raw {
    number: usize,
    field: Option<&'static Field>,
    /// Tag and value.
    whole: Part,
    /// The value; of length-delimited fields, without the length.
    value: Part,
}

impl<'a> Rewriter<'a> {
    fn bytes(&self, part: Part) -> &'a [u8] {
        &self.payload[part.start as usize..part.end as usize]
    }

    /// Reads the field at `at` within a message that ends at `end`.
    fn field(&self, message: &'static Message, at: u32, end: u32) -> Result<Raw, Malformed> {
        let malformed = |what| Malformed {
            offset: at as usize,
            what,
        };
        let whole = self.bytes(Part { start: at, end });
        let offset = |rest: &[u8]| end - rest.len() as u32;
        let mut rest = whole;
        let tag = wire::varint(&mut rest).ok_or_else(|| malformed("a tag is cut short or too long"))?;
        let wire_type = (tag & 7) as u8;
        let field = message.field(u32::try_from(tag >> 3).unwrap_or(0));
        if let Some(field) = field {
            let packed = field.rule == Rule::Packed && wire_type == wire::BYTES;
            if wire_type != field.kind.wire_type() && !packed {
                return Err(malformed("a field has another wire type than OTLP gives it"));
            }
        }
        let mut start = offset(rest);
        if wire_type == wire::BYTES {
            let mut after_length = rest;
            let len = wire::varint(&mut after_length).ok_or_else(|| malformed(CUT_LENGTH))?;
            if len > after_length.len() as u64 {
                return Err(malformed(CUT_LENGTH));
            }
            start = offset(after_length);
        }
        skip_unknown(tag, &mut rest).map_err(malformed)?;
        let next = offset(rest);
        Ok(Raw {
            number: if field.is_some() { (tag >> 3) as usize } else { 0 },
            field,
            whole: Part { start: at, end: next },
            value: Part { start, end: next },
        })
    }

    /// Reads all parts of a message once, to learn which of its fields count.
    fn survey(&mut self, message: &'static Message, parts: &[Part]) -> Result<Survey, Malformed> {
        let mut survey = Survey {
            last: [NEVER; STEPS],
            one_of: 0,
            parts: Vec::new(),
            kept: Vec::new(),
            rejected: None,
        };
        let mut ids: [&[u8]; 3] = [&[]; 3];
        let mut position = 0;
        for part in parts {
            let mut at = part.start;
            while at < part.end {
                let raw = self.field(message, at, part.end)?;
                at = raw.whole.end;
                let Some(field) = raw.field else {
                    position += 1;
                    continue;
                };
                match field.rule {
                    Rule::Many => {}
                    Rule::Map => {
                        let key = self.key(raw.value);
                        self.keys
                            .insert(key.as_bytes(), position)
                            .map_err(|TooMany| self.malformed(raw.value, TOO_MANY_ATTRIBUTES))?;
                    }
                    Rule::OneOf => {
                        if survey.one_of != raw.number {
                            survey.parts.retain(|(number, _)| *number != survey.one_of);
                            survey.one_of = raw.number;
                        }
                        survey.note(field, &raw, position)?;
                    }
                    Rule::One | Rule::Leading | Rule::Packed => survey.note(field, &raw, position)?,
                    Rule::Required => {
                        survey.note(field, &raw, position)?;
                        if let Some(id) = ids.get_mut(raw.number) {
                            *id = self.bytes(raw.value);
                        }
                    }
                }
                position += 1;
            }
        }
        if message.required != 0 {
            let valid = |id: &[u8], len| id.len() == len && id.iter().any(|byte| *byte != 0);
            if !valid(ids[1], 16) {
                survey.rejected = Some(RejectReason::TraceId);
            } else if !valid(ids[2], 8) {
                survey.rejected = Some(RejectReason::SpanId);
            }
        }
        survey.kept = self.keys.last_positions();
        Ok(survey)
    }

    /// The key of a pair as it will read: the last one given, repaired. Bytes that cannot be decoded are reported when
    /// the pair is encoded.
    fn key(&self, pair: Part) -> Cow<'a, str> {
        let last = Fields::new(self.bytes(pair)).filter(|(number, _)| *number == 1).last();
        String::from_utf8_lossy(last.map_or(&[], |(_, key)| key.bytes()))
    }

    /// Writes a message whose survey is known.
    fn encode(&mut self, message: &'static Message, parts: &[Part], survey: Survey) -> Result<(), Malformed> {
        let whole = parts.first().copied().unwrap_or(Part { start: 0, end: 0 });
        for field in message.fields.iter().filter(|field| field.rule == Rule::Leading) {
            if survey.last[field.number as usize] != NEVER
                && let Kind::Message(child) = field.kind
            {
                self.child(field.number, child, survey.parts_of(field.number as usize), whole)?;
            }
        }
        let mut kept = survey.kept.iter().copied().peekable();
        let mut position = 0;
        for part in parts {
            let mut at = part.start;
            while at < part.end {
                let raw = self.field(message, at, part.end)?;
                at = raw.whole.end;
                let here = position;
                position += 1;
                let Some(field) = raw.field else {
                    self.copy(raw.whole);
                    continue;
                };
                let counts = match field.rule {
                    Rule::Leading => false,
                    Rule::Many => true,
                    Rule::Map => kept.next_if_eq(&here).is_some(),
                    Rule::OneOf => survey.one_of == raw.number && survey.last[raw.number] == here,
                    Rule::One | Rule::Required | Rule::Packed => survey.last[raw.number] == here,
                };
                if counts {
                    self.value(field, &raw, &survey)?;
                }
            }
        }
        self.items += u32::from(message.role == Role::Item);
        Ok(())
    }

    fn value(&mut self, field: &'static Field, raw: &Raw, survey: &Survey) -> Result<(), Malformed> {
        match field.kind {
            Kind::Message(child) if matches!(field.rule, Rule::Many | Rule::Map) => {
                self.child(field.number, child, &[raw.value], raw.value)
            }
            Kind::Message(child) => self.child(field.number, child, survey.parts_of(raw.number), raw.value),
            Kind::Text => {
                let bytes = self.bytes(raw.value);
                match String::from_utf8_lossy(bytes) {
                    Cow::Borrowed(_) => self.copy(raw.whole),
                    Cow::Owned(repaired) => {
                        self.repaired_text += 1;
                        wire::put_bytes(&mut self.out, field.number, repaired.as_bytes());
                    }
                }
                Ok(())
            }
            Kind::TraceId | Kind::SpanId => {
                let len = raw.value.end - raw.value.start;
                if len == 0 || len == if matches!(field.kind, Kind::TraceId) { 16 } else { 8 } {
                    self.copy(raw.whole);
                } else {
                    self.repaired_ids += 1;
                }
                Ok(())
            }
            _ if field.rule == Rule::Packed => self.packed(field, survey.parts_of(raw.number)),
            _ => {
                self.copy(raw.whole);
                Ok(())
            }
        }
    }

    /// Writes all the numbers of a packed field; a part is one packed run or, with its tag, one number.
    fn packed(&mut self, field: &'static Field, parts: &[Part]) -> Result<(), Malformed> {
        let expected = parts.iter().map(|part| (part.end - part.start) as usize).sum();
        wire::put_tag(&mut self.out, field.number, wire::BYTES);
        let open = wire::open_length(&mut self.out, expected);
        for part in parts {
            let mut rest = self.bytes(*part);
            if field.kind.wire_type() == wire::FIXED64 {
                if !rest.len().is_multiple_of(8) {
                    return Err(self.malformed(*part, "packed 64-bit numbers are cut short"));
                }
            } else {
                while !rest.is_empty() {
                    if wire::varint(&mut rest).is_none() {
                        return Err(self.malformed(*part, "a number is cut short or too long"));
                    }
                }
            }
            self.copy(*part);
        }
        wire::close_length(&mut self.out, open);
        Ok(())
    }

    fn child(&mut self, number: u32, child: &'static Message, parts: &[Part], at: Part) -> Result<(), Malformed> {
        let is_value = child.role == Role::AnyValue;
        if is_value && self.depth == MAX_VALUE_DEPTH {
            return Err(self.malformed(at, TOO_DEEP));
        }
        // Attributes within values are not tried one by one: proving every level anew would cost their depth squared.
        if let [part] = parts
            && (child.role == Role::Item || child.role == Role::KeyValue && self.depth == 0)
        {
            let bytes = self.bytes(*part);
            if self.walk.is_canonical(child, bytes)? {
                wire::put_bytes(&mut self.out, number, bytes);
                self.items += u32::from(child.role == Role::Item);
                return Ok(());
            }
        }
        let survey = self.survey(child, parts)?;
        if let Some(reason) = survey.rejected {
            self.rejected[reason as usize] += 1;
            return Ok(());
        }
        self.depth += u32::from(is_value);
        let expected = parts.iter().map(|part| (part.end - part.start) as usize).sum();
        wire::put_tag(&mut self.out, number, wire::BYTES);
        let open = wire::open_length(&mut self.out, expected);
        self.encode(child, parts, survey)?;
        wire::close_length(&mut self.out, open);
        self.depth -= u32::from(is_value);
        Ok(())
    }

    fn copy(&mut self, part: Part) {
        self.out
            .extend_from_slice(&self.payload[part.start as usize..part.end as usize]);
    }

    fn malformed(&self, at: Part, what: &'static str) -> Malformed {
        Malformed {
            offset: at.start as usize,
            what,
        }
    }
}

impl Survey {
    fn note(&mut self, field: &'static Field, raw: &Raw, position: u32) -> Result<(), Malformed> {
        self.last[raw.number] = position;
        if !matches!(field.kind, Kind::Message(_)) && field.rule != Rule::Packed {
            return Ok(());
        }
        let index = self
            .parts
            .iter()
            .position(|(number, _)| *number == raw.number)
            .unwrap_or_else(|| {
                self.parts.push((raw.number, Vec::new()));
                self.parts.len() - 1
            });
        // An empty part adds nothing to the message; that the field stands at all is in `last`.
        if raw.value.start < raw.value.end {
            let parts = &mut self.parts[index].1;
            if parts.len() == MAX_PARTS {
                return Err(Malformed {
                    offset: raw.whole.start as usize,
                    what: TOO_MANY_PARTS,
                });
            }
            parts.push(raw.value);
        }
        Ok(())
    }

    fn parts_of(&self, number: usize) -> &[Part] {
        self.parts
            .iter()
            .find(|(n, _)| *n == number)
            .map_or(&[], |(_, parts)| parts)
    }
}
