//! The real process with an exporter to AWS and nothing to sign with: it starts, says so once, keeps what it is sent, and delivers when there are credentials.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;

use crate::running::{Ports, post};

const WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// Says yes to every request and hands its text on.
fn yes_to_all() -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            if let Some(text) = answer(socket)
                && sender.send(text).is_err()
            {
                return;
            }
        }
    });
    (port, receiver)
}

fn answer(mut socket: TcpStream) -> Option<String> {
    let mut got = Vec::new();
    let mut some = [0; 4096];
    loop {
        let length = socket.read(&mut some).ok().filter(|length| *length > 0)?;
        got.extend_from_slice(&some[..length]);
        let text = String::from_utf8_lossy(&got).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let announced = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        if body.len() >= announced.parse::<usize>().ok()? {
            let said = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
            return said.ok().map(|()| text);
        }
    }
}

fn record(text: &str) -> Vec<u8> {
    let body = Some(AnyValue {
        value: Some(Value::StringValue(text.into())),
    });
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records: vec![LogRecord {
                    body,
                    ..LogRecord::default()
                }],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
    .encode_to_vec()
}

struct Collector(Child);

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn without_credentials_it_starts_and_delivers_when_they_come() {
    let folder = tempfile::tempdir().expect("a folder");
    let (aws, requests) = yes_to_all();
    let http = Ports::free().http;
    let text = format!(
        "receivers:
  otlp: {{ protocols: {{ http: {{ endpoint: '127.0.0.1:{http}' }} }} }}
exporters:
  awscloudwatchlogs:
    endpoint: 'http://127.0.0.1:{aws}'
    raw_log: true
    retry_on_failure: {{ initial_interval: 20ms, max_interval: 50ms }}
service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines:
    logs: {{ receivers: [otlp], exporters: [awscloudwatchlogs] }}
"
    );
    let (config, credentials, log) = (
        folder.path().join("config.yaml"),
        folder.path().join("credentials"),
        folder.path().join("log"),
    );
    fs::write(&config, text).expect("writes");
    let child = Command::new(env!("CARGO_BIN_EXE_trackline"))
        .arg("collect")
        .arg("--config")
        .arg(&config)
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .env("AWS_SHARED_CREDENTIALS_FILE", &credentials)
        .env("AWS_CONFIG_FILE", folder.path().join("nowhere"))
        .env("AWS_REGION", "us-east-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_PROFILE")
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).expect("a file"))
        .spawn()
        .expect("the binary starts");
    let _collector = Collector(child);
    let said = || fs::read_to_string(&log).expect("a log");
    let deadline = Instant::now() + WITHIN;
    let until = |done: &dyn Fn() -> bool| {
        while !done() {
            assert!(Instant::now() < deadline, "{}", said());
            std::thread::sleep(POLL);
        }
    };
    until(&|| post(http, "/v1/logs", &record("kept until then")) == Some(200));
    until(&|| said().contains("no AWS credentials yet"));
    let written = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = s3cret-s3cret\n";
    fs::write(&credentials, written).expect("writes");
    let request = requests
        .recv_timeout(WITHIN)
        .unwrap_or_else(|_| panic!("nothing came: {}", said()));
    assert!(
        request.contains("Credential=AKIDEXAMPLE/") && request.contains("kept until then"),
        "{request}"
    );
    let said = said();
    assert_eq!(said.matches("no AWS credentials yet").count(), 1, "{said}");
    assert!(!said.contains("s3cret-s3cret") && !request.contains("s3cret-s3cret"));
}
