//! Brokers that answer as a test says: one of two that is away or silent, partitions that move, answers that are none.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pipeline::{Exporter, Outcome, Reason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{kafka, read, spans};

/// What the brokers are to say, and what they saw.
#[derive(Default)]
struct Script {
    ports: Vec<u16>,
    /// The broker that leads each partition.
    leaders: Vec<i32>,
    /// What each broker says of a record batch.
    says: Vec<Said>,
    /// Broker, partition, and the spans of each record batch that was taken.
    taken: Vec<Taken>,
    metadata_asked: usize,
    /// Brokers that were handed something, in order.
    asked: Vec<usize>,
}

type Taken = (usize, i32, Vec<(u8, String)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Code(i16),
    Nothing,
    Garbage,
    /// Taken, with the wish to be left alone for so many milliseconds.
    Slower(i32),
}

#[derive(Clone, Default)]
struct Cluster {
    script: Arc<Mutex<Script>>,
}

impl Cluster {
    /// So many brokers, each of which leads one partition.
    async fn start(brokers: usize) -> Cluster {
        let cluster = Cluster::default();
        for broker in 0..brokers {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            {
                let mut script = cluster.script.lock().expect("no panic");
                script.ports.push(listener.local_addr().expect("bound").port());
                script.leaders.push(broker as i32);
                script.says.push(Said::Code(0));
            }
            let cluster = cluster.clone();
            tokio::spawn(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let cluster = cluster.clone();
                    tokio::spawn(async move { cluster.serve(broker, socket).await });
                }
            });
        }
        cluster
    }

    fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.script.lock().expect("no panic"))
    }

    fn exporter(&self, more: &str) -> exporters::kafka::Kafka {
        let brokers: Vec<String> =
            self.script(|script| script.ports.iter().map(|port| format!("'127.0.0.1:{port}'")).collect());
        kafka(&format!(
            "brokers: [ {} ], partition_traces_by_id: true, {more}",
            brokers.join(", ")
        ))
    }

    /// Names of all spans that were taken, in the order of the alphabet.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.script(|script| {
            let spans = script.taken.iter().flat_map(|(_, _, spans)| spans);
            spans.map(|(_, name)| name.clone()).collect()
        });
        names.sort();
        names
    }

    async fn serve(self, broker: usize, mut socket: TcpStream) {
        while let Ok(length) = socket.read_u32().await {
            let mut request = vec![0; length as usize];
            if socket.read_exact(&mut request).await.is_err() {
                return;
            }
            let (key, rest) = (i16::from_be_bytes([request[0], request[1]]), &request[4..]);
            let (correlation, rest) = rest.split_at(4);
            let mut rest = rest;
            take_text(&mut rest); // client id
            let body = match key {
                0 => self.produce(broker, rest),
                3 => Some(self.metadata()),
                other => panic!("the api {other} was not expected"),
            };
            let Some(body) = body else { continue };
            let answer = [correlation, &body].concat();
            let length = (answer.len() as u32).to_be_bytes();
            if socket.write_all(&[&length[..], &answer].concat()).await.is_err() {
                return;
            }
        }
    }

    fn metadata(&self) -> Vec<u8> {
        self.script(|script| {
            script.metadata_asked += 1;
            let mut out = 0i32.to_be_bytes().to_vec();
            out.extend((script.ports.len() as i32).to_be_bytes());
            for (id, port) in script.ports.iter().enumerate() {
                out.extend((id as i32).to_be_bytes());
                put_text(&mut out, "127.0.0.1");
                out.extend(i32::from(*port).to_be_bytes());
                out.extend((-1i16).to_be_bytes());
            }
            out.extend((-1i16).to_be_bytes());
            out.extend(0i32.to_be_bytes());
            out.extend(1i32.to_be_bytes());
            out.extend(0i16.to_be_bytes());
            put_text(&mut out, "otlp_spans");
            out.push(0);
            out.extend((script.leaders.len() as i32).to_be_bytes());
            for (index, leader) in script.leaders.iter().enumerate() {
                out.extend(0i16.to_be_bytes());
                out.extend((index as i32).to_be_bytes());
                out.extend(leader.to_be_bytes());
                out.extend([0; 8]); // no replicas, none in sync
            }
            out
        })
    }

    /// Notes what is to be taken, and answers as the script says.
    fn produce(&self, broker: usize, mut rest: &[u8]) -> Option<Vec<u8>> {
        let rest = &mut rest;
        take(rest, 2 + 2 + 4);
        let said = self.script(|script| {
            script.asked.push(broker);
            script.says[broker]
        });
        let mut answer = Vec::new();
        let topics = take_i32(rest);
        answer.extend(topics.to_be_bytes());
        for _ in 0..topics {
            let topic = take_text(rest);
            put_text(&mut answer, &topic);
            answer.extend(1i32.to_be_bytes());
            assert_eq!(take_i32(rest), 1);
            let partition = take_i32(rest);
            let length = take_i32(rest) as usize;
            let batch = take(rest, length);
            let is_leader = self.script(|script| script.leaders[partition as usize] == broker as i32);
            let code = match said {
                _ if !is_leader => 6,
                Said::Code(code) => code,
                _ => 0,
            };
            if code == 0 && !matches!(said, Said::Nothing | Said::Garbage) {
                let spans = spans_of(batch);
                self.script(|script| script.taken.push((broker, partition, spans)));
            }
            answer.extend(partition.to_be_bytes());
            answer.extend(code.to_be_bytes());
            answer.extend([0; 16]);
        }
        match said {
            Said::Nothing => None,
            Said::Garbage => Some(vec![0x7f; 9]),
            Said::Slower(ms) => {
                answer.extend(ms.to_be_bytes());
                Some(answer)
            }
            Said::Code(_) => {
                answer.extend(0i32.to_be_bytes());
                Some(answer)
            }
        }
    }
}

/// The spans of a record batch that is not packed.
fn spans_of(batch: &[u8]) -> Vec<(u8, String)> {
    let mut rest = &batch[57..];
    let count = take_i32(&mut rest);
    let mut spans = Vec::new();
    for _ in 0..count {
        let length = take_varint(&mut rest);
        let mut record = take(&mut rest, length as usize);
        take(&mut record, 1);
        take_varint(&mut record);
        take_varint(&mut record);
        let key = take_varint(&mut record);
        take(&mut record, key.max(0) as usize);
        let value = take_varint(&mut record);
        spans.extend(read(take(&mut record, value as usize)));
    }
    spans
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at(length);
    *rest = after;
    taken
}

fn take_i32(rest: &mut &[u8]) -> i32 {
    i32::from_be_bytes(take(rest, 4).try_into().expect("four"))
}

fn take_text(rest: &mut &[u8]) -> String {
    let length = i16::from_be_bytes(take(rest, 2).try_into().expect("two"));
    String::from_utf8(take(rest, length as usize).to_vec()).expect("a text")
}

fn take_varint(rest: &mut &[u8]) -> i64 {
    let (mut number, mut shift) = (0u64, 0);
    loop {
        let byte = take(rest, 1)[0];
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return (number >> 1) as i64 ^ -((number & 1) as i64);
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as i16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// Traces of both partitions: the keys of 1 to 8 do not all have one hash.
fn of_both() -> model::Batch {
    spans(&[
        (1, "s", "a"),
        (2, "s", "b"),
        (3, "s", "c"),
        (4, "s", "d"),
        (5, "s", "e"),
        (6, "s", "f"),
        (7, "s", "g"),
        (8, "s", "h"),
    ])
}

const ALL: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

#[tokio::test]
async fn what_one_broker_took_is_not_sent_again() {
    let cluster = Cluster::start(2).await;
    cluster.script(|script| script.says[1] = Said::Code(7));
    let (exporter, batch) = (cluster.exporter(""), of_both());
    let again = Outcome::retry(Duration::ZERO, Reason::BackendUnavailable);
    for _ in 0..3 {
        assert_eq!(exporter.export(batch.clone()).await, again);
    }
    let first = cluster.names();
    assert!(!first.is_empty() && first.len() < 8, "{first:?}");
    cluster.script(|script| script.says[1] = Said::Code(0));
    assert_eq!(exporter.export(batch).await, Outcome::Delivered);
    assert_eq!(cluster.names(), ALL);
}

#[tokio::test]
async fn an_attempt_whose_time_is_up_leaves_what_was_answered() {
    let cluster = Cluster::start(2).await;
    cluster.script(|script| script.says[1] = Said::Nothing);
    let (exporter, batch) = (cluster.exporter(""), of_both());
    let both_asked = async {
        while !cluster.script(|script| script.asked.contains(&0) && script.asked.contains(&1)) {
            tokio::task::yield_now().await;
        }
        // The other's answer has to be read as well.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        outcome = exporter.export(batch.clone()) => panic!("one of them says nothing, but {outcome:?}"),
        () = both_asked => {}
    }
    cluster.script(|script| script.says[1] = Said::Code(0));
    assert_eq!(exporter.export(batch).await, Outcome::Delivered);
    assert_eq!(cluster.names(), ALL);
}

#[tokio::test]
async fn a_partition_that_moved_is_followed_within_the_attempt() {
    let cluster = Cluster::start(2).await;
    let (exporter, batch) = (cluster.exporter("metadata: { retry: { backoff: 1ms } }"), of_both());
    assert_eq!(exporter.export(batch).await, Outcome::Delivered);
    cluster.script(|script| script.leaders = vec![0, 0]);
    cluster.script(|script| script.taken.clear());
    assert_eq!(exporter.export(of_both()).await, Outcome::Delivered);
    assert_eq!(cluster.names(), ALL);
    assert!(cluster.script(|script| script.taken.iter().all(|(broker, _, _)| *broker == 0)));
    assert_eq!(cluster.script(|script| script.metadata_asked), 2);
    // Nobody leads one of them: the others are served, and it is asked for as often as is allowed.
    cluster.script(|script| script.leaders = vec![0, -1]);
    let batch = of_both();
    let again = Outcome::retry(Duration::ZERO, Reason::BackendUnavailable);
    assert_eq!(exporter.export(batch.clone()).await, again);
    cluster.script(|script| script.leaders = vec![0, 1]);
    cluster.script(|script| script.taken.retain(|_| false));
    assert_eq!(exporter.export(batch).await, Outcome::Delivered);
    assert!(cluster.script(|script| script.taken.iter().all(|(broker, _, _)| *broker == 1)));
}

#[tokio::test]
async fn what_is_refused_for_good_is_counted_and_all_else_is_tried_again() {
    let cluster = Cluster::start(1).await;
    let exporter = cluster.exporter("");
    for code in [17, 32, 43, 87] {
        cluster.script(|script| script.says[0] = Said::Code(code));
        let outcome = exporter.export(of_both()).await;
        let refused =
            matches!(&outcome, Outcome::Rejected { reason, items: 8 } if reason.kind == Reason::BackendRejected);
        assert!(refused, "{code}: {outcome:?}");
    }
    // A server's fault, a full disk, missing rights, a code of next year's.
    for code in [-1, 2, 7, 19, 20, 29, 56, 999] {
        cluster.script(|script| script.says[0] = Said::Code(code));
        let outcome = exporter.export(of_both()).await;
        assert!(matches!(outcome, Outcome::Retry { .. }), "{code}: {outcome:?}");
    }
    cluster.script(|script| script.says[0] = Said::Garbage);
    let outcome = exporter.export(of_both()).await;
    assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_broker_that_asks_to_slow_down_has_taken_it_all_the_same() {
    let cluster = Cluster::start(1).await;
    cluster.script(|script| script.says[0] = Said::Slower(1));
    assert_eq!(cluster.exporter("").export(of_both()).await, Outcome::Delivered);
    assert_eq!(cluster.names(), ALL, "once");
}

#[tokio::test]
async fn record_batches_are_no_larger_than_a_message_may_be() {
    let cluster = Cluster::start(1).await;
    let exporter = cluster.exporter("producer: { max_message_bytes: 1000, flush_max_messages: 2 }");
    assert_eq!(exporter.export(of_both()).await, Outcome::Delivered);
    assert_eq!(cluster.names(), ALL);
    assert!(cluster.script(|script| script.taken.len()) >= 4);
    let long = "x".repeat(900);
    let (a, b) = ("a".repeat(400), "b".repeat(400));
    let batch = spans(&[(1, "s", &a), (1, "s", &long), (1, "s", &b)]);
    let outcome = exporter.export(batch).await;
    assert!(
        matches!(&outcome, Outcome::Rejected { reason, items: 1 } if reason.kind == Reason::TooLarge),
        "{outcome:?}"
    );
    assert!(cluster.names().contains(&a) && cluster.names().contains(&b));
}
