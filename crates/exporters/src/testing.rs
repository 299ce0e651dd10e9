//! Why: batches and screens for the tests of this crate, small and real.

use std::io::Write;
use std::sync::{Arc, Mutex};

use model::{Batch, Encoding, Meta, Signal};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue {
        value: Some(Value::StringValue(value.into())),
    });
    KeyValue {
        key: key.into(),
        value,
        ..KeyValue::default()
    }
}

/// A request with a span of each name.
pub fn spans(names: &[&str]) -> Batch {
    let span = |(index, name): (usize, &&str)| Span {
        trace_id: [7; 16].to_vec(),
        span_id: (index as u64 + 1).to_be_bytes().to_vec(),
        name: (*name).to_owned(),
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_001_000_000,
        attributes: vec![text("http.request.method", "GET")],
        ..Span::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "api-gateway")],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans: names.iter().enumerate().map(span).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    let meta = Meta {
        received_at_unix_nano: 1_700_000_000_002_000_000,
        receiver: "otlp".into(),
        peer: None,
        headers: Vec::new(),
        source_offset: None,
    };
    Batch {
        signal: Signal::Traces,
        encoding: Encoding::Otlp,
        payload: request.encode_to_vec().into(),
        items: names.len() as u32,
        wire: None,
        meta: Arc::new(meta),
    }
}

/// A screen that can be looked at.
#[derive(Clone, Default)]
pub struct Screenshot(Arc<Mutex<Vec<u8>>>);

impl Screenshot {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("UTF-8")
    }
}

impl Write for Screenshot {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
