//! Trackline's own API under `/api/trackline/v1`; `docs/api.md` describes it.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use axum::routing::get;
use model::{SpanId, TraceId};
use query::instant::now_unix_nano;
use query::search::{TraceSearch, TraceSummary};
use query::{Listed, Wanted};
use serde::Serialize;

use super::params::{BadParam, Params, instant, range};
use super::{ApiError, ApiState, encode, json};

/// Where all of it lies; the handlers see what comes after.
pub const UNDER: &str = "/api/trackline/v1";

/// Traces of a search that does not say how many.
const DEFAULT_LIMIT: usize = 20;
/// How far back a search looks that does not say.
const DEFAULT_LOOKBACK: Duration = Duration::from_secs(3600);

const ID_HINT: &str = "send the tracking ID as 32 hex digits, a UUID, a traceparent or base64";
const PARAM_HINT: &str = "docs/api.md lists the parameters";

/// Questions about data.
pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/tracking/{id}", get(tracking))
        .route("/tracking/{id}/spans/{span_id}", get(span))
        .route("/services", get(services))
        .route("/services/{service}/operations", get(operations))
        .route("/search", get(search))
}

/// Questions about the server itself, answered before it is ready too.
pub fn open_router() -> Router<ApiState> {
    Router::new()
        .route("/status", get(status))
        .route("/ledger", get(ledger))
        .fallback(unknown)
}

impl From<BadParam> for ApiError {
    fn from(error: BadParam) -> ApiError {
        ApiError::bad_request(error.to_string(), PARAM_HINT)
    }
}

fn trace_id(text: &str) -> Result<TraceId, ApiError> {
    TraceId::parse(text).map_err(|error| ApiError::bad_request(error.to_string(), ID_HINT))
}

async fn tracking(State(state): State<ApiState>, Path(id): Path<String>, uri: Uri) -> Result<Response, ApiError> {
    let id = trace_id(&id)?;
    let read = |detail: &str| match detail {
        "auto" => Some(Wanted::Auto),
        "full" => Some(Wanted::Full),
        "outline" => Some(Wanted::Outline),
        _ => None,
    };
    let wanted = Params::of(&uri)?
        .read("detail", read, "auto, full or outline")?
        .unwrap_or_default();
    let body = state.querier.story(id, wanted, |story| encode(&story)).await?;
    Ok(json(StatusCode::OK, body))
}

async fn span(
    State(state): State<ApiState>,
    Path((id, span_id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let id = trace_id(&id)?;
    let span_id = SpanId::parse(&span_id)
        .map_err(|error| ApiError::bad_request(error.to_string(), "send the span's id as 16 hex digits"))?;
    let found = state
        .querier
        .ask(move |question| Ok(question.span(id, span_id)?.map(|span| encode(&span))))
        .await?;
    let missing = || {
        ApiError::new(
            StatusCode::NOT_FOUND,
            format!("the trace {id} has no span {span_id} here"),
            "the span may still be arriving; the trace itself lists what is here",
        )
    };
    Ok(json(StatusCode::OK, found.ok_or_else(missing)?))
}

async fn services(State(state): State<ApiState>) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Services {
        services: Vec<Service>,
    }
    #[derive(Serialize)]
    struct Service {
        name: String,
    }
    let names = state.querier.ask(|question| Ok(question.services())).await?;
    let services = names.into_iter().map(|name| Service { name }).collect();
    Ok(json(StatusCode::OK, encode(&Services { services })))
}

async fn operations(State(state): State<ApiState>, Path(service): Path<String>) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Operations {
        operations: Vec<String>,
    }
    let operations = state
        .querier
        .ask(move |question| Ok(question.operations(&service)))
        .await?;
    Ok(json(StatusCode::OK, encode(&Operations { operations })))
}

async fn search(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Found {
        traces: Vec<TraceSummary>,
        /// Whether the bound on one answer left traces out that also match.
        cut: bool,
    }
    let search = read_search(&Params::of(&uri)?)?;
    let body = state
        .querier
        .ask(move |question| {
            let Listed { traces, cut } = question.search(&search)?;
            Ok(encode(&Found { traces, cut }))
        })
        .await?;
    Ok(json(StatusCode::OK, body))
}

fn read_search(params: &Params) -> Result<TraceSearch, BadParam> {
    const INSTANT: &str = "a time in nanoseconds since 1970 or in RFC 3339";
    let tags = params
        .all("tag")
        .filter(|tag| !tag.is_empty())
        .map(|tag| match tag.split_once('=') {
            Some(("", _)) => Err(BadParam(format!(
                "unable to parse param 'tag': `{tag}` has no key before its `=`"
            ))),
            Some((key, value)) => Ok((key.to_owned(), Some(value.to_owned()))),
            None => Ok((tag.to_owned(), None)),
        });
    let start = params.read("start", instant, INSTANT)?;
    let end = params.read("end", instant, INSTANT)?;
    let search = TraceSearch {
        service: params.get("service").map(str::to_owned),
        operation: params.get("operation").map(str::to_owned),
        kind: None,
        tags: tags.collect::<Result<_, _>>()?,
        min_duration: params.duration(&["min_duration", "minDuration"])?,
        max_duration: params.duration(&["max_duration", "maxDuration"])?,
        time: range(
            start,
            end,
            params.duration(&["lookback"])?,
            DEFAULT_LOOKBACK,
            now_unix_nano(),
        ),
        errors: params.flag("errors")?,
        limit: params.limit(&["limit"])?.unwrap_or(DEFAULT_LIMIT),
    };
    check_durations(&search, "min_duration", "max_duration")?;
    Ok(search)
}

/// A search that can find nothing is a mistake worth telling.
pub fn check_durations(search: &TraceSearch, min: &str, max: &str) -> Result<(), BadParam> {
    match (search.min_duration, search.max_duration) {
        (Some(least), Some(most)) if most < least => Err(BadParam(format!("'{max}' should be greater than '{min}'"))),
        _ => Ok(()),
    }
}

async fn status(State(state): State<ApiState>) -> Response {
    let mut status = (state.status)();
    if let serde_json::Value::Object(fields) = &mut status {
        fields.insert("ready".to_owned(), (state.ready)().into());
        fields
            .entry("version")
            .or_insert_with(|| env!("CARGO_PKG_VERSION").into());
    }
    json(StatusCode::OK, encode(&status))
}

async fn ledger(State(state): State<ApiState>) -> Response {
    json(StatusCode::OK, encode(&(state.ledger)()))
}

async fn unknown(uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {UNDER}{}", uri.path()),
        "docs/api.md lists the paths",
    )
}
