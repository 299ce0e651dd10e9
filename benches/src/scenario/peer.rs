//! The same spans into a peer found on PATH, in the same run, so that the README can quote ratios.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::sync::mpsc;

use super::{IN_FLIGHT, PER_REQUEST, Setting, unix_nano_now};
use crate::client::{frame, post};
use crate::process::{Ports, size_bytes};
use crate::report::Report;
use crate::spans::SpanSource;
use crate::usage::Usage;

const BINARY: &str = "victoria-traces";
const PATH: &str = "/insert/opentelemetry/v1/traces";
const READY_WITHIN: Duration = Duration::from_secs(20);
const SETTLE_WITHIN: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(20);

/// Ingests `total` spans into VictoriaTraces with its defaults; says so and returns where it is not installed.
pub async fn spans(setting: &Setting, total: usize) -> Result<()> {
    let directory = setting.scratch.join("peer");
    let address = SocketAddr::from(([127, 0, 0, 1], Ports::free()?.http));
    let spawned = Command::new(BINARY)
        .arg(format!("-storageDataPath={}", directory.display()))
        .arg(format!("-httpListenAddr={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = spawned else {
        println!("peer: skipped, {BINARY} is not on PATH");
        return Ok(());
    };
    let outcome = ingest(Usage(child.id()), address, total).await;
    Command::new("kill")
        .arg("-TERM")
        .arg(child.id().to_string())
        .status()
        .context("signalling the peer")?;
    child.wait()?;
    let (cpu, peak) = outcome?;
    let mut report = Report::default();
    println!("{BINARY}: the same spans, OTLP/HTTP gzip, its defaults");
    report.add("peer: spans per CPU-second", total as f64 / cpu, "1/s", "");
    report.add(
        "peer: bytes at rest per span",
        size_bytes(&directory)? as f64 / total as f64,
        "B",
        "",
    );
    report.add("peer: peak resident memory", peak as f64 / 1048576.0, "MiB", "");
    report.write(
        "peer-spans",
        &format!("{total} spans, {PER_REQUEST} a request, {IN_FLIGHT} in flight"),
    )
}

async fn ingest(usage: Usage, address: SocketAddr, total: usize) -> Result<(f64, u64)> {
    let started = Instant::now();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        ensure!(
            started.elapsed() < READY_WITHIN,
            "{BINARY} does not listen on {address}"
        );
        tokio::time::sleep(POLL).await;
    }
    let before = usage.cpu_seconds()?;
    let (sender, receiver) = mpsc::channel::<Bytes>(IN_FLIGHT);
    let maker = std::thread::spawn(move || {
        let mut source = SpanSource::new(7, unix_nano_now() - 600_000_000_000, 1_300_000);
        for _ in 0..total / PER_REQUEST {
            if sender.blocking_send(frame(&source.request(PER_REQUEST))).is_err() {
                return;
            }
        }
    });
    let receiver = Arc::new(Mutex::new(receiver));
    let workers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let receiver = receiver.clone();
            tokio::spawn(async move {
                loop {
                    let Some(request) = receiver.lock().await.recv().await else {
                        return Ok::<_, anyhow::Error>(());
                    };
                    post(address, PATH, request).await?;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await??;
    }
    maker.join().expect("the generator ends by itself");
    usage.idle(SETTLE_WITHIN).await?;
    Ok((usage.cpu_seconds()? - before, usage.memory_bytes()?.1))
}
