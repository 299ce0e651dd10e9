//! Telemetry for `axum` services, the HTTP calls they make with `reqwest` and their `sqlx` queries.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use trackline_sdk_axum::TrackingId;
//!
//! # #[tokio::main]
//! # async fn main() -> std::io::Result<()> {
//! let telemetry = trackline_sdk::init("api-gateway");
//! let app = Router::new().route("/hello", get(async |id: TrackingId| format!("you are {id}")));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
//! axum::serve(listener, trackline_sdk_axum::instrument(app)).await?;
//! telemetry.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! **What.** A tower layer that gives every request a server span, a tracking ID and a log line; a client and a database
//! handle whose calls are spans in it.
//!
//! **In.** Requests with `traceparent`, `tracestate`, `baggage` or `X-Tracking-ID`; the [`Telemetry`] of `trackline-sdk`.
//!
//! **Out.** `X-Tracking-ID` on every response, panics included; spans by the stable semantic conventions; the same headers
//! on outgoing calls.
//!
//! **Invariants.** Application code never handles a trace header. A request's span ends when its response's last byte was
//! taken. Parameters of queries never leave the process. Without `init` everything works and records nothing.

mod body;
pub mod db;
mod health;
pub mod http;
mod layer;
mod mask;
mod tracking;

use axum::Router;
pub use body::TrackedBody;
pub use health::health_routes;
pub use layer::{ResponseFuture, TrackingLayer, TrackingService};
pub use tracking::{TrackingId, X_TRACKING_ID};
pub use trackline_sdk::{Telemetry, set_session, set_user, span};

/// Adds the health routes and puts a [`TrackingLayer`] around all routes and the fallback. Call it last, when the router
/// is complete: routes added to the result are not tracked. A router that has a `/health` of its own takes a
/// [`TrackingLayer`] instead, because two routes of one path are an error in axum.
pub fn instrument<S>(router: Router<S>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    router.merge(health_routes()).layer(TrackingLayer::new())
}
