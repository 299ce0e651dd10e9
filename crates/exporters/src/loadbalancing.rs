//! Why: backends that have to see all of something (a trace for tail sampling, a service for its metrics) share the load only if everything of one goes
//! to one of them.
//!
//! ```yaml
//! exporters:
//!   loadbalancing:
//!     routing_key: traceID
//!     protocol: { otlp: { tls: { insecure: true }, timeout: 5s } }
//!     resolver: { dns: { hostname: collectors.internal, port: 4317, interval: 5s } }
//! ```
//!
//! Who gets what is decided as the collector decides it, so that both can stand before the same backends: a ring of 36,000 places, 100 of them for each
//! backend. When one comes or goes, only what was or becomes its own moves.
//!
//! A backend that is away holds up its own share only: what the others took is not sent again, and they go on until 64 MiB wait for it; from then on all
//! of them wait, in the journal. A share is sent twice when its answer is lost, and when the process ends while another share of the same request waits.
//!
//! Source: README and hash ring of the collector's `loadbalancing` exporter.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use model::view::{Resource, View};
use model::wire::Fields;
use model::{Batch, Signal, edit};
use net::dial::Target;
use pipeline::circuit::{Circuit, Shown};
use pipeline::component::Left;
use pipeline::config::{Problems, Section};
use pipeline::sending::{Queue, Retry, Sending};
use pipeline::{BoxFuture, Exporter, Outcome, Reason};
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use tokio::time::Instant;

use crate::authenticator;
use crate::otlp::{self, Otlp};
use crate::request::BuildError;
use crate::sender::{Own, Sender};
use crate::unfinished::Unfinished;

/// The port of OTLP/gRPC where none is written.
const DEFAULT_PORT: u16 = 4317;

/// Places on the ring, and how many of them each backend has, as in the collector.
const PLACES: u32 = 36_000;
const PLACES_OF_A_BACKEND: u8 = 100;

/// More are refused: each has a connection, and the ring has no room for many more.
const MAX_BACKENDS: usize = 256;

/// Beyond the time of a share, for dividing and joining.
const DIVIDING_TIME: Duration = Duration::from_secs(1);

/// `loadbalancing`: OTLP to one of several backends, by what has to stay together.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How the backends are spoken to.
    #[serde(default)]
    pub protocol: Protocol,
    /// Who the backends are.
    pub resolver: Resolver,
    /// What goes to one backend: `traceID` (default for traces and logs), `service` (default for metrics), `resource` or `metric`.
    #[serde(default)]
    pub routing_key: Option<RoutingKey>,
}

/// `protocol`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Protocol {
    /// The settings of the exporter `otlp`, without its `endpoint`.
    #[serde(deserialize_with = "template")]
    pub otlp: Template,
}

/// What all backends have in common.
#[derive(Debug, Clone)]
pub struct Template(Sender<WithoutEndpoint>);

impl Default for Template {
    fn default() -> Template {
        Template(Sender {
            own: WithoutEndpoint::default(),
            shared: Default::default(),
        })
    }
}

fn template<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Template, D::Error> {
    Sender::deserialize(deserializer).map(Template)
}

/// The exporter `otlp` without the one setting that differs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WithoutEndpoint {
    endpoint: Option<String>,
}

impl Own for WithoutEndpoint {
    const TIMEOUT: Duration = <otlp::Settings as Own>::TIMEOUT;
}

/// `resolver`: one of these.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resolver {
    /// A list.
    #[serde(rename = "static")]
    pub fixed: Option<Fixed>,
    /// All addresses of a name.
    pub dns: Option<Dns>,
    /// Must be absent: a headless service of Kubernetes is a name for `dns`.
    #[serde(deserialize_with = "no_k8s")]
    pub k8s: (),
    /// Must be absent: a service of Cloud Map is a name for `dns`.
    #[serde(deserialize_with = "no_cloud_map")]
    pub aws_cloud_map: (),
}

fn no_k8s<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom(
        "Kubernetes' API is not asked here: make the service headless (`clusterIP: None`) and write `dns: { hostname: SERVICE.NAMESPACE.svc }`",
    ))
}

fn no_cloud_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom(
        "Cloud Map's API is not asked here: give its namespace DNS names and write `dns: { hostname: SERVICE.NAMESPACE }`",
    ))
}

/// `static`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixed {
    /// `host:port` each; 4317 where no port is written.
    pub hostnames: Vec<String>,
}

/// `dns`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Each of its addresses is a backend.
    pub hostname: String,
    /// Of all backends. Default 4317.
    #[serde(default = "default_port", deserialize_with = "port")]
    pub port: u16,
    /// How old an answer may be before the name is looked up again. Default 5s.
    #[serde(default = "dns_interval", deserialize_with = "pipeline::config::duration")]
    pub interval: Duration,
    /// For one look-up; the backends stay as they are when it fails. Default 1s.
    #[serde(default = "dns_timeout", deserialize_with = "pipeline::config::duration")]
    pub timeout: Duration,
}

fn default_port() -> u16 {
    DEFAULT_PORT
}

fn dns_interval() -> Duration {
    Duration::from_secs(5)
}

fn dns_timeout() -> Duration {
    Duration::from_secs(1)
}

/// The collector has it as a text.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| D::Error::custom(format!("`{text}` is not a port from 0 to 65535")))
}

/// `routing_key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutingKey {
    TraceId,
    Service,
    Resource,
    Metric,
}

impl<'de> Deserialize<'de> for RoutingKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RoutingKey, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "traceID" => Ok(RoutingKey::TraceId),
            "service" => Ok(RoutingKey::Service),
            "resource" => Ok(RoutingKey::Resource),
            "metric" => Ok(RoutingKey::Metric),
            other => Err(D::Error::custom(format!(
                "`{other}` is nothing to route by here; there are traceID, service, resource and metric"
            ))),
        }
    }
}

/// Everything about one of these exporters.
pub type Config = Sender<Settings>;

impl Own for Settings {
    const TIMEOUT: Duration = <otlp::Settings as Own>::TIMEOUT;
}

pub fn parse(section: &Section<'_>) -> Result<Config, Problems> {
    let mut config = Config::parse(section)?;
    let auth = &mut config.own.protocol.otlp.0.shared.auth;
    authenticator::look_up(section, &["protocol", "otlp"], auth)?;
    for key in ["tls", "headers", "auth", "compression"] {
        if section.sets(&[key]) {
            let why = format!("`{key}` is for the backends: write it under `protocol: {{ otlp: … }}`");
            return Err(section.problem(&[key], why));
        }
    }
    if config.own.protocol.otlp.0.own.endpoint.is_some() {
        let why = "without effect: each backend is an endpoint of its own";
        section.warn(&["protocol", "otlp", "endpoint"], why);
    }
    let resolver = &config.own.resolver;
    match (&resolver.fixed, &resolver.dns) {
        (None, None) => {
            let why = "there is no backend: write `static: { hostnames: [ … ] }` or `dns: { hostname: … }`";
            return Err(section.problem(&["resolver"], why));
        }
        (Some(_), Some(_)) => {
            return Err(section.problem(&["resolver"], "either `static` or `dns`"));
        }
        (Some(fixed), None) => {
            if fixed.hostnames.is_empty() || fixed.hostnames.len() > MAX_BACKENDS {
                let why = format!("there are {}; 1 to {MAX_BACKENDS} can be", fixed.hostnames.len());
                return Err(section.problem(&["resolver", "static", "hostnames"], why));
            }
            for hostname in &fixed.hostnames {
                let endpoint = endpoint(hostname);
                endpoint.map_err(|why| section.problem(&["resolver", "static", "hostnames"], why))?;
            }
        }
        (None, Some(dns)) => {
            if dns.hostname.is_empty() {
                return Err(section.problem(&["resolver", "dns", "hostname"], "`hostname` is empty"));
            }
        }
    }
    Ok(config)
}

/// `host:port` of a backend, which is also its name on the ring.
fn endpoint(hostname: &str) -> Result<String, String> {
    let target = Target::parse(hostname).map_err(|why| format!("`{hostname}`: {why}"))?;
    if target.https.is_some() || !target.path.is_empty() {
        return Err(format!("`{hostname}` is not host:port"));
    }
    Ok(match target.port {
        Some(_) => hostname.to_owned(),
        None => format!("{hostname}:{DEFAULT_PORT}"),
    })
}

/// How requests are sent: what is written here goes before what is written for the backends.
pub fn sending(config: &Config) -> Sending {
    let (outer, inner) = (&config.shared, &config.own.protocol.otlp.0.shared);
    let retry = match outer.retry_on_failure == Retry::default() {
        true => &inner.retry_on_failure,
        false => &outer.retry_on_failure,
    };
    let queue = match outer.sending_queue == Queue::default() {
        true => &inner.sending_queue,
        false => &outer.sending_queue,
    };
    Sending {
        on_full: outer.on_full,
        dead_letter: outer.dead_letter.clone(),
        ..Sending::new(timeout(config) + DIVIDING_TIME, retry.clone(), queue)
    }
}

/// For one share.
fn timeout(config: &Config) -> Duration {
    let inner = config.own.protocol.otlp.0.shared.timeout;
    config.shared.timeout.or(inner).unwrap_or(Settings::TIMEOUT)
}

/// Sends to one of several backends.
pub struct LoadBalancing {
    routing_key: Option<RoutingKey>,
    /// The same for all backends.
    metadata_keys: Vec<Arc<str>>,
    template: crate::sender::Shared,
    retry: Retry,
    timeout: Duration,
    dns: Option<Dns>,
    /// When the name was looked up last, for who comes first after its time.
    looked_up: tokio::sync::Mutex<Option<Instant>>,
    is_lookup_failing: AtomicBool,
    backends: RwLock<Arc<Backends>>,
    unfinished: Unfinished<Work>,
}

/// The backends of a moment.
#[derive(Default)]
struct Backends {
    list: Vec<(String, Arc<Backend>)>,
    /// Places in order, with the backend that begins to be responsible before it.
    ring: Vec<(u32, usize)>,
}

/// One backend and the circuit before it.
struct Backend {
    otlp: Otlp,
    circuit: Circuit,
}

/// What is left of a batch, as shares of which those that were taken are gone.
struct Work {
    shares: Vec<Option<Batch>>,
    refused: u32,
    why: Option<pipeline::ack::Rejection>,
}

impl Backends {
    /// A ring over these names, each once and in order; connections of those that stay are kept.
    fn new(
        mut names: Vec<String>,
        before: &Backends,
        template: &crate::sender::Shared,
        retry: &Retry,
    ) -> Result<Backends, BuildError> {
        names.sort();
        names.dedup();
        names.truncate(MAX_BACKENDS);
        let ring = ring(&names);
        let known: BTreeMap<&str, &Arc<Backend>> =
            before.list.iter().map(|(name, known)| (name.as_str(), known)).collect();
        let backend = |name: String| {
            if let Some(known) = known.get(name.as_str()) {
                let known = Arc::clone(known);
                return Ok((name, known));
            }
            let config = Sender {
                own: otlp::Settings { endpoint: name.clone() },
                shared: template.clone(),
            };
            let backend = Backend {
                otlp: Otlp::new(&config)?,
                circuit: Circuit::new(name.as_str(), retry.clone(), Shown::default()),
            };
            Ok((name, Arc::new(backend)))
        };
        let list: Result<Vec<_>, BuildError> = names.into_iter().map(backend).collect();
        Ok(Backends { list: list?, ring })
    }
}

/// Where each backend stands. A place that is taken stays whose it is.
fn ring(names: &[String]) -> Vec<(u32, usize)> {
    let mut places = BTreeMap::new();
    for (backend, name) in names.iter().enumerate() {
        for number in 0..PLACES_OF_A_BACKEND {
            let mut point = name.clone().into_bytes();
            point.push(number);
            places.entry(libdeflater::crc32(&point) % PLACES).or_insert(backend);
        }
    }
    places.into_iter().collect()
}

/// The backend for a key. The ring is not empty.
fn responsible(ring: &[(u32, usize)], key: &[u8]) -> usize {
    let place = libdeflater::crc32(key) % PLACES;
    let next = ring.partition_point(|(taken, _)| *taken < place);
    ring[next % ring.len()].1
}

impl LoadBalancing {
    /// Reads certificates; connects, and looks names up, with the first request.
    pub fn new(config: &Config) -> Result<LoadBalancing, BuildError> {
        let resolver = &config.own.resolver;
        let template = config.own.protocol.otlp.0.shared.clone();
        let retry = sending(config).retry;
        let names: Result<Vec<String>, String> = match &resolver.fixed {
            Some(fixed) => fixed.hostnames.iter().map(|hostname| endpoint(hostname)).collect(),
            None => Ok(Vec::new()),
        };
        let names = names.map_err(BuildError::Endpoint)?;
        // What is wrong with a certificate is told at the start, not when a backend appears.
        let probe = Sender {
            own: otlp::Settings {
                endpoint: format!("localhost:{DEFAULT_PORT}"),
            },
            shared: template.clone(),
        };
        let metadata_keys = Otlp::new(&probe)?.metadata_keys();
        let backends = Backends::new(names, &Backends::default(), &template, &retry)?;
        Ok(LoadBalancing {
            routing_key: config.own.routing_key,
            metadata_keys,
            timeout: timeout(config),
            dns: resolver.dns.clone(),
            looked_up: tokio::sync::Mutex::default(),
            is_lookup_failing: AtomicBool::new(false),
            backends: RwLock::new(Arc::new(backends)),
            template,
            retry,
            unfinished: Unfinished::default(),
        })
    }

    fn key(&self, signal: Signal) -> RoutingKey {
        self.routing_key.unwrap_or(match signal {
            Signal::Traces | Signal::Logs => RoutingKey::TraceId,
            Signal::Metrics => RoutingKey::Service,
        })
    }

    /// The backends, looked up again if it is time. Who comes while somebody does that takes those that are known, if any are.
    async fn backends(&self) -> Arc<Backends> {
        let known = || Arc::clone(&self.backends.read().unwrap_or_else(PoisonError::into_inner));
        let Some(dns) = &self.dns else { return known() };
        let looked_up = match self.looked_up.try_lock() {
            Ok(looked_up) => Ok(looked_up),
            Err(_) if known().list.is_empty() => Ok(self.looked_up.lock().await),
            Err(error) => Err(error),
        };
        let Ok(mut looked_up) = looked_up else { return known() };
        if looked_up.is_some_and(|at| at.elapsed() < dns.interval) && !known().list.is_empty() {
            return known();
        }
        let lookup = tokio::net::lookup_host((dns.hostname.as_str(), dns.port));
        let found = match tokio::time::timeout(dns.timeout, lookup).await {
            Ok(Ok(addresses)) => Ok(addresses.map(|address| address.to_string()).collect::<Vec<_>>()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer in {:?}", dns.timeout)),
        };
        *looked_up = Some(Instant::now());
        let found = found.and_then(|found| match found.is_empty() {
            true => Err("it has no address".to_owned()),
            false => Ok(found),
        });
        let before = known();
        let updated = found.and_then(|names| {
            Backends::new(names, &before, &self.template, &self.retry).map_err(|error| error.to_string())
        });
        match updated {
            Ok(now) => {
                if self.is_lookup_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(hostname = dns.hostname, "loadbalancing: the backends are found again");
                }
                let same = now
                    .list
                    .iter()
                    .map(|(name, _)| name)
                    .eq(before.list.iter().map(|(name, _)| name));
                if !same {
                    let names: Vec<&str> = now.list.iter().map(|(name, _)| name.as_str()).collect();
                    tracing::info!(
                        hostname = dns.hostname,
                        "loadbalancing: the backends are {}",
                        names.join(", ")
                    );
                    *self.backends.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(now);
                }
            }
            Err(error) => {
                if !self.is_lookup_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        hostname = dns.hostname,
                        "loadbalancing: {error}; the backends stay as they are"
                    );
                }
            }
        }
        known()
    }

    /// The shares of a batch, with the backend of each.
    fn shares(&self, batch: &Batch, ring: &[(u32, usize)]) -> (Vec<Batch>, Vec<usize>) {
        let key = self.key(batch.signal);
        let mut order: Vec<usize> = Vec::new();
        let mut last: Option<(*const u8, usize)> = None;
        // What has no trace goes together, and anywhere.
        let anywhere = ring[fastrand::usize(..ring.len())].1;
        let trace_field = if batch.signal == Signal::Logs { 9 } else { 1 };
        let parts = edit::divide(batch, |around, item| {
            let around_it = match key {
                RoutingKey::TraceId => None,
                RoutingKey::Service | RoutingKey::Resource => around.first(),
                RoutingKey::Metric => around.get(2),
            };
            let backend = match (around_it, last) {
                (None, _) => field(item, trace_field)
                    .filter(|id| id.len() == 16)
                    .map_or(anywhere, |id| responsible(ring, id)),
                (Some(message), Some((known, backend))) if known == message.as_ptr() => backend,
                (Some(message), _) => {
                    let backend = responsible(ring, &key_of(key, message));
                    last = Some((message.as_ptr(), backend));
                    backend
                }
            };
            order.iter().position(|known| *known == backend).unwrap_or_else(|| {
                order.push(backend);
                order.len() - 1
            })
        });
        if order.is_empty() {
            order.push(anywhere);
        }
        (parts, order)
    }

    async fn send(&self, batch: Batch) -> Outcome {
        let later = Outcome::retry(Duration::ZERO, Reason::BackendUnavailable);
        let backends = self.backends().await;
        if backends.ring.is_empty() {
            return later;
        }
        let mut attempt = self.unfinished.resume(&batch.payload, || Work {
            shares: vec![Some(batch.clone())],
            refused: 0,
            why: None,
        });
        // Divided anew: the backends may be others than at the last attempt.
        let Some(mut left) = attempt.work().left() else {
            return attempt.finish().outcome();
        };
        // Another pipeline may have begun with the same bytes, and keep other headers.
        left.meta = Arc::clone(&batch.meta);
        let (shares, order) = self.shares(&left, &backends.ring);
        let mut sent: FuturesUnordered<_> = shares
            .iter()
            .zip(order)
            .enumerate()
            .map(|(at, (share, backend))| {
                let (_, backend) = &backends.list[backend];
                let (share, timeout) = (share.clone(), self.timeout);
                async move { (at, backend.send(share, timeout).await) }
            })
            .collect();
        attempt.work().shares = shares.iter().cloned().map(Some).collect();
        let mut retry: Option<Outcome> = None;
        while let Some((at, outcome)) = sent.next().await {
            let work = attempt.work();
            match outcome {
                Outcome::Delivered => work.shares[at] = None,
                Outcome::Rejected { reason, items } => {
                    work.shares[at] = None;
                    work.refused = work.refused.saturating_add(items);
                    work.why.get_or_insert(reason);
                }
                again => retry = Some(retry.map_or(again.clone(), |known| known.worst(again))),
            }
        }
        match retry {
            Some(again) => again,
            None => attempt.finish().outcome(),
        }
    }
}

impl Backend {
    /// One attempt, if the circuit allows one.
    async fn send(&self, share: Batch, timeout: Duration) -> Outcome {
        let later = Outcome::retry(Duration::ZERO, Reason::BackendUnavailable);
        let Ok(pass) = self.circuit.try_enter() else {
            return later;
        };
        let outcome = tokio::time::timeout(timeout, self.otlp.export(share))
            .await
            .unwrap_or(later);
        match &outcome {
            Outcome::Retry { after, .. } => pass.failed(*after),
            Outcome::Delivered | Outcome::Rejected { .. } => pass.succeeded(),
        }
        outcome
    }
}

impl Work {
    /// What nobody has taken yet; nothing if all of it is settled.
    fn left(&self) -> Option<Batch> {
        let left: Vec<Batch> = self.shares.iter().flatten().cloned().collect();
        edit::concat(&left)
    }

    fn outcome(self) -> Outcome {
        match self.why {
            Some(reason) if self.refused > 0 => Outcome::Rejected {
                reason,
                items: self.refused,
            },
            _ => Outcome::Delivered,
        }
    }
}

impl Exporter for LoadBalancing {
    fn takes(&self, signal: Signal) -> bool {
        match self.key(signal) {
            RoutingKey::TraceId => signal != Signal::Metrics,
            RoutingKey::Metric => signal == Signal::Metrics,
            RoutingKey::Service | RoutingKey::Resource => true,
        }
    }

    fn metadata_keys(&self) -> Vec<Arc<str>> {
        self.metadata_keys.clone()
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(self.send(batch))
    }

    fn has_circuits(&self) -> bool {
        true
    }

    fn left(&self, batch: &Batch) -> Option<Left> {
        let work = self.unfinished.take(&batch.payload)?;
        let left = work.left();
        Some(Left {
            refused: work.why.map(|why| (why.kind, work.refused)),
            // As it was, where nobody has taken anything: it may go out as it came in.
            batch: left.map(|left| if left.items == batch.items { batch.clone() } else { left }),
        })
    }
}

fn field(message: &[u8], number: u32) -> Option<&[u8]> {
    let mut fields = Fields::new(message);
    fields
        .find(|(found, _)| *found == number)
        .map(|(_, payload)| payload.bytes())
}

/// What everything of one resource, or one metric, is routed by.
fn key_of(key: RoutingKey, message: &[u8]) -> Vec<u8> {
    let inner = field(message, 1).unwrap_or_default();
    match key {
        // The name of a metric is its first field.
        RoutingKey::Metric | RoutingKey::TraceId => inner.to_vec(),
        RoutingKey::Service => Resource::read(inner)
            .service_name()
            .unwrap_or_default()
            .as_bytes()
            .to_vec(),
        RoutingKey::Resource => {
            let mut pairs: Vec<&[u8]> = Resource::read(inner).attributes.raw().collect();
            pairs.sort_unstable();
            pairs.concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: u8) -> Vec<String> {
        (1..=count).map(|host| format!("10.0.0.{host}:4317")).collect()
    }

    #[test]
    fn places_are_those_of_the_collector() {
        // IEEE's CRC-32, whose check value is known, of the endpoint and a byte that counts.
        assert_eq!(libdeflater::crc32(b"123456789"), 0xcbf4_3926);
        let ring = ring(&["endpoint-1".to_owned(), "endpoint-2".to_owned()]);
        assert!(ring.len() > 190, "few places are wanted by both");
        let first = libdeflater::crc32(b"endpoint-1\0") % PLACES;
        assert!(ring.contains(&(first, 0)));
        // A key is its next place's, the last ones the first's.
        assert_eq!(responsible(&[(10, 0), (20_000, 1)], b"123456789"), {
            let place = 0xcbf4_3926u32 % PLACES;
            usize::from(place > 10 && place <= 20_000)
        });
    }

    #[test]
    fn only_what_must_move_moves() {
        let (three, four) = (ring(&names(3)), ring(&names(4)));
        let keys: Vec<[u8; 16]> = (0..10_000u128)
            .map(|key| (key * 0x9e37_79b9_7f4a_7c15_f39c).to_be_bytes())
            .collect();
        let moved: Vec<(usize, usize)> = keys
            .iter()
            .map(|key| (responsible(&three, key), responsible(&four, key)))
            .filter(|(before, after)| before != after)
            .collect();
        // Backends are in order of their names, so the new one is the last.
        assert!(moved.iter().all(|(_, after)| *after == 3), "to the new one only");
        assert!((1_000..4_000).contains(&moved.len()), "{}", moved.len());
    }

    #[test]
    fn backends_that_stay_keep_their_connections() {
        let template = crate::sender::Shared {
            tls: Some(net::ClientTls {
                insecure: true,
                ..Default::default()
            }),
            ..Default::default()
        };
        let one = Backends::new(names(2), &Backends::default(), &template, &Retry::default()).expect("made");
        let mut more = names(3);
        more.reverse();
        more.push("10.0.0.2:4317".to_owned());
        let two = Backends::new(more, &one, &template, &Retry::default()).expect("made");
        assert_eq!(two.list.len(), 3, "each once");
        for at in 0..2 {
            assert!(Arc::ptr_eq(&one.list[at].1, &two.list[at].1));
        }
    }
}
