//! gRPC's own words: status codes, and an answer that consists of a status only.
//!
//! Source: "gRPC over HTTP2" (PROTOCOL-HTTP2.md) of the gRPC project.

use http::{HeaderMap, HeaderValue, Response as HttpResponse, StatusCode, header};

use crate::service::{Response, empty_body};

/// The codes we answer with or read; numbers are gRPC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// The code with this number; numbers nobody defined are `Unknown`, as gRPC asks.
    pub fn from_number(number: u32) -> Self {
        const ALL: [Code; 17] = [
            Code::Ok,
            Code::Cancelled,
            Code::Unknown,
            Code::InvalidArgument,
            Code::DeadlineExceeded,
            Code::NotFound,
            Code::AlreadyExists,
            Code::PermissionDenied,
            Code::ResourceExhausted,
            Code::FailedPrecondition,
            Code::Aborted,
            Code::OutOfRange,
            Code::Unimplemented,
            Code::Internal,
            Code::Unavailable,
            Code::DataLoss,
            Code::Unauthenticated,
        ];
        usize::try_from(number)
            .ok()
            .and_then(|n| ALL.get(n).copied())
            .unwrap_or(Code::Unknown)
    }
}

/// Whether a request says that it is gRPC (`application/grpc`, `application/grpc+proto`, …).
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| {
            v.strip_prefix("application/grpc")
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';', ' ']))
        })
}

/// Puts `grpc-status` and `grpc-message` into headers or trailers.
pub fn write_status(headers: &mut HeaderMap, code: Code, message: &str) {
    headers.insert("grpc-status", HeaderValue::from(code as u16));
    if !message.is_empty()
        && let Ok(value) = HeaderValue::from_str(&percent_encode(message))
    {
        headers.insert("grpc-message", value);
    }
}

/// An answer without a message: status in the headers ("Trailers-Only").
pub fn status_only(code: Code, message: &str) -> Response {
    let mut response = HttpResponse::new(empty_body());
    *response.status_mut() = StatusCode::OK;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    write_status(response.headers_mut(), code, message);
    response
}

/// `grpc-message` is percent-encoded: printable ASCII except `%` stays.
pub fn percent_encode(text: &str) -> String {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encode("50% ü\n"), "50%25 %C3%BC%0A");
    }

    #[test]
    fn numbers_map_to_their_code() {
        for n in 0..17 {
            assert_eq!(Code::from_number(n) as u32, n);
        }
        assert_eq!(Code::from_number(99), Code::Unknown);
    }
}
