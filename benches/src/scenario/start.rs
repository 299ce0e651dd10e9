//! Start to ready: with nothing there, and after a `kill -9` under full load; idle memory and the binary's size.

use std::time::Duration;

use anyhow::Result;

use super::{IN_FLIGHT, PER_REQUEST, Setting, load, unix_nano_now};
use crate::client::Service;
use crate::measure::{ms, percentile};
use crate::process::{Ports, Server};
use crate::report::Report;
use crate::spans::SpanSource;

const EMPTY_STARTS: usize = 10;
/// Spans acknowledged before the kill.
const BEFORE_KILL: usize = 600_000;
/// Rest before idle memory is read.
const REST: Duration = Duration::from_secs(5);

pub async fn run(setting: &Setting) -> Result<()> {
    let mut report = Report::default();
    let mut empty = Vec::new();
    let mut idle = 0;
    for at in 0..EMPTY_STARTS {
        let directory = setting.scratch.join(format!("empty-{at}"));
        let server = Server::start(&setting.binary, &directory, Ports::free()?, "7d").await?;
        empty.push(server.ready_after);
        if at + 1 == EMPTY_STARTS {
            tokio::time::sleep(REST).await;
            idle = server.usage().memory_bytes()?.0;
        }
        server.stop()?;
    }
    report.add(
        "start to ready, empty directory, median",
        ms(percentile(&mut empty, 0.5)),
        "ms",
        "150 at most",
    );
    report.add("idle memory", idle as f64 / 1048576.0, "MiB", "40 at most");

    let directory = setting.scratch.join("killed");
    let ports = Ports::free()?;
    let server = Server::start(&setting.binary, &directory, ports, "7d").await?;
    let mut source = SpanSource::new(31, unix_nano_now() - 60_000_000_000, 100_000);
    let mut left = BEFORE_KILL / PER_REQUEST;
    load(&server, Service::Traces, IN_FLIGHT, None, move || {
        left = left.checked_sub(1)?;
        Some(source.request(PER_REQUEST))
    })
    .await?;
    let directory = server.kill()?;
    let server = Server::start(&setting.binary, &directory, ports, "7d").await?;
    report.add(
        "start to ready after kill -9 under load",
        ms(server.ready_after),
        "ms",
        "1000 at most",
    );
    server.stop()?;
    let binary = std::fs::metadata(&setting.binary)?.len();
    report.add("release binary", binary as f64 / 1e6, "MB", "60 at most");
    report.write(
        "start",
        &format!("{EMPTY_STARTS} empty starts; {BEFORE_KILL} spans before the kill"),
    )
}
