//! The settings of the exporter `kafka`, in the collector's keys.
//!
//! ```yaml
//! exporters:
//!   kafka:
//!     brokers: [ "kafka-1:9092", "kafka-2:9092" ]
//!     traces: { topic: otlp_spans, encoding: otlp_proto }
//!     partition_traces_by_id: true        # the spans of a trace lie in one partition
//!     producer: { required_acks: -1, compression: zstd }
//!     tls: { ca_file: /etc/kafka/ca.pem }
//!     auth: { sasl: { mechanism: SCRAM-SHA-512, username: trackline, password: "${KAFKA_PASSWORD}" } }
//! ```

use std::fmt;
use std::time::Duration;

use model::Signal;
use net::dial::Target;
use pipeline::config::{Problems, Section};
use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Keyed;
use super::cluster::Address;
use super::partition::Hasher;
use super::sasl::{Login, Mechanism, Password};
use crate::sender::{Headers, Own, Sender};
use net::ClientTls;

/// The port of Kafka where none is written.
const DEFAULT_PORT: u16 = 9092;

/// `kafka`: telemetry to topics of a Kafka cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Brokers to ask for the others, `host:port`. Default `localhost:9092`.
    #[serde(default)]
    pub brokers: Brokers,
    /// Accepted, without effect: what is sent is understood by every Kafka from 1.0 on, and from 2.1 on with zstd.
    #[serde(default)]
    pub protocol_version: Option<String>,
    /// Must not be `true`: names are looked up as they are written.
    #[serde(default)]
    pub resolve_canonical_bootstrap_servers_only: bool,
    /// What brokers call us in their logs and quotas. Default `otel-collector`.
    #[serde(default = "client_id")]
    pub client_id: String,
    /// A connection that was idle for so long is not used again; brokers close theirs after ten minutes. Default 9m.
    #[serde(default = "conn_idle_timeout", deserialize_with = "pipeline::config::duration")]
    pub conn_idle_timeout: Duration,
    /// Where traces go and how. The topic's default is `otlp_spans`.
    #[serde(default)]
    pub traces: Stream,
    /// Where logs go and how. The topic's default is `otlp_logs`.
    #[serde(default)]
    pub logs: Stream,
    /// Where metrics go and how. The topic's default is `otlp_metrics`.
    #[serde(default)]
    pub metrics: Stream,
    /// The older way to name one topic for all signals.
    #[serde(default)]
    pub topic: Option<String>,
    /// The older way to name one encoding for all signals.
    #[serde(default)]
    pub encoding: Option<Encoding>,
    /// An attribute of the resource whose value is the topic, where there is one. Default: none.
    #[serde(default)]
    pub topic_from_attribute: Option<String>,
    /// Accepted, without effect: what a client's request carried beside its body does not go through the journal.
    #[serde(default)]
    pub include_metadata_keys: Vec<String>,
    /// Headers of every message. Default: none.
    #[serde(default)]
    pub record_headers: Headers,
    /// A message for each trace, with its id in hexadecimal digits as the key. Default `false`.
    #[serde(default)]
    pub partition_traces_by_id: bool,
    /// A message for each resource, with a hash of its attributes as the key. Default `false`.
    #[serde(default)]
    pub partition_metrics_by_resource_attributes: bool,
    /// A message for each resource, with a hash of its attributes as the key. Default `false`.
    #[serde(default)]
    pub partition_logs_by_resource_attributes: bool,
    /// A message for each trace, with its id in hexadecimal digits as the key, and one without a key for the records of none. Default `false`.
    #[serde(default)]
    pub partition_logs_by_trace_id: bool,
    /// How a message's partition is found.
    #[serde(default)]
    pub record_partitioner: RecordPartitioner,
    /// How we show who we are. Default: not at all.
    #[serde(default)]
    pub auth: Auth,
    /// How the cluster is got to know.
    #[serde(default)]
    pub metadata: MetadataSettings,
    /// How messages are handed over.
    #[serde(default)]
    pub producer: Producer,
}

fn client_id() -> String {
    "otel-collector".to_owned()
}

fn conn_idle_timeout() -> Duration {
    Duration::from_secs(9 * 60)
}

/// `brokers`: a list, or a text with commas as a variable may hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brokers(pub Vec<String>);

impl Default for Brokers {
    fn default() -> Brokers {
        Brokers(vec![format!("localhost:{DEFAULT_PORT}")])
    }
}

impl<'de> Deserialize<'de> for Brokers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Brokers, D::Error> {
        struct ListOrText;
        impl<'de> Visitor<'de> for ListOrText {
            type Value = Brokers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of brokers")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Brokers, E> {
                Ok(Brokers(
                    text.split(',').map(|broker| broker.trim().to_owned()).collect(),
                ))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Brokers, A::Error> {
                let mut brokers = Vec::new();
                while let Some(broker) = list.next_element()? {
                    brokers.push(broker);
                }
                Ok(Brokers(brokers))
            }
        }
        deserializer.deserialize_any(ListOrText)
    }
}

/// `traces`, `logs`, `metrics`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stream {
    /// The topic.
    pub topic: Option<String>,
    /// `otlp_proto` (default) or `otlp_json`.
    pub encoding: Option<Encoding>,
    /// Must be absent: what a client's request carried beside its body does not go through the journal.
    #[serde(deserialize_with = "no_metadata_key")]
    pub topic_from_metadata_key: (),
    /// Must be absent, for the same reason.
    #[serde(deserialize_with = "no_metadata_key")]
    pub message_key_from_metadata_key: (),
}

fn no_metadata_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom(
        "what a client's request carried beside its body does not go through the journal; `topic_from_attribute` and the `partition_…` keys work from the data",
    ))
}

/// How a batch becomes a message's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    #[default]
    OtlpProto,
    OtlpJson,
}

impl<'de> Deserialize<'de> for Encoding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Encoding, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "otlp_proto" => Ok(Encoding::OtlpProto),
            "otlp_json" => Ok(Encoding::OtlpJson),
            other => Err(D::Error::custom(format!(
                "`{other}` is not an encoding here; there are otlp_proto and otlp_json"
            ))),
        }
    }
}

/// `record_partitioner`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordPartitioner {
    /// A key's partition is found by a hash; messages without a key go to one partition a batch. This is the default.
    #[serde(deserialize_with = "pipeline::config::present")]
    pub sticky_key: Option<StickyKey>,
    /// Accepted; messages without a key go to one partition a batch, which is even enough, and those with one by the hash.
    pub round_robin: Option<IgnoredAny>,
    /// Accepted as `round_robin` is.
    pub least_backup: Option<IgnoredAny>,
}

/// `sticky_key`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StickyKey {
    /// `sarama_compat` (default), which is FNV-1a, or `murmur2` as Kafka's own Java client has it.
    pub hasher: Hasher,
}

/// `auth`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Name and password by a mechanism.
    pub sasl: Option<Sasl>,
    /// The older way to write `sasl` with the mechanism PLAIN.
    pub plain_text: Option<PlainText>,
    /// The older place of `tls`.
    #[serde(deserialize_with = "pipeline::config::present")]
    pub tls: Option<ClientTls>,
    /// Must be absent: Kerberos is not spoken here.
    #[serde(deserialize_with = "no_kerberos")]
    pub kerberos: (),
}

fn no_kerberos<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom(
        "Kerberos is not spoken here; brokers also take `sasl` with SCRAM-SHA-512, or certificates in `tls`",
    ))
}

/// `auth.plain_text`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainText {
    /// Who we are.
    pub username: String,
    /// Never shown.
    pub password: Password,
}

/// `auth.sasl`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// Who we are.
    #[serde(default)]
    pub username: String,
    /// Never shown.
    #[serde(default)]
    pub password: Password,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    #[serde(deserialize_with = "mechanism")]
    pub mechanism: Mechanism,
    /// Accepted, without effect: 1 is what every broker takes.
    #[serde(default)]
    pub version: u8,
}

fn mechanism<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mechanism, D::Error> {
    let name = String::deserialize(deserializer)?;
    let all = [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512];
    let found = all.into_iter().find(|mechanism| mechanism.name() == name);
    found.ok_or_else(|| {
        D::Error::custom(format!(
            "the mechanism `{name}` is not spoken here; there are PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512"
        ))
    })
}

/// `metadata`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetadataSettings {
    /// Accepted, without effect: only the topics that are written to are asked for.
    pub full: bool,
    /// How long it is known who leads a partition unless a broker says otherwise. Default 10m.
    #[serde(deserialize_with = "pipeline::config::duration")]
    pub refresh_interval: Duration,
    /// When a partition has no leader, or another one.
    pub retry: MetadataRetry,
}

impl Default for MetadataSettings {
    fn default() -> MetadataSettings {
        MetadataSettings {
            full: true,
            refresh_interval: Duration::from_secs(600),
            retry: MetadataRetry::default(),
        }
    }
}

/// `metadata.retry`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetadataRetry {
    /// How often it is asked for again within one attempt. Default 3.
    pub max: u32,
    /// The wait before. Default 250ms.
    #[serde(deserialize_with = "pipeline::config::duration")]
    pub backoff: Duration,
}

impl Default for MetadataRetry {
    fn default() -> MetadataRetry {
        MetadataRetry {
            max: 3,
            backoff: Duration::from_millis(250),
        }
    }
}

/// `producer`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Producer {
    /// The largest message, and the largest record batch, before compression; a larger batch of telemetry becomes several messages. Default 1000000.
    pub max_message_bytes: usize,
    /// Accepted, without effect: a request holds one batch of telemetry, which has 3 MiB at most.
    pub max_broker_write_bytes: Option<u64>,
    /// 1 (default): the leader has it; -1: all replicas in sync have it; 0: nobody says so, and what is lost on the way is not known.
    pub required_acks: i16,
    /// `none` (default), `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: RecordPacking,
    /// How hard it is tried.
    pub compression_params: CompressionParams,
    /// The most messages in a record batch. Default 10000; 0 is no bound.
    pub flush_max_messages: usize,
    /// Whether a topic that does not exist may be made, where the brokers allow it. Default `true`.
    pub allow_auto_topic_creation: bool,
    /// Accepted, without effect: the processor `batch` says how much is sent at once.
    #[serde(deserialize_with = "pipeline::config::optional_duration")]
    pub linger: Option<Duration>,
}

impl Default for Producer {
    fn default() -> Producer {
        Producer {
            max_message_bytes: 1_000_000,
            max_broker_write_bytes: None,
            required_acks: 1,
            compression: RecordPacking::None,
            compression_params: CompressionParams::default(),
            flush_max_messages: 10_000,
            allow_auto_topic_creation: true,
            linger: None,
        }
    }
}

/// `producer.compression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordPacking {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// `producer.compression_params`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompressionParams {
    /// 1 to 9 for gzip, 1 to 22 for zstd; -1 (default) is the usual one. `snappy` and `lz4` have none.
    pub level: i32,
}

impl Default for CompressionParams {
    fn default() -> CompressionParams {
        CompressionParams { level: -1 }
    }
}

/// Everything about one of these exporters.
pub type Config = Sender<Settings>;

impl Own for Settings {
    const TIMEOUT: Duration = Duration::from_secs(5);
}

pub fn parse(section: &Section<'_>) -> Result<Config, Problems> {
    let config = Config::parse(section)?;
    let own = &config.own;
    addresses(&own.brokers).map_err(|why| section.problem(&["brokers"], why))?;
    if section.sets(&["compression"]) {
        let why = "Kafka's messages are packed as `producer: { compression: … }` says; leave this key out";
        return Err(section.problem(&["compression"], why));
    }
    if section.sets(&["headers"]) {
        return Err(section.problem(&["headers"], "the headers of messages are `record_headers`"));
    }
    if own.resolve_canonical_bootstrap_servers_only {
        let why = "names of brokers are looked up as they are written; leave this key out";
        return Err(section.problem(&["resolve_canonical_bootstrap_servers_only"], why));
    }
    if own.partition_logs_by_resource_attributes && own.partition_logs_by_trace_id {
        let why =
            "a message has one key: either `partition_logs_by_resource_attributes` or `partition_logs_by_trace_id`";
        return Err(section.problem(&["partition_logs_by_trace_id"], why));
    }
    if own.auth.sasl.is_some() && own.auth.plain_text.is_some() {
        return Err(section.problem(
            &["auth", "plain_text"],
            "`sasl` and `plain_text` say the same; leave one out",
        ));
    }
    if let Some(sasl) = &own.auth.sasl {
        for (key, is_empty) in [
            ("username", sasl.username.is_empty()),
            ("password", sasl.password.0.is_empty()),
        ] {
            if is_empty {
                return Err(section.problem(&["auth", "sasl", key], format!("`{key}` is needed")));
            }
        }
    }
    if let Some(Err((key, why))) = own.auth.tls.as_ref().map(ClientTls::check) {
        return Err(section.problem(&["auth", "tls", key], why));
    }
    let producer = &own.producer;
    if !(-1..=1).contains(&producer.required_acks) {
        let why = "it is 0, 1, or -1 for all replicas in sync";
        return Err(section.problem(&["producer", "required_acks"], why));
    }
    if !(1_000..=100 << 20).contains(&producer.max_message_bytes) {
        let why = "it is a number of bytes from 1000 to 104857600";
        return Err(section.problem(&["producer", "max_message_bytes"], why));
    }
    let levels = match producer.compression {
        RecordPacking::Gzip => 1..10,
        RecordPacking::Zstd => 1..23,
        RecordPacking::None | RecordPacking::Snappy | RecordPacking::Lz4 => 0..0,
    };
    let level = producer.compression_params.level;
    if level != -1 && !levels.contains(&level) {
        let why = "it is 1 to 9 for gzip, 1 to 22 for zstd, and absent for all else";
        return Err(section.problem(&["producer", "compression_params", "level"], why));
    }
    if !own.include_metadata_keys.is_empty() {
        let why = "without effect: what a client's request carried beside its body does not go through the journal";
        section.warn(&["include_metadata_keys"], why);
    }
    if producer.required_acks == 0 {
        let why = "nobody says whether a message has arrived: what a broker loses or refuses counts as delivered";
        section.warn(&["producer", "required_acks"], why);
    }
    let is_secret_open = config
        .own
        .login()
        .is_some_and(|login| login.mechanism == Mechanism::Plain);
    if is_secret_open && config.own.tls(&config.shared.tls).is_none() {
        section.warn(&["auth"], "without `tls` the password goes over the network as it is");
    }
    Ok(config)
}

pub(super) fn addresses(brokers: &Brokers) -> Result<Vec<Address>, String> {
    if brokers.0.is_empty() {
        return Err("there is none".to_owned());
    }
    let address = |broker: &String| {
        let target = Target::parse(broker).map_err(|why| format!("`{broker}`: {why}"))?;
        if target.https.is_some() || !target.path.is_empty() {
            return Err(format!("`{broker}` is not host:port"));
        }
        Ok((target.host.into(), target.port.unwrap_or(DEFAULT_PORT)))
    };
    brokers.0.iter().map(address).collect()
}

impl Settings {
    pub(super) fn login(&self) -> Option<Login> {
        let plain = |plain: &PlainText| Login {
            mechanism: Mechanism::Plain,
            username: plain.username.clone(),
            password: plain.password.clone(),
        };
        let sasl = |sasl: &Sasl| Login {
            mechanism: sasl.mechanism,
            username: sasl.username.clone(),
            password: sasl.password.clone(),
        };
        let auth = &self.auth;
        auth.sasl
            .as_ref()
            .map(sasl)
            .or_else(|| auth.plain_text.as_ref().map(plain))
    }

    /// TLS where it is asked for: as with the collector, a cluster is spoken to openly unless there is a `tls`.
    pub(super) fn tls<'a>(&'a self, shared: &'a Option<ClientTls>) -> Option<&'a ClientTls> {
        let tls = shared.as_ref().or(self.auth.tls.as_ref())?;
        (!tls.insecure).then_some(tls)
    }

    pub(super) fn stream(&self, signal: Signal) -> (&str, Encoding) {
        let (stream, usual) = match signal {
            Signal::Traces => (&self.traces, "otlp_spans"),
            Signal::Logs => (&self.logs, "otlp_logs"),
            Signal::Metrics => (&self.metrics, "otlp_metrics"),
        };
        let topic = stream.topic.as_deref().or(self.topic.as_deref());
        let encoding = stream.encoding.or(self.encoding);
        (topic.unwrap_or(usual), encoding.unwrap_or_default())
    }

    pub(super) fn keyed(&self, signal: Signal) -> Keyed {
        match signal {
            Signal::Traces if self.partition_traces_by_id => Keyed::ByTrace { field: 1 },
            Signal::Logs if self.partition_logs_by_trace_id => Keyed::ByTrace { field: 9 },
            Signal::Logs if self.partition_logs_by_resource_attributes => Keyed::ByResource,
            Signal::Metrics if self.partition_metrics_by_resource_attributes => Keyed::ByResource,
            _ => Keyed::Not,
        }
    }
}
