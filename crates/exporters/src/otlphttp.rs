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

use std::sync::Arc;
use std::time::Duration;

use model::{Batch, Compression, Signal};
use net::dial::Target;
use pipeline::config::{Problems, Section};
use pipeline::{BoxFuture, Exporter, Outcome, Reason};
use serde::Deserialize;

use crate::otlp_request::outcome_of;
use crate::request::{Address, BuildError, Clients, Packing, ProxyUrl, pack, pack_text, shortened};
use crate::sender::{Own, Sender};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
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
    /// `proto` (default) or `json`.
    #[serde(default)]
    pub encoding: Encoding,
    /// An HTTP proxy, `http://user:password@host:port`; its password is never shown. Default: what `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` of the
    /// environment say.
    #[serde(default)]
    pub proxy_url: Option<ProxyUrl>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    #[default]
    Proto,
    Json,
}

/// Everything about one of these exporters.
pub type Config = Sender<Settings>;

impl Own for Settings {
    const TIMEOUT: Duration = Duration::from_secs(30);
}

pub fn parse(section: &Section<'_>) -> Result<Config, Problems> {
    let config = Config::parse(section)?;
    let settings = &config.own;
    ProxyUrl::check(settings.proxy_url.as_ref(), section)?;
    let endpoints = [
        ("endpoint", &settings.endpoint),
        ("traces_endpoint", &settings.traces_endpoint),
        ("logs_endpoint", &settings.logs_endpoint),
        ("metrics_endpoint", &settings.metrics_endpoint),
    ];
    for (key, endpoint) in endpoints {
        let Some(endpoint) = endpoint else { continue };
        let target = Target::parse(endpoint).map_err(|why| section.problem(&[key], format!("{key}: {why}")))?;
        if target.https.is_none() {
            return Err(section.problem(&[key], format!("{key}: `{endpoint}` has no http:// or https://")));
        }
    }
    if Signal::ALL.into_iter().all(|signal| settings.url(signal).is_none()) {
        return Err(section.problem(&[], "otlphttp needs an `endpoint`"));
    }
    Ok(config)
}

impl Settings {
    /// Where a signal goes.
    fn url(&self, signal: Signal) -> Option<String> {
        let own = match signal {
            Signal::Traces => &self.traces_endpoint,
            Signal::Logs => &self.logs_endpoint,
            Signal::Metrics => &self.metrics_endpoint,
        };
        let joined = |base: &String| format!("{}/v1/{signal}", base.trim_end_matches('/'));
        own.clone().or_else(|| self.endpoint.as_ref().map(joined))
    }
}

/// Sends over OTLP/HTTP.
pub struct OtlpHttp {
    /// The address of each signal that goes somewhere.
    addresses: [Option<Address>; Signal::ALL.len()],
    packing: Packing,
    encoding: Encoding,
}

impl OtlpHttp {
    /// Reads certificates; connects with the first request.
    pub fn new(config: &Config) -> Result<OtlpHttp, BuildError> {
        let content_type = match config.own.encoding {
            Encoding::Proto => "application/x-protobuf",
            Encoding::Json => "application/json",
        };
        let mut clients = Clients::default();
        let mut addresses: [Option<Address>; Signal::ALL.len()] = Default::default();
        for (signal, address) in Signal::ALL.into_iter().zip(&mut addresses) {
            if let Some(url) = config.own.url(signal) {
                *address = Some(Address::new(
                    &url,
                    content_type,
                    &config.shared,
                    config.own.proxy_url.as_ref(),
                    &mut clients,
                )?);
            }
        }
        Ok(OtlpHttp {
            addresses,
            packing: config.shared.compression,
            encoding: config.own.encoding,
        })
    }

    fn address(&self, signal: Signal) -> Option<&Address> {
        let at = Signal::ALL.into_iter().position(|known| known == signal)?;
        self.addresses[at].as_ref()
    }

    async fn call(&self, batch: Batch) -> Outcome {
        let Some(address) = self.address(batch.signal) else {
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
        match (address.post(packed, &batch.meta, batch.items).await, self.encoding) {
            (Ok(answer), Encoding::Proto) => outcome_of(&answer.body),
            (Ok(answer), Encoding::Json) => outcome_of_json(&answer.body),
            (Err(outcome), _) => outcome,
        }
    }
}

impl Exporter for OtlpHttp {
    fn takes(&self, signal: Signal) -> bool {
        self.address(signal).is_some()
    }

    fn packs(&self) -> Option<Compression> {
        match self.encoding {
            Encoding::Proto => self.packing.compression(),
            Encoding::Json => None,
        }
    }

    fn metadata_keys(&self) -> Vec<Arc<str>> {
        // All have the same authenticator.
        let mut addresses = self.addresses.iter().flatten();
        addresses.next().map(Address::metadata_keys).unwrap_or_default()
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(self.call(batch))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_success_in_json() {
        let partial = br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"no id"}}"#;
        let expect = Outcome::rejected(Reason::BackendRejected, "no id", 3);
        assert_eq!(outcome_of_json(partial), expect);
        assert_eq!(outcome_of_json(b"{}"), Outcome::Delivered);
        assert_eq!(outcome_of_json(b"not JSON"), Outcome::Delivered);
    }
}
