//! `workflow-scheduler`: every few seconds it starts one of the newest workflows; each run is a trace of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use demo::database::Tables;
use demo::failure::Failure;
use demo::{environment, lifetime};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use trackline_sdk::{Context, span, tracking_id};
use trackline_sdk_axum::http::Client;

/// Seconds between two runs.
const EVERY_SECONDS: u64 = 10;

struct Scheduler {
    tables: Tables,
    http: Client,
    engine: String,
    every: Duration,
    runs: AtomicU64,
    last: Mutex<Option<String>>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let telemetry = trackline_sdk::init("workflow-scheduler");
    let scheduler = Arc::new(Scheduler {
        tables: Tables::open().await?,
        http: Client::new(),
        engine: environment::url("ENGINE_URL", 8002),
        every: Duration::from_secs(environment::number("SCHEDULE_SECONDS", EVERY_SECONDS).max(1)),
        runs: AtomicU64::new(0),
        last: Mutex::new(None),
    });
    let ticking = tokio::spawn(scheduler.clone().tick());
    let router = Router::new().route("/v1/schedule", get(schedule)).with_state(scheduler);
    let served = lifetime::serve(environment::address(8003), trackline_sdk_axum::instrument(router)).await;
    ticking.abort();
    telemetry.shutdown().await;
    served
}

async fn schedule(State(scheduler): State<Arc<Scheduler>>) -> Json<Value> {
    Json(json!({
        "every_seconds": scheduler.every.as_secs(),
        "runs": scheduler.runs.load(Ordering::Relaxed),
        "last_tracking_id": *scheduler.last.lock().await,
    }))
}

impl Scheduler {
    async fn tick(self: Arc<Self>) {
        let mut clock = tokio::time::interval(self.every);
        clock.tick().await;
        loop {
            clock.tick().await;
            let run = span("scheduled_run").parent(Context::new()).start();
            if let Err(failure) = run.run(self.start_one()).await {
                run.fail("ScheduledRunFailed", failure.message());
            }
            run.end();
        }
    }

    async fn start_one(&self) -> Result<(), Failure> {
        let workflows = self.tables.workflows().await?;
        if workflows.is_empty() {
            tracing::info!("no workflow to start yet");
            return Ok(());
        }
        let workflow = &workflows[fastrand::usize(0..workflows.len())];
        tracing::info!(workflow.id = workflow.workflow_id, "starting workflow");
        let body = json!({ "workflow_id": workflow.workflow_id, "nodes": workflow.nodes });
        let sent = self
            .http
            .post(format!("{}/v1/execute", self.engine))
            .json(&body)
            .send()
            .await;
        let response = sent.map_err(|error| Failure::upstream("the engine", error))?;
        self.runs.fetch_add(1, Ordering::Relaxed);
        *self.last.lock().await = Some(tracking_id().to_string());
        if !response.status().is_success() {
            return Err(Failure::upstream(
                "the engine",
                format_args!("answered {}", response.status()),
            ));
        }
        Ok(())
    }
}
