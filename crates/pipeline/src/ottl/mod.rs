//! Why: the OpenTelemetry Transformation Language, which `filter`, `transform` and `tail_sampling` have in common. A statement is read and checked once, with
//! the configuration; then it runs on encoded telemetry, borrowing what it reads.
//!
//! Text becomes words ([`lexer`]), a tree ([`parser`]), and a program whose paths and functions are known to exist ([`check`]). The program runs on a
//! [`frame::Frame`]. Source of the language: the OpenTelemetry Collector's `pkg/ottl`, its grammar and its list of functions.

use std::borrow::Cow;

pub mod ast;
pub mod check;
pub mod editors;
pub mod frame;
pub mod functions;
pub mod group;
pub mod lexer;
pub mod parser;
pub mod paths;
pub mod program;
#[cfg(test)]
mod tests;
pub mod time;
pub mod value;

/// How deep expressions may nest: far more than people write, and no stack ends there.
pub const MAX_DEPTH: u32 = 64;

/// How many operators may stand in a row on one level.
pub const MAX_CHAIN: usize = 256;

/// The longest statement, in bytes.
pub const MAX_STATEMENT_BYTES: usize = 64 << 10;

/// How many statements and conditions one processor may have.
pub const MAX_STATEMENTS: usize = 1_000;

/// How much longer statements may make one message, in bytes: a pattern that is replaced by its own text over and over ends here.
pub const MAX_GROWTH_BYTES: usize = 1 << 20;

/// How many bytes statements may add to one batch in all.
pub const MAX_BATCH_GROWTH_BYTES: usize = 64 << 20;

/// A mistake in a statement as it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Mistake {
    /// Where it begins and ends, in bytes of the statement.
    pub at: usize,
    pub end: usize,
    pub message: String,
    pub hint: Option<String>,
}

impl Mistake {
    pub fn new(at: usize, end: usize, message: impl Into<String>) -> Mistake {
        Mistake {
            at,
            end,
            message: message.into(),
            hint: None,
        }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<Option<String>>) -> Mistake {
        self.hint = hint.into();
        self
    }

    /// The column in the statement, counted in characters from 1.
    pub fn column(&self, statement: &str) -> usize {
        statement.get(..self.at).unwrap_or_default().chars().count() + 1
    }
}

/// What went wrong when a statement met an item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub Cow<'static, str>);

impl From<&'static str> for Fault {
    fn from(message: &'static str) -> Fault {
        Fault(Cow::Borrowed(message))
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Fault {
        Fault(Cow::Owned(message))
    }
}
