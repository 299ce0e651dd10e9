//! Why: some components hold data: a sampler until it has seen whole traces, a connector until it is time to say what it counted. Before the journal they
//! would lose it with the process, so they stand behind it, and what they make of a stream is as durable as the stream.
//!
//! A stage is a function of its stream. It takes batches in their order, gives out other batches, and can say what it remembers. What it gave out, what it
//! remembers then and how far it has come are one commit of the journal (see `staging`): after a crash it goes on from its last commit, so nothing is
//! given out twice and nothing is left out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::Batch;

use crate::budget::Budget;
use crate::ledger::StepBook;

/// What a stage remembers, in a form of its own that begins with a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// All of it; nothing said before matters any more.
    Whole(Bytes),
    /// What is different since it last said something.
    Change(Bytes),
}

/// Why a remembered state cannot be read: a newer version wrote it, or the component's settings have become others.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadState(pub String);

/// A component behind the journal. It runs on a thread of its own: it may compute, it need not hurry.
pub trait Stage: Send + 'static {
    /// Called once, before everything else, with the budget of the process: what it holds in memory is counted in a child of it.
    fn start(&mut self, budget: &Budget) {
        let _ = budget;
    }

    /// What it said it remembers, oldest first: one whole, then the changes since. Not called at the very first start.
    fn restore(&mut self, state: &State) -> Result<(), BadState>;

    /// How long after its arrival a batch is taken. If this is more than nothing, each batch is shown with [`Stage::see`] as it arrives, and taken this
    /// much later: everything that arrived meanwhile has been seen by then. Nothing is held in memory for it: the batch is read from the journal twice.
    fn delay(&self) -> Duration {
        Duration::ZERO
    }

    /// With a delay only: a batch has arrived; it will be taken later. After a restart those are seen again that were not taken.
    fn see(&mut self, batch: &Batch) {
        let _ = batch;
    }

    /// Takes a batch, in the order of arrival, and puts what is to go on into `out`: any number of batches, each of a signal that it gives.
    fn take(&mut self, batch: Batch, out: &mut Vec<Batch>);

    /// Called about once a second, with the wall clock in ns since 1970.
    fn tick(&mut self, now_unix_nano: u64, out: &mut Vec<Batch>) {
        let _ = (now_unix_nano, out);
    }

    /// An orderly stop: last chance to say what should not wait for the next start.
    fn finish(&mut self, now_unix_nano: u64, out: &mut Vec<Batch>) {
        let _ = (now_unix_nano, out);
    }

    /// What it remembers, for the commit of what it gave out and took since the last call. At most [`MAX_STATE_BYTES`]. If `whole` is set, all of it: the
    /// records that older states lie in are to go.
    fn state(&mut self, whole: bool) -> State;

    /// For one that drops items: where it enters that, with its reason. What goes in and comes out is entered by who calls it.
    fn book(&self) -> Option<&Arc<StepBook>> {
        None
    }
}

/// The largest state: it is one record of the journal.
pub const MAX_STATE_BYTES: usize = 64 << 20;

/// Makes a stage from settings that have been read: one for each pipeline that a processor stands in, one for all that a connector joins.
pub type MakeStage = Arc<dyn Fn() -> Box<dyn Stage> + Send + Sync>;
