//! Takes a well-formed payload apart and puts it together in another legal way: fields repeated, reordered, unpacked,
//! messages given in parts, fields that OTLP does not define.

use model::schema::{Kind, Message, Rule};
use model::wire::{self, Fields, Payload};

use super::arbitrary::{BAD_BYTE, Source};

/// Scrambles `message`; in texts, `BAD_BYTE` becomes `bad`.
pub fn scramble(schema: &'static Message, message: &[u8], source: &mut Source<'_>, bad: &[u8]) -> Vec<u8> {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    for (number, payload) in Fields::new(message) {
        let field = schema.field(number).expect("generated messages have known fields");
        match (field.kind, payload) {
            (Kind::Message(child), Payload::Bytes(body)) => {
                let body = scramble(child, body, source, bad);
                if field.rule != Rule::Many && field.rule != Rule::Map && source.one_in(6) {
                    // In two parts, which merge.
                    let (first, second) = cut(&body, source);
                    fields.push(delimited(number, first));
                    fields.push(delimited(number, second));
                } else {
                    fields.push(delimited(number, &body));
                }
            }
            (Kind::Text, Payload::Bytes(text)) => {
                let text: Vec<u8> = text
                    .iter()
                    .flat_map(|byte| {
                        if *byte == BAD_BYTE as u8 {
                            bad.to_vec()
                        } else {
                            vec![*byte]
                        }
                    })
                    .collect();
                if field.rule == Rule::One && source.one_in(8) {
                    fields.push(delimited(number, b"overruled"));
                }
                fields.push(delimited(number, &text));
            }
            (_, Payload::Bytes(packed)) if field.rule == Rule::Packed && source.one_in(2) => {
                unpack(number, field.kind, packed, source, &mut fields);
            }
            (_, Payload::Bytes(bytes)) => {
                if matches!(field.rule, Rule::One | Rule::Required) && source.one_in(8) {
                    fields.push(delimited(number, &[7; 5]));
                }
                fields.push(delimited(number, bytes));
            }
            (_, scalar) => {
                if source.one_in(8) {
                    fields.push(encoded(number, add_one(scalar), false));
                }
                fields.push(encoded(number, scalar, source.one_in(8)));
            }
        }
    }
    if source.one_in(12) {
        fields.push(delimited(70, b"unknown"));
    }
    if source.one_in(12) {
        fields.push(encoded(1000, Payload::Varint(5), true));
    }
    if source.one_in(3) && !fields.is_empty() {
        for index in 0..fields.len() {
            let other = usize::from(source.byte()) % fields.len();
            fields.swap(index, other);
        }
    }
    fields.concat()
}

/// Cuts a message in two between fields.
fn cut<'a>(message: &'a [u8], source: &mut Source<'_>) -> (&'a [u8], &'a [u8]) {
    let mut fields = Fields::new(message);
    for _ in 0..source.below(8) {
        fields.next();
    }
    message.split_at(message.len() - fields.rest().len())
}

fn unpack(number: u32, kind: Kind, mut packed: &[u8], source: &mut Source<'_>, fields: &mut Vec<Vec<u8>>) {
    while !packed.is_empty() {
        let value = match kind {
            Kind::Uint64 => wire::varint(&mut packed).map(Payload::Varint),
            _ => wire::fixed64(&mut packed).map(Payload::Fixed64),
        };
        let value = value.expect("generated numbers are whole");
        if source.one_in(2) {
            fields.push(encoded(number, value, false));
        } else {
            fields.push(delimited(number, &encoded(number, value, false)[1..]));
        }
    }
}

fn add_one(scalar: Payload<'_>) -> Payload<'_> {
    match scalar {
        Payload::Varint(value) => Payload::Varint(value ^ 1),
        Payload::Fixed64(value) => Payload::Fixed64(value ^ 1),
        Payload::Fixed32(value) => Payload::Fixed32(value ^ 1),
        bytes => bytes,
    }
}

fn delimited(number: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_bytes(&mut out, number, body);
    out
}

/// A scalar with its tag; `long` spells a varint in more bytes than it needs.
fn encoded(number: u32, scalar: Payload<'_>, long: bool) -> Vec<u8> {
    let mut out = Vec::new();
    match scalar {
        Payload::Varint(value) => {
            wire::put_tag(&mut out, number, wire::VARINT);
            wire::put_varint(&mut out, value);
            if long && wire::varint_len(value) < 9 {
                *out.last_mut().expect("is not empty") |= 0x80;
                out.extend([0x80, 0]);
            }
        }
        Payload::Fixed64(value) => wire::put_fixed64(&mut out, number, value),
        Payload::Fixed32(value) => wire::put_fixed32(&mut out, number, value),
        Payload::Bytes(bytes) => wire::put_bytes(&mut out, number, bytes),
    }
    out
}
