//! The server under test: started on free ports and a directory of its own, and measured from outside.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::client;
use crate::usage::Usage;

/// How long a server may take to become ready before the benchmark gives up.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Pause between two looks at what is only in memory.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(5);

pub struct Server {
    child: Child,
    pub directory: PathBuf,
    pub otlp: SocketAddr,
    pub http: SocketAddr,
    /// From spawn to the first successful answer of the readiness check.
    pub ready_after: Duration,
}

/// The ports of one run, kept over restarts.
#[derive(Clone, Copy)]
pub struct Ports {
    pub grpc: u16,
    pub http: u16,
    pub query: u16,
    pub health: u16,
}

impl Ports {
    pub fn free() -> Result<Self> {
        let listeners: Vec<TcpListener> = (0..4)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<Result<_, _>>()
            .context("finding free ports")?;
        let port = |at: usize| -> Result<u16> { Ok(listeners[at].local_addr()?.port()) };
        Ok(Self {
            grpc: port(0)?,
            http: port(1)?,
            query: port(2)?,
            health: port(3)?,
        })
    }
}

impl Server {
    /// Starts `binary serve` and waits until its query door says ready.
    pub async fn start(binary: &Path, directory: &Path, ports: Ports, retention: &str) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let config = directory.with_extension("yaml");
        fs::write(&config, configuration(ports, retention))?;
        let log = fs::File::create(directory.with_extension("log"))?;
        let started = Instant::now();
        let child = Command::new(binary)
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .arg("--data-dir")
            .arg(directory)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut server = Self {
            child,
            directory: directory.to_owned(),
            otlp: address(ports.grpc),
            http: address(ports.query),
            ready_after: Duration::ZERO,
        };
        while !server.is_ready().await {
            if let Some(status) = server.child.try_wait()? {
                let log = fs::read_to_string(directory.with_extension("log")).unwrap_or_default();
                bail!("the server ended with {status} before it was ready:\n{log}");
            }
            ensure!(
                started.elapsed() < READY_WITHIN,
                "the server was not ready within {READY_WITHIN:?}"
            );
            tokio::time::sleep(POLL).await;
        }
        server.ready_after = started.elapsed();
        Ok(server)
    }

    async fn is_ready(&self) -> bool {
        matches!(client::get(self.http, "/api/trackline/v1/services").await, Ok((200, _)))
    }

    pub async fn json(&self, path: &str) -> Result<Value> {
        let (status, body) = client::get(self.http, path).await?;
        ensure!(
            status == 200,
            "{path} answered {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(serde_json::from_slice(&body)?)
    }

    pub fn usage(&self) -> Usage {
        Usage(self.child.id())
    }

    /// Waits until nothing is only in memory and the process rests.
    pub async fn settle(&self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let status = self.json("/api/trackline/v1/status").await?;
            let fresh = status["store"]["fresh_rows"]
                .as_u64()
                .context("the status names no store.fresh_rows")?;
            if fresh == 0 {
                return self.usage().idle(within).await;
            }
            ensure!(
                Instant::now() < deadline,
                "{fresh} rows are still only in memory after {within:?}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Ends the process at once, as the kernel's memory killer would.
    pub fn kill(mut self) -> Result<PathBuf> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(std::mem::take(&mut self.directory))
    }

    /// Asks the process to end and waits for it.
    pub fn stop(mut self) -> Result<PathBuf> {
        let asked = Command::new("kill")
            .arg("-TERM")
            .arg(self.child.id().to_string())
            .status()?;
        ensure!(asked.success(), "could not signal the server");
        let status = self.child.wait()?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(std::mem::take(&mut self.directory))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A benchmark that fails half-way leaves no process behind; one that ended already cannot be killed twice.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The built-in all-in-one configuration on other ports.
fn configuration(ports: Ports, retention: &str) -> String {
    let Ports {
        grpc,
        http,
        query,
        health,
    } = ports;
    format!(
        "receivers:
  otlp:
    protocols:
      grpc: {{ endpoint: 127.0.0.1:{grpc} }}
      http: {{ endpoint: 127.0.0.1:{http} }}
processors:
  memory_limiter: {{ limit_mib: 512 }}
exporters:
  store: {{ retention: {retention} }}
extensions:
  query: {{ endpoint: 127.0.0.1:{query} }}
  health_check: {{ endpoint: 127.0.0.1:{health} }}
service:
  extensions: [query, health_check]
  pipelines:
    traces: {{ receivers: [otlp], processors: [memory_limiter], exporters: [store] }}
    logs: {{ receivers: [otlp], processors: [memory_limiter], exporters: [store] }}
"
    )
}

/// What a directory holds, in bytes on disk.
pub fn size_bytes(directory: &Path) -> Result<u64> {
    let mut total = 0;
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                total += metadata.len();
            }
        }
    }
    Ok(total)
}
