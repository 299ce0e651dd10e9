//! Kills the real process while it reads a file that another writes and rotates: every line is in the store afterwards, and hardly one twice.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::running::{Ports, Server};

const KILLS: u64 = 4;
/// Lines that a round waits for before its kill.
const LINES_A_ROUND: u64 = 2_000;
/// All lines belong to one trace, whose story tells them.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

fn configuration(folder: &Path, ports: Ports) -> PathBuf {
    let text = format!(
        "receivers:
  filelog: {{ include: ['{}/*.log'], start_at: beginning, poll_interval: 5ms }}
exporters:
  file: {{ path: '{}', append: true }}
extensions:
  query: {{ endpoint: '127.0.0.1:{}' }}
service:
  extensions: [query]
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines:
    logs: {{ receivers: [filelog], exporters: [file] }}
",
        folder.join("logs").display(),
        folder.join("out.jsonl").display(),
        ports.query,
    );
    let path = folder.join("config.yaml");
    fs::write(&path, text).expect("writes");
    path
}

/// A line as our SDK writes it to stdout.
fn line(number: u64) -> String {
    format!(
        "{{\"@timestamp\":\"2026-11-20T19:04:05.123Z\",\"@level\":\"INFO\",\"@message\":\"line {number}\",\"timestamp\":\"2026-11-20T19:04:05.123Z\",\"level\":\"INFO\",\"message\":\"line {number}\",\"service\":\"writer\",\"environment\":\"dev\",\"tracking_id\":\"{TRACE}\",\"traceId\":\"{TRACE}\"}}\n"
    )
}

/// Which lines arrived, and how often.
fn arrived(out: &Path) -> HashMap<u64, u64> {
    let text = fs::read_to_string(out).unwrap_or_default();
    let mut counts = HashMap::new();
    for part in text.split("\"line ").skip(1) {
        if let Some(number) = part.split('"').next().and_then(|number| number.parse().ok()) {
            *counts.entry(number).or_default() += 1;
        }
    }
    counts
}

#[test]
fn no_line_is_lost_by_kill_9_and_rotation() {
    let folder = tempfile::tempdir().expect("a folder");
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).expect("a folder");
    let out = folder.path().join("out.jsonl");
    let ports = Ports::free();
    let config = configuration(folder.path(), ports);
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| write_until(&stop, &logs, &written));
        for round in 1..=KILLS {
            let server = Server::start_with(&folder.path().join("data"), ports, &config);
            let deadline = Instant::now() + WITHIN;
            while (arrived(&out).len() as u64) < round * LINES_A_ROUND {
                assert!(Instant::now() < deadline, "{} lines", arrived(&out).len());
                std::thread::sleep(POLL);
            }
            server.kill();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let written = written.load(Ordering::Relaxed);
    let server = Server::start_with(&folder.path().join("data"), ports, &config);
    let deadline = Instant::now() + WITHIN;
    while (arrived(&out).len() as u64) < written {
        assert!(Instant::now() < deadline, "{} of {written} lines", arrived(&out).len());
        std::thread::sleep(POLL);
    }
    assert_eq!(server.stop(), Some(0));
    let counts = arrived(&out);
    assert!(
        (1..=written).all(|number| counts.contains_key(&number)),
        "each line is there"
    );
    // A kill may repeat what the exporter was sending and what the reader had not written down: a batch each.
    let repeated: u64 = counts.values().map(|count| count - 1).sum();
    eprintln!("{written} lines, {repeated} of them again after {KILLS} kills");
    assert!(repeated < written / 2, "{repeated} of {written} lines came again");
}

/// Writes numbered lines, and rotates by turns by rename and by copy.
fn write_until(stop: &AtomicBool, logs: &Path, written: &AtomicU64) {
    let log = logs.join("app.log");
    let open = || OpenOptions::new().create(true).append(true).open(&log).expect("opens");
    let mut file: File = open();
    let mut rotations = 0;
    while !stop.load(Ordering::Relaxed) {
        let number = written.load(Ordering::Relaxed) + 1;
        file.write_all(line(number).as_bytes()).expect("writes");
        written.store(number, Ordering::Relaxed);
        if number.is_multiple_of(50) {
            std::thread::sleep(Duration::from_millis(2));
        }
        if number.is_multiple_of(1_500) {
            rotations += 1;
            // A name that the pattern has, and one that it has not.
            let ending = if rotations % 3 == 0 { "old" } else { "log" };
            let rotated = logs.join(format!("app-{rotations}.{ending}"));
            if rotations % 2 == 0 {
                fs::rename(&log, &rotated).expect("renames");
                file = open();
            } else {
                fs::copy(&log, &rotated).expect("copies");
                file.set_len(0).expect("cuts off");
            }
        }
    }
}
