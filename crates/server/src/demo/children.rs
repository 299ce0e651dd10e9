//! The processes of the demo: started with a pipe for their standard input, ended in order by closing it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

/// How long a process may take to flush and end before it is killed.
const END_WITHIN: Duration = Duration::from_secs(8);
/// Pause between two looks at a health check.
const POLL: Duration = Duration::from_millis(20);
/// Lines of a dead service's log that its error message shows.
const SHOWN_LINES: usize = 6;

pub struct Service<'a> {
    pub name: &'static str,
    pub binary: &'a Path,
    pub port: Option<u16>,
}

struct Running {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

pub struct Children {
    folder: PathBuf,
    running: Vec<Running>,
}

impl Children {
    /// Their output goes to `{folder}/{name}.log`.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            running: Vec::new(),
        }
    }

    pub fn start(&mut self, service: &Service<'_>, environment: &[(&'static str, String)]) -> Result<()> {
        self.spawn(service, environment, false)
    }

    /// As `start`, and hands out what the process prints.
    pub fn start_speaking(
        &mut self,
        service: &Service<'_>,
        environment: &[(&'static str, String)],
    ) -> Result<Lines<BufReader<ChildStdout>>> {
        self.spawn(service, environment, true)?;
        let child = &mut self.running.last_mut().context("the process was just added")?.child;
        let output = child.stdout.take().context("the process was started with a pipe")?;
        Ok(BufReader::new(output).lines())
    }

    fn spawn(&mut self, service: &Service<'_>, environment: &[(&'static str, String)], speaks: bool) -> Result<()> {
        let log = self.folder.join(format!("{}.log", service.name.replace(' ', "-")));
        let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let mut command = Command::new(service.binary);
        command.envs(environment.iter().map(|(key, value)| (key, value)));
        if let Some(port) = service.port {
            command.env("PORT", port.to_string());
        }
        command
            .stdin(Stdio::piped())
            .stderr(file.try_clone()?)
            .kill_on_drop(true);
        command.stdout(if speaks { Stdio::piped() } else { file.into() });
        // Ctrl-C in the terminal is for this command alone; it ends the others in order.
        command.process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", service.binary.display()))?;
        self.running.push(Running {
            name: service.name,
            child,
            log,
        });
        Ok(())
    }

    /// Waits until the service answers its health check.
    pub async fn healthy(&mut self, name: &str, port: u16, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        while !answers(port).await {
            self.all_run()?;
            if Instant::now() > deadline {
                bail!("{name} did not answer http://127.0.0.1:{port}/health within {within:?}");
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// An error that names the first process that ended by itself, with the end of its log.
    pub fn all_run(&mut self) -> Result<()> {
        for running in &mut self.running {
            if let Some(status) = running.child.try_wait()? {
                let log = std::fs::read_to_string(&running.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
                bail!(
                    "{} ended with {status}; its log {} ends with:\n{shown}",
                    running.name,
                    running.log.display()
                );
            }
        }
        Ok(())
    }

    /// Ends them, the one started last first.
    pub async fn stop(mut self) -> Result<()> {
        let mut killed = Vec::new();
        while let Some(mut running) = self.running.pop() {
            drop(running.child.stdin.take());
            if tokio::time::timeout(END_WITHIN, running.child.wait()).await.is_err() {
                running.child.kill().await?;
                killed.push(running.name);
            }
        }
        if killed.is_empty() {
            Ok(())
        } else {
            bail!("had to be killed after {END_WITHIN:?}: {}", killed.join(", "))
        }
    }
}

async fn answers(port: u16) -> bool {
    let request = format!("GET /health HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n");
    let exchange = async {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.write_all(request.as_bytes()).await?;
        let mut head = [0; 12];
        socket.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(head)
    };
    matches!(exchange.await, Ok(head) if head.ends_with(b" 200"))
}
