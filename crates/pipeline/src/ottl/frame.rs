//! Why: where a statement stands: the item, what is around it, and how each path is read from and written to their encoded bytes. A message that a
//! statement changes is written anew into a buffer, and the next statement works on that; a message that no statement changes is never copied.

use std::borrow::Cow;

use model::edit::message::{body, field, set_field};
use model::view::{AnyValue, List, View};
use model::wire::{self, put_bytes, put_fixed32, put_fixed64, put_tag, put_varint};

use super::paths::{SPAN_KINDS, What};
use super::value::{Pairs, Value, shallow_enough};
use super::{Fault, MAX_GROWTH_BYTES};

/// Which message a path is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Resource = 0,
    Scope = 1,
    /// The span around an event, the metric around a data point.
    Outer = 2,
    /// What the statement is about, below resource and scope.
    Item = 3,
    Cache = 4,
}

const PARTS: usize = 5;

#[derive(Debug, Default)]
struct Slot<'a> {
    source: &'a [u8],
    changed: Vec<u8>,
    is_changed: bool,
}

impl Slot<'_> {
    fn bytes(&self) -> &[u8] {
        if self.is_changed { &self.changed } else { self.source }
    }
}

/// The messages that statements see. One is kept for a whole batch, for its buffers.
#[derive(Debug, Default)]
pub struct Frame<'a> {
    slots: [Slot<'a>; PARTS],
    /// The groups around the resource and the scope, which hold their schema URLs.
    groups: [&'a [u8]; 2],
    /// The number of the field around the data point, which tells its kind.
    data: u32,
    event_index: i64,
    spare: Vec<u8>,
    /// How many bytes statements have added, over the whole batch and for this item.
    grown: usize,
}

impl<'a> Frame<'a> {
    /// Puts a message in its place, unchanged.
    pub fn put(&mut self, part: Part, message: &'a [u8]) {
        let slot = &mut self.slots[part as usize];
        slot.source = message;
        slot.is_changed = false;
    }

    /// The encoded group around a resource or scope.
    pub fn put_group(&mut self, part: Part, group: &'a [u8]) {
        self.groups[usize::from(part == Part::Scope)] = group;
    }

    /// The kind of data point that comes, or the place of the event.
    pub fn put_place(&mut self, data: u32, index: i64) {
        self.data = data;
        self.event_index = index;
    }

    pub fn bytes(&self, part: Part) -> &[u8] {
        self.slots[part as usize].bytes()
    }

    /// The message as it came.
    pub fn source(&self, part: Part) -> &'a [u8] {
        self.slots[part as usize].source
    }

    /// The message, if it changed.
    pub fn changed(&self, part: Part) -> Option<&[u8]> {
        let slot = &self.slots[part as usize];
        (slot.is_changed && slot.changed != slot.source).then_some(&slot.changed[..])
    }

    /// Has `write` write a message anew.
    pub fn rewrite(&mut self, part: Part, write: impl FnOnce(&[u8], &mut Vec<u8>)) -> Result<(), Fault> {
        let slot = &mut self.slots[part as usize];
        self.spare.clear();
        write(slot.bytes(), &mut self.spare);
        let grown = self.spare.len().saturating_sub(slot.bytes().len());
        if self.spare.len() > slot.source.len().saturating_add(MAX_GROWTH_BYTES)
            || self.grown + grown > super::MAX_BATCH_GROWTH_BYTES
        {
            return Err(Fault::from(
                "the statement would make it larger than the bound on what statements may add",
            ));
        }
        self.grown += grown;
        std::mem::swap(&mut slot.changed, &mut self.spare);
        slot.is_changed = true;
        Ok(())
    }

    fn point_attributes(&self) -> u32 {
        match self.data {
            9 => 9,
            10 => 1,
            _ => 7,
        }
    }

    /// The number of the field whose pairs a path without keys leads to.
    pub fn pairs_field(&self, what: What) -> Option<u32> {
        match what {
            What::Attributes(number) => Some(number),
            What::PointAttributes => Some(self.point_attributes()),
            What::Cache => Some(1),
            _ => None,
        }
    }

    /// What a path without keys leads to.
    pub fn get(&self, part: Part, what: What) -> Value<'_> {
        let message = self.bytes(part);
        let number = |number| field(message, number).map_or(0, |value| value.varint());
        let nanos = |number| field(message, number).map_or(0, |value| value.fixed64()) as i64;
        let double = |number: u32| match field(message, number) {
            Some(value) => Value::Double(f64::from_bits(value.fixed64())),
            None => Value::Nil,
        };
        let data = || DATA.into_iter().find(|(number, _)| field(message, *number).is_some());
        match what {
            What::Attributes(_) | What::PointAttributes | What::Cache => Value::Map(Pairs {
                stretch: Cow::Borrowed(message),
                number: self.pairs_field(what).unwrap_or_default(),
            }),
            What::Text(number) => text(body(message, number)),
            What::Enum(number_of) => Value::Int(i64::from(number(number_of) as i32)),
            What::Bool(number_of) => Value::Bool(number(number_of) != 0),
            What::Uint32(number_of) => Value::Int(i64::from(number(number_of) as u32)),
            What::Fixed32(number) => Value::Int(i64::from(field(message, number).map_or(0, |value| value.fixed32()))),
            What::Nanos(number) => Value::Int(nanos(number)),
            What::Time(number) => Value::Time(nanos(number)),
            What::Id(number, len, _) => Value::Bytes(Cow::Borrowed(id(message, number, len))),
            What::IdText(number, len, _) => match body(message, number) {
                [] => Value::Text(Cow::Borrowed("")),
                _ => crate::processors::actions::hex(id(message, number, len)).into(),
            },
            What::KindText | What::KindConstant => {
                let kind = SPAN_KINDS.get(number(6) as usize).unwrap_or(&SPAN_KINDS[0]);
                Value::Text(Cow::Borrowed(if what == What::KindText { kind.1 } else { kind.0 }))
            }
            What::StatusCode => {
                let code = field(body(message, 15), 3).map_or(0, |code| code.varint());
                Value::Int(i64::from(code as i32))
            }
            What::StatusMessage => text(body(body(message, 15), 2)),
            What::Body => AnyValue::read(body(message, 5)).into(),
            What::BodyText => match AnyValue::read(body(message, 5)).into() {
                Value::Nil => Value::Text(Cow::Borrowed("")),
                value => value.into_text().map_or(Value::Nil, Value::Text),
            },
            What::SchemaUrl => text(body(self.groups[usize::from(part == Part::Scope)], 3)),
            What::MetricType => Value::Int(data().map_or(0, |(_, kind)| kind)),
            What::Temporality => match data() {
                Some((number, kind)) if (2..=4).contains(&kind) => {
                    let found = field(body(message, number), 2).map_or(0, |value| value.varint());
                    Value::Int(i64::from(found as i32))
                }
                _ => Value::Nil,
            },
            What::Monotonic => match field(message, 7) {
                Some(sum) => Value::Bool(field(sum.bytes(), 3).is_some_and(|value| value.varint() != 0)),
                None => Value::Nil,
            },
            What::PointFlags => Value::Int(i64::from(number(self.flags_field()) as u32)),
            What::ValueInt => match self.is_number().then(|| field(message, 6)).flatten() {
                Some(value) => Value::Int(value.fixed64() as i64),
                None => Value::Nil,
            },
            What::ValueDouble => match self.is_number() {
                true => double(4),
                false => Value::Nil,
            },
            What::Count => match self.is_number() {
                true => Value::Nil,
                false => Value::Int(nanos(4)),
            },
            What::Sum => match (self.is_number(), double(5)) {
                (true, _) => Value::Nil,
                (false, Value::Nil) => Value::Double(0.0),
                (false, sum) => sum,
            },
            What::Min | What::Max => match self.extreme_field(what) {
                Some(number) => double(number),
                None => Value::Nil,
            },
            What::Scale if self.data == 10 => {
                let raw = number(6) as u32;
                Value::Int(i64::from((raw >> 1) as i32 ^ -((raw & 1) as i32)))
            }
            What::ZeroCount if self.data == 10 => Value::Int(nanos(7)),
            What::BucketCounts if self.data == 9 => list(body(message, 6), |bits| AnyValue::Int(bits as i64)),
            What::Bounds if self.data == 9 => list(body(message, 7), |bits| AnyValue::Double(f64::from_bits(bits))),
            What::Scale | What::ZeroCount | What::BucketCounts | What::Bounds => Value::Nil,
            What::EventIndex => Value::Int(self.event_index),
        }
    }

    /// Whether the data point is one of a gauge or a sum.
    fn is_number(&self) -> bool {
        matches!(self.data, 5 | 7)
    }

    fn flags_field(&self) -> u32 {
        if matches!(self.data, 9 | 10) { 10 } else { 8 }
    }

    fn extreme_field(&self, what: What) -> Option<u32> {
        match self.data {
            9 => Some(11 + u32::from(what == What::Max)),
            10 => Some(12 + u32::from(what == What::Max)),
            _ => None,
        }
    }

    /// Sets what a path without keys leads to. `value` is encoded; `is_time` says that it is a time in nanoseconds.
    pub fn set(&mut self, part: Part, what: What, value: &[u8], is_time: bool) -> Result<(), Fault> {
        let view = AnyValue::read(value);
        let wrong = |wanted: &str| Fault::from(format!("{wanted} is needed here, not {}", Value::from(view).kind()));
        let int = || match view {
            AnyValue::Int(number) if !is_time => Ok(number),
            _ => Err(wrong("a whole number")),
        };
        let small =
            || int().and_then(|number| u32::try_from(number).map_err(|_| wrong("a whole number from 0 to 4294967295")));
        let double = || match view {
            AnyValue::Double(number) => Ok(number),
            AnyValue::Int(number) if !is_time => Ok(number as f64),
            _ => Err(wrong("a number")),
        };
        let str = || view.as_str().ok_or_else(|| wrong("a text"));
        match what {
            What::Attributes(_) | What::PointAttributes | What::Cache => {
                let AnyValue::KvList(pairs) = view else {
                    return Err(wrong("a map"));
                };
                if !shallow_enough(view, 0) {
                    return Err(too_deep());
                }
                let number = self.pairs_field(what).unwrap_or_default();
                self.rewrite(part, |message, out| {
                    set_field(message, &[number], out, |out| {
                        pairs.raw().for_each(|pair| put_bytes(out, number, pair));
                    });
                })
            }
            What::Text(number) => {
                let text = str()?;
                self.scalar(part, &[number], |out| put_bytes(out, number, text.as_bytes()))
            }
            What::Enum(number) => {
                let value = i32::try_from(int()?).map_err(|_| wrong("a small whole number"))?;
                self.scalar(part, &[number], |out| put_number(out, number, value as i64 as u64))
            }
            What::Bool(number) => {
                let AnyValue::Bool(value) = view else {
                    return Err(wrong("a boolean"));
                };
                self.scalar(part, &[number], |out| put_number(out, number, u64::from(value)))
            }
            What::Uint32(number) => {
                let value = small()?;
                self.scalar(part, &[number], |out| put_number(out, number, u64::from(value)))
            }
            What::Fixed32(number) => {
                let value = small()?;
                self.scalar(part, &[number], |out| put_fixed32(out, number, value))
            }
            What::Nanos(number) => {
                let value = int()?;
                self.scalar(part, &[number], |out| put_fixed64(out, number, value as u64))
            }
            What::Time(number) => {
                let AnyValue::Int(value) = view else {
                    return Err(wrong("a time"));
                };
                if !is_time {
                    return Err(wrong("a time"));
                }
                self.scalar(part, &[number], |out| put_fixed64(out, number, value as u64))
            }
            What::Id(number, len, needed) => {
                let AnyValue::Bytes(bytes) = view else {
                    return Err(wrong("bytes"));
                };
                self.set_id(part, number, len, needed, bytes)
            }
            What::IdText(number, len, needed) => {
                let bytes = from_hex(str()?).ok_or_else(|| Fault::from("the text is not hexadecimal"))?;
                self.set_id(part, number, len, needed, &bytes)
            }
            What::KindText => {
                let text = str()?;
                let known = SPAN_KINDS.iter().position(|(_, name)| name.eq_ignore_ascii_case(text));
                let kind = known.ok_or_else(|| Fault::from(format!("`{text}` is no kind of span")))?;
                self.scalar(part, &[6], |out| put_number(out, 6, kind as u64))
            }
            What::StatusCode => {
                let code = i32::try_from(int()?).map_err(|_| wrong("a small whole number"))?;
                self.nested(part, 15, &[3], |out| put_number(out, 3, code as i64 as u64))
            }
            What::StatusMessage => {
                let text = str()?;
                self.nested(part, 15, &[2], |out| put_bytes(out, 2, text.as_bytes()))
            }
            What::Body => {
                if is_time {
                    return Err(wrong("a value that can be kept"));
                }
                if !shallow_enough(view, 0) {
                    return Err(too_deep());
                }
                self.rewrite(part, |message, out| {
                    set_field(message, &[5], out, |out| put_bytes(out, 5, value));
                })
            }
            What::Temporality => {
                let value = i32::try_from(int()?).map_err(|_| wrong("a small whole number"))?;
                let held = DATA
                    .into_iter()
                    .find(|(number, kind)| (2..=4).contains(kind) && field(self.bytes(part), *number).is_some());
                match held {
                    Some((number, _)) => self.nested(part, number, &[2], |out| put_number(out, 2, value as i64 as u64)),
                    None => Ok(()),
                }
            }
            What::Monotonic => {
                let AnyValue::Bool(value) = view else {
                    return Err(wrong("a boolean"));
                };
                if field(self.bytes(part), 7).is_none() {
                    return Ok(());
                }
                self.nested(part, 7, &[3], |out| put_number(out, 3, u64::from(value)))
            }
            What::PointFlags => {
                let (number, value) = (self.flags_field(), small()?);
                self.scalar(part, &[number], |out| put_number(out, number, u64::from(value)))
            }
            // A path that the kind of data point does not have is left alone, as the collector does.
            What::ValueInt | What::ValueDouble if !self.is_number() => Ok(()),
            What::Count | What::Sum if self.is_number() => Ok(()),
            What::Scale | What::ZeroCount if self.data != 10 => Ok(()),
            What::ValueInt => {
                let value = int()?;
                self.scalar(part, &[4, 6], |out| put_fixed64(out, 6, value as u64))
            }
            What::ValueDouble => {
                let value = double()?;
                self.scalar(part, &[4, 6], |out| put_fixed64(out, 4, value.to_bits()))
            }
            What::Count => {
                let value = int()?;
                self.scalar(part, &[4], |out| put_fixed64(out, 4, value as u64))
            }
            What::Sum => {
                let value = double()?;
                self.scalar(part, &[5], |out| put_fixed64(out, 5, value.to_bits()))
            }
            What::Min | What::Max => match self.extreme_field(what) {
                Some(number) => {
                    let value = double()?;
                    self.scalar(part, &[number], |out| put_fixed64(out, number, value.to_bits()))
                }
                None => Ok(()),
            },
            What::Scale => {
                let value = i32::try_from(int()?).map_err(|_| wrong("a small whole number"))?;
                let zigzag = (value << 1 ^ value >> 31) as u32;
                self.scalar(part, &[6], |out| put_number(out, 6, u64::from(zigzag)))
            }
            What::ZeroCount => {
                let value = int()?;
                self.scalar(part, &[7], |out| put_fixed64(out, 7, value as u64))
            }
            What::SchemaUrl
            | What::MetricType
            | What::EventIndex
            | What::KindConstant
            | What::BodyText
            | What::BucketCounts
            | What::Bounds => Err(Fault::from("this cannot be set")),
        }
    }

    fn scalar(&mut self, part: Part, numbers: &[u32], write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Fault> {
        self.rewrite(part, |message, out| set_field(message, numbers, out, write))
    }

    /// Sets a field of a message in the message.
    fn nested(
        &mut self,
        part: Part,
        outer: u32,
        numbers: &[u32],
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Fault> {
        self.rewrite(part, |message, out| {
            let inner = body(message, outer);
            set_field(message, &[outer], out, |out| {
                put_tag(out, outer, wire::BYTES);
                let open = wire::open_length(out, inner.len());
                set_field(inner, numbers, out, write);
                wire::close_length(out, open);
            });
        })
    }

    fn set_id(&mut self, part: Part, number: u32, len: usize, needed: bool, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.len() != len {
            return Err(Fault::from(format!("the id needs {len} bytes and has {}", bytes.len())));
        }
        let empty = bytes.iter().all(|byte| *byte == 0);
        if empty && needed {
            return Err(Fault::from("a span's id cannot be all zeros"));
        }
        self.scalar(part, &[number], |out| {
            if !empty {
                put_bytes(out, number, bytes);
            }
        })
    }
}

pub fn too_deep() -> Fault {
    Fault::from(format!(
        "the value would nest deeper than {} levels",
        model::canonical::MAX_VALUE_DEPTH
    ))
}

/// The fields that hold a metric's data, and the number of the constant for each.
const DATA: [(u32, i64); 5] = [(5, 1), (7, 2), (9, 3), (10, 4), (11, 5)];

fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_tag(out, number, wire::VARINT);
    put_varint(out, value);
}

fn text(bytes: &[u8]) -> Value<'_> {
    Value::Text(Cow::Borrowed(std::str::from_utf8(bytes).unwrap_or_default()))
}

/// An id as it stands, or zeros where there is none.
fn id(message: &[u8], number: u32, len: usize) -> &[u8] {
    const NONE: [u8; 16] = [0; 16];
    match body(message, number) {
        [] => &NONE[..len],
        id => id,
    }
}

/// Pairs of hexadecimal digits as bytes.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| (digit as char).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

/// A packed list of 64-bit numbers as a list of values.
fn list(packed: &[u8], value: impl Fn(u64) -> AnyValue<'static>) -> Value<'static> {
    let mut stretch = Vec::new();
    for bits in packed.as_chunks::<8>().0 {
        put_tag(&mut stretch, 1, wire::BYTES);
        let open = wire::open_length(&mut stretch, 11);
        model::edit::put_value(&mut stretch, value(u64::from_le_bytes(*bits)));
        wire::close_length(&mut stretch, open);
    }
    Value::List(Cow::Owned(stretch))
}

/// The pairs of a slot's list, wherever its field stands.
pub fn pairs_of(message: &[u8], number: u32) -> model::view::Attributes<'_> {
    List::new(message, number)
}
