//! Why: to hand log records to a Loki over its push API, with the labels and lines that the collector's `loki` exporter made until it was removed there.
//! A Loki from 3.0 on takes OTLP as well: that is `otlphttp` with `endpoint: https://loki/otlp`.
//!
//! ```yaml
//! exporters:
//!   loki:
//!     endpoint: https://logs.example.com/loki/api/v1/push
//!     headers: { authorization: "Basic ${TOKEN}" }
//! ```
//!
//! Attributes with names of `loki.*` are hints: `loki.resource.labels` and `loki.attribute.labels` name the attributes that become labels,
//! `loki.tenant` one whose value is the tenant, and `loki.format` is `json`, `logfmt` or `raw`. Of a hint's names the first 100 count.
//!
//! Source: Loki's HTTP API, "Ingest logs"; README of the collector's `loki` exporter.

use std::sync::Arc;
use std::time::Duration;

use codec::loki::{self, Options, Push, pushes};
use http::{HeaderName, HeaderValue};
use model::{Batch, Meta, Signal};
use net::dial::{Answer, Target};
use pipeline::config::{Problems, Section};
use pipeline::{BoxFuture, Exporter, Outcome, Reason};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::request::{
    Address, BuildError, Clients, Packed, Packing, ProxyUrl, asked_wait, pack_text, refusal, together,
};
use crate::sender::{Own, Sender};

/// What it takes.
pub const SIGNALS: [Signal; 1] = [Signal::Logs];

const PUSH_PATH: &str = "/loki/api/v1/push";

/// Loki's header for a tenant.
const TENANT: HeaderName = HeaderName::from_static("x-scope-orgid");

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The whole URL, `https://host/loki/api/v1/push`; without a path, that one is appended.
    pub endpoint: String,
    /// `protobuf` (default), which is packed with snappy whatever `compression` says, or `json`.
    #[serde(default)]
    pub encoding: Encoding,
    /// How a record becomes a line where no hint says: `json`, the default, `logfmt`, or `raw`, which is the body alone and the default with
    /// `structured_metadata`.
    #[serde(default)]
    pub format: Option<Format>,
    /// Send ids, severity, scope and the attributes that are no labels as structured metadata. Default `false`: Loki must be 3.0 or allow it.
    #[serde(default)]
    pub structured_metadata: bool,
    /// Labels that every record has without a hint.
    #[serde(default)]
    pub default_labels_enabled: DefaultLabels,
    /// The tenant, as `X-Scope-OrgID`, of records whose hint names none. Default: none.
    #[serde(default)]
    pub tenant_id: Option<String>,
    /// An HTTP proxy, `http://user:password@host:port`; its password is never shown. Default: what `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` of the
    /// environment say.
    #[serde(default)]
    pub proxy_url: Option<ProxyUrl>,
    /// Must be absent: `tenant_id`, or the hint `loki.tenant`, has taken its place.
    #[serde(default, deserialize_with = "no_tenant")]
    pub tenant: (),
    /// Must be absent: the hints have taken its place.
    #[serde(default, deserialize_with = "no_labels")]
    pub labels: (),
}

/// `default_labels_enabled`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DefaultLabels {
    /// `exporter="OTLP"`. Default `true`.
    pub exporter: bool,
    /// `job` from `service.namespace` and `service.name`. Default `true`.
    pub job: bool,
    /// `instance` from `service.instance.id`. Default `true`.
    pub instance: bool,
    /// `level` from the severity: TRACE, DEBUG, INFO, WARN, ERROR or FATAL. Default `true`.
    pub level: bool,
}

impl Default for DefaultLabels {
    fn default() -> Self {
        Self {
            exporter: true,
            job: true,
            instance: true,
            level: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    #[default]
    Protobuf,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Json,
    Logfmt,
    Raw,
}

fn no_tenant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(serde::de::Error::custom(
        "`tenant` is gone: write `tenant_id: NAME`, or name an attribute in the attribute `loki.tenant`",
    ))
}

fn no_labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(serde::de::Error::custom(
        "`labels` is gone: name the attributes in an attribute `loki.resource.labels` or `loki.attribute.labels`, which a `resource` or `attributes` processor can set",
    ))
}

/// Everything about one of these exporters.
pub type Config = Sender<Settings>;

impl Own for Settings {
    const TIMEOUT: Duration = Duration::from_secs(30);
}

pub fn parse(section: &Section<'_>) -> Result<Config, Problems> {
    let config = Config::parse(section)?;
    ProxyUrl::check(config.own.proxy_url.as_ref(), section)?;
    let endpoint = &config.own.endpoint;
    let wrong = |why: String| section.problem(&["endpoint"], format!("endpoint: {why}"));
    let target = Target::parse(endpoint).map_err(wrong)?;
    if target.https.is_none() {
        return Err(wrong(format!("`{endpoint}` has no http:// or https://")));
    }
    if target.path.trim_end_matches('/').ends_with("/otlp") || target.path.contains("/otlp/") {
        return Err(wrong(
            "this is where Loki takes OTLP: `otlphttp` is the exporter for it, with the URL up to /otlp".to_owned(),
        ));
    }
    if let Some(tenant) = &config.own.tenant_id
        && HeaderValue::from_str(tenant).is_err()
    {
        return Err(section.problem(&["tenant_id"], "tenant_id: a header cannot carry it"));
    }
    Ok(config)
}

/// Sends to a Loki.
pub struct Loki {
    address: Address,
    packing: Packing,
    encoding: Encoding,
    format: loki::Format,
    structured_metadata: bool,
    default_labels: loki::DefaultLabels,
    tenant: Option<HeaderValue>,
}

impl Loki {
    /// Reads certificates; connects with the first request.
    pub fn new(config: &Config) -> Result<Loki, BuildError> {
        let own = &config.own;
        let target = Target::parse(&own.endpoint).map_err(BuildError::Endpoint)?;
        let url = match target.path.as_str() {
            "" | "/" => format!("{}{PUSH_PATH}", own.endpoint.trim_end_matches('/')),
            _ => own.endpoint.clone(),
        };
        let content_type = match own.encoding {
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        };
        let usual = if own.structured_metadata {
            Format::Raw
        } else {
            Format::Json
        };
        let labels = &own.default_labels_enabled;
        let tenant = own.tenant_id.as_deref().map(HeaderValue::from_str).transpose();
        Ok(Loki {
            address: Address::new(
                &url,
                content_type,
                &config.shared,
                own.proxy_url.as_ref(),
                &mut Clients::default(),
            )?,
            packing: config.shared.compression,
            encoding: own.encoding,
            format: match own.format.unwrap_or(usual) {
                Format::Json => loki::Format::Json,
                Format::Logfmt => loki::Format::Logfmt,
                Format::Raw => loki::Format::Raw,
            },
            structured_metadata: own.structured_metadata,
            default_labels: loki::DefaultLabels {
                exporter: labels.exporter,
                job: labels.job,
                instance: labels.instance,
                level: labels.level,
            },
            tenant: tenant.map_err(|error| BuildError::Header(error.to_string()))?,
        })
    }

    /// One push after the other, one for each tenant. If one is to be repeated, all are; Loki keeps one of two equal lines of one time.
    async fn send(&self, batch: Batch) -> Outcome {
        if batch.signal != Signal::Logs {
            let message = format!("Loki takes logs, not {}", batch.signal);
            return Outcome::rejected(Reason::Unsupported, message, batch.items);
        }
        let options = Options {
            encoding: match self.encoding {
                Encoding::Protobuf => loki::Encoding::Protobuf,
                Encoding::Json => loki::Encoding::Json,
            },
            format: self.format,
            default_labels: self.default_labels,
            structured_metadata: self.structured_metadata,
            received_at_unix_nano: batch.meta.received_at_unix_nano,
        };
        let mut all = Outcome::Delivered;
        let pushes = pushes(&batch.payload, &options);
        if pushes.rejected > 0 {
            let message = "resources that in Loki's form, where each record repeats them, are larger than what is made of one batch";
            all = Outcome::rejected(Reason::TooLarge, message, pushes.rejected);
        }
        for push in pushes.all {
            all = together(all, self.push(push, &batch.meta).await);
            if matches!(all, Outcome::Retry { .. }) {
                break;
            }
        }
        all
    }

    async fn push(&self, push: Push, meta: &Meta) -> Outcome {
        let hinted = push.tenant.as_deref().map(HeaderValue::from_str).transpose();
        let Ok(hinted) = hinted else {
            let message = "the tenant that `loki.tenant` names is nothing that a header can carry";
            return Outcome::rejected(Reason::BadItem, message, push.records);
        };
        let tenant = hinted.or_else(|| self.tenant.clone());
        let packed = match self.encoding {
            Encoding::Json => pack_text(push.body, self.packing),
            Encoding::Protobuf => match snap::raw::Encoder::new().compress_vec(&push.body) {
                Ok(bytes) => Packed {
                    bytes: bytes.into(),
                    // Loki knows protobuf as snappy and wants no word about it.
                    encoding: None,
                },
                Err(error) => return Outcome::rejected(Reason::TooLarge, error.to_string(), push.records),
            },
        };
        match self
            .address
            .ask_with(packed, meta, tenant.map(|tenant| (TENANT, tenant)))
            .await
        {
            Ok(answer) => (self.address.unauthorized(&answer)).unwrap_or_else(|| outcome(&answer, push.records)),
            Err(error) => {
                tracing::warn!("{error}; it is tried again");
                Outcome::retry(Duration::ZERO, Reason::BackendUnavailable)
            }
        }
    }
}

impl Exporter for Loki {
    fn takes(&self, signal: Signal) -> bool {
        SIGNALS.contains(&signal)
    }

    fn metadata_keys(&self) -> Vec<Arc<str>> {
        self.address.metadata_keys()
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(self.send(batch))
    }
}

/// What an answer about the data means for `records` records.
fn outcome(answer: &Answer, records: u32) -> Outcome {
    match answer.status.as_u16() {
        200..=299 => Outcome::Delivered,
        // Beyond its limits, or not able to; Loki says 500 where an ingester is away.
        429 | 500..=599 => Outcome::retry(asked_wait(answer), Reason::BackendUnavailable),
        _ => {
            let ignored = ignored(&String::from_utf8_lossy(&answer.body)).unwrap_or(records);
            Outcome::rejected(Reason::BackendRejected, refusal(answer), ignored.min(records))
        }
    }
}

/// How many entries Loki says that it did not take; it took the others.
///
/// Its ingesters tell the number. Its distributors, which look at an entry's age and size before that, tell each of their sentences, with how often it
/// applies unless it is the only one and applies once; sentences about a whole stream are among them, and then the number is not known.
fn ignored(text: &str) -> Option<u32> {
    let counts = text.split("total ignored: ").skip(1);
    let numbers = counts.filter_map(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    let of_ingesters = numbers.reduce(u32::saturating_add);
    of_ingesters.or_else(|| refused_entries(text))
}

/// The entries that a distributor's sentences are about, if all are about entries.
fn refused_entries(text: &str) -> Option<u32> {
    const OF_AN_ENTRY: [&str; 3] = [
        "has timestamp too old: ",
        "has timestamp too new: ",
        "while adding an entry with length ",
    ];
    let is_of_an_entry = |sentence: &str| OF_AN_ENTRY.iter().any(|words| sentence.contains(words));
    let Some((first, grouped)) = text.split_once(" errors like: ") else {
        return is_of_an_entry(text).then_some(1);
    };
    let (mut count, mut total) = (first, 0u32);
    for sentence in grouped.split(" errors like: ") {
        if !is_of_an_entry(sentence) {
            return None;
        }
        total = total.saturating_add(count.rsplit("; ").next()?.trim().parse().ok()?);
        // Behind a sentence stands how often the next one applies.
        count = sentence;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    #[test]
    fn answers_mean_what_loki_means() {
        let answer = |status: u16, body: &'static str| Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
            trailers: HeaderMap::new(),
        };
        assert_eq!(outcome(&answer(204, ""), 9), Outcome::Delivered);
        for status in [429, 500, 502, 503, 504] {
            let expect = Outcome::retry(Duration::ZERO, Reason::BackendUnavailable);
            assert_eq!(outcome(&answer(status, "busy"), 9), expect, "{status}");
        }
        for status in [400, 404, 413] {
            let expect = Outcome::rejected(Reason::BackendRejected, format!("HTTP {status}: no"), 9);
            assert_eq!(outcome(&answer(status, "no"), 9), expect);
        }
        let some = "entry with timestamp 1 ignored, reason: 'entry too far behind', total ignored: 2 out of 5 for stream: {a=\"b\"}\ntotal ignored: 1 out of 4";
        assert!(matches!(
            outcome(&answer(400, some), 9),
            Outcome::Rejected { items: 3, .. }
        ));
        assert!(matches!(
            outcome(&answer(400, some), 2),
            Outcome::Rejected { items: 2, .. }
        ));
    }

    /// One record that was too old had all of its request counted as lost, which Loki had taken.
    #[test]
    fn what_a_distributor_refuses_is_counted_by_its_sentences() {
        let old = "entry for stream '{a=\"b; c\"}' has timestamp too old: 2026-10-30T21:18:45Z, oldest acceptable timestamp is: 2026-11-22T21:18:46Z";
        let long =
            "Max entry size '256' bytes exceeded for stream '{a=\"b\"}' while adding an entry with length '300' bytes";
        let labels = "Error parsing labels '{a' with error: 1:3: parse error";
        assert_eq!(ignored(old), Some(1));
        assert_eq!(ignored(&format!("17 errors like: {long}")), Some(17));
        let both = format!("17 errors like: {old}; 2 errors like: {long}");
        assert_eq!(ignored(&both), Some(19));
        assert_eq!(ignored(labels), None, "of a stream, whose entries nobody counts");
        assert_eq!(ignored(&format!("1 errors like: {labels}; 2 errors like: {old}")), None);
        assert_eq!(ignored("many errors like: this"), None);
    }
}
