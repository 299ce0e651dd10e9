//! From a plan to a running system: one function that opens, starts and stops in order. Which components exist stands in `tables`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use exporters::Opening;
use exporters::prometheus::Beside;
use exporters::store::StoreExporter;
use journal::{Journal, RealDisk};
use net::{Doors, Listeners};
use pipeline::config::{Fsync, Journal as JournalChoice, JournalSettings};
use pipeline::graph::{self, ConnectorPart, Drained, ExporterPart, Graph, Parts, PipelinePart, StagePart};
use pipeline::plan::{Planned, PlannedPipeline, PlannedStage};
use pipeline::sending::Sending;
use pipeline::{Budget, Lease, Ledger, Sink, Watched};
use receivers::Mounted;
use store::{Reader, Store, Writer};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::extensions::Shown;
use crate::own_telemetry::{self, OwnTelemetry};
use crate::tables::{ExporterSettings, ExtensionSettings, ReceiverSettings, ServerPlan};
use crate::usage::{self, Usage};

/// Memory of the process before a `memory_limiter` says otherwise; the same as its default.
const BUDGET_BYTES: u64 = 512 << 20;
/// How long requests in flight may take to finish when the process stops.
const DOORS_GRACE: Duration = Duration::from_secs(5);
/// How long a scrape of the process's own metrics may take to finish when the process stops.
const OWN_DOOR_GRACE: Duration = Duration::from_millis(500);
/// How long exporters may take to deliver what the journal still holds; what is left is delivered after the next start.
const DRAIN_GRACE: Duration = Duration::from_secs(10);
/// The same at a reload, while which senders wait for their connections to be taken.
const RELOAD_GRACE: Duration = Duration::from_secs(2);
/// The folder, in the journal's, for what receivers must know after a restart: it goes where the journal goes.
const POSITIONS: &str = "positions";
/// The file there with what exporters sent this month.
const USAGE: &str = "usage.json";
/// Pause between two looks at whether the journal has been read to its end.
const REPLAY_POLL: Duration = Duration::from_millis(2);

/// The folder for what has no place of its own.
#[derive(Debug, Clone)]
pub struct DataDir {
    pub path: PathBuf,
    /// Somebody named it, and wants to hear if it cannot be used.
    pub is_asked: bool,
}

/// Where the journal is to lie.
pub struct JournalPlace {
    pub directory: PathBuf,
    is_asked: bool,
}

/// Where the journal is to lie, if there is to be one.
pub fn journal_place(plan: &ServerPlan, data_dir: &DataDir) -> Option<JournalPlace> {
    let asked = |directory| JournalPlace {
        directory,
        is_asked: true,
    };
    let elsewhere = || {
        let storage = plan.extensions.iter().find_map(|extension| match &extension.settings {
            ExtensionSettings::FileStorage(storage) => Some(asked(storage.journal())),
            _ => None,
        });
        storage.unwrap_or_else(|| JournalPlace {
            directory: data_dir.path.join("journal"),
            is_asked: data_dir.is_asked,
        })
    };
    match &plan.journal {
        JournalChoice::None => None,
        JournalChoice::Default => Some(elsewhere()),
        JournalChoice::Settings(settings) => Some(settings.directory.clone().map_or_else(elsewhere, asked)),
    }
}

/// The open store's two handles.
#[derive(Clone)]
struct OpenStore {
    writer: Arc<Writer>,
    reader: Reader,
    retention: Duration,
}

/// Everything that runs.
pub struct Running {
    doors: net::Open,
    /// Where the process tells of itself.
    own_door: Option<net::Open>,
    /// What receivers do by themselves.
    works: JoinSet<()>,
    stop_works: watch::Sender<bool>,
    graph: Graph,
    store: Option<OpenStore>,
    pub ledger: Ledger,
    usage: Usage,
    /// Until it has been waited for.
    replay: Option<tokio::task::JoinHandle<()>>,
    _journal_memory: Option<Lease>,
}

impl Running {
    /// Opens the store and the journal, starts the graph, then opens all doors at once.
    /// Sockets that `listeners` holds are used again.
    pub async fn start(plan: ServerPlan, data_dir: &DataDir, listeners: &mut Listeners) -> Result<Self> {
        let started = Instant::now();
        let place = journal_place(&plan, data_dir);
        let picture = plan.describe(place.as_ref().map(|it| it.directory.display().to_string()).as_deref());
        let store = open_store(&plan, &data_dir.path)?;
        let usage_file = place.as_ref().map(|place| place.directory.join(USAGE));
        let positions = place.as_ref().map(|place| place.directory.join(POSITIONS));
        let (journal, without_journal) = match place {
            Some(place) => open_journal(&plan.journal, place)?,
            None => (None, None),
        };
        let (budget, ledger) = (Budget::root("process", BUDGET_BYTES), Ledger::new());
        if let Some(store) = &store {
            budget.watch(uses_of_store(&store.reader));
        }
        // What the journal keeps for readers near the head is small and always there: its whole share is taken at once.
        let share = journal::MEMORY_BYTES as u64;
        let journal_memory = journal.as_ref().map(|_| budget.child("journal", share).charge(share));
        let mut shown = Shown {
            receivers: Vec::new(),
            reader: store.as_ref().map(|store| store.reader.clone()),
            retention: store.as_ref().map_or(Duration::ZERO, |store| store.retention),
            journal: journal.clone(),
            without_journal,
            ledger: ledger.clone(),
            budget: budget.clone(),
            ready: Arc::new(AtomicBool::new(false)),
            started,
            usage: Usage::open(
                usage_file.filter(|_| journal.is_some()),
                plan.telemetry.usage.budgets.clone(),
                usage::now_unix(),
            ),
            picture: picture.into(),
            extensions: plan.extensions.iter().map(|it| Arc::clone(&it.name)).collect(),
        };

        let own = Arc::new(OwnTelemetry::new(
            ledger.clone(),
            budget.clone(),
            journal.clone(),
            journal_bound(&plan.journal),
            &plan.telemetry.metrics,
        ));
        let own_place = own_telemetry::Place::of(&plan.telemetry.metrics)?;
        let answering = readers_for_answers(&plan);
        let mut doors = Doors::new();
        let mut is_beside = false;
        let mut beside = |endpoint: &net::Endpoint| {
            own_place.is_at(endpoint).then(|| {
                is_beside = true;
                own_telemetry::beside(&own)
            })
        };
        let exporters = open_exporters(plan.exporters, store.as_ref(), &mut doors, &budget, &mut beside)?;
        let pipelines = plan
            .pipelines
            .into_iter()
            .map(|pipeline| PipelinePart {
                stages: pipeline.stages.into_iter().map(stage_part).collect(),
                connectors: pipeline.connectors,
                exporters: exporters
                    .iter()
                    .filter(|part| pipeline.exporters.contains(&part.name))
                    .cloned()
                    .collect(),
                in_request: pipeline
                    .in_request
                    .into_iter()
                    .map(|(_, processor)| processor)
                    .collect(),
                name: pipeline.name,
                signal: pipeline.signal,
                receivers: pipeline.receivers,
                take: pipeline.take,
            })
            .collect();
        let runtime = tokio::runtime::Handle::current();
        let connectors = plan
            .connectors
            .into_iter()
            .map(|Planned { name, settings }| ConnectorPart { name, make: settings });
        let parts = Parts {
            pipelines,
            connectors: connectors.collect(),
            journal,
            budget,
            ledger: ledger.clone(),
            runtime,
        };
        let again = shown.journal.clone();
        let graph = match Graph::start(parts) {
            Ok(graph) => graph,
            Err(error) => {
                // Its readers end by themselves; the directory is to be free before that.
                if let Some(journal) = again {
                    tokio::task::spawn_blocking(move || journal.close()).await?;
                }
                return Err(error).context("starting the pipelines");
            }
        };
        let mut receivers = plan.receivers;
        if let Some(positions) = positions.filter(|_| shown.journal.is_some()) {
            receivers
                .iter_mut()
                .for_each(|receiver| receiver.settings.remember_in(&positions));
        }
        let opened = async {
            let (doors, works) = open_doors((receivers, plan.extensions), &graph, &mut shown, doors, listeners).await?;
            // It cannot fail: this is the one place that says so.
            let _ = own.receivers.set(shown.receivers.clone());
            let _ = own.usage.set(shown.usage.clone());
            let own_door = match is_beside {
                true => None,
                false => own_telemetry::open(&own, &own_place, doors.addresses()).await?,
            };
            Ok((doors, own_door, works))
        };
        let (doors, own_door, works) = match opened.await {
            Ok(opened) => opened,
            Err(error) => {
                // Whoever starts next finds journal and store free.
                graph.drain(Duration::ZERO).await;
                close_store(store).await?;
                return Err(error);
            }
        };
        let (stop_works, stop) = watch::channel(false);
        let mut running_works = JoinSet::new();
        for work in works {
            running_works.spawn(work(stop.clone()));
        }
        running_works.spawn(shown.usage.clone().run(ledger.clone(), stop.clone()));
        let usage = shown.usage.clone();
        let replay = tokio::spawn(replayed(shown.journal, answering, shown.ready));
        Ok(Self {
            doors,
            own_door,
            works: running_works,
            stop_works,
            graph,
            store,
            ledger,
            usage,
            replay: Some(replay),
            _journal_memory: journal_memory,
        })
    }

    /// Resolves when everything that the journal held at the start answers queries.
    pub async fn ready(&mut self) {
        if let Some(replay) = &mut self.replay
            && let Err(error) = replay.await
        {
            tracing::error!("waiting for the replay broke: {error}");
        }
        self.replay = None;
    }

    /// Whether [`Running::ready`] has resolved.
    pub fn is_ready(&self) -> bool {
        self.replay.is_none()
    }

    /// Stops in the order of the flow: doors, pipelines, store.
    pub async fn stop(self) -> Result<()> {
        self.end(false, DRAIN_GRACE).await.map(drop)
    }

    /// Stops as well, but keeps the sockets listening for whoever starts next, and does not wait long for backends: what they have not taken comes again.
    pub async fn make_way(self) -> Result<Listeners> {
        self.end(true, RELOAD_GRACE).await
    }

    async fn end(mut self, keeps: bool, drain_grace: Duration) -> Result<Listeners> {
        if let Some(replay) = self.replay {
            replay.abort();
        }
        // It fails only if no receiver is left that would hear it.
        let _ = self.stop_works.send(true);
        let ended = async { while self.works.join_next().await.is_some() {} };
        let doors = async {
            match keeps {
                true => self.doors.shutdown_keeping(DOORS_GRACE).await,
                false => (self.doors.shutdown(DOORS_GRACE).await, Listeners::default()),
            }
        };
        let ((served, listeners), ended) = tokio::join!(doors, tokio::time::timeout(DOORS_GRACE, ended));
        if ended.is_err() {
            tracing::warn!(
                "a receiver was still at work after {DOORS_GRACE:?}; it goes on from there after the next start"
            );
            self.works.abort_all();
        }
        if !served {
            tracing::warn!("requests were still in flight after {DOORS_GRACE:?}; their senders will try again");
        }
        if self.graph.drain(drain_grace).await == Drained::Abandoned {
            tracing::warn!(
                "not everything was delivered within {drain_grace:?}; the journal keeps it for the next start"
            );
        }
        let (usage, ledger) = (self.usage, self.ledger);
        let settled = tokio::task::spawn_blocking(move || usage.settle(&ledger, usage::now_unix())).await;
        if let Err(error) = settled {
            tracing::error!("this month's usage could not be kept: {error}");
        }
        if let Some(own_door) = self.own_door {
            own_door.shutdown(OWN_DOOR_GRACE).await;
        }
        close_store(self.store).await?;
        Ok(listeners)
    }
}

/// Mounts what listens and opens all doors at once; what receivers do by themselves is returned.
async fn open_doors(
    (receivers, extensions): (Vec<Planned<ReceiverSettings>>, Vec<Planned<ExtensionSettings>>),
    graph: &Graph,
    shown: &mut Shown,
    mut doors: Doors,
    listeners: &mut Listeners,
) -> Result<(net::Open, Vec<receivers::Work>)> {
    let mut works = Vec::new();
    for receiver in receivers {
        let mounted = mount_receiver(&receiver.name, receiver.settings, graph, &mut doors)?;
        shown.receivers.push((receiver.name, mounted.counters));
        works.extend(mounted.work);
    }
    for extension in extensions {
        match extension.settings {
            ExtensionSettings::Query(query) => query.mount(&extension.name, shown, &mut doors)?,
            ExtensionSettings::HealthCheck(health) => health.mount(&extension.name, shown, &mut doors)?,
            ExtensionSettings::Zpages(zpages) => zpages.mount(&extension.name, shown, &mut doors)?,
            ExtensionSettings::FileStorage(_) | ExtensionSettings::Authenticator => {}
        }
    }
    Ok((doors.open_with(listeners).await?, works))
}

async fn close_store(store: Option<OpenStore>) -> Result<()> {
    if let Some(store) = store {
        tokio::task::spawn_blocking(move || store.writer.close())
            .await?
            .context("closing the store")?;
    }
    Ok(())
}

fn open_store(plan: &ServerPlan, data_dir: &Path) -> Result<Option<OpenStore>> {
    let mut stores = plan.exporters.iter().filter_map(|exporter| match &exporter.settings {
        ExporterSettings::Store(config) => Some((&exporter.name, config)),
        _ => None,
    });
    let Some((name, config)) = stores.next() else {
        return Ok(None);
    };
    if let Some((second, _)) = stores.next() {
        bail!("`{name}` and `{second}` are both the store; one process keeps one, several pipelines may share it");
    }
    let directory = config.directory.clone().unwrap_or_else(|| data_dir.join("store"));
    let settings = config.settings();
    let retention = settings.traces.age.max(settings.logs.age);
    let (writer, reader) = Store::open(&directory, settings)?;
    Ok(Some(OpenStore {
        writer: Arc::new(writer),
        reader,
        retention,
    }))
}

/// The store bounds its memory itself; what it holds leaves the doors so much less.
fn uses_of_store(reader: &Reader) -> Vec<Watched> {
    let watched = |name, held: fn(store::MemoryHeld) -> store::Held| {
        let reader = reader.clone();
        let usage = move || {
            let store::Held {
                used_bytes,
                limit_bytes,
                peak_bytes,
            } = held(reader.memory());
            pipeline::Usage {
                used_bytes,
                limit_bytes,
                peak_bytes,
            }
        };
        Watched {
            name,
            usage: Box::new(usage),
        }
    };
    vec![
        watched("store: memory chunks", |held| held.chunks),
        watched("store: flush", |held| held.flush),
        watched("store: merge", |held| held.merge),
        watched("store: open parts", |held| held.open_parts),
    ]
}

/// The journal; or, where the place that nobody asked for cannot be written, none and why.
fn open_journal(choice: &JournalChoice, place: JournalPlace) -> Result<(Option<Journal>, Option<Arc<str>>)> {
    let wanted = match choice {
        JournalChoice::Settings(settings) => settings.clone(),
        JournalChoice::Default | JournalChoice::None => JournalSettings::default(),
    };
    let settings = journal::Settings {
        max_bytes: wanted.max_bytes,
        max_age: wanted.max_age,
        segment_bytes: wanted.segment_bytes,
        fsync: match wanted.fsync {
            Fsync::Always => journal::Fsync::Always,
            Fsync::Interval(every) => journal::Fsync::Interval(every),
            Fsync::Off => journal::Fsync::Off,
        },
        min_free_bytes: wanted.min_free_bytes,
        ..journal::Settings::new(place.directory)
    };
    let (journal, recovery) = match Journal::open(settings, Arc::new(RealDisk)) {
        Err(error @ journal::OpenError::ReadOnly { .. }) if !place.is_asked => {
            tracing::warn!(
                "running without a journal, so a sender waits for the exporters, and what they refuse is the sender's to keep: {error}"
            );
            return Ok((None, Some(error.to_string().into())));
        }
        opened => opened?,
    };
    if recovery.damage_count > 0 || recovery.torn_bytes > 0 {
        tracing::warn!(
            torn_bytes = recovery.torn_bytes,
            damaged_places = recovery.damage_count,
            "the journal was repaired; `trackline journal check` shows what was found"
        );
    }
    Ok((Some(journal), None))
}

/// What the journal may take on disk.
fn journal_bound(choice: &JournalChoice) -> u64 {
    match choice {
        JournalChoice::Settings(settings) => settings.max_bytes,
        JournalChoice::Default | JournalChoice::None => JournalSettings::default().max_bytes,
    }
}

fn open_exporters(
    planned: Vec<Planned<ExporterSettings>>,
    store: Option<&OpenStore>,
    doors: &mut Doors,
    budget: &Budget,
    beside: &mut dyn FnMut(&net::Endpoint) -> Option<Beside>,
) -> Result<Vec<ExporterPart>> {
    planned
        .into_iter()
        .map(|Planned { name, settings }| {
            let (sink, sending) = match settings {
                ExporterSettings::Store(_) => {
                    let store = store.context("the store is open when an exporter is")?;
                    (
                        Sink::Keeper(Arc::new(StoreExporter::new(store.writer.clone()))),
                        Sending::local(),
                    )
                }
                ExporterSettings::Other(settings) => {
                    let mut opening = Opening {
                        name: &name,
                        doors,
                        budget,
                        beside,
                    };
                    settings
                        .open(&mut opening)
                        .map_err(|error| anyhow!("exporter `{name}`: {error}"))?
                }
            };
            Ok(ExporterPart { name, sink, sending })
        })
        .collect()
}

fn stage_part(stage: PlannedStage) -> StagePart {
    StagePart {
        name: stage.name,
        make: stage.make,
        then: stage.then.into_iter().map(|(_, processor)| processor).collect(),
    }
}

fn mount_receiver(name: &str, settings: ReceiverSettings, graph: &Graph, doors: &mut Doors) -> Result<Mounted> {
    let intake = graph
        .intake(name)
        .ok_or_else(|| anyhow!("no pipeline takes from the receiver `{name}`"))?;
    let mounted = settings
        .mount(intake, doors)
        .map_err(|error| anyhow!("receiver `{name}`: {error}"))?;
    for warning in mounted.warnings.iter().chain(&mounted.forgets) {
        tracing::warn!("{warning}");
    }
    Ok(mounted)
}

/// The cursors on whose other side questions are answered. A backend of others that is away makes no answer incomplete.
fn readers_for_answers(plan: &ServerPlan) -> Vec<String> {
    let keeps = |name: &Arc<str>| {
        let settings = plan.exporters.iter().find(|exporter| exporter.name == *name);
        settings.is_some_and(|exporter| matches!(exporter.settings, ExporterSettings::Store(_)))
    };
    let of = |pipeline: &PlannedPipeline| -> Vec<String> {
        let stores = pipeline.exporters.iter().filter(|name| keeps(name));
        let stream = graph::stream_name(&pipeline.name, pipeline.stages.iter().map(|stage| &*stage.name));
        stores.map(|name| graph::reader_name(&stream, name)).collect()
    };
    plan.pipelines.iter().flat_map(of).collect()
}

/// Waits until the store has been given all that the journal holds for it, then says that answers are complete.
async fn replayed(journal: Option<Journal>, answering: Vec<String>, ready: Arc<AtomicBool>) {
    if let Some(journal) = journal {
        let behind = || {
            journal.readers().iter().any(|reader| {
                reader.attached && reader.lag_records > reader.in_flight_records && answering.contains(&reader.name)
            })
        };
        while behind() {
            tokio::time::sleep(REPLAY_POLL).await;
        }
    }
    ready.store(true, Ordering::Release);
}
