//! One of Jaeger's spans as both of its encodings tell it: borrowed from the request, in lists that are used again for the next span.

use super::{BadJaeger, MAX_ELEMENTS};

/// Text as it came; whether it is UTF-8 is for the canonical walk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: Value<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Text(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
}

impl Default for Tag<'_> {
    fn default() -> Self {
        Tag {
            key: &[],
            value: Value::Text(&[]),
        }
    }
}

impl<'a> Tag<'a> {
    pub(super) fn is(&self, key: &str) -> bool {
        self.key == key.as_bytes()
    }

    pub(super) fn text(&self) -> Option<&'a [u8]> {
        match self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    pub(super) child_of: bool,
}

/// A log and where its fields end among those of all logs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log {
    pub(super) time_unix_nano: u64,
    pub(super) fields_end: usize,
}

/// The span being read. An id of the wrong length is all zeros, which the canonical walk knows what to do with.
#[derive(Debug, Default)]
pub(super) struct Span<'a> {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    /// Thrift has a field for it; protobuf tells it as a reference.
    pub(super) parent_span_id: Option<[u8; 8]>,
    pub(super) name: &'a [u8],
    pub(super) flags: u32,
    pub(super) start_unix_nano: u64,
    pub(super) duration_nano: u64,
    pub(super) tags: Vec<Tag<'a>>,
    pub(super) references: Vec<Reference>,
    pub(super) logs: Vec<Log>,
    pub(super) fields: Vec<Tag<'a>>,
    pub(super) warnings: Vec<&'a [u8]>,
    elements: usize,
}

impl Span<'_> {
    /// Forgets the span and keeps its memory.
    pub(super) fn clear(&mut self) {
        let mut lists = std::mem::take(self);
        lists.tags.clear();
        lists.references.clear();
        lists.logs.clear();
        lists.fields.clear();
        lists.warnings.clear();
        *self = Span {
            tags: lists.tags,
            references: lists.references,
            logs: lists.logs,
            fields: lists.fields,
            warnings: lists.warnings,
            ..Span::default()
        };
    }

    /// Counts one more element of any list.
    pub(super) fn element(&mut self) -> Result<(), BadJaeger> {
        self.elements += 1;
        if self.elements > MAX_ELEMENTS {
            return Err(BadJaeger::TooMany);
        }
        Ok(())
    }

    /// The parent, and which reference told it.
    ///
    /// Jaeger's own rule: the first `CHILD_OF` in the span's trace, else the first `FOLLOWS_FROM` in it.
    pub(super) fn parent(&self) -> (Option<[u8; 8]>, Option<usize>) {
        let told = |reference: &&Reference| reference.trace_id == self.trace_id && reference.span_id != [0; 8];
        if let Some(parent) = self.parent_span_id {
            let index = self
                .references
                .iter()
                .position(|it| it.child_of && told(&it) && it.span_id == parent);
            return (Some(parent), index);
        }
        let index = self.references.iter().position(|it| it.child_of && told(&it));
        match index {
            Some(at) => (Some(self.references[at].span_id), index),
            None => (self.references.iter().find(told).map(|it| it.span_id), None),
        }
    }
}
