//! Replay from a journal and from recorded files into a second server, interrupted and gone on with.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::kill::{SPANS_A_REQUEST, logs, now, spans};
use crate::running::{Ports, Server, post};

const WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

fn command(folder: &Path, endpoint: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trackline"));
    command.args(["replay", "--json", "--endpoint", endpoint, "--state"]);
    command.arg(folder.join("replay.state")).args(more);
    command
}

fn replay(folder: &Path, endpoint: &str, more: &[&str]) -> (Option<i32>, Value) {
    let Output { status, stdout, stderr } = command(folder, endpoint, more).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&stderr);
    let summary = serde_json::from_slice(&stdout).unwrap_or_else(|_| panic!("no summary, but: {said}"));
    (status.code(), summary)
}

/// Spans and log records of a trace, once they are there.
fn story(server: &Server, number: u64) -> (u64, u64) {
    let story = server.json(&format!("/api/trackline/v1/tracking/{number:032x}"));
    (
        story["trace"]["span_count"].as_u64().unwrap_or(0),
        story["logs"].as_array().map_or(0, Vec::len) as u64,
    )
}

fn received(server: &Server, signal: &str) -> u64 {
    let ledger = server.json("/api/trackline/v1/ledger");
    let doors = ledger["doors"].as_array().cloned().unwrap_or_default();
    let of_signal = doors.iter().filter(|door| door["signal"] == signal);
    of_signal.filter_map(|door| door["acked"].as_u64()).sum()
}

#[test]
fn what_a_journal_holds_is_sent_again_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = folder.path().join("first");
    let source = Server::start(&first, Ports::free());
    for number in 1..=5 {
        assert_eq!(post(source.ports.http, "/v1/traces", &spans(number)), Some(200));
        assert_eq!(post(source.ports.http, "/v1/logs", &logs(number)), Some(200));
    }
    let data_dir = first.to_str().expect("a plain path").to_owned();
    let target = Server::start(&folder.path().join("second"), Ports::free());
    let grpc = format!("http://127.0.0.1:{}", target.ports.grpc);
    // Beside the process that owns the journal.
    let more = ["--data-dir", &data_dir, "--speed", "max", "--protocol", "grpc"];
    let (code, summary) = replay(folder.path(), &grpc, &more);
    assert_eq!((code, &summary["finished"]), (Some(0), &Value::Bool(true)), "{summary}");
    assert_eq!(summary["sent_spans"], 5 * SPANS_A_REQUEST);
    assert_eq!(source.stop(), Some(0));
    for number in 1..=5 {
        assert_eq!(story(&target, number), (SPANS_A_REQUEST, 3));
    }
    assert!(
        !folder.path().join("replay.state").exists(),
        "nothing is left to go on with"
    );

    let http = format!("http://127.0.0.1:{}", target.ports.http);
    let filtered = |service: &str, signal: &str| {
        let filter = format!("service={service}");
        let more = [
            "--data-dir",
            &data_dir,
            "--speed",
            "max",
            "--protocol",
            "http",
            "--filter",
            &filter,
            "--signal",
            signal,
        ];
        replay(folder.path(), &http, &more)
    };
    let (code, summary) = filtered("somebody-else", "traces");
    assert_eq!(
        (code, &summary["sent_requests"]),
        (Some(1), &Value::from(0)),
        "{summary}"
    );
    let before = received(&target, "logs");
    let (code, summary) = filtered("killed", "logs");
    assert_eq!(
        (code, &summary["sent_log_records"], &summary["sent_spans"]),
        (Some(0), &Value::from(15), &Value::from(0))
    );
    assert_eq!(received(&target, "logs"), before + 15);
    let (code, _) = replay(
        folder.path(),
        &http,
        &[
            "--data-dir",
            &data_dir,
            "--protocol",
            "http",
            "--from",
            "2000-01-01T00:00:00Z",
            "--to",
            "2000-01-02T00:00:00Z",
        ],
    );
    assert_eq!(code, Some(1), "nothing of then");
    assert_eq!(target.stop(), Some(0));
}

/// A recorded file: spans an hour apart, the first of them three hours old.
fn record(path: &Path, count: u64) {
    let mut file = std::fs::File::create(path).expect("creates");
    for number in 1..=count {
        let start = now() - 3 * 3_600_000_000_000 + (number - 1) * 3_600_000_000_000;
        writeln!(
            file,
            "{{\"resourceSpans\":[{{\"resource\":{{}},\"scopeSpans\":[{{\"spans\":[{{\"traceId\":\"{number:032x}\",\"spanId\":\"0000000000000001\",\"name\":\"recorded\",\"startTimeUnixNano\":\"{start}\",\"endTimeUnixNano\":\"{}\"}}]}}]}}]}}",
            start + 1_000_000
        )
        .expect("writes");
    }
    writeln!(file, "not a request").expect("writes");
}

#[test]
fn a_replay_that_was_stopped_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let recorded = folder.path().join("recorded.jsonl");
    record(&recorded, 3);
    let file = recorded.to_str().expect("a plain path");
    let target = Server::start(&folder.path().join("data"), Ports::free());
    let endpoint = format!("http://127.0.0.1:{}", target.ports.http);
    // At its own speed the second request is due in an hour.
    let child = command(folder.path(), &endpoint, &["--file", file, "--protocol", "http"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let deadline = Instant::now() + WITHIN;
    while !folder.path().join("replay.state").exists() {
        assert!(Instant::now() < deadline, "the first request was not sent");
        std::thread::sleep(POLL);
    }
    let asked = Command::new("kill").arg("-INT").arg(child.id().to_string()).status();
    assert!(asked.expect("kill runs").success());
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(130));
    let summary: Value = serde_json::from_slice(&ended.stdout).expect("a summary");
    assert_eq!(
        (&summary["sent_spans"], &summary["finished"]),
        (&Value::from(1), &Value::Bool(false)),
        "{summary}"
    );

    // Something else is not gone on with.
    let said = command(
        folder.path(),
        &endpoint,
        &["--file", file, "--protocol", "http", "--resume", "--filter", "a=b"],
    )
    .output();
    let said = said.expect("the binary starts");
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&said.stderr).contains("of another replay"));

    let (code, summary) = replay(
        folder.path(),
        &endpoint,
        &["--file", file, "--protocol", "http", "--resume", "--speed", "max"],
    );
    assert_eq!(
        (code, &summary["sent_spans"], &summary["unreadable"]),
        (Some(0), &Value::from(2), &Value::from(1)),
        "{summary}"
    );
    assert_eq!(received(&target, "traces"), 3, "each of them once");
    assert_eq!(target.stop(), Some(0));
}

#[test]
fn an_endpoint_that_is_away_is_given_up_and_what_was_not_sent_is_sent_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let recorded = folder.path().join("recorded.jsonl");
    record(&recorded, 3);
    let file = recorded.to_str().expect("a plain path");
    let ports = Ports::free();
    let endpoint = format!("http://127.0.0.1:{}", ports.http);
    let arguments = [
        "--file",
        file,
        "--protocol",
        "http",
        "--speed",
        "max",
        "--shift",
        "now",
        "--max-wait",
        "0",
    ];
    let (code, summary) = replay(folder.path(), &endpoint, &arguments);
    assert_eq!((code, &summary["sent_spans"]), (Some(3), &Value::from(0)), "{summary}");
    assert!(
        summary["problem"].as_str().unwrap_or_default().contains("took nothing"),
        "{summary}"
    );
    let target = Server::start(&folder.path().join("data"), ports);
    let before = now();
    let (code, summary) = replay(folder.path(), &endpoint, &arguments);
    assert_eq!((code, &summary["sent_spans"]), (Some(0), &Value::from(3)), "{summary}");
    // The newest is new, the others keep their distance.
    let start = |number: u64| {
        let story = target.json(&format!("/api/trackline/v1/tracking/{number:032x}"));
        let start = story["trace"]["start_unix_nano"].as_str();
        start
            .and_then(|start| start.parse::<u64>().ok())
            .unwrap_or_else(|| panic!("{story}"))
    };
    assert!(start(3) + 1_000_000 >= before && start(3) <= now());
    let apart = start(3) - start(2);
    assert!((3_599_000_000_000..3_601_000_000_000).contains(&apart), "{apart}");
    assert_eq!(target.stop(), Some(0));
}
