//! The byte stream under a connection: plain or TLS, bytes already read put back in front, and stamps of what moved when.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::bounds;

/// Idle from the beginning. Later stamps are at least one more.
const FRESH: u64 = 1;

/// What a connection last did; written by its stream and its requests, read by its watchdog.
///
/// Stamps are milliseconds since `born`, plus one; 0 means "not now".
pub(crate) struct Activity {
    born: Instant,
    requests: AtomicUsize,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    write_blocked_since: AtomicU64,
}

/// What the watchdog finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is wrong before this much time has passed.
    Wait(Duration),
    /// No request for too long: finish politely.
    Idle,
    /// The peer holds us up: drop it.
    Stalled,
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            requests: AtomicUsize::new(0),
            idle_since: AtomicU64::new(FRESH),
            head_since: AtomicU64::new(0),
            write_blocked_since: AtomicU64::new(0),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// A request begins; it ends when the returned value drops.
    pub(crate) fn request(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        self.idle_since.store(0, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// Whether no request has begun on it yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0 && self.idle_since.load(Ordering::Relaxed) == FRESH
    }

    /// How long the oldest of three waits may still last. `heads` is off for HTTP/2, whose pings move bytes between requests.
    pub(crate) fn judge(&self, heads: bool) -> Verdict {
        let now = self.now();
        let left = |since: &AtomicU64, limit: Duration| match since.load(Ordering::Relaxed) {
            0 => limit,
            since => limit.saturating_sub(Duration::from_millis(now.saturating_sub(since))),
        };
        let head = if heads {
            left(&self.head_since, bounds::HEADER_READ_TIMEOUT)
        } else {
            bounds::HEADER_READ_TIMEOUT
        };
        let write = left(&self.write_blocked_since, bounds::WRITE_STALL_TIMEOUT);
        // The count decides, since a request may begin between another's last two steps.
        let idle = if self.requests.load(Ordering::Relaxed) == 0 {
            left(&self.idle_since, bounds::IDLE_TIMEOUT)
        } else {
            bounds::IDLE_TIMEOUT
        };
        if head.is_zero() || write.is_zero() {
            Verdict::Stalled
        } else if idle.is_zero() {
            Verdict::Idle
        } else {
            Verdict::Wait(head.min(write).min(idle))
        }
    }
}

/// A request in flight, from its head to the last byte of its response.
pub(crate) struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle_since.store(self.0.now().max(FRESH + 1), Ordering::Relaxed);
        }
    }
}

/// Plain text or TLS.
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A transport with the bytes that told its protocol put back in front.
pub(crate) struct Stream {
    transport: Transport,
    first: [u8; PREFACE.len()],
    first_at: usize,
    first_len: usize,
    activity: Arc<Activity>,
}

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Stream {
    /// Reads until it is clear whether the peer speaks HTTP/2. `None`: it left before saying anything.
    pub(crate) async fn sniff(mut transport: Transport, activity: Arc<Activity>) -> io::Result<Option<(Self, bool)>> {
        use tokio::io::AsyncReadExt;
        let mut first = [0; PREFACE.len()];
        let mut len = 0;
        while len < PREFACE.len() && first[..len] == PREFACE[..len] {
            let n = transport.read(&mut first[len..]).await?;
            if n == 0 && len == 0 {
                return Ok(None);
            }
            if n == 0 {
                break;
            }
            len += n;
        }
        let http2 = first == *PREFACE;
        activity.head_since.store(activity.now(), Ordering::Relaxed);
        let stream = Self {
            transport,
            first,
            first_at: 0,
            first_len: len,
            activity,
        };
        Ok(Some((stream, http2)))
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Transport::Tls(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.first_at < this.first_len {
            let n = buf.remaining().min(this.first_len - this.first_at);
            buf.put_slice(&this.first[this.first_at..this.first_at + n]);
            this.first_at += n;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.transport).poll_read(cx, buf);
        let activity = &this.activity;
        // Bytes between two requests are the beginning of a head.
        if buf.filled().len() > before
            && activity.requests.load(Ordering::Relaxed) == 0
            && activity.head_since.load(Ordering::Relaxed) == 0
        {
            activity.head_since.store(activity.now(), Ordering::Relaxed);
        }
        polled
    }
}

impl Stream {
    fn note_write<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let blocked = &self.activity.write_blocked_since;
        if polled.is_ready() {
            blocked.store(0, Ordering::Relaxed);
        } else if blocked.load(Ordering::Relaxed) == 0 {
            blocked.store(self.activity.now(), Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match &mut self.transport {
            Transport::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Transport::Tls(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
        };
        self.note_write(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.transport {
            Transport::Plain(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Transport::Tls(s) => Pin::new(s.as_mut()).poll_write_vectored(cx, bufs),
        };
        self.note_write(polled)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(s) => s.is_write_vectored(),
            Transport::Tls(s) => s.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.transport {
            Transport::Plain(s) => Pin::new(s).poll_flush(cx),
            Transport::Tls(s) => Pin::new(s.as_mut()).poll_flush(cx),
        };
        self.note_write(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Transport::Tls(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The watchdog's verdict when a stamp lies `ago` in the past.
    fn check(set: impl Fn(&Activity, u64), ago: Duration, heads: bool, want: fn(&Verdict) -> bool) {
        let mut activity = Activity::new();
        let inner = Arc::get_mut(&mut activity).unwrap();
        inner.born = Instant::now().checked_sub(ago).unwrap();
        inner.idle_since.store(0, Ordering::Relaxed);
        set(&activity, 1);
        let verdict = activity.judge(heads);
        assert!(want(&verdict), "{verdict:?}");
    }

    #[test]
    fn the_watchdog_tells_idle_from_stalled() {
        let second = Duration::from_secs(1);
        let head = |a: &Activity, at| a.head_since.store(at, Ordering::Relaxed);
        let idle = |a: &Activity, at| a.idle_since.store(at, Ordering::Relaxed);
        let write = |a: &Activity, at| a.write_blocked_since.store(at, Ordering::Relaxed);
        let waits = |v: &Verdict| matches!(v, Verdict::Wait(_));
        check(head, bounds::HEADER_READ_TIMEOUT + second, true, |v| {
            *v == Verdict::Stalled
        });
        check(head, bounds::HEADER_READ_TIMEOUT + second, false, waits);
        check(head, bounds::HEADER_READ_TIMEOUT - second, true, waits);
        check(idle, bounds::IDLE_TIMEOUT + second, true, |v| *v == Verdict::Idle);
        check(idle, bounds::IDLE_TIMEOUT - second, true, waits);
        check(write, bounds::WRITE_STALL_TIMEOUT + second, false, |v| {
            *v == Verdict::Stalled
        });
    }

    #[test]
    fn a_request_in_flight_is_not_idle() {
        let activity = Activity::new();
        let one = activity.request();
        let two = activity.request();
        drop(one);
        assert_eq!(activity.idle_since.load(Ordering::Relaxed), 0);
        drop(two);
        assert_ne!(activity.idle_since.load(Ordering::Relaxed), 0);
    }
}
