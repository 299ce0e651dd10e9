//! Why: what stands between the journal and an exporter. It takes records as they become durable, forms requests, keeps a window of them in flight,
//! repeats what the backend refuses for now, and moves the cursor past what is settled. An exporter whose backend is down simply stands still here.

use std::sync::Arc;
use std::time::Duration;

use journal::{Delivery, Journal, Seq};
use model::{Batch, Compression, edit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ack::Outcome;
use crate::budget::{Budget, Lease};
use crate::circuit::{Circuit, Pass};
use crate::component::Exporter;
use crate::dead_letter::DeadLetter;
use crate::ledger::ReaderBook;
use crate::processors::Take;
use crate::reason::Reason;
use crate::recent::Recent;
use crate::record::{self, RecordError};
use crate::sending::{Backoff, Sending};

mod waiting;
use waiting::Waiting;

/// Records that are taken from the journal at once.
const MAX_RECORDS: usize = 64;

/// Bytes of records, compressed, that are taken from the journal at once. They are inflated as requests are formed, one request's worth at a time.
const MAX_RECORD_BYTES: usize = 4 << 20;

/// The payload of one request, inflated: gRPC servers refuse messages over 4 MiB unless told otherwise.
const MAX_REQUEST_BYTES: usize = 3 << 20;

/// The payloads of requests of which only a part waits for its backend, in KiB: so much may wait beside the window while the other backends go on.
const MAX_PARKED_KIB: usize = 64 << 10;

/// How often a reader that stands still looks whether it has fallen behind its `queue_size`, and a draining one whether it has caught up.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What the graph wants of its readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Running,
    /// Nothing new comes: finish what is there, but repeat nothing.
    Draining,
    /// Stop now; what is not settled stays in the journal.
    Abandoned,
}

/// Resolves once the graph is in this phase or a later one, or gone.
pub(crate) async fn reached(mut phase: watch::Receiver<Phase>, at: Phase) {
    drop(phase.wait_for(|phase| *phase >= at).await);
}

/// One pipeline's reader for one exporter.
pub(crate) struct ReaderTask {
    pub source: Arc<Source>,
    pub exporter: Arc<dyn Exporter>,
    pub take: Take,
    pub sending: Arc<Sending>,
    pub dead_letter: Option<Arc<DeadLetter>>,
    pub phase: watch::Receiver<Phase>,
    /// Counts what is inflated here.
    pub memory: Budget,
}

/// A cursor of the journal with its book: what reading for an exporter and for a keeper have in common.
pub(crate) struct Source {
    pub journal: Journal,
    pub reader: journal::Reader,
    pub book: Arc<ReaderBook>,
    pub recent: Arc<Recent>,
    /// Whether nobody else reads this stream.
    pub only_reader: bool,
    /// Records below were appended by an earlier run.
    pub carried_below: Seq,
}

/// What a record turned out to be.
pub(crate) enum Taken {
    Batch(Seq, Batch),
    /// Nothing can be done with it; it has been counted and is to be passed.
    Unreadable(Seq),
    /// A newer version wrote it: it stays for one that can read it.
    Newer(Seq),
}

impl Source {
    /// The batch of a delivery, from memory if it is still there.
    pub fn take(&self, delivery: &Delivery) -> Taken {
        let carried = delivery.seq < self.carried_below;
        let recent = if carried {
            None
        } else {
            let only_reader_of = self.only_reader.then(|| self.reader.stream());
            self.recent.get(delivery.seq, only_reader_of)
        };
        let batch = match recent {
            Some(batch) => Ok(batch),
            None => record::to_batch(&delivery.record),
        };
        match batch {
            Ok(batch) => {
                if carried {
                    self.book.carried(u64::from(batch.items));
                }
                Taken::Batch(delivery.seq, batch)
            }
            Err(error @ RecordError::Newer(_)) => {
                tracing::error!(
                    reader = self.reader.name(),
                    seq = delivery.seq,
                    "{error}; it is left in the journal"
                );
                Taken::Newer(delivery.seq)
            }
            Err(error) => {
                let items = record::items(&delivery.record).map_or(0, u64::from);
                tracing::error!(
                    reader = self.reader.name(),
                    seq = delivery.seq,
                    items,
                    "{error}; it is passed over"
                );
                if carried {
                    self.book.carried(items);
                }
                self.book.dropped(items, Reason::UnreadableRecord);
                self.book.passed(items);
                Taken::Unreadable(delivery.seq)
            }
        }
    }

    /// Whether everything in the journal for this reader has been delivered to it. Also settles the book of what the journal gave up.
    pub fn is_caught_up(&self) -> bool {
        let readers = self.journal.readers();
        let Some(status) = readers.iter().find(|status| status.name == self.reader.name()) else {
            return true;
        };
        self.book.skipped(status.skipped_records, status.lag_records == 0);
        status.lag_records <= status.in_flight_records
    }

    fn lag_records(&self) -> u64 {
        let readers = self.journal.readers();
        readers
            .iter()
            .find(|status| status.name == self.reader.name())
            .map_or(0, |status| status.lag_records)
    }
}

/// Records that are settled together.
struct Group {
    seqs: Vec<Seq>,
    items: u64,
    requests: Vec<Batch>,
    held: Lease,
}

impl ReaderTask {
    /// Runs until the journal is closed or the graph says so.
    pub async fn run(mut self) {
        let window = Arc::new(Semaphore::new(self.sending.in_flight));
        let parking = Arc::new(Semaphore::new(MAX_PARKED_KIB));
        let own = !self.exporter.has_circuits() && self.sending.retry.enabled;
        let circuit = own.then(|| {
            let (name, retry) = (self.source.reader.name(), self.sending.retry.clone());
            Arc::new(Circuit::new(name, retry, self.source.book.circuit()))
        });
        let mut sends: JoinSet<()> = JoinSet::new();
        let mut waiting = Waiting::new(self.memory.charge(0));
        loop {
            while sends.try_join_next().is_some() {}
            let Some(permit) = self.permit(&window, &mut waiting).await else {
                break;
            };
            if !self.fill(&mut waiting).await {
                break;
            }
            let group = self.group(&mut waiting);
            let send = Send {
                source: Arc::clone(&self.source),
                exporter: Arc::clone(&self.exporter),
                sending: Arc::clone(&self.sending),
                dead_letter: self.dead_letter.clone(),
                phase: self.phase.clone(),
                circuit: circuit.clone(),
                place: Place {
                    in_window: Some(permit),
                    parking: Arc::clone(&parking),
                    parked: None,
                },
            };
            sends.spawn(send.run(group));
        }
        // What is in flight ends by itself, or stops at the phase; nothing is cut off that a backend may have taken.
        while sends.join_next().await.is_some() {}
    }

    /// A place in the window; none when everything is to stop. While the window is full, the oldest beyond `queue_size` are given up.
    async fn permit(&mut self, window: &Arc<Semaphore>, waiting: &mut Waiting) -> Option<OwnedSemaphorePermit> {
        loop {
            tokio::select! {
                biased;
                () = reached(self.phase.clone(), Phase::Abandoned) => return None,
                permit = Arc::clone(window).acquire_owned() => return permit.ok(),
                () = tokio::time::sleep(LOOK_INTERVAL), if self.sending.queue_size.is_some() => self.shed(waiting).await,
            }
        }
    }

    /// Gives up the oldest records beyond `queue_size`.
    async fn shed(&mut self, waiting: &mut Waiting) {
        let Some(queue_size) = self.sending.queue_size else {
            return;
        };
        let mut excess = self.source.lag_records().saturating_sub(queue_size);
        let mut passed = Vec::new();
        while excess > 0 {
            while waiting.is_empty() && self.take_next(waiting) {}
            if waiting.is_empty() {
                let received = self.source.reader.recv(MAX_RECORDS, MAX_RECORD_BYTES);
                match tokio::time::timeout(LOOK_INTERVAL, received).await {
                    Ok(Some(deliveries)) => {
                        waiting.raw.extend(deliveries);
                        continue;
                    }
                    // All that is left is in flight.
                    Ok(None) | Err(_) => break,
                }
            }
            let Some((seq, batch)) = waiting.pop_oldest(&self.take) else {
                break;
            };
            self.source.book.dropped(u64::from(batch.items), Reason::QueueFull);
            self.source.book.passed(u64::from(batch.items));
            passed.push(seq);
            excess -= 1;
        }
        if !passed.is_empty() {
            tracing::warn!(
                reader = self.source.reader.name(),
                records = passed.len(),
                "queue_size reached: the oldest are given up"
            );
            self.source.reader.ack_many(&passed);
        }
    }

    /// Waits until a request's worth is there, or its time is up; `false` when nothing more will come.
    async fn fill(&mut self, waiting: &mut Waiting) -> bool {
        loop {
            while !waiting.is_enough() && self.take_next(waiting) {}
            if waiting.is_enough() {
                return true;
            }
            let deadline = waiting.deadline(&self.take);
            if let Some(deadline) = deadline
                && (self.take.wait.is_zero() || Instant::now() >= deadline || *self.phase.borrow() != Phase::Running)
            {
                return true;
            }
            let draining = *self.phase.borrow() == Phase::Draining;
            let sleep_until = match deadline {
                Some(deadline) => deadline,
                None => Instant::now() + LOOK_INTERVAL,
            };
            let deliveries = tokio::select! {
                biased;
                () = reached(self.phase.clone(), Phase::Abandoned) => return false,
                deliveries = self.source.reader.recv(MAX_RECORDS, MAX_RECORD_BYTES) => deliveries,
                () = tokio::time::sleep_until(sleep_until), if draining || deadline.is_some() => {
                    if draining && waiting.is_empty() && self.source.is_caught_up() {
                        return false;
                    }
                    continue;
                }
                () = reached(self.phase.clone(), Phase::Draining), if !draining => continue,
            };
            match deliveries {
                Some(deliveries) => waiting.raw.extend(deliveries),
                None => return !waiting.is_empty(),
            }
        }
    }

    /// Inflates the next delivery; `false` if there is none.
    fn take_next(&self, waiting: &mut Waiting) -> bool {
        let Some(delivery) = waiting.raw.pop_front() else {
            return false;
        };
        match self.source.take(&delivery) {
            Taken::Batch(seq, batch) => waiting.push(&self.take, seq, batch),
            Taken::Unreadable(seq) => self.source.reader.ack(seq),
            Taken::Newer(_) => {}
        }
        true
    }

    /// The next records that make a request, and the request: several if it would be too large.
    fn group(&self, waiting: &mut Waiting) -> Group {
        let (seqs, batches): (Vec<Seq>, Vec<Batch>) = waiting.next_request(&self.take).into_iter().unzip();
        let items = batches.iter().map(|batch| u64::from(batch.items)).sum();
        let bytes: u64 = batches.iter().map(|batch| batch.payload.len() as u64).sum();
        let requests = match edit::concat(&batches) {
            Some(mut batch) => {
                if batches.len() > 1 && self.exporter.packs() == Some(Compression::Gzip) {
                    batch.wire = edit::concat_wires(&batches);
                }
                edit::split(&batch, self.take.max_items.unwrap_or(u32::MAX), MAX_REQUEST_BYTES)
            }
            // A stream is of one signal; were it not, each batch would go by itself.
            None => batches,
        };
        Group {
            seqs,
            items,
            requests,
            held: self.memory.charge(bytes),
        }
    }
}

/// The sending of one group.
struct Send {
    source: Arc<Source>,
    exporter: Arc<dyn Exporter>,
    sending: Arc<Sending>,
    dead_letter: Option<Arc<DeadLetter>>,
    phase: watch::Receiver<Phase>,
    /// None where a failure is final, and where the exporter has its own.
    circuit: Option<Arc<Circuit>>,
    place: Place,
}

/// What came of waiting for a turn.
enum Entered<'c> {
    Pass(Pass<'c>),
    TooLate,
    Stopping,
}

/// Where a group's sending stands: in the window, or beside it once only a part of it waits.
struct Place {
    in_window: Option<OwnedSemaphorePermit>,
    parking: Arc<Semaphore>,
    parked: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Makes room in the window, if there is some for this much beside it.
    fn park(&mut self, bytes: usize) {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        if self.in_window.is_some()
            && let Ok(parked) = Arc::clone(&self.parking).try_acquire_many_owned(kib)
        {
            self.parked = Some(parked);
            self.in_window = None;
        }
    }
}

impl Send {
    async fn run(mut self, mut group: Group) {
        let mut dropped: Vec<(Reason, u64)> = Vec::new();
        let requests = std::mem::take(&mut group.requests);
        let is_single = requests.len() == 1;
        for request in requests {
            let held = is_single.then_some(&mut group.held);
            let (items, bytes) = (u64::from(request.items), request.payload.len() as u64);
            match self.settle(request, held).await {
                Some(lost) => {
                    self.source.book.waits(None);
                    if lost.iter().map(|(_, items)| items).sum::<u64>() < items {
                        self.source.book.sent(bytes);
                        if let Some(count) = self.exporter.active_series() {
                            self.source.book.active_series(count);
                        }
                    }
                    dropped.extend(lost);
                }
                // Unsettled: the whole group stays in the journal and comes again.
                None => return,
            }
        }
        let book = &self.source.book;
        let lost: u64 = dropped.iter().map(|(_, items)| items).sum();
        for (reason, items) in dropped {
            book.dropped(items, reason);
        }
        book.delivered(group.items.saturating_sub(lost));
        book.passed(group.items);
        self.source.reader.ack_many(&group.seqs);
    }

    /// Tries until there is a final answer: `Some` with what was lost, or `None` if it is to be left for another time. `held` is the memory of a group
    /// that consists of this request.
    async fn settle(&mut self, mut request: Batch, mut held: Option<&mut Lease>) -> Option<Vec<(Reason, u64)>> {
        let mut lost: Vec<(Reason, u64)> = Vec::new();
        let retry = self.sending.retry.clone();
        let mut backoff = Backoff::new(&retry);
        let started = Instant::now();
        let circuit = self.circuit.clone();
        // After this nothing is tried again.
        let end = retry
            .max_elapsed_time
            .filter(|most| !most.is_zero())
            .map(|most| started + most);
        loop {
            let pass = match &circuit {
                None => None,
                Some(circuit) => match self.enter(circuit, end).await {
                    Entered::Pass(pass) => Some(pass),
                    Entered::TooLate => {
                        self.bury(&request, Reason::RetriesExhausted).await;
                        lost.push((Reason::RetriesExhausted, u64::from(request.items)));
                        return Some(lost);
                    }
                    Entered::Stopping => return None,
                },
            };
            let attempt = tokio::time::timeout(self.sending.timeout, self.exporter.export(request.clone()));
            let outcome = tokio::select! {
                biased;
                outcome = attempt => outcome.unwrap_or(Outcome::retry(Duration::ZERO, Reason::BackendUnavailable)),
                () = reached(self.phase.clone(), Phase::Abandoned) => return None,
            };
            match (pass, &outcome) {
                (Some(pass), Outcome::Retry { after, .. }) => pass.failed(*after),
                (Some(pass), Outcome::Delivered | Outcome::Rejected { .. }) => pass.succeeded(),
                (None, _) => {}
            }
            let (after, reason) = match outcome {
                Outcome::Delivered => return Some(lost),
                Outcome::Rejected {
                    reason,
                    items: rejected,
                } => {
                    let rejected = u64::from(rejected.min(request.items));
                    tracing::warn!(
                        reader = self.source.reader.name(),
                        items = rejected,
                        "rejected by the backend: {reason}"
                    );
                    self.bury(&request, reason.kind).await;
                    lost.push((reason.kind, rejected));
                    return Some(lost);
                }
                Outcome::Retry { after, reason } => (after, reason),
            };
            if let Some(left) = self.exporter.left(&request) {
                lost.extend(
                    left.refused
                        .map(|(reason, items)| (reason, u64::from(items.min(request.items)))),
                );
                let Some(rest) = left.batch else { return Some(lost) };
                if rest.items < request.items {
                    self.place.park(rest.payload.len());
                    if let Some(held) = held.as_deref_mut() {
                        held.shrink(rest.payload.len() as u64);
                    }
                }
                request = rest;
            }
            if !retry.enabled {
                self.bury(&request, reason).await;
                lost.push((reason, u64::from(request.items)));
                return Some(lost);
            }
            let wait = backoff.wait(after);
            if end.is_some_and(|end| Instant::now() + wait > end) {
                self.bury(&request, Reason::RetriesExhausted).await;
                lost.push((Reason::RetriesExhausted, u64::from(request.items)));
                return Some(lost);
            }
            self.source.book.waits(Some(reason));
            self.source.book.retried();
            // An open circuit says when it is somebody's turn.
            if circuit.as_ref().is_some_and(|circuit| !circuit.is_closed()) {
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // On the way out nothing is repeated: the journal has it for the next run.
                () = reached(self.phase.clone(), Phase::Draining) => return None,
            }
        }
    }

    /// Waits for its turn at the backend.
    async fn enter<'c>(&self, circuit: &'c Circuit, end: Option<Instant>) -> Entered<'c> {
        let is_over = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            pass = circuit.enter() => Entered::Pass(pass),
            () = is_over => Entered::TooLate,
            // The backend is known to be away: the journal has it for the next run.
            () = reached(self.phase.clone(), Phase::Draining) => Entered::Stopping,
        }
    }

    async fn bury(&self, request: &Batch, reason: Reason) {
        let Some(letters) = self.dead_letter.clone() else {
            return;
        };
        let request = request.clone();
        let put = tokio::task::spawn_blocking(move || letters.put(&request, reason)).await;
        match put {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => tracing::warn!(reader = self.source.reader.name(), "the dead-letter directory is full"),
            Ok(Err(error)) => tracing::warn!(
                reader = self.source.reader.name(),
                "cannot write a dead letter: {error}"
            ),
            Err(error) => tracing::warn!(
                reader = self.source.reader.name(),
                "writing a dead letter broke: {error}"
            ),
        }
    }
}
