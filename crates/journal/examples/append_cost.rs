//! What appending costs beside writing and synchronising the same bytes by hand: `cargo run --release -p journal
//! --example append_cost -- DIRECTORY [RECORDS] [BYTES]`. Prints times per record; compare the ratios, not the seconds.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use journal::{AppendError, Journal, OnFull, ReaderOptions, RealDisk, Record, Seq, Settings, Start};

/// How many appends wait for their callbacks at once in the grouped run: a door with this many requests under way.
const IN_FLIGHT: usize = 16;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments
        .next()
        .expect("usage: append_cost DIRECTORY [RECORDS] [BYTES]");
    let records = arguments
        .next()
        .map_or(2000, |text| text.parse().expect("a number of records"));
    let bytes = arguments
        .next()
        .map_or(100_000, |text| text.parse().expect("a number of bytes"));
    let payload = bytes::Bytes::from((0..bytes).map(|at: usize| (at * 31 % 251) as u8).collect::<Vec<u8>>());
    let directory = Path::new(&directory);

    std::fs::create_dir_all(directory).expect("the directory can be made");
    let path = directory.join("by-hand");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .expect("a file can be made");
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, (records * bytes) as u64).expect("reserved");
    file.sync_all().expect("synchronised");
    measure("write and fdatasync by hand", records, || {
        for record in 0..records {
            file.write_all_at(&payload, (record * bytes) as u64).expect("written");
            file.sync_data().expect("synchronised");
        }
    });
    drop(std::fs::remove_file(path));

    for (what, in_flight) in [("append, one at a time", 1), ("append, 16 under way", IN_FLIGHT)] {
        let place = directory.join("journal");
        drop(std::fs::remove_dir_all(&place));
        let (journal, _) = Journal::open(Settings::new(&place), Arc::new(RealDisk)).expect("opened");
        let options = ReaderOptions {
            stream: "traces".into(),
            on_full: OnFull::Refuse,
            start: Start::Stored,
        };
        let _reader = journal.reader("store", options).expect("a reader");
        let stream: Arc<str> = "traces".into();
        measure(what, records, || {
            let (send, receive) = channel::<Result<Seq, AppendError>>();
            for record in 0..records {
                if record >= in_flight {
                    receive.recv().expect("called back").expect("appended");
                }
                let send = send.clone();
                let record = Record {
                    stream: stream.clone(),
                    header: bytes::Bytes::new(),
                    payload: payload.clone(),
                };
                journal.append(record, move |result| drop(send.send(result)));
            }
            drop(send);
            assert!(receive.iter().all(|result| result.is_ok()));
        });
        let stats = journal.stats();
        println!("{:>30} {} groups, {} syncs", "", stats.groups, stats.syncs);
        let before = cpu();
        std::thread::sleep(Duration::from_secs(3));
        println!("{:>30} CPU while idle for 3 s: {:?}", "", cpu() - before);
        // What a crash would leave: the segment being written has no seal and is read through.
        let crashed = directory.join("crashed");
        std::fs::create_dir_all(&crashed).expect("the directory can be made");
        for entry in std::fs::read_dir(&place)
            .expect("a journal")
            .flatten()
            .filter(|entry| entry.file_name() != "lock")
        {
            std::fs::copy(entry.path(), crashed.join(entry.file_name())).expect("copied");
        }
        let start = Instant::now();
        let (again, recovery) = Journal::open(Settings::new(&crashed), Arc::new(RealDisk)).expect("opened");
        println!(
            "{:>30} open after a crash: {:?}, {} records",
            "",
            start.elapsed(),
            recovery.records
        );
        again.close();
        drop(std::fs::remove_dir_all(crashed));
        journal.close();
        drop(std::fs::remove_dir_all(place));
    }
}

fn measure(what: &str, records: usize, run: impl FnOnce()) {
    let (start, before) = (Instant::now(), cpu());
    run();
    let count = u32::try_from(records).expect("few records");
    println!(
        "{what:>30} {:>9.1?} a record, CPU {:>9.1?} a record",
        start.elapsed() / count,
        (cpu() - before) / count
    );
}

/// User and system time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").expect("Linux");
    let own: u64 = stat
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .expect("nanoseconds");
    let mut total = own;
    for thread in std::fs::read_dir("/proc/self/task").expect("Linux").flatten() {
        if thread.file_name().to_string_lossy() != std::process::id().to_string() {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            total += text
                .split(' ')
                .next()
                .and_then(|text| text.parse::<u64>().ok())
                .unwrap_or_default();
        }
    }
    Duration::from_nanos(total)
}
