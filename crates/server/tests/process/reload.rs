//! SIGHUP under load, over HTTP and gRPC: no connection is refused, every request is answered, and everything that was acknowledged arrives, whatever the new file says.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::kill::{SPANS_A_REQUEST, spans};
use crate::running::{Ports, get, post};

const RELOADS: usize = 10;
const SENDERS: usize = 3;
/// Acknowledgements between two reloads, so that each falls into load.
const ACKS_BETWEEN: usize = 20;
/// Generous, because debug builds run beside other tests.
const WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

struct Collector {
    child: Child,
    directory: PathBuf,
    ports: Ports,
    journal: &'static str,
}

impl Collector {
    fn start(directory: &Path, journal: &'static str) -> Collector {
        let ports = Ports::free();
        let log = File::create(directory.join("log")).expect("creates");
        let mut collector = Collector {
            // Replaced below; nothing else could be there before the file is written.
            child: Command::new("true").spawn().expect("starts"),
            directory: directory.to_owned(),
            ports,
            journal,
        };
        collector.child.wait().expect("ends");
        collector.write(&collector.yaml(0));
        collector.child = Command::new(env!("CARGO_BIN_EXE_trackline"))
            .arg("--config")
            .arg(directory.join("collector.yaml"))
            .current_dir(directory)
            .stdout(Stdio::null())
            .stderr(log)
            .env_remove("RUST_LOG")
            .spawn()
            .expect("the binary starts");
        collector.wait_for("an answer", |it| matches!(get(it.ports.health, "/"), Some((200, _))));
        collector
    }

    /// Every generation changes an attribute; a pipeline and its exporter come and go.
    fn yaml(&self, generation: usize) -> String {
        let (more_exporters, more_pipelines) = match generation % 3 {
            1 => (
                format!("  file/b{generation}: {{ path: sink-b.jsonl }}\n"),
                format!("    traces/b: {{ receivers: [otlp], exporters: [file/b{generation}] }}\n"),
            ),
            _ => (String::new(), String::new()),
        };
        // The store is there where a journal is: what it keeps must be there once after any number of reloads.
        let (store, query, answers, kept) = match self.journal {
            "none" => Default::default(),
            _ => (
                format!("  store: {{ retention: {}d }}\n", generation + 1),
                format!(", query: {{ endpoint: \"127.0.0.1:{}\" }}", self.ports.query),
                ", query",
                ", store",
            ),
        };
        format!(
            "receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: \"127.0.0.1:{}\" }}, grpc: {{ endpoint: \"127.0.0.1:{}\" }} }} }} }}\n\
             processors:\n  resource: {{ attributes: [{{ key: generation, value: \"g{generation}\", action: upsert }}] }}\n\
             exporters:\n  file: {{ path: sink.jsonl }}\n{more_exporters}\
             {store}\
             extensions: {{ health_check: {{ endpoint: \"127.0.0.1:{}\" }}{query} }}\n\
             service:\n  journal: {}\n  extensions: [health_check{answers}]\n  pipelines:\n    \
             traces: {{ receivers: [otlp], processors: [resource], exporters: [file{kept}] }}\n{more_pipelines}",
            self.ports.http, self.ports.grpc, self.ports.health, self.journal
        )
    }

    fn write(&self, yaml: &str) {
        std::fs::write(self.directory.join("collector.yaml"), yaml).expect("writes");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .arg(signal)
            .arg(self.child.id().to_string())
            .status();
        assert!(sent.expect("kill runs").success());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn says(&self, what: &str) -> usize {
        self.log().matches(what).count()
    }

    fn wait_for(&self, what: &str, there: impl Fn(&Collector) -> bool) {
        let deadline = Instant::now() + WITHIN;
        while !there(self) {
            assert!(Instant::now() < deadline, "no {what} within {WITHIN:?}\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Already ended after a stop; a failed test leaves nothing behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn reloads_lose_and_refuse_nothing() {
    reload_under_load("{ fsync: off }");
}

#[test]
fn reloads_without_a_journal_lose_and_refuse_nothing() {
    reload_under_load("none");
}

fn reload_under_load(journal: &'static str) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut collector = Collector::start(directory.path(), journal);
    let (acked, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let (next, stop) = (AtomicU64::new(1), AtomicBool::new(false));
    let (port, grpc) = (collector.ports.http, collector.ports.grpc);
    std::thread::scope(|scope| {
        // Whatever panics below, the senders end.
        let ending = Ending(&stop);
        for _ in 0..SENDERS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    match post(port, "/v1/traces", &spans(number)) {
                        Some(200) => acked.lock().expect("no panic").push(number),
                        other => failed.lock().expect("no panic").push((number, other)),
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut client = Grpc::default();
            while !stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                match client.export(grpc, &spans(number)) {
                    Ok(()) => acked.lock().expect("no panic").push(number),
                    Err(status) => failed.lock().expect("no panic").push((number, Some(status))),
                }
            }
        });
        for generation in 1..=RELOADS {
            let enough = acked.lock().expect("no panic").len() + ACKS_BETWEEN;
            collector.wait_for("load", |_| acked.lock().expect("no panic").len() >= enough);
            // A bad file in between changes nothing.
            collector.write("receivers: { otlp: { protocol: } }\n");
            collector.signal("-HUP");
            collector.wait_for("refusal", |it| it.says("is refused, the old one stays") == generation);
            collector.write(&collector.yaml(generation));
            collector.signal("-HUP");
            collector.wait_for("reload", |it| it.says("the new configuration runs") == generation);
        }
        let enough = acked.lock().expect("no panic").len() + ACKS_BETWEEN;
        collector.wait_for("load", |_| acked.lock().expect("no panic").len() >= enough);
        drop(ending);
    });
    if journal != "none" {
        collector.wait_for("an answer", |it| matches!(get(it.ports.health, "/"), Some((200, _))));
        for number in acked.lock().expect("no panic").iter() {
            let path = format!("/api/trackline/v1/tracking/{number:032x}");
            let (status, story) = get(collector.ports.query, &path).expect("an answer");
            let story: serde_json::Value = serde_json::from_slice(&story).expect("JSON");
            let found = story["trace"]["span_count"].as_u64();
            assert_eq!((status, found), (200, Some(SPANS_A_REQUEST)), "request {number}");
        }
    }
    collector.signal("-TERM");
    let ended = collector.child.wait().expect("the process ends");
    assert_eq!(ended.code(), Some(0), "{}", collector.log());

    let failed = failed.into_inner().expect("no panic");
    assert!(failed.is_empty(), "{failed:?}\n{}", collector.log());
    let sink = std::fs::read_to_string(directory.path().join("sink.jsonl")).expect("the sink is there");
    let arrived: HashSet<&str> = sink.split("\"traceId\":\"").skip(1).map(|rest| &rest[..32]).collect();
    let acked = acked.into_inner().expect("no panic");
    assert!(acked.len() > RELOADS * ACKS_BETWEEN);
    for number in &acked {
        let id = format!("{number:032x}");
        assert!(
            arrived.contains(&*id),
            "request {number} of {} is missing\n{}",
            acked.len(),
            collector.log()
        );
    }
    for generation in 0..=RELOADS {
        assert!(
            sink.contains(&format!("\"g{generation}\"")),
            "generation {generation} left no trace"
        );
    }
    assert!(
        collector.says("did you mean `protocols`?") == RELOADS,
        "{}",
        collector.log()
    );
}

/// A client that keeps its connection, and looks for another when it is told that this one will take no more: what gRPC's libraries do.
#[derive(Default)]
struct Grpc {
    sender: Option<SendRequest<Full<Bytes>>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Grpc {
    /// The status where it is not OK; 14, as a client has it, where the connection broke with the request on it.
    fn export(&mut self, port: u16, message: &[u8]) -> Result<(), u16> {
        const UNAVAILABLE: u16 = 14;
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).expect("a short message"));
        framed.put_slice(message);
        let framed = framed.freeze();
        let runtime = self.runtime.get_or_insert_with(|| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(1).enable_all().build().expect("a runtime")
        });
        runtime.block_on(async {
            loop {
                let mut sender = match self.sender.take() {
                    Some(sender) => sender,
                    None => connect(port).await,
                };
                if sender.ready().await.is_err() {
                    continue;
                }
                let request = hyper::Request::post(format!(
                    "http://127.0.0.1:{port}/opentelemetry.proto.collector.trace.v1.TraceService/Export"
                ))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(Full::new(framed.clone()))
                .expect("a request");
                let response = match sender.send_request(request).await {
                    Ok(response) => response,
                    // It never left.
                    Err(error) if error.is_canceled() => continue,
                    Err(_) => return Err(UNAVAILABLE),
                };
                self.sender = Some(sender);
                let (head, body) = response.into_parts();
                let body = body.collect().await.map_err(|_| UNAVAILABLE)?;
                let trailers = body.trailers().unwrap_or(&head.headers);
                let status = trailers
                    .get("grpc-status")
                    .and_then(|status| status.to_str().ok()?.parse().ok());
                return match status.unwrap_or(UNAVAILABLE) {
                    0 => Ok(()),
                    status => Err(status),
                };
            }
        })
    }
}

async fn connect(port: u16) -> SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("no connection is refused");
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_cannot_start_leaves_the_old_one_running() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut collector = Collector::start(directory.path(), "{ fsync: off }");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let taken = taken.local_addr().expect("an address").to_string();
    let moved = collector
        .yaml(1)
        .replace(&format!("127.0.0.1:{}", collector.ports.health), &taken);
    collector.write(&moved);
    collector.signal("-HUP");
    collector.wait_for("refusal", |it| it.says("is refused, the old one stays") == 1);
    collector.wait_for("an answer", |it| matches!(get(it.ports.health, "/"), Some((200, _))));
    assert_eq!(post(collector.ports.http, "/v1/traces", &spans(7)), Some(200));
    collector.signal("-TERM");
    assert_eq!(collector.child.wait().expect("the process ends").code(), Some(0));
    let sink = std::fs::read_to_string(directory.path().join("sink.jsonl")).expect("the sink is there");
    assert!(
        sink.contains(&format!("{:032x}", 7)) && sink.contains("\"g0\""),
        "{sink}"
    );
}
