//! The service that the W3C Trace Context test harness talks to: it calls each URL of a posted list and passes the
//! arguments on. `conformance/trace-context/run` starts it, on a free port with the argument `0`, and the harness of
//! <https://github.com/w3c/trace-context> against it; `STRICT_LEVEL=2 SPEC_LEVEL=2` is what it passes.

use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use trackline_sdk_axum::http::Client;

#[derive(Deserialize, Serialize)]
struct Call {
    url: String,
    arguments: Vec<Call>,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let telemetry = trackline_sdk::init("trace-context-service");
    let port = std::env::args().nth(1).unwrap_or_else(|| "5000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    let client = Client::new();
    let app = Router::new().route(
        "/test",
        post(async move |Json(calls): Json<Vec<Call>>| {
            for call in calls {
                if let Err(error) = client.post(&call.url).json(&call.arguments).send().await {
                    tracing::warn!(url = call.url, %error, "call failed");
                }
            }
        }),
    );
    axum::serve(listener, trackline_sdk_axum::instrument(app)).await?;
    telemetry.shutdown().await;
    Ok(())
}
