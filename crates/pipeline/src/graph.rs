//! Why: the running thing. It is built from parts that are open already, hands each receiver its intake, and is drained in the order of the flow: doors
//! first, then the journal's readers, then the exporters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use journal::{Journal, OnFull, Ranges, ReaderError, ReaderOptions, ReaderStatus, Start};
use model::Signal;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::budget::Budget;
use crate::component::{Entry, Exporter, Keeper, OnKept, Processor, Sink};
use crate::dead_letter::DeadLetter;
use crate::direct::{ToExporter, ToKeeper, Waiting};
use crate::intake::{Intake, Routes};
use crate::keeping::Keeping;
use crate::ledger::{Ledger, ReaderBook};
use crate::line::{Appender, End, Line};
use crate::processors::Take;
use crate::reader::{Phase, ReaderTask, Source};
use crate::recent::{RECENT_BYTES, Recent};
use crate::sending::{self, Sending};

/// How long closing an exporter may take after its requests are settled: a file is flushed, a connection told goodbye.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// One exporter, open, as all its pipelines share it.
#[derive(Clone)]
pub struct ExporterPart {
    pub name: Arc<str>,
    pub sink: Sink,
    pub sending: Sending,
}

/// One pipeline, its components found.
pub struct PipelinePart {
    pub name: Arc<str>,
    pub signal: Signal,
    pub receivers: Vec<Arc<str>>,
    pub in_request: Vec<Arc<dyn Processor>>,
    pub take: Take,
    pub exporters: Vec<ExporterPart>,
}

/// What a graph is built from.
pub struct Parts {
    pub pipelines: Vec<PipelinePart>,
    /// Without one, exporters acknowledge.
    pub journal: Option<Journal>,
    pub budget: Budget,
    pub ledger: Ledger,
    /// Where readers run.
    pub runtime: Handle,
}

/// Why a graph could not be started.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    #[error("cannot read the journal for exporter `{exporter}` of pipeline `{pipeline}`: {source}")]
    Reader {
        pipeline: Arc<str>,
        exporter: Arc<str>,
        source: ReaderError,
    },
    #[error("cannot start a thread for exporter `{exporter}`: {source}")]
    Thread { exporter: Arc<str>, source: std::io::Error },
    #[error("cannot use the dead-letter directory of exporter `{exporter}`: {source}")]
    DeadLetter { exporter: Arc<str>, source: std::io::Error },
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything that was in the journal is delivered, except what a backend refuses for now.
    Settled,
    /// Time was up; what is left is in the journal.
    Abandoned,
}

/// A graph that runs.
pub struct Graph {
    intakes: HashMap<Arc<str>, Intake>,
    closed: Arc<AtomicBool>,
    phase: watch::Sender<Phase>,
    readers: Vec<JoinHandle<()>>,
    keepings: Vec<Arc<Keeping>>,
    exporters: Vec<Arc<dyn Exporter>>,
    keepers: Vec<Arc<dyn Keeper>>,
    journal: Option<Journal>,
}

impl Graph {
    /// Starts everything behind the doors. Receivers are started by the caller, with their [`Graph::intake`].
    pub fn start(parts: Parts) -> Result<Graph, GraphError> {
        let Parts {
            pipelines,
            journal,
            budget,
            ledger,
            runtime,
        } = parts;
        let mut builder = Builder {
            phase: watch::channel(Phase::Running).0,
            runtime,
            ledger,
            carried_below: journal.as_ref().map_or(0, |journal| journal.stats().next_seq),
            journal,
            readers: Vec::new(),
            keepings: Vec::new(),
            exporters: Vec::new(),
            keepers: Vec::new(),
            waiting: HashMap::new(),
            recent: Arc::new(Recent::new(budget.child("recent batches", RECENT_BYTES))),
            readers_memory: budget.child("readers", u64::MAX),
        };
        let doors = budget.child("doors", u64::MAX);
        let mut routes: HashMap<Arc<str>, Routes> = HashMap::new();
        for pipeline in &pipelines {
            for processor in &pipeline.in_request {
                processor.start(&budget);
                if let Some(book) = processor.book() {
                    builder.ledger.add_step(book);
                }
            }
            let end = builder.end_of(pipeline)?;
            let line: Arc<dyn Entry> = Arc::new(Line {
                processors: pipeline.in_request.clone(),
                end,
            });
            for receiver in &pipeline.receivers {
                routes
                    .entry(Arc::clone(receiver))
                    .or_default()
                    .push((pipeline.signal, Arc::clone(&line)));
            }
        }
        builder.start_keepings()?;
        let closed = Arc::new(AtomicBool::new(false));
        let ledger = builder.ledger;
        let intakes = routes
            .into_iter()
            .map(|(receiver, routes)| {
                let intake = Intake::with_gate(&receiver, &ledger, doors.clone(), routes, Arc::clone(&closed));
                (receiver, intake)
            })
            .collect();
        Ok(Graph {
            intakes,
            closed,
            phase: builder.phase,
            readers: builder.readers,
            keepings: builder.keepings,
            exporters: builder.exporters,
            keepers: builder.keepers.into_iter().map(|(keeper, _)| keeper).collect(),
            journal: builder.journal,
        })
    }

    /// The way in for a receiver; none if no pipeline names it.
    pub fn intake(&self, receiver: &str) -> Option<Intake> {
        self.intakes.get(receiver).cloned()
    }

    /// The journal's readers, those of earlier configurations included.
    pub fn readers(&self) -> Vec<ReaderStatus> {
        for keeping in &self.keepings {
            keeping.source.is_caught_up();
        }
        self.journal.as_ref().map(Journal::readers).unwrap_or_default()
    }

    /// Refuses what still comes in, lets readers finish what is in the journal (a backend that refuses is not waited for), has keepers make durable what
    /// they hold, and closes exporters and journal. After `grace` it stops where it is: nothing is lost, the journal has it.
    pub async fn drain(mut self, grace: Duration) -> Drained {
        self.closed.store(true, Ordering::Release);
        self.phase.send_replace(Phase::Draining);
        let readers = std::mem::take(&mut self.readers);
        let all = async {
            for reader in readers {
                if let Err(error) = reader.await {
                    tracing::error!("a reader broke: {error}");
                }
            }
        };
        let mut all = std::pin::pin!(all);
        let drained = match tokio::time::timeout(grace, &mut all).await {
            Ok(()) => Drained::Settled,
            Err(_) => {
                self.phase.send_replace(Phase::Abandoned);
                all.await;
                Drained::Abandoned
            }
        };
        let keepers = std::mem::take(&mut self.keepers);
        let flushed = tokio::task::spawn_blocking(move || {
            for keeper in keepers {
                if let Err(error) = keeper.flush() {
                    tracing::error!("not made durable; the journal has it: {error}");
                }
            }
        });
        if let Err(error) = flushed.await {
            tracing::error!("flushing broke: {error}");
        }
        for keeping in &self.keepings {
            keeping.source.is_caught_up();
        }
        for exporter in &self.exporters {
            if tokio::time::timeout(CLOSE_TIME, exporter.close()).await.is_err() {
                tracing::warn!("an exporter did not close in {CLOSE_TIME:?}");
            }
        }
        if let Some(journal) = self.journal.take() {
            let closed = tokio::task::spawn_blocking(move || journal.close());
            if let Err(error) = closed.await {
                tracing::error!("closing the journal broke: {error}");
            }
        }
        drained
    }
}

/// What `start` collects.
struct Builder {
    phase: watch::Sender<Phase>,
    runtime: Handle,
    ledger: Ledger,
    journal: Option<Journal>,
    carried_below: journal::Seq,
    readers: Vec<JoinHandle<()>>,
    keepings: Vec<Arc<Keeping>>,
    exporters: Vec<Arc<dyn Exporter>>,
    /// Each keeper once, with its exporter's name.
    keepers: Vec<(Arc<dyn Keeper>, Arc<str>)>,
    /// Without a journal: who waits for a keeper, by source.
    waiting: HashMap<Arc<str>, (Arc<Waiting>, Arc<ReaderBook>)>,
    recent: Arc<Recent>,
    /// What readers inflated and hold until it is sent or kept. It frees the journal, so it is counted and not refused; each reader bounds its own.
    readers_memory: Budget,
}

impl Builder {
    fn end_of(&mut self, pipeline: &PipelinePart) -> Result<End, GraphError> {
        let mut books = Vec::new();
        let mut direct: Vec<Arc<dyn Entry>> = Vec::new();
        for part in &pipeline.exporters {
            let book = self.ledger.reader(&pipeline.name, &part.name, pipeline.signal);
            books.push(Arc::clone(&book));
            match &part.sink {
                Sink::Exporter(exporter) if !self.exporters.iter().any(|known| Arc::ptr_eq(known, exporter)) => {
                    self.exporters.push(Arc::clone(exporter));
                }
                Sink::Keeper(keeper) if !self.keepers.iter().any(|(known, _)| Arc::ptr_eq(known, keeper)) => {
                    self.keepers.push((Arc::clone(keeper), Arc::clone(&part.name)));
                }
                Sink::Exporter(_) | Sink::Keeper(_) => {}
            }
            match self.journal.clone() {
                Some(journal) => self.behind(&journal, pipeline, part, book)?,
                None => direct.push(self.at_once(pipeline, part, book)?),
            }
        }
        Ok(match &self.journal {
            Some(journal) => End::Journal(Appender {
                journal: journal.clone(),
                stream: Arc::clone(&pipeline.name),
                books: books.into(),
                recent: Arc::clone(&self.recent),
            }),
            None => End::Direct(direct),
        })
    }

    /// A reader of the journal.
    fn behind(
        &mut self,
        journal: &Journal,
        pipeline: &PipelinePart,
        part: &ExporterPart,
        book: Arc<ReaderBook>,
    ) -> Result<(), GraphError> {
        let name = reader_name(&pipeline.name, &part.name);
        let start = match &part.sink {
            Sink::Exporter(_) => Start::Stored,
            Sink::Keeper(keeper) => {
                let (low, ranges) = keeper.covered(&name, journal.id().0);
                Start::At(Ranges::from_parts(low, ranges))
            }
        };
        let on_full = match part.sending.on_full {
            sending::OnFull::SkipOldest => OnFull::SkipOldest,
            sending::OnFull::Refuse => OnFull::Refuse,
        };
        let options = ReaderOptions {
            stream: Arc::clone(&pipeline.name),
            on_full,
            start,
        };
        let reader = journal.reader(&name, options).map_err(|source| GraphError::Reader {
            pipeline: Arc::clone(&pipeline.name),
            exporter: Arc::clone(&part.name),
            source,
        })?;
        let source = Source {
            journal: journal.clone(),
            reader,
            book,
            recent: Arc::clone(&self.recent),
            only_reader: pipeline.exporters.len() == 1,
            carried_below: self.carried_below,
        };
        match &part.sink {
            Sink::Exporter(exporter) => {
                let dead_letter = match &part.sending.dead_letter {
                    Some(directory) => Some(Arc::new(DeadLetter::open(directory.clone()).map_err(|source| {
                        GraphError::DeadLetter {
                            exporter: Arc::clone(&part.name),
                            source,
                        }
                    })?)),
                    None => None,
                };
                let task = ReaderTask {
                    source: Arc::new(source),
                    exporter: Arc::clone(exporter),
                    take: pipeline.take,
                    sending: Arc::new(part.sending.clone()),
                    dead_letter,
                    phase: self.phase.subscribe(),
                    memory: self.readers_memory.clone(),
                };
                self.readers.push(self.runtime.spawn(task.run()));
            }
            Sink::Keeper(keeper) => {
                self.keepings.push(Arc::new(Keeping::new(
                    source,
                    Arc::clone(keeper),
                    journal.id().0,
                    self.readers_memory.clone(),
                )));
            }
        }
        Ok(())
    }

    /// An exporter that acknowledges itself.
    fn at_once(
        &mut self,
        pipeline: &PipelinePart,
        part: &ExporterPart,
        book: Arc<ReaderBook>,
    ) -> Result<Arc<dyn Entry>, GraphError> {
        match &part.sink {
            Sink::Exporter(exporter) => {
                let runtime = self.runtime.clone();
                Ok(Arc::new(ToExporter::new(
                    Arc::clone(exporter),
                    book,
                    part.sending.clone(),
                    runtime,
                )))
            }
            Sink::Keeper(keeper) => {
                let name: Arc<str> = reader_name(&pipeline.name, &part.name).into();
                let waiting = Arc::new(Waiting::default());
                self.waiting
                    .insert(Arc::clone(&name), (Arc::clone(&waiting), Arc::clone(&book)));
                // Positions begin anew with each run, so each run is a journal of its own.
                let mut journal = [0; 16];
                fastrand::Rng::new().fill(&mut journal);
                let entry = ToKeeper::start(name, journal, Arc::clone(keeper), book, waiting).map_err(|source| {
                    GraphError::Thread {
                        exporter: Arc::clone(&part.name),
                        source,
                    }
                })?;
                Ok(Arc::new(entry))
            }
        }
    }

    /// Tells keepers whom to call, then lets their readers run.
    fn start_keepings(&mut self) -> Result<(), GraphError> {
        // Weak: the keeper holds the callback and the keeping holds the keeper, and who is in a ring never lets go of the journal.
        let keepings: HashMap<String, Weak<Keeping>> = self
            .keepings
            .iter()
            .map(|keeping| (keeping.source.reader.name().to_owned(), Arc::downgrade(keeping)))
            .collect();
        let waiting = std::mem::take(&mut self.waiting);
        let on_kept: OnKept = Arc::new(move |source, journal, positions| {
            let keeping = keepings.get(source).and_then(Weak::upgrade);
            if let Some(keeping) = keeping.filter(|keeping| keeping.journal == journal) {
                keeping.kept(positions);
            } else if let Some((waiting, book)) = waiting.get(source) {
                waiting.kept(positions, book);
            }
        });
        for (keeper, _) in &self.keepers {
            keeper.on_kept(Arc::clone(&on_kept));
        }
        for keeping in &self.keepings {
            let exporter = Arc::clone(&keeping.source.book.exporter);
            let (keeping, runtime, phase) = (Arc::clone(keeping), self.runtime.clone(), self.phase.subscribe());
            let (done, ended) = tokio::sync::oneshot::channel::<()>();
            std::thread::Builder::new()
                .name(format!("reader {}", keeping.source.book.pipeline))
                .spawn(move || {
                    keeping.run(&runtime, &phase);
                    drop(done);
                })
                .map_err(|source| GraphError::Thread { exporter, source })?;
            self.readers.push(self.runtime.spawn(async move { drop(ended.await) }));
        }
        Ok(())
    }
}

/// The name of a cursor in the journal. Neither part has a colon, so no two cursors share a name.
pub fn reader_name(pipeline: &str, exporter: &str) -> String {
    format!("{pipeline}:{exporter}")
}
