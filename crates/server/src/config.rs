//! Where the configuration comes from: the built-in one or files, and what the command line lays over it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use pipeline::config::{Config, Source};

/// What runs without a file: OTLP in, everything kept, UI and APIs on loopback.
pub const BUILT_IN: &str = include_str!("built-in.yaml");

/// Reads the files, or the built-in configuration, and lays `overlays` over it.
pub fn load(files: &[PathBuf], overlays: Vec<Source>) -> Result<Config> {
    let mut sources = Vec::new();
    if files.is_empty() {
        sources.push(Source::new("built-in", BUILT_IN));
    }
    for file in files {
        sources.push(read(file)?);
    }
    sources.extend(overlays);
    Config::load(sources, &|name| std::env::var(name).ok()).map_err(|problems| anyhow::anyhow!("{problems}"))
}

fn read(file: &Path) -> Result<Source> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read the configuration {}", file.display()))?;
    Ok(Source::new(file.display().to_string(), text))
}
