//! Why: a mistake in a configuration is shown where it stands, with the line, a caret and what would be right, and all of them at once: whoever
//! repairs a file should not have to run it once per mistake.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::secrets::REDACTED;

/// The nearest name is offered only if it is at least this alike (0 to 1, Jaro-Winkler): below it, a suggestion misleads more than it helps.
const ALIKE: f64 = 0.75;

/// How many known names are listed when none is near: more would hide the message.
const LISTED_NAMES: usize = 12;

/// How much of a line is shown: what fits a wide terminal.
const EXCERPT_CHARACTERS: usize = 160;

/// A configuration text and what to call it in messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub text: String,
    /// Every user of the machine may read it.
    pub open_to_all: bool,
}

impl Source {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Source {
        Source {
            name: name.into(),
            text: text.into(),
            open_to_all: false,
        }
    }
}

/// The texts of a configuration, and what no message may show of them.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    list: Arc<[Source]>,
    secrets: Arc<[String]>,
}

impl Sources {
    pub fn new(list: Vec<Source>, secrets: Vec<String>) -> Sources {
        Sources {
            list: list.into(),
            secrets: secrets.into(),
        }
    }

    fn of(&self, span: Option<Span>) -> Option<(Span, &Source)> {
        span.and_then(|span| self.list.get(span.source).map(|source| (span, source)))
    }

    /// The line on which a place begins.
    pub fn line_of(&self, span: Span) -> &str {
        let source = self.list.get(span.source).map_or("", |source| &source.text);
        source.lines().nth(span.line.saturating_sub(1)).unwrap_or_default()
    }

    /// The message without secrets.
    fn told(&self, text: &str) -> String {
        let covered = |text: String, secret: &String| match text.contains(secret.as_str()) {
            true => text.replace(secret.as_str(), REDACTED),
            false => text,
        };
        self.secrets.iter().fold(text.to_owned(), covered)
    }

    /// The line with each secret under as many stars as it has characters, so that what stands behind it keeps its column.
    fn line(&self, source: &Source, number: usize) -> String {
        let line = source.text.lines().nth(number - 1).unwrap_or_default().to_owned();
        let covered = |line: String, secret: &String| match line.contains(secret.as_str()) {
            true => line.replace(secret.as_str(), &"*".repeat(secret.chars().count())),
            false => line,
        };
        self.secrets.iter().fold(line, covered)
    }
}

/// A place in a source. Lines and columns count from 1, columns and length in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub source: usize,
    pub line: usize,
    pub column: usize,
    pub length: usize,
}

/// One mistake: where, what, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub span: Option<Span>,
    pub message: String,
    pub hint: Option<String>,
}

impl Problem {
    pub fn new(span: impl Into<Option<Span>>, message: impl Into<String>) -> Problem {
        Problem {
            span: span.into(),
            message: message.into(),
            hint: None,
        }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<Option<String>>) -> Problem {
        self.hint = hint.into();
        self
    }
}

/// All mistakes that were found, in the order of the text.
#[derive(Debug, Clone)]
pub struct Problems {
    pub list: Vec<Problem>,
    sources: Sources,
}

/// A problem as a program reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    pub file: Option<String>,
    pub line: Option<usize>,
    pub column: Option<usize>,
    pub message: String,
    pub hint: Option<String>,
}

impl Problems {
    pub(crate) fn new(sources: Sources, mut list: Vec<Problem>) -> Problems {
        list.sort_by_key(|problem| problem.span);
        list.dedup();
        Problems { list, sources }
    }

    /// Each with the names of what it is about, and without secrets.
    pub fn told(&self) -> Vec<Told> {
        let told = |problem: &Problem| {
            let place = self.sources.of(problem.span);
            Told {
                file: place.map(|(_, source)| source.name.clone()),
                line: place.map(|(span, _)| span.line),
                column: place.map(|(span, _)| span.column),
                message: self.sources.told(&problem.message),
                hint: problem.hint.as_deref().map(|hint| self.sources.told(hint)),
            }
        };
        self.list.iter().map(told).collect()
    }
}

impl fmt::Display for Told {
    /// On one line, for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(file), Some(line), Some(column)) = (&self.file, self.line, self.column) {
            write!(f, "{file}:{line}:{column}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            render(f, &self.sources, problem)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

fn render(f: &mut fmt::Formatter<'_>, sources: &Sources, problem: &Problem) -> fmt::Result {
    let message = sources.told(&problem.message);
    let hint = problem.hint.as_deref().map(|hint| sources.told(hint));
    let Some((span, source)) = sources.of(problem.span) else {
        writeln!(f, "{message}")?;
        if let Some(hint) = hint {
            writeln!(f, "  = {hint}")?;
        }
        return Ok(());
    };
    writeln!(f, "{}:{}:{}: {message}", source.name, span.line, span.column)?;
    let number = span.line.to_string();
    let margin = " ".repeat(number.len());
    let line: Vec<char> = sources.line(source, span.line).chars().collect();
    // Of a very long line, the part around the mistake.
    let at = (span.column - 1).min(line.len());
    let from = if line.len() > EXCERPT_CHARACTERS {
        at.saturating_sub(EXCERPT_CHARACTERS / 2)
    } else {
        0
    };
    let to = line.len().min(from + EXCERPT_CHARACTERS);
    let excerpt: String = line[from..to].iter().collect();
    let before: String = line[from..at]
        .iter()
        .map(|c| if *c == '\t' { '\t' } else { ' ' })
        .collect();
    let carets = "^".repeat(span.length.min(to - at).max(1));
    writeln!(f, "{margin} |")?;
    writeln!(f, "{number} | {excerpt}")?;
    write!(f, "{margin} | {before}{carets}")?;
    match hint {
        Some(hint) => writeln!(f, " {hint}"),
        None => writeln!(f),
    }
}

/// What would be right instead of `wrong`: the nearest of the known names, or which there are.
pub fn suggest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    let lower = wrong.to_lowercase();
    let nearest = known
        .iter()
        .map(|name| (strsim::jaro_winkler(&lower, &name.to_lowercase()), *name))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((alike, name)) if alike >= ALIKE => Some(format!("did you mean `{name}`?")),
        Some(_) => {
            let listed: Vec<String> = known
                .iter()
                .take(LISTED_NAMES)
                .map(|name| format!("`{name}`"))
                .collect();
            let more = if known.len() > LISTED_NAMES { ", …" } else { "" };
            Some(format!("known here: {}{more}", listed.join(", ")))
        }
        None => None,
    }
}
