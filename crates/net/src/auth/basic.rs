//! A name and a password in each request, as the collector's extension `basicauth` has it.
//!
//! Source: RFC 7617; the forms of passwords are those of Apache's `htpasswd`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use tokio::sync::Semaphore;

use super::held::Held;
use super::{AuthError, Mistake, Secret, after_scheme, only};
use crate::access;

/// What the extension is called.
pub const NAMES: [&str; 2] = ["basicauth", "basic_auth"];

/// What a client without credentials is told (RFC 7617 §2).
pub(super) const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"telemetry\", charset=\"UTF-8\"");

/// Users of one extension: as many as its file may hold.
const MAX_USERS: usize = 10_000;
/// The highest cost of a bcrypt hash: at 14 one check takes a second of a core.
const MAX_BCRYPT_COST: u32 = 14;
/// Hashes that are worked out at once; so wrong passwords take no more than this many cores.
const BCRYPT_AT_ONCE: usize = 2;
/// Whether the padding is there is nothing that senders agree on.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A name and a password: exporters that name this extension under `auth` send them, receivers ask for them.
///
/// ```yaml
/// extensions:
///   basicauth/server:
///     htpasswd: { file: /etc/trackline/htpasswd, inline: "${env:SENDER}:${env:SENDER_PASSWORD}" }
///   basicauth/client:
///     client_auth: { username: "${env:TENANT}", password: "${env:API_KEY}" }
/// receivers:
///   otlp:
///     protocols: { http: { auth: { authenticator: basicauth/server } } }
/// exporters:
///   otlphttp:
///     endpoint: https://backend/otlp
///     auth: { authenticator: basicauth/client }
/// ```
///
/// Receivers refuse a request without a valid password with 401, or UNAUTHENTICATED over gRPC, before they read its body. Passwords of `htpasswd` are plain,
/// bcrypt (`htpasswd -B`, up to a cost of 14), `{SHA}` or `{SSHA}`. A bcrypt password that was right is remembered by a hash, so that it costs once.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// For receivers: who may send. Default: none.
    pub htpasswd: Option<Htpasswd>,
    /// For exporters: who we are. Default: none. One extension has either this or `htpasswd`.
    pub client_auth: Option<ClientAuth>,
}

/// `htpasswd`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Htpasswd {
    /// A file with `name:password` on each line; it is read again when it changes. Default: none.
    pub file: Option<PathBuf>,
    /// The same as a text; it goes before the file. Default: none.
    pub inline: Secret,
}

/// `client_auth`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientAuth {
    /// The name. Default: that of `username_file`.
    pub username: String,
    /// A file with the name, read again when it changes; it goes before `username`. Default: none.
    pub username_file: Option<PathBuf>,
    /// The password. Default: that of `password_file`.
    pub password: Secret,
    /// A file with the password, read again when it changes; it goes before `password`. Default: none.
    pub password_file: Option<PathBuf>,
}

impl Config {
    /// What is wrong with it. Files are not looked at.
    pub fn check(&self) -> Result<(), Mistake> {
        match (&self.htpasswd, &self.client_auth) {
            (None, None) => {
                let why = "`htpasswd` says who may send, or `client_auth` who we are; one of them is needed";
                Err(Mistake::at(&[], why))
            }
            (Some(_), Some(_)) => {
                let why = "`client_auth` and `htpasswd` exclude each other; define two extensions, such as `basicauth/client`";
                Err(Mistake::at(&["client_auth"], why))
            }
            (Some(htpasswd), None) => {
                let known =
                    People::parse(htpasswd.inline.text()).map_err(|why| Mistake::at(&["htpasswd", "inline"], why))?;
                match (written(&htpasswd.file), known.passwords.is_empty()) {
                    (None, true) => Err(Mistake::at(
                        &["htpasswd"],
                        "nobody could send: write `file` or `inline`",
                    )),
                    _ => Ok(()),
                }
            }
            (None, Some(client)) => {
                if written(&client.username_file).is_none() {
                    name(&client.username).map_err(|why| Mistake::at(&["client_auth", "username"], why))?;
                }
                match written(&client.password_file).is_none() && client.password.text().is_empty() {
                    true => Err(Mistake::at(
                        &["client_auth", "password"],
                        "`password` or `password_file` is needed",
                    )),
                    false => Ok(()),
                }
            }
        }
    }

    pub(super) fn client(&self) -> Result<Client, AuthError> {
        let Some(client) = &self.client_auth else {
            return Err(Mistake::at(&["client_auth"], "is needed").into());
        };
        let username = match written(&client.username_file) {
            Some(path) => Held::file(path, |text| name(first_line(text)))?,
            None => Held::fixed(name(&client.username).map_err(AuthError::Settings)?),
        };
        let password = match written(&client.password_file) {
            Some(path) => Held::file(path, |text| match first_line(text) {
                "" => Err("it has no password".to_owned()),
                line => Ok(Secret::new(line)),
            })?,
            None => Held::fixed(client.password.clone()),
        };
        Ok(Client { username, password })
    }

    pub(super) fn server(&self) -> Result<Server, AuthError> {
        let Some(htpasswd) = &self.htpasswd else {
            return Err(Mistake::at(&["htpasswd"], "is needed").into());
        };
        let inline = People::parse(htpasswd.inline.text()).map_err(AuthError::Settings)?;
        let people = match written(&htpasswd.file) {
            Some(path) => Held::file(path, move |text| Ok(People::parse(text)?.under(&inline)))?,
            None => Held::fixed(inline),
        };
        let mut key = [0; 32];
        let provider = rustls::crypto::ring::default_provider();
        let filled = provider.secure_random.fill(&mut key);
        filled.map_err(|_| AuthError::Settings("the system gives no random numbers".to_owned()))?;
        Ok(Server {
            people,
            proven: Proven {
                key,
                digests: Mutex::default(),
            },
            workers: Semaphore::new(BCRYPT_AT_ONCE),
        })
    }
}

/// An empty path, as of a variable that is not set, is none.
fn written(path: &Option<PathBuf>) -> Option<&PathBuf> {
    path.as_ref().filter(|path| !path.as_os_str().is_empty())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// A user's name, which ends at the first colon of what is sent.
fn name(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a name is needed".to_owned()),
        text if text.contains(':') || text.chars().any(char::is_control) => {
            Err("a name has no colons and no control characters".to_owned())
        }
        text => Ok(text.to_owned()),
    }
}

/// Sends a name and a password.
#[derive(Debug)]
pub struct Client {
    username: Held<String>,
    password: Held<Secret>,
}

impl Client {
    pub(super) fn value(&self) -> HeaderValue {
        let (username, password) = (self.username.current(), self.password.current());
        let encoded = BASE64.encode(format!("{username}:{}", password.text()));
        HeaderValue::try_from(format!("Basic {encoded}")).expect("base64 is visible ASCII")
    }
}

/// Asks for a name and a password.
pub struct Server {
    people: Held<People>,
    proven: Proven,
    workers: Semaphore,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("people", &self.people)
            .finish_non_exhaustive()
    }
}

impl Server {
    pub(super) async fn admits(&self, headers: &HeaderMap) -> bool {
        let Some((user, password)) = credentials(headers) else {
            return false;
        };
        let people = self.people.current();
        let known = people.passwords.get(&user);
        // A name that nobody has takes as long as one that somebody has.
        let Some(kept) = known.or(people.decoy.as_ref()) else {
            return false;
        };
        let right = match kept {
            Kept::Plain(plain) => access::same(plain.text().as_bytes(), password.as_bytes()),
            Kept::Sha1 { digest, salt } => access::same(digest, &sha1(&password, salt)),
            Kept::Bcrypt(hash) => self.is_of_hash(&user, password, hash, known.is_some()).await,
        };
        right & known.is_some()
    }

    async fn is_of_hash(&self, user: &str, password: String, hash: &Arc<str>, is_known: bool) -> bool {
        let digest = self.proven.digest(user, &password, hash);
        if is_known && self.proven.has(user, &digest) {
            return true;
        }
        let Ok(_permit) = self.workers.acquire().await else {
            return false;
        };
        let hash = Arc::clone(hash);
        let work = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false));
        let right = work.await.unwrap_or(false);
        if right && is_known {
            self.proven.keep(user, digest);
        }
        right
    }
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let encoded = after_scheme(only(headers, &header::AUTHORIZATION)?, "Basic")?;
    let text = String::from_utf8(BASE64.decode(encoded).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn sha1(password: &str, salt: &[u8]) -> [u8; 20] {
    Sha1::new().chain_update(password).chain_update(salt).finalize().into()
}

/// What is kept of a password.
#[derive(Clone)]
enum Kept {
    Plain(Secret),
    Sha1 { digest: [u8; 20], salt: Vec<u8> },
    Bcrypt(Arc<str>),
}

impl Kept {
    fn parse(text: &str) -> Result<Kept, String> {
        const OTHERS: [&str; 5] = ["$apr1$", "$1$", "$5$", "$6$", "$argon2"];
        if let Some(form) = OTHERS.into_iter().find(|form| text.starts_with(form)) {
            return Err(format!(
                "passwords in the form `{form}` are not read; write it anew with `htpasswd -B`"
            ));
        }
        if ["$2a$", "$2b$", "$2x$", "$2y$"]
            .iter()
            .any(|form| text.starts_with(form))
        {
            let parts: bcrypt::HashParts = text.parse().map_err(|_| "the bcrypt hash is not whole".to_owned())?;
            if parts.get_cost() > MAX_BCRYPT_COST {
                return Err(format!("the bcrypt hash has a cost of more than {MAX_BCRYPT_COST}"));
            }
            return Ok(Kept::Bcrypt(text.into()));
        }
        if let Some(encoded) = ["{SHA}", "{SSHA}"].iter().find_map(|form| text.strip_prefix(form)) {
            let bytes = BASE64.decode(encoded).unwrap_or_default();
            let Some((digest, salt)) = bytes.split_first_chunk::<20>() else {
                return Err("the SHA-1 hash is not whole".to_owned());
            };
            if text.starts_with("{SHA}") && !salt.is_empty() {
                return Err("the SHA-1 hash is longer than one".to_owned());
            }
            return Ok(Kept::Sha1 {
                digest: *digest,
                salt: salt.to_vec(),
            });
        }
        match text {
            "" => Err("there is no password".to_owned()),
            text => Ok(Kept::Plain(Secret::new(text))),
        }
    }
}

/// Who may send.
struct People {
    passwords: HashMap<String, Kept>,
    /// What the password of somebody unknown is compared with: the costliest kind that there is.
    decoy: Option<Kept>,
}

impl People {
    /// Reads `name:password` lines. Messages name the line and nothing of what stands there.
    fn parse(text: &str) -> Result<People, String> {
        let mut passwords = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: &str| format!("line {}: {why}", index + 1);
            let Some((user, password)) = line.split_once(':').filter(|(user, _)| !user.is_empty()) else {
                return Err(wrong("expected `name:password`"));
            };
            if passwords.len() == MAX_USERS {
                return Err(wrong(&format!("more than {MAX_USERS} users")));
            }
            passwords.insert(user.to_owned(), Kept::parse(password).map_err(|why| wrong(&why))?);
        }
        Ok(People::of(passwords))
    }

    fn of(passwords: HashMap<String, Kept>) -> People {
        let cost = |kept: &&Kept| match kept {
            Kept::Plain(_) => 0,
            Kept::Sha1 { .. } => 1,
            Kept::Bcrypt(_) => 2,
        };
        let decoy = passwords.values().max_by_key(cost).cloned();
        People { passwords, decoy }
    }

    /// What `over` says goes before.
    fn under(mut self, over: &People) -> People {
        let more = over.passwords.iter().map(|(user, kept)| (user.clone(), kept.clone()));
        self.passwords.extend(more);
        People::of(self.passwords)
    }
}

/// Passwords that bcrypt has confirmed, by a digest under a key that only this process has; so a sender costs a tenth of a second once and not with each
/// request. There is at most one of each user.
struct Proven {
    key: [u8; 32],
    digests: Mutex<HashMap<String, [u8; 32]>>,
}

impl Proven {
    /// Of user, password and hash: when the file has another hash for the user, what was proven is void.
    fn digest(&self, user: &str, password: &str, hash: &str) -> [u8; 32] {
        let mut digest = Sha256::new().chain_update(self.key);
        for part in [user, hash, password] {
            digest = digest
                .chain_update((part.len() as u64).to_le_bytes())
                .chain_update(part);
        }
        digest.finalize().into()
    }

    fn has(&self, user: &str, digest: &[u8; 32]) -> bool {
        let digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        digests.get(user).is_some_and(|proven| access::same(proven, digest))
    }

    fn keep(&self, user: &str, digest: [u8; 32]) {
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        // Users that the file has lost may be among them.
        if digests.len() >= MAX_USERS {
            digests.clear();
        }
        digests.insert(user.to_owned(), digest);
    }
}
