//! A story as a person reads it in a terminal: one line a span, bars on one time axis, and under each span what it
//! logged, where it failed, what it asked of models and databases.
//!
//! A long trace is cut to the spans that matter: those that failed with the way down to them, then the longest. What
//! is left out is counted where it would stand, and `--all` shows it.

mod faults;

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use model::SpanId;
use query::fields;
use query::instant::{duration_text, rfc3339};
use query::story::{AiCall, Fault, Log, SeenIn, Span, SpanStatus, Status, Story};

use super::terminal::{Ink, Terminal, columns, pad, pad_left};

/// Spans shown unless all are asked for: about three screens.
pub const SPANS_SHOWN: usize = 120;
/// Log lines shown per span unless all are asked for; warnings and errors come first.
const LOGS_SHOWN: usize = 6;
/// Time in which a span waits for none of its children is shown from this share of the whole trace on.
const GAP_SHARE: u64 = 10;
/// Shorter gaps are scheduling or a network, not a finding.
const GAP_MIN_NS: u64 = 10_000_000;
/// Columns of a tracking ID.
const ID_COLUMNS: usize = 32;
/// Columns of the duration, right-aligned.
const DURATION_COLUMNS: usize = 8;
/// Columns of a cell of a database row: a UUID fits.
const CELL_COLUMNS: usize = 36;
/// Below this a database row is a list of its cells: a table would show the first two.
const TABLE_COLUMNS: usize = 66;

/// Draws a story.
pub fn draw(story: &Story, terminal: &Terminal, all: bool) -> String {
    let mut page = Page::new(story, terminal, all);
    page.header();
    page.spans();
    page.stray_logs();
    page.faults();
    page.ai();
    page.rows();
    page.footer();
    page.out
}

struct Page<'a> {
    story: &'a Story,
    terminal: &'a Terminal,
    all: bool,
    services: HashMap<&'a str, usize>,
    logs: HashMap<SpanId, Vec<&'a Log>>,
    faults: HashMap<SpanId, Vec<&'a Fault>>,
    /// What each span made of failures below it.
    layers: HashMap<SpanId, Vec<&'a SeenIn>>,
    calls: HashMap<SpanId, &'a AiCall>,
    axis: Axis,
    shown_spans: usize,
    cut_logs: usize,
    out: String,
}

/// The time axis: where bars stand.
#[derive(Clone, Copy)]
struct Axis {
    from_ns: i64,
    length_ns: u64,
    columns: usize,
}

impl<'a> Page<'a> {
    fn new(story: &'a Story, terminal: &'a Terminal, all: bool) -> Page<'a> {
        let trace = &story.trace;
        let from_ns = trace.spans.iter().map(corrected).min().unwrap_or(0);
        let end = |span: &Span| corrected(span).saturating_add_unsigned(span.duration_ns);
        let to_ns = trace.spans.iter().map(end).max().unwrap_or(0);
        let bars = match terminal.columns {
            0..72 => 0,
            width => (width * 3 / 10).clamp(16, 60),
        };
        let mut logs: HashMap<SpanId, Vec<&Log>> = HashMap::new();
        for log in &story.logs {
            logs.entry(log.span_id.unwrap_or_default()).or_default().push(log);
        }
        let mut faults: HashMap<SpanId, Vec<&Fault>> = HashMap::new();
        for fault in &story.errors {
            faults.entry(fault.span_id.unwrap_or_default()).or_default().push(fault);
        }
        let mut layers: HashMap<SpanId, Vec<&SeenIn>> = HashMap::new();
        for seen in story.errors.iter().flat_map(|fault| &fault.seen_in) {
            layers.entry(seen.span_id.unwrap_or_default()).or_default().push(seen);
        }
        Page {
            story,
            terminal,
            all,
            services: trace
                .services
                .iter()
                .enumerate()
                .map(|(i, share)| (share.name.as_str(), i))
                .collect(),
            logs,
            faults,
            layers,
            calls: story.ai.calls.iter().map(|call| (call.span_id, call)).collect(),
            axis: Axis {
                from_ns,
                length_ns: to_ns.abs_diff(from_ns).max(1),
                columns: bars,
            },
            shown_spans: 0,
            cut_logs: 0,
            out: String::new(),
        }
    }

    fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    /// A sentence, broken between words where the terminal is too narrow for it.
    fn wrapped(&mut self, ink: Ink, text: &str) {
        for line in self.terminal.wrap(text) {
            let line = self.terminal.ink(ink, &line);
            self.line(&line);
        }
    }

    fn service_ink(&self, service: &str) -> Ink {
        Ink::Service(self.services.get(service).copied().unwrap_or(0))
    }

    fn dot(&self) -> &'static str {
        self.terminal.sign(" · ", " | ")
    }

    fn header(&mut self) {
        let (story, terminal) = (self.story, self.terminal);
        let ink = match story.status {
            Status::Found if story.errors.is_empty() => Ink::Good,
            Status::Found => Ink::Error,
            Status::Partial | Status::NotSampled => Ink::Warning,
            Status::Expired | Status::Unknown => Ink::Error,
        };
        let word = match story.status {
            Status::NotSampled => "not sampled",
            status => status.as_str(),
        };
        let mut title = format!(
            "{}  {}",
            terminal.ink(Ink::Bold, &story.tracking_id.to_string()),
            terminal.ink(ink, word)
        );
        let time = match story.trace.start_unix_nano {
            0 => String::new(),
            start => rfc3339(start, 3),
        };
        let width = ID_COLUMNS + 2 + columns(word) + columns(self.dot()) + columns(&time);
        if width <= terminal.columns && !time.is_empty() {
            let _ = write!(title, "{}{time}", self.dot());
        }
        self.line(&title);
        if width > terminal.columns {
            self.line(&time);
        }
        self.wrapped(Ink::Plain, &terminal.clean(&story.explanation));
        if story.trace.clock_skew {
            let text = "Clocks disagree: bars marked ~ are moved to where their caller's clock puts them.";
            self.wrapped(Ink::Warning, text);
        }
    }

    /// Which spans are shown: positions in `trace.spans`, each with all its ancestors.
    fn chosen(&self, parents: &[Option<usize>]) -> Vec<bool> {
        let spans = &self.story.trace.spans;
        if self.all || spans.len() <= SPANS_SHOWN {
            return vec![true; spans.len()];
        }
        let failed = |span: &Span| self.faults.contains_key(&span.span_id) || span.status == SpanStatus::Error;
        let mut by_weight: Vec<usize> = (0..spans.len()).collect();
        by_weight.sort_by_key(|&i| {
            (
                !self.faults.contains_key(&spans[i].span_id),
                !failed(&spans[i]),
                std::cmp::Reverse(spans[i].duration_ns),
                i,
            )
        });
        let mut chosen = vec![false; spans.len()];
        let mut room = SPANS_SHOWN;
        let mut way = Vec::new();
        for i in by_weight {
            way.clear();
            let mut step = Some(i);
            while let Some(position) = step.filter(|&position| !chosen[position] && way.len() <= room) {
                way.push(position);
                step = parents[position];
            }
            if way.len() <= room {
                room -= way.len();
                way.iter().for_each(|&position| chosen[position] = true);
            }
            if room == 0 {
                break;
            }
        }
        chosen
    }

    fn spans(&mut self) {
        let spans = &self.story.trace.spans;
        if spans.is_empty() {
            return;
        }
        // Parents by position, from the depths: the spans are in tree order.
        let mut parents: Vec<Option<usize>> = Vec::with_capacity(spans.len());
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); spans.len()];
        let mut tops: Vec<usize> = Vec::new();
        let mut way: Vec<usize> = Vec::new();
        for (position, span) in spans.iter().enumerate() {
            way.truncate(span.depth as usize);
            parents.push(way.last().copied());
            match way.last() {
                Some(&parent) => children[parent].push(position),
                None => tops.push(position),
            }
            way.push(position);
        }
        let chosen = self.chosen(&parents);
        self.shown_spans = chosen.iter().filter(|&&shown| shown).count();

        self.line("");
        self.axis_line();
        let mut open: Vec<(Vec<Item>, String)> = vec![(self.items_of_tops(&tops, &chosen), String::new())];
        // Depth first without recursion: each entry holds what is still to be drawn below one span, last first.
        while let Some((items, prefix)) = open.last_mut() {
            let Some(item) = items.pop() else {
                open.pop();
                continue;
            };
            let last = items.is_empty();
            let prefix = prefix.clone();
            let top = open.len() == 1;
            let (branch, below) = match (top, last) {
                (true, _) => ("", ""),
                // A chain too deep for the page stays at one indent and counts its levels.
                _ if columns(&prefix) >= self.terminal.columns / 3 => ("", ""),
                (false, true) => (self.terminal.sign("└─ ", "`- "), "   "),
                (false, false) => (self.terminal.sign("├─ ", "|- "), self.terminal.sign("│  ", "|  ")),
            };
            match item {
                Item::Span(position) => {
                    let parent_service = parents[position].map(|parent| spans[parent].service.as_str());
                    let level = match branch {
                        "" if !top => format!("{}{} ", spans[position].depth, self.terminal.sign("»", ">")),
                        _ => branch.to_owned(),
                    };
                    self.span_line(&spans[position], &format!("{prefix}{level}"), parent_service);
                    let below = format!("{prefix}{below}");
                    let items = self.items_below(position, &children[position], &chosen);
                    let rail = if items.is_empty() {
                        "   "
                    } else {
                        self.terminal.sign("│  ", "|  ")
                    };
                    self.notes(&spans[position], &format!("{below}{rail}"));
                    open.push((items, below));
                }
                Item::Gap { duration_ns } => {
                    let text = format!("{} in none of its children", duration_text(duration_ns));
                    let sign = self.terminal.sign("┄ ", ". ");
                    let line = format!(
                        "{prefix}{branch}{}",
                        self.terminal.ink(Ink::Faint, &format!("{sign}{text}"))
                    );
                    self.line(&line);
                }
                Item::Hidden {
                    spans: hidden,
                    longest_ns,
                } => {
                    let noun = if hidden == 1 { "span" } else { "spans" };
                    let sign = self.terminal.sign("… ", ".. ");
                    let text = format!("{sign}{hidden} more {noun}, the longest {}", duration_text(longest_ns));
                    let line = format!("{prefix}{branch}{}", self.terminal.ink(Ink::Faint, &text));
                    self.line(&line);
                }
            }
        }
    }

    fn items_of_tops(&self, tops: &[usize], chosen: &[bool]) -> Vec<Item> {
        let mut items: Vec<Item> = tops
            .iter()
            .filter(|&&top| chosen[top])
            .map(|&top| Item::Span(top))
            .collect();
        items.extend(self.hidden(tops, chosen));
        items.reverse();
        items
    }

    /// What stands below a span, last first: its children, the gaps between them, and how many are not shown.
    fn items_below(&self, position: usize, children: &[usize], chosen: &[bool]) -> Vec<Item> {
        let spans = &self.story.trace.spans;
        let mut items = Vec::new();
        let least = (self.axis.length_ns / GAP_SHARE).max(GAP_MIN_NS);
        let mut covered = corrected(&spans[position]);
        let end = covered.saturating_add_unsigned(spans[position].duration_ns);
        let gap = |from: i64, to: i64| {
            let duration_ns = u64::try_from(to.saturating_sub(from)).unwrap_or(0);
            (duration_ns >= least).then_some(Item::Gap { duration_ns })
        };
        let mut by_start: Vec<usize> = children.to_vec();
        by_start.sort_by_key(|&child| corrected(&spans[child]));
        for child in by_start {
            let start = corrected(&spans[child]);
            if chosen[child] {
                items.extend(gap(covered, start.min(end)));
                items.push(Item::Span(child));
            }
            covered = covered.max(start.saturating_add_unsigned(spans[child].duration_ns));
        }
        if !children.is_empty() {
            items.extend(gap(covered, end));
        }
        items.extend(self.hidden(children, chosen));
        items.reverse();
        items
    }

    /// Counts the spans of all subtrees that are not shown.
    fn hidden(&self, siblings: &[usize], chosen: &[bool]) -> Option<Item> {
        let all = &self.story.trace.spans;
        let (mut spans, mut longest_ns) = (0, 0);
        for &sibling in siblings.iter().filter(|&&sibling| !chosen[sibling]) {
            let depth = all[sibling].depth;
            let below = all[sibling + 1..].iter().take_while(|span| span.depth > depth).count();
            spans += 1 + below;
            longest_ns = longest_ns.max(all[sibling].duration_ns);
        }
        (spans > 0).then_some(Item::Hidden { spans, longest_ns })
    }

    /// Columns left of the bars.
    fn text_columns(&self) -> usize {
        let bars = if self.axis.columns > 0 {
            self.axis.columns + 2
        } else {
            0
        };
        self.terminal.columns.saturating_sub(bars + DURATION_COLUMNS + 1)
    }

    fn axis_line(&mut self) {
        if self.axis.columns == 0 {
            return;
        }
        let full = duration_text(self.axis.length_ns);
        let half = duration_text(self.axis.length_ns / 2);
        let middle = self.axis.columns / 2;
        let mut scale = pad("0", middle.saturating_sub(columns(&half) / 2));
        scale.push_str(&half);
        let rest = self.axis.columns.saturating_sub(columns(&scale));
        scale.push_str(&pad_left(&full, rest));
        let line = format!(
            "{}{}",
            " ".repeat(self.text_columns() + DURATION_COLUMNS + 3),
            self.terminal.ink(Ink::Faint, &scale)
        );
        self.line(&line);
    }

    fn span_line(&mut self, span: &Span, lead: &str, parent_service: Option<&str>) {
        let terminal = self.terminal;
        let failed = span.status == SpanStatus::Error || self.faults.contains_key(&span.span_id);
        let mark = if failed { terminal.sign("✗ ", "x ") } else { "" };
        let room = self.text_columns().saturating_sub(columns(lead) + columns(mark));
        let operation = terminal.clean(&span.operation);
        let service = terminal.clean(&span.service);
        let (service, operation) = if parent_service == Some(span.service.as_str()) {
            (String::new(), terminal.fit(&operation, room))
        } else {
            let service = terminal.fit(&service, room / 2);
            let left = room.saturating_sub(columns(&service) + 1);
            (service, terminal.fit(&operation, left))
        };
        let mut used = columns(lead) + columns(mark) + columns(&operation);
        let mut line = lead.to_owned();
        line.push_str(&terminal.ink(Ink::Error, mark));
        if !service.is_empty() {
            line.push_str(&terminal.ink(self.service_ink(&span.service), &service));
            line.push(' ');
            used += columns(&service) + 1;
        }
        line.push_str(&terminal.ink(if failed { Ink::Error } else { Ink::Bold }, &operation));
        line.push_str(&" ".repeat(self.text_columns().saturating_sub(used) + 1));
        line.push_str(&pad_left(&duration_text(span.duration_ns), DURATION_COLUMNS));
        if self.axis.columns > 0 {
            let skewed = if span.skew_ns != 0 { "~ " } else { "  " };
            line.push_str(skewed);
            let ink = if failed {
                Ink::Error
            } else {
                self.service_ink(&span.service)
            };
            line.push_str(&self.bar(span, ink));
        }
        self.line(&line);
    }

    fn bar(&self, span: &Span, ink: Ink) -> String {
        let Axis {
            from_ns,
            length_ns,
            columns,
        } = self.axis;
        let column = |ns: u64| (u128::from(ns) * columns as u128 / u128::from(length_ns)) as usize;
        let offset = corrected(span).abs_diff(from_ns);
        let first = column(offset).min(columns - 1);
        let last = column(offset.saturating_add(span.duration_ns)).clamp(first, columns);
        let bar = match last - first {
            0 => self.terminal.sign("▏", "|").to_owned(),
            cells => self.terminal.sign("█", "=").repeat(cells),
        };
        format!("{}{}", " ".repeat(first), self.terminal.ink(ink, &bar))
    }

    /// What a span has to say beside its line: faults, the model's and the database's part, log lines.
    fn notes(&mut self, span: &Span, lead: &str) {
        let terminal = self.terminal;
        let room = if self.all {
            usize::MAX
        } else {
            terminal.columns.saturating_sub(columns(lead))
        };
        let mut notes: Vec<String> = Vec::new();
        if span.orphan {
            let parent = span.parent_span_id.map(|id| id.to_string()).unwrap_or_default();
            notes.push(terminal.ink(
                Ink::Warning,
                &terminal.fit(&format!("its parent {parent} is not here"), room),
            ));
        }
        if let Some(call) = self.calls.get(&span.span_id) {
            notes.push(terminal.fit(&terminal.clean(&self.call_text(call)), room));
        }
        if let Some(text) = span.attributes.as_deref().and_then(database_text) {
            notes.push(terminal.ink(Ink::Faint, &terminal.fit(&terminal.clean(&text), room)));
        }
        for fault in self.faults.get(&span.span_id).into_iter().flatten() {
            let text = format!("{}{}", terminal.sign("✗ ", "x "), fault_text(fault));
            notes.push(terminal.ink(Ink::Error, &terminal.fit(&terminal.clean(&text), room)));
        }
        let logs = self.logs.remove(&span.span_id).unwrap_or_default();
        notes.extend(self.layer_notes(span.span_id, &logs, room));
        let shown = self.shown_logs(&logs);
        for log in logs.iter().filter(|log| shown.contains(&std::ptr::from_ref(**log))) {
            notes.push(self.log_line(log, room, &span.service));
        }
        let cut = logs.len() - shown.len();
        if cut > 0 {
            self.cut_logs += cut;
            let noun = if cut == 1 { "log line" } else { "log lines" };
            notes.push(terminal.ink(Ink::Faint, &format!("{}{cut} more {noun}", terminal.sign("… ", ".. "))));
        }
        for note in notes {
            self.line(&format!("{lead}{note}"));
        }
    }

    /// The lines that say most, warnings and errors before others; in the set by address, for they have no id.
    fn shown_logs(&self, logs: &[&Log]) -> HashSet<*const Log> {
        let mut ranked: Vec<&Log> = logs.to_vec();
        if !self.all {
            ranked.sort_by_key(|log| !matches!(log.level.as_str(), "WARN" | "ERROR" | "FATAL"));
            ranked.truncate(LOGS_SHOWN);
        }
        ranked.into_iter().map(std::ptr::from_ref).collect()
    }

    fn log_line(&self, log: &Log, room: usize, span_service: &str) -> String {
        let terminal = self.terminal;
        let ink = match log.level.as_str() {
            "ERROR" | "FATAL" => Ink::Error,
            "WARN" => Ink::Warning,
            _ => Ink::Plain,
        };
        let at = if log.offset_ns < 0 {
            format!("-{}", duration_text(log.offset_ns.unsigned_abs()))
        } else {
            duration_text(log.offset_ns.unsigned_abs())
        };
        let service = if log.service == span_service {
            String::new()
        } else {
            format!("{} ", terminal.clean(&log.service))
        };
        let level = pad(&terminal.clean(&log.level), 5);
        let head = format!("{} ", pad_left(&at, DURATION_COLUMNS - 1));
        let used = columns(&head) + columns(&level) + 1 + columns(&service);
        let message = terminal.fit(&terminal.clean(&log.message), room.saturating_sub(used));
        let service = terminal.ink(self.service_ink(&log.service), &service);
        format!(
            "{}{} {service}{message}",
            terminal.ink(Ink::Faint, &head),
            terminal.ink(ink, &level)
        )
    }

    fn call_text(&self, call: &AiCall) -> String {
        let mut parts: Vec<String> = Vec::new();
        let who = [call.provider.as_str(), call.model.as_str()]
            .into_iter()
            .filter(|part| !part.is_empty());
        parts.push(who.collect::<Vec<_>>().join(" "));
        if call.input_tokens + call.output_tokens > 0 {
            parts.push(format!(
                "{} tokens in, {} out",
                grouped(call.input_tokens),
                grouped(call.output_tokens)
            ));
        }
        if call.cost_usd > 0.0 {
            parts.push(dollars(call.cost_usd));
        }
        format!("{}{}", self.terminal.sign("◆ ", "* "), parts.join(self.dot()))
    }

    /// Logs of no span that is here.
    fn stray_logs(&mut self) {
        let known: HashSet<SpanId> = self.story.trace.spans.iter().map(|span| span.span_id).collect();
        let (terminal, all) = (self.terminal, self.all);
        let limit = if all { usize::MAX } else { SPANS_SHOWN };
        let stray: Vec<&Log> = self
            .story
            .logs
            .iter()
            .filter(|log| log.span_id.is_none_or(|id| !known.contains(&id)))
            .collect();
        if stray.is_empty() {
            return;
        }
        self.line("");
        let title = if known.is_empty() {
            "logs"
        } else {
            "logs outside of these spans"
        };
        self.line(&terminal.ink(Ink::Bold, title));
        let room = if all { usize::MAX } else { terminal.columns - 2 };
        for log in stray.iter().take(limit) {
            let line = format!("  {}", self.log_line(log, room, ""));
            self.line(&line);
        }
        self.cut_logs += stray.len().saturating_sub(limit);
    }

    fn ai(&mut self) {
        let ai = &self.story.ai;
        if ai.calls.is_empty() {
            return;
        }
        let calls = if ai.calls.len() == 1 {
            "1 call".to_owned()
        } else {
            format!("{} calls", ai.calls.len())
        };
        let parts = [
            calls,
            format!(
                "{} tokens in, {} out",
                grouped(ai.input_tokens),
                grouped(ai.output_tokens)
            ),
            dollars(ai.cost_usd),
        ];
        self.line("");
        let line = format!("AI  {}", parts.join(self.dot()));
        match line
            .strip_prefix("AI")
            .filter(|_| columns(&line) <= self.terminal.columns)
        {
            Some(rest) => self.line(&format!("{}{rest}", self.terminal.ink(Ink::Bold, "AI"))),
            None => self.wrapped(Ink::Plain, &line),
        }
    }

    fn rows(&mut self) {
        let (story, terminal) = (self.story, self.terminal);
        for table in &story.rows {
            self.line("");
            let title = format!(
                "{}{}{}",
                terminal.clean(&table.table),
                self.dot(),
                terminal.clean(&table.source)
            );
            self.line(&terminal.ink(Ink::Bold, &title));
            let text = |value: &serde_json::Value| match value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let cut =
                |text: &str| terminal.fit(&terminal.clean(text), if self.all { usize::MAX } else { CELL_COLUMNS });
            let header: Vec<String> = table.columns.iter().map(|name| cut(name)).collect();
            let rows: Vec<Vec<String>> = table
                .rows
                .iter()
                .map(|row| row.iter().map(|value| cut(&text(value))).collect())
                .collect();
            let widths: Vec<usize> = (0..header.len())
                .map(|i| {
                    rows.iter()
                        .chain([&header])
                        .filter_map(|row| row.get(i))
                        .map(|cell| columns(cell))
                        .max()
                        .unwrap_or(0)
                })
                .collect();
            if !self.all && terminal.columns < TABLE_COLUMNS {
                let names = header.iter().map(|name| columns(name)).max().unwrap_or(0);
                for (name, cell) in rows.iter().flat_map(|row| header.iter().zip(row)) {
                    let line = terminal.fit(&format!("  {}  {cell}", pad(name, names)), terminal.columns);
                    self.line(&line);
                }
                continue;
            }
            for (number, row) in [&header].into_iter().chain(&rows).enumerate() {
                let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| pad(cell, width)).collect();
                let line = format!("  {}", cells.join("  "));
                let line = if self.all {
                    line
                } else {
                    terminal.fit(line.trim_end(), terminal.columns)
                };
                self.line(&terminal.ink(if number == 0 { Ink::Faint } else { Ink::Plain }, line.trim_end()));
            }
            if table.cut {
                self.line(&terminal.ink(
                    Ink::Faint,
                    &format!("  {}there are more rows", terminal.sign("… ", ".. ")),
                ));
            }
        }
        if let Some(error) = &story.rows_error {
            self.line("");
            self.wrapped(Ink::Warning, &format!("database rows: {}", terminal.clean(error)));
        }
    }

    fn footer(&mut self) {
        let trace = &self.story.trace;
        let mut cuts: Vec<String> = Vec::new();
        if self.shown_spans < trace.spans.len() {
            cuts.push(format!(
                "{} of {} spans are shown (failed ones with the way to them, then the longest)",
                grouped(self.shown_spans as u64),
                grouped(trace.spans.len() as u64)
            ));
        }
        if self.cut_logs > 0 {
            cuts.push(format!("{} log lines are left out", grouped(self.cut_logs as u64)));
        }
        if !cuts.is_empty() {
            self.line("");
            let text = format!("{}; --all shows them.", cuts.join(", "));
            self.wrapped(Ink::Faint, &text);
        }
        let more = self.story.more;
        let left_out: Vec<String> = [
            (more.spans_cut, "spans"),
            (more.logs_cut, "log lines"),
            (more.errors_cut, "errors"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", grouped(count as u64)))
        .collect();
        if !left_out.is_empty() {
            self.line("");
            let text = format!("The server's bound on one answer left out {}.", left_out.join(", "));
            self.wrapped(Ink::Warning, &text);
        }
    }
}

/// What is drawn below a span.
enum Item {
    Span(usize),
    Gap { duration_ns: u64 },
    Hidden { spans: usize, longest_ns: u64 },
}

/// Where the span starts by its caller's clock.
fn corrected(span: &Span) -> i64 {
    span.offset_ns.saturating_add(span.skew_ns)
}

fn fault_text(fault: &Fault) -> String {
    match (fault.kind.as_str(), fault.message.as_str()) {
        ("", message) => message.to_owned(),
        (kind, "") => kind.to_owned(),
        (kind, message) => format!("{kind}: {message}"),
    }
}

/// What was asked of a database and how many rows came back.
fn database_text(attributes: &[(String, model::record::Value)]) -> Option<String> {
    let query = fields::text(attributes, "db.query.text");
    if query.is_empty() {
        return None;
    }
    let query = query.split_whitespace().collect::<Vec<_>>().join(" ");
    let rows = fields::count(attributes, "db.response.returned_rows");
    Some(rows.map_or(query.clone(), |rows| {
        format!("{query} -> {rows} row{}", if rows == 1 { "" } else { "s" })
    }))
}

/// `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Dollars with as many digits as a call's price needs.
fn dollars(usd: f64) -> String {
    if usd == 0.0 || usd >= 1.0 {
        format!("${usd:.2}")
    } else {
        format!("${usd:.4}")
    }
}
