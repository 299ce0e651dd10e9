//! Why: metrics for Prometheus, Mimir, Grafana Cloud and everything else that takes Prometheus remote write, 1.0 or 2.0.
//!
//! ```yaml
//! exporters:
//!   prometheusremotewrite:
//!     endpoint: https://prometheus.example.com/api/v1/write
//!     headers: { authorization: "Bearer ${TENANT}:${KEY}" }
//!     external_labels: { environment: "${ENVIRONMENT}" }
//! ```
//!
//! Order is kept: one batch is in flight at a time, and of its requests, which share no series, several at once. What a backend took of a batch is not sent
//! again when the rest is repeated. Several pipelines that share an exporter are not ordered among each other. Points of delta temporality are refused and
//! counted; the processor `deltatocumulative` makes them cumulative.
//!
//! Source: "Prometheus Remote-Write 1.0" and "2.0".

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use codec::prometheus::naming::Strategy;
use codec::remote_write::{self, Encoder, Rejected, Version};
use http::HeaderMap;
use model::{Batch, Meta, Signal, edit};
use net::dial::{Answer, Target};
use pipeline::config::{Problems, Section};
use pipeline::sending::Sending;
use pipeline::{BoxFuture, Exporter, Outcome, Reason};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::task::JoinSet;

use crate::active_series::ActiveSeries;
use crate::prometheus::{ResourceToTelemetry, check_labels, label_options};
use crate::request::{Address, BuildError, Clients, Packed, ProxyUrl, asked_wait, refusal};
use crate::sender::{Own, Sender};

/// Largest request before compression where none is configured: what Mimir and Grafana Cloud take with some room.
const DEFAULT_MAX_BATCH_BYTES: u64 = 3_000_000;

/// Requests of one batch in flight at once where nothing is said, as in the collector.
const DEFAULT_PARALLEL: usize = 5;
/// And the most that may be said.
const MAX_PARALLEL: usize = 64;

/// Batches that are remembered as partly delivered: one for each pipeline that shares the exporter, since each has one in flight.
const MAX_UNFINISHED: usize = 16;

/// Parts that a batch is taken apart into at most, each of which makes up to some hundred megabytes of text.
const MAX_TURNS: usize = 16;

/// `prometheusremotewrite`: metrics by Prometheus remote write.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The whole URL, `https://host/api/v1/write`.
    pub endpoint: String,
    /// An HTTP proxy, `http://user:password@host:port`; its password is never shown. Default: what `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` of the
    /// environment say.
    #[serde(default)]
    pub proxy_url: Option<ProxyUrl>,
    /// Put before every name. Default: nothing.
    #[serde(default)]
    pub namespace: String,
    /// Labels of every series, unless an attribute gives one of that name. Default: none.
    #[serde(default)]
    pub external_labels: BTreeMap<String, String>,
    /// `prometheus.WriteRequest` (1.0, default) or `io.prometheus.write.v2.Request` (2.0).
    #[serde(default)]
    pub protobuf_message: Message,
    /// Whether units and types become suffixes (`_seconds`, `_total`). Default `true`.
    #[serde(default = "yes")]
    pub add_metric_suffixes: bool,
    /// `UnderscoreEscapingWithSuffixes`, `UnderscoreEscapingWithoutSuffixes`, `NoUTF8EscapingWithSuffixes` or `NoTranslation`, in place of
    /// `add_metric_suffixes`. The last two need a Prometheus that takes any UTF-8.
    #[serde(default)]
    pub translation_strategy: Option<Strategy>,
    /// Whether 1.0 requests carry types, help and units; 2.0 always does. Default `false`.
    #[serde(default)]
    pub send_metadata: bool,
    /// `target_info`, which has the attributes of each resource.
    #[serde(default, deserialize_with = "pipeline::config::present")]
    pub target_info: Option<TargetInfo>,
    /// `…_created` series, in seconds since 1970.
    #[serde(default, deserialize_with = "pipeline::config::present")]
    pub export_created_metric: Option<CreatedMetric>,
    /// Whether attributes of the resource become labels. Default: they are told as `target_info`.
    #[serde(default, deserialize_with = "pipeline::config::present")]
    pub resource_to_telemetry_conversion: Option<ResourceToTelemetry>,
    /// Whether series leave out their scope (`otel_scope_name`, …). Default `false`.
    #[serde(default)]
    pub disable_scope_info: bool,
    /// Largest request before compression. Default 3 MB.
    #[serde(default, deserialize_with = "pipeline::config::optional_size")]
    pub max_batch_size_bytes: Option<u64>,
    /// Requests of one batch that are in flight at once. Default: `remote_write_queue.num_consumers`.
    #[serde(default)]
    pub max_batch_request_parallelism: Option<usize>,
    /// The collector's own name for `sending_queue`.
    #[serde(default, deserialize_with = "pipeline::config::present")]
    pub remote_write_queue: Option<RemoteWriteQueue>,
    /// The collector's write-ahead log, which the journal is here; accepted, without effect.
    #[serde(default)]
    pub wal: Option<IgnoredAny>,
}

/// `protobuf_message`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Message {
    #[default]
    #[serde(rename = "prometheus.WriteRequest")]
    WriteRequest,
    #[serde(rename = "io.prometheus.write.v2.Request")]
    Request,
}

/// `target_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetInfo {
    /// Default `true`.
    pub enabled: bool,
}

impl Default for TargetInfo {
    fn default() -> TargetInfo {
        TargetInfo { enabled: true }
    }
}

/// `export_created_metric`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreatedMetric {
    /// Default `false`.
    pub enabled: bool,
}

/// `remote_write_queue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemoteWriteQueue {
    /// With `false`, one request is in flight at a time. Default `true`.
    pub enabled: bool,
    /// Batches that may wait before the oldest are given up. Default: the journal's bounds apply.
    pub queue_size: Option<u64>,
    /// Requests of one batch that are in flight at once. Default 5.
    pub num_consumers: usize,
}

impl Default for RemoteWriteQueue {
    fn default() -> RemoteWriteQueue {
        RemoteWriteQueue {
            enabled: true,
            queue_size: None,
            num_consumers: DEFAULT_PARALLEL,
        }
    }
}

fn yes() -> bool {
    true
}

/// Everything about one of these exporters.
pub type Config = Sender<Settings>;

impl Own for Settings {
    const TIMEOUT: Duration = Duration::from_secs(5);
}

pub fn parse(section: &Section<'_>) -> Result<Config, Problems> {
    let config = Config::parse(section)?;
    ProxyUrl::check(config.own.proxy_url.as_ref(), section)?;
    let endpoint = &config.own.endpoint;
    let target = Target::parse(endpoint).map_err(|why| section.problem(&["endpoint"], format!("endpoint: {why}")))?;
    if target.https.is_none() {
        return Err(section.problem(
            &["endpoint"],
            format!("endpoint: `{endpoint}` has no http:// or https://"),
        ));
    }
    if section.sets(&["compression"]) {
        return Err(section.problem(
            &["compression"],
            "remote write is always compressed with snappy; leave `compression` out",
        ));
    }
    check_labels(section, "external_labels", &config.own.external_labels)?;
    if section.sets(&["wal"]) {
        section.warn(
            &["wal"],
            "without effect: the journal is the write-ahead log of all exporters",
        );
    }
    if section.sets(&["sending_queue", "num_consumers"]) {
        let why = "without effect: one batch is in flight at a time, so that samples keep their order; `max_batch_request_parallelism` says how many of its \
                   requests are";
        section.warn(&["sending_queue", "num_consumers"], why);
    }
    Ok(config)
}

impl Settings {
    fn options(&self) -> remote_write::Options {
        let strategy = self
            .translation_strategy
            .unwrap_or(Strategy::escaping(self.add_metric_suffixes));
        let max_request_bytes = self.max_batch_size_bytes.unwrap_or(DEFAULT_MAX_BATCH_BYTES);
        remote_write::Options {
            version: match self.protobuf_message {
                Message::WriteRequest => Version::V1,
                Message::Request => Version::V2,
            },
            labels: label_options(
                strategy,
                &self.external_labels,
                self.resource_to_telemetry_conversion,
                !self.disable_scope_info,
            ),
            namespace: self.namespace.clone(),
            target_info: self.target_info.unwrap_or_default().enabled,
            created: self.export_created_metric.unwrap_or_default().enabled,
            metadata: self.send_metadata,
            max_request_bytes: usize::try_from(max_request_bytes).unwrap_or(usize::MAX),
        }
    }

    fn parallel(&self) -> usize {
        let queue = self.remote_write_queue.unwrap_or_default();
        let consumers = if queue.enabled { queue.num_consumers } else { 1 };
        self.max_batch_request_parallelism
            .unwrap_or(consumers)
            .clamp(1, MAX_PARALLEL)
    }
}

/// One batch at a time, so that no sample overtakes an older one of its series.
pub fn sending(config: &Config) -> Sending {
    let sending = config.sending();
    let queue = config.own.remote_write_queue.unwrap_or_default();
    Sending {
        in_flight: 1,
        queue_size: queue.queue_size.or(sending.queue_size),
        ..sending
    }
}

/// Sends remote-write requests.
pub struct RemoteWrite {
    address: Arc<Address>,
    version: Version,
    parallel: usize,
    encoder: Mutex<Encoder>,
    unfinished: Mutex<VecDeque<Arc<Work>>>,
    active: ActiveSeries,
}

/// A batch on its way.
struct Work {
    /// Which batch it is: a repetition has the same bytes at the same place, and holding them keeps the place theirs.
    payload: Bytes,
    /// What goes out with each of its requests may be of what came in with the batch.
    meta: Arc<Meta>,
    rejected: Rejected,
    requests: Vec<Part>,
    answers: Mutex<Vec<Option<Settled>>>,
}

/// One request of it.
struct Part {
    /// Compressed.
    bytes: Bytes,
    points: u32,
    samples: u64,
    histograms: u64,
    /// Those of one turn are sent side by side.
    turn: usize,
}

/// What the backend said for good.
enum Settled {
    Taken,
    Refused { points: u32, message: String },
}

impl RemoteWrite {
    /// Reads certificates; connects with the first request.
    pub fn new(config: &Config) -> Result<RemoteWrite, BuildError> {
        let (content_type, number, version) = match config.own.protobuf_message {
            Message::WriteRequest => ("application/x-protobuf", "0.1.0", Version::V1),
            Message::Request => (
                "application/x-protobuf;proto=io.prometheus.write.v2.Request",
                "2.0.0",
                Version::V2,
            ),
        };
        let mut shared = config.shared.clone();
        const VERSION_HEADER: &str = "X-Prometheus-Remote-Write-Version";
        if !shared
            .headers
            .keys()
            .any(|name| name.eq_ignore_ascii_case(VERSION_HEADER))
        {
            shared.headers.insert(VERSION_HEADER.to_owned(), number.to_owned());
        }
        let address = Address::new(
            &config.own.endpoint,
            content_type,
            &shared,
            config.own.proxy_url.as_ref(),
            &mut Clients::default(),
        )?;
        Ok(RemoteWrite {
            address: Arc::new(address),
            version,
            parallel: config.own.parallel(),
            encoder: Mutex::new(Encoder::new(config.own.options())),
            unfinished: Mutex::default(),
            active: ActiveSeries::default(),
        })
    }

    /// The batch as it was left by an earlier attempt, or translated.
    fn work(&self, batch: &Batch) -> Arc<Work> {
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |work: &&Arc<Work>| {
            let is_there = (work.payload.as_ptr(), work.payload.len()) == (batch.payload.as_ptr(), batch.payload.len());
            // Two pipelines may send the same bytes and keep different headers.
            is_there && work.meta.headers == batch.meta.headers
        };
        if let Some(known) = unfinished.iter().find(same) {
            return Arc::clone(known);
        }
        let (requests, rejected) = self.translate(batch);
        let work = Arc::new(Work {
            payload: batch.payload.bytes(),
            meta: Arc::clone(&batch.meta),
            rejected,
            answers: Mutex::new(requests.iter().map(|_| None).collect()),
            requests,
        });
        if unfinished.len() == MAX_UNFINISHED {
            unfinished.pop_front();
        }
        unfinished.push_back(Arc::clone(&work));
        work
    }

    /// The requests of a batch. Requests that were joined may be more than is made of one payload where each by itself was not, so they are taken
    /// apart again; one part's are sent after those of the part before, because both may have samples of the same series.
    fn translate(&self, batch: &Batch) -> (Vec<Part>, Rejected) {
        let mut encoder = self.encoder.lock().unwrap_or_else(PoisonError::into_inner);
        let mut snappy = snap::raw::Encoder::new();
        let (mut requests, mut rejected) = (Vec::new(), Rejected::default());
        let (mut turn, mut waiting) = (0, vec![batch.clone()]);
        while let Some(part) = waiting.pop() {
            let encoded = encoder.encode(&part.payload);
            if encoded.rejected.too_large > 0 && part.items > 1 && turn + waiting.len() < MAX_TURNS {
                let halves = edit::split(&part, part.items.div_ceil(2), usize::MAX);
                waiting.extend(halves.into_iter().rev());
                continue;
            }
            self.active.saw(&encoded.series);
            rejected.add(&encoded.rejected);
            requests.extend(encoded.requests.into_iter().map(|request| Part {
                // It fails for more than 4 GiB only, and a payload has fewer.
                bytes: snappy.compress_vec(&request.bytes).unwrap_or_default().into(),
                points: request.points,
                samples: request.samples,
                histograms: request.histograms,
                turn,
            }));
            turn += 1;
        }
        (requests, rejected)
    }

    async fn call(&self, batch: Batch) -> Outcome {
        let work = self.work(&batch);
        let open: Vec<usize> = {
            let answers = work.answers.lock().unwrap_or_else(PoisonError::into_inner);
            (0..answers.len()).filter(|at| answers[*at].is_none()).collect()
        };
        let mut open = open.into_iter().peekable();
        let mut turn = 0;
        let mut sends = JoinSet::new();
        let mut retry: Option<(Duration, Reason)> = None;
        loop {
            while retry.is_none() && sends.len() < self.parallel {
                let Some(at) = open.next_if(|at| sends.is_empty() || work.requests[*at].turn == turn) else {
                    break;
                };
                turn = work.requests[at].turn;
                let (address, work, version) = (Arc::clone(&self.address), Arc::clone(&work), self.version);
                sends.spawn(async move { send(&address, &work, at, version).await });
            }
            let Some(sent) = sends.join_next().await else { break };
            let said = sent.unwrap_or(Err((Duration::ZERO, Reason::Lost)));
            if let Err((after, reason)) = said {
                let longest = retry.map_or(after, |(known, _)| known.max(after));
                retry = Some((longest, reason));
            }
        }
        if let Some((after, reason)) = retry {
            return Outcome::retry(after, reason);
        }
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        unfinished.retain(|known| !Arc::ptr_eq(known, &work));
        drop(unfinished);
        work.outcome()
    }
}

impl Work {
    fn outcome(&self) -> Outcome {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refused = 0u32;
        let mut messages: Vec<String> = Vec::new();
        for answer in answers.iter().flatten() {
            if let Settled::Refused { points, message } = answer {
                refused = refused.saturating_add(*points);
                if !messages.contains(message) {
                    messages.push(message.clone());
                }
            }
        }
        let untold = self.rejected.total();
        // One word for both: what lost more.
        let reason = if refused >= untold {
            Reason::BackendRejected
        } else {
            Reason::Unsupported
        };
        if untold > 0 {
            messages.push(self.rejected.message());
        }
        match refused.saturating_add(untold) {
            0 if messages.is_empty() => Outcome::Delivered,
            total => Outcome::rejected(reason, messages.join("; "), total),
        }
    }
}

/// Sends one request and notes what was said for good; else after how long and why to try again.
async fn send(address: &Address, work: &Work, at: usize, version: Version) -> Result<(), (Duration, Reason)> {
    let part = &work.requests[at];
    let packed = Packed {
        bytes: part.bytes.clone(),
        encoding: Some("snappy"),
    };
    let answer = match address.ask(packed, &work.meta).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!("{error}; it is tried again");
            return Err((Duration::ZERO, Reason::BackendUnavailable));
        }
    };
    if let Some(Outcome::Retry { after, reason }) = address.unauthorized(&answer) {
        return Err((after, reason));
    }
    let settled = settle(part, version, &answer)?;
    let mut answers = work.answers.lock().unwrap_or_else(PoisonError::into_inner);
    answers[at] = Some(settled);
    Ok(())
}

/// What an answer about the data means. 429 and everything of 500 is worth another try; all else is for good.
fn settle(part: &Part, version: Version, answer: &Answer) -> Result<Settled, (Duration, Reason)> {
    let status = answer.status.as_u16();
    if status == 429 || status >= 500 {
        return Err((asked_wait(answer), Reason::BackendUnavailable));
    }
    let written = Written::of(&answer.headers);
    if answer.status.is_success() {
        // A receiver of 2.0 says what it wrote. One that says nothing took the request for something else and found nothing in it.
        if version == Version::V2 && written.is_none() && part.samples + part.histograms > 0 {
            let message = "the backend answered without saying what it wrote: it does not know remote write 2.0; \
                           set `protobuf_message: prometheus.WriteRequest`";
            return Ok(Settled::Refused {
                points: part.points,
                message: message.to_owned(),
            });
        }
        return Ok(Settled::Taken);
    }
    let mut points = part.points;
    if let (Version::V2, Some(written)) = (version, written) {
        // It counts samples, of which a point may have many: fewer than are missing cannot be lost, more than there are neither.
        let missing = (part.samples + part.histograms).saturating_sub(written.samples + written.histograms);
        points = points.min(u32::try_from(missing).unwrap_or(u32::MAX));
    }
    Ok(Settled::Refused {
        points,
        message: refusal(answer),
    })
}

/// What a receiver of 2.0 says that it wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    samples: u64,
    histograms: u64,
}

impl Written {
    fn of(headers: &HeaderMap) -> Option<Written> {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse().ok();
        let samples = number("x-prometheus-remote-write-samples-written");
        let histograms = number("x-prometheus-remote-write-histograms-written");
        (samples.is_some() || histograms.is_some()).then(|| Written {
            samples: samples.unwrap_or_default(),
            histograms: histograms.unwrap_or_default(),
        })
    }
}

impl Exporter for RemoteWrite {
    fn takes(&self, signal: Signal) -> bool {
        signal == Signal::Metrics
    }

    fn active_series(&self) -> Option<u64> {
        Some(self.active.count())
    }

    fn metadata_keys(&self) -> Vec<Arc<str>> {
        self.address.metadata_keys()
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(self.call(batch))
    }
}
