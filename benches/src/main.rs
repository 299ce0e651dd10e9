//! `bench`: runs the end-to-end benchmarks against the release binary. Started by `cargo xtask bench`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use benches::report::machine;
use benches::scenario::{Setting, collect, endure, ingest, latency, lookup, peer, soak, start};
use clap::{Parser, Subcommand};

/// End-to-end benchmarks of the trackline binary.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// The binary under test.
    #[arg(long, default_value = "target/release/trackline", global = true)]
    binary: PathBuf,
    /// Where data directories are made; removed at the end.
    #[arg(long, default_value = "target/bench", global = true)]
    scratch: PathBuf,
    #[command(subcommand)]
    scenario: Option<Scenario>,
}

#[derive(Subcommand)]
enum Scenario {
    /// Spans at the highest rate: per CPU-second, bytes at rest, memory.
    Spans {
        #[arg(long, default_value_t = 2_000_000)]
        total: usize,
    },
    /// The same spans into VictoriaTraces, where it is on PATH.
    Peer {
        #[arg(long, default_value_t = 1_000_000)]
        total: usize,
    },
    /// JSON logs at the highest rate.
    Logs {
        #[arg(long, default_value_t = 1_000_000)]
        total: usize,
    },
    /// As a collector: items that arrive at the next hop per CPU-second, with and without the journal, beside `otelcol` and `rotel` where they are on PATH.
    Collect {
        #[arg(long, default_value_t = 2_000_000)]
        total: usize,
        #[arg(long, default_value_t = 3)]
        runs: usize,
        /// Only `spans`, `logs` or `points`.
        #[arg(long)]
        only: Option<String>,
    },
    /// More than a collector can take, and a sink that stalls: its memory, and what became of each span.
    Overload {
        #[arg(long, default_value_t = 60)]
        stall_seconds: u64,
        /// With a small journal, and senders refused when it is full.
        #[arg(long)]
        refusing: bool,
        /// Beside `otelcol` and `rotel`, where they are on PATH.
        #[arg(long)]
        peers: bool,
    },
    /// A backend that is down for minutes, and a collector that is killed twice meanwhile.
    Outage {
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Beside `otelcol` and `rotel`, where they are on PATH.
        #[arg(long)]
        peers: bool,
    },
    /// Tail sampling that keeps a tenth: spans per CPU-second, memory.
    TailSampling {
        #[arg(long, default_value_t = 60_000.0)]
        rate: f64,
        #[arg(long, default_value_t = 75)]
        seconds: u64,
    },
    /// Ack latency at a rate while searches run; acknowledged to queryable.
    Latency {
        #[arg(long, default_value_t = 1_000_000)]
        total: usize,
        /// Half of what `spans` reported as acknowledged per second.
        #[arg(long, default_value_t = 40_000.0)]
        rate: f64,
    },
    /// Trace by id and search in many spans over seven days.
    Lookup {
        #[arg(long, default_value_t = 10_000_000)]
        total: usize,
    },
    /// Start to ready, idle memory, size of the binary.
    Start,
    /// Steady load with kills and a short retention.
    Soak {
        #[arg(long, default_value_t = 30)]
        minutes: u64,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.binary.exists(),
        "{} is not there; `cargo xtask bench` builds it",
        arguments.binary.display()
    );
    let setting = Setting {
        binary: arguments.binary,
        scratch: arguments.scratch,
    };
    println!("machine: {}\n", machine());
    if setting.scratch.exists() {
        std::fs::remove_dir_all(&setting.scratch)?;
    }
    std::fs::create_dir_all(&setting.scratch)?;
    match arguments.scenario {
        Some(Scenario::Spans { total }) => ingest::spans(&setting, total).await?,
        Some(Scenario::Peer { total }) => peer::spans(&setting, total).await?,
        Some(Scenario::Logs { total }) => ingest::logs(&setting, total).await?,
        Some(Scenario::Collect { total, runs, only }) => collect::run(&setting, only.as_deref(), total, runs).await?,
        Some(Scenario::Overload {
            stall_seconds,
            refusing,
            peers,
        }) => {
            endure::overload(&setting, Duration::from_secs(stall_seconds), refusing, peers).await?;
        }
        Some(Scenario::Outage { minutes, peers }) => {
            endure::outage(&setting, Duration::from_secs(minutes * 60), peers).await?;
        }
        Some(Scenario::TailSampling { rate, seconds }) => endure::tail_sampling(&setting, rate, seconds).await?,
        Some(Scenario::Latency { total, rate }) => latency::run(&setting, total, rate).await?,
        Some(Scenario::Lookup { total }) => lookup::run(&setting, total).await?,
        Some(Scenario::Start) => start::run(&setting).await?,
        Some(Scenario::Soak { minutes }) => soak::run(&setting, minutes).await?,
        None => {
            start::run(&setting).await?;
            ingest::spans(&setting, 2_000_000).await?;
            peer::spans(&setting, 1_000_000).await?;
            ingest::logs(&setting, 1_000_000).await?;
            collect::run(&setting, None, 2_000_000, 3).await?;
            latency::run(&setting, 1_000_000, 40_000.0).await?;
            lookup::run(&setting, 10_000_000).await?;
        }
    }
    std::fs::remove_dir_all(&setting.scratch)?;
    Ok(())
}
