//! The journal on a disk that breaks, over many seeds: what was acknowledged is found, under its number, once and in
//! order, whatever happened. Deterministic per seed: the commit thread's work is done by the test, step by step.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::commit::Engine;
use crate::journal::Journal;
use crate::simulated::{Faults, Loss, SimulatedDisk, seeds};
use crate::*;

const READERS: [(&str, &str, OnFull); 4] = [
    ("store", "traces", OnFull::Refuse),
    ("remote", "traces", OnFull::SkipOldest),
    ("archive", "logs", OnFull::Refuse),
    ("lossy", "metrics", OnFull::SkipOldest),
];
/// Enough for each way of breaking to meet each state several times, in seconds of an unoptimised build; `TRACKLINE_SEEDS`
/// in the environment asks for more.
const SEEDS: Range<u64> = 0..100;

/// What is written at once at most.
const GROUP_RECORDS: usize = 10;

struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn now_unix_nano(&self) -> u64 {
        self.0.fetch_add(1, Relaxed)
    }
}

/// What the world outside knows.
#[derive(Default)]
struct World {
    /// Every record that was ever handed over, by its text.
    attempted: HashMap<String, &'static str>,
    /// What was acknowledged to its sender.
    accepted: BTreeMap<Seq, (String, &'static str)>,
    /// Which text a number was seen with, acknowledged or delivered; and the reverse.
    text_of: BTreeMap<Seq, String>,
    seq_of: HashMap<String, Seq>,
    /// What each reader acknowledged.
    acked: HashMap<&'static str, BTreeSet<Seq>>,
    /// What was appended together, of streams that nothing is removed from.
    bundles: Vec<Vec<String>>,
    /// How many each reader never got because a bound removed them.
    skipped: HashMap<&'static str, u64>,
    texts: u64,
    /// Records that broken bits may have cost so far.
    forgiven: u64,
}

impl World {
    fn saw(&mut self, seq: Seq, text: &str) -> Result<(), String> {
        let known = self.text_of.entry(seq).or_insert_with(|| text.to_owned());
        if known != text {
            return Err(format!("number {seq} stood for {known:?} and for {text:?}"));
        }
        let first = *self.seq_of.entry(text.to_owned()).or_insert(seq);
        if first != seq {
            return Err(format!("{text:?} came as {first} and as {seq}"));
        }
        Ok(())
    }
}

type Results = Arc<Mutex<Vec<(Result<Seq, AppendError>, String, &'static str)>>>;

struct Run {
    journal: Journal,
    engine: Engine,
    recovery: Recovery,
    readers: Vec<Reader>,
    /// The last number that each reader got since it was opened.
    got: Vec<BTreeSet<Seq>>,
}

fn settings(fsync: Fsync) -> Settings {
    Settings {
        max_bytes: 160 << 10,
        segment_bytes: 16 << 10,
        fsync,
        min_free_bytes: 0,
        ..Settings::new("/journal")
    }
}

fn start(disk: &SimulatedDisk, clock: &Arc<Ticks>, fsync: Fsync, broken: bool) -> Result<Run, String> {
    let (journal, mut engine, recovery) =
        Journal::open_without_threads(settings(fsync), Arc::new(disk.clone()), clock.clone())
            .map_err(|error| error.to_string())?;
    engine.acknowledge_early = broken;
    let mut readers = Vec::new();
    for (name, stream, on_full) in READERS {
        let options = ReaderOptions {
            stream: stream.into(),
            on_full,
            start: Start::Stored,
        };
        readers.push(journal.reader(name, options).map_err(|error| error.to_string())?);
    }
    Ok(Run {
        journal,
        engine,
        recovery,
        readers,
        got: vec![BTreeSet::new(); READERS.len()],
    })
}

impl Run {
    fn append(&mut self, world: &mut World, random: &mut fastrand::Rng) -> Result<(), String> {
        let results = Results::default();
        for _ in 0..random.usize(1..6) {
            world.texts += 1;
            let text = format!("{} {}", world.texts, "x".repeat(random.usize(0..3000)));
            let stream = *random.choice(&["traces", "logs", "metrics"]).expect("three");
            world.attempted.insert(text.clone(), stream);
            let results = results.clone();
            let record = Record {
                stream: stream.into(),
                header: "h".into(),
                payload: text.clone().into(),
            };
            self.journal.append(record, move |result| {
                results.lock().unwrap().push((result, text, stream))
            });
        }
        if random.u8(0..3) == 0 {
            self.append_together(world, random, results.clone());
        }
        let mut group: VecDeque<_> = std::mem::take(&mut self.journal.shared().queue().pending);
        self.engine.commit(&mut group);
        let mut last = 0;
        for (result, text, stream) in results.lock().unwrap().drain(..) {
            if let Ok(seq) = result {
                if seq <= last {
                    return Err(format!("{seq} was acknowledged after {last}"));
                }
                last = seq;
                world.saw(seq, &text)?;
                world.accepted.insert(seq, (text, stream));
            }
        }
        Ok(())
    }

    fn append_together(&self, world: &mut World, random: &mut fastrand::Rng, results: Results) {
        let mut bundle = Vec::new();
        for stream in ["traces", "logs"].into_iter().cycle().take(random.usize(2..6)) {
            world.texts += 1;
            let text = format!("{} {}", world.texts, "x".repeat(random.usize(0..1000)));
            world.attempted.insert(text.clone(), stream);
            bundle.push((text, stream));
        }
        world
            .bundles
            .push(bundle.iter().map(|(text, _)| text.clone()).collect());
        let records = bundle.iter().map(|(text, stream)| Record {
            stream: (*stream).into(),
            header: Default::default(),
            payload: text.clone().into(),
        });
        self.journal.append_together(records.collect(), move |result| {
            let mut results = results.lock().unwrap();
            for (at, (text, stream)) in bundle.into_iter().enumerate() {
                let result = result.clone().map(|seqs| seqs.start() + at as u64);
                results.push((result, text, stream));
            }
        });
    }

    /// What was appended together has been seen whole, or not at all.
    fn audit_bundles(&self, world: &World) -> Result<(), String> {
        for bundle in &world.bundles {
            let seen = bundle.iter().filter(|text| world.seq_of.contains_key(*text)).count();
            if seen != 0 && seen != bundle.len() {
                return Err(format!("{seen} of {} that belong together", bundle.len()));
            }
        }
        Ok(())
    }

    /// What is there for a reader now.
    fn poll(&self, at: usize, max_records: usize) -> Vec<Delivery> {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(found) = self.readers[at].poll_recv(&mut context, max_records, 10_000) {
                return found.unwrap_or_default();
            }
            if !self.journal.perform_one_read() {
                return Vec::new();
            }
        }
    }

    fn receive(&mut self, world: &mut World, at: usize, max_records: usize) -> Result<Vec<Seq>, String> {
        let (name, stream, _) = READERS[at];
        let mut seqs = Vec::new();
        for delivery in self.poll(at, max_records) {
            let text = String::from_utf8(delivery.record.payload.to_vec()).map_err(|error| error.to_string())?;
            if world.attempted.get(&text) != Some(&stream) || &*delivery.record.stream != stream {
                return Err(format!("{name} got {text:?}, which nobody appended to {stream}"));
            }
            world.saw(delivery.seq, &text)?;
            if self.got[at].last().is_some_and(|&last| last >= delivery.seq) {
                return Err(format!("{name} got {} after {:?}", delivery.seq, self.got[at].last()));
            }
            self.got[at].insert(delivery.seq);
            seqs.push(delivery.seq);
        }
        Ok(seqs)
    }

    fn acknowledge(&mut self, world: &mut World, random: &mut fastrand::Rng, at: usize) {
        let acked = world.acked.entry(READERS[at].0).or_default();
        let open: Vec<Seq> = self.got[at]
            .iter()
            .copied()
            .filter(|seq| !acked.contains(seq))
            .collect();
        let some: Vec<Seq> = open.into_iter().filter(|_| random.u8(0..3) > 0).collect();
        self.readers[at].ack_many(&some);
        acked.extend(some);
    }

    /// Everything that was accepted and that a reader never acknowledged must come to it.
    fn audit(&mut self, world: &mut World, flipped: usize) -> Result<(), String> {
        // At the end of a segment that was not closed, a bit that breaks one of a bundle looks like a write that did not finish.
        let forgiven = match self.recovery.torn_bytes {
            0 => flipped,
            _ => flipped * GROUP_RECORDS,
        };
        world.forgiven += forgiven as u64;
        let mut missing = BTreeSet::new();
        for (at, (name, stream, on_full)) in READERS.into_iter().enumerate() {
            while !self.receive(world, at, 50)?.is_empty() {}
            let acked = world.acked.entry(name).or_default();
            let due = world
                .accepted
                .iter()
                .filter(|(seq, (_, of))| *of == stream && !acked.contains(seq));
            let due: Vec<Seq> = due
                .map(|(&seq, _)| seq)
                .filter(|seq| !self.got[at].contains(seq))
                .collect();
            if on_full == OnFull::Refuse {
                missing.extend(due);
                continue;
            }
            let status = self.journal.readers().into_iter().find(|reader| reader.name == name);
            let status = status.ok_or("a reader is gone")?;
            let skipped = world.skipped.entry(name).or_default();
            *skipped += due.len() as u64;
            if *skipped > status.skipped_records + status.lost_records + world.forgiven {
                return Err(format!(
                    "{name} never got {skipped} records, the last of them {due:?}: {status:?}"
                ));
            }
            acked.extend(due);
        }
        if missing.len() > forgiven {
            return Err(format!("accepted and not found: {missing:?}"));
        }
        // A broken last record looks like one that was never finished, and is reported as such.
        let reported: u64 = self.journal.damage().iter().map(|damage| damage.lost_records).sum();
        let torn = if self.recovery.torn_bytes > 0 { GROUP_RECORDS } else { 0 };
        if missing.len() > reported as usize + torn {
            return Err(format!("lost {missing:?} without saying so: {:?}", self.recovery));
        }
        // What was lost and reported is not expected a second time.
        missing.iter().for_each(|seq| drop(world.accepted.remove(seq)));
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Breakage {
    Crashes,
    FlippedBits,
    AcknowledgedEarly,
}

fn simulate(seed: u64, breakage: Breakage) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = SimulatedDisk::new(seed);
    let clock = Arc::new(Ticks(AtomicU64::new(1)));
    let (fsync, loss) = match random.u8(0..4) {
        _ if breakage == Breakage::AcknowledgedEarly => (Fsync::Always, Loss::Power),
        0 => (Fsync::Interval(Duration::ZERO), Loss::Process),
        1 => (Fsync::Off, Loss::Process),
        _ => (Fsync::Always, Loss::Power),
    };
    let broken = breakage == Breakage::AcknowledgedEarly;
    let mut world = World::default();
    // The readers are known before the first trouble.
    start(&disk, &clock, fsync, broken)?.journal.close();
    for _ in 0..random.usize(2..6) {
        if breakage == Breakage::Crashes {
            disk.set_faults(Faults {
                stop_after: Some(random.u64(0..120)),
                sync_failures: if fsync == Fsync::Always && random.bool() { 30 } else { 0 },
                write_failures: if random.bool() { 20 } else { 0 },
                capacity_bytes: random.bool().then(|| random.u64(100_000..600_000)),
                ..Faults::default()
            });
        }
        if let Ok(mut run) = start(&disk, &clock, fsync, broken) {
            for _ in 0..random.usize(1..40) {
                let reader = random.usize(0..READERS.len());
                match random.u8(0..8) {
                    0..4 => run.append(&mut world, &mut random)?,
                    4 | 5 => drop(run.receive(&mut world, reader, random.usize(1..20))?),
                    6 => run.acknowledge(&mut world, &mut random, reader),
                    _ => {
                        if random.bool() {
                            run.journal.shared().queue().cursors_due = Some(Instant::now());
                        }
                        run.engine.housekeep();
                    }
                }
                if disk.is_stopped() {
                    break;
                }
            }
            if random.u8(0..4) == 0 {
                run.engine.close();
                run.journal.close();
            }
        }
        disk.restart(loss);
        let mut flipped = 0;
        if breakage == Breakage::FlippedBits {
            let segments: Vec<_> = disk
                .files()
                .into_iter()
                .filter(|(path, _)| path.extension().is_some())
                .collect();
            if let Some((path, length)) = random.choice(&segments) {
                // A seal that does not match is only read past; within records one bit costs one record.
                flipped = usize::from(disk.flip_bit(path, random.u64(0..length * 8)));
            }
        }
        let mut run = start(&disk, &clock, fsync, broken)?;
        run.audit(&mut world, flipped)?;
        if breakage != Breakage::FlippedBits {
            run.audit_bundles(&world)?;
        }
        for at in 0..READERS.len() {
            run.acknowledge(&mut world, &mut random, at);
        }
        drop(run);
        disk.restart(loss);
    }
    Ok(())
}

#[test]
fn what_was_accepted_survives_crashes_torn_writes_failed_syncs_and_a_full_disk() {
    for seed in seeds(SEEDS) {
        simulate(seed, Breakage::Crashes).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn a_flipped_bit_costs_one_record_at_most_and_is_reported() {
    for seed in seeds(SEEDS) {
        simulate(seed, Breakage::FlippedBits).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// A simulator that finds nothing proves nothing.
#[test]
fn acknowledging_before_synchronising_is_caught() {
    assert!(
        SEEDS
            .into_iter()
            .any(|seed| simulate(seed, Breakage::AcknowledgedEarly).is_err())
    );
}
