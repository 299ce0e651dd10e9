//! What the query door serves: Trackline's own JSON API, Jaeger's HTTP API in both generations, and the pages.
//!
//! `Host` names and tokens are checked by the door itself (`net::access`), before anything here; no CORS header is ever
//! sent. Until the journal has been replayed, questions are refused with 503, because an answer would lack data.

mod jaeger;
#[cfg(test)]
pub mod over_http;
mod page;
mod params;
mod trackline;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use query::{Querier, QueryError};
use serde::Serialize;

/// Something that others know and this door shows as JSON.
pub type JsonSource = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What the routes answer from.
#[derive(Clone)]
pub struct ApiState {
    pub querier: Querier,
    /// `GET /api/trackline/v1/status`: version, uptime, store, journal readers, memory. `ready` is added here.
    pub status: JsonSource,
    /// `GET /api/trackline/v1/ledger`: the books.
    pub ledger: JsonSource,
    /// Whether replay is over.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Seconds after which a client that came too early should ask again.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Everything on the query door.
pub fn router(state: ApiState) -> Router {
    let jaeger = jaeger::router().layer(middleware::from_fn_with_state(state.clone(), jaeger::when_ready));
    let trackline = trackline::router().layer(middleware::from_fn_with_state(state.clone(), when_ready));
    Router::new()
        .merge(jaeger.clone())
        .nest("/jaeger", jaeger)
        .nest(trackline::UNDER, trackline.merge(trackline::open_router()))
        .method_not_allowed_fallback(only_reading)
        .fallback(page::serve)
        .with_state(state)
}

async fn only_reading(method: Method) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} is not possible here"),
        "everything is read with GET; telemetry is sent to the OTLP ports",
    )
}

async fn when_ready(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if (state.ready)() {
        next.run(request).await
    } else {
        ApiError::not_ready().into_response()
    }
}

/// An error in Trackline's own shape.
#[derive(Debug, Serialize)]
pub struct ApiError {
    #[serde(skip)]
    status: StatusCode,
    /// What happened.
    error: String,
    /// What to do.
    hint: String,
}

impl ApiError {
    fn new(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> ApiError {
        ApiError {
            status,
            error: error.into(),
            hint: hint.into(),
        }
    }

    fn bad_request(error: impl Into<String>, hint: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, error, hint)
    }

    fn not_ready() -> ApiError {
        let error = "the server has started and is reading its journal; until then answers would lack data";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error, "try again in a moment")
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> ApiError {
        let (status, hint) = query_status(&error);
        ApiError::new(status, error.to_string(), hint)
    }
}

/// How a failed question is told over HTTP.
fn query_status(error: &QueryError) -> (StatusCode, &'static str) {
    match error {
        QueryError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "ask fewer questions at a time"),
        QueryError::TimedOut => (
            StatusCode::SERVICE_UNAVAILABLE,
            "narrow the time range or add a service",
        ),
        QueryError::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, "ask again"),
        QueryError::Read(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "`trackline store check` examines the data directory",
        ),
        QueryError::Failed(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "this is a bug; the server's log has more",
        ),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json(self.status, encode(&self));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        response
    }
}

/// JSON bytes. The values served have string keys and no fallible parts, so that this cannot fail half-way.
fn encode(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value)
        .unwrap_or_else(|error| {
            tracing::error!(%error, "an answer could not be written as JSON");
            Vec::new()
        })
        .into()
}

fn json(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
