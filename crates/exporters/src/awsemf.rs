//! Why: to make CloudWatch metrics of OTLP metrics, by log events in the embedded metric format: they cost as much as logs, and stay there to be looked at.
//!
//! ```yaml
//! exporters:
//!   awsemf:
//!     region: us-east-1
//!     namespace: ai-teams
//!     log_group_name: "/metrics/ai-teams"
//!     log_retention: 7
//!     dimension_rollup_option: NoDimensionRollup
//!     resource_to_telemetry_conversion: { enabled: true }
//!     metric_declarations:
//!       - dimensions: [[service.name, endpoint], [service.name]]
//!         metric_name_selectors: ["^request_", "^ai_"]
//! ```
//!
//! Points of one time and the same labels are one event. Counters and histograms that count from the start become what was added since the last point, as
//! CloudWatch adds up what it gets; the last points of up to 64 MiB of series are remembered for an hour, in memory: after a restart the first point of each
//! series is the new beginning, and what was added in between is not told. Histograms and summaries become statistics (count, sum, extremes), exponential
//! histograms whose points say what was added also keep their distribution. Credentials, groups and streams are those of `awscloudwatchlogs`; batches go one
//! after the other.
//!
//! **What differs from the Collector.** Sums that go up and down (`active_requests`) are told as they stand. Two instances of a service are two series. Histograms
//! that count from the start are told by what was added. Units that CloudWatch does not know are left out, because it drops such metrics. A second value of the
//! same name, time and labels becomes a second event. What is refused is counted.
//!
//! Source: README of the collector's `awsemf` exporter; Amazon CloudWatch User Guide, "Specification: Embedded metric format".

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use codec::cloudwatch::emf::{Declaration, Encoder, LabelMatcher, Options, Rollup, UNITS, UnitRule, Version};
use codec::cloudwatch::{Name, Template, Translated};
use model::{Batch, Signal};
use pipeline::config::{Problems, Section};
use pipeline::sending::Sending;
use pipeline::{BoxFuture, Exporter, Outcome, Reason};
use regex::Regex;
use serde::{Deserialize, Deserializer};

use crate::aws::api::Api;
use crate::aws::credentials::Surroundings;
use crate::aws::delivery::Delivery;
use crate::aws::settings::{Access, packing, sending, template};
use crate::prometheus::ResourceToTelemetry;
use crate::request::{BuildError, Packing};
use crate::sender::{Own, Sender};

/// What it takes.
pub const SIGNALS: [Signal; 1] = [Signal::Metrics];

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// CloudWatch's namespace. Default: `service.namespace`, a slash and `service.name`, the one there is, or `default`.
    pub namespace: String,
    /// The group. `{KEY}` stands for an attribute of the resource, else of the point, and `undefined` where neither has it; `{ClusterName}`, `{TaskId}`,
    /// `{TaskDefinitionFamily}`, `{ContainerInstanceId}`, `{NodeName}`, `{PodName}`, `{ServiceName}`, `{service}` and `{environment}` also for the attributes
    /// that usually hold these. Default: `/metrics/` and the namespace.
    pub log_group_name: String,
    /// The stream, written as `log_group_name` is. Default `otel-stream-` and a number of this process.
    pub log_stream_name: String,
    /// Days that a group keeps which we make; 0, the default, is for ever.
    pub log_retention: u32,
    /// Tags of a group that we make. Default: none.
    pub tags: BTreeMap<String, String>,
    /// `ZeroAndSingleDimensionRollup` (default): each metric also without dimensions and with each one alone; `SingleDimensionRollupOnly`: also with each one
    /// alone; `NoDimensionRollup`: with all of them only. Each set of dimensions is a metric that costs.
    pub dimension_rollup_option: RollupOption,
    /// Which metrics become metrics of CloudWatch, and with which dimensions; others are in the log alone. Default: all, with all their labels.
    pub metric_declarations: Vec<MetricDeclaration>,
    /// Units for metrics by their name. Default: none.
    pub metric_descriptors: Vec<MetricDescriptor>,
    /// Whether attributes of the resource become labels. Default: they do not.
    pub resource_to_telemetry_conversion: ResourceToTelemetry,
    /// Labels whose texts are JSON, and are written as that. Default: none.
    pub parse_json_encoded_attr_values: Vec<String>,
    /// Whether the first point of a series that counts from the start is told, instead of being what the second is compared with. Default `false`.
    pub retain_initial_value_of_delta_metric: bool,
    /// Whether summaries become one metric per quantile, `_sum` and `_count`. Default `false`: statistics.
    pub detailed_metrics: bool,
    /// `cloudwatch` (default), or `stdout`, a line for each event.
    pub output_destination: OutputDestination,
    /// Of the format: `1` (default) or `0`.
    #[serde(deserialize_with = "version")]
    pub version: Version,
    /// Whether the events are to be logs alone, of which CloudWatch makes no metrics. Default `false`.
    pub disable_metric_extraction: bool,
    /// Must be `false`: labels are not rearranged for Container Insights.
    pub eks_fargate_container_insights_enabled: bool,
    /// Default: what AWS's host in `endpoint` says, `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile's, the machine's, else `us-east-1`.
    pub region: Option<String>,
    /// Where the API is, if not at AWS's own host for the region. Default: that, or `AWS_ENDPOINT_URL_CLOUDWATCH_LOGS`, or `AWS_ENDPOINT_URL`.
    pub endpoint: Option<String>,
    /// A role to assume with the credentials that are found. Default: none.
    pub role_arn: Option<String>,
    /// What the role's owner wants to be told with it. Default: nothing.
    pub external_id: Option<String>,
    /// The Collector's word for `timeout`. Default 30.
    pub request_timeout_seconds: Option<u64>,
    /// Accepted, without effect: `retry_on_failure` says how often it is tried again.
    pub max_retries: Option<i64>,
    /// Accepted, without effect: one batch is under way at a time.
    pub num_workers: Option<i64>,
    /// Must be `false`: `tls.ca_file` names a certificate to trust.
    pub no_verify_ssl: bool,
    /// Must be empty: this exporter goes through no proxy yet.
    pub proxy_address: Option<String>,
    /// Accepted, without effect.
    pub local_mode: Option<bool>,
    /// Accepted, without effect.
    pub resource_arn: Option<String>,
}

/// `dimension_rollup_option`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum RollupOption {
    #[default]
    ZeroAndSingleDimensionRollup,
    SingleDimensionRollupOnly,
    NoDimensionRollup,
}

/// `output_destination`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputDestination {
    #[default]
    Cloudwatch,
    Stdout,
}

/// An item of `metric_declarations`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricDeclaration {
    /// Sets of labels that become dimensions; a set counts where all of its labels are there. Default: none.
    #[serde(default)]
    pub dimensions: Vec<Vec<String>>,
    /// Patterns of names; one must match. Default: none, and the declaration is left out.
    #[serde(default)]
    pub metric_name_selectors: Vec<String>,
    /// One must match. Default: none, and the labels do not matter.
    #[serde(default)]
    pub label_matchers: Vec<LabelMatcherRule>,
}

/// An item of `label_matchers`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelMatcherRule {
    /// **Required.** Labels whose values are matched, one behind the other.
    pub label_names: Vec<String>,
    /// Between the values. Default `;`.
    #[serde(default = "semicolon")]
    pub separator: String,
    /// **Required.** The pattern.
    pub regex: String,
}

/// An item of `metric_descriptors`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricDescriptor {
    /// **Required.** The metric.
    pub metric_name: String,
    /// **Required.** One of CloudWatch's units, such as `Count`.
    pub unit: String,
    /// Even if the metric has a unit. Default `false`.
    #[serde(default)]
    pub overwrite: bool,
}

fn semicolon() -> String {
    ";".to_owned()
}

fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Version, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "0" => Ok(Version::V0),
        "1" => Ok(Version::V1),
        other => Err(serde::de::Error::custom(format!("`{other}` is neither `0` nor `1`"))),
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: String::new(),
            log_group_name: String::new(),
            log_stream_name: String::new(),
            log_retention: 0,
            tags: BTreeMap::new(),
            dimension_rollup_option: RollupOption::default(),
            metric_declarations: Vec::new(),
            metric_descriptors: Vec::new(),
            resource_to_telemetry_conversion: ResourceToTelemetry::default(),
            parse_json_encoded_attr_values: Vec::new(),
            retain_initial_value_of_delta_metric: false,
            detailed_metrics: false,
            output_destination: OutputDestination::default(),
            version: Version::V1,
            disable_metric_extraction: false,
            eks_fargate_container_insights_enabled: false,
            region: None,
            endpoint: None,
            role_arn: None,
            external_id: None,
            request_timeout_seconds: None,
            max_retries: None,
            num_workers: None,
            no_verify_ssl: false,
            proxy_address: None,
            local_mode: None,
            resource_arn: None,
        }
    }
}

impl Own for Settings {
    const TIMEOUT: Duration = Duration::from_secs(30);
}

impl Settings {
    fn access(&self) -> Access<'_> {
        Access {
            region: &self.region,
            endpoint: &self.endpoint,
            role_arn: &self.role_arn,
            external_id: &self.external_id,
            no_verify_ssl: self.no_verify_ssl,
            proxy_address: &self.proxy_address,
            log_retention: self.log_retention,
            tags: &self.tags,
        }
    }
}

/// Everything about one of these exporters.
#[derive(Debug, Clone)]
pub struct Config {
    sender: Sender<Settings>,
    options: Options,
    packing: Packing,
}

pub fn parse(section: &Section<'_>) -> Result<Config, Problems> {
    let sender = Sender::<Settings>::parse(section)?;
    let own = &sender.own;
    own.access().check(section, &sender.shared)?;
    if own.eks_fargate_container_insights_enabled {
        let why = "labels are not rearranged for Container Insights; set it to `false`";
        return Err(section.problem(&["eks_fargate_container_insights_enabled"], why));
    }
    if section.sets(&["sending_queue", "num_consumers"]) {
        let why = "without effect: one batch is under way at a time, so that what was added is told in order";
        section.warn(&["sending_queue", "num_consumers"], why);
    }
    let stream = match own.log_stream_name.as_str() {
        // Processes that share a group do not share a stream.
        "" => Template::parse(Name::Stream, &format!("otel-stream-{:016x}", fastrand::u64(..)))
            .map_err(|why| section.problem(&["log_stream_name"], why.to_string()))?,
        name => template(section, "log_stream_name", Name::Stream, name)?,
    };
    let group = match own.log_group_name.as_str() {
        "" => None,
        name => Some(template(section, "log_group_name", Name::Group, name)?),
    };
    let options = Options {
        namespace: own.namespace.clone(),
        group,
        stream,
        rollup: match own.dimension_rollup_option {
            RollupOption::ZeroAndSingleDimensionRollup => Rollup::ZeroAndSingle,
            RollupOption::SingleDimensionRollupOnly => Rollup::Single,
            RollupOption::NoDimensionRollup => Rollup::None,
        },
        version: own.version,
        extracts: !own.disable_metric_extraction,
        resource_labels: own.resource_to_telemetry_conversion.enabled,
        leaves_out_service: own.resource_to_telemetry_conversion.exclude_service_attributes,
        retains_initial: own.retain_initial_value_of_delta_metric,
        is_detailed: own.detailed_metrics,
        json_labels: own.parse_json_encoded_attr_values.clone(),
        declarations: declarations(section, &own.metric_declarations)?,
        units: units(section, &own.metric_descriptors),
    };
    Ok(Config {
        packing: packing(section.sets(&["compression"]), &sender.shared),
        options,
        sender,
    })
}

/// The Collector leaves out a declaration without selectors, and so do we.
fn declarations(section: &Section<'_>, rules: &[MetricDeclaration]) -> Result<Vec<Declaration>, Problems> {
    let mut declarations = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let number = at.to_string();
        let pattern = |path: &[&str], text: &str| {
            let full = [&["metric_declarations", &number], path].concat();
            // The pattern is theirs and short; where in it the mistake is, is said over several lines that nobody needs here.
            Regex::new(text)
                .map_err(|_| section.problem(&full, format!("`{text}` is not a pattern (regular expression)")))
        };
        if rule.metric_name_selectors.is_empty() {
            let why = "without effect: it has no `metric_name_selectors`";
            section.warn(&["metric_declarations", &number], why);
            continue;
        }
        let mut selectors = Vec::new();
        for (at, text) in rule.metric_name_selectors.iter().enumerate() {
            selectors.push(pattern(&["metric_name_selectors", &at.to_string()], text)?);
        }
        let mut matchers = Vec::new();
        for (at, matcher) in rule.label_matchers.iter().enumerate() {
            let at = at.to_string();
            if matcher.label_names.is_empty() || matcher.regex.is_empty() {
                let path = ["metric_declarations", &number, "label_matchers", &at];
                return Err(section.problem(&path, "a label matcher needs `label_names` and `regex`"));
            }
            let separator = match matcher.separator.as_str() {
                "" => semicolon(),
                given => given.to_owned(),
            };
            matchers.push(LabelMatcher {
                names: matcher.label_names.clone(),
                separator,
                pattern: pattern(&["label_matchers", &at, "regex"], &matcher.regex)?,
            });
        }
        let (declaration, left_out) = Declaration::new(rule.dimensions.clone(), selectors, matchers);
        if left_out > 0 {
            let why = format!(
                "{left_out} of its sets have more than 30 dimensions, which CloudWatch does not take; they are left out"
            );
            section.warn(&["metric_declarations", &number, "dimensions"], why);
        }
        declarations.push(declaration);
    }
    if declarations.is_empty() && !rules.is_empty() {
        let why = "none of them has `metric_name_selectors`, so that every metric would become one of CloudWatch's";
        return Err(section.problem(&["metric_declarations"], why));
    }
    Ok(declarations)
}

/// The Collector leaves out a unit that CloudWatch does not know, and so do we.
fn units(section: &Section<'_>, rules: &[MetricDescriptor]) -> Vec<UnitRule> {
    let mut units = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        if UNITS.contains(&rule.unit.as_str()) {
            units.push(UnitRule {
                metric: rule.metric_name.clone(),
                unit: rule.unit.clone(),
                overwrite: rule.overwrite,
            });
        } else {
            let why = format!(
                "without effect: CloudWatch knows no unit `{}`; it knows {}",
                rule.unit,
                UNITS.join(", ")
            );
            section.warn(&["metric_descriptors", &at.to_string(), "unit"], why);
        }
    }
    units
}

/// One batch at a time, so that what was added is told in order.
pub fn how_sent(config: &Config) -> Sending {
    let Sender { own, shared } = &config.sender;
    Sending {
        in_flight: 1,
        ..sending(config.sender.sending(), shared, own.request_timeout_seconds)
    }
}

/// Sends metrics to CloudWatch.
pub struct AwsEmf {
    encoder: Mutex<Encoder>,
    destination: Destination,
}

enum Destination {
    CloudWatch(Box<Delivery>),
    Stdout(Mutex<Box<dyn Write + Send>>),
}

impl AwsEmf {
    /// Reads certificates; everything else waits for the first batch. `stdout` is written to where that is the destination.
    pub fn new(
        config: &Config,
        surroundings: Surroundings,
        stdout: Box<dyn Write + Send>,
    ) -> Result<AwsEmf, BuildError> {
        let Sender { own, shared } = &config.sender;
        let access = own.access();
        let destination = match own.output_destination {
            OutputDestination::Stdout => Destination::Stdout(Mutex::new(stdout)),
            OutputDestination::Cloudwatch => {
                let api = Api::new(access.reach(shared)?, surroundings)?;
                let delivery = Delivery::new(api, access.groups(&[]), config.packing, 1).of_metrics();
                Destination::CloudWatch(Box::new(delivery))
            }
        };
        Ok(AwsEmf {
            encoder: Mutex::new(Encoder::new(config.options.clone())),
            destination,
        })
    }

    async fn send(&self, batch: Batch) -> Outcome {
        if batch.signal != Signal::Metrics {
            let message = format!("the embedded metric format is for metrics, not {}", batch.signal);
            return Outcome::rejected(Reason::Unsupported, message, batch.items);
        }
        let translate = || {
            let mut encoder = self.encoder.lock().unwrap_or_else(PoisonError::into_inner);
            encoder.encode(&batch.payload, batch.meta.received_at_unix_nano, &batch.meta.receiver)
        };
        match &self.destination {
            // All the room there is: one batch at a time, even where senders wait for the answers themselves.
            Destination::CloudWatch(delivery) => delivery.deliver(&batch, usize::MAX, translate).await,
            Destination::Stdout(stdout) => print(&translate(), stdout),
        }
    }
}

/// A line for each event. What cannot be written is lost: whoever reads the lines has gone.
fn print(translated: &Translated, stdout: &Mutex<Box<dyn Write + Send>>) -> Outcome {
    let mut lines = Vec::new();
    for (_, text) in translated.streams.iter().flat_map(|stream| stream.events()) {
        lines.extend_from_slice(text.as_bytes());
        lines.push(b'\n');
    }
    let mut stdout = stdout.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = stdout.write_all(&lines).and_then(|()| stdout.flush()) {
        tracing::warn!("stdout cannot be written: {error}");
    }
    let rejected = translated
        .rejected
        .iter()
        .map(|(items, _)| *items)
        .fold(0, u32::saturating_add);
    match translated.rejected.first() {
        Some((_, why)) => Outcome::rejected(Reason::BadItem, *why, rejected),
        None => Outcome::Delivered,
    }
}

impl Exporter for AwsEmf {
    fn takes(&self, signal: Signal) -> bool {
        SIGNALS.contains(&signal)
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(self.send(batch))
    }
}
