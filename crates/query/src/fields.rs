//! Names under which one fact may have been sent, and how to read it under any of them.
//!
//! Semantic conventions renamed much of HTTP, database and AI telemetry; services write either, people search for
//! either. A group lists the current name first.

use model::record::{Value, attribute};

/// Names that mean the same. Searching for one finds all.
const GROUPS: &[&[&str]] = &[
    &["http.request.method", "http.method"],
    &["http.response.status_code", "http.status_code"],
    &["url.full", "http.url", "url.path", "http.target"],
    &[
        "http.response.body.size",
        "http.response.size",
        "http.response_content_length",
    ],
    &["http.request.body.size", "http.request_content_length"],
    &["user_agent.original", "http.user_agent"],
    &["client.address", "http.client_ip"],
    &["server.address", "net.peer.name"],
    &["server.port", "net.peer.port"],
    &["db.query.text", "db.statement"],
    &["db.system.name", "db.system"],
    &["db.namespace", "db.name"],
    &["db.operation.name", "db.operation"],
    &["db.collection.name", "db.sql.table"],
    &["gen_ai.provider.name", "gen_ai.system"],
    &["gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"],
    &["gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"],
    &["deployment.environment.name", "deployment.environment"],
    &["exception.type", "exception.class"],
    &["exception.stacktrace", "exception.stack_trace", "exception.stack"],
    &["code.file.path", "code.filepath"],
    &["code.line.number", "code.lineno"],
    &["code.function.name", "code.function"],
];

/// The name under which a resource without `service.name` is listed, as the SDKs call it.
pub const UNKNOWN_SERVICE: &str = "unknown_service";

/// The service that a resource names.
pub fn service_name(resource: &[(String, Value)]) -> &str {
    match text(resource, "service.name") {
        "" => UNKNOWN_SERVICE,
        name => name,
    }
}

/// All names of the fact that `key` names, `key` itself first.
pub fn names(key: &str) -> impl Iterator<Item = &str> {
    let group = GROUPS.iter().copied().find(|group| group.contains(&key)).unwrap_or(&[]);
    std::iter::once(key).chain(group.iter().copied().filter(move |&name| name != key))
}

/// The value of an attribute under any of its names.
pub fn get<'a>(attributes: &'a [(String, Value)], key: &str) -> Option<&'a Value> {
    attribute(attributes, key).or_else(|| names(key).skip(1).find_map(|name| attribute(attributes, name)))
}

/// The attribute's text; other types and absence read as nothing.
pub fn text<'a>(attributes: &'a [(String, Value)], key: &str) -> &'a str {
    get(attributes, key).and_then(Value::as_str).unwrap_or_default()
}

/// The attribute as a count; text that is a number counts, negative numbers do not.
pub fn count(attributes: &[(String, Value)], key: &str) -> Option<u64> {
    match get(attributes, key)? {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::Double(number) if number.fract() == 0.0 && (0.0..9e15).contains(number) => Some(*number as u64),
        Value::Str(text) => text.parse().ok(),
        _ => None,
    }
}

/// The attribute as a finite amount.
pub fn amount(attributes: &[(String, Value)], key: &str) -> Option<f64> {
    let amount = match get(attributes, key)? {
        Value::Int(number) => *number as f64,
        Value::Double(number) => *number,
        Value::Str(text) => text.parse().ok()?,
        _ => return None,
    };
    amount.is_finite().then_some(amount)
}

/// A log's field, which may be an attribute or lie in a body of nested objects (`error.type`, or `error: {type}`).
pub fn of_log<'a>(attributes: &'a [(String, Value)], body: &'a Value, key: &str) -> Option<&'a Value> {
    get(attributes, key).or_else(|| names(key).find_map(|name| nested(body, name)))
}

fn nested<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let Value::Map(entries) = value else { return None };
    attribute(entries, path).or_else(|| {
        let (head, tail) = path.split_once('.')?;
        nested(attribute(entries, head)?, tail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::attributes;

    #[test]
    fn old_and_new_names_find_each_other() {
        assert_eq!(
            names("http.status_code").collect::<Vec<_>>(),
            ["http.status_code", "http.response.status_code"]
        );
        assert_eq!(names("mine").collect::<Vec<_>>(), ["mine"]);
        let old = attributes(&[("db.statement", "SELECT 1")]);
        assert_eq!(text(&old, "db.query.text"), "SELECT 1");
    }

    #[test]
    fn no_name_is_in_two_groups() {
        let mut all: Vec<&str> = GROUPS.concat();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn a_log_field_is_found_in_nested_bodies() {
        let body = Value::Map(vec![("error".into(), Value::Map(attributes(&[("type", "Timeout")])))]);
        assert_eq!(of_log(&[], &body, "error.type"), Some(&Value::Str("Timeout".into())));
        assert_eq!(of_log(&[], &body, "error.code"), None);
    }
}
