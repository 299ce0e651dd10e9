//! Why: telemetry is put right at the collector: names that differ between services, secrets in texts, numbers that came as texts. All statements on an item run
//! before the batch is copied once; what no statement changes is never copied.
//!
//! ```yaml
//! processors:
//!   transform:
//!     trace_statements:
//!       - set(span.status.code, STATUS_CODE_OK) where span.attributes["http.status_code"] == 404
//!       - replace_pattern(span.name, "/orders/\\d+", "/orders/{id}")
//!     log_statements:
//!       - context: log
//!         statements:
//!           - merge_maps(attributes, ParseJSON(body), "upsert") where IsMatch(body, "^\\{")
//! ```
//!
//! The statements are those of the transformation language, see `docs/ottl.md`.

use std::sync::Arc;

use model::edit::inner::{Fates, Inner};
use model::edit::{Fate, Visit, visit};
use model::{Batch, Signal};
use serde::Deserialize;

use super::Step;
use crate::ack::Outcome;
use crate::component::Processor;
use crate::config::{Problems, Section};
use crate::ledger::StepBook;
use crate::ottl::editors::Machine;
use crate::ottl::frame::Part;
use crate::ottl::group::{Entry, ErrorMode, Guarded, context, inferred, problem};
use crate::ottl::paths::Context;
use crate::ottl::program::{Cond, Statement};
use crate::ottl::{Fault, MAX_STATEMENTS, check};
use crate::reason::Reason;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What happens when a statement fails on an item. Default `ignore`.
    pub error_mode: ErrorMode,
    /// Statements on traces: texts whose paths say what they are about (`span.name`), or maps of `context`, `conditions`, `error_mode` and `statements`.
    pub trace_statements: Vec<Entry<Group>>,
    /// As `trace_statements`, on logs.
    pub log_statements: Vec<Entry<Group>>,
    /// As `trace_statements`, on metrics.
    pub metric_statements: Vec<Entry<Group>>,
}

/// Statements of one context.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What the statements are about.
    #[serde(default)]
    pub context: Option<String>,
    /// As `error_mode` of the processor, which it takes the place of.
    #[serde(default)]
    pub error_mode: Option<ErrorMode>,
    /// The statements run where one of these holds. Default: everywhere.
    #[serde(default)]
    pub conditions: Vec<String>,
    /// The statements, in this order.
    pub statements: Vec<String>,
    /// Whether statements of several groups share `cache`; accepted, without effect.
    #[serde(default)]
    pub shared_cache: bool,
}

pub fn parse(section: &Section<'_>) -> Result<Step, Problems> {
    let config: Config = section.parse()?;
    let mut signals: [Vec<Pass>; Signal::ALL.len()] = Default::default();
    let mut problems = Vec::new();
    for (signal, key, entries) in [
        (Signal::Traces, "trace_statements", &config.trace_statements),
        (Signal::Logs, "log_statements", &config.log_statements),
        (Signal::Metrics, "metric_statements", &config.metric_statements),
    ] {
        for (index, entry) in entries.iter().enumerate() {
            let passes = &mut signals[at(signal)];
            match pass(section, key, &index.to_string(), entry, signal, config.error_mode) {
                Ok(pass) => match passes.last_mut() {
                    Some(last) if last.takes(&pass) => last.statements.extend(pass.statements),
                    _ => passes.push(pass),
                },
                Err(more) => problems.extend(more.list),
            }
        }
    }
    if !problems.is_empty() {
        let mut all = section.problem(&[], "");
        all.list = problems;
        return Err(all);
    }
    let count: usize = signals
        .iter()
        .flatten()
        .map(|pass| pass.statements.len() + pass.conditions.len())
        .sum();
    if count > MAX_STATEMENTS {
        return Err(section.problem(&[], format!("more than {MAX_STATEMENTS} statements and conditions")));
    }
    if count == 0 {
        return Err(section.problem(&[], "there is no statement; nothing would be changed"));
    }
    Ok(Step::InRequest(Arc::new(Transform {
        signals,
        book: StepBook::new(section.component.id.as_str()),
    })))
}

const fn at(signal: Signal) -> usize {
    match signal {
        Signal::Traces => 0,
        Signal::Logs => 1,
        Signal::Metrics => 2,
    }
}

fn pass(
    section: &Section<'_>,
    key: &str,
    index: &str,
    entry: &Entry<Group>,
    signal: Signal,
    mode: ErrorMode,
) -> Result<Pass, Problems> {
    let group = match entry {
        Entry::Text(text) => {
            let path = [key, index];
            let wrong = |mistake| problem(section, &path, text, mistake);
            let context = check::infer(text, signal, true).map_err(wrong)?;
            let statement = check::statement(text, context).map_err(wrong)?;
            return Ok(Pass {
                context,
                conditions: Vec::new(),
                statements: vec![Guarded::new(statement, text, mode)],
                is_flat: true,
            });
        }
        Entry::Group(group) => group,
    };
    let mode = group.error_mode.unwrap_or(mode);
    let place = |list: &str, at: usize| [key, index, list, &at.to_string()].map(str::to_owned).to_vec();
    let context = match &group.context {
        Some(name) => context(section, &[key, index, "context"], name, signal)?,
        None => {
            let conditions = group.conditions.iter().enumerate();
            let conditions = conditions.map(|(at, text)| (place("conditions", at), text.as_str(), false));
            let statements = group.statements.iter().enumerate();
            let statements = statements.map(|(at, text)| (place("statements", at), text.as_str(), true));
            let texts: Vec<(Vec<String>, &str, bool)> = conditions.chain(statements).collect();
            inferred(section, &texts, signal)?.ok_or_else(|| section.problem(&[key, index], "`statements` is empty"))?
        }
    };
    let mut pass = Pass {
        context,
        conditions: Vec::new(),
        statements: Vec::new(),
        is_flat: false,
    };
    let mut problems: Option<Problems> = None;
    let mut note = |more: Problems| match &mut problems {
        Some(all) => all.list.extend(more.list),
        None => problems = Some(more),
    };
    for (at, text) in group.conditions.iter().enumerate() {
        match check::condition(text, context) {
            Ok(condition) => pass.conditions.push(Guarded::new(condition, text, mode)),
            Err(mistake) => note(problem(
                section,
                &[key, index, "conditions", &at.to_string()],
                text,
                mistake,
            )),
        }
    }
    for (at, text) in group.statements.iter().enumerate() {
        match check::statement(text, context) {
            Ok(statement) => pass.statements.push(Guarded::new(statement, text, mode)),
            Err(mistake) => note(problem(
                section,
                &[key, index, "statements", &at.to_string()],
                text,
                mistake,
            )),
        }
    }
    match problems {
        Some(problems) => Err(problems),
        None => Ok(pass),
    }
}

/// Statements that run in one walk over a batch.
#[derive(Debug)]
struct Pass {
    context: Context,
    /// One must hold, if there are any.
    conditions: Vec<Guarded<Cond>>,
    statements: Vec<Guarded<Statement>>,
    /// Written without a group.
    is_flat: bool,
}

impl Pass {
    /// Whether the next pass can run in the same walk: where no item's statements can see what those of another item did.
    fn takes(&self, next: &Pass) -> bool {
        let stays = |pass: &Pass| {
            let parts = pass.statements.iter().map(|statement| statement.inner.changes);
            pass.is_flat && parts.into_iter().all(|part| matches!(part, Part::Item | Part::Cache))
        };
        // The resource and the scope are items of their own contexts, but lie in their own parts.
        self.context == next.context && stays(self) && stays(next)
    }

    fn changes(&self, part: Part) -> bool {
        self.statements.iter().any(|statement| statement.inner.changes == part)
    }
}

struct Transform {
    signals: [Vec<Pass>; Signal::ALL.len()],
    book: Arc<StepBook>,
}

impl Processor for Transform {
    fn process(&self, mut batch: Batch) -> Result<Batch, Outcome> {
        for pass in &self.signals[at(batch.signal)] {
            let mut walk = Walk {
                pass,
                book: &self.book,
                signal: batch.signal,
                machine: Machine::default(),
                fates: Fates::default(),
                fault: None,
            };
            let changed = visit(&batch, &mut walk);
            if let Some(fault) = walk.fault {
                return Err(Outcome::rejected(
                    Reason::StatementFailed,
                    fault.to_string(),
                    batch.items,
                ));
            }
            batch = changed;
        }
        Ok(batch)
    }

    fn book(&self) -> Option<&Arc<StepBook>> {
        Some(&self.book)
    }
}

/// One pass over one batch.
struct Walk<'a, 'p> {
    pass: &'p Pass,
    book: &'p StepBook,
    signal: Signal,
    machine: Machine<'a>,
    fates: Fates,
    /// The first that ends the batch.
    fault: Option<Fault>,
}

impl<'a> Walk<'a, '_> {
    /// Runs the statements on what the frame shows.
    fn run(&mut self) {
        let pass = self.pass;
        if self.fault.is_some() || !(pass.conditions.is_empty() || self.wanted()) {
            return;
        }
        self.machine.frame.put(Part::Cache, &[]);
        for statement in &pass.statements {
            if let Err(fault) = statement.inner.run(&mut self.machine) {
                self.fault = statement.failed(fault, self.book, self.signal).err();
                if self.fault.is_some() {
                    return;
                }
            }
        }
    }

    fn wanted(&mut self) -> bool {
        let pass = self.pass;
        for condition in &pass.conditions {
            match condition.inner.holds(&self.machine.frame) {
                Ok(true) => return true,
                Ok(false) => {}
                Err(fault) => {
                    self.fault = condition.failed(fault, self.book, self.signal).err();
                    if self.fault.is_some() {
                        return false;
                    }
                }
            }
        }
        false
    }

    /// Runs them on each inner message of an item, and writes the item if anything is different.
    fn inside(&mut self, inner: Inner, item: &'a [u8], out: &mut Vec<u8>) -> Fate {
        self.machine.frame.put(Part::Outer, item);
        let mut fates = std::mem::take(&mut self.fates);
        fates.clear();
        let mut index = 0;
        inner.each(item, |data, message| {
            self.machine.frame.put(Part::Item, message);
            self.machine.frame.put_place(data, index);
            index += 1;
            self.run();
            match self.machine.frame.changed(Part::Item) {
                Some(changed) => fates.replace(changed),
                None => fates.keep(),
            }
        });
        let outer = self.machine.frame.changed(Part::Outer);
        let fate = if fates.changed() {
            fates.apply(inner, outer.unwrap_or(item), out);
            Fate::Replace
        } else if let Some(outer) = outer {
            out.extend_from_slice(outer);
            Fate::Replace
        } else {
            Fate::Keep
        };
        self.fates = fates;
        fate
    }
}

impl<'a> Visit<'a> for Walk<'a, '_> {
    fn depth(&self) -> u32 {
        match self.pass.context {
            Context::Resource => 1,
            Context::Scope => 2,
            _ => 3,
        }
    }

    fn changes_owners(&self) -> bool {
        self.pass.changes(Part::Resource) || self.pass.changes(Part::Scope)
    }

    fn enter_resource(&mut self, resource: &'a [u8], group: &'a [u8]) -> Fate {
        self.machine.frame.put(Part::Resource, resource);
        self.machine.frame.put_group(Part::Resource, group);
        if self.pass.context == Context::Resource {
            self.run();
        }
        Fate::Keep
    }

    fn leave_resource(&mut self) -> Option<&[u8]> {
        self.machine.frame.changed(Part::Resource)
    }

    fn enter_scope(&mut self, scope: &'a [u8], group: &'a [u8]) -> Fate {
        self.machine.frame.put(Part::Scope, scope);
        self.machine.frame.put_group(Part::Scope, group);
        if self.pass.context == Context::Scope {
            self.run();
        }
        Fate::Keep
    }

    fn leave_scope(&mut self) -> Option<&[u8]> {
        self.machine.frame.changed(Part::Scope)
    }

    fn item(&mut self, item: &'a [u8], out: &mut Vec<u8>) -> Fate {
        match self.pass.context {
            Context::SpanEvent => self.inside(Inner::Events, item, out),
            Context::DataPoint => self.inside(Inner::Points, item, out),
            _ => {
                self.machine.frame.put(Part::Item, item);
                self.run();
                match self.machine.frame.changed(Part::Item) {
                    Some(changed) => {
                        out.extend_from_slice(changed);
                        Fate::Replace
                    }
                    None => Fate::Keep,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{logs, metrics, processor, spans};
    use model::view::metrics::{Data, Number};
    use model::{Compression, Wire, view};

    #[test]
    fn log_records() {
        let config = r#"{ log_statements: [
            'set(log.attributes["level"], ToLowerCase(log.severity_text))',
            'set(log.body, Concat(["<", log.body, ">"], "")) where log.severity_number >= SEVERITY_NUMBER_ERROR',
            {context: log, conditions: ['attributes["code"] == "17"'], statements: ['set(severity_text, "FATAL")', 'set(severity_number, SEVERITY_NUMBER_FATAL)']},
            {statements: ['set(resource.attributes["n"], 1)']} ] }"#;
        let changed = processor(parse, config).process(logs()).expect("no fault");
        let got: Vec<(String, String, String, i32)> = view::logs::log_records(&changed.payload)
            .map(|log| {
                let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
                (
                    text(log.attributes.get_str("level")),
                    text(log.body.as_str()),
                    log.severity_text.to_owned(),
                    log.severity_number,
                )
            })
            .collect();
        let row =
            |level: &str, body: &str, text: &str, number| (level.to_owned(), body.to_owned(), text.to_owned(), number);
        assert_eq!(
            got,
            [row("info", "hello", "INFO", 9), row("error", "<it broke>", "FATAL", 21)]
        );
        let resource = view::logs::resource_logs(&changed.payload).iter().next().expect("one");
        assert!(resource.owner().attributes.get("n").is_some());
    }

    #[test]
    fn metrics_and_their_points() {
        let config = r#"{ metric_statements: [
            'set(metric.name, Concat([metric.name, "total"], "_")) where metric.type == METRIC_DATA_TYPE_SUM and metric.is_monotonic',
            'set(metric.aggregation_temporality, AGGREGATION_TEMPORALITY_DELTA)',
            'set(datapoint.value_int, datapoint.value_int * 10) where datapoint.attributes["path"] == "/b"',
            'set(datapoint.value_double, 1) where metric.name == "load"',
            {context: datapoint, statements: ['set(metric.description, attributes["path"])', 'set(attributes["type"], metric.unit)']} ] }"#;
        let changed = processor(parse, config).process(metrics()).expect("no fault");
        assert_eq!(changed.items, 3);
        let mut all = Vec::new();
        for metric in view::metrics::metrics(&changed.payload) {
            let (points, temporality) = match metric.data {
                Data::Sum {
                    points, temporality, ..
                } => (points, temporality),
                Data::Gauge { points } => (points, 0),
                _ => unreachable!("the batch has no other"),
            };
            let values: Vec<Number> = points.iter().map(|point| point.value).collect();
            let typed = points
                .iter()
                .all(|point| point.attributes.get_str("type") == Some(metric.unit));
            assert!(typed, "{}", metric.name);
            all.push((
                metric.name.to_owned(),
                metric.description.to_owned(),
                temporality,
                values,
            ));
        }
        assert_eq!(
            all,
            [
                (
                    "requests_total".to_owned(),
                    "/b".to_owned(),
                    1,
                    vec![Number::Int(1), Number::Int(20)]
                ),
                ("load".to_owned(), "/".to_owned(), 0, vec![Number::Double(1.0)]),
            ]
        );
    }

    #[test]
    fn what_does_not_change_keeps_its_wire_form() {
        let batch = spans(0..2);
        let wire = Some(Wire {
            compression: Compression::None,
            bytes: batch.payload.bytes(),
        });
        let batch = Batch { wire, ..batch };
        let config = r#"{ trace_statements: ['set(span.name, "span 0") where span.name == "span 0"', 'delete_key(resource.attributes, "x")'] }"#;
        assert!(
            processor(parse, config)
                .process(batch)
                .expect("no fault")
                .wire
                .is_some()
        );
    }

    #[test]
    fn flat_statements_share_a_walk_where_that_changes_nothing() {
        let walks = |statements: &str| {
            let config = format!("{{ trace_statements: [{statements}] }}");
            let text = format!("processors:\n  transform: {config}\n");
            let config =
                crate::config::Config::load(vec![crate::config::Source::new("t", text)], &|_| None).expect("loads");
            let section = config.section(&config.processors[0]);
            let config: Config = section.parse().expect("reads");
            let mut passes: Vec<Pass> = Vec::new();
            for (index, entry) in config.trace_statements.iter().enumerate() {
                let pass = pass(
                    &section,
                    "trace_statements",
                    &index.to_string(),
                    entry,
                    Signal::Traces,
                    ErrorMode::Ignore,
                );
                let pass = pass.expect("is right");
                match passes.last_mut() {
                    Some(last) if last.takes(&pass) => last.statements.extend(pass.statements),
                    _ => passes.push(pass),
                }
            }
            passes.len()
        };
        let one = r#"'set(span.name, "a")'"#;
        let up = r#"'set(resource.attributes["a"], span.name)'"#;
        assert_eq!(walks(&[one, one, one].join(",")), 1);
        assert_eq!(walks(&[one, up, one].join(",")), 3);
    }

    #[test]
    fn a_statement_that_fails_leaves_the_others_be() {
        let config = r#"{ log_statements: ['set(log.body["x"], 1)', 'set(log.severity_text, "x")'] }"#;
        let transform = processor(parse, config);
        let changed = transform.process(logs()).expect("no fault");
        let texts: Vec<&str> = view::logs::log_records(&changed.payload)
            .map(|log| log.severity_text)
            .collect();
        assert_eq!(texts, ["x", "x"]);
        assert_eq!(transform.book().expect("has a book").faults(Signal::Logs), 2);
    }
}
