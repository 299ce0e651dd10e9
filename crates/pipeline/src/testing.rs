//! Why: batches for the tests of this crate, small and real.

use std::sync::Arc;

use bytes::Bytes;
use model::{Batch, Encoding, Meta, Signal};
use prost::Message;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

pub fn meta() -> Arc<Meta> {
    Arc::new(Meta {
        received_at_unix_nano: 1_700_000_000_000_000_000,
        receiver: "otlp".into(),
        peer: None,
        headers: Vec::new(),
        source_offset: None,
    })
}

/// A request of these spans, each known by its id.
pub fn spans(ids: impl IntoIterator<Item = u64>) -> Batch {
    let spans: Vec<Span> = ids
        .into_iter()
        .map(|id| Span {
            trace_id: [7; 16].to_vec(),
            span_id: (id + 1).to_be_bytes().to_vec(),
            name: format!("span {id}"),
            ..Span::default()
        })
        .collect();
    let items = spans.len() as u32;
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    Batch {
        signal: Signal::Traces,
        encoding: Encoding::Otlp,
        payload: Bytes::from(request.encode_to_vec()),
        items,
        wire: None,
        meta: meta(),
    }
}

pub fn batch_of(items: u64) -> Batch {
    spans(0..items)
}

/// The ids of the spans of a batch, as [`spans`] gave them.
pub fn ids(batch: &Batch) -> Vec<u64> {
    let request = ExportTraceServiceRequest::decode(batch.payload.clone()).expect("a request");
    let spans = request
        .resource_spans
        .iter()
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| &scope.spans);
    spans
        .map(|span| u64::from_be_bytes(span.span_id.as_slice().try_into().expect("8 bytes")) - 1)
        .collect()
}
