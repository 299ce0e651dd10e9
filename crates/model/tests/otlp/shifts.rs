//! Times moved in the bytes and times moved after decoding are the same.

use model::edit::{latest, shift};
use model::{Batch, Signal};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::Exemplar;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use proptest::prelude::*;
use prost::Message;

use super::arbitrary::Source;
use super::canonical::checked;
use super::edits::batch;

/// The slow and obvious model: every time of a decoded message, moved.
struct Model {
    by_nanos: i64,
    latest: Option<u64>,
}

impl Model {
    fn time(&mut self, nanos: &mut u64) {
        if *nanos > 0 {
            self.latest = self.latest.max(Some(*nanos));
            *nanos = nanos.saturating_add_signed(self.by_nanos).max(1);
        }
    }

    fn exemplars(&mut self, exemplars: &mut [Exemplar]) {
        exemplars
            .iter_mut()
            .for_each(|exemplar| self.time(&mut exemplar.time_unix_nano));
    }

    fn traces(&mut self, request: &mut ExportTraceServiceRequest) {
        let scopes = request
            .resource_spans
            .iter_mut()
            .flat_map(|resource| &mut resource.scope_spans);
        for span in scopes.flat_map(|scope| &mut scope.spans) {
            self.time(&mut span.start_time_unix_nano);
            self.time(&mut span.end_time_unix_nano);
            span.events
                .iter_mut()
                .for_each(|event| self.time(&mut event.time_unix_nano));
        }
    }

    fn logs(&mut self, request: &mut ExportLogsServiceRequest) {
        let scopes = request
            .resource_logs
            .iter_mut()
            .flat_map(|resource| &mut resource.scope_logs);
        for record in scopes.flat_map(|scope| &mut scope.log_records) {
            self.time(&mut record.time_unix_nano);
            self.time(&mut record.observed_time_unix_nano);
        }
    }

    fn metrics(&mut self, request: &mut ExportMetricsServiceRequest) {
        let scopes = request
            .resource_metrics
            .iter_mut()
            .flat_map(|resource| &mut resource.scope_metrics);
        for metric in scopes.flat_map(|scope| &mut scope.metrics) {
            match metric.data.as_mut() {
                Some(Data::Gauge(gauge)) => {
                    for point in &mut gauge.data_points {
                        self.time(&mut point.start_time_unix_nano);
                        self.time(&mut point.time_unix_nano);
                        self.exemplars(&mut point.exemplars);
                    }
                }
                Some(Data::Sum(sum)) => {
                    for point in &mut sum.data_points {
                        self.time(&mut point.start_time_unix_nano);
                        self.time(&mut point.time_unix_nano);
                        self.exemplars(&mut point.exemplars);
                    }
                }
                Some(Data::Histogram(histogram)) => {
                    for point in &mut histogram.data_points {
                        self.time(&mut point.start_time_unix_nano);
                        self.time(&mut point.time_unix_nano);
                        self.exemplars(&mut point.exemplars);
                    }
                }
                Some(Data::ExponentialHistogram(histogram)) => {
                    for point in &mut histogram.data_points {
                        self.time(&mut point.start_time_unix_nano);
                        self.time(&mut point.time_unix_nano);
                        self.exemplars(&mut point.exemplars);
                    }
                }
                Some(Data::Summary(summary)) => {
                    for point in &mut summary.data_points {
                        self.time(&mut point.start_time_unix_nano);
                        self.time(&mut point.time_unix_nano);
                    }
                }
                None => {}
            }
        }
    }
}

/// Encoded again, because what is not a number does not equal itself.
fn again<M: Message + Default>(before: &Batch, by_nanos: i64) -> Vec<u8> {
    let shifted = shift(before, by_nanos);
    assert_eq!(shifted.items, before.items);
    M::decode(shifted.payload.bytes()).unwrap().encode_to_vec()
}

proptest! {
    #[test]
    fn as_after_decoding(bytes in proptest::collection::vec(any::<u8>(), 0..600), choices in proptest::collection::vec(any::<u8>(), 0..60), by_nanos: i64) {
        let mut model = Model { by_nanos, latest: None };
        let before = batch(Signal::Traces, checked(Signal::Traces, &Source(&bytes).traces(), &choices).payload);
        let mut request = ExportTraceServiceRequest::decode(before.payload.bytes()).unwrap();
        model.traces(&mut request);
        prop_assert_eq!(latest(&before), model.latest);
        prop_assert_eq!(again::<ExportTraceServiceRequest>(&before, by_nanos), request.encode_to_vec());

        let mut model = Model { by_nanos, latest: None };
        let before = batch(Signal::Logs, checked(Signal::Logs, &Source(&bytes).logs(), &choices).payload);
        let mut request = ExportLogsServiceRequest::decode(before.payload.bytes()).unwrap();
        model.logs(&mut request);
        prop_assert_eq!(latest(&before), model.latest);
        prop_assert_eq!(again::<ExportLogsServiceRequest>(&before, by_nanos), request.encode_to_vec());

        let mut model = Model { by_nanos, latest: None };
        let before = batch(Signal::Metrics, checked(Signal::Metrics, &Source(&bytes).metrics(), &choices).payload);
        let mut request = ExportMetricsServiceRequest::decode(before.payload.bytes()).unwrap();
        model.metrics(&mut request);
        prop_assert_eq!(latest(&before), model.latest);
        prop_assert_eq!(again::<ExportMetricsServiceRequest>(&before, by_nanos), request.encode_to_vec());
    }
}
