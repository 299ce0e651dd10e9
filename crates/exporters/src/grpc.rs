//! Why: a unary call of gRPC, for every exporter whose backend speaks it: five bytes of frame, one message, trailers, on `hyper`.
//!
//! Sources: "gRPC over HTTP2" of the gRPC project; which codes are worth another try is from the OpenTelemetry Protocol Specification, "OTLP/gRPC
//! Response", and fits other services as well.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::TE;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use model::Meta;
use model::wire::{Fields, Payload};
use net::auth;
use net::dial::{Answer, Client, Target};
use net::grpc::Code;
use pipeline::config::{Problems, Section};
use pipeline::{Outcome, Reason};

use crate::request::{BuildError, Packed, authenticator, request_headers, shortened, speaks_for_senders, unauthorized};
use crate::sender::Shared;

/// Compressed flag and length, before the message.
const FRAME_BYTES: usize = 5;

/// Says what is wrong with an `endpoint`, which is `host:port` with or without a scheme. `with_path` is the exporter to use where there is a path.
pub fn check_endpoint(section: &Section<'_>, endpoint: &str, with_path: &str) -> Result<(), Problems> {
    let target = Target::parse(endpoint).map_err(|why| section.problem(&["endpoint"], format!("endpoint: {why}")))?;
    if !matches!(target.path.as_str(), "" | "/") {
        let problem = format!("endpoint: gRPC has no path; {with_path}");
        return Err(section.problem(&["endpoint"], problem));
    }
    Ok(())
}

/// The methods of one backend.
pub struct Calls {
    client: Client,
    headers: HeaderMap,
    auth: Option<Arc<auth::Client>>,
}

impl Calls {
    /// Reads certificates; connects with the first call.
    pub fn new(endpoint: &str, default_port: u16, shared: &Shared) -> Result<Calls, BuildError> {
        let target = Target::parse(endpoint).map_err(BuildError::Endpoint)?;
        let tls = shared.tls.clone().unwrap_or_default();
        let secure = target.https.unwrap_or(!tls.insecure);
        let port = target.port.unwrap_or(default_port);
        let client = Client::new(&target.host, port, secure.then_some(&tls), true)?;
        let mut headers = request_headers(shared, "application/grpc")?;
        headers.insert(TE, HeaderValue::from_static("trailers"));
        Ok(Calls {
            client,
            headers,
            auth: authenticator(shared)?,
        })
    }

    /// The request headers that go out again, in lower case.
    pub fn metadata_keys(&self) -> Vec<Arc<str>> {
        self.auth.as_ref().map(|auth| auth.metadata_keys()).unwrap_or_default()
    }

    /// Calls `package.Service/Method` with one message that holds `items` items, which arrived so. The answer's message, or what has become of the items.
    pub async fn call(&self, method: &str, packed: Packed, meta: &Meta, items: u32) -> Result<Bytes, Outcome> {
        let mut frame = BytesMut::with_capacity(FRAME_BYTES + packed.bytes.len());
        frame.put_u8(u8::from(packed.encoding.is_some()));
        let Ok(length) = u32::try_from(packed.bytes.len()) else {
            return Err(Outcome::rejected(
                Reason::TooLarge,
                "more than gRPC's length can say",
                items,
            ));
        };
        frame.put_u32(length);
        frame.put_slice(&packed.bytes);
        let uri = format!("{}://{}/{method}", self.client.scheme(), self.client.address());
        let mut request = Request::new(Full::new(frame.freeze()));
        *request.method_mut() = Method::POST;
        match uri.parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => {
                return Err(Outcome::rejected(
                    Reason::BackendRejected,
                    format!("{uri}: {error}"),
                    items,
                ));
            }
        }
        *request.headers_mut() = self.headers.clone();
        if let Some(encoding) = packed.encoding {
            request
                .headers_mut()
                .insert("grpc-encoding", HeaderValue::from_static(encoding));
        }
        if let Some(auth) = &self.auth {
            auth.prepare(request.headers_mut(), &meta.headers);
        }
        match self.client.send(request).await {
            Ok(answer) => {
                let waits_for_us = !speaks_for_senders(self.auth.as_deref());
                message(&answer, items, waits_for_us.then(|| self.client.address()).as_deref())
            }
            Err(error) => {
                tracing::warn!("{error}; it is tried again");
                Err(Outcome::retry(Duration::ZERO, Reason::BackendUnavailable))
            }
        }
    }
}

/// The message of a successful answer, else what has become of the items. `ours` is the backend if credentials that it refuses are ours.
fn message(answer: &Answer, items: u32, ours: Option<&str>) -> Result<Bytes, Outcome> {
    // Without a message the status stands in the headers, else in the trailers.
    let status = |name: &str| answer.trailers.get(name).or_else(|| answer.headers.get(name));
    let code = match status("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok()) {
        Some(number) => Code::from_number(number),
        None => code_of_http(answer.status),
    };
    let told = status("grpc-message")
        .map(|text| percent_decode(text.as_bytes()))
        .unwrap_or_default();
    let details = status("grpc-status-details-bin").and_then(|details| decode_base64(details.as_bytes()));
    let wait = details.as_deref().and_then(retry_delay);
    match code {
        Code::Ok => Ok(message_of(&answer.body)),
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Err(Outcome::retry(wait.unwrap_or_default(), Reason::BackendUnavailable)),
        // Only if the backend says when; otherwise the request itself is what is too much.
        Code::ResourceExhausted if wait.is_some() => {
            Err(Outcome::retry(wait.unwrap_or_default(), Reason::BackendUnavailable))
        }
        Code::Unauthenticated | Code::PermissionDenied if let Some(backend) = ours => {
            let why = format!("{code:?}: {}", shortened(&told));
            Err(unauthorized(backend, &why, wait.unwrap_or_default()))
        }
        code => Err(Outcome::rejected(
            Reason::BackendRejected,
            format!("{code:?}: {}", shortened(&told)),
            items,
        )),
    }
}

/// gRPC's own table for answers from proxies that do not speak it.
fn code_of_http(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        // A success without a status is a connection that was cut off after the message.
        200 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// The one message of the answer, if it is not compressed (we do not say that we take it compressed); else nothing.
fn message_of(body: &Bytes) -> Bytes {
    let Some(&[0, a, b, c, d]) = body.first_chunk::<FRAME_BYTES>() else {
        return Bytes::new();
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let message = body.slice(FRAME_BYTES..);
    if length <= message.len() {
        message.slice(..length)
    } else {
        Bytes::new()
    }
}

/// `google.rpc.Status {3: Any {1: type, 2: RetryInfo {1: Duration {1: seconds, 2: nanos}}}}`.
fn retry_delay(status: &[u8]) -> Option<Duration> {
    Fields::new(status)
        .filter(|(number, _)| *number == 3)
        .find_map(|(_, any)| {
            let any = any.bytes();
            if !field(any, 1).bytes().ends_with(b"google.rpc.RetryInfo") {
                return None;
            }
            // A RetryInfo without a delay says "again, at once".
            let delay = field(field(any, 2).bytes(), 1).bytes();
            let (seconds, nanos) = (
                i64::try_from(field(delay, 1).varint()).unwrap_or(0),
                u32::try_from(field(delay, 2).varint()).unwrap_or(0),
            );
            Some(Duration::new(seconds.clamp(0, 86_400) as u64, nanos.min(999_999_999)))
        })
}

/// The last field of this number; without one, nothing. What does not decode ends the walk: an answer that is garbage says nothing.
pub fn field(message: &[u8], number: u32) -> Payload<'_> {
    let found = Fields::new(message).filter(|(found, _)| *found == number).last();
    found.map_or(Payload::Bytes(&[]), |(_, payload)| payload)
}

fn percent_decode(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'%').then(|| after.get(..2)).flatten();
        let decoded = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        out.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Base64 with or without padding, as gRPC's binary headers are.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.iter().take_while(|byte| **byte != b'=').map(|byte| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    });
    let (mut out, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for digit in digits {
        bits = bits << 6 | u32::from(digit?);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: &str, trailers: &[(&'static str, &str)]) -> Answer {
        let mut map = HeaderMap::new();
        map.insert("grpc-status", status.parse().expect("a value"));
        for (key, value) in trailers {
            map.insert(*key, value.parse().expect("a value"));
        }
        Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::from_static(&[0; 5]),
            trailers: map,
        }
    }

    #[test]
    fn codes_as_the_specification_has_them() {
        let message = |answer: &Answer| message(answer, 5, Some("backend:4317"));
        assert_eq!(message(&answer("0", &[])), Ok(Bytes::new()));
        for retryable in ["1", "4", "10", "11", "14", "15"] {
            let expect = Outcome::retry(Duration::ZERO, Reason::BackendUnavailable);
            assert_eq!(message(&answer(retryable, &[])), Err(expect), "{retryable}");
        }
        for about_us in ["7", "16"] {
            let expect = Outcome::retry(Duration::ZERO, Reason::BackendUnauthorized);
            assert_eq!(message(&answer(about_us, &[])), Err(expect), "{about_us}");
        }
        for fatal in ["2", "3", "5", "6", "8", "9", "12", "13", "99"] {
            assert!(
                matches!(message(&answer(fatal, &[])), Err(Outcome::Rejected { items: 5, .. })),
                "{fatal}"
            );
        }
    }

    #[test]
    fn a_backend_may_ask_to_wait() {
        // Status{details: [Any{type.googleapis.com/google.rpc.RetryInfo, RetryInfo{retry_delay: 7.5 s}}]}
        let delay = [&[0x0a, 7, 0x08, 7, 0x10][..], &[0x80, 0xca, 0xb5, 0xee, 0x01]].concat();
        let delay = [&[0x0a, 8][..], &delay[2..]].concat();
        let kind = b"type.googleapis.com/google.rpc.RetryInfo";
        let any = [&[0x0a, kind.len() as u8][..], kind, &[0x12, delay.len() as u8], &delay].concat();
        let status = [&[0x1a, any.len() as u8][..], &any].concat();
        assert_eq!(retry_delay(&status), Some(Duration::from_millis(7_500)));
        assert_eq!(retry_delay(b""), None);
        let encoded = "GjQKKHR5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnJwYy5SZXRyeUluZm8SCAoGCAcQgMq17gE";
        assert!(decode_base64(encoded.as_bytes()).is_some());
    }

    #[test]
    fn messages_are_decoded_and_kept_short() {
        let answer = answer("3", &[("grpc-message", "bad%20ids%0a%")]);
        assert_eq!(
            message(&answer, 2, Some("backend:4317")),
            Err(Outcome::rejected(
                Reason::BackendRejected,
                "InvalidArgument: bad ids %",
                2
            ))
        );
    }

    #[test]
    fn base64_as_grpc_writes_it() {
        assert_eq!(decode_base64(b"aGVsbG8").as_deref(), Some(&b"hello"[..]));
        assert_eq!(decode_base64(b"aGVsbG8=").as_deref(), Some(&b"hello"[..]));
        assert_eq!(decode_base64(b"a*"), None);
    }
}
