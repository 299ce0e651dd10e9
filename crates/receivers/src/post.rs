//! Bodies that are posted over HTTP: read, and handed on to what all doors share.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use model::Signal;
use net::{Peer, Response, full_body};

use crate::admit::{Arrived, Core, Translation, read_refusal};
use crate::answer::{Accepted, Kind, Refusal};
use crate::body::{self, Length};
use crate::inflate::{self, Coding};
use crate::metadata;

/// What is known of a body before it is read.
pub(crate) struct Posted {
    pub(crate) signal: Signal,
    /// `None` for OTLP's protobuf.
    pub(crate) translation: Option<&'static Translation>,
    pub(crate) coding: Coding,
    /// Bytes of the body, compressed and inflated.
    pub(crate) limit: usize,
    pub(crate) include_metadata: bool,
}

/// Reads the body, takes it in and waits until the pipeline said what became of it.
pub(crate) async fn take(
    core: &Arc<Core>,
    posted: Posted,
    head: &http::request::Parts,
    incoming: &mut Incoming,
) -> Result<Accepted, Refusal> {
    let headers = metadata::kept(core, posted.include_metadata, posted.signal, &head.headers, &head.uri)?;
    let announced = head
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse().ok());
    let (bytes, lease) = body::read(
        incoming,
        Length::Header(announced),
        posted.limit,
        core.intake.budget(),
        core.patience,
    )
    .await
    .map_err(|error| read_refusal(error, posted.limit))?;
    core.admit(Arrived {
        signal: posted.signal,
        translation: posted.translation,
        coding: posted.coding,
        body: bytes,
        lease,
        peer: head.extensions.get::<Peer>().map(|peer| peer.0),
        headers,
        limit: posted.limit,
    })
    .await
}

/// What `content-encoding` names. Several codings one over the other are not telemetry.
pub(crate) fn coding(headers: &HeaderMap) -> Result<Coding, Refusal> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let name = values.next().map_or("", |v| v.to_str().unwrap_or("?"));
    match Coding::parse(name.trim()) {
        Some(coding) if values.next().is_none() => Ok(coding),
        _ => Err(Refusal::new(
            Kind::Coding,
            format!(
                "the content encoding is not supported; use one of {}",
                inflate::ACCEPTED
            ),
        )),
    }
}

/// The same, and snappy, which OTLP does not have.
pub(crate) fn coding_or_snappy(headers: &HeaderMap) -> Result<Coding, Refusal> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(name) if name.as_bytes().eq_ignore_ascii_case(b"snappy") => Ok(Coding::Snappy),
        _ => coding(headers),
    }
}

/// The media type, without its parameters and in lower case; empty where there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.unwrap_or_default().split(';').next().unwrap_or_default();
    media_type.trim().to_ascii_lowercase()
}

/// A refusal as a line of text.
pub(crate) fn refuse(refusal: &Refusal) -> Response {
    let mut response = text(refusal.http_status(), &refusal.message);
    let headers = response.headers_mut();
    if let Some(seconds) = refusal.retry_after_seconds() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(challenge) = &refusal.challenge {
        headers.insert(header::WWW_AUTHENTICATE, challenge.clone());
    }
    if refusal.kind == Kind::Stalled {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// An answer to a method that a path does not have.
pub(crate) fn only_post(method: &http::Method) -> Response {
    let message = format!("{method} is not possible here: telemetry is sent with POST");
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, &message);
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

fn text(status: StatusCode, message: &str) -> Response {
    let mut response = http::Response::new(full_body(format!("{message}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
