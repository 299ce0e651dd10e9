//! Every bound of a door in one place, with its unit and the reason for the number.

use std::time::Duration;

/// Connections one door holds at a time. At ~100 KiB each in the worst case a full door costs ~100 MiB, and a service
/// with more clients than this on one machine has a gateway in between.
pub const MAX_CONNECTIONS: usize = 1024;

/// Bytes of one request head (request line and headers), HTTP/1 and HTTP/2 alike. Cookies of a browser stay below 8 KiB.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// Header lines of one HTTP/1 request; hyper answers 431 above it.
pub const MAX_HEADERS: usize = 100;

/// Time from the first byte of a request head to its end. A head fits in a few packets.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Time a fresh connection may take to say what it speaks, TLS handshake included.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time a connection may stay open with no request on it. Longer than the export intervals of the SDKs (5 s for spans and
/// logs, 60 s for metrics), so that their kept-alive connections are not closed under them.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Time a peer may leave our response unread before the connection is dropped.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that a connection which was just accepted may still take for its first bytes when the door closes: a request that is on its way is answered, and
/// one that says nothing delays a stop by no more than this.
pub const LAST_WORDS: Duration = Duration::from_millis(250);

/// Time between telling a connection to finish (idle, GOAWAY) and dropping it.
pub const LINGER: Duration = Duration::from_secs(5);

/// HTTP/1 read buffer in bytes. Bounds a head, and is the largest piece of a body handed on at once.
pub const HTTP1_BUFFER_BYTES: usize = 64 * 1024;

/// HTTP/2 receive window of one stream in bytes: a compressed request of 1,000 spans (~80 KiB) fits without a round trip.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// HTTP/2 receive window of one connection in bytes: what a connection may make us hold unread.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;

/// HTTP/2 frame size in bytes we accept. Twice the default halves the frames of a body; a half-sent frame is held in memory.
pub const HTTP2_MAX_FRAME_BYTES: u32 = 32 * 1024;

/// HTTP/2 streams open at a time on one connection, unless the mount says otherwise.
pub const HTTP2_MAX_CONCURRENT_STREAMS: u32 = 128;

/// Streams that a peer opened and reset before we took them; more is the "rapid reset" attack and ends the connection.
pub const HTTP2_MAX_PENDING_RESETS: usize = 32;

/// Bytes of responses buffered for one HTTP/2 stream before its body is asked to wait.
pub const HTTP2_SEND_BUFFER_BYTES: usize = 128 * 1024;

/// An HTTP/2 ping goes out this long after the last frame from the peer, so that a vanished peer is noticed.
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);

/// Time a peer has to answer that ping.
pub const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause after `accept` failed for want of descriptors or memory; trying at once would spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections waiting in the kernel to be accepted.
pub const BACKLOG: u32 = 1024;
