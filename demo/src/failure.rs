//! What goes wrong: the switch that makes it happen on purpose, and the answer that a caller gets.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use trackline_sdk::tracking_id;

/// What a request asks to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inject {
    /// The external API answers 503, every time.
    External,
    /// The model answers 500, every time.
    Llm,
    /// A query names a table that does not exist.
    Database,
    /// The handler panics.
    Crash,
}

/// An answer with an error in it. Its tracking ID is in the body too, because people copy bodies.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl Failure {
    pub fn not_found(what: &str, id: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            kind: "NotFound",
            message: format!("there is no {what} `{id}`"),
        }
    }

    /// Something that we depend on failed.
    pub fn upstream(who: &str, error: impl std::fmt::Display) -> Self {
        Self {
            status: StatusCode::BAD_GATEWAY,
            kind: "UpstreamError",
            message: format!("{who}: {error}"),
        }
    }

    /// Something of our own failed.
    pub fn internal(kind: &'static str, error: impl std::fmt::Display) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind,
            message: error.to_string(),
        }
    }

    pub fn message(&self) -> &str {
        &self.message
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { status, kind, message } = self;
        if status.is_server_error() {
            tracing::error!(
                error.r#type = kind,
                error.code = status.as_u16(),
                error.category = "server",
                "{message}"
            );
        }
        (
            status,
            Json(json!({ "error": message, "type": kind, "tracking_id": tracking_id().to_string() })),
        )
            .into_response()
    }
}
