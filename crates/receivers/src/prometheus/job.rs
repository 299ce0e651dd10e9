//! Why: what a `scrape_config` means is made of it once, with its defaults from `global`; a mistake is told with the keys that lead to it, whichever file it
//! stands in.

use std::path::PathBuf;
use std::time::Duration;

use codec::prometheus::protobuf::{self, Wanted};
use http::HeaderMap;
use net::ClientTls;
use net::dial::headers;

use super::config::{
    Authorization, BasicAuth, Global, HttpHeaders, Labels, Params, PrometheusYml, Scheme, ScrapeConfig, StaticConfig,
    TlsConfig,
};
use super::relabel::{self, RelabelConfig, Rule};
use crate::client::{Asked, Credential, Login, Secret};

/// Prometheus' defaults.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_FILE_REFRESH: Duration = Duration::from_secs(300);
const DEFAULT_HTTP_REFRESH: Duration = Duration::from_secs(60);

/// Prometheus has no bound on a page by default. The largest that are known (kube-state-metrics of large clusters) have some 50 MB.
pub(crate) const DEFAULT_MAX_BODY_BYTES: usize = 64 << 20;

/// The highest bound that may be set: memory is reserved as it is used, and a page and what becomes of it are held at once.
const MAX_BODY_BYTES: u64 = 1 << 30;

/// An interval below it would be a load test of the target.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// A mistake in a job, and the keys that lead to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) path: Vec<String>,
    pub(crate) message: String,
}

fn mistake<T>(path: &[&str], message: impl Into<String>) -> Result<T, Mistake> {
    Err(Mistake {
        path: path.iter().map(|&key| key.to_owned()).collect(),
        message: message.into(),
    })
}

impl Mistake {
    fn under(mut self, path: &[&str]) -> Mistake {
        self.path.splice(0..0, path.iter().map(|&key| key.to_owned()));
        self
    }
}

/// Bounds of one scrape; `None` where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Limits {
    pub(crate) samples: Option<usize>,
    pub(crate) labels: Option<usize>,
    pub(crate) label_name_bytes: Option<usize>,
    pub(crate) label_value_bytes: Option<usize>,
}

/// How something is asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Way {
    pub(crate) tls: ClientTls,
    pub(crate) login: Login,
    pub(crate) headers: HeaderMap,
    pub(crate) follows_redirects: bool,
}

/// What a `scrape_config` means.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) accept: String,
    pub(crate) fallback: Protocol,
    /// Of pages in protobuf.
    pub(crate) histograms: Wanted,
    pub(crate) metrics_path: String,
    pub(crate) scheme: Scheme,
    pub(crate) params: Params,
    pub(crate) honors_labels: bool,
    pub(crate) honors_times: bool,
    pub(crate) compresses: bool,
    pub(crate) max_body_bytes: usize,
    pub(crate) limits: Limits,
    pub(crate) max_targets: Option<usize>,
    pub(crate) external_labels: Labels,
    pub(crate) relabel: Vec<Rule>,
    pub(crate) metric_relabel: Vec<Rule>,
    pub(crate) way: Way,
    pub(crate) fixed: Vec<StaticConfig>,
    pub(crate) files: Vec<(Vec<String>, Duration)>,
    pub(crate) services: Vec<(String, Duration, Way)>,
}

/// A format of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    OpenMetrics1,
    OpenMetrics0,
    Text1,
    Text0,
    /// The only one that has native histograms.
    Protobuf,
}

const PROTOCOLS: [(&str, Protocol); 5] = [
    ("OpenMetricsText1.0.0", Protocol::OpenMetrics1),
    ("OpenMetricsText0.0.1", Protocol::OpenMetrics0),
    ("PrometheusText1.0.0", Protocol::Text1),
    ("PrometheusText0.0.4", Protocol::Text0),
    ("PrometheusProto", Protocol::Protobuf),
];

impl Protocol {
    fn parse(name: &str) -> Result<Protocol, String> {
        let known = PROTOCOLS.iter().find(|(known, _)| *known == name);
        known.map(|(_, protocol)| *protocol).ok_or_else(|| {
            let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
            format!("`{name}` is not a format; known are {}", names.join(", "))
        })
    }

    fn media_type(self) -> &'static str {
        match self {
            Protocol::OpenMetrics1 => "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8",
            Protocol::OpenMetrics0 => "application/openmetrics-text;version=0.0.1",
            Protocol::Text1 => "text/plain;version=1.0.0;escaping=allow-utf-8",
            Protocol::Text0 => "text/plain;version=0.0.4",
            Protocol::Protobuf => protobuf::MEDIA_TYPE,
        }
    }
}

/// `Accept`, the first with the highest weight.
fn accept(protocols: &[Protocol]) -> String {
    let mut text = String::new();
    let mut weight = protocols.len() + 1;
    for media_type in protocols.iter().map(|it| it.media_type()) {
        text.push_str(&format!("{media_type};q=0.{weight},"));
        weight -= 1;
    }
    text.push_str("*/*;q=0.1");
    text
}

fn bound(own: Option<u64>, global: Option<u64>) -> Option<usize> {
    let bound = own.or(global).unwrap_or(0);
    (bound > 0).then(|| usize::try_from(bound).unwrap_or(usize::MAX))
}

impl Global {
    /// Keys that are set and have no effect.
    pub(crate) fn without_effect(&self) -> Vec<&'static str> {
        set_of(&[
            ("evaluation_interval", self.evaluation_interval.is_some()),
            ("rule_query_offset", self.rule_query_offset.is_some()),
            ("query_log_file", self.query_log_file.is_some()),
            ("scrape_failure_log_file", self.scrape_failure_log_file.is_some()),
            ("keep_dropped_targets", self.keep_dropped_targets.is_some()),
            (
                "metric_name_validation_scheme",
                self.metric_name_validation_scheme.is_some(),
            ),
            (
                "metric_name_escaping_scheme",
                self.metric_name_escaping_scheme.is_some(),
            ),
            (
                "convert_classic_histograms_to_nhcb",
                self.convert_classic_histograms_to_nhcb.is_some(),
            ),
            ("extra_scrape_metrics", self.extra_scrape_metrics.is_some()),
        ])
    }

    pub(crate) fn check(&self) -> Result<(), Mistake> {
        let interval = self.scrape_interval.unwrap_or(DEFAULT_INTERVAL);
        if interval < MIN_INTERVAL {
            return mistake(&["scrape_interval"], format!("must be at least {MIN_INTERVAL:?}"));
        }
        if self.scrape_timeout.is_some_and(|timeout| timeout > interval) {
            return mistake(&["scrape_timeout"], "is longer than `scrape_interval`");
        }
        if let Some(name) = self.external_labels.keys().find(|name| !relabel::is_label_name(name)) {
            return mistake(&["external_labels"], format!("`{name}` cannot be the name of a label"));
        }
        protocols(&self.scrape_protocols).map_err(|message| Mistake {
            path: vec!["scrape_protocols".to_owned()],
            message,
        })?;
        body_size(self.body_size_limit)
    }
}

fn body_size(limit: Option<u64>) -> Result<(), Mistake> {
    match limit {
        Some(bytes) if bytes > MAX_BODY_BYTES => mistake(&["body_size_limit"], "must be at most 1GiB"),
        _ => Ok(()),
    }
}

fn protocols(names: &[String]) -> Result<Vec<Protocol>, String> {
    let mut list: Vec<Protocol> = Vec::new();
    for name in names {
        let protocol = Protocol::parse(name)?;
        if list.contains(&protocol) {
            return Err(format!("`{name}` is there twice"));
        }
        list.push(protocol);
    }
    Ok(list)
}

impl ScrapeConfig {
    pub(crate) fn compile(&self, global: &Global) -> Result<Job, Mistake> {
        if self.job_name.is_empty() {
            return mistake(&["job_name"], "the job's name is empty");
        }
        let interval = self
            .scrape_interval
            .filter(|it| !it.is_zero())
            .or(global.scrape_interval)
            .unwrap_or(DEFAULT_INTERVAL);
        if interval < MIN_INTERVAL {
            return mistake(&["scrape_interval"], format!("must be at least {MIN_INTERVAL:?}"));
        }
        let timeout = self.scrape_timeout.filter(|it| !it.is_zero());
        if timeout.is_some_and(|timeout| timeout > interval) {
            return mistake(
                &["scrape_timeout"],
                format!("is longer than the interval, {interval:?}"),
            );
        }
        let timeout = timeout.unwrap_or_else(|| global.scrape_timeout.unwrap_or(DEFAULT_TIMEOUT).min(interval));
        let names = match self.scrape_protocols.is_empty() {
            true => &global.scrape_protocols,
            false => &self.scrape_protocols,
        };
        let natives = self.scrape_native_histograms.or(global.scrape_native_histograms);
        let asked = match protocols(names) {
            Ok(list) if list.is_empty() => {
                let first = (natives == Some(true)).then_some(Protocol::Protobuf);
                let texts = [
                    Protocol::OpenMetrics1,
                    Protocol::OpenMetrics0,
                    Protocol::Text1,
                    Protocol::Text0,
                ];
                first.into_iter().chain(texts).collect()
            }
            Ok(list) => list,
            Err(message) => return mistake(&["scrape_protocols"], message),
        };
        if natives == Some(true) && !asked.contains(&Protocol::Protobuf) {
            return mistake(
                &["scrape_protocols"],
                "without `PrometheusProto` there are no native histograms, which `scrape_native_histograms` asks for",
            );
        }
        let histograms = Wanted {
            natives: natives.unwrap_or_else(|| asked.contains(&Protocol::Protobuf)),
            classics_beside: self
                .always_scrape_classic_histograms
                .or(self.scrape_classic_histograms)
                .or(global.always_scrape_classic_histograms)
                .unwrap_or(false),
        };
        let fallback = match self.fallback_scrape_protocol.as_str() {
            "" => Protocol::Text0,
            name => match Protocol::parse(name) {
                Ok(protocol) => protocol,
                Err(message) => return mistake(&["fallback_scrape_protocol"], message),
            },
        };
        body_size(self.body_size_limit)?;
        let max_body_bytes = bound(self.body_size_limit, global.body_size_limit).unwrap_or(DEFAULT_MAX_BODY_BYTES);
        let rules = |key: &str, list: &[RelabelConfig]| {
            let compiled = list.iter().enumerate().map(|(at, config)| {
                let at = at.to_string();
                config.compile().map_err(|wrong| Mistake {
                    path: vec![key.to_owned(), at, wrong.key.to_owned()],
                    message: wrong.message,
                })
            });
            compiled.collect::<Result<Vec<Rule>, Mistake>>()
        };
        for (at, group) in self.static_configs.iter().enumerate() {
            group
                .check()
                .map_err(|wrong| wrong.under(&["static_configs", &at.to_string()]))?;
        }
        let mut files = Vec::new();
        for (at, config) in self.file_sd_configs.iter().enumerate() {
            let at = at.to_string();
            if config.files.is_empty() {
                return mistake(&["file_sd_configs", &at, "files"], "name a file");
            }
            for (item, path) in config.files.iter().enumerate() {
                if let Some(why) = wrong_path(path) {
                    return mistake(&["file_sd_configs", &at, "files", &item.to_string()], why);
                }
            }
            let refresh = refresh(config.refresh_interval, DEFAULT_FILE_REFRESH);
            files.push((config.files.clone(), refresh));
        }
        let mut services = Vec::new();
        for (at, config) in self.http_sd_configs.iter().enumerate() {
            let under = ["http_sd_configs", &at.to_string()];
            if let Err(error) = Asked::check(&config.url) {
                return mistake(&[&under[..], &["url"]].concat(), error.to_string());
            }
            let way = Client {
                basic_auth: config.basic_auth.as_ref(),
                authorization: config.authorization.as_ref(),
                bearer_token: config.bearer_token.as_ref(),
                bearer_token_file: config.bearer_token_file.as_ref(),
                http_headers: &config.http_headers,
                tls: &config.tls_config,
                follows_redirects: config.follow_redirects,
            };
            let refresh = refresh(config.refresh_interval, DEFAULT_HTTP_REFRESH);
            let way = way.check().map_err(|wrong| wrong.under(&under))?;
            services.push((config.url.clone(), refresh, way));
        }
        let way = Client {
            basic_auth: self.basic_auth.as_ref(),
            authorization: self.authorization.as_ref(),
            bearer_token: self.bearer_token.as_ref(),
            bearer_token_file: self.bearer_token_file.as_ref(),
            http_headers: &self.http_headers,
            tls: &self.tls_config,
            follows_redirects: self.follow_redirects,
        };
        Ok(Job {
            name: self.job_name.clone(),
            interval,
            timeout,
            accept: accept(&asked),
            fallback,
            histograms,
            metrics_path: self.metrics_path.clone(),
            scheme: self.scheme,
            params: self.params.clone(),
            honors_labels: self.honor_labels,
            honors_times: self.honor_timestamps,
            compresses: self.enable_compression,
            max_body_bytes,
            limits: Limits {
                samples: bound(self.sample_limit, global.sample_limit),
                labels: bound(self.label_limit, global.label_limit),
                label_name_bytes: bound(self.label_name_length_limit, global.label_name_length_limit),
                label_value_bytes: bound(self.label_value_length_limit, global.label_value_length_limit),
            },
            max_targets: bound(self.target_limit, global.target_limit),
            external_labels: global.external_labels.clone(),
            relabel: rules("relabel_configs", &self.relabel_configs)?,
            metric_relabel: rules("metric_relabel_configs", &self.metric_relabel_configs)?,
            way: way.check()?,
            fixed: self.static_configs.clone(),
            files,
            services,
        })
    }

    /// Keys that are set and have no effect.
    pub(crate) fn without_effect(&self) -> Vec<&'static str> {
        let keys = [
            ("track_timestamps_staleness", self.track_timestamps_staleness),
            (
                "convert_classic_histograms_to_nhcb",
                self.convert_classic_histograms_to_nhcb.is_some(),
            ),
            (
                "native_histogram_bucket_limit",
                self.native_histogram_bucket_limit.is_some(),
            ),
            (
                "native_histogram_min_bucket_factor",
                self.native_histogram_min_bucket_factor.is_some(),
            ),
            (
                "metric_name_validation_scheme",
                self.metric_name_validation_scheme.is_some(),
            ),
            (
                "metric_name_escaping_scheme",
                self.metric_name_escaping_scheme.is_some(),
            ),
            ("keep_dropped_targets", self.keep_dropped_targets.is_some()),
            ("scrape_failure_log_file", self.scrape_failure_log_file.is_some()),
            ("extra_scrape_metrics", self.extra_scrape_metrics.is_some()),
        ];
        set_of(&keys)
    }
}

impl PrometheusYml {
    /// Keys that are set and have no effect.
    pub(crate) fn without_effect(&self) -> Vec<&'static str> {
        set_of(&[
            ("storage", self.storage.is_some()),
            ("tracing", self.tracing.is_some()),
            ("otlp", self.otlp.is_some()),
            ("runtime", self.runtime.is_some()),
        ])
    }
}

fn set_of(keys: &[(&'static str, bool)]) -> Vec<&'static str> {
    keys.iter().filter(|(_, set)| *set).map(|(key, _)| *key).collect()
}

fn refresh(own: Option<Duration>, default: Duration) -> Duration {
    own.filter(|it| !it.is_zero()).unwrap_or(default)
}

/// What is wrong with a path of a file of targets.
fn wrong_path(path: &str) -> Option<String> {
    if !is_target_file(path) {
        return Some(format!("`{path}` does not end in .json, .yml or .yaml"));
    }
    let (folder, _) = path.rsplit_once('/').unwrap_or(("", path));
    folder
        .contains('*')
        .then(|| format!("`{path}`: only the last part of a path may have a `*`"))
}

/// Whether a name says that it is a file of targets.
pub(crate) fn is_target_file(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".json", ".yml", ".yaml"].iter().any(|end| name.ends_with(end))
}

impl StaticConfig {
    pub(crate) fn check(&self) -> Result<(), Mistake> {
        for (at, target) in self.targets.iter().enumerate() {
            if target.contains('/') {
                let message = format!("`{target}` is not host:port; path and scheme have keys of their own");
                return mistake(&["targets", &at.to_string()], message);
            }
        }
        match self.labels.keys().find(|name| !relabel::is_label_name(name)) {
            Some(name) => mistake(&["labels"], format!("`{name}` cannot be the name of a label")),
            None => Ok(()),
        }
    }
}

/// The keys of a client, which jobs and services have alike.
struct Client<'a> {
    basic_auth: Option<&'a BasicAuth>,
    authorization: Option<&'a Authorization>,
    bearer_token: Option<&'a Secret>,
    bearer_token_file: Option<&'a PathBuf>,
    http_headers: &'a HttpHeaders,
    tls: &'a TlsConfig,
    follows_redirects: bool,
}

impl Client<'_> {
    fn check(&self) -> Result<Way, Mistake> {
        let logins = [
            ("bearer_token", self.bearer_token.is_some()),
            ("bearer_token_file", self.bearer_token_file.is_some()),
            ("authorization", self.authorization.is_some()),
            ("basic_auth", self.basic_auth.is_some()),
        ];
        if let [first, second, ..] = set_of(&logins)[..] {
            return mistake(&[second], format!("`{second}` and `{first}` exclude each other"));
        }
        let bearer = |credential| Login::Scheme {
            scheme: "Bearer".to_owned(),
            credential: Some(credential),
        };
        let login = if let Some(token) = self.bearer_token {
            bearer(Credential::Given(token.clone()))
        } else if let Some(path) = self.bearer_token_file {
            bearer(Credential::File(path.clone()))
        } else if let Some(authorization) = self.authorization {
            authorization.login()?
        } else if let Some(basic) = self.basic_auth {
            basic.login()?
        } else {
            Login::Nobody
        };
        match (&self.tls.cert_file, &self.tls.key_file) {
            (Some(_), None) => return mistake(&["tls_config", "cert_file"], "`cert_file` needs `key_file`"),
            (None, Some(_)) => return mistake(&["tls_config", "key_file"], "`key_file` needs `cert_file`"),
            _ => {}
        }
        Ok(Way {
            tls: ClientTls {
                ca_file: self.tls.ca_file.clone(),
                cert_file: self.tls.cert_file.clone(),
                key_file: self.tls.key_file.clone(),
                server_name_override: self.tls.server_name.clone().filter(|name| !name.is_empty()),
                insecure_skip_verify: self.tls.insecure_skip_verify,
                ..ClientTls::default()
            },
            login,
            headers: self.headers()?,
            follows_redirects: self.follows_redirects,
        })
    }

    fn headers(&self) -> Result<HeaderMap, Mistake> {
        let mut all = HeaderMap::new();
        for (name, header) in self.http_headers {
            if ["authorization", "host", "accept", "accept-encoding", "content-length"]
                .iter()
                .any(|ours| name.eq_ignore_ascii_case(ours))
            {
                return mistake(&["http_headers", name], format!("`{name}` is not set here"));
            }
            let secrets = header.secrets.iter().map(Secret::expose);
            for value in header.values.iter().map(String::as_str).chain(secrets) {
                match headers([(name, &value.to_owned())]) {
                    Ok(one) => one.into_iter().for_each(|(name, value)| {
                        name.map(|name| all.append(name, value));
                    }),
                    Err(why) => return mistake(&["http_headers", name], why),
                }
            }
        }
        Ok(all)
    }
}

fn credential(
    given: Option<&Secret>,
    file: Option<&PathBuf>,
    keys: [&'static str; 2],
) -> Result<Option<Credential>, Mistake> {
    match (given, file) {
        (Some(_), Some(_)) => {
            let [given, file] = keys;
            mistake(&[file], format!("`{file}` and `{given}` exclude each other"))
        }
        (Some(secret), None) => Ok(Some(Credential::Given(secret.clone()))),
        (None, Some(path)) => Ok(Some(Credential::File(path.clone()))),
        (None, None) => Ok(None),
    }
}

impl Authorization {
    fn login(&self) -> Result<Login, Mistake> {
        let keys = ["credentials", "credentials_file"];
        let credential = credential(self.credentials.as_ref(), self.credentials_file.as_ref(), keys)
            .map_err(|wrong| wrong.under(&["authorization"]))?;
        let scheme = self.scheme.clone().unwrap_or_else(|| "Bearer".to_owned());
        if scheme.eq_ignore_ascii_case("basic") {
            // The word itself would be taken out of the message, as all that stands under `authorization`.
            let message = "user and password have a key of their own beside `authorization`";
            return mistake(&["authorization", "type"], message);
        }
        if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_graphic()) {
            return mistake(&["authorization", "type"], "is not one word");
        }
        Ok(Login::Scheme { scheme, credential })
    }
}

impl BasicAuth {
    fn login(&self) -> Result<Login, Mistake> {
        let under = |wrong: Mistake| wrong.under(&["basic_auth"]);
        let user = self.username.as_deref().map(Secret::from);
        let user = credential(
            user.as_ref(),
            self.username_file.as_ref(),
            ["username", "username_file"],
        );
        let password = credential(
            self.password.as_ref(),
            self.password_file.as_ref(),
            ["password", "password_file"],
        );
        Ok(Login::Basic {
            user: user
                .map_err(under)?
                .unwrap_or_else(|| Credential::Given(Secret::default())),
            password: password.map_err(under)?,
        })
    }
}
