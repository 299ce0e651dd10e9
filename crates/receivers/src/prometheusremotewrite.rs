//! Series as Prometheus, Grafana Alloy, vmagent and every other sender of Prometheus' remote write push them, in both versions of the protocol.
//!
//! ```yaml
//! receivers:
//!   prometheusremotewrite:
//!     endpoint: 127.0.0.1:9090
//! ```
//!
//! POST on `/api/v1/write`: `prometheus.WriteRequest` (1.0) or `io.prometheus.write.v2.Request` (2.0), in snappy as a rule. What becomes of a series
//! stands in `docs/prometheus-mapping.md`. The collector's receiver of this name takes 2.0 only.
//!
//! Source: "Prometheus Remote-Write 1.0" and "2.0" (prometheus.io/docs/specs).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use codec::prometheus::otlp::{self, Job, TargetInfo, Targets};
use codec::remote_write::Version;
use codec::remote_write::read::{self, Families, Read};
use http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, StatusCode, header};
use model::Signal;
use net::auth::Auth;
use net::{At, DoorSettings, Doors, Endpoint, Mount, Peer, Request, Response, TlsFiles, empty_body, handler_fn};
use pipeline::config::{Problems, Section};
use pipeline::{Intake, Lease, Reason};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::admit::{Arrived, BUSY_RETRY_AFTER, Core, read_refusal};
use crate::answer::{Kind, Refusal};
use crate::body::{self, Length};
use crate::guard::{self, Guard};
use crate::inflate::Coding;
use crate::keys::{body_size, parsed};
use crate::metadata;
use crate::post;
use crate::settings::{self, Mounted};

/// Where the collector's receiver listens, and Prometheus itself.
pub const DEFAULT_ENDPOINT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// The only signal that remote write has.
pub const SIGNALS: [Signal; 1] = [Signal::Metrics];

const PATH: &str = "/api/v1/write";

/// The collector's default. Senders push a few hundred kilobytes.
const DEFAULT_MAX_BODY_BYTES: u64 = 20 << 20;

/// What one request may become, reckoned before it does. OTLP repeats in each point what 2.0 says once, so that a small request can become a large one; a
/// real one of 2.0 that is as large as the default above is reckoned at 200 MiB, and becomes a third of it.
const MAX_OTLP_BYTES: u64 = 256 << 20;

/// What reading one request may take, reckoned before: its series with room to grow. A real one of 2.0 that is as large as the default above takes half of it.
const MAX_READING_BYTES: u64 = 512 << 20;

/// Series pushed by Prometheus' remote write, versions 1.0 and 2.0, on `/api/v1/write`.
///
/// ```yaml
/// receivers:
///   prometheusremotewrite:
///     endpoint: 127.0.0.1:9090
/// ```
///
/// Each series becomes a point of OTLP as `docs/prometheus-mapping.md` says: `job` and `instance` are the resource. Requests of 1.0 do not tell the types of
/// their series; senders that tell them apart from those (Prometheus does, each minute) have them applied from then on, and until then a series is a gauge
/// whose metadata says `unknown`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address to listen on; default 127.0.0.1:9090.
    #[serde(deserialize_with = "parsed")]
    pub endpoint: Endpoint,
    /// Certificate and key; default plain text.
    pub tls: Option<TlsFiles>,
    /// Largest body in bytes, compressed and inflated; below 4 GiB, default 20 MiB.
    #[serde(deserialize_with = "body_size")]
    pub max_request_body_size: u64,
    /// Keep those of a request's headers that a pipeline names: in `metadata_keys` of `batch`, in `from_context`. Default `false`.
    pub include_metadata: bool,
    /// Who may send. Default: whoever reaches the door.
    pub auth: Option<Auth>,
    /// Accepted with a warning: the pace of a body is watched instead.
    pub read_timeout: Option<IgnoredAny>,
    /// Accepted with a warning: the door has a bound of its own.
    pub read_header_timeout: Option<IgnoredAny>,
    /// Accepted with a warning: an answer is given when the pipeline has said what became of the request.
    pub write_timeout: Option<IgnoredAny>,
    /// Accepted with a warning: the door has a bound of its own.
    pub idle_timeout: Option<IgnoredAny>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: DEFAULT_ENDPOINT.into(),
            tls: None,
            max_request_body_size: DEFAULT_MAX_BODY_BYTES,
            include_metadata: false,
            auth: None,
            read_timeout: None,
            read_header_timeout: None,
            write_timeout: None,
            idle_timeout: None,
        }
    }
}

impl Config {
    /// Reads and checks the settings; mistakes come with their places. Without settings it has its defaults.
    pub fn parse(section: &Section<'_>) -> Result<Self, Problems> {
        let mut config = section.parse::<Option<Self>>()?.unwrap_or_default();
        guard::look_up(section, &[], &mut config.auth)?;
        Ok(config)
    }
}

impl settings::Settings for Config {
    fn mount(self: Box<Self>, intake: Intake, doors: &mut Doors) -> Result<Mounted, settings::MountError> {
        let name = Arc::clone(intake.receiver());
        let core = Core::new(intake, body::PATIENCE);
        let mut mounted = Mounted {
            counters: Arc::clone(&core.counters),
            ..Mounted::default()
        };
        for (key, value) in [
            ("read_timeout", &self.read_timeout),
            ("read_header_timeout", &self.read_header_timeout),
            ("write_timeout", &self.write_timeout),
            ("idle_timeout", &self.idle_timeout),
        ] {
            if value.is_some() {
                let warning = format!("receiver {name}: {key} has no effect; the door has bounds of its own");
                mounted.warnings.push(warning);
            }
        }
        let door = Arc::new(Door {
            core,
            guard: Guard::new(self.auth.as_ref())?,
            limit: self.max_request_body_size as usize,
            include_metadata: self.include_metadata,
            families: RwLock::default(),
            targets: RwLock::default(),
        });
        let mount = Mount::Http {
            at: At::Path(PATH.to_owned()),
            service: handler_fn(move |request| push(Arc::clone(&door), request)),
        };
        let settings = DoorSettings {
            tls: self.tls.clone(),
            ..DoorSettings::default()
        };
        doors.mount_with(&self.endpoint, &format!("receiver {name} (http)"), mount, settings)?;
        Ok(mounted)
    }
}

struct Door {
    core: Arc<Core>,
    guard: Guard,
    limit: usize,
    include_metadata: bool,
    /// What senders of 1.0 said about families.
    families: RwLock<Families>,
    /// What `target_info` said about resources.
    targets: RwLock<Targets>,
}

/// What of a request was taken.
#[derive(Debug, Clone, Default)]
struct Written {
    samples: u64,
    histograms: u64,
    exemplars: u64,
    /// Samples and histograms that never will be, and why.
    refused: u64,
    message: String,
}

impl Written {
    fn refuse(&mut self, items: u64, why: &str) {
        self.refused += items;
        if !self.message.is_empty() {
            self.message.push_str("; ");
        }
        self.message.push_str(why);
    }

    /// What 2.0 demands of an answer.
    fn headers(&self, headers: &mut HeaderMap) {
        for (name, count) in [
            ("x-prometheus-remote-write-samples-written", self.samples),
            ("x-prometheus-remote-write-histograms-written", self.histograms),
            ("x-prometheus-remote-write-exemplars-written", self.exemplars),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(count));
        }
    }
}

async fn push(door: Arc<Door>, request: Request) -> Response {
    if *request.method() != HttpMethod::POST {
        return post::only_post(request.method());
    }
    let (head, mut incoming) = request.into_parts();
    let version = version(&head.headers);
    let mut written = Written::default();
    let taken = match version {
        Ok(version) => take(&door, version, &head, &mut incoming, &mut written).await,
        Err(ref refusal) => Err(refusal.clone()),
    };
    let mut response = match taken {
        Ok(()) => {
            let mut response = http::Response::new(empty_body());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Err(refusal) => {
            door.core.count(Signal::Metrics, &refusal);
            body::discard(incoming);
            post::refuse(&refusal)
        }
    };
    if matches!(version, Ok(Version::V2)) {
        written.headers(response.headers_mut());
    }
    response
}

async fn take(
    door: &Arc<Door>,
    version: Version,
    head: &http::request::Parts,
    incoming: &mut hyper::body::Incoming,
    written: &mut Written,
) -> Result<(), Refusal> {
    let core = &door.core;
    door.guard.check(&head.headers).await?;
    core.check_signal(Signal::Metrics)?;
    let coding = coding(&head.headers)?;
    let headers = metadata::kept(core, door.include_metadata, Signal::Metrics, &head.headers, &head.uri)?;
    let announced = head.headers.get(header::CONTENT_LENGTH);
    let announced = announced
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok());
    let (bytes, lease) = body::read(
        incoming,
        Length::Header(announced),
        door.limit,
        core.intake.budget(),
        core.patience,
    )
    .await
    .map_err(|error| read_refusal(error, door.limit))?;
    let arrived = Arrived {
        signal: Signal::Metrics,
        translation: None,
        coding,
        body: bytes,
        lease,
        peer: head.extensions.get::<Peer>().map(|peer| peer.0),
        headers,
        limit: door.limit,
    };
    let translator = Arc::clone(door);
    let work = move |message: &[u8], lease: &mut Lease| translator.translate(version, message, lease);
    let (arrived, translated) = core.replaced(arrived, work).await?;
    let accepted = core.admit(arrived).await?;
    // Counted only now: what the pipeline did not take comes again, and these with it.
    core.intake
        .rejected(Signal::Metrics, translated.refused, Reason::BadItem);
    *written = translated;
    if accepted.rejected > 0 {
        // Nobody can say which samples these points were.
        written.samples = written.samples.saturating_sub(accepted.rejected);
        written.refuse(accepted.rejected, &accepted.message);
    }
    if written.message.is_empty() {
        return Ok(());
    }
    // The rest was taken, and so the sender must not repeat any of it.
    Err(Refusal {
        counted: true,
        ..Refusal::new(Kind::Malformed, std::mem::take(&mut written.message))
    })
}

impl Door {
    /// From a request to OTLP; what it takes is reserved first.
    fn translate(&self, version: Version, message: &[u8], lease: &mut Lease) -> Result<(Vec<u8>, Written), Refusal> {
        let reserve = |lease: &mut Lease, bytes: u64| match lease.grow(bytes) {
            true => Ok(()),
            false => Err(Refusal::later(Reason::MemoryLimit, BUSY_RETRY_AFTER)),
        };
        let malformed = |error: read::BadRequest| {
            Refusal::new(
                Kind::Malformed,
                format!("the remote write request does not decode: {error}"),
            )
        };
        let bytes = read::bytes_at_most(message, version);
        if bytes > MAX_READING_BYTES {
            let message = format!(
                "reading the request would take up to {bytes} bytes, and {MAX_READING_BYTES} are the limit; send smaller requests"
            );
            return Err(Refusal::new(Kind::TooLarge, message));
        }
        reserve(lease, bytes)?;
        let read = match version {
            Version::V1 => {
                if Families::are_in(message) {
                    let mut families = self.families.write().unwrap_or_else(PoisonError::into_inner);
                    families.learn(message).map_err(malformed)?;
                }
                let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
                reserve(lease, families.bytes() as u64)?;
                read::first_version(message, &families)
            }
            Version::V2 => read::second_version(message),
        };
        let read = read.map_err(malformed)?;
        if Targets::are_in(&read.list) {
            self.targets
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .learn(&read.list);
        }
        let targets = self.targets.read().unwrap_or_else(PoisonError::into_inner);
        let bytes = otlp::len_at_most(&read.list) + targets.len_at_most(&read.list);
        if bytes > MAX_OTLP_BYTES {
            let message = format!(
                "as OTLP the request would take up to {bytes} bytes, and {MAX_OTLP_BYTES} are the limit; send smaller requests"
            );
            return Err(Refusal::new(Kind::TooLarge, message));
        }
        reserve(lease, bytes)?;
        let options = otlp::Options {
            time_ms: 0,
            job: Job::Parted,
            target_info: TargetInfo::Kept,
            max_bytes: MAX_OTLP_BYTES as usize,
        };
        let built = otlp::build_with(&read.list, &options, &targets)
            .map_err(|error| Refusal::new(Kind::TooLarge, error.to_string()))?;
        let mut written = Written {
            samples: built.samples,
            histograms: built.histograms,
            exemplars: built.exemplars,
            ..Written::default()
        };
        tell(&read, built.bad_times, &mut written);
        self.core
            .intake
            .rejected(Signal::Metrics, written.refused, Reason::BadItem);
        Ok((built.payload, written))
    }
}

/// What of a request was refused, in words.
fn tell(read: &Read, bad_times: u64, written: &mut Written) {
    let named: Vec<String> = read
        .refused
        .iter()
        .map(|refused| format!("{}: {}", refused.labels, refused.why))
        .collect();
    if !named.is_empty() {
        let message = format!(
            "{} samples and histograms of series that cannot be taken were left out, the others were taken: {}",
            read.refused_items,
            named.join("; ")
        );
        written.refuse(read.refused_items, &message);
    }
    if bad_times > 0 {
        written.refuse(
            bad_times,
            &format!("{bad_times} samples have times before 1970 or after 2554"),
        );
    }
}

/// Which message the content type names. One that names none is of 1.0.
fn version(headers: &HeaderMap) -> Result<Version, Refusal> {
    let unsupported = || {
        Refusal::new(
            Kind::MediaType,
            "the content type must be application/x-protobuf, with proto=prometheus.WriteRequest or proto=io.prometheus.write.v2.Request",
        )
    };
    if post::media_type(headers) != "application/x-protobuf" {
        return Err(unsupported());
    }
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    for parameter in value.unwrap_or_default().split(';').skip(1) {
        if let Some((name, message)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("proto")
        {
            return match message.trim().trim_matches('"') {
                "prometheus.WriteRequest" => Ok(Version::V1),
                "io.prometheus.write.v2.Request" => Ok(Version::V2),
                _ => Err(unsupported()),
            };
        }
    }
    Ok(Version::V1)
}

/// Snappy, which the specification demands and some senders do not name, or what else our doors take.
fn coding(headers: &HeaderMap) -> Result<Coding, Refusal> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        post::coding_or_snappy(headers)
    } else {
        Ok(Coding::Snappy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::config::Source;

    fn read(settings: &str) -> Result<Config, String> {
        let yaml = format!(
            "receivers:\n  prometheusremotewrite: {settings}\nexporters: {{debug: }}\nservice: {{pipelines: {{metrics: {{receivers: [prometheusremotewrite], exporters: [debug]}}}}}}\n"
        );
        let document = pipeline::config::Config::load(vec![Source::new("test", yaml)], &|_| None).unwrap();
        Config::parse(&document.section(&document.receivers[0])).map_err(|problems| problems.to_string())
    }

    #[test]
    fn settings_and_their_mistakes() {
        assert_eq!(read("").unwrap(), Config::default());
        let config = read("{endpoint: '0.0.0.0:19090', read_timeout: 5s, max_request_body_size: 1000}").unwrap();
        assert_eq!(
            (config.max_request_body_size, config.read_timeout),
            (1000, Some(IgnoredAny))
        );
        for (settings, expect) in [
            ("{endpont: x:1}", "did you mean `endpoint`?"),
            ("{endpoint: nowhere}", "nowhere"),
            ("{auth: {authenticator: basic}}", "the extension `basic` is not defined"),
            ("{max_request_body_size: 0}", "must be from 1"),
        ] {
            let said = read(settings).unwrap_err();
            assert!(said.starts_with("test:") && said.contains(expect), "{settings}: {said}");
        }
    }
}
