//! Who may send to a door, and who we are to a backend: the collector's authenticators, for receivers and exporters that name one.
//!
//! Settings are read once for each component that names the authenticator; what it needs at run time is made of them when that component opens, so
//! that a file which cannot be read stops the start, and one that changes later is read again.

pub mod basic;
pub mod bearer;
pub mod headers_setter;
mod held;

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

pub use held::FileError;

/// `auth:` of a receiver or an exporter.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// The extension `basicauth`, `bearertokenauth` or, for exporters, `headers_setter`, with its name if it has one; `service.extensions` must list it.
    pub authenticator: String,
    #[serde(skip)]
    settings: Option<Settings>,
}

impl Auth {
    /// The same with what the extension says.
    #[must_use]
    pub fn with(mut self, settings: Settings) -> Auth {
        self.settings = Some(settings);
        self
    }

    /// For an exporter: reads files.
    pub fn client(&self) -> Result<Client, AuthError> {
        match self.settings()? {
            Settings::Basic(config) => config.client().map(Client::Basic),
            Settings::Bearer(config) => config.client().map(Client::Bearer),
            Settings::Headers(config) => Ok(Client::Headers(config.client()?)),
        }
    }

    /// For a receiver: reads files.
    pub fn server(&self) -> Result<Server, AuthError> {
        let of = match self.settings()? {
            Settings::Basic(config) => Of::Basic(config.server()?),
            Settings::Bearer(config) => Of::Bearer(config.server()?),
            Settings::Headers(_) => return Err(AuthError::Settings(ASKS_NOBODY.to_owned())),
        };
        Ok(Server(Arc::new(of)))
    }

    /// Nobody is let in because the name was not looked up.
    fn settings(&self) -> Result<&Settings, AuthError> {
        self.settings
            .as_ref()
            .ok_or_else(|| AuthError::Unknown(self.authenticator.clone()))
    }
}

/// Why `headers_setter` is none of a receiver's.
const ASKS_NOBODY: &str = "it sets headers of requests that go out, and asks nobody who sends";

/// The settings of one authenticator.
#[derive(Debug, Clone, PartialEq)]
pub enum Settings {
    Basic(basic::Config),
    Bearer(bearer::Config),
    Headers(headers_setter::Config),
}

/// What somebody wants of an authenticator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// An exporter: tell the backend who we are.
    Client,
    /// A receiver: find out who sends.
    Server,
}

impl Settings {
    /// What an extension of this name is read as.
    pub fn is_kind(kind: &str) -> bool {
        basic::NAMES.contains(&kind) || bearer::NAMES.contains(&kind) || headers_setter::NAMES.contains(&kind)
    }

    /// What is wrong with it. Files are not looked at.
    pub fn check(&self) -> Result<(), Mistake> {
        match self {
            Settings::Basic(config) => config.check(),
            Settings::Bearer(config) => config.check(),
            Settings::Headers(config) => config.check(),
        }
    }

    /// Whether it can do what is wanted, or what it lacks.
    pub fn serves(&self, side: Side) -> Result<(), &'static str> {
        match (self, side) {
            (Settings::Basic(config), Side::Client) if config.client_auth.is_none() => {
                Err("it has no `client_auth`, and so no name and password to send")
            }
            (Settings::Basic(config), Side::Server) if config.htpasswd.is_none() => {
                Err("it has no `htpasswd`, and so nobody whom it would let in")
            }
            (Settings::Headers(_), Side::Server) => Err(ASKS_NOBODY),
            _ => Ok(()),
        }
    }
}

/// What is wrong with settings, and at which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub key: &'static [&'static str],
    pub why: String,
}

impl Mistake {
    fn at(key: &'static [&'static str], why: impl Into<String>) -> Mistake {
        Mistake { key, why: why.into() }
    }
}

/// Why an authenticator cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("the authenticator `{0}` was not looked up")]
    Unknown(String),
    #[error("auth: {0}")]
    File(#[from] FileError),
    #[error("auth: {0}")]
    Settings(String),
}

impl From<Mistake> for AuthError {
    fn from(mistake: Mistake) -> AuthError {
        AuthError::Settings(format!("{}: {}", mistake.key.join("."), mistake.why))
    }
}

/// Says who we are, or for whom we send.
#[derive(Debug)]
pub enum Client {
    Basic(basic::Client),
    Bearer(bearer::Client),
    Headers(headers_setter::Client),
}

impl Client {
    /// The request headers that it passes on, in lower case.
    pub fn metadata_keys(&self) -> Vec<Arc<str>> {
        match self {
            Client::Basic(_) | Client::Bearer(_) => Vec::new(),
            Client::Headers(client) => client.metadata_keys(),
        }
    }

    /// Puts it into the headers of a request, in place of what is there under that name. `metadata` is what the requests carried whose data is sent.
    pub fn prepare(&self, headers: &mut HeaderMap, metadata: &[(Arc<str>, Arc<str>)]) {
        let (name, mut value) = match self {
            Client::Basic(client) => (http::header::AUTHORIZATION, client.value()),
            Client::Bearer(client) => client.header(),
            Client::Headers(client) => return client.apply(headers, metadata),
        };
        // Neither HTTP/2's table of headers nor a log line is to keep it.
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}

/// Finds out whether a request may be taken. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Server(Arc<Of>);

#[derive(Debug)]
enum Of {
    Basic(basic::Server),
    Bearer(bearer::Server),
}

impl Server {
    /// Whether the request's headers name somebody who may send. Costly checks run on another thread.
    pub async fn admits(&self, headers: &HeaderMap) -> bool {
        match &*self.0 {
            Of::Basic(server) => server.admits(headers).await,
            Of::Bearer(server) => server.admits(headers),
        }
    }

    /// What `WWW-Authenticate` says to who was not let in; nothing where the scheme has no name there.
    pub fn challenge(&self) -> Option<HeaderValue> {
        match &*self.0 {
            Of::Basic(_) => Some(basic::CHALLENGE),
            Of::Bearer(server) => server.challenge(),
        }
    }
}

/// The only header of this name. Of two, nobody could say which one was meant.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// What stands behind the scheme in a header such as `Basic dXNlcjpwYXNz`.
fn after_scheme<'v>(value: &'v str, scheme: &str) -> Option<&'v str> {
    let (word, rest) = value.trim_start().split_once(' ')?;
    word.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

/// A text that nothing prints.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests;
