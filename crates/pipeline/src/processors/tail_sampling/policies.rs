//! Why: what a policy wants to know of a trace is asked of each span as it arrives. All that is kept of the answers is one bit per condition and a few numbers,
//! and from them the policies decide when the time has come.

use std::collections::HashSet;

use model::Signal;
use model::edit::inner::Inner;
use model::view::traces::Span;
use model::view::{AnyValue, Attributes, KeyValue, View};
use regex::Regex;

use super::traces::Trace;
use super::{Composite, Config, Policy, PolicyType};
use crate::config::{Problem, Problems, Section};
use crate::ledger::StepBook;
use crate::ottl::check;
use crate::ottl::frame::{Frame, Part};
use crate::ottl::group::{Guarded, problem};
use crate::ottl::paths::Context;
use crate::ottl::program::Cond;
use crate::processors::actions::compile as compile_pattern;

/// One bit for each condition.
pub(super) type Bits = u128;

/// The most conditions on spans that all policies together may have: so many bits are kept of each trace.
const MAX_CONDITIONS: usize = Bits::BITS as usize;

/// How deep policies may stand in each other.
const MAX_DEPTH: usize = 8;

/// What the Collector hashes with the trace id if no `hash_salt` is given.
const DEFAULT_SALT: &str = "default-hash-seed";

const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// What a policy says of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// It does not want it.
    Pass,
    /// An `invert_match` that did not find its value.
    KeepInverted,
    /// An `invert_match` that found its value.
    PassInverted,
    Drop,
    /// A condition failed, and its error mode is `propagate`.
    Failed,
}

/// What becomes of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Keep,
    /// No policy wanted it.
    Pass,
    /// A `drop` policy, or the bound on the size of a trace.
    Drop,
}

/// All policies, read and checked.
pub(super) struct Policies {
    /// Those that drop first.
    list: Vec<(String, Rule)>,
    pub conditions: Conditions,
    on_first_match: bool,
    /// How their limits begin.
    limits: Limits,
}

enum Rule {
    Always,
    Latency {
        from_ms: u64,
        /// Exclusive of `from_ms` then.
        to_ms: Option<u64>,
    },
    Share {
        salt: String,
        threshold: u64,
    },
    Spans {
        from: u32,
        to: Option<u32>,
    },
    /// A condition on a span.
    Met(u32),
    /// The contrary, which has verdicts of its own.
    Inverted(u32),
    /// As `Met`, with the bit that says that it failed first.
    Guarded(u32, u32),
    /// A bucket of spans.
    SpanRate(usize),
    /// A bucket of bytes.
    ByteRate(usize),
    And(Vec<Rule>),
    Not(Box<Rule>),
    Drop(Vec<Rule>),
    /// Each with what it may let through in a second.
    Composite {
        window: usize,
        max_spans: u64,
        rules: Vec<(Rule, u64)>,
    },
}

/// What limits remember from trace to trace.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Limits {
    buckets: Vec<Bucket>,
    windows: Vec<Window>,
}

/// Tokens that come at a rate, up to a capacity.
#[derive(Debug, Clone, PartialEq)]
struct Bucket {
    per_second: u64,
    capacity: u64,
    tokens: f64,
    filled_at_unix_nano: u64,
}

impl Bucket {
    fn take(&mut self, wanted: u64, now_unix_nano: u64) -> bool {
        let nanos = now_unix_nano.saturating_sub(self.filled_at_unix_nano);
        let come = nanos as f64 / NANOS_PER_SECOND as f64 * self.per_second as f64;
        self.tokens = (self.tokens + come).min(self.capacity as f64);
        self.filled_at_unix_nano = self.filled_at_unix_nano.max(now_unix_nano);
        let is_there = wanted as f64 <= self.tokens;
        if is_there {
            self.tokens -= wanted as f64;
        }
        is_there
    }
}

/// What the sub-policies of a `composite` let through in a second.
#[derive(Debug, Clone, PartialEq)]
struct Window {
    second: u64,
    spans: Vec<u64>,
}

impl Limits {
    /// As numbers, to be remembered.
    pub fn words(&self) -> impl Iterator<Item = u64> {
        let buckets = self.buckets.iter();
        let buckets = buckets.flat_map(|bucket| [bucket.tokens.to_bits(), bucket.filled_at_unix_nano]);
        let windows = self.windows.iter();
        buckets.chain(windows.flat_map(|window| std::iter::once(window.second).chain(window.spans.iter().copied())))
    }

    /// Goes on from what was remembered. Limits of other policies are not theirs: they begin anew.
    pub fn resume(&mut self, words: &[u64]) {
        if words.len() != self.words().count() {
            return;
        }
        let mut words = words.iter().copied();
        let mut next = || words.next().unwrap_or_default();
        for bucket in &mut self.buckets {
            let tokens = f64::from_bits(next());
            bucket.tokens = if tokens.is_finite() { tokens.max(0.0) } else { 0.0 };
            bucket.filled_at_unix_nano = next();
        }
        for window in &mut self.windows {
            window.second = next();
            window.spans.iter_mut().for_each(|spans| *spans = next());
        }
    }
}

impl Policies {
    pub fn limits(&self) -> Limits {
        self.limits.clone()
    }

    /// Their names, in the order of the verdicts that [`Policies::decide`] tells.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|(name, _)| name.as_str())
    }

    /// Decides about a trace at a time; `told` hears what each policy said.
    pub fn decide(
        &self,
        trace: &Trace,
        limits: &mut Limits,
        now_unix_nano: u64,
        mut told: impl FnMut(usize, Verdict),
    ) -> Decision {
        let (mut keep, mut pass, mut keep_inverted, mut pass_inverted) = (false, false, false, false);
        for (index, (_, rule)) in self.list.iter().enumerate() {
            let verdict = rule.verdict(trace, limits, now_unix_nano);
            told(index, verdict);
            match verdict {
                Verdict::Drop => return Decision::Drop,
                Verdict::Keep => keep = true,
                Verdict::Pass => pass = true,
                Verdict::KeepInverted => keep_inverted = true,
                Verdict::PassInverted => pass_inverted = true,
                Verdict::Failed => {}
            }
            if self.on_first_match && keep {
                break;
            }
        }
        match () {
            () if pass_inverted => Decision::Pass,
            () if keep || keep_inverted && !pass => Decision::Keep,
            () => Decision::Pass,
        }
    }
}

impl Rule {
    fn verdict(&self, trace: &Trace, limits: &mut Limits, now_unix_nano: u64) -> Verdict {
        let keep_if = |yes: bool| if yes { Verdict::Keep } else { Verdict::Pass };
        let is_set = |bit: u32| trace.bits >> bit & 1 == 1;
        match self {
            Rule::Always => Verdict::Keep,
            Rule::Latency { from_ms, to_ms } => {
                let millis = trace.end_unix_nano.saturating_sub(trace.start_unix_nano) / NANOS_PER_MILLI;
                keep_if(match to_ms {
                    None => millis >= *from_ms,
                    Some(to_ms) => millis > *from_ms && millis <= *to_ms,
                })
            }
            Rule::Share { salt, threshold } => keep_if(hash_of(salt, &trace.id.0) <= *threshold),
            Rule::Spans { from, to } => keep_if(trace.spans >= *from && to.is_none_or(|to| trace.spans <= to)),
            Rule::Met(bit) => keep_if(is_set(*bit)),
            Rule::Inverted(bit) if is_set(*bit) => Verdict::PassInverted,
            Rule::Inverted(_) => Verdict::KeepInverted,
            Rule::Guarded(_, failed) if is_set(*failed) => Verdict::Failed,
            Rule::Guarded(met, _) => keep_if(is_set(*met)),
            Rule::SpanRate(bucket) => keep_if(limits.buckets[*bucket].take(u64::from(trace.spans), now_unix_nano)),
            Rule::ByteRate(bucket) => keep_if(limits.buckets[*bucket].take(u64::from(trace.bytes), now_unix_nano)),
            Rule::And(rules) => all(rules, trace, limits, now_unix_nano, Verdict::Keep),
            Rule::Drop(rules) => all(rules, trace, limits, now_unix_nano, Verdict::Drop),
            Rule::Not(rule) => match rule.verdict(trace, limits, now_unix_nano) {
                Verdict::Keep | Verdict::KeepInverted => Verdict::Pass,
                Verdict::Pass | Verdict::PassInverted => Verdict::Keep,
                other => other,
            },
            Rule::Composite {
                window,
                max_spans,
                rules,
            } => {
                let second = now_unix_nano / NANOS_PER_SECOND;
                if limits.windows[*window].second < second {
                    limits.windows[*window].second = second;
                    limits.windows[*window].spans.fill(0);
                }
                for (index, (rule, share)) in rules.iter().enumerate() {
                    match rule.verdict(trace, limits, now_unix_nano) {
                        Verdict::Keep | Verdict::KeepInverted => {}
                        Verdict::Failed => return Verdict::Failed,
                        Verdict::Pass | Verdict::PassInverted | Verdict::Drop => continue,
                    }
                    let spans = &mut limits.windows[*window].spans;
                    let more = u64::from(trace.spans);
                    let of_all = spans.iter().fold(more, |sum, spans| sum.saturating_add(*spans));
                    let is_within = spans[index].saturating_add(more) <= *share && of_all <= *max_spans;
                    if is_within {
                        spans[index] += more;
                    }
                    return keep_if(is_within);
                }
                Verdict::Pass
            }
        }
    }
}

fn all(rules: &[Rule], trace: &Trace, limits: &mut Limits, now_unix_nano: u64, then: Verdict) -> Verdict {
    for rule in rules {
        match rule.verdict(trace, limits, now_unix_nano) {
            Verdict::Failed => return Verdict::Failed,
            Verdict::Pass | Verdict::PassInverted => return Verdict::Pass,
            Verdict::Keep | Verdict::KeepInverted | Verdict::Drop => {}
        }
    }
    then
}

/// FNV-1a, as the Collector hashes, so that it and we choose the same traces.
pub(super) fn hash_of(salt: &str, id: &[u8]) -> u64 {
    let bytes = salt.bytes().chain(id.iter().copied());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The part of all hashes that a percentage is, without losing its last bits to rounding.
fn threshold(percentage: f64) -> u64 {
    let ratio = percentage / 100.0;
    match ratio {
        ratio if ratio >= 1.0 => u64::MAX,
        ratio if ratio > 0.0 => {
            const SCALE: f64 = (1u64 << 63) as f64;
            ((u128::from(u64::MAX) * (ratio * SCALE) as u128) >> 63) as u64
        }
        _ => 0,
    }
}

/// What is asked of each span.
#[derive(Default)]
pub(super) struct Conditions {
    attributes: Vec<AttributeTest>,
    /// By status: unset, ok, error.
    statuses: [Bits; 3],
    flag_sampled: Bits,
    trace_states: Vec<(String, HashSet<String>, u32)>,
    ottl: Vec<Ottl>,
}

struct AttributeTest {
    key: String,
    test: Test,
    bit: u32,
}

enum Test {
    Texts(HashSet<String>),
    Patterns(Vec<Regex>),
    Number(Option<i64>, Option<i64>),
    Bool(bool),
}

struct Ottl {
    spans: Vec<Guarded<Cond>>,
    events: Vec<Guarded<Cond>>,
    met: u32,
    failed: u32,
}

const fn bit(at: u32) -> Bits {
    1 << at
}

impl Conditions {
    /// Whether spans have to be put into a frame.
    pub fn need_frame(&self) -> bool {
        !self.ottl.is_empty()
    }

    /// What the attributes of a span or of its resource meet, beyond what is `known` to be met.
    pub fn of_attributes(&self, attributes: &Attributes<'_>, known: Bits) -> Bits {
        let mut found = 0;
        if self.attributes.iter().all(|test| known & bit(test.bit) != 0) {
            return 0;
        }
        for pair in attributes.raw() {
            let key = model::edit::message::key_of(pair);
            for test in &self.attributes {
                if test.key.as_bytes() == key
                    && known & bit(test.bit) == 0
                    && test.test.holds(KeyValue::read(pair).value)
                {
                    found |= bit(test.bit);
                }
            }
        }
        found
    }

    /// What a span meets, beyond what is `known` to be met. The frame shows the span's resource and scope, if [`Conditions::need_frame`].
    pub fn of_span<'a>(&self, span: &Span<'a>, known: Bits, frame: &mut Frame<'a>, book: &StepBook) -> Bits {
        let mut found = self.of_attributes(&span.attributes, known);
        if let Some(bits) = self.statuses.get(span.status_code as usize) {
            found |= bits;
        }
        if span.flags & 1 == 1 {
            found |= self.flag_sampled;
        }
        for (key, values, at) in &self.trace_states {
            if known & bit(*at) == 0 && value_in(span.trace_state, key).is_some_and(|value| values.contains(value)) {
                found |= bit(*at);
            }
        }
        for ottl in &self.ottl {
            if known & (bit(ottl.met) | bit(ottl.failed)) == 0 {
                found |= ottl.of_span(span, frame, book);
            }
        }
        found
    }
}

impl Test {
    fn holds(&self, value: AnyValue<'_>) -> bool {
        match (self, value) {
            (Test::Texts(texts), AnyValue::Str(text)) => texts.contains(text),
            (Test::Patterns(patterns), AnyValue::Str(text)) => {
                !text.is_empty() && patterns.iter().any(|pattern| pattern.is_match(text))
            }
            (Test::Number(from, to), AnyValue::Int(number)) => {
                from.is_none_or(|from| number >= from) && to.is_none_or(|to| number <= to)
            }
            (Test::Number(from, to), AnyValue::Double(number)) => {
                !number.is_nan()
                    && from.is_none_or(|from| number >= from as f64)
                    && to.is_none_or(|to| number <= to as f64)
            }
            (Test::Bool(wanted), AnyValue::Bool(value)) => *wanted == value,
            _ => false,
        }
    }
}

impl Ottl {
    fn of_span<'a>(&self, span: &Span<'a>, frame: &mut Frame<'a>, book: &StepBook) -> Bits {
        frame.put(Part::Item, span.raw);
        let mut found = self.any(&self.spans, frame, book);
        if found != 0 || self.events.is_empty() {
            return found;
        }
        frame.put(Part::Outer, span.raw);
        let mut index = 0;
        Inner::Events.each(span.raw, |data, event| {
            if found == 0 {
                frame.put(Part::Item, event);
                frame.put_place(data, index);
                found = self.any(&self.events, frame, book);
            }
            index += 1;
        });
        found
    }

    fn any(&self, conditions: &[Guarded<Cond>], frame: &Frame<'_>, book: &StepBook) -> Bits {
        for condition in conditions {
            match condition.inner.holds(frame) {
                Ok(true) => return bit(self.met),
                Ok(false) => {}
                Err(fault) => {
                    if condition.failed(fault, book, Signal::Traces).is_err() {
                        return bit(self.failed);
                    }
                }
            }
        }
        0
    }
}

/// The value of a key in a `tracestate` (W3C Trace Context).
fn value_in<'a>(trace_state: &'a str, key: &str) -> Option<&'a str> {
    let entries = trace_state.split(',').filter_map(|entry| entry.trim().split_once('='));
    entries
        .into_iter()
        .find(|(found, _)| *found == key)
        .map(|(_, value)| value)
}

/// Reads and checks the policies of a configuration.
pub(super) fn compile(section: &Section<'_>, config: &Config) -> Result<Policies, Problems> {
    let mut compiler = Compiler {
        section,
        conditions: Conditions::default(),
        limits: Limits::default(),
        used: 0,
        problems: Vec::new(),
    };
    if config.policies.is_empty() {
        return Err(section.problem(&["policies"], "there is no policy; no trace would be kept"));
    }
    let mut list = compiler.list(&["policies".to_owned()], &config.policies, 0);
    if compiler.used as usize > MAX_CONDITIONS {
        let message = format!("the policies have more than {MAX_CONDITIONS} conditions on spans");
        compiler.complain(&["policies".to_owned()], message);
    }
    if !compiler.problems.is_empty() {
        let mut all = section.problem(&[], "");
        all.list = compiler.problems;
        return Err(all);
    }
    list.sort_by_key(|(_, rule)| !matches!(rule, Rule::Drop(_)));
    Ok(Policies {
        list,
        conditions: compiler.conditions,
        on_first_match: config.sample_on_first_match,
        limits: compiler.limits,
    })
}

struct Compiler<'s> {
    section: &'s Section<'s>,
    conditions: Conditions,
    limits: Limits,
    /// Bits that are given away.
    used: u32,
    problems: Vec<Problem>,
}

impl Compiler<'_> {
    fn complain(&mut self, path: &[String], message: impl Into<String>) {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        self.problems.extend(self.section.problem(&path, message).list);
    }

    /// Beyond the bound the last bit is given again; the bound is checked in the end.
    fn next_bit(&mut self) -> u32 {
        self.used += 1;
        self.used.min(MAX_CONDITIONS as u32) - 1
    }

    fn bucket(&mut self, per_second: u64, capacity: u64) -> usize {
        let capacity = if capacity == 0 {
            per_second.saturating_mul(2)
        } else {
            capacity
        };
        self.limits.buckets.push(Bucket {
            per_second,
            capacity,
            tokens: capacity as f64,
            filled_at_unix_nano: 0,
        });
        self.limits.buckets.len() - 1
    }

    fn list(&mut self, path: &[String], policies: &[Policy], depth: usize) -> Vec<(String, Rule)> {
        let mut names = HashSet::new();
        let mut rules = Vec::new();
        if depth > MAX_DEPTH {
            self.complain(path, format!("policies stand more than {MAX_DEPTH} deep in each other"));
            return rules;
        }
        for (index, policy) in policies.iter().enumerate() {
            let path = [path, &[index.to_string()]].concat();
            if policy.name.is_empty() {
                self.complain(&[&path[..], &["name".to_owned()]].concat(), "a policy needs a name");
            } else if !names.insert(&policy.name) {
                let message = format!("there are two policies `{}`", policy.name);
                self.complain(&[&path[..], &["name".to_owned()]].concat(), message);
            }
            rules.push((policy.name.clone(), self.rule(&path, policy, depth)));
        }
        rules
    }

    fn rules(&mut self, path: &[String], key: [&str; 2], policies: &[Policy], depth: usize) -> Vec<Rule> {
        let path = [path, &key.map(str::to_owned)].concat();
        if policies.is_empty() {
            self.complain(&path, format!("`{}` is empty", key[1]));
        }
        let rules = self.list(&path, policies, depth + 1);
        rules.into_iter().map(|(_, rule)| rule).collect()
    }

    fn attribute(&mut self, path: &[String], key: &str, test: Test, invert: bool) -> Rule {
        if key.is_empty() {
            self.complain(path, "the attribute's `key` is needed");
        }
        let bit = self.next_bit();
        self.conditions.attributes.push(AttributeTest {
            key: key.to_owned(),
            test,
            bit,
        });
        if invert { Rule::Inverted(bit) } else { Rule::Met(bit) }
    }

    fn rule(&mut self, path: &[String], policy: &Policy, depth: usize) -> Rule {
        let below = |key: &str| [path, &[key.to_owned()]].concat();
        match policy.r#type {
            PolicyType::AlwaysSample => Rule::Always,
            PolicyType::Latency => Rule::Latency {
                from_ms: policy.latency.threshold_ms,
                to_ms: Some(policy.latency.upper_threshold_ms).filter(|ms| *ms > 0),
            },
            PolicyType::NumericAttribute => {
                let of = &policy.numeric_attribute;
                let given = |value: i64| Some(value).filter(|value| *value != 0);
                let test = Test::Number(given(of.min_value), given(of.max_value));
                self.attribute(&below("numeric_attribute"), &of.key, test, of.invert_match)
            }
            PolicyType::BooleanAttribute => {
                let of = &policy.boolean_attribute;
                let test = Test::Bool(of.value);
                self.attribute(&below("boolean_attribute"), &of.key, test, of.invert_match)
            }
            PolicyType::StringAttribute => {
                let of = &policy.string_attribute;
                let path = below("string_attribute");
                let test = match of.enabled_regex_matching {
                    false => Test::Texts(of.values.iter().filter(|text| !text.is_empty()).cloned().collect()),
                    true => Test::Patterns(self.patterns(&path, &of.values)),
                };
                if of.values.is_empty() {
                    self.complain(&path, "`values` is empty; nothing would match");
                }
                self.attribute(&path, &of.key, test, of.invert_match)
            }
            PolicyType::Probabilistic => {
                let of = &policy.probabilistic;
                if !of.sampling_percentage.is_finite() || of.sampling_percentage < 0.0 {
                    let path = [&below("probabilistic")[..], &["sampling_percentage".to_owned()]].concat();
                    self.complain(&path, "a percentage is a number from 0");
                }
                let salt = match of.hash_salt.as_str() {
                    "" => DEFAULT_SALT,
                    salt => salt,
                };
                Rule::Share {
                    salt: salt.to_owned(),
                    threshold: threshold(of.sampling_percentage),
                }
            }
            PolicyType::StatusCode => self.status(&below("status_code"), &policy.status_code.status_codes),
            PolicyType::RateLimiting => {
                let of = &policy.rate_limiting;
                Rule::SpanRate(self.bucket(of.spans_per_second, of.burst_capacity))
            }
            PolicyType::BytesLimiting => {
                let of = &policy.bytes_limiting;
                Rule::ByteRate(self.bucket(of.bytes_per_second, of.burst_capacity))
            }
            PolicyType::SpanCount => Rule::Spans {
                from: policy.span_count.min_spans,
                to: Some(policy.span_count.max_spans).filter(|most| *most > 0),
            },
            PolicyType::TraceState => {
                let of = &policy.trace_state;
                if of.key.is_empty() || of.values.is_empty() {
                    self.complain(&below("trace_state"), "the entry's `key` and `values` are needed");
                }
                let bit = self.next_bit();
                let values = of.values.iter().filter(|value| !value.is_empty()).cloned().collect();
                self.conditions.trace_states.push((of.key.clone(), values, bit));
                Rule::Met(bit)
            }
            PolicyType::TraceFlags => {
                let at = self.next_bit();
                self.conditions.flag_sampled |= bit(at);
                Rule::Met(at)
            }
            PolicyType::OttlCondition => self.ottl(&below("ottl_condition"), policy),
            PolicyType::And => {
                Rule::And(self.rules(path, ["and", "and_sub_policy"], &policy.and.and_sub_policy, depth))
            }
            PolicyType::Not => {
                let inner = policy.not.not_sub_policy.as_deref();
                let path = [path, &["not".to_owned(), "not_sub_policy".to_owned()]].concat();
                match inner {
                    None => self.complain(&path, "`not_sub_policy` is needed"),
                    Some(_) if depth >= MAX_DEPTH => {
                        self.complain(
                            &path,
                            format!("policies stand more than {MAX_DEPTH} deep in each other"),
                        );
                    }
                    Some(inner) => return Rule::Not(Box::new(self.rule(&path, inner, depth + 1))),
                }
                Rule::Always
            }
            PolicyType::Drop | PolicyType::Composite if depth > 0 => {
                let message = "`drop` and `composite` stand in no other policy; `not` is what can be inside";
                self.complain(&below("type"), message);
                Rule::Always
            }
            PolicyType::Drop => {
                Rule::Drop(self.rules(path, ["drop", "drop_sub_policy"], &policy.drop.drop_sub_policy, depth))
            }
            PolicyType::Composite => self.composite(&below("composite"), &policy.composite, depth),
        }
    }

    fn patterns(&mut self, path: &[String], values: &[String]) -> Vec<Regex> {
        let mut patterns = Vec::new();
        for (index, value) in values.iter().enumerate() {
            match compile_pattern(value) {
                Ok(pattern) => patterns.push(pattern),
                Err(message) => {
                    let place = ["values".to_owned(), index.to_string()];
                    self.complain(&[path, &place].concat(), message);
                }
            }
        }
        patterns
    }

    fn status(&mut self, path: &[String], codes: &[String]) -> Rule {
        let at = self.next_bit();
        if codes.is_empty() {
            self.complain(path, "`status_codes` needs some of `OK`, `ERROR`, `UNSET`");
        }
        for (index, code) in codes.iter().enumerate() {
            match code.as_str() {
                "UNSET" => self.conditions.statuses[0] |= bit(at),
                "OK" => self.conditions.statuses[1] |= bit(at),
                "ERROR" => self.conditions.statuses[2] |= bit(at),
                other => {
                    let message = format!("`{other}` is no status; there are `OK`, `ERROR` and `UNSET`");
                    let place = ["status_codes".to_owned(), index.to_string()];
                    self.complain(&[path, &place].concat(), message);
                }
            }
        }
        Rule::Met(at)
    }

    fn ottl(&mut self, path: &[String], policy: &Policy) -> Rule {
        let of = &policy.ottl_condition;
        if of.span.is_empty() && of.spanevent.is_empty() {
            self.complain(path, "there is no condition; nothing would match");
        }
        let (met, failed) = (self.next_bit(), self.next_bit());
        let mut read = |key: &str, texts: &[String], context| {
            let mut conditions = Vec::new();
            for (index, text) in texts.iter().enumerate() {
                match check::condition(text, context) {
                    Ok(condition) => conditions.push(Guarded::new(condition, text, of.error_mode)),
                    Err(mistake) => {
                        let path = [path, &[key.to_owned(), index.to_string()]].concat();
                        let path: Vec<&str> = path.iter().map(String::as_str).collect();
                        self.problems.extend(problem(self.section, &path, text, mistake).list);
                    }
                }
            }
            conditions
        };
        let spans = read("span", &of.span, Context::Span);
        let events = read("spanevent", &of.spanevent, Context::SpanEvent);
        self.conditions.ottl.push(Ottl {
            spans,
            events,
            met,
            failed,
        });
        Rule::Guarded(met, failed)
    }

    fn composite(&mut self, path: &[String], of: &Composite, depth: usize) -> Rule {
        let key = ["composite", "composite_sub_policy"];
        let outer = &path[..path.len() - 1];
        if of.composite_sub_policy.is_empty() {
            self.complain(path, "`composite_sub_policy` is empty");
        }
        let mut rules = self.list(
            &[outer, &key.map(str::to_owned)].concat(),
            &of.composite_sub_policy,
            depth + 1,
        );
        let named = of.policy_order.iter().map(|name| ("policy_order", name));
        let allocated = of
            .rate_allocation
            .iter()
            .map(|share| ("rate_allocation", &share.policy));
        for (key, name) in named.chain(allocated) {
            if !rules.iter().any(|(known, _)| known == name) {
                let message = format!("there is no sub-policy `{name}`");
                self.complain(&[path, &[key.to_owned()]].concat(), message);
            }
        }
        rules.sort_by_key(|(name, _)| {
            let place = of.policy_order.iter().position(|ordered| ordered == name);
            place.unwrap_or(usize::MAX)
        });
        let max_spans = of.max_total_spans_per_second;
        let equal = max_spans / (rules.len() as u64).max(1);
        let share = |name: &str| {
            let share = of.rate_allocation.iter().find(|share| share.policy == name);
            match share.map_or(0, |share| share.percent) {
                0 => equal,
                percent => (u128::from(max_spans) * u128::from(percent) / 100).min(u128::from(u64::MAX)) as u64,
            }
        };
        self.limits.windows.push(Window {
            second: 0,
            spans: vec![0; rules.len()],
        });
        Rule::Composite {
            window: self.limits.windows.len() - 1,
            max_spans,
            rules: rules
                .into_iter()
                .map(|(name, rule)| {
                    let share = share(&name);
                    (rule, share)
                })
                .collect(),
        }
    }
}
