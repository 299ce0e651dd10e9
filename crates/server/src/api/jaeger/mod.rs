//! Jaeger's HTTP query API: the legacy paths that Grafana and older UIs call, and v3.
//!
//! Shapes and parameter names follow `cmd/jaeger/internal/extension/jaegerquery` and `internal/uimodel` of Jaeger 2 and,
//! for paths that newer versions dropped (`/api/services`, search), Jaeger 1.

mod legacy;
mod otlp_json;
mod span_json;
mod v3;

#[cfg(test)]
mod golden;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{ApiError, ApiState, RETRY_AFTER_SECONDS};

pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/api/services", get(legacy::services))
        .route("/api/services/{service}/operations", get(legacy::operation_names))
        .route("/api/operations", get(legacy::operations))
        .route("/api/traces", get(legacy::search))
        .route("/api/traces/{id}", get(legacy::trace))
        .route("/api/dependencies", get(legacy::dependencies))
        .route("/api/v3/services", get(v3::services))
        .route("/api/v3/operations", get(v3::operations))
        .route("/api/v3/traces", get(v3::search))
        .route("/api/v3/traces/{id}", get(v3::trace))
        .route("/api/v3/trace-summaries", get(v3::summaries))
}

/// Refuses in the shape of the generation that was asked.
pub async fn when_ready(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if (state.ready)() {
        return next.run(request).await;
    }
    let text = ApiError::not_ready().error;
    let mut response = if request.uri().path().contains("/api/v3/") {
        v3::Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    } else {
        legacy::Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    };
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    response
}
