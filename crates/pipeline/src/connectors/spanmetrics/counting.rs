//! Why: this is the hot path, run for each span: find the series that it belongs to, and count it there. Nothing is allocated where the series exists.

use model::view::traces::{Event, Span, resource_spans};
use model::view::{AnyValue, Attributes, Resource, Scope};
use model::wire::put_bytes;
use model::write::{self, Exemplar};

use super::settings::{Of, Settings, TableSettings};
use super::{BUILT_IN, Dimension, SpanMetrics};
use crate::connectors::histogram::{Histogram, Shape};
use crate::connectors::series::{Held, ROW_BYTES, Table, cut, put_overflow, put_value};

/// What is kept of the attributes of a resource, in bytes; those beyond it are left out. Usual ones take under 2 KiB.
const MAX_RESOURCE_BYTES: usize = 16 << 10;

/// The service of a resource that does not name one, as the semantic conventions have it.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// The owner of the series that counts what is beyond the bounds.
pub const NO_RESOURCE: u32 = u32::MAX;

pub const SCOPE_NAME: &str = "span.instrumentation.scope.name";

pub const SCOPE_VERSION: &str = "span.instrumentation.scope.version";

/// What a series counts.
#[derive(Debug, Clone)]
pub struct Value {
    pub count: u64,
    pub histogram: Option<Histogram>,
    /// Those since the last flush, each with the bucket of its value.
    pub exemplars: Vec<(usize, Exemplar)>,
}

/// The series of some metrics, and what the resource at hand gives to their keys.
#[derive(Debug, Default)]
pub struct Tally {
    pub series: Table<Value>,
    /// For each dimension, the encoded pair where the span has none: the resource's, the default, or nothing.
    pub fallbacks: Vec<Vec<u8>>,
}

impl SpanMetrics {
    /// The number of a resource, known or new; [`NO_RESOURCE`] if there is no room.
    fn resource(&mut self, resource: &Resource<'_>, now: u64) -> u32 {
        let settings = &self.settings;
        let identity = &mut self.key;
        identity.clear();
        match settings.has_resource_attributes {
            false => {}
            true if settings.resource_keys.is_empty() => put_bounded(identity, &resource.attributes),
            true => {
                for key in &settings.resource_keys {
                    if let Some(value) = resource.attributes.get(key) {
                        put_value(identity, key, value);
                    }
                }
            }
        }
        if let Some(index) = self.resources.index(0, identity) {
            self.resources.touch(index, now);
            return index;
        }
        let mut attributes = Vec::new();
        if !settings.resource_keys.is_empty() && settings.has_resource_attributes {
            put_bounded(&mut attributes, &resource.attributes);
        }
        let has_room =
            self.resources.len() < settings.max_resources && self.held.grow(resource_bytes(identity, &attributes));
        if !has_room {
            return NO_RESOURCE;
        }
        self.resources.insert(0, identity, now, || attributes.into());
        self.resources.len() as u32 - 1
    }

    pub fn take_spans(&mut self, payload: &[u8], now: u64) {
        for group in resource_spans(payload) {
            let resource = group.owner();
            let owner = self.resource(&resource, now);
            let SpanMetrics {
                settings,
                tallies,
                held,
                key,
                ..
            } = self;
            let service = resource.service_name().unwrap_or(UNKNOWN_SERVICE);
            for (table, tally) in settings.tables.iter().zip(tallies.iter_mut()) {
                tally.fall_back(&table.dimensions, &resource.attributes);
            }
            for scope in group.list() {
                let named = (!settings.scopes.is_empty())
                    .then(|| scope.owner())
                    .filter(|scope| settings.scopes.iter().any(|name| name == scope.name));
                for span in scope.list() {
                    let took_nanos = span.end_unix_nano.saturating_sub(span.start_unix_nano);
                    let counting = Counting {
                        settings,
                        service,
                        scope: named.as_ref(),
                        span: &span,
                        took: took_nanos as f64 / settings.ns_per_unit,
                        owner,
                        now,
                    };
                    for (table, tally) in settings.tables.iter().zip(tallies.iter_mut()) {
                        match table.of {
                            Of::Spans => counting.count(table, tally, held, key, None),
                            Of::Events => {
                                for event in span.events {
                                    counting.count(table, tally, held, key, Some(&event));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Appends the attributes of a resource as far as there is room for them.
fn put_bounded(out: &mut Vec<u8>, attributes: &Attributes<'_>) {
    for pair in attributes.raw() {
        if out.len() + pair.len() <= MAX_RESOURCE_BYTES {
            put_bytes(out, 7, pair);
        }
    }
}

pub fn resource_bytes(identity: &[u8], attributes: &[u8]) -> usize {
    ROW_BYTES + identity.len() + attributes.len()
}

pub fn series_bytes(settings: &Settings, key: &[u8]) -> usize {
    let exemplars = settings.max_exemplars * size_of::<(usize, Exemplar)>();
    ROW_BYTES + key.len() + settings.shape.held_bytes() + exemplars
}

impl Tally {
    /// Prepares what spans of a resource have in the place of attributes of their own.
    fn fall_back(&mut self, dimensions: &[Dimension], attributes: &Attributes<'_>) {
        self.fallbacks.resize_with(dimensions.len(), Vec::new);
        for (dimension, fallback) in dimensions.iter().zip(&mut self.fallbacks) {
            fallback.clear();
            match (attributes.get(&dimension.name), &dimension.default) {
                (Some(value), _) => put_value(fallback, &dimension.name, value),
                (None, Some(default)) => put_value(fallback, &dimension.name, AnyValue::Str(default)),
                (None, None) => {}
            }
        }
    }
}

/// A span that is being counted, and where it comes from.
struct Counting<'c> {
    settings: &'c Settings,
    service: &'c str,
    /// The scope, if it becomes attributes.
    scope: Option<&'c Scope<'c>>,
    span: &'c Span<'c>,
    /// In the unit of the settings.
    took: f64,
    owner: u32,
    now: u64,
}

impl Counting<'_> {
    #[inline]
    fn count(
        &self,
        table: &TableSettings,
        tally: &mut Tally,
        held: &mut Held,
        key: &mut Vec<u8>,
        event: Option<&Event<'_>>,
    ) {
        let Tally { series, fallbacks } = tally;
        if self.owner != NO_RESOURCE {
            self.put_key(key, table, fallbacks, event);
            if let Some(row) = series.find(self.owner, key, self.now) {
                return self.add(&mut row.value);
            }
        }
        let is_measured = table.measured.is_some();
        let value = || Value {
            count: 0,
            histogram: is_measured.then(|| Histogram::new(&self.settings.shape)),
            exemplars: Vec::new(),
        };
        let has_room = self.owner != NO_RESOURCE
            && series.len() < self.settings.max_series
            && held.grow(series_bytes(self.settings, key));
        let row = match has_room {
            true => series.insert(self.owner, key, self.now, value),
            false => {
                held.tell_of_overflow(&self.settings.component);
                put_overflow(key);
                series.insert(NO_RESOURCE, key, self.now, value)
            }
        };
        self.add(&mut row.value);
    }

    /// Writes the attributes of the series that the span, or its event, belongs to.
    #[inline]
    fn put_key(&self, key: &mut Vec<u8>, table: &TableSettings, fallbacks: &[Vec<u8>], event: Option<&Event<'_>>) {
        key.clear();
        let values = [
            self.service,
            self.span.name,
            kind(self.span.kind),
            status(self.span.status_code),
        ];
        let mut attributes = write::Attributes::new(key, 7);
        for ((name, value), is_written) in BUILT_IN.iter().zip(values).zip(self.settings.built_in) {
            if is_written {
                attributes.text(name, cut(value));
            }
        }
        if let Some(scope) = self.scope {
            attributes.text(SCOPE_NAME, cut(scope.name));
            attributes.text(SCOPE_VERSION, cut(scope.version));
        }
        for (at, (dimension, fallback)) in table.dimensions.iter().zip(fallbacks).enumerate() {
            let of_event = event
                .filter(|_| at >= table.of_event)
                .and_then(|event| event.attributes.get(&dimension.name));
            match of_event.or_else(|| self.span.attributes.get(&dimension.name)) {
                Some(value) => put_value(key, &dimension.name, value),
                None => key.extend_from_slice(fallback),
            }
        }
    }

    #[inline]
    fn add(&self, value: &mut Value) {
        value.count += 1;
        if let Some(histogram) = &mut value.histogram {
            histogram.observe(&self.settings.shape, self.took);
        }
        if self.settings.max_exemplars > 0 && !self.span.trace_id.is_zero() {
            self.add_exemplar(&mut value.exemplars);
        }
    }

    /// Keeps the span as an example: the latest of its bucket; while there is room for more, one of each.
    fn add_exemplar(&self, exemplars: &mut Vec<(usize, Exemplar)>) {
        let bucket = Histogram::bucket(&self.settings.shape, self.took);
        let exemplar = Exemplar {
            time_unix_nano: self.span.end_unix_nano,
            value: self.took,
            trace_id: Some(self.span.trace_id),
            span_id: Some(self.span.span_id),
        };
        let max = self.settings.max_exemplars;
        let place = match self.settings.shape {
            Shape::Explicit(_) => exemplars.iter().position(|(of, _)| *of == bucket),
            Shape::Exponential { .. } => None,
        };
        let oldest = |exemplars: &[(usize, Exemplar)]| {
            let by_time = |(_, (_, exemplar)): &(usize, &(usize, Exemplar))| exemplar.time_unix_nano;
            exemplars.iter().enumerate().min_by_key(by_time).map(|(at, _)| at)
        };
        let place = place.or_else(|| (exemplars.len() >= max).then(|| oldest(exemplars)).flatten());
        match place {
            Some(at) => exemplars[at] = (bucket, exemplar),
            None => exemplars.push((bucket, exemplar)),
        }
    }
}

/// The collector's words for the kinds of spans.
fn kind(kind: i32) -> &'static str {
    match kind {
        1 => "SPAN_KIND_INTERNAL",
        2 => "SPAN_KIND_SERVER",
        3 => "SPAN_KIND_CLIENT",
        4 => "SPAN_KIND_PRODUCER",
        5 => "SPAN_KIND_CONSUMER",
        _ => "SPAN_KIND_UNSPECIFIED",
    }
}

fn status(code: i32) -> &'static str {
    match code {
        1 => "STATUS_CODE_OK",
        2 => "STATUS_CODE_ERROR",
        _ => "STATUS_CODE_UNSET",
    }
}
