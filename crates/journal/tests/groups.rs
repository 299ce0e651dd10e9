//! Group commit and the append queue's bound, with a disk that synchronises only when it is let.

mod support;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use journal::simulated::SimulatedDisk;
use journal::{APPEND_QUEUE_BYTES, AppendError, Disk, DiskFile, FullReason, Journal, Locked, Open};
use support::*;

/// Closed, it holds every `sync_data` up; it says how many wait.
#[derive(Clone, Default)]
struct Gate {
    state: Arc<(Mutex<(bool, usize)>, Condvar)>,
}

impl Gate {
    fn set(&self, closed: bool) {
        self.state.0.lock().unwrap().0 = closed;
        self.state.1.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.0.lock().unwrap();
        state.1 += 1;
        self.state.1.notify_all();
        state = self.state.1.wait_while(state, |state| state.0).unwrap();
        state.1 -= 1;
    }

    fn wait_for_one(&self) {
        drop(
            self.state
                .1
                .wait_while(self.state.0.lock().unwrap(), |state| state.1 == 0)
                .unwrap(),
        );
    }
}

struct GatedDisk(SimulatedDisk, Gate);

struct GatedFile(Arc<dyn DiskFile>, Gate);

impl Disk for GatedDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.0.list(path)
    }
    fn open(&self, path: &Path, open: Open) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(GatedFile(self.0.open(path, open)?, self.1.clone())))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.0.free_bytes(path)
    }
    fn lock(&self, path: &Path, owner: &str) -> io::Result<Locked> {
        self.0.lock(path, owner)
    }
}

impl DiskFile for GatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.0.write_at(slices, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync_data()
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
    fn allocate(&self, length: u64) -> io::Result<()> {
        self.0.allocate(length)
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
}

fn gated() -> (Gate, Journal) {
    let gate = Gate::default();
    let disk = GatedDisk(SimulatedDisk::new(1), gate.clone());
    let (journal, _) = Journal::open(settings(Path::new("/journal")), Arc::new(disk)).unwrap();
    (gate, journal)
}

#[test]
fn what_arrives_during_a_sync_shares_the_next_and_nothing_is_seen_before() {
    let (gate, journal) = gated();
    let reader = journal.reader("store", options("traces")).unwrap();
    let before = journal.stats();
    gate.set(true);
    let first = append_later(&journal, record("traces", "0"));
    gate.wait_for_one();
    let later: Vec<_> = (1..50)
        .map(|number| append_later(&journal, record("traces", &number.to_string())))
        .collect();
    assert!(
        first.try_recv().is_err() && is_idle(&reader),
        "nothing is acknowledged or delivered before it is durable"
    );
    gate.set(false);
    assert_eq!(first.recv().unwrap(), Ok(1));
    let seqs: Vec<_> = later
        .into_iter()
        .map(|result| result.recv().unwrap().unwrap())
        .collect();
    assert_eq!(seqs, (2..=50).collect::<Vec<_>>());
    assert_eq!(journal.stats().syncs - before.syncs, 2);
    assert_eq!(texts(&receive(&reader, 50)), numbers(0..50));
}

#[test]
fn a_full_queue_refuses_until_the_disk_has_caught_up() {
    let (gate, journal) = gated();
    gate.set(true);
    let text = "x".repeat(APPEND_QUEUE_BYTES / 10);
    let mut waiting = Vec::new();
    let refused = loop {
        let result = append_later(&journal, record("traces", &text));
        match result.try_recv() {
            Ok(refused) => break refused,
            Err(_) => waiting.push(result),
        }
    };
    assert!(
        matches!(
            refused,
            Err(AppendError::Full {
                reason: FullReason::Queue,
                ..
            })
        ),
        "{refused:?}"
    );
    assert!(journal.stats().queue_bytes <= APPEND_QUEUE_BYTES as u64);
    gate.set(false);
    let count = waiting.len();
    assert!(count >= 8);
    waiting
        .into_iter()
        .for_each(|result| assert!(result.recv().unwrap().is_ok()));
    assert_eq!(append(&journal, record("traces", &text)).unwrap(), count as u64 + 1);
}
