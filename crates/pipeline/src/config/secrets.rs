//! Why: messages and `trackline config` are pasted into tickets. Which values are credentials is decided once, here: by the key they stand under, by the
//! name of the variable they come from, or because they come from a file of their own.

use super::diagnostic::{Problem, Source};
use super::variables;
use super::yaml::{Node, Scalar, Value};

/// Keys whose values are credentials, in whole or in part; everything below `headers` is one too, and so is the file that `inline` stands for.
const SECRET_KEYS: [&str; 10] = [
    "authorization",
    "password",
    "token",
    "secret",
    "api_key",
    "apikey",
    "api-key",
    "credential",
    "private_key",
    "hmac_key",
];

/// Keys of a step of `headers_setter`, whose list stands under `headers`, that give nothing away.
const STEP_KEYS: [&str; 3] = ["key", "action", "from_context"];

/// Parts of the names of variables that hold credentials.
const SECRET_NAMES: [&str; 6] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL"];

/// Words of an `Authorization` header that give nothing away.
const SCHEMES: [&str; 3] = ["bearer", "basic", "token"];

/// A shorter text stands in too many other words to be taken out of messages.
const SHORTEST_BYTES: usize = 4;

/// What stands where a secret was.
pub const REDACTED: &str = "[redacted]";

/// Whether what stands under this key is a credential; `inherited` says that of the key above.
pub fn is_secret_key(key: &str, inherited: bool) -> bool {
    let key = key.to_ascii_lowercase();
    // `token_file` and the like name a place.
    let place = key.ends_with("_file") || key.ends_with("_path") || key.ends_with("_directory");
    !place
        && (inherited || key == "headers" || key == "inline" || SECRET_KEYS.iter().any(|secret| key.contains(secret)))
}

/// Whether a variable of this name holds a credential.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

/// Whether a secret value may be shown as it is written, because it is nothing but references and the words around them.
pub fn shows_nothing(scalar: &Scalar) -> bool {
    if !scalar.raw.contains("${") || variables::has_default(&scalar.raw) {
        return false;
    }
    let rest = variables::without_references(&scalar.raw);
    rest.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .all(|word| SCHEMES.contains(&word.to_ascii_lowercase().as_str()))
}

/// `scheme://user:password@host`.
pub fn has_password(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority
        .rsplit_once('@')
        .is_some_and(|(user, _)| user.split_once(':').is_some_and(|(_, password)| !password.is_empty()))
}

/// Marks what is secret in the tree, lists the texts that no message may show, and warns of the first literal one in a file that everyone may read.
pub fn mark(root: &mut Node, sources: &[Source], warnings: &mut Vec<Problem>) -> Vec<String> {
    let mut marking = Marking {
        sources,
        warnings,
        warned: vec![false; sources.len()],
        texts: Vec::new(),
    };
    marking.walk_document(root);
    let mut texts = marking.texts;
    // The longest first, so that no part of one stays when a shorter one was taken out of its middle.
    texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    texts.dedup();
    texts
}

struct Marking<'a> {
    sources: &'a [Source],
    warnings: &'a mut Vec<Problem>,
    warned: Vec<bool>,
    texts: Vec<String>,
}

impl Marking<'_> {
    /// The names of components are no keys: not all of what `bearertokenauth` is told is secret.
    fn walk_document(&mut self, root: &mut Node) {
        const KINDS: [&str; 5] = ["receivers", "processors", "exporters", "connectors", "extensions"];
        let Value::Map(entries) = &mut root.value else {
            return self.walk(root, false);
        };
        for entry in entries {
            match &mut entry.value.value {
                Value::Map(components) if KINDS.contains(&entry.key.as_str()) => {
                    components
                        .iter_mut()
                        .for_each(|component| self.walk(&mut component.value, false));
                }
                _ => self.walk(&mut entry.value, is_secret_key(&entry.key, false)),
            }
        }
    }

    fn walk(&mut self, node: &mut Node, secret: bool) {
        let span = node.span;
        match &mut node.value {
            Value::List(list) => list.iter_mut().for_each(|item| match &mut item.value {
                // A list of what to do with headers: only what they are set to may be secret.
                Value::Map(entries) if secret => {
                    for entry in entries {
                        let says_which = STEP_KEYS.contains(&entry.key.as_str());
                        self.walk(&mut entry.value, is_secret_key(&entry.key, !says_which));
                    }
                }
                _ => self.walk(item, secret),
            }),
            Value::Map(entries) => entries
                .iter_mut()
                .for_each(|entry| self.walk(&mut entry.value, is_secret_key(&entry.key, secret))),
            Value::Scalar(scalar) => {
                let secret = secret && !scalar.is_null() && scalar.as_bool().is_none() || has_password(&scalar.text);
                for part in std::mem::take(&mut scalar.parts) {
                    // A reference to a secret makes of the value one, whatever its key.
                    scalar.secret |= part.secret;
                    if part.secret || secret {
                        self.hide(&part.text);
                    }
                }
                if !secret {
                    return;
                }
                scalar.secret = true;
                let written = variables::without_references(&scalar.raw);
                if written == scalar.raw {
                    self.hide(&scalar.text);
                }
                let words = written.split_whitespace();
                for word in words.filter(|word| !SCHEMES.contains(&word.to_ascii_lowercase().as_str())) {
                    self.hide(word);
                }
                let open = self.sources.get(span.source).is_some_and(|source| source.open_to_all);
                if open && !scalar.raw.contains("${") && !std::mem::replace(&mut self.warned[span.source], true) {
                    let problem = Problem::new(span, "a secret in a file that every user of this machine may read");
                    self.warnings
                        .push(problem.hint("`chmod o-r` it, or write `${env:NAME}` or `${file:PATH}` here".to_owned()));
                }
            }
        }
    }

    fn hide(&mut self, text: &str) {
        if text.len() < SHORTEST_BYTES {
            return;
        }
        // As it is, and as serde quotes what it did not expect.
        let quoted = format!("{text:?}");
        let escaped = &quoted[1..quoted.len() - 1];
        if escaped != text {
            self.texts.push(escaped.to_owned());
        }
        self.texts.push(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_names_of_credentials() {
        for key in [
            "authorization",
            "X-API-Key",
            "bearer_token",
            "client_secret",
            "tokens",
            "headers",
            "inline",
        ] {
            assert!(is_secret_key(key, false), "{key}");
        }
        for key in ["key", "key_file", "bearer_token_file", "endpoint"] {
            assert!(!is_secret_key(key, false), "{key}");
        }
        assert!(is_secret_key("x-scope-orgid", true), "a header");
        assert!(is_secret_name("GRAFANA_CLOUD_API_KEY") && is_secret_name("db_password"));
        assert!(!is_secret_name("ENVIRONMENT"));
    }

    #[test]
    fn the_name_of_a_component_is_no_key() {
        let text = "extensions:\n  bearertokenauth: { filename: /run/sender, token: hunter2 }\nservice: { pipelines: { traces: {} } }\n";
        let config = crate::config::Config::load(vec![Source::new("test", text)], &|_| None).expect("a document");
        let shown = config.to_yaml();
        assert!(shown.contains("/run/sender") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn of_a_step_with_a_header_only_what_it_is_set_to_is_secret() {
        let text = "extensions:\n  headers_setter:\n    headers:\n      - { key: X-Scope-OrgID, action: insert, from_context: x-tenant, default_value: hunter1 }\n      - { key: Authorization, from_context: x-user, default_value: hunter2 }\n      - { key: X-More, value: hunter3 }\nservice: { pipelines: { traces: {} } }\n";
        let config = crate::config::Config::load(vec![Source::new("test", text)], &|_| None).expect("a document");
        let shown = config.to_yaml();
        let all = ["X-Scope-OrgID", "insert", "x-tenant", "Authorization", "X-More"];
        assert!(all.iter().all(|text| shown.contains(text)), "{shown}");
        assert!(!shown.contains("hunter"), "{shown}");
    }

    #[test]
    fn passwords_in_addresses() {
        assert!(has_password("postgres://reader:hunter2@db/workflows"));
        assert!(!has_password("postgres://reader@db/a:b@c"));
        assert!(!has_password("http://localhost:4318/v1/traces"));
    }
}
