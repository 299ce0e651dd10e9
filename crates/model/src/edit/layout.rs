//! Where items lie in the request of each signal: the field numbers that lead from a message to the next inner one.

use crate::batch::Signal;
use crate::wire::{self, Fields};

/// For each level from the request inwards, the fields that hold the level below; the last level's are the items.
pub(super) type Path = &'static [&'static [u32]];

pub(super) const fn path(signal: Signal) -> Path {
    match signal {
        // Resource, scope, span or log record.
        Signal::Traces | Signal::Logs => &[&[1], &[2], &[2]],
        // Resource, scope, metric, the kinds of data, data point.
        Signal::Metrics => &[&[1], &[2], &[2], &[5, 7, 9, 10, 11], &[1]],
    }
}

/// The field number of `attributes` in an item; data points differ by the kind of data that they lie in.
pub(super) const fn item_attributes(signal: Signal, data: u32) -> u32 {
    match (signal, data) {
        (Signal::Traces, _) => 9,
        (Signal::Logs, _) => 6,
        (Signal::Metrics, 9) => 9,
        (Signal::Metrics, 10) => 1,
        (Signal::Metrics, _) => 7,
    }
}

/// A length-delimited field in its place.
#[derive(Clone, Copy)]
pub(super) struct Element<'a> {
    pub number: u32,
    /// Tag, length and body.
    pub whole: &'a [u8],
    pub body: &'a [u8],
}

impl<'a> Element<'a> {
    /// The length and the body, without the tag.
    pub(super) fn after_tag(&self) -> &'a [u8] {
        let mut rest = self.whole;
        wire::varint(&mut rest);
        rest
    }
}

/// The fields of a message, in order; `None` stands for a field that is not length-delimited.
pub(super) fn elements(message: &[u8]) -> impl Iterator<Item = (&[u8], Option<Element<'_>>)> {
    let mut fields = Fields::new(message);
    std::iter::from_fn(move || {
        let before = fields.rest();
        let (number, payload) = fields.next()?;
        let whole = &before[..before.len() - fields.rest().len()];
        let element = match payload {
            wire::Payload::Bytes(body) => Some(Element { number, whole, body }),
            _ => None,
        };
        Some((whole, element))
    })
}

/// The elements that hold the level below.
pub(super) fn children<'a>(message: &'a [u8], numbers: &'static [u32]) -> impl Iterator<Item = Element<'a>> {
    elements(message).filter_map(move |(_, element)| element.filter(|element| numbers.contains(&element.number)))
}
