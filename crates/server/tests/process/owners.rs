//! The owner's collector files run as they are, with the owner's variables; only addresses are moved, so that tests can run beside anything.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics};
use prost::Message;
use serde_json::Value;

use crate::kill::{logs, now, spans};
use crate::running::{Ports, get, post};

/// Generous, because debug builds run beside other tests.
const WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// A file of the owner, beside the project; none where only the project was checked out.
pub fn owners(name: &str) -> Option<String> {
    let project = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    // In a worktree the project lies one folder deeper.
    let places = ["../shared/fixtures", "../../shared/fixtures"];
    let found = places
        .iter()
        .map(|place| project.join(place).join(name))
        .find(|path| path.exists());
    if found.is_none() {
        eprintln!("SKIPPED: {name} is not beside the project in ../shared/fixtures");
    }
    found.map(|path| path.to_str().expect("a plain path").to_owned())
}

/// What `validate` says of a file with the owner's variables.
fn validated(file: &str, variables: &str, more: &[(&str, &str)]) -> Value {
    let said = Command::new(env!("CARGO_BIN_EXE_trackline"))
        .args(["validate", "--json", "--config", file, "--env-file", variables])
        .env_remove("GRAFANA_CLOUD_TEMPO_URL")
        .envs(more.iter().copied())
        .output()
        .expect("the binary starts");
    serde_json::from_slice(&said.stdout).expect("JSON")
}

#[test]
fn both_files_are_valid_unchanged() {
    let (Some(first), Some(second)) = (owners("otel-collector-config.yml"), owners("collector-with-tempo.yml")) else {
        return;
    };
    let Some(variables) = owners("env.monitoring") else {
        return;
    };
    let tempo = [("GRAFANA_CLOUD_TEMPO_URL", "https://tempo.example.com/otlp")];
    for (file, more) in [(first, &[][..]), (second, &tempo[..])] {
        let report = validated(&file, &variables, more);
        assert_eq!(report["valid"], true, "{report:#}");
    }
}

#[test]
fn a_variable_that_is_not_set_is_named_with_its_line() {
    let (Some(file), Some(variables)) = (owners("collector-with-tempo.yml"), owners("env.monitoring")) else {
        return;
    };
    let report = validated(&file, &variables, &[]);
    let text = std::fs::read_to_string(&file).expect("reads");
    let line = 1 + text
        .lines()
        .position(|line| line.contains("${GRAFANA_CLOUD_TEMPO_URL}"))
        .expect("is there");
    let mistakes = report["mistakes"].as_array().expect("a list");
    let about = mistakes
        .iter()
        .find(|mistake| mistake["line"] == line)
        .expect("a mistake there");
    assert_eq!(about["file"], file.as_str());
    assert_eq!(
        about["hint"],
        "the environment variable GRAFANA_CLOUD_TEMPO_URL is not set"
    );
    assert!(!report.to_string().contains("glc_"), "{report:#}");
}

#[test]
fn the_first_file_runs_and_everything_goes_where_it_says() {
    let (Some(file), Some(variables)) = (owners("otel-collector-config.yml"), owners("env.monitoring")) else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let ports = Ports::free();
    let (sink, requests) = sink();
    let mut child = Ended(
        Command::new(env!("CARGO_BIN_EXE_trackline"))
            .args(["--config", &file, "--env-file", &variables])
            .args([
                "--set",
                &format!("receivers.otlp.protocols.grpc.endpoint=127.0.0.1:{}", ports.grpc),
            ])
            .args([
                "--set",
                &format!("receivers.otlp.protocols.http.endpoint=127.0.0.1:{}", ports.http),
            ])
            .args([
                "--set",
                &format!("exporters.prometheus.endpoint=127.0.0.1:{}", ports.query),
            ])
            // Nobody listens there: what goes to Jaeger waits in the journal, and nothing else waits for it.
            .args(["--set", "exporters.jaeger.endpoint=127.0.0.1:1"])
            .args([
                "--set",
                &format!(
                    "exporters.prometheusremotewrite/grafana-cloud.endpoint=http://127.0.0.1:{sink}/api/prom/push"
                ),
            ])
            .args([
                "--set",
                &format!("exporters.loki/grafana-cloud.endpoint=http://127.0.0.1:{sink}/loki/api/v1/push"),
            ])
            .current_dir(directory.path())
            .spawn()
            .expect("the binary starts"),
    );
    let deadline = Instant::now() + WITHIN;
    let mut wait = |what: &str| {
        assert!(Instant::now() < deadline, "no {what} within {WITHIN:?}");
        assert!(child.0.try_wait().expect("ours").is_none(), "it ended");
        std::thread::sleep(POLL);
    };
    while post(ports.http, "/v1/traces", &spans(1)) != Some(200) {
        wait("answer");
    }
    assert_eq!(post(ports.http, "/v1/logs", &logs(1)), Some(200));
    assert_eq!(post(ports.http, "/v1/metrics", &gauge()), Some(200));

    let page = loop {
        let page = get(ports.query, "/metrics").map(|(_, body)| String::from_utf8_lossy(&body).into_owned());
        match page.filter(|page| page.contains("jobs_running")) {
            Some(page) => break page,
            None => wait("metric"),
        }
    };
    let line = page
        .lines()
        .find(|line| line.starts_with("jobs_running"))
        .expect("a series");
    assert!(
        line.contains("environment=\"dev\"") && line.contains("project=\"starmates-ai-team\""),
        "{line}"
    );

    let mut left = vec!["POST /api/prom/push HTTP/1.1", "POST /loki/api/v1/push HTTP/1.1"];
    while !left.is_empty() {
        let head = requests.recv_timeout(WITHIN).expect("both backends are asked");
        left.retain(|request| head[0] != **request);
        let authorization = head
            .iter()
            .find(|line| line.to_lowercase().starts_with("authorization:"));
        let authorization = authorization.map(|line| line.split_once(": ").expect("a header").1);
        assert_eq!(authorization, Some("Bearer 123456:glc_eyJrIjoixxxxxxxx"), "{head:?}");
    }
}

fn gauge() -> Vec<u8> {
    let point = NumberDataPoint {
        time_unix_nano: now(),
        value: Some(Number::AsInt(3)),
        ..NumberDataPoint::default()
    };
    let metric = Metric {
        name: "jobs.running".to_owned(),
        data: Some(Data::Gauge(Gauge {
            data_points: vec![point],
        })),
        ..Metric::default()
    };
    let resource_metrics = vec![ResourceMetrics {
        scope_metrics: vec![ScopeMetrics {
            metrics: vec![metric],
            ..ScopeMetrics::default()
        }],
        ..ResourceMetrics::default()
    }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

/// A backend that takes everything and tells the heads of what it was sent.
fn sink() -> (u16, Receiver<Vec<String>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    let port = listener.local_addr().expect("an address").port();
    let (heads, received) = channel();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let heads = heads.clone();
            std::thread::spawn(move || take(socket, &heads));
        }
    });
    (port, received)
}

/// Until the client leaves, or the test does.
fn take(socket: TcpStream, heads: &Sender<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(socket.try_clone().ok()?);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let length = head
            .iter()
            .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        reader.read_exact(&mut vec![0; length?]).ok()?;
        (&socket).write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()?;
        heads.send(head).ok()?;
    }
}

/// Ends a process with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
