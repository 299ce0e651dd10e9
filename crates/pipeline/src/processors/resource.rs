//! Why: labels that every signal must carry (environment, project) are put on at the collector, where they cannot be forgotten. Works on the encoded
//! bytes: the resource's attributes are spliced, spans and records are copied untouched.
//!
//! ```yaml
//! processors:
//!   resource:
//!     attributes:
//!       - { key: deployment.environment, value: "${ENVIRONMENT}", action: upsert }
//!       - { key: service.instance.id, from_attribute: host.name, action: insert }
//!       - { key: internal.debug, action: delete }
//! ```

use std::fmt;
use std::sync::Arc;

use model::Batch;
use model::edit::{Changes, Level, Owner, edit_attributes};
use model::view::AnyValue;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use super::Step;
use crate::ack::Outcome;
use crate::component::Processor;
use crate::config::{Problems, Section};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What to do, in this order.
    pub attributes: Vec<Edit>,
}

/// One step.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The attribute.
    pub key: String,
    /// `insert` sets it where it is missing, `update` where it is there, `upsert` in both cases; `delete` removes it.
    pub action: Action,
    /// What to set: text, number or boolean.
    #[serde(default)]
    pub value: Option<Scalar>,
    /// Or: which other attribute's value to set; nothing happens where that is missing.
    #[serde(default)]
    pub from_attribute: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Insert,
    Update,
    Upsert,
    Delete,
}

/// A value that is written in a configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
}

impl Scalar {
    fn as_any(&self) -> AnyValue<'_> {
        match self {
            Scalar::Text(text) => AnyValue::Str(text),
            Scalar::Int(number) => AnyValue::Int(*number),
            Scalar::Double(number) => AnyValue::Double(*number),
            Scalar::Bool(value) => AnyValue::Bool(*value),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, `true` or `false`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Int(number))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar::Double(number))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(value))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

pub fn parse(section: &Section<'_>) -> Result<Step, Problems> {
    let config: Config = section.parse()?;
    for edit in &config.attributes {
        let sources = usize::from(edit.value.is_some()) + usize::from(edit.from_attribute.is_some());
        let wrong = match edit.action {
            _ if edit.key.is_empty() => "`key` is empty",
            Action::Delete if sources > 0 => "`delete` takes no value",
            Action::Insert | Action::Update | Action::Upsert if sources != 1 => {
                "exactly one of `value` and `from_attribute` is needed"
            }
            Action::Insert | Action::Update | Action::Upsert | Action::Delete => continue,
        };
        return Err(section.problem(&["attributes"], format!("attribute `{}`: {wrong}", edit.key)));
    }
    Ok(Step::InRequest(Arc::new(Resource {
        edits: config.attributes,
    })))
}

struct Resource {
    edits: Vec<Edit>,
}

impl Resource {
    fn edit(&self, owner: Owner<'_>, changes: &mut Changes) {
        for (index, edit) in self.edits.iter().enumerate() {
            // What earlier steps of this list did counts: the owner shows the attributes as they came.
            let present = self.now(index, &edit.key, owner);
            let apply = match edit.action {
                Action::Insert => present.is_none(),
                Action::Update => present.is_some(),
                Action::Upsert => true,
                Action::Delete => {
                    changes.remove(&edit.key);
                    continue;
                }
            };
            let value = match (&edit.value, &edit.from_attribute) {
                (Some(value), _) => Some(value.as_any()),
                (None, Some(from)) => self.now(index, from, owner),
                (None, None) => None,
            };
            if let Some(value) = value.filter(|_| apply) {
                changes.set(&edit.key, value);
            }
        }
    }

    /// The value of an attribute before step `index`.
    fn now<'a>(&'a self, index: usize, key: &str, owner: Owner<'a>) -> Option<AnyValue<'a>> {
        let mut value = owner.attributes.get(key);
        for (earlier, edit) in self
            .edits
            .iter()
            .enumerate()
            .take(index)
            .filter(|(_, edit)| edit.key == key)
        {
            let new = || match (&edit.value, &edit.from_attribute) {
                (Some(value), _) => Some(value.as_any()),
                (None, Some(from)) => self.now(earlier, from, owner),
                (None, None) => None,
            };
            match edit.action {
                Action::Insert if value.is_none() => value = new(),
                Action::Update if value.is_some() => value = new().or(value),
                Action::Upsert => value = new().or(value),
                Action::Insert | Action::Update => {}
                Action::Delete => value = None,
            }
        }
        value
    }
}

impl Processor for Resource {
    fn process(&self, batch: Batch) -> Result<Batch, Outcome> {
        Ok(edit_attributes(&batch, Level::Resource, |owner, changes| {
            self.edit(owner, changes)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spans;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{AnyValue as ProtoValue, KeyValue};
    use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
    use prost::Message;

    fn edit(key: &str, action: Action, value: Option<Scalar>, from_attribute: Option<&str>) -> Edit {
        Edit {
            key: key.into(),
            action,
            value,
            from_attribute: from_attribute.map(str::to_owned),
        }
    }

    fn text(text: &str) -> Option<Scalar> {
        Some(Scalar::Text(text.into()))
    }

    fn check(before: &[(&str, &str)], edits: Vec<Edit>, after: &[(&str, &str)]) {
        let batch = spans(0..2);
        let mut request = ExportTraceServiceRequest::decode(batch.payload.clone()).expect("decodes");
        let pair = |(key, value): &(&str, &str)| KeyValue {
            key: (*key).into(),
            value: Some(ProtoValue {
                value: Some(Value::StringValue((*value).into())),
            }),
            ..KeyValue::default()
        };
        request.resource_spans[0].resource = Some(ProtoResource {
            attributes: before.iter().map(pair).collect(),
            ..ProtoResource::default()
        });
        let batch = batch.edited(request.encode_to_vec().into(), 2);
        let edited = Resource { edits }.process(batch).expect("never refuses");
        let request = ExportTraceServiceRequest::decode(edited.payload.clone()).expect("decodes");
        let mut got: Vec<(String, String)> = request.resource_spans[0]
            .resource
            .iter()
            .flat_map(|resource| &resource.attributes)
            .map(
                |pair| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
                    Some(Value::StringValue(text)) => (pair.key.clone(), text.clone()),
                    other => (pair.key.clone(), format!("{other:?}")),
                },
            )
            .collect();
        got.sort();
        let expect: Vec<(String, String)> = after
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        assert_eq!(got, expect);
        assert_eq!(crate::testing::ids(&edited), [0, 1], "spans are untouched");
    }

    #[test]
    fn the_four_actions() {
        let edits = || {
            vec![
                edit("a", Action::Insert, text("new"), None),
                edit("b", Action::Update, text("new"), None),
                edit("c", Action::Upsert, text("new"), None),
                edit("d", Action::Delete, None, None),
            ]
        };
        check(&[], edits(), &[("a", "new"), ("c", "new")]);
        let before = [("a", "old"), ("b", "old"), ("c", "old"), ("d", "old"), ("e", "old")];
        check(
            &before,
            edits(),
            &[("a", "old"), ("b", "new"), ("c", "new"), ("e", "old")],
        );
    }

    #[test]
    fn later_steps_see_earlier_ones() {
        let edits = vec![
            edit("host", Action::Upsert, text("h1"), None),
            edit("instance", Action::Insert, None, Some("host")),
            edit("host", Action::Delete, None, None),
            edit("host", Action::Insert, text("h2"), None),
            edit("copy", Action::Insert, None, Some("missing")),
        ];
        check(&[("host", "h0")], edits, &[("host", "h2"), ("instance", "h1")]);
    }

    #[test]
    fn numbers_keep_their_type() {
        let edits = vec![edit("n", Action::Upsert, Some(Scalar::Int(7)), None)];
        check(&[], edits, &[("n", "Some(IntValue(7))")]);
    }
}
