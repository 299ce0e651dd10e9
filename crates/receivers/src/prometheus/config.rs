//! Why: what stands in a `prometheus.yml` is read here as it is there, so that a file that scrapes in Prometheus scrapes here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use pipeline::config::{optional_duration, optional_size};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::relabel::RelabelConfig;
use crate::client::Secret;

/// `config`: a `prometheus.yml`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrometheusYml {
    /// What jobs have if they do not say otherwise.
    pub global: Global,
    /// The jobs.
    pub scrape_configs: Vec<ScrapeConfig>,
    /// Files with `scrape_configs` of their own; the last part of a path may have a `*`. Read at the start. Default: none.
    pub scrape_config_files: Vec<String>,
    /// Without effect, as `tracing`, `otlp` and `runtime`: they are about Prometheus itself.
    pub storage: Option<IgnoredAny>,
    /// Without effect.
    pub tracing: Option<IgnoredAny>,
    /// Without effect.
    pub otlp: Option<IgnoredAny>,
    /// Without effect.
    pub runtime: Option<IgnoredAny>,
    /// Without effect unless it names Alertmanagers, which is refused: rules are not evaluated here.
    pub alerting: Alerting,
}

/// `alerting`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alerting {
    /// Must be empty.
    pub alertmanagers: Vec<IgnoredAny>,
    /// Must be empty.
    pub alert_relabel_configs: Vec<IgnoredAny>,
}

/// `global`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Global {
    /// Time between two scrapes. Default 1m.
    #[serde(deserialize_with = "optional_duration")]
    pub scrape_interval: Option<Duration>,
    /// For one scrape. Default 10s, or the interval where that is shorter.
    #[serde(deserialize_with = "optional_duration")]
    pub scrape_timeout: Option<Duration>,
    /// In which order formats are asked for. Default: `OpenMetricsText1.0.0`, `OpenMetricsText0.0.1`, `PrometheusText1.0.0`, `PrometheusText0.0.4`; before them
    /// `PrometheusProto` where `scrape_native_histograms` is true.
    pub scrape_protocols: Vec<String>,
    /// Added to every series, as the collector does. Default: none.
    pub external_labels: Labels,
    /// Largest page, compressed and inflated. Default 0, which is 64MiB here.
    #[serde(deserialize_with = "optional_size")]
    pub body_size_limit: Option<u64>,
    /// Samples of one scrape, after relabelling; one more fails the scrape. Default 0: no limit.
    pub sample_limit: Option<u64>,
    /// Targets of one job; one more fails all its scrapes. Default 0: no limit.
    pub target_limit: Option<u64>,
    /// Labels of one series. Default 0: no limit.
    pub label_limit: Option<u64>,
    /// Bytes of a label's name. Default 0: no limit.
    pub label_name_length_limit: Option<u64>,
    /// Bytes of a label's value. Default 0: no limit.
    pub label_value_length_limit: Option<u64>,
    /// Without effect, as all below: rules and queries are not evaluated here, and names are UTF-8.
    pub evaluation_interval: Option<IgnoredAny>,
    /// Without effect.
    pub rule_query_offset: Option<IgnoredAny>,
    /// Without effect.
    pub query_log_file: Option<IgnoredAny>,
    /// Without effect.
    pub scrape_failure_log_file: Option<IgnoredAny>,
    /// Without effect.
    pub keep_dropped_targets: Option<IgnoredAny>,
    /// Without effect.
    pub metric_name_validation_scheme: Option<IgnoredAny>,
    /// Without effect.
    pub metric_name_escaping_scheme: Option<IgnoredAny>,
    /// Whether native histograms are taken, for which pages in protobuf are asked for first. Default: where `scrape_protocols` names `PrometheusProto`.
    pub scrape_native_histograms: Option<bool>,
    /// Whether the classic buckets of a native histogram are taken beside it. Default false.
    pub always_scrape_classic_histograms: Option<bool>,
    /// Without effect: in OTLP the buckets of a classic histogram are one point already.
    pub convert_classic_histograms_to_nhcb: Option<IgnoredAny>,
    /// Without effect; see `report_extra_scrape_metrics` of the receiver.
    pub extra_scrape_metrics: Option<IgnoredAny>,
}

/// One of `scrape_configs`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrapeConfig {
    /// The value of the label `job`, from which `service.name` comes.
    pub job_name: String,
    /// Default: that of `global`.
    #[serde(default, deserialize_with = "optional_duration")]
    pub scrape_interval: Option<Duration>,
    /// Default: that of `global`, or the interval where that is shorter.
    #[serde(default, deserialize_with = "optional_duration")]
    pub scrape_timeout: Option<Duration>,
    /// Default: those of `global`.
    #[serde(default)]
    pub scrape_protocols: Vec<String>,
    /// As which format a page is read whose content type is none that we know. Default `PrometheusText0.0.4`, as in the collector.
    #[serde(default)]
    pub fallback_scrape_protocol: String,
    /// Default `/metrics`.
    #[serde(default = "metrics_path")]
    pub metrics_path: String,
    /// `http` (default) or `https`.
    #[serde(default)]
    pub scheme: Scheme,
    /// Parameters of the URL, each with its values. Default: none.
    #[serde(default)]
    pub params: Params,
    /// Whether labels that a target sends itself win over those of the configuration; else they become `exported_…`. Default false.
    #[serde(default)]
    pub honor_labels: bool,
    /// Whether times that a target sends are used. Default true.
    #[serde(default = "yes")]
    pub honor_timestamps: bool,
    /// Without effect: series with times of their own end only with their target. Default false.
    #[serde(default)]
    pub track_timestamps_staleness: bool,
    /// Whether targets may compress their pages (gzip). Default true.
    #[serde(default = "yes")]
    pub enable_compression: bool,
    /// Default: that of `global`.
    #[serde(default, deserialize_with = "optional_size")]
    pub body_size_limit: Option<u64>,
    /// Default: that of `global`.
    #[serde(default)]
    pub sample_limit: Option<u64>,
    /// Default: that of `global`.
    #[serde(default)]
    pub target_limit: Option<u64>,
    /// Default: that of `global`.
    #[serde(default)]
    pub label_limit: Option<u64>,
    /// Default: that of `global`.
    #[serde(default)]
    pub label_name_length_limit: Option<u64>,
    /// Default: that of `global`.
    #[serde(default)]
    pub label_value_length_limit: Option<u64>,
    /// Targets by name.
    #[serde(default)]
    pub static_configs: Vec<StaticConfig>,
    /// Targets from files, which are read again when they change.
    #[serde(default)]
    pub file_sd_configs: Vec<FileSdConfig>,
    /// Targets from a service over HTTP.
    #[serde(default)]
    pub http_sd_configs: Vec<HttpSdConfig>,
    /// What is done with the labels of targets, in order.
    #[serde(default)]
    pub relabel_configs: Vec<RelabelConfig>,
    /// What is done with the labels of series, in order.
    #[serde(default)]
    pub metric_relabel_configs: Vec<RelabelConfig>,
    /// User and password.
    #[serde(default)]
    pub basic_auth: Option<BasicAuth>,
    /// A token, or any other scheme of `Authorization`.
    #[serde(default)]
    pub authorization: Option<Authorization>,
    /// The same as `authorization.credentials`, from before there was that.
    #[serde(default)]
    pub bearer_token: Option<Secret>,
    /// The same as `authorization.credentials_file`.
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    /// Headers by name, each with its values. Default: none.
    #[serde(default)]
    pub http_headers: HttpHeaders,
    /// Whether redirects are followed. Default true.
    #[serde(default = "yes")]
    pub follow_redirects: bool,
    /// Without effect: a target over TLS chooses. Default true.
    #[serde(default = "yes")]
    pub enable_http2: bool,
    /// Certificates, for `https`.
    #[serde(default)]
    pub tls_config: TlsConfig,
    /// Default: that of `global`.
    #[serde(default)]
    pub scrape_native_histograms: Option<bool>,
    /// The older name of `always_scrape_classic_histograms`.
    #[serde(default)]
    pub scrape_classic_histograms: Option<bool>,
    /// Default: that of `global`.
    #[serde(default)]
    pub always_scrape_classic_histograms: Option<bool>,
    /// Without effect, as all below: in OTLP the buckets of a classic histogram are one point already.
    #[serde(default)]
    pub convert_classic_histograms_to_nhcb: Option<IgnoredAny>,
    /// Without effect.
    #[serde(default)]
    pub native_histogram_bucket_limit: Option<IgnoredAny>,
    /// Without effect.
    #[serde(default)]
    pub native_histogram_min_bucket_factor: Option<IgnoredAny>,
    /// Without effect: names are UTF-8.
    #[serde(default)]
    pub metric_name_validation_scheme: Option<IgnoredAny>,
    /// Without effect.
    #[serde(default)]
    pub metric_name_escaping_scheme: Option<IgnoredAny>,
    /// Without effect: what relabelling drops is forgotten.
    #[serde(default)]
    pub keep_dropped_targets: Option<IgnoredAny>,
    /// Without effect: failures are told in our log.
    #[serde(default)]
    pub scrape_failure_log_file: Option<IgnoredAny>,
    /// Without effect; see `report_extra_scrape_metrics` of the receiver.
    #[serde(default)]
    pub extra_scrape_metrics: Option<IgnoredAny>,
}

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// Parameters by name, each with its values.
pub type Params = BTreeMap<String, Vec<String>>;

/// `scheme`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// One of `static_configs`, and of what files and services say.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StaticConfig {
    /// Each a `host:port`.
    pub targets: Vec<String>,
    /// Labels that all of them have.
    pub labels: Labels,
}

/// One of `file_sd_configs`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSdConfig {
    /// Paths that end in `.json`, `.yml` or `.yaml`; the last part of a path may have a `*`.
    pub files: Vec<String>,
    /// How often they are read again even if nothing seems to have changed. Default 5m.
    #[serde(default, deserialize_with = "optional_duration")]
    pub refresh_interval: Option<Duration>,
}

/// One of `http_sd_configs`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSdConfig {
    /// What is asked; it answers with a JSON list of targets.
    pub url: String,
    /// Default 60s.
    #[serde(default, deserialize_with = "optional_duration")]
    pub refresh_interval: Option<Duration>,
    /// User and password.
    #[serde(default)]
    pub basic_auth: Option<BasicAuth>,
    /// A token, or any other scheme of `Authorization`.
    #[serde(default)]
    pub authorization: Option<Authorization>,
    /// The same as `authorization.credentials`.
    #[serde(default)]
    pub bearer_token: Option<Secret>,
    /// The same as `authorization.credentials_file`.
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    /// Headers by name, each with its values. Default: none.
    #[serde(default)]
    pub http_headers: HttpHeaders,
    /// Default true.
    #[serde(default = "yes")]
    pub follow_redirects: bool,
    /// Without effect. Default true.
    #[serde(default = "yes")]
    pub enable_http2: bool,
    /// Certificates, for `https`.
    #[serde(default)]
    pub tls_config: TlsConfig,
}

/// `basic_auth`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BasicAuth {
    /// Default: none.
    pub username: Option<String>,
    /// A file with it, read at each request. Default: none.
    pub username_file: Option<PathBuf>,
    /// Default: none.
    pub password: Option<Secret>,
    /// A file with it, read at each request. Default: none.
    pub password_file: Option<PathBuf>,
}

/// `authorization`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Authorization {
    /// `type`: the first word of the header. Default `Bearer`.
    #[serde(rename = "type")]
    pub scheme: Option<String>,
    /// The rest of it. Default: none.
    pub credentials: Option<Secret>,
    /// A file with it, read at each request. Default: none.
    pub credentials_file: Option<PathBuf>,
}

/// Headers by name.
pub type HttpHeaders = BTreeMap<String, HttpHeader>;

/// The values of a header.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpHeader {
    /// Default: none.
    pub values: Vec<String>,
    /// Values that nobody is shown. Default: none.
    pub secrets: Vec<Secret>,
}

/// `tls_config`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificates to trust, PEM. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, PEM, where the target asks for one.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
    /// The name that the certificate must have, if it is not the target's host.
    pub server_name: Option<String>,
    /// Whether any certificate will do. Default false.
    pub insecure_skip_verify: bool,
    /// Without effect: TLS 1.2 and 1.3 are spoken.
    pub min_version: Option<IgnoredAny>,
    /// Without effect.
    pub max_version: Option<IgnoredAny>,
}

fn yes() -> bool {
    true
}

fn metrics_path() -> String {
    "/metrics".to_owned()
}
