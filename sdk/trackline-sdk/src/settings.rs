//! What a service can set, where the `OTEL_*` variables override it, and what follows from both.
//!
//! The environment wins over the code: whoever runs a service knows where its collector is, whoever wrote it does not.

use std::path::PathBuf;
use std::time::Duration;

use crate::sampler::Sampling;
use crate::tls::Files;

/// How much of what a caller says about its trace is believed (SPEC T4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// A caller's trace is continued; whether it is recorded is our own sampler's decision.
    #[default]
    Ids,
    /// A caller's trace is continued and its `sampled` flag decides. For services that only friends can reach.
    All,
    /// Each request is a new trace with a link to the caller's. For the edge of a system.
    None,
}

/// How telemetry travels to the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// OTLP over gRPC, port 4317 by custom.
    #[default]
    Grpc,
    /// OTLP as protobuf over HTTP, port 4318 by custom.
    Http,
}

impl Protocol {
    fn default_endpoint(self) -> &'static str {
        match self {
            Protocol::Grpc => "http://localhost:4317",
            Protocol::Http => "http://localhost:4318",
        }
    }
}

/// Everything decided: code, then environment, then defaults.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub service: String,
    pub version: String,
    pub environment: String,
    pub project: Option<String>,
    pub resource: Vec<(String, String)>,
    pub trust: Trust,
    pub sampling: Sampling,
    pub traces: Option<Target>,
    pub logs: Option<Target>,
    pub batch: Batch,
    pub log_filter: String,
    pub stdout: bool,
    pub line_bytes: usize,
    pub line_fields: usize,
    pub request_log: bool,
    pub panic_hook: bool,
    pub shutdown_timeout: Duration,
    pub ai_prices: Option<String>,
}

/// Where one signal goes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    pub protocol: Protocol,
    pub endpoint: String,
    pub timeout: Duration,
    pub headers: Vec<(String, String)>,
    /// Used where the endpoint is `https`.
    pub tls: Files,
}

/// Bounds of the span queue (SPEC S2, `OTEL_BSP_*`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Batch {
    pub spans: usize,
    pub delay: Duration,
    pub queue: usize,
}

/// Spans in one export, waiting time of the first, and spans waiting at most (SPEC S2).
const BATCH_SPANS: usize = 512;
const BATCH_DELAY: Duration = Duration::from_secs(1);
const QUEUE_SPANS: usize = 2_048;
/// The OTLP specification's default for one export with its retries.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// What a service manager's grace period (10 s and more) leaves room for.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// A log line's size: log drivers split longer ones (SPEC L1).
const LINE_BYTES: usize = 16 * 1024;
/// The size nobody may set it above: CloudWatch refuses more.
const MAX_LINE_BYTES: usize = 256 * 1024;
/// The fixed fields alone need this much.
const MIN_LINE_BYTES: usize = 2 * 1024;
/// Fields in a log line: Insights extracts 200 from one event; the owner's own bound is 900 (SPEC L4).
const LINE_FIELDS: usize = 200;
const MAX_LINE_FIELDS: usize = 900;
const MIN_LINE_FIELDS: usize = 40;
/// Share of traces kept in production (SPEC S9).
const PROD_RATIO: f64 = 0.1;

/// Reads one variable; tests hand in a table.
pub(crate) type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Options as the code sets them; `None` is "not said".
#[derive(Debug, Clone, Default)]
pub(crate) struct Choices {
    pub service: String,
    pub version: Option<String>,
    pub environment: Option<String>,
    pub project: Option<String>,
    pub endpoint: Option<String>,
    pub protocol: Option<Protocol>,
    pub resource: Vec<(String, String)>,
    pub trust: Trust,
    pub ratio: Option<f64>,
    pub log_filter: Option<String>,
    pub stdout: Option<bool>,
    pub line_bytes: Option<usize>,
    pub line_fields: Option<usize>,
    pub request_log: Option<bool>,
    pub panic_hook: Option<bool>,
    pub shutdown_timeout: Option<Duration>,
    pub ai_prices: Option<String>,
}

impl Settings {
    /// Merges code and environment. What makes no sense is reported in `problems` and replaced by its default.
    pub(crate) fn resolve(choices: Choices, env: Env, problems: &mut Vec<String>) -> Settings {
        let var = |name: &str| env(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let mut resource = choices.resource;
        for (key, value) in resource_attributes(var("OTEL_RESOURCE_ATTRIBUTES"), problems) {
            resource.retain(|(k, _)| *k != key);
            resource.push((key, value));
        }
        let mut named = |key: &str| {
            let at = resource.iter().position(|(k, _)| k == key)?;
            Some(resource.swap_remove(at).1)
        };
        let from_resource = named("service.name");
        let service = var("OTEL_SERVICE_NAME")
            .or(from_resource)
            .or(Some(choices.service).filter(|name| !name.is_empty()))
            .unwrap_or_else(|| "unknown_service".to_owned());
        let version = named("service.version")
            .or(choices.version)
            .unwrap_or_else(|| "1.0.0".to_owned());
        let old_name = named("deployment.environment");
        let environment = short_environment(
            &named("deployment.environment.name")
                .or(old_name)
                .or(choices.environment)
                .or_else(|| var("ENVIRONMENT"))
                .unwrap_or_else(|| "dev".to_owned()),
        );
        let project = named("project").or(choices.project);

        let disabled = var("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let target = |signal: &str, path: &str, problems: &mut Vec<String>| {
            let exporter = var(&format!("OTEL_{signal}_EXPORTER"));
            if disabled || exporter.as_deref() == Some("none") {
                return None;
            }
            if let Some(other) = exporter.filter(|name| name != "otlp") {
                problems.push(format!(
                    "OTEL_{signal}_EXPORTER={other} is not known here; exporting OTLP (known: otlp, none)"
                ));
            }
            let own = |name: &str| {
                var(&format!("OTEL_EXPORTER_OTLP_{signal}_{name}"))
                    .or_else(|| var(&format!("OTEL_EXPORTER_OTLP_{name}")))
            };
            let protocol = match own("PROTOCOL").as_deref() {
                None => choices.protocol.unwrap_or_default(),
                Some("grpc") => Protocol::Grpc,
                Some("http/protobuf") => Protocol::Http,
                Some(other) => {
                    problems.push(format!(
                        "OTEL_EXPORTER_OTLP_PROTOCOL={other} is not supported; using gRPC (supported: grpc, http/protobuf)"
                    ));
                    Protocol::Grpc
                }
            };
            let for_signal = var(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"));
            let endpoint = match (for_signal, protocol) {
                // A signal's own endpoint is used as it is, the common one gets the signal's path (OTLP exporter §).
                (Some(endpoint), _) => endpoint,
                (None, protocol) => {
                    let base = var("OTEL_EXPORTER_OTLP_ENDPOINT")
                        .or_else(|| choices.endpoint.clone())
                        .unwrap_or_else(|| protocol.default_endpoint().to_owned());
                    match protocol {
                        Protocol::Grpc => base,
                        Protocol::Http => format!("{}/{path}", base.trim_end_matches('/')),
                    }
                }
            };
            let endpoint = match protocol {
                // Only gRPC may leave out the scheme; `INSECURE` is then what decides (OTLP exporter §).
                Protocol::Grpc if !endpoint.contains("://") => {
                    let insecure = own("INSECURE").is_some_and(|v| v.eq_ignore_ascii_case("true"));
                    format!("{}://{endpoint}", if insecure { "http" } else { "https" })
                }
                _ => endpoint,
            };
            let file = |name: &str| own(name).map(PathBuf::from);
            let tls = Files {
                certificate: file("CERTIFICATE"),
                client_certificate: file("CLIENT_CERTIFICATE"),
                client_key: file("CLIENT_KEY"),
            };
            let timeout = match own("TIMEOUT").map(|ms| (ms.parse(), ms)) {
                None => EXPORT_TIMEOUT,
                Some((Ok(ms), _)) => Duration::from_millis(ms),
                Some((Err(_), text)) => {
                    problems.push(format!(
                        "OTEL_EXPORTER_OTLP_TIMEOUT={text} is not a number of milliseconds; using 10000"
                    ));
                    EXPORT_TIMEOUT
                }
            };
            let headers = pairs(&own("HEADERS").unwrap_or_default());
            Some(Target {
                protocol,
                endpoint,
                timeout,
                headers,
                tls,
            })
        };
        let traces = target("TRACES", "v1/traces", problems);
        let logs = target("LOGS", "v1/logs", problems);

        let mut count = |name: &str, default: usize| match var(name).map(|v| (v.parse(), v)) {
            None => default,
            Some((Ok(n), _)) if n > 0 => n,
            Some((_, text)) => {
                problems.push(format!("{name}={text} is not a positive number; using {default}"));
                default
            }
        };
        let queue = count("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SPANS);
        let batch = Batch {
            spans: count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS).min(queue),
            delay: Duration::from_millis(count("OTEL_BSP_SCHEDULE_DELAY", BATCH_DELAY.as_millis() as usize) as u64),
            queue,
        };

        let sampling = sampling(&var, choices.ratio, choices.trust, &environment, problems);
        let log_filter = var("RUST_LOG").or(choices.log_filter).unwrap_or_else(|| {
            let level = if environment == "prod" { "info" } else { "debug" };
            format!("{level}{QUIET}")
        });
        Settings {
            service,
            version,
            environment,
            project,
            resource,
            trust: choices.trust,
            sampling,
            traces,
            logs,
            batch,
            log_filter,
            stdout: choices.stdout.unwrap_or(true),
            line_bytes: choices
                .line_bytes
                .unwrap_or(LINE_BYTES)
                .clamp(MIN_LINE_BYTES, MAX_LINE_BYTES),
            line_fields: choices
                .line_fields
                .unwrap_or(LINE_FIELDS)
                .clamp(MIN_LINE_FIELDS, MAX_LINE_FIELDS),
            request_log: choices.request_log.unwrap_or(true),
            panic_hook: choices.panic_hook.unwrap_or(true),
            shutdown_timeout: choices.shutdown_timeout.unwrap_or(SHUTDOWN_TIMEOUT),
            ai_prices: var("TRACKLINE_AI_PRICES").or(choices.ai_prices),
        }
    }
}

/// Libraries whose debug lines are about themselves.
const QUIET: &str = ",opentelemetry=warn,h2=warn,hyper=warn,hyper_util=warn,reqwest=warn,rustls=warn,sqlx=warn,\
                     tonic=warn,tower=warn,mio=warn,want=warn";

fn sampling(
    var: &dyn Fn(&str) -> Option<String>,
    ratio: Option<f64>,
    trust: Trust,
    environment: &str,
    problems: &mut Vec<String>,
) -> Sampling {
    let usual = ratio.unwrap_or(if environment == "prod" { PROD_RATIO } else { 1.0 });
    let argument = |problems: &mut Vec<String>| match var("OTEL_TRACES_SAMPLER_ARG") {
        None => 1.0,
        Some(text) => match text.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => share,
            _ => {
                problems.push(format!(
                    "OTEL_TRACES_SAMPLER_ARG={text} is not a share from 0.0 to 1.0; keeping all traces"
                ));
                1.0
            }
        },
    };
    let (ratio, follow_parent) = match var("OTEL_TRACES_SAMPLER").as_deref() {
        None => (usual, true),
        Some("always_on") => (1.0, false),
        Some("always_off") => (0.0, false),
        Some("traceidratio") => (argument(problems), false),
        Some("parentbased_always_on") => (1.0, true),
        Some("parentbased_always_off") => (0.0, true),
        Some("parentbased_traceidratio") => (argument(problems), true),
        Some(other) => {
            problems.push(format!(
                "OTEL_TRACES_SAMPLER={other} is not known; keeping {usual} of all traces (known: always_on, \
                 always_off, traceidratio, and each with parentbased_ before it)"
            ));
            (usual, true)
        }
    };
    Sampling {
        ratio,
        follow_parent,
        follow_remote: trust == Trust::All && follow_parent,
    }
}

/// The short name of an environment, so that `production` and `prod` are one label (SPEC §0).
pub fn short_environment(name: &str) -> String {
    let name = name.trim().to_ascii_lowercase();
    match name.as_str() {
        "production" | "live" | "prd" => "prod".to_owned(),
        "development" | "develop" | "local" => "dev".to_owned(),
        "stage" | "stg" => "staging".to_owned(),
        _ => name,
    }
}

fn resource_attributes(text: Option<String>, problems: &mut Vec<String>) -> Vec<(String, String)> {
    let Some(text) = text else { return Vec::new() };
    let found = pairs(&text);
    if found.len() != text.split(',').filter(|part| !part.trim().is_empty()).count() {
        problems.push(format!(
            "OTEL_RESOURCE_ATTRIBUTES={text}: parts that are not key=value are left out"
        ));
    }
    found
}

/// `k=v,k=v` with percent-encoded values, as the `OTEL_*` lists are written.
fn pairs(text: &str) -> Vec<(String, String)> {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), percent_decoded(value.trim())))
        .filter(|(key, _)| !key.is_empty())
        .collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        let decoded = digits
            .filter(|d| *first == b'%' && d.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|d| u8::from_str_radix(d, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(choices: Choices, env: &[(&str, &str)]) -> (Settings, Vec<String>) {
        let mut problems = Vec::new();
        let read = |name: &str| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let settings = Settings::resolve(choices, &read, &mut problems);
        (settings, problems)
    }

    fn service(name: &str) -> Choices {
        Choices {
            service: name.to_owned(),
            ..Choices::default()
        }
    }

    #[test]
    fn defaults_are_those_of_the_specification() {
        let (settings, problems) = resolve(service("api-gateway"), &[]);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(settings.service, "api-gateway");
        assert_eq!(settings.version, "1.0.0");
        assert_eq!(settings.environment, "dev");
        let traces = settings.traces.expect("traces are exported");
        assert_eq!(traces.protocol, Protocol::Grpc);
        assert_eq!(traces.endpoint, "http://localhost:4317");
        assert_eq!(
            settings.batch,
            Batch {
                spans: 512,
                delay: Duration::from_secs(1),
                queue: 2048
            }
        );
        assert_eq!(settings.sampling.ratio, 1.0);
        assert_eq!((settings.line_bytes, settings.line_fields), (16_384, 200));
    }

    #[test]
    fn environments_have_one_name_each_and_prod_samples() {
        for (name, short, ratio) in [
            ("production", "prod", 0.1),
            ("Prod", "prod", 0.1),
            ("development", "dev", 1.0),
            ("stage", "staging", 1.0),
            ("qa-7", "qa-7", 1.0),
        ] {
            let choices = Choices {
                environment: Some(name.to_owned()),
                ..service("x")
            };
            let (settings, _) = resolve(choices, &[]);
            assert_eq!(settings.environment, short);
            assert_eq!(settings.sampling.ratio, ratio, "{name}");
        }
    }

    #[test]
    fn the_environment_wins() {
        let choices = Choices {
            version: Some("2.0.0".to_owned()),
            environment: Some("dev".to_owned()),
            endpoint: Some("http://code:4317".to_owned()),
            ratio: Some(0.5),
            ..service("code")
        };
        let (settings, problems) = resolve(
            choices,
            &[
                ("OTEL_SERVICE_NAME", "env"),
                (
                    "OTEL_RESOURCE_ATTRIBUTES",
                    "service.name=lesser, service.version=3.1.0,deployment.environment=production,team=a%20b",
                ),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:4318/"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x,tenant=7"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
                ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs:9/own/path"),
                ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
                ("OTEL_BSP_SCHEDULE_DELAY", "200"),
            ],
        );
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(settings.service, "env");
        assert_eq!(settings.version, "3.1.0");
        assert_eq!(settings.environment, "prod");
        assert_eq!(settings.resource, [("team".to_owned(), "a b".to_owned())]);
        assert_eq!(settings.sampling.ratio, 0.25);
        assert_eq!((settings.batch.queue, settings.batch.spans), (100, 100));
        assert_eq!(settings.batch.delay, Duration::from_millis(200));
        let traces = settings.traces.expect("traces are exported");
        assert_eq!(traces.endpoint, "http://env:4318/v1/traces");
        assert_eq!(traces.timeout, Duration::from_millis(2500));
        assert_eq!(
            traces.headers,
            [
                ("authorization".to_owned(), "Bearer x".to_owned()),
                ("tenant".to_owned(), "7".to_owned())
            ]
        );
        assert_eq!(
            settings.logs.expect("logs are exported").endpoint,
            "http://logs:9/own/path"
        );
    }

    #[test]
    fn tls_is_set_for_all_signals_or_for_one() {
        let (settings, problems) = resolve(
            service("x"),
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
                ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "beside:4317"),
                ("OTEL_EXPORTER_OTLP_LOGS_INSECURE", "True"),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
                ("OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", "logs-ca.pem"),
                ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "me.pem"),
                ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "me.key"),
            ],
        );
        assert_eq!(problems, Vec::<String>::new());
        let (traces, logs) = (settings.traces.expect("exported"), settings.logs.expect("exported"));
        assert_eq!(
            traces.endpoint, "https://collector:4317",
            "secure unless told otherwise"
        );
        assert_eq!(logs.endpoint, "http://beside:4317");
        let files = |names: [Option<&str>; 3]| {
            let [certificate, client_certificate, client_key] = names.map(|name| name.map(PathBuf::from));
            Files {
                certificate,
                client_certificate,
                client_key,
            }
        };
        assert_eq!(traces.tls, files([Some("ca.pem"), Some("me.pem"), Some("me.key")]));
        assert_eq!(logs.tls, files([Some("logs-ca.pem"), None, None]));
        let (settings, _) = resolve(
            service("x"),
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://said:4317"),
                ("OTEL_EXPORTER_OTLP_INSECURE", "false"),
            ],
        );
        assert_eq!(
            settings.traces.expect("exported").endpoint,
            "http://said:4317",
            "a scheme decides"
        );
    }

    #[test]
    fn nonsense_is_reported_and_replaced() {
        let (settings, problems) = resolve(
            service("x"),
            &[
                ("OTEL_TRACES_SAMPLER", "sometimes"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "-3"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "pigeon"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
                ("OTEL_RESOURCE_ATTRIBUTES", "novalue,a=1"),
            ],
        );
        assert_eq!(settings.batch.queue, 2048);
        assert_eq!(settings.sampling.ratio, 1.0);
        for name in [
            "OTEL_TRACES_SAMPLER=sometimes",
            "OTEL_BSP_MAX_QUEUE_SIZE=-3",
            "OTEL_EXPORTER_OTLP_PROTOCOL=pigeon",
            "OTEL_EXPORTER_OTLP_TIMEOUT=soon",
            "OTEL_RESOURCE_ATTRIBUTES=novalue,a=1",
        ] {
            assert!(problems.iter().any(|p| p.contains(name)), "{name} in {problems:?}");
        }
    }

    #[test]
    fn exporting_can_be_turned_off() {
        let (settings, _) = resolve(service("x"), &[("OTEL_SDK_DISABLED", "true")]);
        assert_eq!((settings.traces, settings.logs), (None, None));
        let (settings, _) = resolve(service("x"), &[("OTEL_LOGS_EXPORTER", "none")]);
        assert!(settings.traces.is_some() && settings.logs.is_none());
    }
}
