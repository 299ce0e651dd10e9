//! Who may read: the decision whether a query door may open at all, and the check of each request's `Host` and token.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, StatusCode, Uri, header};

use crate::Endpoint;
use crate::grpc::{self, Code};
use crate::service::{Response, full_body};

/// A bearer token. It has no `Display`, and `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// A token; surrounding white space (a file's last newline) is not part of it. An empty one is none.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.into()))
    }

    /// Whether the caller knows the token. The time it takes depends on the lengths alone.
    pub fn matches(&self, given: &str) -> bool {
        same(self.0.as_bytes(), given.as_bytes())
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

/// Whether the bytes are those that are wanted, of which there is at least one. The time it takes depends on the lengths alone.
pub(crate) fn same(want: &[u8], given: &[u8]) -> bool {
    let mut differ = u8::from(want.len() != given.len());
    for (i, &byte) in given.iter().enumerate() {
        differ |= byte ^ want[i % want.len()];
    }
    std::hint::black_box(differ) == 0
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// How a door that hands data out is protected.
#[derive(Clone, Debug, Default)]
pub struct ReadAccess {
    /// Callers must send one of these as `Authorization: Bearer …`. Empty: no token is asked for.
    pub tokens: Vec<Token>,
    /// The operator said that whoever reaches the door may read.
    pub insecure: bool,
    /// Host names, beside `localhost` and IP addresses, under which browsers may reach the door.
    pub hosts: Vec<String>,
}

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The `Host` is none of ours: a page of another site that resolves its name to this machine ("DNS rebinding").
    Host,
    /// No token, or a wrong one.
    Token,
}

impl ReadAccess {
    /// Whether a door with this protection may listen on `address`: loopback always, anything else only with a token or
    /// after an explicit `insecure`.
    pub fn may_open(&self, address: &Endpoint) -> bool {
        address.is_loopback() || !self.tokens.is_empty() || self.insecure
    }

    /// Checks one request.
    pub fn check<B>(&self, request: &http::Request<B>) -> Result<(), Refusal> {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let host = hosts.next();
        // Two names leave open which one was meant (RFC 9112 §3.2).
        if hosts.next().is_some() || !self.host_is_ours(request.uri(), host) {
            return Err(Refusal::Host);
        }
        if self.tokens.is_empty() {
            return Ok(());
        }
        let given = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        // Every token is compared, so that the time does not tell which one came close.
        match given {
            Some(given) if self.tokens.iter().fold(false, |ok, t| ok | t.matches(given)) => Ok(()),
            _ => Err(Refusal::Token),
        }
    }

    /// A browser attack needs a name that the attacker controls; an IP address or `localhost` is none. With a token or
    /// `insecure`, and no names listed, any name will do: a browser does not attach a token by itself.
    fn host_is_ours(&self, uri: &Uri, host: Option<&HeaderValue>) -> bool {
        if self.hosts.is_empty() && (self.insecure || !self.tokens.is_empty()) {
            return true;
        }
        let given = match uri.authority() {
            Some(authority) => authority.as_str(),
            None => match host.map(HeaderValue::to_str) {
                Some(Ok(host)) => host,
                // HTTP/1.0 without a Host is no browser.
                None => return true,
                Some(Err(_)) => return false,
            },
        };
        let name = match given.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((name, port)) if port.is_empty() || port.starts_with(':') => name,
            Some(_) => return false,
            None => given.rsplit_once(':').map_or(given, |(name, _)| name),
        };
        name.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || name.to_ascii_lowercase().ends_with(".localhost")
            || self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(name))
    }
}

impl Refusal {
    pub(crate) fn into_response(self, is_grpc: bool) -> Response {
        let (status, code, text) = match self {
            Refusal::Host => (
                StatusCode::FORBIDDEN,
                Code::PermissionDenied,
                "this Host name is not one of the server's; use its IP address or localhost, or list the name in the server's configuration",
            ),
            Refusal::Token => (
                StatusCode::UNAUTHORIZED,
                Code::Unauthenticated,
                "a valid token is required: send `Authorization: Bearer <token>`",
            ),
        };
        if is_grpc {
            return grpc::status_only(code, text);
        }
        let mut response = http::Response::new(full_body(format!("{{\"error\":\"{text}\"}}\n")));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self == Refusal::Token {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(tokens: &[&str], insecure: bool, hosts: &[&str]) -> ReadAccess {
        ReadAccess {
            tokens: tokens.iter().filter_map(|t| Token::new(t)).collect(),
            insecure,
            hosts: hosts.iter().map(|h| (*h).to_owned()).collect(),
        }
    }

    #[test]
    fn beyond_loopback_needs_a_token_or_insecure() {
        let cases = [
            ("127.0.0.1:1", access(&[], false, &[]), true),
            ("localhost:1", access(&[], false, &[]), true),
            ("0.0.0.0:1", access(&[], false, &[]), false),
            ("10.0.0.1:1", access(&[" \n"], false, &[]), false),
            ("0.0.0.0:1", access(&["secret"], false, &[]), true),
            ("0.0.0.0:1", access(&[], true, &[]), true),
            ("db.internal:1", access(&[], false, &[]), false),
        ];
        for (address, access, want) in cases {
            assert_eq!(access.may_open(&address.parse().unwrap()), want, "{address} {access:?}");
        }
    }

    #[test]
    fn host_and_token_are_checked() {
        let plain = access(&[], false, &[]);
        let named = access(&[], false, &["trackline.internal"]);
        let token = access(&["s3cret", "other"], false, &[]);
        let cases = [
            (&plain, Some("127.0.0.1:16686"), None, Ok(())),
            (&plain, Some("[::1]:16686"), None, Ok(())),
            (&plain, Some("LOCALHOST"), None, Ok(())),
            (&plain, Some("ui.localhost:1"), None, Ok(())),
            (&plain, None, None, Ok(())),
            (&plain, Some("evil.example"), None, Err(Refusal::Host)),
            (&plain, Some("127.0.0.1.evil.example"), None, Err(Refusal::Host)),
            (&plain, Some("[::1]"), None, Ok(())),
            (&plain, Some("[::1]evil.example"), None, Err(Refusal::Host)),
            (&plain, Some("[::1"), None, Err(Refusal::Host)),
            (&named, Some("trackline.internal:1"), None, Ok(())),
            (&named, Some("evil.example"), None, Err(Refusal::Host)),
            (&token, Some("any.example"), Some("Bearer s3cret"), Ok(())),
            (&token, Some("any.example"), Some("bearer other"), Ok(())),
            (&token, Some("any.example"), Some("Bearer s3cre"), Err(Refusal::Token)),
            (
                &token,
                Some("any.example"),
                Some("Bearer s3crets3cret"),
                Err(Refusal::Token),
            ),
            (&token, Some("any.example"), Some("Bearer "), Err(Refusal::Token)),
            (&token, Some("any.example"), Some("Basic s3cret"), Err(Refusal::Token)),
            (&token, Some("any.example"), None, Err(Refusal::Token)),
        ];
        for (access, host, auth, want) in cases {
            let mut request = http::Request::new(());
            if let Some(host) = host {
                request.headers_mut().insert(header::HOST, host.parse().unwrap());
            }
            if let Some(auth) = auth {
                request
                    .headers_mut()
                    .insert(header::AUTHORIZATION, auth.parse().unwrap());
            }
            assert_eq!(access.check(&request), want, "{host:?} {auth:?}");
        }
    }

    #[test]
    fn a_second_host_was_not_looked_at() {
        let mut request = http::Request::new(());
        for host in ["localhost", "evil.example"] {
            request.headers_mut().append(header::HOST, host.parse().unwrap());
        }
        assert_eq!(access(&[], false, &[]).check(&request), Err(Refusal::Host));
    }

    #[test]
    fn a_token_is_not_printed() {
        assert_eq!(format!("{:?}", Token::new("hunter2")), "Some(Token(…))");
    }
}
