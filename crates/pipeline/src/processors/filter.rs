//! Why: what nobody will ever look at is dropped before it costs anything. What is dropped is counted; its sender hears that all is well. A batch from which
//! nothing is dropped goes on as it came.
//!
//! ```yaml
//! processors:
//!   filter:
//!     traces:
//!       span: ['attributes["http.route"] == "/health"', 'IsMatch(name, "^GET /ready")']
//!     logs:
//!       log_record: ['severity_number < SEVERITY_NUMBER_WARN and resource.attributes["service.name"] == "chatty"']
//! ```
//!
//! The conditions are those of the transformation language, see `docs/ottl.md`. An item goes if one of them holds.

use std::sync::Arc;

use model::edit::inner::{Fates, Inner};
use model::edit::visit::{count_in_resource, count_in_scope};
use model::edit::{Fate, Visit, visit};
use model::view::List;
use model::{Batch, Signal};
use serde::Deserialize;

use super::Step;
use super::matching::{Around, Attribute, Chosen, MatchProperties, MatchType, Matcher, SeverityNumber};
use crate::ack::Outcome;
use crate::component::Processor;
use crate::config::{Problems, Section};
use crate::ledger::StepBook;
use crate::ottl::frame::{Frame, Part};
use crate::ottl::group::{Entry, ErrorMode, Guarded, context, inferred, problem};
use crate::ottl::paths::Context;
use crate::ottl::program::Cond;
use crate::ottl::{Fault, MAX_STATEMENTS, check};
use crate::reason::Reason;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What happens when a condition fails on an item. Default `ignore`.
    pub error_mode: ErrorMode,
    /// Conditions on traces, by context.
    pub traces: Traces,
    /// Conditions on logs, by context; and the older form.
    pub logs: Logs,
    /// Conditions on metrics, by context; and the older form.
    pub metrics: Metrics,
    /// The older form for spans.
    pub spans: Spans,
    /// Conditions whose paths say what they are about (`span.name == "x"`), or maps of `context`, `error_mode` and `conditions`.
    pub trace_conditions: Vec<Entry<Group>>,
    /// As `trace_conditions`, on logs.
    pub log_conditions: Vec<Entry<Group>>,
    /// As `trace_conditions`, on metrics.
    pub metric_conditions: Vec<Entry<Group>>,
}

/// Conditions on traces.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traces {
    /// Drops all of a resource.
    pub resource: Vec<String>,
    /// Drops spans.
    pub span: Vec<String>,
    /// Drops events; their span stays.
    pub spanevent: Vec<String>,
}

/// Conditions on logs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logs {
    /// Drops all of a resource.
    pub resource: Vec<String>,
    /// Drops log records.
    pub log_record: Vec<String>,
    /// Older form: only these records stay.
    pub include: Option<LogProperties>,
    /// Older form: these records go.
    pub exclude: Option<LogProperties>,
}

/// Conditions on metrics.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Drops all of a resource.
    pub resource: Vec<String>,
    /// Drops metrics.
    pub metric: Vec<String>,
    /// Drops data points, and a metric with its last one.
    pub datapoint: Vec<String>,
    /// Older form: only these metrics stay.
    pub include: Option<MetricProperties>,
    /// Older form: these metrics go.
    pub exclude: Option<MetricProperties>,
}

/// The older form for spans.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spans {
    /// Only these spans stay.
    pub include: Option<MatchProperties>,
    /// These spans go.
    pub exclude: Option<MatchProperties>,
}

/// Log records, in the older form.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogProperties {
    /// `strict` compares texts as they are, `regexp` finds patterns.
    pub match_type: Option<MatchType>,
    /// Attributes of the resource, all of which must be there.
    pub resource_attributes: Vec<Attribute>,
    /// Attributes of the record, all of which must be there.
    pub record_attributes: Vec<Attribute>,
    /// Severity texts.
    pub severity_texts: Vec<String>,
    /// The least severity.
    pub severity_number: Option<SeverityNumber>,
    /// Bodies, where they are text.
    pub bodies: Vec<String>,
}

/// Metrics, in the older form.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricProperties {
    /// `strict` compares texts as they are, `regexp` finds patterns.
    pub match_type: Option<MatchType>,
    /// Names of metrics.
    pub metric_names: Vec<String>,
    /// Attributes of the resource, all of which must be there.
    pub resource_attributes: Vec<Attribute>,
}

/// Conditions of one context.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What the conditions are about.
    #[serde(default)]
    pub context: Option<String>,
    /// As `error_mode` of the processor, which it takes the place of.
    #[serde(default)]
    pub error_mode: Option<ErrorMode>,
    /// The conditions.
    pub conditions: Vec<String>,
}

impl From<LogProperties> for MatchProperties {
    fn from(old: LogProperties) -> MatchProperties {
        MatchProperties {
            match_type: old.match_type,
            resources: old.resource_attributes,
            attributes: old.record_attributes,
            log_severity_texts: old.severity_texts,
            log_severity: old.severity_number,
            log_bodies: old.bodies,
            ..MatchProperties::default()
        }
    }
}

impl From<MetricProperties> for MatchProperties {
    fn from(old: MetricProperties) -> MatchProperties {
        MatchProperties {
            match_type: old.match_type,
            metric_names: old.metric_names,
            resources: old.resource_attributes,
            ..MatchProperties::default()
        }
    }
}

pub fn parse(section: &Section<'_>) -> Result<Step, Problems> {
    let config: Config = section.parse()?;
    let mode = config.error_mode;
    let mut signals: [Rules; Signal::ALL.len()] = Default::default();
    let mut problems = Vec::new();
    for (signal, texts, entries, key) in [
        (
            Signal::Traces,
            [
                (Context::Resource, "resource", &config.traces.resource),
                (Context::Span, "span", &config.traces.span),
                (Context::SpanEvent, "spanevent", &config.traces.spanevent),
            ],
            &config.trace_conditions,
            "trace_conditions",
        ),
        (
            Signal::Logs,
            [
                (Context::Resource, "resource", &config.logs.resource),
                (Context::Log, "log_record", &config.logs.log_record),
                (Context::Log, "", &Vec::new()),
            ],
            &config.log_conditions,
            "log_conditions",
        ),
        (
            Signal::Metrics,
            [
                (Context::Resource, "resource", &config.metrics.resource),
                (Context::Metric, "metric", &config.metrics.metric),
                (Context::DataPoint, "datapoint", &config.metrics.datapoint),
            ],
            &config.metric_conditions,
            "metric_conditions",
        ),
    ] {
        let rules = &mut signals[at(signal)];
        for (context, name, texts) in texts {
            for (index, text) in texts.iter().enumerate() {
                let path = [signal.as_str(), name, &index.to_string()];
                if let Err(more) = rules.add(section, &path, context, text, mode) {
                    problems.extend(more.list);
                }
            }
        }
        for (index, entry) in entries.iter().enumerate() {
            if let Err(more) = rules.add_entry(section, key, index, entry, signal, mode) {
                problems.extend(more.list);
            }
        }
    }
    let chosen = [
        (Signal::Traces, "spans", config.spans.include, config.spans.exclude),
        (
            Signal::Logs,
            "logs",
            config.logs.include.map(Into::into),
            config.logs.exclude.map(Into::into),
        ),
        (
            Signal::Metrics,
            "metrics",
            config.metrics.include.map(Into::into),
            config.metrics.exclude.map(Into::into),
        ),
    ];
    for (signal, key, include, exclude) in chosen {
        let both = Matcher::new(section, &[key, "include"], include.as_ref())
            .and_then(|include| Ok((include, Matcher::new(section, &[key, "exclude"], exclude.as_ref())?)));
        match both {
            Ok((include, exclude)) => signals[at(signal)].chosen = Chosen { include, exclude },
            Err(more) => problems.extend(more.list),
        }
    }
    let all: usize = signals.iter().map(|rules| rules.conditions.len()).sum();
    if problems.is_empty() && all > MAX_STATEMENTS {
        return Err(section.problem(&[], format!("more than {MAX_STATEMENTS} conditions")));
    }
    if problems.is_empty() && signals.iter().all(Rules::is_empty) {
        return Err(section.problem(&[], "there is no condition; nothing would be dropped"));
    }
    if !problems.is_empty() {
        let mut first = section.problem(&[], "");
        first.list = problems;
        return Err(first);
    }
    Ok(Step::InRequest(Arc::new(Filter {
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

/// What drops items of one signal.
#[derive(Debug, Default)]
struct Rules {
    conditions: Vec<(Context, Guarded<Cond>)>,
    chosen: Chosen,
}

impl Rules {
    fn is_empty(&self) -> bool {
        self.conditions.is_empty() && self.chosen.all()
    }

    fn about(&self, context: Context) -> bool {
        self.conditions.iter().any(|(about, _)| *about == context)
    }

    fn add(
        &mut self,
        section: &Section<'_>,
        path: &[&str],
        context: Context,
        text: &str,
        mode: ErrorMode,
    ) -> Result<(), Problems> {
        let condition = check::condition(text, context).map_err(|mistake| problem(section, path, text, mistake))?;
        self.conditions.push((context, Guarded::new(condition, text, mode)));
        Ok(())
    }

    fn add_entry(
        &mut self,
        section: &Section<'_>,
        key: &str,
        index: usize,
        entry: &Entry<Group>,
        signal: Signal,
        mode: ErrorMode,
    ) -> Result<(), Problems> {
        let index = index.to_string();
        let group = match entry {
            Entry::Text(text) => {
                let path = [key, &index];
                let context =
                    check::infer(text, signal, false).map_err(|mistake| problem(section, &path, text, mistake))?;
                return self.add(section, &path, context, text, mode);
            }
            Entry::Group(group) => group,
        };
        let place =
            |at: usize| -> Vec<String> { [key, &index, "conditions", &at.to_string()].map(str::to_owned).to_vec() };
        let context = match &group.context {
            Some(name) => context(section, &[key, &index, "context"], name, signal)?,
            None => {
                let texts = group.conditions.iter().enumerate();
                let texts: Vec<(Vec<String>, &str, bool)> =
                    texts.map(|(at, text)| (place(at), text.as_str(), false)).collect();
                match inferred(section, &texts, signal)? {
                    Some(context) => context,
                    None => return Err(section.problem(&[key, &index], "`conditions` is empty")),
                }
            }
        };
        for (at, text) in group.conditions.iter().enumerate() {
            let place = place(at);
            let path: Vec<&str> = place.iter().map(String::as_str).collect();
            self.add(section, &path, context, text, group.error_mode.unwrap_or(mode))?;
        }
        Ok(())
    }
}

struct Filter {
    signals: [Rules; Signal::ALL.len()],
    book: Arc<StepBook>,
}

impl Processor for Filter {
    fn process(&self, batch: Batch) -> Result<Batch, Outcome> {
        let rules = &self.signals[at(batch.signal)];
        if rules.is_empty() {
            return Ok(batch);
        }
        let mut filtering = Filtering {
            rules,
            book: &self.book,
            signal: batch.signal,
            frame: Frame::default(),
            fates: Fates::default(),
            dropped: 0,
            fault: None,
        };
        let filtered = visit(&batch, &mut filtering);
        if let Some(fault) = filtering.fault {
            return Err(Outcome::rejected(
                Reason::StatementFailed,
                fault.to_string(),
                batch.items,
            ));
        }
        if filtering.dropped > 0 {
            self.book.dropped(batch.signal, filtering.dropped, Reason::Filtered);
        }
        Ok(filtered)
    }

    fn book(&self) -> Option<&Arc<StepBook>> {
        Some(&self.book)
    }
}

/// One pass over one batch.
struct Filtering<'a, 'f> {
    rules: &'f Rules,
    book: &'f StepBook,
    signal: Signal,
    frame: Frame<'a>,
    fates: Fates,
    dropped: u32,
    /// The first that ends the batch.
    fault: Option<Fault>,
}

impl<'a> Filtering<'a, '_> {
    /// Whether one of the conditions of a context holds for what the frame shows.
    fn drops(&mut self, context: Context) -> bool {
        let rules = self.rules;
        for (_, rule) in rules.conditions.iter().filter(|(about, _)| *about == context) {
            if self.fault.is_some() {
                return false;
            }
            match rule.inner.holds(&self.frame) {
                Ok(true) => return true,
                Ok(false) => {}
                Err(fault) => self.fault = rule.failed(fault, self.book, self.signal).err(),
            }
        }
        false
    }

    /// Lets go of inner messages for which a condition holds; says whether any went, and whether none is left.
    fn thin(&mut self, inner: Inner, context: Context, item: &'a [u8]) -> (bool, bool) {
        self.frame.put(Part::Outer, item);
        let mut fates = std::mem::take(&mut self.fates);
        fates.clear();
        let mut index = 0;
        inner.each(item, |data, message| {
            self.frame.put(Part::Item, message);
            self.frame.put_place(data, index);
            index += 1;
            if self.drops(context) {
                fates.discard();
            } else {
                fates.keep();
            }
        });
        let result = (fates.changed(), fates.emptied());
        self.fates = fates;
        result
    }

    /// How many items a span, log record or metric is.
    fn weight(&self, item: &[u8]) -> u32 {
        match self.signal {
            Signal::Traces | Signal::Logs => 1,
            Signal::Metrics => Inner::Points.count(item),
        }
    }

    fn unchosen(&self, item: &'a [u8]) -> bool {
        let attributes = match self.signal {
            Signal::Traces => List::new(item, 9),
            Signal::Logs => List::new(item, 6),
            Signal::Metrics => List::new(&[], 1),
        };
        let around = Around {
            signal: self.signal,
            resource: self.frame.bytes(Part::Resource),
            scope: self.frame.bytes(Part::Scope),
            item,
            attributes,
            metric: item,
        };
        !self.rules.chosen.takes(&around)
    }
}

impl<'a> Visit<'a> for Filtering<'a, '_> {
    fn depth(&self) -> u32 {
        let only =
            |context| self.rules.chosen.all() && self.rules.conditions.iter().all(|(about, _)| *about == context);
        if only(Context::Resource) { 1 } else { 3 }
    }

    fn changes_owners(&self) -> bool {
        false
    }

    fn enter_resource(&mut self, resource: &'a [u8], group: &'a [u8]) -> Fate {
        self.frame.put(Part::Resource, resource);
        self.frame.put_group(Part::Resource, group);
        if !self.drops(Context::Resource) {
            return Fate::Keep;
        }
        self.dropped += count_in_resource(self.signal, group);
        Fate::Drop
    }

    fn enter_scope(&mut self, scope: &'a [u8], group: &'a [u8]) -> Fate {
        self.frame.put(Part::Scope, scope);
        self.frame.put_group(Part::Scope, group);
        if !self.drops(Context::Scope) {
            return Fate::Keep;
        }
        self.dropped += count_in_scope(self.signal, group);
        Fate::Drop
    }

    fn item(&mut self, item: &'a [u8], out: &mut Vec<u8>) -> Fate {
        let (context, inner, within) = match self.signal {
            Signal::Traces => (Context::Span, Inner::Events, Context::SpanEvent),
            Signal::Logs => (Context::Log, Inner::Events, Context::SpanEvent),
            Signal::Metrics => (Context::Metric, Inner::Points, Context::DataPoint),
        };
        self.frame.put(Part::Item, item);
        if self.drops(context) || self.unchosen(item) {
            self.dropped += self.weight(item);
            return Fate::Drop;
        }
        if !self.rules.about(within) {
            return Fate::Keep;
        }
        match self.thin(inner, within, item) {
            (false, _) => Fate::Keep,
            (true, true) if inner == Inner::Points => {
                self.dropped += self.fates.dropped();
                Fate::Drop
            }
            (true, _) => {
                if inner == Inner::Points {
                    self.dropped += self.fates.dropped();
                }
                self.fates.apply(inner, item, out);
                Fate::Replace
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ids, logs, metrics, processor, spans, try_processor, with_resource};
    use model::view;
    use model::{Compression, Wire};

    fn kept_spans(config: &str) -> Vec<u64> {
        let batch = with_resource(&spans(0..4), &[("service.name", "shop")]);
        ids(&processor(parse, config).process(batch).expect("no fault"))
    }

    fn kept_logs(config: &str) -> Vec<String> {
        let kept = processor(parse, config).process(logs()).expect("no fault");
        view::logs::log_records(&kept.payload)
            .map(|log| log.body.as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Names of metrics and how many points each has.
    fn kept_metrics(config: &str) -> (Vec<(String, usize)>, u32) {
        let kept = processor(parse, config).process(metrics()).expect("no fault");
        let metrics = view::metrics::metrics(&kept.payload)
            .map(|metric| (metric.name.to_owned(), Inner::Points.count(metric.raw) as usize));
        (metrics.collect(), kept.items)
    }

    fn named(list: &[(&str, usize)]) -> Vec<(String, usize)> {
        list.iter()
            .map(|(name, points)| ((*name).to_owned(), *points))
            .collect()
    }

    #[test]
    fn spans_go_by_any_of_the_conditions() {
        let config = r#"{ traces: { span: ['name == "span 1"', 'IsMatch(name, "3$")'] } }"#;
        assert_eq!(kept_spans(config), [0, 2]);
        assert_eq!(
            kept_spans(
                r#"{ trace_conditions: ['span.name == "span 1"', {context: span, conditions: ['name == "span 2"']}] }"#
            ),
            [0, 3]
        );
        assert_eq!(
            kept_spans(r#"{ trace_conditions: ['resource.attributes["service.name"] == "shop"'] }"#),
            Vec::<u64>::new()
        );
        assert_eq!(
            kept_spans(r#"{ traces: { resource: ['attributes["service.name"] == "else"'] } }"#),
            [0, 1, 2, 3]
        );
        assert_eq!(
            kept_spans(
                "{ spans: { include: {match_type: regexp, span_names: ['[012]$']}, exclude: {match_type: strict, span_names: ['span 0']} } }"
            ),
            [1, 2]
        );
    }

    #[test]
    fn logs_go_by_severity_body_and_resource() {
        assert_eq!(
            kept_logs("{ logs: { log_record: ['severity_number < SEVERITY_NUMBER_WARN'] } }"),
            ["it broke"]
        );
        assert_eq!(
            kept_logs(r#"{ logs: { log_record: ['IsMatch(body, "^it")'] } }"#),
            ["hello"]
        );
        assert_eq!(
            kept_logs(
                r#"{ log_conditions: ['log.attributes["code"] == "17" and resource.attributes["service.name"] == "shop"'] }"#
            ),
            ["hello"]
        );
        assert_eq!(
            kept_logs("{ logs: { include: {match_type: strict, severity_number: {min: ERROR}} } }"),
            ["it broke"]
        );
        assert_eq!(
            kept_logs("{ logs: { exclude: {match_type: strict, record_attributes: [{key: code, value: '17'}]} } }"),
            ["hello"]
        );
    }

    #[test]
    fn metrics_go_whole_or_by_points() {
        assert_eq!(
            kept_metrics(r#"{ metrics: { metric: ['name == "load"'] } }"#),
            (named(&[("requests", 2)]), 2)
        );
        assert_eq!(
            kept_metrics(
                r#"{ metrics: { metric: ['type == METRIC_DATA_TYPE_SUM and is_monotonic and HasAttrOnDatapoint("path", "/b")'] } }"#
            ),
            (named(&[("load", 1)]), 1)
        );
        assert_eq!(
            kept_metrics(r#"{ metrics: { datapoint: ['attributes["path"] == "/a"'] } }"#),
            (named(&[("requests", 1), ("load", 1)]), 2)
        );
        assert_eq!(
            kept_metrics(r#"{ metrics: { datapoint: ['value_int > 0', 'metric.name == "other"'] } }"#),
            (named(&[("load", 1)]), 1)
        );
        assert_eq!(
            kept_metrics("{ metrics: { include: {match_type: regexp, metric_names: ['^re']} } }"),
            (named(&[("requests", 2)]), 2)
        );
    }

    #[test]
    fn what_is_kept_whole_keeps_its_wire_form_and_what_goes_is_counted() {
        let batch = spans(0..3);
        let wire = Some(Wire {
            compression: Compression::None,
            bytes: batch.payload.bytes(),
        });
        let batch = Batch { wire, ..batch };
        let config = r#"{ traces: { span: ['name == "span 7"'], spanevent: ['name == "x"'] } }"#;
        assert!(
            processor(parse, config)
                .process(batch.clone())
                .expect("no fault")
                .wire
                .is_some()
        );
        let filter = processor(parse, r#"{ traces: { span: ['name != "span 1"'] } }"#);
        let kept = filter.process(batch).expect("no fault");
        assert!(kept.wire.is_none());
        let book = filter.book().expect("has a book");
        assert_eq!(book.drops(Signal::Traces).occurred(), [(Reason::Filtered, 2)]);
    }

    #[test]
    fn a_condition_that_fails_does_what_the_error_mode_says() {
        let with = |mode: &str| {
            let config = format!(
                "{{ error_mode: {mode}, logs: {{ log_record: ['body[\"x\"] == 1', 'severity_number == 9'] }} }}"
            );
            let filter = processor(parse, &config);
            let result = filter.process(logs());
            let faults = filter.book().expect("has a book").faults(Signal::Logs);
            (result.map(|kept| kept.items), faults)
        };
        assert_eq!(with("ignore"), (Ok(1), 2));
        assert_eq!(with("silent"), (Ok(1), 2));
        let message = "`body[\"x\"] == 1`: a text has no key `x`";
        assert_eq!(
            with("propagate"),
            (Err(Outcome::rejected(Reason::StatementFailed, message, 2)), 1)
        );
    }

    #[test]
    fn conditions_are_needed() {
        let problems = try_processor(parse, "{ error_mode: silent }")
            .err()
            .expect("is refused");
        assert_eq!(
            problems.list[0].message,
            "there is no condition; nothing would be dropped"
        );
        let many = vec!["'true'"; MAX_STATEMENTS + 1].join(", ");
        let problems = try_processor(parse, &format!("{{ traces: {{ span: [{many}] }} }}"))
            .err()
            .expect("is refused");
        assert_eq!(problems.list[0].message, "more than 1000 conditions");
    }
}
