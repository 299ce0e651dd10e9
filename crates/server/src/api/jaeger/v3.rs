//! Jaeger's API v3 over HTTP: OTLP JSON, `query.*` parameters, times in RFC 3339.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use model::TraceId;
use query::QueryError;
use query::instant::parse_rfc3339;
use query::search::{TraceSearch, TraceSummary};
use query::story::Kind;
use serde::Serialize;

use super::super::params::{BadParam, Params};
use super::super::trackline::check_durations;
use super::super::{ApiState, encode, json, query_status};
use super::otlp_json::ResourceSpans;

/// Jaeger's default.
const DEFAULT_DEPTH: usize = 100;

/// Each parameter in camel case and, as older clients have it, in snake case.
const SERVICE: [&str; 2] = ["query.serviceName", "query.service_name"];
const OPERATION: [&str; 2] = ["query.operationName", "query.operation_name"];
const TIME_MIN: [&str; 2] = ["query.startTimeMin", "query.start_time_min"];
const TIME_MAX: [&str; 2] = ["query.startTimeMax", "query.start_time_max"];
const DEPTH: [&str; 3] = ["query.searchDepth", "query.search_depth", "query.num_traces"];
const DURATION_MIN: [&str; 2] = ["query.durationMin", "query.duration_min"];
const DURATION_MAX: [&str; 2] = ["query.durationMax", "query.duration_max"];
const ATTRIBUTES: &str = "query.attributes";
const SPAN_KIND: [&str; 2] = ["spanKind", "span_kind"];

/// An error as the gateway tells it.
pub struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    pub fn new(status: StatusCode, text: impl Into<String>) -> Refusal {
        Refusal {
            status,
            text: text.into(),
        }
    }
}

impl From<BadParam> for Refusal {
    fn from(error: BadParam) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Refusal {
        Refusal::new(query_status(&error).0, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Outer {
            error: Inner,
        }
        #[derive(Serialize)]
        struct Inner {
            #[serde(rename = "httpCode")]
            code: u16,
            message: String,
        }
        json(
            self.status,
            encode(&Outer {
                error: Inner {
                    code: self.status.as_u16(),
                    message: self.text,
                },
            }),
        )
    }
}

/// The envelope of a stream's one message.
#[derive(Serialize)]
struct Wrapped<'a> {
    result: TracesData<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TracesData<'a> {
    resource_spans: ResourceSpans<'a>,
}

pub async fn services(State(state): State<ApiState>) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct Services {
        services: Vec<String>,
    }
    let services = state.querier.ask(|question| Ok(question.services())).await?;
    Ok(json(StatusCode::OK, encode(&Services { services })))
}

pub async fn operations(State(state): State<ApiState>, uri: Uri) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct Operations {
        operations: Vec<Operation>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Operation {
        name: String,
        span_kind: &'static str,
    }
    let params = Params::of(&uri)?;
    let service = params.get("service").unwrap_or_default().to_owned();
    let wanted = params.read_any(&SPAN_KIND, Kind::from_name, "a kind of span")?;
    let found = state
        .querier
        .ask(move |question| question.operations_by_kind(&service))
        .await?;
    let operations = found
        .into_iter()
        .filter(|(_, kind)| wanted.is_none() || *kind == wanted)
        // As in Jaeger, what has no kind is internal.
        .map(|(name, kind)| Operation {
            name,
            span_kind: kind
                .filter(|&kind| kind != Kind::Unspecified)
                .unwrap_or(Kind::Internal)
                .as_str(),
        })
        .collect();
    Ok(json(StatusCode::OK, encode(&Operations { operations })))
}

pub async fn trace(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let id = TraceId::parse(&id).map_err(|error| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("malformed parameter trace_id: {error}"),
        )
    })?;
    let body = state
        .querier
        .ask(move |question| {
            let spans = question.trace(id)?.records;
            let result = TracesData {
                resource_spans: ResourceSpans(&spans),
            };
            Ok((!spans.is_empty()).then(|| encode(&Wrapped { result })))
        })
        .await?;
    Ok(json(StatusCode::OK, body.ok_or_else(none_found)?))
}

fn none_found() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "No traces found")
}

pub async fn search(State(state): State<ApiState>, uri: Uri) -> Result<Response, Refusal> {
    let search = read_search(&Params::of(&uri)?)?;
    let body = state
        .querier
        .ask(move |question| {
            let spans = question.search_full(&search)?.traces.concat();
            let result = TracesData {
                resource_spans: ResourceSpans(&spans),
            };
            Ok((!spans.is_empty()).then(|| encode(&Wrapped { result })))
        })
        .await?;
    Ok(json(StatusCode::OK, body.ok_or_else(none_found)?))
}

pub async fn summaries(State(state): State<ApiState>, uri: Uri) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct Summaries {
        summaries: Vec<SummaryJson>,
    }
    let search = read_search(&Params::of(&uri)?)?;
    let found = state.querier.ask(move |question| question.search(&search)).await?;
    Ok(json(
        StatusCode::OK,
        encode(&Summaries {
            summaries: found.traces.into_iter().map(SummaryJson::new).collect(),
        }),
    ))
}

/// Protobuf's JSON mapping: 64-bit numbers as strings, fields at their default left out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SummaryJson {
    trace_id: TraceId,
    #[serde(skip_serializing_if = "String::is_empty")]
    root_service_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    root_operation_name: String,
    min_start_time_unix_nano: String,
    max_end_time_unix_nano: String,
    span_count: usize,
    #[serde(skip_serializing_if = "is_zero")]
    error_span_count: usize,
    #[serde(skip_serializing_if = "is_zero")]
    orphan_span_count: usize,
    services: Vec<ServiceJson>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceJson {
    name: String,
    span_count: usize,
    #[serde(skip_serializing_if = "is_zero")]
    error_span_count: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl SummaryJson {
    pub fn new(summary: TraceSummary) -> SummaryJson {
        let (root_service_name, root_operation_name) = summary
            .root
            .map_or_else(Default::default, |root| (root.service, root.operation));
        // By name, as Jaeger sorts them.
        let services: BTreeMap<String, ServiceJson> = summary
            .services
            .into_iter()
            .map(|share| {
                let json = ServiceJson {
                    name: share.name.clone(),
                    span_count: share.spans,
                    error_span_count: share.errors,
                };
                (share.name, json)
            })
            .collect();
        SummaryJson {
            trace_id: summary.tracking_id,
            root_service_name,
            root_operation_name,
            min_start_time_unix_nano: summary.start_unix_nano.to_string(),
            max_end_time_unix_nano: summary.start_unix_nano.saturating_add(summary.duration_ns).to_string(),
            span_count: summary.span_count,
            error_span_count: summary.error_count,
            orphan_span_count: summary.orphan_count,
            services: services.into_values().collect(),
        }
    }
}

fn read_search(params: &Params) -> Result<TraceSearch, BadParam> {
    if params.get("query.filter").is_some() {
        return Err(BadParam(
            "the parameter query.filter is not supported; use query.attributes".to_owned(),
        ));
    }
    let time = |names: &[&str; 2]| {
        params
            .read_any(names, parse_rfc3339, "a time in RFC 3339")?
            .ok_or_else(|| BadParam(format!("{} and {} are required", TIME_MIN[0], TIME_MAX[0])))
    };
    let (start, end) = (time(&TIME_MIN)?, time(&TIME_MAX)?);
    if start >= end {
        return Err(BadParam(format!("{} must be before {}", TIME_MIN[0], TIME_MAX[0])));
    }
    let tags = match params.get(ATTRIBUTES) {
        None => BTreeMap::new(),
        Some(object) => serde_json::from_str::<BTreeMap<String, String>>(object)
            .map_err(|error| BadParam(format!("malformed parameter {ATTRIBUTES}: {error}")))?,
    };
    let search = TraceSearch {
        service: params.first(&SERVICE).map(str::to_owned),
        operation: params.first(&OPERATION).map(str::to_owned),
        kind: None,
        tags: tags.into_iter().map(|(key, value)| (key, Some(value))).collect(),
        min_duration: params.duration(&DURATION_MIN)?,
        max_duration: params.duration(&DURATION_MAX)?,
        time: start..end.saturating_add(1),
        errors: false,
        limit: params.limit(&DEPTH)?.unwrap_or(DEFAULT_DEPTH),
    };
    check_durations(&search, DURATION_MIN[0], DURATION_MAX[0])?;
    Ok(search)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<TraceSearch, String> {
        read_search(&Params::of(&format!("/x?{query}").parse().unwrap()).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn both_spellings_of_parameters_are_read() {
        let times = "query.startTimeMin=2026-11-20T00:00:00Z&query.start_time_max=2026-11-20T01:00:00%2B00:00";
        let search = read(&format!(
            "{times}&query.service_name=web&query.num_traces=3&query.attributes=%7B%22a%22%3A%22b%22%7D"
        ))
        .unwrap();
        assert_eq!(search.time.end - search.time.start, 3_600_000_000_001);
        assert_eq!((search.service.as_deref(), search.limit), (Some("web"), 3));
        assert_eq!(search.tags, [("a".to_owned(), Some("b".to_owned()))]);
    }

    #[test]
    fn times_are_required_and_ordered() {
        assert_eq!(
            read("").unwrap_err(),
            "query.startTimeMin and query.startTimeMax are required"
        );
        let error =
            read("query.startTimeMin=2026-11-20T01:00:00Z&query.startTimeMax=2026-11-20T00:00:00Z").unwrap_err();
        assert_eq!(error, "query.startTimeMin must be before query.startTimeMax");
        assert!(
            read("query.startTimeMin=yesterday&query.startTimeMax=x")
                .unwrap_err()
                .contains("RFC 3339")
        );
    }
}
