//! What the layer costs a request, in process and without a network: the same router bare and instrumented, all signals
//! on, exporting to a collector stand-in in this process. Prints one JSON object.
//!
//! Rounds alternate, and the queues are emptied between them, so that nothing is dropped and nothing is free. Two costs
//! are given: processor time of the request's own thread (what a caller waits for), and that of everything which telemetry
//! keeps busy (line writer and exporters, with the stand-in's share as it shares the process).

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Path;
use axum::routing::{any, get};
use axum::{Json, Router};
use http::Request;
use http_body_util::BodyExt;
use serde_json::json;
use tower::Service;
use trackline_sdk::Telemetry;
use trackline_sdk_axum::TrackingLayer;

/// Requests in a round: they fit into the span queue (2,048), so none is dropped.
const ROUND: usize = 1_000;
const DEFAULT_ROUNDS: usize = 100;

fn main() {
    let rounds = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(DEFAULT_ROUNDS);
    let collector = collector();
    let telemetry = Telemetry::builder("overhead")
        .environment("prod")
        .sample_ratio(1.0)
        .endpoint(collector)
        .log_sink(std::io::sink())
        .build();
    let bare = Router::new().route(
        "/sessions/{id}",
        get(async |Path(id): Path<String>| Json(json!({ "id": id }))),
    );
    let tracked = bare.clone().layer(TrackingLayer::with(telemetry.clone()));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut sums = [Cost::default(), Cost::default()];
    let mut best = [Duration::MAX; 2];
    let mut background = 0;
    for round in 0..rounds + 1 {
        for (at, app) in [&bare, &tracked].into_iter().enumerate() {
            let process = cpu_nanos("", true);
            let cost = runtime.block_on(requests(app.clone()));
            assert!(
                telemetry.flush(Duration::from_secs(30)),
                "the stand-in takes everything"
            );
            let process = cpu_nanos("", true).saturating_sub(process);
            if round == 0 {
                continue;
            }
            if at == 1 {
                background += process.saturating_sub(cost.cpu_nanos);
            }
            best[at] = best[at].min(cost.wall);
            sums[at].wall += cost.wall;
            sums[at].cpu_nanos += cost.cpu_nanos;
        }
    }
    let requests = (rounds * ROUND) as f64;
    let micros = |nanos: u64| nanos as f64 / 1_000.0 / requests;
    let [bare, tracked] = &sums;
    let stats = telemetry.stats();
    let result = json!({
        "requests": requests,
        "bare_us": micros(bare.cpu_nanos),
        "tracked_us": micros(tracked.cpu_nanos),
        "layer_us": micros(tracked.cpu_nanos.saturating_sub(bare.cpu_nanos)),
        "layer_us_best_round": (best[1].as_nanos() as f64 - best[0].as_nanos() as f64) / 1_000.0 / ROUND as f64,
        "background_us": micros(background),
        "ratio": tracked.cpu_nanos as f64 / bare.cpu_nanos as f64,
        "spans_exported": stats.spans_exported,
        "spans_dropped": stats.spans_dropped,
        "logs_exported": stats.logs_exported,
        "lines_written": stats.lines_written,
    });
    println!("{result:#}");
}

#[derive(Default)]
struct Cost {
    wall: Duration,
    cpu_nanos: u64,
}

async fn requests(mut app: Router) -> Cost {
    let cpu = cpu_nanos("/proc/thread-self/schedstat", false);
    let started = Instant::now();
    for _ in 0..ROUND {
        let request = Request::builder()
            .uri("/sessions/4711")
            .header("user-agent", "overhead/1.0")
            .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            .body(Body::empty())
            .expect("a request");
        let response = app.call(request).await.expect("routers do not fail");
        let body = response.into_body().collect().await.expect("a whole body");
        assert!(!body.to_bytes().is_empty());
    }
    Cost {
        wall: started.elapsed(),
        cpu_nanos: cpu_nanos("/proc/thread-self/schedstat", false).saturating_sub(cpu),
    }
}

/// Nanoseconds on a processor: the first number of a `schedstat`, for one thread or for all of the process.
fn cpu_nanos(path: &str, all_threads: bool) -> u64 {
    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path)
            .ok()
            .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
    };
    if !all_threads {
        return read(path.as_ref()).expect("Linux's schedstat");
    }
    std::fs::read_dir("/proc/self/task")
        .expect("Linux's task list")
        .filter_map(|task| read(&task.ok()?.path().join("schedstat")))
        .sum()
}

/// A collector that takes everything, on a thread of its own.
fn collector() -> String {
    let (said, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            said.send(listener.local_addr().expect("an address"))
                .expect("main waits");
            let app = Router::new().fallback(any(async |body: axum::body::Bytes| {
                drop(body);
                // An empty gRPC message and the status in the headers.
                let headers = [("content-type", "application/grpc"), ("grpc-status", "0")];
                (headers, vec![0u8; 5])
            }));
            let app = app.layer(axum::extract::DefaultBodyLimit::disable());
            axum::serve(listener, app).await.expect("serving");
        });
    });
    format!("http://{}", told.recv().expect("the collector's address"))
}
