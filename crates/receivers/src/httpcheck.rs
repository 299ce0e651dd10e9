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
//! answer was a success (2xx) and came in time, else 0. It is told at every check, so that `httpcheck_up == 0` is an alert on a service that is down and
//! `avg_over_time(httpcheck_up[30d])` its availability. Where a target has a `service_name`, its points are that service's.
//!
//! Redirects are followed. Each URL is asked by itself, so that one that does not answer delays no other, and the body of an answer is not read.

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

/// The only signal that it makes.
pub const SIGNALS: [Signal; 1] = [Signal::Metrics];

/// The collector's default for a check.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// An interval below it would be a load test.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

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
/// was no answer; `httpcheck.up` is 1 if the answer was a success (2xx) and came in time, else 0. `httpcheck_up == 0` is an alert on a service that is
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
    #[serde(rename = "httpcheck.response.size")]
    pub response_size: Option<Enabled>,
    /// Not measured.
    #[serde(rename = "httpcheck.tls.cert_remaining")]
    pub tls_cert_remaining: Option<Enabled>,
    /// Not measured.
    #[serde(rename = "httpcheck.tls.handshake.duration")]
    pub tls_handshake_duration: Option<Enabled>,
    /// Not measured.
    #[serde(rename = "httpcheck.validation.failed")]
    pub validation_failed: Option<Enabled>,
    /// Not measured.
    #[serde(rename = "httpcheck.validation.passed")]
    pub validation_passed: Option<Enabled>,
}

impl MetricsConfig {
    /// Those that are asked for and not measured.
    fn unmeasured(&self) -> Vec<&'static str> {
        let all = [
            ("httpcheck.client.connection.duration", &self.connection_duration),
            ("httpcheck.client.request.duration", &self.request_duration),
            ("httpcheck.dns.lookup.duration", &self.dns_lookup_duration),
            ("httpcheck.response.duration", &self.response_duration),
            ("httpcheck.response.size", &self.response_size),
            ("httpcheck.tls.cert_remaining", &self.tls_cert_remaining),
            ("httpcheck.tls.handshake.duration", &self.tls_handshake_duration),
            ("httpcheck.validation.failed", &self.validation_failed),
            ("httpcheck.validation.passed", &self.validation_passed),
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
    /// Must be absent: bodies are not looked at.
    #[serde(deserialize_with = "no_validations")]
    pub validations: (),
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
            validations: (),
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

fn no_validations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom(
        "bodies are not looked at; let the service answer with a status that tells",
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
            let asking = Arc::new(Asking::new(&target.tls, Login::Nobody, given)?);
            let patience = match self.timeout {
                Duration::ZERO => target.timeout,
                all => all.min(target.timeout),
            };
            for url in target.urls() {
                checks.push(Check {
                    asked: Asked::new(Arc::clone(&asking), url)?,
                    url: url.clone(),
                    method: target.method.clone(),
                    body: target.body.clone().into(),
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
}

impl Found {
    fn is_up(&self) -> bool {
        matches!(self.status, Ok(200..=299))
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
                    Ok(status) => tracing::warn!("{} is down: HTTP {status}", self.url),
                    Err(why) => tracing::warn!("{} is down: {why}", self.url),
                }
            }
            self.pushing.push(self.write(&found, at)).await;
        }
    }

    async fn ask(&self) -> Found {
        let start = Instant::now();
        let headers = HeaderMap::new();
        let asked = self
            .asked
            .ask(&self.method, &headers, self.body.clone(), Reading::Leave);
        let status = match timeout(self.timeout, asked).await {
            Ok(Ok(answer)) => Ok(answer.status.as_u16()),
            Ok(Err(error)) => Err(shortened(&error)),
            Err(_) => Err(format!("no answer in {:?}", self.timeout)),
        };
        Found {
            status,
            took: start.elapsed(),
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
mod tests {
    use super::*;
    use pipeline::config::Source;

    fn read(settings: &str) -> Result<Config, String> {
        let text = format!("receivers:\n  it: {settings}\nservice: {{ pipelines: {{ metrics: {{}} }} }}\n");
        let config = pipeline::config::Config::load(vec![Source::new("test", text)], &|_| None)
            .map_err(|error| error.to_string())?;
        Config::parse(&config.section(&config.receivers[0])).map_err(|error| error.to_string())
    }

    #[test]
    fn the_collectors_settings_are_read() {
        let config = read(
            "{ collection_interval: 30s, initial_delay: 0s, metrics: { httpcheck.status: { enabled: false }, httpcheck.tls.cert_remaining: { enabled: true } }, targets: [ { method: post, \
             endpoints: [ 'https://a/', 'http://b:1/x?y=z' ], endpoint: 'http://[::1]:8/', headers: { a: b }, body: '{}', auto_content_type: true, \
             tls: { insecure_skip_verify: true }, max_idle_conns: 5 } ] }",
        )
        .expect("right");
        assert_eq!(
            (config.collection_interval, config.timeout),
            (Duration::from_secs(30), Duration::ZERO)
        );
        let target = &config.targets[0];
        assert_eq!((&target.method, target.timeout), (&Method::POST, DEFAULT_TIMEOUT));
        assert_eq!(target.urls().count(), 3);
        assert!(!config.metrics.status.enabled && config.metrics.up.enabled);
        assert_eq!(config.metrics.unmeasured(), ["httpcheck.tls.cert_remaining"]);
    }

    #[test]
    fn mistakes_have_their_place() {
        for (settings, expect) in [
            ("{}", "the key `targets` is missing"),
            ("{ targets: [] }", "there is nothing to check"),
            ("{ targets: [ {} ] }", "name an `endpoint`"),
            (
                "{ targets: [ { endpoint: 'localhost:80' } ] }",
                "does not begin with http://",
            ),
            (
                "{ targets: [ { endpoints: [ 'http://a/', 'ftp://x' ] } ] }",
                "`ftp://` is not supported",
            ),
            (
                "{ targets: [ { endpoint: 'http://me:pw@x/' } ] }",
                "must not hold a user",
            ),
            (
                "{ targets: [ { endpoint: 'http://x/', methd: GET } ] }",
                "did you mean `method`?",
            ),
            (
                "{ targets: [ { endpoint: 'http://x/', method: 'G T' } ] }",
                "is not a method",
            ),
            (
                "{ targets: [ { endpoint: 'http://x/', tls: { key_file: k } } ] }",
                "`key_file` needs `cert_file`",
            ),
            (
                "{ targets: [ { endpoint: 'http://x/', headers: { 'a b': c } } ] }",
                "is not the name of a header",
            ),
            (
                "{ targets: [ { endpoint: 'http://x/', proxy_url: 'http://p' } ] }",
                "through a proxy",
            ),
            (
                "{ targets: [ { endpoint: 'http://x/', auth: { authenticator: a } } ] }",
                "under `headers`",
            ),
            (
                "{ targets: [ { endpoint: 'http://x/' } ], collection_interval: 1ms }",
                "must be at least 100ms",
            ),
            (
                "{ targets: [ { endpoint: 'http://x/' } ], collection_interval: 10 }",
                "the unit is missing",
            ),
        ] {
            let said = read(settings).expect_err(settings);
            assert!(said.contains("test:2") && said.contains(expect), "{settings}: {said}");
        }
    }
}
