//! From canonical batches to fresh blocks: one walk over the views, no owned rows in between.

use model::view::group::resources;
use model::view::logs::LogRecord;
use model::view::traces::Span;
use model::view::value::{AnyValue, Attributes};
use model::view::{Resource, Scope, View};
use model::{Batch, Signal};

use crate::block::{Block, Builder};
use crate::column::{Kind, Level, fixed};
use crate::error::AppendError;
use crate::json;
use crate::texts::hash_seeded;
use crate::{Dataset, Day};

/// Seed of the hash that names a log stream; part of the format, so that merges of parts of different processes agree.
const STREAM_SEED: u64 = 0x73_7472_6561_6d00;

/// Builders of one dataset, one for each day that an append touches; kept between appends.
pub struct Appender {
    dataset: Dataset,
    builders: Vec<DayBuilder>,
    scratch: String,
}

struct DayBuilder {
    day: Day,
    builder: Builder,
    /// The context made for the group being walked, and the number of that group.
    context: u32,
    group: u64,
    context_rest: String,
    trace: TraceHex,
}

/// The hex text of the trace id seen last, made when a value might be it.
#[derive(Default)]
struct TraceHex {
    id: [u8; 16],
    of: [u8; 16],
    hex: [u8; 32],
}

impl TraceHex {
    #[inline]
    fn is(&mut self, text: &str) -> bool {
        if text.len() != 32 {
            return false;
        }
        if self.of != self.id {
            self.of = self.id;
            for (pair, byte) in self.hex.as_chunks_mut::<2>().0.iter_mut().zip(self.id) {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
            }
        }
        // No row has an id of zeros, so the first comparison cannot be with a text that was never made.
        self.id != [0; 16] && *text.as_bytes() == self.hex
    }
}

/// What the rows of one resource and scope share.
struct Group<'a> {
    number: u64,
    resource: Resource<'a>,
    resource_schema_url: &'a str,
    scope: Scope<'a>,
    scope_schema_url: &'a str,
}

/// Which dataset keeps a signal.
pub fn dataset_of(signal: Signal) -> Result<Dataset, AppendError> {
    match signal {
        Signal::Traces => Ok(Dataset::Traces),
        Signal::Logs => Ok(Dataset::Logs),
        Signal::Metrics => Err(AppendError::Signal(signal.as_str())),
    }
}

impl Appender {
    pub fn new(dataset: Dataset) -> Self {
        Self {
            dataset,
            builders: Vec::new(),
            scratch: String::new(),
        }
    }

    pub fn dataset(&self) -> Dataset {
        self.dataset
    }

    /// The blocks of some batches of this dataset.
    pub fn blocks(&mut self, batches: &[Batch], retention_nanos: u64) -> Vec<Block> {
        let mut number = 0;
        for batch in batches {
            match self.dataset {
                Dataset::Traces => {
                    let start = |span: &Span<'_>| span.start_unix_nano;
                    self.walk(batch, retention_nanos, &mut number, start, put_span);
                }
                Dataset::Logs => self.walk(batch, retention_nanos, &mut number, log_time, put_log),
            }
        }
        let blocks = self
            .builders
            .iter_mut()
            .filter_map(|b| b.builder.finish(b.day))
            .collect();
        // A builder is worth keeping for its tables; more than a few only after an append over many days.
        self.builders.truncate(2);
        for builder in &mut self.builders {
            builder.group = 0;
        }
        blocks
    }

    /// One walk over a batch of either signal: what differs is when an item was and how it becomes a row.
    fn walk<'a, Item: View<'a>>(
        &mut self,
        batch: &'a Batch,
        retention_nanos: u64,
        number: &mut u64,
        time: impl Fn(&Item) -> u64,
        put: impl Fn(&mut DayBuilder, &Item, &mut String),
    ) {
        let arrival = batch.meta.received_at_unix_nano;
        for of_resource in resources::<Item>(&batch.payload) {
            let resource = of_resource.owner();
            let resource_schema_url = of_resource.schema_url();
            for of_scope in of_resource.list() {
                *number += 1;
                let group = Group {
                    number: *number,
                    resource,
                    resource_schema_url,
                    scope: of_scope.owner(),
                    scope_schema_url: of_scope.schema_url(),
                };
                for item in of_scope.list() {
                    let day = Day::of_row(time(&item), arrival, retention_nanos);
                    let at = self.enter(day, &group);
                    put(&mut self.builders[at], &item, &mut self.scratch);
                }
            }
        }
    }

    /// The builder of a day, with the group's context begun in it.
    #[inline]
    fn enter(&mut self, day: Day, group: &Group<'_>) -> usize {
        if let Some(first) = self.builders.first()
            && first.day == day
            && first.group == group.number
        {
            return 0;
        }
        self.enter_slowly(day, group)
    }

    fn enter_slowly(&mut self, day: Day, group: &Group<'_>) -> usize {
        let at = match self.builders.iter().position(|b| b.day == day) {
            Some(at) => at,
            None => {
                // A builder that is not in use in this append is turned over to the new day.
                match self.builders.iter().position(|b| b.group == 0) {
                    Some(at) => {
                        self.builders[at].day = day;
                        at
                    }
                    None => {
                        self.builders.push(DayBuilder {
                            day,
                            builder: Builder::new(self.dataset),
                            context: 0,
                            group: 0,
                            context_rest: String::new(),
                            trace: TraceHex::default(),
                        });
                        self.builders.len() - 1
                    }
                }
            }
        };
        let day_builder = &mut self.builders[at];
        if day_builder.group != group.number {
            day_builder.group = group.number;
            put_context(day_builder, group, &mut self.scratch);
        }
        at
    }
}

fn put_context(to: &mut DayBuilder, group: &Group<'_>, scratch: &mut String) {
    let builder = &mut to.builder;
    to.context = builder.begin_context();
    put_attributes(builder, Level::Resource, &group.resource.attributes, scratch, None);
    put_attributes(builder, Level::Scope, &group.scope.attributes, scratch, None);
    builder.context_text(fixed::SCOPE_NAME, group.scope.name);
    builder.context_text(fixed::SCOPE_VERSION, group.scope.version);
    builder.context_text(fixed::SCOPE_SCHEMA_URL, group.scope_schema_url);
    builder.context_word(fixed::SCOPE_DROPPED, u64::from(group.scope.dropped_attributes_count));
    builder.context_text(fixed::RESOURCE_SCHEMA_URL, group.resource_schema_url);
    if builder.dataset() == Dataset::Logs {
        builder.context_stream(hash_seeded(group.resource.raw, STREAM_SEED));
    }
    to.context_rest = builder.take_rest();
}

#[inline]
fn put_attributes(
    builder: &mut Builder,
    level: Level,
    attributes: &Attributes<'_>,
    scratch: &mut String,
    mut trace: Option<&mut TraceHex>,
) {
    if attributes.is_empty() {
        return;
    }
    let mut cursor = builder.start(level);
    for pair in attributes {
        match pair.value {
            AnyValue::Str(text) if trace.as_mut().is_some_and(|t| t.is(text)) => {
                builder.attribute_trace_id(&mut cursor, pair.key, text);
            }
            AnyValue::Str(text) => builder.attribute_text(&mut cursor, pair.key, Kind::Text, text),
            AnyValue::Int(value) => builder.attribute_word(&mut cursor, pair.key, Kind::Int, value as u64),
            AnyValue::Double(value) => builder.attribute_word(&mut cursor, pair.key, Kind::Double, value.to_bits()),
            AnyValue::Bool(value) => builder.attribute_word(&mut cursor, pair.key, Kind::Bool, u64::from(value)),
            value => {
                scratch.clear();
                json::write_view(scratch, &value);
                builder.attribute_text(&mut cursor, pair.key, Kind::Json, scratch);
            }
        }
    }
}

fn begin_row(to: &mut DayBuilder) {
    if !to.context_rest.is_empty() {
        to.builder.context_rest(&to.context_rest);
    }
}

fn put_span(to: &mut DayBuilder, span: &Span<'_>, scratch: &mut String) {
    begin_row(to);
    let builder = &mut to.builder;
    builder.trace_id(span.trace_id.0);
    builder.span_id(span.span_id.0);
    if let Some(parent) = span.parent_span_id {
        builder.parent(parent.0);
    }
    builder.time(span.start_unix_nano);
    builder.word(fixed::DURATION, span.end_unix_nano.wrapping_sub(span.start_unix_nano));
    builder.text(fixed::NAME, span.name);
    builder.word(fixed::KIND, known(span.kind, 5));
    builder.word(fixed::STATUS_CODE, known(span.status_code, 2));
    builder.word_unless_zero(fixed::FLAGS, u64::from(span.flags));
    builder.text_unless_empty(fixed::STATUS_MESSAGE, span.status_message);
    builder.text_unless_empty(fixed::TRACE_STATE, span.trace_state);
    builder.word_unless_zero(fixed::DROPPED_ATTRIBUTES, u64::from(span.dropped_attributes_count));
    builder.word_unless_zero(fixed::DROPPED_EVENTS, u64::from(span.dropped_events_count));
    builder.word_unless_zero(fixed::DROPPED_LINKS, u64::from(span.dropped_links_count));
    to.trace.id = span.trace_id.0;
    put_attributes(builder, Level::Attr, &span.attributes, scratch, Some(&mut to.trace));
    if !span.events.is_empty() {
        scratch.clear();
        crate::nested::write_events(scratch, &span.events);
        builder.text(fixed::EVENTS, scratch);
    }
    if !span.links.is_empty() {
        scratch.clear();
        crate::nested::write_links(scratch, &span.links);
        builder.text(fixed::LINKS, scratch);
    }
    builder.end_row(to.context);
}

/// When a record was; where its source did not say, when it was first seen.
fn log_time(record: &LogRecord<'_>) -> u64 {
    match record.time_unix_nano {
        0 => record.observed_unix_nano,
        time => time,
    }
}

fn put_log(to: &mut DayBuilder, record: &LogRecord<'_>, scratch: &mut String) {
    begin_row(to);
    let time = log_time(record);
    let builder = &mut to.builder;
    if let Some(id) = record.trace_id {
        builder.trace_id(id.0);
    }
    if let Some(id) = record.span_id {
        builder.span_id(id.0);
    }
    builder.time(time);
    if record.time_unix_nano == 0 && time != 0 {
        builder.word(fixed::TIME_IS_OBSERVED, 1);
    } else {
        builder.word_unless_zero(fixed::OBSERVED, record.observed_unix_nano);
    }
    builder.word(fixed::SEVERITY_NUMBER, known(record.severity_number, 24));
    builder.text_unless_empty(fixed::SEVERITY_TEXT, record.severity_text);
    builder.text_unless_empty(fixed::EVENT_NAME, record.event_name);
    builder.word_unless_zero(fixed::FLAGS, u64::from(record.flags));
    builder.word_unless_zero(fixed::DROPPED_ATTRIBUTES, u64::from(record.dropped_attributes_count));
    to.trace.id = record.trace_id.map_or([0; 16], |id| id.0);
    put_attributes(builder, Level::Attr, &record.attributes, scratch, Some(&mut to.trace));
    match record.body {
        AnyValue::Empty => {}
        AnyValue::Str(text) => builder.text(fixed::BODY, text),
        AnyValue::Int(value) => builder.word(fixed::BODY_INT, value as u64),
        AnyValue::Double(value) => builder.word(fixed::BODY_DOUBLE, value.to_bits()),
        AnyValue::Bool(value) => builder.word(fixed::BODY_BOOL, u64::from(value)),
        AnyValue::KvList(pairs) if !pairs.is_empty() => put_attributes(builder, Level::Body, &pairs, scratch, None),
        value => {
            scratch.clear();
            json::write_view(scratch, &value);
            builder.text(fixed::BODY_JSON, scratch);
        }
    }
    builder.end_row(to.context);
}

/// An enum's number, or 0 for one that OTLP does not define.
fn known(value: i32, max: i32) -> u64 {
    if (0..=max).contains(&value) { value as u64 } else { 0 }
}
