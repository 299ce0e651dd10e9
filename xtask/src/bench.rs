//! Builds what the benchmarks need in release mode and hands over to the `bench` binary; `sdk` is the one that needs no server.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const RESULTS: &str = "benches/results";

pub fn run(args: &[String]) -> Result<()> {
    if args.first().is_some_and(|first| first == "sdk") {
        return sdk();
    }
    cargo(&["build", "--release", "--locked", "-p", "server", "-p", "benches"])?;
    let status = Command::new("target/release/bench")
        .args(args)
        .status()
        .context("running target/release/bench")?;
    ensure!(status.success(), "the benchmark ended with {status}");
    // Without a scenario all are wanted.
    if args.is_empty() { sdk() } else { Ok(()) }
}

/// What the SDK's layer costs a request, with all signals on and off.
fn sdk() -> Result<()> {
    let output = Command::new("cargo")
        .args([
            "run",
            "--release",
            "--locked",
            "--quiet",
            "-p",
            "trackline-sdk-axum",
            "--example",
            "overhead",
        ])
        .output()
        .context("running the example `overhead`")?;
    ensure!(output.status.success(), "the example ended with {}", output.status);
    print!("{}", String::from_utf8_lossy(&output.stdout));
    fs::create_dir_all(RESULTS)?;
    fs::write(Path::new(RESULTS).join("sdk.json"), &output.stdout).context("writing the result")
}

fn cargo(args: &[&str]) -> Result<()> {
    let status = Command::new("cargo").args(args).status().context("running cargo")?;
    if status.success() {
        Ok(())
    } else {
        bail!("cargo {} ended with {status}", args.join(" "))
    }
}
