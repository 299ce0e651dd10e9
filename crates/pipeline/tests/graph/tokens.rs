//! A backend that does not accept our token: what is to be sent waits.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A backend that knows nobody until a token is there.
#[derive(Default)]
struct Guarded {
    backend: Backend,
    knows_us: AtomicBool,
}

impl Exporter for Guarded {
    fn takes(&self, signal: Signal) -> bool {
        self.backend.takes(signal)
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        match self.knows_us.load(Ordering::SeqCst) {
            true => self.backend.export(batch),
            false => Box::pin(async { Outcome::retry(Duration::ZERO, Reason::BackendUnauthorized) }),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_token_has_expired_everything_waits_and_the_ledger_says_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let guarded = Arc::new(Guarded::default());
    let (graph, intake, ledger) = start(Setup {
        journal: Some(open(directory.path())),
        take: Take::default(),
        exporters: vec![("guarded", Sink::Exporter(guarded.clone()), quick())],
    });
    push_all(&intake, (0..20).map(|n| spans(n * 10..n * 10 + 10))).await;
    let reader = || ledger.snapshot().readers.remove(0);
    while reader().waits_because != Some("backend_unauthorized") || reader().circuit == CircuitState::Closed {
        tokio::task::yield_now().await;
    }
    assert_eq!((reader().pending, reader().dropped.0), (200, vec![]));
    guarded.knows_us.store(true, Ordering::SeqCst);
    guarded.backend.has(200).await;
    graph.drain(GRACE).await;
    let reader = reader();
    assert_eq!((reader.delivered, reader.pending, reader.waits_because), (200, 0, None));
    ledger.balance().expect("balanced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_to_be_tried_again_is_buried() {
    let directory = tempfile::tempdir().expect("a directory");
    let letters = directory.path().join("dead");
    let sending = Sending {
        retry: Retry {
            enabled: false,
            ..quick().retry
        },
        dead_letter: Some(letters.clone()),
        ..quick()
    };
    let (graph, intake, ledger) = start(Setup {
        journal: Some(open(&directory.path().join("journal"))),
        take: Take::default(),
        exporters: vec![("guarded", Sink::Exporter(Arc::new(Guarded::default())), sending)],
    });
    push_all(&intake, [spans(0..10)]).await;
    assert_eq!(graph.drain(GRACE).await, Drained::Settled);
    let reader = &ledger.snapshot().readers[0];
    assert_eq!(reader.dropped.0, [(Reason::BackendUnauthorized, 10)]);
    assert_eq!(reader.waits_because, None, "what was given up waits no more");
    assert_eq!(std::fs::read_dir(letters).expect("made").count(), 1);
    ledger.balance().expect("balanced");
}
