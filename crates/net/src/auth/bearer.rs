//! A token in a header, as the collector's extension `bearertokenauth` has it.

use std::path::PathBuf;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;

use super::held::Held;
use super::{AuthError, Mistake, Secret, after_scheme, only};
use crate::access::Token;

/// What the extension is called.
pub const NAMES: [&str; 2] = ["bearertokenauth", "bearer_token_auth"];

/// Tokens in a file or a list; each request is compared with all of them.
const MAX_TOKENS: usize = 1000;

/// A token: exporters that name this extension under `auth` send it, receivers ask for it.
///
/// ```yaml
/// extensions:
///   bearertokenauth:
///     scheme: Bearer
///     filename: /var/run/secrets/token
/// receivers:
///   otlp:
///     protocols: { http: { auth: { authenticator: bearertokenauth } } }
/// exporters:
///   otlp:
///     endpoint: backend:4317
///     auth: { authenticator: bearertokenauth }
/// ```
///
/// Receivers refuse a request without a valid token with 401, or UNAUTHENTICATED over gRPC, before they read its body.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The header that has the token. Default `Authorization`.
    pub header: String,
    /// The word before the token; an empty text for none. Default `Bearer`.
    pub scheme: String,
    /// The token. Default: none; then `tokens` or `filename` is needed.
    pub token: Secret,
    /// Several: a receiver takes each of them, an exporter sends the first. Default: none.
    pub tokens: Vec<Secret>,
    /// A file with the token, or with several on a line each; it is read again when it changes and takes the place of `token` and `tokens`. Default:
    /// none.
    pub filename: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            header: "Authorization".to_owned(),
            scheme: "Bearer".to_owned(),
            token: Secret::default(),
            tokens: Vec::new(),
            filename: None,
        }
    }
}

impl Config {
    /// What is wrong with it. Files are not looked at.
    pub fn check(&self) -> Result<(), Mistake> {
        self.name()?;
        if self.scheme.contains(|c: char| !c.is_ascii_graphic()) {
            return Err(Mistake::at(&["scheme"], "is not one word"));
        }
        match (self.file(), self.listed().is_empty()) {
            (None, true) => Err(Mistake::at(&[], "one of `token`, `tokens` and `filename` is needed")),
            (None, false) => self.values(&self.listed()).map(drop),
            (Some(_), _) => Ok(()),
        }
    }

    fn file(&self) -> Option<&PathBuf> {
        self.filename.as_ref().filter(|path| !path.as_os_str().is_empty())
    }

    fn listed(&self) -> Vec<Token> {
        let all = [&self.token].into_iter().chain(&self.tokens);
        all.filter_map(|token| Token::new(token.text())).collect()
    }

    fn name(&self) -> Result<HeaderName, Mistake> {
        let bad = |_| Mistake::at(&["header"], format!("`{}` is not the name of a header", self.header));
        HeaderName::from_bytes(self.header.as_bytes()).map_err(bad)
    }

    /// The header's value for each token.
    fn values(&self, tokens: &[Token]) -> Result<Vec<HeaderValue>, Mistake> {
        let bad = |_| Mistake::at(&["token"], "a token has characters that no header may have");
        tokens
            .iter()
            .map(|token| {
                let before = if self.scheme.is_empty() { "" } else { " " };
                HeaderValue::try_from(format!("{}{before}{}", self.scheme, token.text())).map_err(bad)
            })
            .collect()
    }

    pub(super) fn client(&self) -> Result<Client, AuthError> {
        let first = |config: &Config, tokens: &[Token]| {
            let values = config.values(tokens).map_err(|mistake| mistake.why)?;
            values.into_iter().next().ok_or_else(|| "it has no token".to_owned())
        };
        let value = match self.file() {
            Some(path) => {
                let config = self.clone();
                Held::file(path, move |text| first(&config, &in_lines(text)?))?
            }
            None => Held::fixed(first(self, &self.listed()).map_err(AuthError::Settings)?),
        };
        Ok(Client {
            name: self.name()?,
            value,
        })
    }

    pub(super) fn server(&self) -> Result<Server, AuthError> {
        let tokens = match self.file() {
            Some(path) => Held::file(path, in_lines)?,
            None => Held::fixed(self.listed()),
        };
        Ok(Server {
            name: self.name()?,
            scheme: self.scheme.clone(),
            tokens,
        })
    }
}

/// A file's tokens. One that says nothing would lock everybody out, and is rather half written.
fn in_lines(text: &str) -> Result<Vec<Token>, String> {
    let tokens: Vec<Token> = text.lines().filter_map(Token::new).take(MAX_TOKENS + 1).collect();
    match tokens.len() {
        0 => Err("it has no token".to_owned()),
        count if count > MAX_TOKENS => Err(format!("it has more than {MAX_TOKENS} tokens")),
        _ => Ok(tokens),
    }
}

/// Sends a token.
#[derive(Debug)]
pub struct Client {
    name: HeaderName,
    value: Held<HeaderValue>,
}

impl Client {
    pub(super) fn header(&self) -> (HeaderName, HeaderValue) {
        (self.name.clone(), HeaderValue::clone(&self.value.current()))
    }
}

/// Asks for a token.
#[derive(Debug)]
pub struct Server {
    name: HeaderName,
    scheme: String,
    tokens: Held<Vec<Token>>,
}

impl Server {
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let given = only(headers, &self.name).and_then(|value| match self.scheme.as_str() {
            "" => Some(value.trim()),
            scheme => after_scheme(value, scheme),
        });
        // Every token is compared, so that the time does not tell which one came close.
        let among = |given| {
            let tokens = self.tokens.current();
            tokens.iter().fold(false, |ok, token| ok | token.matches(given))
        };
        given.is_some_and(among)
    }

    pub(super) fn challenge(&self) -> Option<HeaderValue> {
        match self.name == header::AUTHORIZATION && !self.scheme.is_empty() {
            true => HeaderValue::try_from(&self.scheme).ok(),
            false => None,
        }
    }
}
