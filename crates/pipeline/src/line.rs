//! Why: the part of a pipeline that runs in the request. A batch passes the stateless processors and then becomes durable: in the journal, or, if there
//! is none, at the exporters.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use journal::{AppendError, Journal};
use model::Batch;

use crate::ack::{Ack, Outcome};
use crate::component::{Entry, Processor};
use crate::intake::SHUTDOWN_RETRY_AFTER;
use crate::ledger::ReaderBook;
use crate::metadata::Kept;
use crate::reason::Reason;
use crate::recent::Recent;
use crate::record;

/// What a client is told to wait when the journal cannot be written: somebody has to look at the disk first.
const FAILED_RETRY_AFTER: Duration = Duration::from_secs(30);

/// A pipeline as a door sees it.
pub(crate) struct Line {
    pub processors: Vec<Arc<dyn Processor>>,
    pub kept: Arc<Kept>,
    pub end: End,
}

pub(crate) enum End {
    Journal(Appender),
    /// One per exporter.
    Direct(Vec<Arc<dyn Entry>>),
}

/// Puts batches into a stream of the journal.
#[derive(Clone)]
pub(crate) struct Appender {
    pub journal: Journal,
    pub stream: Arc<str>,
    /// One per reader of the stream.
    pub books: Arc<[Arc<ReaderBook>]>,
    pub recent: Arc<Recent>,
}

/// Runs a batch through processors and counts what goes in and comes out. `Ok(None)` if nothing is left of it, as configured. What comes out has the headers
/// that are kept.
pub(crate) fn process(
    processors: &[Arc<dyn Processor>],
    kept: &Kept,
    mut batch: Batch,
) -> Result<Option<Batch>, Outcome> {
    for processor in processors {
        let (signal, items) = (batch.signal, batch.items);
        let book = processor.book();
        if let Some(book) = book {
            book.incoming(signal, items);
        }
        match processor.process(batch) {
            Ok(processed) => batch = processed,
            Err(outcome) => {
                if let Some(book) = book {
                    book.turned_away(signal, items, &outcome);
                }
                return Err(outcome);
            }
        }
        if let Some(book) = book {
            book.outgoing(signal, batch.items);
        }
        if batch.items == 0 && items > 0 {
            return Ok(None);
        }
    }
    kept.keep(batch).map(Some)
}

impl Entry for Line {
    fn enter(&self, batch: Batch, ack: Ack) {
        let batch = match process(&self.processors, &self.kept, batch) {
            Ok(Some(batch)) => batch,
            Ok(None) => return ack.resolve(Outcome::Delivered),
            Err(outcome) => return ack.resolve(outcome),
        };
        match &self.end {
            End::Journal(appender) => appender.append(batch, ack),
            End::Direct(exporters) => match NonZeroUsize::new(exporters.len()) {
                Some(ways) => {
                    for (exporter, part) in exporters.iter().zip(ack.split(ways)) {
                        exporter.enter(batch.clone(), part);
                    }
                }
                None => ack.resolve(Outcome::Rejected {
                    reason: Reason::NoPipeline.into(),
                    items: batch.items,
                }),
            },
        }
    }

    fn metadata_keys(&self) -> Vec<Arc<str>> {
        let read = self.processors.iter().flat_map(|processor| processor.metadata_keys());
        read.chain(self.kept.keys().iter().cloned()).collect()
    }
}

impl Appender {
    /// A batch has become durable in the stream. Called in the order of the numbers, on the journal's commit thread.
    pub fn appended(&self, seq: journal::Seq, batch: Batch) {
        for book in self.books.iter() {
            book.accepted(u64::from(batch.items));
        }
        self.recent.put(seq, &self.stream, batch);
    }

    fn append(&self, batch: Batch, ack: Ack) {
        let record = match record::from_batch(&self.stream, &batch) {
            Ok(record) => record,
            Err(error) => return ack.resolve(Outcome::rejected(Reason::TooLarge, error.to_string(), batch.items)),
        };
        let appender = self.clone();
        self.journal.append(record, move |appended| {
            let outcome = match appended {
                Ok(seq) => {
                    appender.appended(seq, batch);
                    Outcome::Delivered
                }
                Err(AppendError::Full { retry_after, .. }) => Outcome::retry(retry_after, Reason::JournalFull),
                Err(AppendError::Failed) => Outcome::retry(FAILED_RETRY_AFTER, Reason::JournalFailed),
                Err(AppendError::Closed) => Outcome::retry(SHUTDOWN_RETRY_AFTER, Reason::ShuttingDown),
                Err(error @ AppendError::TooLarge { .. }) => {
                    Outcome::rejected(Reason::TooLarge, error.to_string(), batch.items)
                }
            };
            ack.resolve(outcome);
        });
    }
}
