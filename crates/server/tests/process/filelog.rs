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
/// Lines of one trace, whose story tells them.
const LINES_A_TRACE: u64 = 100;
/// Lines of the largest batch (1 MiB), which is what one kill may repeat.
const LINES_A_BATCH: u64 = (1 << 20) / 300;
const WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

fn configuration(folder: &Path, ports: Ports) -> PathBuf {
    let text = format!(
        "receivers:
  filelog: {{ include: ['{}/*.log'], start_at: beginning, poll_interval: 5ms }}
exporters:
  file: {{ path: '{}', append: true }}
  store:
extensions:
  query: {{ endpoint: '127.0.0.1:{}' }}
service:
  extensions: [query]
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines:
    logs: {{ receivers: [filelog], exporters: [file, store] }}
",
        folder.join("logs").display(),
        folder.join("out.jsonl").display(),
        ports.query,
    );
    let path = folder.join("config.yaml");
    fs::write(&path, text).expect("writes");
    path
}

fn trace(number: u64) -> String {
    format!("{:032x}", number / LINES_A_TRACE + 1)
}

/// A line as our SDK writes it to stdout.
fn line(number: u64) -> String {
    let trace = trace(number);
    format!(
        "{{\"@timestamp\":\"2026-11-20T19:04:05.123Z\",\"@level\":\"INFO\",\"@message\":\"line {number}\",\"timestamp\":\"2026-11-20T19:04:05.123Z\",\"level\":\"INFO\",\"message\":\"line {number}\",\"service\":\"writer\",\"environment\":\"dev\",\"tracking_id\":\"{trace}\",\"traceId\":\"{trace}\"}}\n"
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
        // A failed assertion ends the writer too.
        let _ends = Ends(&stop);
        for round in 1..=KILLS {
            let server = Server::start_with(&folder.path().join("data"), ports, &config);
            let deadline = Instant::now() + WITHIN;
            while (arrived(&out).len() as u64) < round * LINES_A_ROUND {
                assert!(Instant::now() < deadline, "{} lines", arrived(&out).len());
                std::thread::sleep(POLL);
            }
            server.kill();
        }
    });
    let written = written.load(Ordering::Relaxed);
    let server = Server::start_with(&folder.path().join("data"), ports, &config);
    let deadline = Instant::now() + WITHIN;
    while (arrived(&out).len() as u64) < written {
        assert!(Instant::now() < deadline, "{} of {written} lines", arrived(&out).len());
        std::thread::sleep(POLL);
    }
    // The exporter of files may itself send again after a kill; the store does not.
    let mut repeated = 0;
    for first in (0..=written).step_by(LINES_A_TRACE as usize) {
        let expect = (first + LINES_A_TRACE).min(written + 1) - first.max(1);
        let counts = loop {
            let counts = stored(&server, first);
            if counts.len() as u64 >= expect {
                break counts;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {expect} lines of {}",
                counts.len(),
                trace(first)
            );
            std::thread::sleep(POLL);
        };
        repeated += counts.values().map(|count| count - 1).sum::<u64>();
    }
    eprintln!("{written} lines, {repeated} of them twice after {KILLS} kills");
    assert!(
        repeated <= KILLS * LINES_A_BATCH,
        "{repeated} of {written} lines came again"
    );
    assert_eq!(server.stop(), Some(0));
}

/// Which lines of a number's trace are in the store, and how often.
fn stored(server: &Server, number: u64) -> HashMap<String, u64> {
    let story = server.json(&format!("/api/trackline/v1/tracking/{}", trace(number)));
    let mut counts = HashMap::new();
    for log in story["logs"].as_array().into_iter().flatten() {
        *counts
            .entry(log["message"].as_str().unwrap_or_default().to_owned())
            .or_default() += 1;
    }
    counts
}

/// Tells the writer that it is enough.
struct Ends<'s>(&'s AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
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
        if number.is_multiple_of(20) {
            std::thread::sleep(Duration::from_millis(2));
        }
        if number.is_multiple_of(1_500) {
            rotations += 1;
            // Under a name that the pattern has: while nobody looks, a file may come and go several times.
            let rotated = logs.join(format!("app-{rotations}.log"));
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
