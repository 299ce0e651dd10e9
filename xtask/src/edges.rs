//! Which crate may use which: the table of ARCHITECTURE.md, held against the manifests.
//!
//! A new edge is a decision: it is added here, in the same commit as its reason.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::manifest;

/// Crate, and the workspace crates it may name in `[dependencies]` (tests may use more).
const EDGES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("net", &[]),
    ("codec", &["model"]),
    ("journal", &[]),
    ("store", &["model"]),
    ("pipeline", &["model", "journal"]),
    ("receivers", &["pipeline", "codec", "net", "model"]),
    ("exporters", &["pipeline", "codec", "net", "model", "store"]),
    ("query", &["store", "model", "net"]),
    (
        "server",
        &[
            "model",
            "net",
            "codec",
            "journal",
            "store",
            "pipeline",
            "receivers",
            "exporters",
            "query",
        ],
    ),
    ("trackline-sdk", &[]),
    ("trackline-sdk-axum", &["trackline-sdk"]),
    ("demo", &["trackline-sdk", "trackline-sdk-axum"]),
    ("benches", &["model"]),
    ("xtask", &[]),
];

pub fn run() -> Result<()> {
    let metadata = manifest::metadata()?;
    let members = manifest::members(&metadata);
    let names: BTreeSet<&str> = members.iter().map(|(name, _)| *name).collect();
    let mut wrong = Vec::new();
    for (name, package) in &members {
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| known == name) else {
            wrong.push(format!("crate `{name}` is not in the table of xtask/src/edges.rs"));
            continue;
        };
        let dependencies = package["dependencies"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        for dependency in dependencies.iter().filter(|dependency| dependency["kind"].is_null()) {
            let to = dependency["name"].as_str().unwrap_or_default();
            if names.contains(to) && !allowed.contains(&to) {
                wrong.push(format!("`{name}` uses `{to}`, which the table does not allow"));
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("crate edges:\n  {}", wrong.join("\n  "))
}
