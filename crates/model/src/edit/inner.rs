//! What items hold inside of them, changed one by one: the events of a span, the data points of a metric.

use super::layout::{Path, children};
use super::message::map_fields;
use crate::wire::{self, put_bytes, put_tag};

/// Which inner messages are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inner {
    /// Of a span.
    Events,
    /// Of a metric.
    Points,
}

impl Inner {
    const fn path(self) -> Path {
        match self {
            Inner::Events => &[&[11]],
            Inner::Points => &[&[5, 7, 9, 10, 11], &[1]],
        }
    }

    /// Walks them: the number of the field around a data point, which tells its kind (0 for events), and the message.
    pub fn each<'a>(self, message: &'a [u8], mut visit: impl FnMut(u32, &'a [u8])) {
        match self.path() {
            [events] => children(message, events).for_each(|event| visit(0, event.body)),
            [data, points] => {
                for data in children(message, data) {
                    children(data.body, points).for_each(|point| visit(data.number, point.body));
                }
            }
            _ => {}
        }
    }

    pub fn count(self, message: &[u8]) -> u32 {
        let mut count = 0;
        self.each(message, |_, _| count += 1);
        count
    }
}

/// What shall become of each inner message, in their order. Kept from item to item for its buffers.
#[derive(Debug, Default)]
pub struct Fates {
    fates: Vec<Fate>,
    bytes: Vec<u8>,
    changed: bool,
    dropped: u32,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Keep,
    Drop,
    Replace(usize, usize),
}

impl Fates {
    pub fn clear(&mut self) {
        self.fates.clear();
        self.bytes.clear();
        self.changed = false;
        self.dropped = 0;
    }

    pub fn keep(&mut self) {
        self.fates.push(Fate::Keep);
    }

    pub fn discard(&mut self) {
        self.fates.push(Fate::Drop);
        self.changed = true;
        self.dropped += 1;
    }

    pub fn replace(&mut self, message: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(message);
        self.fates.push(Fate::Replace(start, self.bytes.len()));
        self.changed = true;
    }

    /// Whether anything is not kept as it is.
    pub fn changed(&self) -> bool {
        self.changed
    }

    pub fn dropped(&self) -> u32 {
        self.dropped
    }

    /// Whether there were any and all of them are dropped.
    pub fn emptied(&self) -> bool {
        self.dropped > 0 && self.dropped as usize == self.fates.len()
    }

    /// Writes the item with its inner messages changed. It may have been edited since they were walked, but not in them.
    pub fn apply(&self, inner: Inner, item: &[u8], out: &mut Vec<u8>) {
        let mut fates = self.fates.iter();
        self.level(item, inner.path(), &mut fates, out);
    }

    fn level(&self, message: &[u8], path: Path, fates: &mut std::slice::Iter<'_, Fate>, out: &mut Vec<u8>) {
        let Some((numbers, deeper)) = path.split_first() else {
            return;
        };
        map_fields(message, out, |number, payload, out| {
            if !numbers.contains(&number) {
                return false;
            }
            if !deeper.is_empty() {
                let body = payload.bytes();
                put_tag(out, number, wire::BYTES);
                let open = wire::open_length(out, body.len());
                self.level(body, deeper, fates, out);
                wire::close_length(out, open);
                return true;
            }
            match fates.next() {
                None | Some(Fate::Keep) => return false,
                Some(Fate::Drop) => {}
                Some(Fate::Replace(start, end)) => put_bytes(out, number, &self.bytes[*start..*end]),
            }
            true
        });
    }
}
