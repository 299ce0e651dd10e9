//! Dealing the items of a batch out to several batches, by whatever the caller takes from them: traces to partitions of a topic, services to backends.

use bytes::Bytes;

use super::layout::{Element, Path, children, elements, path};
use crate::batch::{Batch, Encoding};
use crate::wire::{self, OpenLength, close_length, open_length, put_tag};

/// Asks `to` for each item which batch it belongs to, and returns the batches by that number. `to` is told the encoded messages around the item,
/// outermost first (`ResourceSpans`, `ScopeSpans`; for a data point also its `Metric` and the message of its kind), and the item. Numbers begin with 0,
/// and a new one is one more than the highest so far. Order is kept within a batch, each batch repeats the resources, scopes and metrics that its items
/// need, and a group that holds no items goes to none: there is nothing to ask about. A batch of one part comes back as it is.
///
/// # Panics
///
/// If a number is left out.
pub fn divide(batch: &Batch, to: impl FnMut(&[&[u8]], &[u8]) -> usize) -> Vec<Batch> {
    let Encoding::Otlp = batch.encoding;
    let mut division = Division {
        to,
        outputs: Vec::new(),
        groups: Vec::new(),
        bodies: Vec::new(),
        started: 0,
    };
    division.level(&batch.payload, path(batch.signal));
    let mut outputs = division.outputs;
    if outputs.len() <= 1 {
        return vec![batch.clone()];
    }
    outputs
        .iter_mut()
        .map(|output| {
            output.close(0);
            batch.edited(Bytes::from(std::mem::take(&mut output.out)), output.items)
        })
        .collect()
}

struct Division<'a, F> {
    to: F,
    outputs: Vec<Output>,
    /// The groups around the current item, outermost first, and their bodies.
    groups: Vec<Group<'a>>,
    bodies: Vec<&'a [u8]>,
    /// Groups that were entered so far; their numbers tell them apart.
    started: usize,
}

struct Group<'a> {
    serial: usize,
    element: Element<'a>,
    /// The fields that every part of the group repeats.
    header: Vec<&'a [u8]>,
}

#[derive(Default)]
struct Output {
    out: Vec<u8>,
    items: u32,
    /// The groups that are open at the end of `out`, outermost first.
    open: Vec<(usize, OpenLength)>,
}

impl<'a, F: FnMut(&[&[u8]], &[u8]) -> usize> Division<'a, F> {
    fn level(&mut self, message: &'a [u8], path: Path) {
        let Some((numbers, inner)) = path.split_first() else {
            return;
        };
        for element in children(message, numbers) {
            let Some(child_numbers) = inner.first() else {
                self.put(element);
                continue;
            };
            let is_child = |element: &Element<'_>| child_numbers.contains(&element.number);
            let header = elements(element.body).filter(|(_, element)| !element.as_ref().is_some_and(is_child));
            self.started += 1;
            self.groups.push(Group {
                serial: self.started,
                element,
                header: header.map(|(whole, _)| whole).collect(),
            });
            self.bodies.push(element.body);
            self.level(element.body, inner);
            self.groups.pop();
            self.bodies.pop();
        }
    }

    fn put(&mut self, item: Element<'a>) {
        let number = (self.to)(&self.bodies, item.body);
        assert!(number <= self.outputs.len(), "a batch's number was left out");
        if number == self.outputs.len() {
            self.outputs.push(Output::default());
        }
        let output = &mut self.outputs[number];
        let open = output.open.iter().zip(&self.groups);
        let same = open.take_while(|((serial, _), group)| *serial == group.serial).count();
        output.close(same);
        for group in &self.groups[same..] {
            put_tag(&mut output.out, group.element.number, wire::BYTES);
            // A part of a group is no longer than the group, so closing a length can only shrink what is written.
            let length = open_length(&mut output.out, group.element.body.len());
            for field in &group.header {
                output.out.extend_from_slice(field);
            }
            output.open.push((group.serial, length));
        }
        output.out.extend_from_slice(item.whole);
        output.items += 1;
    }
}

impl Output {
    /// Ends the groups that are open beyond the first `keep`.
    fn close(&mut self, keep: usize) {
        while self.open.len() > keep
            && let Some((_, length)) = self.open.pop()
        {
            close_length(&mut self.out, length);
        }
    }
}
