//! The one writer: takes what waits, writes it as a group, makes it durable, shows it to the readers and calls back; and
//! between groups writes cursors down and removes what nobody needs.
//!
//! The next `fdatasync` starts when the last one returned: whatever arrived meanwhile is the next group. Nothing here
//! runs on a timer while nothing happens.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::disk::{DiskFile, Open};
use crate::error::{AppendError, FullReason};
use crate::format::{HEAD_BYTES, Head, Kind, SEGMENT_HEADER_BYTES, Seal, SegmentHeader, Summary, segment_name};
use crate::settings::*;
use crate::shared::{Pending, Shared};
use crate::state::{Entry, Segment};
use crate::status::Health;

/// How much of a new segment is reserved: what an idle journal takes.
const RESERVE_FIRST_BYTES: u64 = 256 << 10;
/// How much is reserved at a time from then on: an extension of the file for every few dozen groups.
const RESERVE_STEP_BYTES: u64 = 8 << 20;
/// A segment that everybody has read is given up for a fresh one at this size when the journal falls idle.
const IDLE_SEGMENT_BYTES: u64 = 1 << 20;
/// How often the free space of the file system is asked for while records arrive.
const FREE_CHECK: Duration = Duration::from_secs(1);
/// After opening, stored readers get this long to be opened before they are orphans, which hold nobody up.
const ORPHAN_SETTLE: Duration = Duration::from_secs(60);
/// Room for this many records of a group stays reserved between groups.
const GROUP_KEPT_RECORDS: usize = 1024;
/// Zeros to fill a frame up to its alignment.
const PADDING: [u8; 8] = [0; 8];

/// The segment being written.
struct Active {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    number: u64,
    /// Where the next frame goes.
    offset: u64,
    /// Up to where space is reserved.
    reserved: u64,
    /// Where the segment ends.
    capacity: u64,
}

/// Why a write did not happen.
pub(crate) enum Trouble {
    /// At a bound: not the disk's fault, and not for ever.
    Full(FullReason),
    Disk(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Trouble::Full(FullReason::DiskFull),
            _ => Trouble::Disk(error),
        }
    }
}

pub(crate) struct Engine {
    shared: Arc<Shared>,
    active: Option<Active>,
    last_number: u64,
    next_seq: Seq,
    /// Heads and stream names of the group being written; kept to be used again.
    heads: Vec<u8>,
    /// `fsync: interval`: when what was written has to be synchronised.
    sync_due: Option<Instant>,
    free_checked: Option<Instant>,
    opened: Instant,
    /// Skips the synchronisation before callbacks: a deliberately broken variant, so that the simulator can show that it
    /// would notice.
    #[cfg(test)]
    pub acknowledge_early: bool,
}

impl Engine {
    pub(crate) fn new(shared: Arc<Shared>, last_number: u64, next_seq: Seq) -> Engine {
        Engine {
            shared,
            active: None,
            last_number,
            next_seq,
            heads: Vec::new(),
            sync_due: None,
            free_checked: None,
            opened: Instant::now(),
            #[cfg(test)]
            acknowledge_early: false,
        }
    }

    /// Until the journal is closed.
    pub(crate) fn run(mut self) {
        let shared = self.shared.clone();
        let mut group = std::collections::VecDeque::new();
        loop {
            let closing = {
                let mut queue = shared.queue();
                loop {
                    if !queue.pending.is_empty() || queue.closing || queue.housekeeping {
                        break;
                    }
                    let due = [queue.cursors_due, self.sync_due, self.deadline()]
                        .into_iter()
                        .flatten()
                        .min();
                    let Some(due) = due else {
                        queue = shared
                            .work
                            .wait(queue)
                            .unwrap_or_else(std::sync::PoisonError::into_inner);
                        continue;
                    };
                    let left = due.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    queue = shared
                        .work
                        .wait_timeout(queue, left)
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .0;
                }
                std::mem::swap(&mut queue.pending, &mut group);
                queue.housekeeping = false;
                queue.closing
            };
            self.commit(&mut group);
            // A burst of small records leaves room for many behind; an idle journal gives it back.
            group.shrink_to(GROUP_KEPT_RECORDS);
            self.heads.shrink_to(GROUP_KEPT_RECORDS * HEAD_BYTES);
            if closing {
                return self.close();
            }
            self.housekeep();
        }
    }

    /// Writes a group and calls back for each record of it.
    pub(crate) fn commit(&mut self, group: &mut std::collections::VecDeque<Pending>) {
        if group.is_empty() {
            return;
        }
        self.shared.counters.groups.fetch_add(1, Relaxed);
        while !group.is_empty() {
            match self.write_part(group) {
                Ok(()) => {}
                Err(error) => {
                    self.shared
                        .counters
                        .refused_records
                        .fetch_add(group.len() as u64, Relaxed);
                    for pending in group.drain(..) {
                        let bytes = pending.record.held_bytes();
                        pending.resolve(Err(error.clone()));
                        self.shared.queue().bytes -= bytes;
                    }
                }
            }
        }
    }

    /// Writes as many records from the front as one segment takes. After trouble with the disk the segment is given up
    /// and the same records go to a new one; a second time there is no trust left.
    fn write_part(&mut self, group: &mut std::collections::VecDeque<Pending>) -> Result<(), AppendError> {
        if self.shared.queue().failed {
            return Err(AppendError::Failed);
        }
        let mut first_trouble = None;
        loop {
            let error = match self.try_write_part(group) {
                Ok(()) => return Ok(()),
                Err(Trouble::Full(reason)) => {
                    self.shared.set_health(Health::Refusing { reason });
                    return Err(AppendError::Full {
                        retry_after: RETRY_AFTER_FULL,
                        reason,
                    });
                }
                Err(Trouble::Disk(error)) => error,
            };
            self.abandon();
            match first_trouble.replace(error) {
                None => {
                    tracing::error!(error = %first_trouble.as_ref().expect("just set"), "a journal segment could not be written and is abandoned; its records go to a new one")
                }
                Some(before) => {
                    let now = first_trouble.expect("just set");
                    self.shared.set_health(Health::Failed {
                        what: format!("{before}, then in a new segment {now}"),
                    });
                    return Err(AppendError::Failed);
                }
            }
        }
    }

    fn try_write_part(&mut self, group: &mut std::collections::VecDeque<Pending>) -> Result<(), Trouble> {
        let first = bundles(group).next().expect("the group is not empty").1;
        let is_relief = group.front().is_some_and(|pending| pending.is_relief);
        if !is_relief {
            self.check_free_space()?;
        }
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.offset + first > active.capacity)
        {
            self.seal()?;
        }
        if self.active.is_none() {
            self.create_segment(first, is_relief)?;
        }
        let active = self.active.as_mut().expect("made above");
        let mut end = active.offset;
        let mut count = 0;
        for (records, frames) in bundles(group) {
            if end + frames > active.capacity {
                break;
            }
            end += frames;
            count += records;
        }
        if end > active.reserved {
            let reserve = end.next_multiple_of(RESERVE_STEP_BYTES).min(active.capacity);
            active.file.allocate(reserve)?;
            active.reserved = reserve;
        }
        let now = self.shared.clock.now_unix_nano();
        let id = self.shared.state().id;
        self.heads.clear();
        let mut follows = false;
        for (at, pending) in group.iter().take(count).enumerate() {
            let record = &pending.record;
            let head = Head {
                body_crc: pending.body_crc,
                seq: self.next_seq + at as u64,
                appended_at_unix_nano: now,
                acked_below: self.next_seq,
                payload_bytes: record.payload.len() as u32,
                header_bytes: record.header.len() as u32,
                stream_bytes: record.stream.len() as u8,
                kind: Kind::Record,
                follows,
                more_follow: pending.more_follow,
            };
            follows = pending.more_follow;
            head.encode(&id, record.stream.as_bytes(), &mut self.heads);
        }
        let mut heads = &self.heads[..];
        let mut slices = Vec::with_capacity(count * 4);
        for pending in group.iter().take(count) {
            let record = &pending.record;
            let (head, rest) = heads.split_at(HEAD_BYTES + record.stream.len());
            heads = rest;
            let content = head.len() + record.header.len() + record.payload.len();
            slices.push(IoSlice::new(head));
            slices.push(IoSlice::new(&record.header));
            slices.push(IoSlice::new(&record.payload));
            slices.push(IoSlice::new(&PADDING[..pending.frame_bytes() as usize - content]));
        }
        active.file.write_at(&mut slices, active.offset)?;
        drop(slices);
        #[cfg(test)]
        let skip_sync = self.acknowledge_early;
        #[cfg(not(test))]
        let skip_sync = false;
        match self.shared.settings.fsync {
            Fsync::Always if !skip_sync => {
                active.file.sync_data()?;
                self.shared.counters.syncs.fetch_add(1, Relaxed);
            }
            Fsync::Interval(delay) => {
                self.sync_due.get_or_insert_with(|| Instant::now() + delay);
            }
            Fsync::Always | Fsync::Off => {}
        }
        self.finish(group, count, now);
        Ok(())
    }

    /// The first `count` records of the group are written: everybody may know.
    fn finish(&mut self, group: &mut std::collections::VecDeque<Pending>, count: usize, now: u64) {
        let active = self.active.as_mut().expect("records were just written to it");
        let mut wakers = Vec::new();
        let (mut bytes, mut held) = (0, 0);
        let (mut offset, mut seq) = (active.offset, self.next_seq);
        // What may exceed the bound says nothing about whether there is room again.
        let is_relief = group.iter().take(count).all(|pending| pending.is_relief);
        let mut recovered = false;
        {
            let mut state = self.shared.state();
            let entries = group.iter().take(count).map(|pending| {
                let frame_bytes = pending.frame_bytes();
                bytes += pending.record.size_bytes();
                held += pending.record.held_bytes();
                offset += frame_bytes;
                seq += 1;
                Entry {
                    delivery: Delivery {
                        seq: seq - 1,
                        record: pending.record.clone(),
                        appended_at_unix_nano: now,
                    },
                    segment: active.number,
                    end_offset: offset,
                    frame_bytes,
                }
            });
            state.publish(entries, active.reserved, &mut wakers);
            recovered |= state.health != Health::Good && !is_relief;
        }
        active.offset = offset;
        let first_seq = std::mem::replace(&mut self.next_seq, seq);
        if recovered {
            self.shared.set_health(Health::Good);
        }
        self.shared.counters.appended_records.fetch_add(count as u64, Relaxed);
        self.shared.counters.appended_bytes.fetch_add(bytes as u64, Relaxed);
        wakers.into_iter().for_each(std::task::Waker::wake);
        for (at, pending) in group.drain(..count).enumerate() {
            pending.resolve(Ok(first_seq + at as u64));
        }
        self.shared.queue().bytes -= held;
    }

    /// Asks now and then whether somebody else is filling the disk.
    fn check_free_space(&mut self) -> Result<(), Trouble> {
        if self.free_checked.is_some_and(|at| at.elapsed() < FREE_CHECK) {
            return Ok(());
        }
        let free = self.shared.disk.free_bytes(&self.shared.settings.directory)?;
        if free < self.shared.settings.min_free_bytes && !self.make_room_on_disk(0, false)? {
            return Err(Trouble::Full(FullReason::MinFree));
        }
        self.free_checked = Some(Instant::now());
        Ok(())
    }

    /// Closes the segment being written with its summary. The records in it are durable already, so trouble here costs
    /// a scan at the next start, no record.
    fn seal(&mut self) -> Result<(), Trouble> {
        let Some(active) = self.active.take() else {
            return Ok(());
        };
        if matches!(self.shared.settings.fsync, Fsync::Interval(_)) {
            active.file.sync_data()?;
            self.sync_due = None;
        }
        let (id, summary) = {
            let state = self.shared.state();
            let segment = state.segments.back().expect("the active segment is listed");
            (state.id, segment.summary.clone())
        };
        let file_bytes = write_seal(
            &*active.file,
            &id,
            active.offset,
            self.next_seq,
            summary,
            self.shared.clock.now_unix_nano(),
        );
        match file_bytes {
            Ok(file_bytes) => {
                if let Some(segment) = self.shared.state().segments.back_mut() {
                    segment.file_bytes = file_bytes;
                }
            }
            Err(error) => {
                tracing::warn!(path = %active.path.display(), %error, "a journal segment could not be sealed; the next start reads it through");
            }
        }
        Ok(())
    }

    /// Leaves a segment that the disk does not take. What was made durable before stays readable.
    fn abandon(&mut self) {
        let Some(active) = self.active.take() else { return };
        self.sync_due = None;
        // What lies behind the last acknowledged record would be ignored anyway, since the next segment says where it
        // begins; cutting it off only gives its space back.
        let cut = active.file.set_len(active.offset);
        let mut state = self.shared.state();
        let empty = state
            .segments
            .back()
            .is_some_and(|segment| segment.number == active.number && segment.first_seq == segment.next_seq);
        if empty {
            state.segments.pop_back();
        } else if let Some(segment) = state.segments.back_mut()
            && cut.is_ok()
        {
            segment.file_bytes = active.offset;
        }
        drop(state);
        if empty && let Err(error) = self.shared.disk.remove_file(&active.path) {
            tracing::warn!(path = %active.path.display(), %error, "an abandoned journal segment could not be removed");
        }
    }

    /// Starts a new segment with room for a frame of `frame` bytes at least.
    pub(crate) fn create_segment(&mut self, frame: u64, is_relief: bool) -> Result<(), Trouble> {
        let capacity = self.shared.segment_bytes().max(SEGMENT_HEADER_BYTES as u64 + frame);
        let reserved = capacity.min((SEGMENT_HEADER_BYTES as u64 + frame).next_multiple_of(RESERVE_FIRST_BYTES));
        if !self.make_room(capacity, is_relief)? || !self.make_room_on_disk(reserved, is_relief)? {
            let full = self.disk_bytes() + capacity > self.shared.settings.max_bytes;
            return Err(Trouble::Full(if full {
                FullReason::MaxBytes
            } else {
                FullReason::MinFree
            }));
        }
        let number = self.last_number + 1;
        let path = self.shared.path(&segment_name(number));
        let header = SegmentHeader {
            id: self.shared.state().id,
            number,
            first_seq: self.next_seq,
            created_unix_nano: self.shared.clock.now_unix_nano(),
        };
        // A number is used for one attempt only: what a failed one left behind must not be taken for the next.
        self.last_number = number;
        let made = self.shared.disk.open(&path, Open::New).and_then(|file| {
            file.allocate(reserved)?;
            file.write_at(&mut [IoSlice::new(&header.encode())], 0)?;
            file.sync_data()?;
            self.shared.disk.sync_dir(&self.shared.settings.directory)?;
            Ok(file)
        });
        let file = made.inspect_err(|_| {
            // Its name may be taken or not; either way there is no record in it.
            let _ = self.shared.disk.remove_file(&path);
        })?;
        let offset = SEGMENT_HEADER_BYTES as u64;
        self.shared.state().segments.push_back(Segment {
            number,
            first_seq: self.next_seq,
            next_seq: self.next_seq,
            data_end: offset,
            file_bytes: reserved,
            summary: Summary::default(),
        });
        self.active = Some(Active {
            file,
            path,
            number,
            offset,
            reserved,
            capacity,
        });
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        self.shared
            .state()
            .segments
            .iter()
            .map(|segment| segment.file_bytes)
            .sum()
    }

    /// Makes `bytes` fit under the journal's own bound, at the cost of readers that allow it.
    fn make_room(&mut self, bytes: u64, is_relief: bool) -> Result<bool, Trouble> {
        self.remove_passed()?;
        while self.disk_bytes() + bytes > self.shared.settings.max_bytes {
            if !self.give_up_oldest()? {
                // Whatever the bound, one segment must be possible, or nothing ever is.
                let beyond = RELIEF_SEGMENTS * self.shared.segment_bytes();
                let relieves = is_relief && self.disk_bytes() + bytes <= self.shared.settings.max_bytes + beyond;
                return Ok(relieves || self.shared.state().segments.is_empty());
            }
        }
        Ok(true)
    }

    /// Whether `bytes` fit on the file system beside what must stay free. No reader gives up anything for it: most of the time it is somebody else who
    /// fills the disk, and would take the next gigabyte as well.
    fn make_room_on_disk(&mut self, bytes: u64, is_relief: bool) -> Result<bool, Trouble> {
        self.remove_passed()?;
        let free = self.shared.disk.free_bytes(&self.shared.settings.directory)?;
        let kept_free = if is_relief {
            0
        } else {
            self.shared.settings.min_free_bytes
        };
        Ok(free >= bytes.saturating_add(kept_free))
    }

    /// Removes the oldest segment if no reader forbids it. While a new segment is made there is none behind the last, so
    /// the last is kept.
    fn give_up_oldest(&mut self) -> Result<bool, Trouble> {
        if !self.shared.state().give_up_first(true) {
            return Ok(false);
        }
        Ok(self.remove_passed()? > 0)
    }

    /// Removes the segments that nobody needs, after the cursors that say so are durable.
    fn remove_passed(&mut self) -> Result<usize, Trouble> {
        let (count, dirty) = {
            let state = self.shared.state();
            (state.passed_segments(), state.cursors_dirty)
        };
        if count == 0 {
            return Ok(0);
        }
        if dirty {
            self.shared.write_cursors(None)?;
        }
        let gone: Vec<Segment> = self.shared.state().segments.drain(..count).collect();
        for segment in gone {
            let path = self.shared.path(&segment_name(segment.number));
            match self.shared.disk.remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    // It is found and removed at the next start.
                    tracing::warn!(path = %path.display(), %error, "a journal segment that nobody needs could not be removed");
                }
                _ => {}
            }
        }
        Ok(count)
    }

    /// What is due between groups.
    pub(crate) fn housekeep(&mut self) {
        if self.sync_due.is_some_and(|due| due <= Instant::now()) {
            self.sync_due = None;
            let result = self.active.as_ref().map_or(Ok(()), |active| active.file.sync_data());
            self.shared.counters.syncs.fetch_add(1, Relaxed);
            if let Err(error) = result {
                tracing::error!(%error, "a journal segment could not be synchronised and is abandoned; what was acknowledged since the last time may not survive the loss of power");
                self.abandon();
            }
        }
        self.skip_aged();
        self.drop_orphans();
        let removed = self.remove_passed();
        let due = self.shared.queue().cursors_due.is_some_and(|due| due <= Instant::now());
        let written = match removed {
            Ok(_) if due => {
                self.renew_idle_segment();
                self.shared.write_cursors(None).map_err(Trouble::from)
            }
            removed => removed.map(|_| ()),
        };
        // Only re-delivery is at stake; a later attempt is due already.
        match written {
            Ok(()) => {}
            Err(Trouble::Disk(error)) => tracing::warn!(%error, "the journal's reader positions could not be written"),
            Err(Trouble::Full(reason)) => {
                tracing::warn!(%reason, "the journal's reader positions could not be written")
            }
        }
    }

    /// A segment of some size that everybody has read through is exchanged for an empty one, to give its space back.
    fn renew_idle_segment(&mut self) {
        let all_read = {
            let state = self.shared.state();
            state.readers.values().all(|reader| reader.low() >= state.next_seq)
        };
        if !all_read
            || self
                .active
                .as_ref()
                .is_none_or(|active| active.offset < IDLE_SEGMENT_BYTES)
        {
            return;
        }
        let renewed = self
            .seal()
            .and_then(|()| self.create_segment(0, false))
            .and_then(|()| self.remove_passed());
        if renewed.is_err() {
            // The next append makes a segment, and meets the same trouble where it can be answered.
            tracing::debug!("an idle journal segment could not be exchanged");
        }
    }

    fn skip_aged(&mut self) {
        let Some(max_age) = self.shared.settings.max_age else {
            return;
        };
        let now = self.shared.clock.now_unix_nano();
        loop {
            let mut state = self.shared.state();
            let full = state.segments.len() > 1;
            let aged = state
                .segments
                .front()
                .and_then(|segment| segment.summary.last_unix_nano());
            let aged = aged.is_some_and(|last| u128::from(last) + max_age.as_nanos() <= u128::from(now));
            if !(full && aged && state.give_up_first(false)) {
                return;
            }
            drop(state);
            if !matches!(self.remove_passed(), Ok(1..)) {
                return;
            }
        }
    }

    fn drop_orphans(&mut self) {
        if self.opened.elapsed() < ORPHAN_SETTLE {
            return;
        }
        let now = self.shared.clock.now_unix_nano();
        let grace = self.shared.settings.orphan_grace.as_nanos();
        let mut state = self.shared.state();
        state.settled = true;
        let before = state.readers.len();
        state.readers.retain(|name, reader| {
            let expired = reader.orphan_since_unix_nano.is_some_and(|since| u128::from(since) + grace <= u128::from(now));
            if expired {
                tracing::warn!(reader = %name, "nobody has opened this journal reader for its grace time; it is dropped with its backlog");
            }
            !expired
        });
        if state.readers.len() < before {
            state.cursors_dirty = true;
            drop(state);
            self.shared.queue().cursors_due = Some(Instant::now());
        }
    }

    /// When something has to happen without anybody asking for it.
    fn deadline(&self) -> Option<Instant> {
        let state = self.shared.state();
        let now = self.shared.clock.now_unix_nano();
        let grace = self.shared.settings.orphan_grace.as_nanos();
        let orphans = state
            .readers
            .values()
            .filter_map(|reader| reader.orphan_since_unix_nano);
        let orphan = orphans.min().map(|since| {
            until(u128::from(since) + grace, now).max(ORPHAN_SETTLE.saturating_sub(self.opened.elapsed()))
        });
        let aged = self.shared.settings.max_age.and_then(|max_age| {
            // What a reader holds that must not lose it goes when that reader moves, which is an event of its own.
            let losable = state.readers.values().any(|reader| {
                !reader.may_refuse(state.settled)
                    && state.segments.len() > 1
                    && reader.low() < state.segments[0].next_seq
            });
            let last = state.segments.front()?.summary.last_unix_nano()?;
            losable.then(|| until(u128::from(last) + max_age.as_nanos(), now))
        });
        let wait = orphan.into_iter().chain(aged).min()?;
        Instant::now().checked_add(wait)
    }

    /// The orderly end: everything that waited is committed by now.
    pub(crate) fn close(mut self) {
        let number = self.last_number;
        let synced = match (&self.active, self.shared.settings.fsync) {
            (Some(active), Fsync::Interval(_) | Fsync::Off) => active.file.sync_data(),
            _ => Ok(()),
        };
        if self.remove_passed().is_err() {
            tracing::debug!("journal segments that nobody needs stay until the next start");
        }
        let sealed = self.seal().is_ok() && synced.is_ok();
        if let Err(error) = self.shared.write_cursors(sealed.then_some(number)) {
            tracing::warn!(%error, "the journal's reader positions could not be written on close; the last of it will be delivered again");
        }
    }
}

/// What is appended together: how many records each, and the bytes of their frames.
fn bundles(group: &std::collections::VecDeque<Pending>) -> impl Iterator<Item = (usize, u64)> {
    let mut rest = group.iter();
    std::iter::from_fn(move || {
        let (mut records, mut frames) = (0, 0);
        for pending in rest.by_ref() {
            records += 1;
            frames += pending.frame_bytes();
            if !pending.more_follow {
                break;
            }
        }
        (records > 0).then_some((records, frames))
    })
}

fn until(deadline_unix_nano: u128, now_unix_nano: u64) -> Duration {
    let left = deadline_unix_nano.saturating_sub(u128::from(now_unix_nano));
    Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
}

/// Cuts a segment behind its last record and closes it. Returns the file's length.
pub(crate) fn write_seal(
    file: &dyn DiskFile,
    id: &JournalId,
    offset: u64,
    next_seq: Seq,
    summary: Summary,
    now: u64,
) -> io::Result<u64> {
    let seal = Seal {
        next_seq,
        sealed_unix_nano: now,
        summary,
    }
    .encode(id, offset);
    file.set_len(offset)?;
    file.write_at(&mut [IoSlice::new(&seal)], offset)?;
    Ok(offset + seal.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::journal::Journal;
    use crate::simulated::SimulatedDisk;

    struct At(u64);

    impl Clock for At {
        fn now_unix_nano(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn a_reader_that_nobody_opens_is_dropped_after_its_grace_time_and_not_before() {
        let disk = SimulatedDisk::new(1);
        let settings = Settings {
            orphan_grace: Duration::from_secs(3600),
            min_free_bytes: 0,
            ..Settings::new("/journal")
        };
        let open = |now_seconds: u64| {
            let clock = Arc::new(At(now_seconds * 1_000_000_000));
            Journal::open_without_threads(settings.clone(), Arc::new(disk.clone()), clock).unwrap()
        };
        let options = |stream: &str| ReaderOptions {
            stream: stream.into(),
            on_full: OnFull::Refuse,
            start: Start::Stored,
        };
        let (journal, _, _) = open(1);
        drop(journal.reader("gone", options("traces")).unwrap());
        drop(journal.reader("kept", options("traces")).unwrap());
        drop(journal);
        let after_settling = |engine: &mut Engine| engine.opened = Instant::now() - ORPHAN_SETTLE;
        let Some(_) = Instant::now().checked_sub(ORPHAN_SETTLE) else {
            panic!("the machine has just started")
        };

        let (journal, mut engine, _) = open(10_000);
        drop(journal.reader("kept", options("traces")).unwrap());
        after_settling(&mut engine);
        engine.housekeep();
        assert_eq!(
            journal.readers().len(),
            2,
            "the grace time starts when the journal is open without it"
        );
        drop(journal);

        let (journal, mut engine, recovery) = open(20_000);
        assert_eq!(recovery.readers[0].orphan_since_unix_nano, Some(10_000_000_000_000));
        engine.housekeep();
        assert_eq!(journal.readers().len(), 2, "there was no time to open it yet");
        assert!(engine.deadline().is_some_and(|due| due > Instant::now()));
        journal.reader("kept", options("traces")).unwrap();
        after_settling(&mut engine);
        engine.housekeep();
        assert_eq!(
            journal
                .readers()
                .iter()
                .map(|reader| reader.name.as_str())
                .collect::<Vec<_>>(),
            ["kept"]
        );
        assert_eq!(engine.deadline(), None, "nothing is left to wake up for");
    }
}
