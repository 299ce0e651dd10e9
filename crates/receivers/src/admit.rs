//! The one way in, whatever the transport: inflate, make canonical, hand to the pipeline, wait for its word.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use model::canonical::{Canonical, canonicalize};
use model::{Batch, Headers, Meta, Signal, Wire};
use pipeline::{AckFuture, Intake, Lease, Outcome, Reason};
use tokio::sync::Semaphore;

use crate::answer::{Accepted, Kind, Refusal};
use crate::body::ReadError;
use crate::inflate::{Coding, InflateError, inflate};
use crate::settings::Counters;

/// A request that inflates to more than this many bytes is worked on by a thread of its own: half a millisecond of work may
/// delay the sockets of this thread, more may not.
const INLINE_BYTES: usize = 1024 * 1024;

/// The same for what has to be translated, JSON above all, which takes several times as long to read.
const INLINE_TRANSLATED_BYTES: usize = 128 * 1024;

/// What a sender waits before it tries again when memory is short; the requests in flight are answered well within it.
pub(crate) const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// From a request to OTLP's protobuf, or what is wrong with it.
pub(crate) type Translate = fn(Signal, &[u8], u64) -> Result<Vec<u8>, String>;

/// How a request becomes OTLP's protobuf, where it is not that already.
pub(crate) struct Translation {
    /// Bytes that the result may take for each of the request's.
    pub(crate) growth: fn(Signal) -> u64,
    /// The number is now, in nanoseconds since 1970.
    pub(crate) translate: Translate,
}

/// A request whose body has arrived.
pub(crate) struct Arrived {
    pub(crate) signal: Signal,
    /// `None` for OTLP's protobuf.
    pub(crate) translation: Option<&'static Translation>,
    pub(crate) coding: Coding,
    pub(crate) body: Bytes,
    /// The memory it holds.
    pub(crate) lease: Lease,
    pub(crate) peer: Option<SocketAddr>,
    /// What is kept of the request's.
    pub(crate) headers: Headers,
    /// Bytes it may inflate to.
    pub(crate) limit: usize,
}

/// What both transports of one receiver share.
pub(crate) struct Core {
    pub(crate) intake: Intake,
    pub(crate) counters: Arc<Counters>,
    /// Time a body may take before its pace is asked about.
    pub(crate) patience: Duration,
    /// One permit per core: more threads would only take turns.
    workers: Arc<Semaphore>,
}

impl Core {
    pub(crate) fn new(intake: Intake, patience: Duration) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            intake,
            counters: Arc::default(),
            patience,
            workers: Arc::new(Semaphore::new(cores)),
        })
    }

    /// Whether the signal is taken at all; asked before a body is read.
    pub(crate) fn check_signal(&self, signal: Signal) -> Result<(), Refusal> {
        if self.intake.takes(signal) {
            return Ok(());
        }
        Err(Refusal::new(
            Kind::NoPipeline,
            format!(
                "no pipeline takes {signal} from the receiver {}",
                self.intake.receiver()
            ),
        ))
    }

    /// Writes a refusal into the books. Nobody knows how many items a request holds that was not read; it counts as one.
    pub(crate) fn count(&self, signal: Signal, refusal: &Refusal) {
        if refusal.counted {
            return;
        }
        match refusal.reason() {
            (reason, true) => self.intake.refused(signal, 1, reason),
            (reason, false) => self.intake.rejected(signal, 1, reason),
        }
    }

    /// Inflates a request and puts the OTLP that `work` makes of it in its place, on another thread where that takes long. `work` reserves what it takes
    /// beside the message. For receivers whose translation remembers or tells more than a [`Translation`] does.
    pub(crate) async fn replaced<T: Send + 'static>(
        self: &Arc<Self>,
        arrived: Arrived,
        work: impl FnOnce(&[u8], &mut Lease) -> Result<(Vec<u8>, T), Refusal> + Send + 'static,
    ) -> Result<(Arrived, T), Refusal> {
        // These two say exactly how long they are; others may be wrong about it.
        let is_exact = matches!(arrived.coding, Coding::Identity | Coding::Snappy);
        let is_short = is_exact && arrived.coding.expected_len(&arrived.body) <= INLINE_TRANSLATED_BYTES;
        let replace = move |mut arrived: Arrived| {
            let inflated = match arrived.coding {
                Coding::Identity if arrived.body.len() <= arrived.limit => arrived.body.clone(),
                Coding::Identity => return Err(too_large(arrived.limit)),
                coding => inflate(coding, &arrived.body, arrived.limit, &mut arrived.lease)
                    .map(|inflated| Bytes::from(inflated.bytes))
                    .map_err(|error| inflate_refusal(error, arrived.limit))?,
            };
            let (payload, told) = work(&inflated, &mut arrived.lease)?;
            arrived.lease.shrink(payload.len() as u64);
            arrived.coding = Coding::Identity;
            arrived.limit = payload.len();
            arrived.body = payload.into();
            Ok((arrived, told))
        };
        if is_short {
            return replace(arrived);
        }
        // As in `admit`.
        let Ok(permit) = Arc::clone(&self.workers).acquire_owned().await else {
            return Err(Refusal::later(Reason::Lost, BUSY_RETRY_AFTER));
        };
        let work = tokio::task::spawn_blocking(move || {
            let replaced = replace(arrived);
            drop(permit);
            replaced
        });
        work.await
            .unwrap_or_else(|_| Err(Refusal::later(Reason::Lost, BUSY_RETRY_AFTER)))
    }

    /// Takes a request in and waits until the pipeline said what became of it.
    pub(crate) async fn admit(self: &Arc<Self>, arrived: Arrived) -> Result<Accepted, Refusal> {
        let patience = match arrived.translation {
            None => INLINE_BYTES,
            Some(_) => INLINE_TRANSLATED_BYTES,
        };
        let taken = if arrived.coding.expected_len(&arrived.body) <= patience {
            self.take_in(arrived, patience)
        } else {
            Taken::TooLong(Box::new(arrived))
        };
        let taken = match taken {
            Taken::TooLong(arrived) => {
                let core = Arc::clone(self);
                // The semaphore is never closed, and the work does not panic; either would be "lost, send again".
                let Ok(permit) = Arc::clone(&self.workers).acquire_owned().await else {
                    return Err(Refusal::later(Reason::Lost, BUSY_RETRY_AFTER));
                };
                let limit = arrived.limit;
                let work = tokio::task::spawn_blocking(move || {
                    let taken = core.take_in(*arrived, limit);
                    drop(permit);
                    taken
                });
                work.await
                    .unwrap_or_else(|_| Taken::Refused(Refusal::later(Reason::Lost, BUSY_RETRY_AFTER)))
            }
            taken => taken,
        };
        match taken {
            Taken::Refused(refusal) => Err(refusal),
            Taken::Nothing(accepted) => Ok(accepted),
            Taken::Pushed(accepted, outcome) => settle(accepted, outcome.await),
            // The second pass has the request's own limit, beyond which there is only refusal.
            Taken::TooLong(arrived) => Err(too_large(arrived.limit)),
        }
    }

    /// The work on the CPU. It gives the request back where it turns out longer than `patience` bytes.
    fn take_in(&self, mut arrived: Arrived, patience: usize) -> Taken {
        let limit = arrived.limit.min(patience);
        let mut wire = arrived.coding.wire();
        let inflated = match arrived.coding {
            Coding::Identity if arrived.body.len() <= limit => arrived.body.clone(),
            Coding::Identity => return Taken::Refused(too_large(arrived.limit)),
            coding => match inflate(coding, &arrived.body, limit, &mut arrived.lease) {
                Ok(inflated) => {
                    wire = wire.filter(|_| !inflated.several);
                    Bytes::from(inflated.bytes)
                }
                Err(InflateError::TooLarge) if limit < arrived.limit => {
                    return Taken::TooLong(Box::new(arrived));
                }
                Err(error) => return Taken::Refused(inflate_refusal(error, arrived.limit)),
            },
        };
        let received_at = now_unix_nano();
        let payload = match arrived.translation {
            None => inflated,
            Some(by) => match translated(by, arrived.signal, &inflated, received_at, &mut arrived.lease) {
                Ok(payload) => payload,
                Err(refusal) => return Taken::Refused(refusal),
            },
        };
        let canonical = match canonicalize(arrived.signal, payload) {
            Ok(canonical) => canonical,
            Err(malformed) => {
                let message = format!("the {} request does not decode: {malformed}", arrived.signal);
                return Taken::Refused(Refusal::new(Kind::Malformed, message));
            }
        };
        let accepted = self.note(arrived.signal, &canonical);
        if canonical.items == 0 {
            return Taken::Nothing(accepted);
        }
        let wire = match arrived.translation {
            None => wire.map(|compression| Wire {
                compression,
                bytes: arrived.body,
            }),
            Some(_) => None,
        };
        let meta = Meta {
            received_at_unix_nano: received_at,
            receiver: Arc::clone(self.intake.receiver()),
            peer: arrived.peer,
            headers: arrived.headers,
            source_offset: None,
        };
        let batch = Batch::from_canonical(arrived.signal, canonical, wire, Arc::new(meta));
        Taken::Pushed(accepted, self.intake.push_held(batch, Some(arrived.lease)))
    }

    /// Counts what the walk removed and repaired, and says it in the sender's terms.
    fn note(&self, signal: Signal, canonical: &Canonical) -> Accepted {
        let counters = &self.counters;
        if canonical.rewritten {
            counters.rewritten.fetch_add(1, Ordering::Relaxed);
            self.tell(
                &counters.repaired_text,
                canonical.repaired_text,
                "texts that were not UTF-8",
            );
            self.tell(
                &counters.repaired_ids,
                canonical.repaired_ids,
                "ids of the wrong length",
            );
        }
        let mut accepted = Accepted::default();
        for (reason, items) in &canonical.rejected {
            self.intake.rejected(signal, u64::from(*items), Reason::BadId);
            accepted.add(u64::from(*items), &format!("{items} × {}", reason.message()));
        }
        accepted
    }
}

impl Core {
    /// Counts repairs, and says so in the log whenever their number has doubled: often enough to be noticed, too seldom to flood.
    fn tell(&self, counter: &AtomicU64, repaired: u32, what: &'static str) {
        let before = counter.fetch_add(u64::from(repaired), Ordering::Relaxed);
        let total = before + u64::from(repaired);
        if before.checked_ilog2() < total.checked_ilog2() {
            tracing::warn!(receiver = %self.intake.receiver(), total, "repaired {what}");
        }
    }
}

/// How far a request got.
enum Taken {
    /// The pipeline has it.
    Pushed(Accepted, AckFuture),
    /// There was nothing (left) to hand on.
    Nothing(Accepted),
    Refused(Refusal),
    /// More work than this thread may do.
    TooLong(Box<Arrived>),
}

impl Accepted {
    fn add(&mut self, items: u64, why: &str) {
        self.rejected += items;
        if !self.message.is_empty() {
            self.message.push_str("; ");
        }
        self.message.push_str(why);
    }
}

fn settle(mut accepted: Accepted, outcome: Outcome) -> Result<Accepted, Refusal> {
    match outcome {
        Outcome::Delivered => Ok(accepted),
        Outcome::Rejected { reason, items } => {
            accepted.add(u64::from(items), &reason.message);
            Ok(accepted)
        }
        Outcome::Retry { after, reason } => Err(Refusal {
            counted: true,
            ..Refusal::later(reason, after)
        }),
    }
}

/// Another encoding becomes the protobuf that everything else is; what that may take is reserved first.
fn translated(
    by: &Translation,
    signal: Signal,
    text: &[u8],
    now_unix_nano: u64,
    lease: &mut Lease,
) -> Result<Bytes, Refusal> {
    let before = lease.bytes();
    if !lease.grow(text.len() as u64 * (by.growth)(signal)) {
        return Err(Refusal::later(Reason::MemoryLimit, BUSY_RETRY_AFTER));
    }
    let payload = (by.translate)(signal, text, now_unix_nano).map_err(|error| {
        let message = format!("the {signal} request does not decode: {error}");
        Refusal::new(Kind::Malformed, message)
    })?;
    lease.shrink(before + payload.len() as u64);
    Ok(payload.into())
}

pub(crate) fn too_large(limit: usize) -> Refusal {
    Refusal::new(
        Kind::TooLarge,
        format!(
            "the request is larger than {limit} bytes, compressed or inflated; send smaller batches or raise the receiver's limit"
        ),
    )
}

fn inflate_refusal(error: InflateError, limit: usize) -> Refusal {
    match error {
        InflateError::TooLarge => too_large(limit),
        InflateError::NoMemory => Refusal::later(Reason::MemoryLimit, BUSY_RETRY_AFTER),
        InflateError::Malformed(what) => Refusal::new(Kind::Malformed, format!("the body does not decompress: {what}")),
    }
}

pub(crate) fn read_refusal(error: ReadError, limit: usize) -> Refusal {
    match error {
        ReadError::TooLarge => too_large(limit),
        ReadError::NoMemory => Refusal::later(Reason::MemoryLimit, BUSY_RETRY_AFTER),
        ReadError::Stalled => Refusal::new(Kind::Stalled, "the body arrives too slowly"),
        ReadError::Gone => Refusal::new(Kind::Gone, "the sender left before the body was complete"),
        ReadError::BadFraming => Refusal::new(
            Kind::Malformed,
            "the body is not framed as HTTP has it, in chunks that each begin with their size in hex digits",
        ),
        ReadError::Extra => Refusal::new(
            Kind::Protocol,
            "more bytes than the one message that an export request is",
        ),
    }
}

fn now_unix_nano() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}
