//! Why: the name of a group or stream may have parts that come from what is sent, such as `/ecs/{ClusterName}` or `{service.name}`.

use model::view::{AnyValue, Attributes};

use crate::value_text;

/// AWS's bound on the name of a group and of a stream.
const MAX_NAME_CHARS: usize = 512;

/// What stands where no attribute says what should; the Collector's word.
const UNDEFINED: &str = "undefined";

/// Short names, and the attributes that they look for when none has the short name itself. The capitalised ones are the Collector's.
const ALIASES: [(&str, &[&str]); 9] = [
    ("ClusterName", &["aws.ecs.cluster.name"]),
    ("TaskId", &["aws.ecs.task.id"]),
    ("NodeName", &["k8s.node.name"]),
    ("PodName", &["pod", "k8s.pod.name"]),
    ("ServiceName", &["service.name"]),
    ("ContainerInstanceId", &["aws.ecs.container.instance.id"]),
    ("TaskDefinitionFamily", &["aws.ecs.task.family"]),
    ("service", &["service.name"]),
    (
        "environment",
        &["deployment.environment.name", "deployment.environment"],
    ),
];

/// Whose name it is: AWS permits different characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    Group,
    Stream,
}

impl Name {
    fn permits(self, c: char) -> bool {
        match self {
            Name::Group => c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '.' | '#'),
            Name::Stream => !matches!(c, ':' | '*') && !c.is_control(),
        }
    }
}

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("it is empty")]
    Empty,
    #[error("the `{{` at character {0} has no `}}`")]
    Open(usize),
    #[error("the `}}` at character {0} has no `{{`")]
    Closed(usize),
    #[error("`{{}}` names no attribute")]
    NoKey,
    #[error("AWS does not permit `{0}` in it")]
    Character(char),
}

/// A name with parts that are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    of: Name,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Key(String),
}

impl Template {
    pub fn parse(of: Name, text: &str) -> Result<Template, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut key: Option<(usize, String)> = None;
        for (at, c) in text.chars().enumerate() {
            match (c, &mut key) {
                ('{', Some((opened, _))) => return Err(NameError::Open(*opened)),
                ('{', None) => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    key = Some((at + 1, String::new()));
                }
                ('}', None) => return Err(NameError::Closed(at + 1)),
                ('}', Some((_, name))) if name.is_empty() => return Err(NameError::NoKey),
                ('}', Some((_, name))) => {
                    parts.push(Part::Key(std::mem::take(name)));
                    key = None;
                }
                (c, Some((_, name))) => name.push(c),
                (c, None) if of.permits(c) => plain.push(c),
                (c, None) => return Err(NameError::Character(c)),
            }
        }
        if let Some((opened, _)) = key {
            return Err(NameError::Open(opened));
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template { of, parts })
    }

    /// A name without parts, from a stranger: what AWS does not permit becomes `_`.
    pub(super) fn fixed(of: Name, text: &str) -> Template {
        let mut name = String::new();
        permitted(of, text, &mut name);
        let parts = vec![Part::Text(name)];
        Template { of, parts }
    }

    /// The same with the parts filled in that these attributes know. Done once for a resource, because that may have a million attributes and as many records.
    pub fn settled_by(&self, attributes: &Attributes<'_>) -> Template {
        let parts = self.parts.iter().map(|part| match part {
            Part::Key(key) => match find(attributes, key) {
                Some(found) => {
                    let mut text = String::new();
                    permitted(self.of, &text_of(&found), &mut text);
                    Part::Text(text)
                }
                None => Part::Key(key.clone()),
            },
            Part::Text(text) => Part::Text(text.clone()),
        });
        let parts = parts.collect();
        Template { of: self.of, parts }
    }

    /// Whether no part is looked up.
    pub fn is_settled(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// Writes the name with the parts from these attributes. What AWS does not permit becomes `_`.
    pub fn write(&self, from: &Attributes<'_>, out: &mut String) {
        out.clear();
        let mut value = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Key(key) => match find(from, key) {
                    Some(found) => {
                        permitted(self.of, &text_of(&found), &mut value);
                        out.push_str(&value);
                    }
                    None => out.push_str(UNDEFINED),
                },
            }
        }
        cut(out);
        if out.is_empty() {
            out.push_str(UNDEFINED);
        }
    }
}

fn text_of(value: &AnyValue<'_>) -> String {
    let mut text = Vec::new();
    value_text::write_text(value, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// A name from a stranger, made fit for AWS.
pub(super) fn permitted(of: Name, text: &str, out: &mut String) {
    out.clear();
    let chars = text.chars().take(MAX_NAME_CHARS);
    out.extend(chars.map(|c| if of.permits(c) { c } else { '_' }));
}

fn cut(name: &mut String) {
    if let Some((end, _)) = name.char_indices().nth(MAX_NAME_CHARS) {
        name.truncate(end);
    }
}

fn find<'a>(attributes: &Attributes<'a>, key: &str) -> Option<AnyValue<'a>> {
    let given = |key: &str| attributes.get(key).filter(|value| !is_empty(value));
    given(key).or_else(|| {
        let (_, others) = ALIASES.iter().find(|(short, _)| *short == key)?;
        others.iter().find_map(|other| given(other))
    })
}

fn is_empty(value: &AnyValue<'_>) -> bool {
    matches!(value, AnyValue::Empty | AnyValue::Str(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::view::{Resource, View};
    use opentelemetry_proto::tonic::common::v1 as otlp;
    use prost::Message;

    fn resource(pairs: &[(&str, &str)]) -> Vec<u8> {
        let pair = |(key, value): &(&str, &str)| otlp::KeyValue {
            key: (*key).into(),
            value: Some(otlp::AnyValue {
                value: Some(otlp::any_value::Value::StringValue((*value).into())),
            }),
            ..otlp::KeyValue::default()
        };
        opentelemetry_proto::tonic::resource::v1::Resource {
            attributes: pairs.iter().map(pair).collect(),
            ..Default::default()
        }
        .encode_to_vec()
    }

    fn check(of: Name, template: &str, first: &[(&str, &str)], second: &[(&str, &str)], expect: &str) {
        let template = Template::parse(of, template).expect("right");
        let (first, second) = (resource(first), resource(second));
        let template = template.settled_by(&Resource::read(&first).attributes);
        let mut out = "left over".to_owned();
        template.write(&Resource::read(&second).attributes, &mut out);
        assert_eq!(out, expect);
    }

    #[test]
    fn parts_come_from_attributes() {
        let ecs = [
            ("aws.ecs.cluster.name", "east"),
            ("TaskId", "t1"),
            ("service.name", "api"),
        ];
        check(Name::Group, "/ecs/{ClusterName}/{TaskId}", &ecs, &[], "/ecs/east/t1");
        check(Name::Stream, "{service}-{NodeName}", &ecs, &[], "api-undefined");
        check(Name::Stream, "{k}", &[("a", "1")], &[("k", "2")], "2");
        check(Name::Stream, "{k}", &[("k", "1")], &[("k", "2")], "1");
        check(Name::Stream, "{k}", &[("k", "")], &[("k", "2")], "2");
        check(Name::Group, "g-{k}", &[("k", "a b:c*é")], &[], "g-a_b_c__");
        check(Name::Stream, "{k}", &[("k", "a b:c*é\n")], &[], "a b_c_é_");
        check(
            Name::Group,
            "{environment}",
            &[("deployment.environment", "prod")],
            &[],
            "prod",
        );
        let long = "é".repeat(600);
        check(Name::Stream, "{k}", &[("k", &long)], &[], &long[..1024]);
    }

    #[test]
    fn what_a_resource_knows_is_not_looked_up_again() {
        let first = resource(&[("a", "1"), ("long", &"x".repeat(100_000))]);
        let template = Template::parse(Name::Stream, "{a}{long}").expect("right");
        let settled = template.settled_by(&Resource::read(&first).attributes);
        assert!(settled.is_settled() && !template.is_settled());
        let held: usize = settled
            .parts
            .iter()
            .map(|part| match part {
                Part::Text(text) | Part::Key(text) => text.len(),
            })
            .sum();
        assert_eq!(held, 1 + MAX_NAME_CHARS);
        let half = Template::parse(Name::Stream, "{a}-{b}").expect("right");
        let half = half.settled_by(&Resource::read(&first).attributes);
        assert_eq!(
            half.parts,
            [Part::Text("1".into()), Part::Text("-".into()), Part::Key("b".into())]
        );
    }

    #[test]
    fn mistakes() {
        let check =
            |text: &str, expect: NameError| assert_eq!(Template::parse(Name::Group, text), Err(expect), "{text}");
        check("", NameError::Empty);
        check("a{b", NameError::Open(2));
        check("a{b{c}", NameError::Open(2));
        check("a}b", NameError::Closed(2));
        check("a{}", NameError::NoKey);
        check("a b", NameError::Character(' '));
        assert!(Template::parse(Name::Stream, "a b").is_ok());
        assert_eq!(Template::parse(Name::Stream, "[a]*"), Err(NameError::Character('*')));
    }
}
