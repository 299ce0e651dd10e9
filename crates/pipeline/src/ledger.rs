//! Why: "nothing is lost" is a sum that anyone can check. Every item that arrives is entered once at its door and once per reader behind the
//! journal, and the books must balance:
//!
//! - at a door (receiver × signal): `received = acked + refused + rejected + in flight`;
//! - at a reader (pipeline × exporter): `accepted + carried = delivered + pending + dropped`, where *carried* is what an earlier run had
//!   acknowledged and this one found in the journal;
//! - at a processor that may drop: `incoming = outgoing + dropped + refused + rejected`.
//!
//! Each side of an equation is counted where it happens, never derived from the other: otherwise a check could not fail. Counters are atomics
//! without locks; a book is registered when the graph is built and found by its holder through an `Arc`.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use model::Signal;
use serde::Serialize;

use crate::ack::Outcome;
use crate::circuit::{CircuitState, Shown};
use crate::reason::Reason;

/// A count per [`Reason`].
#[derive(Debug)]
pub struct ByReason([AtomicU64; Reason::ALL.len()]);

impl Default for ByReason {
    fn default() -> ByReason {
        ByReason(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl ByReason {
    pub fn add(&self, reason: Reason, items: u64) {
        self.0[reason.index()].fetch_add(items, Ordering::Relaxed);
    }

    pub fn get(&self, reason: Reason) -> u64 {
        self.0[reason.index()].load(Ordering::Relaxed)
    }

    pub fn total(&self) -> u64 {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The reasons that occurred, with their counts.
    pub fn occurred(&self) -> Vec<(Reason, u64)> {
        Reason::ALL
            .into_iter()
            .map(|reason| (reason, self.get(reason)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// What went through one receiver for one signal, in items.
#[derive(Debug)]
pub struct DoorBook {
    pub receiver: Arc<str>,
    pub signal: Signal,
    received: AtomicU64,
    acked: AtomicU64,
    refused: ByReason,
    rejected: ByReason,
    in_flight: AtomicU64,
    requests: AtomicU64,
}

impl DoorBook {
    /// Items came in and wait for their outcome.
    pub fn entered(&self, items: u64) {
        self.in_flight.fetch_add(items, Ordering::Relaxed);
        self.received.fetch_add(items, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// The outcome of items that [`DoorBook::entered`].
    pub fn resolved(&self, items: u64, outcome: &Outcome) {
        match outcome {
            Outcome::Delivered => drop(self.acked.fetch_add(items, Ordering::Relaxed)),
            Outcome::Retry { reason, .. } => self.refused.add(*reason, items),
            Outcome::Rejected { reason, items: lost } => {
                let lost = u64::from(*lost).min(items);
                self.rejected.add(reason.kind, lost);
                self.acked.fetch_add(items - lost, Ordering::Relaxed);
            }
        }
        self.in_flight.fetch_sub(items, Ordering::Relaxed);
    }

    /// Items that the receiver itself turned away, to be sent again.
    pub fn refused(&self, items: u64, reason: Reason) {
        self.received.fetch_add(items, Ordering::Relaxed);
        self.refused.add(reason, items);
    }

    /// Items that the receiver itself turned away for good.
    pub fn rejected(&self, items: u64, reason: Reason) {
        self.received.fetch_add(items, Ordering::Relaxed);
        self.rejected.add(reason, items);
    }

    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }
}

/// What one pipeline handed to one exporter, in items.
#[derive(Debug)]
pub struct ReaderBook {
    pub pipeline: Arc<str>,
    pub exporter: Arc<str>,
    pub signal: Signal,
    accepted: AtomicU64,
    carried: AtomicU64,
    delivered: AtomicU64,
    /// Below zero for a moment, when a reader is quicker than the callback that tells of the append.
    pending: AtomicI64,
    dropped: ByReason,
    retries: AtomicU64,
    sent_bytes: AtomicU64,
    active_series: AtomicU64,
    skipped_records: AtomicU64,
    circuit: Shown,
    /// Of the last attempt: none if the backend answered, else the place of the reason in `Reason::ALL`, from 1.
    waits: AtomicU8,
}

impl ReaderBook {
    /// Where the circuit before this reader's backend shows how it stands.
    pub fn circuit(&self) -> Shown {
        self.circuit.clone()
    }

    /// Items became durable in the journal for this reader (or entered the exporter, when there is no journal).
    pub fn accepted(&self, items: u64) {
        self.accepted.fetch_add(items, Ordering::Relaxed);
        self.pending.fetch_add(items as i64, Ordering::Relaxed);
    }

    /// Items that an earlier run had acknowledged and the journal still held.
    pub fn carried(&self, items: u64) {
        self.carried.fetch_add(items, Ordering::Relaxed);
        self.pending.fetch_add(items as i64, Ordering::Relaxed);
    }

    /// The exporter's answer for items that will not be sent again.
    pub fn delivered(&self, items: u64) {
        self.delivered.fetch_add(items, Ordering::Relaxed);
    }

    /// Items that will not be sent again and did not arrive.
    pub fn dropped(&self, items: u64, reason: Reason) {
        self.dropped.add(reason, items);
    }

    /// The cursor has passed these items.
    pub fn passed(&self, items: u64) {
        self.pending.fetch_sub(items as i64, Ordering::Relaxed);
    }

    /// Bytes of OTLP, before compression, of a request of which the backend took at least a part: what backends that are paid by volume count, within
    /// the difference that their own format makes.
    pub fn sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// About how many series the exporter has sent lately, by all pipelines together.
    pub fn active_series(&self, count: u64) {
        self.active_series.store(count, Ordering::Relaxed);
    }

    /// A request to the backend is tried once more.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Why the last attempt is to be repeated; `None` if it was answered for good.
    pub fn waits(&self, because: Option<Reason>) {
        let code = because.map_or(0, |reason| reason.index() as u8 + 1);
        self.waits.store(code, Ordering::Relaxed);
    }

    fn waits_because(&self) -> Option<Reason> {
        let code = usize::from(self.waits.load(Ordering::Relaxed));
        Reason::ALL.get(code.checked_sub(1)?).copied()
    }

    pub fn deliveries(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Items behind the journal whose outcome is open.
    pub fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed).max(0) as u64
    }

    pub fn drops(&self) -> &ByReason {
        &self.dropped
    }

    /// How many records of this reader the journal gave up unread, because it was full. It knows records, not items; once nothing else is
    /// pending (`at_rest`), what still is has been given up with them.
    pub fn skipped(&self, records: u64, at_rest: bool) {
        let before = self.skipped_records.load(Ordering::Relaxed);
        if !at_rest || records <= before {
            return;
        }
        self.skipped_records.store(records, Ordering::Relaxed);
        let items = self.pending();
        self.dropped(items, Reason::SkippedOldest);
        self.passed(items);
    }
}

/// What went through one processor, in items. A processor may stand in several pipelines: the counts are of all of them.
#[derive(Debug)]
pub struct StepBook {
    pub processor: Arc<str>,
    /// In the order of `Signal::ALL`.
    counts: [StepTally; Signal::ALL.len()],
    particulars: Mutex<Vec<Particular>>,
}

/// What only this kind of processor counts, under a metric's name.
#[derive(Debug)]
struct Particular {
    name: &'static str,
    labels: Vec<(&'static str, String)>,
    count: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct StepTally {
    incoming: AtomicU64,
    outgoing: AtomicU64,
    dropped: ByReason,
    refused: ByReason,
    rejected: ByReason,
    faults: AtomicU64,
}

impl StepBook {
    /// The book of the processor that the configuration calls `processor`.
    pub fn new(processor: &str) -> Arc<StepBook> {
        Arc::new(StepBook {
            processor: processor.into(),
            counts: Default::default(),
            particulars: Mutex::default(),
        })
    }

    fn tally(&self, signal: Signal) -> &StepTally {
        &self.counts[match signal {
            Signal::Traces => 0,
            Signal::Logs => 1,
            Signal::Metrics => 2,
        }]
    }

    /// Items that the processor is handed.
    pub fn incoming(&self, signal: Signal, items: u32) {
        self.tally(signal)
            .incoming
            .fetch_add(u64::from(items), Ordering::Relaxed);
    }

    /// Items that it passes on.
    pub fn outgoing(&self, signal: Signal, items: u32) {
        self.tally(signal)
            .outgoing
            .fetch_add(u64::from(items), Ordering::Relaxed);
    }

    /// A count that only this kind of processor has: a metric's name, which ends in `_total` unless it may fall, and its labels. Asked for again, it is the same.
    pub fn count<'a>(
        &self,
        name: &'static str,
        labels: impl IntoIterator<Item = (&'static str, &'a str)>,
    ) -> Arc<AtomicU64> {
        let labels: Vec<_> = labels.into_iter().map(|(key, value)| (key, value.to_owned())).collect();
        let mut particulars = self.particulars.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = particulars
            .iter()
            .find(|known| known.name == name && known.labels == labels)
        {
            return Arc::clone(&known.count);
        }
        let count = Arc::default();
        particulars.push(Particular {
            name,
            labels,
            count: Arc::clone(&count),
        });
        count
    }

    /// Items of a batch that it answered instead of passing it on.
    pub fn turned_away(&self, signal: Signal, items: u32, outcome: &Outcome) {
        let tally = self.tally(signal);
        match outcome {
            Outcome::Delivered => {}
            Outcome::Retry { reason, .. } => tally.refused.add(*reason, u64::from(items)),
            Outcome::Rejected { reason, .. } => tally.rejected.add(reason.kind, u64::from(items)),
        }
    }

    /// Items that it dropped; told by the processor, where it drops them.
    pub fn dropped(&self, signal: Signal, items: u32, reason: Reason) {
        self.tally(signal).dropped.add(reason, u64::from(items));
    }

    /// Something failed, and the item went on or was left as it was.
    pub fn fault(&self, signal: Signal) {
        self.tally(signal).faults.fetch_add(1, Ordering::Relaxed);
    }

    pub fn faults(&self, signal: Signal) -> u64 {
        self.tally(signal).faults.load(Ordering::Relaxed)
    }

    pub fn drops(&self, signal: Signal) -> &ByReason {
        &self.tally(signal).dropped
    }
}

/// All books of a process. Clones are the same ledger.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    books: Arc<Mutex<Books>>,
}

#[derive(Debug, Default)]
struct Books {
    doors: Vec<Arc<DoorBook>>,
    readers: Vec<Arc<ReaderBook>>,
    steps: Vec<Arc<StepBook>>,
}

impl Ledger {
    pub fn new() -> Ledger {
        Ledger::default()
    }

    /// The book of a door; the same one when it is asked for again, so that a reload goes on counting.
    pub fn door(&self, receiver: &str, signal: Signal) -> Arc<DoorBook> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(book) = books
            .doors
            .iter()
            .find(|book| *book.receiver == *receiver && book.signal == signal)
        {
            return Arc::clone(book);
        }
        let book = Arc::new(DoorBook {
            receiver: receiver.into(),
            signal,
            received: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            refused: ByReason::default(),
            rejected: ByReason::default(),
            in_flight: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        });
        books.doors.push(Arc::clone(&book));
        book
    }

    /// The book of a reader; the same one when it is asked for again.
    pub fn reader(&self, pipeline: &str, exporter: &str, signal: Signal) -> Arc<ReaderBook> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(book) = books
            .readers
            .iter()
            .find(|book| *book.pipeline == *pipeline && *book.exporter == *exporter)
        {
            return Arc::clone(book);
        }
        let book = Arc::new(ReaderBook {
            pipeline: pipeline.into(),
            exporter: exporter.into(),
            signal,
            accepted: AtomicU64::new(0),
            carried: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            pending: AtomicI64::new(0),
            dropped: ByReason::default(),
            retries: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            active_series: AtomicU64::new(0),
            skipped_records: AtomicU64::new(0),
            circuit: Shown::default(),
            waits: AtomicU8::new(0),
        });
        books.readers.push(Arc::clone(&book));
        book
    }

    /// Takes the book of a processor among its own; once, however many pipelines the processor stands in.
    pub fn add_step(&self, book: &Arc<StepBook>) {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        if !books.steps.iter().any(|known| Arc::ptr_eq(known, book)) {
            books.steps.push(Arc::clone(book));
        }
    }

    /// All counts now. While items move, counts of one moment and the next mix; at rest they are exact.
    pub fn snapshot(&self) -> Snapshot {
        let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let reasons = |counts: &ByReason| Reasons(counts.occurred());
        Snapshot {
            doors: books
                .doors
                .iter()
                .map(|book| DoorCounts {
                    receiver: book.receiver.to_string(),
                    signal: book.signal.as_str(),
                    requests: load(&book.requests),
                    received: load(&book.received),
                    acked: load(&book.acked),
                    refused: reasons(&book.refused),
                    rejected: reasons(&book.rejected),
                    in_flight: load(&book.in_flight),
                })
                .collect(),
            readers: books
                .readers
                .iter()
                .map(|book| ReaderCounts {
                    pipeline: book.pipeline.to_string(),
                    exporter: book.exporter.to_string(),
                    signal: book.signal.as_str(),
                    accepted: load(&book.accepted),
                    carried: load(&book.carried),
                    delivered: load(&book.delivered),
                    pending: book.pending.load(Ordering::Relaxed),
                    dropped: reasons(&book.dropped),
                    skipped_records: load(&book.skipped_records),
                    retries: load(&book.retries),
                    sent_bytes: load(&book.sent_bytes),
                    active_series: load(&book.active_series),
                    circuit: book.circuit.get(),
                    waits_because: book.waits_because().map(Reason::as_str),
                })
                .collect(),
            processors: books
                .steps
                .iter()
                .flat_map(|book| Signal::ALL.map(|signal| (book, signal, book.tally(signal))))
                .filter(|(_, _, tally)| load(&tally.incoming) > 0)
                .map(|(book, signal, tally)| StepCounts {
                    processor: book.processor.to_string(),
                    signal: signal.as_str(),
                    incoming: load(&tally.incoming),
                    outgoing: load(&tally.outgoing),
                    dropped: reasons(&tally.dropped),
                    refused: reasons(&tally.refused),
                    rejected: reasons(&tally.rejected),
                    faults: load(&tally.faults),
                })
                .collect(),
            particulars: books
                .steps
                .iter()
                .flat_map(|book| {
                    let particulars = book.particulars.lock().unwrap_or_else(PoisonError::into_inner);
                    let counts = particulars.iter().map(|particular| ParticularCount {
                        processor: book.processor.to_string(),
                        name: particular.name,
                        labels: particular.labels.clone(),
                        count: load(&particular.count),
                    });
                    counts.collect::<Vec<_>>()
                })
                .collect(),
        }
    }

    /// The books as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::to_value(self.snapshot()).unwrap_or_default()
    }

    /// Whether the books balance. Meant for moments of rest (after a drain, at the end of a test).
    pub fn balance(&self) -> Result<(), Imbalance> {
        self.snapshot().balance()
    }
}

/// The counts of all books.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Snapshot {
    pub doors: Vec<DoorCounts>,
    pub readers: Vec<ReaderCounts>,
    pub processors: Vec<StepCounts>,
    /// What processors count that others do not, for metrics.
    #[serde(skip)]
    pub particulars: Vec<ParticularCount>,
}

/// A count of a processor that others do not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticularCount {
    pub processor: String,
    /// A metric's name; what ends in `_total` never falls.
    pub name: &'static str,
    pub labels: Vec<(&'static str, String)>,
    pub count: u64,
}

/// One door's counts, in items.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct DoorCounts {
    pub receiver: String,
    pub signal: &'static str,
    pub requests: u64,
    pub received: u64,
    pub acked: u64,
    pub refused: Reasons,
    pub rejected: Reasons,
    pub in_flight: u64,
}

/// One reader's counts, in items.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct ReaderCounts {
    pub pipeline: String,
    pub exporter: String,
    pub signal: &'static str,
    pub accepted: u64,
    pub carried: u64,
    pub delivered: u64,
    pub pending: i64,
    pub dropped: Reasons,
    pub skipped_records: u64,
    pub retries: u64,
    /// Bytes of OTLP, before compression; none for the store.
    pub sent_bytes: u64,
    /// Of an exporter whose backend keeps series: about how many it was sent lately, as of the last request.
    pub active_series: u64,
    /// Whether requests go to the backend, or one at a time goes to see whether it is back.
    pub circuit: CircuitState,
    /// Why what was tried last is to be tried again; none if the backend took or refused it.
    pub waits_because: Option<&'static str>,
}

/// The counts of one processor for one signal, in items.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct StepCounts {
    pub processor: String,
    pub signal: &'static str,
    pub incoming: u64,
    pub outgoing: u64,
    pub dropped: Reasons,
    pub refused: Reasons,
    pub rejected: Reasons,
    /// How often something failed on an item that went on all the same.
    pub faults: u64,
}

/// The reasons that occurred, with their counts; a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reasons(pub Vec<(Reason, u64)>);

impl Reasons {
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

impl Serialize for Reasons {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(reason, count)| (reason.as_str(), count)))
    }
}

impl Snapshot {
    pub fn balance(&self) -> Result<(), Imbalance> {
        let mut lines = Vec::new();
        for door in &self.doors {
            let out = door.acked + door.refused.total() + door.rejected.total() + door.in_flight;
            if out != door.received {
                lines.push(format!(
                    "{} {}: received {} but acked {} + refused {} + rejected {} + in flight {} = {out}",
                    door.receiver,
                    door.signal,
                    door.received,
                    door.acked,
                    door.refused.total(),
                    door.rejected.total(),
                    door.in_flight,
                ));
            }
        }
        for reader in &self.readers {
            let out = (reader.delivered + reader.dropped.total()) as i64 + reader.pending;
            let taken = (reader.accepted + reader.carried) as i64;
            if out != taken {
                lines.push(format!(
                    "{} to {}: accepted {} + carried {} = {taken} but delivered {} + pending {} + dropped {} = {out}",
                    reader.pipeline,
                    reader.exporter,
                    reader.accepted,
                    reader.carried,
                    reader.delivered,
                    reader.pending,
                    reader.dropped.total(),
                ));
            }
        }
        for step in &self.processors {
            let (dropped, refused, rejected) = (step.dropped.total(), step.refused.total(), step.rejected.total());
            let out = step.outgoing + dropped + refused + rejected;
            if out != step.incoming {
                lines.push(format!(
                    "{} {}: incoming {} but outgoing {} + dropped {dropped} + refused {refused} + rejected {rejected} = {out}",
                    step.processor, step.signal, step.incoming, step.outgoing,
                ));
            }
        }
        if lines.is_empty() {
            Ok(())
        } else {
            Err(Imbalance { lines })
        }
    }
}

/// Which books do not balance, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imbalance {
    pub lines: Vec<String>,
}

impl fmt::Display for Imbalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the books do not balance: {}", self.lines.join("; "))
    }
}

impl std::error::Error for Imbalance {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_door_balances_over_all_outcomes() {
        let ledger = Ledger::new();
        let door = ledger.door("otlp", Signal::Traces);
        door.entered(10);
        door.resolved(10, &Outcome::Delivered);
        door.entered(7);
        door.resolved(7, &Outcome::retry(Duration::from_secs(1), Reason::JournalFull));
        door.entered(5);
        door.resolved(5, &Outcome::rejected(Reason::TooLarge, "too large", 2));
        door.refused(3, Reason::MemoryLimit);
        door.rejected(1, Reason::BadId);
        door.entered(4);
        ledger.balance().expect("balanced");
        let counts = &ledger.snapshot().doors[0];
        assert_eq!((counts.received, counts.acked, counts.in_flight), (30, 13, 4));
        assert_eq!(
            ledger.json()["doors"][0]["refused"],
            serde_json::json!({"memory_limit": 3, "journal_full": 7})
        );
    }

    #[test]
    fn an_item_that_vanishes_in_a_processor_is_an_imbalance() {
        let ledger = Ledger::new();
        let book = StepBook::new("filter/health");
        ledger.add_step(&book);
        ledger.add_step(&book);
        book.incoming(Signal::Logs, 10);
        book.outgoing(Signal::Logs, 7);
        let imbalance = ledger.balance().expect_err("three are nowhere");
        assert_eq!(
            imbalance.lines,
            ["filter/health logs: incoming 10 but outgoing 7 + dropped 0 + refused 0 + rejected 0 = 7"]
        );
        book.dropped(Signal::Logs, 3, Reason::Filtered);
        book.incoming(Signal::Traces, 4);
        book.turned_away(
            Signal::Traces,
            4,
            &Outcome::rejected(Reason::StatementFailed, "it failed", 4),
        );
        ledger.balance().expect("the drop is named");
        assert_eq!(
            ledger.json()["processors"][1]["dropped"],
            serde_json::json!({"filtered": 3})
        );
    }

    #[test]
    fn an_item_that_vanishes_behind_the_journal_is_an_imbalance() {
        let ledger = Ledger::new();
        let reader = ledger.reader("traces", "otlp", Signal::Traces);
        reader.accepted(10);
        reader.carried(2);
        reader.delivered(6);
        reader.passed(6);
        ledger.balance().expect("six delivered, six pending");
        reader.passed(1);
        let imbalance = ledger.balance().expect_err("one passed without an outcome");
        assert_eq!(
            imbalance.lines,
            ["traces to otlp: accepted 10 + carried 2 = 12 but delivered 6 + pending 5 + dropped 0 = 11"]
        );
        reader.dropped(1, Reason::BackendRejected);
        ledger.balance().expect("the drop is named");
    }
}
