//! `trackline trace` on the real binary with a short retention: an id that was here and is too old is *expired*, one that was never seen is *unknown*.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::kill::{logs, spans};
use crate::running::{Ports, Server, post};

/// Upkeep looks every few seconds; generous, because debug builds run beside other tests.
const REMOVED_WITHIN: Duration = Duration::from_secs(60);

/// Exit code and output of `trackline trace`.
fn trace(ports: Ports, id: u64) -> (Option<i32>, String) {
    let ended = Command::new(env!("CARGO_BIN_EXE_trackline"))
        .args(["trace", "--server", &format!("http://127.0.0.1:{}", ports.query)])
        .arg(format!("{id:032x}"))
        .output()
        .expect("the binary starts");
    (ended.status.code(), String::from_utf8_lossy(&ended.stdout).into_owned())
}

#[test]
fn a_trace_that_retention_removed_is_expired_and_one_never_seen_is_unknown() {
    let directory = tempfile::tempdir().expect("a directory");
    let ports = Ports::free();
    let config = directory.path().join("short.yaml");
    let Ports {
        grpc,
        http,
        query,
        health,
        ..
    } = ports;
    let text = format!(
        "receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: 127.0.0.1:{grpc} }}, http: {{ endpoint: 127.0.0.1:{http} }} }} }} }}
exporters: {{ store: {{ retention: 1s }} }}
extensions: {{ query: {{ endpoint: 127.0.0.1:{query} }}, health_check: {{ endpoint: 127.0.0.1:{health} }} }}
service:
  extensions: [query, health_check]
  pipelines:
    traces: {{ receivers: [otlp], exporters: [store] }}
    logs: {{ receivers: [otlp], exporters: [store] }}
"
    );
    std::fs::write(&config, text).expect("writes");
    let data = directory.path().join("data");
    let (with_spans, with_logs_only, never) = (0xa11ce, 0xb0b, 0xdead);

    let server = Server::start_with(&data, ports, &config);
    assert_eq!(post(http, "/v1/traces", &spans(with_spans)), Some(200));
    assert_eq!(post(http, "/v1/logs", &logs(with_logs_only)), Some(200));
    // A stop writes what is in memory into parts; the next process removes them by itself.
    assert_eq!(server.stop(), Some(0));
    let server = Server::start_with(&data, ports, &config);
    let deadline = Instant::now() + REMOVED_WITHIN;
    for (id, what) in [(with_spans, "its spans of"), (with_logs_only, "its log lines of")] {
        let (code, said) = loop {
            let (code, said) = trace(ports, id);
            if said.contains("expired") || Instant::now() > deadline {
                break (code, said);
            }
        };
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("expired") && said.contains(what), "{said}");
        assert!(said.contains("were removed by retention, which kept 1s"), "{said}");
    }
    let (code, said) = trace(ports, never);
    assert!(code == Some(1) && said.contains("unknown"), "{said}");
    let status = server.json("/api/trackline/v1/status");
    assert_eq!(status["store"]["removed_traces"]["files"], 2, "{status}");
    assert_eq!(server.stop(), Some(0));

    let checked = Command::new(env!("CARGO_BIN_EXE_trackline"))
        .args(["store", "check", "--data-dir"])
        .arg(&data)
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(
        checked.status.success() && said.contains("2 lists of removed traces"),
        "{said}"
    );
}
