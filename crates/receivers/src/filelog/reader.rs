//! Follows files: finds them, knows them again after they were renamed, copied or cut off, reads what is new, and moves on only over what the pipeline
//! acknowledged.
//!
//! A file is its inode as long as that begins as it did; where the inode is another, its beginning says which file it was (a copy before the original is
//! cut off, a file that came back from elsewhere). What was not yet read of a file that was renamed or copied away is looked for beside it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, Metadata};
use std::io;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use codec::log_line::Request;
use model::canonical::canonicalize;
use model::{Batch, Meta, Signal};
use pipeline::{Intake, Outcome, Reason};
use tokio::runtime::Handle;

use super::files::{begins, changed, head_of, inode_of, open_file, read_at, sibling};
use super::glob::{Found, MAX_MATCHES};
use super::positions::{Archive, Fingerprint, Inode, MIN_PRINT_BYTES, Place, Positions};
use super::{Held, Plan};
use crate::lines::now_unix_nano;
use crate::settings::{Counters, Stop};

/// Bytes of lines in one batch: what may come twice after a crash, and what a batch holds in memory, several times over while it is encoded.
const BATCH_BYTES: usize = 1 << 20;
/// Records in one batch; short lines take many times their size as records.
const BATCH_RECORDS: u32 = 8_192;
/// Bytes that one file may contribute before the next one's turn.
const TURN_BYTES: usize = 256 << 10;
/// What is read at once; an entry that is longer makes the window grow up to `max_log_size`.
const WINDOW_BYTES: usize = 128 << 10;
/// Batches between two looks at which files there are: a burst must not hide that a file was rotated.
const BATCHES_A_SCAN: usize = 32;
/// How long a file that no pattern names any more stays open after the last that was read of it: its writer may take a while to notice the rotation.
const ROTATED_GRACE: Duration = Duration::from_secs(30);
/// A scan takes at most this share of the time, so that a pattern with many matches costs what it can afford.
const SCAN_SHARE: u32 = 10;
/// How long the answer for what was already pushed is waited for at a stop: the journal gives it in milliseconds, and then nothing comes twice.
const LAST_ANSWER: Duration = Duration::from_secs(3);
/// Wait when there is no memory for a batch.
const MEMORY_WAIT: Duration = Duration::from_millis(200);

/// A file that is followed.
struct Tracked {
    path: PathBuf,
    print: Fingerprint,
    /// Acknowledged up to here.
    offset: u64,
    /// Read up to here, in the batch that is under way.
    read: u64,
    /// Held while there are few enough, so that what is written to a file on its way out is still read.
    file: Option<File>,
    /// Size and time of change when it was last looked at.
    seen: (u64, i128),
    /// What is waited for at the file's end.
    waiting: Option<Waiting>,
    /// Where each entry begins that waits for more lines, and since when.
    unfinished: BTreeMap<u64, Instant>,
    /// How long the first of them may.
    patience: Option<Duration>,
    /// Attributes that its records have, encoded.
    attributes: Vec<u8>,
    /// Since when no pattern names it any more, or the last was read of it since.
    gone: Option<Instant>,
    /// The last attempt to read it failed, which was said.
    has_failed: bool,
    is_unsaved: bool,
}

/// Nothing more can be read of a file before it has grown, or something has been left alone for long enough.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    size: u64,
    since: Instant,
    /// The unfinished line was read as it is, and is part of an entry that waits for more.
    is_flushed: bool,
}

impl Tracked {
    fn place(&self, inode: Inode) -> Place {
        Place {
            inode,
            print: self.print,
            offset: self.offset,
            path: self.path.clone(),
        }
    }
}

/// Fills a buffer from a file's byte on, as far as the file goes.
pub(super) type ReadAt = fn(&File, &mut [u8], u64) -> io::Result<usize>;

pub struct Reader {
    plan: Plan,
    intake: Intake,
    counters: Arc<Counters>,
    positions: Positions,
    tracked: HashMap<Inode, Tracked>,
    /// The files that are followed, in the order of their turns.
    order: Vec<Inode>,
    /// How many of them are held open.
    open_files: usize,
    /// The beginnings of those that a pattern names.
    prints: HashSet<Fingerprint>,
    /// Places of files that are not there now.
    remembered: Archive,
    /// Whether a file that is found was there before we were.
    is_first_scan: bool,
    /// Files that come into being are read from their beginning, and so is what appeared while we were away.
    was_here: bool,
    /// Whose turn it is.
    next: usize,
    /// Entries that operators dropped, of the batch that is under way.
    filtered: u64,
    window: Vec<u8>,
    /// [`read_at`]; a test cannot have a disk that fails.
    pub(super) read_at: ReadAt,
    /// What is wrong with which path, said once.
    pub(super) complaints: HashSet<PathBuf>,
    has_complained_of_positions: bool,
}

impl Reader {
    pub fn open(plan: Plan, intake: Intake, counters: Arc<Counters>, positions: Option<PathBuf>) -> io::Result<Reader> {
        let (positions, places) = Positions::open(positions)?;
        Ok(Reader {
            plan,
            intake,
            counters,
            positions,
            tracked: HashMap::new(),
            order: Vec::new(),
            open_files: 0,
            prints: HashSet::new(),
            was_here: places.is_some(),
            remembered: places.unwrap_or_default().into_iter().collect(),
            is_first_scan: true,
            next: 0,
            filtered: 0,
            window: Vec::new(),
            read_at,
            complaints: HashSet::new(),
            has_complained_of_positions: false,
        })
    }

    /// Reads until it is told to stop.
    pub fn run(mut self, mut stop: Stop, runtime: &Handle) {
        while !*stop.borrow() {
            let began = Instant::now();
            self.scan();
            self.save();
            let scanned = began.elapsed();
            for _ in 0..BATCHES_A_SCAN {
                match self.turn(&mut stop, runtime) {
                    Turn::Idle => break,
                    Turn::Delivered => {}
                    Turn::Stopped => return,
                }
            }
            let pause = self.plan.poll_interval.max(scanned * SCAN_SHARE);
            let stopped = runtime.block_on(tokio::time::timeout(pause, stop.wait_for(|stop| *stop)));
            if matches!(stopped, Ok(Err(_))) {
                return;
            }
        }
    }

    // ---- Which files there are ----

    pub(super) fn scan(&mut self) {
        let mut found = Found::default();
        for glob in &self.plan.include {
            glob.walk(&mut found);
        }
        if found.is_cut {
            self.complain(Path::new("include"), &format!("`include` names more than {MAX_MATCHES} files, or goes through too many folders; the others are not read"));
        }
        self.open_files = self.tracked.values().filter(|tracked| tracked.file.is_some()).count();
        let named = self.tracked.values().filter(|tracked| tracked.gone.is_none());
        self.prints = named.map(|tracked| tracked.print).collect();
        let mut present = HashSet::new();
        for path in found.paths {
            if self.plan.exclude.iter().any(|glob| glob.matches(&path)) {
                continue;
            }
            // Follows links: what a link names is the file.
            let metadata = match std::fs::metadata(&path) {
                Ok(metadata) => metadata,
                // It went between the two looks, or the link leads nowhere.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    self.complain(&path, &format!("cannot be read: {error}"));
                    continue;
                }
            };
            if !metadata.is_file() {
                if !metadata.is_dir() {
                    self.complain(&path, "is not a file; only files are followed");
                }
                continue;
            }
            let inode = inode_of(&metadata);
            if !present.insert(inode) {
                continue;
            }
            let looked = match self.tracked.contains_key(&inode) {
                true => self.look_again(inode, path.clone(), &metadata),
                false => self.adopt(inode, path.clone(), &metadata),
            };
            match looked {
                // It can be looked at, which is not yet read.
                Ok(()) if self.tracked.get(&inode).is_some_and(|tracked| tracked.has_failed) => {}
                Ok(()) => drop(self.complaints.remove(&path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.complain(&path, &format!("cannot be read: {error}")),
            }
        }
        self.part_with_gone(&present);
        if self.is_first_scan {
            self.read_moved();
            self.is_first_scan = false;
        }
        self.remembered.trim();
        self.order = self.tracked.keys().copied().collect();
        self.order.sort_unstable_by_key(|inode| (inode.device, inode.inode));
    }

    /// A file that is followed already.
    fn look_again(&mut self, inode: Inode, path: PathBuf, metadata: &Metadata) -> io::Result<()> {
        let Some(tracked) = self.tracked.get_mut(&inode) else {
            return Ok(());
        };
        tracked.gone = None;
        if tracked.path != path {
            tracked.attributes = self.plan.attributes_of(&path);
            tracked.path = path;
            tracked.file = None;
            tracked.is_unsaved = true;
        }
        let state = (metadata.len(), changed(metadata));
        if state == tracked.seen {
            return Ok(());
        }
        let file = match &tracked.file {
            Some(file) => file,
            None => &open_file(&tracked.path, inode)?,
        };
        let head = head_of(file, self.plan.fingerprint_size)?;
        tracked.seen = state;
        if metadata.len() < tracked.offset || !tracked.print.begins(&head) {
            // Cut off, or written over: what it was may lie beside it.
            let old = Place {
                inode: Inode::default(),
                ..tracked.place(inode)
            };
            tracked.offset = 0;
            tracked.read = 0;
            tracked.print = Fingerprint::of(&head);
            tracked.waiting = None;
            tracked.unfinished.clear();
            tracked.is_unsaved = true;
            self.remember(old.clone());
            self.read_copy_of(&old);
        } else if (tracked.print.len as usize) < head.len() {
            tracked.print = Fingerprint::of(&head);
            tracked.is_unsaved = true;
        }
        Ok(())
    }

    /// A file that is not followed: one that is known, or a new one.
    fn adopt(&mut self, inode: Inode, path: PathBuf, metadata: &Metadata) -> io::Result<()> {
        if let Some(limit) = self.plan.exclude_older_than
            && SystemTime::now()
                .duration_since(metadata.modified()?)
                .is_ok_and(|age| age > limit)
        {
            return Ok(());
        }
        let file = open_file(&path, inode)?;
        let head = head_of(&file, self.plan.fingerprint_size)?;
        let print = Fingerprint::of(&head);
        let offset = match self.remembered.take(inode, &head, metadata.len()) {
            Some(place) => place.offset,
            None if !head.is_empty() && self.prints.contains(&print) => {
                // A copy, most likely of one that is about to be cut off. Which, the next look shows.
                return Ok(());
            }
            None if self.is_first_scan && !self.was_here && !self.plan.from_beginning => metadata.len(),
            None => 0,
        };
        self.prints.insert(print);
        self.track(
            Place {
                inode,
                print,
                offset,
                path,
            },
            file,
            None,
        );
        Ok(())
    }

    fn track(&mut self, place: Place, file: File, gone: Option<Instant>) {
        // What is gone can be opened by no name, and is soon read.
        let is_held = gone.is_some() || self.open_files < self.plan.max_open_files;
        self.open_files += usize::from(is_held);
        let seen = file
            .metadata()
            .map_or((0, 0), |metadata| (metadata.len(), changed(&metadata)));
        let tracked = Tracked {
            attributes: self.plan.attributes_of(&place.path),
            path: place.path,
            print: place.print,
            offset: place.offset,
            read: place.offset,
            file: is_held.then_some(file),
            seen,
            waiting: None,
            unfinished: BTreeMap::new(),
            patience: None,
            gone,
            has_failed: false,
            is_unsaved: true,
        };
        self.tracked.insert(place.inode, tracked);
    }

    fn remember(&mut self, place: Place) {
        // A failure makes `save` write all of it anew, and say what is wrong.
        let _ = self.positions.append(std::slice::from_ref(&place));
        self.remembered.insert(place);
    }

    /// Files that no pattern names any more are read to their end, as long as they are open; then they are remembered.
    fn part_with_gone(&mut self, present: &HashSet<Inode>) {
        let mut parted = Vec::new();
        for (inode, tracked) in self.tracked.iter_mut().filter(|(inode, _)| !present.contains(inode)) {
            if tracked.gone.is_none() && tracked.file.is_none() {
                tracked.file = sibling(&tracked.path, |file, metadata| {
                    inode_of(metadata) == *inode && begins(file, &tracked.print)
                });
            }
            let since = tracked.gone.get_or_insert_with(Instant::now);
            let left = tracked.file.as_ref().and_then(|file| file.metadata().ok());
            let is_over = match left {
                None => true,
                // Nobody can write to a file without a name that nobody has open; whoever has it open will notice.
                Some(metadata) => metadata.len() <= tracked.read && since.elapsed() >= ROTATED_GRACE,
            };
            if is_over {
                parted.push(*inode);
            }
        }
        for inode in parted {
            if let Some(tracked) = self.tracked.remove(&inode) {
                let place = tracked.place(inode);
                self.remember(place);
            }
        }
    }

    /// After a start: files that were renamed out of the patterns, or copied and cut off, while nobody looked are read to their end.
    fn read_moved(&mut self) {
        for mut place in self.remembered.all() {
            if place.inode == Inode::default() || place.path.as_os_str().is_empty() {
                continue;
            }
            if self.tracked.contains_key(&place.inode) {
                // The name is there, and something else by now.
                self.remembered.remove(&place);
                place.inode = Inode::default();
                self.remembered.insert(place.clone());
                self.read_copy_of(&place);
                continue;
            }
            let moved = sibling(&place.path, |file, metadata| {
                inode_of(metadata) == place.inode && metadata.len() > place.offset && begins(file, &place.print)
            });
            if let Some(file) = moved {
                self.remembered.remove(&place);
                self.track(place, file, Some(Instant::now()));
            }
        }
    }

    /// A file was copied away and cut off: what had not been read of it is in the copy, if that lies beside it.
    fn read_copy_of(&mut self, old: &Place) {
        if old.print.len < MIN_PRINT_BYTES {
            return;
        }
        let tracked = &self.tracked;
        let mut inode = Inode::default();
        let copy = sibling(&old.path, |file, metadata| {
            inode = inode_of(metadata);
            metadata.len() > old.offset && !tracked.contains_key(&inode) && begins(file, &old.print)
        });
        if let Some(file) = copy {
            self.remembered.remove(old);
            // The patterns may name it too; then the next scan finds it followed.
            let place = Place { inode, ..old.clone() };
            self.track(place, file, Some(Instant::now()));
        }
    }

    fn complain(&mut self, path: &Path, what: &str) {
        if self.complaints.len() < MAX_MATCHES && self.complaints.insert(path.to_owned()) {
            tracing::warn!(receiver = %self.intake.receiver(), path = %path.display(), "{what}");
        }
    }

    // ---- What is in them ----

    /// One batch from whoever has something, pushed until the pipeline takes it.
    pub(super) fn turn(&mut self, stop: &mut Stop, runtime: &Handle) -> Turn {
        let mut request = Request::default();
        let mut touched = Vec::new();
        let mut taken = 0;
        let count = self.order.len();
        // All in turn, and whoever had something again, until the batch is full.
        let mut turns: Vec<Inode> = (0..count).map(|at| self.order[(self.next + at) % count]).collect();
        while !turns.is_empty() {
            let (mut active, mut visited) = (Vec::new(), 0);
            for inode in turns {
                if taken >= BATCH_BYTES || request.records() >= BATCH_RECORDS {
                    active.clear();
                    break;
                }
                visited += 1;
                match self.read(inode, &mut request) {
                    Ok(0) => {}
                    Ok(bytes) => {
                        taken += bytes;
                        active.push(inode);
                        if !touched.contains(&inode) {
                            touched.push(inode);
                        }
                    }
                    Err(error) => {
                        let tracked = self.tracked.get_mut(&inode);
                        if let Some(tracked) = tracked.filter(|_| error.kind() != io::ErrorKind::NotFound) {
                            tracked.has_failed = true;
                            let path = tracked.path.clone();
                            self.complain(&path, &format!("cannot be read: {error}"));
                        }
                    }
                }
            }
            if visited > 0 {
                self.next = (self.next + visited) % count;
            }
            turns = active;
        }
        if touched.is_empty() {
            return Turn::Idle;
        }
        let source_offset = match touched[..] {
            [inode] => self.tracked.get(&inode).map(|tracked| tracked.read),
            _ => None,
        };
        if !request.is_empty() && !self.deliver(request, source_offset, stop, runtime) {
            return Turn::Stopped;
        }
        for inode in touched {
            if let Some(tracked) = self.tracked.get_mut(&inode) {
                tracked.offset = tracked.read;
                tracked.is_unsaved = true;
            }
        }
        let filtered = std::mem::take(&mut self.filtered);
        if filtered > 0 {
            self.intake.rejected(Signal::Logs, filtered, Reason::Filtered);
        }
        self.save();
        Turn::Delivered
    }

    /// Reads one file's turn into the request; how many bytes of it.
    fn read(&mut self, inode: Inode, request: &mut Request) -> io::Result<usize> {
        let Some(tracked) = self.tracked.get_mut(&inode) else {
            return Ok(0);
        };
        let opened;
        let file = match &tracked.file {
            Some(file) => file,
            None => {
                // Most files are idle, and asking for a size is cheaper than opening.
                if tracked.seen.0 <= tracked.read {
                    return Ok(0);
                }
                opened = open_file(&tracked.path, inode)?;
                &opened
            }
        };
        let size = file.metadata()?.len();
        if size <= tracked.read {
            return Ok(0);
        }
        // What is gone is not waited for for ever.
        let grace = tracked.gone.map(|_| ROTATED_GRACE);
        let is_due =
            |period: Option<Duration>, since: Instant| period.or(grace).is_some_and(|period| since.elapsed() >= period);
        let oldest = tracked.unfinished.first_key_value();
        let gives_up = oldest.is_some_and(|(_, since)| is_due(tracked.patience, *since));
        let waiting = tracked.waiting.filter(|waiting| waiting.size == size);
        let flush = waiting.is_some_and(|waiting| is_due(self.plan.force_flush_period, waiting.since));
        if waiting.is_some_and(|waiting| !gives_up && (!flush || waiting.is_flushed)) {
            return Ok(0);
        }
        // Since the last scan it may have been cut off and have grown again; then the next one sees to it.
        let head = head_of(file, self.plan.fingerprint_size)?;
        if !tracked.print.begins(&head) {
            return Ok(0);
        }
        if (tracked.print.len as usize) < head.len() {
            tracked.print = Fingerprint::of(&head);
            tracked.is_unsaved = true;
        }
        let start = tracked.read;
        let observed = now_unix_nano();
        let lines = &self.plan.lines;
        let combines = lines.operators.combine();
        let mut held = Held::default();
        let mut is_at_end = false;
        let mut failure = None;
        let mut emitted = Emitted::default();
        let longest = self.plan.splitter.max_log_size + 1;
        let mut wanted = WINDOW_BYTES;
        'window: loop {
            // The bound is the window's: a file may be of any size.
            let available = size - tracked.read;
            let bytes = (wanted as u64).min(available) as usize;
            self.window.resize(bytes, 0);
            let got = match (self.read_at)(file, &mut self.window, tracked.read) {
                Ok(got) => got,
                // What was read before is handed over all the same; the next turn finds the failure at its beginning.
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            };
            self.window.truncate(got);
            // What begins so after it was read began so before: these bytes are of this file, and not of what was written over it.
            if !begins(file, &tracked.print) {
                break;
            }
            let is_all = got as u64 == available;
            let mut rest = &self.window[..];
            let mut has_entry = false;
            while let Some(entry) = self.plan.splitter.first(rest, is_all, flush) {
                has_entry = true;
                let at = tracked.read;
                tracked.read += entry.consumed as u64;
                let line = self.plan.lines.trim(&rest[entry.text]);
                rest = &rest[entry.consumed..];
                if !line.is_empty() && combines {
                    lines.enter(line, at, &tracked.path, &mut held);
                    emitted += emit(&self.plan, &mut held, &tracked.attributes, observed, request);
                } else if !line.is_empty() {
                    let offset = self.plan.includes_offset.then_some(at);
                    let path = Some(tracked.path.as_path());
                    let pushed = lines.push(line, &tracked.attributes, path, offset, observed, request);
                    emitted.mended += u64::from(pushed.is_mended);
                    emitted.dropped += u64::from(pushed.is_dropped);
                }
                // What is held ends a turn only when something has left: it is read again in the next.
                let gone_on = held.start().unwrap_or(tracked.read) > start;
                if gone_on && ((tracked.read - start) as usize >= TURN_BYTES || request.records() >= BATCH_RECORDS) {
                    break 'window;
                }
            }
            // Less than there was: it is being cut off, which the next scan sees.
            if tracked.read == size || got < bytes {
                is_at_end = tracked.read == size;
                break;
            }
            match has_entry {
                true => wanted = WINDOW_BYTES,
                // Nothing whole: it is looked at again when it has grown, or has been left alone for long enough.
                false if is_all => {
                    is_at_end = true;
                    break;
                }
                false => wanted = (wanted * 4).min(longest.max(WINDOW_BYTES)),
            }
        }
        let (mut before, now) = (std::mem::take(&mut tracked.unfinished), Instant::now());
        let since = |at: u64| before.get(&at).copied().unwrap_or(now);
        while is_at_end
            && let Some(at) = held.start()
            && is_due(lines.operators.patience(&held), since(at))
        {
            lines.operators.give_up(&mut held, Some(&tracked.path));
            emitted += emit(&self.plan, &mut held, &tracked.attributes, observed, request);
        }
        self.filtered += emitted.dropped;
        self.counters.repaired_text.fetch_add(emitted.mended, Ordering::Relaxed);
        let unfinished: Vec<(u64, Instant)> = held.unfinished().map(|at| (at, since(at))).collect();
        // Those behind what was read this time were not asked.
        tracked.unfinished = before.split_off(&tracked.read);
        tracked.unfinished.extend(unfinished);
        // What is held was not handed over, and is read again.
        if let Some(at) = held.start() {
            tracked.read = at;
        }
        tracked.patience = lines.operators.patience(&held);
        tracked.waiting = (is_at_end && tracked.read < size).then(|| Waiting {
            size,
            since: waiting.map_or_else(Instant::now, |waiting| waiting.since),
            is_flushed: flush,
        });
        if tracked.read > start && tracked.gone.is_some() {
            tracked.gone = Some(Instant::now());
        }
        // A long entry is no reason to keep its window.
        if self.window.capacity() > 4 * WINDOW_BYTES {
            self.window = Vec::new();
        }
        tracked.has_failed &= tracked.read == start;
        match failure {
            Some(error) if tracked.read == start => Err(error),
            _ => Ok((tracked.read - start) as usize),
        }
    }

    /// Hands a batch on, again and again until it is taken; `false` if it was not when the time came to stop.
    fn deliver(&self, request: Request, source_offset: Option<u64>, stop: &mut Stop, runtime: &Handle) -> bool {
        let records = u64::from(request.records());
        let canonical = match canonicalize(Signal::Logs, Bytes::from(request.finish())) {
            Ok(canonical) => canonical,
            Err(malformed) => {
                // What we wrote ourselves reads back; if it ever does not, the file goes on.
                tracing::error!(receiver = %self.intake.receiver(), "lines could not be encoded: {malformed}");
                self.intake.rejected(Signal::Logs, records, Reason::Malformed);
                return true;
            }
        };
        if canonical.items == 0 {
            return true;
        }
        let meta = Meta {
            received_at_unix_nano: now_unix_nano(),
            receiver: Arc::clone(self.intake.receiver()),
            peer: None,
            headers: Vec::new(),
            source_offset,
        };
        let batch = Batch::from_canonical(Signal::Logs, canonical, None, Arc::new(meta));
        push_until_taken(&self.intake, &batch, stop, runtime)
    }

    // ---- What is remembered ----

    /// Writes down what changed. A failure is said once; until it is mended, lines may come twice after a crash, and none is lost.
    fn save(&mut self) {
        let saved = if self.positions.is_old(self.tracked.len() + self.remembered.len()) {
            let followed = self.tracked.iter().map(|(inode, tracked)| tracked.place(*inode));
            let places: Vec<Place> = self.remembered.all().into_iter().chain(followed).collect();
            self.positions.rewrite(&places)
        } else {
            let unsaved = self.tracked.iter().filter(|(_, tracked)| tracked.is_unsaved);
            let places: Vec<Place> = unsaved.map(|(inode, tracked)| tracked.place(*inode)).collect();
            self.positions.append(&places)
        };
        match saved {
            Ok(()) => {
                self.has_complained_of_positions = false;
                for tracked in self.tracked.values_mut() {
                    tracked.is_unsaved = false;
                }
            }
            Err(error) if !self.has_complained_of_positions => {
                self.has_complained_of_positions = true;
                tracing::error!(receiver = %self.intake.receiver(), "positions in files cannot be written, so lines may come twice after a crash: {error}");
            }
            Err(_) => {}
        }
    }
}

/// What is counted of entries when they leave: what is held is read again, and would be counted again.
#[derive(Debug, Default)]
struct Emitted {
    /// Entries that operators dropped.
    dropped: u64,
    /// Lines that were not UTF-8.
    mended: u64,
}

impl AddAssign for Emitted {
    fn add_assign(&mut self, other: Emitted) {
        self.dropped += other.dropped;
        self.mended += other.mended;
    }
}

/// Adds what has passed the operators to the request.
fn emit(plan: &Plan, held: &mut Held, attributes: &[u8], observed_unix_nano: u64, request: &mut Request) -> Emitted {
    let mut emitted = Emitted::default();
    while let Some(entry) = held.pop() {
        emitted.mended += entry.mended;
        match entry.record {
            None => emitted.dropped += 1,
            Some(record) => {
                let offset = plan.includes_offset.then_some(entry.start);
                plan.lines
                    .write(record, attributes, offset, observed_unix_nano, request);
            }
        }
    }
    emitted
}

/// What became of one batch.
pub(super) enum Turn {
    Idle,
    Delivered,
    Stopped,
}

/// Pushes a batch until it is taken, which may be for longer than its reader lives: a backend that is away makes it stand still. `false` at a stop.
pub(crate) fn push_until_taken(intake: &Intake, batch: &Batch, stop: &mut Stop, runtime: &Handle) -> bool {
    loop {
        let wait = match intake.budget().try_reserve(batch.payload.len() as u64) {
            None => MEMORY_WAIT,
            Some(lease) => {
                let mut answer = intake.push_held(batch.clone(), Some(lease));
                let outcome = runtime.block_on(async {
                    tokio::select! {
                        outcome = &mut answer => Some(outcome),
                        _ = stop.wait_for(|stop| *stop) => tokio::time::timeout(LAST_ANSWER, answer).await.ok(),
                    }
                });
                match outcome {
                    Some(Outcome::Delivered | Outcome::Rejected { .. }) => return true,
                    Some(Outcome::Retry { after, .. }) => after,
                    None => return false,
                }
            }
        };
        let stopped = runtime.block_on(async { tokio::time::timeout(wait, stop.wait_for(|stop| *stop)).await.is_ok() });
        if stopped {
            return false;
        }
    }
}
