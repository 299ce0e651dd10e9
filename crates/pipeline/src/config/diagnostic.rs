//! Why: a mistake in a configuration is shown where it stands, with the line, a caret and what would be right, and all of them at once: whoever
//! repairs a file should not have to run it once per mistake.

use std::fmt;
use std::sync::Arc;

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
}

impl Source {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Source {
        Source {
            name: name.into(),
            text: text.into(),
        }
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
    sources: Arc<[Source]>,
}

impl Problems {
    pub fn new(sources: Arc<[Source]>, mut list: Vec<Problem>) -> Problems {
        list.sort_by_key(|problem| problem.span);
        list.dedup();
        Problems { list, sources }
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

fn render(f: &mut fmt::Formatter<'_>, sources: &[Source], problem: &Problem) -> fmt::Result {
    let place = problem
        .span
        .and_then(|span| sources.get(span.source).map(|source| (span, source)));
    let Some((span, source)) = place else {
        writeln!(f, "{}", problem.message)?;
        if let Some(hint) = &problem.hint {
            writeln!(f, "  = {hint}")?;
        }
        return Ok(());
    };
    writeln!(f, "{}:{}:{}: {}", source.name, span.line, span.column, problem.message)?;
    let number = span.line.to_string();
    let margin = " ".repeat(number.len());
    let line: Vec<char> = source
        .text
        .lines()
        .nth(span.line - 1)
        .unwrap_or_default()
        .chars()
        .collect();
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
    match &problem.hint {
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
