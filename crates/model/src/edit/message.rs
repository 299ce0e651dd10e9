//! Changes to one encoded message outside of a batch: the result is written to a buffer. A message that was canonical stays so, if what is put in is.

use super::layout::elements;
use crate::wire::{Fields, Payload, put_bytes};

/// Copies a message field by field. `each` is told the number and the value of every field; where it returns `true`, it has written what takes the
/// field's place (perhaps nothing), otherwise the field is copied.
pub fn map_fields<'a>(
    message: &'a [u8],
    out: &mut Vec<u8>,
    mut each: impl FnMut(u32, Payload<'a>, &mut Vec<u8>) -> bool,
) {
    let mut fields = Fields::new(message);
    loop {
        let before = fields.rest();
        let Some((number, payload)) = fields.next() else {
            // What does not decode is not ours to lose.
            out.extend_from_slice(before);
            return;
        };
        if !each(number, payload, out) {
            out.extend_from_slice(&before[..before.len() - fields.rest().len()]);
        }
    }
}

/// Gives the fields with these numbers (one, or the members of a oneof) one new value, which `write` appends with its tag: in the place of the first
/// of them, or at the end. A `write` that appends nothing removes them.
pub fn set_field(message: &[u8], numbers: &[u32], out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut write = Some(write);
    map_fields(message, out, |number, _, out| {
        let found = numbers.contains(&number);
        if let Some(write) = found.then(|| write.take()).flatten() {
            write(out);
        }
        found
    });
    if let Some(write) = write {
        write(out);
    }
}

/// Gives a key among the pairs in field `number` this encoded `AnyValue`: in the place of its old one, or at the end.
pub fn set_pair(message: &[u8], number: u32, key: &str, value: &[u8], out: &mut Vec<u8>) {
    let mut done = false;
    let write = |out: &mut Vec<u8>| {
        put_pair(out, number, key, value);
    };
    map_fields(message, out, |found, payload, out| {
        if found != number || key_of(payload.bytes()) != key.as_bytes() {
            return false;
        }
        done = true;
        write(out);
        true
    });
    if !done {
        write(out);
    }
}

/// Appends a pair with its tag and length.
pub fn put_pair(out: &mut Vec<u8>, number: u32, key: &str, value: &[u8]) {
    use crate::wire::{BYTES, close_length, open_length, put_tag};
    put_tag(out, number, BYTES);
    let open = open_length(out, key.len() + value.len() + 4);
    put_bytes(out, 1, key.as_bytes());
    put_bytes(out, 2, value);
    close_length(out, open);
}

/// The key of an encoded `KeyValue`.
pub fn key_of(pair: &[u8]) -> &[u8] {
    let key = Fields::new(pair).find(|(number, _)| *number == 1);
    key.map_or(&[], |(_, key)| key.bytes())
}

/// The encoded value of an encoded `KeyValue`.
pub fn value_of(pair: &[u8]) -> &[u8] {
    let value = Fields::new(pair).find(|(number, _)| *number == 2);
    value.map_or(&[], |(_, value)| value.bytes())
}

/// The first field of this number.
pub fn field(message: &[u8], number: u32) -> Option<Payload<'_>> {
    Fields::new(message)
        .find(|(found, _)| *found == number)
        .map(|(_, payload)| payload)
}

/// The body of the first length-delimited field of this number; empty if there is none.
pub fn body(message: &[u8], number: u32) -> &[u8] {
    let mut elements = elements(message).filter_map(|(_, element)| element);
    elements
        .find(|element| element.number == number)
        .map_or(&[], |element| element.body)
}
