//! `receivers: otlp:` as the collector's configuration has it.

use std::path::PathBuf;

use net::{Endpoint, TlsFiles};
use serde::{Deserialize, Deserializer};

use super::cors::CorsConfig;

/// Where OTLP/gRPC is expected.
pub const DEFAULT_GRPC_ENDPOINT: &str = "127.0.0.1:4317";
/// Where OTLP/HTTP is expected.
pub const DEFAULT_HTTP_ENDPOINT: &str = "127.0.0.1:4318";
/// Largest request, compressed and inflated, in MiB. The collector's HTTP default is 20 and its gRPC default 4; a batch that is
/// too large is lost, so the bound is generous and the memory budget is what protects us.
pub const DEFAULT_MAX_REQUEST_MIB: u64 = 64;

/// The receiver's configuration.
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
    /// OTLP/gRPC.
    #[serde(default, deserialize_with = "named")]
    pub grpc: Option<GrpcConfig>,
    /// OTLP/HTTP.
    #[serde(default, deserialize_with = "named")]
    pub http: Option<HttpConfig>,
}

/// `grpc:`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcConfig {
    /// Address to listen on; default 127.0.0.1:4317.
    pub endpoint: String,
    /// Kind of socket; only `tcp`.
    pub transport: Option<String>,
    /// Certificate and key; default plain text.
    pub tls: Option<TlsConfig>,
    /// Largest message in MiB, compressed and inflated; default 64.
    pub max_recv_msg_size_mib: u64,
    /// Calls at a time on one connection; default 128.
    pub max_concurrent_streams: Option<u32>,
    /// Accepted for the collector's sake: the door's buffers are fixed and small.
    pub read_buffer_size: Option<u64>,
    /// As `read_buffer_size`.
    pub write_buffer_size: Option<u64>,
    /// Accepted with a warning: doors have their own keep-alive.
    pub keepalive: Option<serde::de::IgnoredAny>,
    /// Must be false: no component reads request metadata yet.
    pub include_metadata: bool,
    /// Must be absent: authentication of senders is not available yet.
    pub auth: Option<serde::de::IgnoredAny>,
}

/// `http:`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address to listen on; default 127.0.0.1:4318.
    pub endpoint: String,
    /// Certificate and key; default plain text.
    pub tls: Option<TlsConfig>,
    /// Path for spans; default /v1/traces.
    pub traces_url_path: String,
    /// Path for log records; default /v1/logs.
    pub logs_url_path: String,
    /// Path for metrics; default /v1/metrics.
    pub metrics_url_path: String,
    /// Largest body in bytes, compressed and inflated; default 64 MiB.
    pub max_request_body_size: u64,
    /// Which web pages may send; default none.
    pub cors: Option<CorsConfig>,
    /// Must be false: no component reads request metadata yet.
    pub include_metadata: bool,
    /// Must be absent: authentication of senders is not available yet.
    pub auth: Option<serde::de::IgnoredAny>,
}

/// `tls:`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate chain, PEM, leaf first.
    pub cert_file: PathBuf,
    /// Private key, PEM.
    pub key_file: PathBuf,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            endpoint: DEFAULT_GRPC_ENDPOINT.to_owned(),
            transport: None,
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
            endpoint: DEFAULT_HTTP_ENDPOINT.to_owned(),
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

impl From<&TlsConfig> for TlsFiles {
    fn from(config: &TlsConfig) -> Self {
        Self {
            cert_file: config.cert_file.clone(),
            key_file: config.key_file.clone(),
        }
    }
}

/// `grpc:` with nothing behind it is an explicit null, which means "with its defaults", unlike a key that is not there.
fn named<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Some(Option::<T>::deserialize(deserializer)?.unwrap_or_default()))
}

/// What is wrong with a configuration whose keys are right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct BadConfig {
    /// The key, from `protocols` on.
    pub key: &'static str,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// A configuration that has been looked at: what the doors are built from.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) grpc: Option<(Endpoint, GrpcConfig)>,
    pub(super) http: Option<(Endpoint, HttpConfig)>,
}

/// A limit above this many bytes does not fit gRPC's length field.
const MAX_REQUEST_BYTES: u64 = u32::MAX as u64;

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

    /// Looks at everything that does not need a socket.
    pub fn check(&self) -> Result<(), BadConfig> {
        self.plan().map(|_| ())
    }

    pub(super) fn plan(&self) -> Result<Plan, BadConfig> {
        fn bad<T>(key: &'static str, problem: impl Into<String>) -> Result<T, BadConfig> {
            let problem = problem.into();
            Err(BadConfig { key, problem })
        }
        let Protocols { grpc, http } = &self.protocols;
        if grpc.is_none() && http.is_none() {
            return bad("protocols", "name at least one of `grpc` and `http`");
        }
        let endpoint = |key, text: &str| -> Result<Endpoint, BadConfig> {
            text.parse().or_else(|e: net::BadEndpoint| bad(key, e.to_string()))
        };
        const NO_METADATA: &str = "is not available yet; leave it out";
        let mut plan = Plan { grpc: None, http: None };
        if let Some(config) = grpc {
            let address = endpoint("protocols.grpc.endpoint", &config.endpoint)?;
            if config.transport.as_deref().is_some_and(|t| !t.starts_with("tcp")) {
                return bad("protocols.grpc.transport", "only tcp is possible");
            }
            if config.include_metadata {
                return bad("protocols.grpc.include_metadata", NO_METADATA);
            }
            if config.auth.is_some() {
                return bad("protocols.grpc.auth", NO_METADATA);
            }
            let bytes = config.max_recv_msg_size_mib.saturating_mul(1 << 20);
            if bytes == 0 || bytes > MAX_REQUEST_BYTES {
                return bad("protocols.grpc.max_recv_msg_size_mib", "must be from 1 to 4095");
            }
            if config.max_concurrent_streams == Some(0) {
                return bad("protocols.grpc.max_concurrent_streams", "must be at least 1");
            }
            plan.grpc = Some((address, config.clone()));
        }
        if let Some(config) = http {
            let address = endpoint("protocols.http.endpoint", &config.endpoint)?;
            if config.include_metadata {
                return bad("protocols.http.include_metadata", NO_METADATA);
            }
            if config.auth.is_some() {
                return bad("protocols.http.auth", NO_METADATA);
            }
            let bytes = config.max_request_body_size;
            if bytes == 0 || bytes > MAX_REQUEST_BYTES {
                return bad(
                    "protocols.http.max_request_body_size",
                    "must be from 1 to 4294967295 bytes",
                );
            }
            for (key, path) in [
                ("protocols.http.traces_url_path", &config.traces_url_path),
                ("protocols.http.logs_url_path", &config.logs_url_path),
                ("protocols.http.metrics_url_path", &config.metrics_url_path),
            ] {
                if path.is_empty() || path.contains(['?', '#', ' ']) {
                    return bad(key, format!("`{path}` is not a path; write it like /v1/traces"));
                }
            }
            plan.http = Some((address, config.clone()));
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Config, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn a_protocol_without_settings_has_its_defaults() {
        let config = read(r#"{"protocols": {"grpc": null, "http": {}}}"#).unwrap();
        assert_eq!(config, Config::both());
        let config = read(r#"{"protocols": {"http": null}}"#).unwrap();
        assert_eq!(
            (config.protocols.grpc, config.protocols.http),
            (None, Some(HttpConfig::default()))
        );
    }

    #[test]
    fn what_the_collector_takes_and_we_do_too() {
        let config = read(
            r#"{"protocols": {
                "grpc": {"endpoint": "0.0.0.0:4317", "transport": "tcp", "max_recv_msg_size_mib": 8, "max_concurrent_streams": 16,
                         "read_buffer_size": 524288, "keepalive": {"server_parameters": {"time": "30s"}}},
                "http": {"endpoint": "0.0.0.0:4318", "traces_url_path": "/otlp/traces", "max_request_body_size": 1048576,
                         "cors": {"allowed_origins": ["*"], "allowed_headers": ["x-app"], "max_age": 7200}}
            }}"#,
        )
        .unwrap();
        config.check().unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        let unknown = read(r#"{"protocols": {"grpc": {"end_point": "x"}}}"#).unwrap_err();
        assert!(
            unknown.starts_with("unknown field `end_point`, expected one of `endpoint`"),
            "{unknown}"
        );
        let cases = [
            (r#"{}"#, "protocols: name at least one of `grpc` and `http`"),
            (
                r#"{"protocols": {"grpc": {"endpoint": "4317"}}}"#,
                "protocols.grpc.endpoint: `4317` is not an address to listen on: it has no port; write it as host:port, for example 127.0.0.1:4317",
            ),
            (
                r#"{"protocols": {"grpc": {"transport": "unix"}}}"#,
                "protocols.grpc.transport: only tcp is possible",
            ),
            (
                r#"{"protocols": {"grpc": {"max_recv_msg_size_mib": 0}}}"#,
                "protocols.grpc.max_recv_msg_size_mib: must be from 1 to 4095",
            ),
            (
                r#"{"protocols": {"http": {"auth": {"authenticator": "oidc"}}}}"#,
                "protocols.http.auth: is not available yet; leave it out",
            ),
            (
                r#"{"protocols": {"http": {"include_metadata": true}}}"#,
                "protocols.http.include_metadata: is not available yet; leave it out",
            ),
            (
                r#"{"protocols": {"http": {"logs_url_path": ""}}}"#,
                "protocols.http.logs_url_path: `` is not a path; write it like /v1/traces",
            ),
        ];
        for (json, want) in cases {
            assert_eq!(read(json).unwrap().check().unwrap_err().to_string(), want);
        }
    }
}
