//! Why: to hand everything on to a backend that takes OTLP over HTTP: cloud vendors, Azure Monitor and Google Cloud among them.
//!
//! ```yaml
//! exporters:
//!   otlphttp:
//!     endpoint: https://otlp.example.com/otlp      # /v1/traces, /v1/logs, /v1/metrics are appended
//!     headers: { authorization: "Basic ${TOKEN}" }
//! ```
//!
//! Source: the OpenTelemetry Protocol Specification, "OTLP/HTTP Response".

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use model::{Batch, Signal};
use net::dial::{Answer, Client, Target, headers};
use pipeline::config::{Problems, Section};
use pipeline::sending::{OnFull, Queue, Retry, Sending};
use pipeline::{BoxFuture, Exporter, Outcome, Reason};
use serde::Deserialize;

use crate::otlp::BuildError;
use crate::otlp_request::{Headers, Packing, Tls, outcome_of, pack, pack_text, sending, shortened};

/// The longest wait that a backend may ask for; beyond it, trying again is cheaper than a mistake in its clock.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The base, `http://host:port/path` or `https://…`. Needed unless each signal has its own.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The whole URL for traces. Default: `endpoint` and `/v1/traces`.
    #[serde(default)]
    pub traces_endpoint: Option<String>,
    /// The whole URL for logs. Default: `endpoint` and `/v1/logs`.
    #[serde(default)]
    pub logs_endpoint: Option<String>,
    /// The whole URL for metrics. Default: `endpoint` and `/v1/metrics`.
    #[serde(default)]
    pub metrics_endpoint: Option<String>,
    /// Default: the system's certificates, where the scheme is https.
    #[serde(default, deserialize_with = "pipeline::config::present")]
    pub tls: Option<Tls>,
    /// Sent along with each request. Default: none.
    #[serde(default)]
    pub headers: Headers,
    /// `gzip` (default), `zstd` or `none`.
    #[serde(default)]
    pub compression: Packing,
    /// `proto` (default) or `json`.
    #[serde(default)]
    pub encoding: Encoding,
    /// For one attempt. Default 30s.
    #[serde(default = "timeout", deserialize_with = "pipeline::config::duration")]
    pub timeout: Duration,
    /// What happens when the backend refuses for now or is not reached.
    #[serde(default)]
    pub retry_on_failure: Retry,
    /// The queue is the journal; these are its bounds for this exporter.
    #[serde(default)]
    pub sending_queue: Queue,
    /// At the journal's bound: `skip_oldest` (default) or `refuse`.
    #[serde(default)]
    pub on_full: OnFull,
    /// A directory for requests that the backend refuses for good. Default: none; they are dropped and counted.
    #[serde(default)]
    pub dead_letter: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    #[default]
    Proto,
    Json,
}

fn timeout() -> Duration {
    Duration::from_secs(30)
}

pub fn parse(section: &Section<'_>) -> Result<Config, Problems> {
    let config: Config = section.parse()?;
    let endpoints = [
        ("endpoint", &config.endpoint),
        ("traces_endpoint", &config.traces_endpoint),
        ("logs_endpoint", &config.logs_endpoint),
        ("metrics_endpoint", &config.metrics_endpoint),
    ];
    for (key, endpoint) in endpoints {
        let Some(endpoint) = endpoint else { continue };
        let target = Target::parse(endpoint).map_err(|why| section.problem(&[key], format!("{key}: {why}")))?;
        if target.https.is_none() {
            return Err(section.problem(&[key], format!("{key}: `{endpoint}` has no http:// or https://")));
        }
    }
    if config.endpoint.is_none()
        && Signal::ALL
            .into_iter()
            .all(|signal| config.own_endpoint(signal).is_none())
    {
        return Err(section.problem(&[], "otlphttp needs an `endpoint`"));
    }
    headers(&config.headers).map_err(|why| section.problem(&["headers"], why))?;
    if let Some(Err((key, why))) = config.tls.as_ref().map(Tls::check) {
        return Err(section.problem(&["tls", key], why));
    }
    Ok(config)
}

impl Config {
    pub fn sending(&self) -> Sending {
        let dead_letter = self.dead_letter.as_ref();
        sending(
            self.timeout,
            &self.retry_on_failure,
            &self.sending_queue,
            self.on_full,
            dead_letter,
        )
    }

    fn own_endpoint(&self, signal: Signal) -> Option<&String> {
        match signal {
            Signal::Traces => self.traces_endpoint.as_ref(),
            Signal::Logs => self.logs_endpoint.as_ref(),
            Signal::Metrics => self.metrics_endpoint.as_ref(),
        }
    }

    /// Where a signal goes.
    fn url(&self, signal: Signal) -> Option<String> {
        match (self.own_endpoint(signal), &self.endpoint) {
            (Some(own), _) => Some(own.clone()),
            (None, Some(base)) => Some(format!("{}/v1/{signal}", base.trim_end_matches('/'))),
            (None, None) => None,
        }
    }
}

/// Sends over OTLP/HTTP.
pub struct OtlpHttp {
    /// One per host, by scheme and authority.
    clients: BTreeMap<String, Client>,
    /// Client and address of each signal that goes somewhere.
    ways: [Option<(String, Uri)>; Signal::ALL.len()],
    headers: HeaderMap,
    packing: Packing,
    encoding: Encoding,
}

impl OtlpHttp {
    /// Reads certificates; connects with the first request.
    pub fn new(config: &Config) -> Result<OtlpHttp, BuildError> {
        let mut clients = BTreeMap::new();
        let mut ways: [Option<(String, Uri)>; Signal::ALL.len()] = Default::default();
        let tls = config.tls.clone().unwrap_or_default();
        for (signal, way) in Signal::ALL.into_iter().zip(&mut ways) {
            let Some(url) = config.url(signal) else { continue };
            let target = Target::parse(&url).map_err(BuildError::Endpoint)?;
            let secure = target.https.unwrap_or(true);
            let port = target.port.unwrap_or(if secure { 443 } else { 80 });
            let client = Client::new(&target.host, port, secure.then(|| tls.client()).as_ref(), false)?;
            let uri: Uri = url
                .parse()
                .map_err(|error| BuildError::Endpoint(format!("{url}: {error}")))?;
            let key = format!("{}://{}", client.scheme(), client.address());
            *way = Some((key.clone(), uri));
            clients.entry(key).or_insert(client);
        }
        let mut headers = headers(&config.headers).map_err(BuildError::Header)?;
        let content_type = match config.encoding {
            Encoding::Proto => "application/x-protobuf",
            Encoding::Json => "application/json",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!(
            "trackline/",
            env!("CARGO_PKG_VERSION")
        )));
        Ok(OtlpHttp {
            clients,
            ways,
            headers,
            packing: config.compression,
            encoding: config.encoding,
        })
    }

    fn way(&self, signal: Signal) -> Option<(&Client, &Uri)> {
        let at = Signal::ALL.into_iter().position(|known| known == signal)?;
        let (client, uri) = self.ways[at].as_ref()?;
        Some((self.clients.get(client)?, uri))
    }

    async fn call(&self, batch: Batch) -> Outcome {
        let Some((client, uri)) = self.way(batch.signal) else {
            let message = format!("no endpoint for {} is configured", batch.signal);
            return Outcome::rejected(Reason::Unsupported, message, batch.items);
        };
        let packed = match self.encoding {
            Encoding::Proto => pack(&batch, self.packing),
            Encoding::Json => pack_text(
                codec::otlp_json::from_protobuf(batch.signal, &batch.payload).into_bytes(),
                self.packing,
            ),
        };
        let mut request = Request::new(Full::new(packed.bytes));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(encoding) = packed.encoding {
            request
                .headers_mut()
                .insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        match client.send(request).await {
            Ok(answer) => outcome(&answer, self.encoding, batch.items),
            Err(error) => {
                tracing::warn!("{error}; it is tried again");
                Outcome::retry(Duration::ZERO, Reason::BackendUnavailable)
            }
        }
    }
}

impl Exporter for OtlpHttp {
    fn takes(&self, signal: Signal) -> bool {
        self.way(signal).is_some()
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(self.call(batch))
    }
}

/// What an answer means for the batch.
fn outcome(answer: &Answer, encoding: Encoding, items: u32) -> Outcome {
    let status = answer.status.as_u16();
    match status {
        200..=299 => match encoding {
            Encoding::Proto => outcome_of(&answer.body),
            Encoding::Json => outcome_of_json(&answer.body),
        },
        429 | 502 | 503 | 504 => {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs());
            let wait = answer
                .headers
                .get(RETRY_AFTER)
                .and_then(|value| retry_after(value.to_str().ok()?, now));
            Outcome::retry(wait.unwrap_or_default(), Reason::BackendUnavailable)
        }
        _ => {
            let text = String::from_utf8_lossy(&answer.body);
            let message = format!("HTTP {status}: {}", shortened(text.trim()));
            Outcome::rejected(Reason::BackendRejected, message, items)
        }
    }
}

/// `{"partialSuccess": {"rejectedSpans": "3", "errorMessage": "why"}}`, the count under the signal's own name, as text or number.
fn outcome_of_json(body: &[u8]) -> Outcome {
    let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let partial = &answer["partialSuccess"];
    let names = ["rejectedSpans", "rejectedLogRecords", "rejectedDataPoints"];
    let count = names.iter().find_map(|name| match &partial[*name] {
        serde_json::Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    });
    match count.and_then(|count| u32::try_from(count).ok()) {
        None | Some(0) => Outcome::Delivered,
        Some(rejected) => {
            let why = partial["errorMessage"].as_str().unwrap_or_default();
            Outcome::rejected(Reason::BackendRejected, shortened(why), rejected)
        }
    }
}

/// Seconds, or a date (`Sun, 06 Nov 1994 08:49:37 GMT`; RFC 9110, 10.2.3).
fn retry_after(text: &str, now_seconds: u64) -> Option<Duration> {
    let seconds = match text.trim().parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => date_seconds(text.trim())?.saturating_sub(now_seconds),
    };
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

fn date_seconds(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut parts = text.split_once(", ")?.1.split(' ');
    let day: u64 = parts.next()?.parse().ok()?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64 + 1;
    let year: u64 = parts
        .next()?
        .parse()
        .ok()
        .filter(|year| (1970..10_000).contains(year))?;
    let mut clock = parts.next()?.split(':').map(str::parse::<u64>);
    let (hours, minutes, seconds) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    if parts.next() != Some("GMT") || day > 31 || hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    // Days since 1970 in the proleptic Gregorian calendar, with the year beginning in March.
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    Some((days.checked_sub(719_468)?) * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::StatusCode;

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
            trailers: HeaderMap::new(),
        }
    }

    #[test]
    fn statuses_as_the_specification_has_them() {
        assert_eq!(outcome(&answer(200, ""), Encoding::Proto, 5), Outcome::Delivered);
        for retryable in [429, 502, 503, 504] {
            let expect = Outcome::retry(Duration::ZERO, Reason::BackendUnavailable);
            assert_eq!(
                outcome(&answer(retryable, ""), Encoding::Proto, 5),
                expect,
                "{retryable}"
            );
        }
        for fatal in [301, 400, 401, 403, 404, 413, 500, 501] {
            let expect = Outcome::rejected(Reason::BackendRejected, format!("HTTP {fatal}: why"), 5);
            assert_eq!(outcome(&answer(fatal, "why\n"), Encoding::Proto, 5), expect);
        }
    }

    #[test]
    fn partial_success_in_json() {
        let partial = answer(
            200,
            r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"no id"}}"#,
        );
        let expect = Outcome::rejected(Reason::BackendRejected, "no id", 3);
        assert_eq!(outcome(&partial, Encoding::Json, 5), expect);
        assert_eq!(outcome(&answer(200, "{}"), Encoding::Json, 5), Outcome::Delivered);
        assert_eq!(outcome(&answer(200, "not JSON"), Encoding::Json, 5), Outcome::Delivered);
    }

    #[test]
    fn retry_after_in_both_forms() {
        assert_eq!(date_seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(date_seconds("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
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
}
