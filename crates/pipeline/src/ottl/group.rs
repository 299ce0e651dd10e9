//! Why: how statements and conditions stand in a configuration is the same for all processors that have them: reading them, telling where a mistake is, and
//! what is done when one fails on an item.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use model::Signal;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::paths::Context;
use super::{Fault, Mistake, check};
use crate::config::{Problems, Section, suggest};
use crate::ledger::StepBook;

/// What happens when a statement or condition fails on an item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorMode {
    /// It is counted, logged for the first time, and the next statement runs; a condition that fails does not hold.
    #[default]
    Ignore,
    /// As `ignore`, without a log.
    Silent,
    /// The batch is refused for good.
    Propagate,
}

/// An entry of a list: a text alone, or a group of its own.
#[derive(Debug, Clone)]
pub enum Entry<G> {
    Text(String),
    Group(G),
}

impl<'de, G: Deserialize<'de>> Deserialize<'de> for Entry<G> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entry<G>, D::Error> {
        struct Either<G>(std::marker::PhantomData<G>);
        impl<'de, G: Deserialize<'de>> Visitor<'de> for Either<G> {
            type Value = Entry<G>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a map with `context`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Entry<G>, E> {
                Ok(Entry::Text(text.to_owned()))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Entry<G>, E> {
                Ok(Entry::Text(value.to_string()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry<G>, A::Error> {
                G::deserialize(MapAccessDeserializer::new(map)).map(Entry::Group)
            }
        }
        deserializer.deserialize_any(Either(std::marker::PhantomData))
    }
}

/// Something that may fail on items, and whether that was logged.
#[derive(Debug)]
pub struct Guarded<T> {
    pub inner: T,
    text: String,
    mode: ErrorMode,
    told: AtomicBool,
}

impl<T> Guarded<T> {
    pub fn new(inner: T, text: &str, mode: ErrorMode) -> Guarded<T> {
        Guarded {
            inner,
            text: text.to_owned(),
            mode,
            told: AtomicBool::new(false),
        }
    }

    /// What a fault means: nothing more than a count, or the end of the batch.
    pub fn failed(&self, fault: Fault, book: &StepBook, signal: Signal) -> Result<(), Fault> {
        book.fault(signal);
        match self.mode {
            ErrorMode::Propagate => Err(Fault::from(format!("`{}`: {fault}", self.text))),
            ErrorMode::Silent => Ok(()),
            ErrorMode::Ignore => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        processor = &*book.processor,
                        "`{}` failed on one of the {}: {fault}; later failures are only counted",
                        self.text,
                        signal.items()
                    );
                }
                Ok(())
            }
        }
    }
}

/// A mistake in a statement, at its place in the configuration.
pub fn problem(section: &Section<'_>, path: &[&str], text: &str, mistake: Mistake) -> Problems {
    let message = format!("{} (column {} of the statement)", mistake.message, mistake.column(text));
    section.problem_in(path, mistake.at..mistake.end, message, mistake.hint)
}

/// The context that a group names, which must be one of the signal's.
pub fn context(section: &Section<'_>, path: &[&str], name: &str, signal: Signal) -> Result<Context, Problems> {
    let all = Context::of(signal);
    Context::from_name(name)
        .filter(|context| all.contains(context))
        .ok_or_else(|| {
            let hint = suggest(name, all.iter().map(|context| context.name()));
            section.problem_in(path, 0..name.len(), format!("`{name}` is no context of {signal}"), hint)
        })
}

/// The context of texts that do not name one: the innermost that any of them is about.
pub fn inferred(
    section: &Section<'_>,
    texts: &[(Vec<String>, &str, bool)],
    signal: Signal,
) -> Result<Option<Context>, Problems> {
    let mut innermost = None;
    for (path, text, is_statement) in texts {
        let context = check::infer(text, signal, *is_statement).map_err(|mistake| {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            problem(section, &path, text, mistake)
        })?;
        innermost = innermost.max(Some(context));
    }
    Ok(innermost)
}
