//! What the tests of whole journals share: waiting for a future on a thread, appending and waiting, plain settings.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::mpsc::channel;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use journal::{
    AppendError, Delivery, Journal, OnFull, Reader, ReaderOptions, RealDisk, Record, Recovery, Seq, Settings, Start,
};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

pub fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Whether there is nothing to receive right now, without waiting.
pub fn is_idle(reader: &Reader) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    matches!(reader.poll_recv(&mut context, 1, 1), Poll::Pending)
}

pub fn settings(directory: &Path) -> Settings {
    Settings {
        min_free_bytes: 0,
        ..Settings::new(directory)
    }
}

pub fn open(settings: Settings) -> (Journal, Recovery) {
    Journal::open(settings, Arc::new(RealDisk)).unwrap()
}

pub fn record(stream: &str, text: &str) -> Record {
    Record {
        stream: stream.into(),
        header: b"head".as_slice().into(),
        payload: text.to_owned().into(),
    }
}

pub fn append_later(journal: &Journal, record: Record) -> mpsc::Receiver<Result<Seq, AppendError>> {
    let (send, receive) = channel();
    journal.append(record, move |result| drop(send.send(result)));
    receive
}

pub fn append(journal: &Journal, record: Record) -> Result<Seq, AppendError> {
    append_later(journal, record).recv().unwrap()
}

pub fn options(stream: &str) -> ReaderOptions {
    ReaderOptions {
        stream: stream.into(),
        on_full: OnFull::Refuse,
        start: Start::Stored,
    }
}

pub fn texts(deliveries: &[Delivery]) -> Vec<String> {
    deliveries
        .iter()
        .map(|delivery| String::from_utf8(delivery.record.payload.to_vec()).unwrap())
        .collect()
}

/// Receives until `count` records have come.
pub fn receive(reader: &Reader, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(wait(reader.recv(count - all.len(), usize::MAX)).expect("the journal is open"));
    }
    all
}

pub fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}
