//! `receivers: otlp:` as the collector's configuration has it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use net::auth::Auth;
use net::{Endpoint, TlsFiles};
use pipeline::config::{Problems, Section};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::cors::CorsConfig;
use crate::guard;
use crate::keys::{DEFAULT_MAX_REQUEST_MIB, at_least_one, body_size, mebibytes, named, parsed, path, tcp};

/// Where OTLP/gRPC is expected.
pub const DEFAULT_GRPC_ENDPOINT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4317);
/// Where OTLP/HTTP is expected.
pub const DEFAULT_HTTP_ENDPOINT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4318);
/// OTLP over gRPC and HTTP (protobuf and JSON), as the collector's receiver takes it.
///
/// ```yaml
/// receivers:
///   otlp:
///     protocols:
///       grpc: { endpoint: 127.0.0.1:4317 }
///       http: { endpoint: 127.0.0.1:4318, cors: { allowed_origins: ["https://app.example.com"] } }
/// ```
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What to listen for. A protocol that is not named is off; one that is named without settings has its defaults.
    #[serde(default)]
    pub protocols: Protocols,
}

/// `protocols:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocols {
    /// OTLP/gRPC. Default: off.
    #[serde(default, deserialize_with = "named")]
    pub grpc: Option<GrpcConfig>,
    /// OTLP/HTTP. Default: off.
    #[serde(default, deserialize_with = "named")]
    pub http: Option<HttpConfig>,
}

/// `grpc:`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcConfig {
    /// Address to listen on; default 127.0.0.1:4317.
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

/// `http:`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address to listen on; default 127.0.0.1:4318.
    #[serde(deserialize_with = "parsed")]
    pub endpoint: Endpoint,
    /// Certificate and key; default plain text.
    pub tls: Option<TlsFiles>,
    /// Path for spans; default /v1/traces.
    #[serde(deserialize_with = "path")]
    pub traces_url_path: String,
    /// Path for log records; default /v1/logs.
    #[serde(deserialize_with = "path")]
    pub logs_url_path: String,
    /// Path for metrics; default /v1/metrics.
    #[serde(deserialize_with = "path")]
    pub metrics_url_path: String,
    /// Largest body in bytes, compressed and inflated; below 4 GiB, default 64 MiB.
    #[serde(deserialize_with = "body_size")]
    pub max_request_body_size: u64,
    /// Which web pages may send; default none.
    pub cors: Option<CorsConfig>,
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
            traces_url_path: "/v1/traces".to_owned(),
            logs_url_path: "/v1/logs".to_owned(),
            metrics_url_path: "/v1/metrics".to_owned(),
            max_request_body_size: DEFAULT_MAX_REQUEST_MIB << 20,
            cors: None,
            include_metadata: false,
            auth: None,
        }
    }
}

impl Config {
    /// Both protocols with their defaults: what the built-in configuration has.
    pub fn both() -> Self {
        Self {
            protocols: Protocols {
                grpc: Some(GrpcConfig::default()),
                http: Some(HttpConfig::default()),
            },
        }
    }

    /// Reads and checks the settings; mistakes come with their places.
    pub fn parse(section: &Section<'_>) -> Result<Self, Problems> {
        let mut config: Self = section.parse()?;
        if let Some(grpc) = &mut config.protocols.grpc {
            guard::look_up(section, &["protocols", "grpc"], &mut grpc.auth)?;
        }
        if let Some(http) = &mut config.protocols.http {
            guard::look_up(section, &["protocols", "http"], &mut http.auth)?;
        }
        config
            .check()
            .map_err(|bad| section.problem(&bad.key.split('.').collect::<Vec<_>>(), bad.problem))?;
        Ok(config)
    }

    /// What only shows when all values are known.
    pub fn check(&self) -> Result<(), BadConfig> {
        if self.protocols.grpc.is_none() && self.protocols.http.is_none() {
            return Err(BadConfig {
                key: "protocols",
                problem: "name at least one of `grpc` and `http` under `protocols`",
            });
        }
        Ok(())
    }
}

/// What is wrong with settings of which each by itself is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct BadConfig {
    /// The setting, from the receiver's own on, with dots.
    pub key: &'static str,
    /// What is wrong, and what to do.
    pub problem: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::config::Source;

    /// Reads what stands under `otlp:`.
    fn read(settings: &str) -> Result<Config, String> {
        let yaml = format!(
            "receivers:\n  otlp:\n{settings}\nexporters: {{debug: }}\nservice: {{pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}}}\n"
        );
        let document = pipeline::config::Config::load(vec![Source::new("test", yaml)], &|_| None).unwrap();
        Config::parse(&document.section(&document.receivers[0])).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_protocol_without_settings_has_its_defaults() {
        assert_eq!(read("    protocols: {grpc: , http: {}}").unwrap(), Config::both());
        let config = read("    protocols:\n      http:").unwrap();
        assert_eq!(
            (config.protocols.grpc, config.protocols.http),
            (None, Some(HttpConfig::default()))
        );
    }

    #[test]
    fn what_the_collector_takes_and_we_do_too() {
        let config = read(
            "    protocols:
      grpc:
        endpoint: 0.0.0.0:4317
        transport: tcp
        max_recv_msg_size_mib: 8
        max_concurrent_streams: 16
        read_buffer_size: 524288
        keepalive: {server_parameters: {time: 30s}}
        tls: {cert_file: a.crt, key_file: a.key}
      http:
        endpoint: localhost:4318
        traces_url_path: otlp/traces
        max_request_body_size: 1048576
        include_metadata: true
        cors: {allowed_origins: ['*'], allowed_headers: [x-app], max_age: 7200}",
        )
        .unwrap();
        let Protocols { grpc, http } = config.protocols;
        assert_eq!(grpc.unwrap().max_concurrent_streams, NonZeroU32::new(16));
        let http = http.unwrap();
        assert_eq!((&*http.traces_url_path, http.include_metadata), ("/otlp/traces", true));
    }

    #[test]
    fn what_is_wrong_is_shown_where_it_stands() {
        let cases = [
            (
                "grpc: {end_point: x}",
                "test:3:24: unknown key `end_point`\n  |\n3 |     protocols: {grpc: {end_point: x}}\n  |                        ^^^^^^^^^ did you mean `endpoint`?",
            ),
            (
                "grpc: {endpoint: localhost}",
                "test:3:34: `localhost` is not an address to listen on: it has no port; write it as host:port, for example 127.0.0.1:4317",
            ),
            (
                "grpc: {transport: unix}",
                "test:3:35: `unix` is not possible; only tcp is",
            ),
            (
                "grpc: {max_recv_msg_size_mib: 4096}",
                "test:3:47: must be from 1 to 4095 MiB",
            ),
            ("grpc: {max_concurrent_streams: 0}", "test:3:48: must be at least 1"),
            (
                "http: {max_request_body_size: 0}",
                "test:3:47: must be from 1 to 4294967295 bytes",
            ),
            (
                "http: {auth: {authenticator: oidc}}",
                "test:3:46: the extension `oidc` is not defined\n  |\n3 |     protocols: {http: {auth: {authenticator: oidc}}}\n  |                                              ^^^^ define it under `extensions` and list it in `service.extensions`",
            ),
            (
                "http: {logs_url_path: ''}",
                "test:3:39: `` is not a path; write it like /v1/traces",
            ),
            ("", "test:3:5: name at least one of `grpc` and `http` under `protocols`"),
        ];
        for (protocols, want) in cases {
            let error = read(&format!("    protocols: {{{protocols}}}")).unwrap_err();
            assert!(error.starts_with(want), "{protocols}:\n{error}\n{want}");
        }
    }
}
