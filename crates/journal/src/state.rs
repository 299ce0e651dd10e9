//! What the journal knows in memory: which segments hold what, the newest records, and where each reader stands. Pure
//! bookkeeping without I/O, under one lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use crate::Ranges;
use crate::cursors::{Cursors, StoredReader};
use crate::format::{SEGMENT_HEADER_BYTES, Summary};
use crate::settings::{Delivery, JournalId, MEMORY_BYTES, OnFull, Record, Seq, UNACKED_LIMIT_RECORDS};
use crate::status::{DAMAGE_LIMIT, Damage, Health, ReaderStatus};

/// A segment as far as readers may see it.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub number: u64,
    pub first_seq: Seq,
    /// The number after the last record.
    pub next_seq: Seq,
    /// Where the last durable record ends.
    pub data_end: u64,
    /// What the file takes on disk.
    pub file_bytes: u64,
    pub summary: Summary,
}

/// A record on its way to a reader, with where it lies.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub delivery: Delivery,
    pub segment: u64,
    pub end_offset: u64,
    pub frame_bytes: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub records: u64,
    pub bytes: u64,
}

impl Amount {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.records += 1;
        self.bytes += bytes;
    }

    fn take(&mut self, bytes: u64) {
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn merge(&mut self, other: Amount) {
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

#[derive(Debug)]
struct InFlight {
    seq: Seq,
    appended_at_unix_nano: u64,
    frame_bytes: u32,
    acked: bool,
}

/// A place in the journal from which a reader goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub seq: Seq,
    pub segment: u64,
    pub offset: u64,
}

/// Where a reader begins, and what lies before it.
#[derive(Clone)]
pub(crate) struct Seek {
    pub position: Position,
    /// Per segment, what of the reader's stream is neither acknowledged nor delivered.
    pub undelivered: BTreeMap<u64, Amount>,
    pub acked: Ranges,
}

#[derive(Debug)]
pub(crate) struct ReaderState {
    pub name: Arc<str>,
    pub stream: Arc<str>,
    pub on_full: OnFull,
    /// Changes whenever the position is set anew, so that a read or an acknowledgement of before has no effect.
    pub generation: u64,
    /// The open handle; an older handle of the same name has no effect any more.
    pub handle: Option<u64>,
    pub ever_attached: bool,
    pub orphan_since_unix_nano: Option<u64>,
    pub position: Position,
    /// Acknowledged in an earlier run, above the position.
    pub done: Ranges,
    in_flight: VecDeque<InFlight>,
    /// What lies below was given up by a bound. Of that, what is in flight may still be acknowledged.
    floor: Seq,
    undelivered: BTreeMap<u64, Amount>,
    unacked: Amount,
    pub skipped: Amount,
    pub lost_records: u64,
    delivered_unix_nano: u64,
    /// Read from disk and not yet taken.
    pub ready: VecDeque<Entry>,
    /// Where the position goes once `ready` is empty.
    pub ready_end: Option<Position>,
    pub reading: bool,
    pub wakers: Vec<Waker>,
}

impl ReaderState {
    pub(crate) fn new(stored: &StoredReader, seek: Seek, generation: u64) -> ReaderState {
        let mut reader = ReaderState {
            name: stored.name.clone(),
            stream: stored.stream.clone(),
            on_full: stored.on_full,
            generation,
            handle: None,
            ever_attached: false,
            orphan_since_unix_nano: stored.orphan_since_unix_nano,
            position: seek.position,
            done: Ranges::default(),
            in_flight: VecDeque::new(),
            floor: 0,
            undelivered: BTreeMap::new(),
            unacked: Amount::default(),
            skipped: Amount {
                records: stored.skipped_records,
                bytes: stored.skipped_bytes,
            },
            lost_records: stored.lost_records,
            delivered_unix_nano: 0,
            ready: VecDeque::new(),
            ready_end: None,
            reading: false,
            wakers: Vec::new(),
        };
        reader.reset(seek, generation);
        reader
    }

    pub(crate) fn reset(&mut self, seek: Seek, generation: u64) {
        self.generation = generation;
        self.position = seek.position;
        self.done = seek.acked;
        self.undelivered = seek.undelivered;
        let given_up = self.given_up_in_flight();
        self.skipped.merge(given_up);
        self.in_flight.clear();
        self.floor = 0;
        self.unacked = Amount::default();
        self.delivered_unix_nano = 0;
        self.ready.clear();
        self.ready_end = None;
        self.reading = false;
    }

    /// To the head on somebody's order: what it leaves behind that way is skipped.
    pub(crate) fn skip_to_head(&mut self, seek: Seek, generation: u64) {
        let left = self.lag();
        self.reset(seek, generation);
        self.skipped.merge(left);
    }

    /// The first number that is not done: everything below may be removed.
    pub(crate) fn low(&self) -> Seq {
        self.in_flight
            .front()
            .map_or(self.position.seq, |first| first.seq)
            .max(self.floor)
    }

    /// What is in flight and would not be delivered again.
    fn given_up_in_flight(&self) -> Amount {
        let mut amount = Amount::default();
        let below = self.in_flight.iter().take_while(|entry| entry.seq < self.floor);
        below
            .filter(|entry| !entry.acked)
            .for_each(|entry| amount.add(u64::from(entry.frame_bytes)));
        amount
    }

    /// What is acknowledged, as it is stored.
    pub(crate) fn acked(&self) -> Ranges {
        let mut acked = Ranges::below(self.low());
        let mut from = self.low();
        for open in self
            .in_flight
            .iter()
            .filter(|entry| !entry.acked && entry.seq >= self.floor)
        {
            if open.seq > from {
                acked.insert_range(from, open.seq - 1);
            }
            from = open.seq + 1;
        }
        if self.position.seq > from {
            acked.insert_range(from, self.position.seq - 1);
        }
        for &(first, last) in self.done.ranges() {
            acked.insert_range(first.max(self.position.seq), last);
        }
        acked
    }

    pub(crate) fn stored(&self) -> StoredReader {
        // Whoever reads this back no longer has in flight what it had.
        let mut skipped = self.skipped;
        skipped.merge(self.given_up_in_flight());
        StoredReader {
            name: self.name.clone(),
            stream: self.stream.clone(),
            on_full: self.on_full,
            acked: self.acked(),
            skipped_records: skipped.records,
            skipped_bytes: skipped.bytes,
            lost_records: self.lost_records,
            orphan_since_unix_nano: self.orphan_since_unix_nano,
        }
    }

    /// Whether the journal refuses intake for this reader's sake. `settled` is whether whoever wants a stored reader has
    /// had the time to open it.
    pub(crate) fn may_refuse(&self, settled: bool) -> bool {
        self.on_full == OnFull::Refuse && (self.ever_attached || !settled)
    }

    fn pass(&mut self, entry_seq: Seq, segment: u64, offset: u64) {
        self.go_to(Position {
            seq: entry_seq + 1,
            segment,
            offset,
        });
    }

    /// What the segments left behind still owe was not readable.
    fn go_to(&mut self, position: Position) {
        while let Some((&number, _)) = self.undelivered.first_key_value()
            && number < position.segment
        {
            self.lost_records += self.leave(number).records;
        }
        self.position = position;
    }

    /// The same at the end of everything.
    fn settle(&mut self) {
        for (_, amount) in std::mem::take(&mut self.undelivered) {
            self.lost_records += amount.records;
        }
    }

    fn deliver(&mut self, entry: Entry) -> Delivery {
        if let Some(amount) = self.undelivered.get_mut(&entry.segment) {
            amount.take(entry.frame_bytes);
        }
        self.unacked.add(entry.frame_bytes);
        self.delivered_unix_nano = entry.delivery.appended_at_unix_nano;
        self.in_flight.push_back(InFlight {
            seq: entry.delivery.seq,
            appended_at_unix_nano: entry.delivery.appended_at_unix_nano,
            // A frame is bounded well below 4 GiB.
            frame_bytes: entry.frame_bytes as u32,
            acked: false,
        });
        self.pass(entry.delivery.seq, entry.segment, entry.end_offset);
        entry.delivery
    }

    /// False if it was not waiting for this one.
    pub(crate) fn ack(&mut self, seq: Seq) -> bool {
        let Ok(at) = self.in_flight.binary_search_by_key(&seq, |entry| entry.seq) else {
            return false;
        };
        let entry = &mut self.in_flight[at];
        if std::mem::replace(&mut entry.acked, true) {
            return false;
        }
        let bytes = u64::from(entry.frame_bytes);
        self.unacked.take(bytes);
        while self.in_flight.front().is_some_and(|entry| entry.acked) {
            self.in_flight.pop_front();
        }
        true
    }

    pub(crate) fn holds_its_fill(&self) -> bool {
        self.in_flight.len() >= UNACKED_LIMIT_RECORDS
    }

    /// Leaves a segment behind: what of it was not delivered is gone. Returns how much that was.
    fn leave(&mut self, segment: u64) -> Amount {
        self.undelivered.remove(&segment).unwrap_or_default()
    }

    /// Gives up everything before `segment`. What was not delivered is skipped.
    fn skip_to(&mut self, segment: &Segment, generation: u64) {
        self.floor = segment.first_seq;
        while let Some((&number, _)) = self.undelivered.first_key_value()
            && number < segment.number
        {
            let amount = self.leave(number);
            self.skipped.merge(amount);
        }
        if self.position.seq < segment.first_seq {
            self.generation = generation;
            self.position = Position {
                seq: segment.first_seq,
                segment: segment.number,
                offset: SEGMENT_HEADER_BYTES as u64,
            };
            self.ready.clear();
            self.ready_end = None;
            self.reading = false;
        }
    }

    fn lag(&self) -> Amount {
        let mut lag = self.unacked;
        self.undelivered.values().for_each(|&amount| lag.merge(amount));
        lag
    }
}

/// The newest records, for readers near the head.
#[derive(Debug, Default)]
struct Memory {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Memory {
    fn first_seq(&self) -> Option<Seq> {
        self.entries.front().map(|entry| entry.delivery.seq)
    }

    /// Numbers are given out without gaps while the process runs, so the place follows from the number.
    fn at(&self, seq: Seq) -> Option<&Entry> {
        let place = seq.checked_sub(self.first_seq()?)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.delivery.record.held_bytes();
        self.entries.push_back(entry);
    }

    fn pop(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.delivery.record.held_bytes();
        }
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub id: JournalId,
    /// Ascending; the last one may be the one being written.
    pub segments: VecDeque<Segment>,
    /// Every number below is visible to readers or was never used.
    pub next_seq: Seq,
    memory: Memory,
    pub readers: BTreeMap<Arc<str>, ReaderState>,
    generations: u64,
    pub closed: bool,
    /// Whether readers that nobody opened count as abandoned.
    pub settled: bool,
    /// Whether the cursor file is behind.
    pub cursors_dirty: bool,
    /// Whether the stored positions were lost, so that a reader that seems new may be an old one.
    pub cursors_lost: bool,
    pub damage: Vec<Damage>,
    pub damage_count: u64,
    /// Segments of earlier runs that nobody has read through yet.
    pub unverified: VecDeque<u64>,
    pub health: Health,
}

/// What the next call to read is to do.
pub(crate) enum Next {
    Deliver(Vec<Delivery>),
    /// Read from here on a thread that may wait for the disk.
    Read {
        generation: u64,
    },
    Wait,
    Gone,
}

impl State {
    pub(crate) fn new(id: JournalId, next_seq: Seq) -> State {
        State {
            id,
            segments: VecDeque::new(),
            next_seq,
            memory: Memory::default(),
            readers: BTreeMap::new(),
            generations: 0,
            closed: false,
            settled: false,
            cursors_dirty: false,
            cursors_lost: false,
            damage: Vec::new(),
            damage_count: 0,
            unverified: VecDeque::new(),
            health: Health::Good,
        }
    }

    pub(crate) fn next_generation(&mut self) -> u64 {
        self.generations += 1;
        self.generations
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory.bytes
    }

    /// When the oldest record that is kept was appended.
    pub(crate) fn oldest_unix_nano(&self) -> Option<u64> {
        let streams = self.segments.iter().flat_map(|segment| &segment.summary.streams);
        streams.map(|stream| stream.first_unix_nano).min()
    }

    pub(crate) fn segment(&self, number: u64) -> Option<&Segment> {
        let at = self
            .segments
            .binary_search_by_key(&number, |segment| segment.number)
            .ok()?;
        self.segments.get(at)
    }

    /// False if it is known.
    pub(crate) fn note_damage(&mut self, damage: Damage) -> bool {
        // Two readers meet the same damage; it is one.
        if self
            .damage
            .iter()
            .any(|known| known.segment == damage.segment && known.offset == damage.offset)
        {
            return false;
        }
        self.damage_count += 1;
        if self.damage.len() < DAMAGE_LIMIT {
            self.damage.push(damage);
        }
        true
    }

    /// Makes durable records visible, which all lie in the last segment, one behind the other.
    pub(crate) fn publish(&mut self, entries: impl Iterator<Item = Entry>, file_bytes: u64, wakers: &mut Vec<Waker>) {
        let State {
            segments,
            memory,
            readers,
            next_seq,
            ..
        } = self;
        let segment = segments.back_mut().expect("records lie in a segment");
        segment.file_bytes = file_bytes;
        for entry in entries {
            let Delivery {
                seq,
                record,
                appended_at_unix_nano,
            } = &entry.delivery;
            segment.next_seq = seq + 1;
            segment.data_end = entry.end_offset;
            segment
                .summary
                .add(&record.stream, entry.frame_bytes, *appended_at_unix_nano);
            *next_seq = seq + 1;
            for reader in readers.values_mut().filter(|reader| reader.stream == record.stream) {
                reader
                    .undelivered
                    .entry(segment.number)
                    .or_default()
                    .add(entry.frame_bytes);
                wakers.append(&mut reader.wakers);
            }
            memory.push(entry);
        }
        for reader in readers.values_mut() {
            pass_over_others(reader, memory);
        }
        self.trim_memory();
    }

    /// Drops from memory what every attached reader has passed, and the oldest beyond the bound.
    pub(crate) fn trim_memory(&mut self) {
        let attached = self.readers.values().filter(|reader| reader.handle.is_some());
        let needed = attached.map(|reader| reader.position.seq).min().unwrap_or(Seq::MAX);
        while self.memory.first_seq().is_some_and(|first| first < needed) || self.memory.bytes > MEMORY_BYTES {
            self.memory.pop();
        }
        if self.memory.entries.is_empty() {
            // An idle journal gives its memory back.
            self.memory.entries.shrink_to(MEMORY_ENTRIES_KEPT);
        }
    }

    pub(crate) fn next(&mut self, name: &str, handle: u64, max_records: usize, max_bytes: usize) -> Next {
        let State {
            readers,
            memory,
            segments,
            closed,
            ..
        } = self;
        let Some(reader) = readers
            .get_mut(name)
            .filter(|reader| reader.handle == Some(handle) && !*closed)
        else {
            return Next::Gone;
        };
        let mut out = Vec::new();
        let mut bytes = 0;
        loop {
            if out.len() >= max_records.max(1) || reader.holds_its_fill() {
                break;
            }
            let fits = |bytes: usize, record: &Record| out.is_empty() || bytes + record.size_bytes() <= max_bytes;
            if let Some(entry) = reader.ready.front() {
                if !fits(bytes, &entry.delivery.record) {
                    break;
                }
                bytes += entry.delivery.record.size_bytes();
                let entry = reader.ready.pop_front().expect("there is a first");
                out.push(reader.deliver(entry));
            } else if let Some(end) = reader.ready_end.take() {
                reader.go_to(end);
            } else {
                pass_over_others(reader, memory);
                let Some(entry) = memory.at(reader.position.seq) else {
                    break;
                };
                if !fits(bytes, &entry.delivery.record) {
                    break;
                }
                bytes += entry.delivery.record.size_bytes();
                out.push(reader.deliver(entry.clone()));
            }
        }
        if !out.is_empty() {
            self.trim_memory();
            return Next::Deliver(out);
        }
        if reader.holds_its_fill() || reader.reading {
            return Next::Wait;
        }
        if at_end(reader, segments) {
            reader.settle();
            return Next::Wait;
        }
        reader.reading = true;
        Next::Read {
            generation: reader.generation,
        }
    }

    /// Takes in what a read from disk found; `exhausted` when the segment holds no more.
    pub(crate) fn finish_read(
        &mut self,
        name: &str,
        generation: u64,
        entries: VecDeque<Entry>,
        end: Position,
        exhausted: bool,
    ) {
        let State { readers, segments, .. } = self;
        let Some(reader) = readers.get_mut(name).filter(|reader| reader.generation == generation) else {
            return;
        };
        reader.reading = false;
        let mut end = end;
        let following = segments.partition_point(|segment| segment.number <= end.segment);
        if exhausted && let Some(next) = segments.get(following) {
            end = Position {
                seq: next.first_seq,
                segment: next.number,
                offset: SEGMENT_HEADER_BYTES as u64,
            };
        }
        reader.ready = entries;
        reader.ready_end = Some(end);
    }

    /// How many segments at the front nobody needs any more.
    pub(crate) fn passed_segments(&self) -> usize {
        // Readers whose positions were lost are still to come; until then nothing is known to be unneeded.
        if self.cursors_lost && !self.settled {
            return 0;
        }
        let low = self.readers.values().map(ReaderState::low).min().unwrap_or(Seq::MAX);
        let full = self.segments.len().saturating_sub(1);
        self.segments
            .iter()
            .take(full)
            .take_while(|segment| segment.next_seq <= low)
            .count()
    }

    /// Takes every reader that may lose data past the first segment. False if another still needs it; with `only_to_free`,
    /// nobody loses anything in that case.
    pub(crate) fn give_up_first(&mut self, only_to_free: bool) -> bool {
        let (Some(first), Some(second)) = (self.segments.front(), self.segments.get(1).cloned()) else {
            return false;
        };
        let first_next = first.next_seq;
        let needed = |reader: &ReaderState| reader.low() < first_next;
        let blocked = self
            .readers
            .values()
            .any(|reader| needed(reader) && reader.may_refuse(self.settled));
        if blocked && only_to_free {
            return false;
        }
        self.generations += 1;
        let generation = self.generations;
        for reader in self
            .readers
            .values_mut()
            .filter(|reader| needed(reader) && !reader.may_refuse(self.settled))
        {
            reader.skip_to(&second, generation);
            self.cursors_dirty = true;
        }
        !blocked
    }

    pub(crate) fn cursors(&self, clean_segment: Option<u64>) -> Cursors {
        Cursors {
            id: self.id,
            next_seq: self.next_seq,
            clean_segment,
            readers: self.readers.values().map(ReaderState::stored).collect(),
        }
    }

    pub(crate) fn reader_status(&self, reader: &ReaderState) -> ReaderStatus {
        let lag = reader.lag();
        let oldest = match reader.in_flight.front() {
            Some(first) => Some(first.appended_at_unix_nano),
            None if lag.records > 0 => {
                let first = reader.undelivered.iter().find(|(_, amount)| amount.records > 0);
                let first = first.and_then(|(&number, _)| self.segment(number)?.summary.of(&reader.stream));
                first.map(|summary| summary.first_unix_nano.max(reader.delivered_unix_nano))
            }
            None => None,
        };
        ReaderStatus {
            name: reader.name.to_string(),
            stream: reader.stream.to_string(),
            on_full: reader.on_full,
            attached: reader.handle.is_some(),
            orphan_since_unix_nano: reader.orphan_since_unix_nano,
            acked: reader.acked(),
            lag_records: lag.records,
            lag_bytes: lag.bytes,
            in_flight_records: reader.unacked.records,
            oldest_unix_nano: oldest,
            skipped_records: reader.skipped.records,
            skipped_bytes: reader.skipped.bytes,
            lost_records: reader.lost_records,
        }
    }
}

/// Room for this many records stays reserved when memory is empty: a group's worth.
const MEMORY_ENTRIES_KEPT: usize = 64;

/// Moves over records of other streams, and over those that an earlier run acknowledged.
fn pass_over_others(reader: &mut ReaderState, memory: &Memory) {
    if !reader.ready.is_empty() || reader.ready_end.is_some() {
        return;
    }
    while let Some(entry) = memory.at(reader.position.seq)
        && (entry.delivery.record.stream != reader.stream || reader.done.contains(entry.delivery.seq))
    {
        reader.pass(entry.delivery.seq, entry.segment, entry.end_offset);
    }
}

/// Whether there is nothing to read behind a reader's position.
fn at_end(reader: &ReaderState, segments: &VecDeque<Segment>) -> bool {
    segments.back().is_none_or(|last| reader.position.seq >= last.next_seq)
}
