//! Builds what the benchmarks need in release mode and hands over to the `bench` binary.

use std::process::Command;

use anyhow::{Context, Result, bail};

pub fn run(args: &[String]) -> Result<()> {
    cargo(&["build", "--release", "--locked", "-p", "server", "-p", "benches"])?;
    let status = Command::new("target/release/bench")
        .args(args)
        .status()
        .context("running target/release/bench")?;
    if status.success() {
        Ok(())
    } else {
        bail!("the benchmark ended with {status}")
    }
}

fn cargo(args: &[&str]) -> Result<()> {
    let status = Command::new("cargo").args(args).status().context("running cargo")?;
    if status.success() {
        Ok(())
    } else {
        bail!("cargo {} ended with {status}", args.join(" "))
    }
}
