//! Why: what a graph is made of. The carrier knows these contracts and no component by name.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use model::{Batch, Compression, Signal};

use crate::ack::{Ack, Outcome};
use crate::budget::Budget;
use crate::ledger::StepBook;
use crate::reason::Reason;

/// What a component runs asynchronously.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Runs in the request, before the journal, and holds nothing back: a batch goes in, and at once a batch or its outcome comes out.
pub trait Processor: Send + Sync + 'static {
    /// Called once, before the first batch, with the budget of the process.
    fn start(&self, budget: &Budget) {
        let _ = budget;
    }

    /// Synchronous and short: it runs on the thread that serves the socket. A batch that comes out without items ends here and is acknowledged.
    fn process(&self, batch: Batch) -> Result<Batch, Outcome>;

    /// The request headers that it reads, in lower case. Receivers with `include_metadata` keep what somebody names.
    fn metadata_keys(&self) -> Vec<Arc<str>> {
        Vec::new()
    }

    /// Where a processor that drops items, or meets faults in them, counts that. It enters its drops itself; what goes in and comes out is entered
    /// by who calls it.
    fn book(&self) -> Option<&Arc<StepBook>> {
        None
    }
}

/// Where a batch goes that entered at a door: a pipeline of the graph, or what a test puts there.
pub trait Entry: Send + Sync + 'static {
    /// Takes the batch and the duty to answer. Must not block; answers whenever it knows.
    fn enter(&self, batch: Batch, ack: Ack);

    /// The request headers that anything behind it reads, in lower case.
    fn metadata_keys(&self) -> Vec<Arc<str>> {
        Vec::new()
    }
}

impl<F: Fn(Batch, Ack) + Send + Sync + 'static> Entry for F {
    fn enter(&self, batch: Batch, ack: Ack) {
        self(batch, ack);
    }
}

/// Sends batches to a backend, one request each. The graph around it reads the journal, forms the batches, keeps the window of requests in
/// flight, retries and moves the cursor; an exporter does one request and says how it went.
pub trait Exporter: Send + Sync + 'static {
    fn takes(&self, signal: Signal) -> bool;

    /// How it compresses what it sends, if a batch that has this wire form goes out as it is. Requests that are formed of several batches then get it too.
    fn packs(&self) -> Option<Compression> {
        None
    }

    /// For one whose backend keeps series: about how many it was sent lately.
    fn active_series(&self) -> Option<u64> {
        None
    }

    /// The request headers that it sends on, in lower case: they travel with the batch unless a `batch` processor says which do. A batch that is to be
    /// sent has the same values of them for all its items.
    fn metadata_keys(&self) -> Vec<Arc<str>> {
        Vec::new()
    }

    /// One attempt. `Retry` has it called again with the same batch; dropping the future gives the attempt up.
    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome>;

    /// Whether it has several backends with a circuit before each, so that none is to stand before all of them.
    fn has_circuits(&self) -> bool {
        false
    }

    /// What is left of a batch that was just to be repeated, if the exporter serves several backends and some of them have their part: from now on only
    /// the rest is repeated, and what is behind it goes on meanwhile. Asked once after each `Retry`.
    fn left(&self, batch: &Batch) -> Option<Left> {
        let _ = batch;
        None
    }

    /// Everything was sent that will be: close files and connections. Nothing is called after it.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// What several backends left of a batch.
#[derive(Debug)]
pub struct Left {
    /// What is still to be sent; nothing if no backend has to be asked again.
    pub batch: Option<Batch>,
    /// Items that were refused for good on the way here.
    pub refused: Option<(Reason, u32)>,
}

/// Which journal a position belongs to.
pub type JournalId = [u8; 16];

/// What a [`Keeper`] calls when records have become durable in it: the reader's name and the positions from first to last, both included.
pub type OnKept = Arc<dyn Fn(&str, JournalId, std::ops::RangeInclusive<u64>) + Send + Sync>;

/// Why a [`Keeper`] did not take records.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// It may work later: a full disk, a backend that is away.
    #[error("{0}")]
    Later(String),
    /// It never will: these records are dropped and counted.
    #[error("{0}")]
    Never(String),
}

/// An exporter that keeps data itself, together with the journal positions it came from, so that a restart neither loses nor repeats.
/// Called from a thread of its reader's own: it may compute and block.
pub trait Keeper: Send + Sync + 'static {
    fn takes(&self, signal: Signal) -> bool;

    /// Which positions of this journal it holds durably for `source`: everything up to and excluding the first number, and the ranges above
    /// it (both ends included).
    fn covered(&self, source: &str, journal: JournalId) -> (u64, Vec<(u64, u64)>);

    /// Takes the batches of the records `positions` (those of them that are the source's).
    fn keep(
        &self,
        source: &str,
        journal: JournalId,
        positions: std::ops::RangeInclusive<u64>,
        batches: &[Batch],
    ) -> Result<(), KeepError>;

    /// Sets who is told what became durable. Called once per graph, before the first `keep`.
    fn on_kept(&self, on_kept: OnKept);

    /// Makes everything durable that was taken.
    fn flush(&self) -> Result<(), KeepError>;
}

/// What stands at the end of a pipeline.
#[derive(Clone)]
pub enum Sink {
    Exporter(Arc<dyn Exporter>),
    Keeper(Arc<dyn Keeper>),
}

impl Sink {
    pub fn takes(&self, signal: Signal) -> bool {
        match self {
            Sink::Exporter(exporter) => exporter.takes(signal),
            Sink::Keeper(keeper) => keeper.takes(signal),
        }
    }
}
