//! What callers see when things break around a running journal: disks, callbacks, whole files; and under many threads.

mod support;

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use journal::simulated::{Faults, Loss, SimulatedDisk};
use journal::{
    AppendError, Clock, Disk, DiskFile, Fsync, FullReason, Health, Journal, Locked, OnFull, Open, OpenError,
    ReaderOptions, RealDisk, Settings,
};
use support::*;

fn simulated() -> (SimulatedDisk, Journal) {
    let disk = SimulatedDisk::new(7);
    let (journal, _) = Journal::open(settings(Path::new("/journal")), Arc::new(disk.clone())).unwrap();
    (disk, journal)
}

#[test]
fn a_disk_that_fails_twice_turns_health_bad_and_a_restart_makes_it_good() {
    let (disk, journal) = simulated();
    let reader = journal.reader("store", options("traces")).unwrap();
    append(&journal, record("traces", "before")).unwrap();
    disk.set_faults(Faults {
        sync_failures: 1000,
        ..Faults::default()
    });
    assert_eq!(append(&journal, record("traces", "refused")), Err(AppendError::Failed));
    assert!(matches!(journal.health(), Health::Failed { .. }));
    disk.set_faults(Faults::default());
    assert_eq!(
        append(&journal, record("traces", "refused too")),
        Err(AppendError::Failed)
    );
    assert_eq!(
        texts(&receive(&reader, 1)),
        ["before"],
        "what is there can still be read"
    );
    journal.close();
    disk.restart(Loss::Power);
    let (journal, recovery) = Journal::open(settings(Path::new("/journal")), Arc::new(disk)).unwrap();
    assert!(recovery.readers[0].lag_records >= 1);
    append(&journal, record("traces", "after")).unwrap();
    assert_eq!(journal.health(), Health::Good);
}

#[test]
fn a_full_disk_refuses_and_takes_again_once_there_is_room() {
    let (disk, journal) = simulated();
    let reader = journal.reader("store", options("traces")).unwrap();
    disk.set_faults(Faults {
        capacity_bytes: Some(700_000),
        ..Faults::default()
    });
    let mut taken = Vec::new();
    let refused = loop {
        match append(&journal, record("traces", &"x".repeat(50_000))) {
            Ok(seq) => taken.push(seq),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            refused,
            AppendError::Full {
                reason: FullReason::DiskFull,
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(
        journal.health(),
        Health::Refusing {
            reason: FullReason::DiskFull
        }
    );
    assert!(!taken.is_empty());
    disk.set_faults(Faults::default());
    while append(&journal, record("traces", "again")).is_err() {
        std::thread::yield_now();
    }
    let got = receive(&reader, taken.len() + 1);
    assert_eq!(
        got[..taken.len()]
            .iter()
            .map(|delivery| delivery.seq)
            .collect::<Vec<_>>(),
        taken
    );
    assert_eq!(journal.health(), Health::Good);
}

#[test]
fn below_the_space_to_be_kept_free_nothing_is_taken() {
    let disk = SimulatedDisk::new(7);
    disk.set_faults(Faults {
        capacity_bytes: Some(1 << 20),
        ..Faults::default()
    });
    let kept = Settings {
        min_free_bytes: 900 << 10,
        ..Settings::new("/journal")
    };
    let (journal, _) = Journal::open(kept, Arc::new(disk.clone())).unwrap();
    let refusing = Health::Refusing {
        reason: FullReason::MinFree,
    };
    assert_eq!(journal.health(), refusing);
    assert!(matches!(
        append(&journal, record("traces", "x")),
        Err(AppendError::Full {
            reason: FullReason::MinFree,
            ..
        })
    ));
    disk.set_faults(Faults::default());
    while append(&journal, record("traces", "x")).is_err() {
        std::thread::yield_now();
    }
}

#[test]
fn whoever_fills_the_disk_costs_nothing_that_was_taken() {
    let disk = SimulatedDisk::new(7);
    let kept = Settings {
        min_free_bytes: 100 << 10,
        segment_bytes: 16 << 10,
        ..Settings::new("/journal")
    };
    let (journal, _) = Journal::open(kept, Arc::new(disk.clone())).unwrap();
    let may_skip = ReaderOptions {
        on_full: OnFull::SkipOldest,
        ..options("traces")
    };
    let reader = journal.reader("remote", may_skip).unwrap();
    let mut taken = Vec::new();
    // Several segments, so that some could be given up.
    for _ in 0..20 {
        taken.push(append(&journal, record("traces", &"x".repeat(5_000))).unwrap());
    }
    disk.set_faults(Faults {
        capacity_bytes: Some(150 << 10),
        ..Faults::default()
    });
    let refused = loop {
        match append(&journal, record("traces", &"x".repeat(5_000))) {
            Ok(seq) => taken.push(seq),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            refused,
            AppendError::Full {
                reason: FullReason::MinFree,
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(journal.readers()[0].skipped_records, 0);
    let got: Vec<_> = receive(&reader, taken.len())
        .iter()
        .map(|delivery| delivery.seq)
        .collect();
    assert_eq!(got, taken);
    // What has been read makes room for what is new.
    reader.ack_many(&taken);
    disk.set_faults(Faults {
        capacity_bytes: Some(260 << 10),
        ..Faults::default()
    });
    while append(&journal, record("traces", "again")).is_err() {
        std::thread::yield_now();
    }
}

#[test]
fn with_an_interval_the_disk_is_synchronised_without_further_appends() {
    let directory = tempfile::tempdir().unwrap();
    let fsync = Fsync::Interval(Duration::from_millis(1));
    let (journal, _) = open(Settings {
        fsync,
        ..settings(directory.path())
    });
    append(&journal, record("traces", "x")).unwrap();
    while journal.stats().syncs == 0 {
        std::thread::yield_now();
    }
}

struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn now_unix_nano(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

#[test]
fn what_is_too_old_is_skipped_for_those_that_allow_it() {
    let clock = Arc::new(HandClock(AtomicU64::new(1_000)));
    let disk = Arc::new(SimulatedDisk::new(7));
    let aged = Settings {
        max_age: Some(Duration::from_secs(60)),
        segment_bytes: 16 << 10,
        ..settings(Path::new("/journal"))
    };
    let (journal, _) = Journal::open_with_clock(aged, disk, clock.clone()).unwrap();
    let remote = journal
        .reader(
            "remote",
            ReaderOptions {
                on_full: OnFull::SkipOldest,
                ..options("traces")
            },
        )
        .unwrap();
    let store = journal.reader("store", options("traces")).unwrap();
    for _ in 0..20 {
        append(&journal, record("traces", &"x".repeat(4000))).unwrap();
    }
    clock.0.store(100_000_000_000, SeqCst);
    append(&journal, record("traces", "new")).unwrap();
    // Housekeeping follows the group that was just acknowledged.
    let skipped = loop {
        let skipped = journal.readers()[0].skipped_records;
        if skipped > 0 {
            break skipped;
        }
        std::thread::yield_now();
    };
    assert_eq!(journal.readers()[1].skipped_records, 0);
    let got = receive(&remote, 21 - skipped as usize);
    assert_eq!((got[0].seq, got.last().unwrap().seq), (skipped + 1, 21));
    assert_eq!(receive(&store, 21).len(), 21);
}

#[test]
fn a_callback_that_panics_or_appends_again_does_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(settings(directory.path()));
    journal.append(record("traces", "a"), |_| panic!("on purpose"));
    let (again, (send, receive)) = (journal.clone(), std::sync::mpsc::channel());
    journal.append(record("traces", "b"), move |first| {
        again.append(record("traces", "c"), move |second| drop(send.send((first, second))));
    });
    assert_eq!(receive.recv().unwrap(), (Ok(2), Ok(3)));
}

#[test]
fn the_last_handle_may_go_within_a_callback() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(settings(directory.path()));
    let again = journal.clone();
    let result = append_later(&journal, record("traces", "a"));
    journal.append(record("traces", "b"), move |_| again.close());
    drop(journal);
    assert_eq!(result.recv().unwrap(), Ok(1));
    // The commit thread gives the directory up by itself.
    loop {
        match Journal::open(settings(directory.path()), Arc::new(RealDisk)) {
            Ok((_, recovery)) => return assert!(recovery.clean && recovery.records == 2),
            Err(OpenError::InUse { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_segment_without_a_readable_header_still_gives_its_records() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(settings(directory.path()));
    let reader = journal.reader("store", options("traces")).unwrap();
    (0..5).for_each(|number| assert!(append(&journal, record("traces", &number.to_string())).is_ok()));
    journal.close();
    drop(reader);
    let path = directory.path().join("0000000001.segment");
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(b"????????", 0)
        .unwrap();
    let (journal, recovery) = open(settings(directory.path()));
    assert_eq!((recovery.records, recovery.damage_count), (5, 1));
    let reader = journal.reader("store", options("traces")).unwrap();
    assert_eq!(texts(&receive(&reader, 5)), numbers(0..5));
}

#[test]
fn lost_positions_mean_delivery_from_the_oldest_record() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(settings(directory.path()));
    let reader = journal.reader("store", options("traces")).unwrap();
    (0..5).for_each(|number| assert!(append(&journal, record("traces", &number.to_string())).is_ok()));
    receive(&reader, 3);
    reader.ack_many(&[1, 2, 3]);
    journal.close();
    drop(reader);
    std::fs::write(directory.path().join("cursors"), "nonsense").unwrap();
    let (journal, recovery) = open(settings(directory.path()));
    assert!(recovery.cursors_lost.is_some() && !recovery.clean);
    // Appends that come before the readers remove nothing that these may still need.
    append(&journal, record("traces", "5")).unwrap();
    let reader = journal.reader("store", options("traces")).unwrap();
    assert_eq!(texts(&receive(&reader, 6)), numbers(0..6));
}

/// The real disk, where nothing can be written.
struct ReadOnlyDisk;

impl Disk for ReadOnlyDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }
    fn open(&self, path: &Path, open: Open) -> io::Result<Arc<dyn DiskFile>> {
        if open == Open::Read {
            RealDisk.open(path, open)
        } else {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        }
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn remove_file(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(path)
    }
    fn lock(&self, _: &Path, _: &str) -> io::Result<Locked> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

#[test]
fn a_read_only_directory_is_refused_by_name_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let error = Journal::open(settings(directory.path()), Arc::new(ReadOnlyDisk)).unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }));
    let text = error.to_string();
    assert!(
        text.contains(&directory.path().display().to_string()) && text.contains("make it writable"),
        "{text}"
    );
}

#[test]
fn many_threads_append_while_readers_read_and_every_number_comes_once_in_order() {
    const THREADS: usize = 4;
    const EACH: usize = 300;
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(Settings {
        segment_bytes: 64 << 10,
        ..settings(directory.path())
    });
    let readers: Vec<_> = ["a", "b"]
        .map(|name| journal.reader(name, options("traces")).unwrap())
        .into();
    let (accept, accepted) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (journal, accept) = (&journal, accept.clone());
            scope.spawn(move || {
                for number in 0..EACH {
                    let accept = accept.clone();
                    let text = format!("{thread} {number} {}", "x".repeat(number * 13 % 700));
                    journal.append(record("traces", &text), move |result| {
                        accept.send(result.unwrap()).unwrap();
                    });
                }
            });
        }
        for (at, reader) in readers.iter().enumerate() {
            scope.spawn(move || {
                let mut next = [0; THREADS];
                let mut last = 0;
                while next.iter().sum::<usize>() < THREADS * EACH {
                    for delivery in wait(reader.recv(if at == 0 { 1 } else { 100 }, 10_000)).unwrap() {
                        assert!(delivery.seq > last);
                        last = delivery.seq;
                        let text = String::from_utf8(delivery.record.payload.to_vec()).unwrap();
                        let mut words = text.split(' ').map(|word| word.parse::<usize>());
                        let thread = words.next().unwrap().unwrap();
                        assert_eq!(
                            words.next().unwrap().unwrap(),
                            next[thread],
                            "order within a sender is kept"
                        );
                        next[thread] += 1;
                        reader.ack(delivery.seq);
                    }
                }
            });
        }
    });
    // A reader may have a record before its sender is told, so the answers are waited for.
    let accepted: BTreeSet<u64> = accepted.iter().take(THREADS * EACH).collect();
    assert_eq!(accepted.len(), THREADS * EACH);
    assert_eq!(accepted.last(), Some(&((THREADS * EACH) as u64)));
    assert!(journal.readers().iter().all(|reader| reader.lag_records == 0));
}
