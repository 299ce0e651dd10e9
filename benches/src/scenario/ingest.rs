//! Spans and logs at the highest rate that the server takes: items per CPU-second, bytes at rest, memory.

use std::time::Duration;

use anyhow::Result;

use super::{IN_FLIGHT, PER_REQUEST, Setting, load, unix_nano_now};
use crate::client::Service;
use crate::logs::LogSource;
use crate::measure::{ms, percentile};
use crate::process::{Ports, Server, size_bytes};
use crate::report::Report;
use crate::spans::SpanSource;

/// How long flushing and merging may take after the last request.
const SETTLE_WITHIN: Duration = Duration::from_secs(180);
/// Distance of traces in event time: 13 spans each, about 10,000 spans a second.
const TRACE_STEP_NS: u64 = 1_300_000;
const LOG_STEP_NS: u64 = 100_000;

pub async fn spans(setting: &Setting, total: usize) -> Result<()> {
    let mut source = SpanSource::new(7, unix_nano_now() - 600_000_000_000, TRACE_STEP_NS);
    run(
        setting,
        "spans",
        Service::Traces,
        total,
        ("150000 at least", "48 at most"),
        move || source.request(PER_REQUEST),
    )
    .await
}

pub async fn logs(setting: &Setting, total: usize) -> Result<()> {
    let mut source = LogSource::new(7, unix_nano_now() - 600_000_000_000, LOG_STEP_NS);
    run(setting, "logs", Service::Logs, total, ("", ""), move || {
        source.request(PER_REQUEST)
    })
    .await
}

async fn run(
    setting: &Setting,
    what: &str,
    service: Service,
    total: usize,
    (rate_target, size_target): (&str, &str),
    mut make: impl FnMut() -> Vec<u8> + Send + 'static,
) -> Result<()> {
    let directory = setting.scratch.join(format!("ingest-{what}"));
    let server = Server::start(&setting.binary, &directory, Ports::free()?, "7d").await?;
    let before = server.usage().cpu_seconds()?;
    let mut left = total / PER_REQUEST;
    let mut sent = load(&server, service, IN_FLIGHT, None, move || {
        left = left.checked_sub(1)?;
        Some(make())
    })
    .await?;
    let at_last_ack = server.usage().cpu_seconds()? - before;
    server.settle(SETTLE_WITHIN).await?;
    let cpu = server.usage().cpu_seconds()? - before;
    let (_, peak) = server.usage().memory_bytes()?;
    let directory = server.stop()?;
    let bytes = size_bytes(&directory)?;
    let items = total as f64;

    println!(
        "{what}: {total} in requests of {PER_REQUEST}, {} B each before gzip, OTLP/gRPC, fsync always",
        sent.raw_bytes / total as u64
    );
    let mut report = Report::default();
    report.add(&format!("{what} per CPU-second"), items / cpu, "1/s", rate_target);
    report.add(
        &format!("{what} per CPU-second until the last ack"),
        items / at_last_ack,
        "1/s",
        "",
    );
    report.add(
        &format!("{what} acknowledged per second"),
        items / sent.elapsed.as_secs_f64(),
        "1/s",
        "",
    );
    report.add(
        &format!("bytes at rest per item ({what})"),
        bytes as f64 / items,
        "B",
        size_target,
    );
    report.add("peak resident memory", peak as f64 / 1048576.0, "MiB", "300 at most");
    report.add(
        "ack p99 at the highest rate",
        ms(percentile(&mut sent.latencies, 0.99)),
        "ms",
        "",
    );
    report.add("requests refused for load, then taken", sent.refused as f64, "", "");
    report.write(
        &format!("ingest-{what}"),
        &format!("{total} {what}, {PER_REQUEST} a request, {IN_FLIGHT} in flight"),
    )
}
