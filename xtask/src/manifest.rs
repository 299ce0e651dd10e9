//! What `cargo metadata` says of the workspace, read once per chore.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The folder that holds the workspace's `Cargo.toml`.
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
        .to_owned()
}

/// `cargo metadata`, with the dependency graph.
pub fn metadata() -> Result<Value> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .context("running cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("cargo metadata printed something else than JSON")
}

/// The packages of the workspace, as (name, package).
pub fn members(metadata: &Value) -> Vec<(&str, &Value)> {
    let ids = metadata["workspace_members"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    packages(metadata)
        .filter(|(_, package)| ids.contains(&package["id"]))
        .collect()
}

/// Every package of the resolved tree, as (name, package).
pub fn packages(metadata: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    packages
        .iter()
        .map(|package| (package["name"].as_str().unwrap_or_default(), package))
}
