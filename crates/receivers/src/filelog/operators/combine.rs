//! Lines that become one entry (`recombine`, and the parts of a line that a container's runtime split).
//!
//! A queue holds the entries of one file behind its oldest unfinished one, so that they leave in the order of their first lines and there is always one
//! position in the file before which everything was handed over. Nothing else has to be remembered: a reader that begins there anew makes the same of it.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use codec::log_line::{Json, Members, Record};

use super::expression::Expression;
use super::place::Place;

/// Entries that one queue holds behind an unfinished one; beyond it that is finished as it is.
const MAX_HELD: usize = 8_192;
/// Bytes of them, beyond what one may have that is put together.
const MAX_HELD_BYTES: usize = 4 << 20;

/// How entries are put together.
#[derive(Debug, Clone)]
pub struct Combine {
    pub mark: Mark,
    /// What is put together.
    pub field: Place,
    /// What stands between.
    pub with: String,
    /// Entries that become one, at most.
    pub max_entries: usize,
    /// The same before one that the mark is true of was among them.
    pub max_unmatched: usize,
    /// Bytes of what was put together; the entry that exceeds them is the last.
    pub max_bytes: usize,
    /// Whether the last entry's other fields are taken, or the first's.
    pub takes_newest: bool,
    /// What tells sources in one file apart. Without it a file is one.
    pub source: Option<Place>,
    pub max_sources: usize,
    /// How long an unfinished entry is waited for; `None` is for ever.
    pub patience: Option<Duration>,
}

/// What tells where an entry begins or ends.
#[derive(Debug, Clone)]
pub enum Mark {
    First(Expression),
    Last(Expression),
    /// A part of a line that a container's runtime split ends with one that does not say that more follows.
    WholeLine,
}

/// An entry on its way through the operators.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The first byte of its first line in the file.
    pub start: u64,
    /// Lines of it that were not UTF-8, and were mended.
    pub mended: u64,
    /// `None` for one that a `filter` dropped.
    pub record: Option<Record<'a>>,
}

impl Entry<'_> {
    pub fn into_owned(self) -> Entry<'static> {
        Entry {
            record: self.record.map(Record::into_owned),
            ..self
        }
    }
}

/// What waits in one place.
#[derive(Debug, Default)]
pub struct Queue {
    items: VecDeque<Item>,
    /// How many have left it.
    left: u64,
    /// The unfinished entry of each source, counted from the first that was ever here.
    open: HashMap<Rc<str>, u64>,
    bytes: usize,
}

#[derive(Debug)]
struct Item {
    start: u64,
    mended: u64,
    bytes: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Done(Option<Record<'static>>),
    Open(Open),
}

/// An entry that may go on.
#[derive(Debug)]
struct Open {
    source: Rc<str>,
    /// Its other fields; what is put together is in `text` alone.
    base: Record<'static>,
    base_bytes: usize,
    text: String,
    entries: usize,
    is_matched: bool,
}

impl Open {
    fn finish(mut self, field: &Place) -> Record<'static> {
        field.set(&mut self.base, Json::Text(self.text.into()));
        self.base
    }
}

impl Queue {
    /// Where the oldest that waits begins.
    pub fn start(&self) -> Option<u64> {
        self.items.front().map(|item| item.start)
    }

    /// Where each unfinished one begins.
    pub fn unfinished(&self) -> impl Iterator<Item = u64> {
        self.open.values().map(|at| self.items[(at - self.left) as usize].start)
    }

    /// The next that waits for nothing.
    pub fn pop(&mut self) -> Option<Entry<'static>> {
        if !matches!(self.items.front()?.state, State::Done(_)) {
            return None;
        }
        let item = self.items.pop_front()?;
        self.left += 1;
        self.bytes -= item.bytes;
        match item.state {
            State::Done(record) => Some(Entry {
                start: item.start,
                mended: item.mended,
                record,
            }),
            State::Open(_) => None,
        }
    }

    /// The oldest entry is not waited for any longer.
    pub fn finish_front(&mut self, combine: &Combine) {
        self.finish(0, combine);
    }

    /// Whether no more may be held behind the oldest.
    pub fn is_full(&self, combine: &Combine) -> bool {
        self.bytes > MAX_HELD_BYTES + combine.max_bytes || self.items.len() > MAX_HELD
    }

    /// `takes_part`: whether it may be put together with others.
    pub fn push(&mut self, combine: &Combine, entry: Entry<'_>, takes_part: bool, path: Option<&Path>) {
        let Entry { start, mended, record } = entry;
        let Some(mut record) = record else {
            return self.hold(start, mended, 0, State::Done(None));
        };
        let text = match combine.field.get(&record) {
            Some(Json::Text(text)) if takes_part => text.to_string(),
            // What has no text there is an entry of its own.
            _ => return self.hold(start, mended, size(&record), State::Done(Some(record.into_owned()))),
        };
        let is_matched = match &combine.mark {
            Mark::First(mark) | Mark::Last(mark) => mark.holds(&record, path),
            Mark::WholeLine => super::container::is_whole(&record),
        };
        let source = combine.source.as_ref().and_then(|place| place.get(&record));
        let source: Rc<str> = source.and_then(Json::as_text).unwrap_or_default().into();
        combine.field.set(&mut record, Json::Null);
        let begins = matches!(combine.mark, Mark::First(_)) && is_matched;
        let mut open = self.open(&source);
        if begins && let Some(at) = open.take() {
            self.finish(at, combine);
        }
        let at = match open {
            Some(at) => {
                self.add(at, combine, &text, record, is_matched, mended);
                at
            }
            None => {
                if self.open.len() >= combine.max_sources {
                    let open: Vec<u64> = self.open.values().copied().collect();
                    open.into_iter()
                        .for_each(|at| self.finish((at - self.left) as usize, combine));
                }
                let at = self.items.len();
                self.open.insert(Rc::clone(&source), self.left + at as u64);
                let base_bytes = size(&record);
                let bytes = base_bytes + text.len();
                let state = Open {
                    source,
                    base: record.into_owned(),
                    base_bytes,
                    entries: 1,
                    is_matched,
                    text,
                };
                self.hold(start, mended, bytes, State::Open(state));
                at
            }
        };
        let State::Open(open) = &self.items[at].state else {
            return;
        };
        let is_full = open.text.len() > combine.max_bytes
            || open.entries >= combine.max_entries
            || (!open.is_matched && open.entries >= combine.max_unmatched);
        if is_full || (is_matched && !matches!(combine.mark, Mark::First(_))) {
            self.finish(at, combine);
        }
    }

    fn add(&mut self, at: usize, combine: &Combine, text: &str, record: Record<'_>, is_matched: bool, mended: u64) {
        let item = &mut self.items[at];
        let State::Open(open) = &mut item.state else { return };
        if !open.text.is_empty() {
            open.text.push_str(&combine.with);
        }
        open.text.push_str(text);
        open.entries += 1;
        open.is_matched |= is_matched;
        if combine.takes_newest {
            open.base_bytes = size(&record);
            open.base = record.into_owned();
        }
        self.bytes -= item.bytes;
        item.bytes = open.base_bytes + open.text.len();
        item.mended += mended;
        self.bytes += item.bytes;
    }

    fn open(&self, source: &str) -> Option<usize> {
        self.open.get(source).map(|at| (at - self.left) as usize)
    }

    fn hold(&mut self, start: u64, mended: u64, bytes: usize, state: State) {
        self.bytes += bytes;
        self.items.push_back(Item {
            start,
            mended,
            bytes,
            state,
        });
    }

    fn finish(&mut self, at: usize, combine: &Combine) {
        let Some(item) = self.items.get_mut(at) else { return };
        let state = std::mem::replace(&mut item.state, State::Done(None));
        item.state = match state {
            State::Open(open) => {
                self.open.remove(&open.source);
                State::Done(Some(open.finish(&combine.field)))
            }
            done => done,
        };
    }
}

/// Bytes that a record takes beyond itself.
fn size(record: &Record<'_>) -> usize {
    record.severity_text.len()
        + size_of_value(&record.body)
        + size_of_members(&record.attributes)
        + size_of_members(&record.resource)
}

fn size_of_members(members: &Members<'_>) -> usize {
    let sizes = members
        .iter()
        .map(|(key, value)| size_of_val(key) + key.len() + size_of_val(value) + size_of_value(value));
    sizes.sum()
}

fn size_of_value(value: &Json<'_>) -> usize {
    match value {
        Json::Null | Json::Bool(_) | Json::Int(_) | Json::Double(_) => 0,
        Json::Text(text) => text.len(),
        Json::List(items) => items.iter().map(|item| size_of_val(item) + size_of_value(item)).sum(),
        Json::Object(members) => size_of_members(members),
    }
}
