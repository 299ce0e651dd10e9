//! Door → graph → journal → store and backend, on one disk that breaks, over many seeds: what a sender was told is accepted
//! is in the store exactly once and has reached the backend at least once, or its loss is reported; what was turned away for
//! good is nowhere; the books balance.
//!
//! The load, the faults and their order come from the seed. Threads interleave as they like, so a seed is a strong hint, not
//! a recording; a failure prints its steps and what the disk did last. The simulations of the journal and of the store by
//! themselves run on the same disk, without threads, and are deterministic.

mod backend;
mod life;
mod load;
#[path = "../../../store/tests/simulated/mod.rs"]
mod simulated;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backend::{Backend, Mood};
use journal::Fsync;
use journal::simulated::{Faults, Loss, SimulatedDisk, seeds};
use life::{GRACE, Life, Plan, Reported, STORE_DIR, SimulatedClock};
use load::{Request, Told};
use model::Signal;
use pipeline::graph::Drained;
use pipeline::sending::OnFull;
use pipeline::{Ledger, Reason};
use simulated::Simulated;
use store::{Columns, Dataset, Filter, Reader, Scan};

/// Enough for each way of dying to meet each stage a few times, in seconds of an unoptimised build; `TRACKLINE_SEEDS` in the
/// environment asks for others.
const SEEDS: Range<u64> = 0..24;
/// How often the machine dies per seed, at most.
const LIVES: u64 = 5;
/// Steps of one life.
const STEPS: u64 = 16;
/// Requests of one step.
const REQUESTS: u64 = 10;

/// Which files lose bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flips {
    None,
    Segments,
    Parts,
}

/// What the simulation is to catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// The store does not know after a restart what it holds.
    Forgets,
    /// Nothing is ever synchronised.
    NeverSyncs,
}

struct Sent {
    request: Request,
    told: Told,
}

/// What the world outside knows.
struct World {
    seed: u64,
    mistake: Mistake,
    random: fastrand::Rng,
    disk: SimulatedDisk,
    clock: SimulatedClock,
    backend: Backend,
    plan: Plan,
    flips: Flips,
    sent: Vec<Sent>,
    next: u64,
    /// Over all lives.
    reported: Reported,
    backend_dropped: u64,
    steps: Vec<String>,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() && self.mistake == Mistake::None {
            let mut out = format!(
                "TRACKLINE_SEEDS={} failed\n{:?}, flips: {:?}\n",
                self.seed, self.plan, self.flips
            );
            for step in &self.steps {
                let _ = writeln!(out, "  {step}");
            }
            let _ = writeln!(out, "what the disk did last:");
            for operation in self.disk.history() {
                let _ = writeln!(out, "  {operation}");
            }
            eprint!("{out}");
        }
    }
}

impl World {
    fn new(seed: u64, mistake: Mistake) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let plan = Plan {
            // Only this one promises anything about the loss of power.
            fsync: match random.u8(..6) {
                _ if mistake != Mistake::None => Fsync::Always,
                0 => Fsync::Interval(Duration::ZERO),
                1 => Fsync::Off,
                _ => Fsync::Always,
            },
            journal_max_bytes: *random.choice(&[200 << 10, 1 << 20, 8 << 20]).expect("three"),
            backend_on_full: match random.bool() {
                true => OnFull::SkipOldest,
                false => OnFull::Refuse,
            },
            backend_queue_size: (random.u8(..6) == 0).then_some(20),
            backend_in_flight: random.usize(1..5),
            forgets: mistake == Mistake::Forgets,
        };
        let flips = match random.u8(..6) {
            _ if mistake != Mistake::None => Flips::None,
            0 | 1 => Flips::Segments,
            2 => Flips::Parts,
            _ => Flips::None,
        };
        World {
            seed,
            mistake,
            disk: SimulatedDisk::new(seed),
            clock: SimulatedClock::new(),
            backend: Backend::new(seed),
            random,
            plan,
            flips,
            sent: Vec::new(),
            next: 1,
            reported: Reported::default(),
            backend_dropped: 0,
            steps: Vec::new(),
        }
    }

    fn note(&mut self, what: impl Into<String>) {
        self.steps.push(what.into());
    }

    /// Changes what goes wrong from here on.
    fn fault(&mut self, change: impl FnOnce(&mut Faults)) {
        let mut faults = self.disk.faults();
        faults.pretends_to_sync = self.mistake == Mistake::NeverSyncs;
        change(&mut faults);
        self.disk.set_faults(faults);
        self.note(format!("{faults:?}"));
    }

    /// Several lives, then one that has to mend everything, and one that has to work.
    async fn run(&mut self) {
        for life in 0..self.random.u64(2..=LIVES) {
            self.note(format!("life {life}"));
            let stop_after = match self.random.u8(..4) {
                0 => None,
                1 => Some(self.random.u64(0..40)),
                _ => Some(self.random.u64(0..600)),
            };
            let (sync_failures, write_failures) = (self.random.u32(0..10), self.random.u32(0..10));
            self.fault(|faults| {
                faults.stop_after = stop_after;
                faults.sync_failures = sync_failures;
                faults.write_failures = write_failures;
            });
            match Life::start(&self.disk, &self.clock, &self.backend, &self.plan).await {
                Ok(life) => self.live(life).await,
                Err(error) => {
                    self.note(format!("it does not start: {error}"));
                    let faults = self.disk.faults();
                    let excused = self.disk.is_stopped() || faults.sync_failures > 0 || faults.write_failures > 0;
                    assert!(excused, "it does not start: {error}");
                }
            }
            self.restart();
        }
        self.fault(|_| {});
        self.backend.set_mood(Mood::default());
        for last in [false, true] {
            self.note("a life without faults");
            let life = Life::start(&self.disk, &self.clock, &self.backend, &self.plan).await;
            let life = life.unwrap_or_else(|error| panic!("it does not start any more: {error}"));
            if last {
                for signal in [Signal::Traces, Signal::Logs] {
                    let request = Request::plain(signal, self.next, self.clock.now());
                    self.next += 1;
                    self.send(&life, vec![request]).await;
                    let told = self.sent.last().map(|sent| sent.told.clone());
                    assert_eq!(told, Some(Told::Accepted { rejected: 0 }), "it works again");
                }
            }
            let (drained, reader, _) = self.drain(life).await;
            assert_eq!(drained, Drained::Settled);
            self.check_store(&reader, true);
            drop(reader);
            self.disk.restart(Loss::Process);
            self.fault(|_| {});
        }
        self.check_backend();
    }

    async fn live(&mut self, life: Life) {
        for _ in 0..self.random.u64(1..=STEPS) {
            match self.random.u8(..100) {
                0..55 => {
                    let now = self.clock.now();
                    let requests = (0..self.random.u64(1..=REQUESTS))
                        .map(|_| Request::new(&mut self.random, &mut self.next, now))
                        .collect();
                    self.send(&life, requests).await;
                }
                55..67 => {
                    let flushed = life.writer.flush();
                    self.note(format!("flush: {flushed:?}"));
                }
                67..75 => {
                    // Before a merge could hide that a row is there twice.
                    self.check_store(&life.reader, false);
                    let maintained = life.writer.maintain();
                    self.note(format!("upkeep: {maintained:?}"));
                }
                75..80 => {
                    let hours = self.random.u64(1..12);
                    self.clock.advance(Duration::from_secs(hours * 3600));
                    self.note(format!("{hours} hours pass"));
                }
                80..86 => {
                    let room = self.random.u64(0..100_000);
                    let used = self.disk.used_bytes();
                    self.fault(|faults| {
                        faults.capacity_bytes = match faults.capacity_bytes {
                            None => Some(used + room),
                            Some(_) => None,
                        }
                    });
                }
                86..89 => {
                    let often = self.random.u32(0..100);
                    self.fault(|faults| faults.sync_failures = often);
                }
                89..96 => {
                    let mood = match self.random.u8(..4) {
                        0 => Mood::default(),
                        1 => Mood {
                            fails: 100,
                            ..Mood::default()
                        },
                        _ => Mood {
                            fails: self.random.u8(..40),
                            stalls: self.random.u8(..10),
                            rejects: self.random.u8(..20),
                        },
                    };
                    self.backend.set_mood(mood);
                    self.note(format!("{mood:?}"));
                }
                _ => self.check_store(&life.reader, false),
            }
        }
        if self.random.u8(..4) == 0 {
            let (drained, reader, _) = self.drain(life).await;
            self.note(format!("drained: {drained:?}"));
            drop(reader);
            return;
        }
        self.note("the machine stops");
        self.report(&life);
        let ledger = life.ledger.clone();
        life.stop().await;
        // Readers were stopped in the middle of what they did; doors have answered everybody.
        let mut books = ledger.snapshot();
        books.readers.clear();
        books.balance().unwrap_or_else(|imbalance| panic!("{imbalance}"));
    }

    /// Sends, and holds what was told against what was sent and what the ledger says.
    async fn send(&mut self, life: &Life, requests: Vec<Request>) {
        let was_stopped = self.disk.is_stopped();
        let acked = |signal: Signal| -> u64 {
            let books = life.ledger.snapshot();
            let door = books.doors.iter().find(|door| door.signal == signal.as_str());
            door.map_or(0, |door| door.acked)
        };
        let before = Signal::ALL.map(acked);
        let told = tokio::time::timeout(GRACE, load::send(life.grpc, life.http, &requests)).await;
        let told = told.expect("everybody gets an answer");
        let mut accepted: BTreeMap<&str, u64> = BTreeMap::new();
        for (request, told) in requests.into_iter().zip(told) {
            self.note(format!(
                "{} {:?} and {} bad: {told:?}",
                request.signal, request.good, request.bad
            ));
            match &told {
                Told::Accepted { rejected } => {
                    assert_eq!(*rejected, request.bad, "what is turned away is counted for its sender");
                    assert!(!was_stopped || request.good.is_empty(), "a dead machine accepts");
                    *accepted.entry(request.signal.as_str()).or_default() += request.good.len() as u64;
                }
                Told::Later => {}
                Told::Rejected => assert!(request.good.is_empty(), "good data is rejected for good"),
            }
            self.sent.push(Sent { request, told });
        }
        for (signal, before) in Signal::ALL.into_iter().zip(before) {
            let told = accepted.get(signal.as_str()).copied().unwrap_or(0);
            assert_eq!(
                acked(signal) - before,
                told,
                "the ledger claims what senders were told: {signal}"
            );
        }
    }

    async fn drain(&mut self, life: Life) -> (Drained, Reader, Ledger) {
        // What the readers still meet on their way out counts, too.
        let journal_sees = life.watch();
        let (drained, reader, ledger) = life.drain().await;
        self.add(journal_sees.reported(), &ledger);
        ledger.balance().unwrap_or_else(|imbalance| panic!("{imbalance}"));
        (drained, reader, ledger)
    }

    fn report(&mut self, life: &Life) {
        self.add(life.watch().reported(), &life.ledger);
    }

    /// Adds up what the journal and the ledger of one life say is not delivered.
    fn add(&mut self, reported: Reported, ledger: &Ledger) {
        self.note(format!("{reported:?}"));
        assert_eq!(reported.store_skipped, 0, "no bound takes anything from the store");
        self.reported.lost += reported.lost;
        self.reported.backend_skipped += reported.backend_skipped;
        for book in ledger
            .snapshot()
            .readers
            .iter()
            .filter(|book| book.exporter == "backend")
        {
            let dropped = book.dropped.0.iter().filter(|(reason, _)| *reason == Reason::QueueFull);
            self.backend_dropped += dropped.map(|(_, items)| items).sum::<u64>();
        }
    }

    /// The machine comes back, with what the loss and the flipped bits left.
    fn restart(&mut self) {
        let loss = match self.plan.fsync {
            Fsync::Always if self.mistake == Mistake::NeverSyncs || self.random.bool() => Loss::Power,
            _ => Loss::Process,
        };
        self.disk.stop();
        self.disk.restart(loss);
        self.note(format!("the machine comes back after the loss of the {loss:?}"));
        let extension = match self.flips {
            Flips::None => return,
            Flips::Segments => "segment",
            Flips::Parts => "parquet",
        };
        let mut files = self.disk.files();
        files.retain(|(path, bytes)| *bytes > 0 && path.extension().is_some_and(|found| found == extension));
        if let Some((path, bytes)) = self.random.choice(&files) {
            let bit = self.random.u64(0..bytes * 8);
            self.disk.flip_bit(path, bit);
            self.note(format!(
                "bit {} of byte {} of {} flips",
                bit % 8,
                bit / 8,
                path.display()
            ));
        }
    }

    /// Whatever is in the store is there once and was not turned away; when `complete`, everything accepted is there.
    fn check_store(&mut self, reader: &Reader, complete: bool) {
        if self.disk.is_stopped() {
            return;
        }
        let signal_of: BTreeMap<u64, Signal> = self
            .sent
            .iter()
            .flat_map(|sent| sent.request.good.iter().map(|id| (*id, sent.request.signal)))
            .collect();
        let mut found: BTreeMap<u64, u32> = BTreeMap::new();
        for (dataset, signal) in [(Dataset::Traces, Signal::Traces), (Dataset::Logs, Signal::Logs)] {
            for id in rows(reader, dataset) {
                *found.entry(id).or_default() += 1;
                assert_eq!(signal_of.get(&id), Some(&signal), "nobody sent {id} as good {signal}");
            }
        }
        let twice: Vec<_> = found.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "in the store more than once: {twice:?}");
        if !complete {
            return;
        }
        let accepted = self
            .sent
            .iter()
            .filter(|sent| matches!(sent.told, Told::Accepted { .. }));
        let lost: Vec<_> = accepted
            .map(|sent| &sent.request.good)
            .filter(|good| !good.iter().all(|id| found.contains_key(id)))
            .collect();
        if lost.is_empty() {
            return;
        }
        let quarantined = reader.stats().quarantined;
        match self.flips {
            Flips::None => panic!("accepted, but not in the store: {lost:?}"),
            Flips::Segments => assert!(
                lost.len() as u64 <= self.reported.lost,
                "lost without saying so: {lost:?}; {:?}",
                self.reported
            ),
            Flips::Parts => {
                let disk: Arc<dyn store::Disk> = Arc::new(Simulated(self.disk.mounted()));
                let report = store::check_on(&disk, Path::new(STORE_DIR)).expect("the catalog is whole");
                let unreadable = report.rows - found.len() as u64;
                let missing = lost
                    .iter()
                    .flat_map(|good| good.iter())
                    .filter(|id| !found.contains_key(id));
                let missing = missing.count() as u64;
                assert!(!quarantined.is_empty(), "lost without saying so: {lost:?}");
                assert!(
                    missing <= unreadable,
                    "{missing} lost, {unreadable} in damaged parts: {lost:?}"
                );
            }
        }
    }

    /// Everything accepted has come to the backend, or is counted as given up; what comes, comes whole.
    fn check_backend(&self) {
        let settled = self.backend.settled();
        let mut missing = Vec::new();
        for sent in self
            .sent
            .iter()
            .filter(|sent| matches!(sent.told, Told::Accepted { .. }))
        {
            let there = sent.request.good.iter().filter(|id| settled.contains(id)).count();
            if there < sent.request.good.len() {
                assert_eq!(there, 0, "half of a request came: {:?}", sent.request.good);
                missing.push(&sent.request.good);
            }
        }
        // What recovery found damaged is not a reader's loss, because no reader was promised it any more.
        let given_up = self.reported.backend_skipped + self.backend_dropped + self.reported.lost;
        assert!(
            missing.len() as u64 <= given_up,
            "accepted, not delivered, and not counted: {missing:?}; {:?}, dropped {}",
            self.reported,
            self.backend_dropped
        );
        let known = |id: &u64| self.sent.iter().any(|sent| sent.request.good.contains(id));
        let taken = self.backend.taken();
        assert!(taken.iter().all(known), "the backend has what nobody sent as good");
    }
}

fn rows(reader: &Reader, dataset: Dataset) -> Vec<u64> {
    let scan = Scan {
        dataset,
        time: 0..u64::MAX,
        filter: Filter::True,
        columns: Columns::All,
        newest_first: false,
    };
    let mut ids = Vec::new();
    for batch in reader.scan(scan) {
        let batch = batch.expect("reads");
        match dataset {
            Dataset::Traces => ids.extend(
                store::rows::spans(&batch)
                    .iter()
                    .map(|span| u64::from_be_bytes(span.span_id.0)),
            ),
            Dataset::Logs => {
                let records = store::rows::logs(&batch);
                ids.extend(
                    records
                        .iter()
                        .map(|record| u64::from_be_bytes(record.span_id.expect("every record has one").0)),
                );
            }
        }
    }
    ids
}

async fn simulate(seed: u64, mistake: Mistake) {
    World::new(seed, mistake).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_accepted_survives_whatever_breaks() {
    for seed in seeds(SEEDS) {
        simulate(seed, Mistake::None).await;
    }
}

/// A simulation that finds nothing proves nothing.
async fn is_caught(mistake: Mistake) {
    for seed in SEEDS {
        if tokio::spawn(simulate(seed, mistake)).await.is_err() {
            return;
        }
    }
    panic!("nothing was wrong with {mistake:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_forgets_its_positions_is_caught() {
    is_caught(Mistake::Forgets).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_never_synchronises_is_caught() {
    is_caught(Mistake::NeverSyncs).await;
}
