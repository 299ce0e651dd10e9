//! Why: what stands between the journal and a stage. It hands the stage its streams, and makes one commit of what the stage gives out, what it remembers
//! and how far it has come: records that the journal has together or not at all. After a start the stage gets its memory back and goes on at that place.
//!
//! A stage with a delay has two cursors over its one stream: one far ahead, for what it is shown, and one that follows when the time has come.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use journal::{AppendError, Delivery, Journal, Ranges, ReaderError, Record, Seq, Start};
use model::{Batch, Signal, edit};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::ack::Outcome;
use crate::budget::Budget;
use crate::component::Processor;
use crate::ledger::{DoorBook, Ledger};
use crate::line::{Appender, process};
use crate::metadata::Kept;
use crate::reader::{Phase, Source, Taken, reached};
use crate::reason::Reason;
use crate::record;
use crate::stage::{MakeStage, Stage};
pub(crate) use crate::staging::memory::Memory;
use crate::staging::memory::Places;

mod memory;

/// Records that are taken from the journal at once.
const MAX_RECORDS: usize = 64;

/// Bytes of records, compressed, that are taken from the journal at once. A stage with a delay holds as much of what it has still to see.
const MAX_RECORD_BYTES: usize = 4 << 20;

/// How often a stage is told the time.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// What a stage took and gave nothing out for is committed after this long…
const MAX_UNCOMMITTED_AGE: Duration = Duration::from_secs(10);

/// …or this many records: a crash has them taken once more, and until then the journal keeps them.
const MAX_UNCOMMITTED_RECORDS: usize = 16 * 1024;

/// What was given out is committed this much later at most: what else is given out meanwhile shares its sync and its record.
const COMMIT_DELAY: Duration = Duration::from_millis(50);

/// The longest wait after the journal said that it is full. It may itself wait for this stage.
const MAX_FULL_WAIT: Duration = Duration::from_millis(500);

/// The shortest wait before a processor that refused for now is asked again.
const MIN_RETRY_WAIT: Duration = Duration::from_millis(100);

/// The payload of what is given out together, inflated, as one record: larger ones pack better and cost their readers less. A small journal takes less at
/// once, see [`commit_bytes`].
const MAX_JOINED_BYTES: u64 = 4 << 20;

/// How often a stage that drains looks whether it has caught up.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Where batches of one signal go on.
pub(crate) struct Outlet {
    pub signal: Signal,
    pub processors: Vec<Arc<dyn Processor>>,
    pub kept: Arc<Kept>,
    pub appender: Appender,
}

/// A stage with what it reads from and gives to.
pub(crate) struct Staging {
    /// In messages.
    pub name: Arc<str>,
    pub make: MakeStage,
    pub journal: Journal,
    /// One for a processor; for a connector one per pipeline that ends in it.
    pub sources: Vec<Source>,
    pub outlets: Vec<Outlet>,
    /// For a connector, which is a receiver to what follows: by signal.
    pub doors: Vec<(Signal, Arc<DoorBook>)>,
    pub budget: Budget,
    pub ledger: Ledger,
    /// Counts what is inflated here.
    pub inflated: Budget,
    /// Where it remembers.
    pub memory: Memory,
}

impl Staging {
    /// Gives the stage its memory back, goes on where it was, and works until the graph says stop. Blocks its thread.
    pub fn run(self, runtime: &Handle, phase: &watch::Receiver<Phase>) {
        let name = Arc::clone(&self.name);
        match self.start(runtime, phase) {
            Ok(Some(running)) => running.run(runtime, phase),
            Ok(None) => {}
            Err(error) => tracing::error!(stage = &*name, "cannot go on where it was, and stands still: {error}"),
        }
    }

    fn start(mut self, runtime: &Handle, phase: &watch::Receiver<Phase>) -> Result<Option<Running>, ReaderError> {
        let make = || {
            let mut stage = (self.make)();
            stage.start(&self.budget);
            stage
        };
        let mut stage = make();
        let Some((remembered, places)) = self.memory.read_back(&self.journal, runtime, phase) else {
            return Ok(None);
        };
        for state in &remembered {
            if let Err(error) = stage.restore(state) {
                tracing::error!(stage = &*self.name, "starts with nothing remembered: {error}");
                stage = make();
                break;
            }
        }
        if let Some(book) = stage.book() {
            self.ledger.add_step(book);
        }
        for source in &self.sources {
            if let Some(place) = places.of(source.reader.name()) {
                let start = Start::At(Ranges::below(place));
                self.journal.move_reader(source.reader.name(), start)?;
            }
        }
        let mut ahead = None;
        if !stage.delay().is_zero() {
            let [source] = &self.sources[..] else {
                unreachable!("a processor, which alone may have a delay, has one pipeline");
            };
            let name = format!("{}:ahead", source.reader.name());
            let options = journal::ReaderOptions {
                stream: source.reader.stream().into(),
                // What it misses it need not see: the reader that follows has missed it too.
                on_full: journal::OnFull::SkipOldest,
                start: match self.journal.readers().iter().find(|it| it.name == source.reader.name()) {
                    Some(status) => Start::At(status.acked.clone()),
                    None => Start::Tail,
                },
            };
            ahead = Some(Ahead {
                reader: self.journal.reader(&name, options)?,
                shown: VecDeque::new(),
            });
        }
        Ok(Some(Running {
            places: places.within(&self.sources),
            stage,
            ahead,
            waiting: VecDeque::new(),
            head_since: Instant::now(),
            taken: Vec::new(),
            out: Vec::new(),
            uncommitted_since: None,
            commit_by: None,
            next_tick: Instant::now() + TICK_INTERVAL,
            staging: self,
        }))
    }
}

/// The cursor of what a stage with a delay is shown.
struct Ahead {
    reader: journal::Reader,
    /// Read, and not yet shown.
    shown: VecDeque<Delivery>,
}

/// A stage at work.
pub(crate) struct Running {
    staging: Staging,
    stage: Box<dyn Stage>,
    places: Places,
    ahead: Option<Ahead>,
    /// With a delay: read, and not yet taken.
    waiting: VecDeque<Delivery>,
    /// Since when the first of `waiting` is the first.
    head_since: Instant,
    /// Since the last commit: source, position, items.
    taken: Vec<(usize, Seq, u64)>,
    out: Vec<Batch>,
    uncommitted_since: Option<Instant>,
    /// When what was given out has to be committed.
    commit_by: Option<Instant>,
    next_tick: Instant,
}

enum Event {
    Deliveries(usize, Vec<Delivery>),
    /// For the cursor ahead.
    Shown(Vec<Delivery>),
    /// The first of `waiting` is due.
    Due,
    Tick,
    /// What was given out has waited long enough.
    Commit,
    /// Nothing more is to be read.
    CaughtUp,
    Stop,
}

impl Running {
    /// Works until the graph says stop. Blocks its thread.
    pub fn run(mut self, runtime: &Handle, phase: &watch::Receiver<Phase>) {
        loop {
            let event = runtime.block_on(self.next(phase));
            let goes_on = match event {
                Event::Deliveries(at, deliveries) if self.ahead.is_none() => deliveries
                    .iter()
                    .all(|delivery| self.take(at, delivery, runtime, phase)),
                Event::Deliveries(_, deliveries) => {
                    self.waiting.extend(deliveries);
                    self.head_since = Instant::now();
                    true
                }
                Event::Shown(deliveries) => {
                    if let Some(ahead) = &mut self.ahead {
                        ahead.shown.extend(deliveries);
                    }
                    true
                }
                Event::Due => self.take_due(runtime, phase),
                Event::Tick => {
                    self.next_tick = Instant::now() + TICK_INTERVAL;
                    self.stage.tick(now_unix_nano(), &mut self.out);
                    true
                }
                Event::Commit => true,
                Event::CaughtUp => {
                    if self.ahead.is_none() {
                        self.stage.finish(now_unix_nano(), &mut self.out);
                    }
                    if self.commit(runtime, phase) {
                        self.staging.memory.let_go(&self.staging.journal);
                    }
                    return;
                }
                Event::Stop => return,
            };
            let overdue = self
                .uncommitted_since
                .is_some_and(|since| since.elapsed() >= MAX_UNCOMMITTED_AGE);
            let many = self.taken.len() >= MAX_UNCOMMITTED_RECORDS;
            if !self.out.is_empty() {
                self.commit_by.get_or_insert_with(|| Instant::now() + COMMIT_DELAY);
            }
            let waited = self.commit_by.is_some_and(|by| Instant::now() >= by)
                || self.held_bytes() >= commit_bytes(&self.staging.journal);
            let due = waited || overdue || many || self.staging.memory.wants_whole(&self.staging.journal);
            if !goes_on || due && !self.commit(runtime, phase) {
                return;
            }
        }
    }

    async fn next(&mut self, phase: &watch::Receiver<Phase>) -> Event {
        loop {
            let draining = *phase.borrow() >= Phase::Draining;
            // First, or a stream that never rests would leave no time for it.
            if Instant::now() >= self.next_tick {
                return Event::Tick;
            }
            let commit_in = self.commit_by.map(|by| by.saturating_duration_since(Instant::now()));
            if commit_in.is_some_and(|wait| wait.is_zero()) {
                return Event::Commit;
            }
            if let Some(ahead) = &mut self.ahead {
                if draining {
                    // What is not due yet is the next start's.
                    return Event::CaughtUp;
                }
                match show_next(&mut *self.stage, ahead, self.waiting.front(), &self.staging) {
                    Show::Next => continue,
                    Show::Due => return Event::Due,
                    Show::Wait => {}
                }
            }
            let due_in = self.waiting.front().map(|head| self.due_in(head));
            let is_due = due_in.is_some_and(|wait| wait.is_zero());
            if is_due
                && self
                    .ahead
                    .as_ref()
                    .is_some_and(|ahead| ahead.has_seen_all(&self.staging.journal))
            {
                return Event::Due;
            }
            let tick = tokio::time::sleep_until(self.next_tick.into());
            return tokio::select! {
                biased;
                () = reached(phase.clone(), Phase::Abandoned) => Event::Stop,
                found = received(&self.staging.sources), if self.waiting.is_empty() => match found {
                    Some((at, deliveries)) => Event::Deliveries(at, deliveries),
                    None => Event::Stop,
                },
                shown = shown(&self.ahead) => match shown {
                    Some(deliveries) => Event::Shown(deliveries),
                    None => Event::Stop,
                },
                () = tokio::time::sleep(due_in.unwrap_or_default()), if due_in.is_some() && !is_due => continue,
                () = tokio::time::sleep(commit_in.unwrap_or_default()), if commit_in.is_some() => Event::Commit,
                () = tick => Event::Tick,
                () = tokio::time::sleep(LOOK_INTERVAL), if draining => {
                    if self.staging.sources.iter().all(Source::is_caught_up) {
                        return Event::CaughtUp;
                    }
                    continue;
                }
                () = reached(phase.clone(), Phase::Draining), if !draining => continue,
            };
        }
    }

    /// How long until a delivery is due by the wall clock; or, should that have been set back, by the time since it came to the front.
    fn due_in(&self, head: &Delivery) -> Duration {
        let delay = self.stage.delay();
        let since_arrival = now_unix_nano().saturating_sub(record::received_at_unix_nano(&head.record));
        delay
            .saturating_sub(Duration::from_nanos(since_arrival))
            .min(delay.saturating_sub(self.head_since.elapsed()))
    }

    fn take_due(&mut self, runtime: &Handle, phase: &watch::Receiver<Phase>) -> bool {
        let Some(delivery) = self.waiting.pop_front() else {
            return true;
        };
        self.head_since = Instant::now();
        self.take(0, &delivery, runtime, phase)
    }

    /// What was given out and is not committed.
    fn held_bytes(&self) -> u64 {
        self.out.iter().map(|batch| batch.payload.len() as u64).sum()
    }

    /// Has the stage take a record; `false` if everything is to stop.
    fn take(&mut self, at: usize, delivery: &Delivery, runtime: &Handle, phase: &watch::Receiver<Phase>) -> bool {
        let source = &self.staging.sources[at];
        let (seq, batch) = match source.take(delivery) {
            Taken::Batch(seq, batch) => (seq, Some(batch)),
            Taken::Unreadable(seq) => (seq, None),
            // What is behind it must not be taken before it.
            Taken::Newer(_) => return false,
        };
        let items = batch.as_ref().map_or(0, |batch| u64::from(batch.items));
        if self.held_bytes() >= commit_bytes(&self.staging.journal) && !self.commit(runtime, phase) {
            return false;
        }
        if let Some(batch) = batch {
            let _held = self.staging.inflated.charge(batch.payload.len() as u64);
            let (signal, before) = (batch.signal, self.out.len());
            let book = self.stage.book().cloned();
            if let Some(book) = &book {
                book.incoming(signal, batch.items);
            }
            self.stage.take(batch, &mut self.out);
            if let Some(book) = &book {
                let outgoing: u32 = self.out[before..].iter().map(|batch| batch.items).sum();
                book.outgoing(signal, outgoing);
            }
        }
        self.taken.push((at, seq, items));
        self.places.set(at, seq + 1);
        self.uncommitted_since.get_or_insert_with(Instant::now);
        true
    }

    /// Makes one commit of everything since the last; `false` if everything is to stop, in which case the next start takes it once more.
    fn commit(&mut self, runtime: &Handle, phase: &watch::Receiver<Phase>) -> bool {
        let mut sends: Vec<(usize, Batch)> = Vec::new();
        for batch in joined(std::mem::take(&mut self.out), commit_bytes(&self.staging.journal)) {
            let mut outcome = Outcome::Delivered;
            for at in 0..self.staging.outlets.len() {
                if self.staging.outlets[at].signal != batch.signal {
                    continue;
                }
                match self.processed(at, &batch, runtime, phase) {
                    Ok(Ok(processed)) => sends.extend(processed.map(|batch| (at, batch))),
                    Ok(Err(rejected)) => outcome = outcome.worst(rejected),
                    Err(Stop) => return false,
                }
            }
            if let Some((_, door)) = self.staging.doors.iter().find(|(signal, _)| *signal == batch.signal) {
                door.entered(u64::from(batch.items));
                door.resolved(u64::from(batch.items), &outcome);
            }
        }
        let state = self.stage.state(self.staging.memory.wants_whole(&self.staging.journal));
        let mut records: Vec<Record> = Vec::with_capacity(sends.len() + 1);
        sends.retain(|(at, batch)| {
            let outlet = &self.staging.outlets[*at];
            match record::from_batch(&outlet.appender.stream, batch) {
                Ok(record) => {
                    records.push(record);
                    true
                }
                Err(error) => {
                    self.too_large(*at, batch, &error.to_string());
                    false
                }
            }
        });
        records.push(self.staging.memory.record(&state, &self.places));
        let Some(state_at) = self.append(&records, &sends, runtime, phase) else {
            return false;
        };
        self.staging.memory.committed(&state, state_at, &self.staging.journal);
        for (at, source) in self.staging.sources.iter().enumerate() {
            let of_source = || self.taken.iter().filter(|(of, _, _)| *of == at);
            let items: u64 = of_source().map(|(_, _, items)| items).sum();
            source.book.delivered(items);
            source.book.passed(items);
            let seqs: Vec<Seq> = of_source().map(|(_, seq, _)| *seq).collect();
            source.reader.ack_many(&seqs);
        }
        self.taken.clear();
        self.uncommitted_since = None;
        self.commit_by = None;
        true
    }

    /// Runs what was given out through the processors of an outlet, as often as they want to be asked. Their rejection is final.
    fn processed(
        &self,
        at: usize,
        batch: &Batch,
        runtime: &Handle,
        phase: &watch::Receiver<Phase>,
    ) -> Result<Result<Option<Batch>, Outcome>, Stop> {
        loop {
            let outlet = &self.staging.outlets[at];
            match process(&outlet.processors, &outlet.kept, batch.clone()) {
                Err(Outcome::Retry { after, .. }) => {
                    if !pause(after.max(MIN_RETRY_WAIT), runtime, phase) {
                        return Err(Stop);
                    }
                }
                processed => return Ok(processed),
            }
        }
    }

    /// Appends until it is done: where the last of the records lies. `None` if everything is to stop.
    ///
    /// What is too much for the journal at once goes one by one, the state last: a crash in between gives some of it out twice, and nothing is lost.
    fn append(
        &self,
        records: &[Record],
        sends: &[(usize, Batch)],
        runtime: &Handle,
        phase: &watch::Receiver<Phase>,
    ) -> Option<Seq> {
        match self.append_together(records, sends, runtime, phase) {
            Appended::At(seq) => Some(seq),
            Appended::Stop => None,
            Appended::TooLarge => {
                for (record, (at, batch)) in records.iter().zip(sends) {
                    let (one, send) = (std::slice::from_ref(record), (*at, batch.clone()));
                    match self.append_together(one, &[send], runtime, phase) {
                        Appended::At(_) => {}
                        Appended::Stop => return None,
                        Appended::TooLarge => self.too_large(*at, batch, "it is more than the journal takes at once"),
                    }
                }
                loop {
                    match self.append_together(&records[sends.len()..], &[], runtime, phase) {
                        Appended::At(seq) => return Some(seq),
                        Appended::Stop => return None,
                        Appended::TooLarge => {
                            tracing::error!(
                                stage = &*self.staging.name,
                                "stands still: what it remembers is more than the journal takes at once; `service.journal.max_bytes` is too small for it"
                            );
                            if !pause(MAX_UNCOMMITTED_AGE, runtime, phase) {
                                return None;
                            }
                        }
                    }
                }
            }
        }
    }

    /// Counts a batch that the journal will never take.
    fn too_large(&self, at: usize, batch: &Batch, why: &str) {
        let items = u64::from(batch.items);
        tracing::error!(stage = &*self.staging.name, items, "too large, and dropped: {why}");
        for book in self.staging.outlets[at].appender.books.iter() {
            book.accepted(items);
            book.dropped(items, Reason::TooLarge);
            book.passed(items);
        }
    }

    fn append_together(
        &self,
        records: &[Record],
        sends: &[(usize, Batch)],
        runtime: &Handle,
        phase: &watch::Receiver<Phase>,
    ) -> Appended {
        loop {
            let (tell, told) = oneshot::channel();
            let sent: Vec<(Appender, Batch)> = sends
                .iter()
                .map(|(at, batch)| (self.staging.outlets[*at].appender.clone(), batch.clone()))
                .collect();
            self.staging.journal.append_together(records.to_vec(), move |appended| {
                if let Ok(seqs) = &appended {
                    for (seq, (appender, batch)) in seqs.clone().zip(sent) {
                        appender.appended(seq, batch);
                    }
                }
                let _ = tell.send(appended.map(|seqs| *seqs.end()));
            });
            let appended = runtime.block_on(async {
                tokio::select! {
                    biased;
                    appended = told => appended.unwrap_or(Err(AppendError::Failed)),
                    () = reached(phase.clone(), Phase::Abandoned) => Err(AppendError::Closed),
                }
            });
            let wait = match appended {
                Ok(state_at) => return Appended::At(state_at),
                Err(AppendError::Closed) => return Appended::Stop,
                Err(AppendError::TooLarge { .. }) => return Appended::TooLarge,
                Err(AppendError::Full { retry_after, .. }) => retry_after.min(MAX_FULL_WAIT),
                Err(error) => {
                    tracing::error!(stage = &*self.staging.name, "stands still: {error}");
                    MAX_UNCOMMITTED_AGE
                }
            };
            for source in &self.staging.sources {
                source.book.retried();
            }
            if !pause(wait, runtime, phase) {
                return Appended::Stop;
            }
        }
    }
}

/// What became of records.
enum Appended {
    /// Durable; where the last of them lies.
    At(Seq),
    /// The graph wants everything to stop.
    Stop,
    /// More than the journal takes at once.
    TooLarge,
}

/// The graph wants everything to stop.
struct Stop;

/// Waits, unless everything is to stop.
fn pause(wait: Duration, runtime: &Handle, phase: &watch::Receiver<Phase>) -> bool {
    runtime.block_on(async {
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            () = reached(phase.clone(), Phase::Abandoned) => false,
        }
    })
}

enum Show {
    /// One was shown.
    Next,
    /// Everything was shown that arrived until the first that waits is due.
    Due,
    /// More has to arrive, or time to pass.
    Wait,
}

/// Shows the next of what is ahead, unless it arrived after the first that waits is due: a restart sees no more than was seen before it.
fn show_next(stage: &mut dyn Stage, ahead: &mut Ahead, head: Option<&Delivery>, staging: &Staging) -> Show {
    let Some(next) = ahead.shown.front() else {
        return Show::Wait;
    };
    let Some(head) = head else {
        // Whatever is ahead is also what is to be taken; it comes first.
        return Show::Wait;
    };
    let delay = u64::try_from(stage.delay().as_nanos()).unwrap_or(u64::MAX);
    let due = record::received_at_unix_nano(&head.record).saturating_add(delay);
    if record::received_at_unix_nano(&next.record) > due {
        return Show::Due;
    }
    // With a delay there is one source.
    let source = &staging.sources[0];
    let batch = match source.recent.get(next.seq, None) {
        Some(batch) => Some(batch),
        // What cannot be read is told when it is taken.
        None => record::to_batch(&next.record).ok(),
    };
    if let Some(batch) = batch {
        let _held = staging.inflated.charge(batch.payload.len() as u64);
        stage.see(&batch);
    }
    ahead.reader.ack(next.seq);
    ahead.shown.pop_front();
    Show::Next
}

impl Ahead {
    /// Whether nothing has arrived that was not shown.
    fn has_seen_all(&self, journal: &Journal) -> bool {
        let readers = journal.readers();
        let status = readers.iter().find(|status| status.name == self.reader.name());
        self.shown.is_empty() && status.is_none_or(|status| status.lag_records == 0)
    }
}

/// What is ahead, if there is room for it; never, without a delay.
async fn shown(ahead: &Option<Ahead>) -> Option<Vec<Delivery>> {
    match ahead {
        Some(ahead) if ahead.shown.is_empty() => ahead.reader.recv(MAX_RECORDS, MAX_RECORD_BYTES).await,
        _ => std::future::pending().await,
    }
}

/// The next records of any source.
async fn received(sources: &[Source]) -> Option<(usize, Vec<Delivery>)> {
    std::future::poll_fn(|context| {
        for (at, source) in sources.iter().enumerate() {
            if let std::task::Poll::Ready(found) = source.reader.poll_recv(context, MAX_RECORDS, MAX_RECORD_BYTES) {
                return std::task::Poll::Ready(found.map(|deliveries| (at, deliveries)));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// How much, inflated, makes a commit: a quarter of what the journal takes at once, because what the stage remembers goes with it.
fn commit_bytes(journal: &Journal) -> u64 {
    MAX_JOINED_BYTES.min(journal.together_limit_bytes() / 4)
}

/// Neighbours of one signal and one metadata as one batch, within bounds.
fn joined(batches: Vec<Batch>, max_bytes: u64) -> Vec<Batch> {
    let mut joined = Vec::new();
    let mut run: Vec<Batch> = Vec::new();
    let mut bytes = 0u64;
    let mut close = |run: &mut Vec<Batch>| match edit::concat(run) {
        Some(batch) => {
            joined.push(batch);
            run.clear();
        }
        None => joined.append(run),
    };
    for batch in batches {
        if batch.items == 0 {
            continue;
        }
        let is_alike = |last: &Batch| last.signal == batch.signal && last.meta.headers == batch.meta.headers;
        let fits = run.last().is_none_or(is_alike) && bytes + batch.payload.len() as u64 <= max_bytes;
        if !fits {
            close(&mut run);
            bytes = 0;
        }
        bytes += batch.payload.len() as u64;
        run.push(batch);
    }
    if !run.is_empty() {
        close(&mut run);
    }
    joined
}

fn now_unix_nano() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
