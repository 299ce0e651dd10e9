//! The page of the exporter `prometheus`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use codec::prometheus::labels;
use codec::prometheus::text::{Format, Writer};
use exporters::prometheus::{MAX_SERIES, Options, Prometheus, Registry, Rejected, parse};
use exporters::{Opening, Settings};
use http::{HeaderMap, HeaderValue};
use model::Signal;
use net::dial::Client;
use net::{Doors, Open};
use opentelemetry_proto::tonic::metrics::v1::{
    NumberDataPoint, Summary, SummaryDataPoint, summary_data_point::ValueAtQuantile,
};
use pipeline::{Budget, Outcome, Reason, Sink};
use proptest::prelude::*;

use super::*;

fn registry(options: Options) -> Registry {
    let options = Options {
        expiration: Duration::from_secs(300),
        ..options
    };
    Registry::new(options, Budget::root("test", 1 << 30).charge(0))
}

fn update(registry: &mut Registry, metrics: Vec<Metric>, seconds: u64) -> Rejected {
    registry.update(&batch(metrics).payload, Duration::from_secs(seconds))
}

fn page(registry: &mut Registry, format: Format, seconds: u64) -> String {
    let mut writer = Writer::new(format);
    registry.write(&mut writer, Duration::from_secs(seconds));
    writer.finish()
}

/// The lines without comments and `target_info`.
fn samples(registry: &mut Registry, seconds: u64) -> Vec<String> {
    let page = page(registry, Format::Text, seconds);
    let lines = page
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("target_info"));
    lines
        .map(|line| line.replace("instance=\"i-1\",job=\"chat\"", "…"))
        .collect()
}

pub fn opened(yaml: &str, doors: &mut Doors) -> Sink {
    let config = settings("prometheus", yaml, parse).expect("right");
    let mut opening = Opening {
        name: "prometheus",
        doors,
        budget: &Budget::root("test", 1 << 30),
        beside: &mut |_| None,
    };
    Box::new(config).open(&mut opening).expect("opens").0
}

pub async fn serving(yaml: &str) -> (Sink, Open, Client) {
    let mut doors = Doors::new();
    let sink = opened(yaml, &mut doors);
    let open = doors.open().await.expect("opens");
    let address = open.address_of("exporter prometheus").expect("open");
    let client = Client::new("127.0.0.1", address.port(), None, false).expect("a client");
    (sink, open, client)
}

pub async fn export(sink: &Sink, batch: Batch) -> Outcome {
    let Sink::Exporter(exporter) = sink else {
        panic!("an exporter")
    };
    exporter.export(batch).await
}

fn some_of_each() -> Vec<Metric> {
    let quantile = ValueAtQuantile {
        quantile: 0.5,
        value: 1.5,
    };
    let point = SummaryDataPoint {
        time_unix_nano: T,
        count: 2,
        sum: 3.0,
        quantile_values: vec![quantile],
        ..SummaryDataPoint::default()
    };
    let summary = Data::Summary(Summary {
        data_points: vec![point],
    });
    let mut count = number(17.0, T, &[("status_code", "200")]);
    count.exemplars = vec![Exemplar {
        trace_id: vec![0xcd; 16],
        time_unix_nano: T,
        value: Some(exemplar::Value::AsInt(1)),
        ..Exemplar::default()
    }];
    vec![
        counter("request_count", CUMULATIVE, vec![count]),
        histogram("request.duration", T, CUMULATIVE),
        Metric {
            name: "size".into(),
            unit: "By".into(),
            description: "A summary".into(),
            data: Some(summary),
            ..Metric::default()
        },
        Metric {
            description: "A gauge".into(),
            ..gauge("active_requests", vec![number(2.5, T, &[])])
        },
    ]
}

#[tokio::test]
async fn the_page_in_both_formats() {
    let (sink, _open, client) =
        serving("{ endpoint: '127.0.0.1:0', const_labels: { environment: dev, job: mine } }").await;
    assert!(sink.takes(Signal::Metrics) && !sink.takes(Signal::Traces));
    assert_eq!(export(&sink, batch(some_of_each())).await, Outcome::Delivered);

    let answer = get(&client, "/metrics", HeaderMap::new()).await;
    assert_eq!(
        answer.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let expect = r#"# HELP active_requests A gauge
# TYPE active_requests gauge
active_requests{environment="dev",instance="i-1",job="chat"} 2.5
# HELP request_count_total How many
# TYPE request_count_total counter
request_count_total{environment="dev",instance="i-1",job="chat",status_code="200"} 17
# HELP request_duration_seconds How long
# TYPE request_duration_seconds histogram
request_duration_seconds_bucket{environment="dev",instance="i-1",job="chat",method="GET",le="0.5"} 1
request_duration_seconds_bucket{environment="dev",instance="i-1",job="chat",method="GET",le="1.0"} 2
request_duration_seconds_bucket{environment="dev",instance="i-1",job="chat",method="GET",le="+Inf"} 3
request_duration_seconds_sum{environment="dev",instance="i-1",job="chat",method="GET"} 4.5
request_duration_seconds_count{environment="dev",instance="i-1",job="chat",method="GET"} 3
# HELP size_bytes A summary
# TYPE size_bytes summary
size_bytes{environment="dev",instance="i-1",job="chat",quantile="0.5"} 1.5
size_bytes_sum{environment="dev",instance="i-1",job="chat"} 3
size_bytes_count{environment="dev",instance="i-1",job="chat"} 2
# HELP target_info Target metadata
# TYPE target_info gauge
target_info{environment="dev",host_name="h",instance="i-1",job="chat"} 1
"#;
    assert_eq!(String::from_utf8_lossy(&answer.body), expect);

    let mut headers = HeaderMap::new();
    headers.insert(
        "accept",
        HeaderValue::from_static("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"),
    );
    headers.insert("accept-encoding", HeaderValue::from_static("gzip"));
    let answer = get(&client, "/metrics", headers).await;
    assert_eq!(
        answer.headers["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert_eq!(answer.headers["content-encoding"], "gzip");
    let mut inflated = vec![0; 1 << 16];
    let length = libdeflater::Decompressor::new()
        .gzip_decompress(&answer.body, &mut inflated)
        .expect("gzip");
    let text = String::from_utf8_lossy(&inflated[..length]);
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in [
        "# TYPE request_count counter",
        "request_count_total{environment=\"dev\",instance=\"i-1\",job=\"chat\",status_code=\"200\"} 17.0 # {trace_id=\"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd\"} 1.0 1700000000.000",
        "# UNIT request_duration_seconds seconds",
        "request_duration_seconds_bucket{environment=\"dev\",instance=\"i-1\",job=\"chat\",method=\"GET\",le=\"1.0\"} 2.0 # {trace_id=\"abababababababababababababababab\"} 0.7 1700000000.000",
        "# TYPE target info",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\nis missing in\n{text}");
    }

    let missing = get(&client, "/other", HeaderMap::new()).await;
    assert_eq!(missing.status, 404);
}

/// Its exit status: 0 right, 1 unreadable, 3 readable and not to its taste. `None` where it is not installed.
fn promtool(page: &str) -> Option<(i32, String)> {
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn();
    let Ok(mut child) = started else {
        eprintln!("skipped: promtool is not installed");
        return None;
    };
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(page.as_bytes())
        .expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    Some((
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

#[test]
fn promtool_finds_nothing_to_say() {
    let mut registry = registry(Options::default());
    assert_eq!(update(&mut registry, some_of_each(), 0), Rejected::default());
    if let Some((status, said)) = promtool(&page(&mut registry, Format::Text, 0)) {
        assert_eq!((status, said.as_str()), (0, ""));
    }
}

#[test]
fn promtool_reads_whatever_attributes_hold() {
    let mut registry = registry(Options::default());
    let hostile = [
        "a\nb",
        "\"",
        "\\",
        "\\n",
        "\0",
        "\r",
        "é日本",
        "{}",
        "a=\"b\",",
        " # {x=\"y\"} 1",
        "\u{2028}",
        "\u{feff}",
    ];
    let points = |value| {
        hostile
            .iter()
            .map(move |text| number(value, T, &[(text, text), ("k", text)]))
            .collect::<Vec<_>>()
    };
    let metrics = hostile.iter().zip(
        [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -0.0,
            1e300,
            f64::MIN_POSITIVE,
            1.0,
        ]
        .into_iter()
        .cycle(),
    );
    let metrics: Vec<Metric> = metrics
        .map(|(name, value)| Metric {
            description: (*name).to_owned(),
            ..gauge(name, points(value))
        })
        .collect();
    update(&mut registry, metrics, 0);
    let page = page(&mut registry, Format::Text, 0);
    assert!(page.lines().count() > hostile.len(), "{page}");
    if let Some((status, said)) = promtool(&page) {
        assert!(status == 0 || status == 3, "{said}\n{page}");
    }
}

#[test]
fn the_latest_value_counts_until_nobody_reports_it() {
    let mut registry = registry(Options::default());
    let value = |value, at| vec![gauge("g", vec![number(value, T + at, &[])])];
    update(&mut registry, value(1.0, 1), 0);
    update(&mut registry, value(3.0, 3), 1);
    update(&mut registry, value(2.0, 2), 2);
    assert_eq!(
        samples(&mut registry, 302),
        ["g{…} 3"],
        "an older value that comes late changes nothing but that it is alive"
    );
    assert_eq!(samples(&mut registry, 303), [""; 0]);
    assert_eq!(registry.series(), 0);
    let ended = NumberDataPoint {
        flags: 1,
        value: None,
        ..number(0.0, T + 9, &[])
    };
    update(&mut registry, value(1.0, 1), 400);
    update(&mut registry, vec![gauge("g", vec![ended])], 401);
    assert_eq!(
        samples(&mut registry, 401),
        [""; 0],
        "its sender said that it has ended"
    );
}

#[test]
fn what_was_added_is_added_up() {
    let mut registry = registry(Options::default());
    let delta = |value, from, to| NumberDataPoint {
        start_time_unix_nano: T + from,
        ..number(value, T + to, &[])
    };
    assert_eq!(
        update(
            &mut registry,
            vec![counter("c", DELTA, vec![delta(1.0, 0, 1), delta(2.0, 1, 2)])],
            0
        ),
        Rejected::default()
    );
    let overlapping = update(
        &mut registry,
        vec![counter("c", DELTA, vec![delta(2.0, 1, 2), delta(4.0, 5, 6)])],
        1,
    );
    assert_eq!(
        overlapping,
        Rejected {
            overlap: 1,
            ..Rejected::default()
        }
    );
    update(&mut registry, vec![histogram("h", T, DELTA)], 1);
    update(&mut registry, vec![histogram("h", T + 1, DELTA)], 1);
    assert_eq!(
        samples(&mut registry, 1),
        [
            "c_total{…} 7",
            "h_seconds_bucket{…,method=\"GET\",le=\"0.5\"} 2",
            "h_seconds_bucket{…,method=\"GET\",le=\"1.0\"} 4",
            "h_seconds_bucket{…,method=\"GET\",le=\"+Inf\"} 6",
            "h_seconds_sum{…,method=\"GET\"} 9",
            "h_seconds_count{…,method=\"GET\"} 6",
        ]
    );
}

#[test]
fn one_name_has_one_type() {
    let mut registry = registry(Options::default());
    update(&mut registry, vec![histogram("d", T, CUMULATIVE)], 0);
    let conflicting = vec![
        gauge("d_seconds", vec![number(1.0, T, &[])]),
        gauge(
            "d_seconds_count",
            vec![number(1.0, T, &[]), number(1.0, T, &[("a", "b")])],
        ),
        counter("c", 0, vec![number(1.0, T, &[])]),
    ];
    assert_eq!(
        update(&mut registry, conflicting.clone(), 1),
        Rejected {
            conflict: 3,
            temporality: 1,
            ..Rejected::default()
        }
    );
    // When nobody reports the first any more, the name is free.
    update(&mut registry, vec![gauge("other", vec![number(1.0, T, &[])])], 400);
    assert_eq!(
        update(&mut registry, conflicting, 401),
        Rejected {
            temporality: 1,
            ..Rejected::default()
        }
    );
}

#[tokio::test]
async fn what_is_not_shown_is_told() {
    let (sink, _open, _) = serving("{ endpoint: '127.0.0.1:0' }").await;
    let outcome = export(&sink, batch(vec![counter("c", 0, vec![number(1.0, T, &[])])])).await;
    let Outcome::Rejected { reason, items: 1 } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(reason.kind, Reason::Unsupported);
    assert!(reason.message.contains("temporality"), "{reason}");
}

#[test]
fn a_page_has_a_bound() {
    let mut registry = registry(Options::default());
    let over = 100;
    let points = |range: std::ops::Range<usize>| range.map(|id| number(1.0, T, &[("id", &id.to_string())])).collect();
    let half = MAX_SERIES / 2;
    assert_eq!(
        update(&mut registry, vec![gauge("g", points(0..half))], 0),
        Rejected::default()
    );
    // `target_info` is a series too.
    let rejected = update(&mut registry, vec![gauge("g", points(half..MAX_SERIES + over))], 0);
    assert_eq!(
        rejected,
        Rejected {
            too_many: over as u32 + 1,
            ..Rejected::default()
        }
    );
    assert_eq!(registry.series(), MAX_SERIES);
    assert_eq!(
        page(&mut registry, Format::Text, 0)
            .lines()
            .filter(|line| line.starts_with("g{"))
            .count(),
        MAX_SERIES - 1
    );
    assert_eq!(
        update(&mut registry, vec![gauge("new", vec![number(1.0, T, &[])])], 301),
        Rejected::default(),
        "there is room again"
    );
}

/// A histogram with long labels and so many buckets, the last of which has an exemplar.
fn wide(buckets: usize, time_unix_nano: u64) -> Metric {
    let mut metric = histogram("wide", time_unix_nano, CUMULATIVE);
    let Some(Data::Histogram(data)) = &mut metric.data else {
        unreachable!("it is one")
    };
    let point = &mut data.data_points[0];
    point.attributes = pairs(&[("long", &"x".repeat(64 << 10))]);
    point.bucket_counts = vec![1; buckets];
    point.explicit_bounds = (0..buckets - 1).map(|bound| bound as f64).collect();
    point.count = buckets as u64;
    point.exemplars[0].value = Some(exemplar::Value::AsDouble(f64::from(u32::MAX)));
    metric
}

#[test]
fn labels_before_each_bucket_are_bounded() {
    let budget = Budget::root("test", 1 << 30);
    let mut registry = Registry::new(Options::default(), budget.charge(0));
    let full = Rejected {
        too_many: 1,
        ..Rejected::default()
    };
    assert_eq!(update(&mut registry, vec![wide(5000, T)], 0), full);
    assert_eq!(update(&mut registry, vec![wide(4, T)], 0), Rejected::default());
    let few = budget.used_bytes();
    assert_eq!(
        update(&mut registry, vec![wide(5000, T + 1)], 0),
        full,
        "a known series does not grow beyond it"
    );
    assert_eq!(update(&mut registry, vec![wide(104, T + 2)], 0), Rejected::default());
    let more = budget.used_bytes() - few;
    assert!(
        (1600..1800).contains(&more),
        "{more} bytes for a hundred buckets and an exemplar"
    );
    let page = page(&mut registry, Format::OpenMetrics, 0);
    assert_eq!(
        page.lines().filter(|line| line.contains(" # {")).count(),
        2,
        "the fourth bucket's and the last's"
    );
    // It goes, and gives all back.
    assert_eq!(
        update(&mut registry, vec![gauge("new", vec![number(1.0, T, &[])])], 400),
        Rejected::default()
    );
    assert!(budget.used_bytes() < 1024, "{}", budget.used_bytes());
    assert_eq!(
        update(&mut registry, vec![wide(3000, T + 3)], 400),
        Rejected::default(),
        "there is room again"
    );
}

#[test]
fn what_a_series_takes_is_counted_and_given_back() {
    let budget = Budget::root("test", 1 << 20);
    let options = Options {
        expiration: Duration::from_secs(1),
        ..Options::default()
    };
    let mut registry = Registry::new(options, budget.charge(0));
    let points = (0..20_000)
        .map(|id| number(1.0, T, &[("id", &id.to_string())]))
        .collect();
    let rejected = update(&mut registry, vec![gauge("g", points)], 0);
    assert!(rejected.too_many > 10_000 && registry.series() > 1_000, "{rejected:?}");
    assert!(budget.used_bytes() > 900_000);
    page(&mut registry, Format::Text, 10);
    assert_eq!((budget.used_bytes(), registry.series()), (0, 0));
}

#[test]
fn mistakes_in_the_settings() {
    let said = |yaml: &str| settings("prometheus", yaml, parse).expect_err("wrong");
    for (yaml, expect) in [
        ("{ endpoint: nowhere }", "`nowhere` is not an address"),
        ("{ const_labels: {} }", "the key `endpoint` is missing"),
        ("{ endpoint: ':1', const_lables: {} }", "did you mean `const_labels`?"),
        (
            "{ endpoint: ':1', const_labels: { a-b: c } }",
            "`a-b` is not the name of a label",
        ),
        (
            "{ endpoint: ':1', translation_strategy: NoTranslation }",
            "`prometheusremotewrite` keeps them",
        ),
        ("{ endpoint: ':1', tls: { cert_file: a } }", "`key_file` is missing"),
    ] {
        let said = said(yaml);
        assert!(
            said.contains(expect) && said.contains("test.yaml:2"),
            "{said}\nexpected: {expect}"
        );
    }
    let owners = "{ endpoint: '0.0.0.0:8888', const_labels: { environment: dev, project: x }, metric_expiration: 10m, enable_open_metrics: true, \
                  send_timestamps: true, namespace: n, resource_to_telemetry_conversion: { enabled: true }, add_metric_suffixes: false }";
    settings("prometheus", owners, parse).expect("right");
}

/// Reads a page of gauges as the format's description has it.
fn read(page: &str) -> BTreeMap<(String, BTreeMap<String, String>), f64> {
    let mut found = BTreeMap::new();
    for line in page
        .split('\n')
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let name: String = line.chars().take_while(|c| !" {".contains(*c)).collect();
        let mut labels = BTreeMap::new();
        let mut rest = line[name.len()..].chars().peekable();
        if rest.next_if_eq(&'{').is_some() {
            while rest.next_if_eq(&'}').is_none() {
                let label: String = std::iter::from_fn(|| rest.next_if(|c| *c != '=')).collect();
                assert_eq!((rest.next(), rest.next()), (Some('='), Some('"')), "{line}");
                let mut value = String::new();
                loop {
                    match rest.next().expect("a quote") {
                        '"' => break,
                        '\\' => value.push(match rest.next() {
                            Some('n') => '\n',
                            Some(c @ ('"' | '\\')) => c,
                            other => panic!("{other:?} in {line}"),
                        }),
                        c => value.push(c),
                    }
                }
                rest.next_if_eq(&',');
                assert_eq!(labels.insert(label, value), None, "{line}");
            }
        }
        let value: String = rest.collect();
        let value = value.trim().trim_start_matches('+').parse().expect("a number");
        assert_eq!(found.insert((name, labels), value), None, "twice: {line}");
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The page, read by another reader, is the last value of each series.
    #[test]
    fn a_reader_finds_what_was_reported(
        reports in proptest::collection::vec(("[a-c]", proptest::collection::btree_map("[d-f]", "\\PC{0,3}|[\n\"\\\\]{1,3}", 0..3), any::<f64>()), 0..12),
    ) {
        let mut registry = registry(Options { labels: labels::Options::default(), ..Options::default() });
        let mut expect = BTreeMap::new();
        for (at, (name, labels, value)) in reports.iter().enumerate() {
            let attributes: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let metrics = vec![gauge(name, vec![number(*value, T + at as u64, &attributes)])];
            prop_assert_eq!(update(&mut registry, metrics, 0), Rejected::default());
            let mut labels = labels.clone();
            labels.retain(|_, value| !value.is_empty());
            labels.extend([("job".to_owned(), "chat".to_owned()), ("instance".to_owned(), "i-1".to_owned())]);
            expect.insert((name.clone(), labels), *value);
        }
        let mut found = read(&page(&mut registry, Format::Text, 0));
        found.retain(|(name, _), _| name != "target_info");
        prop_assert_eq!(found.len(), expect.len());
        for ((key, found), (expected, value)) in found.iter().zip(&expect) {
            prop_assert_eq!(key, expected);
            prop_assert!(found == value || (found.is_nan() && value.is_nan()), "{} {}", found, value);
        }
    }

    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        registry(Options::default()).update(&bytes, Duration::ZERO);
    }
}

#[test]
fn two_exporters_cannot_share_a_page() {
    let mut doors = Doors::new();
    opened("{ endpoint: '127.0.0.1:8888' }", &mut doors);
    let config = settings("prometheus", "{ endpoint: '127.0.0.1:8888' }", parse).expect("right");
    let mut opening = Opening {
        name: "prometheus/2",
        doors: &mut doors,
        budget: &Budget::root("test", 1 << 20),
        beside: &mut |_| None,
    };
    let said = Prometheus::mount(&config, &mut opening)
        .err()
        .expect("taken")
        .to_string();
    assert!(
        said.contains("exporter prometheus/2") && said.contains("/metrics"),
        "{said}"
    );
}

#[tokio::test]
async fn what_the_process_tells_of_itself_stands_beside() {
    let mut doors = Doors::new();
    let config = settings("prometheus", "{ endpoint: '127.0.0.1:0' }", parse).expect("right");
    let mut asked = Vec::new();
    let mut beside = |endpoint: &net::Endpoint| {
        asked.push(endpoint.to_string());
        let write: exporters::prometheus::Beside = Arc::new(|writer: &mut Writer| {
            writer.family(
                "otelcol_exporter_sent_spans_total",
                codec::prometheus::Kind::Counter,
                "Spans that were sent",
                "",
            );
            writer.plain(&[("exporter", "otlp")], 5.0);
        });
        Some(write)
    };
    let mut opening = Opening {
        name: "prometheus",
        doors: &mut doors,
        budget: &Budget::root("test", 1 << 20),
        beside: &mut beside,
    };
    Prometheus::mount(&config, &mut opening).expect("mounts");
    assert_eq!(asked, ["127.0.0.1:0"]);
    let open = doors.open().await.expect("opens");
    let address = open.address_of("exporter prometheus").expect("open");
    let client = Client::new("127.0.0.1", address.port(), None, false).expect("a client");
    let answer = get(&client, "/metrics", HeaderMap::new()).await;
    assert!(
        String::from_utf8_lossy(&answer.body).ends_with("\notelcol_exporter_sent_spans_total{exporter=\"otlp\"} 5\n")
    );
}
