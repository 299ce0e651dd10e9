//! As a collector: OTLP/gRPC in, `memory_limiter`, `resource` and `batch`, OTLP/gRPC out, gzip on both sides, with and without a journal, and peers beside
//! it where they are on PATH.
//!
//! The figure is items that arrived at the sink per CPU-second of the process under test. The load is prepared beforehand and repeated, so that the
//! process under test, and not the generator, is what the machine's cores are for.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bytes::Bytes;

use super::{IN_FLIGHT, PER_REQUEST, Setting, unix_nano_now};
use crate::client::{Client, Service, frame};
use crate::logs::LogSource;
use crate::points::PointSource;
use crate::report::Report;
use crate::sink::{Count, Sink};
use crate::spans::SpanSource;
use crate::usage::Usage;

/// Different requests that are sent in turn: about 100 MB before gzip, far beyond any cache of what was seen.
const PREPARED: usize = 200;
/// Requests before the measurement begins: connections are open and buffers have their size then.
const WARM_UP: usize = 50;
const READY_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
/// How long the last batches may take to arrive.
const ARRIVE_WITHIN: Duration = Duration::from_secs(30);
/// Nothing arrived for so long: nothing more will.
const QUIET_FOR: Duration = Duration::from_secs(5);
/// Pause after the last arrival, so that cursors and acknowledgements are paid for as well.
const SETTLE: Duration = Duration::from_millis(500);
pub(super) const MEMORY_LIMIT_MIB: u32 = 512;

/// What is measured, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Under {
    Trackline {
        journal: bool,
    },
    /// With a journal so small that it fills, and an exporter that then has senders refused.
    Refusing {
        journal_mib: u32,
    },
    Otelcol {
        resource: bool,
    },
    Rotel,
}

impl Under {
    fn name(self) -> &'static str {
        match self {
            Self::Trackline { journal: false } => "trackline, journal none",
            Self::Trackline { journal: true } => "trackline, fsync always",
            Self::Refusing { .. } => "trackline, small journal",
            Self::Otelcol { resource: true } => "otelcol",
            Self::Otelcol { resource: false } => "otelcol without resource",
            Self::Rotel => "rotel",
        }
    }
}

/// A signal's load, ready to be sent.
struct Load {
    items: &'static str,
    pipeline: &'static str,
    service: Service,
    frames: Arc<Vec<Bytes>>,
    bytes_per_item: f64,
    target: &'static str,
}

/// One run's figures.
#[derive(Clone, Copy)]
struct Run {
    per_cpu_second: f64,
    per_second: f64,
    ratio: f64,
    peak_mib: f64,
    items_per_request: f64,
    missing: u64,
}

pub async fn run(setting: &Setting, only: Option<&str>, total: usize, runs: usize) -> Result<()> {
    let mut report = Report::default();
    let idle = idle_mib(setting).await?;
    report.add("idle memory as a collector", idle, "MiB", "20 at most");
    let mut table = String::new();
    for load in loads(only) {
        println!(
            "\n{}: {PER_REQUEST} a request, {:.0} B each before gzip, {IN_FLIGHT} in flight, {runs} runs",
            load.items, load.bytes_per_item
        );
        for under in [
            Under::Trackline { journal: false },
            Under::Trackline { journal: true },
            Under::Otelcol { resource: true },
            Under::Rotel,
        ] {
            let Some((name, mut figures)) = repeat(setting, under, &load, total, runs).await? else {
                continue;
            };
            figures.sort_by(|a, b| a.per_cpu_second.total_cmp(&b.per_cpu_second));
            let (low, median, high) = (figures[0], figures[figures.len() / 2], figures[figures.len() - 1]);
            let peak = figures.iter().map(|run| run.peak_mib).fold(0.0, f64::max);
            let what = format!("{} per CPU-second, {name}", load.items);
            let target = match under {
                Under::Trackline { journal: false } => load.target,
                _ => "",
            };
            report.add(&what, median.per_cpu_second, "1/s", target);
            report.add(&format!("{what}, lowest run"), low.per_cpu_second, "1/s", "");
            report.add(&format!("{what}, highest run"), high.per_cpu_second, "1/s", "");
            report.add(
                &format!("  {}: arrived per second, {name}", load.items),
                median.per_second,
                "1/s",
                "",
            );
            report.add(
                &format!("  {}: compression of the output, {name}", load.items),
                median.ratio,
                ":1",
                "",
            );
            report.add(
                &format!("  {}: items in a request out, {name}", load.items),
                median.items_per_request,
                "",
                "",
            );
            report.add(
                &format!("  {}: peak resident memory, {name}", load.items),
                peak,
                "MiB",
                "",
            );
            let missing = figures.iter().map(|run| run.missing).max().unwrap_or_default();
            report.add(
                &format!("  {}: acknowledged and not arrived, {name}", load.items),
                missing as f64,
                "",
                "",
            );
            table.push_str(&format!(
                "| {} | {name} | {:.0} ({:.0}–{:.0}) | {:.1}:1 | {peak:.0} MiB |\n",
                load.items,
                median.per_cpu_second / 1e3,
                low.per_cpu_second / 1e3,
                high.per_cpu_second / 1e3,
                median.ratio,
            ));
        }
    }
    println!(
        "\n| | | thousands per CPU-second (lowest–highest) | output | peak memory |\n|---|---|---|---|---|\n{table}"
    );
    let workload = format!(
        "{total} items in {runs} runs each, {PER_REQUEST} a request, {IN_FLIGHT} in flight, OTLP/gRPC gzip in and out"
    );
    report.write("collect", &workload)
}

fn loads(only: Option<&str>) -> Vec<Load> {
    let start = unix_nano_now() - 600_000_000_000;
    let mut loads = Vec::new();
    let mut add = |items, pipeline, service, target, make: &mut dyn FnMut() -> Vec<u8>| {
        if only.is_some_and(|only| only != items) {
            return;
        }
        let mut bytes = 0;
        let frames = (0..PREPARED).map(|_| {
            let request = make();
            bytes += request.len();
            frame(&request)
        });
        let frames = Arc::new(frames.collect::<Vec<_>>());
        loads.push(Load {
            items,
            pipeline,
            service,
            frames,
            bytes_per_item: bytes as f64 / (PREPARED * PER_REQUEST) as f64,
            target,
        });
    };
    let mut spans = SpanSource::new(7, start, 1_300_000);
    let mut logs = LogSource::new(7, start, 100_000);
    let mut points = PointSource::new(7, start, PER_REQUEST);
    add("spans", "traces", Service::Traces, "350000 at least", &mut || {
        spans.request(PER_REQUEST)
    });
    add("logs", "logs", Service::Logs, "270000 at least", &mut || {
        logs.request(PER_REQUEST)
    });
    add("points", "metrics", Service::Metrics, "500000 at least", &mut || {
        points.request()
    });
    loads
}

/// All runs of one process; `None`, said aloud, where it is not installed.
async fn repeat(
    setting: &Setting,
    mut under: Under,
    load: &Load,
    total: usize,
    runs: usize,
) -> Result<Option<(String, Vec<Run>)>> {
    let mut figures = Vec::new();
    let mut name = under.name().to_owned();
    while figures.len() < runs {
        let sink = Sink::start().await?;
        let started = Process::start(setting, under, load.pipeline, sink.address).await?;
        let process = match started {
            Started::Running(process) => process,
            Started::Missing => {
                println!("{}: skipped, it is not on PATH", under.name());
                return Ok(None);
            }
            // A collector is built of the components that its builder chose.
            Started::Ended(log) if under == (Under::Otelcol { resource: true }) => {
                println!("otelcol does not start with all processors, so it runs without `resource`: {log}");
                under = Under::Otelcol { resource: false };
                name = under.name().to_owned();
                continue;
            }
            Started::Ended(log) if matches!(under, Under::Trackline { .. } | Under::Refusing { .. }) => {
                bail!("{name} ended before it was ready: {log}")
            }
            Started::Ended(log) => {
                println!("{name}: skipped, it does not start: {log}");
                return Ok(None);
            }
        };
        figures.push(measure(&process, &sink, load, total).await?);
    }
    Ok(Some((name, figures)))
}

async fn measure(process: &Process, sink: &Sink, load: &Load, total: usize) -> Result<Run> {
    send(process.otlp, load, WARM_UP).await?;
    let warm = arrive(sink, (WARM_UP * PER_REQUEST) as u64).await;
    let before = process.usage.cpu_seconds()?;
    let started = Instant::now();
    send(process.otlp, load, total / PER_REQUEST).await?;
    let count = arrive(sink, warm.items + total as u64).await;
    let elapsed = started.elapsed();
    tokio::time::sleep(SETTLE).await;
    let cpu = process.usage.cpu_seconds()? - before;
    ensure!(count.unreadable == 0, "{} requests were unreadable", count.unreadable);
    let arrived = (count.items - warm.items) as f64;
    Ok(Run {
        per_cpu_second: arrived / cpu,
        per_second: arrived / elapsed.as_secs_f64(),
        ratio: (count.message_bytes - warm.message_bytes) as f64 / (count.wire_bytes - warm.wire_bytes) as f64,
        peak_mib: process.usage.memory_bytes()?.1 as f64 / 1048576.0,
        items_per_request: arrived / (count.requests - warm.requests).max(1) as f64,
        missing: (warm.items + total as u64).saturating_sub(count.items),
    })
}

/// Waits until `items` have arrived, or nothing more does.
async fn arrive(sink: &Sink, items: u64) -> Count {
    let started = Instant::now();
    let mut last = (sink.count().items, Instant::now());
    loop {
        let count = sink.count();
        if count.items != last.0 {
            last = (count.items, Instant::now());
        }
        if count.items >= items || last.1.elapsed() > QUIET_FOR || started.elapsed() > ARRIVE_WITHIN {
            return count;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Sends `requests` of the prepared ones, `IN_FLIGHT` at a time, each on a connection of its own; each is repeated until it is acknowledged.
async fn send(address: SocketAddr, load: &Load, requests: usize) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for _ in 0..IN_FLIGHT {
        let mut client = Client::connect(address).await?;
        let (next, frames, service) = (next.clone(), load.frames.clone(), load.service);
        workers.push(tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return Ok::<_, anyhow::Error>(());
                }
                client.send(service, frames[number % frames.len()].clone()).await?;
            }
        }));
    }
    for worker in workers {
        worker.await??;
    }
    Ok(())
}

/// Resident memory of ours as a collector to which nothing was sent.
async fn idle_mib(setting: &Setting) -> Result<f64> {
    let sink = Sink::start().await?;
    let under = Under::Trackline { journal: true };
    match Process::start(setting, under, "traces", sink.address).await? {
        Started::Running(process) => {
            process.usage.idle(READY_WITHIN).await?;
            Ok(process.usage.memory_bytes()?.0 as f64 / 1048576.0)
        }
        Started::Missing => bail!("{} cannot be started", setting.binary.display()),
        Started::Ended(log) => bail!("it ended before it was ready: {log}"),
    }
}

/// A process under test; it is ended with the value.
pub(super) struct Process {
    child: Child,
    pub(super) usage: Usage,
    pub(super) otlp: SocketAddr,
    /// OTLP over HTTP.
    pub(super) http: SocketAddr,
    directory: PathBuf,
}

pub(super) enum Started {
    Running(Process),
    /// Not on PATH.
    Missing,
    /// With the end of what it said.
    Ended(String),
}

impl Process {
    pub(super) async fn start(setting: &Setting, under: Under, pipeline: &str, sink: SocketAddr) -> Result<Started> {
        let processor = match under {
            Under::Otelcol { resource: false } => None,
            _ => Some(RESOURCE),
        };
        Self::start_with(setting, under, pipeline, sink, processor).await
    }

    /// With another processor, name and settings, between `memory_limiter` and `batch`.
    pub(super) async fn start_with(
        setting: &Setting,
        under: Under,
        pipeline: &str,
        sink: SocketAddr,
        processor: Option<(&str, &str)>,
    ) -> Result<Started> {
        let directory = setting.scratch.join("collect");
        fs::create_dir_all(&directory)?;
        let free = || -> Result<SocketAddr> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?) };
        let doors = (free()?, free()?);
        let text = configuration(under, pipeline, doors, sink, processor);
        fs::write(directory.join("config.yaml"), text)?;
        Self::spawn(setting, under, directory, doors, sink).await
    }

    /// Ends it at once and starts it again over what it left.
    pub(super) async fn kill_and_start(mut self, setting: &Setting, under: Under, sink: SocketAddr) -> Result<Started> {
        self.child.kill()?;
        self.child.wait()?;
        let directory = std::mem::take(&mut self.directory);
        Self::spawn(setting, under, directory, (self.otlp, self.http), sink).await
    }

    async fn spawn(
        setting: &Setting,
        under: Under,
        directory: PathBuf,
        (otlp, http): (SocketAddr, SocketAddr),
        sink: SocketAddr,
    ) -> Result<Started> {
        let config = directory.join("config.yaml");
        let log = directory.join("log");
        let mut command = command(setting, under, &config, &directory, (otlp, http), sink);
        let spawned = command.stdout(Stdio::null()).stderr(fs::File::create(&log)?).spawn();
        let Ok(child) = spawned else {
            return Ok(Started::Missing);
        };
        let mut process = Self {
            usage: Usage(child.id()),
            child,
            otlp,
            http,
            directory,
        };
        let started = Instant::now();
        while tokio::net::TcpStream::connect(otlp).await.is_err() {
            if process.child.try_wait()?.is_some() {
                return Ok(Started::Ended(end_of(&log)));
            }
            ensure!(
                started.elapsed() < READY_WITHIN,
                "{} does not listen: {}",
                under.name(),
                end_of(&log)
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(Started::Running(process))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that ended already cannot be killed twice, and a directory that is gone need not go.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !self.directory.as_os_str().is_empty() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn command(
    setting: &Setting,
    under: Under,
    config: &Path,
    directory: &Path,
    (otlp, http): (SocketAddr, SocketAddr),
    sink: SocketAddr,
) -> Command {
    match under {
        Under::Trackline { .. } | Under::Refusing { .. } => {
            let mut command = Command::new(&setting.binary);
            command
                .arg("collect")
                .arg("--config")
                .arg(config)
                .arg("--data-dir")
                .arg(directory.join("data"));
            command
        }
        Under::Otelcol { .. } => {
            let mut command = Command::new("otelcol");
            command.arg("--config").arg(config);
            command
        }
        Under::Rotel => {
            let mut command = Command::new("rotel");
            command
                .args(["start", "--exporter", "otlp", "--otlp-exporter-protocol", "grpc"])
                .args(["--otlp-exporter-compression", "gzip"])
                .args([
                    "--otel-resource-attributes",
                    "deployment.environment=bench,collector=bench",
                ])
                .args(["--batch-max-size", "8192", "--batch-timeout", "200ms"])
                .arg("--otlp-grpc-endpoint")
                .arg(otlp.to_string())
                .arg("--otlp-http-endpoint")
                .arg(http.to_string())
                .arg("--otlp-exporter-endpoint")
                .arg(format!("http://{sink}"))
                .arg("--pid-file")
                .arg(directory.join("pid"));
            command
        }
    }
}

/// What each is to do to the load.
const RESOURCE: (&str, &str) = (
    "resource",
    "
    attributes:
      - { key: deployment.environment, value: bench, action: upsert }
      - { key: collector, value: bench, action: insert }
",
);

/// The same for all that read the collector's YAML, but for the journal, which only ours has.
fn configuration(
    under: Under,
    pipeline: &str,
    (grpc, http): (SocketAddr, SocketAddr),
    sink: SocketAddr,
    processor: Option<(&str, &str)>,
) -> String {
    let journal = match under {
        Under::Trackline { journal: false } => "  journal: none\n".to_owned(),
        Under::Trackline { journal: true } => "  journal: { fsync: always }\n".to_owned(),
        Under::Refusing { journal_mib } => format!("  journal: {{ fsync: always, max_bytes: {journal_mib}MiB }}\n"),
        Under::Otelcol { .. } | Under::Rotel => String::new(),
    };
    let on_full = match under {
        Under::Refusing { .. } => ", on_full: refuse",
        _ => "",
    };
    let definition = processor.map_or_else(String::new, |(name, settings)| format!("  {name}: {settings}"));
    let listed = processor.map_or_else(String::new, |(name, _)| format!("{name}, "));
    format!(
        "receivers:
  otlp:
    protocols:
      grpc: {{ endpoint: \"{grpc}\" }}
      http: {{ endpoint: \"{http}\" }}
processors:
  memory_limiter: {{ check_interval: 1s, limit_mib: {MEMORY_LIMIT_MIB} }}
{definition}  batch: {{ timeout: 200ms, send_batch_size: 8192 }}
exporters:
  otlp: {{ endpoint: \"{sink}\", tls: {{ insecure: true }}, compression: gzip{on_full} }}
service:
{journal}  telemetry: {{ metrics: {{ level: none }} }}
  pipelines:
    {pipeline}: {{ receivers: [otlp], processors: [memory_limiter, {listed}batch], exporters: [otlp] }}
"
    )
}

fn end_of(log: &Path) -> String {
    const LINES: usize = 5;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
