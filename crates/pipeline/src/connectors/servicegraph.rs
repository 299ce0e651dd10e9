//! Why: which services call which, how often, how often in vain and how long it takes can be read off spans: the caller's and the called one's, brought
//! together by their ids, are an edge of the graph that Grafana draws. The metrics have the names and labels of the collector and of Tempo:
//! `traces_service_graph_request_total`, `…_request_failed_total`, `…_request_server_seconds`, `…_request_client_seconds`, `…_unpaired_spans_total` and
//! `…_dropped_spans_total`, with `client`, `server`, `connection_type` (`messaging_system`, `database`, `virtual_node` or empty) and `failed`. (The unit
//! `s` becomes the suffix `_seconds` where the metrics become series.)
//!
//! It stands behind the journal: what it counted, the spans that wait for their other half, and how far it has read are one commit. All spans of a trace
//! have to come to the same process, and before a sampler.
//!
//! ```yaml
//! connectors:
//!   servicegraph:
//!     store: { ttl: 5s, max_items: 10000 }
//!     dimensions: [deployment.environment]
//! service:
//!   pipelines:
//!     traces: { receivers: [otlp], exporters: [servicegraph, otlp] }
//!     metrics: { receivers: [servicegraph], exporters: [prometheusremotewrite] }
//! ```

mod edges;
mod graph;

use std::sync::Arc;
use std::time::Duration;

use model::{Batch, Signal};
use serde::Deserialize;

use self::graph::{ServiceGraph, Settings};
use super::histogram::{Bound, MAX_SIZES, check_bounds};
use crate::budget::Budget;
use crate::config::{Problems, Section, duration};
use crate::stage::{BadState, MakeStage, Stage, State};

/// Dimensions that both sides of an edge have at most: each is looked for in every span of a request.
const MAX_DIMENSIONS: usize = 64;

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The spans that wait for their other half.
    pub store: Store,
    /// Attributes of resources, or else of spans, that become `client_NAME` and `server_NAME`.
    pub dimensions: Vec<String>,
    /// The upper bounds of the histograms' buckets, as durations. Default 2, 4, 6, 8, 10, 50, 100, 200, 400, 800 ms, 1, 1.4, 2, 5, 10, 15 s.
    pub latency_histogram_buckets: Option<Vec<Bound>>,
    /// Have exponential histograms with at most so many buckets instead. Default 0, which is no.
    pub exponential_histogram_max_size: u32,
    /// How often the metrics are given out; 0 is with every batch. Default 60s.
    #[serde(deserialize_with = "duration")]
    pub metrics_flush_interval: Duration,
    /// How much older than they are points say that they are. Default 0.
    #[serde(deserialize_with = "duration")]
    pub metrics_timestamp_offset: Duration,
    /// Attributes of a client's span that name whom it calls, where that sends no spans; the first that is there counts. An empty list: no such nodes. Default `peer.service`, `db.name`, `db.system`, `db.system.name`.
    pub virtual_node_peer_attributes: Option<Vec<String>>,
    /// Say in a label `virtual_node` which side it is, `client` or `server`. Default `false`.
    pub virtual_node_extra_label: bool,
    /// Attributes of a client's span that name a database; the first that is there counts. Default `db.name`, `db.namespace`.
    pub database_name_attributes: Vec<String>,
    /// The older form, for one attribute.
    pub database_name_attribute: Option<String>,
    /// How often series without a request for 15 minutes are forgotten. Default 1m.
    #[serde(deserialize_with = "duration")]
    pub cache_loop: Duration,
    /// The collector's; without effect, since spans whose time is over are looked for with every batch.
    #[serde(deserialize_with = "duration")]
    pub store_expiration_loop: Duration,
    /// How many series a metric has at most; what is beyond is counted in one with `otel.metric.overflow`. Default 0, which is 2000.
    pub aggregation_cardinality_limit: usize,
    /// The collector's older way to name where the metrics go; without effect.
    pub metrics_exporter: Option<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            store: Store::default(),
            dimensions: Vec::new(),
            latency_histogram_buckets: None,
            exponential_histogram_max_size: 0,
            metrics_flush_interval: Duration::from_secs(60),
            metrics_timestamp_offset: Duration::ZERO,
            virtual_node_peer_attributes: None,
            virtual_node_extra_label: false,
            database_name_attributes: Vec::new(),
            database_name_attribute: None,
            cache_loop: Duration::from_secs(60),
            store_expiration_loop: Duration::from_secs(2),
            aggregation_cardinality_limit: 0,
            metrics_exporter: None,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// How many wait at most; those that find no room are counted as dropped. Default 1000.
    pub max_items: usize,
    /// How long one waits. Default 2s.
    #[serde(deserialize_with = "duration")]
    pub ttl: Duration,
}

impl Default for Store {
    fn default() -> Store {
        Store {
            max_items: 1000,
            ttl: Duration::from_secs(2),
        }
    }
}

pub fn parse(section: &Section<'_>) -> Result<MakeStage, Problems> {
    let config: Config = section.parse()?;
    if let Some(buckets) = &config.latency_histogram_buckets {
        check_bounds(section, &["latency_histogram_buckets"], buckets)?;
    }
    let max_size = config.exponential_histogram_max_size;
    if max_size > 0 && config.latency_histogram_buckets.is_some() {
        let problem = "use either `latency_histogram_buckets` or `exponential_histogram_max_size`";
        return Err(section.problem(&["exponential_histogram_max_size"], problem));
    }
    if max_size > 0 && !MAX_SIZES.contains(&max_size) {
        let problem = format!(
            "a histogram has from {} to {} buckets",
            MAX_SIZES.start(),
            MAX_SIZES.end()
        );
        return Err(section.problem(&["exponential_histogram_max_size"], problem));
    }
    if config.dimensions.len() > MAX_DIMENSIONS {
        return Err(section.problem(
            &["dimensions"],
            format!("there are at most {MAX_DIMENSIONS} dimensions"),
        ));
    }
    for (at, name) in config.dimensions.iter().enumerate() {
        let path = ["dimensions", &at.to_string()];
        if name.is_empty() {
            return Err(section.problem(&path, "a dimension has a name"));
        }
        if config.dimensions[..at].contains(name) {
            return Err(section.problem(&path, format!("the dimension `{name}` is there already")));
        }
    }
    if config.store.max_items == 0 || config.store.ttl.is_zero() {
        let problem = "without `max_items` and `ttl` above 0 no span waits for its other half";
        return Err(section.problem(&["store"], problem));
    }
    if section.sets(&["metrics_exporter"]) {
        let text = "`metrics_exporter` has no effect: the metrics go where the connector is a receiver";
        section.warn(&["metrics_exporter"], text);
    }
    if section.sets(&["database_name_attribute"]) {
        let text = "newer files write `database_name_attributes: [NAME]`";
        section.warn(&["database_name_attribute"], text);
    }
    let settings = Arc::new(Settings::new(&config, section.component.id.as_str()));
    Ok(Arc::new(move || Box::new(ServiceGraph::new(Arc::clone(&settings)))))
}

impl Stage for ServiceGraph {
    fn start(&mut self, budget: &Budget) {
        self.held.start(budget, &self.settings.component);
    }

    fn restore(&mut self, state: &State) -> Result<(), BadState> {
        let read = match state {
            State::Whole(bytes) => self.read(bytes, true),
            State::Change(bytes) => self.read(bytes, false),
        };
        if read.is_err() {
            self.forget();
        }
        read
    }

    fn take(&mut self, batch: Batch, out: &mut Vec<Batch>) {
        let now = self.clock.take(batch.meta.received_at_unix_nano);
        self.advance(now, out);
        if batch.signal != Signal::Traces {
            return;
        }
        self.take_spans(&batch.payload, now);
        if self.settings.flush_nanos == 0 {
            self.flush(now, out);
        }
    }

    fn tick(&mut self, now_unix_nano: u64, out: &mut Vec<Batch>) {
        let now = self.clock.tick(now_unix_nano);
        self.advance(now, out);
    }

    fn finish(&mut self, now_unix_nano: u64, out: &mut Vec<Batch>) {
        let now = self.clock.end(now_unix_nano);
        self.advance(now, out);
        if self.is_dirty {
            self.flush(now, out);
        }
    }

    fn state(&mut self, whole: bool) -> State {
        let mut telling = std::mem::take(&mut self.telling);
        telling.has_moved |= whole;
        let state = telling.state(|is_whole| self.encode(is_whole));
        self.telling = telling;
        state
    }
}

#[cfg(test)]
mod tests;
