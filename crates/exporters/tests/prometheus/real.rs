//! A real Prometheus, where one is installed: it scrapes our page and takes our remote write, and is asked what it has.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{ExponentialHistogram, ExponentialHistogramDataPoint};
use pipeline::{Exporter, Outcome};

use super::*;

struct Prometheus {
    process: Child,
    client: Client,
    _directory: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to keep.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    /// Starts one and waits until it answers; `None` where it is not installed.
    async fn start(config: &str) -> Option<Prometheus> {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("prometheus.yml");
        std::fs::write(&file, config).expect("writes");
        // It cannot say which port it was given, so it is told one that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")
            .expect("a port")
            .local_addr()
            .expect("bound")
            .port();
        let flag = |name: &str, value: &Path| format!("--{name}={}", value.display());
        let started = Command::new("prometheus")
            .arg(flag("config.file", &file))
            .arg(flag("storage.tsdb.path", &directory.path().join("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args([
                "--web.enable-remote-write-receiver",
                "--enable-feature=exemplar-storage,native-histograms",
                "--log.level=error",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn();
        let Ok(process) = started else {
            eprintln!("skipped: prometheus is not installed");
            return None;
        };
        let client = Client::new("127.0.0.1", port, None, false).expect("a client");
        let prometheus = Prometheus {
            process,
            client,
            _directory: directory,
        };
        prometheus.until("/-/ready", |answer| answer.status == 200).await;
        Some(prometheus)
    }

    /// Asks until the answer is as wanted.
    async fn until(&self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let asking = async {
            loop {
                let uri = format!("http://{}{path}", self.client.address());
                let request = Request::get(uri).body(Full::new(Bytes::new())).expect("a request");
                if let Ok(answer) = self.client.send(request).await
                    && wanted(&answer)
                {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .unwrap_or_else(|_| panic!("{path} was not as wanted in {PATIENCE:?}"))
    }

    /// What a query finds, once it finds anything: labels and value as text.
    async fn finds(&self, query: &str) -> Vec<String> {
        let path = format!("/api/v1/query?query={}", encoded(query));
        let answer = self.until(&path, |answer| !results(answer).is_empty()).await;
        results(&answer)
    }

    /// What it has now.
    async fn has(&self, query: &str, at_seconds: f64) -> Vec<String> {
        let path = format!("/api/v1/query?query={}&time={at_seconds}", encoded(query));
        let answer = get(&self.client, &path, HeaderMap::new()).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        results(&answer)
    }

    async fn exemplars(&self, query: &str) -> String {
        let path = format!(
            "/api/v1/query_exemplars?query={}&start=0&end=4000000000",
            encoded(query)
        );
        let answer = self
            .until(&path, |answer| {
                String::from_utf8_lossy(&answer.body).contains("trace_id")
            })
            .await;
        String::from_utf8_lossy(&answer.body).into_owned()
    }
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn results(answer: &Answer) -> Vec<String> {
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let rows = json["data"]["result"].as_array().cloned().unwrap_or_default();
    let mut lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let labels = row["metric"].as_object().cloned().unwrap_or_default();
            let mut labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            labels.sort();
            let value = row["value"][1]
                .as_str()
                .map_or_else(|| row["histogram"][1]["count"].to_string(), str::to_owned);
            format!("{} {value}", labels.join(" "))
        })
        .collect();
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn it_scrapes_the_page() {
    let (sink, _open, client) = page::serving("{ endpoint: '127.0.0.1:0', const_labels: { environment: dev } }").await;
    let mut count = number(17.0, T, &[("odd", "a\"b\\c\nd{}é")]);
    count.exemplars = vec![Exemplar {
        trace_id: vec![0xcd; 16],
        time_unix_nano: now_unix_nano(),
        value: Some(exemplar::Value::AsInt(1)),
        ..Exemplar::default()
    }];
    let metrics = vec![
        counter("request_count", CUMULATIVE, vec![count]),
        histogram("request.duration", T, CUMULATIVE),
    ];
    assert_eq!(page::export(&sink, batch(metrics)).await, Outcome::Delivered);
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs: [{{ job_name: ours, honor_labels: true, static_configs: [{{ targets: ['{}'] }}] }}]\n",
        client.address()
    );
    let Some(prometheus) = Prometheus::start(&config).await else {
        return;
    };
    assert_eq!(
        prometheus.finds("request_count_total").await,
        [r#"__name__="request_count_total" environment="dev" instance="i-1" job="chat" odd="a\"b\\c\nd{}é" 17"#]
    );
    assert_eq!(
        prometheus.finds("request_duration_seconds_bucket").await,
        [
            r#"__name__="request_duration_seconds_bucket" environment="dev" instance="i-1" job="chat" le="+Inf" method="GET" 3"#,
            r#"__name__="request_duration_seconds_bucket" environment="dev" instance="i-1" job="chat" le="0.5" method="GET" 1"#,
            r#"__name__="request_duration_seconds_bucket" environment="dev" instance="i-1" job="chat" le="1.0" method="GET" 2"#,
        ]
    );
    let joined = prometheus
        .finds("request_count_total * on (job, instance) group_left (host_name) target_info")
        .await;
    assert!(joined[0].contains(r#"host_name="h""#), "{joined:?}");
    let exemplars = prometheus.exemplars("request_count_total").await;
    assert!(exemplars.contains(&"cd".repeat(16)), "{exemplars}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_what_is_written() {
    let Some(prometheus) = Prometheus::start("global: {}\n").await else {
        return;
    };
    let yaml = format!(
        "{{ endpoint: 'http://{}/api/v1/write', external_labels: {{ environment: dev }}, send_metadata: true, max_batch_size_bytes: 600 }}",
        prometheus.client.address()
    );
    let config = settings("prometheusremotewrite", &yaml, exporters::prometheusremotewrite::parse).expect("right");
    let exporter = exporters::prometheusremotewrite::RemoteWrite::new(&config).expect("an exporter");
    let now = now_unix_nano();
    let native = ExponentialHistogramDataPoint {
        time_unix_nano: now,
        count: 12,
        sum: Some(20.0),
        scale: 0,
        zero_count: 1,
        positive: Some(Buckets {
            offset: -1,
            bucket_counts: vec![1, 2, 0, 0, 0, 0, 8],
        }),
        ..ExponentialHistogramDataPoint::default()
    };
    let native = ExponentialHistogram {
        data_points: vec![native],
        aggregation_temporality: CUMULATIVE,
    };
    let metrics = vec![
        counter(
            "request_count",
            CUMULATIVE,
            vec![number(17.0, now, &[("odd", "a\"b\\c\nd{}é"), ("status.code", "200")])],
        ),
        histogram("request.duration", now, CUMULATIVE),
        Metric {
            name: "native".into(),
            data: Some(Data::ExponentialHistogram(native)),
            ..Metric::default()
        },
        gauge("ends", vec![number(1.0, now, &[])]),
    ];
    assert_eq!(exporter.export(batch(metrics)).await, Outcome::Delivered);
    let at = now as f64 / 1e9 + 1.0;
    assert_eq!(
        prometheus.has("request_count_total", at).await,
        [
            r#"__name__="request_count_total" environment="dev" instance="i-1" job="chat" odd="a\"b\\c\nd{}é" status_code="200" 17"#
        ]
    );
    let quantile = "histogram_quantile(0.5, sum by (le) (request_duration_seconds_bucket))";
    assert_eq!(prometheus.has(quantile, at).await, [" 0.75"]);
    assert_eq!(
        prometheus.has("histogram_count(native)", at).await,
        [r#"environment="dev" instance="i-1" job="chat" 12"#]
    );
    // The eight greatest lie in (32, 64], one in (0.5, 1], two in (1, 2]: the bounds are where OTLP has them.
    assert_eq!(
        prometheus.has("histogram_fraction(32, 64, native) * 12", at).await,
        [r#"environment="dev" instance="i-1" job="chat" 8"#]
    );
    assert_eq!(
        prometheus.has("histogram_fraction(0.5, 1, native) * 12", at).await,
        [r#"environment="dev" instance="i-1" job="chat" 1"#]
    );
    assert_eq!(
        prometheus.has("histogram_fraction(1, 2, native) * 12", at).await,
        [r#"environment="dev" instance="i-1" job="chat" 2"#]
    );
    assert_eq!(prometheus.has("count(target_info{host_name=\"h\"})", at).await, [" 1"]);
    let exemplars = prometheus.exemplars("request_duration_seconds_bucket").await;
    assert!(
        exemplars.contains(&"ab".repeat(16)) && exemplars.contains(r#""le":"1.0""#),
        "{exemplars}"
    );

    // A series that has ended is gone at once, not after five minutes.
    let ended = NumberDataPoint {
        flags: 1,
        value: None,
        ..number(0.0, now + 1_000_000_000, &[])
    };
    assert_eq!(prometheus.has("ends", at + 10.0).await.len(), 1);
    assert_eq!(
        exporter.export(batch(vec![gauge("ends", vec![ended])])).await,
        Outcome::Delivered
    );
    assert_eq!(prometheus.has("ends", at + 10.0).await, [""; 0]);

    // What it refuses is told in its words and not sent for ever.
    let older = batch(vec![gauge("ends", vec![number(1.0, now - 1_000_000_000, &[])])]);
    let outcome = exporter.export(older).await;
    let Outcome::Rejected { reason, items: 1 } = outcome else {
        panic!("{outcome:?}")
    };
    assert!(reason.message.contains("out of order"), "{reason}");
}
