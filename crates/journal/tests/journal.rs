//! What the journal promises its callers, on the real file system: durability, order, positions, bounds, errors.

mod support;

use std::sync::Arc;

use journal::{
    AppendError, FullReason, Health, Journal, OnFull, OpenError, Ranges, ReaderError, ReaderOptions, RealDisk,
    Settings, Start, TooLarge,
};
use support::*;

#[test]
fn what_is_acknowledged_is_there_after_a_restart_and_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, recovery) = open(settings(directory.path()));
    assert!(recovery.created && recovery.clean && recovery.records == 0);
    let reader = journal.reader("store", options("traces")).unwrap();
    for number in 0..10 {
        assert_eq!(
            append(&journal, record("traces", &number.to_string())).unwrap(),
            number + 1
        );
    }
    let got = receive(&reader, 4);
    assert_eq!(texts(&got), numbers(0..4));
    assert_eq!(got[0].record, record("traces", "0"));
    reader.ack_many(&[1, 2, 4]);
    let id = journal.id();
    journal.close();
    assert_eq!(append(&journal, record("traces", "late")), Err(AppendError::Closed));
    assert_eq!(wait(reader.recv(1, 1)), None);

    let (journal, recovery) = open(settings(directory.path()));
    assert!(recovery.clean && !recovery.created);
    assert_eq!((recovery.id, recovery.records, recovery.next_seq), (id, 10, 11));
    assert_eq!(
        (recovery.readers[0].lag_records, recovery.readers[0].attached),
        (7, false)
    );
    let reader = journal.reader("store", options("traces")).unwrap();
    let got = receive(&reader, 7);
    assert_eq!(
        got.iter().map(|delivery| delivery.seq).collect::<Vec<_>>(),
        [3, 5, 6, 7, 8, 9, 10]
    );
    assert_eq!(append(&journal, record("traces", "10")).unwrap(), 11);
    assert_eq!(texts(&receive(&reader, 1)), ["10"]);
}

#[test]
fn streams_share_the_numbers_and_each_reader_sees_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(settings(directory.path()));
    let traces = journal.reader("a", options("traces")).unwrap();
    let logs = journal.reader("b", options("logs")).unwrap();
    for number in 0..6 {
        append(
            &journal,
            record(if number % 3 == 0 { "traces" } else { "logs" }, &number.to_string()),
        )
        .unwrap();
    }
    assert_eq!(texts(&receive(&traces, 2)), ["0", "3"]);
    assert_eq!(texts(&receive(&logs, 4)), ["1", "2", "4", "5"]);
    assert!(is_idle(&traces) && is_idle(&logs));
    traces.ack_many(&[1, 4]);
    logs.ack_many(&[2, 3, 5, 6]);
    for status in journal.readers() {
        assert_eq!(
            (status.acked, status.lag_records, status.lag_bytes),
            (Ranges::below(7), 0, 0)
        );
    }
}

#[test]
fn a_reader_that_waits_is_woken_by_an_append() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(settings(directory.path()));
    let reader = journal.reader("a", options("traces")).unwrap();
    let waiting = std::thread::spawn(move || texts(&wait(reader.recv(10, 1 << 20)).unwrap()));
    append(&journal, record("logs", "not this")).unwrap();
    append(&journal, record("traces", "this")).unwrap();
    assert_eq!(waiting.join().unwrap(), ["this"]);
}

#[test]
fn a_lagging_reader_reads_from_disk_what_memory_no_longer_holds() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(Settings {
        segment_bytes: 3 << 20,
        ..settings(directory.path())
    });
    let near = journal.reader("near", options("traces")).unwrap();
    let far = journal.reader("far", options("traces")).unwrap();
    let text = |number: usize| format!("{number} {}", "x".repeat(150_000 + number * 7));
    for number in 0..200 {
        append(
            &journal,
            record(if number % 5 == 4 { "logs" } else { "traces" }, &text(number)),
        )
        .unwrap();
        if number % 5 != 4 {
            let got = receive(&near, 1);
            near.ack(got[0].seq);
        }
    }
    assert!(journal.stats().memory_bytes <= journal::MEMORY_BYTES as u64);
    assert!(journal.stats().segments > 8);
    let lag = journal
        .readers()
        .into_iter()
        .find(|status| status.name == "far")
        .unwrap();
    assert_eq!(lag.lag_records, 160);
    assert!(lag.lag_bytes > 160 * 150_000 && lag.oldest_unix_nano.is_some());
    let expect: Vec<String> = (0..200).filter(|number| number % 5 != 4).map(text).collect();
    let mut got = Vec::new();
    while got.len() < 160 {
        let some = wait(far.recv(7, 1 << 20)).unwrap();
        assert!(some.len() == 1 || some.iter().map(|delivery| delivery.record.size_bytes()).sum::<usize>() <= 1 << 20);
        far.ack_many(&some.iter().map(|delivery| delivery.seq).collect::<Vec<_>>());
        got.extend(texts(&some));
    }
    assert!(got == expect);
    assert!(is_idle(&far));
    journal.close();
    let left = std::fs::read_dir(directory.path()).unwrap().filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .ends_with(".segment")
    });
    assert_eq!(left.count(), 1, "what everybody has read is removed");
}

#[test]
fn a_new_reader_starts_at_the_head_and_can_be_moved() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(settings(directory.path()));
    let keeper = journal.reader("keeper", options("traces")).unwrap();
    (0..5).for_each(|number| assert!(append(&journal, record("traces", &number.to_string())).is_ok()));
    let reader = journal.reader("new", options("traces")).unwrap();
    assert!(is_idle(&reader));
    journal.move_reader("new", Start::Tail).unwrap();
    assert_eq!(texts(&receive(&reader, 5)), numbers(0..5));
    journal
        .move_reader("new", Start::At(Ranges::from_parts(2, [(4, 4)])))
        .unwrap();
    assert_eq!(texts(&receive(&reader, 3)), ["1", "2", "4"]);
    journal.move_reader("new", Start::Head).unwrap();
    assert!(is_idle(&reader));
    let status = journal
        .readers()
        .into_iter()
        .find(|status| status.name == "new")
        .unwrap();
    assert_eq!((status.lag_records, status.skipped_records), (0, 3));
    assert!(matches!(
        journal.reader("new", options("traces")),
        Err(ReaderError::InUse { .. })
    ));
    journal.drop_reader("new").unwrap();
    assert_eq!(wait(reader.recv(1, 1)), None);
    assert!(matches!(journal.drop_reader("new"), Err(ReaderError::Unknown { .. })));
    drop(keeper);
    let keeper = journal.reader("keeper", options("traces")).unwrap();
    assert_eq!(texts(&receive(&keeper, 5)), numbers(0..5));
}

#[test]
fn at_the_bound_a_refusing_reader_stops_intake_and_its_acknowledgements_open_it_again() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(Settings {
        max_bytes: 1 << 20,
        ..settings(directory.path())
    });
    let reader = journal.reader("store", options("traces")).unwrap();
    let mut taken = Vec::new();
    let refusal = loop {
        match append(&journal, record("traces", &"x".repeat(20_000))) {
            Ok(seq) => taken.push(seq),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(
            refusal,
            AppendError::Full {
                reason: FullReason::MaxBytes,
                ..
            }
        ),
        "{refusal}"
    );
    assert_eq!(
        journal.health(),
        Health::Refusing {
            reason: FullReason::MaxBytes
        }
    );
    assert!(taken.len() > 30 && journal.stats().disk_bytes <= 1 << 20);
    assert_eq!(
        receive(&reader, taken.len())
            .iter()
            .map(|delivery| delivery.seq)
            .collect::<Vec<_>>(),
        taken
    );
    reader.ack_many(&taken);
    // The commit thread removes what is free, then takes records again.
    while append(&journal, record("traces", "again")).is_err() {
        std::thread::yield_now();
    }
    assert_eq!(journal.health(), Health::Good);
}

#[test]
fn at_the_bound_a_skipping_reader_loses_its_oldest_counted_and_nobody_else_does() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(Settings {
        max_bytes: 1 << 20,
        ..settings(directory.path())
    });
    let slow = journal
        .reader(
            "remote",
            ReaderOptions {
                on_full: OnFull::SkipOldest,
                ..options("traces")
            },
        )
        .unwrap();
    let store = journal.reader("store", options("traces")).unwrap();
    for _ in 0..300 {
        append(&journal, record("traces", &"x".repeat(20_000))).unwrap();
        let got = receive(&store, 1);
        store.ack(got[0].seq);
    }
    let statuses = journal.readers();
    let (remote, kept) = (&statuses[0], &statuses[1]);
    assert_eq!((kept.skipped_records, kept.lag_records), (0, 0));
    assert_eq!(remote.skipped_records + remote.lag_records, 300);
    assert!(remote.skipped_records > 200 && remote.lag_records > 10, "{remote:?}");
    let got = receive(&slow, remote.lag_records as usize);
    assert_eq!(got[0].seq, remote.skipped_records + 1);
    assert_eq!(got.last().unwrap().seq, 300);
}

#[test]
fn measures_beyond_the_bounds_are_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(Settings {
        max_bytes: 1 << 20,
        ..settings(directory.path())
    });
    let check = |stream: &str, payload: usize, what: TooLarge| {
        let result = append(&journal, record(stream, &"x".repeat(payload)));
        assert_eq!(result, Err(AppendError::TooLarge { what }));
    };
    check("", 1, TooLarge::Stream(0));
    check(&"s".repeat(161), 1, TooLarge::Stream(161));
    check("s", 200_000, TooLarge::Journal(200_056));
    assert_eq!(journal.stats().refused_records, 3);
    assert_eq!(append(&journal, record(&"s".repeat(160), "")).unwrap(), 1);
}

#[test]
fn a_directory_in_use_is_refused_naming_who() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(settings(directory.path()));
    let refused = Journal::open(settings(directory.path()), Arc::new(RealDisk))
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(refused, OpenError::InUse { pid, .. } if pid == Some(std::process::id())));
    assert!(refused.to_string().contains(&directory.path().display().to_string()));
    journal.close();
    open(settings(directory.path()));
}

#[test]
fn a_newer_version_and_a_foreign_segment_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(settings(directory.path()));
    append(&journal, record("traces", "a")).unwrap();
    journal.close();
    let segment = directory.path().join("0000000001.segment");
    let good = std::fs::read(&segment).unwrap();
    let mut newer = good.clone();
    newer[8] = 9;
    let sum = crc32c::crc32c(&newer[..60]).to_le_bytes();
    newer[60..64].copy_from_slice(&sum);
    std::fs::write(&segment, &newer).unwrap();
    let refused = Journal::open(settings(directory.path()), Arc::new(RealDisk))
        .map(|_| ())
        .unwrap_err();
    assert!(
        matches!(refused, OpenError::NewerVersion { found: 9, known: 2, .. }),
        "{refused}"
    );
    std::fs::write(&segment, &good).unwrap();

    let other = tempfile::tempdir().unwrap();
    open(settings(other.path())).0.close();
    std::fs::copy(
        other.path().join("0000000001.segment"),
        directory.path().join("0000000002.segment"),
    )
    .unwrap();
    let refused = Journal::open(settings(directory.path()), Arc::new(RealDisk))
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
}
