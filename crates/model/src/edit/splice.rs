//! A list of changes to a payload, in order of their place, that is applied in one copy. A change inside a message
//! changes the lengths of all messages around it; those are changes like any other.

use bytes::Bytes;

use super::layout::Element;
use crate::wire::{put_varint, varint_len};

pub(super) struct Splices<'a> {
    source: &'a [u8],
    splices: Vec<Splice>,
    /// What is inserted, in no particular order.
    scratch: Vec<u8>,
}

struct Splice {
    at: u32,
    remove: u32,
    insert: Insert,
}

enum Insert {
    /// A stretch of the scratch.
    Bytes {
        from: u32,
        len: u32,
    },
    Length(u64),
    /// Not yet, or never.
    Nothing,
}

/// A place for a change to come.
pub(super) struct Reserved {
    index: usize,
}

/// An element that is being changed.
pub(super) struct Open {
    index: usize,
    old_len: u64,
    /// Bytes that its length takes.
    old_size: usize,
}

impl<'a> Splices<'a> {
    pub(super) fn new(source: &'a [u8]) -> Self {
        Splices {
            source,
            splices: Vec::new(),
            scratch: Vec::new(),
        }
    }

    fn offset(&self, part: &[u8]) -> u32 {
        (part.as_ptr() as usize - self.source.as_ptr() as usize) as u32
    }

    /// Removes a part of the source. Returns the change in length.
    pub(super) fn cut(&mut self, part: &[u8]) -> i64 {
        let at = self.offset(part);
        let remove = part.len() as u32;
        match self.splices.last_mut() {
            Some(last) if last.at + last.remove == at && matches!(last.insert, Insert::Bytes { len: 0, .. }) => {
                last.remove += remove;
            }
            _ => self.splices.push(Splice {
                at,
                remove,
                insert: Insert::Bytes { from: 0, len: 0 },
            }),
        }
        -i64::from(remove)
    }

    /// Replaces a part of the source, which may be empty, by what `write` appends. Returns the change in length.
    pub(super) fn replace(&mut self, part: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> i64 {
        let from = self.scratch.len();
        write(&mut self.scratch);
        let len = self.scratch.len() - from;
        let insert = Insert::Bytes {
            from: from as u32,
            len: len as u32,
        };
        self.splices.push(Splice {
            at: self.offset(part),
            remove: part.len() as u32,
            insert,
        });
        len as i64 - part.len() as i64
    }

    /// Where what is written to the scratch next will start.
    pub(super) fn mark(&self) -> usize {
        self.scratch.len()
    }

    /// Where replacements are written, for [`Splices::replace_marked`].
    pub(super) fn scratch(&mut self) -> &mut Vec<u8> {
        &mut self.scratch
    }

    /// Replaces the body of an element by what the scratch has from `start` on. Returns the change in length.
    pub(super) fn replace_marked(&mut self, element: Element<'a>, start: usize) -> i64 {
        let len = self.scratch.len() - start;
        let open = self.open(element);
        self.splices.push(Splice {
            at: self.offset(element.body),
            remove: element.body.len() as u32,
            insert: Insert::Bytes {
                from: start as u32,
                len: len as u32,
            },
        });
        self.close(open, len as i64 - element.body.len() as i64)
    }

    /// Keeps a place for a change to `part` that is only known when what follows it has been seen.
    pub(super) fn reserve(&mut self, part: &[u8]) -> Reserved {
        let index = self.splices.len();
        self.splices.push(Splice {
            at: self.offset(part),
            remove: 0,
            insert: Insert::Nothing,
        });
        Reserved { index }
    }

    /// Makes the change that a place was kept for: `part` is what `reserve` was given. Returns the change in length.
    pub(super) fn fill(&mut self, reserved: Reserved, part: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> i64 {
        let from = self.scratch.len();
        write(&mut self.scratch);
        let len = self.scratch.len() - from;
        let splice = &mut self.splices[reserved.index];
        splice.remove = part.len() as u32;
        splice.insert = Insert::Bytes {
            from: from as u32,
            len: len as u32,
        };
        len as i64 - part.len() as i64
    }

    /// The place is not needed. If anything was changed behind it, an empty change stays there.
    pub(super) fn give_up(&mut self, reserved: Reserved) {
        if self.splices.len() == reserved.index + 1 {
            self.splices.truncate(reserved.index);
        }
    }

    /// Starts changes inside an element.
    pub(super) fn open(&mut self, element: Element<'a>) -> Open {
        let old_len = element.body.len() as u64;
        let after_tag = element.after_tag();
        let old_size = after_tag.len() - element.body.len();
        let open = Open {
            index: self.splices.len(),
            old_len,
            old_size,
        };
        let insert = Insert::Length(old_len);
        self.splices.push(Splice {
            at: self.offset(after_tag),
            remove: old_size as u32,
            insert,
        });
        open
    }

    /// Ends changes inside an element that changed the length of its body by `change`. Returns the change in the
    /// element's length.
    pub(super) fn close(&mut self, open: Open, change: i64) -> i64 {
        if self.splices.len() == open.index + 1 {
            self.splices.truncate(open.index);
            return 0;
        }
        let new_len = open.old_len.saturating_add_signed(change);
        self.splices[open.index].insert = Insert::Length(new_len);
        change + varint_len(new_len) as i64 - open.old_size as i64
    }

    /// Takes back all changes inside an element.
    pub(super) fn undo(&mut self, open: Open) {
        self.splices.truncate(open.index);
    }

    /// Where the last change ends in the source; behind it, everything is as it was.
    pub(super) fn end(&self) -> usize {
        self.splices.last().map_or(0, |last| (last.at + last.remove) as usize)
    }

    /// The changed payload; `None` if there were no changes.
    pub(super) fn apply(&self) -> Option<Bytes> {
        if self.splices.is_empty() {
            return None;
        }
        let inserted: usize = self.splices.iter().map(|splice| splice.insert.len()).sum();
        let removed: usize = self.splices.iter().map(|splice| splice.remove as usize).sum();
        let mut out = Vec::with_capacity(self.source.len() + inserted - removed);
        let mut copied = 0;
        for splice in &self.splices {
            out.extend_from_slice(&self.source[copied..splice.at as usize]);
            copied = splice.at as usize + splice.remove as usize;
            match splice.insert {
                Insert::Bytes { from, len } => {
                    out.extend_from_slice(&self.scratch[from as usize..(from + len) as usize]);
                }
                Insert::Length(len) => put_varint(&mut out, len),
                Insert::Nothing => {}
            }
        }
        out.extend_from_slice(&self.source[copied..]);
        Some(Bytes::from(out))
    }
}

impl Insert {
    fn len(&self) -> usize {
        match self {
            Insert::Bytes { len, .. } => *len as usize,
            Insert::Length(len) => varint_len(*len),
            Insert::Nothing => 0,
        }
    }
}
