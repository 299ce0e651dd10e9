//! Door → graph → journal → store and backend, on a disk that stops at any operation, over many seeds: what a sender was told is accepted is in the
//! store exactly once and has reached the backend at least once, whatever happened; nothing is in the store twice; the books balance.
//!
//! A life ends when the simulated disk stops. The store's own rows in memory are lost with it; what it had committed stays, with its positions.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use exporters::store::StoreExporter;
use journal::Journal;
use journal::simulated::{Faults, Loss, SimulatedDisk};
use model::{Batch, Encoding, Meta, Signal};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use pipeline::graph::{Drained, ExporterPart, Parts, PipelinePart};
use pipeline::processors::Take;
use pipeline::sending::{OnFull, Queue, Retry, Sending};
use pipeline::{
    BoxFuture, Budget, Exporter, Graph, JournalId, KeepError, Keeper, Ledger, OnKept, Outcome, Reason, Sink,
};
use prost::Message;
use store::{Columns, Dataset, Filter, Reader, Scan, Store, Upkeep};
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Enough for each way of dying to meet each stage a few times, in seconds of an unoptimised build; `SIMULATION_SEEDS` asks for more.
const SEEDS: u64 = 12;

/// How often the machine dies per seed.
const LIVES: u64 = 4;

/// Requests that are sent at once, and how often.
const REQUESTS: u64 = 8;
const ROUNDS: u64 = 12;

/// Long enough that only a bug reaches it.
const GRACE: Duration = Duration::from_secs(60);

fn request(ids: RangeInclusive<u64>) -> Batch {
    let spans: Vec<Span> = ids
        .map(|id| Span {
            trace_id: [7; 16].to_vec(),
            span_id: id.to_be_bytes().to_vec(),
            start_time_unix_nano: 1_700_000_000_000_000_000,
            end_time_unix_nano: 1_700_000_000_000_000_001,
            ..Span::default()
        })
        .collect();
    let items = spans.len() as u32;
    let scope_spans = vec![ScopeSpans {
        spans,
        ..ScopeSpans::default()
    }];
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans,
            ..ResourceSpans::default()
        }],
    };
    let canonical =
        model::canonical::canonicalize(Signal::Traces, Bytes::from(request.encode_to_vec())).expect("well formed");
    assert_eq!(canonical.items, items);
    let meta = Meta {
        received_at_unix_nano: 1_700_000_000_000_000_000,
        receiver: "otlp".into(),
        peer: None,
        headers: Vec::new(),
        source_offset: None,
    };
    Batch {
        signal: Signal::Traces,
        encoding: Encoding::Otlp,
        payload: canonical.payload,
        items,
        wire: None,
        meta: Arc::new(meta),
    }
}

/// A backend that now and then asks to come back.
#[derive(Default)]
struct Backend {
    taken: Mutex<BTreeSet<u64>>,
    arrived: Notify,
}

impl Backend {
    /// Waits for these.
    async fn has(&self, ids: &BTreeSet<u64>) {
        loop {
            let arrived = self.arrived.notified();
            if self.taken.lock().expect("no panic").is_superset(ids) {
                return;
            }
            arrived.await;
        }
    }
}

impl Exporter for Backend {
    fn takes(&self, _signal: Signal) -> bool {
        true
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            if fastrand::u8(..4) == 0 {
                return Outcome::retry(Duration::ZERO, Reason::BackendUnavailable);
            }
            let request = ExportTraceServiceRequest::decode(batch.payload).expect("a request");
            let spans = request
                .resource_spans
                .iter()
                .flat_map(|it| &it.scope_spans)
                .flat_map(|it| &it.spans);
            let ids = spans.map(|span| u64::from_be_bytes(span.span_id.as_slice().try_into().expect("8 bytes")));
            self.taken.lock().expect("no panic").extend(ids);
            self.arrived.notify_waiters();
            Outcome::Delivered
        })
    }
}

/// The store of one life: once the machine has died, threads that have not noticed yet change nothing.
struct Mortal {
    store: StoreExporter,
    dead: AtomicBool,
    /// The deliberate mistake that the simulation must catch: after a restart it does not know what it holds.
    forgets: bool,
}

impl Mortal {
    fn alive(&self) -> Result<(), KeepError> {
        match self.dead.load(Ordering::SeqCst) {
            true => Err(KeepError::Later("the machine has died".into())),
            false => Ok(()),
        }
    }
}

impl Keeper for Mortal {
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
        self.alive()?;
        self.store.keep(source, journal, positions, batches)
    }

    fn on_kept(&self, on_kept: OnKept) {
        self.store.on_kept(on_kept);
    }

    fn flush(&self) -> Result<(), KeepError> {
        self.alive()?;
        self.store.flush()
    }
}

fn open_store(directory: &Path, forgets: bool) -> (Arc<Mortal>, Reader) {
    // By hand: no merge may collapse what is there twice before it is counted.
    let settings = store::Settings {
        upkeep: Upkeep::ByHand,
        ..store::Settings::default()
    };
    let (writer, reader) = loop {
        match Store::open(directory, settings.clone()) {
            Ok(open) => break open,
            // Threads of the life before let go of it in their own time.
            Err(store::OpenError::InUse { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    (
        Arc::new(Mortal {
            store: StoreExporter::new(Arc::new(writer)),
            dead: AtomicBool::new(false),
            forgets,
        }),
        reader,
    )
}

fn rows(reader: &Reader) -> BTreeMap<u64, u32> {
    let scan = Scan {
        dataset: Dataset::Traces,
        time: 0..u64::MAX,
        filter: Filter::True,
        columns: Columns::All,
        newest_first: false,
    };
    let mut rows = BTreeMap::new();
    for batch in reader.scan(scan) {
        for span in store::rows::spans(&batch.expect("reads")) {
            *rows.entry(u64::from_be_bytes(span.span_id.0)).or_default() += 1;
        }
    }
    rows
}

fn open_journal(disk: &SimulatedDisk) -> Option<Journal> {
    let settings = journal::Settings {
        max_bytes: 8 << 20,
        segment_bytes: 16 << 10,
        min_free_bytes: 0,
        ..journal::Settings::new("/journal")
    };
    Journal::open(settings, Arc::new(disk.clone()))
        .ok()
        .map(|(journal, _)| journal)
}

fn start(journal: Journal, keeper: &Arc<Mortal>, backend: &Arc<Backend>, ledger: &Ledger) -> Option<Graph> {
    let retry = Retry {
        initial_interval: Duration::from_millis(1),
        max_interval: Duration::from_millis(2),
        ..Retry::default()
    };
    let sending = Sending::new(GRACE, retry, &Queue::default());
    let pipeline = PipelinePart {
        name: "traces".into(),
        signal: Signal::Traces,
        receivers: vec!["otlp".into()],
        in_request: Vec::new(),
        take: Take {
            items: 7,
            max_items: Some(9),
            wait: Duration::ZERO,
        },
        exporters: vec![
            ExporterPart {
                name: "store".into(),
                sink: Sink::Keeper(keeper.clone()),
                sending: Sending::local(),
            },
            ExporterPart {
                name: "backend".into(),
                sink: Sink::Exporter(backend.clone()),
                sending: Sending {
                    on_full: OnFull::Refuse,
                    ..sending
                },
            },
        ],
    };
    let parts = Parts {
        pipelines: vec![pipeline],
        journal: Some(journal),
        budget: Budget::root("process", 1 << 30),
        ledger: ledger.clone(),
        runtime: Handle::current(),
    };
    // The disk may have stopped while a reader was opened.
    Graph::start(parts).ok()
}

async fn simulate(seed: u64, forgets: bool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = SimulatedDisk::new(seed);
    let directory = tempfile::tempdir().expect("a directory");
    let backend = Arc::new(Backend::default());
    let mut acked: BTreeSet<u64> = BTreeSet::new();
    let mut next = 1;
    let mut readers_exist = false;
    for _ in 0..LIVES {
        disk.set_faults(Faults {
            stop_after: Some(random.u64(5..300)),
            sync_failures: random.u32(0..30),
            write_failures: random.u32(0..30),
            ..Faults::default()
        });
        let (keeper, _reader) = open_store(directory.path(), forgets);
        let ledger = Ledger::new();
        let graph = open_journal(&disk).and_then(|journal| start(journal, &keeper, &backend, &ledger));
        if let Some(graph) = graph {
            readers_exist = true;
            let intake = graph.intake("otlp").expect("named");
            for _ in 0..ROUNDS {
                let mut sent = Vec::new();
                for _ in 0..REQUESTS {
                    let ids = next..=next + random.u64(0..6);
                    next = ids.end() + 1;
                    sent.push((ids.clone(), intake.push(request(ids))));
                }
                for (ids, outcome) in sent {
                    if outcome.await.is_delivered() {
                        acked.extend(ids);
                    }
                }
                if random.u8(..3) == 0 {
                    // A failed flush of a dying machine is part of the game.
                    let _ = keeper.flush();
                }
            }
        }
        keeper.dead.store(true, Ordering::SeqCst);
        drop(keeper);
        disk.restart(if random.bool() { Loss::Power } else { Loss::Process });
    }

    disk.set_faults(Faults::default());
    let (keeper, reader) = open_store(directory.path(), forgets);
    let ledger = Ledger::new();
    let journal = open_journal(&disk).expect("a disk without faults");
    let graph = start(journal, &keeper, &backend, &ledger).expect("starts");
    let intake = graph.intake("otlp").expect("named");
    assert!(
        intake.push(request(next..=next)).await.is_delivered(),
        "seed {seed}: it works again"
    );
    acked.insert(next);
    // On its way out a graph repeats nothing, so the backend's moods are waited for before.
    if tokio::time::timeout(GRACE, backend.has(&acked)).await.is_err() {
        let taken = backend.taken.lock().expect("no panic").clone();
        panic!(
            "seed {seed}: acknowledged, but not delivered: {:?}",
            acked.difference(&taken).collect::<Vec<_>>()
        );
    }
    assert_eq!(graph.drain(GRACE).await, Drained::Settled, "seed {seed}");

    let rows = rows(&reader);
    let twice: Vec<_> = rows.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "seed {seed}: in the store more than once: {twice:?}");
    let lost: Vec<_> = acked.iter().filter(|id| !rows.contains_key(id)).collect();
    assert!(
        lost.is_empty(),
        "seed {seed}: acknowledged, but not in the store: {lost:?}"
    );
    ledger
        .balance()
        .unwrap_or_else(|imbalance| panic!("seed {seed}: {imbalance}"));
    assert!(readers_exist, "seed {seed}: no life got as far as its readers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_survives_every_death() {
    let seeds = std::env::var("SIMULATION_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(SEEDS);
    for seed in 0..seeds {
        simulate(seed, false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_forgets_its_positions_is_caught() {
    for seed in 0..SEEDS {
        if tokio::spawn(simulate(seed, true)).await.is_err() {
            return;
        }
    }
    panic!("nothing was in the store twice, although it forgot what it held");
}
