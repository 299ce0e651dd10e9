//! The HTTP door: POST of protobuf or JSON on a path per signal, and what browsers ask before they may.
//!
//! Source: the OTLP specification, "OTLP/HTTP".

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use model::Signal;
use net::{Request, Response, empty_body, full_body};

use super::cors::Cors;
use crate::admit::{Core, Translation};
use crate::answer::{Accepted, Kind, Refusal};
use crate::body;
use crate::guard::Guard;
use crate::inflate;
use crate::post::{self, Posted};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// How a request is written, and so its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Protobuf,
    Json,
}

static FROM_JSON: Translation = Translation {
    growth: |signal| match signal {
        // Two characters of a bucket count become eight bytes; of everything else the text is longer than its protobuf.
        Signal::Traces | Signal::Logs => 1,
        Signal::Metrics => 4,
    },
    translate: |signal, text, _| codec::otlp_json::to_protobuf(signal, text).map_err(|error| error.to_string()),
};

/// What the routes of the HTTP door share.
pub(super) struct HttpDoor {
    pub(super) core: Arc<Core>,
    pub(super) guard: Guard,
    /// Bytes of a body, compressed and inflated.
    pub(super) limit: usize,
    pub(super) include_metadata: bool,
    pub(super) cors: Option<Cors>,
}

/// Answers one request for a signal's path.
pub(super) async fn answer(door: Arc<HttpDoor>, signal: Signal, request: Request) -> Response {
    let origin = match (&door.cors, request.headers().get(header::ORIGIN)) {
        (Some(cors), Some(origin)) if cors.allows(origin) => Some(origin.clone()),
        _ => None,
    };
    let mut response = if *request.method() == Method::POST {
        post(&door, signal, request).await
    } else {
        not_post(&door, &request, origin.is_some())
    };
    if let (Some(cors), Some(origin)) = (&door.cors, origin) {
        cors.decorate(response.headers_mut(), origin);
    }
    response
}

/// A browser's preflight, or a method that these paths do not have.
fn not_post(door: &HttpDoor, request: &Request, origin_allowed: bool) -> Response {
    let preflight =
        *request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if let (true, true, Some(cors)) = (preflight, origin_allowed, &door.cors) {
        let mut response = http::Response::new(empty_body());
        *response.status_mut() = StatusCode::NO_CONTENT;
        cors.permit(response.headers_mut(), request.headers());
        return response;
    }
    let mut response = http::Response::new(full_body(format!(
        "{} is not possible here: telemetry is sent with POST\n",
        request.method()
    )));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static("POST, OPTIONS"));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

async fn post(door: &HttpDoor, signal: Signal, request: Request) -> Response {
    let (head, mut incoming) = request.into_parts();
    let format = format(&head.headers);
    match export(door, signal, format, &head, &mut incoming).await {
        Ok(accepted) => success(signal, format.unwrap_or(Format::Protobuf), &accepted),
        Err(refusal) => {
            door.core.count(signal, &refusal);
            body::discard(incoming);
            refuse(format, &refusal)
        }
    }
}

async fn export(
    door: &HttpDoor,
    signal: Signal,
    format: Option<Format>,
    head: &http::request::Parts,
    incoming: &mut hyper::body::Incoming,
) -> Result<Accepted, Refusal> {
    door.guard.check(&head.headers).await?;
    door.core.check_signal(signal)?;
    let Some(format) = format else {
        return Err(Refusal::new(
            Kind::MediaType,
            format!("the content type must be {PROTOBUF} or {JSON}"),
        ));
    };
    let posted = Posted {
        signal,
        translation: (format == Format::Json).then_some(&FROM_JSON),
        coding: post::coding(&head.headers)?,
        limit: door.limit,
        include_metadata: door.include_metadata,
    };
    post::take(&door.core, posted, head, incoming).await
}

fn format(headers: &HeaderMap) -> Option<Format> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media_type = value.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case(PROTOBUF) || media_type.eq_ignore_ascii_case("application/protobuf") {
        Some(Format::Protobuf)
    } else if media_type.eq_ignore_ascii_case(JSON) {
        Some(Format::Json)
    } else {
        None
    }
}

fn success(signal: Signal, format: Format, accepted: &Accepted) -> Response {
    let body = match format {
        Format::Protobuf => accepted.proto(),
        Format::Json => accepted.json(signal),
    };
    respond(StatusCode::OK, format, body)
}

/// A status message in the sender's own format; JSON for one that has none of ours, because people read that.
fn refuse(format: Option<Format>, refusal: &Refusal) -> Response {
    let format = format.unwrap_or(Format::Json);
    let body = match format {
        Format::Protobuf => refusal.status_proto(),
        Format::Json => refusal.status_json(),
    };
    let mut response = respond(refusal.http_status(), format, body);
    let headers = response.headers_mut();
    if let Some(seconds) = refusal.retry_after_seconds() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if refusal.kind == Kind::Coding {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(inflate::ACCEPTED));
    }
    if let Some(challenge) = &refusal.challenge {
        headers.insert(header::WWW_AUTHENTICATE, challenge.clone());
    }
    if refusal.kind == Kind::Stalled {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn respond(status: StatusCode, format: Format, body: Vec<u8>) -> Response {
    let mut response = http::Response::new(full_body(body));
    *response.status_mut() = status;
    let content_type = match format {
        Format::Protobuf => PROTOBUF,
        Format::Json => JSON,
    };
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
