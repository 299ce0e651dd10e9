//! Trace by id and search in many spans over seven days, warm and cold, and a start over the same data.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{IN_FLIGHT, PER_REQUEST, Setting, load, unix_nano_now};
use crate::client::Service;
use crate::measure::{ms, percentile};
use crate::process::{Ports, Server, size_bytes};
use crate::report::Report;
use crate::spans::{SpanSource, hex};

const DAYS: u64 = 7;
const DAY_NS: u64 = 86_400_000_000_000;
const SPANS_A_TRACE: u64 = 13;
const SETTLE_WITHIN: Duration = Duration::from_secs(600);
/// Kept ids whose spans may never have filled a request: 12 queues of at most 1,000 spans, one id in 97 traces.
const UNSENT_IDS: usize = 20;
const LOOKUPS: usize = 200;
const SEARCHES: usize = 20;

pub async fn run(setting: &Setting, total: usize) -> Result<()> {
    let directory = setting.scratch.join("lookup");
    let ports = Ports::free()?;
    let server = Server::start(&setting.binary, &directory, ports, "8d").await?;
    let start = unix_nano_now() - DAYS * DAY_NS + 3_600_000_000_000;
    let step = (DAYS * DAY_NS - 3_600_000_000_000) * SPANS_A_TRACE / total as u64;
    let (ids, collected) = std::sync::mpsc::channel();
    let mut source = SpanSource::new(23, start, step);
    let mut left = total / PER_REQUEST;
    load(&server, Service::Traces, IN_FLIGHT, None, move || {
        if left == 0 {
            // The ids are wanted once, when the last request has been made.
            let _ = ids.send(std::mem::take(&mut source.sampled_ids));
            return None;
        }
        left -= 1;
        Some(source.request(PER_REQUEST))
    })
    .await?;
    server.settle(SETTLE_WITHIN).await?;
    let mut ids: Vec<String> = collected
        .recv()
        .context("the generator kept no ids")?
        .iter()
        .map(|id| hex(id))
        .collect();
    // The newest traces may still wait in the generator's queues.
    ids.truncate(ids.len().saturating_sub(UNSENT_IDS));
    fastrand::Rng::with_seed(5).shuffle(&mut ids);
    ids.truncate(LOOKUPS);

    let mut report = Report::default();
    println!("{total} spans over {DAYS} days");
    let directory = server.stop()?;
    report.add(
        "bytes at rest per span",
        size_bytes(&directory)? as f64 / total as f64,
        "B",
        "48 at most",
    );

    drop_from_page_cache(&directory)?;
    let server = Server::start(&setting.binary, &directory, ports, "8d").await?;
    report.add(
        "start to ready over this data, cold",
        ms(server.ready_after),
        "ms",
        "1000 at most",
    );
    let (mut cold, found) = lookups(&server, &ids[..LOOKUPS]).await?;
    report.add(
        "trace by id, first touch, median",
        ms(percentile(&mut cold, 0.5)),
        "ms",
        "20 at most",
    );
    report.add(
        "trace by id, first touch, p99",
        ms(percentile(&mut cold, 0.99)),
        "ms",
        "",
    );
    let (mut warm, _) = lookups(&server, &ids[..LOOKUPS]).await?;
    report.add(
        "trace by id, warm, median",
        ms(percentile(&mut warm, 0.5)),
        "ms",
        "3 at most",
    );
    report.add("trace by id, warm, p99", ms(percentile(&mut warm, 0.99)), "ms", "");
    report.add(
        "of the ids asked for, found",
        found as f64 / LOOKUPS as f64 * 100.0,
        "%",
        "100",
    );
    let mut searches = Vec::new();
    for at in 0..SEARCHES {
        let started = Instant::now();
        let service = ["api-gateway", "workflow-engine"][at % 2];
        let path = format!(
            "/api/trackline/v1/search?service={service}&tag=user.id%3Duser-{:05}&lookback=1h&limit=20",
            at * 997 % 20_000
        );
        server.json(&path).await?;
        searches.push(started.elapsed());
    }
    report.add("search by service and tag, last hour, first", ms(searches[0]), "ms", "");
    report.add(
        "search by service and tag, last hour, median",
        ms(percentile(&mut searches, 0.5)),
        "ms",
        "100 at most",
    );
    let (resident, _) = server.usage().memory_bytes()?;
    report.add("resident memory after this", resident as f64 / 1048576.0, "MiB", "");
    server.stop()?;
    report.write(
        "lookup",
        &format!("{total} spans over {DAYS} days, {LOOKUPS} ids, {SEARCHES} searches"),
    )
}

async fn lookups(server: &Server, ids: &[String]) -> Result<(Vec<Duration>, usize)> {
    let (mut taken, mut found) = (Vec::new(), 0);
    for id in ids {
        let started = Instant::now();
        let story = server.json(&format!("/api/trackline/v1/tracking/{id}")).await?;
        taken.push(started.elapsed());
        found += usize::from(story["status"] == "found" || story["status"] == "partial");
    }
    Ok((taken, found))
}

/// Asks the kernel to forget the files' pages, so that the next read is from the disk.
fn drop_from_page_cache(directory: &Path) -> Result<()> {
    Command::new("sync").status().context("running sync")?;
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let file = File::open(&path)?;
                // SAFETY: the descriptor is open for the call's duration and no memory is passed.
                let outcome = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
                ensure!(outcome == 0, "posix_fadvise on {} answered {outcome}", path.display());
            }
        }
    }
    Ok(())
}
