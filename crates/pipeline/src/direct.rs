//! Why: without a journal (`journal: none`, or a container that has no writable disk), a sender's answer comes from the exporters, at the price of
//! their speed and their outages.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::Batch;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::ack::{Ack, Outcome};
use crate::circuit::Circuit;
use crate::component::{Entry, Exporter, JournalId, KeepError, Keeper};
use crate::ledger::ReaderBook;
use crate::reason::Reason;
use crate::sending::{Retry, Sending};

/// Requests that one exporter may have open for senders that wait. Beyond it they are told to come back: memory is better spent on their side.
const MAX_OPEN_REQUESTS: usize = 256;

/// What a sender is told to wait when too many wait already.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Batches that become durable in one flush of a keeper, so that many senders share its cost.
const MAX_BATCHES_PER_FLUSH: usize = 64;

/// Passes a batch on to an exporter while its sender waits. The sender does the repeating.
pub(crate) struct ToExporter {
    pub exporter: Arc<dyn Exporter>,
    pub book: Arc<ReaderBook>,
    pub sending: Sending,
    pub open: Arc<Semaphore>,
    pub runtime: Handle,
    /// None where the exporter has its own.
    circuit: Option<Arc<Circuit>>,
}

impl ToExporter {
    pub fn new(exporter: Arc<dyn Exporter>, book: Arc<ReaderBook>, sending: Sending, runtime: Handle) -> ToExporter {
        let circuit = (!exporter.has_circuits()).then(|| {
            let circuit = Circuit::new(&*book.exporter, as_senders_do(), book.circuit());
            Arc::new(circuit)
        });
        ToExporter {
            circuit,
            exporter,
            book,
            sending,
            open: Arc::new(Semaphore::new(MAX_OPEN_REQUESTS)),
            runtime,
        }
    }
}

/// The waits between two looks at a backend that is away: those that senders are told to make.
fn as_senders_do() -> Retry {
    Retry {
        initial_interval: BUSY_RETRY_AFTER,
        max_interval: BUSY_RETRY_AFTER,
        ..Retry::default()
    }
}

impl Entry for ToExporter {
    fn enter(&self, batch: Batch, ack: Ack) {
        let Ok(permit) = Arc::clone(&self.open).try_acquire_owned() else {
            return ack.resolve(Outcome::retry(BUSY_RETRY_AFTER, Reason::TooBusy));
        };
        let exporter = Arc::clone(&self.exporter);
        let book = Arc::clone(&self.book);
        let timeout = self.sending.timeout;
        let circuit = self.circuit.clone();
        self.runtime.spawn(async move {
            let (items, bytes) = (u64::from(batch.items), batch.payload.len() as u64);
            let pass = match circuit.as_ref().map(|circuit| circuit.try_enter()) {
                None => None,
                Some(Ok(pass)) => Some(pass),
                // Its sender need not wait for a timeout to hear what is known.
                Some(Err(_)) => {
                    book.retried();
                    return ack.resolve(Outcome::retry(BUSY_RETRY_AFTER, Reason::BackendUnavailable));
                }
            };
            let outcome = tokio::time::timeout(timeout, exporter.export(batch)).await;
            let outcome = outcome.unwrap_or(Outcome::retry(BUSY_RETRY_AFTER, Reason::BackendUnavailable));
            match (pass, &outcome) {
                (Some(pass), Outcome::Retry { after, .. }) => pass.failed(*after),
                (Some(pass), Outcome::Delivered | Outcome::Rejected { .. }) => pass.succeeded(),
                (None, _) => {}
            }
            account(&book, items, &outcome);
            let is_taken = match &outcome {
                Outcome::Delivered => true,
                Outcome::Rejected { items: rejected, .. } => u64::from(*rejected) < items,
                Outcome::Retry { .. } => false,
            };
            if is_taken {
                book.sent(bytes);
            }
            ack.resolve(outcome);
            drop(permit);
        });
    }
}

/// What was not taken stays with its sender and is no entry of ours.
fn account(book: &ReaderBook, items: u64, outcome: &Outcome) {
    let dropped = match outcome {
        Outcome::Delivered => 0,
        Outcome::Retry { reason, .. } => {
            book.waits(Some(*reason));
            return book.retried();
        }
        Outcome::Rejected {
            reason,
            items: rejected,
        } => {
            let rejected = u64::from(*rejected).min(items);
            book.dropped(rejected, reason.kind);
            rejected
        }
    };
    book.waits(None);
    book.accepted(items);
    book.delivered(items - dropped);
    book.passed(items);
}

/// Passes batches on to a keeper and answers when they are durable there. Positions are of this process only.
pub(crate) struct ToKeeper {
    queue: SyncSender<(Batch, Ack)>,
}

/// Who waits for a keeper, by position.
#[derive(Default)]
pub(crate) struct Waiting {
    acks: Mutex<HashMap<u64, (Ack, u64)>>,
}

impl Waiting {
    /// Positions have become durable.
    pub fn kept(&self, positions: RangeInclusive<u64>, book: &ReaderBook) {
        let mut resolved = Vec::new();
        {
            let mut acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
            let mut numbers: Vec<u64> = acks.keys().copied().filter(|seq| positions.contains(seq)).collect();
            numbers.sort_unstable();
            resolved.extend(numbers.iter().filter_map(|seq| acks.remove(seq)));
        }
        for (ack, items) in resolved {
            account(book, items, &Outcome::Delivered);
            ack.delivered();
        }
    }

    fn refuse(&self, positions: RangeInclusive<u64>, outcome: &Outcome, book: &ReaderBook) {
        let mut acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
        let refused: Vec<(Ack, u64)> = positions.filter_map(|seq| acks.remove(&seq)).collect();
        drop(acks);
        for (ack, items) in refused {
            let outcome = match outcome {
                Outcome::Rejected { reason, .. } => Outcome::Rejected {
                    reason: reason.clone(),
                    items: u32::try_from(items).unwrap_or(u32::MAX),
                },
                other => other.clone(),
            };
            account(book, items, &outcome);
            ack.resolve(outcome);
        }
    }
}

impl ToKeeper {
    /// Starts the keeper's thread; it ends when the last entry is gone.
    pub fn start(
        source: Arc<str>,
        journal: JournalId,
        keeper: Arc<dyn Keeper>,
        book: Arc<ReaderBook>,
        waiting: Arc<Waiting>,
    ) -> std::io::Result<ToKeeper> {
        let (queue, batches) = sync_channel(MAX_OPEN_REQUESTS);
        let worker = Worker {
            source,
            journal,
            keeper,
            book,
            waiting,
            next: 1,
        };
        std::thread::Builder::new()
            .name("keeper".into())
            .spawn(move || worker.run(&batches))?;
        Ok(ToKeeper { queue })
    }
}

impl Entry for ToKeeper {
    fn enter(&self, batch: Batch, ack: Ack) {
        match self.queue.try_send((batch, ack)) {
            Ok(()) => {}
            Err(TrySendError::Full((_, ack))) => ack.resolve(Outcome::retry(BUSY_RETRY_AFTER, Reason::TooBusy)),
            Err(TrySendError::Disconnected((_, ack))) => drop(ack),
        }
    }
}

struct Worker {
    source: Arc<str>,
    journal: JournalId,
    keeper: Arc<dyn Keeper>,
    book: Arc<ReaderBook>,
    waiting: Arc<Waiting>,
    next: u64,
}

impl Worker {
    fn run(mut self, batches: &Receiver<(Batch, Ack)>) {
        while let Ok(first) = batches.recv() {
            let mut group = vec![first];
            while group.len() < MAX_BATCHES_PER_FLUSH
                && let Ok(more) = batches.try_recv()
            {
                group.push(more);
            }
            let positions = self.next..=self.next + group.len() as u64 - 1;
            self.next += group.len() as u64;
            let mut taken = Vec::with_capacity(group.len());
            {
                let mut acks = self.waiting.acks.lock().unwrap_or_else(PoisonError::into_inner);
                for (seq, (batch, ack)) in positions.clone().zip(group) {
                    acks.insert(seq, (ack, u64::from(batch.items)));
                    taken.push(batch);
                }
            }
            let kept = self.keeper.keep(&self.source, self.journal, positions.clone(), &taken);
            let outcome = match kept.and_then(|()| self.keeper.flush()) {
                Ok(()) => continue,
                Err(KeepError::Later(message)) => {
                    tracing::warn!(exporter = %self.book.exporter, "{message}; senders are told to come back");
                    Outcome::retry(BUSY_RETRY_AFTER, Reason::BackendUnavailable)
                }
                Err(KeepError::Never(message)) => Outcome::rejected(Reason::BackendRejected, message, u32::MAX),
            };
            self.waiting.refuse(positions, &outcome, &self.book);
        }
    }
}
