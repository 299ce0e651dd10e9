//! Views over `ExportLogsServiceRequest`.

use std::sync::Arc;

use super::list::{List, Stretch, View, each_field};
use super::resource::{Group, Resource, Scope};
use super::text;
use super::value::{AnyValue, Attributes};
use crate::id::{SpanId, TraceId};
use crate::record;

/// The resources of a request.
pub fn resource_logs(payload: &[u8]) -> List<'_, ResourceLogs<'_>> {
    List::new(payload, 1)
}

/// Every log record of a request.
pub fn log_records(payload: &[u8]) -> impl Iterator<Item = LogRecord<'_>> {
    resource_logs(payload)
        .iter()
        .flat_map(|resource| resource.scope_logs().iter())
        .flat_map(|scope| scope.log_records().iter())
}

/// Every log record of a request as an owned row; resources and scopes are shared between rows.
pub fn records(payload: &[u8]) -> Vec<record::LogRecord> {
    let mut records = Vec::new();
    for resource_logs in resource_logs(payload) {
        let resource = Arc::new(resource_logs.resource().attributes.to_owned());
        for scope_logs in resource_logs.scope_logs() {
            let scope = scope_logs.scope().to_owned(scope_logs.schema_url());
            let schema_url = resource_logs.schema_url();
            records.extend(
                scope_logs
                    .log_records()
                    .iter()
                    .map(|log| log.to_record(&resource, schema_url, &scope)),
            );
        }
    }
    records
}

#[derive(Clone, Copy)]
pub struct ResourceLogs<'a>(Group<'a>);

#[derive(Clone, Copy)]
pub struct ScopeLogs<'a>(Group<'a>);

impl<'a> View<'a> for ResourceLogs<'a> {
    fn read(message: &'a [u8]) -> Self {
        ResourceLogs(Group::read(message))
    }
}

impl<'a> ResourceLogs<'a> {
    pub fn resource(&self) -> Resource<'a> {
        Resource::read(self.0.owner)
    }

    pub fn scope_logs(&self) -> List<'a, ScopeLogs<'a>> {
        List::new(self.0.list, 2)
    }

    pub fn schema_url(&self) -> &'a str {
        self.0.schema_url()
    }

    pub fn raw(&self) -> &'a [u8] {
        self.0.raw
    }
}

impl<'a> View<'a> for ScopeLogs<'a> {
    fn read(message: &'a [u8]) -> Self {
        ScopeLogs(Group::read(message))
    }
}

impl<'a> ScopeLogs<'a> {
    pub fn scope(&self) -> Scope<'a> {
        Scope::read(self.0.owner)
    }

    pub fn log_records(&self) -> List<'a, LogRecord<'a>> {
        List::new(self.0.list, 2)
    }

    /// Steps over the log records to find it.
    pub fn schema_url(&self) -> &'a str {
        self.0.schema_url()
    }

    pub fn raw(&self) -> &'a [u8] {
        self.0.raw
    }
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
    pub fn to_record(
        &self,
        resource: &Arc<record::Attributes>,
        resource_schema_url: &str,
        scope: &Arc<record::Scope>,
    ) -> record::LogRecord {
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
            resource: Arc::clone(resource),
            resource_schema_url: resource_schema_url.to_owned(),
            scope: Arc::clone(scope),
        }
    }
}
