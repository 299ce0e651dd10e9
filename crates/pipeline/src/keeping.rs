//! Why: what stands between the journal and an exporter that keeps data itself, the store. It runs on a thread of its own, because keeping is computing;
//! the cursor moves when the keeper says that positions are durable in it, never before.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use journal::Seq;
use model::Batch;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::budget::Budget;
use crate::component::{JournalId, KeepError, Keeper};
use crate::reader::{Phase, Source, Taken, reached};
use crate::reason::Reason;
use crate::record;

/// Records that are handed over at once.
const MAX_RECORDS: usize = 64;

/// Bytes of records, compressed, that are read at once.
const MAX_RECORD_BYTES: usize = 4 << 20;

/// What is inflated and handed over at once, unless one record alone is larger: seven times `MAX_RECORD_BYTES`, which is how well telemetry packs. A
/// sender whose requests pack a thousandfold gets them handed over one by one.
const MAX_INFLATED_BYTES: u64 = 32 << 20;

/// The first wait after the keeper said "later", doubled up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(5);

/// How often a draining reader looks whether it has caught up.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// One pipeline's reader for one keeper.
pub(crate) struct Keeping {
    pub source: Source,
    pub keeper: Arc<dyn Keeper>,
    pub journal: JournalId,
    /// Counts what is inflated here.
    memory: Budget,
    /// Handed over and not yet durable there: position and items.
    handed: Mutex<VecDeque<(Seq, u64)>>,
}

impl Keeping {
    pub fn new(source: Source, keeper: Arc<dyn Keeper>, journal: JournalId, memory: Budget) -> Keeping {
        Keeping {
            source,
            keeper,
            journal,
            memory,
            handed: Mutex::default(),
        }
    }

    /// Positions have become durable in the keeper.
    pub fn kept(&self, positions: RangeInclusive<u64>) {
        let (seqs, items) = self.take_back(&positions);
        self.source.book.delivered(items);
        self.source.book.passed(items);
        self.source.reader.ack_many(&seqs);
    }

    /// Reads and hands over until the journal is closed or the graph says so. Blocks its thread.
    pub fn run(&self, runtime: &Handle, phase: &watch::Receiver<Phase>) {
        let mut next = self.keeper.covered(self.source.reader.name(), self.journal).0;
        loop {
            let deliveries = runtime.block_on(async {
                loop {
                    let draining = *phase.borrow() == Phase::Draining;
                    tokio::select! {
                        biased;
                        () = reached(phase.clone(), Phase::Abandoned) => return None,
                        deliveries = self.source.reader.recv(MAX_RECORDS, MAX_RECORD_BYTES) => return deliveries,
                        () = tokio::time::sleep(LOOK_INTERVAL), if draining => {
                            if self.source.is_caught_up() {
                                return None;
                            }
                        }
                        () = reached(phase.clone(), Phase::Draining), if !draining => {}
                    }
                }
            });
            let Some(deliveries) = deliveries else { return };
            let mut run: Vec<(Seq, Batch)> = Vec::with_capacity(deliveries.len());
            let mut held = self.memory.charge(0);
            for delivery in &deliveries {
                let bytes = record::inflated_bytes(&delivery.record);
                if !run.is_empty() && held.bytes() + bytes > MAX_INFLATED_BYTES {
                    if !self.hand_over(&std::mem::take(&mut run), &mut next, runtime, phase) {
                        return;
                    }
                    held.shrink(0);
                }
                held.charge(bytes);
                match self.source.take(delivery) {
                    Taken::Batch(seq, batch) => run.push((seq, batch)),
                    Taken::Unreadable(seq) => self.source.reader.ack(seq),
                    // The range that is handed over must not cover what was left out.
                    Taken::Newer(seq) => {
                        if !self.hand_over(&std::mem::take(&mut run), &mut next, runtime, phase) {
                            return;
                        }
                        next = seq + 1;
                    }
                }
            }
            if !self.hand_over(&run, &mut next, runtime, phase) {
                return;
            }
        }
    }

    /// Gives a run of records to the keeper, as often as it takes; `false` when everything is to stop. The range begins at `next`, where the last one
    /// ended: what lies in between belongs to other streams, and ranges that join stay one.
    fn hand_over(
        &self,
        run: &[(Seq, Batch)],
        next: &mut Seq,
        runtime: &Handle,
        phase: &watch::Receiver<Phase>,
    ) -> bool {
        let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else {
            return true;
        };
        let positions = *first.min(next)..=*last;
        let batches: Vec<Batch> = run.iter().map(|(_, batch)| batch.clone()).collect();
        let mut wait = FIRST_WAIT;
        loop {
            // Before `keep`: the keeper may say that it is durable before it returns.
            let numbers = run.iter().map(|(seq, batch)| (*seq, u64::from(batch.items)));
            self.handed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(numbers);
            match self
                .keeper
                .keep(self.source.reader.name(), self.journal, positions.clone(), &batches)
            {
                Ok(()) => {
                    *next = last + 1;
                    return true;
                }
                // One record must not take its neighbours with it.
                Err(KeepError::Never(_)) if run.len() > 1 => {
                    self.take_back(&positions);
                    return run
                        .iter()
                        .all(|record| self.hand_over(std::slice::from_ref(record), next, runtime, phase));
                }
                Err(KeepError::Never(message)) => {
                    tracing::error!(
                        reader = self.source.reader.name(),
                        "not kept, and passed over: {message}"
                    );
                    let (seqs, items) = self.take_back(&positions);
                    self.source.book.dropped(items, Reason::BackendRejected);
                    self.source.book.passed(items);
                    self.source.reader.ack_many(&seqs);
                    // Not covered by the keeper, so a restart may try it again: better twice refused than never seen.
                    *next = last + 1;
                    return true;
                }
                Err(KeepError::Later(message)) => {
                    self.take_back(&positions);
                    tracing::warn!(reader = self.source.reader.name(), "not kept yet: {message}");
                    self.source.book.retried();
                    let stop = runtime.block_on(async {
                        tokio::select! {
                            () = tokio::time::sleep(wait) => false,
                            () = reached(phase.clone(), Phase::Draining) => true,
                        }
                    });
                    if stop {
                        return false;
                    }
                    wait = (wait * 2).min(LAST_WAIT);
                }
            }
        }
    }

    /// Removes what was handed over within these positions from the list; its positions and number of items.
    fn take_back(&self, positions: &RangeInclusive<u64>) -> (Vec<Seq>, u64) {
        let mut seqs = Vec::new();
        let mut items = 0;
        self.handed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(seq, of)| {
                let within = positions.contains(seq);
                if within {
                    seqs.push(*seq);
                    items += of;
                }
                !within
            });
        (seqs, items)
    }
}
