//! How far a replay got: a small file, replaced after each request that was answered and removed when all were.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::Failure;
use super::settings::Settings;
use super::source::{Position, Source};

/// What stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    version: u32,
    /// What was asked for; going on with something else would mix two replays.
    request: String,
    /// Which journal, or which files.
    source: String,
    position: Position,
    shift_nanos: Option<i64>,
}

const VERSION: u32 = 1;

pub struct State {
    path: PathBuf,
    stored: Stored,
    pub shift_nanos: Option<i64>,
}

impl State {
    /// Where to begin: at the beginning, or with `--resume` where the file says.
    pub fn begin(settings: &Settings, source: &Source) -> Result<State, Failure> {
        let path = settings.state.clone();
        let fresh = Stored {
            version: VERSION,
            request: settings.request.clone(),
            source: source.identity(),
            position: Position::default(),
            shift_nanos: None,
        };
        let stored = match settings.resume {
            false => fresh,
            true => {
                let shown = path.display();
                let text = std::fs::read(&path).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => Failure::usage(format!(
                        "--resume: there is no {shown}; nothing was left unfinished here"
                    )),
                    _ => Failure::usage(format!("--resume: {shown}: {error}")),
                })?;
                let stored: Stored = serde_json::from_slice(&text).map_err(|error| {
                    Failure::usage(format!("--resume: {shown} is not the state of a replay: {error}"))
                })?;
                if stored.version != VERSION || stored.request != fresh.request || stored.source != fresh.source {
                    return Err(Failure::usage(format!(
                        "--resume: {shown} is of another replay; give the same arguments, or leave --resume out to begin anew"
                    )));
                }
                stored
            }
        };
        Ok(State {
            path,
            shift_nanos: stored.shift_nanos,
            stored,
        })
    }

    pub fn position(&self) -> Position {
        self.stored.position
    }

    /// Everything up to here was answered for.
    pub fn passed(&mut self, position: Position) -> io::Result<()> {
        self.stored.position = position;
        self.stored.shift_nanos = self.shift_nanos;
        let beside = self.path.with_extension("new");
        std::fs::write(&beside, serde_json::to_vec(&self.stored)?)?;
        std::fs::rename(&beside, &self.path)
    }

    /// Nothing is left to go on with.
    pub fn done(self) {
        // Where nothing was sent there is none.
        let _ = std::fs::remove_file(&self.path);
    }
}
