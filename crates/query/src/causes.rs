//! Which marks of a trace were left by one failure: what callers made of an error is folded under its cause.
//!
//! A failure travels up: the call that failed ends with an error, its caller records one of its own in other words,
//! and so on to the root, across services through the client and server spans of a call. A mark is folded under one
//! from below it, or from earlier on its own span, when the failure could reach it and something says that it did:
//!
//! - *could*: the mark is not older than the failure, and every span on the way up ended with status ERROR. A span
//!   that leaves its status unset passes on only what is repeated above it, a span that says OK passes on nothing.
//! - *did*: the words of the failure, or the name of what failed, are repeated; or the mark says nothing but that it
//!   failed; or it was left as soon as the failing call had ended, with no other work begun in between.
//!
//! Everything else stays a failure of its own: siblings, tries one after another, and what breaks later.

use std::collections::HashMap;
use std::ops::Range;

use model::record::SpanRecord;

use crate::fields::{self, service_name};
use crate::story::{Fault, FaultSource};
use crate::tree::Tree;

/// A server's span ends when its answer has been written, which may be after the caller has read it; clocks that
/// agree do so within a millisecond.
const SLACK_NS: u64 = 10_000_000;
/// An error that is handed on is recorded within a few milliseconds of the end of the call that failed; capturing a
/// call stack, or a busy machine, takes some tens.
const PROMPT_NS: u64 = 100_000_000;
/// Causes that one span passes on, the newest: a caller tells of what failed last. Bounds work in a trace in which
/// everything fails.
const MAX_PASSED_ON: usize = 16;
/// What of a text is compared: messages say what they are about early, and comparing is quadratic.
const COMPARED_BYTES: usize = 2_048;
/// Shorter texts are found in others by chance.
const MIN_TELLING_BYTES: usize = 6;
/// Layers of one failure whose words are looked for higher up: each usually repeats the one below it.
const WORDS_KEPT: usize = 4;

const STATUS_OK: u8 = 1;
const STATUS_ERROR: u8 = 2;

/// One mark that a failure left on a span.
pub struct Mark {
    pub fault: Fault,
    /// When, by the clock of the root's host.
    pub at: u64,
    /// The same failure on the same span in other words.
    pub also: Vec<Fault>,
}

/// The marks of one span, and its index in the trace.
pub struct Marked {
    pub span: u32,
    pub marks: Range<usize>,
}

/// A failure on its way up the tree.
#[derive(Clone, Copy)]
struct Cause {
    mark: usize,
    /// The child through which it arrives; `None` where it began on the span itself.
    through: Option<u32>,
    /// Some span on the way did not end with status ERROR.
    doubtful: bool,
}

/// Everything that is asked about a trace while folding.
struct Folding<'a> {
    spans: &'a [SpanRecord],
    tree: &'a Tree,
    skew: &'a [i64],
    marks: &'a [Mark],
    /// When the children of spans with marks began.
    begun: HashMap<u32, Vec<u64>>,
    /// The marks whose words stand for a cause: itself, and the last layers folded under it.
    words: HashMap<usize, Vec<usize>>,
}

/// For each mark the mark that caused it; causes have none. `marked` is in tree order.
pub fn causes(
    spans: &[SpanRecord],
    tree: &Tree,
    skew: &[i64],
    marks: &[Mark],
    marked: &[Marked],
) -> Vec<Option<usize>> {
    let mut caused_by = vec![None; marks.len()];
    let mut folding = Folding {
        spans,
        tree,
        skew,
        marks,
        begun: marked.iter().map(|marked| (marked.span, Vec::new())).collect(),
        words: HashMap::new(),
    };
    for &i in &tree.order {
        let start = corrected(spans[i as usize].start_unix_nano, skew, i);
        if let Some(begun) = tree.parent(i).and_then(|parent| folding.begun.get_mut(&parent)) {
            begun.push(start);
        }
    }
    folding.begun.values_mut().for_each(|begun| begun.sort_unstable());

    let mut arriving: HashMap<u32, Vec<Cause>> = HashMap::new();
    let mut marked = marked.iter().rev().peekable();
    for &i in tree.order.iter().rev() {
        let mut here = arriving.remove(&i).unwrap_or_default();
        if let Some(own) = marked.next_if(|marked| marked.span == i) {
            let mut by_time: Vec<usize> = own.marks.clone().collect();
            by_time.sort_by_key(|&mark| marks[mark].at);
            // What is repeated here has arrived here, whatever the spans on the way say of themselves.
            for &mark in &by_time {
                if let Some(arrived) = folding.repeated(mark, i, &here) {
                    here[arrived].doubtful = false;
                }
            }
            let mut latest = None;
            for mark in by_time {
                // A span's status is about all of it: where the span has told of a failure, it is about that one.
                let last_told = latest.filter(|_| marks[mark].fault.source == FaultSource::Status);
                caused_by[mark] = folding.cause_of(mark, i, &here).or(last_told);
                latest = caused_by[mark].or(Some(mark));
                match caused_by[mark] {
                    Some(cause) => folding.remember(cause, mark),
                    None => here.push(Cause {
                        mark,
                        through: None,
                        doubtful: false,
                    }),
                }
            }
        }
        let status = spans[i as usize].status_code;
        let Some(parent) = tree.parent(i).filter(|_| status != STATUS_OK && !here.is_empty()) else {
            continue;
        };
        let passed = arriving.entry(parent).or_default();
        passed.extend(here.into_iter().map(|cause| Cause {
            through: Some(i),
            doubtful: cause.doubtful || status != STATUS_ERROR,
            ..cause
        }));
        if passed.len() > MAX_PASSED_ON {
            passed.sort_by_key(|cause| (!cause.doubtful, marks[cause.mark].at));
            passed.drain(..passed.len() - MAX_PASSED_ON);
        }
    }
    caused_by
}

/// A time by the clock of the root's host.
pub fn corrected(at: u64, skew: &[i64], span: u32) -> u64 {
    at.saturating_add_signed(skew.get(span as usize).copied().unwrap_or(0))
}

impl Folding<'_> {
    /// The latest failure that `mark` on span `i` repeats; else, if the mark has the looks of one that was only handed
    /// on, the latest that it can be.
    fn cause_of(&self, mark: usize, i: u32, here: &[Cause]) -> Option<usize> {
        if let Some(arrived) = self.repeated(mark, i, here) {
            return Some(here[arrived].mark);
        }
        let Mark { fault, at, .. } = &self.marks[mark];
        let cause = here
            .iter()
            .filter(|cause| !cause.doubtful && self.is_before(cause, *at))
            .max_by_key(|cause| self.marks[cause.mark].at)?;
        let says_nothing = says_only_that_it_failed(fault, &self.spans[i as usize].name);
        (says_nothing || self.is_prompt(*at, i, cause)).then_some(cause.mark)
    }

    /// Which of the failures `here` a mark repeats: the latest.
    fn repeated(&self, mark: usize, i: u32, here: &[Cause]) -> Option<usize> {
        let mark = &self.marks[mark];
        (0..here.len())
            .filter(|&k| self.is_before(&here[k], mark.at) && self.repeats(mark, i, &here[k]))
            .max_by_key(|&k| self.marks[here[k].mark].at)
    }

    fn is_before(&self, cause: &Cause, at: u64) -> bool {
        self.marks[cause.mark].at <= at.saturating_add(SLACK_NS)
    }

    /// Whether a mark repeats what is known of a failure: its words, its type, its HTTP status, or which call failed.
    fn repeats(&self, mark: &Mark, i: u32, cause: &Cause) -> bool {
        let own: Vec<&str> = words(mark).collect();
        let stack = clip(mark.fault.stack.as_deref().unwrap_or_default());
        let names = |text: &str| {
            let text = clip(text);
            text.len() >= MIN_TELLING_BYTES && own.iter().chain([&stack]).any(|own| own.contains(text))
        };
        let layers = self.words.get(&cause.mark).map(Vec::as_slice).unwrap_or_default();
        let same_words = std::iter::once(&cause.mark)
            .chain(layers)
            .flat_map(|&mark| words(&self.marks[mark]))
            .any(|other| {
                let is_same = |own: &str| own == other || (own.len() >= MIN_TELLING_BYTES && other.contains(own));
                names(other) || own.iter().any(|own| is_same(own))
            });
        let origin = &self.marks[cause.mark].fault;
        let Some(child) = cause.through else { return same_words };
        let child = &self.spans[child as usize];
        let service = service_name(&child.resource);
        same_words
            || names(&origin.kind)
            || names(&child.status_message)
            || names(&child.name)
            || (service != service_name(&self.spans[i as usize].resource) && names(service))
            || fields::count(&child.attributes, "http.response.status_code").is_some_and(|code| {
                let code = code.to_string();
                code.as_str() >= "400" && own.iter().flat_map(|own| words_of(own)).any(|word| word == code)
            })
    }

    /// Whether a mark was left right after the call that failed, before anything else was begun.
    fn is_prompt(&self, at: u64, i: u32, cause: &Cause) -> bool {
        let Some(child) = cause.through else { return false };
        let record = &self.spans[child as usize];
        let ended = corrected(record.end_unix_nano.max(record.start_unix_nano), self.skew, child);
        let begun = self.begun.get(&i).map(Vec::as_slice).unwrap_or_default();
        let next = begun.get(begun.partition_point(|&start| start <= ended));
        at.saturating_sub(ended) <= PROMPT_NS
            && next.is_none_or(|&next| next >= at)
            && self.tree.parent(child) == Some(i)
    }

    fn remember(&mut self, cause: usize, layer: usize) {
        let words = self.words.entry(cause).or_default();
        words.push(layer);
        if words.len() > WORDS_KEPT {
            words.remove(0);
        }
    }
}

/// Whether a fault says no more than that its operation failed: `502: Bad Gateway`, `POST /chats/7 - 502`.
fn says_only_that_it_failed(fault: &Fault, operation: &str) -> bool {
    const NOTHING: [&str; 37] = [
        "a", "an", "and", "answered", "bad", "code", "ended", "error", "errors", "fail", "failed", "failure",
        "gateway", "http", "https", "internal", "in", "message", "ms", "no", "request", "response", "returned",
        "server", "service", "span", "status", "the", "upstream", "with", "delete", "get", "head", "options", "patch",
        "post", "put",
    ];
    let is_number = |word: &str| word.trim_end_matches("ms").bytes().all(|byte| byte.is_ascii_digit());
    let empty = |text: &str| {
        let places = |word: &&str| !word.starts_with('/') && !word.contains("://");
        clip(text)
            .split_whitespace()
            .filter(places)
            .flat_map(words_of)
            .all(|word| {
                let lower = word.to_ascii_lowercase();
                NOTHING.contains(&lower.as_str())
                    || is_number(&lower)
                    || words_of(clip(operation)).any(|known| known == word)
            })
    };
    fault.stack.is_none() && empty(&fault.message) && (fault.source != FaultSource::Event || empty(&fault.kind))
}

/// What a mark says, in all its wordings.
fn words(mark: &Mark) -> impl Iterator<Item = &str> {
    std::iter::once(&mark.fault)
        .chain(&mark.also)
        .map(|fault| clip(&fault.message))
        .filter(|text| !text.is_empty())
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
}

fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(COMPARED_BYTES)]
}
