//! The view from outside: beside the owner, after it, and over damage.

mod support;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use journal::{InspectError, Settings, check, inspect};
use support::*;

#[test]
fn beside_its_owner_a_journal_is_listed_and_checked() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(Settings {
        segment_bytes: 16 << 10,
        ..settings(directory.path())
    });
    let reader = journal.reader("store", options("traces")).unwrap();
    journal.reader("logs", options("logs")).unwrap();
    for number in 0..40 {
        append(
            &journal,
            record(if number % 4 == 0 { "logs" } else { "traces" }, &"x".repeat(1000)),
        )
        .unwrap();
    }
    receive(&reader, 30);
    let found = inspect(directory.path()).unwrap();
    assert_eq!(
        (found.id, found.owner_pid, found.clean),
        (journal.id(), Some(std::process::id()), false)
    );
    assert_eq!((found.records, found.next_seq), (40, 41));
    assert!(
        found.segments.len() >= 3
            && found.segments[..found.segments.len() - 1]
                .iter()
                .all(|segment| segment.sealed)
    );
    let lag: Vec<_> = found
        .readers
        .iter()
        .map(|reader| (reader.name.as_str(), reader.lag_records))
        .collect();
    assert_eq!(lag, [("logs", 10), ("store", 30)]);
    assert_eq!(found.disk_bytes, journal.stats().disk_bytes);
    let checked = check(directory.path()).unwrap();
    assert!(
        checked.is_good() && checked.torn_bytes == 0 && checked.records == 40,
        "{checked:?}"
    );
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["id"], journal.id().to_string());
    assert_eq!(json["readers"][1]["acked"]["low"], 1);

    journal.close();
    let after = inspect(directory.path()).unwrap();
    assert_eq!((after.clean, after.owner_pid, after.records), (true, None, 40));
}

#[test]
fn a_flipped_bit_is_found_where_it_is_and_costs_one_record() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(settings(directory.path()));
    let reader = journal.reader("store", options("traces")).unwrap();
    for number in 0..10 {
        append(&journal, record("traces", &format!("{number}"))).unwrap();
    }
    journal.close();
    drop(reader);
    // Each frame is 48 bytes of head, 6 of name, 4 of header and 1 of payload, made up to 64.
    let broken_at = 64 + 3 * 64 + 48 + 6 + 4;
    let file = OpenOptions::new()
        .write(true)
        .open(directory.path().join("0000000001.segment"))
        .unwrap();
    file.write_all_at(b"?", broken_at).unwrap();
    let checked = check(directory.path()).unwrap();
    assert_eq!((checked.records, checked.lost_records, checked.damage_count), (9, 1, 1));
    let damage = &checked.damage[0];
    assert_eq!(
        (damage.segment.as_str(), damage.offset, damage.bytes),
        ("0000000001.segment", 64 + 3 * 64, 64)
    );
    assert!(damage.acknowledged && !checked.is_good());

    let (journal, _) = open(settings(directory.path()));
    let reader = journal.reader("store", options("traces")).unwrap();
    assert_eq!(
        texts(&receive(&reader, 9)),
        ["0", "1", "2", "4", "5", "6", "7", "8", "9"]
    );
    assert!(is_idle(&reader));
    assert_eq!(journal.damage(), checked.damage);
    let status = &journal.readers()[0];
    assert_eq!((status.lag_records, status.lost_records), (9, 1));
}

#[test]
fn a_directory_without_a_journal_is_named() {
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().to_owned(), directory.path().join("missing")] {
        let error = inspect(&path).unwrap_err();
        assert!(
            matches!(&error, InspectError::NotAJournal { path: named } if *named == path),
            "{error}"
        );
        assert!(check(&path).is_err());
    }
}

#[test]
fn all_records_are_read_again_whoever_has_done_with_them() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(Settings {
        segment_bytes: 16 << 10,
        ..settings(directory.path())
    });
    let reader = journal.reader("store", options("traces")).unwrap();
    for number in 0..40 {
        append(&journal, record("traces", &format!("{number:01000}"))).unwrap();
    }
    receive(&reader, 20);
    let read = |after, from_unix_nano, limit| {
        let range = journal::Range {
            after,
            from_unix_nano,
            to_unix_nano: u64::MAX,
        };
        let mut found = Vec::new();
        journal::records(directory.path(), range, |it| {
            found.push((it.seq, it.appended_at_unix_nano, it.record.payload));
            match found.len() < limit {
                true => std::ops::ControlFlow::Continue(()),
                false => std::ops::ControlFlow::Break(()),
            }
        })
        .unwrap();
        found
    };
    let all = read(0, 0, usize::MAX);
    let numbers: Vec<u64> = all.iter().map(|(seq, ..)| *seq).collect();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
    assert_eq!(all[39].2, format!("{:01000}", 39));
    assert_eq!(read(25, 0, usize::MAX), all[25..]);
    assert_eq!(read(0, 0, 3), all[..3]);
    assert!(read(0, all[39].1 + 1, usize::MAX).is_empty());
    journal.close();
}
