//! `filelog` reads what our own SDK printed, not lines that somebody wrote by hand after its schema.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use model::view::logs::{LogRecord, log_records, resource_logs};
use model::view::{AnyValue, Attributes};
use model::{Batch, Signal};
use net::Doors;
use pipeline::config::{Config, Source};
use pipeline::{Ack, Budget, Entry, Intake, Ledger, Outcome};
use receivers::Settings;
use receivers::filelog::Filelog;
use serde_json::Value;
use trackline_sdk::Telemetry;

/// Generous, because debug builds run beside other tests.
const WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(2);
/// Longer than the lines that a container's runtime writes at once, and than what the SDK writes by default.
const LONG: usize = 100_000;

/// What a service of ours prints; the trace of the lines within a span.
fn print(path: &Path) -> String {
    let sink = OpenOptions::new().create(true).append(true).open(path).expect("a file");
    let guard = Telemetry::builder("checkout")
        .version("1.2.3")
        .environment("dev")
        // Nobody is there; a line is written whether or not its record can be sent.
        .endpoint("http://127.0.0.1:9")
        .shutdown_timeout(Duration::from_millis(10))
        .log_filter("trace")
        .panic_hook(false)
        .log_sink(sink)
        .init();
    let span = trackline_sdk::span("buy").start();
    {
        let _current = span.enter();
        tracing::error!(
            order_id = 17,
            price = 0.5,
            paid = false,
            error.kind = "declined",
            "card was \"declined\"\nat once — ü"
        );
        tracing::warn!(left = -3, "few left");
        tracing::debug!("looked");
    }
    let trace = span.tracking_id().to_string();
    span.end();
    tracing::info!(blob = "x".repeat(LONG), "outside of any trace");
    tracing::trace!("the last");
    drop(guard);
    trace
}

/// Follows the file until as many records came as lines were printed.
fn follow(folder: &Path, lines: usize) -> Vec<Batch> {
    let yaml = format!(
        "receivers:\n  filelog: {{ include: ['{}/*.log'], start_at: beginning, poll_interval: 5ms }}\nexporters: {{debug: }}\nservice: {{pipelines: {{logs: {{receivers: [filelog], exporters: [debug]}}}}}}\n",
        folder.display()
    );
    let config = Config::load(vec![Source::new("test", yaml)], &|_| None).expect("a configuration");
    let filelog = Filelog::parse(&config.section(&config.receivers[0])).expect("settings");
    let batches = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&batches);
    let entry: Arc<dyn Entry> = Arc::new(move |batch: Batch, ack: Ack| {
        kept.lock().expect("no panic").push(batch);
        ack.resolve(Outcome::Delivered);
    });
    let budget = Budget::root("test", 64 << 20);
    let intake = Intake::new("filelog", &Ledger::new(), budget, vec![(Signal::Logs, entry)]);
    let mounted = Box::new(filelog).mount(intake, &mut Doors::new()).expect("mounts");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let work = runtime.spawn(mounted.work.expect("it works by itself")(stopped));
    let deadline = Instant::now() + WITHIN;
    let count = |batches: &[Batch]| batches.iter().map(|batch| batch.items as usize).sum::<usize>();
    while count(&batches.lock().expect("no panic")) < lines {
        assert!(Instant::now() < deadline, "not all of {lines} lines came");
        std::thread::sleep(POLL);
    }
    stop.send(true).expect("it listens");
    runtime.block_on(work).expect("no panic");
    let batches = batches.lock().expect("no panic").clone();
    assert_eq!(count(&batches), lines);
    batches
}

#[test]
fn lines_that_the_sdk_printed_are_the_records_that_it_would_have_sent() {
    let service = tempfile::tempdir().expect("a folder");
    let path = service.path().join("stdout");
    let trace = print(&path);
    // A thread of the SDK writes, and it may have more to say of an endpoint where nobody is; what it wrote until the last of our lines is what is read.
    let deadline = Instant::now() + WITHIN;
    let text = loop {
        let text = std::fs::read_to_string(&path).expect("lines");
        if let Some((before, _)) = text.split_once("\"@message\":\"the last\"") {
            let rest = &text[before.len()..];
            if let Some(end) = rest.find('\n') {
                break text[..before.len() + end + 1].to_owned();
            }
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(POLL);
    };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("checkout.log"), &text).expect("writes");
    let printed: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let ours = |line: &&Value| line["@logger"] == "sdk_lines";
    assert_eq!(printed.iter().filter(ours).count(), 5, "{text}");

    let batches = follow(folder.path(), printed.len());
    let records = || batches.iter().flat_map(|batch| log_records(&batch.payload));
    // Each is what its line says, the ids above all.
    for (record, line) in records().zip(&printed) {
        assert_eq!(text_of(record.body), line["@message"].as_str());
        assert_eq!(record.severity_text, line["@level"].as_str().expect("a level"));
        let time = model::instant::parse_rfc3339(line["@timestamp"].as_str().expect("a time"));
        assert_eq!(Some(record.time_unix_nano), time);
        let span = line["tracing"]["span_id"].as_str().filter(|id| *id != "no-trace");
        assert_eq!(record.span_id.map(|id| id.to_string()).as_deref(), span, "{line}");
    }
    for batch in &batches {
        for resource in resource_logs(&batch.payload).iter() {
            let attributes = shown(&resource.owner().attributes);
            assert!(attributes.contains("service.name=\"checkout\""), "{attributes}");
            assert!(attributes.contains("deployment.environment=\"dev\""), "{attributes}");
        }
    }

    let ours: Vec<LogRecord<'_>> = records()
        .filter(|record| shown(&record.attributes).contains("logger=\"sdk_lines\""))
        .collect();
    let levels: Vec<(i32, &str)> = ours
        .iter()
        .map(|record| (record.severity_number, record.severity_text))
        .collect();
    assert_eq!(
        levels,
        [(17, "ERROR"), (13, "WARN"), (5, "DEBUG"), (9, "INFO"), (5, "DEBUG")]
    );
    for (at, record) in ours.iter().enumerate() {
        let expect = (at < 3).then(|| trace.clone());
        assert_eq!(record.trace_id.map(|id| id.to_string()), expect, "record {at}");
        assert_eq!(record.span_id.is_some(), at < 3, "record {at}");
    }
    assert_eq!(text_of(ours[0].body), Some("card was \"declined\"\nat once — ü"));
    let attributes = shown(&ours[0].attributes);
    for expect in [
        "order_id=17",
        "price=0.5",
        "paid=false",
        "error.kind=\"declined\"",
        "code.file.path=\"crates/receivers/tests/sdk_lines.rs\"",
        "code.line.number=",
        "thread.name=",
    ] {
        assert!(attributes.contains(expect), "{expect} is not in {attributes}");
    }
    // What the line says twice is there once.
    for absent in [
        "source.",
        "tracing.",
        "tracking_id",
        "traceId",
        "service=",
        "@",
        "file=\"sdk_lines",
    ] {
        assert!(!attributes.contains(absent), "{absent} is in {attributes}");
    }
    assert!(shown(&ours[1].attributes).contains("left=-3"));
    // What the schema does not tell apart: it has no level below DEBUG.
    assert_eq!(text_of(ours[4].body), Some("the last"));
    // The SDK cuts what a log driver would split.
    let blob = shown(&ours[3].attributes);
    assert!(blob.contains("blob=\"xxx") && blob.len() < LONG, "{} bytes", blob.len());
}

fn text_of(body: AnyValue<'_>) -> Option<&str> {
    match body {
        AnyValue::Str(text) => Some(text),
        _ => None,
    }
}

fn shown(attributes: &Attributes<'_>) -> String {
    let pairs = attributes.iter().map(|pair| match pair.value {
        AnyValue::Str(text) => format!("{}={text:?}", pair.key),
        AnyValue::Int(number) => format!("{}={number}", pair.key),
        AnyValue::Double(number) => format!("{}={number}", pair.key),
        AnyValue::Bool(truth) => format!("{}={truth}", pair.key),
        other => format!("{}={other:?}", pair.key),
    });
    pairs.collect::<Vec<_>>().join(" ")
}
