//! Cutting a batch into smaller ones, each of which repeats the resource, scope and metric that its items need.

use bytes::Bytes;

use super::layout::{Element, Path, children, elements, path};
use crate::batch::Batch;
use crate::wire::{OpenLength, close_length, open_length, put_tag, varint_len};
use crate::{batch::Encoding, wire};

/// Cuts a batch into batches of at most `max_items` items and `max_bytes` of payload, in order. A single item that with
/// its resource and scope is larger than `max_bytes` gets a batch of its own. A batch that fits comes back as it is.
pub fn split(batch: &Batch, max_items: u32, max_bytes: usize) -> Vec<Batch> {
    let Encoding::Otlp = batch.encoding;
    if batch.items <= max_items.max(1) && batch.payload.len() <= max_bytes {
        return vec![batch.clone()];
    }
    let mut split = Split {
        batch,
        max_items: max_items.max(1),
        max_bytes,
        outputs: Vec::new(),
        out: Vec::new(),
        items: 0,
        groups: Vec::new(),
        open: 0,
    };
    let path = path(batch.signal);
    let is_group = |element: &Element<'_>| path[0].contains(&element.number);
    for (whole, _) in elements(&batch.payload).filter(|(_, element)| !element.as_ref().is_some_and(is_group)) {
        split.out.extend_from_slice(whole);
    }
    split.level(&batch.payload, path);
    split.finish();
    split.outputs
}

struct Split<'a> {
    batch: &'a Batch,
    max_items: u32,
    max_bytes: usize,
    outputs: Vec<Batch>,
    /// The payload being written, and the items in it.
    out: Vec<u8>,
    items: u32,
    /// The groups around the current item, outermost first; the first `open` of them have been started in `out`.
    groups: Vec<Group<'a>>,
    open: usize,
}

struct Group<'a> {
    element: Element<'a>,
    /// The fields that every part of the group repeats.
    header: Vec<&'a [u8]>,
    length: Option<OpenLength>,
}

impl<'a> Split<'a> {
    fn level(&mut self, message: &'a [u8], path: Path) {
        let Some((numbers, inner)) = path.split_first() else {
            return;
        };
        for element in children(message, numbers) {
            match inner.first() {
                None => self.put(element.whole, 1),
                // What holds no items is passed on whole, so that nothing is lost.
                Some(numbers) if children(element.body, numbers).next().is_none() => self.put(element.whole, 0),
                Some(numbers) => {
                    let is_child = |element: &Element<'_>| numbers.contains(&element.number);
                    let header = elements(element.body).filter(|(_, element)| !element.as_ref().is_some_and(is_child));
                    let header = header.map(|(whole, _)| whole).collect();
                    self.groups.push(Group {
                        element,
                        header,
                        length: None,
                    });
                    self.level(element.body, inner);
                    self.close(self.groups.len() - 1);
                    self.groups.pop();
                }
            }
        }
    }

    /// Writes an item, or a group without items.
    fn put(&mut self, whole: &[u8], items: u32) {
        let headers: usize = self.groups[self.open..].iter().map(Group::header_len).sum();
        let full = self.items + items > self.max_items || self.out.len() + headers + whole.len() > self.max_bytes;
        if full && !self.out.is_empty() {
            self.finish();
        }
        for group in &mut self.groups[self.open..] {
            put_tag(&mut self.out, group.element.number, wire::BYTES);
            // A part of a group is no longer than the group, so closing a length can only shrink what is written.
            group.length = Some(open_length(&mut self.out, group.element.body.len()));
            for field in &group.header {
                self.out.extend_from_slice(field);
            }
        }
        self.open = self.groups.len();
        self.out.extend_from_slice(whole);
        self.items += items;
    }

    /// Ends the groups that are open beyond the first `keep`.
    fn close(&mut self, keep: usize) {
        for group in self.groups.iter_mut().skip(keep).rev() {
            if let Some(length) = group.length.take() {
                close_length(&mut self.out, length);
            }
        }
        self.open = self.open.min(keep);
    }

    /// Ends the current output.
    fn finish(&mut self) {
        self.close(0);
        if !self.out.is_empty() {
            let payload = Bytes::from(std::mem::take(&mut self.out));
            self.outputs.push(self.batch.edited(payload, self.items));
            self.items = 0;
        }
    }
}

impl Group<'_> {
    fn header_len(&self) -> usize {
        let tag_and_length = 1 + varint_len(self.element.body.len() as u64);
        tag_and_length + self.header.iter().map(|field| field.len()).sum::<usize>()
    }
}
