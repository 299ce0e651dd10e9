//! Why: how a request goes out, whatever its format: packed, posted, and its answer's status read. An exporter over HTTP adds what it sends and where.
//!
//! Source: RFC 9110; which statuses are worth another try is from the OpenTelemetry Protocol Specification 1.x, "OTLP/HTTP Response", and fits
//! other backends as well.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use model::instant::parse_http_date;
use model::{Batch, Compression, Meta};
use net::auth::{self, Auth, AuthError};
use net::dial::{Answer, Client, DialConfigError, DialError, Target, headers};
use net::proxy::{Proxy, ProxyError};
use pipeline::config::{Problems, Section};
use pipeline::{Outcome, Reason};
use serde::Deserialize;

use crate::sender::Shared;

/// The longest wait that a backend may ask for; beyond it, trying again is cheaper than a mistake in its clock.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// A backend's words in our log and ledger are cut here.
const MAX_MESSAGE_BYTES: usize = 512;

/// The collector's default is gzip; level 1 of a fast library packs telemetry nearly as well as the usual level 6.
const GZIP_LEVEL: i32 = 1;
const ZSTD_LEVEL: i32 = 1;

/// `compression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    #[default]
    Gzip,
    Zstd,
    None,
}

impl Packing {
    /// What a batch's wire form must be to go out as it is.
    pub fn compression(self) -> Option<Compression> {
        match self {
            Packing::Gzip => Some(Compression::Gzip),
            Packing::Zstd => Some(Compression::Zstd),
            Packing::None => None,
        }
    }
}

/// A payload on its way out.
pub struct Packed {
    pub bytes: Bytes,
    /// The name in `content-encoding` and `grpc-encoding`.
    pub encoding: Option<&'static str>,
}

/// What a thread keeps of its buffer between requests, in bytes: that of a full request of the graph's.
const MAX_SCRATCH_BYTES: usize = 4 << 20;

/// A compressor wants room for the worst case, which is several times what comes out; so it writes into a buffer that its thread keeps.
struct Gzip {
    compressor: libdeflater::Compressor,
    scratch: Vec<u8>,
}

thread_local! {
    static GZIP: RefCell<Gzip> = RefCell::new(Gzip {
        compressor: libdeflater::Compressor::new(
            libdeflater::CompressionLvl::new(GZIP_LEVEL).unwrap_or_default(),
        ),
        scratch: Vec::new(),
    });
}

/// Packs a payload; what came in packed the same way and was not edited goes out as it came.
pub fn pack(batch: &Batch, packing: Packing) -> Packed {
    let wire = |compression| {
        batch
            .wire
            .as_ref()
            .filter(|wire| wire.compression == compression)
            .map(|wire| wire.bytes.clone())
    };
    let plain = || Packed {
        bytes: batch.payload.bytes(),
        encoding: None,
    };
    match packing {
        Packing::None => plain(),
        Packing::Gzip => {
            let bytes = wire(Compression::Gzip)
                .unwrap_or_else(|| GZIP.with_borrow_mut(|gzip| compress_gzip(gzip, &batch.payload)));
            Packed {
                bytes,
                encoding: Some("gzip"),
            }
        }
        Packing::Zstd => {
            let bytes = wire(Compression::Zstd).map_or_else(
                || zstd::bulk::compress(&batch.payload, ZSTD_LEVEL),
                |it| Ok(it.to_vec()),
            );
            // It fails only for want of memory; unpacked is always right.
            bytes.map_or_else(
                |_| plain(),
                |bytes| Packed {
                    bytes: bytes.into(),
                    encoding: Some("zstd"),
                },
            )
        }
    }
}

/// A text or JSON is packed the same way.
pub fn pack_text(text: Vec<u8>, packing: Packing) -> Packed {
    match packing {
        Packing::None => Packed {
            bytes: text.into(),
            encoding: None,
        },
        Packing::Gzip => Packed {
            bytes: GZIP.with_borrow_mut(|gzip| compress_gzip(gzip, &text)),
            encoding: Some("gzip"),
        },
        Packing::Zstd => match zstd::bulk::compress(&text, ZSTD_LEVEL) {
            Ok(bytes) => Packed {
                bytes: bytes.into(),
                encoding: Some("zstd"),
            },
            Err(_) => Packed {
                bytes: text.into(),
                encoding: None,
            },
        },
    }
}

fn compress_gzip(gzip: &mut Gzip, payload: &[u8]) -> Bytes {
    let Gzip { compressor, scratch } = gzip;
    let bound = compressor.gzip_compress_bound(payload.len());
    if scratch.len() < bound {
        scratch.resize(bound, 0);
    }
    // The bound is the bound: there is room.
    let length = compressor.gzip_compress(payload, scratch).unwrap_or_default();
    let out = Bytes::copy_from_slice(&scratch[..length]);
    if scratch.len() > MAX_SCRATCH_BYTES {
        *scratch = Vec::new();
    }
    out
}

/// A stranger's text, short enough and without control characters.
pub fn shortened(text: &str) -> String {
    let mut end = text.len().min(MAX_MESSAGE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Why an exporter cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("endpoint: {0}")]
    Endpoint(String),
    #[error("{0}")]
    Header(String),
    #[error("tls: {0}")]
    Tls(#[from] DialConfigError),
    #[error("proxy_url: {0}")]
    Proxy(#[from] ProxyError),
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// `proxy_url`, which may hold a password and which nothing prints.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ProxyUrl(String);

impl std::fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl ProxyUrl {
    /// Says what is wrong with one.
    pub fn check(url: Option<&ProxyUrl>, section: &Section<'_>) -> Result<(), Problems> {
        let Some(url) = url.filter(|url| !url.0.is_empty()) else {
            return Ok(());
        };
        match Proxy::parse(&url.0) {
            // Certificates are read when the exporter is opened.
            Ok(_) | Err(ProxyError::Tls(_)) => Ok(()),
            Err(ProxyError::Url(why)) => Err(section.problem(&["proxy_url"], format!("proxy_url: {why}"))),
        }
    }

    /// The proxy that is configured, or else that of the environment.
    fn proxy(url: Option<&ProxyUrl>, https: bool, host: &str, port: u16) -> Result<Option<Proxy>, ProxyError> {
        match url.filter(|url| !url.0.is_empty()) {
            Some(url) => Proxy::parse(&url.0).map(Some),
            None => Proxy::from_environment(https, host, port),
        }
    }
}

/// The headers of the configuration, and who we are.
pub fn request_headers(shared: &Shared, content_type: &'static str) -> Result<HeaderMap, BuildError> {
    let mut headers = headers(&shared.headers).map_err(BuildError::Header)?;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!(
        "trackline/",
        env!("CARGO_PKG_VERSION")
    )));
    Ok(headers)
}

/// What says with each request who we are, if something does. Reads files.
pub fn authenticator(shared: &Shared) -> Result<Option<Arc<auth::Client>>, BuildError> {
    Ok(shared.auth.as_ref().map(Auth::client).transpose()?.map(Arc::new))
}

/// The clients of one exporter, one per scheme and authority, so that addresses of one host share their connections.
#[derive(Default)]
pub struct Clients(BTreeMap<String, Arc<Client>>);

/// One address that requests are posted to.
pub struct Address {
    client: Arc<Client>,
    uri: Uri,
    headers: HeaderMap,
    auth: Option<Arc<auth::Client>>,
}

impl Address {
    /// Reads certificates; connects with the first request. `url` is a whole one.
    pub fn new(
        url: &str,
        content_type: &'static str,
        shared: &Shared,
        proxy_url: Option<&ProxyUrl>,
        clients: &mut Clients,
    ) -> Result<Address, BuildError> {
        let target = Target::parse(url).map_err(BuildError::Endpoint)?;
        let secure = target.https.unwrap_or(true);
        let port = target.port.unwrap_or(if secure { 443 } else { 80 });
        let tls = secure.then(|| shared.tls.clone().unwrap_or_default());
        let proxy = ProxyUrl::proxy(proxy_url, secure, &target.host, port)?;
        let client = Client::new(&target.host, port, tls.as_ref(), false)?.through(proxy);
        let uri = url
            .parse()
            .map_err(|error| BuildError::Endpoint(format!("{url}: {error}")))?;
        let key = format!("{}://{}", client.scheme(), client.address());
        Ok(Address {
            client: Arc::clone(clients.0.entry(key).or_insert_with(|| Arc::new(client))),
            uri,
            headers: request_headers(shared, content_type)?,
            auth: authenticator(shared)?,
        })
    }

    /// The request headers that go out again, in lower case.
    pub fn metadata_keys(&self) -> Vec<Arc<str>> {
        self.auth.as_ref().map(|auth| auth.metadata_keys()).unwrap_or_default()
    }

    /// Posts a payload of data that arrived so. The answer, whatever it says.
    pub async fn ask(&self, packed: Packed, meta: &Meta) -> Result<Answer, DialError> {
        self.ask_with(packed, meta, None).await
    }

    /// The same with a header more.
    pub async fn ask_with(
        &self,
        packed: Packed,
        meta: &Meta,
        more: Option<(HeaderName, HeaderValue)>,
    ) -> Result<Answer, DialError> {
        let mut request = Request::new(Full::new(packed.bytes));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(encoding) = packed.encoding {
            request
                .headers_mut()
                .insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        if let Some((name, value)) = more {
            request.headers_mut().insert(name, value);
        }
        if let Some(auth) = &self.auth {
            auth.prepare(request.headers_mut(), &meta.headers);
        }
        self.client.send(request).await
    }

    /// What becomes of a batch if this answer is about us, not about what was sent nor about who sent it to us.
    pub fn unauthorized(&self, answer: &Answer) -> Option<Outcome> {
        let status = answer.status.as_u16();
        let is_about_us =
            is_unauthorized(status) && (status == PROXY_REFUSES || !speaks_for_senders(self.auth.as_deref()));
        is_about_us.then(|| unauthorized(&self.client.address(), &refusal(answer), asked_wait(answer)))
    }

    /// Posts a payload of `items` items. The answer, if it is a success; else what has become of the batch.
    pub async fn post(&self, packed: Packed, meta: &Meta, items: u32) -> Result<Answer, Outcome> {
        match self.ask(packed, meta).await {
            Ok(answer) => match self.unauthorized(&answer) {
                Some(outcome) => Err(outcome),
                None => success(answer, items),
            },
            Err(error) => {
                tracing::warn!("{error}; it is tried again");
                Err(Outcome::retry(Duration::ZERO, Reason::BackendUnavailable))
            }
        }
    }
}

/// Tells success from what is to be tried again and from what is refused for good.
fn success(answer: Answer, items: u32) -> Result<Answer, Outcome> {
    let status = answer.status.as_u16();
    match status {
        200..=299 => Ok(answer),
        429 | 502 | 503 | 504 => Err(Outcome::retry(asked_wait(&answer), Reason::BackendUnavailable)),
        _ => Err(Outcome::rejected(Reason::BackendRejected, refusal(&answer), items)),
    }
}

/// The proxy knows only us.
const PROXY_REFUSES: u16 = 407;

/// Whether an answer is about who sends, not about what was sent: the same bytes will be welcome once the token or the right is there.
fn is_unauthorized(status: u16) -> bool {
    matches!(status, 401 | 403 | PROXY_REFUSES)
}

/// Whether requests carry what came with the data. Then a refusal is of one sender, and whoever waited for it would let a stranger stop all others.
pub fn speaks_for_senders(auth: Option<&auth::Client>) -> bool {
    auth.is_some_and(|auth| !auth.metadata_keys().is_empty())
}

/// What becomes of a batch whose sender the backend does not accept, which `why` says in its words. See
/// `docs/adr/a-backend-that-refuses-our-token-is-waited-for.md`.
pub fn unauthorized(backend: &str, why: &str, asked: Duration) -> Outcome {
    tracing::error!(
        "{backend} does not accept our credentials: {why}; what is to be sent is tried again. Look at the token and \
         the rights of this exporter (`auth`, `headers`)"
    );
    Outcome::retry(asked, Reason::BackendUnauthorized)
}

/// How long a backend asks to wait; zero if it does not say.
pub fn asked_wait(answer: &Answer) -> Duration {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let wait = answer
        .headers
        .get(RETRY_AFTER)
        .and_then(|value| retry_after(value.to_str().ok()?, now));
    wait.unwrap_or_default()
}

/// A refusal in the backend's words.
pub fn refusal(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    format!("HTTP {}: {}", answer.status.as_u16(), shortened(text.trim()))
}

/// What has become of a batch that went as several requests, each with a part of it: what was rejected adds up.
#[must_use]
pub fn together(one: Outcome, other: Outcome) -> Outcome {
    match (one, other) {
        (Outcome::Rejected { items: before, .. }, Outcome::Rejected { reason, items }) => Outcome::Rejected {
            reason,
            items: before + items,
        },
        (one, other) => one.worst(other),
    }
}

/// Seconds, or a date (`Sun, 06 Nov 1994 08:49:37 GMT`; RFC 9110, 10.2.3).
fn retry_after(text: &str, now_seconds: u64) -> Option<Duration> {
    let seconds = match text.trim().parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => parse_http_date(text.trim())?.saturating_sub(now_seconds),
    };
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spans;
    use http::StatusCode;

    #[test]
    fn statuses_as_the_specification_has_them() {
        let answer = |status: u16| Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"why\n"),
            trailers: HeaderMap::new(),
        };
        let success = |answer| success(answer, 5);
        assert!(success(answer(200)).is_ok() && success(answer(202)).is_ok());
        for retryable in [429, 502, 503, 504] {
            let expect = Outcome::retry(Duration::ZERO, Reason::BackendUnavailable);
            assert_eq!(success(answer(retryable)).err(), Some(expect), "{retryable}");
        }
        for about_us in [401, 403, 407] {
            assert!(is_unauthorized(about_us));
        }
        for fatal in [301, 400, 404, 413, 500, 501] {
            let expect = Outcome::rejected(Reason::BackendRejected, format!("HTTP {fatal}: why"), 5);
            assert_eq!(success(answer(fatal)).err(), Some(expect));
            assert!(!is_unauthorized(fatal));
        }
    }

    #[test]
    fn retry_after_in_both_forms() {
        assert_eq!(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse_http_date("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_770),
            Some(Duration::from_secs(7))
        );
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 884_111_770),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after("30", 0), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("999999999", 0), Some(MAX_RETRY_AFTER));
        for wrong in [
            "soon",
            "Sun, 06 Nov 1994",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "-5",
            "Sun, 06 Nov 0 08:49:37 GMT",
        ] {
            assert_eq!(retry_after(wrong, 0), None, "{wrong}");
        }
    }
    #[test]
    fn packed_is_what_was_meant() {
        let batch = spans(&["a", "b"]);
        let gzip = pack(&batch, Packing::Gzip);
        let mut out = vec![0; batch.payload.len()];
        libdeflater::Decompressor::new()
            .gzip_decompress(&gzip.bytes, &mut out)
            .expect("gzip");
        assert_eq!((out.as_slice(), gzip.encoding), (&batch.payload[..], Some("gzip")));
        let zstd = pack(&batch, Packing::Zstd);
        let out = zstd::bulk::decompress(&zstd.bytes, batch.payload.len()).expect("zstd");
        assert_eq!((out.as_slice(), zstd.encoding), (&batch.payload[..], Some("zstd")));
        let came_packed = Batch {
            wire: Some(model::Wire {
                compression: Compression::Gzip,
                bytes: "as it came".into(),
            }),
            ..batch
        };
        assert_eq!(pack(&came_packed, Packing::Gzip).bytes, "as it came");
        assert_eq!(pack(&came_packed, Packing::None).bytes, came_packed.payload.bytes());
    }
}
