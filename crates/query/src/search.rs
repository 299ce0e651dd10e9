//! Searching for traces: what may be asked, what of it the store filters, and what a found trace looks like in a list.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use model::TraceId;
use model::record::{SpanRecord, Value};
use serde::{Serialize, Serializer};
use store::{Field, Filter, Op};

use crate::fields::{self, UNKNOWN_SERVICE, service_name};
use crate::json;
use crate::story::{Kind, Root, ServiceShare};
use crate::tree::Tree;

const STATUS_OK: i64 = 1;
const STATUS_ERROR: u8 = 2;

/// Traces with one span that fulfils all of this.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraceSearch {
    pub service: Option<String>,
    pub operation: Option<String>,
    pub kind: Option<Kind>,
    /// A key with the text of its value, or a key that only has to be there. Any of the key's names will do.
    pub tags: Vec<(String, Option<String>)>,
    pub min_duration: Option<Duration>,
    pub max_duration: Option<Duration>,
    /// When the span started, in ns since 1970.
    pub time: Range<u64>,
    /// Only spans with status ERROR.
    pub errors: bool,
    /// Traces returned, newest first.
    pub limit: usize,
}

impl TraceSearch {
    /// What the store has to filter; time aside.
    pub fn filter(&self) -> Filter {
        let mut all = Vec::new();
        if let Some(service) = &self.service {
            let named = Filter::eq("resource.service.name", Value::Str(service.clone()));
            all.push(if service == UNKNOWN_SERVICE {
                Filter::Or(vec![named, Filter::Not(Box::new(exists("resource.service.name")))])
            } else {
                named
            });
        }
        if let Some(operation) = &self.operation {
            all.push(Filter::eq("name", Value::Str(operation.clone())));
        }
        if let Some(kind) = self.kind {
            all.push(Filter::eq("kind", Value::Int(i64::from(kind.number()))));
        }
        let duration = |op: Op, duration: Duration| Filter::Compare {
            field: Field::Exact("duration_ns".to_owned()),
            op,
            value: Value::Int(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)),
        };
        all.extend(self.min_duration.map(|least| duration(Op::Ge, least)));
        all.extend(self.max_duration.map(|most| duration(Op::Le, most)));
        if self.errors {
            all.push(failed());
        }
        all.extend(self.tags.iter().map(|(key, value)| tag(key, value.as_deref())));
        match all.len() {
            0 => Filter::True,
            1 => all.remove(0),
            _ => Filter::And(all),
        }
    }
}

fn failed() -> Filter {
    Filter::eq("status_code", Value::Int(i64::from(STATUS_ERROR)))
}

fn exists(field: &str) -> Filter {
    Filter::Compare {
        field: Field::Exact(field.to_owned()),
        op: Op::Exists,
        value: Value::Null,
    }
}

/// A tag as Jaeger's users write it. What OTLP keeps in fields of its own has names there that are no attributes.
fn tag(key: &str, value: Option<&str>) -> Filter {
    match (key, value) {
        ("error", Some("true")) => return failed(),
        ("error", Some("false")) => return Filter::Not(Box::new(failed())),
        ("span.kind", Some(kind)) => {
            if let Some(kind) = Kind::from_name(kind) {
                return Filter::eq("kind", Value::Int(i64::from(kind.number())));
            }
        }
        ("otel.status_code", Some("ERROR")) => return failed(),
        ("otel.status_code", Some("OK")) => return Filter::eq("status_code", Value::Int(STATUS_OK)),
        ("otel.status_description", Some(text)) => return Filter::eq("status_message", Value::Str(text.to_owned())),
        ("otel.scope.name" | "otel.library.name", Some(name)) => {
            return Filter::eq("scope_name", Value::Str(name.to_owned()));
        }
        _ => {}
    }
    let mut any: Vec<Filter> = fields::names(key)
        .map(|name| Filter::Compare {
            field: Field::Bare(name.to_owned()),
            op: if value.is_some() { Op::Eq } else { Op::Exists },
            value: value.map_or(Value::Null, |value| Value::Str(value.to_owned())),
        })
        .collect();
    if any.len() == 1 { any.remove(0) } else { Filter::Or(any) }
}

/// A trace in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceSummary {
    #[serde(with = "json::trace_id")]
    pub tracking_id: TraceId,
    /// The span without a parent, or the earliest orphan when the root is missing.
    pub root: Option<Root>,
    #[serde(with = "json::decimal")]
    pub start_unix_nano: u64,
    pub duration_ns: u64,
    pub span_count: usize,
    pub error_count: usize,
    #[serde(skip)]
    pub orphan_count: usize,
    #[serde(serialize_with = "names")]
    pub services: Vec<ServiceShare>,
    /// The HTTP status that the root answered with.
    pub status_code: Option<u64>,
}

fn names<S: Serializer>(services: &[ServiceShare], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(services.iter().map(|share| &share.name))
}

/// Sums up the spans of one trace, of which a bound kept `cut` from being read; `None` for none.
pub fn summary(spans: &[SpanRecord], cut: usize) -> Option<TraceSummary> {
    let tree = Tree::build(spans);
    let root = &spans[*tree.order.first()? as usize];
    let start = spans.iter().map(|span| span.start_unix_nano).min()?;
    let end = spans
        .iter()
        .map(|span| span.end_unix_nano.max(span.start_unix_nano))
        .max()?;
    let mut services: Vec<ServiceShare> = Vec::new();
    let mut index: HashMap<&str, usize> = HashMap::new();
    for &i in &tree.order {
        let span = &spans[i as usize];
        let name = service_name(&span.resource);
        let index = *index.entry(name).or_insert_with(|| {
            services.push(ServiceShare {
                name: name.to_owned(),
                spans: 0,
                errors: 0,
            });
            services.len() - 1
        });
        services[index].spans += 1;
        services[index].errors += usize::from(span.status_code == STATUS_ERROR);
    }
    Some(TraceSummary {
        tracking_id: root.trace_id,
        root: Some(Root {
            service: service_name(&root.resource).to_owned(),
            operation: root.name.clone(),
        }),
        start_unix_nano: start,
        duration_ns: end - start,
        span_count: spans.len() + cut,
        error_count: services.iter().map(|share| share.errors).sum(),
        orphan_count: tree.orphans(),
        services,
        status_code: fields::count(&root.attributes, "http.response.status_code"),
    })
}

impl TraceSummary {
    /// Bytes of the names in it, which are as long as their senders like.
    pub fn text_bytes(&self) -> usize {
        let root = self
            .root
            .as_ref()
            .map_or(0, |root| root.service.len() + root.operation.len());
        root + self.services.iter().map(|share| share.name.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{resource, span};

    #[test]
    fn old_tag_names_ask_for_new_ones_too() {
        let search = TraceSearch {
            tags: vec![
                ("http.status_code".into(), Some("500".into())),
                ("user.id".into(), None),
            ],
            ..TraceSearch::default()
        };
        let Filter::And(all) = search.filter() else {
            panic!("two tags are two conditions")
        };
        let Filter::Or(names) = &all[0] else {
            panic!("{:?}", all[0])
        };
        let names: Vec<&str> = names
            .iter()
            .map(|filter| match filter {
                Filter::Compare { field, op: Op::Eq, .. } => field.name(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(names, ["http.status_code", "http.response.status_code"]);
        assert!(matches!(&all[1], Filter::Compare { op: Op::Exists, .. }));
    }

    #[test]
    fn jaegers_own_tags_ask_for_fields() {
        for (key, value, column) in [
            ("error", "true", "status_code"),
            ("span.kind", "server", "kind"),
            ("otel.status_code", "ERROR", "status_code"),
            ("otel.scope.name", "x", "scope_name"),
        ] {
            let Filter::Compare { field, .. } = tag(key, Some(value)) else {
                panic!("{key}")
            };
            assert_eq!(field, Field::Exact(column.into()));
        }
    }

    #[test]
    fn a_summary_counts_by_service_in_order_of_the_tree() {
        let mut spans = [span(2, 1, 20, 90), span(1, 0, 10, 100), span(3, 9, 5, 7)];
        spans[0].resource = resource("engine");
        spans[0].status_code = STATUS_ERROR;
        spans[1].attributes = vec![("http.status_code".into(), Value::Int(502))];
        let found = summary(&spans, 0).unwrap();
        assert_eq!(
            serde_json::to_string(&found).unwrap(),
            r#"{"tracking_id":"07070707070707070707070707070707","root":{"service":"web","operation":"op1"},"start_unix_nano":"5","duration_ns":95,"span_count":3,"error_count":1,"services":["web","engine"],"status_code":502}"#
        );
        assert_eq!(found.orphan_count, 1);
        assert_eq!(summary(&[], 0), None);
    }
}
