//! Headers of requests that go out, as the collector's extension `headers_setter` has it: given, or passed on from the requests that came in.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;

use super::{Mistake, Secret};

/// What the extension is called.
pub const NAMES: [&str; 1] = ["headers_setter"];

/// Steps of one extension; a request carries few headers.
const MAX_STEPS: usize = 64;

/// What says how a body is to be read and where it ends is not for others to say.
const OF_THE_PROTOCOL: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Sets headers of the requests of exporters that name this extension under `auth`, such as the tenant of Mimir, Loki and Tempo.
///
/// ```yaml
/// extensions:
///   headers_setter:
///     headers:
///       - { key: X-Scope-OrgID, from_context: x-tenant, default_value: nobody, action: upsert }
/// receivers:
///   otlp:
///     protocols: { http: { include_metadata: true } }
/// processors:
///   batch: { metadata_keys: [x-tenant] }
/// exporters:
///   otlphttp:
///     endpoint: https://backend/otlp
///     auth: { authenticator: headers_setter }
/// ```
///
/// A request that goes out has one value of each header that is passed on: those of different values are never joined. A `batch` processor passes on only
/// its `metadata_keys`; without one everything that is named here is. Where a header came several times, all its values are passed on; where it did not
/// come and there is no default, none is set.
///
/// With a `from_context` the credentials may be those of whoever sent the data. So what a backend refuses because of them (401, 403, `UNAUTHENTICATED`,
/// `PERMISSION_DENIED`) is then refused for good: counted, and kept where there is a `dead_letter`. A refusal of our own credentials is waited for.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is done, in this order. At least one, at most 64.
    pub headers: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    /// The header of the request that goes out. Needed.
    pub key: String,
    /// `insert` sets it where it is missing, `update` where it is there, `upsert` (default) in both cases; `delete` removes it.
    pub action: Action,
    /// What to set. Default: none; then `from_context` is needed.
    pub value: Option<Secret>,
    /// Or: which header of the requests that came in. Their receiver has to have `include_metadata`. Default: none.
    pub from_context: Option<String>,
    /// With `from_context`: what to set where that header did not come. Default: none.
    pub default_value: Option<Secret>,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Insert,
    Update,
    #[default]
    Upsert,
    Delete,
}

impl Config {
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), Mistake> {
        self.client().map(drop)
    }

    pub(super) fn client(&self) -> Result<Client, Mistake> {
        let wrong = |why: String| Mistake::at(&["headers"], why);
        match self.headers.len() {
            0 => Err(wrong("`headers` is empty; nothing would be done".to_owned())),
            many if many > MAX_STEPS => Err(wrong(format!("{many} steps are more than {MAX_STEPS}"))),
            _ => {
                let steps = self.headers.iter().map(Step::read);
                let steps: Result<_, String> = steps.collect();
                Ok(Client {
                    steps: steps.map_err(wrong)?,
                })
            }
        }
    }
}

impl Step {
    fn read(&self) -> Result<Done, String> {
        let name = HeaderName::from_bytes(self.key.as_bytes())
            .map_err(|_| format!("`key: {}` is not the name of a header", self.key))?;
        if OF_THE_PROTOCOL.contains(&name) {
            return Err(format!("`{name}` is set by the protocol"));
        }
        let value = |secret: &Secret| {
            let mut value = HeaderValue::from_str(secret.text())
                .map_err(|_| format!("`{name}`: the value has characters that no header may have"))?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        };
        let default = self.default_value.as_ref().map(value).transpose()?;
        let from = match (&self.value, &self.from_context, self.action) {
            (None, None, Action::Delete) if default.is_none() => From::Given(HeaderValue::from_static("")),
            (_, _, Action::Delete) => return Err(format!("`{name}`: `delete` takes no value")),
            (Some(given), None, _) if default.is_none() => From::Given(value(given)?),
            (None, Some(context), _) if !context.is_empty() => From::Context {
                key: context.to_ascii_lowercase().into(),
                default,
            },
            (Some(_), None, _) => return Err(format!("`{name}`: `default_value` goes with `from_context`")),
            _ => return Err(format!("`{name}`: exactly one of `value` and `from_context` is needed")),
        };
        Ok(Done {
            name: name.clone(),
            action: self.action,
            from,
        })
    }
}

/// Sets the headers of requests.
pub struct Client {
    steps: Vec<Done>,
}

struct Done {
    name: HeaderName,
    action: Action,
    from: From,
}

enum From {
    Given(HeaderValue),
    Context {
        key: Arc<str>,
        default: Option<HeaderValue>,
    },
}

/// What is set may be a secret.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.steps.iter().map(|step| (&step.name, step.action)))
            .finish()
    }
}

impl Client {
    /// The headers of requests that come in which it passes on.
    pub(super) fn metadata_keys(&self) -> Vec<Arc<str>> {
        let passed = |step: &Done| match &step.from {
            From::Context { key, .. } => Some(Arc::clone(key)),
            From::Given(_) => None,
        };
        self.steps.iter().filter_map(passed).collect()
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap, metadata: &[(Arc<str>, Arc<str>)]) {
        for step in &self.steps {
            let is_there = headers.contains_key(&step.name);
            match step.action {
                Action::Insert if is_there => continue,
                Action::Update if !is_there => continue,
                Action::Delete => {
                    headers.remove(&step.name);
                    continue;
                }
                Action::Insert | Action::Update | Action::Upsert => {}
            }
            match &step.from {
                From::Given(value) => drop(headers.insert(&step.name, value.clone())),
                From::Context { key, default } => {
                    let came = metadata.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
                    // It came in a header, so it goes into one.
                    let mut came = came.filter_map(|(_, value)| HeaderValue::from_str(value).ok());
                    let Some(mut first) = came.next().or_else(|| default.clone()) else {
                        continue;
                    };
                    first.set_sensitive(true);
                    headers.insert(&step.name, first);
                    for mut more in came {
                        more.set_sensitive(true);
                        headers.append(&step.name, more);
                    }
                }
            }
        }
    }
}
