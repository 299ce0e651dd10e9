//! Which web pages may send from a browser (the Fetch standard's CORS protocol), configured as the collector has it.

use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;

/// Request headers that an OTLP exporter in a browser needs beside the safelisted ones.
const ALWAYS_ALLOWED_HEADERS: &str = "content-type, content-encoding, x-requested-with";

/// `cors:` of the HTTP protocol.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorsConfig {
    /// Origins that may send, such as `https://app.example.com`; `*` stands for any text inside one, or alone for every origin. Default: none.
    #[serde(default)]
    pub allowed_origins: Vec<String>,
    /// Request headers allowed beside `content-type`, `content-encoding` and `x-requested-with`; `*` allows any. Default: none.
    #[serde(default)]
    pub allowed_headers: Vec<String>,
    /// Seconds for which a browser may remember the answer; 0, the default, leaves it to the browser (5 s).
    #[serde(default)]
    pub max_age: u64,
}

impl CorsConfig {
    /// For a server on the developer's own machine: pages that are served from it.
    pub fn localhost() -> Self {
        Self {
            allowed_origins: ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"]
                .map(str::to_owned)
                .to_vec(),
            ..Self::default()
        }
    }
}

/// The configuration, ready to answer with.
pub(super) struct Cors {
    origins: Vec<String>,
    any_header: bool,
    allowed_headers: HeaderValue,
    max_age: Option<HeaderValue>,
}

/// A header name in the configuration that no header can have.
#[derive(Debug, thiserror::Error)]
#[error("cors.allowed_headers holds {0:?}, which is no header name")]
pub struct BadHeaderName(String);

impl Cors {
    pub(super) fn new(config: &CorsConfig) -> Result<Option<Self>, BadHeaderName> {
        if config.allowed_origins.is_empty() {
            return Ok(None);
        }
        let mut allowed = ALWAYS_ALLOWED_HEADERS.to_owned();
        for name in config.allowed_headers.iter().filter(|name| *name != "*") {
            let name = header::HeaderName::try_from(name.as_str()).map_err(|_| BadHeaderName(name.clone()))?;
            allowed.push_str(", ");
            allowed.push_str(name.as_str());
        }
        let allowed_headers = HeaderValue::try_from(&allowed).map_err(|_| BadHeaderName(allowed))?;
        Ok(Some(Self {
            origins: config.allowed_origins.iter().map(|o| o.to_ascii_lowercase()).collect(),
            any_header: config.allowed_headers.iter().any(|name| name == "*"),
            allowed_headers,
            max_age: (config.max_age > 0).then(|| HeaderValue::from(config.max_age)),
        }))
    }

    pub(super) fn allows(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| {
            let origin = origin.to_ascii_lowercase();
            self.origins.iter().any(|pattern| matches(pattern, &origin))
        })
    }

    /// On every answer to an allowed origin, refusals included: without it the page cannot read why.
    pub(super) fn decorate(&self, headers: &mut HeaderMap, origin: HeaderValue) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("retry-after"),
        );
    }

    /// The answer to a preflight.
    pub(super) fn permit(&self, headers: &mut HeaderMap, request: &HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
        let asked = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let allowed = match asked {
            Some(asked) if self.any_header => asked.clone(),
            _ => self.allowed_headers.clone(),
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        if let Some(max_age) = &self.max_age {
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, max_age.clone());
        }
    }
}

/// Whether `text` is `pattern`, in which each `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, mut rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    while let Some((piece, more)) = rest.split_once('*') {
        let Some(at) = text.find(piece) else {
            return false;
        };
        text = &text[at + piece.len()..];
        rest = more;
    }
    text.ends_with(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_their_patterns() {
        let cases = [
            ("*", "https://a.example", true),
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "https://a.example.evil", false),
            ("https://*.example.com", "https://app.example.com", true),
            ("https://*.example.com", "https://app.example.com.evil", false),
            ("http://localhost:*", "http://localhost:5173", true),
            ("http://localhost:*", "http://localhost.evil:80", false),
            ("http://*.a.*:80", "http://x.a.y:80", true),
            ("http://*.a.*:80", "http://x.b.y:80", false),
        ];
        for (pattern, origin, want) in cases {
            assert_eq!(matches(pattern, origin), want, "{pattern} {origin}");
        }
    }
}
