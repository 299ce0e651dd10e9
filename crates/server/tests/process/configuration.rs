//! The commands about configurations, and what a collector needs of its surroundings.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::kill::spans;
use crate::running::{Ports, get, post};

fn trackline(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trackline"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn written(directory: &Path, name: &str, yaml: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, yaml).expect("writes");
    path.to_str().expect("a plain path").to_owned()
}

const GOOD: &str = "\
receivers: { otlp: { protocols: { grpc: { endpoint: 127.0.0.1:0 } } } }
exporters: { debug: , otlp_grpc/b: { endpoint: \"${BACKEND}\", tls: { insecure: true }, headers: { x-token: in-the-file } } }
service: { pipelines: { traces: { receivers: [otlp], exporters: [debug, otlp_grpc/b] } } }
";

#[test]
fn validate_tells_everything_and_ends_as_it_should() {
    let directory = tempfile::tempdir().expect("a directory");
    let good = written(directory.path(), "good.yaml", GOOD);
    let variables = written(directory.path(), "env", "BACKEND=backend:4317\n");

    let said = trackline(&["validate", "--config", &good, "--env-file", &variables]);
    let out = text(&said.stdout);
    assert_eq!(said.status.code(), Some(0), "{out}");
    assert!(out.ends_with("valid: 1 pipeline, 1 warning\n"), "{out}");
    assert!(
        out.contains("a secret in a file that every user") && !out.contains("in-the-file"),
        "{out}"
    );

    // It was told that it forgets where it had read to, in a configuration with a journal.
    let files = GOOD.replace("otlp:", "filelog: { include: [ /nowhere/*.log ] }, otlp:");
    let files = written(
        directory.path(),
        "files.yaml",
        &files.replace("traces: { receivers: [otlp]", "logs: { receivers: [otlp, filelog]"),
    );
    for (journal, warns) in [("{}", false), ("none", true)] {
        let journal = format!("service.journal={journal}");
        let said = trackline(&[
            "validate",
            "--config",
            &files,
            "--env-file",
            &variables,
            "--set",
            &journal,
        ]);
        let out = text(&said.stdout);
        assert_eq!(
            out.contains("there is no journal, so positions"),
            warns,
            "{journal}: {out}"
        );
    }

    let said = trackline(&["validate", "--config", &good]);
    let out = text(&said.stdout);
    assert_eq!(said.status.code(), Some(1), "{out}");
    let place = format!("{good}:2:48: endpoint:");
    assert!(out.contains(&place), "{place}\n{out}");
    assert!(out.contains("^ the environment variable BACKEND is not set"), "{out}");
    assert!(!out.contains("in-the-file"), "{out}");

    let said = trackline(&[
        "validate",
        "--json",
        "--config",
        &good,
        "--set",
        "receivers.otlp.protocols.gprc=",
    ]);
    let report: Value = serde_json::from_slice(&said.stdout).expect("JSON");
    assert_eq!((said.status.code(), &report["valid"]), (Some(1), &Value::Bool(false)));
    let mistakes = report["mistakes"].as_array().expect("a list");
    let of = |key: &str| mistakes.iter().map(|mistake| mistake[key].clone()).collect::<Vec<_>>();
    assert!(of("hint").contains(&"did you mean `grpc`?".into()), "{report:#}");
    assert!(
        of("file").contains(&"--set receivers.otlp.protocols.gprc".into()),
        "{report:#}"
    );

    for arguments in [&["--config", "no/such.yaml"], &["--set", "nothing"]] {
        let said = trackline(&[&["validate"][..], arguments].concat());
        assert_eq!(said.status.code(), Some(2), "{}", text(&said.stderr));
    }
}

#[test]
fn two_that_want_one_port_are_both_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = written(
        directory.path(),
        "ports.yaml",
        "receivers:\n  otlp: { protocols: { grpc: { endpoint: 0.0.0.0:4317 } } }\n  otlp/b: { protocols: { grpc: { endpoint: 0.0.0.0:4317 } } }\n\
         exporters: { debug: }\nservice: { pipelines: { traces: { receivers: [otlp, otlp/b], exporters: [debug] } } }\n",
    );
    let said = trackline(&["validate", "--config", &file]);
    let out = text(&said.stdout);
    assert_eq!(said.status.code(), Some(1), "{out}");
    let place = format!("{file}:3:3: receiver otlp/b (grpc) and receiver otlp (grpc) both want");
    assert!(out.contains(&place), "{out}");
    assert!(out.contains("the receiver otlp stands in line 2"), "{out}");
}

#[test]
fn validate_knows_where_exporters_listen() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = |first: &str, second: &str| {
        format!(
            "receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: 127.0.0.1:4318 }} }} }} }}\nexporters:\n  prometheus: {{ endpoint: '{first}' }}\n  \
             prometheus/b: {{ endpoint: '{second}' }}\nservice: {{ pipelines: {{ metrics: {{ receivers: [otlp], exporters: [prometheus, prometheus/b] }} }} }}\n"
        )
    };
    let check = |first: &str, second: &str, expect: &[&str]| {
        let file = written(directory.path(), "exporters.yaml", &config(first, second));
        let said = trackline(&["validate", "--config", &file]);
        let out = text(&said.stdout);
        assert_eq!(said.status.code(), Some(i32::from(!expect.is_empty())), "{out}");
        for words in expect {
            assert!(out.contains(words), "{out}\nexpected: {words}");
        }
    };
    check("127.0.0.1:9464", "127.0.0.1:9465", &[]);
    let both = "exporter prometheus/b and exporter prometheus both want the path /metrics";
    check(
        "127.0.0.1:9464",
        "127.0.0.1:9464",
        &[":4:3: ", both, "the exporter prometheus stands in line 3"],
    );
    check(
        "127.0.0.1:9464",
        "0.0.0.0:9464",
        &[":4:3: ", "overlaps with", "the exporter prometheus stands in line 3"],
    );
}

#[test]
fn components_lists_what_there_is() {
    let all = text(&trackline(&["components"]).stdout);
    for expect in ["receivers\n", "otlphttp (otlp_http)", "memory_limiter"] {
        assert!(all.contains(expect), "{expect}\n{all}");
    }
    let one = text(&trackline(&["components", "receiver/otlp"]).stdout);
    assert!(
        one.contains("protocols.grpc.max_recv_msg_size_mib") && one.contains("default 64"),
        "{one}"
    );
    let json: Value = serde_json::from_slice(&trackline(&["components", "otlp_grpc", "--json"]).stdout).expect("JSON");
    assert_eq!(json[0]["name"], "otlp");
    assert!(json[0]["keys"].as_array().is_some_and(|keys| keys.len() > 5));
    assert_eq!(trackline(&["components", "bacth"]).status.code(), Some(1));
}

/// Where the working directory cannot be written, a collector runs all the same; where the place was asked for, it does not.
#[test]
#[cfg(target_os = "linux")]
fn a_collector_needs_no_disk_unless_one_was_asked_for() {
    // Nobody can make a directory there, whoever the tests run as.
    const READ_ONLY: &str = "/sys";
    let directory = tempfile::tempdir().expect("a directory");
    let ports = Ports::free();
    let yaml = format!(
        "receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: \"127.0.0.1:{}\" }} }} }} }}\n\
         exporters: {{ file: {{ path: {}/sink.jsonl }} }}\n\
         extensions: {{ health_check: {{ endpoint: \"127.0.0.1:{}\" }}, file_storage: {{ directory: {READ_ONLY}/storage }} }}\n\
         service: {{ extensions: [health_check], pipelines: {{ traces: {{ receivers: [otlp], exporters: [file] }} }} }}\n",
        ports.http,
        directory.path().display(),
        ports.health
    );
    let file = written(directory.path(), "collector.yaml", &yaml);
    let start = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trackline"));
        command
            .arg("collect")
            .args(["--config", &file])
            .args(more)
            .current_dir(READ_ONLY);
        command
    };
    for asked in [
        &["--data-dir", "data"][..],
        &["--set", "service.journal.directory=/sys/journal"],
        &["--set", "service.extensions=[health_check, file_storage]"],
    ] {
        let ended = start(asked).output().expect("the binary starts");
        let said = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{asked:?} {said}");
        assert!(said.contains("cannot be written"), "{asked:?} {said}");
    }
    let mut child = Ended(start(&[]).spawn().expect("the binary starts"));
    let health = loop {
        if let Some((200, body)) = get(ports.health, "/") {
            break text(&body);
        }
        assert!(child.0.try_wait().expect("ours").is_none(), "it ended");
        std::thread::yield_now();
    };
    assert!(health.contains("\"journal\":\"none: "), "{health}");
    assert_eq!(post(ports.http, "/v1/traces", &spans(1)), Some(200));
    let sink = std::fs::read_to_string(directory.path().join("sink.jsonl")).expect("the sink is there");
    assert!(
        sink.contains("step 1"),
        "an answer without a journal is the exporter's: {sink}"
    );
}

/// Ends a process with the test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
