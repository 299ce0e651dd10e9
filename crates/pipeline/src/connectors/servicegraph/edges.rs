//! Why: a request between services is two spans, the caller's and the called one's, that arrive at different times. The first is kept until the other comes,
//! or until its time is over.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use model::wire::{self, Fields, put_bytes, put_fixed64, put_tag};
use model::{SpanId, TraceId};

use crate::connectors::series::{Held, put_number};

/// What a half holds beside its texts, in bytes.
const HALF_BYTES: usize = 240;

/// Places in the queue that nothing stands at any more are kept up to this many: few enough to forget, enough that they are seldom swept.
const SLACK: usize = 1_024;

/// The span of the caller: what both halves know.
pub type Key = (TraceId, SpanId);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// What lies between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    Direct,
    Messaging,
    Database,
    /// One of the two sends no spans.
    Virtual,
}

impl Connection {
    const ALL: [Connection; 4] = [
        Connection::Direct,
        Connection::Messaging,
        Connection::Database,
        Connection::Virtual,
    ];

    /// The value of the label; a direct request has none.
    pub fn as_str(self) -> &'static str {
        match self {
            Connection::Direct => "",
            Connection::Messaging => "messaging_system",
            Connection::Database => "database",
            Connection::Virtual => "virtual_node",
        }
    }
}

/// One span of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Half {
    pub side: Side,
    pub service: Arc<str>,
    pub took_s: f64,
    pub has_failed: bool,
    pub connection: Connection,
    /// What a client says of whom it calls.
    pub peer: Option<Box<str>>,
    /// Encoded attributes of this side.
    pub dimensions: Box<[u8]>,
    pub expires_unix_nano: u64,
    /// A producer has one span, and may have any number of consumers: whether one has come.
    pub is_paired: bool,
    /// Whether the state that was told last has it as it is.
    pub is_told: bool,
}

impl Half {
    fn held_bytes(&self) -> usize {
        // The service's name is shared; it is counted for each, which errs on the safe side.
        let peer = self.peer.as_ref().map_or(0, |peer| peer.len());
        HALF_BYTES + self.service.len() + peer + self.dimensions.len()
    }
}

/// What became of a half that was offered.
#[derive(Debug, PartialEq)]
pub enum Offered {
    /// It waits for the other.
    Waits,
    /// The other was there: client and server.
    Pairs(Half, Half),
    /// A half of the same side waits at its place already.
    Again(Half),
    /// There is no room for it.
    NoRoom(Half),
}

/// The halves that wait.
#[derive(Debug, Default)]
pub struct Edges {
    waiting: HashMap<Key, Half, RandomState>,
    /// In the order of their time, which is the same for all.
    queue: VecDeque<(u64, Key)>,
    /// What the state that was told last still has.
    gone: Vec<Key>,
}

impl Edges {
    pub fn held_bytes(&self) -> usize {
        self.waiting.values().map(Half::held_bytes).sum()
    }

    /// Brings a half together with the other.
    pub fn offer(&mut self, key: Key, half: Half, max_items: usize, held: &mut Held) -> Offered {
        let Some(waiting) = self.waiting.get_mut(&key) else {
            return self.wait(key, half, max_items, held);
        };
        if waiting.side == half.side {
            return Offered::Again(half);
        }
        let is_message = half.connection == Connection::Messaging;
        match half.side {
            // Its producer stays for the consumers that are still to come.
            Side::Server if is_message => {
                let mut producer = waiting.clone();
                producer.is_paired = true;
                waiting.is_paired = true;
                waiting.is_told = false;
                Offered::Pairs(producer, half)
            }
            Side::Server => match self.remove(key, held) {
                Some(client) => Offered::Pairs(client, half),
                None => Offered::Waits,
            },
            Side::Client => match self.remove(key, held) {
                Some(server) => {
                    if is_message {
                        let mut producer = half.clone();
                        producer.is_paired = true;
                        self.wait(key, producer, max_items, held);
                    }
                    Offered::Pairs(half, server)
                }
                None => Offered::Waits,
            },
        }
    }

    fn wait(&mut self, key: Key, half: Half, max_items: usize, held: &mut Held) -> Offered {
        if self.waiting.len() >= max_items || !held.grow(half.held_bytes()) {
            return Offered::NoRoom(half);
        }
        self.insert(key, half);
        Offered::Waits
    }

    fn insert(&mut self, key: Key, half: Half) {
        if self.queue.len() > 2 * self.waiting.len() + SLACK {
            let waiting = &self.waiting;
            self.queue
                .retain(|(expires, key)| waiting.get(key).is_some_and(|half| half.expires_unix_nano == *expires));
        }
        self.queue.push_back((half.expires_unix_nano, key));
        self.waiting.insert(key, half);
    }

    fn remove(&mut self, key: Key, held: &mut Held) -> Option<Half> {
        let half = self.waiting.remove(&key)?;
        held.release(half.held_bytes());
        if half.is_told {
            self.gone.push(key);
        }
        Some(half)
    }

    /// Takes out one whose time is over.
    pub fn expired(&mut self, now_unix_nano: u64, held: &mut Held) -> Option<Half> {
        loop {
            let (expires, key) = *self.queue.front().filter(|(expires, _)| *expires <= now_unix_nano)?;
            self.queue.pop_front();
            // Another half may have come to its place since.
            let is_same = self
                .waiting
                .get(&key)
                .is_some_and(|half| half.expires_unix_nano == expires);
            if is_same && let Some(half) = self.remove(key, held) {
                return Some(half);
            }
        }
    }

    /// Of a wall clock that was set back: nothing waits longer than `ttl_nanos` from now.
    pub fn wait_no_longer_than(&mut self, until_unix_nano: u64) {
        for (expires, key) in &mut self.queue {
            if *expires > until_unix_nano {
                if let Some(half) = self
                    .waiting
                    .get_mut(key)
                    .filter(|half| half.expires_unix_nano == *expires)
                {
                    half.expires_unix_nano = until_unix_nano;
                    half.is_told = false;
                }
                *expires = until_unix_nano;
            }
        }
    }

    /// Appends what waits as messages of this number, or what has come and gone since the last call: 1 trace, 2 span, and of what is there 3 side, 4 service, 5 took,
    /// 6 failed, 7 connection, 8 peer, 9 dimensions, 10 expires, 11 paired.
    pub fn encode(&mut self, out: &mut Vec<u8>, number: u32, is_whole: bool) {
        let mut gone = std::mem::take(&mut self.gone);
        if is_whole {
            gone.clear();
        }
        let is_new = |half: &Half| is_whole || !half.is_told;
        let mut new: Vec<(&Key, &mut Half)> = self.waiting.iter_mut().filter(|(_, half)| is_new(half)).collect();
        // Read again, they stand in the queue in this order.
        new.sort_by_key(|(key, half)| (half.expires_unix_nano, **key));
        let gone = gone.iter().map(|key| (key, None));
        for (key, half) in gone.chain(new.into_iter().map(|(key, half)| (key, Some(half)))) {
            put_tag(out, number, wire::BYTES);
            let open = wire::open_length(out, 128);
            put_bytes(out, 1, &key.0.0);
            put_bytes(out, 2, &key.1.0);
            if let Some(half) = half {
                half.encode(out);
                half.is_told = true;
            }
            wire::close_length(out, open);
        }
    }

    /// Reads one of the messages.
    pub fn restore(&mut self, bytes: &[u8], held: &mut Held) -> Option<()> {
        let mut key = Key::default();
        let mut half = None;
        for (number, payload) in Fields::new(bytes) {
            match number {
                1 => key.0 = TraceId(payload.bytes().try_into().ok()?),
                2 => key.1 = SpanId(payload.bytes().try_into().ok()?),
                _ => {
                    half = Some(Half::decode(bytes)?);
                    break;
                }
            }
        }
        self.remove(key, held);
        if let Some(half) = half {
            held.charge(half.held_bytes());
            self.insert(key, half);
        }
        Some(())
    }
}

impl Half {
    fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, 3, u64::from(self.side == Side::Server));
        put_bytes(out, 4, self.service.as_bytes());
        put_fixed64(out, 5, self.took_s.to_bits());
        put_number(out, 6, u64::from(self.has_failed));
        put_number(out, 7, self.connection as u64);
        if let Some(peer) = &self.peer {
            put_bytes(out, 8, peer.as_bytes());
        }
        put_bytes(out, 9, &self.dimensions);
        put_fixed64(out, 10, self.expires_unix_nano);
        put_number(out, 11, u64::from(self.is_paired));
    }

    fn decode(bytes: &[u8]) -> Option<Half> {
        let mut half = Half {
            side: Side::Client,
            service: "".into(),
            took_s: 0.0,
            has_failed: false,
            connection: Connection::Direct,
            peer: None,
            dimensions: Box::default(),
            expires_unix_nano: 0,
            is_paired: false,
            is_told: false,
        };
        for (number, payload) in Fields::new(bytes) {
            let text = |bytes| std::str::from_utf8(bytes).ok();
            match number {
                3 if payload.varint() == 1 => half.side = Side::Server,
                4 => half.service = text(payload.bytes())?.into(),
                5 => half.took_s = f64::from_bits(payload.fixed64()),
                6 => half.has_failed = payload.varint() == 1,
                7 => half.connection = *Connection::ALL.get(payload.varint() as usize)?,
                8 => half.peer = Some(text(payload.bytes())?.into()),
                9 => half.dimensions = payload.bytes().into(),
                10 => half.expires_unix_nano = payload.fixed64(),
                11 => half.is_paired = payload.varint() == 1,
                _ => {}
            }
        }
        Some(half)
    }
}
