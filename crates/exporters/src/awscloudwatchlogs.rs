//! Why: to bring log records to Amazon CloudWatch Logs. Groups and streams are made when they are missing; their names may have parts that come from
//! attributes of the resource or the record.
//!
//! ```yaml
//! exporters:
//!   awscloudwatchlogs:
//!     region: us-east-1
//!     log_group_name: "/ecs/ai-teams-{environment}"
//!     log_stream_name: "{service.name}"
//!     raw_log: true                 # what the services write is JSON already
//!     log_retention: 7
//! ```
//!
//! **Credentials** are found as AWS's own clients find them: `AWS_ACCESS_KEY_ID` and its kin, the shared files (`AWS_PROFILE`), a web identity (EKS), the
//! container's endpoint (ECS, EKS), the machine's role (EC2, IMDSv2). Until there are some, what is to be sent waits in the journal. `credential_process` and
//! SSO are not asked.
//!
//! **What an event is.** With `raw_log` the body alone: a service's JSON line stays as it is, and its fields are there to query; a line in the embedded metric
//! format may name group and stream itself. Without it, an object of `body`, `severity_text`, `severity_number`, `trace_id`, `span_id`, `attributes`, `scope`
//! and `resource`, as the Collector writes it. CloudWatch Logs Insights shows a field whose name starts with `@` under a second one (`@@level`); `level` beside
//! it is found as it is. A text over 1 MiB is cut and marked.
//!
//! **What differs from the Collector.** A group that we make keeps 7 days unless `log_retention` says otherwise (there: for ever), and gets an index policy.
//! What AWS refuses for its age is counted and goes to the dead letter; credentials that are refused are no reason to drop anything. A batch is repeated only in
//! what AWS has not taken; a request whose answer was lost may be there twice.
//!
//! Source: README of the collector's `awscloudwatchlogs` exporter; Amazon CloudWatch Logs API Reference.

use std::collections::BTreeMap;
use std::time::Duration;

use codec::cloudwatch::{LogOptions, Name, Template, log_bytes, log_events};
use model::{Batch, Signal};
use pipeline::config::{Problems, Section};
use pipeline::sending::Sending;
use pipeline::{BoxFuture, Exporter, Outcome, Reason};
use serde::Deserialize;

use crate::aws::api::Api;
use crate::aws::credentials::Surroundings;
use crate::aws::delivery::Delivery;
use crate::aws::settings::{Access, packing, sending, template};
use crate::request::{BuildError, Packing};
use crate::sender::{Own, Sender};

/// What it takes.
pub const SIGNALS: [Signal; 1] = [Signal::Logs];

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The group. `{KEY}` stands for an attribute of the resource, else of the record, and `undefined` where neither has it; `{environment}`, `{service}`,
    /// `{ServiceName}`, `{ClusterName}`, `{TaskId}`, `{TaskDefinitionFamily}`, `{ContainerInstanceId}`, `{NodeName}` and `{PodName}` also for the attributes that
    /// usually hold these. What AWS does not permit in a name becomes `_`. Default `/ecs/ai-teams-{environment}`.
    pub log_group_name: String,
    /// The stream, written as `log_group_name` is. Default `{service.name}`.
    pub log_stream_name: String,
    /// Default: what AWS's host in `endpoint` says, `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile's, the machine's, else `us-east-1`.
    pub region: Option<String>,
    /// Where the API is, if not at AWS's own host for the region. Default: that, or `AWS_ENDPOINT_URL_CLOUDWATCH_LOGS`, or `AWS_ENDPOINT_URL`.
    pub endpoint: Option<String>,
    /// Days that a group keeps which we make; 0 is for ever. Default 7.
    pub log_retention: u32,
    /// Tags of a group that we make. Default: none.
    pub tags: BTreeMap<String, String>,
    /// The body alone, as it is. Default `false`.
    pub raw_log: bool,
    /// Of raw bodies only those in the embedded metric format; others are counted and dropped. Needs `raw_log`. Default `false`.
    pub emf_only: bool,
    /// Fields that CloudWatch is to index in a group that we make; `[]` for none. Default `[tracking_id, service, request.method, response.status]`.
    pub index_fields: Vec<String>,
    /// A role to assume with the credentials that are found. Default: none.
    pub role_arn: Option<String>,
    /// What the role's owner wants to be told with it. Default: nothing.
    pub external_id: Option<String>,
    /// The Collector's word for `timeout`. Default 30.
    pub request_timeout_seconds: Option<u64>,
    /// Accepted, without effect: `retry_on_failure` says how often it is tried again.
    pub max_retries: Option<i64>,
    /// Accepted, without effect: `sending_queue.num_consumers` says how many requests are under way.
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

impl Default for Settings {
    fn default() -> Self {
        Self {
            log_group_name: "/ecs/ai-teams-{environment}".to_owned(),
            log_stream_name: "{service.name}".to_owned(),
            region: None,
            endpoint: None,
            log_retention: 7,
            tags: BTreeMap::new(),
            raw_log: false,
            emf_only: false,
            index_fields: ["tracking_id", "service", "request.method", "response.status"]
                .map(str::to_owned)
                .to_vec(),
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

/// Fields that CloudWatch Logs indexes in one group at the most.
const MAX_INDEX_FIELDS: usize = 20;

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
    group: Template,
    stream: Template,
    packing: Packing,
}

pub fn parse(section: &Section<'_>) -> Result<Config, Problems> {
    let sender = Sender::<Settings>::parse(section)?;
    let own = &sender.own;
    own.access().check(section, &sender.shared)?;
    if own.emf_only && !own.raw_log {
        return Err(section.problem(&["emf_only"], "`emf_only` needs `raw_log: true`"));
    }
    if own.index_fields.len() > MAX_INDEX_FIELDS {
        let why = format!("CloudWatch Logs indexes {MAX_INDEX_FIELDS} fields at the most");
        return Err(section.problem(&["index_fields"], why));
    }
    Ok(Config {
        group: template(section, "log_group_name", Name::Group, &own.log_group_name)?,
        stream: template(section, "log_stream_name", Name::Stream, &own.log_stream_name)?,
        packing: packing(section.sets(&["compression"]), &sender.shared),
        sender,
    })
}

/// How its requests are sent.
pub fn how_sent(config: &Config) -> Sending {
    let Sender { own, shared } = &config.sender;
    sending(config.sender.sending(), shared, own.request_timeout_seconds)
}

/// Sends to CloudWatch Logs.
pub struct CloudWatchLogs {
    delivery: Delivery,
    options: LogOptions,
}

impl CloudWatchLogs {
    /// Reads certificates; everything else waits for the first batch.
    pub fn new(config: &Config, surroundings: Surroundings) -> Result<CloudWatchLogs, BuildError> {
        let Sender { own, shared } = &config.sender;
        let access = own.access();
        let api = Api::new(access.reach(shared)?, surroundings)?;
        let groups = access.groups(&own.index_fields);
        Ok(CloudWatchLogs {
            delivery: Delivery::new(api, groups, config.packing, how_sent(config).in_flight),
            options: LogOptions {
                group: config.group.clone(),
                stream: config.stream.clone(),
                raw: own.raw_log,
                emf_only: own.emf_only,
            },
        })
    }

    async fn send(&self, batch: Batch) -> Outcome {
        if batch.signal != Signal::Logs {
            let message = format!("CloudWatch Logs takes logs, not {}", batch.signal);
            return Outcome::rejected(Reason::Unsupported, message, batch.items);
        }
        let translate = || log_events(&batch.payload, batch.meta.received_at_unix_nano, &self.options);
        let bytes = log_bytes(&batch.payload, self.options.raw);
        self.delivery.deliver(&batch, bytes, translate).await
    }
}

impl Exporter for CloudWatchLogs {
    fn takes(&self, signal: Signal) -> bool {
        SIGNALS.contains(&signal)
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(self.send(batch))
    }
}
