//! Asks URLs at an interval and tells what they answered: the status, how long it took, and whether the service is up.
//!
//! ```yaml
//! receivers:
//!   httpcheck:
//!     collection_interval: 30s
//!     targets:
//!       - endpoint: http://127.0.0.1:8000/health
//!         service_name: api-gateway
//!       - endpoints: [ "https://api.example.com/health", "https://api.example.com/ready" ]
//!         method: HEAD
//!         headers: { authorization: "Bearer ${env:PROBE_TOKEN}" }
//!         timeout: 5s
//! ```
//!
//! The metrics are the collector's: `httpcheck.status` has a point per class of status, 1 for the class of the answer; `httpcheck.duration` is the time in
//! milliseconds until the head of the answer was there; `httpcheck.error` says why there was no answer. Beyond the collector's there is `httpcheck.up`: 1 if the
//! answer was a success (2xx), came in time and has the body that `validations` demand, else 0. It is told at every check, so that `httpcheck_up == 0` is an alert on a service that is down and
//! `avg_over_time(httpcheck_up[30d])` its availability. Where a target has a `service_name`, its points are that service's.
//!
//! Redirects are followed. Each URL is asked by itself, so that one that does not answer delays no other. The body of an answer is read only where
//! `validations` are about it or its size is asked for; then the duration is that of the whole answer, and one that passes 1 MiB is an error.

mod validation;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use model::Signal;
use model::view::metrics::Number;
use model::write::{Attributes, Metrics, NumberPoint, ScopeWriter, Temporality};
use net::dial::{Reading, headers};
use net::{ClientTls, Doors};
use pipeline::Intake;
use pipeline::config::{Problems, Section, duration};
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::client::{Asked, Asking, FetchError, Login};
use crate::push::{Pushing, now_unix_nano};
use crate::settings::{self, Mounted};

pub use self::validation::ValidationConfig;
use self::validation::{Body, Validation};

/// The only signal that it makes.
pub const SIGNALS: [Signal; 1] = [Signal::Metrics];

/// The collector's default for a check.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// An interval below it would be a load test.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes of an answer's body that are looked at; a health check says less.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Bytes of an error's text as an attribute: each text is a series.
const MAX_ERROR_BYTES: usize = 256;

/// Checks of URLs.
///
/// ```yaml
/// receivers:
///   httpcheck:
///     collection_interval: 30s
///     targets:
///       - endpoint: http://127.0.0.1:8000/health
///         service_name: api-gateway
/// ```
///
/// `httpcheck.status` has a point per class of status, 1 for the class of the answer; `httpcheck.duration` is in milliseconds; `httpcheck.error` says why there
/// was no answer; `httpcheck.up` is 1 if the answer was a success (2xx), came in time and has the body that `validations` demand, else 0. `httpcheck_up == 0` is an alert on a service that is
/// down, `avg_over_time(httpcheck_up[30d])` its availability.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is checked.
    pub targets: Vec<TargetConfig>,
    /// Time between two checks. Default 60s.
    #[serde(default = "one_minute", deserialize_with = "duration")]
    pub collection_interval: Duration,
    /// Time before the first. Default 1s.
    #[serde(default = "one_second", deserialize_with = "duration")]
    pub initial_delay: Duration,
    /// The most that any check may take, whatever its target says. Default 0s: no more than the target's.
    #[serde(default, deserialize_with = "duration")]
    pub timeout: Duration,
    /// Which metrics are told, by name, with `enabled`.
    #[serde(default)]
    pub metrics: MetricsConfig,
    /// Must be absent: each URL is checked by itself.
    #[serde(default, deserialize_with = "no_sequences")]
    pub sequences: (),
}

/// `metrics:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// On by default.
    #[serde(rename = "httpcheck.status")]
    pub status: Enabled,
    /// On by default.
    #[serde(rename = "httpcheck.duration")]
    pub duration: Enabled,
    /// On by default.
    #[serde(rename = "httpcheck.error")]
    pub error: Enabled,
    /// On by default.
    #[serde(rename = "httpcheck.up")]
    pub up: Enabled,
    /// How many of a target's `validations` hold and do not, by `validation.type`. On by default.
    #[serde(rename = "httpcheck.validation.passed")]
    pub validation_passed: Enabled,
    /// The same; 0 where all hold.
    #[serde(rename = "httpcheck.validation.failed")]
    pub validation_failed: Enabled,
    /// Bytes of the answer's body. Off by default, because it has bodies read that nobody else wants.
    #[serde(rename = "httpcheck.response.size")]
    pub response_size: Option<Enabled>,
    /// Not measured; accepted with a warning, as all below, which the collector has and tells only if asked to.
    #[serde(rename = "httpcheck.client.connection.duration")]
    pub connection_duration: Option<Enabled>,
    /// Not measured.
    #[serde(rename = "httpcheck.client.request.duration")]
    pub request_duration: Option<Enabled>,
    /// Not measured.
    #[serde(rename = "httpcheck.dns.lookup.duration")]
    pub dns_lookup_duration: Option<Enabled>,
    /// Not measured.
    #[serde(rename = "httpcheck.response.duration")]
    pub response_duration: Option<Enabled>,
    /// Not measured.
    #[serde(rename = "httpcheck.tls.cert_remaining")]
    pub tls_cert_remaining: Option<Enabled>,
    /// Not measured.
    #[serde(rename = "httpcheck.tls.handshake.duration")]
    pub tls_handshake_duration: Option<Enabled>,
}

impl MetricsConfig {
    /// Those that are asked for and not measured.
    fn unmeasured(&self) -> Vec<&'static str> {
        let all = [
            ("httpcheck.client.connection.duration", &self.connection_duration),
            ("httpcheck.client.request.duration", &self.request_duration),
            ("httpcheck.dns.lookup.duration", &self.dns_lookup_duration),
            ("httpcheck.response.duration", &self.response_duration),
            ("httpcheck.tls.cert_remaining", &self.tls_cert_remaining),
            ("httpcheck.tls.handshake.duration", &self.tls_handshake_duration),
        ];
        let asked = all.iter().filter(|(_, set)| set.as_ref().is_some_and(|it| it.enabled));
        asked.map(|(name, _)| *name).collect()
    }
}

/// Whether a metric is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Enabled {
    /// Default true.
    pub enabled: bool,
}

impl Default for Enabled {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Headers by name.
pub type Headers = BTreeMap<String, String>;

/// One of `targets`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetConfig {
    /// A URL.
    pub endpoint: Option<String>,
    /// Several URLs that are asked in the same way.
    pub endpoints: Vec<String>,
    /// Default GET.
    #[serde(deserialize_with = "method")]
    pub method: Method,
    /// Sent along with each request. Default: none.
    pub headers: Headers,
    /// What is sent as the body. Default: nothing.
    pub body: String,
    /// Whether a body's content type is guessed where `headers` does not name it: JSON, or text. Default false.
    pub auto_content_type: bool,
    /// Certificates; default the system's.
    pub tls: ClientTls,
    /// For one check, connecting and redirects included. Default 30s.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// Whose health it is: becomes `service.name`. Ours, not the collector's. Default: none.
    pub service_name: Option<String>,
    /// Accepted without effect, as all settings of the connection below: each check that brings a body makes a connection of its own.
    pub max_idle_conns: Option<IgnoredAny>,
    /// Without effect.
    pub max_idle_conns_per_host: Option<IgnoredAny>,
    /// Without effect.
    pub max_conns_per_host: Option<IgnoredAny>,
    /// Without effect.
    pub idle_conn_timeout: Option<IgnoredAny>,
    /// Without effect.
    pub disable_keep_alives: Option<IgnoredAny>,
    /// Without effect.
    pub http2_read_idle_timeout: Option<IgnoredAny>,
    /// Without effect.
    pub http2_ping_timeout: Option<IgnoredAny>,
    /// Without effect.
    pub read_buffer_size: Option<IgnoredAny>,
    /// Without effect.
    pub write_buffer_size: Option<IgnoredAny>,
    /// Must be absent: checks go out as they are.
    #[serde(deserialize_with = "no_proxy")]
    pub proxy_url: (),
    /// Must be absent: write the header that it would set.
    #[serde(deserialize_with = "no_auth")]
    pub auth: (),
    /// What the body of an answer must be like. A check of which one does not hold is not up. Default: anything.
    pub validations: Vec<ValidationConfig>,
    /// With what `body` is compressed: `gzip`, `zstd`, `zlib`, `deflate` or `none`. Default none.
    #[serde(deserialize_with = "compression")]
    pub compression: Option<Compressing>,
    /// Accepted without effect: a body that is the same at each check is compressed once, well.
    pub compression_params: Option<IgnoredAny>,
    /// Whether the cookies that answers set are sent with the next checks.
    pub cookies: Cookies,
    /// Must be absent or empty: extensions do not change checks.
    #[serde(deserialize_with = "no_middlewares")]
    pub middlewares: (),
    /// Must be absent; it is a key beside `targets`, and refused there.
    #[serde(deserialize_with = "no_sequences")]
    pub sequences: (),
}

/// `cookies:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cookies {
    /// Default false. At most 50 are kept for a URL, in memory.
    pub enabled: bool,
}

/// A coding of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compressing {
    Gzip,
    Zstd,
    /// What HTTP calls `deflate` has zlib's head (RFC 9110, 8.4.1.2).
    Zlib(&'static str),
}

impl Compressing {
    fn name(self) -> &'static str {
        match self {
            Compressing::Gzip => "gzip",
            Compressing::Zstd => "zstd",
            Compressing::Zlib(name) => name,
        }
    }

    fn pack(self, body: &[u8]) -> Result<Bytes, String> {
        let mut deflating = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
        let mut packed = vec![
            0;
            deflating
                .gzip_compress_bound(body.len())
                .max(deflating.zlib_compress_bound(body.len()))
        ];
        let length = match self {
            Compressing::Gzip => deflating.gzip_compress(body, &mut packed),
            Compressing::Zlib(_) => deflating.zlib_compress(body, &mut packed),
            Compressing::Zstd => {
                let packed = zstd::bulk::compress(body, zstd::DEFAULT_COMPRESSION_LEVEL);
                return packed.map(Bytes::from).map_err(|error| error.to_string());
            }
        };
        packed.truncate(length.map_err(|error| format!("{error:?}"))?);
        Ok(packed.into())
    }
}

impl Default for TargetConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            endpoints: Vec::new(),
            method: Method::GET,
            headers: Headers::new(),
            body: String::new(),
            auto_content_type: false,
            tls: ClientTls::default(),
            timeout: DEFAULT_TIMEOUT,
            service_name: None,
            max_idle_conns: None,
            max_idle_conns_per_host: None,
            max_conns_per_host: None,
            idle_conn_timeout: None,
            disable_keep_alives: None,
            http2_read_idle_timeout: None,
            http2_ping_timeout: None,
            read_buffer_size: None,
            write_buffer_size: None,
            proxy_url: (),
            auth: (),
            validations: Vec::new(),
            compression: None,
            compression_params: None,
            cookies: Cookies::default(),
            middlewares: (),
            sequences: (),
        }
    }
}

fn one_minute() -> Duration {
    Duration::from_secs(60)
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
    let name = String::deserialize(deserializer)?;
    let method = name.to_ascii_uppercase().parse();
    method.map_err(|_| D::Error::custom(format!("`{name}` is not a method of HTTP")))
}

fn no_proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom(
        "checks through a proxy are not possible; leave it out",
    ))
}

fn no_auth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom(
        "extensions do not authenticate checks; write the header that they would set under `headers`",
    ))
}

fn compression<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Compressing>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("" | "none") => Ok(None),
        Some("gzip") => Ok(Some(Compressing::Gzip)),
        Some("zstd") => Ok(Some(Compressing::Zstd)),
        Some("zlib") => Ok(Some(Compressing::Zlib("zlib"))),
        Some("deflate") => Ok(Some(Compressing::Zlib("deflate"))),
        Some(other) => Err(D::Error::custom(format!(
            "`{other}` is not available for the body of a check; write gzip, zstd, zlib, deflate or none"
        ))),
    }
}

fn no_middlewares<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match Option::<Vec<IgnoredAny>>::deserialize(deserializer)? {
        None => Ok(()),
        Some(list) if list.is_empty() => Ok(()),
        Some(_) => Err(D::Error::custom(
            "extensions do not change checks; leave it out, and write what they would add under `headers`",
        )),
    }
}

fn no_sequences<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom(
        "steps that depend on each other are not checked; write each URL as a target of its own, or let the service check itself at one URL",
    ))
}

impl TargetConfig {
    fn urls(&self) -> impl Iterator<Item = &String> {
        self.endpoints.iter().chain(&self.endpoint)
    }

    fn sets_a_connection(&self) -> bool {
        [
            &self.max_idle_conns,
            &self.max_idle_conns_per_host,
            &self.max_conns_per_host,
            &self.idle_conn_timeout,
            &self.disable_keep_alives,
            &self.http2_read_idle_timeout,
            &self.http2_ping_timeout,
            &self.read_buffer_size,
            &self.write_buffer_size,
        ]
        .iter()
        .any(|it| it.is_some())
    }
}

impl Config {
    /// Reads and checks the settings; mistakes come with their places.
    pub fn parse(section: &Section<'_>) -> Result<Self, Problems> {
        let config: Self = section.parse()?;
        if config.targets.is_empty() {
            return Err(section.problem(
                &["targets"],
                "there is nothing to check; list a target with an `endpoint`",
            ));
        }
        if config.collection_interval < MIN_INTERVAL {
            let message = format!("must be at least {MIN_INTERVAL:?}");
            return Err(section.problem(&["collection_interval"], message));
        }
        for name in config.metrics.unmeasured() {
            section.warn(&["metrics", name], format!("`{name}` is not measured"));
        }
        for (at, target) in config.targets.iter().enumerate() {
            let at = at.to_string();
            if target.urls().next().is_none() {
                return Err(section.problem(&["targets", &at], "name an `endpoint`, or several `endpoints`"));
            }
            if target.timeout.is_zero() {
                return Err(section.problem(&["targets", &at, "timeout"], "a check needs some time"));
            }
            let wrong = |path: &[&str], url: &str| {
                let error = Asked::check(url).err()?;
                Some(section.problem(&[&["targets", at.as_str()], path].concat(), error.to_string()))
            };
            if let Some(url) = &target.endpoint
                && let Some(problems) = wrong(&["endpoint"], url)
            {
                return Err(problems);
            }
            for (item, url) in target.endpoints.iter().enumerate() {
                if let Some(problems) = wrong(&["endpoints", &item.to_string()], url) {
                    return Err(problems);
                }
            }
            headers(&target.headers).map_err(|why| section.problem(&["targets", &at, "headers"], why))?;
            for (item, validation) in target.validations.iter().enumerate() {
                validation.compile().map_err(|(key, why)| {
                    let item = item.to_string();
                    let path = ["targets", &at, "validations", &item, key];
                    section.problem(if key.is_empty() { &path[..4] } else { &path }, why)
                })?;
            }
            if let Err((key, why)) = target.tls.check() {
                return Err(section.problem(&["targets", &at, "tls", key], why));
            }
            if target.sets_a_connection() {
                section.warn(
                    &["targets", &at],
                    "settings of the connections have no effect; a check that brings a body makes a connection of its own",
                );
            }
        }
        Ok(config)
    }
}

impl settings::Settings for Config {
    fn mount(self: Box<Self>, intake: Intake, _doors: &mut Doors) -> Result<Mounted, settings::MountError> {
        let told = Arc::new(self.metrics.clone());
        let pushing = Arc::new(Pushing::new(intake));
        let mut checks = Vec::new();
        for target in &self.targets {
            let mut given = headers(&target.headers)?;
            if target.auto_content_type && !target.body.is_empty() {
                let json = serde_json::from_str::<IgnoredAny>(&target.body).is_ok();
                let kind = if json {
                    "application/json"
                } else {
                    "text/plain; charset=utf-8"
                };
                given
                    .entry(http::header::CONTENT_TYPE)
                    .or_insert(http::HeaderValue::from_static(kind));
            }
            let mut body = Bytes::from(target.body.clone());
            if let Some(compressing) = target.compression.filter(|_| !body.is_empty()) {
                body = compressing.pack(&body)?;
                given.insert(
                    http::header::CONTENT_ENCODING,
                    http::HeaderValue::from_static(compressing.name()),
                );
            }
            let mut validations = Vec::new();
            for config in &target.validations {
                validations.extend(config.compile().map_err(|(_, why)| why)?);
            }
            let validations: Arc<[Validation]> = validations.into();
            let asking = Arc::new(Asking::new(&target.tls, Login::Nobody, given)?);
            let patience = match self.timeout {
                Duration::ZERO => target.timeout,
                all => all.min(target.timeout),
            };
            for url in target.urls() {
                let asked = Asked::new(Arc::clone(&asking), url)?;
                checks.push(Check {
                    asked: if target.cookies.enabled {
                        asked.with_cookies()
                    } else {
                        asked
                    },
                    validations: Arc::clone(&validations),
                    url: url.clone(),
                    method: target.method.clone(),
                    body: body.clone(),
                    service: target.service_name.clone(),
                    timeout: patience,
                    told: Arc::clone(&told),
                    pushing: Arc::clone(&pushing),
                });
            }
        }
        let (first, every) = (self.initial_delay, self.collection_interval);
        let work: settings::Work = Box::new(move |mut stop| {
            Box::pin(async move {
                let mut running = JoinSet::new();
                for check in checks {
                    running.spawn(check.run(first, every));
                }
                // The sender gone is a stop as well.
                let _ = stop.wait_for(|stop| *stop).await;
                running.shutdown().await;
            })
        });
        Ok(Mounted {
            work: Some(work),
            ..Mounted::default()
        })
    }
}

/// One URL that is asked.
struct Check {
    asked: Asked,
    validations: Arc<[Validation]>,
    url: String,
    method: Method,
    body: Bytes,
    service: Option<String>,
    timeout: Duration,
    told: Arc<MetricsConfig>,
    pushing: Arc<Pushing>,
}

/// What came of a check.
struct Found {
    /// The answer's status, or why there is none.
    status: Result<u16, String>,
    took: Duration,
    /// Bytes of the body, where it was read.
    size_bytes: Option<usize>,
    /// Of each kind of validation how many hold, and how many do not. None without an answer.
    validations: Vec<(&'static str, i64, i64)>,
}

impl Found {
    fn is_up(&self) -> bool {
        matches!(self.status, Ok(200..=299)) && self.validations.iter().all(|(_, _, failed)| *failed == 0)
    }
}

impl Check {
    async fn run(self, first: Duration, every: Duration) {
        let mut ticks = interval_at(Instant::now() + first, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut was_up = true;
        loop {
            ticks.tick().await;
            let at = now_unix_nano();
            let found = self.ask().await;
            if found.is_up() != std::mem::replace(&mut was_up, found.is_up()) {
                match &found.status {
                    Ok(status) if found.is_up() => tracing::info!("{} is up: HTTP {status}", self.url),
                    Ok(status) => match found.validations.iter().find(|(_, _, failed)| *failed > 0) {
                        Some((kind, ..)) => tracing::warn!(
                            "{} is down: HTTP {status}, and not the body that `{kind}` demands",
                            self.url
                        ),
                        None => tracing::warn!("{} is down: HTTP {status}", self.url),
                    },
                    Err(why) => tracing::warn!("{} is down: {why}", self.url),
                }
            }
            self.pushing.push(self.write(&found, at)).await;
        }
    }

    async fn ask(&self) -> Found {
        let start = Instant::now();
        let headers = HeaderMap::new();
        let tells_size = self.told.response_size.as_ref().is_some_and(|it| it.enabled);
        let looks_at_body = tells_size || !self.validations.is_empty();
        let mut lease = self.pushing.intake().budget().charge(0);
        // Counted and never refused: our own want of memory is no outage of theirs, and it is one body of bounded size a URL.
        let mut room = |bytes: u64| {
            lease.charge(bytes);
            true
        };
        let reading = match looks_at_body {
            false => Reading::Leave,
            true => Reading::Keep {
                limit_bytes: MAX_BODY_BYTES,
                room: &mut room,
            },
        };
        let asked = self.asked.ask(&self.method, &headers, self.body.clone(), reading);
        let answer = timeout(self.timeout, asked).await;
        let took = start.elapsed();
        let mut size_bytes = None;
        let mut validations: Vec<(&'static str, i64, i64)> = Vec::new();
        let status = match answer {
            Ok(Ok(answer)) => {
                size_bytes = tells_size.then_some(answer.body.len());
                let body = Body::new(&answer.body);
                for validation in self.validations.iter() {
                    let kind = validation.kind();
                    let at = validations
                        .iter()
                        .position(|(known, ..)| *known == kind)
                        .unwrap_or_else(|| {
                            validations.push((kind, 0, 0));
                            validations.len() - 1
                        });
                    match validation.holds(&body) {
                        true => validations[at].1 += 1,
                        false => validations[at].2 += 1,
                    }
                }
                Ok(answer.status.as_u16())
            }
            Ok(Err(error)) => Err(shortened(&error)),
            Err(_) => Err(format!("no answer in {:?}", self.timeout)),
        };
        Found {
            status,
            took,
            size_bytes,
            validations,
        }
    }

    fn write(&self, found: &Found, at: u64) -> Metrics {
        let mut metrics = Metrics::default();
        let service = |attributes: &mut Attributes<'_>| {
            if let Some(name) = &self.service {
                attributes.text("service.name", name);
            }
        };
        metrics.resource(service, |resource| {
            resource.scope("httpcheck", env!("CARGO_PKG_VERSION"), |scope| {
                self.write_metrics(found, at, scope);
            });
        });
        metrics
    }

    fn write_metrics(&self, found: &Found, at: u64, scope: &mut ScopeWriter<'_>) {
        let point = |value: i64| NumberPoint {
            start_unix_nano: 0,
            time_unix_nano: at,
            value: Number::Int(value),
        };
        let url = |attributes: &mut Attributes<'_>| attributes.text("http.url", &self.url);
        let told = &self.told;
        if told.duration.enabled {
            let millis = i64::try_from(found.took.as_millis()).unwrap_or(i64::MAX);
            scope.gauge("httpcheck.duration", "ms", |points| {
                points.number(&point(millis), &[], url)
            });
        }
        if let Some(bytes) = found.size_bytes {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            scope.gauge("httpcheck.response.size", "By", |points| {
                points.number(&point(bytes), &[], url)
            });
        }
        for (name, is_told, of) in [
            ("httpcheck.validation.passed", told.validation_passed.enabled, 1),
            ("httpcheck.validation.failed", told.validation_failed.enabled, 2),
        ] {
            if !is_told || found.validations.is_empty() {
                continue;
            }
            scope.sum(name, "1", Temporality::Cumulative, false, |points| {
                for (kind, passed, failed) in &found.validations {
                    let count = if of == 1 { *passed } else { *failed };
                    points.number(&point(count), &[], |attributes| {
                        url(attributes);
                        attributes.text("validation.type", kind);
                    });
                }
            });
        }
        if told.error.enabled
            && let Err(why) = &found.status
        {
            scope.sum("httpcheck.error", "{error}", Temporality::Cumulative, false, |points| {
                points.number(&point(1), &[], |attributes| {
                    url(attributes);
                    attributes.text("error.message", why);
                });
            });
        }
        if told.status.enabled {
            let status = found.status.as_ref().copied().unwrap_or(0);
            scope.sum("httpcheck.status", "1", Temporality::Cumulative, false, |points| {
                for (class, first) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(1..) {
                    let is_it = status / 100 == first;
                    points.number(&point(i64::from(is_it)), &[], |attributes| {
                        url(attributes);
                        attributes.text("http.method", self.method.as_str());
                        attributes.text("http.status_class", class);
                        // As the collector does: only the class that it is has the status, so that the others' series do not change with it.
                        if is_it {
                            attributes.int("http.status_code", i64::from(status));
                        }
                    });
                }
            });
        }
        if told.up.enabled {
            let up = i64::from(found.is_up());
            // Without a unit: `1` would make `httpcheck_up_ratio` of it in Prometheus.
            scope.gauge("httpcheck.up", "", |points| points.number(&point(up), &[], url));
        }
    }
}

fn shortened(error: &FetchError) -> String {
    let mut text = error.to_string();
    let mut end = text.len().min(MAX_ERROR_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests;
