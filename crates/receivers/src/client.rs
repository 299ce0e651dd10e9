//! Why: receivers that ask (scraping, checking, discovering) ask in one way: the settings of a client, its credentials read when they are needed,
//! redirects followed, and whatever comes back bounded.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use model::base64;
use net::ClientTls;
use net::dial::{Answer, Client, DialConfigError, DialError, Reading, Target, TlsSetup};
use serde::{Deserialize, Deserializer};

use crate::cookies::Jar;

/// Redirects that are followed; the tenth is a circle.
const MAX_REDIRECTS: usize = 10;

/// Bytes of a file with a credential. Tokens are a few kilobytes.
const MAX_CREDENTIAL_BYTES: u64 = 64 << 10;

/// A credential; shown to nobody.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret)
    }
}

/// Where a credential comes from. A file is read at each request, because others write it anew when they like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    Given(Secret),
    File(PathBuf),
}

impl Credential {
    fn read(&self) -> Result<String, FetchError> {
        let path = match self {
            Credential::Given(secret) => return Ok(secret.expose().to_owned()),
            Credential::File(path) => path,
        };
        let failed = |why: String| FetchError::Credential {
            path: path.clone(),
            why,
        };
        let file = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
        if file.len() > MAX_CREDENTIAL_BYTES {
            return Err(failed(format!("it is larger than {MAX_CREDENTIAL_BYTES} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        Ok(text.trim().to_owned())
    }
}

/// Who we say we are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Login {
    #[default]
    Nobody,
    Basic {
        user: Credential,
        password: Option<Credential>,
    },
    /// `Bearer`, as a rule.
    Scheme {
        scheme: String,
        credential: Option<Credential>,
    },
}

impl Login {
    fn header(&self) -> Result<Option<HeaderValue>, FetchError> {
        let text = match self {
            Login::Nobody => return Ok(None),
            Login::Basic { user, password } => {
                let password = password.as_ref().map(Credential::read).transpose()?;
                let both = format!("{}:{}", user.read()?, password.unwrap_or_default());
                format!("Basic {}", base64::encode(both.as_bytes()))
            }
            Login::Scheme { scheme, credential } => {
                let credential = credential.as_ref().map(Credential::read).transpose()?;
                format!("{scheme} {}", credential.unwrap_or_default())
            }
        };
        let mut value = HeaderValue::from_str(text.trim()).map_err(|_| FetchError::BadCredential)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{0} is not a URL that can be asked: {1}")]
    Url(String, String),
    #[error("tls: {0}")]
    Tls(#[from] DialConfigError),
    #[error("{0}")]
    Dial(#[from] DialError),
    #[error("cannot read the credential in {}: {why}", path.display())]
    Credential { path: PathBuf, why: String },
    #[error("the credential has characters that a header cannot have")]
    BadCredential,
    #[error("more than {MAX_REDIRECTS} redirects, the last one to {0}")]
    Redirects(String),
}

/// How requests are made; shared by all that one part of the configuration asks.
#[derive(Clone, Default)]
pub(crate) struct Asking {
    pub(crate) tls: Option<Arc<TlsSetup>>,
    pub(crate) login: Login,
    pub(crate) headers: HeaderMap,
    pub(crate) follows_redirects: bool,
}

impl Asking {
    /// Reads certificates.
    pub(crate) fn new(tls: &ClientTls, login: Login, headers: HeaderMap) -> Result<Asking, DialConfigError> {
        // A machine without trusted certificates may still ask over plain HTTP; what asks over TLS hears it then.
        let setup = match TlsSetup::read(tls, false) {
            Ok(setup) => Some(Arc::new(setup)),
            Err(DialConfigError::NoTrust) => None,
            Err(error) => return Err(error),
        };
        Ok(Asking {
            tls: setup,
            login,
            headers,
            follows_redirects: true,
        })
    }
}

/// One URL that is asked again and again, on connections that are kept.
pub(crate) struct Asked {
    asking: Arc<Asking>,
    url: String,
    client: Client,
    /// What its answers set, where that is kept.
    jar: Option<Jar>,
}

impl Asked {
    /// Whether a text is a URL that can be asked.
    pub(crate) fn check(url: &str) -> Result<(), FetchError> {
        let (_, _, _) = parts(url)?;
        uri(url).map(drop)
    }

    /// Connects with the first request.
    pub(crate) fn new(asking: Arc<Asking>, url: &str) -> Result<Asked, FetchError> {
        let client = client(&asking, url)?;
        let _: Uri = uri(url)?;
        Ok(Asked {
            asking,
            url: url.to_owned(),
            client,
            jar: None,
        })
    }

    /// Keeps cookies from one request to the next.
    pub(crate) fn with_cookies(self) -> Asked {
        Asked {
            jar: Some(Jar::default()),
            ..self
        }
    }

    /// One request with the headers of the settings and `more`, and its answer, whatever that says. Dropping the future gives the request up.
    pub(crate) async fn ask(
        &self,
        method: &Method,
        more: &HeaderMap,
        body: Bytes,
        mut reading: Reading<'_>,
    ) -> Result<Answer, FetchError> {
        let mut headers = self.asking.headers.clone();
        for (name, value) in more {
            headers.entry(name).or_insert(value.clone());
        }
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!(
            "trackline/",
            env!("CARGO_PKG_VERSION")
        )));
        if let Some(login) = self.asking.login.header()? {
            headers.insert(AUTHORIZATION, login);
        }
        let mut elsewhere = None;
        let (mut url, mut method, mut body) = (self.url.clone(), method.clone(), body);
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri(&url)?;
            *request.headers_mut() = headers.clone();
            if let Some(jar) = &self.jar {
                let to = request.uri().clone();
                jar.add(&to, request.headers_mut());
            }
            let answer = elsewhere
                .as_ref()
                .unwrap_or(&self.client)
                .send_reading(request, reborrow(&mut reading))
                .await?;
            if let Some(jar) = &self.jar {
                jar.keep(&uri(&url)?, &answer.headers);
            }
            let Some(next) = self.redirect(&answer, &url) else {
                return Ok(answer);
            };
            // What every client does (RFC 9110, 15.4): the first three become a GET, the last two are repeated as they were.
            if !matches!(answer.status.as_u16(), 307 | 308) && method != Method::HEAD {
                method = Method::GET;
                body = Bytes::new();
                // What was said of the body is not true of none.
                headers.remove(CONTENT_ENCODING);
                headers.remove(CONTENT_TYPE);
            }
            if authority(&next) != authority(&url) {
                // Any of the configured headers may be a credential, and none of them is meant for another host.
                for name in self.asking.headers.keys().chain([&AUTHORIZATION, &HOST]) {
                    headers.remove(name);
                }
            }
            elsewhere = Some(client(&self.asking, &next)?);
            url = next;
        }
        Err(FetchError::Redirects(url))
    }

    /// Where an answer sends us, if it does and we are to go.
    fn redirect(&self, answer: &Answer, from: &str) -> Option<String> {
        if !self.asking.follows_redirects || !matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        resolve(from, answer.headers.get(LOCATION)?.to_str().ok()?)
    }
}

/// The borrow of a reading, for one request of several.
fn reborrow<'a>(reading: &'a mut Reading<'_>) -> Reading<'a> {
    match reading {
        Reading::Leave => Reading::Leave,
        Reading::Keep { limit_bytes, room } => Reading::Keep {
            limit_bytes: *limit_bytes,
            room: &mut **room,
        },
    }
}

fn uri(url: &str) -> Result<Uri, FetchError> {
    url.parse()
        .map_err(|error: http::uri::InvalidUri| FetchError::Url(url.to_owned(), error.to_string()))
}

/// Whether it is TLS, the host, the port.
fn parts(url: &str) -> Result<(bool, String, u16), FetchError> {
    let wrong = |why: String| FetchError::Url(url.to_owned(), why);
    let target = Target::parse(url.split(['?', '#']).next().unwrap_or_default()).map_err(wrong)?;
    let Some(secure) = target.https else {
        return Err(wrong("it does not begin with http:// or https://".to_owned()));
    };
    let port = target.port.unwrap_or(if secure { 443 } else { 80 });
    Ok((secure, target.host, port))
}

fn client(asking: &Asking, url: &str) -> Result<Client, FetchError> {
    let (secure, host, port) = parts(url)?;
    let tls = match (secure, &asking.tls) {
        (false, _) => None,
        (true, None) => return Err(DialConfigError::NoTrust.into()),
        (true, tls) => tls.as_deref(),
    };
    Ok(Client::with(&host, port, tls, false)?)
}

/// `scheme://host:port`.
fn authority(url: &str) -> &str {
    let from = url.find("://").map_or(0, |at| at + 3);
    let end = url[from..].find(['/', '?', '#']).map_or(url.len(), |at| from + at);
    &url[..end]
}

/// A reference relative to a URL (RFC 3986, 5), as far as servers send them.
fn resolve(base: &str, reference: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    if reference.starts_with("http://") || reference.starts_with("https://") {
        return Some(reference.to_owned());
    }
    if reference.contains("://") {
        return None;
    }
    let authority = authority(base);
    if let Some(rest) = reference.strip_prefix("//") {
        let (scheme, _) = base.split_once("://")?;
        return Some(format!("{scheme}://{rest}"));
    }
    if reference.starts_with('/') {
        return Some(format!("{authority}{reference}"));
    }
    let path = base[authority.len()..].split('?').next().unwrap_or_default();
    if reference.starts_with('?') || reference.is_empty() {
        return Some(format!("{authority}{path}{reference}"));
    }
    let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
    Some(format!("{authority}{folder}{reference}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_redirect_leads() {
        let check = |base: &str, reference: &str, expect: Option<&str>| {
            assert_eq!(resolve(base, reference).as_deref(), expect, "{base} {reference}");
        };
        let base = "http://h:1/a/b?x=1";
        check(base, "/c?d", Some("http://h:1/c?d"));
        check(base, "c", Some("http://h:1/a/c"));
        check(base, "?y", Some("http://h:1/a/b?y"));
        check(base, "//other/p#frag", Some("http://other/p"));
        check(base, "https://o/", Some("https://o/"));
        check(base, "ftp://o/", None);
        check("http://h", "c", Some("http://h/c"));
    }

    #[test]
    fn credentials_are_shown_to_nobody() {
        let login = Login::Basic {
            user: Credential::Given("me".into()),
            password: Some(Credential::Given("hunter2".into())),
        };
        let header = login.header().expect("fine").expect("one");
        assert_eq!(header.as_bytes(), b"Basic bWU6aHVudGVyMg==");
        assert!(!format!("{login:?} {header:?}").contains("hunter2"));
        let broken = Login::Scheme {
            scheme: "Bearer".to_owned(),
            credential: Some(Credential::Given("s3cret\nx".into())),
        };
        let said = broken.header().expect_err("a line break").to_string();
        assert!(!said.contains("s3cret"), "{said}");
    }
}
