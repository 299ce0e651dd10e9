//! Why: whether a trace is worth keeping shows when it is over: because it failed, was slow, or is one of a share. Spans wait for their trace, in the journal
//! and not in memory, and go on or are dropped together; what is kept in memory of a trace is what its policies have to know of it, some 100 bytes.
//!
//! ```yaml
//! processors:
//!   tail_sampling:
//!     decision_wait: 30s
//!     num_traces: 100000
//!     policies:
//!       - { name: errors, type: status_code, status_code: { status_codes: [ERROR] } }
//!       - { name: slow, type: latency, latency: { threshold_ms: 1000 } }
//!       - { name: vip, type: string_attribute, string_attribute: { key: user.tier, values: [vip] } }
//!       - { name: rest, type: probabilistic, probabilistic: { sampling_percentage: 10 } }
//! ```
//!
//! A `drop` policy goes before all others; then an attribute policy with `invert_match` that found its value keeps the trace out; then any policy that wants it
//! keeps it; then an `invert_match` that did not find its value keeps it if no policy without `invert_match` was against it. A trace is decided about once:
//! spans that come later follow the decision, which is on disk together with what it let through, so that a crash changes none. Its clock is the arrival
//! of batches, so that what is read again after a crash is decided about in the same way.
//!
//! Deliberately different from the Collector's: a trace that does not fit into `num_traces` is decided about early instead of being lost; spans go on in the batches
//! that they came in, and never earlier than `decision_wait`; `latency` measures the whole trace, not the part before a bound was passed; attributes of another type
//! than a policy asks for never match; `not` also turns an `invert_match` round; a sub-policy of `composite` without `rate_allocation` has an equal share, `policy_order` is
//! obeyed, and `max_total_spans_per_second` bounds their sum.

mod counts;
mod policies;
mod traces;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use model::edit::select;
use model::id::TraceId;
use model::view::View;
use model::view::traces::{Span, resource_spans};
use model::wire::Fields;
use model::{Batch, Signal};
use serde::Deserialize;
use serde::de::IgnoredAny;

use self::counts::Counts;
use self::policies::{Decision, Limits, Policies};
use self::traces::{Fate, Trace, Traces};
use super::Step;
use crate::budget::Budget;
use crate::config::{Problems, Section};
use crate::ledger::StepBook;
use crate::ottl::frame::{Frame, Part};
use crate::ottl::group::ErrorMode;
use crate::reason::Reason;
use crate::stage::{BadState, MAX_STATE_BYTES, Stage, State};

/// The most undecided traces, and the most decisions of each kind, that may be asked for. All decisions, at 17 bytes each, fit into one record of the journal.
const MAX_TRACES: u64 = 1_500_000;
const _: () = assert!(2 * MAX_TRACES as usize * DECISION_BYTES + MAX_LIMITS_BYTES < MAX_STATE_BYTES);

/// The longest wait: the journal has to hold everything that arrives meanwhile.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// The first byte of what is remembered.
const STATE_VERSION: u8 = 1;

/// A decision as it is remembered: the id, and what it was.
const DECISION_BYTES: usize = 17;

/// What limits may take in what is remembered; there are far fewer.
const MAX_LIMITS_BYTES: usize = 1 << 20;

/// Changes are remembered as such until they add up to this much and to as much as all of it takes: then all of it is said again.
const MIN_WHOLE_EVERY_BYTES: usize = 4 << 20;

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long after the arrival of its first span a trace is decided about; its spans go on then. Default `30s`, at most `1h`.
    #[serde(deserialize_with = "crate::config::duration")]
    pub decision_wait: Duration,
    /// If not `0s`: what arrives later than this after the root span no longer counts in the decision. It does not make the spans go on earlier. Default `0s`.
    #[serde(deserialize_with = "crate::config::duration")]
    pub decision_wait_after_root_received: Duration,
    /// How many undecided traces are known at once; beyond, the oldest is decided about early. As many decisions are remembered at least. Default 50000.
    pub num_traces: u64,
    /// The Collector's hint for allocations; accepted, without effect.
    pub expected_new_traces_per_sec: u64,
    /// Decisions that are remembered for spans that come later.
    pub decision_cache: DecisionCache,
    /// Ask no further policy once one wants the trace. Default `false`.
    pub sample_on_first_match: bool,
    /// The Collector's choice for a stop; accepted, without effect: the journal keeps what is undecided.
    pub drop_pending_traces_on_shutdown: bool,
    /// The Collector's choice at `num_traces`; accepted, without effect: senders never wait, because spans wait in the journal.
    pub block_on_overflow: bool,
    /// Traces with spans of more bytes than this are dropped; 0 is no bound. Default 0.
    #[serde(deserialize_with = "crate::config::size")]
    pub maximum_trace_size_bytes: u64,
    /// `trace-complete`; the Collector's `span-ingest`, which does not wait, does not exist here.
    pub sampling_strategy: String,
    /// The Collector's number of threads; accepted, without effect.
    pub num_shards: u64,
    /// The Collector's store for waiting spans; accepted, without effect: that is the journal.
    pub tail_storage: Option<IgnoredAny>,
    /// What decides. At least one is needed.
    pub policies: Vec<Policy>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            decision_wait: Duration::from_secs(30),
            decision_wait_after_root_received: Duration::ZERO,
            num_traces: 50_000,
            expected_new_traces_per_sec: 0,
            decision_cache: DecisionCache::default(),
            sample_on_first_match: false,
            drop_pending_traces_on_shutdown: false,
            block_on_overflow: false,
            maximum_trace_size_bytes: 0,
            sampling_strategy: "trace-complete".to_owned(),
            num_shards: 1,
            tail_storage: None,
            policies: Vec::new(),
        }
    }
}

/// How many decisions are remembered, beyond as many as `num_traces`. The oldest are forgotten first.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecisionCache {
    /// Traces that were kept. Default 0.
    pub sampled_cache_size: u64,
    /// Traces that were not. Default 0.
    pub non_sampled_cache_size: u64,
}

/// A policy. What it says stands under the key of its type.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name in metrics; no two have the same.
    pub name: String,
    /// What it looks at.
    pub r#type: PolicyType,
    /// How long the trace took.
    #[serde(default)]
    pub latency: Latency,
    /// A number among the attributes of spans and resources.
    #[serde(default)]
    pub numeric_attribute: NumericAttribute,
    /// A share, chosen by the trace id.
    #[serde(default)]
    pub probabilistic: Probabilistic,
    /// Statuses of spans.
    #[serde(default)]
    pub status_code: StatusCode,
    /// A text among the attributes of spans and resources.
    #[serde(default)]
    pub string_attribute: StringAttribute,
    /// A boolean among the attributes of spans and resources.
    #[serde(default)]
    pub boolean_attribute: BooleanAttribute,
    /// Spans in a second.
    #[serde(default)]
    pub rate_limiting: RateLimiting,
    /// Bytes in a second.
    #[serde(default)]
    pub bytes_limiting: BytesLimiting,
    /// How many spans the trace has.
    #[serde(default)]
    pub span_count: SpanCount,
    /// An entry of the trace state of spans.
    #[serde(default)]
    pub trace_state: TraceState,
    /// Nothing is to be said: a span with the flag `sampled` is enough.
    #[serde(default)]
    pub trace_flags: Option<IgnoredAny>,
    /// Nothing is to be said.
    #[serde(default)]
    pub always_sample: Option<IgnoredAny>,
    /// Conditions of the transformation language.
    #[serde(default)]
    pub ottl_condition: OttlCondition,
    /// Policies that must all want the trace.
    #[serde(default)]
    pub and: And,
    /// A policy that must not want the trace.
    #[serde(default)]
    pub not: Not,
    /// Policies that, if they all match, drop the trace, whatever others say.
    #[serde(default)]
    pub drop: DropWhen,
    /// Policies of which the first that wants the trace decides, within its rate.
    #[serde(default)]
    pub composite: Composite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyType {
    AlwaysSample,
    Latency,
    NumericAttribute,
    Probabilistic,
    StatusCode,
    StringAttribute,
    BooleanAttribute,
    RateLimiting,
    BytesLimiting,
    SpanCount,
    TraceState,
    TraceFlags,
    OttlCondition,
    And,
    Not,
    Drop,
    Composite,
}

/// From the first start of a span to the last end of one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Latency {
    /// At least this long; longer than this if there is an upper bound.
    pub threshold_ms: u64,
    /// At most this long; 0 is no bound. Default 0.
    pub upper_threshold_ms: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NumericAttribute {
    /// The attribute's key.
    pub key: String,
    /// The least; 0 is no bound. Default 0.
    pub min_value: i64,
    /// The most; 0 is no bound. Default 0.
    pub max_value: i64,
    /// Keep out what matches, and in what does not. The Collector deprecates it for `drop` and `not`. Default `false`.
    pub invert_match: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Probabilistic {
    /// What is hashed with the trace id: collectors of one tier need the same, collectors behind each other different ones. Default `default-hash-seed`.
    pub hash_salt: String,
    /// How many percent are kept; 100 and more is everything. Default 0.
    pub sampling_percentage: f64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatusCode {
    /// Some of `OK`, `ERROR`, `UNSET`: a span with one of them is enough.
    pub status_codes: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StringAttribute {
    /// The attribute's key.
    pub key: String,
    /// Texts, or patterns that are found anywhere in the text; one is enough.
    pub values: Vec<String>,
    /// Whether they are patterns. Default `false`.
    pub enabled_regex_matching: bool,
    /// The Collector's cache for patterns; accepted, without effect.
    pub cache_max_size: u64,
    /// Keep out what matches, and in what does not. The Collector deprecates it for `drop` and `not`. Default `false`.
    pub invert_match: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BooleanAttribute {
    /// The attribute's key.
    pub key: String,
    /// Its value. Default `false`.
    pub value: bool,
    /// Keep out what matches, and in what does not. The Collector deprecates it for `drop` and `not`. Default `false`.
    pub invert_match: bool,
}

/// Tokens that come at the rate and go with the spans of each trace that is let through.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimiting {
    /// Spans in a second, on average.
    pub spans_per_second: u64,
    /// Spans at once, and the most that a trace may have. Default twice the rate.
    pub burst_capacity: u64,
}

/// As `rate_limiting`, in bytes of encoded spans.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BytesLimiting {
    /// Bytes in a second, on average.
    #[serde(deserialize_with = "crate::config::size")]
    pub bytes_per_second: u64,
    /// Bytes at once, and the most that a trace may have. Default twice the rate.
    #[serde(deserialize_with = "crate::config::size")]
    pub burst_capacity: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpanCount {
    /// At least so many.
    pub min_spans: u32,
    /// At most so many; 0 is no bound. Default 0.
    pub max_spans: u32,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceState {
    /// The entry's key.
    pub key: String,
    /// Its value is one of these.
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OttlCondition {
    /// What happens when a condition fails on a span; with `propagate` the policy has no say about the trace. Default `ignore`.
    pub error_mode: ErrorMode,
    /// Conditions on spans; one that holds for one span is enough.
    pub span: Vec<String>,
    /// Conditions on events of spans; as well.
    pub spanevent: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct And {
    /// The policies.
    pub and_sub_policy: Vec<Policy>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Not {
    /// The policy.
    pub not_sub_policy: Option<Box<Policy>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DropWhen {
    /// The policies.
    pub drop_sub_policy: Vec<Policy>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Composite {
    /// Spans in a second that all sub-policies together let through.
    pub max_total_spans_per_second: u64,
    /// Names of sub-policies in the order in which they are asked; the others come after them.
    pub policy_order: Vec<String>,
    /// The policies.
    pub composite_sub_policy: Vec<Policy>,
    /// Shares of the total.
    pub rate_allocation: Vec<RateAllocation>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateAllocation {
    /// The name of the sub-policy.
    pub policy: String,
    /// Its share of the total in percent. Default an equal share.
    #[serde(default)]
    pub percent: u32,
}

pub fn parse(section: &Section<'_>) -> Result<Step, Problems> {
    let config: Config = section.parse()?;
    if config.decision_wait > MAX_WAIT {
        return Err(section.problem(&["decision_wait"], "spans wait in the journal for an hour at most"));
    }
    if config.sampling_strategy != "trace-complete" {
        return Err(section.problem(
            &["sampling_strategy"],
            "only `trace-complete` exists here: spans wait in the journal until their trace is decided about",
        ));
    }
    for (path, value) in [
        (&["num_traces"][..], config.num_traces),
        (
            &["decision_cache", "sampled_cache_size"],
            config.decision_cache.sampled_cache_size,
        ),
        (
            &["decision_cache", "non_sampled_cache_size"],
            config.decision_cache.non_sampled_cache_size,
        ),
    ] {
        if value > MAX_TRACES {
            section.warn(path, format!("{MAX_TRACES} is the most, and is what it will be"));
        }
    }
    if config.num_traces == 0 {
        return Err(section.problem(&["num_traces"], "at least one trace must be known"));
    }
    if !config.decision_wait_after_root_received.is_zero() {
        section.warn(
            &["decision_wait_after_root_received"],
            "what arrives later no longer counts, but spans still go on after `decision_wait`",
        );
    }
    for (key, why) in [
        (
            "drop_pending_traces_on_shutdown",
            "it has no effect: the journal keeps undecided traces over a stop, and they are decided about after the next start",
        ),
        (
            "block_on_overflow",
            "it has no effect: spans wait in the journal, and beyond `num_traces` the oldest trace is decided about early",
        ),
        ("tail_storage", "it has no effect: spans wait in the journal"),
    ] {
        if section.sets(&[key]) {
            section.warn(&[key], why);
        }
    }
    let book = StepBook::new(section.component.id.as_str());
    let policies = Arc::new(policies::compile(section, &config)?);
    Ok(Step::Stage(Arc::new(move || {
        Box::new(Sampler::new(&config, &policies, &book))
    })))
}

struct Sampler {
    policies: Arc<Policies>,
    wait: Duration,
    wait_after_root: Duration,
    max_bytes: u64,
    book: Arc<StepBook>,
    counts: Counts,
    traces: Traces,
    limits: Limits,
    /// Decided since it last said what it remembers.
    decided: Vec<(TraceId, bool)>,
    /// What was said as changes since all of it was said; `None` before the first time.
    changes_bytes: Option<usize>,
    /// For each span of a batch whether it is kept.
    kept: Vec<bool>,
}

impl Sampler {
    fn new(config: &Config, policies: &Arc<Policies>, book: &Arc<StepBook>) -> Sampler {
        let at_most = |wanted: u64| {
            wanted
                .clamp(config.num_traces, MAX_TRACES.max(config.num_traces))
                .min(MAX_TRACES) as usize
        };
        Sampler {
            wait: config.decision_wait,
            wait_after_root: config.decision_wait_after_root_received,
            max_bytes: match config.maximum_trace_size_bytes {
                0 => u64::MAX,
                bytes => bytes,
            },
            counts: Counts::new(book, policies),
            book: Arc::clone(book),
            traces: Traces::new(
                config.num_traces.min(MAX_TRACES) as usize,
                at_most(config.decision_cache.sampled_cache_size),
                at_most(config.decision_cache.non_sampled_cache_size),
            ),
            limits: policies.limits(),
            policies: Arc::clone(policies),
            decided: Vec::new(),
            changes_bytes: None,
            kept: Vec::new(),
        }
    }
}

impl Sampler {
    /// Decides about a trace that waits; whether it is kept.
    fn decide(&mut self, place: usize, now_unix_nano: u64) -> bool {
        let Some(trace) = self.traces.at(place).copied() else {
            return false;
        };
        let decision = match u64::from(trace.bytes) > self.max_bytes {
            true => {
                self.counts.too_large.fetch_add(1, Ordering::Relaxed);
                Decision::Drop
            }
            false => {
                let counts = &self.counts;
                let told = |policy, verdict| counts.verdict(policy, verdict);
                self.policies.decide(&trace, &mut self.limits, now_unix_nano, told)
            }
        };
        self.counts.decision(decision);
        let keep = decision == Decision::Keep;
        self.traces.decide(place, keep);
        self.decided.push((trace.id, keep));
        keep
    }

    /// Finds out for each span of a batch whether it is kept, and decides about traces that wait. `false` if there is a trace that was never seen.
    fn judge(&mut self, batch: &Batch, now_unix_nano: u64) -> bool {
        self.kept.clear();
        let mut all_known = true;
        let mut last = None;
        for span in raw_spans(&batch.payload) {
            let id = id_of(span);
            let keep = match last {
                Some((known, keep)) if known == id => keep,
                _ => match self.traces.fate(&id) {
                    Fate::Kept => true,
                    Fate::Dropped => false,
                    Fate::Waiting(place) => self.decide(place, now_unix_nano),
                    Fate::Unknown => {
                        all_known = false;
                        false
                    }
                },
            };
            last = Some((id, keep));
            self.kept.push(keep);
        }
        all_known
    }

    fn absorb(&mut self, batch: &Batch) {
        let arrived_at = batch.meta.received_at_unix_nano;
        let policies = Arc::clone(&self.policies);
        let conditions = &policies.conditions;
        let mut frame = Frame::default();
        // Most spans have the trace of the one before.
        let mut last: Option<(TraceId, Fate)> = None;
        for group in resource_spans(&batch.payload) {
            let resource = group.owner();
            let of_resource = conditions.of_attributes(&resource.attributes, 0);
            if conditions.need_frame() {
                frame.put(Part::Resource, resource.raw);
                frame.put_group(Part::Resource, group.raw);
            }
            for scope in group.list() {
                if conditions.need_frame() {
                    frame.put(Part::Scope, scope.owner().raw);
                    frame.put_group(Part::Scope, scope.raw);
                }
                for raw in scope.list().raw() {
                    let id = id_of(raw);
                    let fate = match last {
                        Some((known, fate)) if known == id => fate,
                        _ => self.traces.fate(&id),
                    };
                    let place = match fate {
                        Fate::Waiting(place) => place,
                        Fate::Unknown => self.begin(id, arrived_at),
                        Fate::Kept | Fate::Dropped => {
                            last = Some((id, fate));
                            continue;
                        }
                    };
                    last = Some((id, Fate::Waiting(place)));
                    let Some(trace) = self.traces.at(place) else { continue };
                    if arrived_at > trace.closes_at_unix_nano {
                        continue;
                    }
                    let span = Span::read(raw);
                    trace.bits |= of_resource;
                    trace.bits |= conditions.of_span(&span, trace.bits, &mut frame, &self.book);
                    trace.start_unix_nano = trace.start_unix_nano.min(span.start_unix_nano);
                    trace.end_unix_nano = trace.end_unix_nano.max(span.end_unix_nano);
                    trace.spans = trace.spans.saturating_add(1);
                    trace.bytes = trace.bytes.saturating_add(raw.len() as u32);
                    if span.parent_span_id.is_none() && !self.wait_after_root.is_zero() {
                        let closes_at = arrived_at.saturating_add(nanos(self.wait_after_root));
                        trace.closes_at_unix_nano = trace.closes_at_unix_nano.min(closes_at);
                    }
                }
            }
        }
    }

    /// A trace that was not known waits from now on; its place. The oldest makes room for it if too many wait.
    fn begin(&mut self, id: TraceId, arrived_at_unix_nano: u64) -> usize {
        while self.traces.is_full() {
            self.counts.too_early.fetch_add(1, Ordering::Relaxed);
            self.decide(0, arrived_at_unix_nano);
        }
        self.counts.new.fetch_add(1, Ordering::Relaxed);
        self.traces.wait(Trace {
            id,
            bits: 0,
            closes_at_unix_nano: arrived_at_unix_nano.saturating_add(nanos(self.wait)),
            start_unix_nano: u64::MAX,
            end_unix_nano: 0,
            spans: 0,
            bytes: 0,
        })
    }

    fn settle(&mut self) {
        self.traces.trim();
        let waiting = self.traces.waiting() as u64;
        self.counts.waiting.store(waiting, Ordering::Relaxed);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The encoded spans of a request.
fn raw_spans(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    resource_spans(payload)
        .iter()
        .flat_map(|resource| resource.list().iter())
        .flat_map(|scope| scope.list().raw())
}

/// The trace of an encoded span. Nearly always it is the first field.
fn id_of(span: &[u8]) -> TraceId {
    let id = Fields::new(span).find(|(number, _)| *number == 1);
    id.and_then(|(_, id)| TraceId::from_bytes(id.bytes()))
        .unwrap_or_default()
}

impl Stage for Sampler {
    fn start(&mut self, budget: &Budget) {
        let part = budget.child(Arc::clone(&self.book.processor), budget.limit_bytes());
        self.traces.count_in(&part);
    }

    fn restore(&mut self, state: &State) -> Result<(), BadState> {
        let bytes = match state {
            State::Whole(bytes) => {
                self.traces.forget_decisions();
                self.limits = self.policies.limits();
                self.changes_bytes = Some(0);
                bytes
            }
            State::Change(bytes) => {
                self.changes_bytes = Some(self.changes_bytes.unwrap_or_default() + bytes.len());
                bytes
            }
        };
        let remembered = Remembered::read(bytes)
            .ok_or_else(|| BadState(format!("`{}`: what it remembers does not read", self.book.processor)))?;
        self.limits.resume(&remembered.limits);
        for (id, keep) in remembered.decisions() {
            self.traces.remember(id, keep);
        }
        self.settle();
        Ok(())
    }

    fn delay(&self) -> Duration {
        self.wait
    }

    fn see(&mut self, batch: &Batch) {
        if batch.signal == Signal::Traces {
            self.absorb(batch);
            self.settle();
        }
    }

    fn take(&mut self, batch: Batch, out: &mut Vec<Batch>) {
        if batch.signal != Signal::Traces {
            out.push(batch);
            return;
        }
        let now_unix_nano = batch.meta.received_at_unix_nano.saturating_add(nanos(self.wait));
        // Without a wait nothing was seen; and a decision may have been forgotten before its last spans were taken.
        if !self.judge(&batch, now_unix_nano) {
            self.absorb(&batch);
            self.judge(&batch, now_unix_nano);
        }
        let dropped = self.kept.iter().filter(|keep| !**keep).count();
        if dropped < self.kept.len() || self.kept.is_empty() {
            out.push(select(&batch, |index| {
                self.kept.get(index as usize).copied().unwrap_or(true)
            }));
        }
        self.book.dropped(Signal::Traces, dropped as u32, Reason::NotSampled);
        self.settle();
    }

    fn state(&mut self, whole: bool) -> State {
        let limits: Vec<u64> = self.limits.words().collect();
        let change = Remembered::write(&limits, self.decided.drain(..));
        if let Some(before) = self.changes_bytes.filter(|_| !whole) {
            let changes_bytes = before + change.len();
            let whole_bytes = self.traces.decided() * DECISION_BYTES;
            if changes_bytes < MIN_WHOLE_EVERY_BYTES.max(whole_bytes) {
                self.changes_bytes = Some(changes_bytes);
                return State::Change(change);
            }
        }
        self.changes_bytes = Some(0);
        State::Whole(Remembered::write(&limits, self.traces.decisions()))
    }

    fn book(&self) -> Option<&Arc<StepBook>> {
        Some(&self.book)
    }
}

/// What it remembers, encoded: the version; the number of limits in four bytes, and eight bytes for each; then seventeen bytes for each decision, the id and 1 for a
/// trace that was kept. Numbers have their lowest byte first.
struct Remembered<'a> {
    limits: Vec<u64>,
    decisions: &'a [u8],
}

impl<'a> Remembered<'a> {
    fn write(limits: &[u64], decisions: impl Iterator<Item = (TraceId, bool)>) -> Bytes {
        let mut out = vec![STATE_VERSION];
        out.extend_from_slice(&(limits.len() as u32).to_le_bytes());
        out.extend(limits.iter().flat_map(|word| word.to_le_bytes()));
        for (id, keep) in decisions {
            out.extend_from_slice(&id.0);
            out.push(u8::from(keep));
        }
        out.into()
    }

    fn read(bytes: &'a [u8]) -> Option<Remembered<'a>> {
        let (&version, rest) = bytes.split_first()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let (limits, decisions) = rest.split_at_checked((u32::from_le_bytes(*count) as usize).checked_mul(8)?)?;
        let is_whole = decisions.len().is_multiple_of(DECISION_BYTES);
        (version == STATE_VERSION && is_whole).then(|| Remembered {
            limits: limits
                .as_chunks::<8>()
                .0
                .iter()
                .map(|word| u64::from_le_bytes(*word))
                .collect(),
            decisions,
        })
    }

    fn decisions(&self) -> impl Iterator<Item = (TraceId, bool)> {
        let (decisions, _) = self.decisions.as_chunks::<DECISION_BYTES>();
        decisions.iter().filter_map(|decision| {
            let (id, keep) = decision.split_first_chunk::<16>()?;
            Some((TraceId(*id), keep == [1]))
        })
    }
}

#[cfg(test)]
mod tests;
