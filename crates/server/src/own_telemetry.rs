//! What the process tells of itself, under the names that users of the collector alert on: `otelcol_*` from the ledger, the journal and the kernel, and
//! `trackline_*` for what the collector has no name for. `docs/own-telemetry.md` says what each means.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use codec::prometheus::Kind;
use codec::prometheus::text::{Format, Writer};
use exporters::prometheus::Beside;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use journal::{Health, Journal};
use net::{At, Doors, Endpoint, Mount, Response, empty_body, full_body, handler_fn};
use pipeline::budget::Report;
use pipeline::config::telemetry::Metrics;
use pipeline::ledger::{Reasons, Snapshot};
use pipeline::processors::memory_limiter::resident_bytes;
use pipeline::{Budget, Ledger, Reason};
use receivers::Counters;

use crate::usage::{self, Usage};

/// The collector's own port.
pub const PORT: u16 = 8888;

/// A family of series.
struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        help,
    }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        help,
    }
}

/// Everything that is told. `{items}` stands for `spans`, `log_records` and `metric_points`.
const FAMILIES: &[Family] = &[
    counter(
        "otelcol_receiver_accepted_{items}_total",
        "Items that were acknowledged to their sender.",
    ),
    counter(
        "otelcol_receiver_refused_{items}_total",
        "Items whose sender was told to come back later.",
    ),
    counter(
        "otelcol_receiver_failed_{items}_total",
        "Items that were rejected for good.",
    ),
    counter(
        "otelcol_exporter_sent_{items}_total",
        "Items that the backend, or the store, has taken.",
    ),
    counter(
        "otelcol_exporter_send_failed_{items}_total",
        "Items that were given up because they could not be sent.",
    ),
    counter(
        "otelcol_exporter_enqueue_failed_{items}_total",
        "Items that were given up because the exporter's queue or the journal was full.",
    ),
    gauge(
        "otelcol_exporter_queue_size",
        "Bytes of the journal that the exporter has still to send.",
    ),
    gauge("otelcol_exporter_queue_capacity", "Bytes that the journal may take."),
    counter(
        "otelcol_processor_incoming_items_total",
        "Items that a processor was handed.",
    ),
    counter(
        "otelcol_processor_outgoing_items_total",
        "Items that a processor passed on.",
    ),
    gauge(
        "otelcol_processor_batch_metadata_cardinality",
        "Different values of `metadata_keys` that `batch` has seen.",
    ),
    counter(
        "otelcol_processor_tail_sampling_count_traces_sampled_total",
        "What each policy of `tail_sampling` said of the traces that it was asked about.",
    ),
    counter(
        "otelcol_processor_tail_sampling_global_count_traces_sampled_total",
        "Traces that `tail_sampling` decided about.",
    ),
    counter(
        "otelcol_processor_tail_sampling_new_trace_id_received_total",
        "Traces of which `tail_sampling` saw a first span.",
    ),
    gauge(
        "otelcol_processor_tail_sampling_sampling_traces_on_memory",
        "Traces that `tail_sampling` has still to decide about.",
    ),
    counter(
        "otelcol_processor_tail_sampling_sampling_trace_dropped_too_early_total",
        "Traces that were decided about before their time, because more than `num_traces` waited.",
    ),
    counter(
        "otelcol_processor_tail_sampling_traces_dropped_too_large_total",
        "Traces that were dropped because they passed `maximum_trace_size_bytes`.",
    ),
    counter(
        "otelcol_processor_tail_sampling_sampling_policy_evaluation_error_total",
        "How often a policy of `tail_sampling` had no say because one of its conditions failed.",
    ),
    gauge(
        "otelcol_deltatocumulative_streams_tracked",
        "Streams that `deltatocumulative` adds up.",
    ),
    gauge(
        "otelcol_cumulativetodelta_streams_tracked",
        "Streams whose last point `cumulativetodelta` remembers.",
    ),
    counter("otelcol_process_uptime_total", "Seconds since the start."),
    counter(
        "otelcol_process_cpu_seconds_total",
        "CPU time of the process, user and system.",
    ),
    gauge("otelcol_process_memory_rss", "Bytes that the process has in memory."),
    counter(
        "trackline_dropped_items_total",
        "Items that were taken and will not arrive, or were rejected, by component and reason.",
    ),
    counter(
        "trackline_refused_items_total",
        "Items whose sender was told to come back later, by reason.",
    ),
    gauge(
        "trackline_receiver_in_flight_items",
        "Items that came in and wait for their answer.",
    ),
    gauge(
        "trackline_exporter_pending_items",
        "Items that were acknowledged and that the exporter has still to send.",
    ),
    counter(
        "trackline_exporter_retries_total",
        "Requests that were tried once more.",
    ),
    counter(
        "trackline_exporter_sent_bytes_total",
        "Bytes of OTLP, before compression, of requests that a backend has taken.",
    ),
    gauge(
        "trackline_exporter_circuit_state",
        "Whether requests go to the backend (0), or it was away and one goes to see (1) or is going to (2).",
    ),
    counter(
        "trackline_processor_faults_total",
        "Items on which something failed and that went on all the same.",
    ),
    counter(
        "trackline_receiver_repaired_texts_total",
        "Texts whose bytes were not UTF-8.",
    ),
    counter(
        "trackline_receiver_repaired_ids_total",
        "Ids of a wrong length that were removed.",
    ),
    counter(
        "trackline_receiver_rewritten_requests_total",
        "Requests that were legal but not canonical.",
    ),
    gauge(
        "trackline_usage_month_bytes",
        "Bytes of OTLP, before compression, that an exporter has sent this month.",
    ),
    gauge(
        "trackline_usage_forecast_bytes",
        "What they will be at the month's end at the rate so far.",
    ),
    gauge("trackline_usage_budget_bytes", "What they may be by the configuration."),
    gauge(
        "trackline_usage_active_series",
        "About how many series an exporter's backend was sent lately.",
    ),
    gauge(
        "trackline_usage_budget_active_series",
        "How many they may be by the configuration.",
    ),
    gauge("trackline_journal_up", "1 while the journal takes records."),
    gauge("trackline_journal_disk_bytes", "Bytes that the journal has on disk."),
    counter(
        "trackline_journal_appended_records_total",
        "Records that became durable.",
    ),
    counter("trackline_journal_appended_bytes_total", "Bytes that became durable."),
    counter(
        "trackline_journal_refused_records_total",
        "Records that the journal refused.",
    ),
    gauge(
        "trackline_journal_lag_records",
        "Records that a reader of the journal has not finished.",
    ),
    gauge(
        "trackline_journal_lag_bytes",
        "Bytes on disk that a reader of the journal has not finished.",
    ),
    gauge(
        "trackline_journal_lag_seconds",
        "Age of the oldest record that a reader of the journal has not finished.",
    ),
    counter(
        "trackline_journal_skipped_records_total",
        "Records that a bound removed before a reader had finished them.",
    ),
    gauge(
        "trackline_memory_budget_used_bytes",
        "Bytes that a part of the process has reserved.",
    ),
    gauge(
        "trackline_memory_budget_limit_bytes",
        "Bytes that a part of the process may reserve.",
    ),
    counter(
        "trackline_memory_budget_refusals_total",
        "How often a part of the process was refused memory.",
    ),
];

/// Signals of the ledger as the names of the collector's metrics have them.
const ITEMS: [(&str, &str); 3] = [
    ("traces", "spans"),
    ("logs", "log_records"),
    ("metrics", "metric_points"),
];

/// Where the answers come from.
pub struct OwnTelemetry {
    pub ledger: Ledger,
    pub budget: Budget,
    pub journal: Option<Journal>,
    pub journal_max_bytes: u64,
    /// Known once the receivers are mounted.
    pub receivers: OnceLock<Vec<(Arc<str>, Arc<Counters>)>>,
    /// The same.
    pub usage: OnceLock<Usage>,
    pub started: Instant,
    /// Names this run of the process.
    instance: String,
    /// Counters are called without `_total`.
    without_total: bool,
}

impl OwnTelemetry {
    pub fn new(
        ledger: Ledger,
        budget: Budget,
        journal: Option<Journal>,
        journal_max_bytes: u64,
        metrics: &Metrics,
    ) -> Self {
        let mut random = fastrand::Rng::new();
        OwnTelemetry {
            ledger,
            budget,
            journal,
            journal_max_bytes,
            receivers: OnceLock::new(),
            usage: OnceLock::new(),
            started: Instant::now(),
            instance: format!("{:016x}{:016x}", random.u64(..), random.u64(..)),
            without_total: metrics.without_total(),
        }
    }

    /// Writes all families.
    pub fn write(&self, writer: &mut Writer) {
        let mut page = Page { own: self, writer };
        let ledger = self.ledger.snapshot();
        page.of_items(&ledger);
        page.of_queues();
        page.of_processors(&ledger);
        page.of_process();
        page.of_drops(&ledger);
        page.of_receivers();
        page.of_usage();
        page.of_journal();
        page.of_budget();
    }

    fn text(&self, format: Format) -> String {
        let mut writer = Writer::new(format);
        self.write(&mut writer);
        writer.finish()
    }
}

/// A page that is being written.
struct Page<'p> {
    own: &'p OwnTelemetry,
    writer: &'p mut Writer,
}

impl Page<'_> {
    /// Writes a family with its samples, if there are any; `items` takes the place of `{items}`.
    fn family<'l>(
        &mut self,
        name: &str,
        items: &str,
        samples: impl IntoIterator<Item = (Vec<(&'l str, &'l str)>, f64)>,
    ) {
        let Some(family) = FAMILIES.iter().find(|family| family.name == name) else {
            debug_assert!(false, "`{name}` is not in the table");
            return;
        };
        let mut name = family.name.replace("{items}", items);
        if self.own.without_total {
            name = name.trim_end_matches("_total").to_owned();
        }
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() || !self.writer.family(&name, family.kind, family.help, "") {
            return;
        }
        for (mut labels, value) in samples {
            labels.extend([
                ("service_instance_id", self.own.instance.as_str()),
                ("service_name", "trackline"),
                ("service_version", env!("CARGO_PKG_VERSION")),
            ]);
            self.writer.plain(&labels, value);
        }
    }

    fn of_items(&mut self, ledger: &Snapshot) {
        for (signal, items) in ITEMS {
            let doors = || ledger.doors.iter().filter(move |door| door.signal == signal);
            for (name, count) in [
                (
                    "otelcol_receiver_accepted_{items}_total",
                    (|door| door.acked) as fn(&pipeline::ledger::DoorCounts) -> u64,
                ),
                ("otelcol_receiver_refused_{items}_total", |door| door.refused.total()),
                ("otelcol_receiver_failed_{items}_total", |door| door.rejected.total()),
            ] {
                let samples = doors().map(|door| (vec![("receiver", door.receiver.as_str())], count(door) as f64));
                self.family(name, items, samples);
            }
            for (name, count) in [
                (
                    "otelcol_exporter_sent_{items}_total",
                    (|reader| reader.delivered) as fn(&pipeline::ledger::ReaderCounts) -> u64,
                ),
                ("otelcol_exporter_send_failed_{items}_total", |reader| {
                    reader.dropped.total() - of_full_queue(&reader.dropped)
                }),
                ("otelcol_exporter_enqueue_failed_{items}_total", |reader| {
                    of_full_queue(&reader.dropped)
                }),
            ] {
                let mut by_exporter: Vec<(&str, u64)> = Vec::new();
                for reader in ledger.readers.iter().filter(|reader| reader.signal == signal) {
                    match by_exporter.iter_mut().find(|(name, _)| *name == reader.exporter) {
                        Some((_, sum)) => *sum += count(reader),
                        None => by_exporter.push((&reader.exporter, count(reader))),
                    }
                }
                let samples = by_exporter
                    .iter()
                    .map(|(exporter, sum)| (vec![("exporter", *exporter)], *sum as f64));
                self.family(name, items, samples);
            }
        }
    }

    /// The journal is the queue of all exporters. Size and capacity are of one unit, so that their ratio says how full it is.
    fn of_queues(&mut self) {
        let Some(journal) = &self.own.journal else { return };
        let readers = journal.readers();
        let named: Vec<(&str, &str, &journal::ReaderStatus)> = readers
            .iter()
            .filter(|reader| reader.attached)
            .filter_map(|reader| {
                reader
                    .name
                    .split_once(':')
                    .map(|(pipeline, exporter)| (pipeline, exporter, reader))
            })
            .collect();
        fn labels<'l>(pipeline: &'l str, exporter: &'l str) -> Vec<(&'l str, &'l str)> {
            vec![("exporter", exporter), ("pipeline", pipeline)]
        }
        let size = named
            .iter()
            .map(|(pipeline, exporter, reader)| (labels(pipeline, exporter), reader.lag_bytes as f64));
        self.family("otelcol_exporter_queue_size", "", size);
        let max_bytes = self.own.journal_max_bytes as f64;
        let capacity = named
            .iter()
            .map(|(pipeline, exporter, _)| (labels(pipeline, exporter), max_bytes));
        self.family("otelcol_exporter_queue_capacity", "", capacity);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos() as u64;
        for (name, value) in [
            (
                "trackline_journal_lag_records",
                (|reader, _| reader.lag_records as f64) as fn(&journal::ReaderStatus, u64) -> f64,
            ),
            ("trackline_journal_lag_bytes", |reader, _| reader.lag_bytes as f64),
            ("trackline_journal_lag_seconds", |reader, now| {
                let oldest = reader.oldest_unix_nano.map_or(0, |oldest| now.saturating_sub(oldest));
                oldest as f64 / 1e9
            }),
            ("trackline_journal_skipped_records_total", |reader, _| {
                reader.skipped_records as f64
            }),
        ] {
            let samples = named
                .iter()
                .map(|(pipeline, exporter, reader)| (labels(pipeline, exporter), value(reader, now)));
            self.family(name, "", samples);
        }
    }

    fn of_processors(&mut self, ledger: &Snapshot) {
        for (name, count) in [
            (
                "otelcol_processor_incoming_items_total",
                (|step| step.incoming) as fn(&pipeline::ledger::StepCounts) -> u64,
            ),
            ("otelcol_processor_outgoing_items_total", |step| step.outgoing),
            ("trackline_processor_faults_total", |step| step.faults),
        ] {
            let samples = ledger.processors.iter().map(|step| {
                let labels = vec![("processor", step.processor.as_str()), ("otel_signal", step.signal)];
                (labels, count(step) as f64)
            });
            self.family(name, "", samples);
        }
        // What only some kinds of processors count.
        for family in FAMILIES {
            let of_family = ledger.particulars.iter().filter(|count| count.name == family.name);
            let samples = of_family.map(|count| {
                let labels = count.labels.iter().map(|(key, value)| (*key, value.as_str()));
                let labels = std::iter::once(("processor", count.processor.as_str())).chain(labels);
                (labels.collect(), count.count as f64)
            });
            self.family(family.name, "", samples);
        }
    }

    fn of_process(&mut self) {
        let uptime = self.own.started.elapsed().as_secs_f64();
        self.family("otelcol_process_uptime_total", "", [(vec![], uptime)]);
        self.family(
            "otelcol_process_cpu_seconds_total",
            "",
            cpu_seconds().map(|seconds| (vec![], seconds)),
        );
        self.family(
            "otelcol_process_memory_rss",
            "",
            resident_bytes().map(|bytes| (vec![], bytes as f64)),
        );
    }

    fn of_drops(&mut self, ledger: &Snapshot) {
        let mut dropped = Vec::new();
        let mut refused = Vec::new();
        let mut put = |list: bool, component: &'static str, name, signal, reasons: &Reasons| {
            let list = if list { &mut dropped } else { &mut refused };
            for (reason, count) in &reasons.0 {
                let labels = vec![
                    ("component", component),
                    ("name", name),
                    ("signal", signal),
                    ("reason", reason.as_str()),
                ];
                list.push((labels, *count as f64));
            }
        };
        for door in &ledger.doors {
            put(true, "receiver", door.receiver.as_str(), door.signal, &door.rejected);
            put(false, "receiver", door.receiver.as_str(), door.signal, &door.refused);
        }
        for step in &ledger.processors {
            put(true, "processor", step.processor.as_str(), step.signal, &step.dropped);
        }
        // Two pipelines may share an exporter, and a series may stand once.
        for reader in &ledger.readers {
            put(
                true,
                "exporter",
                reader.exporter.as_str(),
                reader.signal,
                &reader.dropped,
            );
        }
        self.family("trackline_dropped_items_total", "", summed(dropped));
        self.family("trackline_refused_items_total", "", summed(refused));
        let in_flight = ledger.doors.iter().map(|door| {
            let labels = vec![("receiver", door.receiver.as_str()), ("signal", door.signal)];
            (labels, door.in_flight as f64)
        });
        self.family("trackline_receiver_in_flight_items", "", in_flight);
        let of_reader = |reader: &'_ pipeline::ledger::ReaderCounts, value: f64| {
            let labels = vec![
                ("exporter", reader.exporter.clone()),
                ("pipeline", reader.pipeline.clone()),
            ];
            (labels, value)
        };
        let pending: Vec<_> = ledger
            .readers
            .iter()
            .map(|reader| of_reader(reader, reader.pending.max(0) as f64))
            .collect();
        let retries: Vec<_> = ledger
            .readers
            .iter()
            .map(|reader| of_reader(reader, reader.retries as f64))
            .collect();
        let sent: Vec<_> = ledger
            .readers
            .iter()
            .map(|reader| of_reader(reader, reader.sent_bytes as f64))
            .collect();
        let circuits: Vec<_> = ledger
            .readers
            .iter()
            .map(|reader| of_reader(reader, f64::from(reader.circuit as u8)))
            .collect();
        for (name, list) in [
            ("trackline_exporter_pending_items", &pending),
            ("trackline_exporter_retries_total", &retries),
            ("trackline_exporter_sent_bytes_total", &sent),
            ("trackline_exporter_circuit_state", &circuits),
        ] {
            let samples = list.iter().map(|(labels, value)| {
                let labels = labels.iter().map(|(name, value)| (*name, value.as_str()));
                (labels.collect(), *value)
            });
            self.family(name, "", samples);
        }
    }

    fn of_usage(&mut self) {
        let Some(usage) = self.own.usage.get() else { return };
        let shown = usage.shown(usage::now_unix());
        fn labels(it: &usage::Shown) -> Vec<(&str, &str)> {
            vec![("exporter", it.exporter.as_str()), ("signal", it.signal.as_str())]
        }
        let bytes = shown.iter().map(|it| (labels(it), it.bytes as f64));
        self.family("trackline_usage_month_bytes", "", bytes);
        let forecast = shown.iter().map(|it| (labels(it), it.forecast_bytes as f64));
        self.family("trackline_usage_forecast_bytes", "", forecast);
        let budget = shown
            .iter()
            .filter_map(|it| Some((labels(it), it.budget_bytes? as f64)));
        self.family("trackline_usage_budget_bytes", "", budget);
        let series = shown.iter().filter(|it| it.active_series > 0);
        let counts = series.clone().map(|it| (labels(it), it.active_series as f64));
        self.family("trackline_usage_active_series", "", counts);
        let budgets = series.filter_map(|it| Some((labels(it), it.budget_active_series? as f64)));
        self.family("trackline_usage_budget_active_series", "", budgets);
    }

    fn of_receivers(&mut self) {
        let receivers = self.own.receivers.get().map_or(&[][..], Vec::as_slice);
        for (name, count) in [
            (
                "trackline_receiver_repaired_texts_total",
                (|counters| counters.repaired_text.load(Ordering::Relaxed)) as fn(&Counters) -> u64,
            ),
            ("trackline_receiver_repaired_ids_total", |counters| {
                counters.repaired_ids.load(Ordering::Relaxed)
            }),
            ("trackline_receiver_rewritten_requests_total", |counters| {
                counters.rewritten.load(Ordering::Relaxed)
            }),
        ] {
            let samples = receivers
                .iter()
                .map(|(receiver, counters)| (vec![("receiver", &**receiver)], count(counters) as f64));
            self.family(name, "", samples);
        }
    }

    fn of_journal(&mut self) {
        let Some(journal) = &self.own.journal else { return };
        let stats = journal.stats();
        let up = if matches!(journal.health(), Health::Good) {
            1.0
        } else {
            0.0
        };
        for (name, value) in [
            ("trackline_journal_up", up),
            ("trackline_journal_disk_bytes", stats.disk_bytes as f64),
            (
                "trackline_journal_appended_records_total",
                stats.appended_records as f64,
            ),
            ("trackline_journal_appended_bytes_total", stats.appended_bytes as f64),
            ("trackline_journal_refused_records_total", stats.refused_records as f64),
        ] {
            self.family(name, "", [(vec![], value)]);
        }
    }

    fn of_budget(&mut self) {
        let mut parts = Vec::new();
        let report = self.own.budget.report();
        flat(&report, "", &mut parts);
        for (name, value) in [
            (
                "trackline_memory_budget_used_bytes",
                (|part| part.usage.used_bytes) as fn(&Report) -> u64,
            ),
            ("trackline_memory_budget_limit_bytes", |part| part.usage.limit_bytes),
            ("trackline_memory_budget_refusals_total", |part| part.refusals),
        ] {
            let samples = parts
                .iter()
                .map(|(path, part)| (vec![("part", path.as_str())], value(part) as f64));
            self.family(name, "", samples);
        }
    }
}

fn of_full_queue(dropped: &Reasons) -> u64 {
    let is_full = |reason: &Reason| matches!(reason, Reason::QueueFull | Reason::SkippedOldest);
    dropped
        .0
        .iter()
        .filter(|(reason, _)| is_full(reason))
        .map(|(_, count)| count)
        .sum()
}

/// One sample for each set of labels.
fn summed<'l>(samples: Vec<(Vec<(&'l str, &'l str)>, f64)>) -> Vec<(Vec<(&'l str, &'l str)>, f64)> {
    let mut sums: Vec<(Vec<(&str, &str)>, f64)> = Vec::new();
    for (labels, value) in samples {
        match sums.iter_mut().find(|(known, _)| *known == labels) {
            Some((_, sum)) => *sum += value,
            None => sums.push((labels, value)),
        }
    }
    sums
}

/// The parts of the tree by their paths. Of parts that are called alike the first is told.
fn flat<'r>(report: &'r Report, above: &str, parts: &mut Vec<(String, &'r Report)>) {
    let path = match above {
        "" => report.name.clone(),
        above => format!("{above}/{}", report.name),
    };
    if parts.iter().all(|(known, _)| *known != path) {
        parts.push((path.clone(), report));
    }
    for part in &report.parts {
        flat(part, &path, parts);
    }
}

/// User and system time of the process.
fn cpu_seconds() -> Option<f64> {
    /// Ticks a second of `/proc`, the same on every Linux (`USER_HZ`).
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name before it, in parentheses, may hold spaces. Fields 14 and 15 of proc(5).
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

/// Where the page is served.
pub enum Place {
    /// Nowhere.
    Off,
    /// Somebody asked for this address.
    Asked(Endpoint),
    /// Nobody asked: the collector's usual address, if it is free.
    Usual,
}

impl Place {
    pub fn of(metrics: &Metrics) -> Result<Place> {
        if metrics.is_off() {
            return Ok(Place::Off);
        }
        match metrics.address() {
            Some(address) => {
                let endpoint = address.parse().context("service.telemetry.metrics")?;
                Ok(Place::Asked(endpoint))
            }
            None => Ok(Place::Usual),
        }
    }

    fn endpoint(&self) -> Option<Endpoint> {
        match self {
            Place::Off => None,
            Place::Asked(endpoint) => Some(endpoint.clone()),
            Place::Usual => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)).into()),
        }
    }

    /// Whether a page at this address is the one that scrapers of the process's own metrics read.
    pub fn is_at(&self, other: &Endpoint) -> bool {
        self.endpoint()
            .is_some_and(|own| own.port() == other.port() && own.port() != 0)
    }
}

/// The same families for the page of an exporter that has the address.
pub fn beside(own: &Arc<OwnTelemetry>) -> Beside {
    let own = Arc::clone(own);
    Arc::new(move |writer| own.write(writer))
}

const WHO: &str = "service.telemetry.metrics";

/// Opens the page on a door of its own. Nobody may have asked for it, so a port that is taken is no reason not to start.
pub async fn open(
    own: &Arc<OwnTelemetry>,
    place: &Place,
    others: &[(String, SocketAddr)],
) -> Result<Option<net::Open>> {
    let Some(endpoint) = place.endpoint() else {
        return Ok(None);
    };
    let is_asked = matches!(place, Place::Asked(_));
    let taken = others
        .iter()
        .find(|(_, other)| place.is_at(&Endpoint::from(*other)))
        .map(|(who, _)| who.clone());
    let mut doors = Doors::new();
    let served = Arc::clone(own);
    let service = handler_fn(move |request: net::Request| {
        let own = Arc::clone(&served);
        async move { answer(&own, request.method(), request.headers().get(ACCEPT)) }
    });
    let at = At::Path("/metrics".to_owned());
    doors.mount(&endpoint, WHO, Mount::Http { at, service })?;
    let opened = match taken {
        Some(who) => Err(format!("{who} listens there")),
        None => doors.open().await.map_err(|error| error.to_string()),
    };
    match opened {
        Ok(open) => Ok(Some(open)),
        Err(error) if is_asked => anyhow::bail!("{WHO}: cannot serve the process's own metrics on {endpoint}: {error}"),
        Err(error) => {
            tracing::warn!(
                "the process's own metrics are not served on {endpoint}: {error}; name another place with `service.telemetry.metrics.address`"
            );
            Ok(None)
        }
    }
}

fn answer(own: &OwnTelemetry, method: &Method, accept: Option<&HeaderValue>) -> Response {
    let is_head = method == Method::HEAD;
    if !is_head && method != Method::GET {
        let mut response = Response::new(full_body("metrics are read with GET\n"));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        return response;
    }
    let accept = accept.and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    // Without the endings that OpenMetrics demands of counters, only the older format is legal.
    let format = match accept.contains("application/openmetrics-text") && !own.without_total {
        true => Format::OpenMetrics,
        false => Format::Text,
    };
    let mut response = Response::new(if is_head {
        empty_body()
    } else {
        full_body(own.text(format))
    });
    let kind = HeaderValue::from_static(format.content_type());
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests;
