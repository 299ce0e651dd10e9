//! Why: which of a request's headers travel with its batch. A receiver with `include_metadata` keeps the headers that a pipeline behind it names, and no
//! others: what nobody reads need not be held, and a secret that nobody named never lies on a disk.
//!
//! A pipeline reads them in two places. Its processors do so in the request. Behind the journal an exporter may send them on, so the record of a batch
//! carries those that the pipeline *keeps*: with a `batch` processor its `metadata_keys`, as in the collector, and without one what its exporters, and the
//! pipelines behind its connectors, name. (The collector without `batch` sends one request for each that came, with all that it carried. Here requests are
//! joined behind the journal in any case, so that is what decides: only records that carry the same are put into one request.)
//!
//! Empty and missing are two values, and so are two headers and one of them.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use model::{Batch, Headers, Meta};

use crate::ack::Outcome;
use crate::component::Sink;
use crate::graph::PipelinePart;
use crate::ledger::StepBook;
use crate::reason::Reason;

/// The most names that one processor may want, and all that is behind a receiver together. A record carries their values; nobody tells tenants apart by more.
pub const MAX_KEYS: usize = 32;

/// Different values of `metadata_keys` in one pipeline, unless `metadata_cardinality_limit` says otherwise: the collector's number.
pub const DEFAULT_CARDINALITY_LIMIT: u32 = 1000;

/// The name as it is compared: HTTP/2 has no other.
pub fn key(name: &str) -> Arc<str> {
    name.to_ascii_lowercase().into()
}

/// What a `batch` processor says about metadata.
#[derive(Debug, Clone)]
pub struct Apart {
    /// Requests that differ in the value of one of these are never joined. In lower case, each once.
    pub keys: Arc<[Arc<str>]>,
    /// The most different values that a pipeline takes between two starts; 0 is no limit.
    pub limit: u32,
    /// Counts what is refused because of it.
    pub book: Arc<StepBook>,
}

/// What a pipeline keeps of the headers of its batches.
#[derive(Debug)]
pub(crate) struct Kept {
    keys: Vec<Arc<str>>,
    values: Option<Values>,
}

/// The values that were seen, by their hashes: the keys of the hash are random, so nobody can aim for two that are taken for one.
#[derive(Debug)]
struct Values {
    limit: usize,
    seen: RwLock<HashSet<u64>>,
    hasher: RandomState,
    book: Arc<StepBook>,
    /// The collector's gauge of how many they are.
    count: Arc<AtomicU64>,
}

impl Kept {
    /// What `pipeline` keeps, which stands among `all`.
    pub fn of(pipeline: &PipelinePart, all: &[PipelinePart]) -> Kept {
        let apart = pipeline.take.apart.as_ref().filter(|apart| !apart.keys.is_empty());
        Kept {
            keys: kept_by(pipeline, all),
            values: apart.map(|apart| Values {
                limit: apart.limit as usize,
                seen: RwLock::default(),
                hasher: RandomState::new(),
                count: apart.book.count("otelcol_processor_batch_metadata_cardinality", []),
                book: Arc::clone(&apart.book),
            }),
        }
    }

    /// The same for what a stage of the pipeline gives out, whose values were counted at the pipeline's door.
    pub fn behind_stage(&self) -> Kept {
        Kept {
            keys: self.keys.clone(),
            values: None,
        }
    }

    pub fn keys(&self) -> &[Arc<str>] {
        &self.keys
    }

    pub fn book(&self) -> Option<&Arc<StepBook>> {
        self.values.as_ref().map(|values| &values.book)
    }

    /// The batch with what is kept of its headers; or what its sender is told, if it is one value too many.
    pub fn keep(&self, mut batch: Batch) -> Result<Batch, Outcome> {
        if self.keys.is_empty() && batch.meta.headers.is_empty() {
            return Ok(batch);
        }
        let mut kept = Headers::new();
        for key in &self.keys {
            let all = batch.meta.headers.iter();
            let named = all.filter(|(name, _)| name.eq_ignore_ascii_case(key));
            kept.extend(named.map(|(_, value)| (Arc::clone(key), Arc::clone(value))));
        }
        if let Some(values) = &self.values {
            values.take(&kept, &batch)?;
        }
        if kept != batch.meta.headers {
            batch.meta = Arc::new(Meta {
                headers: kept,
                ..Meta::clone(&batch.meta)
            });
        }
        Ok(batch)
    }
}

impl Values {
    fn take(&self, headers: &Headers, batch: &Batch) -> Result<(), Outcome> {
        self.book.incoming(batch.signal, batch.items);
        let is_known = self.limit == 0 || {
            let value = self.hasher.hash_one(headers);
            let is_known = self
                .seen
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&value);
            is_known || self.learn(value)
        };
        if is_known {
            self.book.outgoing(batch.signal, batch.items);
            return Ok(());
        }
        let message = format!(
            "metadata_cardinality_limit of the processor `{}` is reached: it has seen {} different values of its metadata_keys",
            self.book.processor, self.limit
        );
        let outcome = Outcome::rejected(Reason::MetadataLimit, message, batch.items);
        self.book.turned_away(batch.signal, batch.items, &outcome);
        Err(outcome)
    }

    /// Takes a value among those that were seen, if there is room for it.
    fn learn(&self, value: u64) -> bool {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if !seen.contains(&value) {
            if seen.len() >= self.limit {
                return false;
            }
            seen.insert(value);
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        true
    }
}

/// Headers that are named where they never arrive, which is hardly meant: an exporter sends them on and the `batch` processor before it does not keep them,
/// or the pipeline begins with a connector that gives out none.
pub(crate) fn warn_of_lost(pipeline: &PipelinePart, all: &[PipelinePart]) {
    let read = sorted(read_by(pipeline, all));
    for (connector, key) in without_headers(pipeline, all).flat_map(|it| read.iter().map(move |key| (it, key))) {
        tracing::warn!(
            pipeline = &*pipeline.name,
            "the header `{key}` is named behind the connector `{connector}`, and what that makes carries no headers"
        );
    }
    let Some(apart) = &pipeline.take.apart else { return };
    for part in &pipeline.exporters {
        let Sink::Exporter(exporter) = &part.sink else { continue };
        let lost: Vec<Arc<str>> = sorted(exporter.metadata_keys());
        for key in lost.iter().filter(|key| !apart.keys.contains(key)) {
            tracing::warn!(
                pipeline = &*pipeline.name,
                exporter = &*part.name,
                "the header `{key}` is to be sent on, but the processor `{}` does not keep it: add it to its metadata_keys",
                apart.book.processor
            );
        }
    }
}

/// Finds a receiver behind which more names are wanted than [`MAX_KEYS`], and how many: a request that has all of these headers would be refused.
pub(crate) fn too_many(all: &[PipelinePart]) -> Option<(Arc<str>, usize)> {
    let receivers = all.iter().flat_map(|pipeline| &pipeline.receivers);
    receivers
        .map(|receiver| {
            let behind = all.iter().filter(|pipeline| pipeline.receivers.contains(receiver));
            let names = sorted(behind.flat_map(|pipeline| read_by(pipeline, all)).collect());
            (Arc::clone(receiver), names.len())
        })
        .find(|(_, names)| *names > MAX_KEYS)
}

/// The names that a pipeline's records carry.
fn kept_by(pipeline: &PipelinePart, all: &[PipelinePart]) -> Vec<Arc<str>> {
    if let Some(apart) = &pipeline.take.apart {
        return sorted(apart.keys.to_vec());
    }
    let mut keys = Vec::new();
    for exporter in &pipeline.exporters {
        if let Sink::Exporter(exporter) = &exporter.sink {
            keys.extend(exporter.metadata_keys());
        }
    }
    for processor in pipeline.stages.iter().flat_map(|stage| &stage.then) {
        keys.extend(processor.metadata_keys());
    }
    for next in all.iter().filter(|next| hands_on(pipeline, next)) {
        keys.extend(read_by(next, all));
    }
    sorted(keys)
}

/// Whether headers go from one pipeline to the other by a connector. What is made of another signal is counted from many requests and carries none.
fn hands_on(pipeline: &PipelinePart, next: &PipelinePart) -> bool {
    pipeline.signal == next.signal && pipeline.connectors.iter().any(|it| next.receivers.contains(it))
}

/// The connectors that a pipeline begins with and that give out none.
fn without_headers<'p>(pipeline: &'p PipelinePart, all: &'p [PipelinePart]) -> impl Iterator<Item = &'p Arc<str>> {
    pipeline.receivers.iter().filter(|name| {
        let mut before = all.iter().filter(|before| before.connectors.contains(name)).peekable();
        before.peek().is_some() && before.all(|before| before.signal != pipeline.signal)
    })
}

/// The names that anything in a pipeline or behind it reads. The planner refuses pipelines that feed one another in a circle.
fn read_by(pipeline: &PipelinePart, all: &[PipelinePart]) -> Vec<Arc<str>> {
    let in_request = pipeline.in_request.iter().flat_map(|it| it.metadata_keys());
    in_request.chain(kept_by(pipeline, all)).collect()
}

/// Each once, in one order, so that equal metadata is equal wherever it is compared.
pub(crate) fn sorted(mut keys: Vec<Arc<str>>) -> Vec<Arc<str>> {
    keys.sort_unstable();
    keys.dedup();
    keys
}
