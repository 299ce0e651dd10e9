//! Reads the sealed segments of earlier runs once, slowly, behind everything else: opening trusts their seals, and damage in
//! one should be known before the reader that needs it gets there, while its sender may still have the data.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::disk::Open;
use crate::format::segment_name;
use crate::shared::{Shared, lock};
use crate::state::Segment;
use crate::status::Damage;
use crate::walk::{Bodies, Extent, Step, Walk};

/// How much is read between two pauses.
const PIECE_BYTES: u64 = 1 << 20;
/// A piece every so often is 16 MiB a second: a full journal of 8 GiB takes nine minutes, and a disk hardly notices.
const PIECE_PAUSE: Duration = Duration::from_micros(62_500);

/// Lets the reading pause, and end before its time.
#[derive(Default)]
pub(crate) struct Pace {
    closed: Mutex<bool>,
    wake: Condvar,
    /// Read since the last pause.
    bytes: Mutex<u64>,
}

impl Pace {
    pub(crate) fn close(&self) {
        *lock(&self.closed) = true;
        self.wake.notify_all();
    }

    /// Takes its time for so many bytes. False if it is over.
    fn spend(&self, bytes: u64) -> bool {
        let mut spent = lock(&self.bytes);
        *spent += bytes;
        let mut closed = lock(&self.closed);
        if *spent >= PIECE_BYTES && !*closed {
            let pause = PIECE_PAUSE.saturating_mul(u32::try_from(*spent / PIECE_BYTES).unwrap_or(u32::MAX));
            *spent = 0;
            closed = self
                .wake
                .wait_timeout_while(closed, pause, |closed| !*closed)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        !*closed
    }
}

/// Until every segment that was sealed before has been read, or the journal is closed.
pub(crate) fn run(shared: &Shared, pace: &Pace) {
    loop {
        let segment = {
            let state = shared.state();
            let Some(&number) = state.unverified.front() else {
                return;
            };
            state.segment(number).cloned()
        };
        // One that was removed meanwhile needs no looking at.
        if let Some(segment) = segment
            && !verify(shared, &segment, pace)
        {
            return;
        }
        shared.state().unverified.pop_front();
    }
}

/// False if it was ended before its time.
fn verify(shared: &Shared, segment: &Segment, pace: &Pace) -> bool {
    let name = segment_name(segment.number);
    let Ok(file) = shared.disk.open(&shared.path(&name), Open::Read) else {
        // Removed meanwhile; else a reader says so when it gets here.
        return true;
    };
    let id = shared.state().id;
    let extent = Extent::whole(segment.data_end, segment.first_seq, segment.next_seq);
    let mut walk = Walk::new(&*file, id, extent, Bodies::Check);
    let mut expected = segment.first_seq;
    let mut broken: Option<(u64, u64)> = None;
    let note = |broken: &mut Option<(u64, u64)>, lost_records| {
        let Some((offset, bytes)) = broken.take() else { return };
        let damage = Damage {
            segment: name.clone(),
            offset,
            bytes,
            lost_records,
            acknowledged: true,
        };
        if shared.state().note_damage(damage.clone()) {
            tracing::error!(
                ?damage,
                "a journal segment of an earlier run is damaged; its other records are delivered"
            );
        }
    };
    loop {
        let before = walk.offset();
        let step = walk.step();
        match step {
            Step::Record { head, .. } => {
                note(&mut broken, head.seq - expected);
                expected = head.seq + 1;
            }
            Step::Damaged { offset, bytes } => {
                let so_far = broken.get_or_insert((offset, 0));
                so_far.1 = offset + bytes - so_far.0;
            }
            Step::End { offset, .. } => {
                if offset < segment.data_end || broken.is_some() {
                    let so_far = broken.get_or_insert((offset, 0));
                    so_far.1 = segment.data_end - so_far.0;
                    note(&mut broken, segment.next_seq - expected);
                }
                return true;
            }
        }
        if !pace.spend(walk.offset() - before) {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::journal::Journal;
    use crate::simulated::SimulatedDisk;
    use crate::*;

    fn settings() -> Settings {
        Settings {
            segment_bytes: SEGMENT_LIMIT_MIN_BYTES,
            min_free_bytes: 0,
            ..Settings::new("/journal")
        }
    }

    fn unread() -> ReaderOptions {
        ReaderOptions {
            stream: "traces".into(),
            on_full: OnFull::Refuse,
            start: Start::Stored,
        }
    }

    /// A journal of several sealed segments that nobody has read.
    fn written() -> SimulatedDisk {
        let disk = SimulatedDisk::new(3);
        let (journal, mut engine, _) =
            Journal::open_without_threads(settings(), Arc::new(disk.clone()), Arc::new(SystemClock)).unwrap();
        let _reader = journal.reader("store", unread()).unwrap();
        for _ in 0..20 {
            let record = Record {
                stream: "traces".into(),
                header: "h".into(),
                payload: vec![7; 3000].into(),
            };
            journal.append(record, |appended| assert!(appended.is_ok()));
            let mut group = std::mem::take(&mut journal.shared().queue().pending);
            engine.commit(&mut group);
        }
        engine.close();
        journal.close();
        disk
    }

    fn open(disk: &SimulatedDisk) -> Journal {
        let (journal, _, recovery) =
            Journal::open_without_threads(settings(), Arc::new(disk.clone()), Arc::new(SystemClock)).unwrap();
        assert_eq!(
            (recovery.records, recovery.damage_count),
            (20, 0),
            "opening trusts the seals"
        );
        journal
    }

    #[test]
    fn damage_in_a_sealed_segment_is_found_before_anybody_reads_it_and_counted_once() {
        let disk = written();
        let files = disk.files();
        let damaged: Vec<_> = files
            .iter()
            .filter(|(path, _)| path.extension().is_some())
            .take(2)
            .collect();
        for (path, _) in &damaged {
            assert!(disk.flip_bit(path, 8 * 5000));
        }
        let journal = open(&disk);
        assert!(journal.stats().unverified_segments >= 4);
        run(journal.shared(), &Pace::default());
        let stats = journal.stats();
        assert_eq!((stats.unverified_segments, stats.damage_count), (0, 2));
        let lost: Vec<_> = journal
            .damage()
            .iter()
            .map(|found| (found.segment.clone(), found.lost_records))
            .collect();
        let names = damaged
            .iter()
            .map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned());
        assert_eq!(lost, names.map(|name| (name, 1)).collect::<Vec<_>>());

        let reader = journal.reader("store", unread()).unwrap();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut got = 0;
        loop {
            match reader.poll_recv(&mut context, 100, 1 << 20) {
                std::task::Poll::Ready(deliveries) => got += deliveries.unwrap().len(),
                std::task::Poll::Pending if journal.perform_one_read() => {}
                std::task::Poll::Pending => break,
            }
        }
        assert_eq!(got, 18);
        assert_eq!(journal.stats().damage_count, 2, "its reader meets the same damage");
        assert_eq!(journal.readers()[0].lost_records, 2);
    }

    #[test]
    fn sound_segments_are_read_to_their_end_and_nothing_is_reported() {
        let journal = open(&written());
        run(journal.shared(), &Pace::default());
        let stats = journal.stats();
        assert_eq!((stats.unverified_segments, stats.damage_count), (0, 0));
    }

    #[test]
    fn closing_ends_it() {
        let journal = open(&written());
        let before = journal.stats().unverified_segments;
        let pace = Pace::default();
        pace.close();
        run(journal.shared(), &pace);
        assert_eq!(journal.stats().unverified_segments, before);
    }
}
