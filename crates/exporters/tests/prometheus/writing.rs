//! The exporter `prometheusremotewrite` against a backend that answers as it is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;

use codec::remote_write::Version;
use exporters::prometheusremotewrite::{self, RemoteWrite, parse, sending};
use http_body_util::BodyExt;
use net::{At, Doors, Mount, Open, Response, full_body, handler_fn};
use pipeline::{Exporter, Outcome, Reason};

use super::*;

/// Status and headers of an answer.
type Reply = (u16, Vec<(&'static str, &'static str)>);

#[derive(Default)]
struct Backend {
    seen: Mutex<Vec<(HeaderMap, Vec<u8>)>>,
    replies: Mutex<VecDeque<Reply>>,
}

impl Backend {
    async fn answer(self: Arc<Backend>, request: net::Request) -> Response {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let body = snap::raw::Decoder::new().decompress_vec(&body).expect("snappy");
        self.seen.lock().expect("no panic").push((head.headers, body));
        let (status, headers) = self
            .replies
            .lock()
            .expect("no panic")
            .pop_front()
            .unwrap_or((204, Vec::new()));
        let mut response = Response::new(full_body("out of order\n"));
        *response.status_mut() = status.try_into().expect("a status");
        for (name, value) in headers {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    async fn open(replies: &[Reply]) -> (Arc<Backend>, Open, SocketAddr) {
        let backend = Arc::new(Backend {
            replies: Mutex::new(replies.iter().cloned().collect()),
            ..Backend::default()
        });
        let answering = Arc::clone(&backend);
        let service = handler_fn(move |request| Arc::clone(&answering).answer(request));
        let mut doors = Doors::new();
        let mount = Mount::Http {
            at: At::Path("/api/prom/push".to_owned()),
            service,
        };
        doors
            .mount(&"127.0.0.1:0".parse().expect("an endpoint"), "backend", mount)
            .expect("free");
        let open = doors.open().await.expect("opens");
        let address = open.address_of("backend").expect("open");
        (backend, open, address)
    }

    /// The bodies since the last call.
    fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.seen.lock().expect("no panic"))
            .into_iter()
            .map(|(_, body)| body)
            .collect()
    }
}

use http::HeaderValue;

fn exporter(address: SocketAddr, more: &str) -> RemoteWrite {
    let yaml = format!("{{ endpoint: 'http://{address}/api/prom/push'{more} }}");
    let config = settings("prometheusremotewrite", &yaml, parse).expect("right");
    RemoteWrite::new(&config).expect("an exporter")
}

fn gauges(count: u64) -> Batch {
    let points = (0..count)
        .map(|id| number(id as f64, T, &[("id", &id.to_string())]))
        .collect();
    batch(vec![gauge("g", points)])
}

#[tokio::test]
async fn what_arrives_and_its_headers() {
    for (more, version, content_type, number) in [
        ("", Version::V1, "application/x-protobuf", "0.1.0"),
        (
            ", protobuf_message: io.prometheus.write.v2.Request",
            Version::V2,
            "application/x-protobuf;proto=io.prometheus.write.v2.Request",
            "2.0.0",
        ),
    ] {
        let written = vec![
            ("x-prometheus-remote-write-samples-written", "4"),
            ("x-prometheus-remote-write-histograms-written", "0"),
        ];
        let (backend, _open, address) = Backend::open(&[(200, written)]).await;
        let more =
            format!(", headers: {{ authorization: 'Bearer 1:k' }}, external_labels: {{ environment: dev }}{more}");
        assert_eq!(exporter(address, &more).export(gauges(3)).await, Outcome::Delivered);
        let seen = backend.seen.lock().expect("no panic");
        let [(headers, body)] = seen.as_slice() else {
            panic!("{} requests", seen.len())
        };
        for (name, value) in [
            ("authorization", "Bearer 1:k"),
            ("content-type", content_type),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", number),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
        assert!(headers["user-agent"].to_str().expect("text").starts_with("trackline/"));
        let options = codec::remote_write::Options {
            version,
            labels: codec::prometheus::labels::Options {
                external: vec![("environment".into(), "dev".into())],
                scope: true,
                ..Default::default()
            },
            target_info: true,
            ..Default::default()
        };
        let expect = codec::remote_write::Encoder::new(options).encode(&gauges(3).payload);
        assert_eq!(expect.requests[0].samples, 4, "three and `target_info`");
        assert_eq!(body, &expect.requests[0].bytes);
    }
}

#[tokio::test]
async fn answers_mean_what_the_specification_says() {
    let retry = |seconds| Outcome::retry(Duration::from_secs(seconds), Reason::BackendUnavailable);
    let refused =
        |status, items| Outcome::rejected(Reason::BackendRejected, format!("HTTP {status}: out of order"), items);
    for (reply, expect) in [
        ((200, vec![]), Outcome::Delivered),
        ((204, vec![]), Outcome::Delivered),
        ((429, vec![("retry-after", "7")]), retry(7)),
        ((500, vec![]), retry(0)),
        ((503, vec![("retry-after", "3")]), retry(3)),
        ((400, vec![]), refused(400, 3)),
        (
            (401, vec![]),
            Outcome::retry(Duration::ZERO, Reason::BackendUnauthorized),
        ),
        ((404, vec![("retry-after", "3")]), refused(404, 3)),
        ((302, vec![]), refused(302, 3)),
    ] {
        let (_backend, _open, address) = Backend::open(&[reply]).await;
        assert_eq!(exporter(address, "").export(gauges(3)).await, expect);
    }
}

#[tokio::test]
async fn answers_of_a_receiver_of_the_second_version() {
    let written = |samples| vec![("x-prometheus-remote-write-samples-written", samples)];
    for (reply, refused) in [
        ((200, written("4")), 0),
        ((200, vec![]), 3),
        ((400, written("2")), 2),
        ((400, vec![]), 3),
        ((415, vec![]), 3),
    ] {
        let (_backend, _open, address) = Backend::open(std::slice::from_ref(&reply)).await;
        let outcome = exporter(address, ", protobuf_message: io.prometheus.write.v2.Request")
            .export(gauges(3))
            .await;
        match outcome {
            Outcome::Delivered => assert_eq!(refused, 0, "{reply:?}"),
            Outcome::Rejected { items, .. } => assert_eq!(items, refused, "{reply:?}"),
            Outcome::Retry { .. } => panic!("{reply:?}"),
        }
    }
}

#[tokio::test]
async fn a_repetition_sends_only_what_is_missing() {
    // Each series is a request of its own, one at a time.
    let (backend, _open, address) = Backend::open(&[(204, vec![]), (503, vec![]), (204, vec![]), (400, vec![])]).await;
    let more = ", max_batch_size_bytes: 1, remote_write_queue: { num_consumers: 1 }, target_info: { enabled: false }";
    let (exporter, batch) = (exporter(address, more), gauges(3));
    assert_eq!(
        exporter.export(batch.clone()).await,
        Outcome::retry(Duration::ZERO, Reason::BackendUnavailable)
    );
    let first = backend.take();
    assert_eq!(first.len(), 2, "it stops at the first that is to be repeated");
    let expect = Outcome::rejected(Reason::BackendRejected, "HTTP 400: out of order", 1);
    assert_eq!(exporter.export(batch.clone()).await, expect);
    let second = backend.take();
    assert_eq!(second.len(), 2);
    assert_eq!(second[0], first[1], "the first was taken and is not sent again");
    // It is settled: the same bytes are a new batch now.
    assert_eq!(exporter.export(batch).await, Outcome::Delivered);
    assert_eq!(backend.take().len(), 3);
}

/// Eight points with long labels and many buckets, which written out for each bucket are more than is made of one payload.
#[tokio::test]
async fn what_is_too_much_only_because_it_was_joined_is_sent_in_turns() {
    let (backend, _open, address) = Backend::open(&[]).await;
    let exporter = exporter(
        address,
        ", target_info: { enabled: false }, remote_write_queue: { num_consumers: 4 }",
    );
    let mut metric = histogram("wide", T, CUMULATIVE);
    let Some(Data::Histogram(data)) = &mut metric.data else {
        unreachable!("it is one")
    };
    let mut point = data.data_points.remove(0);
    point.bucket_counts = vec![1; 200];
    point.explicit_bounds = (0..199).map(f64::from).collect();
    point.count = 200;
    data.data_points = (0..8)
        .map(|id| {
            let mut point = point.clone();
            point.attributes = pairs(&[("long", &"x".repeat(64 << 10)), ("id", &format!("number {id}"))]);
            point
        })
        .collect();
    assert_eq!(exporter.export(batch(vec![metric])).await, Outcome::Delivered);
    let bodies = backend.take();
    let bodies: Vec<_> = bodies.iter().map(|body| String::from_utf8_lossy(body)).collect();
    let of = |id: usize| bodies.iter().position(|body| body.contains(&format!("number {id}")));
    let first: Vec<Option<usize>> = (0..8).map(of).collect();
    assert!(first.iter().all(Option::is_some), "each arrives: {first:?}");
    assert!(
        first[..4].iter().max() < first[4..].iter().min(),
        "one half before the other: {first:?}"
    );
}

#[tokio::test]
async fn what_prometheus_does_not_have_is_refused_with_its_reason() {
    let (backend, _open, address) = Backend::open(&[]).await;
    let exporter = exporter(address, "");
    let metrics = vec![
        counter("c", DELTA, vec![number(1.0, T, &[]), number(2.0, T, &[("a", "b")])]),
        gauge("g", vec![number(1.0, T, &[])]),
    ];
    let outcome = exporter.export(batch(metrics)).await;
    let Outcome::Rejected { reason, items: 2 } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(reason.kind, Reason::Unsupported);
    assert!(
        reason.message.contains("2 points of delta") && reason.message.contains("deltatocumulative"),
        "{reason}"
    );
    assert_eq!(backend.take().len(), 1, "the others are sent");
    let nothing = batch(vec![counter("c", DELTA, vec![number(1.0, T, &[])])]);
    assert!(matches!(
        exporter.export(nothing).await,
        Outcome::Rejected { items: 1, .. }
    ));
    assert_eq!(backend.take().len(), 0, "an empty request is no request");
}

#[tokio::test]
async fn a_backend_that_is_away_is_tried_again() {
    let (_backend, open, address) = Backend::open(&[]).await;
    open.shutdown(Duration::ZERO).await;
    let outcome = exporter(address, "").export(gauges(1)).await;
    assert_eq!(outcome, Outcome::retry(Duration::ZERO, Reason::BackendUnavailable));
}

#[test]
fn settings_of_the_field() {
    let owners = "{ endpoint: 'https://prometheus-prod-01-eu-west-0.grafana.net/api/prom/push', headers: { authorization: 'Bearer 1:k' }, \
                  external_labels: { environment: dev, __replica__: a }, remote_write_queue: { enabled: true, queue_size: 100, num_consumers: 2 }, \
                  resource_to_telemetry_conversion: { enabled: true }, target_info: { enabled: false }, export_created_metric: { enabled: true }, \
                  max_batch_size_bytes: 3000000, retry_on_failure: { enabled: true, max_elapsed_time: 5m }, timeout: 10s, tls: { insecure: false }, \
                  send_metadata: true, add_metric_suffixes: false, namespace: n, wal: { directory: /w } }";
    for kind in [
        "prometheusremotewrite",
        "prometheusremotewrite/grafana-cloud",
        "prometheus_remote_write",
    ] {
        let config = settings(kind, owners, parse).expect("right");
        let sending = sending(&config);
        assert_eq!(
            (sending.in_flight, sending.queue_size),
            (1, Some(100)),
            "samples keep their order"
        );
        assert_eq!(sending.timeout, Duration::from_secs(10));
        prometheusremotewrite::RemoteWrite::new(&config).expect("an exporter");
    }
    for (yaml, expect) in [
        ("{ headers: {} }", "the key `endpoint` is missing"),
        ("{ endpoint: 'host:9090' }", "has no http:// or https://"),
        ("{ endpoint: '' }", "it is empty"),
        (
            "{ endpoint: 'http://h', externl_labels: {} }",
            "did you mean `external_labels`?",
        ),
        (
            "{ endpoint: 'http://h', external_labels: { a.b: c } }",
            "`a.b` is not the name of a label",
        ),
        (
            "{ endpoint: 'http://h', compression: gzip }",
            "always compressed with snappy",
        ),
        (
            "{ endpoint: 'http://h', protobuf_message: v2 }",
            "io.prometheus.write.v2.Request",
        ),
        ("{ endpoint: 'http://h', translation_strategy: None }", "NoTranslation"),
    ] {
        let said = settings("prometheusremotewrite", yaml, parse).expect_err("wrong");
        assert!(
            said.contains(expect) && said.contains("test.yaml:2"),
            "{said}\nexpected: {expect}"
        );
    }
}

#[test]
fn what_has_no_effect_is_told() {
    let text = "exporters:\n  prometheusremotewrite: { endpoint: 'http://h', wal: {}, sending_queue: { num_consumers: 4 } }\n\
                service: { pipelines: { metrics: {} } }\n";
    let config = Config::load(vec![Source::new("test.yaml", text)], &|_| None).expect("loads");
    parse(&config.section(&config.exporters[0])).expect("right");
    let said: Vec<String> = config.warnings().into_iter().map(|warning| warning.message).collect();
    for words in ["the journal is the write-ahead log", "samples keep their order"] {
        assert!(said.iter().any(|it| it.contains(words)), "{words}: {said:?}");
    }
}
