//! Minutes of steady load with a short retention, kills and queries: memory, descriptors and disk reach a plateau.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{PER_REQUEST, Setting, load, unix_nano_now};
use crate::client::Service;
use crate::process::{Ports, Server, size_bytes};
use crate::report::Report;
use crate::spans::SpanSource;

/// Load between two looks at the process.
const ROUND: Duration = Duration::from_secs(30);
/// Rounds between two kills.
const KILL_EVERY: usize = 10;
const SPANS_PER_SECOND: f64 = 10_000.0;
const RETENTION: &str = "5m";

pub async fn run(setting: &Setting, minutes: u64) -> Result<()> {
    let directory = setting.scratch.join("soak");
    let ports = Ports::free()?;
    let mut server = Server::start(&setting.binary, &directory, ports, RETENTION).await?;
    let deadline = Instant::now() + Duration::from_secs(minutes * 60);
    let mut rounds: Vec<(f64, f64, f64)> = Vec::new();
    println!(
        "{:>6} {:>10} {:>12} {:>10}",
        "minute", "memory MiB", "descriptors", "disk MiB"
    );
    while Instant::now() < deadline {
        if rounds.len() % KILL_EVERY == KILL_EVERY - 1 {
            let directory = server.kill()?;
            server = Server::start(&setting.binary, &directory, ports, RETENTION).await?;
        }
        let mut source = SpanSource::new(rounds.len() as u64, unix_nano_now(), 1_300_000);
        let mut left = (SPANS_PER_SECOND * ROUND.as_secs_f64()) as usize / PER_REQUEST;
        load(
            &server,
            Service::Traces,
            2,
            Some(SPANS_PER_SECOND / PER_REQUEST as f64),
            move || {
                left = left.checked_sub(1)?;
                Some(source.request(PER_REQUEST))
            },
        )
        .await?;
        server
            .json("/api/trackline/v1/search?service=api-gateway&lookback=5m&limit=20")
            .await?;
        let (memory, _) = server.usage().memory_bytes()?;
        let round = (
            memory as f64 / 1048576.0,
            server.usage().descriptors()? as f64,
            size_bytes(&directory)? as f64 / 1048576.0,
        );
        println!(
            "{:>6.1} {:>10.0} {:>12} {:>10.0}",
            (rounds.len() + 1) as f64 / 2.0,
            round.0,
            round.1,
            round.2
        );
        rounds.push(round);
    }
    let ledger = server.json("/api/trackline/v1/ledger").await?;
    ensure!(ledger["balanced"] == true, "the ledger does not balance: {ledger}");
    server.stop()?;
    let mut report = Report::default();
    let highest =
        |rounds: &[(f64, f64, f64)], of: fn(&(f64, f64, f64)) -> f64| rounds.iter().map(of).fold(0.0, f64::max);
    let half = rounds.len() / 2;
    for (name, unit, of) in [
        ("memory", "MiB", (|round| round.0) as fn(&(f64, f64, f64)) -> f64),
        ("descriptors", "", |round| round.1),
        ("disk", "MiB", |round| round.2),
    ] {
        report.add(
            &format!("{name}, highest in the first half"),
            highest(&rounds[..half], of),
            unit,
            "",
        );
        report.add(
            &format!("{name}, highest in the second half"),
            highest(&rounds[half..], of),
            unit,
            "",
        );
    }
    report.write("soak", &format!("{minutes} minutes, {SPANS_PER_SECOND} spans a second, retention {RETENTION}, a kill every {KILL_EVERY} rounds of {ROUND:?}"))
}
