//! One call of an AWS API that takes JSON (protocol `awsJson1.1`), signed, with what has to be known for it: region, endpoint, credentials, and how far
//! our clock is from theirs.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use model::instant::parse_http_date;
use net::ClientTls;
use net::dial::{Answer, Client, Target};
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::credentials::{Chain, Credentials, Role, Surroundings};
use super::sign::{Scope, Signed, authorization, stamp};
use super::{metadata, profile};
use crate::request::{BuildError, Packed, asked_wait, shortened};

/// Where nothing tells a region, not even the machine: the owner's.
pub const DEFAULT_REGION: &str = "us-east-1";

const JSON: &str = "application/x-amz-json-1.1";

/// AWS takes requests whose time is five minutes off; the clock is set by theirs if it is further off than this when they complain.
const CLOCK_TOLERANCE_SECONDS: i64 = 60;

/// A request goes out so often at the most: as it is, with another clock, with other credentials.
const MAX_TRIES: usize = 3;

/// What AWS says of a signature that it does not accept. It may be the time in it, or the key.
const SIGNATURE_CODES: [&str; 6] = [
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "RequestTimeTooSkewed",
    "RequestExpired",
    "RequestInTheFuture",
    "IncompleteSignature",
];

/// What AWS says of credentials that it does not know any more.
const CREDENTIAL_CODES: [&str; 7] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "InvalidAccessKeyId",
];

/// Which API, and how it is reached.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The service's name in hosts and signatures, `logs`.
    pub service: &'static str,
    /// What stands before an action's name in `x-amz-target`.
    pub target: &'static str,
    pub region: Option<String>,
    /// With or without a scheme; `https` where there is none.
    pub endpoint: Option<String>,
    pub role: Option<Role>,
    pub tls: ClientTls,
    /// Sent along, unsigned.
    pub headers: HeaderMap,
}

/// Why a call brought nothing.
#[derive(Debug)]
pub enum Failure {
    /// No answer, or none that can be read.
    Unreachable(String),
    /// Nothing to sign with.
    NoCredentials(String),
    Refused(Refusal),
}

/// AWS's error.
#[derive(Debug)]
pub struct Refusal {
    pub status: u16,
    /// `ResourceNotFoundException`; empty where the answer has none.
    pub code: String,
    pub message: String,
    /// How long it asks to wait; zero if it does not say.
    pub after: Duration,
    pub body: bytes::Bytes,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = if self.code.is_empty() { "no code" } else { &self.code };
        write!(f, "HTTP {} {code}: {}", self.status, self.message)
    }
}

/// An API of AWS.
pub struct Api {
    reach: Reach,
    surroundings: Surroundings,
    chain: Chain,
    /// Known with the first call: the region may have to be asked for.
    place: OnceCell<Place>,
    /// What their clock is ahead of ours.
    offset_seconds: AtomicI64,
    /// What was last complained of in the log, so that it is said once.
    trouble: Mutex<Option<String>>,
}

struct Place {
    region: String,
    client: Client,
    uri: Uri,
    host: String,
}

impl Api {
    /// Reads certificates; everything else waits for the first call.
    pub fn new(reach: Reach, surroundings: Surroundings) -> Result<Api, BuildError> {
        // A certificate that cannot be read is told now, not with the first batch.
        place(&reach, DEFAULT_REGION.to_owned(), &surroundings)?;
        let chain = Chain::new(surroundings.clone(), reach.role.clone(), reach.tls.clone());
        Ok(Api {
            reach,
            surroundings,
            chain,
            place: OnceCell::new(),
            offset_seconds: AtomicI64::new(0),
            trouble: Mutex::default(),
        })
    }

    /// Calls an action with a JSON body. `more` are headers of its own, which are signed.
    pub async fn call(
        &self,
        action: &str,
        packed: &Packed,
        more: &[(&'static str, &'static str)],
    ) -> Result<Answer, Failure> {
        let place = self.place().await?;
        let mut tries = 0;
        loop {
            tries += 1;
            let credentials = self.chain.get(&place.region).await.map_err(Failure::NoCredentials)?;
            let answer = self.send(place, action, packed, more, &credentials).await?;
            if answer.status.is_success() {
                self.recovered();
                return Ok(answer);
            }
            let refusal = refusal(&answer);
            if tries < MAX_TRIES && SIGNATURE_CODES.contains(&refusal.code.as_str()) && self.set_clock(&answer) {
                continue;
            }
            let is_signature = SIGNATURE_CODES.contains(&refusal.code.as_str());
            if is_signature || CREDENTIAL_CODES.contains(&refusal.code.as_str()) {
                self.chain.forget(&credentials).await;
                // Others may lie there by now.
                if tries < MAX_TRIES
                    && let Ok(new) = self.chain.get(&place.region).await
                    && *new != *credentials
                {
                    continue;
                }
            }
            return Err(Failure::Refused(refusal));
        }
    }

    async fn send(
        &self,
        place: &Place,
        action: &str,
        packed: &Packed,
        more: &[(&'static str, &'static str)],
        credentials: &Credentials,
    ) -> Result<Answer, Failure> {
        let now = self
            .surroundings
            .now_seconds()
            .saturating_add_signed(self.offset_seconds.load(Ordering::Relaxed));
        let date = stamp(now);
        let target = format!("{}.{action}", self.reach.target);
        let mut signed: Vec<(&'static str, &str)> = vec![
            ("content-type", JSON),
            ("host", &place.host),
            ("x-amz-date", &date),
            ("x-amz-target", &target),
        ];
        if let Some(token) = &credentials.session_token {
            signed.push(("x-amz-security-token", token.reveal()));
        }
        signed.extend(more);
        let scope = Scope {
            region: &place.region,
            service: self.reach.service,
        };
        let what = Signed {
            method: "POST",
            headers: &signed,
            body: &packed.bytes,
        };
        let authorization = authorization(&what, scope, credentials, now);
        let mut request = Request::new(Full::new(packed.bytes.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = place.uri.clone();
        let mut headers = self.reach.headers.clone();
        signed.push((AUTHORIZATION_NAME, &authorization));
        for (name, value) in signed {
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| Failure::NoCredentials("the credentials have characters that no key has".to_owned()))?;
            value.set_sensitive(name == AUTHORIZATION_NAME || name == "x-amz-security-token");
            headers.insert(HeaderName::from_static(name), value);
        }
        if let Some(encoding) = packed.encoding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        *request.headers_mut() = headers;
        let sent = place.client.send(request).await;
        sent.map_err(|error| Failure::Unreachable(error.to_string()))
    }

    /// Sets the clock by the answer's date; whether that changes anything.
    fn set_clock(&self, answer: &Answer) -> bool {
        let date = answer.headers.get(DATE).and_then(|date| date.to_str().ok());
        let Some(theirs) = date.and_then(parse_http_date) else {
            return false;
        };
        let offset = theirs as i64 - self.surroundings.now_seconds() as i64;
        let before = self.offset_seconds.swap(offset, Ordering::Relaxed);
        let changed = (offset - before).abs() > CLOCK_TOLERANCE_SECONDS;
        if changed {
            tracing::warn!("the clock of this machine is {offset} s behind AWS's; requests are signed with theirs");
        }
        changed
    }

    async fn place(&self) -> Result<&Place, Failure> {
        let found = self.place.get_or_try_init(async || {
            let region = self.region().await;
            place(&self.reach, region, &self.surroundings)
        });
        found.await.map_err(|error| Failure::Unreachable(error.to_string()))
    }

    async fn region(&self) -> String {
        let around = &self.surroundings;
        if let Some(region) = &self.reach.region {
            return region.clone();
        }
        let endpoint = self.reach.endpoint.as_deref();
        let known = endpoint
            .and_then(region_of_host)
            .or_else(|| around.variable("AWS_REGION"))
            .or_else(|| around.variable("AWS_DEFAULT_REGION"))
            .or_else(|| profile::region(around))
            .filter(|region| metadata::is_region(region));
        if let Some(region) = known {
            return region;
        }
        match metadata::region_of_machine(around).await {
            Ok(region) => region,
            Err(why) => {
                tracing::warn!(
                    "no region is set (`region`, AWS_REGION, the profile), and the machine tells none ({why}): {DEFAULT_REGION} it is"
                );
                DEFAULT_REGION.to_owned()
            }
        }
    }

    /// Says what is wrong, once for each `kind` in a row.
    pub fn complain(&self, kind: &str, say: impl FnOnce()) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.as_deref() != Some(kind) {
            *trouble = Some(kind.to_owned());
            say();
        }
    }

    fn recovered(&self) {
        let before = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        if before.is_some() {
            tracing::info!("AWS takes requests again");
        }
    }
}

const AUTHORIZATION_NAME: &str = "authorization";

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Api({})", self.reach.service)
    }
}

/// The headers of a configuration, and who we are. Those that are signed are ours.
pub fn unsigned_headers(given: &crate::sender::Headers) -> Result<HeaderMap, BuildError> {
    let mut headers = net::dial::headers(given).map_err(BuildError::Header)?;
    for name in [AUTHORIZATION, CONTENT_TYPE, CONTENT_ENCODING, HOST] {
        headers.remove(name);
    }
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!(
        "trackline/",
        env!("CARGO_PKG_VERSION")
    )));
    Ok(headers)
}

fn place(reach: &Reach, region: String, surroundings: &Surroundings) -> Result<Place, BuildError> {
    let named = reach
        .endpoint
        .clone()
        .or_else(|| surroundings.variable("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS"))
        .or_else(|| surroundings.variable("AWS_ENDPOINT_URL"));
    let url = match named {
        Some(url) if url.contains("://") => url,
        Some(host) => format!("https://{host}"),
        None => format!("https://{}.{region}.{}", reach.service, host_suffix(&region)),
    };
    let target = Target::parse(&url).map_err(BuildError::Endpoint)?;
    let secure = target.https.unwrap_or(true);
    let port = target.port.unwrap_or(if secure { 443 } else { 80 });
    let host = authority(&target);
    let uri = format!("{}://{host}/", if secure { "https" } else { "http" });
    Ok(Place {
        region,
        client: Client::new(&target.host, port, secure.then_some(&reach.tls), false)?,
        uri: uri
            .parse()
            .map_err(|error| BuildError::Endpoint(format!("{url}: {error}")))?,
        host,
    })
}

/// `host` or `host:port`, as it is sent and signed: without a port that goes without saying.
pub(super) fn authority(target: &Target) -> String {
    let usual = if target.https == Some(false) { 80 } else { 443 };
    match target.port {
        Some(port) if port != usual => format!("{}:{port}", target.host),
        _ => target.host.clone(),
    }
}

/// Behind the region, in the partition of AWS that it lies in.
pub(super) fn host_suffix(region: &str) -> &'static str {
    const PARTITIONS: [(&str, &str); 5] = [
        ("cn-", "amazonaws.com.cn"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("us-isof-", "csp.hci.ic.gov"),
        ("us-iso-", "c2s.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk"),
    ];
    let found = PARTITIONS.iter().find(|(prefix, _)| region.starts_with(prefix));
    found.map_or("amazonaws.com", |(_, suffix)| suffix)
}

/// The region that one of AWS's own hosts names: `logs.us-east-1.amazonaws.com`, `vpce-….logs.us-east-1.vpce.amazonaws.com`.
fn region_of_host(endpoint: &str) -> Option<String> {
    let target = Target::parse(endpoint).ok()?;
    if !target.host.contains(".amazonaws.com") {
        return None;
    }
    let mut labels = target.host.split('.');
    labels.find(|label| *label == "logs" || *label == "logs-fips")?;
    labels.next().map(str::to_owned)
}

fn refusal(answer: &Answer) -> Refusal {
    #[derive(Default, Deserialize)]
    struct Told {
        #[serde(rename = "__type", alias = "code")]
        code: Option<String>,
        #[serde(alias = "Message")]
        message: Option<String>,
    }
    let told: Told = serde_json::from_slice(&answer.body).unwrap_or_default();
    let header = answer
        .headers
        .get("x-amzn-errortype")
        .and_then(|value| value.to_str().ok());
    let code = told.code.or_else(|| header.map(str::to_owned)).unwrap_or_default();
    // `com.amazonaws.logs#ResourceNotFoundException`, and in the header `ResourceNotFoundException:http://…`.
    let code = code.rsplit('#').next().unwrap_or_default();
    let code = code.split(':').next().unwrap_or_default();
    let message = match told.message {
        Some(message) => shortened(&message),
        None => shortened(String::from_utf8_lossy(&answer.body).trim()),
    };
    Refusal {
        status: answer.status.as_u16(),
        code: shortened(code),
        message,
        after: asked_wait(answer),
        body: answer.body.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::StatusCode;

    #[test]
    fn errors_are_read_in_all_their_forms() {
        let check = |header: Option<&'static str>, body: &'static str, expect: &str| {
            let mut headers = HeaderMap::new();
            headers.extend(header.map(|value| {
                (
                    HeaderName::from_static("x-amzn-errortype"),
                    HeaderValue::from_static(value),
                )
            }));
            let answer = Answer {
                status: StatusCode::BAD_REQUEST,
                headers,
                body: Bytes::from_static(body.as_bytes()),
                trailers: HeaderMap::new(),
            };
            assert_eq!(refusal(&answer).to_string(), expect);
        };
        check(
            None,
            r#"{"__type":"com.amazonaws.logs#Throttling","message":"slow"}"#,
            "HTTP 400 Throttling: slow",
        );
        check(
            None,
            r#"{"__type":"Throttling","Message":"slow"}"#,
            "HTTP 400 Throttling: slow",
        );
        check(
            Some("Denied:http://x/"),
            r#"{"message":"no\nno"}"#,
            "HTTP 400 Denied: no no",
        );
        check(None, "<html>", "HTTP 400 no code: <html>");
    }

    #[test]
    fn hosts_and_regions() {
        let check = |endpoint: &str, expect: Option<&str>| assert_eq!(region_of_host(endpoint).as_deref(), expect);
        check("logs.eu-west-1.amazonaws.com", Some("eu-west-1"));
        check("https://logs-fips.us-east-1.amazonaws.com/", Some("us-east-1"));
        check("https://vpce-1-2.logs.us-west-2.vpce.amazonaws.com", Some("us-west-2"));
        check("http://127.0.0.1:4566", None);
        check("logs.example.com", None);
        assert_eq!(host_suffix("cn-north-1"), "amazonaws.com.cn");
        assert_eq!(host_suffix("us-isob-east-1"), "sc2s.sgov.gov");
        assert_eq!(host_suffix("us-gov-west-1"), "amazonaws.com");
        let authority = |url: &str| authority(&Target::parse(url).expect("right"));
        assert_eq!(authority("https://a:443/"), "a");
        assert_eq!(authority("http://a:443/"), "a:443");
        assert_eq!(authority("http://[::1]:80"), "[::1]");
    }
}
