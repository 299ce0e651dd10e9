//! The official SDKs of other languages send to the receiver, as applications do.
//!
//! A client that is not installed is skipped, audibly; `conformance/clients/README.md` says how to install it.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use model::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use pipeline::{Outcome, Reason};
use prost::Message;
use support::*;
use tokio::process::Command;

fn clients() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../conformance/clients")
}

/// The command that runs a client's script, or why it cannot be run.
async fn python() -> Result<Command, String> {
    let program = std::env::var("TRACKLINE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let modules = "import opentelemetry.exporter.otlp.proto.grpc, opentelemetry.exporter.otlp.proto.http";
    let probe = Command::new(&program).args(["-c", modules]).output().await;
    match probe {
        Ok(output) if output.status.success() => {
            let mut command = Command::new(program);
            command.arg(clients().join("python/send.py"));
            Ok(command)
        }
        Ok(_) => Err(format!("{program} has no OpenTelemetry exporters")),
        Err(error) => Err(format!("{program} cannot be run: {error}")),
    }
}

async fn node() -> Result<Command, String> {
    let program = std::env::var("TRACKLINE_TEST_NODE").unwrap_or_else(|_| "node".to_owned());
    let script = clients().join("node/send.mjs");
    if !clients().join("node/node_modules/@opentelemetry").is_dir() {
        return Err("conformance/clients/node has no node_modules".to_owned());
    }
    match Command::new(&program).arg("--version").output().await {
        Ok(_) => {
            let mut command = Command::new(program);
            command.arg(script);
            Ok(command)
        }
        Err(error) => Err(format!("{program} cannot be run: {error}")),
    }
}

/// What a client says it sent.
struct Sent {
    trace_id: String,
    spans: usize,
    logs: usize,
}

async fn run(mut command: Command, protocol: &str, endpoint: String, compression: &str) -> Sent {
    let output = command.args([protocol, &endpoint, compression]).output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{protocol} {compression}: {errors}");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let count = |key: &str| usize::try_from(said[key].as_u64().unwrap()).unwrap();
    Sent {
        trace_id: said["trace_id"].as_str().unwrap().to_owned(),
        spans: count("spans"),
        logs: count("logs"),
    }
}

fn endpoint(running: &Running, protocol: &str) -> String {
    match protocol {
        "grpc" => format!("http://{}", running.grpc),
        _ => format!("http://{}", running.http),
    }
}

/// Everything that arrived, read by the independent decoder.
fn arrived(running: &Running) -> (Vec<Span>, Vec<LogRecord>, Vec<String>) {
    let (mut spans, mut logs, mut services) = (Vec::new(), Vec::new(), Vec::new());
    let mut service = |resource: Option<opentelemetry_proto::tonic::resource::v1::Resource>| {
        for attribute in resource.unwrap().attributes {
            if attribute.key == "service.name" {
                services.push(format!("{:?}", attribute.value));
            }
        }
    };
    for batch in running.batches.lock().unwrap().iter() {
        match batch.signal {
            Signal::Traces => {
                for of_resource in ExportTraceServiceRequest::decode(&batch.payload[..])
                    .unwrap()
                    .resource_spans
                {
                    service(of_resource.resource);
                    spans.extend(of_resource.scope_spans.into_iter().flat_map(|s| s.spans));
                }
            }
            _ => {
                for of_resource in ExportLogsServiceRequest::decode(&batch.payload[..])
                    .unwrap()
                    .resource_logs
                {
                    service(of_resource.resource);
                    logs.extend(of_resource.scope_logs.into_iter().flat_map(|s| s.log_records));
                }
            }
        }
    }
    (spans, logs, services)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// One client, one protocol: what arrives is what was sent.
async fn check(command: Command, name: &str, protocol: &str, compression: &str) {
    let running = start().await;
    let sent = run(command, protocol, endpoint(&running, protocol), compression).await;
    let (spans, logs, services) = arrived(&running);
    let case = format!("{name} {protocol} {compression}");
    assert_eq!((spans.len(), logs.len()), (sent.spans, sent.logs), "{case}");
    assert!(
        services.iter().all(|s| s.contains(&format!("{name}-client"))),
        "{case}: {services:?}"
    );
    assert!(spans.iter().all(|s| hex(&s.trace_id) == sent.trace_id), "{case}");
    assert!(
        logs.iter().all(|l| hex(&l.trace_id) == sent.trace_id),
        "{case}: logs belong to the trace"
    );
    let root = spans.iter().find(|s| s.parent_span_id.is_empty()).unwrap();
    assert_eq!(
        (root.name.as_str(), root.events[0].name.as_str()),
        ("checkout", "exception"),
        "{case}"
    );
    let step = spans.iter().find(|s| s.name == "step 7").unwrap();
    assert_eq!(step.attributes.len(), 4, "{case}");
    assert!(
        logs.iter().any(|l| format!("{:?}", l.body).contains("step 7 done")),
        "{case}"
    );
    running.finish().await;
}

/// A refusal with a delay makes the SDK send the same batch again.
async fn check_retry(command: Command, name: &str, protocol: &'static str) {
    let running = start().await;
    let wait = Duration::from_secs(1);
    *running.outcome.lock().unwrap() = Outcome::retry(wait, Reason::JournalFull);
    let client = tokio::spawn(run(command, protocol, endpoint(&running, protocol), "gzip"));
    while running.turned_away(Signal::Traces, "journal_full") == 0 {
        assert!(!client.is_finished(), "{name} {protocol} left before it was refused");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    *running.outcome.lock().unwrap() = Outcome::Delivered;
    let sent = client.await.unwrap();
    let (spans, logs, _) = arrived(&running);
    assert_eq!((spans.len(), logs.len()), (sent.spans, sent.logs), "{name} {protocol}");
    running.finish().await;
}

macro_rules! require {
    ($client:expr) => {
        match $client.await {
            Ok(command) => command,
            Err(why) => {
                skip(format_args!("skipped: {why}; see conformance/clients/README.md"));
                return;
            }
        }
    };
}

#[tokio::test]
async fn python_sends_over_grpc_and_http() {
    for (protocol, compression) in [("grpc", "none"), ("grpc", "gzip"), ("proto", "none"), ("proto", "gzip")] {
        check(require!(python()), "python", protocol, compression).await;
    }
}

#[tokio::test]
async fn python_sends_again_when_asked_to_wait() {
    for protocol in ["grpc", "proto"] {
        check_retry(require!(python()), "python", protocol).await;
    }
}

#[tokio::test]
async fn node_sends_over_grpc_and_http() {
    let protocols = ["grpc", "proto", "json"];
    for (protocol, compression) in protocols.iter().flat_map(|p| [(*p, "none"), (*p, "gzip")]) {
        check(require!(node()), "node", protocol, compression).await;
    }
}

#[tokio::test]
async fn node_sends_again_when_asked_to_wait() {
    // Its gRPC exporter gives up at the first refusal, whatever the refusal says.
    for protocol in ["proto", "json"] {
        check_retry(require!(node()), "node", protocol).await;
    }
}

/// Straight to standard error: what a passing test prints with a macro is not shown.
fn skip(why: std::fmt::Arguments<'_>) {
    use std::io::Write;
    // A terminal that is gone is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{why}");
}
