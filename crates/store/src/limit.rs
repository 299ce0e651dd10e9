//! How much one read of a trace may hold, and whether it should go on: an id is chosen by whoever sends, so one trace
//! can be as large as the store.

use std::sync::Arc;

use model::record::{Attributes, LogRecord, SpanRecord, Value};

use crate::error::ReadError;

/// Rows turned into records at once: between two such steps a read asks whether it should go on, and whether what it
/// has is still within its bound.
pub(crate) const STEP_ROWS: usize = 8 * 1024;

/// The bounds on one read.
pub struct Limit<'a> {
    /// Records returned at most.
    pub rows: usize,
    /// Memory that the records take, about; the last step may pass it.
    pub bytes: usize,
    /// Asked between steps. Once it says no, the read ends with `ReadError::Stopped`.
    pub go_on: &'a dyn Fn() -> bool,
}

impl Limit<'_> {
    /// No bound: for tests and tools that know how much there is.
    pub const NONE: Limit<'static> = Limit {
        rows: usize::MAX,
        bytes: usize::MAX,
        go_on: &|| true,
    };
}

/// What a bounded read found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found<T> {
    /// The records, as many as the limit allows.
    pub records: Vec<T>,
    /// Rows that are there and were left out. What was sent twice counts twice.
    pub cut: usize,
}

/// A read in progress.
pub(crate) struct Filling<'a, T> {
    limit: &'a Limit<'a>,
    bytes: usize,
    pub found: Found<T>,
}

impl<'a, T: Weigh> Filling<'a, T> {
    pub fn new(limit: &'a Limit<'a>) -> Self {
        Self {
            limit,
            bytes: 0,
            found: Found {
                records: Vec::new(),
                cut: 0,
            },
        }
    }

    /// Adds the rows at `picks`, read step by step, as far as there is room.
    pub fn add(&mut self, picks: &[u32], read: impl Fn(&[u32]) -> Result<Vec<T>, ReadError>) -> Result<(), ReadError> {
        for step in picks.chunks(STEP_ROWS) {
            self.check()?;
            let room = if self.bytes < self.limit.bytes {
                self.limit.rows - self.found.records.len()
            } else {
                0
            };
            let (taken, left) = step.split_at(room.min(step.len()));
            self.found.cut += left.len();
            if !taken.is_empty() {
                let records = read(taken)?;
                self.bytes = records.iter().map(Weigh::bytes).fold(self.bytes, usize::saturating_add);
                self.found.records.extend(records);
            }
        }
        Ok(())
    }

    pub fn check(&self) -> Result<(), ReadError> {
        if (self.limit.go_on)() {
            Ok(())
        } else {
            Err(ReadError::Stopped)
        }
    }
}

/// How much memory a record takes, about.
pub trait Weigh {
    /// In bytes; what records share counts in parts.
    fn bytes(&self) -> usize;
}

impl Weigh for SpanRecord {
    fn bytes(&self) -> usize {
        let events: usize = self
            .events
            .iter()
            .map(|event| size_of_val(event) + event.name.len() + pairs(&event.attributes))
            .sum();
        let links: usize = self
            .links
            .iter()
            .map(|link| size_of_val(link) + link.trace_state.len() + pairs(&link.attributes))
            .sum();
        let texts =
            self.trace_state.len() + self.name.len() + self.status_message.len() + self.resource_schema_url.len();
        size_of::<Self>() + texts + pairs(&self.attributes) + events + links + shared(&self.resource)
    }
}

impl Weigh for LogRecord {
    fn bytes(&self) -> usize {
        let texts = self.severity_text.len() + self.event_name.len() + self.resource_schema_url.len();
        size_of::<Self>() + texts + heap(&self.body) + pairs(&self.attributes) + shared(&self.resource)
    }
}

fn shared(resource: &Arc<Attributes>) -> usize {
    pairs(resource) / Arc::strong_count(resource)
}

fn pairs(pairs: &[(String, Value)]) -> usize {
    pairs
        .iter()
        .map(|pair| size_of_val(pair) + pair.0.len() + heap(&pair.1))
        .sum()
}

/// What a value holds beside itself. Nesting is bounded by the door.
fn heap(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Double(_) => 0,
        Value::Str(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Array(values) => values.iter().map(|value| size_of_val(value) + heap(value)).sum(),
        Value::Map(entries) => pairs(entries),
    }
}
