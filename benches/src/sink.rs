//! A backend that counts: it takes OTLP over gRPC, inflates what it gets and counts the items in it, so that a figure is about what arrived and not
//! about what somebody says was sent.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::numbered::{number_of, span_ids};

/// Flag and length in front of a gRPC message.
const FRAME_HEAD: usize = 5;
/// HTTP/2 windows: a batch of 10,000 spans, compressed, goes through without waiting for us.
const WINDOW_BYTES: u32 = 4 << 20;
/// The largest message that is inflated. The gzip trailer names the size, and is not believed beyond this.
const MAX_MESSAGE_BYTES: usize = 256 << 20;

/// What has arrived.
#[derive(Default)]
pub struct Arrived {
    items: AtomicU64,
    requests: AtomicU64,
    wire_bytes: AtomicU64,
    message_bytes: AtomicU64,
    /// Requests that could not be read. None is expected.
    unreadable: AtomicU64,
    /// How often each numbered span has arrived, if somebody asked for that.
    numbers: Option<Mutex<Vec<u8>>>,
}

impl Arrived {
    fn number(&self, message: &[u8]) {
        let Some(numbers) = &self.numbers else { return };
        let mut numbers = numbers.lock().unwrap_or_else(PoisonError::into_inner);
        span_ids(message, |id| {
            let Some(number) = number_of(id).map(|number| number as usize) else {
                return;
            };
            if numbers.len() <= number {
                numbers.resize(number + 1, 0);
            }
            numbers[number] = numbers[number].saturating_add(1);
        });
    }
}

/// A count at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count {
    pub items: u64,
    pub requests: u64,
    pub wire_bytes: u64,
    pub message_bytes: u64,
    pub unreadable: u64,
}

/// The backend; it ends with the value.
pub struct Sink {
    pub address: SocketAddr,
    arrived: Arc<Arrived>,
    stalled: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

/// A backend that is down.
pub struct Away {
    address: SocketAddr,
    arrived: Arc<Arrived>,
}

impl Away {
    pub async fn come_back(self) -> Result<Sink> {
        Sink::start_at(self.address, self.arrived).await
    }
}

impl Sink {
    pub async fn start() -> Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::default()).await
    }

    /// One that knows each numbered span.
    pub async fn start_numbered() -> Result<Self> {
        let arrived = Arrived {
            numbers: Some(Mutex::default()),
            ..Arrived::default()
        };
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::new(arrived)).await
    }

    /// Nobody listens any more, and connections are cut; what has arrived stays known.
    pub fn go_away(self) -> Away {
        self.serving.abort();
        Away {
            address: self.address,
            arrived: self.arrived,
        }
    }

    async fn start_at(address: SocketAddr, arrived: Arc<Arrived>) -> Result<Self> {
        let listener = TcpListener::bind(address).await.context("the sink's port")?;
        let address = listener.local_addr()?;
        let (stalled, gate) = watch::channel(false);
        let counted = arrived.clone();
        let serving = tokio::spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            let mut ending = gate.clone();
            loop {
                let socket = tokio::select! {
                    accepted = listener.accept() => accepted,
                    // Only the sender's end makes this an error.
                    () = async { while ending.changed().await.is_ok() {} } => return,
                };
                let Ok((socket, _)) = socket else { continue };
                let _ = socket.set_nodelay(true);
                let (counted, gate) = (counted.clone(), gate.clone());
                let service = service_fn(move |request| answer(counted.clone(), gate.clone(), request));
                let connection = http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(WINDOW_BYTES)
                    .initial_connection_window_size(WINDOW_BYTES)
                    .serve_connection(TokioIo::new(socket), service);
                connections.spawn(connection);
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            address,
            arrived,
            stalled,
            serving,
        })
    }

    /// While stalled, requests are read and not answered, as by a backend whose disk hangs; they are counted once it goes on.
    pub fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// How often each numbered span has arrived.
    pub fn numbers(&self) -> Vec<u8> {
        let numbers = self.arrived.numbers.as_ref();
        numbers.map_or_else(Vec::new, |numbers| {
            numbers.lock().unwrap_or_else(PoisonError::into_inner).clone()
        })
    }

    pub fn count(&self) -> Count {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Count {
            items: load(&self.arrived.items),
            requests: load(&self.arrived.requests),
            wire_bytes: load(&self.arrived.wire_bytes),
            message_bytes: load(&self.arrived.message_bytes),
            unreadable: load(&self.arrived.unreadable),
        }
    }
}

async fn answer(
    arrived: Arc<Arrived>,
    mut gate: watch::Receiver<bool>,
    request: Request<Incoming>,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, hyper::Error> {
    let metrics = request.uri().path().contains("MetricsService");
    let body = request.into_body().collect().await?;
    let body = body.aggregate();
    let mut whole = body;
    let frame = whole.copy_to_bytes(whole.remaining());
    let _ = gate.wait_for(|stalled| !stalled).await;
    match tokio::task::block_in_place(|| read(&frame, metrics, &arrived)) {
        Some((items, bytes)) => {
            let add = |number: &AtomicU64, by: u64| number.fetch_add(by, Ordering::Relaxed);
            add(&arrived.requests, 1);
            add(&arrived.wire_bytes, frame.len() as u64);
            add(&arrived.message_bytes, bytes);
            add(&arrived.items, items);
        }
        None => {
            arrived.unreadable.fetch_add(1, Ordering::Relaxed);
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let message = Full::new(Bytes::from_static(&[0; FRAME_HEAD])).with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(message);
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// Items and bytes of a framed message.
fn read(frame: &[u8], metrics: bool, arrived: &Arrived) -> Option<(u64, u64)> {
    let (head, message) = frame.split_at_checked(FRAME_HEAD)?;
    let inflated;
    let message = match head.first()? {
        0 => message,
        _ => {
            let size = u32::from_le_bytes(*message.last_chunk::<4>()?) as usize;
            let mut out = vec![0; size.min(MAX_MESSAGE_BYTES)];
            libdeflater::Decompressor::new()
                .gzip_decompress(message, &mut out)
                .ok()?;
            inflated = out;
            &inflated
        }
    };
    arrived.number(message);
    let path: &[&[u32]] = match metrics {
        false => &[&[1], &[2], &[2]],
        true => &[&[1], &[2], &[2], &[5, 7, 9, 10, 11], &[1]],
    };
    Some((items(message, path)?, message.len() as u64))
}

/// Counts the messages at the end of a path of field numbers. Not the product's own walk, which is under test.
fn items(mut message: &[u8], path: &[&[u32]]) -> Option<u64> {
    let Some((numbers, inner)) = path.split_first() else {
        return Some(1);
    };
    let mut found = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let skip = match tag & 7 {
            0 => {
                varint(&mut message)?;
                0
            }
            1 => 8,
            5 => 4,
            2 => varint(&mut message)?,
            _ => return None,
        };
        let (body, rest) = message.split_at_checked(usize::try_from(skip).ok()?)?;
        message = rest;
        if tag & 7 == 2 && numbers.contains(&((tag >> 3) as u32)) {
            found += items(body, inner)?;
        }
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, Service, frame};
    use crate::points::PointSource;
    use crate::spans::SpanSource;

    #[tokio::test(flavor = "multi_thread")]
    async fn it_counts_what_arrives() {
        let sink = Sink::start().await.expect("a port");
        let mut client = Client::connect(sink.address).await.expect("it listens");
        let spans = SpanSource::new(1, 1_000_000_000_000, 1_000).request(37);
        let points = PointSource::new(1, 4_000_000_000_000, 20).request();
        for (service, message) in [(Service::Traces, &spans), (Service::Metrics, &points)] {
            client.send(service, frame(message)).await.expect("it answers");
        }
        let count = sink.count();
        assert_eq!((count.items, count.requests, count.unreadable), (57, 2, 0));
        assert_eq!(count.message_bytes, (spans.len() + points.len()) as u64);
        assert!(count.wire_bytes < count.message_bytes / 2);
    }
}
