//! The project's chores, run as `cargo xtask <command>`.

mod audit;
mod bench;
mod check;
mod edges;
mod manifest;
mod reference;
mod tidy;
mod ui;

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask <command>

  check [--skip STEP]…  everything CI runs: fmt, edges, reference, tidy, audit, ui, clippy, test
  edges                 crate dependencies against the table in xtask/src/edges.rs
  reference [--write]   docs/configuration.md against the doc comments that it is written from
  tidy                  house rules on files, names and documents
  audit                 licences, sources and duplicates of the dependency tree
  ui                    rebuild ui/dist from source and compare it with what is committed
  bench [ARGS]          the benchmarks whose numbers the README quotes (`bench --help`; `bench sdk`)
";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    std::env::set_current_dir(manifest::workspace_root())?;
    match args.first().map(String::as_str) {
        Some("check") => check::run(&args[1..]),
        Some("edges") => edges::run(),
        Some("reference") => reference::run(&args[1..]),
        Some("tidy") => tidy::run(),
        Some("audit") => audit::run(),
        Some("ui") => ui::run(),
        Some("bench") => bench::run(&args[1..]),
        Some("help" | "--help" | "-h") | None => {
            print!("{HELP}");
            Ok(())
        }
        Some(other) => bail!("unknown command `{other}`\n\n{HELP}"),
    }
}
