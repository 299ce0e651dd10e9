//! Why: a receiver is handed one thing, and that is all it knows of the house: where to put batches, what memory it may use, and where to
//! count what it turned away.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::{Batch, Signal};

use crate::ack::{Ack, AckFuture, Outcome};
use crate::budget::{Budget, Lease};
use crate::component::Entry;
use crate::ledger::{DoorBook, Ledger};
use crate::metadata;
use crate::reason::Reason;

/// What a client is told to wait when we are on our way out: a restart usually takes less.
pub const SHUTDOWN_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The pipelines that a receiver feeds, by signal.
pub type Routes = Vec<(Signal, Arc<dyn Entry>)>;

/// A receiver's way in. Clones are the same door.
#[derive(Clone)]
pub struct Intake {
    door: Arc<Door>,
}

struct Door {
    receiver: Arc<str>,
    budget: Budget,
    closed: Arc<AtomicBool>,
    books: [Arc<DoorBook>; Signal::ALL.len()],
    routes: [Vec<Arc<dyn Entry>>; Signal::ALL.len()],
    /// The request headers that a route reads.
    metadata_keys: [Vec<Arc<str>>; Signal::ALL.len()],
}

fn index(signal: Signal) -> usize {
    match signal {
        Signal::Traces => 0,
        Signal::Logs => 1,
        Signal::Metrics => 2,
    }
}

impl Intake {
    /// A door for the receiver called `receiver`; `routes` are the pipelines that read from it. A batch goes to all of its signal's.
    pub fn new(receiver: &str, ledger: &Ledger, budget: Budget, routes: Routes) -> Intake {
        Intake::with_gate(receiver, ledger, budget, routes, Arc::new(AtomicBool::new(false)))
    }

    /// As [`Intake::new`]; once `closed` is set, everything is told to come back later.
    pub(crate) fn with_gate(
        receiver: &str,
        ledger: &Ledger,
        budget: Budget,
        routes: Routes,
        closed: Arc<AtomicBool>,
    ) -> Intake {
        let mut by_signal: [Vec<Arc<dyn Entry>>; Signal::ALL.len()] = Default::default();
        for (signal, entry) in routes {
            by_signal[index(signal)].push(entry);
        }
        let metadata_keys = by_signal.each_ref().map(|entries| {
            let read = entries.iter().flat_map(|entry| entry.metadata_keys());
            metadata::sorted(read.collect())
        });
        let books = [Signal::Traces, Signal::Logs, Signal::Metrics].map(|signal| ledger.door(receiver, signal));
        Intake {
            door: Arc::new(Door {
                receiver: receiver.into(),
                budget,
                closed,
                books,
                routes: by_signal,
                metadata_keys,
            }),
        }
    }

    /// The receiver's name in the configuration, `otlp` or `otlp/edge`.
    pub fn receiver(&self) -> &Arc<str> {
        &self.door.receiver
    }

    /// Whether any pipeline takes this signal from this receiver.
    pub fn takes(&self, signal: Signal) -> bool {
        !self.door.routes[index(signal)].is_empty()
    }

    /// The request headers that somebody behind it reads, in lower case and in order: what a receiver with `include_metadata` keeps.
    pub fn metadata_keys(&self, signal: Signal) -> &[Arc<str>] {
        &self.door.metadata_keys[index(signal)]
    }

    /// What bodies are to be reserved from before they are read.
    pub fn budget(&self) -> &Budget {
        &self.door.budget
    }

    /// Sends a batch on its way. The work is begun by the call, not by awaiting what it returns: a client that leaves cancels nothing.
    pub fn push(&self, batch: Batch) -> AckFuture {
        self.push_held(batch, None)
    }

    /// As [`Intake::push`], and keeps the memory reserved until the outcome is known, whether or not somebody still waits for it.
    pub fn push_held(&self, batch: Batch, held: Option<Lease>) -> AckFuture {
        let signal = batch.signal;
        let items = u64::from(batch.items);
        let book = Arc::clone(&self.door.books[index(signal)]);
        book.entered(items);
        let (answer, future) = Ack::new();
        let ack = Ack::from_fn(move |outcome| {
            book.resolved(items, &outcome);
            drop(held);
            answer.resolve(outcome);
        });
        let routes = &self.door.routes[index(signal)];
        if self.door.closed.load(Ordering::Acquire) {
            ack.resolve(Outcome::retry(SHUTDOWN_RETRY_AFTER, Reason::ShuttingDown));
        } else if let Some(ways) = NonZeroUsize::new(routes.len()) {
            for (route, part) in routes.iter().zip(ack.split(ways)) {
                route.enter(batch.clone(), part);
            }
        } else {
            let items = batch.items;
            ack.resolve(Outcome::Rejected {
                reason: Reason::NoPipeline.into(),
                items,
            });
        }
        future
    }

    /// Counts items that the receiver turned away, to be sent again.
    pub fn refused(&self, signal: Signal, items: u64, reason: Reason) {
        self.door.books[index(signal)].refused(items, reason);
    }

    /// Counts items that the receiver turned away for good.
    pub fn rejected(&self, signal: Signal, items: u64, reason: Reason) {
        self.door.books[index(signal)].rejected(items, reason);
    }
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake")
            .field("receiver", &self.door.receiver)
            .finish_non_exhaustive()
    }
}
