//! The one carrier. Everything between the doors and the store is handed a `Batch`: an encoded export request in
//! canonical form, and what is known about its arrival.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Serialize, Serializer};

use crate::canonical::Canonical;
use crate::payload::Payload;

/// What kind of telemetry a batch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    Traces,
    Logs,
    Metrics,
}

impl Signal {
    pub const ALL: [Signal; 3] = [Signal::Traces, Signal::Logs, Signal::Metrics];

    /// The name in configuration, metrics and file formats.
    pub const fn as_str(self) -> &'static str {
        match self {
            Signal::Traces => "traces",
            Signal::Logs => "logs",
            Signal::Metrics => "metrics",
        }
    }

    /// What one item of a batch is called, in the plural: `items` counts these.
    pub const fn items(self) -> &'static str {
        match self {
            Signal::Traces => "spans",
            Signal::Logs => "log records",
            Signal::Metrics => "data points",
        }
    }
}

impl std::str::FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        Signal::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| UnknownSignal(text.into()))
    }
}

/// A name that is none of `Signal::ALL`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown signal {0:?}: it is one of traces, logs, metrics")]
pub struct UnknownSignal(pub String);

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

/// How the payload is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// An OTLP `Export…ServiceRequest` as protobuf, in the form that `canonical` describes.
    Otlp,
}

impl Encoding {
    /// The name in configuration and file formats.
    pub const fn as_str(self) -> &'static str {
        match self {
            Encoding::Otlp => "otlp",
        }
    }
}

/// How the bytes of a request were compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// The name that HTTP's `content-encoding` has for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Compression::None => "identity",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }
}

/// The payload compressed, as it was received or as `gzip` made it of that. Present only while it inflates to
/// `Batch::payload` byte for byte, so that the journal and an exporter of the same encoding can pass it on without
/// compressing again.
#[derive(Clone)]
pub struct Wire {
    pub compression: Compression,
    pub bytes: Bytes,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wire({} bytes, {})", self.bytes.len(), self.compression.as_str())
    }
}

/// Request headers, names in lower case. One that came several times is there several times, in its order.
pub type Headers = Vec<(Arc<str>, Arc<str>)>;

/// What is known about the arrival of a batch.
#[derive(Clone, PartialEq, Eq)]
pub struct Meta {
    /// Wall clock of the door when the request was complete, in ns since 1970.
    pub received_at_unix_nano: u64,
    /// Configuration name of the receiver, such as `otlp/backend`.
    pub receiver: Arc<str>,
    pub peer: Option<SocketAddr>,
    /// The request headers that the configuration chose to keep.
    pub headers: Headers,
    /// Position in the source (a file's byte offset, for example), for receivers that read from one.
    pub source_offset: Option<u64>,
}

/// What headers say may be a secret, and logs print what this prints: only their names are shown.
impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| &**name).collect();
        f.debug_struct("Meta")
            .field("received_at_unix_nano", &self.received_at_unix_nano)
            .field("receiver", &self.receiver)
            .field("peer", &self.peer)
            .field("headers", &names)
            .field("source_offset", &self.source_offset)
            .finish()
    }
}

/// An encoded export request in canonical form. Cloning copies no payload.
#[derive(Clone)]
pub struct Batch {
    pub signal: Signal,
    pub encoding: Encoding,
    /// Canonical bytes; views and edits rely on it.
    pub payload: Payload,
    /// Spans, log records or data points in `payload`.
    pub items: u32,
    pub wire: Option<Wire>,
    pub meta: Arc<Meta>,
}

impl Batch {
    /// A batch of what the door made canonical. `wire` is kept only if the payload was left as it came.
    pub fn from_canonical(signal: Signal, canonical: Canonical, wire: Option<Wire>, meta: Arc<Meta>) -> Self {
        Batch {
            signal,
            encoding: Encoding::Otlp,
            wire: wire.filter(|_| !canonical.rewritten),
            payload: canonical.payload.into(),
            items: canonical.items,
            meta,
        }
    }

    /// The same arrival with another payload, which the caller vouches is canonical: what every edit returns. The wire
    /// form is gone, because it no longer inflates to the payload; an edit that can make the new one sets it.
    pub fn edited(&self, payload: impl Into<Payload>, items: u32) -> Self {
        Batch {
            payload: payload.into(),
            items,
            wire: None,
            meta: Arc::clone(&self.meta),
            ..*self
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("signal", &self.signal)
            .field("items", &self.items)
            .field("payload_bytes", &self.payload.len())
            .field("wire", &self.wire)
            .field("meta", &self.meta)
            .finish()
    }
}
