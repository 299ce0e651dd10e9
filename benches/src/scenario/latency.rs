//! Acknowledgement latency at a given rate while searches run, and the time from acknowledged to queryable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{IN_FLIGHT, PER_REQUEST, Setting, load, unix_nano_now};
use crate::client::{self, Client, Service, frame};
use crate::measure::{ms, percentile};
use crate::process::{Ports, Server};
use crate::report::Report;
use crate::spans::{SpanSource, hex};

/// Pause between two searches of the background reader.
const SEARCH_EVERY: Duration = Duration::from_millis(250);
const FRESHNESS_SAMPLES: usize = 50;
const FRESH_WITHIN: Duration = Duration::from_secs(10);

pub async fn run(setting: &Setting, total: usize, spans_per_second: f64) -> Result<()> {
    let directory = setting.scratch.join("latency");
    let server = Server::start(&setting.binary, &directory, Ports::free()?, "7d").await?;
    let done = Arc::new(AtomicBool::new(false));
    let searching = tokio::spawn(search_until(server.http, done.clone()));

    let mut source = SpanSource::new(11, unix_nano_now() - 600_000_000_000, 1_300_000);
    let mut left = total / PER_REQUEST;
    let rate = spans_per_second / PER_REQUEST as f64;
    let mut sent = load(&server, Service::Traces, IN_FLIGHT, Some(rate), move || {
        left = left.checked_sub(1)?;
        Some(source.request(PER_REQUEST))
    })
    .await?;
    done.store(true, Ordering::Relaxed);
    let mut searches = searching.await??;
    let mut fresh = freshness(&server).await?;
    server.stop()?;

    println!("{total} spans at {spans_per_second:.0} a second, a search every {SEARCH_EVERY:?} beside it");
    let mut report = Report::default();
    report.add("ack p50", ms(percentile(&mut sent.latencies, 0.5)), "ms", "");
    report.add("ack p99", ms(percentile(&mut sent.latencies, 0.99)), "ms", "50 at most");
    report.add("search p50 meanwhile", ms(percentile(&mut searches, 0.5)), "ms", "");
    report.add(
        "acknowledged to queryable, p50",
        ms(percentile(&mut fresh, 0.5)),
        "ms",
        "",
    );
    report.add(
        "acknowledged to queryable, max",
        ms(percentile(&mut fresh, 1.0)),
        "ms",
        "1000 at most",
    );
    report.write(
        "latency",
        &format!("{total} spans, {spans_per_second} a second, {PER_REQUEST} a request"),
    )
}

async fn search_until(http: std::net::SocketAddr, done: Arc<AtomicBool>) -> Result<Vec<Duration>> {
    let mut taken = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let started = Instant::now();
        let path = "/api/trackline/v1/search?service=workflow-engine&errors=true&lookback=1h&limit=20";
        let (status, _) = client::get(http, path).await?;
        ensure!(status == 200, "the search answered {status}");
        taken.push(started.elapsed());
        tokio::time::sleep(SEARCH_EVERY).await;
    }
    Ok(taken)
}

/// Sends single small requests and asks for each until it is found.
async fn freshness(server: &Server) -> Result<Vec<Duration>> {
    let mut client = Client::connect(server.otlp).await?;
    let mut taken = Vec::new();
    for seed in 0..FRESHNESS_SAMPLES {
        let mut source = SpanSource::new(1_000 + seed as u64, unix_nano_now(), 1_000);
        let request = source.request(1);
        client.send(Service::Traces, frame(&request)).await?;
        let acked = Instant::now();
        let id = hex(&source.sampled_ids[0]);
        loop {
            let story = server.json(&format!("/api/trackline/v1/tracking/{id}")).await?;
            if story["status"] == "found" || story["status"] == "partial" {
                break;
            }
            ensure!(
                acked.elapsed() < FRESH_WITHIN,
                "{id} was acknowledged and not found within {FRESH_WITHIN:?}"
            );
        }
        taken.push(acked.elapsed());
    }
    Ok(taken)
}
