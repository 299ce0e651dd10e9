//! Why: where everything is too much, a share that is chosen by the trace id keeps whole traces, on every collector the same ones. What is kept says with
//! which probability it was (`ot=th:…` in `tracestate`; `sampling.threshold` on log records), so that counts can be extrapolated.
//!
//! Works as OpenTelemetry's consistent probability sampling has it (specification, "TraceState: Probability Sampling"): of 56 random bits, an item's
//! randomness, those at or above a threshold are kept. A threshold that an item brings is never lowered.
//!
//! ```yaml
//! processors:
//!   probabilistic_sampler: { sampling_percentage: 10, mode: proportional }
//! ```

mod tracestate;

use std::sync::Arc;

use model::edit::scrub::{Added, Fate, Scrub, scrub};
use model::edit::select;
use model::view::logs::{LogRecord, log_records};
use model::view::traces::{Span, spans};
use model::view::{AnyValue, Attributes};
use model::wire::put_bytes;
use model::{Batch, Signal};
use serde::Deserialize;

use self::tracestate::{Randomness, Threshold, TraceState};
use super::Step;
use crate::ack::Outcome;
use crate::component::Processor;
use crate::config::{Problems, Section};
use crate::ledger::StepBook;
use crate::reason::Reason;

/// What the collector's hashing mode tells apart.
const BUCKETS: u32 = 1 << 14;

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many percent are kept; 100 and more is everything. Default 0.
    pub sampling_percentage: f32,
    /// `hash_seed`, `equalizing` or `proportional`. Default: `hash_seed` if a seed is set or records are chosen by an attribute, else `proportional`.
    pub mode: Option<Mode>,
    /// For `hash_seed`: collectors of one tier need the same, collectors behind each other different ones.
    pub hash_seed: u32,
    /// How many hexadecimal digits a threshold is given, from 1 to 14. Default 4.
    pub sampling_precision: u32,
    /// Drop items whose sampling information is broken or missing. Default `true`.
    pub fail_closed: bool,
    /// Of log records: what decides, their `traceID` (default) or, for `record`, the attribute of `from_attribute`.
    pub attribute_source: Source,
    /// Of log records: the attribute that decides where the trace id does not.
    pub from_attribute: String,
    /// Of log records: an attribute with a percentage of their own, which counts where it is higher.
    pub sampling_priority: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            sampling_percentage: 0.0,
            mode: None,
            hash_seed: 0,
            sampling_precision: 4,
            fail_closed: true,
            attribute_source: Source::TraceId,
            from_attribute: String::new(),
            sampling_priority: String::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    HashSeed,
    Equalizing,
    Proportional,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Source {
    #[serde(rename = "traceID")]
    TraceId,
    #[serde(rename = "record")]
    Record,
}

pub fn parse(section: &Section<'_>) -> Result<Step, Problems> {
    let config: Config = section.parse()?;
    if config.sampling_percentage < 0.0 || !config.sampling_percentage.is_finite() {
        return Err(section.problem(&["sampling_percentage"], "a percentage is a number from 0"));
    }
    if !(1..=14).contains(&config.sampling_precision) {
        return Err(section.problem(
            &["sampling_precision"],
            "a threshold has from 1 to 14 hexadecimal digits",
        ));
    }
    if config.attribute_source == Source::Record && config.from_attribute.is_empty() {
        return Err(section.problem(&["attribute_source"], "`record` needs `from_attribute`"));
    }
    let name = section.component.id.as_str();
    Ok(Step::InRequest(Arc::new(Sampler::new(config, name))))
}

struct Sampler {
    config: Config,
    /// The share that is kept, from 0 to 1.
    ratio: f64,
    book: Arc<StepBook>,
}

/// What shall become of an item.
enum Fare {
    Drop,
    Keep,
    /// A span with another `tracestate`.
    TraceState(String),
    /// A log record with these attributes: `sampling.threshold` and, if it is told, `sampling.randomness`.
    Record(String, Option<String>),
}

impl Sampler {
    fn new(config: Config, name: &str) -> Sampler {
        let mut ratio = (f64::from(config.sampling_percentage) / 100.0).min(1.0);
        if ratio > 0.0 {
            ratio = ratio.max(Threshold::LEAST_PROBABILITY);
        }
        Sampler {
            config,
            ratio,
            book: StepBook::new(name),
        }
    }

    fn mode(&self, signal: Signal) -> Mode {
        let by_attribute = signal == Signal::Logs && self.config.attribute_source == Source::Record;
        match self.config.mode {
            Some(mode) => mode,
            None if self.config.hash_seed != 0 || by_attribute => Mode::HashSeed,
            None => Mode::Proportional,
        }
    }

    /// The threshold for an item that brings this one.
    fn threshold(&self, mode: Mode, brought: Option<Threshold>) -> Threshold {
        if self.ratio == 0.0 {
            return Threshold::NEVER;
        }
        let precision = self.config.sampling_precision;
        match mode {
            Mode::Equalizing => Threshold::of(self.ratio, precision),
            Mode::Proportional => {
                let brought = brought.map_or(1.0, Threshold::probability);
                Threshold::of(brought * self.ratio, precision)
            }
            Mode::HashSeed => {
                // As the collector computes it, in single precision and rounded down.
                let percentage = self.config.sampling_percentage.min(100.0);
                let kept = (percentage * (BUCKETS as f32 / 100.0)) as u32;
                match kept {
                    0 => Threshold::NEVER,
                    kept => Threshold::rejecting(u64::from(BUCKETS - kept) << 42),
                }
            }
        }
    }

    fn on_fault(&self) -> Threshold {
        if self.config.fail_closed {
            Threshold::NEVER
        } else {
            Threshold::ALWAYS
        }
    }

    fn span(&self, span: &Span<'_>) -> Fare {
        let priority = priority(&span.attributes);
        if priority == Priority::Never {
            return Fare::Drop;
        }
        let mode = self.mode(Signal::Traces);
        let id = span.trace_id.0;
        let hashed = || Randomness::hashed(&id, self.config.hash_seed);
        let state = TraceState::parse(span.trace_state);
        // What other samplers wrote is not touched in the hashing mode, which knows nothing of it.
        let is_ours = state
            .as_ref()
            .is_some_and(|state| mode != Mode::HashSeed || state.is_new());
        let randomness = match (&state, mode) {
            (_, Mode::HashSeed) => hashed(),
            (Some(state), _) => state.randomness().unwrap_or_else(|| Randomness::of_trace(&id)),
            (None, _) => Randomness::of_trace(&id),
        };
        let brought = state.as_ref().and_then(TraceState::threshold);
        let threshold = match (&state, brought) {
            _ if priority == Priority::Always => Threshold::ALWAYS,
            _ if mode == Mode::HashSeed => self.threshold(mode, None),
            (None, _) => self.on_fault(),
            // It claims to have been kept by a sampler that would have dropped it.
            (Some(_), Some(brought)) if !brought.keeps(randomness) => self.on_fault(),
            (Some(_), brought) => self.threshold(mode, brought),
        };
        if !threshold.keeps(randomness) {
            return Fare::Drop;
        }
        let Some(mut state) = state.filter(|_| is_ours) else {
            return Fare::Keep;
        };
        if mode == Mode::HashSeed {
            state.set_randomness(randomness);
        }
        match brought {
            Some(brought) if !brought.keeps(randomness) => state.set_threshold(None),
            Some(brought) if brought >= threshold => return Fare::Keep,
            _ => state.set_threshold(Some(threshold)),
        }
        Fare::TraceState(state.to_string())
    }

    fn record(&self, record: &LogRecord<'_>) -> Fare {
        let mode = self.mode(Signal::Logs);
        let attribute = |name: &str| record.attributes.get_str(name).filter(|text| !text.is_empty());
        let brought = attribute("sampling.threshold").map(Threshold::parse);
        let explicit = attribute("sampling.randomness").map(Randomness::parse);
        let is_broken = brought == Some(None) || explicit == Some(None);
        let (brought, explicit) = (brought.flatten(), explicit.flatten());
        let id = record.trace_id.map(|id| id.0);
        let from_attribute = || {
            let value = record
                .attributes
                .get(&self.config.from_attribute)
                .filter(|_| !self.config.from_attribute.is_empty())?;
            hash_of_value(value, self.config.hash_seed)
        };
        let randomness = match mode {
            Mode::HashSeed if self.config.attribute_source == Source::TraceId => {
                Some(Randomness::hashed(&id.unwrap_or_default(), self.config.hash_seed))
            }
            Mode::HashSeed => from_attribute(),
            Mode::Equalizing | Mode::Proportional => explicit
                .or_else(|| id.map(|id| Randomness::of_trace(&id)))
                .or_else(from_attribute),
        };
        let is_inconsistent = mode != Mode::HashSeed
            && brought
                .zip(randomness)
                .is_some_and(|(brought, randomness)| !brought.keeps(randomness));
        let mut threshold = match randomness {
            _ if is_broken || is_inconsistent => self.on_fault(),
            None => self.on_fault(),
            Some(_) => self.threshold(mode, brought),
        };
        threshold = threshold.min(self.own_threshold(&record.attributes));
        // What has no randomness is kept or dropped for another reason.
        if !threshold.keeps(randomness.unwrap_or(Randomness::MOST)) {
            return Fare::Drop;
        }
        if mode == Mode::HashSeed && (brought.is_some() || explicit.is_some()) || is_broken {
            return Fare::Keep;
        }
        if brought.is_some_and(|brought| !is_inconsistent && brought >= threshold) {
            return Fare::Keep;
        }
        let told = randomness.filter(|_| mode == Mode::HashSeed);
        Fare::Record(threshold.to_string(), told.map(|randomness| randomness.to_string()))
    }

    /// The threshold that a log record asks for itself.
    fn own_threshold(&self, attributes: &Attributes<'_>) -> Threshold {
        let percentage = match self.config.sampling_priority.as_str() {
            "" => None,
            name => attributes.get(name),
        };
        let percentage = match percentage {
            Some(AnyValue::Int(percentage)) => percentage as f64,
            Some(AnyValue::Double(percentage)) => percentage,
            _ => return Threshold::NEVER,
        };
        Threshold::of((percentage / 100.0).min(1.0), self.config.sampling_precision)
    }
}

/// The randomness in an attribute's value; none in lists and maps.
fn hash_of_value(value: AnyValue<'_>, seed: u32) -> Option<Randomness> {
    let hashed = |bytes: &[u8]| Some(Randomness::hashed(bytes, seed));
    match value {
        AnyValue::Str(text) => hashed(text.as_bytes()),
        AnyValue::Bytes(bytes) => hashed(bytes),
        AnyValue::Int(number) => hashed(number.to_string().as_bytes()),
        AnyValue::Double(number) => hashed(number.to_string().as_bytes()),
        AnyValue::Bool(value) => hashed(value.to_string().as_bytes()),
        AnyValue::Empty | AnyValue::Array(_) | AnyValue::KvList(_) => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Priority {
    Never,
    Always,
    Unsaid,
}

/// What a span's `sampling.priority` says (OpenTracing, semantic conventions).
fn priority(attributes: &Attributes<'_>) -> Priority {
    let said = match attributes.get("sampling.priority") {
        Some(AnyValue::Int(said)) => said as f64,
        Some(AnyValue::Double(said)) => said,
        Some(AnyValue::Str(said)) => match said.parse() {
            Ok(said) => said,
            Err(_) => return Priority::Unsaid,
        },
        _ => return Priority::Unsaid,
    };
    match said {
        0.0 => Priority::Never,
        said if said > 0.0 => Priority::Always,
        _ => Priority::Unsaid,
    }
}

impl Processor for Sampler {
    fn process(&self, batch: Batch) -> Result<Batch, Outcome> {
        let fares: Vec<Fare> = match batch.signal {
            Signal::Traces => spans(&batch.payload).map(|span| self.span(&span)).collect(),
            Signal::Logs => log_records(&batch.payload).map(|record| self.record(&record)).collect(),
            Signal::Metrics => return Ok(batch),
        };
        let mut kept = select(&batch, |index| !matches!(fares.get(index as usize), Some(Fare::Drop)));
        self.book
            .dropped(batch.signal, batch.items - kept.items, Reason::NotSampled);
        let is_marked = |fare: &Fare| matches!(fare, Fare::TraceState(_) | Fare::Record(..));
        if fares.iter().any(is_marked) {
            let mut fares = fares.into_iter().filter(|fare| !matches!(fare, Fare::Drop));
            let mut marking = Marking {
                next: || fares.next(),
                owners: Vec::new(),
            };
            kept = scrub(&kept, &mut marking);
        }
        Ok(kept)
    }

    fn book(&self) -> Option<&Arc<StepBook>> {
        Some(&self.book)
    }
}

/// Field 3 of a span.
const TRACE_STATE: u32 = 3;

/// Writes into the items what was decided about them.
struct Marking<F> {
    /// What was decided about the next item.
    next: F,
    /// The owner at hand and those around it; what an item still lacks.
    owners: Vec<Option<Fare>>,
}

impl<F: FnMut() -> Option<Fare>> Scrub for Marking<F> {
    fn enter(&mut self, owner: &'static str) {
        let fare = match owner {
            "Span" | "LogRecord" => (self.next)(),
            _ => None,
        };
        self.owners.push(fare);
    }

    fn pair(&mut self, key: &str, _: &[u8], out: &mut Vec<u8>) -> Fate {
        let Some(Some(Fare::Record(threshold, randomness))) = self.owners.last_mut() else {
            return Fate::Keep;
        };
        let new = match key {
            "sampling.threshold" => std::mem::take(threshold),
            "sampling.randomness" => match randomness.take() {
                Some(randomness) => randomness,
                None => return Fate::Keep,
            },
            _ => return Fate::Keep,
        };
        put_bytes(out, 1, new.as_bytes());
        Fate::Replace
    }

    fn body(&mut self, _: &[u8], _: &mut Vec<u8>) -> bool {
        false
    }

    fn text(&mut self, owner: &'static str, number: u32, _: &str, out: &mut Vec<u8>) -> bool {
        if owner != "Span" || number != TRACE_STATE {
            return false;
        }
        match self.owners.last_mut().and_then(Option::take) {
            Some(Fare::TraceState(state)) => {
                out.extend_from_slice(state.as_bytes());
                true
            }
            _ => false,
        }
    }

    fn leave(&mut self, added: &mut Added) {
        match self.owners.pop().flatten() {
            Some(Fare::TraceState(state)) => added.field(TRACE_STATE, &state),
            Some(Fare::Record(threshold, randomness)) => {
                if !threshold.is_empty() {
                    added.text("sampling.threshold", &threshold);
                }
                if let Some(randomness) = randomness {
                    added.text("sampling.randomness", &randomness);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
