//! What the demo prints: steps while it starts, links and IDs to try, then one live line.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Deserialize;
use tokio::io::{BufReader, Lines};
use tokio::process::ChildStdout;

use super::children::Children;
use crate::cli::DEFAULT_SERVER;
use crate::serve::Server;

/// Redraw of the live line in a terminal, and pause between its lines elsewhere.
const REDRAW: Duration = Duration::from_millis(500);
const REPEAT: Duration = Duration::from_secs(15);

/// One finished request, as the traffic tells it.
#[derive(Deserialize)]
struct Request {
    kind: Kind,
    tracking_id: String,
    status: u16,
    ms: f64,
    what: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Ordinary,
    Slow,
    Failed,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Ordinary, Self::Slow, Self::Failed];

    fn label(self) -> &'static str {
        match self {
            Self::Ordinary => "an ordinary one",
            Self::Slow => "a slow one",
            Self::Failed => "a failed one",
        }
    }
}

/// A line of the start-up.
pub fn step(name: &str, state: &str) {
    eprintln!("  {name:<20} {state}");
}

/// Shows what happens until Ctrl-C, a process that dies, or the end of `run_for`.
pub async fn live(
    server: &Server,
    children: &mut Children,
    mut lines: Lines<BufReader<ChildStdout>>,
    gateway_port: u16,
    traffic: bool,
    run_for: Option<Duration>,
) -> Result<()> {
    let ui = server.ui_url();
    println!("\n  Trackline    {ui}");
    println!("  Gateway      http://127.0.0.1:{gateway_port}   (every answer carries X-Tracking-ID)");
    println!("  OTLP         {}\n", server.otlp_url());
    if traffic {
        println!("  Tracking IDs to try:");
    } else {
        println!("  No traffic (--rate 0).");
        own_request(gateway_port);
    }

    let started = Instant::now();
    let end = async {
        match run_for {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let stop = crate::serve::stop_signal();
    tokio::pin!(stop);
    let terminal = std::io::stdout().is_terminal();
    let mut tick = tokio::time::interval(if terminal { REDRAW } else { REPEAT });
    let (mut requests, mut failed) = (0u64, 0u64);
    let mut shown: Vec<Kind> = Vec::new();
    let mut worth_a_look = String::new();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line? else { return children.all_run() };
                let Ok(request) = serde_json::from_str::<Request>(&line) else { continue };
                requests += 1;
                failed += u64::from(request.status >= 500);
                if !shown.contains(&request.kind) {
                    shown.push(request.kind);
                    clear(terminal);
                    introduce(&request);
                    if request.kind == Kind::Failed {
                        worth_a_look = request.tracking_id;
                    }
                    if shown.len() == Kind::ALL.len() {
                        next_steps(&ui, gateway_port, &worth_a_look);
                    }
                }
            }
            _ = tick.tick() => {
                children.all_run()?;
                status(terminal, started.elapsed(), requests, failed, server);
            }
            () = &mut end => break,
            () = &mut stop => break,
        }
    }
    clear(terminal);
    println!(
        "  {requests} requests, {failed} of them failed, in {} s",
        started.elapsed().as_secs()
    );
    Ok(())
}

fn introduce(request: &Request) {
    let Request {
        kind,
        tracking_id,
        status,
        ms,
        what,
    } = request;
    println!("    {:<16} {tracking_id}   {what}, {status}, {ms:.0} ms", kind.label());
}

/// Commands to paste, as they work on this machine with these ports.
fn next_steps(ui: &str, gateway_port: u16, tracking_id: &str) {
    let program = std::env::args().next().unwrap_or_else(|| "trackline".to_owned());
    let server = if ui == DEFAULT_SERVER {
        String::new()
    } else {
        format!(" --server {ui}")
    };
    println!("\n  The failed one, in another terminal:");
    println!("    {program} trace{server} {tracking_id}");
    println!("  and in the browser:");
    println!("    {ui}/trace/{tracking_id}");
    own_request(gateway_port);
}

fn own_request(gateway_port: u16) {
    println!("  A request of your own; its answer has the ID in a header and in its body:");
    println!("    curl -i http://127.0.0.1:{gateway_port}/api/v1/sessions --json '{{\"user_id\":\"you\"}}'");
    println!("\n  Ctrl-C stops all of it.\n");
}

fn status(terminal: bool, elapsed: Duration, requests: u64, failed: u64, server: &Server) {
    let (spans, logs) = server.accepted();
    // Within 80 columns for a day: a line that wraps cannot be redrawn in place.
    let line = format!(
        "  {:>4} s   {requests} requests, {failed} failed   {spans} spans, {logs} logs accepted",
        elapsed.as_secs()
    );
    if terminal {
        print!("\r\x1b[2K{line}");
        // A status line that cannot be drawn is not worth ending the demo for.
        let _ = std::io::stdout().flush();
    } else {
        println!("{line}");
    }
}

/// Takes the live line away, before anything else is printed to either stream.
fn clear(terminal: bool) {
    if terminal {
        print!("\r\x1b[2K");
        let _ = std::io::stdout().flush();
    }
}
