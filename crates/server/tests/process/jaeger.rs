//! A collector whose file names a Jaeger sends to our own server as if it were one: OTLP in, Jaeger's gRPC between two processes, and the trace is found.

use std::time::{Duration, Instant};

use crate::kill::spans;
use crate::running::{Ports, Server, get, post};

/// Generous, because debug builds run beside other tests.
const FOUND_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

#[test]
fn a_collector_that_sends_to_jaeger_can_send_to_us() {
    let directory = tempfile::tempdir().expect("a directory");
    let backend = Server::start(&directory.path().join("backend"), Ports::free());
    let ports = Ports::free();
    let config = directory.path().join("collector.yaml");
    let text = format!(
        "receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: 127.0.0.1:{} }} }} }} }}
processors: {{ memory_limiter: {{ limit_mib: 512 }}, batch: {{ timeout: 10ms }} }}
exporters: {{ store: , jaeger: {{ endpoint: 127.0.0.1:{}, tls: {{ insecure: true }} }} }}
extensions: {{ query: {{ endpoint: 127.0.0.1:{} }} }}
service:
  extensions: [query]
  pipelines:
    traces: {{ receivers: [otlp], processors: [memory_limiter, batch], exporters: [jaeger, store] }}
",
        ports.http, backend.ports.jaeger, ports.query
    );
    std::fs::write(&config, text).expect("writes");
    let collector = Server::start_with(&directory.path().join("collector"), ports, &config);
    let id = 0xfeed;
    assert_eq!(post(ports.http, "/v1/traces", &spans(id)), Some(200));
    let path = format!("/api/traces/{id:032x}");
    let deadline = Instant::now() + FOUND_WITHIN;
    let answer = loop {
        match get(backend.ports.query, &path) {
            Some((200, body)) => break String::from_utf8(body).expect("JSON"),
            _ => assert!(
                Instant::now() < deadline,
                "the trace did not arrive within {FOUND_WITHIN:?}"
            ),
        }
        std::thread::sleep(POLL);
    };
    let of = |server: &Server| {
        let found = get(server.ports.query, &path).expect("the server answers");
        let found: serde_json::Value = serde_json::from_slice(&found.1).expect("JSON");
        found["data"][0]["spans"].as_array().map(Vec::len)
    };
    assert!(of(&collector).is_some_and(|count| count > 0), "{answer}");
    assert_eq!(of(&backend), of(&collector), "{answer}");
    assert_eq!(collector.stop(), Some(0));
    assert_eq!(backend.stop(), Some(0));
}
