//! Jaeger's `Batch` in Thrift's binary protocol, as senders of OpenTracing's time post it over HTTP.
//!
//! Nothing is allocated on the strength of a length: a list says how many elements it has, but only bytes that are there are read.
//!
//! Source: Apache Thrift, "Thrift Binary protocol encoding"; jaeger-idl `thrift/jaeger.thrift`.

use super::otlp::Output;
use super::span::{Log, Reference, Span, Tag, Value};
use super::{BadJaeger, MAX_ELEMENTS};

/// Types of Thrift's binary protocol.
const STOP: u8 = 0;
const BOOL: u8 = 2;
const I8: u8 = 3;
const DOUBLE: u8 = 4;
const I16: u8 = 6;
const I32: u8 = 8;
const I64: u8 = 10;
const BINARY: u8 = 11;
const STRUCT: u8 = 12;
const MAP: u8 = 13;
const SET: u8 = 14;
const LIST: u8 = 15;

/// Nesting of what is stepped over. Jaeger's own is four levels.
const MAX_DEPTH: u32 = 16;

/// Fields that a span must have, as bits: its three ids and when it started. Others that Thrift calls required have a sensible default.
const REQUIRED: u16 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 8;

const NANOS_PER_MICRO: u64 = 1_000;

/// `TagType`.
const TAG_DOUBLE: i32 = 1;
const TAG_BOOL: i32 = 2;
const TAG_LONG: i32 = 3;
const TAG_BINARY: i32 = 4;

/// Translates a `Batch` to an OTLP request, which is legal protobuf but not yet canonical.
pub fn from_thrift(message: &[u8]) -> Result<Vec<u8>, BadJaeger> {
    let mut reader = Reader { message, at: 0 };
    let (mut process, mut spans) = (None, None);
    // Where they are is found first: the process may stand behind the spans that it belongs to.
    while let Some((id, kind)) = reader.field()? {
        match (id, kind) {
            (1, STRUCT) => process = Some(reader),
            (2, LIST) => spans = Some(reader),
            _ => {}
        }
        reader.skip(kind, MAX_DEPTH)?;
    }
    if reader.at != message.len() {
        return Err(reader.bad("bytes follow the batch"));
    }
    let Some(mut process) = process else {
        return Err(reader.bad("the batch has no process"));
    };
    let mut out = Output::new(message.len());
    let mut tags = Vec::new();
    let mut name: &[u8] = &[];
    while let Some((id, kind)) = process.field()? {
        match (id, kind) {
            (1, BINARY) => name = process.bytes()?,
            (2, LIST) => {
                for _ in 0..process.list()? {
                    if tags.len() >= MAX_ELEMENTS {
                        return Err(BadJaeger::TooMany);
                    }
                    tags.push(process.tag()?);
                }
            }
            _ => process.skip(kind, MAX_DEPTH)?,
        }
    }
    out.resource(name, &tags);
    let Some(mut spans) = spans else {
        return Ok(out.finish());
    };
    let mut span = Span::default();
    for _ in 0..spans.list()? {
        spans.span(&mut span)?;
        out.span(&mut span);
    }
    Ok(out.finish())
}

/// A place in the message.
#[derive(Clone, Copy)]
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bad(&self, what: &'static str) -> BadJaeger {
        BadJaeger::Thrift { at: self.at, what }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], BadJaeger> {
        let rest = self.message.get(self.at..).unwrap_or_default();
        let taken = rest.get(..len).ok_or_else(|| self.bad("it is cut short"))?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadJaeger> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, BadJaeger> {
        Ok(self.array::<1>()?[0])
    }

    fn i32(&mut self) -> Result<i32, BadJaeger> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, BadJaeger> {
        self.array().map(i64::from_be_bytes)
    }

    fn length(&mut self) -> Result<usize, BadJaeger> {
        let length = self.i32()?;
        usize::try_from(length).map_err(|_| self.bad("a length is negative"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], BadJaeger> {
        let length = self.length()?;
        self.take(length)
    }

    /// The number and type of the next field; `None` at the end of the struct.
    fn field(&mut self) -> Result<Option<(i16, u8)>, BadJaeger> {
        match self.byte()? {
            STOP => Ok(None),
            kind => Ok(Some((i16::from_be_bytes(self.array()?), kind))),
        }
    }

    /// The number of structs in a list.
    fn list(&mut self) -> Result<usize, BadJaeger> {
        let kind = self.byte()?;
        let length = self.length()?;
        // An empty list may say any type.
        if kind != STRUCT && length > 0 {
            return Err(self.bad("a list holds something other than structs"));
        }
        Ok(length)
    }

    /// Steps over a value. Each takes at least a byte, so this ends with the message.
    fn skip(&mut self, kind: u8, depth: u32) -> Result<(), BadJaeger> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(self.bad("it is nested too deeply"));
        };
        match kind {
            BOOL | I8 => self.take(1).map(drop),
            I16 => self.take(2).map(drop),
            I32 => self.take(4).map(drop),
            DOUBLE | I64 => self.take(8).map(drop),
            BINARY => self.bytes().map(drop),
            STRUCT => {
                while let Some((_, kind)) = self.field()? {
                    self.skip(kind, depth)?;
                }
                Ok(())
            }
            LIST | SET => {
                let kind = self.byte()?;
                for _ in 0..self.length()? {
                    self.skip(kind, depth)?;
                }
                Ok(())
            }
            MAP => {
                let (key, value) = (self.byte()?, self.byte()?);
                for _ in 0..self.length()? {
                    self.skip(key, depth)?;
                    self.skip(value, depth)?;
                }
                Ok(())
            }
            _ => Err(self.bad("a type that Thrift does not have")),
        }
    }

    fn tag(&mut self) -> Result<Tag<'a>, BadJaeger> {
        let mut key = None;
        let mut kind = None;
        let (mut text, mut binary) = (&[][..], &[][..]);
        let (mut bool, mut long, mut double) = (false, 0, 0.0);
        while let Some(field) = self.field()? {
            match field {
                (1, BINARY) => key = Some(self.bytes()?),
                (2, I32) => kind = Some(self.i32()?),
                (3, BINARY) => text = self.bytes()?,
                (4, DOUBLE) => double = f64::from_be_bytes(self.array()?),
                (5, BOOL) => bool = self.byte()? != 0,
                (6, I64) => long = self.i64()?,
                (7, BINARY) => binary = self.bytes()?,
                (_, kind) => self.skip(kind, MAX_DEPTH)?,
            }
        }
        let (Some(key), Some(kind)) = (key, kind) else {
            return Err(self.bad("a tag has no key or no type"));
        };
        let value = match kind {
            TAG_DOUBLE => Value::Double(double),
            TAG_BOOL => Value::Bool(bool),
            TAG_LONG => Value::Int(long),
            TAG_BINARY => Value::Bytes(binary),
            _ => Value::Text(text),
        };
        Ok(Tag { key, value })
    }

    fn span(&mut self, span: &mut Span<'a>) -> Result<(), BadJaeger> {
        span.clear();
        let mut seen = 0u16;
        while let Some(field) = self.field()? {
            if let Ok(id @ 1..16) = u32::try_from(field.0) {
                seen |= 1 << id;
            }
            match field {
                (1, I64) => span.trace_id[8..].copy_from_slice(&self.array::<8>()?),
                (2, I64) => span.trace_id[..8].copy_from_slice(&self.array::<8>()?),
                (3, I64) => span.span_id = self.array()?,
                (4, I64) => span.parent_span_id = Some(self.array()?).filter(|id| *id != [0; 8]),
                (5, BINARY) => span.name = self.bytes()?,
                (6, LIST) => {
                    for _ in 0..self.list()? {
                        span.element()?;
                        span.references.push(self.reference()?);
                    }
                }
                (7, I32) => span.flags = self.i32()? as u32,
                (8, I64) => span.start_unix_nano = nanos(self.i64()?),
                (9, I64) => span.duration_nano = nanos(self.i64()?),
                (10, LIST) => {
                    for _ in 0..self.list()? {
                        span.element()?;
                        span.tags.push(self.tag()?);
                    }
                }
                (11, LIST) => {
                    for _ in 0..self.list()? {
                        self.log(span)?;
                    }
                }
                (_, kind) => self.skip(kind, MAX_DEPTH)?,
            }
        }
        if seen & REQUIRED != REQUIRED {
            return Err(self.bad("a span lacks one of its ids or its start"));
        }
        Ok(())
    }

    fn reference(&mut self) -> Result<Reference, BadJaeger> {
        let mut reference = Reference::default();
        while let Some(field) = self.field()? {
            match field {
                (1, I32) => reference.child_of = self.i32()? == 0,
                (2, I64) => reference.trace_id[8..].copy_from_slice(&self.array::<8>()?),
                (3, I64) => reference.trace_id[..8].copy_from_slice(&self.array::<8>()?),
                (4, I64) => reference.span_id = self.array()?,
                (_, kind) => self.skip(kind, MAX_DEPTH)?,
            }
        }
        Ok(reference)
    }

    fn log(&mut self, span: &mut Span<'a>) -> Result<(), BadJaeger> {
        span.element()?;
        let mut time_unix_nano = 0;
        while let Some(field) = self.field()? {
            match field {
                (1, I64) => time_unix_nano = nanos(self.i64()?),
                (2, LIST) => {
                    for _ in 0..self.list()? {
                        span.element()?;
                        span.fields.push(self.tag()?);
                    }
                }
                (_, kind) => self.skip(kind, MAX_DEPTH)?,
            }
        }
        span.logs.push(Log {
            time_unix_nano,
            fields_end: span.fields.len(),
        });
        Ok(())
    }
}

/// Microseconds; what is negative is 0.
fn nanos(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or(0).saturating_mul(NANOS_PER_MICRO)
}
