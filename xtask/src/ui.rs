//! Rebuilds the web UI and compares it with the built files that are committed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

const DIST: &str = "ui/dist";
const REBUILT: &str = "target/ui-dist";

pub fn run() -> Result<()> {
    if Command::new("npm").arg("--version").output().is_err() {
        println!("   skipped: npm is not installed, so the built UI was not compared with its source");
        return Ok(());
    }
    if !Path::new("ui/node_modules").exists() {
        npm(&["ci", "--no-audit", "--no-fund"])?;
    }
    let out = fs::canonicalize(".")?.join(REBUILT);
    npm(&["run", "--silent", "check"])?;
    npm(&[
        "run",
        "--silent",
        "build",
        "--",
        "--outDir",
        &out.to_string_lossy(),
        "--emptyOutDir",
    ])?;
    let (committed, rebuilt) = (files(Path::new(DIST))?, files(Path::new(REBUILT))?);
    if committed == rebuilt {
        return Ok(());
    }
    let differing: Vec<&String> = committed
        .keys()
        .chain(rebuilt.keys())
        .filter(|name| committed.get(*name) != rebuilt.get(*name))
        .collect();
    bail!("{DIST} is not what its source builds to; run `npm run build` in ui/ and commit. Differing: {differing:?}")
}

fn npm(args: &[&str]) -> Result<()> {
    let status = Command::new("npm")
        .args(args)
        .current_dir("ui")
        .status()
        .context("running npm")?;
    if status.success() {
        Ok(())
    } else {
        bail!("npm {} ended with {status}", args.join(" "))
    }
}

/// Every file below `root`, by its path relative to it.
fn files(root: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
                found.insert(name, fs::read(&path)?);
            }
        }
    }
    Ok(found)
}
