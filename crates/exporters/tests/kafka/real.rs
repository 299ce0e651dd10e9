//! A real broker: Apache Kafka's own, from the folder of jars that `TRACKLINE_TEST_KAFKA` names (`.ci/kafka` fetches them), read back with librdkafka.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pipeline::{Exporter, Outcome, Reason};
use serde_json::Value;

use super::{kafka, read, spans};

/// A broker on an old machine takes its time to start.
const GRACE: Duration = Duration::from_secs(120);

fn skipped(why: &str) {
    // Straight to standard error: what a passing test prints with a macro is not shown.
    let _ = std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes());
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn python() -> String {
    std::env::var("TRACKLINE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// A cluster of one broker, in a directory of its own.
struct Broker {
    directory: tempfile::TempDir,
    jars: PathBuf,
    process: Child,
    open: u16,
    sasl: u16,
    tls: u16,
}

impl Broker {
    /// Starts one, if this machine can.
    fn start() -> Option<Broker> {
        let Ok(jars) = std::env::var("TRACKLINE_TEST_KAFKA") else {
            skipped("TRACKLINE_TEST_KAFKA names no folder with Kafka's jars");
            return None;
        };
        let probe = Command::new(python()).args(["-c", "import confluent_kafka"]).output();
        if !probe.is_ok_and(|output| output.status.success()) {
            skipped("TRACKLINE_TEST_PYTHON has no confluent_kafka");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let ports: Vec<TcpListener> = (0..4)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
            .collect();
        let [open, sasl, tls, control] = std::array::from_fn(|at| ports[at].local_addr().expect("bound").port());
        drop(ports);
        let fixtures = root().join("crates/net/tests/fixtures");
        let pem = |name: &str| std::fs::read_to_string(fixtures.join(name)).expect("a fixture");
        std::fs::write(
            directory.path().join("store.pem"),
            pem("localhost.key") + &pem("localhost.crt"),
        )
        .expect("writes");
        let at = directory.path().display();
        let login = "org.apache.kafka.common.security";
        let settings = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{control}\n\
             listeners=PLAINTEXT://127.0.0.1:{open},SASL_PLAINTEXT://127.0.0.1:{sasl},SSL://localhost:{tls},CONTROLLER://127.0.0.1:{control}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL\ninter.broker.listener.name=PLAINTEXT\nlog.dirs={at}/data\noffsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\ntransaction.state.log.replication.factor=1\nnum.partitions=4\ngroup.initial.rebalance.delay.ms=0\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
             listener.name.sasl_plaintext.plain.sasl.jaas.config={login}.plain.PlainLoginModule required user_me=\"secret\";\n\
             listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config={login}.scram.ScramLoginModule required;\n\
             listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config={login}.scram.ScramLoginModule required;\n\
             ssl.keystore.type=PEM\nssl.keystore.location={at}/store.pem\n"
        );
        std::fs::write(directory.path().join("settings"), settings).expect("writes");
        let mut format = java(Path::new(&jars), directory.path(), "kafka.tools.StorageTool");
        format.args(["format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c", "settings"]);
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            format.args(["-S", &format!("{mechanism}=[name=me,password=secret]")]);
        }
        let formatted = format.output().expect("java runs");
        assert!(
            formatted.status.success(),
            "{}",
            String::from_utf8_lossy(&formatted.stderr)
        );
        let process = run(Path::new(&jars), directory.path());
        let broker = Broker {
            directory,
            jars: jars.into(),
            process,
            open,
            sasl,
            tls,
        };
        broker.wait();
        Some(broker)
    }

    /// Waits until it serves.
    fn wait(&self) {
        let deadline = Instant::now() + GRACE;
        let log = self.directory.path().join("log");
        while !std::fs::read_to_string(&log).is_ok_and(|log| log.contains("Kafka Server started")) {
            assert!(
                Instant::now() < deadline,
                "it does not start: {}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            std::thread::yield_now();
        }
    }

    fn stop(&mut self) {
        self.process.kill().expect("ours");
        self.process.wait().expect("ours");
    }

    fn start_again(&mut self) {
        self.process = run(&self.jars, self.directory.path());
        self.wait();
    }

    fn topics(&self, arguments: &[&str]) -> Value {
        let output = Command::new(python())
            .arg(root().join("conformance/clients/python/kafka_topics.py"))
            .arg(format!("127.0.0.1:{}", self.open))
            .args(arguments)
            .output()
            .expect("Python runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// So many messages of a topic: partition, key and value.
    fn read(&self, topic: &str, count: usize) -> Vec<Message> {
        let found = self.topics(&["read", topic, &count.to_string()]);
        let messages = found.as_array().expect("a list").iter().map(|message| {
            let hex = message["value"].as_str().expect("a text").as_bytes();
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex");
            Message {
                partition: message["partition"].as_i64().expect("a number"),
                key: message["key"].as_str().map(str::to_owned),
                value: hex.chunks(2).map(byte).collect(),
                headers: message["headers"].to_string(),
            }
        });
        let messages: Vec<Message> = messages.collect();
        assert_eq!(messages.len(), count, "{topic}");
        messages
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Message {
    partition: i64,
    key: Option<String>,
    value: Vec<u8>,
    headers: String,
}

fn java(jars: &Path, directory: &Path, class: &str) -> Command {
    let mut java = Command::new("java");
    java.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(jars.join("*"))
        .arg(class)
        .current_dir(directory);
    java
}

fn run(jars: &Path, directory: &Path) -> Child {
    let log = || std::fs::File::create(directory.join("log")).expect("writes");
    let log = log();
    let again = log.try_clone().expect("a file");
    java(jars, directory, "kafka.Kafka")
        .arg("settings")
        .stdout(Stdio::from(log))
        .stderr(Stdio::from(again))
        .spawn()
        .expect("java runs")
}

/// Repeats as the graph does, until there is a final answer.
async fn settle(exporter: &exporters::kafka::Kafka, batch: &model::Batch) -> Outcome {
    let deadline = Instant::now() + GRACE;
    loop {
        match exporter.export(batch.clone()).await {
            Outcome::Retry { .. } if Instant::now() < deadline => tokio::task::yield_now().await,
            outcome => return outcome,
        }
    }
}

#[tokio::test]
async fn a_real_broker_takes_what_librdkafka_reads() {
    let Some(mut broker) = Broker::start() else { return };
    let at = format!("brokers: [ '127.0.0.1:{}' ]", broker.open);
    let batch = spans(&[(1, "a", "one"), (2, "a", "two"), (1, "b", "three"), (3, "b", "four")]);

    // Every way to pack, each to a topic that the broker makes by itself.
    for packing in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let producer = format!("producer: {{ compression: {packing}, required_acks: -1 }}");
        let exporter = kafka(&format!(
            "{at}, traces: {{ topic: {packing} }}, {producer}, record_headers: {{ from: us }}"
        ));
        assert_eq!(settle(&exporter, &batch).await, Outcome::Delivered, "{packing}");
        let message = &broker.read(packing, 1)[0];
        assert_eq!(
            (&message.key, message.value.as_slice()),
            (&None, &batch.payload[..]),
            "{packing}"
        );
        assert_eq!(message.headers, r#"{"from":"us"}"#);
    }

    // Keyed by trace, where Kafka's own clients put that key.
    let exporter = kafka(&format!(
        "{at}, partition_traces_by_id: true, traces: {{ topic: keyed }}, record_partitioner: {{ sticky_key: {{ hasher: murmur2 }} }}"
    ));
    broker.topics(&["make", "keyed", "8"]);
    assert_eq!(settle(&exporter, &batch).await, Outcome::Delivered);
    let mut partitions = std::collections::BTreeMap::new();
    for message in broker.read("keyed", 3) {
        let key = message.key.expect("has one");
        let trace = u8::from_str_radix(&key[..2], 16).expect("hex");
        assert_eq!(key, format!("{trace:02x}{}", "0".repeat(30)));
        let spans = read(&message.value);
        assert_eq!(spans.len(), if trace == 1 { 2 } else { 1 });
        assert!(spans.iter().all(|(of, _)| *of == trace));
        let theirs = broker.topics(&["write", "keyed", &key]);
        assert_eq!(theirs["partition"], message.partition, "{key}");
        partitions.insert(trace, message.partition);
    }
    assert!(
        partitions.values().any(|partition| *partition != partitions[&1]),
        "{partitions:?}"
    );

    // A topic by attribute, JSON, and nobody who answers.
    let exporter = kafka(&format!(
        "{at}, topic_from_attribute: service.name, traces: {{ encoding: otlp_json }}, producer: {{ required_acks: 0 }}"
    ));
    for topic in ["a", "b"] {
        broker.topics(&["make", topic, "1"]);
    }
    assert_eq!(settle(&exporter, &batch).await, Outcome::Delivered);
    for (topic, names) in [("a", ["one", "two"]), ("b", ["three", "four"])] {
        let json: Value = serde_json::from_slice(&broker.read(topic, 1)[0].value).expect("JSON");
        let spans = json["resourceSpans"][0]["scopeSpans"][0]["spans"]
            .as_array()
            .expect("a list");
        let found: Vec<&str> = spans.iter().filter_map(|span| span["name"].as_str()).collect();
        assert_eq!(found, names);
    }

    // A topic that takes less than we were told: what is too large goes in pieces, and a single item that is too large is counted.
    broker.topics(&["make", "small", "2", "max.message.bytes=2000"]);
    let exporter = kafka(&format!("{at}, traces: {{ topic: small }}, timeout: 30s"));
    let long = "x".repeat(700);
    let huge = "y".repeat(3_000);
    let many = spans(&[
        (1, "a", &long),
        (1, "a", &long),
        (1, "a", &long),
        (1, "a", &huge),
        (1, "a", &long),
    ]);
    let outcome = settle(&exporter, &many).await;
    assert!(
        matches!(&outcome, Outcome::Rejected { reason, items: 1 } if reason.kind == Reason::TooLarge),
        "{outcome:?}"
    );
    let messages = broker.read("small", 3);
    let names: Vec<String> = messages
        .iter()
        .flat_map(|message| read(&message.value))
        .map(|(_, name)| name)
        .collect();
    assert_eq!(names, [&long[..]; 4]);

    // Names and passwords.
    let sasl = format!("brokers: [ '127.0.0.1:{}' ], traces: {{ topic: sasl }}", broker.sasl);
    broker.topics(&["make", "sasl", "1"]);
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let login = |password: &str| {
            kafka(&format!(
                "{sasl}, auth: {{ sasl: {{ mechanism: {mechanism}, username: me, password: {password} }} }}"
            ))
        };
        assert_eq!(
            settle(&login("secret"), &batch).await,
            Outcome::Delivered,
            "{mechanism}"
        );
        let outcome = login("wrong").export(batch.clone()).await;
        assert!(matches!(outcome, Outcome::Retry { .. }), "{mechanism}: {outcome:?}");
    }
    broker.read("sasl", 3);

    // TLS, with a certificate that is to be trusted.
    let ca = root().join("crates/net/tests/fixtures/localhost.crt");
    let tls = format!("brokers: [ 'localhost:{}' ], traces: {{ topic: tls }}", broker.tls);
    broker.topics(&["make", "tls", "1"]);
    let exporter = kafka(&format!("{tls}, tls: {{ ca_file: '{}' }}", ca.display()));
    assert_eq!(settle(&exporter, &batch).await, Outcome::Delivered);
    broker.read("tls", 1);
    let outcome = kafka(&format!("{tls}, tls: {{}}, timeout: 2s"))
        .export(batch.clone())
        .await;
    assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");

    // A broker that goes away is found again.
    broker.topics(&["make", "again", "1"]);
    let exporter = kafka(&format!("{at}, traces: {{ topic: again }}"));
    assert_eq!(settle(&exporter, &batch).await, Outcome::Delivered);
    broker.stop();
    let outcome = exporter.export(batch.clone()).await;
    assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
    broker.start_again();
    assert_eq!(settle(&exporter, &batch).await, Outcome::Delivered);
    broker.read("again", 2);
}
