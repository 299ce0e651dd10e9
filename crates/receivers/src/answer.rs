//! What a sender is told: success, partial success, or a refusal, worded once and spoken as gRPC or as HTTP.
//!
//! Source: the OTLP specification, "OTLP/gRPC Response", "OTLP/HTTP Response", and `google/rpc/status.proto`.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use model::wire;
use net::grpc::Code;
use pipeline::Reason;

/// A request that was taken, wholly or in part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Accepted {
    /// Items that were not taken and will not be.
    pub(crate) rejected: u64,
    /// Why, for the sender's developer.
    pub(crate) message: String,
}

/// Kinds of refusal. Each has one HTTP status, one gRPC code and one reason in the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Larger than the limit, compressed or not.
    TooLarge,
    /// Later, with the same bytes: memory, journal, shutdown.
    Later(Reason),
    /// Bytes that are not what they should be.
    Malformed,
    /// No pipeline takes this signal.
    NoPipeline,
    /// The sender did not say who it is, or is not one that may send.
    Unauthorized,
    /// A content type we do not speak.
    MediaType,
    /// A compression we do not take.
    Coding,
    /// More of the headers that are to be kept than are.
    Metadata,
    /// The body came too slowly.
    Stalled,
    /// The rules of gRPC were broken.
    Protocol,
    /// The sender is gone and hears nothing.
    Gone,
}

/// A request that was not taken at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    pub(crate) message: Cow<'static, str>,
    /// When to try again; only with [`Kind::Later`].
    pub(crate) retry_after: Option<Duration>,
    /// Whether the pipeline has already written it into the books.
    pub(crate) counted: bool,
    /// What `WWW-Authenticate` says; only with [`Kind::Unauthorized`].
    pub(crate) challenge: Option<HeaderValue>,
}

impl Refusal {
    pub(crate) fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry_after: None,
            counted: false,
            challenge: None,
        }
    }

    pub(crate) fn later(reason: Reason, after: Duration) -> Self {
        Self {
            kind: Kind::Later(reason),
            message: reason.explanation().into(),
            retry_after: Some(after),
            counted: false,
            challenge: None,
        }
    }

    pub(crate) fn http_status(&self) -> StatusCode {
        match self.kind {
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::Later(_) => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Malformed | Kind::Protocol | Kind::Gone => StatusCode::BAD_REQUEST,
            Kind::NoPipeline => StatusCode::NOT_FOUND,
            Kind::Unauthorized => StatusCode::UNAUTHORIZED,
            Kind::MediaType | Kind::Coding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Kind::Metadata => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Kind::Stalled => StatusCode::REQUEST_TIMEOUT,
        }
    }

    pub(crate) fn grpc_code(&self) -> Code {
        match self.kind {
            Kind::TooLarge => Code::ResourceExhausted,
            Kind::Later(_) => Code::Unavailable,
            Kind::Malformed | Kind::Metadata => Code::InvalidArgument,
            Kind::NoPipeline | Kind::Coding | Kind::MediaType => Code::Unimplemented,
            Kind::Unauthorized => Code::Unauthenticated,
            Kind::Stalled => Code::DeadlineExceeded,
            Kind::Protocol => Code::Internal,
            Kind::Gone => Code::Cancelled,
        }
    }

    /// Under which word it is counted, and whether the sender may send it again.
    pub(crate) fn reason(&self) -> (Reason, bool) {
        match self.kind {
            Kind::TooLarge | Kind::Metadata => (Reason::TooLarge, false),
            Kind::Later(reason) => (reason, true),
            Kind::NoPipeline => (Reason::NoPipeline, false),
            Kind::Unauthorized => (Reason::Unauthorized, false),
            Kind::Malformed | Kind::MediaType | Kind::Coding | Kind::Protocol => (Reason::Malformed, false),
            Kind::Stalled | Kind::Gone => (Reason::Lost, true),
        }
    }

    /// Seconds for `Retry-After`, rounded up so that nobody is told to come back at once.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        let after = self.retry_after?;
        Some((after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1))
    }

    /// `google.rpc.Status`, with `RetryInfo` where the sender may try again: without it, gRPC exporters drop the data.
    pub(crate) fn status_proto(&self) -> Vec<u8> {
        const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
        let mut out = Vec::with_capacity(128);
        wire::put_tag(&mut out, 1, wire::VARINT);
        wire::put_varint(&mut out, self.grpc_code() as u64);
        wire::put_bytes(&mut out, 2, self.message.as_bytes());
        if let Some(seconds) = self.retry_after_seconds() {
            let mut duration = Vec::new();
            wire::put_tag(&mut duration, 1, wire::VARINT);
            wire::put_varint(&mut duration, seconds);
            let mut info = Vec::new();
            wire::put_bytes(&mut info, 1, &duration);
            let mut any = Vec::new();
            wire::put_bytes(&mut any, 1, RETRY_INFO.as_bytes());
            wire::put_bytes(&mut any, 2, &info);
            wire::put_bytes(&mut out, 3, &any);
        }
        out
    }

    /// `google.rpc.Status` as JSON.
    pub(crate) fn status_json(&self) -> Vec<u8> {
        let mut status = serde_json::json!({ "code": self.grpc_code() as u32, "message": self.message });
        if let Some(seconds) = self.retry_after_seconds() {
            status["details"] = serde_json::json!([{
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": format!("{seconds}s"),
            }]);
        }
        status.to_string().into_bytes()
    }
}
