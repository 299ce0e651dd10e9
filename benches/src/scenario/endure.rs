//! What a collector does when the next hop does not: at overload with a sink that stalls, and over an outage with kills in between. Every span is one of a
//! kind, so that the sink can say of each acknowledged one whether it arrived, and how often.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::collect::{MEMORY_LIMIT_MIB, Process, Started, Under};
use super::{Setting, unix_nano_now};
use crate::client::{Answer, Door};
use crate::numbered::Numbered;
use crate::report::Report;
use crate::sink::Sink;
use crate::spans::SpanSource;

/// Different requests whose spans are numbered anew for each sending.
const PREPARED: usize = 40;
/// Clients that send as fast as they are answered: far more than two cores can serve.
const CLIENTS: usize = 24;
/// What a client waits after a refusal.
const PAUSE: Duration = Duration::from_millis(100);
const BEFORE: Duration = Duration::from_secs(10);
const AFTER: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(500);
/// Nothing arrived for so long, which is longer than the longest wait of an exporter: nothing more will.
const QUIET_FOR: Duration = Duration::from_secs(75);

/// Which door the load goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Grpc,
    Http,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Grpc => "gRPC",
            Self::Http => "HTTP",
        }
    }

    fn address(self, process: &Process) -> SocketAddr {
        match self {
            Self::Grpc => process.otlp,
            Self::Http => process.http,
        }
    }

    async fn connect(self, address: SocketAddr) -> Result<Door> {
        match self {
            Self::Grpc => Door::grpc(address).await,
            Self::Http => Door::http(address).await,
        }
    }
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    /// Numbers of the requests that were acknowledged.
    acknowledged: Mutex<BTreeSet<u64>>,
    acknowledged_spans: AtomicU64,
    refused: AtomicU64,
    rejected: AtomicU64,
    /// Tries that nobody answered.
    unanswered: AtomicU64,
}

/// Clients that send numbered requests until they are told to stop.
struct Load {
    requests: Arc<Vec<Numbered>>,
    spans: u64,
    next: AtomicU64,
    stop: AtomicBool,
    /// Requests a second of all clients together; as many as go, without.
    rate: Option<f64>,
    started: Instant,
    seen: Seen,
}

impl Load {
    fn new(spans: usize, rate: Option<f64>) -> Arc<Self> {
        let mut source = SpanSource::new(3, unix_nano_now() - 600_000_000_000, 1_300_000);
        let requests = (0..PREPARED).map(|_| Numbered::new(&mut source, spans)).collect();
        Arc::new(Self {
            requests: Arc::new(requests),
            spans: spans as u64,
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            rate,
            started: Instant::now(),
            seen: Seen::default(),
        })
    }

    /// One client: each request is repeated until somebody said what became of it.
    async fn client(self: Arc<Self>, transport: Transport, address: SocketAddr) {
        let mut door = None;
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if let Some(rate) = self.rate {
                let due = self.started + Duration::from_secs_f64(number as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
            }
            let request = &self.requests[number as usize % PREPARED];
            let framed = tokio::task::block_in_place(|| request.frame(number * self.spans, number / PREPARED as u64));
            while !self.stop.load(Ordering::Relaxed) {
                if door.is_none() {
                    door = transport.connect(address).await.ok();
                }
                let answer = match &mut door {
                    Some(door) => door.try_spans(framed.clone()).await.ok(),
                    None => None,
                };
                match answer {
                    Some(Answer::Acknowledged) => {
                        let mut acknowledged = self.seen.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                        acknowledged.insert(number);
                        self.seen.acknowledged_spans.fetch_add(self.spans, Ordering::Relaxed);
                        break;
                    }
                    Some(Answer::Refused) => {
                        self.seen.refused.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(Answer::Rejected) => {
                        self.seen.rejected.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    None => {
                        self.seen.unanswered.fetch_add(1, Ordering::Relaxed);
                        door = None;
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Acknowledged spans that did not arrive, spans that came more than once, and those that nobody had acknowledged and came all the same.
    fn compare(&self, numbers: &[u8]) -> (u64, u64, u64) {
        let acknowledged = self.seen.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        let arrived = |span: u64| numbers.get(span as usize).copied().unwrap_or_default();
        let spans = acknowledged
            .iter()
            .flat_map(|number| number * self.spans..(number + 1) * self.spans);
        let missing = spans.filter(|span| arrived(*span) == 0).count() as u64;
        let again = numbers.iter().map(|times| u64::from(times.saturating_sub(1))).sum();
        let unasked = (0..numbers.len() as u64)
            .filter(|span| arrived(*span) > 0 && !acknowledged.contains(&(span / self.spans)))
            .count();
        (missing, again, unasked as u64)
    }
}

/// Waits until every acknowledged span has arrived, or nothing more does.
async fn arrive(sink: &Sink, load: &Load) {
    let mut last = (sink.count().items, Instant::now());
    while last.1.elapsed() < QUIET_FOR {
        if load.compare(&sink.numbers()).0 == 0 {
            return;
        }
        let items = sink.count().items;
        if items != last.0 {
            last = (items, Instant::now());
        }
        tokio::time::sleep(LOOK * 4).await;
    }
}

async fn started(setting: &Setting, under: Under, sink: SocketAddr) -> Result<Option<Process>> {
    match Process::start(setting, under, "traces", sink).await? {
        Started::Running(process) => Ok(Some(process)),
        Started::Missing => Ok(None),
        Started::Ended(log) => bail!("it ended before it was ready: {log}"),
    }
}

/// More than it can take, and a sink that stalls in between: memory, and what became of each span.
pub async fn overload(setting: &Setting, stall: Duration, refusing: bool, peers: bool) -> Result<()> {
    /// Some seconds of the load.
    const SMALL_JOURNAL_MIB: u32 = 256;
    let mut report = Report::default();
    let mut curve = "process,transport,second,resident_mib,acknowledged_spans,arrived_spans\n".to_owned();
    let (file, name, under) = match refusing {
        false => ("overload", "trackline", Under::Trackline { journal: true }),
        true => (
            "overload-refusing",
            "trackline, journal of 256 MiB, on_full: refuse",
            Under::Refusing {
                journal_mib: SMALL_JOURNAL_MIB,
            },
        ),
    };
    let mut unders = vec![(name, under)];
    if peers {
        unders.push(("otelcol", Under::Otelcol { resource: true }));
        unders.push(("rotel", Under::Rotel));
    }
    for (name, under) in unders {
        for transport in [Transport::Grpc, Transport::Http] {
            let sink = Sink::start_numbered().await?;
            let Some(process) = started(setting, under, sink.address).await? else {
                println!("{name}: skipped, it is not on PATH");
                continue;
            };
            println!(
                "\n{name}, {}: {CLIENTS} clients, the sink stalls for {stall:?}",
                transport.name()
            );
            let load = Load::new(super::PER_REQUEST, None);
            let address = transport.address(&process);
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| tokio::spawn(Arc::clone(&load).client(transport, address)))
                .collect();
            let mut at_stall = 0;
            let mut at_end = 0;
            let began = Instant::now();
            while began.elapsed() < BEFORE + stall + AFTER {
                let stalled = began.elapsed() >= BEFORE && began.elapsed() < BEFORE + stall;
                sink.stall(stalled);
                let acknowledged = load.seen.acknowledged_spans.load(Ordering::Relaxed);
                match stalled {
                    true => at_end = acknowledged,
                    false if began.elapsed() < BEFORE => at_stall = acknowledged,
                    false => {}
                }
                let mib = process.usage.memory_bytes()?.0 as f64 / 1048576.0;
                let arrived = sink.count().items;
                writeln!(
                    curve,
                    "\"{name}\",{},{:.1},{mib:.0},{acknowledged},{arrived}",
                    transport.name(),
                    began.elapsed().as_secs_f64()
                )?;
                tokio::time::sleep(LOOK).await;
            }
            load.stop.store(true, Ordering::Relaxed);
            for client in clients {
                client.await?;
            }
            arrive(&sink, &load).await;
            let (missing, again, _) = load.compare(&sink.numbers());
            let peak = process.usage.memory_bytes()?.1 as f64 / 1048576.0;
            let of = |what: &str| format!("{name}, {}: {what}", transport.name());
            let seen = &load.seen;
            let count = |number: &AtomicU64| number.load(Ordering::Relaxed) as f64;
            let (bound, none) = (format!("{MEMORY_LIMIT_MIB} at most"), "0");
            report.add(&of("peak resident memory"), peak, "MiB", &bound);
            report.add(&of("acknowledged"), count(&seen.acknowledged_spans), "spans", "");
            report.add(
                &of("acknowledged a second before the stall"),
                at_stall as f64 / BEFORE.as_secs_f64(),
                "1/s",
                "",
            );
            report.add(
                &of("acknowledged a second during the stall"),
                at_end.saturating_sub(at_stall) as f64 / stall.as_secs_f64(),
                "1/s",
                "",
            );
            report.add(&of("acknowledged and not arrived"), missing as f64, "spans", none);
            report.add(&of("arrived more than once"), again as f64, "spans", "");
            report.add(&of("refused to be sent again"), count(&seen.refused), "requests", "");
            report.add(&of("rejected for good"), count(&seen.rejected), "requests", none);
            report.add(&of("not answered"), count(&seen.unanswered), "requests", none);
        }
    }
    fs::create_dir_all("benches/results")?;
    fs::write(format!("benches/results/{file}.csv"), curve)?;
    report.write(
        file,
        &format!(
            "{CLIENTS} clients that send {} spans a request as fast as they are answered; after {BEFORE:?} the sink reads and does not answer for {stall:?}; {AFTER:?} more",
            super::PER_REQUEST
        ),
    )
}

/// The backend is down, and the collector is killed twice meanwhile.
pub async fn outage(setting: &Setting, outage: Duration, peers: bool) -> Result<()> {
    const SPANS_PER_REQUEST: usize = 100;
    const REQUESTS_PER_SECOND: f64 = 4.0;
    const SENDERS: usize = 4;
    let mut report = Report::default();
    let mut unders = vec![("trackline", Under::Trackline { journal: true })];
    if peers {
        unders.push(("otelcol", Under::Otelcol { resource: true }));
        unders.push(("rotel", Under::Rotel));
    }
    for (name, under) in unders {
        let sink = Sink::start_numbered().await?;
        let address = sink.address;
        let Some(mut process) = started(setting, under, address).await? else {
            println!("{name}: skipped, it is not on PATH");
            continue;
        };
        println!("\n{name}: the sink is down for {outage:?}, two kills meanwhile");
        let load = Load::new(SPANS_PER_REQUEST, Some(REQUESTS_PER_SECOND));
        let door = Transport::Grpc.address(&process);
        let clients: Vec<_> = (0..SENDERS)
            .map(|_| tokio::spawn(Arc::clone(&load).client(Transport::Grpc, door)))
            .collect();
        tokio::time::sleep(BEFORE).await;
        let away = sink.go_away();
        for _ in 0..2 {
            tokio::time::sleep(outage / 3).await;
            process = match process.kill_and_start(setting, under, address).await? {
                Started::Running(process) => process,
                Started::Missing => bail!("{name} is gone from PATH"),
                Started::Ended(log) => bail!("{name} did not start again: {log}"),
            };
        }
        tokio::time::sleep(outage / 3).await;
        let sink = away.come_back().await?;
        tokio::time::sleep(BEFORE).await;
        load.stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await?;
        }
        arrive(&sink, &load).await;
        let (missing, again, unasked) = load.compare(&sink.numbers());
        let peak = process.usage.memory_bytes()?.1 as f64 / 1048576.0;
        let of = |what: &str| format!("{name}: {what}");
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed) as f64;
        let none = if name == "trackline" { "0" } else { "" };
        report.add(&of("acknowledged"), count(&load.seen.acknowledged_spans), "spans", "");
        report.add(&of("acknowledged and not arrived"), missing as f64, "spans", none);
        report.add(&of("arrived more than once"), again as f64, "spans", "");
        report.add(
            &of("arrived though its sender had no answer"),
            unasked as f64,
            "spans",
            "",
        );
        report.add(
            &of("not answered, and sent again"),
            count(&load.seen.unanswered),
            "requests",
            "",
        );
        report.add(&of("peak resident memory after the last start"), peak, "MiB", "");
        ensure!(
            missing == 0 || name != "trackline",
            "{missing} acknowledged spans are missing"
        );
    }
    report.write(
        "outage",
        &format!(
            "{} spans a second for {outage:?} without a backend, the process killed twice",
            REQUESTS_PER_SECOND * SPANS_PER_REQUEST as f64
        ),
    )
}

/// `tail_sampling`, a tenth kept: spans per CPU-second and memory, at a steady rate over more than two waits.
pub async fn tail_sampling(setting: &Setting, spans_per_second: f64, seconds: u64) -> Result<()> {
    const SETTINGS: (&str, &str) = (
        "tail_sampling",
        "
    decision_wait: 30s
    num_traces: 300000
    policies: [{ name: tenth, type: probabilistic, probabilistic: { sampling_percentage: 10 } }]
",
    );
    const SENDERS: usize = 4;
    let sink = Sink::start_numbered().await?;
    let under = Under::Trackline { journal: true };
    let process = match Process::start_with(setting, under, "traces", sink.address, Some(SETTINGS)).await? {
        Started::Running(process) => process,
        Started::Missing => bail!("{} cannot be started", setting.binary.display()),
        Started::Ended(log) => bail!("it ended before it was ready: {log}"),
    };
    let load = Load::new(super::PER_REQUEST, Some(spans_per_second / super::PER_REQUEST as f64));
    let before = process.usage.cpu_seconds()?;
    let clients: Vec<_> = (0..SENDERS)
        .map(|_| tokio::spawn(Arc::clone(&load).client(Transport::Grpc, process.otlp)))
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    load.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await?;
    }
    // The last have their wait, and go out.
    tokio::time::sleep(Duration::from_secs(40)).await;
    let mut items = sink.count().items;
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = sink.count().items;
        if now == items {
            break;
        }
        items = now;
    }
    let cpu = process.usage.cpu_seconds()? - before;
    let spans = load.seen.acknowledged_spans.load(Ordering::Relaxed) as f64;
    let (_, again, _) = load.compare(&sink.numbers());
    let mut report = Report::default();
    report.add("spans per CPU-second", spans / cpu, "1/s", "100000 at least");
    report.add("spans a second", spans / seconds as f64, "1/s", "");
    report.add("kept", items as f64 / spans * 100.0, "%", "10");
    report.add("arrived more than once", again as f64, "spans", "0");
    let peak = process.usage.memory_bytes()?.1 as f64 / 1048576.0;
    report.add("peak resident memory", peak, "MiB", "400 at most");
    report.write(
        "tail-sampling",
        &format!("{spans_per_second} spans a second for {seconds} s, decision_wait 30s, num_traces 300000, a tenth kept, journal with fsync"),
    )
}
