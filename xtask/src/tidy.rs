//! House rules on files, names and documents that no compiler checks.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A file longer than this has more than one point.
const MAX_LINES: usize = 800;
/// A map longer than this is a second territory.
const MAX_ARCHITECTURE_LINES: usize = 300;
/// Names that say nothing of what lies inside.
const NAMELESS: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc", "types"];
/// Code that is not there yet, or switched off. Split so that this file does not name itself.
const UNFINISHED: &[&str] = &[
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("FIX", "ME"),
    concat!("#[", "ignore"),
];
/// Paths that only exist on the machine of whoever wrote them.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
/// Documents whose relative links and backticked paths must exist.
const DOCUMENTS: &[&str] = &["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];
/// Folders whose `lib.rs` opens with What / In / Out / Invariants.
const LIBRARIES: &[&str] = &["crates/", "sdk/"];

pub fn run() -> Result<()> {
    let tracked = tracked_files()?;
    let mut wrong = Vec::new();
    for path in &tracked {
        check_name(path, &mut wrong);
        let Ok(text) = fs::read_to_string(path) else { continue };
        if path.ends_with(".rs") {
            check_rust(path, &text, &mut wrong);
        }
        if is_source(path) {
            check_source(path, &text, &mut wrong);
        }
    }
    for document in DOCUMENTS {
        check_document(document, &mut wrong)?;
    }
    check_architecture(&tracked, &mut wrong)?;
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("house rules:\n  {}", wrong.join("\n  "))
}

/// What git tracks or would track, so that a file is checked before its first commit.
fn tracked_files() -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("running git ls-files")?;
    ensure!(
        output.status.success(),
        "git ls-files failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listed = String::from_utf8(output.stdout)?;
    Ok(listed
        .lines()
        .filter(|path| Path::new(path).exists())
        .map(str::to_owned)
        .collect())
}

fn is_source(path: &str) -> bool {
    const ENDINGS: &[&str] = &[
        ".rs", ".ts", ".tsx", ".mjs", ".toml", ".sh", ".yml", ".yaml", ".py", ".md", ".css",
    ];
    ENDINGS.iter().any(|ending| path.ends_with(ending)) && !path.starts_with("ui/dist/")
}

fn check_name(path: &str, wrong: &mut Vec<String>) {
    for component in Path::new(path).components() {
        let name = component.as_os_str().to_string_lossy();
        let stem = name.split('.').next().unwrap_or_default();
        if NAMELESS.contains(&stem) {
            wrong.push(format!("{path}: `{name}` says nothing of what lies inside"));
        }
    }
}

fn check_rust(path: &str, text: &str, wrong: &mut Vec<String>) {
    if !text.starts_with("//!") {
        wrong.push(format!("{path}: opens without `//!` that says why the file exists"));
    }
    if path.ends_with("src/lib.rs") && LIBRARIES.iter().any(|folder| path.starts_with(folder)) {
        for heading in ["What", "In", "Out", "Invariants"] {
            let told = text.lines().take_while(|line| line.starts_with("//!")).any(|line| {
                let line = line.trim_start_matches("//!").trim_start_matches([' ', '#', '*', '-']);
                line.strip_prefix(heading)
                    .is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
            });
            if !told {
                wrong.push(format!("{path}: its opening does not say `{heading}`"));
            }
        }
    }
}

fn check_source(path: &str, text: &str, wrong: &mut Vec<String>) {
    let lines = text.lines().count();
    let is_code = [".rs", ".ts", ".tsx", ".mjs", ".py"]
        .iter()
        .any(|ending| path.ends_with(ending));
    if is_code && lines > MAX_LINES {
        wrong.push(format!("{path}: {lines} lines; the bound is {MAX_LINES}"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        if is_code && let Some(mark) = UNFINISHED.iter().find(|mark| line.contains(**mark)) {
            wrong.push(format!("{path}:{number}: `{mark}`"));
        }
        if let Some(found) = MACHINE_PATHS.iter().find(|found| line.contains(**found)) {
            wrong.push(format!(
                "{path}:{number}: a path under `{found}` exists on one machine only"
            ));
        }
        if line.ends_with([' ', '\t']) && !path.ends_with(".md") {
            wrong.push(format!("{path}:{number}: trailing blanks"));
        }
    }
}

/// Relative links must lead somewhere.
fn check_document(document: &str, wrong: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(document).with_context(|| format!("reading {document}"))?;
    for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let file = target.split('#').next().unwrap_or_default();
        if !file.is_empty() && !target.contains("://") && !Path::new(file).exists() {
            wrong.push(format!("{document}: links to `{target}`, which is not there"));
        }
    }
    Ok(())
}

/// The map names paths and types; each must still exist.
fn check_architecture(tracked: &[String], wrong: &mut Vec<String>) -> Result<()> {
    let map = fs::read_to_string("ARCHITECTURE.md").context("reading ARCHITECTURE.md")?;
    let lines = map.lines().count();
    if lines > MAX_ARCHITECTURE_LINES {
        wrong.push(format!(
            "ARCHITECTURE.md: {lines} lines; the bound is {MAX_ARCHITECTURE_LINES}"
        ));
    }
    let mut code = String::new();
    for path in tracked
        .iter()
        .filter(|path| path.ends_with(".rs") && !path.starts_with("xtask/"))
    {
        code.push_str(&fs::read_to_string(path).unwrap_or_default());
    }
    let prose: String = map.split("```").step_by(2).collect();
    for name in prose.split('`').skip(1).step_by(2) {
        if name.contains('/') && !name.contains(' ') && !name.starts_with('/') {
            if !Path::new(name).exists() {
                wrong.push(format!("ARCHITECTURE.md: names the path `{name}`, which is gone"));
            }
        } else if let Some(last) = name.rsplit("::").next()
            && last.starts_with(|c: char| c.is_ascii_uppercase())
            && last.chars().all(|c| c.is_ascii_alphanumeric())
            && last.chars().any(|c| c.is_ascii_lowercase())
            && !code.contains(last)
        {
            wrong.push(format!("ARCHITECTURE.md: names the type `{name}`, which is gone"));
        }
    }
    Ok(())
}
