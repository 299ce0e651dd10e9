//! `awsemf` against the stand-in and against moto.

use std::io::Write;
use std::sync::Mutex;

use exporters::awsemf::{self, AwsEmf};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum};
use pipeline::{Exporter, Outcome, Reason};
use serde_json::{Value as Json, json};

use super::stand_in::StandIn;
use super::*;

/// A counter that stood at `values` at seconds after `start_milli`.
fn counter(start_milli: i64, values: &[(i64, f64)]) -> Batch {
    let point = |(seconds, value): &(i64, f64)| NumberDataPoint {
        attributes: pairs(&[("endpoint", "/a")]),
        time_unix_nano: (start_milli + seconds * 1000) as u64 * 1_000_000,
        value: Some(Number::AsDouble(*value)),
        ..NumberDataPoint::default()
    };
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: pairs(&[("service.name", "api"), ("aws.ecs.task.id", "t1")]),
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![Metric {
                    name: "request_count".into(),
                    unit: "{request}".into(),
                    data: Some(Data::Sum(Sum {
                        data_points: values.iter().map(point).collect(),
                        aggregation_temporality: 2,
                        is_monotonic: true,
                    })),
                    ..Metric::default()
                }],
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    };
    batch(Signal::Metrics, request.encode_to_vec(), values.len())
}

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn exporter(settings: &str, screen: Screen) -> AwsEmf {
    let config = read("awsemf", settings, awsemf::parse).unwrap_or_else(|error| panic!("{error}"));
    AwsEmf::new(&config, keys(), Box::new(screen)).expect("made")
}

fn added(messages: &[String]) -> Vec<f64> {
    let value = |text: &String| {
        let event: Json = serde_json::from_str(text).expect("JSON");
        event["request_count"].as_f64().expect("a number")
    };
    messages.iter().map(value).collect()
}

#[tokio::test]
async fn a_counter_arrives_by_what_was_added_once() {
    let (aws, _open, address) = StandIn::open().await;
    let settings = format!(
        "endpoint: 'http://{address}', region: us-east-1, namespace: ai, log_group_name: '/ecs/{{ServiceName}}', log_stream_name: '{{TaskId}}', \
         dimension_rollup_option: NoDimensionRollup, log_retention: 3"
    );
    let exporter = exporter(&settings, Screen::default());
    let start = now_milli() - 60_000;
    assert_eq!(exporter.export(counter(start, &[(0, 10.0)])).await, Outcome::Delivered);
    assert!(
        aws.state().calls.is_empty(),
        "the first is what others are compared with"
    );
    // What cannot be delivered keeps what was added, whether the batch comes again as it is or as a copy from its sender.
    let batch = counter(start, &[(10, 15.0)]);
    for status in [500, 503] {
        aws.fault("PutLogEvents", status, "InternalFailure");
        let later = Outcome::retry(Duration::ZERO, Reason::BackendUnavailable);
        assert_eq!(exporter.export(batch.clone()).await, later);
    }
    assert_eq!(exporter.export(counter(start, &[(10, 15.0)])).await, Outcome::Delivered);
    assert_eq!(
        exporter.export(counter(start, &[(20, 22.0), (30, 2.0)])).await,
        Outcome::Delivered
    );
    let messages = aws.messages("/ecs/api", "t1");
    assert_eq!(added(&messages), [5.0, 7.0, 2.0]);
    let first: Json = serde_json::from_str(&messages[0]).expect("JSON");
    let expect = json!([{"Namespace": "ai", "Dimensions": [["endpoint"]], "Metrics": [{"Name": "request_count", "Unit": "Count"}]}]);
    assert_eq!(first["_aws"]["CloudWatchMetrics"], expect);
    assert_eq!(first["_aws"]["Timestamp"], start + 10_000);
    let state = aws.state();
    assert_eq!(
        (state.groups["/ecs/api"].retention, &state.groups["/ecs/api"].index),
        (Some(3), &None)
    );
    assert_eq!(state.headers[0]["x-amzn-logs-format"], "json/emf");
}

#[tokio::test]
async fn what_cannot_be_told_is_counted() {
    let (_aws, _open, address) = StandIn::open().await;
    let exporter = exporter(
        &format!("endpoint: 'http://{address}', region: us-east-1"),
        Screen::default(),
    );
    let start = now_milli() - 60_000;
    let outcome = exporter
        .export(counter(start, &[(0, 1.0), (10, 2.0), (5, 1.5), (20, f64::NAN)]))
        .await;
    let Outcome::Rejected { reason, items } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((reason.kind, items), (Reason::BadItem, 2), "{reason}");
    assert!(matches!(
        exporter.export(logs("api", &[(0, "x")])).await,
        Outcome::Rejected { items: 1, .. }
    ));
}

#[tokio::test]
async fn to_a_screen() {
    let screen = Screen::default();
    let settings = "output_destination: stdout, retain_initial_value_of_delta_metric: true";
    let exporter = exporter(settings, screen.clone());
    let outcome = exporter
        .export(counter(1_700_000_000_000, &[(0, 1.0), (10, 4.0)]))
        .await;
    assert_eq!(outcome, Outcome::Delivered);
    let text = String::from_utf8(screen.0.lock().expect("no panic").clone()).expect("UTF-8");
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(added(&lines), [1.0, 3.0]);
    let first: Json = serde_json::from_str(&lines[0]).expect("JSON");
    let expect = json!([[], ["endpoint"]]);
    assert_eq!(
        first["_aws"]["CloudWatchMetrics"][0]["Dimensions"], expect,
        "both rollups"
    );
}

#[tokio::test]
async fn boto3_reads_the_events_that_moto_was_sent() {
    let Some((mut moto, endpoint)) = moto::start().await else {
        return;
    };
    let settings = format!(
        "endpoint: '{endpoint}', region: us-east-1, log_stream_name: s, retain_initial_value_of_delta_metric: true"
    );
    let exporter = exporter(&settings, Screen::default());
    let start = now_milli() - 60_000;
    assert_eq!(
        exporter.export(counter(start, &[(0, 1.0), (10, 4.0)])).await,
        Outcome::Delivered
    );
    let found = moto::read_back(&endpoint, "/metrics/api").await;
    let messages = found["streams"]["s"].as_array().expect("a stream").iter();
    let messages: Vec<String> = messages.map(|text| text.as_str().expect("a text").to_owned()).collect();
    assert_eq!(added(&messages), [1.0, 3.0]);
    moto.kill().await.expect("ends");
}
