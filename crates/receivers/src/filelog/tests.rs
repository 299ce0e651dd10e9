//! Real files, as programs and `logrotate` treat them, over a pipeline that a test looks into and that takes or refuses.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use model::view::AnyValue;
use model::view::logs::{log_records, resource_logs};
use model::{Batch, Signal};
use net::Doors;
use pipeline::config::Source;
use pipeline::{Ack, Budget, Entry, Intake, Ledger, Outcome, Reason};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::Filelog;
use super::reader::{Reader, Turn};
use crate::settings::{Counters, Settings};

/// Generous, because debug builds run beside other tests.
const WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(2);

/// Reads what stands under `filelog:`.
fn read(settings: &str) -> Result<Filelog, String> {
    let yaml = format!(
        "receivers:\n  filelog:\n    {settings}\nexporters: {{debug: }}\nservice: {{pipelines: {{logs: {{receivers: [filelog], exporters: [debug]}}}}}}\n"
    );
    let document = pipeline::config::Config::load(vec![Source::new("test", yaml)], &|_| None).unwrap();
    Filelog::parse(&document.section(&document.receivers[0])).map_err(|problems| problems.to_string())
}

/// A receiver at work in a folder of its own.
struct Following {
    runtime: Runtime,
    stop: watch::Sender<bool>,
    work: tokio::task::JoinHandle<()>,
    batches: Arc<Mutex<Vec<Batch>>>,
    outcome: Arc<Mutex<Outcome>>,
    ledger: Ledger,
}

impl Following {
    /// `more` are further settings; positions are kept in the folder.
    fn start(folder: &Path, more: &str) -> Following {
        Following::answering(folder, more, Outcome::Delivered)
    }

    fn answering(folder: &Path, more: &str, outcome: Outcome) -> Following {
        let settings = format!(
            "include: ['{0}/*.log']\n    poll_interval: 5ms\n    force_flush_period: 50ms\n    {more}",
            folder.display()
        );
        let mut filelog = read(&settings).unwrap();
        filelog.remember_in(&folder.join("positions"));
        let ledger = Ledger::new();
        let batches = Arc::new(Mutex::new(Vec::new()));
        let outcome = Arc::new(Mutex::new(outcome));
        let (kept, answer) = (Arc::clone(&batches), Arc::clone(&outcome));
        let entry: Arc<dyn Entry> = Arc::new(move |batch: Batch, ack: Ack| {
            let outcome = answer.lock().unwrap().clone();
            if outcome.is_delivered() {
                kept.lock().unwrap().push(batch);
            }
            ack.resolve(outcome);
        });
        let budget = Budget::root("test", 64 << 20);
        let intake = Intake::new("filelog", &ledger, budget, vec![(Signal::Logs, entry)]);
        let mounted = Box::new(filelog).mount(intake, &mut Doors::new()).unwrap();
        let runtime = Runtime::new().unwrap();
        let (stop, stopped) = watch::channel(false);
        let work = runtime.spawn(mounted.work.unwrap()(stopped));
        Following {
            runtime,
            stop,
            work,
            batches,
            outcome,
            ledger,
        }
    }

    fn bodies(&self) -> Vec<String> {
        let batches = self.batches.lock().unwrap();
        batches.iter().flat_map(bodies_of).collect()
    }

    fn wait_for(&self, expect: &[&str]) {
        let deadline = Instant::now() + WITHIN;
        while self.bodies() != expect {
            assert!(
                Instant::now() < deadline,
                "read {:?}, expected {expect:?}",
                self.bodies()
            );
            std::thread::sleep(POLL);
        }
    }

    fn wait_for_count(&self, count: usize) {
        let deadline = Instant::now() + WITHIN;
        while self.bodies().len() < count {
            assert!(Instant::now() < deadline, "read {} of {count}", self.bodies().len());
            std::thread::sleep(POLL);
        }
    }

    fn stop(self) -> Vec<String> {
        self.stop.send(true).unwrap();
        self.runtime.block_on(self.work).unwrap();
        self.ledger.balance().unwrap();
        let batches = self.batches.lock().unwrap();
        batches.iter().flat_map(bodies_of).collect()
    }
}

fn bodies_of(batch: &Batch) -> Vec<String> {
    let texts = log_records(&batch.payload).map(|record| match record.body {
        AnyValue::Str(text) => text.to_owned(),
        other => format!("{other:?}"),
    });
    texts.collect()
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("app.log");
    (folder, log)
}

const FROM_THE_BEGINNING: &str = "start_at: beginning";

#[test]
fn what_is_there_at_the_first_start_is_passed_over_unless_asked_for() {
    let (folder, log) = folder();
    append(&log, "old\n");
    let following = Following::start(folder.path(), "");
    // A file that appears after the first look is new, all of it.
    let positions = folder.path().join("positions/filelog");
    let deadline = Instant::now() + WITHIN;
    while !fs::read_to_string(&positions).is_ok_and(|text| text.contains("app.log")) {
        assert!(Instant::now() < deadline, "the position is written down");
        std::thread::sleep(POLL);
    }
    append(&folder.path().join("later.log"), "first\n");
    following.wait_for(&["first"]);
    append(&log, "new\n");
    following.wait_for(&["first", "new"]);
    following.stop();

    append(&log, "while away\n");
    append(&folder.path().join("b.log"), "appeared while away\n");
    let following = Following::start(folder.path(), "");
    following.wait_for_count(2);
    let mut bodies = following.stop();
    bodies.sort();
    assert_eq!(bodies, ["appeared while away", "while away"]);
}

#[test]
fn lines_arrive_once_over_restarts() {
    let (folder, log) = folder();
    append(&log, "one\r\n\n  two  \n");
    let following = Following::start(folder.path(), FROM_THE_BEGINNING);
    following.wait_for(&["one", "two"]);
    following.stop();
    append(&log, "three\n");
    let following = Following::start(folder.path(), FROM_THE_BEGINNING);
    following.wait_for(&["three"]);
    assert_eq!(following.stop(), ["three"]);
}

#[test]
fn an_unfinished_line_is_waited_for_and_then_taken() {
    let (folder, log) = folder();
    append(&log, "half");
    let following = Following::start(
        folder.path(),
        "start_at: beginning\n    force_flush_period: 1h"
            .replace("force_flush_period: 1h", "")
            .as_str(),
    );
    following.wait_for(&["half"]);
    append(&log, " and half\n");
    following.wait_for(&["half", "and half"]);
    following.stop();
}

#[test]
fn a_renamed_file_is_read_to_its_end_whatever_its_name() {
    for name in ["app.log.1", "app-1.log"] {
        let (folder, log) = folder();
        let renamed = folder.path().join(name);
        append(&log, "the first of this file\n");
        let following = Following::start(folder.path(), FROM_THE_BEGINNING);
        following.wait_for(&["the first of this file"]);
        fs::rename(&log, &renamed).unwrap();
        append(&renamed, "last of the old\n");
        append(&log, "first of the new\n");
        following.wait_for_count(3);
        let mut bodies = following.stop();
        bodies.sort();
        assert_eq!(
            bodies,
            ["first of the new", "last of the old", "the first of this file"],
            "{name}"
        );
    }
}

#[test]
fn a_file_renamed_while_nobody_looked_is_read_to_its_end() {
    for name in ["app.log.1", "app-1.log"] {
        let (folder, log) = folder();
        append(&log, "the first of this file\n");
        let following = Following::start(folder.path(), FROM_THE_BEGINNING);
        following.wait_for(&["the first of this file"]);
        following.stop();
        append(&log, "last of the old\n");
        fs::rename(&log, folder.path().join(name)).unwrap();
        append(&log, "first of the new\n");
        let following = Following::start(folder.path(), FROM_THE_BEGINNING);
        following.wait_for_count(2);
        let mut bodies = following.stop();
        bodies.sort();
        assert_eq!(bodies, ["first of the new", "last of the old"], "{name}");
    }
}

#[test]
fn a_file_that_is_copied_and_cut_off_begins_anew_and_the_copy_is_not_read_again() {
    // Once under a name that the pattern has, once under one that it has not; looked at, and not.
    for (name, is_watched) in [
        ("app-1.log", true),
        ("app.log.1", true),
        ("app-1.log", false),
        ("app.log.1", false),
    ] {
        let (folder, log) = folder();
        append(&log, "the first of this file\n");
        let following = Following::start(folder.path(), FROM_THE_BEGINNING);
        following.wait_for(&["the first of this file"]);
        let following = match is_watched {
            true => Some(following),
            false => {
                following.stop();
                None
            }
        };
        let copy = folder.path().join(name);
        if !is_watched {
            append(&log, "not read before the copy\n");
        }
        fs::copy(&log, &copy).unwrap();
        let file = OpenOptions::new().write(true).open(&log).unwrap();
        file.set_len(0).unwrap();
        append(&log, "anew\n");
        let (following, mut expect) = match following {
            Some(following) => (following, vec!["anew", "the first of this file"]),
            None => (
                Following::start(folder.path(), FROM_THE_BEGINNING),
                vec!["anew", "not read before the copy"],
            ),
        };
        following.wait_for_count(2);
        append(&log, "zuletzt\n");
        following.wait_for_count(3);
        expect.push("zuletzt");
        let mut bodies = following.stop();
        bodies.sort();
        assert_eq!(bodies, expect, "{name} {is_watched}");
    }
}

#[test]
fn a_file_that_is_replaced_in_the_middle_of_a_line_begins_anew() {
    let (folder, log) = folder();
    append(&log, "whole line of the first\nhalf a li");
    let following = Following::start(folder.path(), FROM_THE_BEGINNING);
    following.wait_for_count(1);
    fs::remove_file(&log).unwrap();
    append(&log, "whole line of the second, and longer than the first was\n");
    following.wait_for_count(3);
    let mut bodies = following.stop();
    bodies.sort();
    assert_eq!(
        bodies,
        [
            "half a li",
            "whole line of the first",
            "whole line of the second, and longer than the first was"
        ]
    );
}

#[test]
fn while_the_pipeline_refuses_the_reader_stands_still() {
    let (folder, log) = folder();
    append(&log, "one\ntwo\n");
    let later = Outcome::retry(Duration::from_millis(5), Reason::JournalFull);
    let following = Following::answering(folder.path(), FROM_THE_BEGINNING, later.clone());
    let refused = |following: &Following| {
        let books = following.ledger.json();
        books["doors"]
            .as_array()
            .unwrap()
            .iter()
            .any(|door| door["refused"]["journal_full"].as_u64() > Some(3))
    };
    let deadline = Instant::now() + WITHIN;
    while !refused(&following) {
        assert!(Instant::now() < deadline, "it is tried again and again");
        std::thread::sleep(POLL);
    }
    assert!(following.stop().is_empty());
    // What was never taken is read again after a restart, and only once.
    let following = Following::answering(folder.path(), FROM_THE_BEGINNING, later);
    *following.outcome.lock().unwrap() = Outcome::Delivered;
    following.wait_for(&["one", "two"]);
    append(&log, "three\n");
    following.wait_for(&["one", "two", "three"]);
    following.stop();
}

#[test]
fn what_is_no_file_or_no_text_harms_nothing() {
    let (folder, log) = folder();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("folder.log")).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(path("pipe.log"))
            .status()
            .unwrap()
            .success()
    );
    std::os::unix::fs::symlink(path("loop.log"), path("loop.log")).unwrap();
    std::os::unix::fs::symlink(path("nowhere"), path("dangling.log")).unwrap();
    std::os::unix::fs::symlink(&log, path("link.log")).unwrap();
    let noise: Vec<u8> = (0..300_000u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    fs::write(path("noise.log"), noise).unwrap();
    let following = Following::start(folder.path(), "start_at: beginning\n    max_log_size: 4KiB");
    append(&log, "still read, and once\n");
    let deadline = Instant::now() + WITHIN;
    let is_read = |following: &Following| following.bodies().iter().any(|body| body == "still read, and once");
    while !is_read(&following) {
        assert!(Instant::now() < deadline, "the line was not read");
        std::thread::sleep(POLL);
    }
    let bodies = following.stop();
    assert_eq!(bodies.iter().filter(|body| *body == "still read, and once").count(), 1);
}

#[test]
fn a_line_without_an_end_comes_in_pieces() {
    let (folder, log) = folder();
    let text = "0123456789".repeat(500_000);
    append(&log, &text);
    append(&log, "\nnext\n");
    let following = Following::start(folder.path(), FROM_THE_BEGINNING);
    following.wait_for_count(6);
    let bodies = following.stop();
    assert!(bodies.iter().all(|body| body.len() <= 1 << 20));
    assert_eq!(bodies[..5].concat(), text);
    assert_eq!(bodies[5..], ["next"]);
}

#[test]
fn much_in_many_files_is_read_once_and_in_order() {
    let (folder, _) = folder();
    const FILES: usize = 40;
    const LINES: usize = 500;
    for file in 0..FILES {
        let lines: String = (0..LINES).map(|line| format!("file {file} line {line:05}\n")).collect();
        append(&folder.path().join(format!("{file}.log")), &lines);
    }
    // Fewer may be held open than there are.
    let following = Following::start(folder.path(), "start_at: beginning\n    max_concurrent_files: 8");
    following.wait_for_count(FILES * LINES);
    let bodies = following.stop();
    assert_eq!(bodies.len(), FILES * LINES);
    for file in 0..FILES {
        let prefix = format!("file {file} ");
        let lines: Vec<&String> = bodies.iter().filter(|body| body.starts_with(&prefix)).collect();
        assert!(lines.len() == LINES && lines.is_sorted());
    }
}

#[test]
fn entries_of_several_lines_and_what_tells_the_file() {
    let (folder, log) = folder();
    append(&log, "2026 it broke\n  at a\n  at b\n2026 and again\n");
    let following = Following::start(
        folder.path(),
        "start_at: beginning\n    multiline: {line_start_pattern: '^\\d{4} '}\n    include_file_path: true\n    include_file_record_offset: true\n    attributes: {team: a, size: 3}\n    resource: {service.name: shop}",
    );
    following.wait_for(&["2026 it broke\n  at a\n  at b", "2026 and again"]);
    let batch = following.batches.lock().unwrap()[0].clone();
    let resource = resource_logs(&batch.payload).iter().next().unwrap();
    let attributes = |pairs: &model::view::Attributes<'_>| {
        pairs
            .iter()
            .map(|pair| format!("{}={:?}", pair.key, pair.value))
            .collect::<Vec<_>>()
    };
    assert_eq!(attributes(&resource.owner().attributes), ["service.name=Str(\"shop\")"]);
    let record = log_records(&batch.payload).next().unwrap();
    let path = format!("log.file.path=Str({:?})", log.display().to_string());
    assert_eq!(
        attributes(&record.attributes),
        [
            "size=Int(3)",
            "team=Str(\"a\")",
            "log.file.name=Str(\"app.log\")",
            &path,
            "log.file.record_offset=Int(0)"
        ]
    );
    assert!(record.observed_unix_nano > 0);
    following.stop();
}

#[test]
fn lines_of_the_schema_are_records_of_their_services() {
    let (folder, log) = folder();
    let line = |service: &str, level: &str| {
        format!(
            "{{\"timestamp\":\"2026-11-20T19:04:05.123Z\",\"level\":\"{level}\",\"message\":\"m of {service}\",\"service\":\"{service}\",\"traceId\":\"0af7651916cd43dd8448eb211c80319c\"}}\n"
        )
    };
    append(
        &log,
        &format!(
            "{}{}plain\n{}",
            line("a", "INFO"),
            line("a", "ERROR"),
            line("b", "WARN")
        ),
    );
    let following = Following::start(folder.path(), FROM_THE_BEGINNING);
    following.wait_for(&["m of a", "m of a", "plain", "m of b"]);
    let batches = following.batches.lock().unwrap().clone();
    let resources: Vec<_> = batches
        .iter()
        .flat_map(|batch| resource_logs(&batch.payload).iter())
        .collect();
    assert_eq!(resources.len(), 3);
    let second = log_records(&batches[0].payload).nth(1).unwrap();
    assert_eq!((second.severity_number, second.severity_text), (17, "ERROR"));
    assert_eq!(second.time_unix_nano, 1_795_201_445_123_000_000);
    assert!(second.trace_id.is_some());
    following.stop();
}

#[test]
fn settings_and_their_mistakes() {
    let config = read("include: [/a/*.log]").unwrap().config;
    assert_eq!(config.max_log_size, 1 << 20);
    for (settings, expect) in [
        ("include: []", "name at least one pattern"),
        ("exclude: [/a]", "missing"),
        ("include: ['/a/{b']", "a brace that does not close"),
        ("include: [/a]\n    encoding: utf-16le", "only utf-8 is"),
        ("include: [/a]\n    operators: [{type: router}]", "is not available"),
        (
            "include: [/a]\n    delete_after_read: true",
            "leave delete_after_read out",
        ),
        ("include: [/a]\n    start_at: middle", "beginning"),
        ("include: [/a]\n    fingerprint_size: 3", "from 16 bytes to 64KiB"),
        ("include: [/a]\n    max_log_size: 1GiB", "from 1 byte to 64MiB"),
        (
            "include: [/a]\n    multiline: {line_start_pattern: '('}",
            "is not a pattern",
        ),
        (
            "include: [/a]\n    multiline: {line_start_pattern: a, line_end_pattern: b}",
            "only one of",
        ),
        ("include: [/a]\n    compression: gzip", "compressed files are not read"),
        (
            "include: [/a]\n    include_file_nam: true",
            "did you mean `include_file_name`?",
        ),
    ] {
        let said = read(settings).err().unwrap_or_default();
        assert!(said.starts_with("test:") && said.contains(expect), "{settings}: {said}");
    }
}

#[test]
fn a_line_of_our_schema_in_a_line_of_a_container() {
    let (folder, log) = folder();
    let inner = r#"{\"level\":\"WARN\",\"message\":\"disk is full\",\"service\":\"a\"}"#;
    append(
        &log,
        &format!("{{\"log\":\"{inner}\\n\",\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20Z\"}}\n"),
    );
    let following = Following::start(folder.path(), "start_at: beginning\n    operators: [{type: container}]");
    following.wait_for(&["disk is full"]);
    let batch = following.batches.lock().unwrap()[0].clone();
    let record = log_records(&batch.payload).next().unwrap();
    assert_eq!(
        (record.time_unix_nano, record.severity_number),
        (1_700_000_000_000_000_000, 13)
    );
    let keys: Vec<&str> = record.attributes.iter().map(|pair| pair.key).collect();
    assert_eq!(keys, ["log.iostream", "log.file.name"]);
    following.stop();
}

/// A reader that died while it waited for the rest of an entry would have begun behind the lines that it never handed over.
#[test]
fn the_position_does_not_pass_lines_of_an_unfinished_entry() {
    let (folder, log) = folder();
    append(&log, "one\ntwo\n  at a\n");
    let settings = "start_at: beginning\n    include_file_record_offset: true\n    operators: [{type: recombine, combine_field: body, is_first_entry: 'body matches \"^[^ ]\"', force_flush_period: 0}]\n    preserve_leading_whitespaces: true";
    let positions = folder.path().join("positions/filelog");
    let remembered = || {
        let text = fs::read_to_string(&positions).unwrap();
        let last = text.lines().last().unwrap();
        serde_json::from_str::<serde_json::Value>(last).unwrap()["offset"]
            .as_u64()
            .unwrap()
    };
    let following = Following::start(folder.path(), settings);
    following.wait_for(&["one"]);
    following.stop();
    assert_eq!(remembered(), 4, "where `two` begins");
    append(&log, "  at b\n");
    let following = Following::start(folder.path(), settings);
    append(&log, "three\n");
    following.wait_for(&["two\n  at a\n  at b"]);
    let batch = following.batches.lock().unwrap()[0].clone();
    let record = log_records(&batch.payload).next().unwrap();
    let offset = record
        .attributes
        .iter()
        .find(|pair| pair.key == "log.file.record_offset");
    assert!(matches!(offset.unwrap().value, AnyValue::Int(4)));
    following.stop();
    assert_eq!(remembered(), 22, "where `three` begins");
    // And who does not wait for ever hands it over when nothing more comes.
    let following = Following::start(folder.path(), &settings.replace("period: 0}", "period: 20ms}"));
    following.wait_for(&["three"]);
    append(&log, "four");
    following.wait_for(&["three", "four"]);
    following.stop();
    assert_eq!(remembered(), 32);
}

#[test]
fn much_that_is_put_together_comes_once_and_in_order_and_what_is_dropped_is_counted() {
    let (folder, log) = folder();
    let mut text = String::new();
    for entry in 0..20_000 {
        text.push_str(&format!("entry {entry}\n  more of {entry}\ndropped {entry}\n"));
    }
    append(&log, &text);
    let settings = "start_at: beginning\n    preserve_leading_whitespaces: true\n    operators: [{type: filter, expr: 'body startsWith \"dropped\"'}, {type: recombine, combine_field: body, is_first_entry: 'body startsWith \"entry\"'}]";
    let following = Following::start(folder.path(), settings);
    following.wait_for_count(20_000);
    let ledger = following.ledger.clone();
    let bodies = following.stop();
    let expect: Vec<String> = (0..20_000)
        .map(|entry| format!("entry {entry}\n  more of {entry}"))
        .collect();
    assert_eq!(bodies, expect);
    let doors = ledger.snapshot().doors;
    let rejected = &doors.iter().find(|door| door.signal == "logs").unwrap().rejected;
    // The last one may have come with the last entry, which was still waited for.
    assert!(
        matches!(rejected.0[..], [(Reason::Filtered, 19_999 | 20_000)]),
        "{rejected:?}"
    );
}

/// A reader that goes on when it is told to.
struct Stepped {
    reader: Reader,
    counters: Arc<Counters>,
    batches: Arc<Mutex<Vec<Batch>>>,
    runtime: Runtime,
    stop: watch::Receiver<bool>,
    _stopper: watch::Sender<bool>,
}

impl Stepped {
    fn open(folder: &Path, more: &str) -> Stepped {
        let batches = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&batches);
        let entry: Arc<dyn Entry> = Arc::new(move |batch: Batch, ack: Ack| {
            kept.lock().unwrap().push(batch);
            ack.resolve(Outcome::Delivered);
        });
        let routes = vec![(Signal::Logs, entry)];
        let intake = Intake::new("filelog", &Ledger::new(), Budget::root("test", 64 << 20), routes);
        let include = format!(
            "include: ['{}/*.log']\n    start_at: beginning\n    {more}",
            folder.display()
        );
        let plan = read(&include).unwrap().config.plan().unwrap();
        let counters = Arc::<Counters>::default();
        let (stopper, stop) = watch::channel(false);
        Stepped {
            reader: Reader::open(plan, intake, Arc::clone(&counters), None).unwrap(),
            counters,
            batches,
            runtime: Runtime::new().unwrap(),
            stop,
            _stopper: stopper,
        }
    }

    fn turn(&mut self) -> Turn {
        self.reader.turn(&mut self.stop, self.runtime.handle())
    }

    fn bodies(&self) -> Vec<String> {
        self.batches.lock().unwrap().iter().flat_map(bodies_of).collect()
    }
}

/// Bytes of the new content were taken for the end of the old one, and the rest of that was never read.
#[test]
fn a_file_cut_off_and_grown_again_between_two_looks_was_read_from_the_middle() {
    let (folder, log) = folder();
    let mut stepped = Stepped::open(folder.path(), "");
    let lines = |name: &str, count: u32| (0..count).map(|line| format!("{name} {line}\n")).collect::<String>();

    append(&log, &lines("old", 100));
    stepped.reader.scan();
    stepped.turn();
    append(&log, &lines("late", 50));
    fs::copy(&log, folder.path().join("app.log.1")).unwrap();
    OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
    append(&log, &lines("new", 500));
    for _ in 0..3 {
        stepped.turn();
        stepped.turn();
        stepped.reader.scan();
    }
    let mut bodies = stepped.bodies();
    bodies.sort();
    let all = format!("{}{}{}", lines("old", 100), lines("late", 50), lines("new", 500));
    let mut expect: Vec<&str> = all.lines().collect();
    expect.sort_unstable();
    assert_eq!(bodies, expect);
}

/// What had been read of a file before a disk failed was thrown away, and the position was behind it.
#[test]
fn lines_before_a_failure_to_read_were_lost() {
    let recombine = "operators: [{type: recombine, combine_field: body, is_first_entry: 'body startsWith \"a\"', force_flush_period: 0}]";
    for more in ["", recombine] {
        let (folder, log) = folder();
        let lines: Vec<String> = (0..10_000).map(|line| format!("a line {line:09}")).collect();
        append(&log, &(lines.join("\n") + "\n"));
        let mut stepped = Stepped::open(folder.path(), more);
        let works = stepped.reader.read_at;
        stepped.reader.read_at = |file, buffer, offset| match offset < 100_000 {
            true => file.read_at(buffer, offset),
            false => Err(std::io::Error::other("the disk failed")),
        };
        stepped.reader.scan();
        assert!(matches!(stepped.turn(), Turn::Delivered), "what could be read is");
        assert!(matches!(stepped.turn(), Turn::Idle), "and then nothing");
        stepped.reader.scan();
        assert!(
            stepped.reader.complaints.contains(&log),
            "which is said once, and not after each look"
        );
        stepped.reader.read_at = works;
        stepped.turn();
        stepped.reader.scan();
        assert!(
            !stepped.reader.complaints.contains(&log),
            "a later failure is said again"
        );
        // One that may go on is still held.
        let held = usize::from(!more.is_empty());
        assert_eq!(stepped.bodies(), lines[..lines.len() - held], "{more}");
    }
}

/// Each time that lines which waited for more were read again, they were counted again.
#[test]
fn a_line_that_is_no_utf8_was_counted_whenever_it_was_read_again() {
    let (folder, log) = folder();
    let settings = "preserve_leading_whitespaces: true\n    operators: [{type: recombine, combine_field: body, is_first_entry: 'body startsWith \"a\"', force_flush_period: 0}]";
    let mut stepped = Stepped::open(folder.path(), settings);
    fs::write(&log, b"a line of \xff\n").unwrap();
    for _ in 0..5 {
        append(&log, " more\n");
        stepped.reader.scan();
        stepped.turn();
    }
    append(&log, "another\n");
    stepped.reader.scan();
    stepped.turn();
    assert_eq!(stepped.bodies(), [format!("a line of \u{fffd}{}", "\n more".repeat(5))]);
    assert_eq!(stepped.counters.repaired_text.load(Ordering::Relaxed), 1);
}

/// The second source's entry began to wait when the first's was given up, the third's after the second's, and so on.
#[test]
fn entries_of_several_sources_waited_one_after_the_other() {
    let (folder, log) = folder();
    let settings = "operators: [{type: recombine, combine_field: body, is_last_entry: 'false', source_identifier: body, force_flush_period: 1ms}]";
    let mut stepped = Stepped::open(folder.path(), settings);
    append(&log, "first\nsecond\nthird\n");
    stepped.reader.scan();
    let deadline = Instant::now() + WITHIN;
    while matches!(stepped.turn(), Turn::Idle) {
        assert!(Instant::now() < deadline, "they are not waited for for ever");
    }
    assert_eq!(stepped.bodies(), ["first", "second", "third"]);
}
