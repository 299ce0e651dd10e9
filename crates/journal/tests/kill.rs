//! A real process, really killed: what it said was accepted is there when the journal is opened again.
//!
//! This binary starts itself as the child: with an argument it appends until it is killed, and prints each number as
//! its callback gets it.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use journal::{Fsync, Settings, Start};
use support::*;

const CHILD: &str = "--append-until-killed";
const ROUNDS: u64 = 8;
/// What the child lets wait at most, so that it does not run ahead of its callbacks.
const IN_FLIGHT: u64 = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[..] {
        [_, child, directory, round] if child == CHILD => append_until_killed(Path::new(directory), round),
        _ => every_accepted_record_survives_being_killed(),
    }
}

fn journal_settings(directory: &Path, fsync: Fsync) -> Settings {
    Settings {
        segment_bytes: 256 << 10,
        fsync,
        ..settings(directory)
    }
}

fn append_until_killed(directory: &Path, round: &str) {
    let fsync = if round.ends_with('0') {
        Fsync::Off
    } else {
        Fsync::Always
    };
    let (journal, _) = open(journal_settings(directory, fsync));
    let reader = journal.reader("store", options("traces")).unwrap();
    let in_flight = Arc::new(AtomicU64::new(0));
    for number in 0_u64.. {
        while in_flight.fetch_add(1, SeqCst) >= IN_FLIGHT {
            in_flight.fetch_sub(1, SeqCst);
            std::thread::yield_now();
        }
        let text = format!("{round}/{number}/{}", "x".repeat((number * 997 % 20_000) as usize));
        let in_flight = in_flight.clone();
        let name = format!("{round}/{number}");
        journal.append(record("traces", &text), move |result| {
            let mut out = std::io::stdout().lock();
            // A line is one write, so that the parent never sees half of one as a whole.
            out.write_all(format!("accepted {} {name}\n", result.unwrap()).as_bytes())
                .unwrap();
            out.flush().unwrap();
            in_flight.fetch_sub(1, SeqCst);
        });
        if number % 50 == 49 {
            let got = receive(&reader, 10);
            reader.ack_many(&got.iter().map(|delivery| delivery.seq).collect::<Vec<_>>());
            let last = got.last().unwrap().seq;
            let mut out = std::io::stdout().lock();
            out.write_all(format!("read {last}\n").as_bytes()).unwrap();
        }
    }
}

fn every_accepted_record_survives_being_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut accepted: BTreeMap<u64, String> = BTreeMap::new();
    let mut read_up_to = 0;
    for round in 1..=ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                CHILD.as_ref(),
                directory.path().as_os_str(),
                format!("{round}{}", round % 2).as_ref(),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Killed after a number of lines rather than after a time: the moment within a write is random all the same.
        let lines_before = fastrand::u64(1..400);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while let Some(Ok(line)) = lines.next() {
            match *line.split(' ').collect::<Vec<_>>() {
                ["accepted", seq, name] => {
                    let before = accepted.insert(seq.parse().unwrap(), name.to_owned());
                    assert_eq!(before, None, "number {seq} was given out twice");
                }
                ["read", last] => read_up_to = last.parse().unwrap(),
                _ => panic!("the child said {line:?}"),
            }
            seen += 1;
            if seen == lines_before {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= lines_before, "the child ended by itself after {seen} lines");

        let (journal, recovery) = open(journal_settings(directory.path(), Fsync::Always));
        assert!(!recovery.clean && recovery.damage_count == 0, "{recovery:?}");
        let auditor = journal.reader(
            "auditor",
            journal::ReaderOptions {
                start: Start::Tail,
                ..options("traces")
            },
        );
        let auditor = auditor.unwrap();
        let records = journal
            .readers()
            .into_iter()
            .find(|reader| reader.name == "auditor")
            .unwrap()
            .lag_records;
        let mut found = BTreeMap::new();
        let mut names = BTreeSet::new();
        for delivery in receive(&auditor, records as usize) {
            let text = String::from_utf8(delivery.record.payload.to_vec()).unwrap();
            let (name, rest) = text.rsplit_once('/').unwrap();
            let number: u64 = name.rsplit_once('/').unwrap().1.parse().unwrap();
            assert_eq!(rest.len() as u64, number * 997 % 20_000);
            assert!(names.insert(name.to_owned()), "{name} is there twice");
            assert_eq!(found.insert(delivery.seq, name.to_owned()), None);
        }
        for (seq, name) in accepted.range(read_up_to + 1..) {
            assert_eq!(
                found.get(seq),
                Some(name),
                "accepted as {seq} in round {round} and not found"
            );
        }
        drop(auditor);
        journal.drop_reader("auditor").unwrap();
        journal.close();
    }
    println!("{ROUNDS} rounds, {} records accepted, every one found", accepted.len());
}
