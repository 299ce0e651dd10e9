//! One life of the machine: store, journal, graph and doors opened on the simulated disk as the server opens them, until the
//! machine stops or everything is drained.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use exporters::store::StoreExporter;
use journal::simulated::SimulatedDisk;
use journal::{Fsync, Journal, ReaderStatus};
use model::{Batch, Signal};
use net::Doors;
use pipeline::graph::{Drained, ExporterPart, Parts, PipelinePart};
use pipeline::processors::Take;
use pipeline::sending::{OnFull, Queue, Retry, Sending};
use pipeline::{
    BoxFuture, Budget, Exporter, Graph, JournalId, KeepError, Keeper, Ledger, OnKept, Outcome, Reason, Sink,
};
use receivers::otlp;
use store::{Reader, Retention, Store, Upkeep, Writer};
use tokio::runtime::Handle;

use crate::backend::Backend;
use crate::simulated::Simulated;

/// Long enough that only a bug reaches it.
pub const GRACE: Duration = Duration::from_secs(60);
/// How long a request to a backend that stalls is waited for.
const ATTEMPT: Duration = Duration::from_millis(10);
/// Longer than any simulated time, so that whatever is missing was lost.
const RETENTION: Duration = Duration::from_secs(365 * 24 * 3600);
pub const STORE_DIR: &str = "/store";
const JOURNAL_DIR: &str = "/journal";

/// The time of day for journal and store. It starts where the system's is, because the door's does not come from here.
#[derive(Clone)]
pub struct SimulatedClock(Arc<AtomicU64>);

impl SimulatedClock {
    pub fn new() -> SimulatedClock {
        SimulatedClock(Arc::new(AtomicU64::new(store::Clock::system().now_unix_nano())))
    }

    pub fn now(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl journal::Clock for SimulatedClock {
    fn now_unix_nano(&self) -> u64 {
        self.now()
    }
}

/// How everything is configured, for all lives of a seed.
#[derive(Debug, Clone)]
pub struct Plan {
    pub fsync: Fsync,
    pub journal_max_bytes: u64,
    pub backend_on_full: OnFull,
    pub backend_queue_size: Option<u64>,
    pub backend_in_flight: usize,
    /// A deliberate mistake, which the simulation must catch: after a restart the store does not know what it holds.
    pub forgets: bool,
}

struct Forgetful {
    store: StoreExporter,
    forgets: bool,
}

impl Keeper for Forgetful {
    fn takes(&self, signal: Signal) -> bool {
        self.store.takes(signal)
    }

    fn covered(&self, source: &str, journal: JournalId) -> (u64, Vec<(u64, u64)>) {
        match self.forgets {
            true => (0, Vec::new()),
            false => self.store.covered(source, journal),
        }
    }

    fn keep(
        &self,
        source: &str,
        journal: JournalId,
        positions: RangeInclusive<u64>,
        batches: &[Batch],
    ) -> Result<(), KeepError> {
        self.store.keep(source, journal, positions, batches)
    }

    fn on_kept(&self, on_kept: OnKept) {
        self.store.on_kept(on_kept);
    }

    fn flush(&self) -> Result<(), KeepError> {
        self.store.flush()
    }
}

/// The way from this life to the backend: a machine that has died sends nothing.
struct Wire {
    disk: SimulatedDisk,
    backend: Backend,
}

impl Exporter for Wire {
    fn takes(&self, signal: Signal) -> bool {
        self.backend.takes(signal)
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        if self.disk.is_stopped() {
            return Box::pin(async { Outcome::retry(Duration::ZERO, Reason::Lost) });
        }
        self.backend.export(batch)
    }
}

pub struct Life {
    pub disk: SimulatedDisk,
    pub ledger: Ledger,
    pub writer: Arc<Writer>,
    pub reader: Reader,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    journal: Journal,
    torn: bool,
    before: Vec<ReaderStatus>,
    graph: Graph,
    doors: net::Open,
}

/// Sees what the journal reports, also after the graph has closed it.
pub struct Watch {
    journal: Journal,
    torn: bool,
    before: Vec<ReaderStatus>,
}

/// What the journal says that it did not deliver, in records.
#[derive(Debug, Default, Clone, Copy)]
pub struct Reported {
    /// Damaged on disk.
    pub lost: u64,
    /// Not given to the backend: removed by a bound, or damaged.
    pub backend_skipped: u64,
    /// The same for the store, where no bound may do that.
    pub store_skipped: u64,
}

impl Life {
    pub async fn start(
        disk: &SimulatedDisk,
        clock: &SimulatedClock,
        backend: &Backend,
        plan: &Plan,
    ) -> Result<Life, String> {
        let disk = disk.mounted();
        let retention = Retention {
            age: RETENTION,
            bytes: None,
        };
        let time = clock.clone();
        let settings = store::Settings {
            traces: retention,
            logs: retention,
            upkeep: Upkeep::ByHand,
            clock: store::Clock::from_fn(move || time.now()),
            disk: Arc::new(Simulated(disk.clone())),
            ..store::Settings::default()
        };
        let (writer, reader) = Store::open(STORE_DIR, settings).map_err(|error| error.to_string())?;
        let writer = Arc::new(writer);
        let settings = journal::Settings {
            max_bytes: plan.journal_max_bytes,
            segment_bytes: journal::SEGMENT_LIMIT_MIN_BYTES,
            min_free_bytes: 0,
            fsync: plan.fsync,
            ..journal::Settings::new(JOURNAL_DIR)
        };
        let (journal, recovery) = Journal::open_with_clock(settings, Arc::new(disk.clone()), Arc::new(clock.clone()))
            .map_err(|error| error.to_string())?;
        let ledger = Ledger::new();
        let keeper = Arc::new(Forgetful {
            store: StoreExporter::new(writer.clone()),
            forgets: plan.forgets,
        });
        let wire = Arc::new(Wire {
            disk: disk.clone(),
            backend: backend.clone(),
        });
        let parts = Parts {
            pipelines: vec![
                pipeline(Signal::Traces, keeper.clone(), wire.clone(), plan),
                pipeline(Signal::Logs, keeper, wire, plan),
            ],
            connectors: Vec::new(),
            journal: Some(journal.clone()),
            budget: Budget::root("process", 1 << 30),
            ledger: ledger.clone(),
            runtime: Handle::current(),
        };
        let graph = Graph::start(parts).map_err(|error| error.to_string())?;
        let mut doors = Doors::new();
        let mut config = otlp::Config::both();
        let anywhere = || "127.0.0.1:0".parse().expect("an address");
        let protocols = &mut config.protocols;
        protocols.grpc.as_mut().expect("both").endpoint = anywhere();
        protocols.http.as_mut().expect("both").endpoint = anywhere();
        let intake = graph.intake("otlp").expect("named by the pipelines");
        let mounted = otlp::mount(&config, intake, &mut doors).expect("nothing else is mounted");
        let doors = doors.open().await.expect("loopback has free ports");
        let address = |who: Option<String>| who.and_then(|who| doors.address_of(&who)).expect("it is open");
        Ok(Life {
            grpc: address(mounted.grpc),
            http: address(mounted.http),
            torn: recovery.torn_bytes > 0,
            before: recovery.readers,
            disk,
            ledger,
            writer,
            reader,
            journal,
            graph,
            doors,
        })
    }

    pub fn watch(&self) -> Watch {
        Watch {
            journal: self.journal.clone(),
            torn: self.torn,
            before: self.before.clone(),
        }
    }

    /// The machine stops as it is.
    pub async fn stop(self) {
        self.disk.stop();
        self.doors.shutdown(GRACE).await;
        drop(self.graph);
        self.journal.close();
    }

    /// An orderly end; the store stays readable.
    pub async fn drain(self) -> (Drained, Reader, Ledger) {
        self.doors.shutdown(GRACE).await;
        let drained = self.graph.drain(GRACE).await;
        (drained, self.reader, self.ledger)
    }
}

impl Watch {
    /// What the journal has reported in this life so far.
    pub fn reported(&self) -> Reported {
        let lost: u64 = self.journal.damage().iter().map(|damage| damage.lost_records).sum();
        let mut reported = Reported {
            // A broken last record looks like one that was never finished, and is reported as such.
            lost: lost + u64::from(self.torn),
            ..Reported::default()
        };
        let given_up = |status: &ReaderStatus| status.skipped_records + status.lost_records;
        for status in self.journal.readers() {
            let before = self.before.iter().find(|reader| reader.name == status.name);
            let now = given_up(&status).saturating_sub(before.map_or(0, given_up));
            match status.name.ends_with(":store") {
                true => reported.store_skipped += status.skipped_records,
                false => reported.backend_skipped += now,
            }
        }
        reported.backend_skipped += u64::from(self.torn);
        reported
    }
}

fn pipeline(signal: Signal, store: Arc<Forgetful>, backend: Arc<Wire>, plan: &Plan) -> PipelinePart {
    let retry = Retry {
        initial_interval: Duration::from_millis(1),
        max_interval: Duration::from_millis(2),
        ..Retry::default()
    };
    let queue = Queue {
        num_consumers: plan.backend_in_flight,
        queue_size: plan.backend_queue_size,
        ..Queue::default()
    };
    let sending = Sending {
        on_full: plan.backend_on_full,
        ..Sending::new(ATTEMPT, retry, &queue)
    };
    PipelinePart {
        name: signal.as_str().into(),
        signal,
        receivers: vec!["otlp".into()],
        in_request: Vec::new(),
        stages: Vec::new(),
        connectors: Vec::new(),
        take: Take {
            items: 7,
            max_items: Some(9),
            wait: Duration::ZERO,
            apart: None,
        },
        exporters: vec![
            ExporterPart {
                name: "store".into(),
                sink: Sink::Keeper(store),
                sending: Sending::local(),
            },
            ExporterPart {
                name: "backend".into(),
                sink: Sink::Exporter(backend),
                sending,
            },
        ],
    }
}
