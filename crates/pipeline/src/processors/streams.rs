//! Why: what counts data points remembers the last of each stream. A stream is known by a hash over everything that tells it from others, so that what is remembered is
//! small, and the same after a restart. Streams end when nothing comes of them any more.

use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use model::edit::message::{body, field, map_fields};
use model::edit::{Fate, Visit, visit};
use model::view::{Attributes, List, Resource, Scope, View};
use model::wire::{self, Fields, close_length, open_length, put_bytes, put_fixed64, put_tag, put_varint};
use model::{Batch, Signal};
use sha2::{Digest, Sha256};

use super::points::{Kind, Point};
use crate::budget::{Budget, Lease};
use crate::ledger::StepBook;
use crate::reason::Reason;
use crate::stage::{BadState, MAX_STATE_BYTES, State};

/// The first byte of what is remembered.
const STATE_VERSION: u8 = 1;

/// What all streams together may take in what is remembered, which is one record of the journal.
const MAX_REMEMBERED_BYTES: usize = MAX_STATE_BYTES - (1 << 20);

/// Beside its point, what a stream takes in what is remembered: its id, when it was touched, and the tags and lengths.
const STREAM_BYTES: usize = 48;

/// Changes are remembered as such until they add up to this much and to as much as all of it takes: then all of it is said again.
const MIN_WHOLE_EVERY_BYTES: usize = 4 << 20;

/// How often what has ended is looked for, by the clock of the stream.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// What a stream is known by: half of a SHA-256, which nobody can make collide.
pub type Id = [u8; 16];

/// Hashes what tells streams apart, from the outside in.
#[derive(Debug, Default)]
pub struct Identity {
    resource: [u8; 32],
    scope: [u8; 32],
    metric: [u8; 32],
}

impl Identity {
    pub fn enter_resource(&mut self, resource: &[u8]) {
        self.resource = hash(&[], &Resource::read(resource).attributes);
    }

    pub fn enter_scope(&mut self, scope: &[u8]) {
        let scope = Scope::read(scope);
        let texts = [&self.resource[..], scope.name.as_bytes(), scope.version.as_bytes()];
        self.scope = hash(&texts, &scope.attributes);
    }

    pub fn enter_metric(&mut self, name: &str, unit: &[u8], kind: Kind, is_monotonic: bool) {
        let texts = [
            &self.scope[..],
            name.as_bytes(),
            unit,
            &[kind as u8, u8::from(is_monotonic)],
        ];
        self.metric = hash(&texts, &List::new(&[], 1));
    }

    pub fn of_point(&self, kind: Kind, point: &[u8]) -> Id {
        let hash = hash(&[&self.metric], &List::new(point, kind.attributes()));
        let mut id = Id::default();
        id.copy_from_slice(&hash[..16]);
        id
    }
}

/// Over texts in their order, and attributes in whatever order they stand.
fn hash(texts: &[&[u8]], attributes: &Attributes<'_>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let mut put = |text: &[u8]| {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    };
    texts.iter().for_each(|text| put(text));
    let mut pairs: Vec<&[u8]> = attributes.raw().collect();
    pairs.sort_unstable();
    pairs.into_iter().for_each(put);
    hasher.finalize().into()
}

#[derive(Debug)]
struct Stream {
    point: Point,
    touched_at_unix_nano: u64,
    /// What it counts in `remembered_bytes`.
    bytes: usize,
    /// It is among those that changed.
    is_changed: bool,
}

/// The last point of each stream.
#[derive(Debug)]
pub struct Streams {
    streams: HashMap<Id, Stream, RandomState>,
    changed: Vec<Id>,
    /// Zero is for ever.
    max_stale_nanos: u64,
    max_streams: usize,
    /// The clock is the latest arrival of a batch.
    clock_unix_nano: u64,
    began_at_unix_nano: u64,
    swept_at_unix_nano: u64,
    remembered_bytes: usize,
    /// What was said as changes since all of it was said; `None` before the first time.
    changes_bytes: Option<usize>,
    lease: Option<Lease>,
}

impl Streams {
    pub fn new(max_stale: Duration, max_streams: usize) -> Streams {
        Streams {
            streams: HashMap::default(),
            changed: Vec::new(),
            max_stale_nanos: u64::try_from(max_stale.as_nanos()).unwrap_or(u64::MAX),
            max_streams,
            clock_unix_nano: 0,
            began_at_unix_nano: 0,
            swept_at_unix_nano: 0,
            remembered_bytes: 0,
            changes_bytes: None,
            lease: None,
        }
    }

    /// From now on what it holds is counted here.
    pub fn count_in(&mut self, budget: &Budget) {
        self.lease = Some(budget.charge(self.size_bytes()));
    }

    fn size_bytes(&self) -> u64 {
        (self.streams.allocation_size() + self.changed.capacity() * size_of::<Id>() + self.remembered_bytes) as u64
    }

    pub fn len(&self) -> usize {
        self.streams.len()
    }

    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// When the first batch of all arrived.
    pub fn began_at_unix_nano(&self) -> u64 {
        self.began_at_unix_nano
    }

    /// A batch has arrived; what has ended by then is forgotten from time to time.
    pub fn at(&mut self, arrived_at_unix_nano: u64) {
        self.clock_unix_nano = self.clock_unix_nano.max(arrived_at_unix_nano);
        if self.began_at_unix_nano == 0 {
            self.began_at_unix_nano = self.clock_unix_nano;
        }
        let since = self.clock_unix_nano - self.swept_at_unix_nano;
        if self.max_stale_nanos > 0 && since >= SWEEP_INTERVAL.as_nanos() as u64 {
            self.swept_at_unix_nano = self.clock_unix_nano;
            let (clock, max_stale) = (self.clock_unix_nano, self.max_stale_nanos);
            let mut freed = 0;
            self.streams.retain(|_, stream| {
                let lives = clock.saturating_sub(stream.touched_at_unix_nano) <= max_stale;
                freed += if lives { 0 } else { stream.bytes };
                lives
            });
            self.remembered_bytes -= freed;
        }
        self.settle();
    }

    /// The last point of a stream that has not ended.
    pub fn get(&self, id: &Id) -> Option<&Point> {
        let stream = self.streams.get(id)?;
        let age = self.clock_unix_nano.saturating_sub(stream.touched_at_unix_nano);
        (self.max_stale_nanos == 0 || age <= self.max_stale_nanos).then_some(&stream.point)
    }

    /// Remembers the last point of a stream. `false` if there is no room for it; then it is as before.
    pub fn set(&mut self, id: Id, point: Point) -> bool {
        let bytes = STREAM_BYTES + point.encoded_bytes();
        let (clock, changed) = (self.clock_unix_nano, &mut self.changed);
        if let Some(stream) = self.streams.get_mut(&id) {
            let more = bytes.saturating_sub(stream.bytes);
            let has_room = more == 0
                || self.remembered_bytes + more <= MAX_REMEMBERED_BYTES
                    && self.lease.as_mut().is_none_or(|lease| lease.grow(more as u64));
            if !has_room {
                return false;
            }
            self.remembered_bytes = self.remembered_bytes - stream.bytes + bytes;
            (stream.point, stream.bytes, stream.touched_at_unix_nano) = (point, bytes, clock);
            if !std::mem::replace(&mut stream.is_changed, true) {
                changed.push(id);
            }
            return true;
        }
        if self.streams.len() >= self.max_streams || self.remembered_bytes + bytes > MAX_REMEMBERED_BYTES {
            return false;
        }
        if let Some(lease) = &mut self.lease {
            // The table doubles when it is full.
            let is_full = self.streams.len() == self.streams.capacity();
            let table = if is_full { self.streams.allocation_size() } else { 0 };
            if !lease.grow((bytes + table) as u64) {
                return false;
            }
        }
        self.remembered_bytes += bytes;
        changed.push(id);
        self.streams.insert(
            id,
            Stream {
                point,
                touched_at_unix_nano: clock,
                bytes,
                is_changed: true,
            },
        );
        true
    }

    /// Makes what is counted what is held.
    fn settle(&mut self) {
        let held = self.size_bytes();
        if let Some(lease) = &mut self.lease {
            match held.checked_sub(lease.bytes()) {
                Some(more) => lease.charge(more),
                None => lease.shrink(held),
            }
        }
    }

    /// What is to be remembered, as `Stage::state` says it.
    pub fn state(&mut self, whole: bool) -> State {
        let mut out = self.begin();
        for id in std::mem::take(&mut self.changed) {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.is_changed = false;
                stream.put(&id, &mut out);
            }
        }
        if let Some(before) = self.changes_bytes.filter(|_| !whole)
            && before + out.len() < MIN_WHOLE_EVERY_BYTES.max(self.remembered_bytes)
        {
            self.changes_bytes = Some(before + out.len());
            return State::Change(out.into());
        }
        self.changes_bytes = Some(0);
        let mut out = self.begin();
        self.streams.iter().for_each(|(id, stream)| stream.put(id, &mut out));
        State::Whole(out.into())
    }

    fn begin(&self) -> Vec<u8> {
        let mut out = vec![STATE_VERSION];
        out.extend_from_slice(&self.began_at_unix_nano.to_le_bytes());
        out.extend_from_slice(&self.clock_unix_nano.to_le_bytes());
        out
    }

    /// Takes back what [`Streams::state`] said.
    pub fn restore(&mut self, state: &State) -> Result<(), BadState> {
        let bytes: &Bytes = match state {
            State::Whole(bytes) => {
                self.streams.clear();
                self.remembered_bytes = 0;
                self.changes_bytes = Some(0);
                bytes
            }
            State::Change(bytes) => {
                self.changes_bytes = Some(self.changes_bytes.unwrap_or_default() + bytes.len());
                bytes
            }
        };
        self.read(bytes)
            .ok_or_else(|| BadState("the remembered streams do not read".to_owned()))
    }

    fn read(&mut self, bytes: &[u8]) -> Option<()> {
        let (&version, rest) = bytes.split_first()?;
        let (began_at, rest) = rest.split_first_chunk::<8>()?;
        let (clock, rest) = rest.split_first_chunk::<8>()?;
        if version != STATE_VERSION {
            return None;
        }
        self.began_at_unix_nano = u64::from_le_bytes(*began_at);
        self.clock_unix_nano = u64::from_le_bytes(*clock);
        let mut fields = Fields::new(rest);
        for (_, stream) in fields.by_ref() {
            let (id, stream) = Stream::read(stream.bytes())?;
            self.remembered_bytes += stream.bytes;
            if let Some(before) = self.streams.insert(id, stream) {
                self.remembered_bytes -= before.bytes;
            }
        }
        self.settle();
        fields.rest().is_empty().then_some(())
    }
}

/// A stream as it is remembered: in field 1 its id, in 2 when it was touched, in 7, 9 or 10 its last point as OTLP has it, by its kind.
impl Stream {
    fn put(&self, id: &Id, out: &mut Vec<u8>) {
        let mut stream = Vec::with_capacity(self.bytes);
        put_bytes(&mut stream, 1, id);
        put_fixed64(&mut stream, 2, self.touched_at_unix_nano);
        let mut point = Vec::with_capacity(self.bytes);
        self.point.put(&mut point);
        put_bytes(&mut stream, self.point.kind() as u32, &point);
        put_bytes(out, 1, &stream);
    }

    fn read(stream: &[u8]) -> Option<(Id, Stream)> {
        let (mut id, mut touched_at_unix_nano, mut point) = (None, 0, None);
        for (number, field) in Fields::new(stream) {
            match number {
                1 => id = Id::try_from(field.bytes()).ok(),
                2 => touched_at_unix_nano = field.fixed64(),
                number => point = Point::read(Kind::from_field(number)?, field.bytes()),
            }
        }
        let point = point?;
        let stream = Stream {
            bytes: STREAM_BYTES + point.encoded_bytes(),
            point,
            touched_at_unix_nano,
            is_changed: false,
        };
        Some((id?, stream))
    }
}

/// What turns points of one temporality into another.
pub trait Convert {
    /// What it turns; as OTLP writes it.
    const FROM: u64;
    /// What it makes of it.
    const TO: u64;

    fn wants(&self, name: &str, kind: Kind, is_monotonic: bool) -> bool;

    /// The point that takes the place of this one; or why there is none.
    fn point(&mut self, id: Id, point: Point) -> Result<Point, Reason>;
}

pub const DELTA: u64 = 1;
pub const CUMULATIVE: u64 = 2;

/// Turns all points of a batch that are wanted; what becomes of none is counted.
pub fn convert(batch: &Batch, converter: &mut impl Convert, book: &StepBook) -> Batch {
    let mut converting = Converting {
        converter,
        identity: Identity::default(),
        dropped: Vec::new(),
    };
    let converted = visit(batch, &mut converting);
    for (reason, count) in converting.dropped {
        book.dropped(Signal::Metrics, count, reason);
    }
    converted
}

struct Converting<'c, C> {
    converter: &'c mut C,
    identity: Identity,
    dropped: Vec<(Reason, u32)>,
}

impl<C: Convert> Converting<'_, C> {
    fn drops(&mut self, reason: Reason) {
        match self.dropped.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.dropped.push((reason, 1)),
        }
    }

    /// Writes the data of a metric with its points turned; how many there are.
    fn data(&mut self, kind: Kind, data: &[u8], out: &mut Vec<u8>) -> u32 {
        let mut points = 0;
        map_fields(data, out, |number, payload, out| match number {
            1 => {
                let turned = Point::read(kind, payload.bytes())
                    .ok_or(Reason::NoValue)
                    .and_then(|point| {
                        let id = self.identity.of_point(kind, payload.bytes());
                        self.converter.point(id, point)
                    });
                match turned {
                    Ok(point) => {
                        put_tag(out, 1, wire::BYTES);
                        let open = open_length(out, payload.bytes().len());
                        point.put_into(payload.bytes(), out);
                        close_length(out, open);
                        points += 1;
                    }
                    Err(reason) => self.drops(reason),
                }
                true
            }
            2 => {
                put_tag(out, 2, wire::VARINT);
                put_varint(out, C::TO);
                true
            }
            _ => false,
        });
        points
    }
}

impl<'a, C: Convert> Visit<'a> for Converting<'_, C> {
    fn depth(&self) -> u32 {
        3
    }

    fn changes_owners(&self) -> bool {
        false
    }

    fn enter_resource(&mut self, resource: &'a [u8], _: &'a [u8]) -> Fate {
        self.identity.enter_resource(resource);
        Fate::Keep
    }

    fn enter_scope(&mut self, scope: &'a [u8], _: &'a [u8]) -> Fate {
        self.identity.enter_scope(scope);
        Fate::Keep
    }

    fn item(&mut self, metric: &'a [u8], out: &mut Vec<u8>) -> Fate {
        let data = Fields::new(metric).find_map(|(number, data)| Some((Kind::from_field(number)?, data.bytes())));
        let Some((kind, data)) = data else {
            return Fate::Keep;
        };
        let number = |number| field(data, number).map_or(0, |value| value.varint());
        let is_monotonic = kind == Kind::Sum && number(3) != 0;
        let name = std::str::from_utf8(body(metric, 1)).unwrap_or_default();
        if number(2) != C::FROM || !self.converter.wants(name, kind, is_monotonic) {
            return Fate::Keep;
        }
        self.identity.enter_metric(name, body(metric, 3), kind, is_monotonic);
        let (start, mut points) = (out.len(), 0);
        map_fields(metric, out, |number, payload, out| {
            if number != kind as u32 {
                return false;
            }
            put_tag(out, number, wire::BYTES);
            let open = open_length(out, payload.bytes().len());
            points += self.data(kind, payload.bytes(), out);
            close_length(out, open);
            true
        });
        if points == 0 {
            out.truncate(start);
            return Fate::Drop;
        }
        Fate::Replace
    }
}

#[cfg(test)]
pub(super) mod testing;
