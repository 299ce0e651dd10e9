//! What a call of an AI model used and cost, on its span.
//!
//! Prices are data with a date (`data/ai-prices.json`), because they change more often than code does. A service adds
//! its own with [`crate::Builder::ai_prices`] or `TRACKLINE_AI_PRICES`.

use std::collections::HashMap;

use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};
use serde::Deserialize;

use crate::request::RequestState;

/// One call of a model.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "give it to `record_usage`"]
pub struct Usage {
    provider: String,
    model: String,
    operation: String,
    input_tokens: u64,
    output_tokens: u64,
    cost_usd: Option<f64>,
}

impl Usage {
    /// A call of `model` at `provider` (`openai`, `anthropic`, …; OpenTelemetry's `gen_ai.provider.name`).
    pub fn new(provider: impl Into<String>, model: impl Into<String>) -> Usage {
        Usage {
            provider: provider.into(),
            model: model.into(),
            operation: "chat".to_owned(),
            input_tokens: 0,
            output_tokens: 0,
            cost_usd: None,
        }
    }

    /// `chat` (if not said), `text_completion`, `embeddings`, …
    pub fn operation(mut self, operation: impl Into<String>) -> Usage {
        self.operation = operation.into();
        self
    }

    /// Tokens sent and received.
    pub fn tokens(mut self, input: u64, output: u64) -> Usage {
        self.input_tokens = input;
        self.output_tokens = output;
        self
    }

    /// What the call cost, where the provider says so; otherwise it is computed from the price table.
    pub fn cost_usd(mut self, dollars: f64) -> Usage {
        self.cost_usd = Some(dollars);
        self
    }
}

/// Writes a call's usage on the current span and returns its cost in US dollars. `None`: the model has no known price;
/// the span then has no `cost.usd`, rather than a wrong one.
pub fn record_usage(usage: &Usage) -> Option<f64> {
    let tokens = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    Context::map_current(|context| {
        let cost = usage.cost_usd.or_else(|| {
            let prices = RequestState::telemetry_of(context).prices();
            prices.cost(&usage.model, usage.input_tokens, usage.output_tokens)
        });
        let span = context.span();
        if !span.is_recording() {
            return cost;
        }
        span.set_attributes([
            KeyValue::new("gen_ai.operation.name", usage.operation.clone()),
            KeyValue::new("gen_ai.provider.name", usage.provider.clone()),
            KeyValue::new("gen_ai.request.model", usage.model.clone()),
            KeyValue::new("gen_ai.usage.input_tokens", tokens(usage.input_tokens)),
            KeyValue::new("gen_ai.usage.output_tokens", tokens(usage.output_tokens)),
        ]);
        if let Some(cost) = cost {
            span.set_attribute(KeyValue::new("cost.usd", cost));
        }
        cost
    })
}

/// What models cost.
#[derive(Debug, Clone)]
pub(crate) struct Prices {
    /// Longest match first.
    models: Vec<Price>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(rename = "as_of")]
    _as_of: String,
    #[serde(rename = "currency", default)]
    _currency: Option<String>,
    #[serde(rename = "unit", default)]
    _unit: Option<String>,
    /// Where the prices are from, by the names that `source` of a model uses; for people.
    #[serde(rename = "sources", default)]
    _sources: HashMap<String, Source>,
    models: Vec<Price>,
}

/// Where prices are from and when they were so.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    #[serde(rename = "url")]
    _url: String,
    #[serde(rename = "as_of")]
    _as_of: String,
    #[serde(rename = "read", default)]
    _read: Option<String>,
}

/// US dollars for a million tokens of one model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    #[serde(rename = "match")]
    model: String,
    input: f64,
    output: f64,
    /// Longer prompts have another price, which is not known here.
    #[serde(default)]
    up_to_input: Option<u64>,
    #[serde(rename = "source", default)]
    _source: Option<String>,
}

const PER_TOKENS: f64 = 1_000_000.0;

impl Prices {
    pub(crate) fn built_in() -> Prices {
        let table = serde_json::from_str::<Table>(include_str!("../data/ai-prices.json"))
            .expect("the table in the source is checked by a test");
        Prices::sorted(table.models)
    }

    /// The built-in prices, with those of a JSON text or file before them.
    pub(crate) fn with_overrides(json_or_path: Option<&str>) -> Result<Prices, String> {
        let mut prices = Prices::built_in();
        let Some(given) = json_or_path else {
            return Ok(prices);
        };
        let text = if given.trim_start().starts_with('{') {
            given.to_owned()
        } else {
            std::fs::read_to_string(given)
                .map_err(|error| format!("the AI price file {given} cannot be read: {error}"))?
        };
        let table = serde_json::from_str::<Table>(&text)
            .map_err(|error| format!("the AI prices are not a price table: {error}"))?;
        prices
            .models
            .retain(|old| !table.models.iter().any(|new| new.model == old.model));
        prices.models.extend(table.models);
        Ok(Prices::sorted(prices.models))
    }

    fn sorted(mut models: Vec<Price>) -> Prices {
        models.sort_by_key(|price| std::cmp::Reverse(price.model.len()));
        Prices { models }
    }

    /// US dollars for a call. Model names carry dates behind (`gpt-4o-2024-08-06`), sometimes a vendor before
    /// (`openai/gpt-4o`). Any other ending is another model, whose price may be another one (`o3` and `o3-pro`).
    pub(crate) fn cost(&self, model: &str, input_tokens: u64, output_tokens: u64) -> Option<f64> {
        let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
        let price = self.models.iter().find(|price| {
            name.strip_prefix(price.model.as_str())
                .is_some_and(|rest| rest.is_empty() || is_release(rest))
        })?;
        if price.up_to_input.is_some_and(|most| input_tokens > most) {
            return None;
        }
        let dollars = input_tokens as f64 * price.input + output_tokens as f64 * price.output;
        Some(dollars / PER_TOKENS)
    }
}

/// Whether an ending names a release of the same model: `-2024-08-06`, `-20250514`, `@20250514`, `-001`, `-latest`.
fn is_release(ending: &str) -> bool {
    let Some(release) = ending.strip_prefix(['-', '@']) else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let lengths: Vec<usize> = release.split('-').map(str::len).collect();
    release == "latest" || release.split('-').all(digits) && matches!(lengths[..], [4, 2, 2] | [8] | [3])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prices: &Prices, model: &str, dollars: Option<f64>) {
        let cost = prices.cost(model, 1_000_000, 1_000_000);
        let same = match (cost, dollars) {
            (Some(a), Some(b)) => (a - b).abs() < 1e-9,
            (a, b) => a == b,
        };
        assert!(same, "{model}: {cost:?}, expected {dollars:?}");
    }

    #[test]
    fn the_longest_name_counts() {
        let prices = Prices::built_in();
        check(&prices, "gpt-4o", Some(12.50));
        check(&prices, "gpt-4o-mini", Some(0.75));
        check(&prices, "gpt-4o-mini-2024-07-18", Some(0.75));
        check(&prices, "openai/GPT-4o-2024-08-06", Some(12.50));
        check(&prices, "gpt-4.1", Some(10.0));
        check(&prices, "gpt-4oh", None);
        check(&prices, "home-made", None);
    }

    #[test]
    fn another_model_is_not_taken_for_a_release() {
        let prices = Prices::built_in();
        check(&prices, "claude-opus-4-20250514", Some(90.0));
        check(&prices, "claude-opus-4@20250514", Some(90.0));
        check(&prices, "claude-opus-4-5-20251101", Some(30.0));
        check(&prices, "claude-opus-4-9", None);
        check(&prices, "claude-3-5-haiku-latest", Some(4.8));
        check(&prices, "gemini-2.0-flash-001", Some(0.5));
        check(&prices, "gpt-4o-2024-05-13", Some(20.0));
        for other in [
            "o3-pro",
            "gpt-4o-audio-preview",
            "gpt-4o:free",
            "gpt-4o-",
            "gpt-5-pro",
            "gpt-4",
        ] {
            check(&prices, other, None);
        }
    }

    #[test]
    fn a_price_for_short_prompts_is_not_one_for_long_ones() {
        let prices = Prices::built_in();
        assert!(prices.cost("gemini-2.5-pro", 200_000, 10).is_some());
        assert_eq!(prices.cost("gemini-2.5-pro", 200_001, 10), None);
    }

    #[test]
    fn every_built_in_price_says_where_it_is_from() {
        let table: Table = serde_json::from_str(include_str!("../data/ai-prices.json")).expect("a table");
        let newest = table._sources.values().map(|source| source._as_of.as_str()).max();
        assert_eq!(
            newest,
            Some(table._as_of.as_str()),
            "the table is as new as its newest source"
        );
        for price in &table.models {
            let source = price._source.as_ref().and_then(|name| table._sources.get(name));
            assert!(
                source.is_some_and(|source| source._url.starts_with("https://")),
                "{}",
                price.model
            );
        }
    }

    #[test]
    fn a_service_can_have_its_own_prices() {
        let own = r#"{"as_of":"2026-01-01","models":[{"match":"home-made","input":1,"output":2},{"match":"gpt-4o","input":0,"output":0}]}"#;
        let prices = Prices::with_overrides(Some(own)).expect("a table");
        check(&prices, "home-made", Some(3.0));
        check(&prices, "gpt-4o", Some(0.0));
        check(&prices, "gpt-4o-mini", Some(0.75));
        assert!(Prices::with_overrides(Some("{}")).is_err());
        assert!(Prices::with_overrides(Some("/does/not/exist.json")).is_err());
    }
}
