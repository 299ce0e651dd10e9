//! The dependency tree's licences, sources and duplicates, from `cargo metadata` alone, so that it needs no network.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::manifest;

/// SPDX ids that an Apache-2.0 binary may carry. No copyleft beyond the file level.
const ALLOWED: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "BSL-1.0",
    "CC0-1.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "CDLA-Permissive-2.0",
    "MPL-2.0",
];

/// Crates of which two versions in one binary would be a bug, not only a cost.
const ONE_VERSION: &[&str] = &[
    "tokio",
    "hyper",
    "http",
    "axum",
    "axum-core",
    "bytes",
    "rustls",
    "ring",
    "prost",
    "tonic",
    "opentelemetry",
    "opentelemetry_sdk",
    "opentelemetry-proto",
    "tracing",
    "tracing-core",
    "arrow-array",
    "parquet",
    "sqlx-core",
    "zstd-sys",
    "libdeflate-sys",
    "serde",
    "serde_json",
];

pub fn run() -> Result<()> {
    let metadata = manifest::metadata()?;
    let mut wrong = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, package) in manifest::packages(&metadata) {
        let version = package["version"].as_str().unwrap_or_default();
        versions.entry(name).or_default().push(version);
        let licence = package["license"].as_str().unwrap_or_default();
        if !permitted(licence) {
            wrong.push(format!("{name} {version}: licence `{licence}` is not in the list"));
        }
        if let Some(source) = package["source"].as_str()
            && !source.starts_with("registry+")
        {
            wrong.push(format!(
                "{name} {version}: comes from `{source}`, not from the registry"
            ));
        }
    }
    for name in ONE_VERSION {
        if let Some(found) = versions.get(name)
            && found.len() > 1
        {
            wrong.push(format!("{name} is in the tree as {}", found.join(" and ")));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("dependencies:\n  {}", wrong.join("\n  "))
}

/// Reads the SPDX expressions that crates use: `A OR B`, `A AND B`, `A/B`, parentheses around alternatives.
fn permitted(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], "").replace('/', " OR ");
    flat.split(" OR ")
        .any(|alternative| alternative.split(" AND ").all(|id| ALLOWED.contains(&id.trim())))
}
