//! Remote write on a real socket: what our exporter and a real Prometheus push arrives as the same series, and answers are those of the specification.

mod support;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use codec::prometheus::exposition;
use codec::prometheus::labels;
use codec::prometheus::naming::Strategy;
use codec::prometheus::otlp::{self, Job, TargetInfo};
use codec::prometheus::text::Format;
use codec::remote_write::{Encoder, Options, Version};
use model::view::metrics::metrics;
use model::{Batch, Signal};
use net::{Doors, Open};
use pipeline::config::{Config, Source};
use pipeline::{Ack, Budget, Entry, Intake, Ledger, Outcome, Reason};
use receivers::Settings;
use support::{HttpAnswer, gzip, post};

const WRITE: &str = "/api/v1/write";
const FIRST: (&str, &str) = ("content-type", "application/x-protobuf");
const SECOND: (&str, &str) = (
    "content-type",
    "application/x-protobuf;proto=io.prometheus.write.v2.Request",
);
const SNAPPY: (&str, &str) = ("content-encoding", "snappy");

/// Enough for everything here on a machine that does something else as well.
const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    open: Open,
    http: SocketAddr,
    ledger: Ledger,
    budget: Budget,
    batches: Arc<Mutex<Vec<Batch>>>,
    outcome: Arc<Mutex<Outcome>>,
}

async fn start() -> Running {
    start_with("max_request_body_size: 1048576").await
}

async fn start_with(settings: &str) -> Running {
    let (ledger, batches) = (Ledger::new(), Arc::new(Mutex::new(Vec::new())));
    let budget = Budget::root("test", 256 << 20);
    let outcome = Arc::new(Mutex::new(Outcome::Delivered));
    let (kept, answer) = (Arc::clone(&batches), Arc::clone(&outcome));
    let entry: Arc<dyn Entry> = Arc::new(move |batch: Batch, ack: Ack| {
        kept.lock().unwrap().push(batch);
        ack.resolve(answer.lock().unwrap().clone());
    });
    let routes = vec![(Signal::Metrics, entry)];
    let intake = Intake::new("prometheusremotewrite", &ledger, budget.clone(), routes);
    let yaml = format!(
        "receivers: {{ prometheusremotewrite: {{ endpoint: '127.0.0.1:0', {settings} }} }}\nservice: {{ pipelines: {{ metrics: {{}} }} }}\n"
    );
    let config = Config::load(vec![Source::new("test", yaml)], &|_| None).unwrap();
    let config = receivers::prometheusremotewrite::Config::parse(&config.section(&config.receivers[0])).unwrap();
    let mut doors = Doors::new();
    Box::new(config).mount(intake, &mut doors).unwrap();
    let open = doors.open().await.unwrap();
    Running {
        http: open.address_of("receiver prometheusremotewrite (http)").unwrap(),
        open,
        ledger,
        budget,
        batches,
        outcome,
    }
}

impl Running {
    /// Closes the doors; what arrived.
    async fn finish(self) -> Vec<Batch> {
        assert!(self.open.shutdown(Duration::from_secs(10)).await);
        self.ledger.balance().unwrap();
        let payloads = std::mem::take(&mut *self.batches.lock().unwrap());
        let used: u64 = payloads.iter().map(|batch| batch.payload.len() as u64).sum();
        assert!(
            self.budget.used_bytes() <= used,
            "{} of {used}",
            self.budget.used_bytes()
        );
        payloads
    }
}

fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

const PAGE: &str = r#"# HELP request_duration_seconds Time
# TYPE request_duration_seconds histogram
# UNIT request_duration_seconds seconds
request_duration_seconds_bucket{job="shop/cart",instance="i",le="0.5"} 1.0 1700000000.001 # {trace_id="0af7651916cd43dd8448eb211c80319c"} 0.25 1700000000.001
request_duration_seconds_bucket{job="shop/cart",instance="i",le="+Inf"} 3 1700000000.001
request_duration_seconds_sum{job="shop/cart",instance="i"} 7.75 1700000000.001
request_duration_seconds_count{job="shop/cart",instance="i"} 3 1700000000.001
# TYPE request_count counter
request_count_total{job="shop/cart",instance="i"} 17 1700000000.001
request_count_created{job="shop/cart",instance="i"} 1600000000
# TYPE target info
target_info{job="shop/cart",instance="i",region="eu"} 1 1700000000.001
nothing_said{job="other"} 1 1700000000.001
# EOF
"#;

/// OTLP of a page.
fn payload(page: &str) -> Vec<u8> {
    let list = exposition::read(page.as_bytes(), Format::OpenMetrics).unwrap();
    let options = otlp::Options {
        time_ms: 1_700_000_000_001,
        job: Job::Parted,
        target_info: TargetInfo::Kept,
        max_bytes: 1 << 20,
    };
    otlp::build(&list, &options).unwrap().payload
}

fn requests(version: Version, payload: &[u8]) -> Vec<Vec<u8>> {
    let options = Options {
        version,
        labels: labels::Options {
            strategy: Strategy::NoTranslation,
            scope: true,
            ..labels::Options::default()
        },
        metadata: true,
        ..Options::default()
    };
    let encoded = Encoder::new(options).encode(payload);
    assert_eq!(encoded.rejected.total(), 0);
    encoded.requests.into_iter().map(|request| request.bytes).collect()
}

fn written(answer: &HttpAnswer) -> [&str; 3] {
    ["samples", "histograms", "exemplars"].map(|what| {
        let name = format!("x-prometheus-remote-write-{what}-written");
        answer.header(&name).unwrap_or_default()
    })
}

#[tokio::test]
async fn both_versions_arrive_as_what_they_were_made_of() {
    let running = start().await;
    let made = payload(PAGE);
    for (content_type, version, expect) in [
        (FIRST, Version::V1, ["", "", ""]),
        (
            ("content-type", "application/x-protobuf; proto=prometheus.WriteRequest"),
            Version::V1,
            ["", "", ""],
        ),
        (SECOND, Version::V2, ["7", "0", "1"]),
    ] {
        let [request] = requests(version, &made).try_into().unwrap();
        for (headers, body) in [
            (vec![content_type, SNAPPY], snappy(&request)),
            (vec![content_type], snappy(&request)),
            (vec![content_type, ("content-encoding", "gzip")], gzip(&request)),
            (vec![content_type, ("content-encoding", "identity")], request.clone()),
        ] {
            let answer = post(running.http, WRITE, &headers, &body).await;
            let said = String::from_utf8_lossy(&answer.body);
            assert_eq!((answer.status, written(&answer)), (204, expect), "{headers:?}: {said}");
        }
    }
    let arrived = running.finish().await;
    assert_eq!(arrived.len(), 12);
    for batch in &arrived {
        // The order is another: series that were one point lay together.
        assert_eq!(series(&batch.payload), series(&made));
        // Types came in the same request.
        let names: BTreeSet<&str> = metrics(&batch.payload).map(|metric| metric.name).collect();
        assert!(names.contains("request_duration_seconds"), "{names:?}");
    }
}

/// The series of a payload and what is said about them, as 1.0 encodes them, where nothing depends on the order.
fn series(payload: &[u8]) -> BTreeSet<Vec<u8>> {
    let requests = requests(Version::V1, payload);
    let fields = requests.iter().flat_map(|request| model::wire::Fields::new(request));
    fields.map(|(_, field)| field.bytes().to_vec()).collect()
}

#[tokio::test]
async fn what_is_wrong_is_said_and_the_rest_taken() {
    let running = start().await;
    let check = async |headers: &[(&str, &str)], body: &[u8], status: u16, expect: &str| {
        let answer = post(running.http, WRITE, headers, body).await;
        let said = String::from_utf8(answer.body.clone()).unwrap();
        assert_eq!(answer.status, status, "{said}");
        assert!(said.contains(expect), "{said}");
        answer
    };
    let json = ("content-type", "application/json");
    check(&[json], b"{}", 415, "application/x-protobuf").await;
    check(&[], b"", 415, "application/x-protobuf").await;
    let other = (
        "content-type",
        "application/x-protobuf;proto=io.prometheus.write.v3.Request",
    );
    check(&[other, SNAPPY], b"", 415, "io.prometheus.write.v2.Request").await;
    check(&[FIRST, ("content-encoding", "br")], b"", 415, "not supported").await;
    check(&[FIRST, SNAPPY], b"plain", 400, "snappy").await;
    check(
        &[FIRST, SNAPPY],
        &snappy(b"\x0a\xff"),
        400,
        "WriteRequest is no protobuf",
    )
    .await;
    let answer = check(&[SECOND, SNAPPY], &snappy(b"\x2a\xff"), 400, "Request is no protobuf").await;
    assert_eq!(written(&answer), ["0", "0", "0"]);
    // A bomb, and bytes that only claim to be one.
    check(&[FIRST, SNAPPY], &snappy(&vec![0; 2 << 20]), 413, "larger than").await;
    check(&[FIRST, SNAPPY], b"\xff\xff\xff\xff\x0f", 413, "larger than").await;

    // Two samples of a series without a name, before the one that is right.
    let [request] = requests(Version::V2, &payload("good 1\n# EOF\n")).try_into().unwrap();
    let mut broken = vec![5 << 3 | 2, 4, 2 << 3 | 2, 0, 2 << 3 | 2, 0];
    broken.extend_from_slice(&request);
    let expect = "2 samples and histograms of series that cannot be taken were left out, the others were taken: {}: a series has no name";
    let answer = check(&[SECOND, SNAPPY], &snappy(&broken), 400, expect).await;
    assert_eq!(written(&answer), ["1", "0", "0"]);

    // Nothing but types is nothing to take, and no mistake.
    check(&[FIRST, SNAPPY], &snappy(b"\x1a\x05\x08\x01\x12\x01a"), 204, "").await;
    check(&[FIRST, SNAPPY], &snappy(b""), 204, "").await;

    // A small request that would become a large one: a label of 60,000 bytes and 10,000 empty samples.
    let mut label = vec![0x0a, 8];
    label.extend_from_slice(b"__name__");
    label.extend_from_slice(&[0x12, 0xe0, 0xd4, 3]);
    label.extend_from_slice(&[b'x'; 60_000]);
    let mut series = Vec::new();
    model::wire::put_bytes(&mut series, 1, &label);
    series.extend(std::iter::repeat_n([0x12, 0], 10_000).flatten());
    let mut request = Vec::new();
    model::wire::put_bytes(&mut request, 1, &series);
    check(&[FIRST, SNAPPY], &snappy(&request), 413, "send smaller requests").await;

    // Another: native histograms of two buckets each with ten thousand empty ones between them.
    let mut native = Vec::new();
    for offset in [0u64, 10_000] {
        let mut span = vec![1 << 3];
        model::wire::put_varint(&mut span, offset << 1);
        span.extend_from_slice(&[2 << 3, 1]);
        model::wire::put_bytes(&mut native, 11, &span);
    }
    native.extend_from_slice(&[12 << 3 | 2, 2, 2, 0]);
    let mut series = Vec::new();
    (0..30_000).for_each(|_| model::wire::put_bytes(&mut series, 3, &native));
    let mut request = Vec::new();
    model::wire::put_bytes(&mut request, 5, &series);
    check(&[SECOND, SNAPPY], &snappy(&request), 413, "send smaller requests").await;

    *running.outcome.lock().unwrap() = Outcome::retry(Duration::from_secs(3), Reason::JournalFull);
    let good = snappy(&requests(Version::V1, &payload("good 1\n# EOF\n"))[0]);
    let answer = check(&[FIRST, SNAPPY], &good, 503, "full").await;
    assert_eq!(answer.header("retry-after").unwrap_or_default(), "3");
    running.finish().await;
}

#[tokio::test]
async fn what_is_said_once_holds_for_later_requests() {
    let running = start().await;
    // Types, then target_info, then a sample that has neither with it.
    let [all] = requests(Version::V1, &payload(PAGE)).try_into().unwrap();
    let fields: Vec<(u32, &[u8])> = model::wire::Fields::new(&all)
        .map(|(number, field)| (number, field.bytes()))
        .collect();
    let only = |wanted: &dyn Fn(u32, &[u8]) -> bool| {
        let mut out = Vec::new();
        for (number, body) in fields.iter().filter(|(number, body)| wanted(*number, body)) {
            model::wire::put_bytes(&mut out, *number, body);
        }
        snappy(&out)
    };
    let holds = |body: &[u8], text: &str| body.windows(text.len()).any(|window| window == text.as_bytes());
    for body in [
        only(&|number, _| number == 3),
        only(&|number, body| number == 1 && holds(body, "target_info")),
        only(&|number, body| number == 1 && holds(body, "request_count_total")),
    ] {
        assert_eq!(post(running.http, WRITE, &[FIRST, SNAPPY], &body).await.status, 204);
    }
    let arrived = running.finish().await;
    let last = &arrived.last().unwrap().payload;
    let group = model::view::metrics::resource_metrics(last).iter().next().unwrap();
    let attributes: Vec<&str> = group.owner().attributes.iter().map(|pair| pair.key).collect();
    assert_eq!(
        attributes,
        ["service.namespace", "service.name", "service.instance.id", "region"]
    );
    let metric = metrics(last).next().unwrap();
    assert_eq!((metric.name, metric.description), ("request_count_total", ""));
    assert!(
        matches!(metric.data, model::view::metrics::Data::Sum { is_monotonic: true, .. }),
        "{metric:?}"
    );
}

// ---- a real Prometheus ----

struct Prometheus {
    process: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to keep.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts one that scrapes itself each second and writes what it has to `to`; `None` where it is not installed, or does not know the version.
fn prometheus(to: SocketAddr, version: Version) -> Option<Prometheus> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("prometheus.yml");
    // It cannot say which port it was given, so it is told one that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let message = match version {
        Version::V1 => "",
        Version::V2 => "protobuf_message: io.prometheus.write.v2.Request, ",
    };
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s, external_labels: {{ __replica__: a, cluster: test }} }}\n\
         scrape_configs: [{{ job_name: self, static_configs: [{{ targets: ['127.0.0.1:{port}'] }}] }}]\n\
         remote_write: [{{ url: 'http://{to}{WRITE}', send_exemplars: true, {message}\
         metadata_config: {{ send_interval: 1s }}, queue_config: {{ batch_send_deadline: 1s }} }}]\n"
    );
    std::fs::write(&file, &config).unwrap();
    let checked = Command::new("promtool").arg("check").arg("config").arg(&file).output();
    match checked {
        Ok(checked) if checked.status.success() => {}
        Ok(checked) => {
            eprintln!(
                "skipped: this prometheus does not know {version:?}: {}",
                String::from_utf8_lossy(&checked.stderr)
            );
            return None;
        }
        Err(_) => {
            eprintln!("skipped: promtool is not installed");
            return None;
        }
    }
    let started = Command::new("prometheus")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            directory.path().join("data").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args([
            "--enable-feature=exemplar-storage,native-histograms",
            "--log.level=warn",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn();
    let Ok(process) = started else {
        eprintln!("skipped: prometheus is not installed");
        return None;
    };
    Some(Prometheus {
        process,
        _directory: directory,
    })
}

async fn takes_from_prometheus(version: Version) {
    let running = start_with("max_request_body_size: 20971520").await;
    let Some(prometheus) = prometheus(running.http, version) else {
        running.finish().await;
        return;
    };
    let shown = |batches: &[Batch]| {
        let mut shown = BTreeSet::new();
        for batch in batches {
            for group in model::view::metrics::resource_metrics(&batch.payload) {
                let resource: Vec<String> = group
                    .owner()
                    .attributes
                    .iter()
                    .map(|pair| format!("{}={:?}", pair.key, pair.value))
                    .collect();
                for metric in group.list().iter().flat_map(|scope| scope.list()) {
                    let kind = format!("{:?}", metric.data);
                    let kind = kind.split([' ', '{']).next().unwrap().to_owned();
                    shown.insert((
                        metric.name.to_owned(),
                        kind,
                        resource.join(" ").contains("service.name=Str(\"self\")"),
                    ));
                }
            }
        }
        shown
    };
    let has = |name: &str, kind: &str| (name.to_owned(), kind.to_owned(), true);
    // A counter, a gauge, a summary and a histogram of its own, once their types have come.
    let wanted = [
        has("prometheus_http_requests_total", "Sum"),
        has("up", "Gauge"),
        has("go_gc_duration_seconds", "Summary"),
        has("prometheus_http_request_duration_seconds", "Histogram"),
        has("scrape_samples_scraped", "Gauge"),
    ];
    let arrives = async {
        loop {
            let seen = shown(&running.batches.lock().unwrap());
            if wanted.iter().all(|wanted| seen.contains(wanted)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, arrives).await.is_err() {
        panic!("{version:?}: {:#?}", shown(&running.batches.lock().unwrap()));
    }
    drop(prometheus);
    let books = running.ledger.json().to_string();
    let arrived = running.finish().await;
    assert!(!books.contains("bad_item"), "nothing was refused: {books}");
    // What we write of it is what it wrote: its labels are all there, also those that begin like Prometheus' own.
    let some = requests(Version::V1, &arrived[0].payload).concat();
    for label in ["__replica__", "cluster", "job", "instance"] {
        assert!(
            some.windows(label.len()).any(|window| window == label.as_bytes()),
            "{label}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_writes_the_first_version() {
    takes_from_prometheus(Version::V1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_writes_the_second_version() {
    takes_from_prometheus(Version::V2).await;
}
