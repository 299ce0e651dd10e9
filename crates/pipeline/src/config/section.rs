//! Why: what a component sees of the configuration: its own settings, and a way to complain about them, or to remark on them, at the place where they
//! stand.

use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;

use super::de;
use super::diagnostic::{Problem, Problems, Span, suggest};
use super::document::{Component, Config};
use super::yaml::{Node, Value};

/// A component's settings.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    pub component: &'a Component,
    pub(super) config: &'a Config,
}

/// What components remark on.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<Vec<Problem>>);

impl Notes {
    pub fn list(&self) -> Vec<Problem> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<'a> Section<'a> {
    /// Reads the settings; all mistakes are reported with their places.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Problems> {
        de::read(&self.component.settings).map_err(|list| Problems::new(self.config.sources.clone(), list))
    }

    /// A mistake that only shows in the meaning; it is placed at the setting `path` leads to, as far as it exists. Items of lists are numbers from 0.
    pub fn problem(&self, path: &[&str], message: impl Into<String>) -> Problems {
        let (span, node) = self.place(path);
        let unset = match &node.value {
            Value::Scalar(scalar) => scalar.unset.first(),
            Value::List(_) | Value::Map(_) => None,
        };
        let hint = unset.map(|name| format!("the environment variable {name} is not set"));
        Problems::new(
            self.config.sources.clone(),
            vec![Problem::new(span, message).hint(hint)],
        )
    }

    /// As [`Section::problem`], about a part of a text (in bytes). The mark stands at that part where the source shows the text as it is, on one line.
    pub fn problem_in(
        &self,
        path: &[&str],
        part: std::ops::Range<usize>,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Problems {
        let (mut span, node) = self.place(path);
        if let Value::Scalar(scalar) = &node.value {
            let line: Vec<char> = self.config.sources.line_of(span).chars().collect();
            let text: Vec<char> = scalar.text.chars().collect();
            let chars = |to: usize| scalar.text.get(..to).map_or(0, |before| before.chars().count());
            // A quote may stand before it.
            let start = (0..=1)
                .map(|quote| span.column.saturating_sub(1) + quote)
                .find(|start| line.get(*start..).is_some_and(|rest| rest.starts_with(&text)));
            if let Some(start) = start {
                span.column = start + chars(part.start) + 1;
                span.length = chars(part.end).saturating_sub(chars(part.start)).max(1);
            }
        }
        Problems::new(
            self.config.sources.clone(),
            vec![Problem::new(span, message).hint(hint)],
        )
    }

    /// What the operator should hear about a setting that is accepted: that it has no effect, or how newer files write it. Placed as [`Section::problem`]
    /// is, and told by `validate`, by `config` and at the start.
    pub fn warn(&self, path: &[&str], message: impl Into<String>) {
        let (span, _) = self.place(path);
        let mut notes = self.config.notes.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(Problem::new(span, message));
    }

    /// Whether the setting is written down.
    pub fn sets(&self, path: &[&str]) -> bool {
        let mut node = &self.component.settings;
        path.iter().all(|key| match node.get(key) {
            Some(entry) => {
                node = &entry.value;
                true
            }
            None => false,
        })
    }

    /// The extension that the setting `path` leads to names, where `is_kind` knows kinds of which it may be one. One that is not defined, is of another
    /// kind or is not started is a mistake of whoever names it.
    pub fn extension(&self, path: &[&str], name: &str, is_kind: fn(&str) -> bool) -> Result<Section<'a>, Problems> {
        let (span, _) = self.place(path);
        let problem = |message: String, hint: Option<String>| {
            Err(Problems::new(
                self.config.sources.clone(),
                vec![Problem::new(span, message).hint(hint)],
            ))
        };
        let all = &self.config.extensions;
        let fitting = || all.iter().filter(|it| is_kind(it.id.kind())).map(|it| it.id.as_str());
        let Some(component) = all.iter().find(|component| component.id.as_str() == name) else {
            let hint = match fitting().next() {
                Some(_) => suggest(name, fitting()),
                None => Some("define it under `extensions` and list it in `service.extensions`".to_owned()),
            };
            return problem(format!("the extension `{name}` is not defined"), hint);
        };
        if !is_kind(component.id.kind()) {
            let hint = fitting().next().and_then(|_| suggest(name, fitting()));
            return problem(format!("the extension `{name}` is none that can be named here"), hint);
        }
        let mut started = self.config.started_extensions.iter();
        if !started.any(|reference| reference.id == component.id) {
            let hint = format!("add `{name}` there");
            return problem(format!("`service.extensions` does not list `{name}`"), Some(hint));
        }
        Ok(self.config.section(component))
    }

    fn place(&self, path: &[&str]) -> (Span, &Node) {
        let mut node = &self.component.settings;
        let mut span = self.component.span;
        for key in path {
            if let Value::List(list) = node.shape() {
                let Some(item) = key.parse().ok().and_then(|at: usize| list.get(at)) else {
                    break;
                };
                (span, node) = (item.span, item);
                continue;
            }
            let Some(entry) = node.get(key) else { break };
            let is_written = matches!(&entry.value.value, Value::Scalar(scalar) if !scalar.raw.is_empty());
            span = match is_written || matches!(entry.value.shape(), Value::List(_)) {
                true => entry.value.span,
                false => entry.key_span,
            };
            node = &entry.value;
        }
        (span, node)
    }
}
