//! Why: to hand everything on to another collector or a backend, over OTLP/gRPC.
//!
//! ```yaml
//! exporters:
//!   otlp/backend:
//!     endpoint: backend:4317
//!     tls: { insecure: true }
//!     headers: { authorization: "Bearer ${TOKEN}" }
//!     compression: gzip
//!     timeout: 5s
//! ```
//!
//! The unary call is ours on `hyper`: five bytes of frame, one message, trailers. Sources: "gRPC over HTTP2" of the gRPC project, and the OpenTelemetry
//! Protocol Specification, "OTLP/gRPC Response".

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::TE;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use model::{Batch, Signal};
use net::dial::{Answer, Client, Target};
use net::grpc::Code;
use pipeline::config::{Problems, Section};
use pipeline::{BoxFuture, Exporter, Outcome, Reason};
use serde::Deserialize;

use crate::otlp_request::{outcome_of, protobuf, service};
use crate::request::{BuildError, Packing, pack, request_headers, shortened};
use crate::sender::{Own, Sender};

/// The port of OTLP/gRPC where none is written.
const DEFAULT_PORT: u16 = 4317;

/// Compressed flag and length, before the message.
const FRAME_BYTES: usize = 5;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where to: `host:port`, or with `http://` (no TLS) or `https://`. Without a scheme it is TLS unless `tls` says `insecure`.
    pub endpoint: String,
}

/// Everything about one of these exporters.
pub type Config = Sender<Settings>;

impl Own for Settings {
    const TIMEOUT: Duration = Duration::from_secs(5);
}

pub fn parse(section: &Section<'_>) -> Result<Config, Problems> {
    let config = Config::parse(section)?;
    let target = Target::parse(&config.own.endpoint)
        .map_err(|why| section.problem(&["endpoint"], format!("endpoint: {why}")))?;
    if !matches!(target.path.as_str(), "" | "/") {
        return Err(section.problem(
            &["endpoint"],
            "endpoint: gRPC has no path; `otlphttp` is the exporter with one",
        ));
    }
    Ok(config)
}

/// Sends over OTLP/gRPC.
pub struct Otlp {
    client: Client,
    headers: HeaderMap,
    packing: Packing,
}

impl Otlp {
    /// Reads certificates; connects with the first request.
    pub fn new(config: &Config) -> Result<Otlp, BuildError> {
        let target = Target::parse(&config.own.endpoint).map_err(BuildError::Endpoint)?;
        let tls = config.shared.tls.clone().unwrap_or_default();
        let secure = target.https.unwrap_or(!tls.insecure);
        let port = target.port.unwrap_or(DEFAULT_PORT);
        let client = Client::new(&target.host, port, secure.then(|| tls.client()).as_ref(), true)?;
        let mut headers = request_headers(&config.shared, "application/grpc")?;
        headers.insert(TE, HeaderValue::from_static("trailers"));
        Ok(Otlp {
            client,
            headers,
            packing: config.shared.compression,
        })
    }

    async fn call(&self, batch: Batch) -> Outcome {
        let packed = pack(&batch, self.packing);
        let mut frame = BytesMut::with_capacity(FRAME_BYTES + packed.bytes.len());
        frame.put_u8(u8::from(packed.encoding.is_some()));
        let Ok(length) = u32::try_from(packed.bytes.len()) else {
            return Outcome::rejected(Reason::TooLarge, "more than gRPC's length can say", batch.items);
        };
        frame.put_u32(length);
        frame.put_slice(&packed.bytes);
        let uri = format!(
            "{}://{}/{}/Export",
            self.client.scheme(),
            self.client.address(),
            service(batch.signal)
        );
        let mut request = Request::new(Full::new(frame.freeze()));
        *request.method_mut() = Method::POST;
        match uri.parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => return Outcome::rejected(Reason::BackendRejected, format!("{uri}: {error}"), batch.items),
        }
        *request.headers_mut() = self.headers.clone();
        if let Some(encoding) = packed.encoding {
            request
                .headers_mut()
                .insert("grpc-encoding", HeaderValue::from_static(encoding));
        }
        match self.client.send(request).await {
            Ok(answer) => outcome(&answer, batch.items),
            Err(error) => {
                tracing::warn!("{error}; it is tried again");
                Outcome::retry(Duration::ZERO, Reason::BackendUnavailable)
            }
        }
    }
}

impl Exporter for Otlp {
    fn takes(&self, _signal: Signal) -> bool {
        true
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(self.call(batch))
    }
}

/// What an answer means for the batch.
fn outcome(answer: &Answer, items: u32) -> Outcome {
    // Without a message the status stands in the headers, else in the trailers.
    let status = |name: &str| answer.trailers.get(name).or_else(|| answer.headers.get(name));
    let code = match status("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok()) {
        Some(number) => Code::from_number(number),
        None => code_of_http(answer.status),
    };
    let message = status("grpc-message")
        .map(|text| percent_decode(text.as_bytes()))
        .unwrap_or_default();
    let details = status("grpc-status-details-bin").and_then(|details| decode_base64(details.as_bytes()));
    let wait = details.as_deref().and_then(retry_delay);
    match code {
        Code::Ok => outcome_of(message_of(&answer.body).unwrap_or_default()),
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Outcome::retry(wait.unwrap_or_default(), Reason::BackendUnavailable),
        // Only if the backend says when; otherwise the request itself is what is too much.
        Code::ResourceExhausted if wait.is_some() => {
            Outcome::retry(wait.unwrap_or_default(), Reason::BackendUnavailable)
        }
        code => Outcome::rejected(
            Reason::BackendRejected,
            format!("{code:?}: {}", shortened(&message)),
            items,
        ),
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

/// The one message of the answer, if it is not compressed (we do not say that we take it compressed).
fn message_of(body: &Bytes) -> Option<&[u8]> {
    let (head, rest) = body.split_at_checked(FRAME_BYTES)?;
    let length = u32::from_be_bytes(head.get(1..)?.try_into().ok()?) as usize;
    (head.first() == Some(&0)).then(|| rest.get(..length)).flatten()
}

/// `google.rpc.Status {3: Any {1: type, 2: RetryInfo {1: Duration {1: seconds, 2: nanos}}}}`.
fn retry_delay(status: &[u8]) -> Option<Duration> {
    protobuf::fields(status)
        .filter(|(number, _)| *number == 3)
        .find_map(|(_, any)| {
            let any = any.bytes()?;
            let kind = protobuf::field(any, 1)?.bytes()?;
            if !kind.ends_with(b"google.rpc.RetryInfo") {
                return None;
            }
            let info = protobuf::field(any, 2)?.bytes()?;
            // A RetryInfo without a delay says "again, at once".
            let Some(delay) = protobuf::field(info, 1).and_then(protobuf::Field::bytes) else {
                return Some(Duration::ZERO);
            };
            let number = |field| {
                protobuf::field(delay, field)
                    .and_then(protobuf::Field::varint)
                    .unwrap_or(0)
            };
            let (seconds, nanos) = (
                i64::try_from(number(1)).unwrap_or(0),
                u32::try_from(number(2)).unwrap_or(0),
            );
            Some(Duration::new(seconds.clamp(0, 86_400) as u64, nanos.min(999_999_999)))
        })
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
        assert_eq!(outcome(&answer("0", &[]), 5), Outcome::Delivered);
        for retryable in ["1", "4", "10", "11", "14", "15"] {
            let expect = Outcome::retry(Duration::ZERO, Reason::BackendUnavailable);
            assert_eq!(outcome(&answer(retryable, &[]), 5), expect, "{retryable}");
        }
        for fatal in ["2", "3", "5", "6", "7", "8", "9", "12", "13", "16", "99"] {
            assert!(
                matches!(outcome(&answer(fatal, &[]), 5), Outcome::Rejected { items: 5, .. }),
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
            outcome(&answer, 2),
            Outcome::rejected(Reason::BackendRejected, "InvalidArgument: bad ids %", 2)
        );
    }

    #[test]
    fn base64_as_grpc_writes_it() {
        assert_eq!(decode_base64(b"aGVsbG8").as_deref(), Some(&b"hello"[..]));
        assert_eq!(decode_base64(b"aGVsbG8=").as_deref(), Some(&b"hello"[..]));
        assert_eq!(decode_base64(b"a*"), None);
    }
}
