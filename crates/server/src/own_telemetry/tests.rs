//! The page, its reference and the code say the same; promtool finds nothing to say.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use model::Signal;
use pipeline::Outcome;
use pipeline::config::telemetry::UsageBudget;
use pipeline::ledger::StepBook;

use super::*;

/// Books in which something of everything happened.
fn busy(metrics: &Metrics) -> OwnTelemetry {
    let ledger = Ledger::new();
    for signal in Signal::ALL {
        let door = ledger.door("otlp", signal);
        door.entered(10);
        door.resolved(10, &Outcome::Delivered);
        door.refused(3, Reason::MemoryLimit);
        door.rejected(2, Reason::BadId);
        door.entered(1);
        for pipeline in ["one", "two"] {
            let reader = ledger.reader(&format!("{signal}/{pipeline}"), "otlp", signal);
            reader.accepted(10);
            reader.delivered(4);
            reader.passed(7);
            reader.dropped(1, Reason::BackendRejected);
            reader.dropped(2, Reason::SkippedOldest);
            reader.retried();
            reader.sent(1000);
        }
    }
    let step = StepBook::new("filter/\"health\"\n");
    ledger.add_step(&step);
    step.incoming(Signal::Logs, 9);
    step.outgoing(Signal::Logs, 5);
    step.dropped(Signal::Logs, 4, Reason::Filtered);
    step.fault(Signal::Logs);
    for family in FAMILIES.iter().filter(|family| is_particular(family.name)) {
        step.count(family.name, [("policy", "slow")])
            .store(3, Ordering::Relaxed);
    }
    let budget = Budget::root("process", 1 << 20);
    let _doors = budget.child("doors", u64::MAX);
    let own = OwnTelemetry::new(ledger, budget, None, 4 << 30, metrics);
    own.receivers
        .set(vec![("otlp".into(), Arc::new(Counters::default()))])
        .expect("is set once");
    let budget = UsageBudget {
        exporter: "otlp".to_owned(),
        signal: Signal::Logs,
        bytes_per_month: 7000,
        active_series: 0,
    };
    let of_series = UsageBudget {
        exporter: "prometheusremotewrite".to_owned(),
        signal: Signal::Metrics,
        active_series: 10_000,
        ..budget.clone()
    };
    let series = own.ledger.reader("metrics", "prometheusremotewrite", Signal::Metrics);
    series.sent(500);
    series.active_series(1234);
    let now = usage::now_unix();
    let usage = Usage::open(None, vec![budget, of_series], now);
    usage.note(&own.ledger.snapshot(), now);
    assert!(own.usage.set(usage).is_ok(), "is set once");
    own
}

/// What only some kinds of processors count.
fn is_particular(name: &str) -> bool {
    ["_tail_sampling_", "_streams_tracked", "_metadata_cardinality"]
        .iter()
        .any(|part| name.contains(part))
}

fn with_journal(directory: &std::path::Path) -> OwnTelemetry {
    let settings = journal::Settings::new(directory.to_owned());
    let (journal, _) = Journal::open(settings, Arc::new(journal::RealDisk)).expect("opens");
    let options = journal::ReaderOptions {
        stream: "traces".into(),
        on_full: journal::OnFull::Refuse,
        start: journal::Start::Stored,
    };
    let reader = journal.reader("traces:otlp", options).expect("a reader");
    // The reader is attached as long as it is there; a test's few of them may stay.
    std::mem::forget(reader);
    OwnTelemetry {
        journal: Some(journal),
        ..busy(&Metrics::default())
    }
}

fn text(own: &OwnTelemetry) -> String {
    own.text(Format::Text)
}

/// The value of a series whose labels hold all of these.
fn value(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = page.lines().find(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
            && labels.iter().all(|label| line.contains(label))
    })?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn the_books_are_told_under_the_collectors_names() {
    let page = text(&busy(&Metrics::default()));
    let is = |name: &str, labels: &[&str], expect: f64| {
        assert_eq!(value(&page, name, labels), Some(expect), "{name} {labels:?}\n{page}");
    };
    for items in ["spans", "log_records", "metric_points"] {
        is(
            &format!("otelcol_receiver_accepted_{items}_total"),
            &["receiver=\"otlp\""],
            10.0,
        );
        is(&format!("otelcol_receiver_refused_{items}_total"), &[], 3.0);
        is(&format!("otelcol_receiver_failed_{items}_total"), &[], 2.0);
        // Of both pipelines that share the exporter.
        is(
            &format!("otelcol_exporter_sent_{items}_total"),
            &["exporter=\"otlp\""],
            8.0,
        );
        is(&format!("otelcol_exporter_send_failed_{items}_total"), &[], 2.0);
        is(&format!("otelcol_exporter_enqueue_failed_{items}_total"), &[], 4.0);
    }
    is("otelcol_processor_incoming_items_total", &["otel_signal=\"logs\""], 9.0);
    is(
        "otelcol_processor_outgoing_items_total",
        &["filter/\\\"health\\\"\\n"],
        5.0,
    );
    let dropped = |component: &str, reason: &str, expect: f64| {
        let labels = [format!("component=\"{component}\""), format!("reason=\"{reason}\"")];
        is(
            "trackline_dropped_items_total",
            &labels.each_ref().map(String::as_str),
            expect,
        );
    };
    dropped("receiver", "bad_id", 2.0);
    dropped("processor", "filtered", 4.0);
    dropped("exporter", "skipped_oldest", 4.0);
    is("trackline_exporter_pending_items", &["pipeline=\"logs/two\""], 3.0);
    is(
        "trackline_exporter_sent_bytes_total",
        &["pipeline=\"logs/two\""],
        1000.0,
    );
    is("trackline_usage_month_bytes", &["signal=\"logs\""], 2000.0);
    is("trackline_usage_budget_bytes", &["signal=\"logs\""], 7000.0);
    assert!(value(&page, "otelcol_process_memory_rss", &[]).is_some_and(|bytes| bytes > 0.0));
    assert!(
        value(
            &page,
            "otelcol_process_cpu_seconds_total",
            &["service_name=\"trackline\""]
        )
        .is_some()
    );
}

#[test]
fn without_type_suffix_counters_have_their_older_names() {
    let reader = pipeline::config::telemetry::Reader {
        pull: Some(Default::default()),
        ..Default::default()
    };
    let mut metrics = Metrics {
        readers: Some(vec![reader]),
        ..Metrics::default()
    };
    assert!(text(&busy(&metrics)).contains("\notelcol_receiver_accepted_spans_total{"));
    let prometheus = pipeline::config::telemetry::PrometheusReader {
        without_type_suffix: true,
        ..Default::default()
    };
    if let Some(pull) = metrics.readers.as_mut().and_then(|readers| readers[0].pull.as_mut()) {
        pull.exporter.prometheus = Some(prometheus);
    }
    let page = text(&busy(&metrics));
    assert!(
        page.contains("\notelcol_receiver_accepted_spans{") && !page.contains("_total"),
        "{page}"
    );
}

/// The families of a page.
fn families(page: &str) -> BTreeSet<String> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn the_reference_names_what_is_told_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let told = families(&text(&with_journal(directory.path())));
    let all: BTreeSet<String> = FAMILIES
        .iter()
        .flat_map(|family| ITEMS.map(|(_, items)| family.name.replace("{items}", items)))
        .collect();
    assert_eq!(told, all, "what is in the table is told, and the other way round");
    let page = include_str!("../../../../docs/own-telemetry.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let written: BTreeSet<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    let names: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
    assert_eq!(written, names);
    for family in FAMILIES {
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{}`", family.name)));
        let kind = if family.kind == Kind::Counter {
            "counter"
        } else {
            "gauge"
        };
        let row = row.expect("was found above");
        assert!(
            row.contains(&format!("| {kind} |")) && row.contains(family.help),
            "{row}"
        );
    }
}

#[test]
fn promtool_has_nothing_to_say() {
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        eprintln!("SKIPPED: promtool is not installed (Debian: prometheus)");
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let page = text(&with_journal(directory.path()));
    promtool
        .stdin
        .take()
        .expect("is piped")
        .write_all(page.as_bytes())
        .expect("promtool reads");
    let said = promtool.wait_with_output().expect("promtool ends");
    let words = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success() && words.is_empty(), "{words}\n{page}");
}

/// A GET over a plain socket; the answer with its head.
async fn get(address: std::net::SocketAddr) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("connects");
    let request = format!("GET /metrics HTTP/1.0\r\nhost: {address}\r\naccept: application/openmetrics-text\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("reads");
    answer
}

#[tokio::test]
async fn the_page_is_served_where_it_was_asked_for() {
    let own = Arc::new(busy(&Metrics::default()));
    let metrics = Metrics {
        address: Some("127.0.0.1:0".into()),
        ..Metrics::default()
    };
    let place = Place::of(&metrics).expect("an address");
    let open = open(&own, &place, &[]).await.expect("opens").expect("is on");
    let answer = get(open.address_of(WHO).expect("is open")).await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(
        answer.contains("\n# TYPE otelcol_receiver_accepted_spans counter\n"),
        "{answer}"
    );
    assert!(answer.ends_with("# EOF\n"));
    assert!(open.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_taken_port_stops_only_who_asked_for_it() {
    let own = Arc::new(busy(&Metrics::default()));
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let endpoint: Endpoint = taken.local_addr().expect("bound").into();
    let asked = open(&own, &Place::Asked(endpoint), &[]).await;
    let message = asked.map(drop).expect_err("is taken").to_string();
    assert!(message.contains("another process already listens there"), "{message}");
    // Whether this machine's 8888 is free or not, who asked for nothing starts.
    assert!(open(&own, &Place::Usual, &[]).await.is_ok());
    let off = Metrics {
        level: Some(pipeline::config::telemetry::MetricsLevel::None),
        ..Metrics::default()
    };
    let place = Place::of(&off).expect("off");
    assert!(open(&own, &place, &[]).await.expect("off").is_none());
}

#[test]
fn an_exporter_that_has_the_port_shows_both() {
    let at = |place: &Place, address: &str| place.is_at(&address.parse().expect("an address"));
    let asked = Place::Asked("127.0.0.1:9999".parse().expect("an address"));
    assert!(at(&Place::Usual, "0.0.0.0:8888") && !at(&Place::Usual, "0.0.0.0:8889"));
    assert!(at(&asked, "0.0.0.0:9999") && !at(&asked, "0.0.0.0:8888"));
    assert!(!at(&Place::Off, "0.0.0.0:8888"));
    let mut page = Writer::new(Format::Text);
    page.family("mine", Kind::Gauge, "", "");
    page.plain(&[], 1.0);
    beside(&Arc::new(busy(&Metrics::default())))(&mut page);
    let told = families(&page.finish());
    assert!(
        told.contains("mine") && told.contains("otelcol_receiver_accepted_spans_total"),
        "{told:?}"
    );
}
