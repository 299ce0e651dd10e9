//! The binary `trackline`.

#[cfg_attr(not(test), expect(dead_code, reason = "the command that serves it mounts it"))]
mod api;
mod cli;

use std::process::ExitCode;

use clap::Parser;

/// One binary for telemetry: receive it, keep it, and tell the whole story of a request.
#[derive(Parser)]
#[command(name = "trackline", version)]
enum Command {
    Trace(cli::TraceArgs),
    Search(cli::SearchArgs),
    Services(cli::ServicesArgs),
    Journal(cli::JournalArgs),
    Store(cli::StoreArgs),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Trace(args) => args.run(),
        Command::Search(args) => args.run(),
        Command::Services(args) => args.run(),
        Command::Journal(args) => args.run(),
        Command::Store(args) => args.run(),
    }
}
