//! Spans in Jaeger's own protocols, as its agents, its clients and the collector's `jaeger` exporter send them.
//!
//! ```yaml
//! receivers:
//!   jaeger:
//!     protocols:
//!       grpc: { endpoint: 127.0.0.1:14250 }
//!       thrift_http: { endpoint: 127.0.0.1:14268 }
//! ```
//!
//! gRPC: `jaeger.api_v2.CollectorService/PostSpans`. HTTP: POST of a Thrift `Batch` in the binary protocol on `/api/traces`. What becomes of a span
//! stands in `codec::jaeger`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
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
use crate::keys::{DEFAULT_MAX_REQUEST_MIB, at_least_one, body_size, mebibytes, named, parsed, tcp};
use crate::post::{self, Posted};
use crate::settings::{self, Mounted};
use crate::unary::{self, Method};

/// Where Jaeger's gRPC is expected.
pub const DEFAULT_GRPC_ENDPOINT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 14250);
/// Where Thrift over HTTP is expected.
pub const DEFAULT_HTTP_ENDPOINT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 14268);

/// The only signal that Jaeger has.
pub const SIGNALS: [Signal; 1] = [Signal::Traces];

const PATH: &str = "/api/traces";

/// What Jaeger's clients call Thrift's binary protocol.
const THRIFT: [&str; 2] = ["application/x-thrift", "application/vnd.apache.thrift.binary"];

/// Bytes of OTLP for each of Jaeger's at most: a tag without key and value takes two bytes there and six here.
const GROWTH: u64 = 4;

static FROM_PROTOBUF: Translation = Translation {
    growth: |_| GROWTH,
    translate: |_, message, _| codec::jaeger::from_protobuf(message).map_err(|error| error.to_string()),
};

static FROM_THRIFT: Translation = Translation {
    growth: |_| GROWTH,
    translate: |_, message, _| codec::jaeger::from_thrift(message).map_err(|error| error.to_string()),
};

/// Spans in Jaeger's own protocols: gRPC, and Thrift over HTTP.
///
/// ```yaml
/// receivers:
///   jaeger:
///     protocols:
///       grpc: { endpoint: 127.0.0.1:14250 }
///       thrift_http: { endpoint: 127.0.0.1:14268 }
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What to listen for. A protocol that is not named is off; one that is named without settings has its defaults.
    pub protocols: Protocols,
    /// Must be absent: Jaeger's sampling strategies are not served.
    #[serde(default, deserialize_with = "no_sampling")]
    pub remote_sampling: (),
}

/// `protocols:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocols {
    /// `jaeger.api_v2.CollectorService` over gRPC. Default: off.
    #[serde(default, deserialize_with = "named")]
    pub grpc: Option<GrpcConfig>,
    /// Thrift's binary protocol over HTTP. Default: off.
    #[serde(default, deserialize_with = "named")]
    pub thrift_http: Option<HttpConfig>,
    /// Must be absent: UDP loses spans without a word.
    #[serde(default, deserialize_with = "no_udp")]
    pub thrift_compact: (),
    /// As `thrift_compact`.
    #[serde(default, deserialize_with = "no_udp")]
    pub thrift_binary: (),
}

/// `grpc:`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcConfig {
    /// Address to listen on; default 127.0.0.1:14250.
    #[serde(deserialize_with = "parsed")]
    pub endpoint: Endpoint,
    /// Kind of socket; only `tcp`, the default.
    #[serde(deserialize_with = "tcp")]
    pub transport: (),
    /// Certificate and key; default plain text.
    pub tls: Option<TlsFiles>,
    /// Largest message in MiB, compressed and inflated; from 1 to 4095, default 64.
    #[serde(deserialize_with = "mebibytes")]
    pub max_recv_msg_size_mib: u64,
    /// Calls at a time on one connection; default 128.
    #[serde(deserialize_with = "at_least_one")]
    pub max_concurrent_streams: Option<NonZeroU32>,
    /// Accepted for the collector's sake: the door's buffers are fixed and small.
    pub read_buffer_size: Option<u64>,
    /// As `read_buffer_size`.
    pub write_buffer_size: Option<u64>,
    /// Accepted with a warning: doors have their own keep-alive.
    pub keepalive: Option<IgnoredAny>,
    /// Keep those of a request's headers that a pipeline names: in `metadata_keys` of `batch`, in `from_context`. Default `false`.
    pub include_metadata: bool,
    /// Who may send. Default: whoever reaches the door.
    pub auth: Option<Auth>,
}

/// `thrift_http:`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address to listen on; default 127.0.0.1:14268.
    #[serde(deserialize_with = "parsed")]
    pub endpoint: Endpoint,
    /// Certificate and key; default plain text.
    pub tls: Option<TlsFiles>,
    /// Largest body in bytes, compressed and inflated; below 4 GiB, default 64 MiB.
    #[serde(deserialize_with = "body_size")]
    pub max_request_body_size: u64,
    /// Keep those of a request's headers that a pipeline names: in `metadata_keys` of `batch`, in `from_context`. Default `false`.
    pub include_metadata: bool,
    /// Who may send. Default: whoever reaches the door.
    pub auth: Option<Auth>,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            endpoint: DEFAULT_GRPC_ENDPOINT.into(),
            transport: (),
            tls: None,
            max_recv_msg_size_mib: DEFAULT_MAX_REQUEST_MIB,
            max_concurrent_streams: None,
            read_buffer_size: None,
            write_buffer_size: None,
            keepalive: None,
            include_metadata: false,
            auth: None,
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            endpoint: DEFAULT_HTTP_ENDPOINT.into(),
            tls: None,
            max_request_body_size: DEFAULT_MAX_REQUEST_MIB << 20,
            include_metadata: false,
            auth: None,
        }
    }
}

fn no_udp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom(
        "Jaeger over UDP is not taken, because what it loses nobody hears of; let the client send to `thrift_http` (JAEGER_ENDPOINT=http://…:14268/api/traces) or with an OpenTelemetry SDK to the `otlp` receiver",
    ))
}

fn no_sampling<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom(
        "Jaeger's sampling strategies are not served; leave remote_sampling out and sample with the `probabilistic_sampler` or `tail_sampling` processor",
    ))
}

impl Config {
    /// Reads and checks the settings; mistakes come with their places.
    pub fn parse(section: &Section<'_>) -> Result<Self, Problems> {
        let mut config: Self = section.parse()?;
        if let Some(grpc) = &mut config.protocols.grpc {
            guard::look_up(section, &["protocols", "grpc"], &mut grpc.auth)?;
        }
        if let Some(http) = &mut config.protocols.thrift_http {
            guard::look_up(section, &["protocols", "thrift_http"], &mut http.auth)?;
        }
        if config.protocols.grpc.is_none() && config.protocols.thrift_http.is_none() {
            let problem = "name at least one of `grpc` and `thrift_http` under `protocols`";
            return Err(section.problem(&["protocols"], problem));
        }
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
        if let Some(config) = &self.protocols.grpc {
            let method = Method {
                service: "jaeger.api_v2.CollectorService",
                name: "PostSpans",
                signal: Signal::Traces,
                translation: Some(&FROM_PROTOBUF),
                limit: (config.max_recv_msg_size_mib << 20) as usize,
                include_metadata: config.include_metadata,
                reply: |accepted| whole(accepted).map(|()| Vec::new()),
            };
            let (core, guard) = (Arc::clone(&core), Guard::new(config.auth.as_ref())?);
            let mount = Mount::Grpc {
                name: method.service,
                service: handler_fn(move |request| unary::answer(Arc::clone(&core), guard.clone(), method, request)),
            };
            let settings = DoorSettings {
                tls: config.tls.clone(),
                max_concurrent_streams: config.max_concurrent_streams.map(u32::from),
                ..DoorSettings::default()
            };
            doors.mount_with(
                &config.endpoint,
                &format!("receiver {receiver} (grpc)"),
                mount,
                settings,
            )?;
            if config.keepalive.is_some() {
                mounted.warnings.push(format!(
                    "receiver {receiver}: protocols.grpc.keepalive has no effect, doors keep connections alive by themselves"
                ));
            }
        }
        if let Some(config) = &self.protocols.thrift_http {
            let (limit, include_metadata) = (config.max_request_body_size as usize, config.include_metadata);
            let guard = Guard::new(config.auth.as_ref())?;
            let mount = Mount::Http {
                at: At::Path(PATH.to_owned()),
                service: handler_fn(move |request| {
                    post(Arc::clone(&core), guard.clone(), limit, include_metadata, request)
                }),
            };
            let settings = DoorSettings {
                tls: config.tls.clone(),
                ..DoorSettings::default()
            };
            let who = format!("receiver {receiver} (thrift_http)");
            doors.mount_with(&config.endpoint, &who, mount, settings)?;
        }
        Ok(mounted)
    }
}

/// Jaeger has no partial success: a sender whose spans were not all taken is told so as an error that says not to send again.
fn whole(accepted: &Accepted) -> Result<(), Refusal> {
    if accepted.rejected == 0 {
        return Ok(());
    }
    let message = format!(
        "{} spans were not taken and never will be, the others were: {}",
        accepted.rejected, accepted.message
    );
    Err(Refusal {
        counted: true,
        ..Refusal::new(Kind::Malformed, message)
    })
}

async fn post(core: Arc<Core>, guard: Guard, limit: usize, include_metadata: bool, request: Request) -> Response {
    if *request.method() != HttpMethod::POST {
        return post::only_post(request.method());
    }
    let (head, mut incoming) = request.into_parts();
    let taken = async {
        guard.check(&head.headers).await?;
        core.check_signal(Signal::Traces)?;
        let media_type = post::media_type(&head.headers);
        if !THRIFT.contains(&media_type.as_str()) {
            let message = format!(
                "the content type must be {}: a Batch in Thrift's binary protocol",
                THRIFT[0]
            );
            return Err(Refusal::new(Kind::MediaType, message));
        }
        let posted = Posted {
            signal: Signal::Traces,
            translation: Some(&FROM_THRIFT),
            coding: post::coding(&head.headers)?,
            limit,
            include_metadata,
        };
        whole(&post::take(&core, posted, &head, &mut incoming).await?)
    };
    match taken.await {
        // Jaeger's collector answers so; its clients take any success.
        Ok(()) => {
            let mut response = http::Response::new(empty_body());
            *response.status_mut() = StatusCode::ACCEPTED;
            response
        }
        Err(refusal) => {
            core.count(Signal::Traces, &refusal);
            body::discard(incoming);
            post::refuse(&refusal)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::config::Source;

    /// Reads what stands under `jaeger:`.
    fn read(settings: &str) -> Result<Config, String> {
        let yaml = format!(
            "receivers:\n  jaeger:\n    {settings}\nexporters: {{debug: }}\nservice: {{pipelines: {{traces: {{receivers: [jaeger], exporters: [debug]}}}}}}\n"
        );
        let document = pipeline::config::Config::load(vec![Source::new("test", yaml)], &|_| None).unwrap();
        Config::parse(&document.section(&document.receivers[0])).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_protocol_without_settings_has_its_defaults() {
        let config = read("protocols: {grpc: , thrift_http: {endpoint: 0.0.0.0:1}}").unwrap();
        assert_eq!(config.protocols.grpc, Some(GrpcConfig::default()));
        let http = config.protocols.thrift_http.unwrap();
        assert_eq!(http.endpoint, "0.0.0.0:1".parse().unwrap());
    }

    #[test]
    fn what_is_not_possible_says_what_is() {
        let cases = [
            ("protocols: {thrift_compact: }", "Jaeger over UDP is not taken"),
            (
                "protocols: {thrift_binary: {endpoint: x}}",
                "let the client send to `thrift_http`",
            ),
            (
                "remote_sampling: {}\n    protocols: {grpc: }",
                "leave remote_sampling out",
            ),
            ("protocols: {}", "name at least one of `grpc` and `thrift_http`"),
            ("protocols: {thrift_htp: }", "did you mean `thrift_http`?"),
            ("protocols: {grpc: {endpoint: nowhere}}", "it has no port"),
        ];
        for (settings, expect) in cases {
            let said = read(settings).unwrap_err();
            assert!(said.starts_with("test:") && said.contains(expect), "{settings}: {said}");
        }
    }
}
