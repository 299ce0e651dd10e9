//! Terminal commands that ask a running server, or look into a data directory.
//!
//! Each command is a `clap` struct and a `run` that ends in an exit code: 0 found, 1 not found, 2 usage, 3 server not
//! reachable.

mod client;
mod components;
#[cfg(test)]
mod golden;
mod inspect;
mod replay;
mod search;
mod terminal;
mod trace;
mod tree;
mod validate;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

pub use client::Server;
use client::{Answer, ClientError};
pub use components::ComponentsArgs;
pub use inspect::{JournalArgs, StoreArgs};
pub use replay::ReplayArgs;
pub use search::{SearchArgs, ServicesArgs};
pub use trace::TraceArgs;
pub use validate::ValidateArgs;

/// What was asked for is there.
const FOUND: u8 = 0;
/// The question was understood and nothing answers it.
const NOT_FOUND: u8 = 1;
/// The question was not understood (also `clap`'s code).
const USAGE: u8 = 2;
/// No server, or one that cannot answer.
const UNREACHABLE: u8 = 3;

/// The server that is asked unless another is named: the built-in configuration's.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:16686";

/// Which server is asked.
#[derive(clap::Args, Clone, Debug)]
pub struct ServerArg {
    /// The server to ask
    #[arg(
        long,
        value_name = "URL",
        env = "TRACKLINE_URL",
        default_value = DEFAULT_SERVER
    )]
    server: String,
}

/// A command's failure, with the exit code that tells its kind.
#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn usage(text: impl Into<String>) -> Failure {
        Failure {
            code: USAGE,
            text: text.into(),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let code = if matches!(error, ClientError::Address { .. }) {
            USAGE
        } else {
            UNREACHABLE
        };
        Failure {
            code,
            text: error.to_string(),
        }
    }
}

impl Server {
    fn of(argument: &ServerArg) -> Result<Server, Failure> {
        // An empty variable is how a shell unsets one for a single command.
        let named = Some(argument.server.as_str()).filter(|url| !url.is_empty());
        Ok(Server::parse(named.unwrap_or(DEFAULT_SERVER))?)
    }

    /// The body of a successful answer; anything else in the server's own words.
    fn ask(&self, path: &str) -> Result<Answer, Failure> {
        #[derive(serde::Deserialize)]
        struct Refusal {
            error: String,
            #[serde(default)]
            hint: String,
        }
        let answer = self.get(path)?;
        if answer.status == 200 {
            return Ok(answer);
        }
        match serde_json::from_slice::<Refusal>(&answer.body) {
            Ok(Refusal { error, hint }) => Err(Failure {
                code: match answer.status {
                    400 => USAGE,
                    404 => NOT_FOUND,
                    _ => UNREACHABLE,
                },
                text: if hint.is_empty() {
                    error
                } else {
                    format!("{error}\n{hint}")
                },
            }),
            // Whoever answers there, it is not the server: a 404 of theirs says nothing about the trace.
            Err(_) => Err(Failure {
                code: UNREACHABLE,
                text: format!(
                    "{} answered HTTP {}; is it a Trackline server?",
                    self.address(),
                    answer.status
                ),
            }),
        }
    }
}

/// Writes what a command says to stdout, and ends it with `code`.
pub fn print(output: &[u8], code: u8) -> ExitCode {
    match std::io::stdout().lock().write_all(output) {
        // A reader that had enough (`| head`) is no failure.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("trackline: cannot write to stdout: {error}");
            ExitCode::from(UNREACHABLE)
        }
        _ => ExitCode::from(code),
    }
}

/// Ends a command: its output on stdout, its failure on stderr.
fn finish(result: Result<(String, u8), Failure>) -> ExitCode {
    match result {
        Ok((output, code)) => print(output.as_bytes(), code),
        Err(failure) => {
            eprintln!("trackline: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}
