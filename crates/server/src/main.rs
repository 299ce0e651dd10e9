//! The binary `trackline`: which command does what.

mod allocator;
mod api;
mod assemble;
mod check;
mod cli;
mod config;
mod demo;
mod extensions;
mod file_storage;
mod own_telemetry;
mod serve;
mod tables;
mod usage;
mod zpages;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

/// One binary for telemetry: receive it, keep it, and tell the whole story of a request.
///
/// Every response of an instrumented service carries a tracking ID. `trackline trace ID` shows what happened: the trace
/// across services, log lines, errors, database rows and what AI calls cost.
#[derive(Parser)]
#[command(name = "trackline", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(flatten)]
    files: config::Files,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  trackline demo                                   everything on this machine, with traffic to look at
  trackline serve                                  the server alone: OTLP on 4317 and 4318, Jaeger on 14250 and 14268, UI on 16686
  trackline collect --config FILE                  a collector with the OpenTelemetry Collector's YAML
  trackline trace 7f3c…                            one request's story, by the ID from X-Tracking-ID
  trackline search --service api-gateway --errors  recent failing requests
";

#[derive(Subcommand)]
enum Command {
    Serve(serve::Args),
    Collect(serve::CollectArgs),
    Validate(cli::ValidateArgs),
    Components(cli::ComponentsArgs),
    Demo(demo::Args),
    Config(serve::ConfigArgs),
    Trace(cli::TraceArgs),
    Search(cli::SearchArgs),
    Services(cli::ServicesArgs),
    Replay(cli::ReplayArgs),
    Journal(cli::JournalArgs),
    Store(cli::StoreArgs),
    /// Print completions for a shell: `trackline completions bash > /etc/bash_completion.d/trackline`.
    Completions {
        shell: Shell,
    },
}

fn main() -> ExitCode {
    allocator::give_back_soon();
    let arguments = Arguments::parse();
    match arguments.command {
        None => ending(serve::run(serve::Args::of(arguments.files))),
        Some(Command::Serve(args)) => ending(serve::run(args.after(arguments.files))),
        Some(Command::Collect(args)) => ending(args.run(arguments.files)),
        Some(Command::Validate(args)) => args.run(arguments.files),
        Some(Command::Components(args)) => args.run(),
        Some(Command::Demo(args)) => ending(demo::run(args)),
        Some(Command::Config(args)) => match serve::show_config(args, arguments.files) {
            Ok(text) => cli::print(text.as_bytes(), 0),
            Err(error) => ending(Err(error)),
        },
        Some(Command::Trace(args)) => args.run(),
        Some(Command::Search(args)) => args.run(),
        Some(Command::Services(args)) => args.run(),
        Some(Command::Replay(args)) => args.run(),
        Some(Command::Journal(args)) => args.run(),
        Some(Command::Store(args)) => args.run(),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "trackline", &mut script);
            cli::print(&script, 0)
        }
    }
}

/// A command that ran to its end, or one line that says why it did not.
fn ending(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trackline: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, each said once: many a message names its cause itself.
fn told(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_cause_that_the_message_names_was_said_twice() {
        let denied = || std::io::Error::from_raw_os_error(13);
        let named = anyhow::Error::new(denied()).context(format!("the store cannot be written ({})", denied()));
        assert_eq!(
            told(&named),
            "the store cannot be written (Permission denied (os error 13))"
        );
        let unnamed = anyhow::Error::new(denied()).context("opening the store");
        assert_eq!(told(&unnamed), "opening the store: Permission denied (os error 13)");
    }
}
