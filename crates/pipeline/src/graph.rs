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
use crate::metadata::{self, Kept};
use crate::processors::Take;
use crate::reader::{Phase, ReaderTask, Source};
use crate::recent::{RECENT_BYTES, Recent};
use crate::sending::{self, Sending};
use crate::stage::MakeStage;
use crate::staging::{Memory, Outlet, Staging};

/// How long closing an exporter may take after its requests are settled: a file is flushed, a connection told goodbye.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// One exporter, open, as all its pipelines share it.
#[derive(Clone)]
pub struct ExporterPart {
    pub name: Arc<str>,
    pub sink: Sink,
    pub sending: Sending,
}

/// A processor that holds data, and the processors between it and the next journal.
pub struct StagePart {
    pub name: Arc<str>,
    pub make: MakeStage,
    pub then: Vec<Arc<dyn Processor>>,
}

/// What ends pipelines and begins others.
pub struct ConnectorPart {
    pub name: Arc<str>,
    pub make: MakeStage,
}

/// One pipeline, its components found.
pub struct PipelinePart {
    pub name: Arc<str>,
    pub signal: Signal,
    /// Receivers, and connectors that give to it.
    pub receivers: Vec<Arc<str>>,
    pub in_request: Vec<Arc<dyn Processor>>,
    pub stages: Vec<StagePart>,
    pub take: Take,
    pub exporters: Vec<ExporterPart>,
    /// Connectors that it ends in.
    pub connectors: Vec<Arc<str>>,
}

/// What a graph is built from.
pub struct Parts {
    pub pipelines: Vec<PipelinePart>,
    pub connectors: Vec<ConnectorPart>,
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
    #[error("`{name}` holds data, which would be lost with the process: it needs the journal")]
    NeedsJournal { name: Arc<str> },
    #[error("cannot read what `{name}` remembers in the journal: {source}")]
    Stage { name: Arc<str>, source: ReaderError },
    #[error("cannot use the dead-letter directory of exporter `{exporter}`: {source}")]
    DeadLetter { exporter: Arc<str>, source: std::io::Error },
    #[error(
        "behind the receiver `{receiver}` {names} different headers are named (`metadata_keys`, `from_context`), and requests keep at most {}; name fewer",
        metadata::MAX_KEYS
    )]
    ManyHeaders { receiver: Arc<str>, names: usize },
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
    /// In the order of the flow; each is told by itself, because what follows has to take what it gives out last.
    stages: Vec<StageAtWork>,
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
            mut pipelines,
            connectors,
            journal,
            budget,
            ledger,
            runtime,
        } = parts;
        if let Some((receiver, names)) = metadata::too_many(&pipelines) {
            return Err(GraphError::ManyHeaders { receiver, names });
        }
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
            budget: budget.clone(),
            stagings: Vec::new(),
            joints: connectors.into_iter().map(Joint::new).collect(),
        };
        let doors = budget.child("doors", u64::MAX);
        let mut routes: HashMap<Arc<str>, Routes> = HashMap::new();
        in_order_of_flow(&mut pipelines);
        for pipeline in &pipelines {
            let kept = Arc::new(Kept::of(pipeline, &pipelines));
            metadata::warn_of_lost(pipeline, &pipelines);
            let end = builder.end_of(pipeline, &kept)?;
            builder.start_processors(&pipeline.in_request);
            if let Some(book) = kept.book() {
                builder.ledger.add_step(book);
            }
            if let End::Journal(appender) = &end {
                let given = |joint: &&mut Joint| pipeline.receivers.contains(&joint.name);
                for joint in builder.joints.iter_mut().filter(given) {
                    joint.outlets.push(Outlet {
                        signal: pipeline.signal,
                        processors: pipeline.in_request.clone(),
                        kept: Arc::clone(&kept),
                        appender: appender.clone(),
                    });
                }
            }
            let line: Arc<dyn Entry> = Arc::new(Line {
                processors: pipeline.in_request.clone(),
                kept,
                end,
            });
            let is_connector = |name: &&Arc<str>| builder.joints.iter().any(|joint| joint.name == **name);
            for receiver in pipeline.receivers.iter().filter(|name| !is_connector(name)) {
                routes
                    .entry(Arc::clone(receiver))
                    .or_default()
                    .push((pipeline.signal, Arc::clone(&line)));
            }
        }
        let stages = builder.start_stages()?;
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
            stages,
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
        let (readers, stages) = (std::mem::take(&mut self.readers), std::mem::take(&mut self.stages));
        let (stage_phases, stages): (Vec<_>, Vec<_>) = stages.into_iter().unzip();
        let all = async {
            for (phase, stage) in stage_phases.iter().zip(stages) {
                raise(phase, Phase::Draining);
                if let Err(error) = stage.await {
                    tracing::error!("a stage broke: {error}");
                }
            }
            raise(&self.phase, Phase::Draining);
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
                raise(&self.phase, Phase::Abandoned);
                for phase in &stage_phases {
                    raise(phase, Phase::Abandoned);
                }
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

/// Never back: who is told last may have been told more already.
fn raise(sender: &watch::Sender<Phase>, to: Phase) {
    sender.send_if_modified(|phase| {
        let raises = *phase < to;
        *phase = to.max(*phase);
        raises
    });
}

/// What tells a stage to come to an end, and what resolves when it has.
type StageAtWork = (watch::Sender<Phase>, JoinHandle<()>);

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
    budget: Budget,
    /// Found so far, in the order of the flow.
    stagings: Vec<Staging>,
    joints: Vec<Joint>,
}

/// A connector between the pipelines on both sides of it.
struct Joint {
    name: Arc<str>,
    make: MakeStage,
    sources: Vec<Source>,
    outlets: Vec<Outlet>,
}

impl Joint {
    fn new(part: ConnectorPart) -> Joint {
        Joint {
            name: part.name,
            make: part.make,
            sources: Vec::new(),
            outlets: Vec::new(),
        }
    }
}

impl Builder {
    fn start_processors(&self, processors: &[Arc<dyn Processor>]) {
        for processor in processors {
            processor.start(&self.budget);
            if let Some(book) = processor.book() {
                self.ledger.add_step(book);
            }
        }
    }

    /// Where a pipeline's batches go from its door: into the journal before the first stage, or before the exporters.
    fn end_of(&mut self, pipeline: &PipelinePart, kept: &Kept) -> Result<End, GraphError> {
        if let Some(holds) = pipeline
            .stages
            .iter()
            .map(|stage| &stage.name)
            .chain(&pipeline.connectors)
            .next()
            && self.journal.is_none()
        {
            return Err(GraphError::NeedsJournal {
                name: Arc::clone(holds),
            });
        }
        let mut next = self.end_of_leg(
            pipeline,
            &stream_name(pipeline.name.as_ref(), pipeline.stages.iter().map(|stage| &*stage.name)),
        )?;
        for (at, stage) in pipeline.stages.iter().enumerate().rev() {
            let End::Journal(appender) = next else {
                unreachable!("a stage has the journal behind it");
            };
            self.start_processors(&stage.then);
            let stream = stream_name(
                pipeline.name.as_ref(),
                pipeline.stages[..at].iter().map(|stage| &*stage.name),
            );
            let book = self.ledger.reader(&pipeline.name, &stage.name, pipeline.signal);
            let journal = self.journal.clone().expect("looked at above");
            let source = self.source(
                &journal,
                &stream,
                pipeline,
                &stage.name,
                Arc::clone(&book),
                OnFull::Refuse,
                Start::Stored,
                false,
            )?;
            let name: Arc<str> = reader_name(&stream, &stage.name).into();
            self.stagings.push(Staging {
                memory: memory_of(&journal, &name)?,
                name,
                make: Arc::clone(&stage.make),
                journal: journal.clone(),
                sources: vec![source],
                outlets: vec![Outlet {
                    signal: pipeline.signal,
                    processors: stage.then.clone(),
                    kept: Arc::new(kept.behind_stage()),
                    appender,
                }],
                doors: Vec::new(),
                budget: self.budget.clone(),
                ledger: self.ledger.clone(),
                inflated: self.readers_memory.clone(),
            });
            next = End::Journal(Appender {
                journal,
                stream,
                books: [book].into(),
                recent: Arc::clone(&self.recent),
            });
        }
        // Found from the last to the first.
        let first = self.stagings.len() - pipeline.stages.len();
        self.stagings[first..].reverse();
        Ok(next)
    }

    /// What reads the last stream of a pipeline: its exporters and connectors.
    fn end_of_leg(&mut self, pipeline: &PipelinePart, stream: &Arc<str>) -> Result<End, GraphError> {
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
                Some(journal) => self.behind(&journal, stream, pipeline, part, book)?,
                None => direct.push(self.at_once(pipeline, part, book)?),
            }
        }
        for name in &pipeline.connectors {
            let book = self.ledger.reader(&pipeline.name, name, pipeline.signal);
            books.push(Arc::clone(&book));
            let journal = self.journal.clone().expect("a pipeline with connectors has one");
            let source = self.source(
                &journal,
                stream,
                pipeline,
                name,
                book,
                OnFull::Refuse,
                Start::Stored,
                is_only_reader(pipeline),
            )?;
            if let Some(joint) = self.joints.iter_mut().find(|joint| joint.name == *name) {
                joint.sources.push(source);
            }
        }
        Ok(match &self.journal {
            Some(journal) => End::Journal(Appender {
                journal: journal.clone(),
                stream: Arc::clone(stream),
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
        stream: &Arc<str>,
        pipeline: &PipelinePart,
        part: &ExporterPart,
        book: Arc<ReaderBook>,
    ) -> Result<(), GraphError> {
        let name = reader_name(stream, &part.name);
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
        let source = self.source(
            journal,
            stream,
            pipeline,
            &part.name,
            book,
            on_full,
            start,
            is_only_reader(pipeline),
        )?;
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
                    take: pipeline.take.clone(),
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

    /// A cursor over a stream.
    #[expect(clippy::too_many_arguments, reason = "each says one thing about the cursor")]
    fn source(
        &self,
        journal: &Journal,
        stream: &Arc<str>,
        pipeline: &PipelinePart,
        sink: &Arc<str>,
        book: Arc<ReaderBook>,
        on_full: OnFull,
        start: Start,
        only_reader: bool,
    ) -> Result<Source, GraphError> {
        let options = ReaderOptions {
            stream: Arc::clone(stream),
            on_full,
            start,
        };
        let reader = journal
            .reader(&reader_name(stream, sink), options)
            .map_err(|source| GraphError::Reader {
                pipeline: Arc::clone(&pipeline.name),
                exporter: Arc::clone(sink),
                source,
            })?;
        Ok(Source {
            journal: journal.clone(),
            reader,
            book,
            recent: Arc::clone(&self.recent),
            only_reader,
            carried_below: self.carried_below,
        })
    }

    /// Gives stages and connectors their memory back and lets them run, in the order of the flow.
    fn start_stages(&mut self) -> Result<Vec<StageAtWork>, GraphError> {
        let mut stagings = std::mem::take(&mut self.stagings);
        for joint in std::mem::take(&mut self.joints) {
            let Some(journal) = self.journal.clone().filter(|_| !joint.sources.is_empty()) else {
                continue;
            };
            let mut signals: Vec<Signal> = joint.outlets.iter().map(|outlet| outlet.signal).collect();
            signals.sort_unstable();
            signals.dedup();
            let doors = signals
                .into_iter()
                .map(|signal| (signal, self.ledger.door(&joint.name, signal)));
            // Behind the stages of the pipelines that end in it, before those of the pipelines that it begins.
            let begins = |staging: &Staging| {
                let reads = |outlet: &Outlet| {
                    staging
                        .sources
                        .iter()
                        .any(|source| source.reader.stream() == &*outlet.appender.stream)
                };
                joint.outlets.iter().any(reads)
            };
            let at = stagings.iter().position(begins).unwrap_or(stagings.len());
            stagings.insert(
                at,
                Staging {
                    memory: memory_of(&journal, &joint.name)?,
                    name: Arc::clone(&joint.name),
                    make: joint.make,
                    journal,
                    sources: joint.sources,
                    doors: doors.collect(),
                    outlets: joint.outlets,
                    budget: self.budget.clone(),
                    ledger: self.ledger.clone(),
                    inflated: self.readers_memory.clone(),
                },
            );
        }
        let mut running = Vec::new();
        for staging in stagings {
            let name = Arc::clone(&staging.name);
            let runtime = self.runtime.clone();
            let (phase, seen) = watch::channel(Phase::Running);
            let (done, ended) = tokio::sync::oneshot::channel::<()>();
            std::thread::Builder::new()
                .name(format!("stage {name}"))
                .spawn(move || {
                    staging.run(&runtime, &seen);
                    drop(done);
                })
                .map_err(|source| GraphError::Thread {
                    exporter: Arc::clone(&name),
                    source,
                })?;
            running.push((phase, self.runtime.spawn(async move { drop(ended.await) })));
        }
        Ok(running)
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

/// The name of a cursor in the journal: the stream, and who reads it. No component's name has a colon, so no two cursors share a name.
pub fn reader_name(stream: &str, reader: &str) -> String {
    format!("{stream}:{reader}")
}

/// The stream of the journal that a pipeline's batches lie in, behind these of its stages.
pub fn stream_name<'a>(pipeline: &str, stages: impl Iterator<Item = &'a str>) -> Arc<str> {
    stages
        .fold(pipeline.to_owned(), |stream, stage| reader_name(&stream, stage))
        .into()
}

fn memory_of(journal: &Journal, stage: &Arc<str>) -> Result<Memory, GraphError> {
    Memory::open(journal, stage).map_err(|source| GraphError::Stage {
        name: Arc::clone(stage),
        source,
    })
}

fn is_only_reader(pipeline: &PipelinePart) -> bool {
    pipeline.exporters.len() + pipeline.connectors.len() == 1
}

/// A pipeline that another one feeds through a connector comes behind it. There is no circle: the planner refuses it.
fn in_order_of_flow(pipelines: &mut Vec<PipelinePart>) {
    let mut rest = std::mem::take(pipelines);
    while !rest.is_empty() {
        let fed = |pipeline: &PipelinePart| {
            let feeds = |other: &PipelinePart| other.connectors.iter().any(|it| pipeline.receivers.contains(it));
            rest.iter().any(feeds)
        };
        let next = rest.iter().position(|pipeline| !fed(pipeline)).unwrap_or(0);
        pipelines.push(rest.remove(next));
    }
}
