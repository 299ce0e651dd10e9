//! The collector between real backends of others, whose binaries the environment names: what it sends is read back through their own APIs.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::running::{Ports, get, post_as};

/// Generous: a Loki takes half of it to find itself.
const WITHIN: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN_ID: &str = "b7ad6b7169203331";

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, log: &Path) -> Running {
        let log = File::create(log).expect("a log");
        let errors = log.try_clone().expect("a handle");
        let started = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        Running(started.expect("the binary starts"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that ended already cannot be killed; the test says what was missing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The binary that a variable names; without one the test skips, and says so.
fn peer(variable: &str) -> Option<Command> {
    let named = std::env::var_os(variable);
    if named.is_none() {
        eprintln!("skipped: {variable} names no binary");
    }
    named.map(Command::new)
}

fn collector(directory: &Path, config: &str) -> Running {
    let file = directory.join("collector.yaml");
    fs::write(&file, config).expect("writes");
    let mut command = Command::new(env!("CARGO_BIN_EXE_trackline"));
    command.arg("collect").arg("--config").arg(&file).arg("--data-dir");
    command.arg(directory.join("data"));
    Running::start(&mut command, &directory.join("collector.log"))
}

/// Asks until there is an answer. `directory` has the logs.
fn wait<T>(directory: &Path, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        if Instant::now() > deadline {
            let log = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
            panic!(
                "no {what} within {WITHIN:?}\n{}\n{}",
                log("collector.log"),
                log("peer.log")
            );
        }
        std::thread::sleep(POLL);
    }
}

fn ask_json(port: u16, path: &str) -> Option<Value> {
    let (200, body) = get(port, path)? else { return None };
    // Answers of HTTP/1.1 may come in chunks; JSON is what lies between the first brace and the last.
    let text = String::from_utf8_lossy(&body).into_owned();
    serde_json::from_str(&text[text.find('{')?..=text.rfind('}')?]).ok()
}

fn send(directory: &Path, port: u16, path: &str, body: &Value) {
    let body = body.to_string();
    let sent = || post_as("application/json", port, path, body.as_bytes()).filter(|status| *status == 200);
    wait(directory, "acknowledgement", sent);
}

fn now_nanos() -> u128 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("after 1970").as_nanos()
}

fn resource() -> Value {
    json!({ "attributes": [
        { "key": "service.name", "value": { "stringValue": "shop" } },
        { "key": "service.instance.id", "value": { "stringValue": "one" } },
    ] })
}

fn metrics() -> Value {
    let now = now_nanos();
    let (time, start) = (now.to_string(), (now - 10_000_000_000).to_string());
    let exemplars = json!([{ "timeUnixNano": time, "asDouble": 0.3, "traceId": TRACE_ID, "spanId": SPAN_ID }]);
    let common = json!({ "timeUnixNano": time, "startTimeUnixNano": start, "exemplars": exemplars });
    let point = |mut own: Value| {
        own.as_object_mut()
            .expect("a map")
            .extend(common.as_object().expect("a map").clone());
        own
    };
    let count = point(json!({ "asInt": "7" }));
    let native = point(json!({ "count": "6", "sum": 10.5, "scale": 2, "zeroCount": "1",
        "positive": { "offset": 0, "bucketCounts": ["1", "0", "3", "1"] } }));
    json!({ "resourceMetrics": [{ "resource": resource(), "scopeMetrics": [{ "metrics": [
        { "name": "request_count", "description": "Requests.", "sum":
            { "aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [count] } },
        { "name": "exp.duration", "unit": "s", "exponentialHistogram": { "aggregationTemporality": 2, "dataPoints": [native] } },
    ] }] }] })
}

#[test]
fn a_prometheus_takes_what_we_send_scrapes_us_and_writes_to_us() {
    let Some(mut prometheus) = peer("TRACKLINE_TEST_PROMETHEUS") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a directory");
    let directory = folder.path();
    let Ports {
        http: otlp,
        grpc: door,
        jaeger: page,
        query: port,
        ..
    } = Ports::free();
    let received = directory.join("received.json");
    let _collector = collector(
        directory,
        &format!(
            "receivers:
  otlp: {{ protocols: {{ http: {{ endpoint: '127.0.0.1:{otlp}' }} }} }}
  prometheusremotewrite: {{ endpoint: '127.0.0.1:{door}' }}
exporters:
  prometheusremotewrite:
    endpoint: http://127.0.0.1:{port}/api/v1/write
    protobuf_message: io.prometheus.write.v2.Request
    retry_on_failure: {{ initial_interval: 50ms, max_interval: 50ms }}
  prometheus: {{ endpoint: '127.0.0.1:{page}' }}
  file: {{ path: '{}' }}
service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines:
    metrics/out: {{ receivers: [otlp], exporters: [prometheusremotewrite, prometheus] }}
    metrics/in: {{ receivers: [prometheusremotewrite], exporters: [file] }}
",
            received.display()
        ),
    );
    let yml = directory.join("prometheus.yml");
    let text = format!(
        "global: {{ scrape_interval: 500ms }}
scrape_configs: [ {{ job_name: page, static_configs: [ {{ targets: [ '127.0.0.1:{page}' ] }} ] }} ]
remote_write:
  - url: http://127.0.0.1:{door}/api/v1/write
    protobuf_message: io.prometheus.write.v2.Request
    send_exemplars: true
    send_native_histograms: true
    metadata_config: {{ send: false }}
    queue_config: {{ batch_send_deadline: 200ms }}
"
    );
    fs::write(&yml, text).expect("writes");
    prometheus.arg(format!("--config.file={}", yml.display()));
    prometheus.arg(format!("--storage.tsdb.path={}", directory.join("tsdb").display()));
    prometheus.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    prometheus.args([
        "--web.enable-remote-write-receiver",
        "--enable-feature=exemplar-storage,metadata-wal-records",
    ]);
    let _peer = Running::start(&mut prometheus, &directory.join("peer.log"));
    let is_ready = || get(port, "/-/ready").filter(|(status, _)| *status == 200);
    wait(directory, "Prometheus", is_ready);
    send(directory, otlp, "/v1/metrics", &metrics());

    let query = |query: &str| {
        let answer = ask_json(port, &format!("/api/v1/query?query={query}"))?;
        answer["data"]["result"].get(0).cloned()
    };
    let native = wait(directory, "native histogram", || {
        query("exp_duration_seconds%7Bjob=%22shop%22%7D")
    });
    assert_eq!(native["metric"]["instance"], "one", "{native}");
    assert_eq!(native["histogram"][1]["count"], "6", "{native}");
    assert_eq!(
        native["histogram"][1]["buckets"].as_array().map(Vec::len),
        Some(4),
        "{native}"
    );
    let (from, to) = (now_nanos() / 1_000_000_000 - 600, now_nanos() / 1_000_000_000 + 60);
    for series in ["exp_duration_seconds", "request_count_total"] {
        let path = format!("/api/v1/query_exemplars?query={series}&start={from}&end={to}");
        let exemplar = wait(directory, "exemplar", || {
            ask_json(port, &path)?["data"].get(0)?["exemplars"].get(0).cloned()
        });
        assert_eq!(exemplar["labels"]["trace_id"], TRACE_ID, "{exemplar}");
    }

    let scraped = wait(directory, "scraped series", || {
        query("request_count_total%7Bjob=%22page%22%7D")
    });
    assert_eq!(scraped["value"][1], "7", "{scraped}");
    let metadata = wait(directory, "metadata of the page", || {
        let answer = ask_json(port, "/api/v1/metadata?metric=request_count")?;
        answer["data"]["request_count"].get(0).cloned()
    });
    assert_eq!(metadata["type"], "counter", "{metadata}");
    assert_eq!(metadata["help"], "Requests.", "{metadata}");

    // And back: what the Prometheus has, native histogram and the type that our request told it too, it writes to our receiver.
    wait(directory, "remote write from Prometheus", || {
        let text = fs::read_to_string(&received).ok()?;
        let has = |words: &str| text.contains(words);
        let wanted = [
            "exponentialHistogram",
            "\"isMonotonic\":true",
            "scrape_samples_scraped",
            TRACE_ID,
        ];
        wanted.into_iter().all(has).then_some(())
    });
    let own = get(port, "/metrics").expect("its own metrics").1;
    let own = String::from_utf8_lossy(&own);
    for kind in ["samples", "histograms", "exemplars"] {
        let name = format!("prometheus_remote_storage_{kind}_failed_total{{");
        let line = own.lines().find(|line| line.starts_with(&name));
        assert!(line.is_some_and(|line| line.ends_with(" 0")), "{line:?}");
    }
    let log = fs::read_to_string(directory.join("peer.log")).expect("a log");
    let complaints: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("component=remote") && !line.contains("level=INFO"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

fn logs() -> Value {
    let now = now_nanos();
    let month = 30 * 24 * 3600 * 1_000_000_000;
    let record = |time: u128, body: &str| {
        json!({ "timeUnixNano": time.to_string(), "severityNumber": 17, "severityText": "ERROR", "body": { "stringValue": body },
            "traceId": TRACE_ID, "spanId": SPAN_ID,
            "attributes": [{ "key": "user.id", "value": { "stringValue": "u1" } }] })
    };
    json!({ "resourceLogs": [{ "resource": resource(), "scopeLogs": [{ "logRecords": [
        record(now, "it broke \"here\"\nand there"),
        record(now - month, "a month ago"),
    ] }] }] })
}

#[test]
fn a_loki_takes_lines_by_its_push_api_and_by_otlp_and_what_it_refuses_is_counted() {
    let Some(mut loki) = peer("TRACKLINE_TEST_LOKI") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a directory");
    let directory = folder.path();
    let Ports {
        http: otlp,
        grpc: inner,
        health: own,
        query: port,
        ..
    } = Ports::free();
    let yml = directory.join("loki.yaml");
    let text = format!(
        "auth_enabled: false
analytics: {{ reporting_enabled: false }}
server: {{ http_listen_address: 127.0.0.1, http_listen_port: {port}, grpc_listen_address: 127.0.0.1, grpc_listen_port: {inner}, log_level: warn }}
common:
  instance_addr: 127.0.0.1
  path_prefix: '{0}/loki'
  replication_factor: 1
  ring: {{ instance_addr: 127.0.0.1, kvstore: {{ store: inmemory }} }}
memberlist: {{ bind_addr: [127.0.0.1], bind_port: 0 }}
schema_config: {{ configs: [ {{ from: 2024-01-01, store: tsdb, object_store: filesystem, schema: v13, index: {{ prefix: index_, period: 24h }} }} ] }}
storage_config: {{ filesystem: {{ directory: '{0}/chunks' }} }}
",
        directory.display()
    );
    fs::write(&yml, text).expect("writes");
    loki.arg(format!("-config.file={}", yml.display()));
    let _peer = Running::start(&mut loki, &directory.join("peer.log"));
    let is_ready = || get(port, "/ready").filter(|(status, _)| *status == 200);
    wait(directory, "Loki", is_ready);
    let retry = "retry_on_failure: { initial_interval: 50ms, max_interval: 50ms }";
    let _collector = collector(
        directory,
        &format!(
            "receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: '127.0.0.1:{otlp}' }} }} }} }}
exporters:
  loki: {{ endpoint: 'http://127.0.0.1:{port}/loki/api/v1/push', {retry} }}
  loki/json: {{ endpoint: 'http://127.0.0.1:{port}', encoding: json, structured_metadata: true, {retry} }}
  otlphttp: {{ endpoint: 'http://127.0.0.1:{port}/otlp', {retry} }}
service:
  telemetry: {{ metrics: {{ address: '127.0.0.1:{own}' }} }}
  pipelines: {{ logs: {{ receivers: [otlp], exporters: [loki, loki/json, otlphttp] }} }}
"
        ),
    );
    send(directory, otlp, "/v1/logs", &logs());

    let (from, to) = (now_nanos() - 3_600_000_000_000, now_nanos() + 60_000_000_000);
    let find = |query: &str| {
        let path = format!("/loki/api/v1/query_range?start={from}&end={to}&query={query}");
        let found = wait(directory, query, || {
            ask_json(port, &path)?["data"]["result"].get(0).cloned()
        });
        let line = found["values"][0][1].as_str().expect("a line").to_owned();
        (found["stream"].clone(), line)
    };
    // `|=` a quote that only the line of the first exporter has, which is JSON.
    let (labels, line) = find("%7Bexporter=%22OTLP%22%7D%20%7C=%20%60traceid%60");
    assert_eq!(
        (&labels["job"], &labels["level"]),
        (&json!("shop"), &json!("ERROR")),
        "{labels}"
    );
    let line: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(
        (&line["traceid"], &line["attributes"]["user.id"]),
        (&json!(TRACE_ID), &json!("u1"))
    );
    let (labels, line) = find("%7Bexporter=%22OTLP%22%7D%20%7C%20user_id=%22u1%22");
    assert_eq!(line, "it broke \"here\"\nand there");
    assert_eq!(labels["trace_id"], TRACE_ID, "{labels}");
    let (labels, line) = find("%7Bservice_name=%22shop%22,%20exporter=%22%22%7D%20%7C%20user_id=%22u1%22");
    assert_eq!(line, "it broke \"here\"\nand there");
    assert_eq!(
        (&labels["trace_id"], &labels["severity_text"]),
        (&json!(TRACE_ID), &json!("ERROR")),
        "{labels}"
    );

    // The month-old record is lost, the other is not.
    for exporter in ["loki", "loki/json"] {
        wait(directory, exporter, || {
            let page = get(own, "/metrics")?.1;
            let page = String::from_utf8_lossy(&page).into_owned();
            let count = |name: &str| {
                let of = page
                    .lines()
                    .find(|line| line.starts_with(name) && line.contains(&format!("exporter=\"{exporter}\"")))?;
                of.rsplit(' ').next()?.parse::<f64>().ok()
            };
            let lost = count("otelcol_exporter_send_failed_log_records_total{")?;
            (lost > 0.0).then(|| {
                assert_eq!(
                    (lost, count("otelcol_exporter_sent_log_records_total{")),
                    (1.0, Some(1.0))
                )
            })
        });
    }
}

#[test]
fn a_jaeger_takes_spans_by_its_own_protocol() {
    let Some(mut jaeger) = peer("TRACKLINE_TEST_JAEGER") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a directory");
    let directory = folder.path();
    let Ports {
        http: otlp,
        grpc: inner,
        jaeger: door,
        query: port,
        ..
    } = Ports::free();
    let yml = directory.join("jaeger.yaml");
    let text = format!(
        "service:
  extensions: [jaeger_storage, jaeger_query]
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines: {{ traces: {{ receivers: [jaeger], exporters: [jaeger_storage_exporter] }} }}
extensions:
  jaeger_storage: {{ backends: {{ memory: {{ memory: {{ max_traces: 1000 }} }} }} }}
  jaeger_query: {{ storage: {{ traces: memory }}, http: {{ endpoint: '127.0.0.1:{port}' }}, grpc: {{ endpoint: '127.0.0.1:{inner}' }} }}
receivers: {{ jaeger: {{ protocols: {{ grpc: {{ endpoint: '127.0.0.1:{door}' }} }} }} }}
exporters: {{ jaeger_storage_exporter: {{ trace_storage: memory }} }}
"
    );
    fs::write(&yml, text).expect("writes");
    jaeger.arg("--config").arg(&yml);
    let _peer = Running::start(&mut jaeger, &directory.join("peer.log"));
    let _collector = collector(
        directory,
        &format!(
            "receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: '127.0.0.1:{otlp}' }} }} }} }}
exporters:
  jaeger: {{ endpoint: '127.0.0.1:{door}', tls: {{ insecure: true }}, retry_on_failure: {{ initial_interval: 50ms, max_interval: 50ms }} }}
service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines: {{ traces: {{ receivers: [otlp], exporters: [jaeger] }} }}
"
        ),
    );
    let (now, other) = (now_nanos(), "b7ad6b7169203332");
    let (start, end) = ((now - 1_000_000_000).to_string(), now.to_string());
    let spans = json!([
        { "traceId": TRACE_ID, "spanId": SPAN_ID, "name": "GET /", "kind": 2, "startTimeUnixNano": start, "endTimeUnixNano": end,
          "status": { "code": 2, "message": "no" }, "events": [{ "timeUnixNano": end, "name": "exception" }] },
        { "traceId": TRACE_ID, "spanId": other, "parentSpanId": SPAN_ID, "name": "SELECT", "kind": 3, "startTimeUnixNano": start,
          "endTimeUnixNano": end, "attributes": [{ "key": "rows", "value": { "intValue": "3" } }] },
    ]);
    let request = json!({ "resourceSpans": [{ "resource": resource(), "scopeSpans": [{ "spans": spans }] }] });
    send(directory, otlp, "/v1/traces", &request);

    let trace = wait(directory, "trace", || {
        let trace = ask_json(port, &format!("/api/traces/{TRACE_ID}"))?["data"]
            .get(0)?
            .clone();
        (trace["spans"].as_array()?.len() == 2).then_some(trace)
    });
    let span = |id: &str| {
        let spans = trace["spans"].as_array().expect("a list");
        spans.iter().find(|span| span["spanID"] == id).expect("is there")
    };
    let tag = |span: &Value, key: &str| {
        let tags = span["tags"].as_array().expect("a list");
        tags.iter()
            .find(|tag| tag["key"] == key)
            .map(|tag| tag["value"].clone())
    };
    assert_eq!(trace["processes"]["p1"]["serviceName"], "shop", "{trace:#}");
    let root = span(SPAN_ID);
    assert_eq!(
        (&root["operationName"], tag(root, "error")),
        (&json!("GET /"), Some(json!(true))),
        "{trace:#}"
    );
    assert_eq!(root["logs"][0]["fields"][0]["value"], "exception", "{trace:#}");
    let child = span(other);
    assert_eq!(
        (&child["references"][0]["spanID"], tag(child, "rows")),
        (&json!(SPAN_ID), Some(json!(3))),
        "{trace:#}"
    );
}
