//! A service with telemetry: run it, ask it (`curl -i 127.0.0.1:8000/hello/you`), look at stdout and at the collector.

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use trackline_sdk_axum::{TrackingId, instrument};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let telemetry = trackline_sdk::init("quickstart");
    let app = Router::new().route(
        "/hello/{name}",
        get(async |Path(name): Path<String>, id: TrackingId| {
            tracing::info!(name, "greeting");
            format!("Hello {name}, you are {id}\n")
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    axum::serve(listener, instrument(app))
        .with_graceful_shutdown(async {
            // Without a signal handler there is nothing to wait for, and the service runs until it is killed.
            let _ = tokio::signal::ctrl_c().await;
        })
        .await?;
    telemetry.shutdown().await;
    Ok(())
}
