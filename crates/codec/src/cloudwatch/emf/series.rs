//! What cumulative series were at, so that what was added can be told.
//!
//! It lives in memory: after a restart the first point of each series is what the next one is compared with, and what was added in between is not told.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use model::view::Attributes;

use super::value::Observed;

/// What is remembered altogether: a sum takes about 100 bytes, a histogram of 12 buckets 400, so this is ten times what the owner's budget allows.
const MAX_STATE_BYTES: usize = 64 << 20;

/// What a series takes beside its buckets, the table's share included.
const SERIES_BYTES: usize = 96;

/// A series without a point for this long is forgotten.
const EXPIRY_NANOS: u64 = 3_600_000_000_000;

/// How often it is looked whether some are to be forgotten.
const LOOK_NANOS: u64 = EXPIRY_NANOS / 12;

/// Two hashes of 64 bits with secrets of this process: that two series share both does not happen.
pub(super) type Hashes = [u64; 2];

/// What makes a series.
pub(super) struct Key<'a> {
    /// Of the resource, the scope and the metric's name: two instances of a service are two series, even where their labels are the same.
    pub origin: Hashes,
    pub attributes: Attributes<'a>,
}

/// How a point stands to what was before.
#[derive(Debug, PartialEq)]
pub(super) enum Adjusted<T> {
    /// The first one.
    First,
    Added(T),
    /// The series has begun anew: all of it was added.
    Anew,
    /// Not newer than what is known.
    Old,
    /// There is no room to remember it.
    Full,
}

#[derive(Debug)]
struct Last {
    at: Whole,
    time_unix_nano: u64,
    seen_at_unix_nano: u64,
}

#[derive(Debug)]
enum Whole {
    Number(f64),
    Observed(Box<Observed>),
}

#[derive(Debug, Default)]
pub(super) struct Series {
    last: HashMap<Hashes, Last, RandomState>,
    /// What `last` takes.
    bytes: usize,
    secrets: [RandomState; 2],
    looked_at_unix_nano: u64,
}

impl Whole {
    fn bytes(&self) -> usize {
        match self {
            Whole::Number(_) => SERIES_BYTES,
            Whole::Observed(observed) => {
                SERIES_BYTES + size_of::<Observed>() + 8 * (observed.counts.len() + observed.bounds.len())
            }
        }
    }
}

impl Series {
    pub fn len(&self) -> usize {
        self.last.len()
    }

    /// Forgets what has had no point for long.
    pub fn expire(&mut self, now_unix_nano: u64) {
        if now_unix_nano.abs_diff(self.looked_at_unix_nano) < LOOK_NANOS {
            return;
        }
        self.looked_at_unix_nano = now_unix_nano;
        self.last
            .retain(|_, last| now_unix_nano.saturating_sub(last.seen_at_unix_nano) < EXPIRY_NANOS);
        self.bytes = self.last.values().map(|last| last.at.bytes()).sum();
    }

    /// `span` is the point's start, 0 if it has none, and time.
    pub fn number(&mut self, key: Key<'_>, span: (u64, u64), value: f64, now_unix_nano: u64) -> Adjusted<f64> {
        let added = |last: &Whole| match last {
            Whole::Number(before) if value >= *before => Some(value - before),
            _ => None,
        };
        self.adjust(key, span, now_unix_nano, Whole::Number(value), added)
    }

    pub fn observed(
        &mut self,
        key: Key<'_>,
        span: (u64, u64),
        value: &Observed,
        now_unix_nano: u64,
    ) -> Adjusted<Observed> {
        let added = |last: &Whole| match last {
            Whole::Observed(before) => value.since(before),
            Whole::Number(_) => None,
        };
        self.adjust(
            key,
            span,
            now_unix_nano,
            Whole::Observed(Box::new(value.clone())),
            added,
        )
    }

    fn adjust<T>(
        &mut self,
        key: Key<'_>,
        (start, time): (u64, u64),
        now_unix_nano: u64,
        at: Whole,
        added: impl FnOnce(&Whole) -> Option<T>,
    ) -> Adjusted<T> {
        let key = self.hashed(&key);
        let new = Last {
            at,
            time_unix_nano: time,
            seen_at_unix_nano: now_unix_nano,
        };
        let Some(last) = self.last.get_mut(&key) else {
            if self.bytes + new.at.bytes() > MAX_STATE_BYTES {
                return Adjusted::Full;
            }
            self.bytes += new.at.bytes();
            self.last.insert(key, new);
            return Adjusted::First;
        };
        if time <= last.time_unix_nano {
            return Adjusted::Old;
        }
        let has_restarted = start > last.time_unix_nano;
        let added = added(&last.at).filter(|_| !has_restarted);
        self.bytes = self.bytes.saturating_sub(last.at.bytes()) + new.at.bytes();
        *last = new;
        added.map_or(Adjusted::Anew, Adjusted::Added)
    }

    /// Hashes that stand for what came before and for these bytes.
    pub fn hashes(&self, before: Hashes, bytes: &[u8]) -> Hashes {
        let hash = |at: usize| self.secrets[at].hash_one((before, bytes));
        [hash(0), hash(1)]
    }

    fn hashed(&self, key: &Key<'_>) -> Hashes {
        // The order of attributes is the sender's.
        let mut attributes: Vec<(&str, Vec<u8>)> = key
            .attributes
            .iter()
            .map(|pair| {
                let mut text = Vec::new();
                crate::value_text::write_json(&pair.value, &mut text);
                (pair.key, text)
            })
            .collect();
        attributes.sort_unstable();
        let hash = |at: usize| self.secrets[at].hash_one((key.origin, &attributes));
        [hash(0), hash(1)]
    }
}
