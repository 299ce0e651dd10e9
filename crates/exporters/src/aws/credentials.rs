//! Why: nobody writes keys into a collector's configuration; they come from the environment, as AWS's own clients find them, and they end.
//!
//! Looked for in this order, as those clients do: `AWS_ACCESS_KEY_ID` and its kin; the shared files; a web identity's token (`AWS_WEB_IDENTITY_TOKEN_FILE`);
//! the container's endpoint (ECS, EKS); the machine's metadata service (EC2, IMDSv2). With `role_arn`, what is found is used to assume that role.
//! They are asked for again [`REFRESH_BEFORE_SECONDS`] before they end, and when AWS refuses them.
//!
//! Source: AWS SDKs and Tools Reference Guide, "Standardized credential providers".

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use model::instant::{NANOS_PER_SECOND, parse_rfc3339};
use net::ClientTls;
use net::dial::{Answer, Client, Target};
use serde::Deserialize;

use super::{metadata, profile, sts};

/// Before their end, new credentials are asked for; while that fails, the old ones serve to the end. AWS renews five minutes before.
const REFRESH_BEFORE_SECONDS: u64 = 300;

/// Credentials that do not say when they end are read again after this time: somebody may have changed a file.
const REREAD_AFTER_SECONDS: u64 = 600;

/// What a container or the machine itself says, it says at once; where nobody listens, the network may say nothing at all.
pub(super) const LOCAL_TIMEOUT: Duration = Duration::from_secs(2);

/// A text that is not to be seen.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    pub fn new(text: impl AsRef<str>) -> Secret {
        Secret(text.as_ref().into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What requests are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: Secret,
    pub session_token: Option<Secret>,
    /// Since 1970; `None` where they do not say.
    pub expires_at_seconds: Option<u64>,
    /// Where they came from, for the log.
    pub source: &'static str,
}

/// Looks up a variable of the environment.
type Variable = dyn Fn(&str) -> Option<String> + Send + Sync;

/// What a process finds around itself. A test makes its own.
#[derive(Clone)]
pub struct Surroundings {
    variable: Arc<Variable>,
    /// Where `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` is relative to.
    pub container: String,
    /// Seconds since 1970.
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Surroundings")
    }
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Surroundings {
        let clock = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs())
        };
        Surroundings {
            variable: Arc::new(|name| std::env::var(name).ok()),
            container: "http://169.254.170.2".to_owned(),
            clock: Arc::new(clock),
        }
    }

    /// With these variables and no others.
    pub fn of(variables: &[(&str, &str)]) -> Surroundings {
        let variables: Vec<(String, String)> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Surroundings {
            variable: Arc::new(move |name| {
                let found = variables.iter().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone())
            }),
            ..Surroundings::of_process()
        }
    }

    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Surroundings {
        Surroundings {
            clock: Arc::new(clock),
            ..self
        }
    }

    /// A variable's value, if it has one that is not empty.
    pub fn variable(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    pub fn now_seconds(&self) -> u64 {
        (self.clock)()
    }
}

/// A role that is assumed with what the chain finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    pub arn: String,
    pub external_id: Option<String>,
}

/// The sources of credentials, in order, and what was found last.
pub struct Chain {
    surroundings: Surroundings,
    role: Option<Role>,
    tls: ClientTls,
    /// Held while asking, so that many requests ask once.
    held: tokio::sync::Mutex<Option<Held>>,
}

struct Held {
    credentials: Arc<Credentials>,
    /// From then on, they are asked for again.
    renew_at_seconds: u64,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chain")
    }
}

impl Chain {
    /// `tls` is how STS is trusted.
    pub fn new(surroundings: Surroundings, role: Option<Role>, tls: ClientTls) -> Chain {
        Chain {
            surroundings,
            role,
            tls,
            held: tokio::sync::Mutex::default(),
        }
    }

    /// Credentials that are valid now, or a sentence on where they were looked for. `region` is where STS is asked.
    pub async fn get(&self, region: &str) -> Result<Arc<Credentials>, String> {
        let mut held = self.held.lock().await;
        let now = self.surroundings.now_seconds();
        if let Some(held) = &*held
            && now < held.renew_at_seconds
        {
            return Ok(Arc::clone(&held.credentials));
        }
        match self.ask(region).await {
            Ok(credentials) => {
                let renew_at_seconds = match credentials.expires_at_seconds {
                    // Those that end within minutes are renewed after half of their time.
                    Some(end) => {
                        let left = end.saturating_sub(now);
                        now + left.saturating_sub(REFRESH_BEFORE_SECONDS).max(left / 2)
                    }
                    None => now + REREAD_AFTER_SECONDS,
                };
                let credentials = Arc::new(credentials);
                *held = Some(Held {
                    credentials: Arc::clone(&credentials),
                    renew_at_seconds,
                });
                Ok(credentials)
            }
            Err(why) => match &*held {
                Some(old) if old.credentials.expires_at_seconds.is_some_and(|end| now < end) => {
                    tracing::warn!("credentials could not be renewed, the old ones serve until they end: {why}");
                    Ok(Arc::clone(&old.credentials))
                }
                _ => {
                    *held = None;
                    Err(why)
                }
            },
        }
    }

    /// AWS refused these: whoever asks next gets none from memory.
    pub async fn forget(&self, refused: &Credentials) {
        let mut held = self.held.lock().await;
        if held.as_ref().is_some_and(|held| *held.credentials == *refused) {
            *held = None;
        }
    }

    async fn ask(&self, region: &str) -> Result<Credentials, String> {
        let found = self.find(region).await?;
        match &self.role {
            Some(role) => sts::assume_role(&self.surroundings, &self.tls, region, role, &found)
                .await
                .map_err(|why| format!("the role {} could not be assumed: {why}", role.arn)),
            None => Ok(found),
        }
    }

    async fn find(&self, region: &str) -> Result<Credentials, String> {
        let around = &self.surroundings;
        let mut looked = Vec::new();
        match of_environment(around) {
            Ok(found) => return Ok(found),
            Err(why) => looked.push(format!("environment: {why}")),
        }
        match profile::credentials(around) {
            Ok(found) => return Ok(found),
            Err(why) => looked.push(format!("shared files: {why}")),
        }
        if let Some(file) = around.variable("AWS_WEB_IDENTITY_TOKEN_FILE") {
            match sts::with_web_identity(around, &self.tls, region, &file).await {
                Ok(found) => return Ok(found),
                Err(why) => looked.push(format!("web identity: {why}")),
            }
        }
        match metadata::of_container(around).await {
            Some(Ok(found)) => return Ok(found),
            Some(Err(why)) => looked.push(format!("container: {why}")),
            None => {
                looked.push("container: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and _FULL_URI are not set".to_owned())
            }
        }
        match metadata::of_machine(around).await {
            Ok(found) => return Ok(found),
            Err(why) => looked.push(format!("EC2: {why}")),
        }
        Err(looked.join("; "))
    }
}

fn of_environment(surroundings: &Surroundings) -> Result<Credentials, String> {
    let id = surroundings.variable("AWS_ACCESS_KEY_ID");
    let secret = surroundings.variable("AWS_SECRET_ACCESS_KEY");
    match (id, secret) {
        (Some(access_key_id), Some(secret)) => Ok(Credentials {
            access_key_id,
            secret_access_key: Secret::new(secret),
            session_token: surroundings.variable("AWS_SESSION_TOKEN").map(Secret::new),
            expires_at_seconds: None,
            source: "the environment",
        }),
        (Some(_), None) => Err("AWS_SECRET_ACCESS_KEY is not set, AWS_ACCESS_KEY_ID is".to_owned()),
        (None, Some(_)) => Err("AWS_ACCESS_KEY_ID is not set, AWS_SECRET_ACCESS_KEY is".to_owned()),
        (None, None) => Err("AWS_ACCESS_KEY_ID is not set".to_owned()),
    }
}

/// Credentials as the container's endpoint and the machine's metadata service write them.
#[derive(Deserialize)]
pub(super) struct Written {
    #[serde(rename = "AccessKeyId")]
    access_key_id: String,
    #[serde(rename = "SecretAccessKey")]
    secret_access_key: String,
    #[serde(rename = "Token")]
    token: Option<String>,
    #[serde(rename = "Expiration")]
    expiration: Option<String>,
}

impl Written {
    /// Never tells what the answer was: it may hold half a secret.
    pub fn read(body: &[u8], source: &'static str) -> Result<Credentials, String> {
        let written: Written =
            serde_json::from_slice(body).map_err(|_| "the answer holds no credentials".to_owned())?;
        let expires_at_seconds = match &written.expiration {
            Some(text) => Some(seconds_of(text).ok_or_else(|| format!("`{text}` is not a time"))?),
            None => None,
        };
        Ok(Credentials {
            access_key_id: written.access_key_id,
            secret_access_key: Secret::new(written.secret_access_key),
            session_token: written.token.map(Secret::new),
            expires_at_seconds,
            source,
        })
    }
}

/// `2015-08-30T12:36:00Z`, with or without a fraction, in seconds since 1970.
pub(super) fn seconds_of(text: &str) -> Option<u64> {
    text.ends_with('Z').then_some(())?;
    parse_rfc3339(text).map(|nanos| nanos / NANOS_PER_SECOND)
}

/// One request to a whole URL on a connection of its own: what gives out credentials is asked a few times an hour.
pub(super) async fn ask(
    method: Method,
    url: &str,
    headers: &[(&'static str, &str)],
    body: Bytes,
    tls: &ClientTls,
    timeout: Duration,
) -> Result<Answer, String> {
    let target = Target::parse(url)?;
    let secure = target.https.unwrap_or(true);
    let port = target.port.unwrap_or(if secure { 443 } else { 80 });
    let client = Client::new(&target.host, port, secure.then_some(tls), false).map_err(|error| error.to_string())?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let mut value = HeaderValue::from_str(value).map_err(|_| format!("the header {name} cannot be sent"))?;
        value.set_sensitive(true);
        map.insert(HeaderName::from_static(name), value);
    }
    *request.headers_mut() = map;
    let host = &target.host;
    match tokio::time::timeout(timeout, client.send(request)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("{host} did not answer in {timeout:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let credentials = of_environment(&Surroundings::of(&[
            ("AWS_ACCESS_KEY_ID", "AKID"),
            ("AWS_SECRET_ACCESS_KEY", "s3cret"),
            ("AWS_SESSION_TOKEN", "t0ken"),
        ]));
        let credentials = credentials.expect("found");
        assert_eq!(credentials.secret_access_key.reveal(), "s3cret");
        let shown = format!("{credentials:?}");
        assert!(
            shown.contains("AKID") && !shown.contains("s3cret") && !shown.contains("t0ken"),
            "{shown}"
        );
        let Err(said) = Written::read(br#"{"AccessKeyId":"a","SecretAccessKey":["s3cret"]}"#, "x") else {
            panic!("not read")
        };
        assert!(!said.contains("s3cret"));
    }

    #[test]
    fn half_a_pair_is_named() {
        let said = of_environment(&Surroundings::of(&[("AWS_ACCESS_KEY_ID", "AKID")])).expect_err("half");
        assert_eq!(said, "AWS_SECRET_ACCESS_KEY is not set, AWS_ACCESS_KEY_ID is");
        let empty = Surroundings::of(&[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "x")]);
        let said = of_environment(&empty).expect_err("half");
        assert_eq!(said, "AWS_ACCESS_KEY_ID is not set, AWS_SECRET_ACCESS_KEY is");
    }

    #[test]
    fn times() {
        assert_eq!(seconds_of("2015-08-30T12:36:00Z"), Some(1_440_938_160));
        assert_eq!(seconds_of("2024-02-29T00:00:00.123Z"), Some(1_709_164_800));
        for wrong in [
            "",
            "soon",
            "2015-08-30",
            "2015-08-30T12:36:00",
            "2015-13-30T12:36:00Z",
            "-1-1-1T0:0:0Z",
        ] {
            assert_eq!(seconds_of(wrong), None, "{wrong}");
        }
    }
}
