//! Any bytes: an error, or a payload that means what prost says it means and that views read as prost does.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use model::Signal;
use model::canonical::canonicalize;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use trackline_fuzz::normal::Normal;
use trackline_fuzz::views::{same_logs, same_metrics, same_traces};

fuzz_target!(|data: &[u8]| {
    let Some((signal, payload)) = trackline_fuzz::signal(data) else {
        return;
    };
    match signal {
        Signal::Traces => check::<ExportTraceServiceRequest>(signal, payload, same_traces),
        Signal::Logs => check::<ExportLogsServiceRequest>(signal, payload, same_logs),
        Signal::Metrics => check::<ExportMetricsServiceRequest>(signal, payload, same_metrics),
    }
});

fn check<M: Message + Default + Normal>(signal: Signal, payload: &[u8], same: impl Fn(&[u8], &M)) {
    let Ok(canonical) = canonicalize(signal, Bytes::copy_from_slice(payload)) else {
        return;
    };
    let read = M::decode(&*canonical.payload).expect("prost reads what is canonical");
    same(&canonical.payload, &read);
    if canonical.repaired_text == 0 {
        // Rejected spans may hold text that prost refuses.
        if let Ok(mut expected) = M::decode(payload) {
            assert_eq!(expected.normalise().0, canonical.items);
            assert_eq!(expected.encode_to_vec(), read.encode_to_vec());
        }
    }
    assert!(
        !canonicalize(signal, canonical.payload)
            .expect("what is canonical is legal")
            .rewritten
    );
}
