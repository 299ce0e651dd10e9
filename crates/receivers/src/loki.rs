//! Log lines as Promtail, Alloy, Docker's driver and every other client of Loki push them.
//!
//! ```yaml
//! receivers:
//!   loki:
//!     protocols:
//!       http: { endpoint: 127.0.0.1:3100 }
//! ```
//!
//! POST on `/loki/api/v1/push`: protobuf in snappy, or JSON, plain or compressed. What becomes of a line stands in `codec::loki`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::{Method as HttpMethod, StatusCode};
use model::Signal;
use net::auth::Auth;
use net::{At, DoorSettings, Doors, Endpoint, Mount, Request, Response, TlsFiles, empty_body, handler_fn};
use pipeline::Intake;
use pipeline::config::{Problems, Section};
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};

use crate::admit::{Core, Translation};
use crate::answer::{Accepted, Kind, Refusal};
use crate::body;
use crate::guard::{self, Guard};
use crate::inflate::Coding;
use crate::keys::{body_size, named, parsed};
use crate::post::{self, Posted};
use crate::settings::{self, Mounted};

/// Where Loki is expected.
pub const DEFAULT_HTTP_ENDPOINT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3100);

/// The only signal that Loki has.
pub const SIGNALS: [Signal; 1] = [Signal::Logs];

const PATH: &str = "/loki/api/v1/push";

/// The collector's default. Clients of Loki push a megabyte at most, and the translation is reserved for several times over.
const DEFAULT_MAX_BODY_BYTES: u64 = 20 << 20;

/// Bytes of OTLP for each of Loki's at most: an entry without time and line takes two bytes there and fifteen here.
const GROWTH: u64 = 8;

static FROM_PROTOBUF: Translation = Translation {
    growth: |_| GROWTH,
    translate: |_, message, now| codec::loki::from_protobuf(message, now).map_err(|error| error.to_string()),
};

static FROM_JSON: Translation = Translation {
    growth: |_| GROWTH,
    translate: |_, text, now| codec::loki::from_json(text, now).map_err(|error| error.to_string()),
};

/// Log lines from clients of Loki's push API.
///
/// ```yaml
/// receivers:
///   loki:
///     protocols:
///       http: { endpoint: 127.0.0.1:3100 }
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What to listen for.
    pub protocols: Protocols,
    /// Accepted with a warning: a line keeps the time that its sender gave it.
    #[serde(default)]
    pub use_incoming_timestamp: Option<bool>,
}

/// `protocols:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocols {
    /// The push API over HTTP. Without settings it has its defaults.
    #[serde(default, deserialize_with = "named")]
    pub http: Option<HttpConfig>,
    /// Must be absent: hardly any client pushes over gRPC.
    #[serde(default, deserialize_with = "no_grpc")]
    pub grpc: (),
}

/// `http:`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address to listen on; default 127.0.0.1:3100.
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
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            endpoint: DEFAULT_HTTP_ENDPOINT.into(),
            tls: None,
            max_request_body_size: DEFAULT_MAX_BODY_BYTES,
            include_metadata: false,
            auth: None,
        }
    }
}

fn no_grpc<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom(
        "pushes over gRPC are not taken; let the client push to `http`, or send OTLP to the `otlp` receiver",
    ))
}

impl Config {
    /// Reads and checks the settings; mistakes come with their places.
    pub fn parse(section: &Section<'_>) -> Result<Self, Problems> {
        let mut config: Self = section.parse()?;
        let Some(http) = &mut config.protocols.http else {
            return Err(section.problem(&["protocols"], "name `http` under `protocols`"));
        };
        guard::look_up(section, &["protocols", "http"], &mut http.auth)?;
        Ok(config)
    }
}

impl settings::Settings for Config {
    fn mount(self: Box<Self>, intake: Intake, doors: &mut Doors) -> Result<Mounted, settings::MountError> {
        let receiver = Arc::clone(intake.receiver());
        let core = Core::new(intake, body::PATIENCE);
        let mut mounted = Mounted {
            counters: Arc::clone(&core.counters),
            ..Mounted::default()
        };
        if self.use_incoming_timestamp == Some(false) {
            mounted.warnings.push(format!(
                "receiver {receiver}: use_incoming_timestamp: false has no effect; lines keep their time, and observed_time says when they came"
            ));
        }
        if let Some(config) = &self.protocols.http {
            let (limit, include_metadata) = (config.max_request_body_size as usize, config.include_metadata);
            let guard = Guard::new(config.auth.as_ref())?;
            let mount = Mount::Http {
                at: At::Path(PATH.to_owned()),
                service: handler_fn(move |request| {
                    push(Arc::clone(&core), guard.clone(), limit, include_metadata, request)
                }),
            };
            let settings = DoorSettings {
                tls: config.tls.clone(),
                ..DoorSettings::default()
            };
            doors.mount_with(
                &config.endpoint,
                &format!("receiver {receiver} (http)"),
                mount,
                settings,
            )?;
        }
        Ok(mounted)
    }
}

async fn push(core: Arc<Core>, guard: Guard, limit: usize, include_metadata: bool, request: Request) -> Response {
    if *request.method() != HttpMethod::POST {
        return post::only_post(request.method());
    }
    let (head, mut incoming) = request.into_parts();
    let taken = async {
        guard.check(&head.headers).await?;
        core.check_signal(Signal::Logs)?;
        let coding = post::coding_or_snappy(&head.headers)?;
        let (translation, coding) = match (post::media_type(&head.headers).as_str(), coding) {
            ("application/json", coding) => (&FROM_JSON, coding),
            // Protobuf is always in snappy; few clients say so.
            ("application/x-protobuf" | "application/protobuf", Coding::Identity | Coding::Snappy) => {
                (&FROM_PROTOBUF, Coding::Snappy)
            }
            ("application/x-protobuf" | "application/protobuf", coding) => (&FROM_PROTOBUF, coding),
            _ => {
                let message = "the content type must be application/json, or application/x-protobuf in snappy";
                return Err(Refusal::new(Kind::MediaType, message));
            }
        };
        let posted = Posted {
            signal: Signal::Logs,
            translation: Some(translation),
            coding,
            limit,
            include_metadata,
        };
        whole(&post::take(&core, posted, &head, &mut incoming).await?)
    };
    match taken.await {
        Ok(()) => {
            let mut response = http::Response::new(empty_body());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Err(refusal) => {
            core.count(Signal::Logs, &refusal);
            body::discard(incoming);
            post::refuse(&refusal)
        }
    }
}

/// As Loki itself does, a push of which not all was taken is answered with 400, which says not to send again.
fn whole(accepted: &Accepted) -> Result<(), Refusal> {
    if accepted.rejected == 0 {
        return Ok(());
    }
    let message = format!("{}, total ignored: {}", accepted.message, accepted.rejected);
    Err(Refusal {
        counted: true,
        ..Refusal::new(Kind::Malformed, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::config::Source;

    fn read(settings: &str) -> Result<Config, String> {
        let yaml = format!(
            "receivers:\n  loki:\n    {settings}\nexporters: {{debug: }}\nservice: {{pipelines: {{logs: {{receivers: [loki], exporters: [debug]}}}}}}\n"
        );
        let document = pipeline::config::Config::load(vec![Source::new("test", yaml)], &|_| None).unwrap();
        Config::parse(&document.section(&document.receivers[0])).map_err(|problems| problems.to_string())
    }

    #[test]
    fn settings_and_their_mistakes() {
        let config = read("protocols: {http: }").unwrap();
        assert_eq!(config.protocols.http, Some(HttpConfig::default()));
        for (settings, expect) in [
            ("protocols: {}", "name `http` under `protocols`"),
            ("protocols: {grpc: }", "pushes over gRPC are not taken"),
            ("protocols: {http: {endpont: x:1}}", "did you mean `endpoint`?"),
        ] {
            let said = read(settings).unwrap_err();
            assert!(said.starts_with("test:") && said.contains(expect), "{settings}: {said}");
        }
    }
}
