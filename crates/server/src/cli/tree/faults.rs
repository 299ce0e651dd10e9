//! The list of what went wrong: each failure once, with its stack and with what its callers made of it.

use model::SpanId;
use query::story::{Fault, FaultSource, Log, SeenIn};

use super::super::terminal::Ink;
use super::{Page, fault_text};

/// Lines of a stack shown unless all are asked for.
const STACK_LINES_SHOWN: usize = 8;
/// Faults listed at the end unless all are asked for.
const FAULTS_SHOWN: usize = 10;

impl Page<'_> {
    pub(super) fn faults(&mut self) {
        let (story, terminal) = (self.story, self.terminal);
        if story.errors.is_empty() {
            return;
        }
        let limit = if self.all { usize::MAX } else { FAULTS_SHOWN };
        self.line("");
        self.line(&terminal.ink(Ink::Bold, if story.errors.len() == 1 { "error" } else { "errors" }));
        let mut times = 1;
        for (k, fault) in story.errors.iter().enumerate().take(limit) {
            // Tries that failed alike are one line, with what became of the last.
            let is_repeated = story.errors.get(k + 1).is_some_and(|next| {
                (&next.service, &next.kind, &next.message) == (&fault.service, &fault.kind, &fault.message)
            });
            if is_repeated && fault.stack.is_none() && fault.seen_in.is_empty() && k + 1 < limit {
                times += 1;
                continue;
            }
            let mut text = terminal.clean(&fault_text(fault));
            if times > 1 {
                text = format!("{text} {} {times}", terminal.sign("×", "x"));
                times = 1;
            }
            let service = terminal.ink(self.service_ink(&fault.service), &terminal.clean(&fault.service));
            let line = format!("  {service} {}", terminal.ink(Ink::Error, &text));
            self.line(&line);
            // Where the failing call has no stack, its nearest caller's leads to it.
            let stack = fault.seen_in.iter().find_map(|seen| seen.stack.as_deref());
            self.stack(fault.stack.as_deref().or(stack).unwrap_or_default());
            self.layers(fault);
        }
        if story.errors.len() > limit {
            let text = format!(
                "  {}{} more errors",
                terminal.sign("… ", ".. "),
                story.errors.len() - limit
            );
            self.line(&terminal.ink(Ink::Faint, &text));
        }
    }

    fn stack(&mut self, text: &str) {
        let terminal = self.terminal;
        let stack: Vec<&str> = text.lines().collect();
        let lines = if self.all { stack.len() } else { STACK_LINES_SHOWN };
        for frame in stack.iter().take(lines) {
            let indent = frame.len() - frame.trim_start().len();
            let frame = format!(
                "    {}{}",
                " ".repeat(indent.min(8)),
                terminal.clean(frame.trim_start())
            );
            self.line(&terminal.ink(Ink::Faint, &terminal.fit(&frame, self.width())));
        }
        if stack.len() > lines {
            let text = format!(
                "    {}{} more lines of stack",
                terminal.sign("… ", ".. "),
                stack.len() - lines
            );
            self.line(&terminal.ink(Ink::Faint, &text));
        }
    }

    /// One line for each span that the failure went through on its way up, with what it said where that is new.
    fn layers(&mut self, fault: &Fault) {
        let terminal = self.terminal;
        let mut layers = fault.seen_in.as_slice();
        while let Some(first) = layers.first() {
            let same_span = layers.iter().take_while(|seen| seen.span_id == first.span_id).count();
            let (here, above) = layers.split_at(same_span);
            layers = above;
            let words: Vec<String> = here.iter().filter_map(|seen| words(seen, fault)).collect();
            let words = if self.all {
                words.join(self.dot())
            } else {
                words.into_iter().next().unwrap_or_default()
            };
            // Other words on the failure's own span need no second naming of it.
            if words.is_empty() && first.span_id == fault.span_id {
                continue;
            }
            let text = format!("{} {}", first.service, first.operation);
            let text = if words.is_empty() {
                text
            } else {
                format!("{text}: {words}")
            };
            let line = format!("    {}{}", terminal.sign("↑ ", "^ "), terminal.clean(&text));
            self.line(&terminal.ink(Ink::Faint, &terminal.fit(&line, self.width())));
        }
        if fault.seen_in_cut > 0 {
            let text = format!(
                "    {}{} more layers above",
                terminal.sign("… ", ".. "),
                fault.seen_in_cut
            );
            self.line(&terminal.ink(Ink::Faint, &text));
        }
    }

    /// What a span made of a failure below it, where none of its log lines says so already.
    pub(super) fn layer_notes(&self, span: SpanId, logs: &[&Log], room: usize) -> Vec<String> {
        let terminal = self.terminal;
        let mut notes: Vec<String> = Vec::new();
        for seen in self.layers.get(&span).into_iter().flatten() {
            let is_logged = logs.iter().any(|log| log.message.contains(&seen.message));
            if seen.message.is_empty() || seen.source == FaultSource::Log || is_logged {
                continue;
            }
            let text = format!("{}{}", terminal.sign("↑ ", "^ "), typed(&seen.kind, &seen.message));
            let note = terminal.ink(Ink::Faint, &terminal.fit(&terminal.clean(&text), room));
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        notes
    }

    fn width(&self) -> usize {
        if self.all { usize::MAX } else { self.terminal.columns }
    }
}

/// What a layer adds to the words of the failure, which stand above it already.
fn words(seen: &SeenIn, fault: &Fault) -> Option<String> {
    if seen.message.is_empty() || fault.message.contains(&seen.message) {
        return None;
    }
    let repeated = fault.message.len() > 1 && seen.message.contains(&fault.message);
    let message = if repeated {
        seen.message.replace(&fault.message, "…")
    } else {
        seen.message.clone()
    };
    Some(typed(&seen.kind, &message))
}

fn typed(kind: &str, message: &str) -> String {
    // A number is an HTTP status, which its reason phrase names.
    if kind.is_empty() || message.contains(kind) {
        message.to_owned()
    } else {
        format!("{kind}: {message}")
    }
}
