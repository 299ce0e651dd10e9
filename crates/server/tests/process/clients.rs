//! The official SDKs of other languages against the real binary: what they send is the story that the API tells.
//!
//! A client that is not installed is skipped, audibly; `conformance/clients/README.md` says how to install it.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::running::{Ports, Server};
use serde_json::Value;

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/clients")
}

fn python() -> Option<Command> {
    let program = std::env::var("TRACKLINE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let modules = "import opentelemetry.exporter.otlp.proto.grpc, opentelemetry.exporter.otlp.proto.http";
    let probe = Command::new(&program).args(["-c", modules]).output().ok()?;
    let mut command = Command::new(program);
    command.arg(clients().join("python/send.py"));
    probe.status.success().then_some(command)
}

fn node() -> Option<Command> {
    let program = std::env::var("TRACKLINE_TEST_NODE").unwrap_or_else(|_| "node".to_owned());
    Command::new(&program).arg("--version").output().ok()?;
    let mut command = Command::new(program);
    command.arg(clients().join("node/send.mjs"));
    clients()
        .join("node/node_modules/@opentelemetry")
        .is_dir()
        .then_some(command)
}

fn go() -> Option<Command> {
    std::env::var_os("TRACKLINE_TEST_GO").map(Command::new)
}

/// Sends with one client, then asks for the trace that the client says it sent.
fn check(client: Option<Command>, name: &str, protocol: &str, server: &Server) {
    let Some(mut client) = client else {
        skip(format_args!(
            "skipped: the client for {name} is not installed; see conformance/clients/README.md"
        ));
        return;
    };
    let endpoint = match protocol {
        "grpc" => format!("http://127.0.0.1:{}", server.ports.grpc),
        _ => format!("http://127.0.0.1:{}", server.ports.http),
    };
    let output = client
        .args([protocol, &endpoint, "gzip"])
        .output()
        .expect("the client runs");
    assert!(
        output.status.success(),
        "{name} {protocol}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let sent: Value = serde_json::from_slice(&output.stdout).expect("the client says what it sent");
    let id = sent["trace_id"].as_str().expect("a trace id");

    let story = server.json(&format!("/api/trackline/v1/tracking/{id}"));
    assert_eq!(story["status"], "found", "{name} {protocol}: {story}");
    let trace = &story["trace"];
    assert_eq!(trace["span_count"], sent["spans"], "{name} {protocol}");
    assert_eq!(trace["root"]["operation"], "checkout");
    assert_eq!(trace["root"]["service"], format!("{name}-client"));
    assert_eq!(
        story["logs"].as_array().map(Vec::len),
        sent["logs"].as_u64().map(|n| n as usize)
    );
    let errors = story["errors"].as_array().expect("a list");
    assert!(
        errors.iter().any(|e| e["message"] == "card declined"),
        "{name} {protocol}: {errors:?}"
    );
}

#[test]
fn what_other_sdks_send_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), Ports::free());
    for protocol in ["grpc", "proto"] {
        check(python(), "python", protocol, &server);
    }
    for protocol in ["grpc", "proto", "json"] {
        check(node(), "node", protocol, &server);
    }
    for protocol in ["grpc", "proto"] {
        check(go(), "go", protocol, &server);
    }
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn garbage_on_every_port_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), Ports::free());
    let before = server.json("/api/trackline/v1/ledger");
    let Ports {
        grpc,
        http,
        query,
        health,
        jaeger,
    } = server.ports;
    for port in [grpc, http, query, health, jaeger] {
        for garbage in [
            &b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..],
            &[0; 4096],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the door is open");
            socket.write_all(garbage).expect("it takes bytes");
            socket.shutdown(std::net::Shutdown::Write).expect("our half closes");
            // An error, a GOAWAY or a reset: the door ends it by itself.
            let _ = std::io::copy(&mut socket, &mut std::io::sink());
        }
    }
    assert_eq!(server.json("/api/trackline/v1/ledger"), before);
    assert_eq!(server.stop(), Some(0));
}

/// Straight to standard error: what a passing test prints with a macro is not shown.
fn skip(why: std::fmt::Arguments<'_>) {
    use std::io::Write;
    // A terminal that is gone is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{why}");
}
