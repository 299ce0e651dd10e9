//! Fresh rows: an immutable block per append and day, columnar from the start, and the builder that an append fills.
//!
//! Attributes are sparse (row numbers and values); what resource and scope say is kept once per context and spread over rows when read.

use std::sync::Arc;

use crate::column::{Kind, Level, MAX_COLUMNS, Spec, column_name, fixed};
use crate::frame::{Column, Data, Frame};
use crate::texts::{Interner, Texts, hash_seeded};
use crate::{Dataset, Day};

/// An attribute key longer than this goes to `rest:json`: as a column name it would weigh on every footer.
const MAX_KEY_BYTES: usize = 256;

/// Which rows a column's values belong to.
#[derive(Debug)]
pub enum At {
    /// One value for each row.
    Every,
    /// One for each row named, ascending.
    Rows(Vec<u32>),
    /// One for each context named, ascending.
    Contexts(Vec<u32>),
}

/// Values in the order of `At`.
#[derive(Debug)]
pub enum Values {
    Codes(Vec<u32>, Arc<Texts>),
    Words(Vec<u64>),
    Id8(Vec<[u8; 8]>),
    Id16(Vec<[u8; 16]>),
}

#[derive(Debug)]
pub struct BlockColumn {
    pub spec: Spec,
    pub at: At,
    pub values: Values,
}

impl BlockColumn {
    pub fn len(&self) -> usize {
        match &self.values {
            Values::Codes(codes, _) => codes.len(),
            Values::Words(words) => words.len(),
            Values::Id8(ids) => ids.len(),
            Values::Id16(ids) => ids.len(),
        }
    }
}

/// Rows of one append and day.
#[derive(Debug)]
pub struct Block {
    pub dataset: Dataset,
    pub day: Day,
    pub rows: usize,
    /// The context (resource and scope) of each row.
    pub contexts: Vec<u32>,
    pub context_count: usize,
    pub columns: Vec<BlockColumn>,
    pub min_time: u64,
    pub max_time: u64,
    pub memory_bytes: u64,
}

impl Block {
    pub fn find(&self, name: &str) -> Option<&BlockColumn> {
        self.columns.iter().find(|c| &*c.spec.name == name)
    }

    pub fn times(&self) -> &[u64] {
        match &self.columns[fixed::TIME].values {
            Values::Words(times) => times,
            _ => &[],
        }
    }

    pub fn trace_ids(&self) -> Option<(&At, &[[u8; 16]])> {
        match &self.columns[fixed::TRACE_ID] {
            BlockColumn {
                at,
                values: Values::Id16(ids),
                ..
            } => Some((at, ids)),
            _ => None,
        }
    }

    /// A column spread over all rows.
    pub fn dense(&self, column: &BlockColumn) -> Data {
        // A context column is first spread over contexts, then looked up per row.
        match &column.values {
            Values::Codes(codes, texts) => Data::Text {
                codes: self.spread(&column.at, codes),
                texts: Arc::clone(texts),
                plain: false,
            },
            Values::Words(words) => Data::Words {
                values: self.spread(&column.at, words),
                present: self.present(&column.at),
            },
            Values::Id8(ids) => Data::Ids {
                width: 8,
                bytes: self.spread(&column.at, ids).into_flattened(),
                present: self.present(&column.at),
            },
            Values::Id16(ids) => Data::Ids {
                width: 16,
                bytes: self.spread(&column.at, ids).into_flattened(),
                present: self.present(&column.at),
            },
        }
    }

    fn spread<T: Copy + Default>(&self, at: &At, values: &[T]) -> Vec<T> {
        match at {
            At::Every => values.to_vec(),
            At::Rows(rows) => {
                let mut out = vec![T::default(); self.rows];
                for (&row, &value) in rows.iter().zip(values) {
                    out[row as usize] = value;
                }
                out
            }
            At::Contexts(contexts) => {
                let mut by_context = vec![T::default(); self.context_count];
                for (&context, &value) in contexts.iter().zip(values) {
                    by_context[context as usize] = value;
                }
                self.contexts.iter().map(|&c| by_context[c as usize]).collect()
            }
        }
    }

    fn present(&self, at: &At) -> Option<Vec<bool>> {
        let ones = match at {
            At::Every => return None,
            At::Rows(rows) => vec![true; rows.len()],
            At::Contexts(contexts) => vec![true; contexts.len()],
        };
        Some(self.spread(at, &ones))
    }

    /// The named columns (all, if `None`) spread over all rows.
    pub fn frame(&self, wanted: impl Fn(&Spec) -> bool) -> Frame {
        Frame {
            rows: self.rows,
            columns: self
                .columns
                .iter()
                .filter(|c| c.len() > 0 && wanted(&c.spec))
                .map(|c| Column {
                    spec: c.spec.clone(),
                    data: self.dense(c),
                })
                .collect(),
        }
    }
}

const NONE: u32 = u32::MAX;

struct Building {
    spec: Spec,
    /// The attribute's key; empty for the dataset's own columns.
    key: Box<str>,
    level: Level,
    every: bool,
    rows: Vec<u32>,
    interner: Interner,
    codes: Vec<u32>,
    words: Vec<u64>,
    /// The column that followed this one last time: spans of one kind repeat their layout.
    next: u32,
}

/// Fills one block; kept between appends for its tables.
pub struct Builder {
    dataset: Dataset,
    columns: Vec<Building>,
    /// Open addressing over the attribute columns; `NONE` is free.
    slots: Vec<u32>,
    /// What follows the beginning of a row, and of a context.
    first: [u32; 4],
    trace_ids: Vec<[u8; 16]>,
    trace_rows: Vec<u32>,
    span_ids: Vec<[u8; 8]>,
    span_rows: Vec<u32>,
    parents: Vec<[u8; 8]>,
    parent_rows: Vec<u32>,
    contexts: Vec<u32>,
    context_count: u32,
    rest: String,
    min_time: u64,
    max_time: u64,
}

const KEY_SEED: u64 = 0x636f_6c75_6d6e;

impl Builder {
    pub fn new(dataset: Dataset) -> Self {
        let columns = dataset
            .fixed()
            .iter()
            .enumerate()
            .map(|(index, f)| Building {
                spec: Spec {
                    name: Arc::from(f.name),
                    kind: f.kind,
                    required: f.required,
                },
                key: Box::from(""),
                level: Level::Attr,
                every: f.required,
                rows: Vec::new(),
                interner: Interner::default(),
                codes: Vec::new(),
                words: Vec::new(),
                next: index as u32,
            })
            .collect();
        Self {
            dataset,
            columns,
            slots: vec![NONE; 64],
            first: [NONE; 4],
            trace_ids: Vec::new(),
            trace_rows: Vec::new(),
            span_ids: Vec::new(),
            span_rows: Vec::new(),
            parents: Vec::new(),
            parent_rows: Vec::new(),
            contexts: Vec::new(),
            context_count: 0,
            rest: String::new(),
            min_time: u64::MAX,
            max_time: 0,
        }
    }

    pub fn dataset(&self) -> Dataset {
        self.dataset
    }

    fn row(&self) -> u32 {
        self.contexts.len() as u32
    }

    /// Begins the next context: values put with `context_*` belong to it.
    pub fn begin_context(&mut self) -> u32 {
        self.context_count += 1;
        self.context_count - 1
    }

    pub fn trace_id(&mut self, id: [u8; 16]) {
        self.trace_rows.push(self.row());
        self.trace_ids.push(id);
    }

    pub fn span_id(&mut self, id: [u8; 8]) {
        self.span_rows.push(self.row());
        self.span_ids.push(id);
    }

    pub fn parent(&mut self, id: [u8; 8]) {
        self.parent_rows.push(self.row());
        self.parents.push(id);
    }

    pub fn time(&mut self, unix_nano: u64) {
        self.min_time = self.min_time.min(unix_nano);
        self.max_time = self.max_time.max(unix_nano);
        self.columns[fixed::TIME].words.push(unix_nano);
    }

    /// A value of one of the dataset's own columns for the current row.
    #[inline]
    pub fn text(&mut self, column: usize, text: &str) {
        let row = self.row();
        self.put_text(column, row, text);
    }

    /// The same, if it is not the default that absence stands for.
    #[inline]
    pub fn text_unless_empty(&mut self, column: usize, text: &str) {
        if !text.is_empty() {
            self.text(column, text);
        }
    }

    #[inline]
    pub fn word(&mut self, column: usize, word: u64) {
        let row = self.row();
        self.put_word(column, row, word);
    }

    #[inline]
    pub fn word_unless_zero(&mut self, column: usize, word: u64) {
        if word != 0 {
            self.word(column, word);
        }
    }

    /// A value of one of the dataset's own columns for the current context.
    pub fn context_text(&mut self, column: usize, text: &str) {
        if !text.is_empty() {
            self.put_text(column, self.context_count - 1, text);
        }
    }

    pub fn context_word(&mut self, column: usize, word: u64) {
        if word != 0 {
            self.put_word(column, self.context_count - 1, word);
        }
    }

    /// The stream of the current context, which every context has.
    pub fn context_stream(&mut self, stream: u64) {
        self.columns[fixed::STREAM].words.push(stream);
    }

    #[inline]
    fn put_text(&mut self, column: usize, at: u32, text: &str) {
        let column = &mut self.columns[column];
        if !column.every {
            column.rows.push(at);
        }
        let code = column.interner.code(text);
        column.codes.push(code);
    }

    #[inline]
    fn put_word(&mut self, column: usize, at: u32, word: u64) {
        let column = &mut self.columns[column];
        if !column.every {
            column.rows.push(at);
        }
        column.words.push(word);
    }

    /// Where the walk over a row's attributes of a level begins.
    #[inline]
    pub fn start(&self, level: Level) -> Cursor {
        Cursor { level, previous: NONE }
    }

    fn owner(&self, level: Level) -> u32 {
        match level {
            Level::Attr | Level::Body => self.row(),
            Level::Resource | Level::Scope => self.context_count - 1,
        }
    }

    #[inline]
    pub fn attribute_text(&mut self, cursor: &mut Cursor, key: &str, kind: Kind, text: &str) {
        match self.find(cursor, key, kind) {
            Some(column) => {
                let at = self.owner(cursor.level);
                self.put_text(column, at, text);
            }
            None => {
                let mut value = String::new();
                if kind == Kind::Json {
                    value.push_str(text);
                } else {
                    crate::json::write_text(&mut value, text);
                }
                self.put_rest(cursor.level, key, &value);
            }
        }
    }

    /// An attribute whose text is the row's trace id.
    pub fn attribute_trace_id(&mut self, cursor: &mut Cursor, key: &str, text: &str) {
        match self.find(cursor, key, Kind::TraceHex) {
            Some(column) => {
                let row = self.row();
                self.put_word(column, row, 1);
            }
            None => self.attribute_text(cursor, key, Kind::Text, text),
        }
    }

    #[inline]
    pub fn attribute_word(&mut self, cursor: &mut Cursor, key: &str, kind: Kind, word: u64) {
        match self.find(cursor, key, kind) {
            Some(column) => {
                let at = self.owner(cursor.level);
                self.put_word(column, at, word);
            }
            None => {
                let mut value = String::new();
                crate::json::write_value(&mut value, &crate::column::word_value(kind, word));
                self.put_rest(cursor.level, key, &value);
            }
        }
    }

    fn put_rest(&mut self, level: Level, key: &str, json: &str) {
        self.rest.push(if self.rest.is_empty() { '{' } else { ',' });
        crate::json::write_key(&mut self.rest, &format!("{}{key}", level.prefix()));
        self.rest.push_str(json);
    }

    /// The rest of a context is repeated on each of its rows: contexts that wide are rare, and rows are what queries read.
    pub fn take_rest(&mut self) -> String {
        std::mem::take(&mut self.rest)
    }

    /// Puts the context's rest in front of the current row's.
    pub fn context_rest(&mut self, rest: &str) {
        self.rest.push_str(rest);
    }

    /// Ends the current row.
    #[inline]
    pub fn end_row(&mut self, context: u32) {
        if !self.rest.is_empty() {
            self.rest.push('}');
            let rest = std::mem::take(&mut self.rest);
            self.text(fixed::REST, &rest);
        }
        self.contexts.push(context);
    }

    #[inline]
    fn find(&mut self, cursor: &mut Cursor, key: &str, kind: Kind) -> Option<usize> {
        let guess = match cursor.previous {
            NONE => self.first[cursor.level as usize],
            previous => self.columns[previous as usize].next,
        };
        if let Some(column) = self.columns.get(guess as usize)
            && column.level == cursor.level
            && column.spec.kind == kind
            && *column.key == *key
            && guess as usize >= self.dataset.fixed().len()
        {
            cursor.previous = guess;
            return Some(guess as usize);
        }
        let found = self.look_up(cursor.level, key, kind)?;
        match cursor.previous {
            NONE => self.first[cursor.level as usize] = found,
            previous => self.columns[previous as usize].next = found,
        }
        cursor.previous = found;
        Some(found as usize)
    }

    fn look_up(&mut self, level: Level, key: &str, kind: Kind) -> Option<u32> {
        let seed = KEY_SEED ^ (level as u64) << 8 ^ (kind as u64);
        let mask = self.slots.len() - 1;
        let mut at = hash_seeded(key.as_bytes(), seed) as usize & mask;
        loop {
            match self.slots[at] {
                NONE => break,
                index => {
                    let column = &self.columns[index as usize];
                    if column.level == level && column.spec.kind == kind && *column.key == *key {
                        return Some(index);
                    }
                }
            }
            at = (at + 1) & mask;
        }
        if self.columns.len() >= MAX_COLUMNS || key.len() > MAX_KEY_BYTES {
            return None;
        }
        let index = self.columns.len() as u32;
        self.columns.push(Building {
            spec: Spec {
                name: Arc::from(column_name(level, key, kind)),
                kind,
                required: false,
            },
            key: Box::from(key),
            level,
            every: false,
            rows: Vec::new(),
            interner: Interner::default(),
            codes: Vec::new(),
            words: Vec::new(),
            next: NONE,
        });
        self.slots[at] = index;
        if self.columns.len() * 2 > self.slots.len() {
            self.rehash();
        }
        Some(index)
    }

    fn rehash(&mut self) {
        let size = self.slots.len() * 4;
        self.slots.clear();
        self.slots.resize(size, NONE);
        for (index, column) in self.columns.iter().enumerate().skip(self.dataset.fixed().len()) {
            let seed = KEY_SEED ^ (column.level as u64) << 8 ^ (column.spec.kind as u64);
            let mut at = hash_seeded(column.key.as_bytes(), seed) as usize & (size - 1);
            while self.slots[at] != NONE {
                at = (at + 1) & (size - 1);
            }
            self.slots[at] = index as u32;
        }
    }

    /// The block of what was put, leaving the builder ready for the next; `None` if there were no rows.
    pub fn finish(&mut self, day: Day) -> Option<Block> {
        let rows = self.contexts.len();
        let mut columns = Vec::with_capacity(self.columns.len());
        for (index, column) in self.columns.iter_mut().enumerate() {
            let fixed_column = index < self.dataset.fixed().len();
            let is_context = matches!(column.level, Level::Resource | Level::Scope)
                || (fixed::SCOPE_NAME..=fixed::RESOURCE_SCHEMA_URL).contains(&index)
                || (self.dataset == Dataset::Logs && index == fixed::STREAM);
            let (at, values) = match (self.dataset, index) {
                (Dataset::Traces, fixed::TRACE_ID) => {
                    self.trace_rows.clear();
                    (At::Every, Values::Id16(renew(&mut self.trace_ids)))
                }
                (_, fixed::TRACE_ID) => (
                    At::Rows(renew(&mut self.trace_rows)),
                    Values::Id16(renew(&mut self.trace_ids)),
                ),
                (Dataset::Traces, fixed::SPAN_ID) => {
                    self.span_rows.clear();
                    (At::Every, Values::Id8(renew(&mut self.span_ids)))
                }
                (_, fixed::SPAN_ID) => (
                    At::Rows(renew(&mut self.span_rows)),
                    Values::Id8(renew(&mut self.span_ids)),
                ),
                (Dataset::Traces, fixed::PARENT) => (
                    At::Rows(renew(&mut self.parent_rows)),
                    Values::Id8(renew(&mut self.parents)),
                ),
                _ => {
                    let at = match (column.every && !is_context, is_context) {
                        (true, _) => At::Every,
                        (_, true) if column.every => At::Contexts((0..self.context_count).collect()),
                        (_, true) => At::Contexts(renew(&mut column.rows)),
                        _ => At::Rows(renew(&mut column.rows)),
                    };
                    let values = if column.spec.kind.is_text() {
                        Values::Codes(renew(&mut column.codes), Arc::new(column.interner.take()))
                    } else {
                        Values::Words(renew(&mut column.words))
                    };
                    (at, values)
                }
            };
            let column = BlockColumn {
                spec: column.spec.clone(),
                at,
                values,
            };
            if fixed_column || column.len() > 0 {
                columns.push(column);
            }
        }
        let contexts = renew(&mut self.contexts);
        let context_count = std::mem::take(&mut self.context_count) as usize;
        let (min_time, max_time) = (self.min_time, self.max_time);
        self.min_time = u64::MAX;
        self.max_time = 0;
        self.rest.clear();
        if self.columns.len() >= MAX_COLUMNS {
            // Keys of earlier appends must not crowd out those of the next.
            *self = Builder::new(self.dataset);
        }
        if rows == 0 {
            return None;
        }
        let memory_bytes = columns.iter().map(column_bytes).sum::<usize>() + contexts.len() * 4;
        Some(Block {
            dataset: self.dataset,
            day,
            rows,
            contexts,
            context_count,
            columns,
            min_time,
            max_time,
            memory_bytes: memory_bytes as u64,
        })
    }
}

/// The place in a row's attributes: what came before predicts what comes next.
pub struct Cursor {
    level: Level,
    previous: u32,
}

/// Takes a vector and leaves one of about the room that the next append needs.
fn renew<T>(vector: &mut Vec<T>) -> Vec<T> {
    let room = vector.len();
    std::mem::replace(vector, Vec::with_capacity(room))
}

fn column_bytes(column: &BlockColumn) -> usize {
    let at = match &column.at {
        At::Every => 0,
        At::Rows(rows) | At::Contexts(rows) => rows.capacity() * 4,
    };
    let values = match &column.values {
        Values::Codes(codes, texts) => codes.capacity() * 4 + texts.memory_bytes(),
        Values::Words(words) => words.capacity() * 8,
        Values::Id8(ids) => ids.capacity() * 8,
        Values::Id16(ids) => ids.capacity() * 16,
    };
    at + values + size_of::<BlockColumn>()
}
