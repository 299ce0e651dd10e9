//! What holds data, behind the journal: nothing is given out twice or left out, whatever happens to the process and the disk between two commits.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use journal::simulated::{Faults, Loss, SimulatedDisk, seeds};
use pipeline::MakeStage;
use pipeline::graph::{ConnectorPart, GraphError, StagePart};

use super::*;

/// Each a few hundred operations of the disk, in seconds of an unoptimised build.
const SEEDS: Range<u64> = 0..30;

/// Gives each span that it takes the next number, as its trace id. What it remembers is how many there were.
struct Numbering {
    next: u64,
    /// Deliberately forgets: a simulation that finds nothing proves nothing.
    forgets: bool,
}

impl Stage for Numbering {
    fn restore(&mut self, state: &State) -> Result<(), BadState> {
        let (State::Whole(bytes) | State::Change(bytes)) = state;
        let next = bytes[..]
            .try_into()
            .map_err(|_| BadState("not eight bytes".to_owned()))?;
        if !self.forgets {
            self.next = u64::from_be_bytes(next);
        }
        Ok(())
    }

    fn take(&mut self, batch: Batch, out: &mut Vec<Batch>) {
        let mut request = ExportTraceServiceRequest::decode(batch.payload.bytes()).expect("a request");
        for span in &mut request.resource_spans[0].scope_spans[0].spans {
            span.trace_id[8..].copy_from_slice(&self.next.to_be_bytes());
            self.next += 1;
        }
        out.push(batch.edited(request.encode_to_vec(), batch.items));
    }

    fn state(&mut self, whole: bool) -> State {
        let next = Bytes::copy_from_slice(&self.next.to_be_bytes());
        match whole {
            true => State::Whole(next),
            false => State::Change(next),
        }
    }
}

/// A backend that keeps every span with its number.
#[derive(Default)]
struct Numbered {
    taken: Mutex<BTreeSet<(u64, u64)>>,
}

impl Exporter for Numbered {
    fn takes(&self, _: Signal) -> bool {
        true
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        let request = ExportTraceServiceRequest::decode(batch.payload.bytes()).expect("a request");
        let spans = request
            .resource_spans
            .iter()
            .flat_map(|it| &it.scope_spans)
            .flat_map(|it| &it.spans);
        let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("8 bytes"));
        let pairs = spans.map(|span| (number(&span.span_id) - 1, number(&span.trace_id[8..])));
        self.taken.lock().expect("no panic").extend(pairs);
        Box::pin(async { Outcome::Delivered })
    }
}

fn pipeline(name: &str, receivers: &[&str], exporters: Vec<(&str, Sink)>) -> PipelinePart {
    let exporters = exporters.into_iter().map(|(name, sink)| ExporterPart {
        name: name.into(),
        sink,
        sending: quick(),
    });
    PipelinePart {
        name: name.into(),
        signal: Signal::Traces,
        receivers: receivers.iter().map(|name| (*name).into()).collect(),
        in_request: Vec::new(),
        stages: Vec::new(),
        take: Take::default(),
        exporters: exporters.collect(),
        connectors: Vec::new(),
    }
}

fn stage(name: &str, make: impl Fn() -> Box<dyn Stage> + Send + Sync + 'static) -> StagePart {
    StagePart {
        name: name.into(),
        make: Arc::new(make),
        then: Vec::new(),
    }
}

fn run(
    journal: Option<Journal>,
    pipelines: Vec<PipelinePart>,
    connectors: Vec<ConnectorPart>,
) -> Result<(Graph, Ledger), GraphError> {
    let ledger = Ledger::new();
    let graph = Graph::start(Parts {
        pipelines,
        connectors,
        journal,
        budget: Budget::root("process", 1 << 30),
        ledger: ledger.clone(),
        runtime: Handle::current(),
    })?;
    Ok((graph, ledger))
}

/// A seed's lives: spans go in while the disk breaks, and in the end all come out, each with one number.
async fn simulate(seed: u64, forgets: bool) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = SimulatedDisk::new(seed);
    let backend = Arc::new(Numbered::default());
    let settings = Settings {
        max_bytes: 1 << 20,
        segment_bytes: 16 << 10,
        min_free_bytes: 0,
        ..Settings::new("/journal")
    };
    let (mut acked, mut next) = (BTreeSet::new(), 0);
    let lives = random.usize(2..5);
    for life in 0..=lives {
        let last = life == lives;
        let mut faults = Faults::default();
        if !last {
            faults.stop_after = Some(random.u64(20..300));
            faults.sync_failures = if random.bool() { 20 } else { 0 };
            faults.write_failures = if random.bool() { 20 } else { 0 };
        }
        disk.set_faults(faults);
        if let Ok((journal, _)) = Journal::open(settings.clone(), Arc::new(disk.mounted())) {
            let mut traces = pipeline("traces", &["otlp"], vec![("backend", Sink::Exporter(backend.clone()))]);
            traces
                .stages
                .push(stage("numbering", move || Box::new(Numbering { next: 0, forgets })));
            // A second one, so that one's output is another's input.
            traces.stages.push(stage("again", || Box::new(Passing)));
            match run(Some(journal.clone()), vec![traces], Vec::new()) {
                Ok((graph, ledger)) => {
                    let intake = graph.intake("otlp").expect("named");
                    for _ in 0..random.usize(1..40) {
                        let batch = next..next + random.u64(1..6);
                        next = batch.end;
                        if intake.push(spans(batch.clone())).await.is_delivered() {
                            acked.extend(batch);
                        }
                    }
                    let grace = if last {
                        GRACE
                    } else {
                        Duration::from_millis(random.u64(0..20))
                    };
                    let drained = graph.drain(grace).await;
                    if last {
                        ledger.balance().map_err(|imbalance| imbalance.to_string())?;
                        assert_eq!(drained, Drained::Settled, "seed {seed}");
                    }
                }
                Err(error) if last => return Err(error.to_string()),
                Err(_) => journal.close(),
            }
        }
        disk.restart(Loss::Power);
    }
    let taken = backend.taken.lock().expect("no panic").clone();
    let ids: BTreeSet<u64> = taken.iter().map(|(id, _)| *id).collect();
    let numbers: BTreeSet<u64> = taken.iter().map(|(_, number)| *number).collect();
    if ids.len() != taken.len() || numbers.len() != taken.len() {
        return Err(format!(
            "{} pairs of {} spans and {} numbers",
            taken.len(),
            ids.len(),
            numbers.len()
        ));
    }
    if numbers.last().is_some_and(|last| *last + 1 != numbers.len() as u64) {
        return Err(format!("{} numbers up to {:?}", numbers.len(), numbers.last()));
    }
    match acked.difference(&ids).next() {
        Some(lost) => Err(format!("{lost} was acknowledged and never came")),
        None => Ok(()),
    }
}

struct Passing;

impl Stage for Passing {
    fn restore(&mut self, _: &State) -> Result<(), BadState> {
        Ok(())
    }

    fn take(&mut self, batch: Batch, out: &mut Vec<Batch>) {
        out.push(batch);
    }

    fn state(&mut self, _: bool) -> State {
        State::Whole(Bytes::new())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_goes_on_where_its_last_commit_was_whatever_the_disk_does() {
    for seed in seeds(SEEDS) {
        if let Err(error) = simulate(seed, false).await {
            panic!("seed {seed}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_forgets_is_caught() {
    for seed in SEEDS {
        if simulate(seed, true).await.is_err() {
            return;
        }
    }
    panic!("nothing was noticed");
}

/// Tells what is done with it.
struct Delayed {
    events: Arc<Mutex<Vec<(&'static str, u64)>>>,
    told: Arc<Notify>,
}

impl Delayed {
    fn tell(&self, what: &'static str, batch: &Batch) {
        self.events.lock().expect("no panic").push((what, ids(batch)[0]));
        self.told.notify_one();
    }
}

impl Stage for Delayed {
    fn restore(&mut self, _: &State) -> Result<(), BadState> {
        Ok(())
    }

    fn delay(&self) -> Duration {
        Duration::from_secs(3600)
    }

    fn see(&mut self, batch: &Batch) {
        self.tell("see", batch);
    }

    fn take(&mut self, batch: Batch, out: &mut Vec<Batch>) {
        self.tell("take", &batch);
        out.push(batch);
    }

    fn state(&mut self, _: bool) -> State {
        State::Whole(Bytes::new())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_delay_everything_that_arrived_meanwhile_is_seen_first_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let backend = Arc::new(Backend::default());
    let events: Arc<Mutex<Vec<(&'static str, u64)>>> = Arc::default();
    let told: Arc<Notify> = Arc::default();
    let start = || {
        let mut traces = pipeline("traces", &["otlp"], vec![("backend", Sink::Exporter(backend.clone()))]);
        let (events, told) = (Arc::clone(&events), Arc::clone(&told));
        traces.stages.push(stage("delayed", move || {
            Box::new(Delayed {
                events: Arc::clone(&events),
                told: Arc::clone(&told),
            })
        }));
        run(Some(open(directory.path())), vec![traces], Vec::new())
            .expect("starts")
            .0
    };
    let heard = async |count: usize| {
        while events.lock().expect("no panic").len() < count {
            told.notified().await;
        }
        std::mem::take(&mut *events.lock().expect("no panic"))
    };
    let arrived = |id: u64, minutes_ago: u64| {
        let mut batch = spans([id]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let at = now - Duration::from_secs(minutes_ago * 60);
        Arc::make_mut(&mut batch.meta).received_at_unix_nano = at.as_nanos() as u64;
        batch
    };
    let graph = start();
    let intake = graph.intake("otlp").expect("named");
    push_all(&intake, [arrived(1, 90), arrived(2, 45), arrived(3, 10)]).await;
    let first = [("see", 1), ("see", 2), ("take", 1), ("see", 3)];
    assert_eq!(heard(4).await, first, "3 arrived after 1 was due");
    backend.has(1).await;
    assert_eq!(graph.drain(GRACE).await, Drained::Settled);

    // What was not taken is seen once more, and what was taken is not.
    let graph = start();
    assert_eq!(heard(2).await, [("see", 2), ("see", 3)]);
    let intake = graph.intake("otlp").expect("named");
    push_all(&intake, [arrived(4, 0)]).await;
    assert_eq!(heard(1).await, [("see", 4)]);
    assert_eq!(graph.drain(GRACE).await, Drained::Settled);
    assert_eq!(backend.taken(), [1]);
}

/// Counts spans, and gives the count out as that many spans when the process stops.
#[derive(Default)]
struct Counting {
    count: u64,
}

impl Stage for Counting {
    fn restore(&mut self, state: &State) -> Result<(), BadState> {
        let (State::Whole(bytes) | State::Change(bytes)) = state;
        self.count = u64::from_be_bytes(bytes[..].try_into().expect("eight bytes"));
        Ok(())
    }

    fn take(&mut self, batch: Batch, _: &mut Vec<Batch>) {
        self.count += u64::from(batch.items);
    }

    fn finish(&mut self, _: u64, out: &mut Vec<Batch>) {
        out.push(spans(0..self.count));
    }

    fn state(&mut self, _: bool) -> State {
        State::Whole(Bytes::copy_from_slice(&self.count.to_be_bytes()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_joins_pipelines_counts_each_once_and_is_drained_before_what_follows() {
    let directory = tempfile::tempdir().expect("a directory");
    let (backend, counts) = (Arc::new(Backend::default()), Arc::new(Backend::default()));
    let make: MakeStage = Arc::new(|| Box::new(Counting::default()));
    for life in 1..=3 {
        // In the order that is hardest to start and stop in.
        let mut joined = pipeline(
            "traces/counts",
            &["counting"],
            vec![("counts", Sink::Exporter(counts.clone()))],
        );
        joined.stages.push(stage("passing", || Box::new(Passing)));
        let mut one = pipeline(
            "traces/one",
            &["otlp"],
            vec![("backend", Sink::Exporter(backend.clone()))],
        );
        one.connectors = vec!["counting".into()];
        one.stages.push(stage("passing", || Box::new(Passing)));
        let mut two = pipeline("traces/two", &["otlp/two"], Vec::new());
        two.connectors = vec!["counting".into()];
        let connector = ConnectorPart {
            name: "counting".into(),
            make: Arc::clone(&make),
        };
        let journal = Some(open(directory.path()));
        let (graph, ledger) = run(journal, vec![joined, two, one], vec![connector]).expect("starts");
        let intake = |name| graph.intake(name).expect("named");
        push_all(
            &intake("otlp"),
            (0..10).map(|n| spans(life * 100 + n..life * 100 + n + 1)),
        )
        .await;
        push_all(&intake("otlp/two"), [spans(0..5)]).await;
        assert!(graph.intake("counting").is_none(), "nobody pushes to a connector");
        assert_eq!(graph.drain(GRACE).await, Drained::Settled);
        ledger.balance().expect("balanced");
        let got = counts.taken().len() as u64;
        assert_eq!(got, life * 15, "in life {life}");
        assert_eq!(backend.taken().len() as u64, life * 10);
        let door = ledger
            .snapshot()
            .doors
            .into_iter()
            .find(|door| door.receiver == "counting");
        assert_eq!(door.map(|door| door.acked), Some(life * 15));
    }
}

#[tokio::test]
async fn without_a_journal_what_holds_data_does_not_start() {
    let mut traces = pipeline("traces", &["otlp"], Vec::new());
    traces.stages.push(stage("numbering", || Box::new(Passing)));
    let error = run(None, vec![traces], Vec::new()).err().expect("refused").to_string();
    assert_eq!(
        error,
        "`numbering` holds data, which would be lost with the process: it needs the journal"
    );
}

/// At the journal's bound only the stage can make room, and to do so it has to write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_journal_does_not_hold_up_the_stage_that_makes_room_in_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = Settings {
        max_bytes: 512 << 10,
        segment_bytes: 64 << 10,
        min_free_bytes: 0,
        ..Settings::new(directory.path())
    };
    // Filled while the stage is not there; its reader is known from a first start.
    let backend = Arc::new(Backend::default());
    let start = |stages: bool| {
        let (journal, _) = Journal::open(settings.clone(), Arc::new(RealDisk)).expect("opens");
        let mut traces = pipeline("traces", &["otlp"], vec![("backend", Sink::Exporter(backend.clone()))]);
        if stages {
            traces.stages.push(stage("passing", || Box::new(Passing)));
        }
        (
            run(Some(journal.clone()), vec![traces], Vec::new()).expect("starts").0,
            journal,
        )
    };
    let (graph, _) = start(true);
    assert_eq!(graph.drain(GRACE).await, Drained::Settled);
    let (journal, _) = Journal::open(settings.clone(), Arc::new(RealDisk)).expect("opens");
    let options = journal::ReaderOptions {
        stream: "traces".into(),
        on_full: journal::OnFull::Refuse,
        start: journal::Start::Stored,
    };
    let reader = journal.reader("traces:passing", options).expect("known");
    let mut acked = 0;
    let mut random = fastrand::Rng::with_seed(1);
    loop {
        let mut batch = spans([acked]);
        // Padding that does not pack.
        let padding = std::iter::repeat_with(|| random.alphanumeric())
            .take(8 << 10)
            .collect::<String>();
        let mut request = ExportTraceServiceRequest::decode(batch.payload.bytes()).expect("a request");
        request.resource_spans[0].scope_spans[0].spans[0].name = padding;
        batch.payload = request.encode_to_vec().into();
        let record = pipeline::record::from_batch(&"traces".into(), &batch).expect("a record");
        let (tell, told) = tokio::sync::oneshot::channel();
        journal.append(record, move |appended| drop(tell.send(appended)));
        match told.await.expect("an answer") {
            Ok(_) => acked += 1,
            Err(error) => {
                assert!(matches!(error, journal::AppendError::Full { .. }), "{error}");
                break;
            }
        }
    }
    drop(reader);
    journal.close();
    drop(journal);
    assert!(acked > 30, "{acked}");
    let (graph, journal) = start(true);
    backend.has(acked as usize).await;
    assert_eq!(graph.drain(GRACE).await, Drained::Settled);
    assert_eq!(backend.taken(), (0..acked).collect::<Vec<_>>());
    drop(journal);
}
