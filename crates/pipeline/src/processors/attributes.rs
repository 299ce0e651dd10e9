//! Why: attributes of spans, log records and data points are set, removed, hashed and taken apart at the collector, for all services alike. Works on the
//! encoded bytes: what changes is spliced, all else is copied untouched.
//!
//! ```yaml
//! processors:
//!   attributes:
//!     include: { match_type: strict, services: [checkout] }
//!     actions:
//!       - { key: environment, value: "${ENVIRONMENT}", action: insert }
//!       - { key: user.email, action: hash }
//!       - { pattern: "^internal\\.", action: delete }
//! ```

use std::sync::Arc;

use model::Batch;
use model::edit::{Level, edit_attributes};
use serde::Deserialize;

use super::Step;
use super::actions::{Action, Actions};
use super::matching::{Around, Chosen, MatchProperties, Matcher};
use crate::ack::Outcome;
use crate::component::Processor;
use crate::config::{Problems, Section};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What to do, in this order.
    pub actions: Vec<Action>,
    /// Which items are changed. Default: all.
    #[serde(default)]
    pub include: Option<MatchProperties>,
    /// Which of them are left alone. Default: none.
    #[serde(default)]
    pub exclude: Option<MatchProperties>,
}

pub fn parse(section: &Section<'_>) -> Result<Step, Problems> {
    let config: Config = section.parse()?;
    Ok(Step::InRequest(Arc::new(Attributes {
        actions: Actions::new(section, "actions", config.actions)?,
        chosen: Chosen {
            include: Matcher::new(section, &["include"], config.include.as_ref())?,
            exclude: Matcher::new(section, &["exclude"], config.exclude.as_ref())?,
        },
    })))
}

struct Attributes {
    actions: Actions,
    chosen: Chosen,
}

impl Processor for Attributes {
    fn metadata_keys(&self) -> Vec<Arc<str>> {
        self.actions.metadata_keys()
    }

    fn process(&self, batch: Batch) -> Result<Batch, Outcome> {
        let all = self.chosen.all();
        Ok(edit_attributes(&batch, Level::Item, |owner, changes| {
            let around = Around {
                signal: batch.signal,
                resource: owner.resource,
                scope: owner.scope,
                item: owner.item,
                attributes: owner.attributes,
                metric: owner.metric,
            };
            if all || self.chosen.takes(&around) {
                self.actions.apply(owner.attributes, &batch.meta, changes);
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{attributes_of, logs, metrics, processor, spans, with_meta, with_resource};
    use model::Meta;

    /// What the attributes of the first span are after the processor has run, having been these.
    fn check(before: &[(&str, &str)], config: &str, after: &[(&str, &str)]) {
        let batch = crate::testing::with_attributes(&spans(0..1), before);
        let edited = processor(parse, config).process(batch).expect("never refuses");
        let request = crate::testing::traces(&edited);
        let got = attributes_of(&request.resource_spans[0].scope_spans[0].spans[0].attributes);
        let got: Vec<(&str, &str)> = got.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(got, after, "{config}");
    }

    const SHA_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn actions_beyond_setting() {
        check(
            &[("a", "abc"), ("b", "abc")],
            "{ actions: [{key: a, action: hash}] }",
            &[("a", SHA_OF_ABC), ("b", "abc")],
        );
        check(
            &[("http.a", "1"), ("http.b", "2"), ("rpc", "3")],
            "{ actions: [{pattern: '^http', action: delete}] }",
            &[("rpc", "3")],
        );
        check(
            &[("path", "/orders/17/lines")],
            "{ actions: [{key: path, pattern: '^/(?P<kind>\\w+)/(?P<id>\\d+)', action: extract}, {key: id, converted_type: int, action: convert}] }",
            &[("id", "IntValue(17)"), ("kind", "orders"), ("path", "/orders/17/lines")],
        );
        check(
            &[("n", "1.5"), ("t", "yes")],
            "{ actions: [{key: n, converted_type: double, action: convert}, {key: t, converted_type: int, action: convert}] }",
            &[("n", "DoubleValue(1.5)"), ("t", "yes")],
        );
        check(
            &[],
            "{ actions: [{key: n, value: 7, action: insert}, {key: n, converted_type: string, action: convert}, {pattern: n, action: hash}] }",
            &[("n", "7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451")],
        );
    }

    #[test]
    fn what_the_client_said_about_itself() {
        let meta = Meta {
            headers: vec![("x-tenant".into(), "a".into()), ("X-Tenant".into(), "b".into())],
            peer: Some("10.0.0.9:4000".parse().expect("an address")),
            ..(*crate::testing::meta()).clone()
        };
        let config = "{ actions: [{key: tenant, from_context: metadata.X-Tenant, action: insert}, \
                      {key: peer, from_context: client.address, action: insert}, \
                      {key: no, from_context: metadata.other, action: insert}] }";
        let edited = processor(parse, config)
            .process(with_meta(&spans(0..1), meta))
            .expect("never refuses");
        let request = crate::testing::traces(&edited);
        let got = attributes_of(&request.resource_spans[0].scope_spans[0].spans[0].attributes);
        assert_eq!(
            got,
            [("peer".into(), "10.0.0.9".into()), ("tenant".into(), "a;b".into())]
        );
    }

    #[test]
    fn include_and_exclude() {
        let chosen = |properties: &str| {
            let batch = with_resource(&spans(0..3), &[("service.name", "shop")]);
            let config = format!("{{ {properties}, actions: [{{key: hit, value: 1, action: insert}}] }}");
            let edited = processor(parse, &config).process(batch).expect("never refuses");
            let request = crate::testing::traces(&edited);
            let spans = &request.resource_spans[0].scope_spans[0].spans;
            (0..spans.len())
                .filter(|at| !spans[*at].attributes.is_empty())
                .collect::<Vec<_>>()
        };
        assert_eq!(chosen("include: {match_type: strict, services: [shop]}"), [0, 1, 2]);
        assert_eq!(
            chosen("include: {match_type: strict, services: [sho]}"),
            Vec::<usize>::new()
        );
        assert_eq!(chosen("include: {match_type: regexp, services: [sho]}"), [0, 1, 2]);
        assert_eq!(
            chosen("include: {match_type: regexp, span_names: ['span [02]']}"),
            [0, 2]
        );
        assert_eq!(
            chosen("include: {match_type: strict, services: [shop], span_names: ['span 1']}"),
            [1]
        );
        assert_eq!(chosen("exclude: {match_type: strict, span_names: ['span 1']}"), [0, 2]);
        assert_eq!(
            chosen(
                "include: {match_type: strict, resources: [{key: service.name}]}, exclude: {match_type: regexp, span_names: [0]}"
            ),
            [1, 2]
        );
        assert_eq!(
            chosen("include: {match_type: strict, log_bodies: [x]}"),
            Vec::<usize>::new()
        );
    }

    #[test]
    fn log_records_and_data_points_too() {
        let config = "{ include: {match_type: strict, log_severity_number: {min: WARN}}, actions: [{key: hit, value: 1, action: insert}] }";
        let edited = processor(parse, config).process(logs()).expect("never refuses");
        let hits: Vec<bool> = model::view::logs::log_records(&edited.payload)
            .map(|log| log.attributes.get("hit").is_some())
            .collect();
        assert_eq!(hits, [false, true]);
        let config = "{ include: {match_type: strict, metric_names: [requests]}, actions: [{key: hit, value: 1, action: insert}] }";
        let edited = processor(parse, config).process(metrics()).expect("never refuses");
        let hits: Vec<(String, bool)> = model::view::metrics::metrics(&edited.payload)
            .map(|metric| match metric.data {
                model::view::metrics::Data::Sum { points, .. } => {
                    let hit = points.iter().all(|point| point.attributes.get("hit").is_some());
                    (metric.name.to_owned(), hit)
                }
                model::view::metrics::Data::Gauge { points } => {
                    let hit = points.iter().any(|point| point.attributes.get("hit").is_some());
                    (metric.name.to_owned(), hit)
                }
                _ => unreachable!("the batch has no other"),
            })
            .collect();
        assert_eq!(hits, [("requests".to_owned(), true), ("load".to_owned(), false)]);
    }
}
