//! The schema's groups, and how flat field names fold into them (SPEC L3).

use std::borrow::Cow;

/// Groups in the order in which a line has them, and the members that a flat name such as `request_method` may mean.
pub(crate) const GROUPS: &[(&str, &[&str])] = &[
    ("request", &["method", "path", "size", "duration", "user_agent", "ip"]),
    ("response", &["status", "size", "content_type"]),
    ("error", &["type", "code", "message", "category"]),
    ("user", &["id", "segment"]),
    ("session", &["id", "duration"]),
    ("workflow", &["id", "type", "status"]),
    ("operation", &["name", "result", "duration"]),
    ("exception", &["class", "message", "stack_trace", "file", "line"]),
];

/// Names with one meaning and several spellings.
const ALIASES: &[(&str, &str)] = &[
    ("error", "error.message"),
    ("err", "error.message"),
    ("exception", "exception.message"),
    ("exception.type", "exception.class"),
    ("exception_type", "exception.class"),
    ("exception.stacktrace", "exception.stack_trace"),
    ("exception_stacktrace", "exception.stack_trace"),
    ("operation", "operation.name"),
    ("user", "user.id"),
    ("session", "session.id"),
    ("workflow", "workflow.id"),
    ("request", "request.path"),
    ("response", "response.status"),
];

/// Names of the fields that every line has; an application's field of the same name moves into `extra`.
const RESERVED: &[&str] = &[
    "@timestamp",
    "@level",
    "@message",
    "@logger",
    "@thread",
    "timestamp",
    "level",
    "message",
    "service",
    "environment",
    "tracking_id",
    "traceId",
    "file",
    "source",
    "tracing",
    "extra",
    "fields_removed",
];

/// The schema's name for a field: `group.member` for what belongs to a group, the name itself otherwise.
pub(crate) fn canonical(name: &str) -> Cow<'_, str> {
    if let Some((_, path)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
        return Cow::Borrowed(path);
    }
    if let Some((group, member)) = name.split_once('_') {
        let known = GROUPS
            .iter()
            .any(|(g, members)| *g == group && members.contains(&member));
        if known {
            return Cow::Owned(format!("{group}.{member}"));
        }
    }
    let top = name.split('.').next().unwrap_or(name);
    if RESERVED.contains(&top) {
        return Cow::Owned(format!("extra.{name}"));
    }
    Cow::Borrowed(name)
}

/// Splits a canonical name into the group that it nests in and the name there. `None`: it stays at the top.
pub(crate) fn group_of(canonical: &str) -> Option<(usize, &str)> {
    let (group, member) = canonical.split_once('.')?;
    let at = GROUPS
        .iter()
        .position(|(g, _)| *g == group)
        .or((group == "extra").then_some(GROUPS.len()))?;
    (!member.is_empty()).then_some((at, member))
}

/// The name of a group by its position; one past the schema's is `extra`.
pub(crate) fn group_name(at: usize) -> &'static str {
    GROUPS.get(at).map_or("extra", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_names_fold() {
        for (name, expect) in [
            ("request_method", "request.method"),
            ("request_user_agent", "request.user_agent"),
            ("request.method", "request.method"),
            ("response_content_type", "response.content_type"),
            ("user_id", "user.id"),
            ("operation", "operation.name"),
            ("operation_result", "operation.result"),
            ("exception.stacktrace", "exception.stack_trace"),
            ("error", "error.message"),
            ("error_type", "error.type"),
            // Extras stay as they are.
            ("user_count", "user_count"),
            ("gen_ai.usage.input_tokens", "gen_ai.usage.input_tokens"),
            ("workflow.node_count", "workflow.node_count"),
            ("duration", "duration"),
            ("requests", "requests"),
            // Names that every line has already.
            ("level", "extra.level"),
            ("source.module", "extra.source.module"),
        ] {
            assert_eq!(canonical(name), expect, "{name}");
        }
    }

    #[test]
    fn groups_nest() {
        assert_eq!(group_of("request.method"), Some((0, "method")));
        assert_eq!(group_of("extra.level"), Some((GROUPS.len(), "level")));
        assert_eq!(group_of("gen_ai.usage"), None);
        assert_eq!(group_of("request."), None);
        assert_eq!(group_of("plain"), None);
    }
}
