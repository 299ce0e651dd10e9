//! The routes that probes ask (SPEC S1).

use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use trackline_sdk::Telemetry;

/// Paths whose successful requests are logged at DEBUG only: probes come every few seconds and say nothing new.
pub(crate) const HEALTH_PATHS: [&str; 2] = ["/health", "/api/public/health"];

#[derive(Serialize)]
struct Health {
    status: &'static str,
    service: String,
}

/// `/health` and `/api/public/health`: 200 while the process serves.
pub fn health_routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    HEALTH_PATHS
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, get(health)))
}

async fn health() -> Json<Health> {
    Json(Health {
        status: "healthy",
        service: Telemetry::global().service().to_owned(),
    })
}
