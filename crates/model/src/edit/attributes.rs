//! Setting and removing attributes at one level of a batch, in place.

use super::layout::{Element, Path, children, elements, item_attributes, path};
use super::splice::Splices;
use crate::batch::{Batch, Compression, Signal, Wire};
use crate::gzip;
use crate::view::{AnyValue, Attributes, List};
use crate::wire::{self, Fields, put_bytes, put_tag, put_varint};

/// Whose attributes are edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Resource,
    Scope,
    /// Spans, log records or data points.
    Item,
}

/// The owner of the attributes being edited, and what is around it, as encoded messages (empty where there is none):
/// `View::read` makes views of them.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    pub attributes: Attributes<'a>,
    pub resource: &'a [u8],
    /// At `Level::Scope` and `Level::Item`.
    pub scope: &'a [u8],
    /// At `Level::Item`.
    pub item: &'a [u8],
    /// At `Level::Item` of metrics: the metric that the data point is of.
    pub metric: &'a [u8],
}

/// What shall change about one owner's attributes. Of several changes to a key, the last one counts.
#[derive(Debug, Default)]
pub struct Changes {
    changes: Vec<Change>,
    /// The change that counts for each key, ordered by key.
    by_key: Vec<u32>,
    /// Keys and encoded pairs.
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Change {
    key: std::ops::Range<usize>,
    /// The encoded `KeyValue`; `None` removes the key.
    pair: Option<std::ops::Range<usize>>,
    /// Made, or overruled by a later one.
    done: bool,
}

impl Changes {
    /// Gives the key this value: in the place of its old one, or after the others.
    pub fn set(&mut self, key: &str, value: AnyValue<'_>) {
        let start = self.bytes.len();
        put_bytes(&mut self.bytes, 1, key.as_bytes());
        let key = self.bytes.len() - key.len()..self.bytes.len();
        put_tag(&mut self.bytes, 2, wire::BYTES);
        let open = wire::open_length(&mut self.bytes, 0);
        put_value(&mut self.bytes, value);
        wire::close_length(&mut self.bytes, open);
        self.changes.push(Change {
            key,
            pair: Some(start..self.bytes.len()),
            done: false,
        });
    }

    /// Removes the key, if it is there.
    pub fn remove(&mut self, key: &str) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key.as_bytes());
        self.changes.push(Change {
            key: start..self.bytes.len(),
            pair: None,
            done: false,
        });
    }

    /// As [`Changes::set`], with a value that is already encoded as an `AnyValue`, which the caller vouches is canonical.
    pub fn set_encoded(&mut self, key: &str, value: &[u8]) {
        let start = self.bytes.len();
        put_bytes(&mut self.bytes, 1, key.as_bytes());
        let key = self.bytes.len() - key.len()..self.bytes.len();
        put_bytes(&mut self.bytes, 2, value);
        self.changes.push(Change {
            key,
            pair: Some(start..self.bytes.len()),
            done: false,
        });
    }

    /// What the last change to this key so far says: nothing, that it goes, or the encoded `AnyValue` that it gets.
    pub fn get(&self, key: &str) -> Option<Option<&[u8]>> {
        let change = |change: &&Change| &self.bytes[change.key.clone()] == key.as_bytes();
        let change = self.changes.iter().rev().find(change)?;
        Some(change.pair.clone().map(|pair| {
            let value = Fields::new(&self.bytes[pair]).find(|(number, _)| *number == 2);
            value.map_or(&[][..], |(_, value)| value.bytes())
        }))
    }

    /// The keys that any change so far is about; several times, if several are.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.changes
            .iter()
            .map(|change| std::str::from_utf8(&self.bytes[change.key.clone()]).unwrap_or_default())
    }

    fn clear(&mut self) {
        self.changes.clear();
        self.bytes.clear();
    }

    /// Finds the change that counts for each key.
    fn settle(&mut self) {
        let Changes { changes, by_key, bytes } = self;
        by_key.clear();
        by_key.extend(0..changes.len() as u32);
        let key = |changes: &[Change], index: u32| changes[index as usize].key.clone();
        by_key.sort_by(|a, b| bytes[key(changes, *a)].cmp(&bytes[key(changes, *b)]));
        by_key.dedup_by(|later, kept| {
            let same = bytes[key(changes, *later)] == bytes[key(changes, *kept)];
            if same {
                changes[*kept as usize].done = true;
                *kept = *later;
            }
            same
        });
    }

    fn find(&self, key: &[u8]) -> Option<usize> {
        let compare = |index: &u32| self.bytes[self.changes[*index as usize].key.clone()].cmp(key);
        self.by_key
            .binary_search_by(compare)
            .ok()
            .map(|at| self.by_key[at] as usize)
    }
}

/// Edits the attributes of every owner at a level: `edit` sees each and says what to change. A resource or scope that a
/// message lacks is created when it gets its first attribute.
pub fn edit_attributes(batch: &Batch, level: Level, mut edit: impl FnMut(Owner<'_>, &mut Changes)) -> Batch {
    let mut pass = Pass {
        splices: Splices::new(&batch.payload),
        signal: batch.signal,
        changes: Changes::default(),
        edit: &mut edit,
    };
    for group in children(&batch.payload, &[1]) {
        pass.resource_group(group, level);
    }
    match pass.splices.apply() {
        Some(payload) => Batch {
            wire: grafted(batch, pass.splices.end(), &payload),
            ..batch.edited(payload, batch.items)
        },
        None => batch.clone(),
    }
}

/// The wire form of an edited payload, where the old one can be kept but for its beginning: what changes a resource seldom changes anything else.
fn grafted(batch: &Batch, changed: usize, edited: &[u8]) -> Option<Wire> {
    let wire = batch
        .wire
        .as_ref()
        .filter(|wire| wire.compression == Compression::Gzip)?;
    let bytes = gzip::graft(&wire.bytes, batch.payload.len(), changed, edited)?;
    Some(Wire {
        compression: Compression::Gzip,
        bytes: bytes.into(),
    })
}

/// The field numbers of `attributes` in a resource and in a scope.
const RESOURCE_ATTRIBUTES: u32 = 1;
const SCOPE_ATTRIBUTES: u32 = 3;

struct Pass<'a, 'e> {
    splices: Splices<'a>,
    signal: Signal,
    /// Kept between owners for its buffers.
    changes: Changes,
    edit: &'e mut dyn FnMut(Owner<'_>, &mut Changes),
}

impl<'a> Pass<'a, '_> {
    fn resource_group(&mut self, group: Element<'a>, level: Level) {
        let open = self.splices.open(group);
        let resource = leading(group.body);
        let raw = resource.map_or(&[][..], |resource| resource.body);
        let mut change = 0;
        if level == Level::Resource {
            let attributes = List::new(raw, RESOURCE_ATTRIBUTES);
            self.ask(Owner {
                attributes,
                resource: raw,
                scope: &[],
                item: &[],
                metric: &[],
            });
            change += self.leading_owner(group.body, resource, RESOURCE_ATTRIBUTES);
        } else {
            for scope_group in children(group.body, &[2]) {
                change += self.scope_group(scope_group, level, raw);
            }
        }
        self.splices.close(open, change);
    }

    fn scope_group(&mut self, group: Element<'a>, level: Level, resource: &'a [u8]) -> i64 {
        let open = self.splices.open(group);
        let scope = leading(group.body);
        let raw = scope.map_or(&[][..], |scope| scope.body);
        let mut change = 0;
        if level == Level::Scope {
            let attributes = List::new(raw, SCOPE_ATTRIBUTES);
            self.ask(Owner {
                attributes,
                resource,
                scope: raw,
                item: &[],
                metric: &[],
            });
            change += self.leading_owner(group.body, scope, SCOPE_ATTRIBUTES);
        } else {
            let path = &path(self.signal)[2..];
            let around = Around {
                resource,
                scope: raw,
                metric: &[],
            };
            change += self.items(group.body, path, 0, around);
        }
        self.splices.close(open, change)
    }

    fn items(&mut self, message: &'a [u8], path: Path, data: u32, around: Around<'a>) -> i64 {
        let Some((numbers, inner)) = path.split_first() else {
            return 0;
        };
        let mut change = 0;
        for element in children(message, numbers) {
            let open = self.splices.open(element);
            let inner_change = if inner.is_empty() {
                let number = item_attributes(self.signal, data);
                let attributes = List::new(element.body, number);
                self.ask(Owner {
                    attributes,
                    resource: around.resource,
                    scope: around.scope,
                    item: element.body,
                    metric: around.metric,
                });
                self.owner(element.body, number)
            } else {
                // Outside in: the metric, then its data.
                let metric = if around.metric.is_empty() {
                    element.body
                } else {
                    around.metric
                };
                self.items(element.body, inner, element.number, Around { metric, ..around })
            };
            change += self.splices.close(open, inner_change);
        }
        change
    }

    fn ask(&mut self, owner: Owner<'a>) {
        self.changes.clear();
        (self.edit)(owner, &mut self.changes);
        self.changes.settle();
    }

    /// Changes the resource or scope that leads `group`, or creates it.
    fn leading_owner(&mut self, group: &'a [u8], owner: Option<Element<'a>>, number: u32) -> i64 {
        if let Some(owner) = owner {
            let open = self.splices.open(owner);
            let change = self.owner(owner.body, number);
            return self.splices.close(open, change);
        }
        let mut body = Vec::new();
        self.changes.put_new(&mut body, number);
        if body.is_empty() {
            return 0;
        }
        self.splices.replace(&group[..0], |out| put_bytes(out, 1, &body))
    }

    /// Changes the attributes in a message.
    fn owner(&mut self, message: &'a [u8], number: u32) -> i64 {
        if self.changes.changes.is_empty() {
            return 0;
        }
        let mut change = 0;
        for (whole, element) in elements(message) {
            let Some(pair) = element.filter(|element| element.number == number) else {
                continue;
            };
            let key = Fields::new(pair.body).find(|(number, _)| *number == 1);
            let Some(index) = self.changes.find(key.map_or(&[], |(_, key)| key.bytes())) else {
                continue;
            };
            let found = &mut self.changes.changes[index];
            found.done = true;
            match found.pair.clone() {
                None => change += self.splices.cut(whole),
                Some(new) => {
                    let new = &self.changes.bytes[new];
                    if new != pair.body {
                        change += self.splices.replace(whole, |out| put_bytes(out, number, new));
                    }
                }
            }
        }
        if self
            .changes
            .changes
            .iter()
            .any(|change| !change.done && change.pair.is_some())
        {
            let changes = &self.changes;
            change += self
                .splices
                .replace(&message[message.len()..], |out| changes.put_new(out, number));
        }
        change
    }
}

#[derive(Clone, Copy)]
struct Around<'a> {
    resource: &'a [u8],
    scope: &'a [u8],
    metric: &'a [u8],
}

/// The resource or scope of a group: its field 1, which stands before any field 2.
fn leading(group: &[u8]) -> Option<Element<'_>> {
    let mut elements = elements(group).filter_map(|(_, element)| element);
    elements
        .find(|element| element.number <= 2)
        .filter(|element| element.number == 1)
}

impl Changes {
    /// Writes the pairs that no old one gave its place to.
    fn put_new(&self, out: &mut Vec<u8>, number: u32) {
        for change in self.changes.iter().filter(|change| !change.done) {
            if let Some(pair) = &change.pair {
                put_bytes(out, number, &self.bytes[pair.clone()]);
            }
        }
    }
}

/// Writes the fields of an `AnyValue`.
pub fn put_value(out: &mut Vec<u8>, value: AnyValue<'_>) {
    match value {
        AnyValue::Empty => {}
        AnyValue::Str(value) => put_bytes(out, 1, value.as_bytes()),
        AnyValue::Bool(value) => {
            put_tag(out, 2, wire::VARINT);
            out.push(u8::from(value));
        }
        AnyValue::Int(value) => {
            put_tag(out, 3, wire::VARINT);
            put_varint(out, value as u64);
        }
        AnyValue::Double(value) => wire::put_fixed64(out, 4, value.to_bits()),
        AnyValue::Array(values) => put_bytes(out, 5, values.stretch()),
        // The attributes of an item as a value: there, their field may have another number and neighbours.
        AnyValue::KvList(pairs) => {
            put_tag(out, 6, wire::BYTES);
            let open = wire::open_length(out, pairs.stretch().len());
            pairs.raw().for_each(|pair| put_bytes(out, 1, pair));
            wire::close_length(out, open);
        }
        AnyValue::Bytes(value) => put_bytes(out, 7, value),
    }
}
