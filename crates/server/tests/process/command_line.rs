//! What the commands say and how they end when something around them is wrong.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Output, Stdio};

use crate::running::{Ports, Server, ask};

fn trackline(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trackline"))
        .args(arguments)
        .output()
        .expect("the binary starts")
}

/// The line named the port and who wants it, but not what moves it, and it said the cause twice.
#[test]
fn a_port_in_use_is_one_line_with_the_flag_that_moves_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    let taken = taken.local_addr().expect("a bound socket has an address").to_string();
    let flags = [
        "--otlp-grpc",
        "--otlp-http",
        "--jaeger-grpc",
        "--jaeger-thrift",
        "--ui",
        "--health",
    ];
    for busy in flags {
        let mut arguments = vec!["serve", "--data-dir", directory.path().to_str().expect("a plain path")];
        for flag in flags {
            let address = if flag == busy { &taken } else { "127.0.0.1:0" };
            arguments.extend([flag, address]);
        }
        let ended = trackline(&arguments);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(&taken) && said.contains(busy), "{busy}: {said}");
        assert_eq!(said.matches("os error").count(), 1, "{said}");
    }
}

#[test]
fn a_reader_that_had_enough_is_no_panic() {
    for arguments in [&["config"][..], &["completions", "bash"], &["trace", "--help"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ended = Command::new(env!("CARGO_BIN_EXE_trackline"))
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .expect("the binary starts");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!((ended.status.code(), &*said), (Some(0), ""), "{arguments:?}");
    }
}

/// Exit code 1 would claim that the trace is not there.
#[test]
fn a_door_that_is_not_the_servers_query_door_is_not_an_unknown_trace() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), Ports::free());
    let code = |port: u16| {
        let url = format!("http://127.0.0.1:{port}");
        trackline(&["trace", "--server", &url, "4bf92f3577b34da6a3ce929d0e0e4736"])
            .status
            .code()
    };
    assert_eq!(code(server.ports.health), Some(3));
    assert_eq!(code(server.ports.query), Some(1));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn writing_to_the_query_door_is_refused_in_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), Ports::free());
    for path in ["/api/traces", "/api/v3/services", "/api/trackline/v1/search"] {
        let (status, body) = ask(server.ports.query, "POST", path).expect("the server answers");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("the answer is JSON");
        assert_eq!(
            (status, body["error"].as_str()),
            (405, Some("POST is not possible here"))
        );
    }
    assert_eq!(server.stop(), Some(0));
}
