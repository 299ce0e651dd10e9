//! moto stands in for AWS, and boto3 reads back: both written by others.

use std::process::Stdio;

use exporters::aws::credentials::{Credentials, Secret};
use exporters::aws::sign::{Scope, Signed, authorization, stamp};
use pipeline::{Exporter, Outcome};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::*;

fn script() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/clients/python/aws.py")
}

/// The command that runs the script, if Python has the modules.
async fn python(action: &str, modules: &str) -> Option<Command> {
    let program = std::env::var("TRACKLINE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let probe = Command::new(&program)
        .args(["-c", &format!("import {modules}")])
        .output()
        .await;
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {program} has no modules {modules}; set TRACKLINE_TEST_PYTHON to one that has");
        return None;
    }
    let mut command = Command::new(program);
    command
        .arg(script())
        .arg(action)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Some(command)
}

/// Starts moto's server; it says where it is.
pub async fn start() -> Option<(Child, String)> {
    let mut command = python("serve", "moto.server, flask_cors, boto3").await?;
    // It logs each request.
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = spawned.expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    let endpoint = line.expect("in time").expect("reads").expect("a line");
    Some((child, endpoint))
}

/// What boto3 finds in a group: its settings, and the events of its streams.
pub async fn read_back(endpoint: &str, group: &str) -> serde_json::Value {
    let mut command = python("read", "boto3").await.expect("it was there");
    let output = command.args([endpoint, group]).output().await.expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test]
async fn boto3_reads_what_moto_was_sent() {
    let Some((mut moto, endpoint)) = start().await else {
        return;
    };
    let exporter = exporter(
        &format!(
            "endpoint: '{endpoint}', region: us-east-1, raw_log: true, tags: {{ team: ai }}, log_retention: 14, index_fields: []"
        ),
        keys(),
    );
    let line = r#"{"@timestamp":"2026-01-01T00:00:00.000Z","level":"INFO","message":"a \"quoted\" é\ttext"}"#;
    assert_eq!(
        exporter.export(logs("api", &[(0, line), (-1, "first")])).await,
        Outcome::Delivered
    );
    assert_eq!(exporter.export(logs("engine", &[(0, "x")])).await, Outcome::Delivered);
    let wrapped = super::exporter(
        &format!("endpoint: '{endpoint}', region: us-east-1, log_group_name: wrapped, index_fields: []"),
        keys(),
    );
    assert_eq!(wrapped.export(logs("api", &[(0, "hello")])).await, Outcome::Delivered);
    let found = read_back(&endpoint, "/ecs/ai-teams-dev").await;
    let expect = serde_json::json!({
        "retention": 14, "tags": {"team": "ai"}, "streams": {"api": ["first", line], "engine": ["x"]},
    });
    assert_eq!(found, expect);
    let found = read_back(&endpoint, "wrapped").await;
    let text = found["streams"]["api"][0].as_str().expect("a text");
    let object: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let expect = serde_json::json!({
        "body": "hello", "resource": {"service.name": "api", "deployment.environment": "dev"},
    });
    assert_eq!(object, expect);
    moto.kill().await.expect("ends");
}

/// The same requests signed by botocore.
#[tokio::test]
async fn botocore_signs_the_same() {
    let Some(mut command) = python("sign", "botocore").await else {
        return;
    };
    let at_seconds = 1_700_000_000;
    let bodies = ["", "{}", r#"{"logGroupName":"é"}"#, &"x".repeat(100_000)];
    let mut ours = Vec::new();
    for (at, body) in bodies.iter().enumerate() {
        let credentials = Credentials {
            access_key_id: ID.to_owned(),
            secret_access_key: Secret::new(SECRET),
            session_token: (at % 2 == 1).then(|| Secret::new("t0ken/+=")),
            expires_at_seconds: None,
            source: "a test",
        };
        let date = stamp(at_seconds);
        let mut headers = vec![
            ("content-type", "application/x-amz-json-1.1"),
            ("host", "logs.us-east-1.amazonaws.com"),
            ("x-amz-date", date.as_str()),
            ("x-amz-target", "Logs_20140328.PutLogEvents"),
        ];
        if let Some(token) = &credentials.session_token {
            headers.push(("x-amz-security-token", token.reveal()));
        }
        let request = Signed {
            method: "POST",
            headers: &headers,
            body: body.as_bytes(),
        };
        let scope = Scope {
            region: "us-east-1",
            service: "logs",
        };
        ours.push(authorization(&request, scope, &credentials, at_seconds));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("bodies.json");
    std::fs::write(&file, serde_json::to_vec(&bodies).expect("JSON")).expect("written");
    let output = command
        .args([ID, SECRET, "t0ken/+=", &at_seconds.to_string()])
        .arg(&file)
        .output()
        .await
        .expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs: Vec<String> = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(ours, theirs);
}
