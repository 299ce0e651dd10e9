//! Views over `ExportLogsServiceRequest`.

use std::sync::Arc;

use super::group::{self, Origin, ResourceGroup};
use super::list::{List, Stretch, View, each_field};
use super::text;
use super::value::{AnyValue, Attributes};
use crate::id::{SpanId, TraceId};
use crate::record;

/// The resources of a request.
pub fn resource_logs(payload: &[u8]) -> List<'_, ResourceGroup<'_, LogRecord<'_>>> {
    group::resources(payload)
}

/// Every log record of a request.
pub fn log_records(payload: &[u8]) -> impl Iterator<Item = LogRecord<'_>> {
    group::items(payload)
}

/// Every log record of a request as an owned row; resources and scopes are shared between rows.
pub fn records(payload: &[u8]) -> Vec<record::LogRecord> {
    group::records(payload, LogRecord::to_record)
}

#[derive(Debug, Clone, Copy)]
pub struct LogRecord<'a> {
    /// 0 if the source gave none.
    pub time_unix_nano: u64,
    pub observed_unix_nano: u64,
    /// As sent; 1 to 24 have a meaning.
    pub severity_number: i32,
    pub severity_text: &'a str,
    /// `Empty` also where there is none.
    pub body: AnyValue<'a>,
    pub attributes: Attributes<'a>,
    pub dropped_attributes_count: u32,
    pub flags: u32,
    /// `None` where the sender gave none that is valid.
    pub trace_id: Option<TraceId>,
    pub span_id: Option<SpanId>,
    pub event_name: &'a str,
    /// The encoded message.
    pub raw: &'a [u8],
}

impl<'a> View<'a> for LogRecord<'a> {
    #[inline]
    fn read(raw: &'a [u8]) -> Self {
        let mut attributes = Stretch::default();
        let mut log = LogRecord {
            time_unix_nano: 0,
            observed_unix_nano: 0,
            severity_number: 0,
            severity_text: "",
            body: AnyValue::Empty,
            attributes: List::new(&[], 6),
            dropped_attributes_count: 0,
            flags: 0,
            trace_id: None,
            span_id: None,
            event_name: "",
            raw,
        };
        each_field(raw, |number, payload, before, after| match number {
            1 => log.time_unix_nano = payload.fixed64(),
            2 => log.severity_number = payload.varint() as i32,
            3 => log.severity_text = text(payload.bytes()),
            5 => log.body = AnyValue::read(payload.bytes()),
            6 => attributes.note(raw, before, after),
            7 => log.dropped_attributes_count = payload.varint() as u32,
            8 => log.flags = payload.fixed32(),
            9 => log.trace_id = TraceId::from_bytes(payload.bytes()),
            10 => log.span_id = SpanId::from_bytes(payload.bytes()),
            11 => log.observed_unix_nano = payload.fixed64(),
            12 => log.event_name = text(payload.bytes()),
            _ => {}
        });
        log.attributes = List::new(attributes.of(raw), 6);
        log
    }
}

impl LogRecord<'_> {
    /// Copies the record into a row.
    pub fn to_record(&self, origin: &Origin<'_>) -> record::LogRecord {
        record::LogRecord {
            time_unix_nano: self.time_unix_nano,
            observed_unix_nano: self.observed_unix_nano,
            severity_number: record::known(self.severity_number, record::MAX_SEVERITY_NUMBER),
            severity_text: self.severity_text.to_owned(),
            body: self.body.to_owned(),
            attributes: self.attributes.to_owned(),
            dropped_attributes_count: self.dropped_attributes_count,
            trace_id: self.trace_id,
            span_id: self.span_id,
            flags: self.flags,
            event_name: self.event_name.to_owned(),
            resource: Arc::clone(&origin.resource),
            resource_schema_url: origin.resource_schema_url.to_owned(),
            scope: Arc::clone(&origin.scope),
        }
    }
}
