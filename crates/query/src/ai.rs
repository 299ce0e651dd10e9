//! What the AI and other paid calls of a trace used and cost.
//!
//! A paid call is a span with `gen_ai.*` usage or with `cost.usd`. Agents and workflows often carry the sum of the
//! calls below them; only the lowest span of such a chain counts, so that nothing is counted twice.

use model::record::SpanRecord;

use crate::fields::{self, service_name};
use crate::story::{Ai, AiCall};
use crate::tree::Tree;

const STATUS_ERROR: u8 = 2;

/// The calls in tree order with their sums.
pub fn calls(spans: &[SpanRecord], tree: &Tree) -> Ai {
    let mut has_paid_below = vec![false; spans.len()];
    let mut paid: Vec<u32> = Vec::new();
    for &i in tree.order.iter().rev() {
        let span = &spans[i as usize];
        let below = has_paid_below[i as usize];
        let own = is_paid(span);
        if own && !below {
            paid.push(i);
        }
        if (own || below)
            && let Some(parent) = tree.parent(i)
        {
            has_paid_below[parent as usize] = true;
        }
    }
    let mut ai = Ai::default();
    for i in paid.into_iter().rev() {
        let call = call(&spans[i as usize]);
        ai.input_tokens = ai.input_tokens.saturating_add(call.input_tokens);
        ai.output_tokens = ai.output_tokens.saturating_add(call.output_tokens);
        ai.cost_usd += call.cost_usd;
        ai.calls.push(call);
    }
    ai
}

fn is_paid(span: &SpanRecord) -> bool {
    span.attributes
        .iter()
        .any(|(key, _)| key == "cost.usd" || key == "gen_ai.request.model" || key.starts_with("gen_ai.usage."))
}

fn call(span: &SpanRecord) -> AiCall {
    let read = |key: &str| fields::text(&span.attributes, key).to_owned();
    // What was asked for is what people know and budget by; the answer may name a dated snapshot of it.
    let model = Some(read("gen_ai.request.model")).filter(|model| !model.is_empty());
    let provider = Some(read("gen_ai.provider.name")).filter(|provider| !provider.is_empty());
    let error = (span.status_code == STATUS_ERROR).then(|| {
        [span.status_message.clone(), read("error.type")]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or_else(|| "error".to_owned())
    });
    AiCall {
        span_id: span.span_id,
        service: service_name(&span.resource).to_owned(),
        model: model.unwrap_or_else(|| read("gen_ai.response.model")),
        provider: provider.unwrap_or_else(|| read("server.address")),
        input_tokens: fields::count(&span.attributes, "gen_ai.usage.input_tokens").unwrap_or(0),
        output_tokens: fields::count(&span.attributes, "gen_ai.usage.output_tokens").unwrap_or(0),
        cost_usd: fields::amount(&span.attributes, "cost.usd").unwrap_or(0.0),
        duration_ns: span.end_unix_nano.saturating_sub(span.start_unix_nano),
        error,
    }
}

#[cfg(test)]
mod tests {
    use model::record::Value;

    use super::*;
    use crate::testing::span;

    fn paid(id: u8, parent: u8, tokens: i64, cost: f64) -> SpanRecord {
        let mut span = span(id, parent, u64::from(id), 100);
        span.attributes = vec![
            ("gen_ai.request.model".into(), Value::Str("m-1".into())),
            ("gen_ai.usage.input_tokens".into(), Value::Int(tokens)),
            ("gen_ai.usage.completion_tokens".into(), Value::Str("5".into())),
            ("cost.usd".into(), Value::Double(cost)),
        ];
        span
    }

    #[test]
    fn an_agent_that_sums_its_calls_is_not_counted_again() {
        let spans = [
            paid(1, 0, 30, 0.3),
            span(2, 1, 2, 100),
            paid(3, 2, 10, 0.1),
            paid(4, 2, 20, 0.2),
        ];
        let ai = calls(&spans, &Tree::build(&spans));
        assert_eq!((ai.calls.len(), ai.input_tokens, ai.output_tokens), (2, 30, 10));
        assert!((ai.cost_usd - 0.3).abs() < 1e-12);
        assert_eq!(ai.calls[0].span_id, spans[2].span_id);
    }

    #[test]
    fn a_cost_that_is_no_number_does_not_spoil_the_sum() {
        let mut free = paid(1, 0, 1, f64::NAN);
        free.status_code = STATUS_ERROR;
        let ai = calls(&[free], &Tree::build(&[paid(1, 0, 1, 0.0)]));
        assert_eq!((ai.calls[0].cost_usd, ai.cost_usd), (0.0, 0.0));
        assert_eq!(ai.calls[0].error.as_deref(), Some("error"));
    }
}
