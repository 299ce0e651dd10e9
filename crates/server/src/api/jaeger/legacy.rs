//! Jaeger's legacy API: everything in one envelope, times in µs (dependencies in ms).

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use model::TraceId;
use model::record::SpanRecord;
use query::instant::now_unix_nano;
use query::search::TraceSearch;
use query::story::Kind;
use query::{Edge, Listed, MAX_TRACES, QueryError};
use serde::Serialize;

use super::super::params::{BadParam, Params, range};
use super::super::trackline::check_durations;
use super::super::{ApiState, encode, json, query_status};
use super::span_json::{LegacyId, TraceJson};

/// Jaeger's default for a search that does not say.
const DEFAULT_LIMIT: usize = 100;
/// How far back a search looks that does not say; Jaeger's UI always does.
const DEFAULT_LOOKBACK: Duration = Duration::from_secs(2 * 24 * 3600);
/// Jaeger's default for the graph of services.
const DEFAULT_GRAPH_LOOKBACK: Duration = Duration::from_secs(24 * 3600);
const MICRO_NS: u64 = 1_000;
const MILLI_NS: u64 = 1_000_000;

const NOT_FOUND: &str = "trace not found";
const CUT: &str = "there are more spans than one answer holds; ask for fewer traces";

#[derive(Serialize)]
struct Envelope<T> {
    data: T,
    total: usize,
    limit: usize,
    offset: usize,
    errors: Option<Vec<ErrorJson>>,
}

#[derive(Serialize)]
struct ErrorJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    msg: String,
    #[serde(rename = "traceID", skip_serializing_if = "Option::is_none")]
    trace_id: Option<LegacyId>,
}

fn envelope<T: Serialize>(data: T, total: usize) -> Envelope<T> {
    Envelope {
        data,
        total,
        limit: 0,
        offset: 0,
        errors: None,
    }
}

/// An error as Jaeger tells it.
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
        let error = ErrorJson {
            code: Some(self.status.as_u16()),
            msg: self.text,
            trace_id: None,
        };
        json(
            self.status,
            encode(&Envelope {
                errors: Some(vec![error]),
                ..envelope((), 0)
            }),
        )
    }
}

fn trace_id(text: &str) -> Result<TraceId, Refusal> {
    TraceId::parse(text)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("cannot parse traceID param: {error}")))
}

pub async fn services(State(state): State<ApiState>) -> Result<Response, Refusal> {
    let names = state.querier.ask(|question| Ok(question.services())).await?;
    let total = names.len();
    Ok(json(StatusCode::OK, encode(&envelope(names, total))))
}

pub async fn operation_names(State(state): State<ApiState>, Path(service): Path<String>) -> Result<Response, Refusal> {
    let names = state
        .querier
        .ask(move |question| Ok(question.operations(&service)))
        .await?;
    let total = names.len();
    Ok(json(StatusCode::OK, encode(&envelope(names, total))))
}

pub async fn operations(State(state): State<ApiState>, uri: Uri) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct Operation {
        name: String,
        #[serde(rename = "spanKind")]
        kind: &'static str,
    }
    let params = Params::of(&uri)?;
    let Some(service) = params.get("service").map(str::to_owned) else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "parameter 'service' is required"));
    };
    let kind = params.read("spanKind", Kind::from_name, "a kind of span")?;
    let found = state
        .querier
        .ask(move |question| question.operations_by_kind(&service))
        .await?;
    let operations: Vec<Operation> = found
        .into_iter()
        .filter(|(_, found)| kind.is_none() || *found == kind)
        .map(|(name, kind)| Operation {
            name,
            kind: kind_text(kind),
        })
        .collect();
    let total = operations.len();
    Ok(json(StatusCode::OK, encode(&envelope(operations, total))))
}

/// Jaeger writes no kind as nothing.
pub fn kind_text(kind: Option<Kind>) -> &'static str {
    kind.filter(|&kind| kind != Kind::Unspecified).map_or("", Kind::as_str)
}

pub async fn trace(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let id = trace_id(&id)?;
    let body = state
        .querier
        .ask(move |question| {
            let found = question.in_full(vec![id], &mut |_| {})?;
            Ok((!found.traces.is_empty()).then(|| encode(&traces(&found, Vec::new()))))
        })
        .await?;
    Ok(json(
        StatusCode::OK,
        body.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, NOT_FOUND))?,
    ))
}

fn traces(found: &Listed<Vec<SpanRecord>>, missing: Vec<TraceId>) -> impl Serialize {
    let mut errors: Vec<ErrorJson> = missing
        .into_iter()
        .map(|id| ErrorJson {
            code: None,
            msg: NOT_FOUND.to_owned(),
            trace_id: Some(LegacyId(id)),
        })
        .collect();
    if found.cut {
        errors.push(ErrorJson {
            code: None,
            msg: CUT.to_owned(),
            trace_id: None,
        });
    }
    let data: Vec<TraceJson> = found.traces.iter().map(|spans| TraceJson::new(spans)).collect();
    Envelope {
        errors: (!errors.is_empty()).then_some(errors),
        ..envelope(data, 0)
    }
}

pub async fn search(State(state): State<ApiState>, uri: Uri) -> Result<Response, Refusal> {
    let params = Params::of(&uri)?;
    let ids = params
        .all("traceID")
        .take(MAX_TRACES)
        .map(trace_id)
        .collect::<Result<Vec<_>, _>>()?;
    let search = read_search(&params)?;
    let body = state
        .querier
        .ask(move |question| {
            if ids.is_empty() {
                return Ok(encode(&traces(&question.search_full(&search)?, Vec::new())));
            }
            let mut missing = Vec::new();
            let found = question.in_full(ids, &mut |id| missing.push(id))?;
            Ok(encode(&traces(&found, missing)))
        })
        .await?;
    Ok(json(StatusCode::OK, body))
}

fn read_search(params: &Params) -> Result<TraceSearch, BadParam> {
    let start = params.instant_in("start", MICRO_NS)?;
    let end = params.instant_in("end", MICRO_NS)?;
    let search = TraceSearch {
        service: params.get("service").map(str::to_owned),
        operation: params
            .get("operation")
            .filter(|&operation| operation != "all")
            .map(str::to_owned),
        kind: params.read("spanKind", Kind::from_name, "a kind of span")?,
        tags: tags(params)?,
        min_duration: params.duration(&["minDuration"])?,
        max_duration: params.duration(&["maxDuration"])?,
        time: range(start, end, lookback(params)?, DEFAULT_LOOKBACK, now_unix_nano()),
        errors: false,
        limit: params.limit(&["limit"])?.unwrap_or(DEFAULT_LIMIT),
    };
    check_durations(&search, "minDuration", "maxDuration")?;
    Ok(search)
}

/// `lookback=1h`; Jaeger's UI sends `custom` beside a start and an end.
fn lookback(params: &Params) -> Result<Option<Duration>, BadParam> {
    match params.get("lookback") {
        Some("custom") => Ok(None),
        _ => params.duration(&["lookback"]),
    }
}

/// `tag=key:value` (Jaeger) or `tag=key=value`, repeated, and `tags={"key":"value"}`.
fn tags(params: &Params) -> Result<Vec<(String, Option<String>)>, BadParam> {
    let mut tags = Vec::new();
    for tag in params.all("tag") {
        match tag.split_once([':', '=']) {
            Some((key, value)) if !key.is_empty() => tags.push((key.to_owned(), Some(value.to_owned()))),
            _ => {
                return Err(BadParam(format!(
                    "malformed 'tag' parameter, expecting key:value, received: {tag}"
                )));
            }
        }
    }
    for object in params.all("tags").filter(|object| !object.is_empty()) {
        let entries: serde_json::Map<String, serde_json::Value> = serde_json::from_str(object)
            .map_err(|error| BadParam(format!("malformed 'tags' parameter, cannot unmarshal JSON: {error}")))?;
        tags.extend(entries.into_iter().map(|(key, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (key, Some(text))
        }));
    }
    Ok(tags)
}

pub async fn dependencies(State(state): State<ApiState>, uri: Uri) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct Link {
        parent: String,
        child: String,
        #[serde(rename = "callCount")]
        call_count: u64,
    }
    let params = Params::of(&uri)?;
    let end = params.instant_in("endTs", MILLI_NS)?;
    let millis = |text: &str| text.parse().ok().map(Duration::from_millis);
    let lookback = params.read("lookback", millis, "a number of milliseconds")?;
    let service = params.get("service").map(str::to_owned);
    let time = range(None, end, lookback, DEFAULT_GRAPH_LOOKBACK, now_unix_nano());
    let found = state.querier.ask(move |question| question.dependencies(time)).await?;
    let wanted = |edge: &Edge| {
        service
            .as_ref()
            .is_none_or(|name| edge.parent == *name || edge.child == *name)
    };
    let links: Vec<Link> = found
        .edges
        .into_iter()
        .filter(wanted)
        .map(
            |Edge {
                 parent,
                 child,
                 call_count,
             }| Link {
                parent,
                child,
                call_count,
            },
        )
        .collect();
    let mut answer = envelope(links, 0);
    if found.cut {
        let text = "the time range holds more spans than are counted; the newest are".to_owned();
        answer.errors = Some(vec![ErrorJson {
            code: None,
            msg: text,
            trace_id: None,
        }]);
    }
    Ok(json(StatusCode::OK, encode(&answer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params::of(&format!("/x?{query}").parse().unwrap()).unwrap()
    }

    #[test]
    fn tags_come_as_pairs_and_as_json() {
        let read = tags(&params(
            "tag=a:b:c&tag=d=e&tags=%7B%22http.status_code%22%3A%22500%22%2C%22ok%22%3Atrue%7D",
        ))
        .unwrap();
        let text: Vec<String> = read
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_deref().unwrap_or("*")))
            .collect();
        assert_eq!(text, ["a=b:c", "d=e", "http.status_code=500", "ok=true"]);
        assert!(
            tags(&params("tag=alone"))
                .unwrap_err()
                .to_string()
                .contains("expecting key:value")
        );
        assert!(
            tags(&params("tags=%7B"))
                .unwrap_err()
                .to_string()
                .contains("cannot unmarshal JSON")
        );
    }

    #[test]
    fn a_search_is_read_as_jaegers_ui_writes_it() {
        let search = read_search(&params(
            "service=web&operation=all&start=1000000&end=2000000&minDuration=1.2s&maxDuration=&lookback=custom&limit=20",
        ))
        .unwrap();
        assert_eq!(search.time, 1_000_000_000..2_000_000_001);
        assert_eq!((search.operation, search.limit), (None, 20));
        assert_eq!(search.min_duration, Some(Duration::from_millis(1200)));
        let error = read_search(&params("minDuration=2s&maxDuration=1s")).unwrap_err();
        assert_eq!(error.to_string(), "'maxDuration' should be greater than 'minDuration'");
    }
}
