//! Our exporter `prometheusremotewrite` writes to our receiver of that name: what arrives is what was sent.

use std::net::SocketAddr;
use std::sync::Mutex;

use exporters::prometheusremotewrite::{RemoteWrite, parse};
use net::{Doors, Open};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Summary, SummaryDataPoint,
};
use pipeline::{Ack, Budget, Entry, Exporter, Intake, Ledger, Outcome};
use receivers::Settings;

use super::*;

struct Receiver {
    open: Open,
    address: SocketAddr,
    ledger: Ledger,
    batches: Arc<Mutex<Vec<Batch>>>,
}

impl Receiver {
    async fn start() -> Receiver {
        let (ledger, batches) = (Ledger::new(), Arc::new(Mutex::new(Vec::new())));
        let kept = Arc::clone(&batches);
        let entry: Arc<dyn Entry> = Arc::new(move |batch: Batch, ack: Ack| {
            kept.lock().expect("no panic").push(batch);
            ack.resolve(Outcome::Delivered);
        });
        let routes = vec![(Signal::Metrics, entry)];
        let intake = Intake::new("prometheusremotewrite", &ledger, Budget::root("test", 64 << 20), routes);
        let yaml = "receivers: { prometheusremotewrite: { endpoint: '127.0.0.1:0' } }\nservice: { pipelines: { metrics: {} } }\n";
        let config = Config::load(vec![Source::new("test", yaml)], &|_| None).expect("right");
        let section = config.section(&config.receivers[0]);
        let config = receivers::prometheusremotewrite::Config::parse(&section).expect("right");
        let mut doors = Doors::new();
        Box::new(config).mount(intake, &mut doors).expect("mounts");
        let open = doors.open().await.expect("opens");
        Receiver {
            address: open.address_of("receiver prometheusremotewrite (http)").expect("open"),
            open,
            ledger,
            batches,
        }
    }

    async fn finish(self) -> Vec<ExportMetricsServiceRequest> {
        assert!(self.open.shutdown(Duration::from_secs(10)).await);
        self.ledger.balance().expect("the books balance");
        let batches = self.batches.lock().expect("no panic");
        let decode = |batch: &Batch| ExportMetricsServiceRequest::decode(batch.payload.bytes()).expect("OTLP");
        batches.iter().map(decode).collect()
    }
}

const START: u64 = 1_600_000_000_000_000_000;

/// All that OTLP has and Prometheus too.
fn everything() -> ExportMetricsServiceRequest {
    let mut count = number(17.0, T, &[("http.route", "/x"), ("odd", "a\"b\\c\nd{}é")]);
    count.start_time_unix_nano = START;
    count.exemplars = vec![Exemplar {
        trace_id: vec![0xcd; 16],
        span_id: vec![0xef; 8],
        time_unix_nano: T,
        value: Some(exemplar::Value::AsDouble(1.0)),
        filtered_attributes: pairs(&[("user.id", "u")]),
    }];
    let mut ended = number(0.0, T, &[]);
    (ended.value, ended.flags) = (None, 1);
    let native = ExponentialHistogramDataPoint {
        start_time_unix_nano: START,
        time_unix_nano: T,
        count: 12,
        sum: Some(20.0),
        scale: 3,
        zero_count: 1,
        zero_threshold: 0.5,
        positive: Some(Buckets {
            offset: -1,
            bucket_counts: vec![1, 2, 0, 0, 0, 0, 7],
        }),
        negative: Some(Buckets {
            offset: 4,
            bucket_counts: vec![1],
        }),
        ..ExponentialHistogramDataPoint::default()
    };
    let summary = SummaryDataPoint {
        start_time_unix_nano: START,
        time_unix_nano: T,
        count: 4,
        sum: 9.0,
        quantile_values: [(0.5, 2.0), (0.99, 3.5)]
            .map(|(quantile, value)| ValueAtQuantile { quantile, value })
            .into(),
        ..SummaryDataPoint::default()
    };
    let mut request = request(vec![
        counter("request.count", CUMULATIVE, vec![count]),
        gauge("ends", vec![ended]),
        histogram("request.duration", T, CUMULATIVE),
        Metric {
            name: "native".into(),
            unit: "By".into(),
            data: Some(Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![native],
                aggregation_temporality: CUMULATIVE,
            })),
            ..Metric::default()
        },
        Metric {
            name: "summary".into(),
            data: Some(Data::Summary(Summary {
                data_points: vec![summary],
            })),
            ..Metric::default()
        },
    ]);
    let group = &mut request.resource_metrics[0];
    let resource = [
        ("service.namespace", "shop"),
        ("service.name", "cart"),
        ("service.instance.id", "i-1"),
    ];
    group.resource.as_mut().expect("there").attributes = pairs(&resource);
    group.scope_metrics[0].schema_url = "https://example.com/1".into();
    group.scope_metrics[0].scope = Some(InstrumentationScope {
        name: "lib".into(),
        version: "1.2".into(),
        attributes: pairs(&[("a.b", "c")]),
        ..InstrumentationScope::default()
    });
    request
}

async fn send(receiver: &Receiver, yaml: &str, request: &ExportMetricsServiceRequest) {
    let yaml = format!("{{ endpoint: 'http://{}/api/v1/write', {yaml} }}", receiver.address);
    let config = settings("prometheusremotewrite", &yaml, parse).expect("right");
    let exporter = RemoteWrite::new(&config).expect("an exporter");
    let mut sent = batch(Vec::new());
    let payload = Bytes::from(request.encode_to_vec());
    let canonical = model::canonical::canonicalize(Signal::Metrics, payload).expect("canonical");
    sent = Batch::from_canonical(Signal::Metrics, canonical, None, Arc::clone(&sent.meta));
    assert_eq!(exporter.export(sent).await, Outcome::Delivered);
}

/// What arrived is this; metrics may stand in another order, as those of several series are put together last.
async fn check(receiver: Receiver, expect: ExportMetricsServiceRequest) {
    let [mut arrived] = receiver.finish().await.try_into().expect("one request");
    let mut expect = expect;
    for request in [&mut arrived, &mut expect] {
        let metrics = &mut request.resource_metrics[0].scope_metrics[0].metrics;
        metrics.sort_by(|a, b| a.name.cmp(&b.name));
    }
    assert_eq!(arrived, expect);
}

#[tokio::test]
async fn the_second_version_carries_all() {
    let receiver = Receiver::start().await;
    let sent = everything();
    let settings = "protobuf_message: io.prometheus.write.v2.Request, translation_strategy: NoTranslation, target_info: { enabled: false }";
    send(&receiver, settings, &sent).await;
    check(receiver, sent).await;
}

#[tokio::test]
async fn the_first_version_carries_all_but_starts() {
    let receiver = Receiver::start().await;
    let sent = everything();
    let settings = "translation_strategy: NoTranslation, target_info: { enabled: false }, send_metadata: true";
    send(&receiver, settings, &sent).await;
    let mut expect = sent;
    for metric in &mut expect.resource_metrics[0].scope_metrics[0].metrics {
        match metric.data.as_mut().expect("there") {
            Data::Sum(sum) => sum.data_points[0].start_time_unix_nano = 0,
            Data::ExponentialHistogram(native) => native.data_points[0].start_time_unix_nano = 0,
            Data::Summary(summary) => summary.data_points[0].start_time_unix_nano = 0,
            _ => {}
        }
    }
    check(receiver, expect).await;
}

/// With the exporter's defaults names are Prometheus', and nothing is added twice by the next collector on the way.
#[tokio::test]
async fn the_second_hop_changes_nothing() {
    let (first, second) = (Receiver::start().await, Receiver::start().await);
    let settings = "protobuf_message: io.prometheus.write.v2.Request";
    let mut sent = everything();
    sent.resource_metrics[0]
        .resource
        .as_mut()
        .expect("there")
        .attributes
        .extend(pairs(&[("host.name", "h")]));
    send(&first, settings, &sent).await;
    let once = first.finish().await;
    send(&second, settings, &once[0]).await;
    let twice = second.finish().await;
    let names = |requests: &[ExportMetricsServiceRequest]| -> Vec<String> {
        let groups = requests.iter().flat_map(|request| &request.resource_metrics);
        let metrics = groups.flat_map(|group| group.scope_metrics.iter().flat_map(|scope| &scope.metrics));
        let mut names: Vec<String> = metrics.map(|metric| metric.name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(
        names(&once),
        [
            "ends",
            "native_bytes",
            "request_count_total",
            "request_duration_seconds",
            "summary",
            "target_info"
        ]
    );
    assert_eq!(names(&twice), names(&once));
    let attributes = &twice[0].resource_metrics[0]
        .resource
        .as_ref()
        .expect("there")
        .attributes;
    let keys: Vec<&str> = attributes.iter().map(|pair| pair.key.as_str()).collect();
    assert_eq!(
        keys,
        ["service.namespace", "service.name", "service.instance.id", "host_name"]
    );
}
