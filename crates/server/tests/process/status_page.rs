//! A collector without a store: who sends has to say who it is, and the status page tells who was turned away.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::running::{Ports, get, post};

const WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It has ended by itself unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn who_was_turned_away_stands_on_the_page() {
    let directory = tempfile::tempdir().expect("a directory");
    let ports = Ports::free();
    let (http, page) = (ports.http, ports.query);
    fs::write(directory.path().join("htpasswd"), "sender:s3cret\n").expect("writes");
    let yaml = format!(
        "receivers:
  otlp: {{ protocols: {{ http: {{ endpoint: '127.0.0.1:{http}', auth: {{ authenticator: basicauth/senders }} }} }} }}
exporters: {{ debug: }}
extensions:
  basicauth/senders: {{ htpasswd: {{ file: htpasswd }} }}
  zpages: {{ endpoint: '127.0.0.1:{page}' }}
service:
  extensions: [zpages, basicauth/senders]
  telemetry:
    metrics: {{ level: none }}
    usage: {{ budgets: [ {{ exporter: debug, signal: logs, bytes_per_month: 3MiB }} ] }}
  pipelines: {{ logs: {{ receivers: [otlp], exporters: [debug] }} }}
"
    );
    fs::write(directory.path().join("collector.yaml"), yaml).expect("writes");
    let started = Command::new(env!("CARGO_BIN_EXE_trackline"))
        .args(["collect", "--config", "collector.yaml"])
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .spawn();
    let mut child = Ended(started.expect("the binary starts"));
    let deadline = Instant::now() + WITHIN;
    while get(page, "/").is_none() {
        assert!(child.0.try_wait().expect("waits").is_none(), "it ended");
        assert!(Instant::now() < deadline, "the page is not there within {WITHIN:?}");
        std::thread::sleep(POLL);
    }
    assert_eq!(post(http, "/v1/logs", b""), Some(401));
    let (status, html) = get(page, "/").expect("the page answers");
    let html = String::from_utf8(html).expect("UTF-8");
    assert_eq!(status, 200);
    for expect in [
        "otlp ─► [journal]",
        "1 unauthorized",
        "They balance",
        "basicauth/senders",
        "3.0 MiB",
    ] {
        assert!(html.contains(expect), "{expect}\n{html}");
    }
    let (_, told) = get(page, "/status.json").expect("the page answers");
    let told: Value = serde_json::from_slice(&told).expect("JSON");
    assert_eq!(told["journal"]["readers"][0]["lag_records"], 0, "{told}");
    assert_eq!(told["balanced"], true, "{told}");
    assert_eq!(get(page, "/debug/pipelinez").map(|(status, _)| status), Some(303));
}
