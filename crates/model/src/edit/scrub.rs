//! A walk over everything in a batch that may say too much: the attributes of every message that has some, the bodies of log records, and texts such as
//! the name of a span. It follows the schema's table, so that no place is forgotten.

use super::layout::{Element, elements};
use super::splice::Splices;
use crate::batch::Batch;
use crate::schema::{self, Message, Role, Rule};
use crate::view::text;
use crate::wire::{self, Fields, close_length, open_length, put_bytes, put_tag};

/// What shall become of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Keep,
    Remove,
    /// It gets the encoded `AnyValue` that was written.
    Replace,
}

/// What sees a batch and says what shall go. Owners are called as in OTLP: `Resource`, `InstrumentationScope`, `Span`, `Event`, `Link`, `LogRecord`,
/// `NumberDataPoint`, `Exemplar` and so on; owners lie in each other (an event in its span).
pub trait Scrub {
    /// The pairs that follow, up to the matching `leave`, are this owner's, except those of owners within.
    fn enter(&mut self, owner: &'static str) {
        let _ = owner;
    }

    /// An attribute and its encoded `AnyValue`.
    fn pair(&mut self, key: &str, value: &[u8], out: &mut Vec<u8>) -> Fate;

    /// The body of a log record, an encoded `AnyValue`. Returns whether another one was written.
    fn body(&mut self, value: &[u8], out: &mut Vec<u8>) -> bool;

    /// A text field of an owner. Returns whether another text was written, which must be UTF-8.
    fn text(&mut self, owner: &'static str, number: u32, text: &str, out: &mut Vec<u8>) -> bool {
        let _ = (owner, number, text, out);
        false
    }

    /// All of an owner was seen. It gets the pairs that are added here; their keys must be ones that it does not have.
    fn leave(&mut self, added: &mut Added) {
        let _ = added;
    }
}

/// Encoded pairs for the end of an owner.
#[derive(Debug, Default)]
pub struct Added {
    /// Field after field, each with the tag of the list of the owner at hand.
    bytes: Vec<u8>,
    number: u32,
}

impl Added {
    pub fn text(&mut self, key: &str, value: &str) {
        self.pair(key, |out| put_bytes(out, 1, value.as_bytes()));
    }

    pub fn int(&mut self, key: &str, value: i64) {
        self.pair(key, |out| {
            put_tag(out, 3, wire::VARINT);
            wire::put_varint(out, value as u64);
        });
    }

    /// A text field of the owner itself, which it must not have yet.
    pub fn field(&mut self, number: u32, text: &str) {
        put_bytes(&mut self.bytes, number, text.as_bytes());
    }

    fn pair(&mut self, key: &str, value: impl FnOnce(&mut Vec<u8>)) {
        put_tag(&mut self.bytes, self.number, wire::BYTES);
        let pair = open_length(&mut self.bytes, 0);
        put_bytes(&mut self.bytes, 1, key.as_bytes());
        put_tag(&mut self.bytes, 2, wire::BYTES);
        let inner = open_length(&mut self.bytes, 0);
        value(&mut self.bytes);
        close_length(&mut self.bytes, inner);
        close_length(&mut self.bytes, pair);
    }
}

/// Walks a batch and makes the changes that `scrub` wants, in one copy. Where nothing changes, the batch comes back as it was, wire form included.
pub fn scrub(batch: &Batch, scrub: &mut impl Scrub) -> Batch {
    let mut pass = Pass {
        splices: Splices::new(&batch.payload),
        scrub,
        new: Vec::new(),
        added: Added::default(),
    };
    pass.message(schema::request(batch.signal), &batch.payload);
    match pass.splices.apply() {
        Some(payload) => batch.edited(payload, batch.items),
        None => batch.clone(),
    }
}

/// Whether scrubbing has anything to look at below a message. What has not (buckets, quantiles) is stepped over.
const fn is_seen(message: &Message) -> bool {
    !matches!(message.name.as_bytes(), b"Buckets" | b"ValueAtQuantile" | b"EntityRef")
}

struct Pass<'a, 's, S> {
    splices: Splices<'a>,
    scrub: &'s mut S,
    /// What the last question was answered with; kept for its buffer.
    new: Vec<u8>,
    added: Added,
}

impl<'a, S: Scrub> Pass<'a, '_, S> {
    /// Returns the change in length.
    fn message(&mut self, message: &'static Message, bytes: &'a [u8]) -> i64 {
        let pairs = message.fields.iter().find(|field| field.rule == Rule::Map);
        if pairs.is_some() {
            self.scrub.enter(message.name);
        }
        let mut change = 0;
        for (whole, element) in elements(bytes) {
            let Some(element) = element else { continue };
            let Some(step) = message.steps.get(element.number as usize) else {
                continue;
            };
            match step.child {
                Some(child) if child.role == Role::KeyValue => change += self.pair(whole, element),
                Some(child) if child.role == Role::AnyValue => change += self.body(element),
                Some(child) if is_seen(child) => {
                    let open = self.splices.open(element);
                    let inner = self.message(child, element.body);
                    change += self.splices.close(open, inner);
                }
                Some(_) => {}
                None if step.action == schema::Action::Text => change += self.text(message, element),
                None => {}
            }
        }
        if let Some(pairs) = pairs {
            self.added.number = pairs.number;
            self.added.bytes.clear();
            self.scrub.leave(&mut self.added);
            if !self.added.bytes.is_empty() {
                let added = &self.added.bytes;
                change += self
                    .splices
                    .replace(&bytes[bytes.len()..], |out| out.extend_from_slice(added));
            }
        }
        change
    }

    fn pair(&mut self, whole: &'a [u8], element: Element<'a>) -> i64 {
        let (key, value) = wire::plain_pair(element.body).unwrap_or_else(|| {
            let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
            for (number, payload) in Fields::new(element.body) {
                match number {
                    1 => key = payload.bytes(),
                    2 => value = payload.bytes(),
                    _ => {}
                }
            }
            (key, value)
        });
        self.new.clear();
        match self.scrub.pair(text(key), value, &mut self.new) {
            Fate::Keep => 0,
            Fate::Remove => self.splices.cut(whole),
            Fate::Replace => {
                let new = &self.new;
                self.splices.replace(whole, |out| {
                    put_tag(out, element.number, wire::BYTES);
                    let pair = open_length(out, element.body.len());
                    put_bytes(out, 1, key);
                    put_bytes(out, 2, new);
                    close_length(out, pair);
                })
            }
        }
    }

    fn body(&mut self, element: Element<'a>) -> i64 {
        self.new.clear();
        if !self.scrub.body(element.body, &mut self.new) {
            return 0;
        }
        self.put(element)
    }

    fn text(&mut self, message: &'static Message, element: Element<'a>) -> i64 {
        self.new.clear();
        let is_new = self
            .scrub
            .text(message.name, element.number, text(element.body), &mut self.new);
        if is_new { self.put(element) } else { 0 }
    }

    fn put(&mut self, element: Element<'a>) -> i64 {
        let new = &self.new;
        self.splices
            .replace(element.whole, |out| put_bytes(out, element.number, new))
    }
}

/// Walks an encoded `AnyValue` down to its last text and writes it anew to `out`. `pair` is asked about each pair of each list of pairs (the path is not
/// told), `text` about each text. Returns whether anything changed; if not, what was written is to be forgotten. Values nest at most
/// `canonical::MAX_VALUE_DEPTH` deep, so the recursion is bounded.
pub fn scrub_value(value: &[u8], scrub: &mut impl ScrubValue, out: &mut Vec<u8>) -> bool {
    let mut changed = false;
    let mut fields = Fields::new(value);
    loop {
        let before = fields.rest();
        let Some((number, payload)) = fields.next() else { break };
        let whole = &before[..before.len() - fields.rest().len()];
        let start = out.len();
        let is_new = match (number, payload) {
            (1, wire::Payload::Bytes(said)) => scrub.text(text(said), out),
            (5 | 6, wire::Payload::Bytes(list)) => {
                put_tag(out, number, wire::BYTES);
                let open = open_length(out, list.len());
                let is_new = match number {
                    5 => scrub_elements(list, scrub, out),
                    _ => scrub_pairs(list, scrub, out),
                };
                close_length(out, open);
                is_new
            }
            (2..=4, _) => scrub.scalar(whole, out),
            _ => false,
        };
        if is_new {
            changed = true;
        } else {
            out.truncate(start);
            out.extend_from_slice(whole);
        }
    }
    changed
}

/// What sees the inside of a value.
pub trait ScrubValue {
    /// A text. Returns whether the fields of another `AnyValue` were written.
    fn text(&mut self, text: &str, out: &mut Vec<u8>) -> bool;

    /// A number or boolean, as an encoded `AnyValue`. As `text`.
    fn scalar(&mut self, value: &[u8], out: &mut Vec<u8>) -> bool {
        let _ = (value, out);
        false
    }

    /// A pair. Its fate as for [`Scrub::pair`]; `None` has its value walked.
    fn pair(&mut self, key: &str, value: &[u8], out: &mut Vec<u8>) -> Option<Fate>;
}

fn scrub_elements(list: &[u8], scrub: &mut impl ScrubValue, out: &mut Vec<u8>) -> bool {
    scrub_list(list, out, |body, out| {
        if scrub_value(body, scrub, out) {
            Fate::Replace
        } else {
            Fate::Keep
        }
    })
}

fn scrub_pairs(list: &[u8], scrub: &mut impl ScrubValue, out: &mut Vec<u8>) -> bool {
    let mut new = Vec::new();
    scrub_list(list, out, |pair, out| {
        let field = |wanted| Fields::new(pair).find(|(number, _)| *number == wanted);
        let key = field(1).map_or(&[][..], |(_, key)| key.bytes());
        let value = field(2).map_or(&[][..], |(_, value)| value.bytes());
        new.clear();
        let fate = match scrub.pair(text(key), value, &mut new) {
            Some(fate) => fate,
            None if scrub_value(value, scrub, &mut new) => Fate::Replace,
            None => Fate::Keep,
        };
        if fate == Fate::Replace {
            put_bytes(out, 1, key);
            put_bytes(out, 2, &new);
        }
        fate
    })
}

/// Writes a list's fields to `out`; `each` may write another body for an element of field 1.
fn scrub_list(list: &[u8], out: &mut Vec<u8>, mut each: impl FnMut(&[u8], &mut Vec<u8>) -> Fate) -> bool {
    let mut changed = false;
    for (whole, element) in elements(list) {
        let start = out.len();
        let fate = match element.filter(|element| element.number == 1) {
            Some(element) => {
                put_tag(out, 1, wire::BYTES);
                let open = open_length(out, element.body.len());
                let fate = each(element.body, out);
                close_length(out, open);
                fate
            }
            None => Fate::Keep,
        };
        match fate {
            Fate::Replace => changed = true,
            Fate::Remove => {
                out.truncate(start);
                changed = true;
            }
            Fate::Keep => {
                out.truncate(start);
                out.extend_from_slice(whole);
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Signal;
    use crate::schema::Kind;

    /// What `is_seen` steps over holds no attributes and no values.
    #[test]
    fn what_is_stepped_over_holds_nothing() {
        fn check(message: &'static Message, seen: bool) {
            for field in message.fields {
                if let Kind::Message(child) = field.kind {
                    assert!(
                        seen || !matches!(child.role, Role::KeyValue | Role::AnyValue),
                        "{}",
                        message.name
                    );
                    if !matches!(child.role, Role::KeyValue | Role::AnyValue) {
                        check(child, seen && is_seen(child));
                    }
                }
            }
        }
        for signal in Signal::ALL {
            check(schema::request(signal), true);
        }
    }
}
