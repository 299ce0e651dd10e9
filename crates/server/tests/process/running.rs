//! The real binary as a process of its own, on free ports and a directory that goes with the test.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long the binary may take to answer; generous, because debug builds run beside other tests.
const READY_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

#[derive(Clone, Copy)]
pub struct Ports {
    pub grpc: u16,
    pub http: u16,
    pub query: u16,
    pub health: u16,
    pub jaeger: u16,
}

impl Ports {
    pub fn free() -> Self {
        let listeners: Vec<TcpListener> = (0..5)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports"))
            .collect();
        let port = |at: usize| {
            listeners[at]
                .local_addr()
                .expect("a bound socket has an address")
                .port()
        };
        Self {
            grpc: port(0),
            http: port(1),
            query: port(2),
            health: port(3),
            jaeger: port(4),
        }
    }
}

pub struct Server {
    child: Child,
    pub ports: Ports,
}

impl Server {
    /// Starts `trackline serve` on a data directory and waits until it answers questions.
    pub fn start(directory: &Path, ports: Ports) -> Self {
        Self::spawn(directory, ports).answering()
    }

    /// The same with a configuration of its own, which names the ports.
    pub fn start_with(directory: &Path, ports: Ports, config: &Path) -> Self {
        let mut command = Self::command(directory);
        command.arg("--config").arg(config);
        let child = command.spawn().expect("the binary starts");
        Self { child, ports }.answering()
    }

    fn answering(self) -> Self {
        let deadline = Instant::now() + READY_WITHIN;
        while !matches!(get(self.ports.query, "/api/trackline/v1/services"), Some((200, _))) {
            assert!(
                Instant::now() < deadline,
                "the server was not ready within {READY_WITHIN:?}"
            );
            std::thread::sleep(POLL);
        }
        self
    }

    fn command(directory: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trackline"));
        command.args(["serve", "--data-dir"]).arg(directory);
        command.stdout(Stdio::null()).stderr(Stdio::inherit());
        command
    }

    /// As `start`, without waiting.
    pub fn spawn(directory: &Path, ports: Ports) -> Self {
        let child = Self::command(directory)
            .arg("--otlp-grpc")
            .arg(format!("127.0.0.1:{}", ports.grpc))
            .arg("--otlp-http")
            .arg(format!("127.0.0.1:{}", ports.http))
            .arg("--jaeger-grpc")
            .arg(format!("127.0.0.1:{}", ports.jaeger))
            .args(["--jaeger-thrift", "none"])
            .arg("--ui")
            .arg(format!("127.0.0.1:{}", ports.query))
            .arg("--health")
            .arg(format!("127.0.0.1:{}", ports.health))
            .spawn()
            .expect("the binary starts");
        Self { child, ports }
    }

    pub fn json(&self, path: &str) -> Value {
        let (status, body) = get(self.ports.query, path).expect("the server answers");
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("the answer is JSON")
    }

    /// SIGKILL: no handler runs.
    pub fn kill(mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("a killed process ends");
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> Option<i32> {
        let asked = Command::new("kill")
            .arg("-TERM")
            .arg(self.child.id().to_string())
            .status();
        assert!(asked.expect("kill runs").success());
        self.child.wait().expect("the process ends").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended after `kill` and `stop`; a failed test leaves nothing behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// POST of protobuf to the OTLP/HTTP door; the status, or none if the connection broke.
pub fn post(port: u16, path: &str, body: &[u8]) -> Option<u16> {
    post_as("application/x-protobuf", port, path, body)
}

/// The same of another content type.
pub fn post_as(content_type: &str, port: u16, path: &str, body: &[u8]) -> Option<u16> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    exchange(port, &[head.as_bytes(), body]).map(|(status, _)| status)
}

/// GET; status and body, or none if the connection broke.
pub fn get(port: u16, path: &str) -> Option<(u16, Vec<u8>)> {
    ask(port, "GET", path)
}

/// A request without a body.
pub fn ask(port: u16, method: &str, path: &str) -> Option<(u16, Vec<u8>)> {
    let head = format!("{method} {path} HTTP/1.0\r\nhost: 127.0.0.1:{port}\r\n\r\n");
    exchange(port, &[head.as_bytes()])
}

fn exchange(port: u16, parts: &[&[u8]]) -> Option<(u16, Vec<u8>)> {
    let mut socket = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok()?;
    for part in parts {
        socket.write_all(part).ok()?;
    }
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).ok()?;
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..head_end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_off(head_end + 4)))
}
