//! Why: a connector that counts finds, for each item, the series that it belongs to. A [`Table`] finds it by the encoded attributes without allocating, knows
//! which series have changed since the last commit, and has bounds in number and bytes: what would go beyond them is counted in one series of its own.

use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use model::view::AnyValue;
use model::wire::{self, Fields, Payload, put_bytes, put_fixed64, put_tag, put_varint};
use model::write::Attributes;

use crate::budget::{Budget, Lease};
use crate::stage::State;

/// How many series a metric has at most, unless told otherwise. Backends bear it, and so does the OpenTelemetry SDKs' own limit.
pub const DEFAULT_MAX_SERIES: usize = 2_000;

/// The longest text that becomes the value of a dimension, in bytes; the rest is cut off. Backends refuse labels that are longer than one or two KiB.
pub const MAX_VALUE_BYTES: usize = 1 << 10;

/// Of a table that is full, series that nobody touched for this long make room: their sender is most likely gone.
pub const IDLE_NANOS: u64 = 3_600_000_000_000;

/// What all series and resources hold at most, in bytes, so that their state is far from the largest record of the journal.
pub const MAX_HELD_BYTES: usize = 24 << 20;

/// What a series holds beside its key and histogram, in bytes.
pub const ROW_BYTES: usize = 160;

/// The attribute, `true`, of the series that counts what is beyond the bound (OpenTelemetry specification, "Cardinality limits").
pub const OVERFLOW: &str = "otel.metric.overflow";

/// A series: who it belongs to, its encoded attributes (as fields of number 7), when it began and was last touched, and what it counts.
#[derive(Debug, Clone)]
pub struct Row<V> {
    /// A number that the owner of the table gives a meaning; the same attributes of two owners are two series.
    pub owner: u32,
    pub key: Box<[u8]>,
    pub start_unix_nano: u64,
    pub touched_unix_nano: u64,
    pub value: V,
    /// Whether it is in the list of those that have changed.
    is_listed: bool,
}

/// The series of one metric, or of several with the same attributes.
#[derive(Debug)]
pub struct Table<V> {
    rows: Vec<Row<V>>,
    by_key: HashTable<u32>,
    hasher: RandomState,
    /// Which rows have changed since they were last asked for.
    changed: Vec<u32>,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Table {
            rows: Vec::new(),
            by_key: HashTable::new(),
            hasher: RandomState::default(),
            changed: Vec::new(),
        }
    }
}

impl<V> Table<V> {
    pub fn rows(&self) -> &[Row<V>] {
        &self.rows
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn get(&self, index: usize) -> Option<&Row<V>> {
        self.rows.get(index)
    }

    pub fn each_value(&mut self, mut visit: impl FnMut(&mut V)) {
        for row in &mut self.rows {
            visit(&mut row.value);
        }
    }

    fn hash(hasher: &RandomState, owner: u32, key: &[u8]) -> u64 {
        hasher.hash_one((owner, key))
    }

    /// The series of these attributes, which is touched by it.
    #[inline]
    pub fn find(&mut self, owner: u32, key: &[u8], now_unix_nano: u64) -> Option<&mut Row<V>> {
        let index = self.index(owner, key)?;
        Some(self.touch(index, now_unix_nano))
    }

    /// The index of the series of these attributes.
    #[inline]
    pub fn index(&self, owner: u32, key: &[u8]) -> Option<u32> {
        let hash = Table::<V>::hash(&self.hasher, owner, key);
        let rows = &self.rows;
        let found = self.by_key.find(hash, |index| {
            let row = &rows[*index as usize];
            row.owner == owner && *row.key == *key
        });
        found.copied()
    }

    /// Notes that a series changes.
    #[inline]
    pub fn touch(&mut self, index: u32, now_unix_nano: u64) -> &mut Row<V> {
        let row = &mut self.rows[index as usize];
        row.touched_unix_nano = now_unix_nano;
        if !row.is_listed {
            row.is_listed = true;
            self.changed.push(index);
        }
        row
    }

    /// Makes a series, or finds the one that is there.
    pub fn insert(&mut self, owner: u32, key: &[u8], now_unix_nano: u64, value: impl FnOnce() -> V) -> &mut Row<V> {
        let Table {
            rows, by_key, hasher, ..
        } = self;
        let hash = Table::<V>::hash(hasher, owner, key);
        let entry = by_key.entry(
            hash,
            |index| rows[*index as usize].owner == owner && *rows[*index as usize].key == *key,
            |index| Table::<V>::hash(hasher, rows[*index as usize].owner, &rows[*index as usize].key),
        );
        let index = match entry {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(free) => {
                let index = rows.len() as u32;
                free.insert(index);
                rows.push(Row {
                    owner,
                    key: key.into(),
                    start_unix_nano: now_unix_nano,
                    touched_unix_nano: now_unix_nano,
                    value: value(),
                    is_listed: false,
                });
                index
            }
        };
        self.touch(index, now_unix_nano)
    }

    /// What is remembered of a series: it replaces the one of this index, or is the next.
    pub fn restore(&mut self, index: usize, row: Remembered<V>) -> bool {
        if let Some(known) = self.rows.get_mut(index) {
            known.touched_unix_nano = row.touched_unix_nano;
            known.value = row.value;
            return true;
        }
        let is_next = index == self.rows.len();
        if is_next {
            let made = self.insert(row.owner, &row.key, row.start_unix_nano, || row.value);
            made.touched_unix_nano = row.touched_unix_nano;
        }
        is_next && self.rows.len() == index + 1
    }

    /// The rows that have changed since the last call, as indices.
    pub fn take_changed(&mut self) -> Vec<u32> {
        let changed = std::mem::take(&mut self.changed);
        for index in &changed {
            if let Some(row) = self.rows.get_mut(*index as usize) {
                row.is_listed = false;
            }
        }
        changed
    }

    /// Removes the rows that `is_kept` says no to. Others get other indices: what is remembered next has to be everything.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&Row<V>) -> bool) -> bool {
        let before = self.rows.len();
        self.rows.retain(|row| is_kept(row));
        if self.rows.len() == before {
            return false;
        }
        self.rehash();
        true
    }

    /// Gives rows other owners.
    pub fn renumber(&mut self, mut owner: impl FnMut(u32) -> u32) {
        for row in &mut self.rows {
            row.owner = owner(row.owner);
        }
        self.rehash();
    }

    fn rehash(&mut self) {
        let Table {
            rows,
            by_key,
            hasher,
            changed,
        } = self;
        by_key.clear();
        changed.clear();
        for (index, row) in rows.iter_mut().enumerate() {
            row.is_listed = true;
            changed.push(index as u32);
        }
        let hash = |index: u32| {
            let row = &rows[index as usize];
            Table::<V>::hash(hasher, row.owner, &row.key)
        };
        for index in 0..rows.len() as u32 {
            by_key.insert_unique(hash(index), index, |index| hash(*index));
        }
    }
}

/// What is remembered of a series; `key` and `owner` count only where it is new.
pub struct Remembered<V> {
    pub owner: u32,
    pub key: Box<[u8]>,
    pub start_unix_nano: u64,
    pub touched_unix_nano: u64,
    pub value: V,
}

/// The longest beginning of a text that is a value.
#[inline]
pub fn cut(text: &str) -> &str {
    if text.len() <= MAX_VALUE_BYTES {
        return text;
    }
    let end = (0..=MAX_VALUE_BYTES).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Appends an attribute to a key: texts are cut at their bound, and what is longer and no text is left out.
#[inline]
pub fn put_value(key: &mut Vec<u8>, name: &str, value: AnyValue<'_>) {
    let mut attributes = Attributes::new(key, 7);
    match value {
        AnyValue::Str(text) => attributes.text(name, cut(text)),
        AnyValue::Bytes(bytes) if bytes.len() > MAX_VALUE_BYTES => {}
        AnyValue::Array(list) if list.stretch().len() > MAX_VALUE_BYTES => {}
        AnyValue::KvList(list) if list.stretch().len() > MAX_VALUE_BYTES => {}
        value => attributes.value(name, value),
    }
}

/// Makes the key of the series that counts what is beyond the bounds.
pub fn put_overflow(key: &mut Vec<u8>) {
    key.clear();
    Attributes::new(key, 7).bool(OVERFLOW, true);
}

/// What is held, against the bounds.
#[derive(Debug, Default)]
pub struct Held {
    pub bytes: usize,
    lease: Option<Lease>,
    has_told_of_overflow: bool,
}

impl Held {
    /// Counts it in a child of the budget from now on.
    pub fn start(&mut self, budget: &Budget, component: &Arc<str>) {
        let own = budget.child(Arc::clone(component), MAX_HELD_BYTES as u64);
        self.lease = Some(own.charge(self.bytes as u64));
    }

    /// Makes room for a new series or resource, or says that there is none.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let may =
            self.bytes + bytes <= MAX_HELD_BYTES && self.lease.as_mut().is_none_or(|lease| lease.grow(bytes as u64));
        if may {
            self.bytes += bytes;
        }
        may
    }

    /// Counts what is there whether or not there is room.
    pub fn charge(&mut self, bytes: usize) {
        self.bytes += bytes;
        if let Some(lease) = &mut self.lease {
            lease.charge(bytes as u64);
        }
    }

    /// Gives back what was for something that is gone.
    pub fn release(&mut self, bytes: usize) {
        self.shrink(self.bytes.saturating_sub(bytes));
    }

    pub fn shrink(&mut self, to: usize) {
        self.bytes = to;
        if let Some(lease) = &mut self.lease {
            lease.shrink(to as u64);
        }
    }

    pub fn tell_of_overflow(&mut self, component: &str) {
        if !std::mem::replace(&mut self.has_told_of_overflow, true) {
            tracing::warn!(
                component,
                "there are more series than the bound; what is beyond is counted in the series with {OVERFLOW}"
            );
        }
    }
}

pub fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_tag(out, number, wire::VARINT);
    put_varint(out, value);
}

/// Writes a row: 1 table, 2 index, 3 owner, 4 key, 5 start, 6 when it was touched, and its value from 7 on.
pub fn put_row<V>(
    out: &mut Vec<u8>,
    field: u32,
    table: usize,
    index: u32,
    row: &Row<V>,
    value: impl FnOnce(&mut Vec<u8>),
) {
    put_tag(out, field, wire::BYTES);
    let open = wire::open_length(out, row.key.len() + 100);
    put_number(out, 1, table as u64);
    put_number(out, 2, u64::from(index));
    put_number(out, 3, u64::from(row.owner));
    put_bytes(out, 4, &row.key);
    put_fixed64(out, 5, row.start_unix_nano);
    put_fixed64(out, 6, row.touched_unix_nano);
    value(out);
    wire::close_length(out, open);
}

/// What [`put_row`] wrote.
pub struct RememberedRow<'a> {
    bytes: &'a [u8],
    pub table: usize,
    pub index: usize,
    owner: u32,
    pub key: &'a [u8],
    start_unix_nano: u64,
    touched_unix_nano: u64,
}

impl<'a> RememberedRow<'a> {
    pub fn read(bytes: &'a [u8]) -> RememberedRow<'a> {
        let mut row = RememberedRow {
            bytes,
            table: 0,
            index: 0,
            owner: 0,
            key: &[],
            start_unix_nano: 0,
            touched_unix_nano: 0,
        };
        for (number, payload) in Fields::new(bytes) {
            match number {
                1 => row.table = payload.varint() as usize,
                2 => row.index = payload.varint() as usize,
                3 => row.owner = payload.varint() as u32,
                4 => row.key = payload.bytes(),
                5 => row.start_unix_nano = payload.fixed64(),
                6 => row.touched_unix_nano = payload.fixed64(),
                _ => break,
            }
        }
        row
    }

    pub fn field(&self, wanted: u32) -> Payload<'a> {
        let field = Fields::new(self.bytes).find(|(number, _)| *number == wanted);
        field.map_or(Payload::Varint(0), |(_, payload)| payload)
    }

    pub fn with<V>(&self, value: V) -> Remembered<V> {
        Remembered {
            owner: self.owner,
            key: self.key.into(),
            start_unix_nano: self.start_unix_nano,
            touched_unix_nano: self.touched_unix_nano,
            value,
        }
    }
}

/// A change that makes all changes since the last whole longer than that by this factor is told as a whole: reading a state costs at most so much more.
const MAX_CHANGES: usize = 2;

/// Changes up to this many bytes are not worth a whole.
pub const FREE_CHANGES_BYTES: usize = 64 << 10;

/// Whether a state is told as a whole or as a change.
#[derive(Debug)]
pub struct Telling {
    /// Whether rows have moved since the state was last told, so that a change would name the wrong ones. The first state is whole too.
    pub has_moved: bool,
    whole_bytes: usize,
    bytes_since_whole: usize,
}

impl Default for Telling {
    fn default() -> Self {
        Telling {
            has_moved: true,
            whole_bytes: 0,
            bytes_since_whole: 0,
        }
    }
}

impl Telling {
    /// The state, encoded as a whole or as a change.
    pub fn state(&mut self, mut encode: impl FnMut(bool) -> Vec<u8>) -> State {
        let mut bytes = encode(self.has_moved);
        self.bytes_since_whole += bytes.len();
        let is_late = self.bytes_since_whole > FREE_CHANGES_BYTES + MAX_CHANGES * self.whole_bytes;
        if is_late && !self.has_moved {
            bytes = encode(true);
        }
        if is_late || std::mem::take(&mut self.has_moved) {
            self.has_moved = false;
            self.whole_bytes = bytes.len();
            self.bytes_since_whole = 0;
            return State::Whole(Bytes::from(bytes));
        }
        State::Change(Bytes::from(bytes))
    }
}
