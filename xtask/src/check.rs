//! Everything CI runs, in the order that finds the cheapest mistake first.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{audit, edges, reference, tidy, ui};

/// The README's test command.
const TEST: &[&str] = &["test", "--workspace"];

type Step = (&'static str, fn() -> Result<()>);

const STEPS: &[Step] = &[
    ("fmt", || cargo(&["fmt", "--all", "--check"])),
    ("edges", edges::run),
    ("reference", || reference::run(&[])),
    ("tidy", tidy::run),
    ("audit", audit::run),
    ("ui", ui::run),
    ("clippy", || {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ])
    }),
    ("test", || cargo(TEST)),
];

pub fn run(args: &[String]) -> Result<()> {
    let mut skipped = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--skip" => skipped.push(args.next().context("--skip takes the name of a step")?.as_str()),
            other => bail!("unknown argument `{other}`; `check` takes --skip STEP"),
        }
    }
    if let Some(unknown) = skipped.iter().find(|name| !STEPS.iter().any(|(step, _)| step == *name)) {
        bail!("there is no step `{unknown}`");
    }
    for (name, step) in STEPS.iter().filter(|(name, _)| !skipped.contains(name)) {
        println!("── {name}");
        let started = Instant::now();
        step().with_context(|| format!("step `{name}` failed"))?;
        println!("   {name} ok in {:.1} s", started.elapsed().as_secs_f32());
    }
    Ok(())
}

fn cargo(args: &[&str]) -> Result<()> {
    let status = Command::new("cargo").args(args).status().context("running cargo")?;
    if status.success() {
        Ok(())
    } else {
        bail!("cargo {} ended with {status}", args.join(" "))
    }
}
