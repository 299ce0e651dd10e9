//! Why: metrics for whoever comes and asks: a page that Prometheus scrapes, with the latest value of each series.
//!
//! ```yaml
//! exporters:
//!   prometheus:
//!     endpoint: "0.0.0.0:8888"       # the page is /metrics there
//!     const_labels: { environment: "${ENVIRONMENT}" }
//! ```
//!
//! Text 0.0.4, and OpenMetrics 1.0 with exemplars for those who ask for it. A counter that comes as delta is added up. A histogram that comes exponential is
//! shown by its count and sum: neither text format can say its buckets; `prometheusremotewrite` can. Of two types under one name the first counts while
//! anything reports it. A page has at most 200,000 series; points beyond are refused and counted.

mod registry;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use codec::prometheus::labels;
use codec::prometheus::naming::{self, Strategy};
use codec::prometheus::text::{Format, Writer};
use http::header::{ACCEPT, ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use http::{Method, StatusCode};
use model::{Batch, Signal};
use net::{
    At, Collision, DoorSettings, Doors, Endpoint, Mount, Request, Response, Service, TlsFiles, empty_body, full_body,
    handler_fn,
};
use pipeline::config::{Problems, Section};
use pipeline::{BoxFuture, Exporter, Outcome, Reason};
use serde::{Deserialize, Deserializer};
use tokio::sync::Semaphore;

use crate::request::{Packing, pack_text};
use crate::settings::{OpenError, Opening};
pub use registry::{MAX_SERIES, Options, Registry, Rejected};

/// Pages that are written at once; each may be tens of megabytes. Who comes later is asked to come again.
const MAX_SCRAPES: usize = 4;

/// Smaller pages are sent as they are.
const MIN_GZIP_BYTES: usize = 1024;

/// `prometheus`: metrics for whoever scrapes them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen; the page is `/metrics`. An address beyond loopback is taken as meant, with a warning.
    #[serde(deserialize_with = "endpoint")]
    pub endpoint: Endpoint,
    /// Labels of every series, unless an attribute gives one of that name. Default: none.
    #[serde(default)]
    pub const_labels: BTreeMap<String, String>,
    /// Put before every name. Default: nothing.
    #[serde(default)]
    pub namespace: String,
    /// Whether lines carry the time of their point; without it the scrape's counts. Default `false`.
    #[serde(default)]
    pub send_timestamps: bool,
    /// A series that nobody reported for so long is gone. Default 5m.
    #[serde(default, deserialize_with = "pipeline::config::optional_duration")]
    pub metric_expiration: Option<Duration>,
    /// Whether attributes of the resource become labels. Default: they are told as `target_info`.
    #[serde(default, deserialize_with = "pipeline::config::present")]
    pub resource_to_telemetry_conversion: Option<ResourceToTelemetry>,
    /// Whether OpenMetrics, which has exemplars, is given to those who ask for it. Default `true`.
    #[serde(default = "yes")]
    pub enable_open_metrics: bool,
    /// Whether units and types become suffixes (`_seconds`, `_total`). Default `true`.
    #[serde(default = "yes")]
    pub add_metric_suffixes: bool,
    /// `UnderscoreEscapingWithSuffixes` or `UnderscoreEscapingWithoutSuffixes`, in place of `add_metric_suffixes`.
    #[serde(default)]
    pub translation_strategy: Option<Strategy>,
    /// Whether series leave out their scope (`otel_scope_name`, …). Default `false`.
    #[serde(default)]
    pub without_scope_info: bool,
    /// Certificate and key. Default: plain text.
    #[serde(default, deserialize_with = "pipeline::config::present")]
    pub tls: Option<TlsFiles>,
}

/// `resource_to_telemetry_conversion`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceToTelemetry {
    /// Default `false`.
    pub enabled: bool,
    /// Whether `service.name`, `service.namespace` and `service.instance.id` are left out, which are `job` and `instance`. Default `false`.
    pub exclude_service_attributes: bool,
}

fn yes() -> bool {
    true
}

fn endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Endpoint, D::Error> {
    String::deserialize(deserializer)?
        .parse()
        .map_err(serde::de::Error::custom)
}

pub fn parse(section: &Section<'_>) -> Result<Config, Problems> {
    let config: Config = section.parse()?;
    if config.translation_strategy.is_some_and(Strategy::keeps_utf8) {
        let why = "names on this page are escaped, because not every scraper reads others; `prometheusremotewrite` keeps them";
        return Err(section.problem(&["translation_strategy"], why));
    }
    check_labels(section, "const_labels", &config.const_labels)?;
    Ok(config)
}

/// Labels that the configuration names appear as they are.
pub(crate) fn check_labels(
    section: &Section<'_>,
    key: &str,
    labels: &BTreeMap<String, String>,
) -> Result<(), Problems> {
    for name in labels.keys() {
        if !naming::is_plain_label(name) || name == "__name__" {
            let why = format!("`{name}` is not the name of a label: letters, digits and underscores, no digit first");
            return Err(section.problem(&[key, name], why));
        }
    }
    Ok(())
}

/// The options that both exporters for Prometheus have.
pub(crate) fn label_options(
    strategy: Strategy,
    external: &BTreeMap<String, String>,
    conversion: Option<ResourceToTelemetry>,
    scope: bool,
) -> labels::Options {
    let conversion = conversion.unwrap_or_default();
    labels::Options {
        strategy,
        external: external
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        resource_attributes: conversion.enabled,
        exclude_service_attributes: conversion.exclude_service_attributes,
        scope,
    }
}

impl Config {
    fn options(&self) -> Options {
        let strategy = self
            .translation_strategy
            .unwrap_or(Strategy::escaping(self.add_metric_suffixes));
        Options {
            labels: label_options(
                strategy,
                &self.const_labels,
                self.resource_to_telemetry_conversion,
                !self.without_scope_info,
            ),
            namespace: self.namespace.clone(),
            expiration: self.metric_expiration.unwrap_or(DEFAULT_EXPIRATION),
            send_timestamps: self.send_timestamps,
        }
    }
}

/// As in the collector: a few intervals of any reasonable sender.
const DEFAULT_EXPIRATION: Duration = Duration::from_secs(300);

/// Writes families that are no exporter's, behind those of the exporter: what the process tells of itself, where both are served at one address.
pub type Beside = Arc<dyn Fn(&mut Writer) + Send + Sync>;

/// The page's content and who is served from it.
pub struct Prometheus {
    page: Arc<Page>,
}

struct Page {
    registry: Mutex<Registry>,
    beside: Option<Beside>,
    started: Instant,
    open_metrics: bool,
    scrapes: Semaphore,
}

impl Prometheus {
    /// Mounts the page on its door.
    pub fn mount(config: &Config, opening: &mut Opening<'_>) -> Result<Prometheus, OpenError> {
        let budget = opening.budget.child(format!("exporter {}", opening.name), u64::MAX);
        let page = Arc::new(Page {
            registry: Mutex::new(Registry::new(config.options(), budget.charge(0))),
            beside: (opening.beside)(&config.endpoint),
            started: Instant::now(),
            open_metrics: config.enable_open_metrics,
            scrapes: Semaphore::new(MAX_SCRAPES),
        });
        let served = Arc::clone(&page);
        let service = handler_fn(move |request| Arc::clone(&served).answer(request));
        place(config, opening.name, opening.doors, service)?;
        Ok(Prometheus { page })
    }
}

/// Takes the page's place on its door.
fn place(config: &Config, name: &str, doors: &mut Doors, service: Service) -> Result<(), Collision> {
    let settings = DoorSettings {
        tls: config.tls.clone(),
        ..DoorSettings::default()
    };
    let at = At::Path("/metrics".to_owned());
    let mount = Mount::Http { at, service };
    doors.mount_with(&config.endpoint, &format!("exporter {name}"), mount, settings)
}

/// The same with nothing to show, for who only wants to know whether the place is free.
pub fn claim(config: &Config, name: &str, doors: &mut Doors) -> Result<(), Collision> {
    let service = handler_fn(|_| async { Response::new(empty_body()) });
    place(config, name, doors, service)
}

impl Exporter for Prometheus {
    fn takes(&self, signal: Signal) -> bool {
        signal == Signal::Metrics
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let now = self.page.started.elapsed();
            let mut registry = self.page.registry.lock().unwrap_or_else(PoisonError::into_inner);
            let rejected = registry.update(&batch.payload, now);
            match rejected.total() {
                0 => Outcome::Delivered,
                total => Outcome::rejected(Reason::Unsupported, rejected.message(), total),
            }
        })
    }
}

impl Page {
    async fn answer(self: Arc<Page>, request: Request) -> Response {
        let is_head = request.method() == Method::HEAD;
        if request.method() != Method::GET && !is_head {
            let mut response = Response::new(empty_body());
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let Ok(_permit) = self.scrapes.try_acquire() else {
            let mut response = Response::new(full_body("too many scrapes at once\n"));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return response;
        };
        let format = if self.open_metrics {
            format(request.headers())
        } else {
            Format::Text
        };
        let wants_gzip = accepts_gzip(request.headers());
        let page = Arc::clone(&self);
        // A full page takes long enough to hold up others on this thread.
        let written = tokio::task::spawn_blocking(move || {
            let text = page.write(format);
            let packing = if wants_gzip && text.len() >= MIN_GZIP_BYTES {
                Packing::Gzip
            } else {
                Packing::None
            };
            pack_text(text.into_bytes(), packing)
        });
        let Ok(packed) = written.await else {
            let mut response = Response::new(empty_body());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return response;
        };
        let mut response = Response::new(if is_head { empty_body() } else { full_body(packed.bytes) });
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
        if let Some(encoding) = packed.encoding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        response
    }

    fn write(&self, format: Format) -> String {
        let mut writer = Writer::new(format);
        self.registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(&mut writer, self.started.elapsed());
        if let Some(beside) = &self.beside {
            beside(&mut writer);
        }
        writer.finish()
    }
}

/// The items of a header's list with their weights (RFC 9110, 12.4.2).
fn weighted(headers: &HeaderMap, name: http::HeaderName) -> Vec<(String, f32)> {
    let values = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    let items = values.flat_map(|value| value.split(','));
    items
        .map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let mut kept = parts.next().unwrap_or_default().to_ascii_lowercase();
            let mut weight = 1.0;
            for part in parts {
                match part.split_once('=') {
                    Some(("q", q)) => weight = q.trim().parse().unwrap_or(0.0),
                    _ => {
                        kept.push(';');
                        kept.push_str(&part.to_ascii_lowercase());
                    }
                }
            }
            (kept, weight)
        })
        .collect()
}

/// What the scraper would rather have; the text format if it does not say.
fn format(headers: &HeaderMap) -> Format {
    let mut best = (Format::Text, 0.0);
    for (kind, weight) in weighted(headers, ACCEPT) {
        let mut parts = kind.split(';');
        let format = match parts.next() {
            Some("application/openmetrics-text") => {
                let version = parts.find_map(|part| part.strip_prefix("version="));
                // 0.0.1 was the draft of 1.0.0; what we write is either.
                if !matches!(version, None | Some("1.0.0" | "0.0.1")) {
                    continue;
                }
                Format::OpenMetrics
            }
            Some("text/plain" | "text/*" | "*/*") => Format::Text,
            _ => continue,
        };
        if weight > best.1 {
            best = (format, weight);
        }
    }
    best.0
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    weighted(headers, ACCEPT_ENCODING)
        .iter()
        .any(|(name, weight)| (name == "gzip" || name == "*") && *weight > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scrapers_ask_for() {
        let of = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().expect("a header"));
            format(&headers)
        };
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(of(prometheus), Format::OpenMetrics);
        assert_eq!(
            of("text/plain; version=0.0.4, application/openmetrics-text; q=0.2"),
            Format::Text
        );
        assert_eq!(
            of("application/openmetrics-text; version=2.0.0, text/plain;q=0.1"),
            Format::Text
        );
        assert_eq!(of("*/*"), Format::Text);
        assert_eq!(of("application/json, ;q=x"), Format::Text);
        assert_eq!(format(&HeaderMap::new()), Format::Text);
    }

    #[test]
    fn who_takes_gzip() {
        let of = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, accept.parse().expect("a header"));
            accepts_gzip(&headers)
        };
        assert!(of("gzip") && of("deflate, gzip;q=0.5") && of("*"));
        assert!(!of("identity") && !of("gzip;q=0"));
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
