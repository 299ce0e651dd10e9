//! The benchmarks, one file each, and the load they share.

pub mod collect;
pub mod endure;
pub mod ingest;
pub mod latency;
pub mod lookup;
pub mod peer;
pub mod soak;
pub mod start;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::client::{Client, Service, frame};
use crate::process::Server;

/// Items in a request.
pub const PER_REQUEST: usize = 1_000;
/// Requests in flight while the maximum is measured.
pub const IN_FLIGHT: usize = 8;
/// Prepared requests that wait for a free sender.
const PREPARED: usize = 32;

/// What every benchmark needs to know.
pub struct Setting {
    pub binary: PathBuf,
    /// Where data directories are made.
    pub scratch: PathBuf,
}

/// What a load run saw from outside.
pub struct Load {
    pub elapsed: Duration,
    pub latencies: Vec<Duration>,
    pub refused: u64,
    pub raw_bytes: u64,
}

/// Sends what `make` produces until it ends, `in_flight` requests at a time, at most `rate` requests a second.
pub async fn load(
    server: &Server,
    service: Service,
    in_flight: usize,
    rate: Option<f64>,
    mut make: impl FnMut() -> Option<Vec<u8>> + Send + 'static,
) -> Result<Load> {
    let (sender, receiver) = mpsc::channel::<Bytes>(PREPARED);
    let raw_bytes = Arc::new(AtomicU64::new(0));
    let counted = raw_bytes.clone();
    let maker = std::thread::spawn(move || {
        while let Some(request) = make() {
            counted.fetch_add(request.len() as u64, Ordering::Relaxed);
            if sender.blocking_send(frame(&request)).is_err() {
                return;
            }
        }
    });
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    let started = Instant::now();
    let sent = Arc::new(AtomicU64::new(0));
    let mut workers = Vec::new();
    for _ in 0..in_flight {
        let mut client = Client::connect(server.otlp).await?;
        let (receiver, sent) = (receiver.clone(), sent.clone());
        workers.push(tokio::spawn(async move {
            let (mut latencies, mut refused) = (Vec::new(), 0);
            loop {
                let Some(request) = receiver.lock().await.recv().await else {
                    break;
                };
                let number = sent.fetch_add(1, Ordering::Relaxed);
                if let Some(rate) = rate {
                    let due = started + Duration::from_secs_f64(number as f64 / rate);
                    tokio::time::sleep_until(due.into()).await;
                }
                let outcome = client.send(service, request).await?;
                latencies.push(outcome.latency);
                refused += outcome.refused as u64;
            }
            Ok::<_, anyhow::Error>((latencies, refused))
        }));
    }
    let (mut latencies, mut refused) = (Vec::new(), 0);
    for worker in workers {
        let (more, times) = worker.await??;
        latencies.extend(more);
        refused += times;
    }
    let elapsed = started.elapsed();
    maker.join().expect("the generator ends by itself");
    Ok(Load {
        elapsed,
        latencies,
        refused,
        raw_bytes: raw_bytes.load(Ordering::Relaxed),
    })
}

pub fn unix_nano_now() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    since.as_nanos() as u64
}
