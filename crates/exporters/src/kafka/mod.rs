//! Why: to hand telemetry to whatever reads a Kafka topic: another collector, a stream processor, a lake. What is sent is OTLP, a request per message.
//!
//! What a broker took of a batch is not sent again when the rest is repeated. It is sent twice when an answer is lost, and when the process ends between
//! the answer and the journal's note of it.
//!
//! The client is our own, because the ones there are do not fit: `rskafka` sends a batch again whenever the broker asks it to slow down, though the broker
//! has it by then, and knows neither `required_acks` nor a bound on connecting; `rdkafka` brings a C library that repeats and queues by itself.
//!
//! Source: README of the collector's `kafka` exporter; for the protocol see `codec::kafka`.

mod cluster;
mod config;
mod partition;
mod sasl;

pub use config::{Config, Settings, parse};

use std::collections::HashMap;
use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use codec::kafka::{self, Api, Code, Compression, Header, Produce, Record, code};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use model::view::{Resource, View};
use model::wire::Fields;
use model::{Batch, Signal, edit};
use net::socket::Dialer;
use pipeline::{BoxFuture, Exporter, Outcome, Reason};
use sha2::{Digest, Sha256};

use crate::kafka::cluster::{Address, CallError, Cluster};
use crate::kafka::config::{Encoding, MetadataRetry, Producer, RecordPacking, addresses};
use crate::kafka::partition::Hasher;
use crate::request::{BuildError, shortened};
use crate::sender::Own;
use crate::unfinished::{Attempt, Unfinished};

/// The longest that a broker's wish to be left alone is heeded while a request still counts as one attempt.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Topics that one batch may name by an attribute; the resources beyond go to the configured topic.
const MAX_TOPICS_PER_BATCH: usize = 100;

/// What a message's key is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keyed {
    Not,
    /// The number of the item's field that holds the trace id.
    ByTrace {
        field: u32,
    },
    ByResource,
}

/// Sends to a Kafka cluster.
pub struct Kafka {
    cluster: Cluster,
    streams: [Out; Signal::ALL.len()],
    topic_attribute: Option<String>,
    headers: Vec<Header>,
    hasher: Hasher,
    producer: Producer,
    metadata_retry: MetadataRetry,
    timeout_ms: i32,
    unfinished: Unfinished<Work>,
}

/// Where a signal goes.
struct Out {
    topic: Arc<str>,
    encoding: Encoding,
    keyed: Keyed,
}

/// What is left of a batch.
struct Work {
    left: Vec<Message>,
    /// A record batch was too large: messages go alone.
    alone: bool,
    refused: u32,
    why: Option<(Reason, String)>,
}

/// One message on its way.
struct Message {
    topic: Arc<str>,
    key: Option<Vec<u8>>,
    /// What it holds, should it have to be cut.
    batch: Batch,
    encoding: Encoding,
    value: Bytes,
}

/// Messages of one partition that go as one record batch; by their place in what is left.
struct Load {
    leader: Address,
    topic: Arc<str>,
    partition: i32,
    members: Vec<usize>,
    bytes: usize,
}

/// The partitions of a topic, and the place of the one for messages without a key.
type Places = (Arc<[cluster::Partition]>, usize);

/// What became of one message in one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Untold,
    Taken,
    /// Too large for the topic, in company or alone.
    TooLarge {
        alone: bool,
    },
    /// Its partition has moved.
    Moved,
    Refused(Code),
    Later,
}

impl Kafka {
    /// Reads certificates; connects with the first request.
    pub fn new(config: &Config) -> Result<Kafka, BuildError> {
        let own = &config.own;
        let tls = own.tls(&config.shared.tls).cloned();
        let settings = cluster::Settings {
            brokers: addresses(&own.brokers).map_err(BuildError::Endpoint)?,
            client_id: own.client_id.clone(),
            login: own.login(),
            idle_timeout: own.conn_idle_timeout,
            refresh_interval: own.metadata.refresh_interval,
            create_topics: own.producer.allow_auto_topic_creation,
        };
        let timeout = config.shared.timeout.unwrap_or(Settings::TIMEOUT);
        let out = |signal| {
            let (topic, encoding) = own.stream(signal);
            Out {
                topic: topic.into(),
                encoding,
                keyed: own.keyed(signal),
            }
        };
        Ok(Kafka {
            cluster: Cluster::new(settings, Dialer::new(tls.as_ref())?),
            streams: Signal::ALL.map(out),
            topic_attribute: own.topic_from_attribute.clone().filter(|key| !key.is_empty()),
            headers: own
                .record_headers
                .iter()
                .map(|(name, value)| (name.clone(), value.clone().into_bytes()))
                .collect(),
            hasher: own
                .record_partitioner
                .sticky_key
                .as_ref()
                .map_or_else(Hasher::default, |key| key.hasher),
            producer: own.producer.clone(),
            metadata_retry: own.metadata.retry.clone(),
            timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            unfinished: Unfinished::default(),
        })
    }

    /// The messages of a batch.
    fn work(&self, batch: &Batch) -> Work {
        let at = Signal::ALL.into_iter().position(|signal| signal == batch.signal);
        let out = &self.streams[at.unwrap_or_default()];
        let mut topics: Vec<Arc<str>> = vec![Arc::clone(&out.topic)];
        let mut places: HashMap<(usize, Option<[u8; 16]>), usize> = HashMap::new();
        let mut order = Vec::new();
        let mut last_resource: (*const u8, usize, Option<[u8; 16]>) = (std::ptr::null(), 0, None);
        let divides = out.keyed != Keyed::Not || self.topic_attribute.is_some();
        let mut place = |around: &[&[u8]], item: &[u8]| {
            let resource = around[0];
            if last_resource.0 != resource.as_ptr() {
                let read = field(resource, 1).map(Resource::read);
                let named = self.topic_attribute.as_ref().zip(read.as_ref());
                let named = named.and_then(|(key, resource)| resource.attributes.get_str(key));
                let topic = named
                    .filter(|name| !name.is_empty())
                    .map_or(0, |name| topic_place(&mut topics, name));
                let hash = (out.keyed == Keyed::ByResource).then(|| hash(read.as_ref()));
                last_resource = (resource.as_ptr(), topic, hash);
            }
            let key = match out.keyed {
                Keyed::Not => None,
                Keyed::ByResource => last_resource.2,
                Keyed::ByTrace { field: number } => field(item, number).and_then(|id| id.try_into().ok()),
            };
            *places.entry((last_resource.1, key)).or_insert_with(|| {
                order.push((last_resource.1, key));
                order.len() - 1
            })
        };
        let parts = match divides {
            true => edit::divide(batch, &mut place),
            false => vec![batch.clone()],
        };
        if order.is_empty() {
            order.push((0, None));
        }
        let mut work = Work {
            left: Vec::new(),
            alone: false,
            refused: 0,
            why: None,
        };
        for (part, (topic, key)) in parts.into_iter().zip(order) {
            let key = key.map(|key| match out.keyed {
                Keyed::ByTrace { .. } => key.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect(),
                Keyed::ByResource | Keyed::Not => key.to_vec(),
            });
            self.put(&mut work, Arc::clone(&topics[topic]), key, part, out.encoding);
        }
        work
    }

    /// Adds the messages of a part, which are several if it is too large for one.
    fn put(&self, work: &mut Work, topic: Arc<str>, key: Option<Vec<u8>>, part: Batch, encoding: Encoding) {
        let key_len = key.as_ref().map_or(0, Vec::len);
        let room = self
            .producer
            .max_message_bytes
            .saturating_sub(kafka::record_len(key_len, 0, &self.headers));
        let mut parts = match encoding {
            Encoding::OtlpProto => edit::split(&part, u32::MAX, room.max(1)),
            Encoding::OtlpJson => vec![part],
        };
        parts.reverse();
        while let Some(part) = parts.pop() {
            let value = match encoding {
                Encoding::OtlpProto => part.payload.bytes(),
                Encoding::OtlpJson => codec::otlp_json::from_protobuf(part.signal, &part.payload).into(),
            };
            if value.len() <= room {
                work.left.push(Message {
                    topic: Arc::clone(&topic),
                    key: key.clone(),
                    batch: part,
                    encoding,
                    value,
                });
            } else if part.items > 1 {
                parts.extend(edit::split(&part, part.items.div_ceil(2), usize::MAX).into_iter().rev());
            } else {
                let why = format!(
                    "a single item has {} bytes as a message; `max_message_bytes` is {}",
                    value.len(),
                    self.producer.max_message_bytes
                );
                work.refuse(part.items, Reason::TooLarge, why);
            }
        }
    }

    async fn send(&self, batch: Batch) -> Outcome {
        let mut attempt = self.unfinished.resume(&batch.payload, || self.work(&batch));
        let later = Outcome::retry(Duration::ZERO, Reason::BackendUnavailable);
        let mut asked_again = 0;
        while !attempt.work().left.is_empty() {
            let round = self.round(&mut attempt).await;
            for topic in &round.moved_topics {
                self.cluster.forget(topic).await;
            }
            if round.failed {
                return later;
            }
            if !round.moved_topics.is_empty() {
                if asked_again == self.metadata_retry.max {
                    return later;
                }
                asked_again += 1;
                tokio::time::sleep(self.metadata_retry.backoff).await;
            }
        }
        let Work { refused, why, .. } = attempt.finish();
        match why {
            Some((reason, why)) if refused > 0 => Outcome::rejected(reason, why, refused),
            _ => Outcome::Delivered,
        }
    }

    /// Sends one record batch to each partition that has messages left, and works off the answers as they come.
    async fn round(&self, attempt: &mut Attempt<'_, Work>) -> Round {
        let mut round = Round::default();
        let loads = self.loads(attempt.work(), &mut round).await;
        if loads.is_empty() {
            return round;
        }
        let mut leaders: HashMap<Address, Vec<Load>> = HashMap::new();
        for load in loads {
            leaders.entry(load.leader.clone()).or_default().push(load);
        }
        let mut fates = vec![Fate::Untold; attempt.work().left.len()];
        let left = std::mem::take(&mut attempt.work().left);
        // Back in its place whatever happens from here on: a future that is dropped leaves what was not answered for the next attempt.
        let mut rest = Rest {
            attempt,
            left,
            fates: &mut fates,
        };
        {
            let Rest { left, fates, .. } = &mut rest;
            let left: &[Message] = left;
            let mut asked: FuturesUnordered<_> = leaders
                .into_iter()
                .map(|(leader, loads)| self.produce(leader, loads, left))
                .collect();
            let mut pause = Duration::ZERO;
            while let Some((told, wish)) = asked.next().await {
                for (member, fate) in told {
                    fates[member] = fate;
                }
                pause = pause.max(wish);
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause.min(MAX_PAUSE)).await;
            }
        }
        drop(rest);
        self.settle(attempt.work(), &fates, &mut round);
        round
    }

    /// Acts on what was said about each message that is still there.
    fn settle(&self, work: &mut Work, fates: &[Fate], round: &mut Round) {
        let told = fates.iter().filter(|fate| **fate != Fate::Taken);
        let left = std::mem::take(&mut work.left);
        for (message, fate) in left.into_iter().zip(told) {
            match *fate {
                // Its partition's batch was full; it is in the next.
                Fate::Untold => work.left.push(message),
                Fate::Later => {
                    round.failed = true;
                    work.left.push(message);
                }
                Fate::Moved => {
                    round.moved(&message.topic);
                    work.left.push(message);
                }
                Fate::TooLarge { alone: false } => {
                    work.alone = true;
                    work.left.push(message);
                }
                Fate::TooLarge { alone: true } if message.batch.items > 1 => {
                    for half in edit::split(&message.batch, message.batch.items.div_ceil(2), usize::MAX) {
                        self.put(
                            work,
                            Arc::clone(&message.topic),
                            message.key.clone(),
                            half,
                            message.encoding,
                        );
                    }
                }
                Fate::TooLarge { alone: true } => {
                    let why = format!(
                        "the topic `{}` takes no message of {} bytes",
                        message.topic,
                        message.value.len()
                    );
                    work.refuse(message.batch.items, Reason::TooLarge, why);
                }
                Fate::Refused(said) => {
                    let why = format!("the topic `{}`: {} ({said})", message.topic, code::name(said));
                    work.refuse(message.batch.items, Reason::BackendRejected, shortened(&why));
                }
                Fate::Taken => {}
            }
        }
    }

    /// What one round sends: the first messages of each partition, as many as make one record batch.
    async fn loads(&self, work: &Work, round: &mut Round) -> Vec<Load> {
        let mut loads: Vec<Load> = Vec::new();
        let mut of_partition: HashMap<(Arc<str>, i32), usize> = HashMap::new();
        let mut of_topic: HashMap<Arc<str>, Option<Places>> = HashMap::new();
        let most = match self.producer.flush_max_messages {
            0 => usize::MAX,
            most => most,
        };
        for (member, message) in work.left.iter().enumerate() {
            let topic = &message.topic;
            if !of_topic.contains_key(topic) {
                let found = self.partitions(topic, round).await;
                of_topic.insert(Arc::clone(topic), found);
            }
            let Some((partitions, sticky)) = &of_topic[topic] else {
                continue;
            };
            let place = match (&message.key, NonZeroUsize::new(partitions.len())) {
                (Some(key), Some(count)) => self.hasher.place(key, count),
                _ => *sticky,
            };
            let partition = &partitions[place];
            let Some(leader) = &partition.leader else {
                round.moved(topic);
                continue;
            };
            let bytes = kafka::record_len(
                message.key.as_ref().map_or(0, Vec::len),
                message.value.len(),
                &self.headers,
            );
            let at = *of_partition
                .entry((Arc::clone(topic), partition.index))
                .or_insert_with(|| {
                    loads.push(Load {
                        leader: leader.clone(),
                        topic: Arc::clone(topic),
                        partition: partition.index,
                        members: Vec::new(),
                        bytes: 0,
                    });
                    loads.len() - 1
                });
            let load = &mut loads[at];
            let fits =
                load.bytes + bytes <= self.producer.max_message_bytes && load.members.len() < most && !work.alone;
            if load.members.is_empty() || fits {
                load.members.push(member);
                load.bytes += bytes;
            }
        }
        loads
    }

    /// The partitions of a topic, and the one for messages without a key.
    async fn partitions(&self, topic: &Arc<str>, round: &mut Round) -> Option<Places> {
        match self.cluster.partitions(topic).await {
            Ok(partitions) => {
                let led: Vec<usize> = (0..partitions.len())
                    .filter(|place| partitions[*place].leader.is_some())
                    .collect();
                let sticky = fastrand::choice(&led).copied().unwrap_or_default();
                Some((partitions, sticky))
            }
            Err(CallError::Topic { code, .. }) if is_moved(code) => {
                round.moved(topic);
                None
            }
            Err(error) => {
                tracing::warn!("kafka: {error}; it is tried again");
                round.failed = true;
                None
            }
        }
    }

    /// Hands one broker its record batches; what became of their messages, and how long it wants to be left alone.
    async fn produce(&self, leader: Address, loads: Vec<Load>, left: &[Message]) -> (Vec<(usize, Fate)>, Duration) {
        let all = |fate: Fate| {
            loads
                .iter()
                .flat_map(move |load| load.members.iter().map(move |member| (*member, fate)))
                .collect()
        };
        let asked = self.ask(&leader, &loads, left).await;
        let (answers, pause) = match asked {
            Ok(Some(answers)) => answers,
            // It was asked not to answer.
            Ok(None) => return (all(Fate::Taken), Duration::ZERO),
            Err(error) => {
                tracing::warn!("kafka: {error}; it is tried again");
                // It may be gone for good, and its partitions be led by another.
                for load in &loads {
                    self.cluster.forget(&load.topic).await;
                }
                return (all(Fate::Later), Duration::ZERO);
            }
        };
        let fates = loads.iter().flat_map(|load| {
            let of = |answer: &&kafka::Produced| answer.topic == load.topic && answer.partition == load.partition;
            let said = answers.iter().find(of).map(|answer| answer.code);
            let fate = fate(said, load.members.len());
            if fate == Fate::Later {
                let said = said.unwrap_or(-1);
                tracing::warn!(topic = %load.topic, partition = load.partition, "kafka: {} ({said}); it is tried again", code::name(said));
            }
            load.members.iter().map(move |member| (*member, fate))
        });
        (fates.collect(), pause)
    }

    async fn ask(
        &self,
        leader: &Address,
        loads: &[Load],
        left: &[Message],
    ) -> Result<Option<(Vec<kafka::Produced>, Duration)>, CallError> {
        let compression = match self.producer.compression {
            RecordPacking::None => Compression::None,
            RecordPacking::Gzip => Compression::Gzip,
            RecordPacking::Snappy => Compression::Snappy,
            RecordPacking::Lz4 => Compression::Lz4,
            RecordPacking::Zstd => Compression::Zstd,
        };
        let api = match compression {
            Compression::Zstd => Api::ProduceZstd,
            _ => Api::Produce,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let batches = loads.iter().map(|load| {
            let records = load.members.iter().map(|member| Record {
                key: left[*member].key.as_deref(),
                value: &left[*member].value,
                headers: &self.headers,
            });
            let level = self.producer.compression_params.level;
            kafka::batch(records, now_ms, compression, |plain| pack(compression, level, &plain))
        });
        let batches: Result<Vec<Vec<u8>>, std::io::Error> = batches.collect();
        let batches = batches.map_err(|error| CallError::Broken {
            address: format!("{}:{}", leader.0, leader.1),
            why: error.to_string(),
        })?;
        let produce: Vec<Produce<'_>> = loads
            .iter()
            .zip(&batches)
            .map(|(load, batch)| Produce {
                topic: &load.topic,
                partition: load.partition,
                batch,
            })
            .collect();
        let mut body = Vec::with_capacity(batches.iter().map(Vec::len).sum::<usize>() + 64);
        kafka::put_produce(&mut body, self.producer.required_acks, self.timeout_ms, &produce);
        if self.producer.required_acks == 0 {
            self.cluster.tell(leader, api, &body).await?;
            return Ok(None);
        }
        let answer = self.cluster.call(leader, api, &body).await?;
        let (produced, pause_ms) = kafka::produced(api, &answer).map_err(|error| CallError::Broken {
            address: format!("{}:{}", leader.0, leader.1),
            why: error.to_string(),
        })?;
        Ok(Some((produced, Duration::from_millis(u64::from(pause_ms)))))
    }
}

/// What one round came to.
#[derive(Default)]
struct Round {
    /// Something has to wait for another attempt.
    failed: bool,
    /// Topics of which some partition has another leader, or none.
    moved_topics: Vec<Arc<str>>,
}

impl Round {
    fn moved(&mut self, topic: &Arc<str>) {
        if !self.moved_topics.contains(topic) {
            self.moved_topics.push(Arc::clone(topic));
        }
    }
}

/// What is being sent. Dropped, it puts everything back that was not taken.
struct Rest<'r, 'a> {
    attempt: &'r mut Attempt<'a, Work>,
    left: Vec<Message>,
    fates: &'r mut Vec<Fate>,
}

impl Drop for Rest<'_, '_> {
    fn drop(&mut self) {
        let left = std::mem::take(&mut self.left).into_iter().zip(self.fates.iter());
        let still = left
            .filter(|(_, fate)| **fate != Fate::Taken)
            .map(|(message, _)| message);
        self.attempt.work().left.extend(still);
    }
}

impl Work {
    fn refuse(&mut self, items: u32, reason: Reason, why: String) {
        self.refused = self.refused.saturating_add(items);
        self.why.get_or_insert((reason, why));
    }
}

impl Exporter for Kafka {
    fn takes(&self, _signal: Signal) -> bool {
        true
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(self.send(batch))
    }
}

/// What a broker's word about a record batch means for its messages. Only what can never be taken is refused: rights may be granted, disks emptied.
fn fate(said: Option<Code>, messages: usize) -> Fate {
    match said {
        Some(code::NONE) => Fate::Taken,
        Some(code::MESSAGE_TOO_LARGE | code::RECORD_LIST_TOO_LARGE) => Fate::TooLarge { alone: messages == 1 },
        Some(said) if is_moved(said) => Fate::Moved,
        Some(
            said @ (code::INVALID_TOPIC
            | code::INVALID_TIMESTAMP
            | code::UNSUPPORTED_FOR_MESSAGE_FORMAT
            | code::INVALID_RECORD),
        ) => Fate::Refused(said),
        Some(_) | None => Fate::Later,
    }
}

fn is_moved(said: Code) -> bool {
    matches!(
        said,
        code::UNKNOWN_TOPIC_OR_PARTITION | code::LEADER_NOT_AVAILABLE | code::NOT_LEADER_OR_FOLLOWER
    )
}

fn topic_place(topics: &mut Vec<Arc<str>>, name: &str) -> usize {
    match topics.iter().position(|topic| **topic == *name) {
        Some(place) => place,
        None if topics.len() > MAX_TOPICS_PER_BATCH => 0,
        None => {
            topics.push(name.into());
            topics.len() - 1
        }
    }
}

fn field(message: &[u8], number: u32) -> Option<&[u8]> {
    let mut fields = Fields::new(message);
    fields
        .find(|(found, _)| *found == number)
        .map(|(_, payload)| payload.bytes())
}

/// A hash of a resource's attributes that does not depend on their order.
fn hash(resource: Option<&Resource<'_>>) -> [u8; 16] {
    let mut pairs: Vec<&[u8]> = resource
        .map(|resource| resource.attributes.raw().collect())
        .unwrap_or_default();
    pairs.sort_unstable();
    let mut hash = Sha256::new();
    for pair in pairs {
        hash.update(u64::try_from(pair.len()).unwrap_or_default().to_be_bytes());
        hash.update(pair);
    }
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}

/// Packs records in the way that Kafka's clients read.
fn pack(compression: Compression, level: i32, plain: &[u8]) -> std::io::Result<Vec<u8>> {
    /// Snappy blocks as its Java library frames them.
    const SNAPPY_BLOCK_BYTES: usize = 32 << 10;
    const GZIP_LEVEL: i32 = 6;
    const ZSTD_LEVEL: i32 = 3;
    let usual = |usual| if level == -1 { usual } else { level };
    match compression {
        Compression::None => Ok(plain.to_vec()),
        Compression::Gzip => {
            let level = libdeflater::CompressionLvl::new(usual(GZIP_LEVEL)).unwrap_or_default();
            let mut compressor = libdeflater::Compressor::new(level);
            let mut out = vec![0; compressor.gzip_compress_bound(plain.len())];
            // The bound is the bound: there is room.
            let length = compressor.gzip_compress(plain, &mut out).unwrap_or_default();
            out.truncate(length);
            Ok(out)
        }
        Compression::Snappy => {
            let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
            for block in plain.chunks(SNAPPY_BLOCK_BYTES) {
                let packed = snap::raw::Encoder::new()
                    .compress_vec(block)
                    .map_err(std::io::Error::other)?;
                out.extend_from_slice(&u32::try_from(packed.len()).unwrap_or_default().to_be_bytes());
                out.extend_from_slice(&packed);
            }
            Ok(out)
        }
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(plain)?;
            encoder.finish().map_err(std::io::Error::other)
        }
        Compression::Zstd => zstd::bulk::compress(plain, usual(ZSTD_LEVEL)),
    }
}
