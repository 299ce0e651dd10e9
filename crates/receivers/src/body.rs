//! Reading a body: memory is reserved as bytes arrive, never on the strength of an announcement, and arriving has a pace.
//!
//! A hundred clients that each announce 64 MiB and then say nothing cost a hundred idle connections and no buffer.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use pipeline::{Budget, Lease};
use tokio::time::{Sleep, sleep};

/// Smallest buffer of a body that comes in several pieces, in bytes: one HTTP/2 frame of the default size.
const FIRST_BUFFER_BYTES: usize = 16 * 1024;

/// How far a buffer may run ahead of what has arrived, as a factor, where the whole length was announced.
const AHEAD: usize = 4;

/// How often a body's pace is asked about. The slowest sender gets a body of 320 KiB through within the first time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The slowest sender we wait for, in bytes per second: a bad mobile link.
const MIN_BYTES_PER_SECOND: u64 = 16 * 1024;

/// Bytes of a refused body that are read and thrown away so that the sender gets to read our answer: closing at once would
/// reset the connection under it.
const DISCARD_BYTES: u64 = 8 * 1024 * 1024;

/// Time that throwing away may take.
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Bytes before a gRPC message: the flag and the length.
pub(crate) const GRPC_PREFIX_BYTES: usize = 5;

/// Why there is no body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// It is, or says it is, larger than the limit.
    TooLarge,
    /// The memory budget has no room.
    NoMemory,
    /// It arrives too slowly.
    Stalled,
    /// The sender left.
    Gone,
    /// What arrived is not framed as HTTP has it.
    BadFraming,
    /// More than one gRPC message.
    Extra,
}

/// What tells how long the body will be.
#[derive(Clone, Copy)]
pub(crate) enum Length {
    /// HTTP: `content-length`, if there was one.
    Header(Option<u64>),
    /// gRPC: the five bytes in front of the message.
    GrpcPrefix,
}

/// Reads a whole body of at most `limit` bytes (for gRPC: of message).
pub(crate) async fn read(
    body: &mut Incoming,
    length: Length,
    limit: usize,
    budget: &Budget,
    patience: Duration,
) -> Result<(Bytes, Lease), ReadError> {
    let (mut whole, limit) = match length {
        Length::Header(announced) => (announced, limit),
        Length::GrpcPrefix => (None, limit + GRPC_PREFIX_BYTES),
    };
    if whole.is_some_and(|n| n > limit as u64) {
        return Err(ReadError::TooLarge);
    }
    let mut lease = budget.try_reserve(0).ok_or(ReadError::NoMemory)?;
    let mut buffer = Vec::new();
    let mut pace = Pace::new(patience);
    while let Some(data) = pace.next(body).await? {
        let arrived = buffer.len() + data.len();
        if arrived > limit {
            return Err(ReadError::TooLarge);
        }
        if matches!(length, Length::GrpcPrefix) && whole.is_none() && arrived >= GRPC_PREFIX_BYTES {
            let announced = announced_by_prefix(&buffer, &data);
            if announced > limit as u64 {
                return Err(ReadError::TooLarge);
            }
            whole = Some(announced);
        }
        if matches!(length, Length::GrpcPrefix) && whole.is_some_and(|n| arrived as u64 > n) {
            return Err(ReadError::Extra);
        }
        pace.arrived = arrived as u64;
        let complete = whole == Some(arrived as u64);
        if complete && buffer.is_empty() {
            // It came in one piece, which needs no copy.
            if !lease.grow(data.len() as u64) {
                return Err(ReadError::NoMemory);
            }
            finish(body, &mut pace, length).await?;
            return Ok((data, lease));
        }
        if arrived > buffer.capacity() {
            let capacity = match whole {
                Some(whole) => (arrived * AHEAD).max(FIRST_BUFFER_BYTES).min(whole as usize),
                None => (arrived * 2).max(FIRST_BUFFER_BYTES).min(limit),
            };
            if !lease.grow(capacity as u64 - lease.bytes()) {
                return Err(ReadError::NoMemory);
            }
            buffer.reserve_exact(capacity - buffer.len());
        }
        buffer.extend_from_slice(&data);
        if complete {
            finish(body, &mut pace, length).await?;
            break;
        }
    }
    Ok((buffer.into(), lease))
}

/// After the last byte only the end may come. HTTP's own length has been kept to by hyper; a gRPC sender could go on.
async fn finish(body: &mut Incoming, pace: &mut Pace, length: Length) -> Result<(), ReadError> {
    if matches!(length, Length::Header(_)) || body.is_end_stream() {
        return Ok(());
    }
    while let Some(data) = pace.next(body).await? {
        if !data.is_empty() {
            return Err(ReadError::Extra);
        }
    }
    Ok(())
}

/// The length that the first five bytes, spread over two pieces, announce for the whole body.
fn announced_by_prefix(buffer: &[u8], data: &[u8]) -> u64 {
    let mut prefix = [0; GRPC_PREFIX_BYTES];
    for (to, from) in prefix.iter_mut().zip(buffer.iter().chain(data)) {
        *to = *from;
    }
    let [_, a, b, c, d] = prefix;
    GRPC_PREFIX_BYTES as u64 + u64::from(u32::from_be_bytes([a, b, c, d]))
}

/// Waits for the pieces of a body, as long as they keep coming.
///
/// The pace is that since the last question, not the average: a body that came fast and then stops holds its memory no
/// longer than one that never came.
struct Pace {
    patience: Duration,
    arrived: u64,
    /// What had arrived at the last question.
    asked: u64,
    /// Made only when a piece is not there yet: most bodies come without a pause.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            arrived: 0,
            asked: 0,
            alarm: None,
        }
    }

    /// Asked once per `patience`: whether less arrived since the last time than the slowest sender gets through.
    fn stalled(&mut self) -> bool {
        let since = self.arrived - std::mem::replace(&mut self.asked, self.arrived);
        since < MIN_BYTES_PER_SECOND * self.patience.as_secs().max(1)
    }

    /// The next piece of data; `None` at the end.
    async fn next(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|cx| {
            loop {
                match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(None) => return Poll::Ready(Ok(None)),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(&error))),
                    Poll::Ready(Some(Ok(frame))) => {
                        if let Ok(data) = frame.into_data() {
                            return Poll::Ready(Ok(Some(data)));
                        }
                    }
                    Poll::Pending => {
                        let patience = self.patience;
                        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(patience)));
                        if alarm.as_mut().poll(cx).is_pending() {
                            return Poll::Pending;
                        }
                        if self.stalled() {
                            return Poll::Ready(Err(ReadError::Stalled));
                        }
                        self.alarm = None;
                    }
                }
            }
        })
        .await
    }
}

/// Whether a body broke off or was never a proper one, such as a chunk whose size is no number: hyper says the latter as invalid input.
fn broken(error: &hyper::Error) -> ReadError {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if matches!(kind, Some(ErrorKind::InvalidInput | ErrorKind::InvalidData)) {
            return ReadError::BadFraming;
        }
        cause = error.source();
    }
    ReadError::Gone
}

/// Reads on, within bounds, what nobody will look at.
pub(crate) fn discard(mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(async move {
        let all = async {
            let mut left = DISCARD_BYTES;
            while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let read = frame.data_ref().map_or(0, Bytes::len) as u64;
                left = left.saturating_sub(read);
                if left == 0 {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(DISCARD_TIME, pin!(all)).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its average let a sender of 60 MiB that then said nothing hold them for an hour, and eight of them everybody's memory.
    #[test]
    fn a_body_that_came_fast_and_then_stops_has_stalled() {
        let mut pace = Pace::new(PATIENCE);
        pace.arrived = 60 << 20;
        assert!(!pace.stalled());
        pace.arrived += MIN_BYTES_PER_SECOND * PATIENCE.as_secs();
        assert!(!pace.stalled(), "as slow as may be");
        pace.arrived += 1;
        assert!(pace.stalled());
    }
}
