//! Lines that become one entry (`recombine`, and the parts of a line that a container's runtime split).
//!
//! A queue holds the entries of one file behind its oldest unfinished one, so that they leave in the order of their first lines and there is always one
//! position in the file before which everything was handed over. Nothing else has to be remembered: a reader that begins there anew makes the same of it.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use codec::log_line::{Json, Record};

use super::expression::Expression;
use super::place::Place;

/// Entries that one queue holds behind an unfinished one; beyond it that is finished as it is.
const MAX_HELD: usize = 8_192;
/// Bytes of their texts.
const MAX_HELD_BYTES: usize = 4 << 20;

/// How entries are put together.
#[derive(Debug, Clone)]
pub struct Combine {
    /// Only entries of which it is true take part.
    pub condition: Option<Expression>,
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

/// An entry that has left the operators.
#[derive(Debug)]
pub struct Passed {
    /// The first byte of its first line in the file.
    pub start: u64,
    /// `None` for one that a `filter` dropped.
    pub record: Option<Record<'static>>,
}

/// What waits in one place.
#[derive(Debug, Default)]
pub struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
}

#[derive(Debug)]
struct Item {
    start: u64,
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
    source: String,
    base: Record<'static>,
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

    /// The next that waits for nothing.
    pub fn pop(&mut self) -> Option<Passed> {
        if !matches!(self.items.front()?.state, State::Done(_)) {
            return None;
        }
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes;
        match item.state {
            State::Done(record) => Some(Passed {
                start: item.start,
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
    pub fn is_full(&self) -> bool {
        self.bytes > MAX_HELD_BYTES || self.items.len() > MAX_HELD
    }

    pub fn push(&mut self, combine: &Combine, start: u64, record: Option<Record<'_>>, path: Option<&Path>) {
        match record {
            None => self.hold(start, 0, State::Done(None)),
            Some(record) => self.put(combine, start, record, path),
        }
    }

    fn put(&mut self, combine: &Combine, start: u64, record: Record<'_>, path: Option<&Path>) {
        let takes_part = combine
            .condition
            .as_ref()
            .is_none_or(|condition| condition.holds(&record, path));
        let text = match combine.field.get(&record) {
            Some(Json::Text(text)) if takes_part => text.to_string(),
            // What has no text there is an entry of its own.
            _ => {
                let bytes = record.body.as_text().map_or(0, str::len);
                return self.hold(start, bytes, State::Done(Some(record.into_owned())));
            }
        };
        let is_matched = match &combine.mark {
            Mark::First(mark) | Mark::Last(mark) => mark.holds(&record, path),
            Mark::WholeLine => super::container::is_whole(&record),
        };
        let source = combine
            .source
            .as_ref()
            .and_then(|place| place.get(&record))
            .and_then(Json::as_text);
        let source = source.unwrap_or_default().to_owned();
        let begins = matches!(combine.mark, Mark::First(_)) && is_matched;
        let mut open = self.open(&source);
        if begins && let Some(at) = open.take() {
            self.finish(at, combine);
        }
        let at = match open {
            Some(at) => {
                self.add(at, combine, &text, record, is_matched);
                at
            }
            None => {
                let opens = self
                    .items
                    .iter()
                    .filter(|item| matches!(item.state, State::Open(_)))
                    .count();
                if opens >= combine.max_sources {
                    (0..self.items.len()).for_each(|at| self.finish(at, combine));
                }
                let state = Open {
                    source,
                    base: record.into_owned(),
                    entries: 1,
                    is_matched,
                    text,
                };
                self.hold(start, state.text.len(), State::Open(state));
                self.items.len() - 1
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

    fn add(&mut self, at: usize, combine: &Combine, text: &str, record: Record<'_>, is_matched: bool) {
        let item = &mut self.items[at];
        let State::Open(open) = &mut item.state else { return };
        if !open.text.is_empty() {
            open.text.push_str(&combine.with);
        }
        open.text.push_str(text);
        open.entries += 1;
        open.is_matched |= is_matched;
        if combine.takes_newest {
            open.base = record.into_owned();
        }
        self.bytes += open.text.len() - item.bytes;
        item.bytes = open.text.len();
    }

    fn open(&self, source: &str) -> Option<usize> {
        self.items
            .iter()
            .position(|item| matches!(&item.state, State::Open(open) if open.source == source))
    }

    fn hold(&mut self, start: u64, bytes: usize, state: State) {
        self.bytes += bytes;
        self.items.push_back(Item { start, bytes, state });
    }

    fn finish(&mut self, at: usize, combine: &Combine) {
        let Some(item) = self.items.get_mut(at) else { return };
        let state = std::mem::replace(&mut item.state, State::Done(None));
        item.state = match state {
            State::Open(open) => State::Done(Some(open.finish(&combine.field))),
            done => done,
        };
    }
}
