//! Unary calls of gRPC, by hand, because one frame, one message and three trailers need no framework, and because a
//! framework would inflate the message itself, with a slower library.
//!
//! Source: "gRPC over HTTP2" (PROTOCOL-HTTP2.md) and "Compression" of the gRPC project.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt;
use model::Signal;
use net::grpc::{self, Code};
use net::{Peer, Request, Response};

use crate::admit::{Arrived, Core, Translation, read_refusal};
use crate::answer::{Accepted, Kind, Refusal};
use crate::body::{self, GRPC_PREFIX_BYTES, Length};
use crate::guard::Guard;
use crate::inflate::Coding;
use crate::metadata;

/// What we say we take, in `grpc-accept-encoding`.
const ACCEPTED: HeaderValue = HeaderValue::from_static("gzip, zstd, identity");

/// A method that telemetry is sent with.
#[derive(Clone, Copy)]
pub(crate) struct Method {
    pub(crate) service: &'static str,
    pub(crate) name: &'static str,
    pub(crate) signal: Signal,
    /// `None` for OTLP's protobuf.
    pub(crate) translation: Option<&'static Translation>,
    /// Bytes of a message, compressed and inflated.
    pub(crate) limit: usize,
    pub(crate) include_metadata: bool,
    /// The answer's message.
    pub(crate) reply: fn(&Accepted) -> Result<Vec<u8>, Refusal>,
}

/// Answers one call of the method's service.
pub(crate) async fn answer(core: Arc<Core>, guard: Guard, method: Method, request: Request) -> Response {
    if *request.method() != http::Method::POST {
        let mut response = grpc::status_only(Code::Internal, "gRPC calls are POST requests");
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let called = request.uri().path().rsplit('/').next().unwrap_or_default();
    if called != method.name {
        return grpc::status_only(
            Code::Unimplemented,
            &format!("{} has no method {called}; it has {}", method.service, method.name),
        );
    }
    let accepted = match guard.check(request.headers()).await {
        Ok(()) => take(&core, method, request).await,
        Err(refusal) => Err(refusal),
    };
    match accepted.and_then(|accepted| (method.reply)(&accepted)) {
        Ok(message) => success(&message),
        Err(refusal) => {
            core.count(method.signal, &refusal);
            refuse(&refusal)
        }
    }
}

async fn take(core: &Arc<Core>, method: Method, request: Request) -> Result<Accepted, Refusal> {
    let limit = method.limit;
    core.check_signal(method.signal)?;
    let encoding = request.headers().get("grpc-encoding").map(HeaderValue::as_bytes);
    let coding = coding(encoding)?;
    let headers = metadata::kept(
        core,
        method.include_metadata,
        method.signal,
        request.headers(),
        request.uri(),
    )?;
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let mut incoming = request.into_body();
    let (frame, lease) = body::read(
        &mut incoming,
        Length::GrpcPrefix,
        limit,
        core.intake.budget(),
        core.patience,
    )
    .await
    .map_err(|error| read_refusal(error, limit))?;
    let (compressed, message) = unframe(&frame)?;
    let coding = match (compressed, coding) {
        (false, _) => Coding::Identity,
        (true, Coding::Identity) => {
            return Err(Refusal::new(
                Kind::Protocol,
                "the message is flagged as compressed but grpc-encoding names no compression",
            ));
        }
        (true, coding) => coding,
    };
    core.admit(Arrived {
        signal: method.signal,
        translation: method.translation,
        coding,
        body: message,
        lease,
        peer,
        headers,
        limit,
    })
    .await
}

/// What `grpc-encoding` names. gRPC has no code for it but UNIMPLEMENTED.
fn coding(name: Option<&[u8]>) -> Result<Coding, Refusal> {
    let Some(name) = name else {
        return Ok(Coding::Identity);
    };
    std::str::from_utf8(name)
        .ok()
        .and_then(Coding::parse)
        .filter(|coding| *coding != Coding::Deflate)
        .ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            Refusal::new(
                Kind::Coding,
                format!("grpc-encoding {name} is not supported; use gzip, zstd or identity"),
            )
        })
}

/// The one message of a unary call, and whether it is compressed.
fn unframe(frame: &Bytes) -> Result<(bool, Bytes), Refusal> {
    let protocol = |message: &'static str| Refusal::new(Kind::Protocol, message);
    let Some(&[flag, a, b, c, d]) = frame.first_chunk::<GRPC_PREFIX_BYTES>() else {
        return Err(protocol("the request has no gRPC message"));
    };
    let message = frame.slice(GRPC_PREFIX_BYTES..);
    if message.len() as u64 != u64::from(u32::from_be_bytes([a, b, c, d])) {
        return Err(protocol("the gRPC message is cut short"));
    }
    match flag {
        0 => Ok((false, message)),
        1 => Ok((true, message)),
        _ => Err(protocol("the flag in front of the gRPC message is neither 0 nor 1")),
    }
}

fn success(message: &[u8]) -> Response {
    let mut data = Vec::with_capacity(GRPC_PREFIX_BYTES + message.len());
    data.push(0);
    data.extend_from_slice(&(message.len() as u32).to_be_bytes());
    data.extend_from_slice(message);
    let mut trailers = HeaderMap::with_capacity(1);
    grpc::write_status(&mut trailers, Code::Ok, "");
    let body = Unary {
        data: Some(data.into()),
        trailers: Some(trailers),
    };
    let mut response = http::Response::new(body.map_err(|never| match never {}).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-accept-encoding", ACCEPTED);
    response
}

fn refuse(refusal: &Refusal) -> Response {
    let mut response = grpc::status_only(refusal.grpc_code(), &refusal.message);
    let headers = response.headers_mut();
    if refusal.kind == Kind::Coding {
        headers.insert("grpc-accept-encoding", ACCEPTED);
    }
    if refusal.retry_after.is_some() {
        // Binary headers are base64; padding may be left out and often is.
        let details = model::base64::encode(&refusal.status_proto());
        if let Ok(details) = HeaderValue::from_str(details.trim_end_matches('=')) {
            headers.insert("grpc-status-details-bin", details);
        }
    }
    response
}

/// One message and the trailers behind it.
struct Unary {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for Unary {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.data.take() {
            Some(data) => Some(Frame::data(data)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }
}
