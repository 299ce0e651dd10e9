//! Files of format 1, as a process that was killed left them: every later version has to read them.
//!
//! `JOURNAL_WRITE_FIXTURE=1 cargo test -p journal --test fixture` writes them anew, which is only right for a new format
//! beside the old ones.

mod support;

use std::path::{Path, PathBuf};

use journal::{Journal, OnFull, Ranges, ReaderOptions, Settings, Start, inspect};
use support::*;

const ID: &str = "141b19d6745ce764bf5745ab0af8b779";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "lock" {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn text(number: usize) -> String {
    format!("{number} {}", "lorem ipsum ".repeat(20 + number))
}

fn stream(number: usize) -> &'static str {
    if number.is_multiple_of(3) {
        "logs"
    } else {
        "traces/backend"
    }
}

fn write(to: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(Settings {
        segment_bytes: 16 << 10,
        ..settings(directory.path())
    });
    let store = journal.reader("store", options("traces/backend")).unwrap();
    let archive = ReaderOptions {
        on_full: OnFull::SkipOldest,
        start: Start::Head,
        ..options("logs")
    };
    let archive = journal.reader("archive, far away", archive).unwrap();
    for number in 0..40 {
        append(&journal, record(stream(number), &text(number))).unwrap();
    }
    receive(&store, 10);
    store.ack_many(&[2, 3, 6, 9, 12]);
    archive.ack(receive(&archive, 1)[0].seq);
    // Moving a reader to where it is writes the positions down.
    journal.move_reader("store", Start::Stored).unwrap();
    copy(directory.path(), to);
}

#[test]
fn files_of_format_1_are_read() {
    if std::env::var_os("JOURNAL_WRITE_FIXTURE").is_some() {
        write(&fixture());
    }
    let directory = tempfile::tempdir().unwrap();
    copy(&fixture(), directory.path());
    let seen = inspect(directory.path()).unwrap();
    assert_eq!(
        (
            seen.id.to_string().as_str(),
            seen.records,
            seen.segments.len(),
            seen.clean
        ),
        (ID, 40, 2, false)
    );
    assert_eq!(
        seen.segments.iter().map(|segment| segment.sealed).collect::<Vec<_>>(),
        [true, false]
    );

    let (journal, recovery): (Journal, _) = open(settings(directory.path()));
    assert_eq!(
        (recovery.records, recovery.damage_count, recovery.torn_bytes),
        (40, 0, 0)
    );
    let archive = &recovery.readers[0];
    assert_eq!(
        (archive.name.as_str(), archive.stream.as_str()),
        ("archive, far away", "logs")
    );
    assert_eq!((archive.on_full, archive.lag_records), (OnFull::SkipOldest, 13));
    assert_eq!(
        recovery.readers[1].acked,
        Ranges::from_parts(5, [(6, 7), (9, 10), (12, 13)])
    );
    let store = journal.reader("store", options("traces/backend")).unwrap();
    let expect: Vec<usize> = (0..40)
        .filter(|&number| stream(number) != "logs" && ![1, 2, 5, 8, 11].contains(&number))
        .collect();
    let found = receive(&store, expect.len());
    for (delivery, number) in found.iter().zip(expect) {
        assert_eq!(
            (delivery.seq, &delivery.record),
            (number as u64 + 1, &record("traces/backend", &text(number)))
        );
    }
    assert!(is_idle(&store));
}
