//! The graph as a whole, on a real journal in a temporary directory: what was acknowledged is delivered, across retries, rejections, restarts and drains,
//! and the books balance.

mod metadata;
mod stages;
mod tokens;

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use journal::{Journal, RealDisk, Settings};
use model::{Batch, Encoding, Meta, Signal};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use pipeline::circuit::CircuitState;
use pipeline::component::Left;
use pipeline::config::{Config, Source};
use pipeline::graph::{Drained, ExporterPart, Parts, PipelinePart};
use pipeline::processors::{Step, Take, filter};
use pipeline::sending::{Queue, Retry, Sending};
use pipeline::{
    BadState, BoxFuture, Budget, Exporter, Graph, Intake, JournalId, KeepError, Keeper, Ledger, OnKept, Outcome,
    Processor, Reason, Sink, Stage, State,
};
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Long enough that only a bug reaches it.
const GRACE: Duration = Duration::from_secs(60);

fn spans(ids: impl IntoIterator<Item = u64>) -> Batch {
    let spans: Vec<Span> = ids
        .into_iter()
        .map(|id| Span {
            trace_id: [7; 16].to_vec(),
            span_id: (id + 1).to_be_bytes().to_vec(),
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
    let meta = Meta {
        received_at_unix_nano: 1,
        receiver: "otlp".into(),
        peer: None,
        headers: Vec::new(),
        source_offset: None,
    };
    Batch {
        signal: Signal::Traces,
        encoding: Encoding::Otlp,
        payload: request.encode_to_vec().into(),
        items,
        wire: None,
        meta: Arc::new(meta),
    }
}

fn ids(batch: &Batch) -> Vec<u64> {
    let request = ExportTraceServiceRequest::decode(batch.payload.bytes()).expect("a request");
    let spans = request
        .resource_spans
        .iter()
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| &scope.spans);
    spans
        .map(|span| u64::from_be_bytes(span.span_id.as_slice().try_into().expect("8 bytes")) - 1)
        .collect()
}

/// A backend: answers from a script, then takes everything.
#[derive(Default)]
struct Backend {
    script: Mutex<VecDeque<Outcome>>,
    /// How often each span arrived.
    taken: Mutex<BTreeMap<u64, u32>>,
    sizes: Mutex<Vec<u32>>,
    down: Mutex<bool>,
    arrived: Notify,
}

impl Backend {
    fn taken(&self) -> Vec<u64> {
        self.taken.lock().expect("no panic").keys().copied().collect()
    }

    async fn has(&self, count: usize) {
        loop {
            let notified = self.arrived.notified();
            if self.taken.lock().expect("no panic").len() >= count {
                return;
            }
            notified.await;
        }
    }
}

impl Exporter for Backend {
    fn takes(&self, signal: Signal) -> bool {
        signal == Signal::Traces
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            if *self.down.lock().expect("no panic") {
                return Outcome::retry(Duration::ZERO, Reason::BackendUnavailable);
            }
            let outcome = self
                .script
                .lock()
                .expect("no panic")
                .pop_front()
                .unwrap_or(Outcome::Delivered);
            if outcome.is_delivered() {
                let mut taken = self.taken.lock().expect("no panic");
                for id in ids(&batch) {
                    *taken.entry(id).or_default() += 1;
                }
                self.sizes.lock().expect("no panic").push(batch.items);
            }
            self.arrived.notify_waiters();
            outcome
        })
    }
}

/// A store: holds rows in memory until it is flushed, then durably with their positions.
#[derive(Default)]
struct Vault {
    inner: Mutex<VaultInner>,
}

#[derive(Default)]
struct VaultInner {
    fresh: Vec<(String, JournalId, RangeInclusive<u64>, Vec<u64>)>,
    rows: BTreeMap<u64, u32>,
    covered: BTreeMap<String, journal::Ranges>,
    on_kept: Option<OnKept>,
    /// Bytes of batches that each call handed over.
    handed_bytes: Vec<usize>,
}

impl Vault {
    /// What a restart finds: only what was flushed.
    fn crash(&self) {
        let mut inner = self.inner.lock().expect("no panic");
        inner.fresh.clear();
        inner.on_kept = None;
    }
}

impl Keeper for Vault {
    fn takes(&self, signal: Signal) -> bool {
        signal == Signal::Traces
    }

    fn covered(&self, source: &str, _journal: JournalId) -> (u64, Vec<(u64, u64)>) {
        let inner = self.inner.lock().expect("no panic");
        let ranges = inner.covered.get(source).cloned().unwrap_or_default();
        (ranges.low(), ranges.ranges().to_vec())
    }

    fn keep(
        &self,
        source: &str,
        journal: JournalId,
        positions: RangeInclusive<u64>,
        batches: &[Batch],
    ) -> Result<(), KeepError> {
        let rows = batches.iter().flat_map(ids).collect();
        let mut inner = self.inner.lock().expect("no panic");
        inner.fresh.push((source.into(), journal, positions, rows));
        inner
            .handed_bytes
            .push(batches.iter().map(|batch| batch.payload.len()).sum());
        Ok(())
    }

    fn on_kept(&self, on_kept: OnKept) {
        self.inner.lock().expect("no panic").on_kept = Some(on_kept);
    }

    fn flush(&self) -> Result<(), KeepError> {
        let mut inner = self.inner.lock().expect("no panic");
        let fresh = std::mem::take(&mut inner.fresh);
        for (source, _, positions, rows) in &fresh {
            for row in rows {
                *inner.rows.entry(*row).or_default() += 1;
            }
            inner
                .covered
                .entry(source.clone())
                .or_default()
                .insert_range(*positions.start(), *positions.end());
        }
        let on_kept = inner.on_kept.clone();
        drop(inner);
        for (source, journal, positions, _) in fresh {
            if let Some(on_kept) = &on_kept {
                on_kept(&source, journal, positions);
            }
        }
        Ok(())
    }
}

fn quick() -> Sending {
    let retry = Retry {
        initial_interval: Duration::from_millis(1),
        max_interval: Duration::from_millis(5),
        ..Retry::default()
    };
    Sending::new(Duration::from_secs(30), retry, &Queue::default())
}

fn open(directory: &Path) -> Journal {
    let settings = Settings {
        segment_bytes: 64 << 10,
        min_free_bytes: 0,
        ..Settings::new(directory)
    };
    Journal::open(settings, Arc::new(RealDisk))
        .expect("the journal opens")
        .0
}

struct Setup {
    journal: Option<Journal>,
    take: Take,
    exporters: Vec<(&'static str, Sink, Sending)>,
}

fn start(setup: Setup) -> (Graph, Intake, Ledger) {
    start_with(setup, Vec::new())
}

fn start_with(setup: Setup, in_request: Vec<Arc<dyn Processor>>) -> (Graph, Intake, Ledger) {
    let ledger = Ledger::new();
    let exporters = setup
        .exporters
        .into_iter()
        .map(|(name, sink, sending)| ExporterPart {
            name: name.into(),
            sink,
            sending,
        })
        .collect();
    let pipeline = PipelinePart {
        name: "traces".into(),
        signal: Signal::Traces,
        receivers: vec!["otlp".into()],
        in_request,
        stages: Vec::new(),
        take: setup.take,
        exporters,
        connectors: Vec::new(),
    };
    let graph = Graph::start(Parts {
        pipelines: vec![pipeline],
        connectors: Vec::new(),
        journal: setup.journal,
        budget: Budget::root("process", 1 << 30),
        ledger: ledger.clone(),
        runtime: Handle::current(),
    })
    .expect("the graph starts");
    let intake = graph.intake("otlp").expect("the pipeline names it");
    (graph, intake, ledger)
}

async fn push_all(intake: &Intake, batches: impl IntoIterator<Item = Batch>) {
    let pushes: Vec<_> = batches.into_iter().map(|batch| intake.push(batch)).collect();
    for push in pushes {
        assert_eq!(push.await, Outcome::Delivered);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_arrives_everywhere_and_the_books_balance() {
    let directory = tempfile::tempdir().expect("a directory");
    let (one, two, vault) = (
        Arc::new(Backend::default()),
        Arc::new(Backend::default()),
        Arc::new(Vault::default()),
    );
    one.script.lock().expect("no panic").extend([
        Outcome::retry(Duration::ZERO, Reason::BackendUnavailable),
        Outcome::retry(Duration::ZERO, Reason::BackendUnavailable),
    ]);
    let (graph, intake, ledger) = start(Setup {
        journal: Some(open(directory.path())),
        take: Take {
            items: 50,
            max_items: Some(60),
            wait: Duration::from_millis(5),
            apart: None,
        },
        exporters: vec![
            ("one", Sink::Exporter(one.clone()), quick()),
            ("two", Sink::Exporter(two.clone()), quick()),
            ("vault", Sink::Keeper(vault.clone()), Sending::local()),
        ],
    });
    push_all(&intake, (0..100).map(|n| spans(n * 10..n * 10 + 10))).await;
    push_all(&intake, [spans(1000..1500)]).await;
    // A drain repeats nothing: what the first backend refused for now has to have been taken before.
    one.has(1500).await;
    two.has(1500).await;
    assert_eq!(graph.drain(GRACE).await, Drained::Settled);
    let all: Vec<u64> = (0..1500).collect();
    assert_eq!(one.taken(), all);
    assert_eq!(two.taken(), all);
    assert!(
        one.sizes.lock().expect("no panic").iter().all(|items| *items <= 60),
        "send_batch_max_size"
    );
    let rows = vault.inner.lock().expect("no panic").rows.clone();
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), all);
    assert!(rows.values().all(|times| *times == 1));
    ledger.balance().expect("balanced");
    let counts = ledger.snapshot();
    assert_eq!(counts.doors[0].acked, 1500);
    assert!(
        counts
            .readers
            .iter()
            .all(|reader| reader.delivered == 1500 && reader.pending == 0),
        "{counts:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_filtered_is_acknowledged_and_is_in_the_books() {
    let directory = tempfile::tempdir().expect("a directory");
    let backend = Arc::new(Backend::default());
    // Spans 1 to 9 have ids that end in 2 to 10.
    let text = r#"processors: { filter: { traces: { span: ['span_id < SpanID(0x000000000000000b)'] } } }"#;
    let config = Config::load(vec![Source::new("test.yaml", text)], &|_| None).expect("loads");
    let Ok(Step::InRequest(filter)) = filter::parse(&config.section(&config.processors[0])) else {
        panic!("the settings are right");
    };
    let setup = Setup {
        journal: Some(open(directory.path())),
        take: Take::default(),
        exporters: vec![("backend", Sink::Exporter(backend.clone()), quick())],
    };
    let (graph, intake, ledger) = start_with(setup, vec![filter]);
    push_all(&intake, [spans(0..15), spans(0..5), spans(20..25)]).await;
    assert_eq!(graph.drain(GRACE).await, Drained::Settled);
    assert_eq!(backend.taken(), (10..15).chain(20..25).collect::<Vec<u64>>());
    ledger.balance().expect("balanced");
    let counts = ledger.snapshot();
    assert_eq!((counts.doors[0].acked, counts.readers[0].accepted), (25, 10));
    let filtered = &counts.processors[0];
    assert_eq!((filtered.incoming, filtered.outgoing), (25, 10));
    assert_eq!(filtered.dropped.0, [(Reason::Filtered, 15)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_down_loses_nothing_over_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let backend = Arc::new(Backend::default());
    *backend.down.lock().expect("no panic") = true;
    let setup = |backend: &Arc<Backend>| Setup {
        journal: Some(open(directory.path())),
        take: Take::default(),
        exporters: vec![("backend", Sink::Exporter(backend.clone()), quick())],
    };
    let (graph, intake, ledger) = start(setup(&backend));
    push_all(&intake, (0..20).map(|n| spans(n * 5..n * 5 + 5))).await;
    graph.drain(GRACE).await;
    assert!(backend.taken().is_empty());
    assert_eq!(ledger.snapshot().readers[0].pending, 100);
    ledger.balance().expect("balanced");

    *backend.down.lock().expect("no panic") = false;
    let (graph, intake, ledger) = start(setup(&backend));
    backend.has(100).await;
    push_all(&intake, [spans(100..110)]).await;
    graph.drain(GRACE).await;
    assert_eq!(backend.taken(), (0..110).collect::<Vec<_>>());
    let reader = &ledger.snapshot().readers[0];
    assert_eq!(
        (reader.carried, reader.accepted, reader.delivered, reader.pending),
        (100, 10, 110, 0)
    );
    ledger.balance().expect("balanced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_backend_rejects_is_buried_counted_and_passed() {
    let directory = tempfile::tempdir().expect("a directory");
    let letters = directory.path().join("dead");
    let backend = Arc::new(Backend::default());
    backend
        .script
        .lock()
        .expect("no panic")
        .push_back(Outcome::rejected(Reason::BackendRejected, "bad spans", 3));
    let sending = Sending {
        dead_letter: Some(letters.clone()),
        ..quick()
    };
    let (graph, intake, ledger) = start(Setup {
        journal: Some(open(&directory.path().join("journal"))),
        take: Take::default(),
        exporters: vec![("backend", Sink::Exporter(backend.clone()), sending)],
    });
    let batch = spans(0..10);
    let bytes = batch.payload.len() as u64;
    push_all(&intake, [batch]).await;
    assert_eq!(graph.drain(GRACE).await, Drained::Settled);
    let reader = &ledger.snapshot().readers[0];
    assert_eq!(
        (reader.delivered, reader.dropped.0.clone(), reader.pending),
        (7, vec![(Reason::BackendRejected, 3)], 0)
    );
    assert_eq!(reader.sent_bytes, bytes, "it has seven of them");
    ledger.balance().expect("balanced");
    let files: Vec<_> = std::fs::read_dir(letters)
        .expect("made")
        .map(|entry| entry.expect("entry").path())
        .collect();
    assert_eq!(files.len(), 1);
    assert_eq!(std::fs::read(&files[0]).expect("reads"), spans(0..10).payload.bytes());
}

/// Opens a journal whose last process died.
async fn reopen(directory: &Path) -> Journal {
    loop {
        // The old readers' threads let go of the directory in their own time.
        let settings = Settings {
            segment_bytes: 64 << 10,
            min_free_bytes: 0,
            ..Settings::new(directory)
        };
        match Journal::open(settings, Arc::new(RealDisk)) {
            Ok((journal, _)) => break journal,
            Err(journal::OpenError::InUse { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_pack_a_thousandfold_are_not_inflated_all_at_once() {
    const PADDING: usize = 7 << 20;
    let padded = |id: u64| {
        let mut batch = spans([id]);
        let mut payload = batch.payload.to_vec();
        model::wire::put_bytes(&mut payload, 1000, &vec![0; PADDING]);
        batch.payload = payload.into();
        batch
    };
    let directory = tempfile::tempdir().expect("a directory");
    let vault = Arc::new(Vault::default());
    let exporters = || vec![("vault", Sink::Keeper(vault.clone()), Sending::local())];
    let (graph, intake, _) = start(Setup {
        journal: Some(open(directory.path())),
        take: Take::default(),
        exporters: exporters(),
    });
    push_all(&intake, (0..24).map(padded)).await;
    drop((graph, intake));
    // All of it lies in the journal at once, and would be read at once: it is a few kilobytes there.
    let journal = reopen(directory.path()).await;
    vault.crash();
    vault.inner.lock().expect("no panic").handed_bytes.clear();
    let (graph, _, ledger) = start(Setup {
        journal: Some(journal),
        take: Take::default(),
        exporters: exporters(),
    });
    assert_eq!(graph.drain(GRACE).await, Drained::Settled);
    let inner = vault.inner.lock().expect("no panic");
    assert_eq!(
        inner.rows.keys().copied().collect::<Vec<_>>(),
        (0..24).collect::<Vec<_>>()
    );
    assert!(
        inner.handed_bytes.iter().all(|bytes| *bytes <= 32 << 20),
        "{:?}",
        inner.handed_bytes
    );
    assert!(inner.handed_bytes.len() < 24, "several go together while they fit");
    ledger.balance().expect("balanced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keeper_that_crashes_gets_exactly_what_it_had_not_made_durable() {
    let directory = tempfile::tempdir().expect("a directory");
    let vault = Arc::new(Vault::default());
    let setup = || Setup {
        journal: Some(open(directory.path())),
        take: Take::default(),
        exporters: vec![("vault", Sink::Keeper(vault.clone()), Sending::local())],
    };
    let (graph, intake, _) = start(setup());
    push_all(&intake, (0..10).map(|n| spans(n * 4..n * 4 + 4))).await;
    vault.flush().expect("never fails");
    push_all(&intake, (10..20).map(|n| spans(n * 4..n * 4 + 4))).await;
    // The process dies: what was not flushed is gone, and so is everything that the graph knew.
    vault.crash();
    drop((graph, intake));

    let journal = reopen(directory.path()).await;
    vault.crash();
    let (graph, _, ledger) = start(Setup {
        journal: Some(journal),
        ..Setup {
            journal: None,
            take: Take::default(),
            exporters: vec![("vault", Sink::Keeper(vault.clone()), Sending::local())],
        }
    });
    assert_eq!(graph.drain(GRACE).await, Drained::Settled);
    let rows = vault.inner.lock().expect("no panic").rows.clone();
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), (0..80).collect::<Vec<_>>());
    assert!(rows.values().all(|times| *times == 1), "{rows:?}");
    ledger.balance().expect("balanced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_journal_the_exporters_answer() {
    let (backend, vault) = (Arc::new(Backend::default()), Arc::new(Vault::default()));
    backend.script.lock().expect("no panic").extend([
        Outcome::Delivered,
        Outcome::retry(Duration::from_secs(9), Reason::BackendUnavailable),
        Outcome::rejected(Reason::BackendRejected, "no", 2),
    ]);
    let (graph, intake, ledger) = start(Setup {
        journal: None,
        take: Take::default(),
        exporters: vec![
            ("backend", Sink::Exporter(backend.clone()), quick()),
            ("vault", Sink::Keeper(vault.clone()), Sending::local()),
        ],
    });
    assert_eq!(intake.push(spans(0..5)).await, Outcome::Delivered);
    assert_eq!(
        vault.inner.lock().expect("no panic").rows.len(),
        5,
        "durable before the answer"
    );
    assert_eq!(
        intake.push(spans(5..10)).await,
        Outcome::retry(Duration::from_secs(9), Reason::BackendUnavailable),
        "the worst of both"
    );
    assert_eq!(
        intake.push(spans(10..15)).await,
        Outcome::rejected(Reason::BackendRejected, "no", 2)
    );
    graph.drain(GRACE).await;
    assert!(matches!(
        intake.push(spans(0..1)).await,
        Outcome::Retry {
            reason: Reason::ShuttingDown,
            ..
        }
    ));
    ledger.balance().expect("balanced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_size_binds_where_it_is_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let backend = Arc::new(Backend::default());
    *backend.down.lock().expect("no panic") = true;
    let sending = Sending {
        queue_size: Some(10),
        in_flight: 1,
        ..quick()
    };
    let (graph, intake, ledger) = start(Setup {
        journal: Some(open(directory.path())),
        take: Take {
            items: 1,
            ..Take::default()
        },
        exporters: vec![("backend", Sink::Exporter(backend.clone()), sending)],
    });
    push_all(&intake, (0..30).map(|n| spans([n]))).await;
    let dropped = || ledger.snapshot().readers[0].dropped.total();
    while dropped() < 20 {
        tokio::task::yield_now().await;
    }
    *backend.down.lock().expect("no panic") = false;
    backend.has(10).await;
    graph.drain(GRACE).await;
    assert_eq!(dropped(), 20);
    assert!(backend.taken().contains(&29), "the newest are kept");
    ledger.balance().expect("balanced");
}

/// Two backends behind one exporter, by whether an id is even; the odd one may be away.
#[derive(Default)]
struct Two {
    backend: Backend,
    left: Mutex<BTreeMap<usize, Batch>>,
}

impl Two {
    fn share(batch: &Batch, of: u64) -> Batch {
        let ids = ids(batch);
        model::edit::select(batch, |at| ids[at as usize] % 2 == of)
    }
}

impl Exporter for Two {
    fn takes(&self, signal: Signal) -> bool {
        self.backend.takes(signal)
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let (even, odd) = (Two::share(&batch, 0), Two::share(&batch, 1));
            if !*self.backend.down.lock().expect("no panic") {
                return self.backend.export(batch).await;
            }
            let mut taken = self.backend.taken.lock().expect("no panic");
            ids(&even).into_iter().for_each(|id| *taken.entry(id).or_default() += 1);
            let at = batch.payload.as_ptr() as usize;
            self.left.lock().expect("no panic").insert(at, odd);
            self.backend.arrived.notify_waiters();
            Outcome::retry(Duration::ZERO, Reason::BackendUnavailable)
        })
    }

    fn left(&self, batch: &Batch) -> Option<Left> {
        let at = batch.payload.as_ptr() as usize;
        let left = self.left.lock().expect("no panic").remove(&at)?;
        Some(Left {
            batch: Some(left),
            refused: None,
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_away_holds_up_its_own_share_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let two = Arc::new(Two::default());
    *two.backend.down.lock().expect("no panic") = true;
    let (graph, intake, ledger) = start(Setup {
        journal: Some(open(directory.path())),
        take: Take::default(),
        exporters: vec![("two", Sink::Exporter(two.clone()), quick())],
    });
    // Far more requests than the window holds.
    for n in 0..100 {
        push_all(&intake, [spans(n * 10..n * 10 + 10)]).await;
        two.backend.has((n as usize + 1) * 5).await;
    }
    assert!(two.backend.taken().iter().all(|id| id % 2 == 0));
    *two.backend.down.lock().expect("no panic") = false;
    two.backend.has(1_000).await;
    graph.drain(GRACE).await;
    let taken = two.backend.taken.lock().expect("no panic");
    assert!(
        taken.values().all(|times| *times == 1),
        "what was taken is not sent again"
    );
    let reader = &ledger.snapshot().readers[0];
    assert_eq!((reader.delivered, reader.pending), (1_000, 0));
    ledger.balance().expect("balanced");
}

/// A backend that answers after a while, and counts who asks it at once.
#[derive(Default)]
struct Slow {
    backend: Backend,
    asking: AtomicUsize,
    most: AtomicUsize,
    asked: AtomicUsize,
}

impl Exporter for Slow {
    fn takes(&self, signal: Signal) -> bool {
        self.backend.takes(signal)
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let asking = self.asking.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(asking, Ordering::SeqCst);
            self.asked.fetch_add(1, Ordering::SeqCst);
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let outcome = self.backend.export(batch).await;
            self.asking.fetch_sub(1, Ordering::SeqCst);
            outcome
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_away_is_asked_by_one_request_at_a_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let slow = Arc::new(Slow::default());
    *slow.backend.down.lock().expect("no panic") = true;
    let (graph, intake, ledger) = start(Setup {
        journal: Some(open(directory.path())),
        take: Take::default(),
        exporters: vec![("slow", Sink::Exporter(slow.clone()), quick())],
    });
    push_all(&intake, (0..50).map(|n| spans(n * 10..n * 10 + 10))).await;
    let state = || ledger.snapshot().readers[0].circuit;
    while state() == CircuitState::Closed {
        tokio::task::yield_now().await;
    }
    // Who was let through before it opened may still be on the way; there are no more of them than fit the window.
    let mut most = usize::MAX;
    for _ in 0..10 {
        slow.most.store(0, Ordering::SeqCst);
        let asked = slow.asked.load(Ordering::SeqCst);
        while slow.asked.load(Ordering::SeqCst) < asked + 10 {
            tokio::task::yield_now().await;
        }
        most = most.min(slow.most.load(Ordering::SeqCst));
    }
    assert_eq!(most, 1);
    assert_ne!(state(), CircuitState::Closed);
    *slow.backend.down.lock().expect("no panic") = false;
    slow.backend.has(500).await;
    // A backend has something before the circuit hears of it.
    graph.drain(GRACE).await;
    assert_eq!(state(), CircuitState::Closed);
    let taken = slow.backend.taken.lock().expect("no panic");
    assert!(taken.values().all(|times| *times == 1));
    ledger.balance().expect("balanced");
}
