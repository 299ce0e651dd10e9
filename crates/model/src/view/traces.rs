//! Views over `ExportTraceServiceRequest`.

use std::sync::Arc;

use super::group::{self, Origin, ResourceGroup};
use super::list::{List, Stretch, View, each_field};
use super::text;
use super::value::Attributes;
use crate::id::{SpanId, TraceId};
use crate::record::{self, EventRecord, LinkRecord, SpanRecord};

/// The resources of a request.
pub fn resource_spans(payload: &[u8]) -> List<'_, ResourceGroup<'_, Span<'_>>> {
    group::resources(payload)
}

/// Every span of a request.
pub fn spans(payload: &[u8]) -> impl Iterator<Item = Span<'_>> {
    group::items(payload)
}

/// Every span of a request as an owned row; resources and scopes are shared between rows.
pub fn records(payload: &[u8]) -> Vec<SpanRecord> {
    group::records(payload, Span::to_record)
}

#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// `None` for a root: absent, empty or all zeros.
    pub parent_span_id: Option<SpanId>,
    pub trace_state: &'a str,
    pub flags: u32,
    pub name: &'a str,
    /// As sent; 0 to 5 have a meaning.
    pub kind: i32,
    pub start_unix_nano: u64,
    pub end_unix_nano: u64,
    /// As sent; 0 unset, 1 ok, 2 error.
    pub status_code: i32,
    pub status_message: &'a str,
    pub attributes: Attributes<'a>,
    pub events: List<'a, Event<'a>>,
    pub links: List<'a, Link<'a>>,
    pub dropped_attributes_count: u32,
    pub dropped_events_count: u32,
    pub dropped_links_count: u32,
    /// The encoded message.
    pub raw: &'a [u8],
}

impl<'a> View<'a> for Span<'a> {
    #[inline]
    fn read(raw: &'a [u8]) -> Self {
        let (mut attributes, mut events, mut links) = (Stretch::default(), Stretch::default(), Stretch::default());
        let mut span = Span {
            trace_id: TraceId::default(),
            span_id: SpanId::default(),
            parent_span_id: None,
            trace_state: "",
            flags: 0,
            name: "",
            kind: 0,
            start_unix_nano: 0,
            end_unix_nano: 0,
            status_code: 0,
            status_message: "",
            attributes: List::new(&[], 9),
            events: List::new(&[], 11),
            links: List::new(&[], 13),
            dropped_attributes_count: 0,
            dropped_events_count: 0,
            dropped_links_count: 0,
            raw,
        };
        each_field(raw, |number, payload, before, after| match number {
            1 => span.trace_id = TraceId::from_bytes(payload.bytes()).unwrap_or_default(),
            2 => span.span_id = SpanId::from_bytes(payload.bytes()).unwrap_or_default(),
            3 => span.trace_state = text(payload.bytes()),
            4 => span.parent_span_id = SpanId::from_bytes(payload.bytes()),
            5 => span.name = text(payload.bytes()),
            6 => span.kind = payload.varint() as i32,
            7 => span.start_unix_nano = payload.fixed64(),
            8 => span.end_unix_nano = payload.fixed64(),
            9 => attributes.note(raw, before, after),
            10 => span.dropped_attributes_count = payload.varint() as u32,
            11 => events.note(raw, before, after),
            12 => span.dropped_events_count = payload.varint() as u32,
            13 => links.note(raw, before, after),
            14 => span.dropped_links_count = payload.varint() as u32,
            15 => {
                each_field(payload.bytes(), |number, payload, _, _| match number {
                    2 => span.status_message = text(payload.bytes()),
                    3 => span.status_code = payload.varint() as i32,
                    _ => {}
                });
            }
            16 => span.flags = payload.fixed32(),
            _ => {}
        });
        span.attributes = List::new(attributes.of(raw), 9);
        span.events = List::new(events.of(raw), 11);
        span.links = List::new(links.of(raw), 13);
        span
    }
}

impl Span<'_> {
    /// Copies the span into a row.
    pub fn to_record(&self, origin: &Origin<'_>) -> SpanRecord {
        SpanRecord {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_span_id: self.parent_span_id,
            trace_state: self.trace_state.to_owned(),
            flags: self.flags,
            name: self.name.to_owned(),
            kind: record::known(self.kind, record::MAX_SPAN_KIND),
            start_unix_nano: self.start_unix_nano,
            end_unix_nano: self.end_unix_nano,
            status_code: record::known(self.status_code, record::MAX_STATUS_CODE),
            status_message: self.status_message.to_owned(),
            resource: Arc::clone(&origin.resource),
            resource_schema_url: origin.resource_schema_url.to_owned(),
            scope: Arc::clone(&origin.scope),
            attributes: self.attributes.to_owned(),
            events: self.events.iter().map(|event| event.to_record()).collect(),
            links: self.links.iter().map(|link| link.to_record()).collect(),
            dropped_attributes_count: self.dropped_attributes_count,
            dropped_events_count: self.dropped_events_count,
            dropped_links_count: self.dropped_links_count,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    pub time_unix_nano: u64,
    pub name: &'a str,
    pub attributes: Attributes<'a>,
    pub dropped_attributes_count: u32,
    /// The encoded message.
    pub raw: &'a [u8],
}

impl<'a> View<'a> for Event<'a> {
    fn read(raw: &'a [u8]) -> Self {
        let mut attributes = Stretch::default();
        let mut event = Event {
            time_unix_nano: 0,
            name: "",
            attributes: List::new(&[], 3),
            dropped_attributes_count: 0,
            raw,
        };
        each_field(raw, |number, payload, before, after| match number {
            1 => event.time_unix_nano = payload.fixed64(),
            2 => event.name = text(payload.bytes()),
            3 => attributes.note(raw, before, after),
            4 => event.dropped_attributes_count = payload.varint() as u32,
            _ => {}
        });
        event.attributes = List::new(attributes.of(raw), 3);
        event
    }
}

impl Event<'_> {
    /// Copies the event.
    pub fn to_record(&self) -> EventRecord {
        EventRecord {
            time_unix_nano: self.time_unix_nano,
            name: self.name.to_owned(),
            attributes: self.attributes.to_owned(),
            dropped_attributes_count: self.dropped_attributes_count,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// `None` where the sender gave none that is valid.
    pub trace_id: Option<TraceId>,
    pub span_id: Option<SpanId>,
    pub trace_state: &'a str,
    pub flags: u32,
    pub attributes: Attributes<'a>,
    pub dropped_attributes_count: u32,
    /// The encoded message.
    pub raw: &'a [u8],
}

impl<'a> View<'a> for Link<'a> {
    fn read(raw: &'a [u8]) -> Self {
        let mut attributes = Stretch::default();
        let mut link = Link {
            trace_id: None,
            span_id: None,
            trace_state: "",
            flags: 0,
            attributes: List::new(&[], 4),
            dropped_attributes_count: 0,
            raw,
        };
        each_field(raw, |number, payload, before, after| match number {
            1 => link.trace_id = TraceId::from_bytes(payload.bytes()),
            2 => link.span_id = SpanId::from_bytes(payload.bytes()),
            3 => link.trace_state = text(payload.bytes()),
            4 => attributes.note(raw, before, after),
            5 => link.dropped_attributes_count = payload.varint() as u32,
            6 => link.flags = payload.fixed32(),
            _ => {}
        });
        link.attributes = List::new(attributes.of(raw), 4);
        link
    }
}

impl Link<'_> {
    /// Copies the link.
    pub fn to_record(&self) -> LinkRecord {
        LinkRecord {
            trace_id: self.trace_id,
            span_id: self.span_id,
            trace_state: self.trace_state.to_owned(),
            flags: self.flags,
            attributes: self.attributes.to_owned(),
            dropped_attributes_count: self.dropped_attributes_count,
        }
    }
}
