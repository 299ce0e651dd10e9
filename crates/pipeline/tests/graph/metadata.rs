//! What requests carried beside their bodies: no request that goes out mixes two values of what is kept, whatever lies between its door and its exporter.

use std::collections::BTreeSet;

use model::Headers;
use pipeline::graph::ConnectorPart;
use pipeline::ledger::StepBook;
use pipeline::metadata::Apart;

use super::*;

/// Headers as a request has them.
fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

fn from(pairs: &[(&str, &str)], ids: impl IntoIterator<Item = u64>) -> Batch {
    let batch = spans(ids);
    let meta = Meta {
        headers: headers(pairs),
        ..Meta::clone(&batch.meta)
    };
    Batch {
        meta: Arc::new(meta),
        ..batch
    }
}

fn apart(keys: &[&str], limit: u32) -> Option<Apart> {
    Some(Apart {
        keys: keys.iter().map(|key| (*key).into()).collect(),
        limit,
        book: StepBook::new("batch"),
    })
}

/// A backend that remembers which headers came with which spans, request by request.
#[derive(Default)]
struct Told {
    backend: Backend,
    requests: Mutex<Vec<(Headers, Vec<u64>)>>,
    names: Vec<&'static str>,
}

impl Told {
    fn requests(&self) -> Vec<(Headers, Vec<u64>)> {
        self.requests.lock().expect("no panic").clone()
    }
}

impl Exporter for Told {
    fn takes(&self, signal: Signal) -> bool {
        self.backend.takes(signal)
    }

    fn metadata_keys(&self) -> Vec<Arc<str>> {
        self.names.iter().map(|name| (*name).into()).collect()
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let told = (batch.meta.headers.clone(), ids(&batch));
            let outcome = self.backend.export(batch).await;
            if outcome.is_delivered() {
                self.requests.lock().expect("no panic").push(told);
            }
            outcome
        })
    }
}

/// Ids below 1,000 are of tenant a, the others of b, those from 2,000 on of nobody.
fn check_apart(requests: &[(Headers, Vec<u64>)]) {
    for (got, ids) in requests {
        let tenants: BTreeSet<u64> = ids.iter().map(|id| id / 1_000).collect();
        let expect = match tenants.iter().collect::<Vec<_>>()[..] {
            [0] => headers(&[("x-tenant", "a")]),
            [1] => headers(&[("x-tenant", "b")]),
            [2] => headers(&[]),
            _ => panic!("one request holds {ids:?}"),
        };
        assert_eq!(*got, expect, "{ids:?}");
    }
}

/// Three senders in turn. Beside the tenant they carry what nobody asked for, which is different in each request.
fn interleaved(rounds: std::ops::Range<u64>) -> impl Iterator<Item = Batch> {
    rounds.flat_map(|n| {
        let trace = format!("trace-{n}");
        [
            from(&[("traceparent", &trace), ("X-Tenant", "a")], n * 10..n * 10 + 10),
            from(
                &[("traceparent", &trace), ("x-tenant", "b")],
                1_000 + n * 10..1_010 + n * 10,
            ),
            from(&[("traceparent", &trace)], 2_000 + n * 10..2_010 + n * 10),
        ]
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_stay_apart_across_a_restart_and_are_batched_all_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let told = Arc::new(Told::default());
    let take = || Take {
        items: 200,
        max_items: Some(200),
        wait: Duration::from_secs(3600),
        apart: apart(&["x-tenant"], 1000),
    };
    let setup = || Setup {
        journal: Some(open(directory.path())),
        take: take(),
        exporters: vec![("told", Sink::Exporter(told.clone()), quick())],
    };
    *told.backend.down.lock().expect("no panic") = true;
    let (graph, intake, _) = start(setup());
    push_all(&intake, interleaved(0..30)).await;
    // The backend takes nothing: all is for the next run, which reads it from the disk.
    graph.drain(GRACE).await;
    *told.backend.down.lock().expect("no panic") = false;
    let (graph, intake, ledger) = start(setup());
    push_all(&intake, interleaved(30..60)).await;
    // A value that fills a request does not wait for the hour to pass.
    told.backend.has(1_800).await;
    graph.drain(GRACE).await;
    let requests = told.requests();
    check_apart(&requests);
    assert_eq!(told.backend.taken().len(), 1_800);
    assert!(requests.len() <= 12, "{} requests where 9 suffice", requests.len());
    ledger.balance().expect("balanced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_value_too_many_is_refused_for_good_and_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let told = Arc::new(Told::default());
    let (graph, intake, ledger) = start(Setup {
        journal: Some(open(directory.path())),
        take: Take {
            apart: apart(&["x-tenant"], 2),
            ..Take::default()
        },
        exporters: vec![("told", Sink::Exporter(told.clone()), quick())],
    });
    // None at all is a value too, and so is an empty one.
    push_all(&intake, [from(&[("x-tenant", "a")], [1]), from(&[], [2_000])]).await;
    for more in [
        &[("x-tenant", "b")][..],
        &[("x-tenant", "")],
        &[("x-tenant", "a"), ("x-tenant", "a")],
    ] {
        let Outcome::Rejected { reason, items: 1 } = intake.push(from(more, [1_000])).await else {
            panic!("{more:?} was not rejected");
        };
        assert_eq!(reason.kind, Reason::MetadataLimit);
        assert!(reason.message.contains("`batch`") && reason.message.contains("seen 2 different values"));
    }
    push_all(&intake, [from(&[("x-tenant", "a")], [2])]).await;
    told.backend.has(3).await;
    graph.drain(GRACE).await;
    check_apart(&told.requests());
    let books = ledger.snapshot();
    assert_eq!(books.doors[0].rejected.0, [(Reason::MetadataLimit, 3)]);
    ledger.balance().expect("balanced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_batch_processor_exporters_say_what_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    for journal in [Some(open(directory.path())), None] {
        let told = Arc::new(Told {
            names: vec!["x-tenant"],
            ..Told::default()
        });
        let (graph, intake, _) = start(Setup {
            journal,
            take: Take::default(),
            exporters: vec![("told", Sink::Exporter(told.clone()), quick())],
        });
        assert_eq!(intake.metadata_keys(Signal::Traces), ["x-tenant".into()]);
        push_all(&intake, interleaved(0..30)).await;
        told.backend.has(900).await;
        graph.drain(GRACE).await;
        check_apart(&told.requests());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_processor_without_keys_keeps_nothing_as_in_the_collector() {
    let directory = tempfile::tempdir().expect("a directory");
    for journal in [Some(open(directory.path())), None] {
        let told = Arc::new(Told {
            names: vec!["x-tenant"],
            ..Told::default()
        });
        let (graph, intake, _) = start(Setup {
            journal,
            take: Take {
                apart: apart(&[], 1000),
                ..Take::default()
            },
            exporters: vec![("told", Sink::Exporter(told.clone()), quick())],
        });
        push_all(&intake, [from(&[("x-tenant", "a")], [1])]).await;
        told.backend.has(1).await;
        graph.drain(GRACE).await;
        assert_eq!(told.requests(), [(headers(&[]), vec![1])]);
    }
}

/// An exporter could name more than a receiver keeps, and each request that had them was refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_names_than_a_request_keeps_are_told_at_the_start() {
    const NAMES: [&str; 33] = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t", "u", "v",
        "w", "x", "y", "z", "1", "2", "3", "4", "5", "6", "7",
    ];
    let graph = |names: &[&'static str]| {
        let told = Told {
            names: names.to_vec(),
            ..Told::default()
        };
        Graph::start(Parts {
            pipelines: vec![PipelinePart {
                exporters: vec![ExporterPart {
                    name: "told".into(),
                    sink: Sink::Exporter(Arc::new(told)),
                    sending: quick(),
                }],
                ..part("traces", Signal::Traces, "otlp")
            }],
            connectors: Vec::new(),
            journal: None,
            budget: Budget::root("process", 1 << 30),
            ledger: Ledger::new(),
            runtime: Handle::current(),
        })
    };
    let told = graph(&NAMES).err().expect("33 are too many").to_string();
    assert!(
        told.contains("`otlp` 33 different headers") && told.contains("at most 32"),
        "{told}"
    );
    graph(&NAMES[1..]).expect("32 are not").drain(GRACE).await;
}

fn part(name: &str, signal: Signal, receiver: &str) -> PipelinePart {
    PipelinePart {
        name: name.into(),
        signal,
        receivers: vec![receiver.into()],
        in_request: Vec::new(),
        stages: Vec::new(),
        take: Take::default(),
        exporters: Vec::new(),
        connectors: Vec::new(),
    }
}

/// Gives out what it takes.
struct Through;

impl Stage for Through {
    fn restore(&mut self, _: &State) -> Result<(), BadState> {
        Ok(())
    }

    fn take(&mut self, batch: Batch, out: &mut Vec<Batch>) {
        out.push(batch);
    }

    fn state(&mut self, _: bool) -> State {
        State::Whole(Bytes::new())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pipeline_behind_a_connector_keeps_goes_through_the_one_before_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let told = Arc::new(Told::default());
    let before = PipelinePart {
        connectors: vec!["through".into()],
        ..part("traces/before", Signal::Traces, "otlp")
    };
    let behind = PipelinePart {
        stages: vec![pipeline::graph::StagePart {
            name: "stage".into(),
            make: Arc::new(|| Box::new(Through)),
            then: Vec::new(),
        }],
        take: Take {
            apart: apart(&["x-tenant"], 1000),
            ..Take::default()
        },
        exporters: vec![ExporterPart {
            name: "told".into(),
            sink: Sink::Exporter(told.clone()),
            sending: quick(),
        }],
        ..part("traces/behind", Signal::Traces, "through")
    };
    let ledger = Ledger::new();
    let graph = Graph::start(Parts {
        pipelines: vec![before, behind],
        connectors: vec![ConnectorPart {
            name: "through".into(),
            make: Arc::new(|| Box::new(Through)),
        }],
        journal: Some(open(directory.path())),
        budget: Budget::root("process", 1 << 30),
        ledger: ledger.clone(),
        runtime: Handle::current(),
    })
    .expect("the graph starts");
    let intake = graph.intake("otlp").expect("the pipeline names it");
    push_all(&intake, interleaved(0..30)).await;
    told.backend.has(900).await;
    graph.drain(GRACE).await;
    check_apart(&told.requests());
    ledger.balance().expect("balanced");
}

/// What a connector counts carries no headers, so those that are named behind it were written to the journal and read by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_named_behind_a_connector_that_counts_is_not_kept_before_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let exporter = |told: Told| ExporterPart {
        name: "told".into(),
        sink: Sink::Exporter(Arc::new(told)),
        sending: quick(),
    };
    let naming = |names: &[&'static str]| Told {
        names: names.to_vec(),
        ..Told::default()
    };
    let spans = PipelinePart {
        connectors: vec!["counting".into()],
        exporters: vec![exporter(naming(&["x-team"]))],
        ..part("traces", Signal::Traces, "otlp")
    };
    let counted = PipelinePart {
        exporters: vec![exporter(naming(&["x-tenant"]))],
        ..part("metrics", Signal::Metrics, "counting")
    };
    let graph = Graph::start(Parts {
        pipelines: vec![spans, counted],
        connectors: vec![ConnectorPart {
            name: "counting".into(),
            make: Arc::new(|| Box::new(Through)),
        }],
        journal: Some(open(directory.path())),
        budget: Budget::root("process", 1 << 30),
        ledger: Ledger::new(),
        runtime: Handle::current(),
    })
    .expect("the graph starts");
    let intake = graph.intake("otlp").expect("the pipeline names it");
    assert_eq!(intake.metadata_keys(Signal::Traces), ["x-team".into()]);
    graph.drain(GRACE).await;
}
