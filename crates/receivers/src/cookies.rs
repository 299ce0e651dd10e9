//! Why: a service that keeps sessions sets a cookie and wants it back, from whoever asks it again. As much of RFC 6265 as a client has that asks few hosts.

use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Uri};
use pipeline::ottl::time;

/// Cookies of one jar; the oldest goes for a new one. RFC 6265, 6.1 asks browsers for 50 a domain.
const MAX_COOKIES: usize = 50;
/// Bytes of one cookie, its name and attributes included, which is the least that RFC 6265, 6.1 asks for. A longer one is not kept.
const MAX_COOKIE_BYTES: usize = 4_096;

/// What was set by whom; shared by all requests of one URL.
#[derive(Debug, Default)]
pub(crate) struct Jar(Mutex<Vec<Cookie>>);

#[derive(Debug)]
struct Cookie {
    name: String,
    value: String,
    domain: String,
    /// Only that host, and none below it.
    is_of_host: bool,
    path: String,
    is_secure: bool,
    ends: Option<Instant>,
}

impl Jar {
    /// The cookies for a request to this URL, as a header.
    pub(crate) fn header(&self, url: &Uri) -> Option<HeaderValue> {
        let now = Instant::now();
        let mut cookies = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        cookies.retain(|cookie| cookie.ends.is_none_or(|ends| ends > now));
        let (host, path) = (url.host()?.to_ascii_lowercase(), url.path());
        let mut meant: Vec<&Cookie> = cookies
            .iter()
            .filter(|cookie| cookie.is_for(&host, path, url))
            .collect();
        // The longer paths before the shorter.
        meant.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs: Vec<String> = meant
            .iter()
            .map(|cookie| format!("{}={}", cookie.name, cookie.value))
            .collect();
        let mut value = HeaderValue::from_str(&pairs.join("; "))
            .ok()
            .filter(|_| !pairs.is_empty())?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Keeps what an answer from this URL sets.
    pub(crate) fn keep(&self, url: &Uri, answer: &HeaderMap) {
        let now = SystemTime::now();
        for header in answer.get_all(SET_COOKIE) {
            let Some((cookie, lives)) = header.to_str().ok().and_then(|text| Cookie::parse(text, url, now)) else {
                continue;
            };
            let mut cookies = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            cookies.retain(|known| {
                (&known.name, &known.domain, &known.path) != (&cookie.name, &cookie.domain, &cookie.path)
            });
            if lives {
                if cookies.len() == MAX_COOKIES {
                    cookies.remove(0);
                }
                cookies.push(cookie);
            }
        }
    }

    /// Adds the cookies for this URL to those that the settings send anyway; a request has one such header (RFC 6265, 5.4).
    pub(crate) fn add(&self, url: &Uri, headers: &mut HeaderMap) {
        let Some(ours) = self.header(url) else { return };
        let joined = match headers.get(COOKIE) {
            None => Ok(ours),
            Some(given) => HeaderValue::from_bytes(&[given.as_bytes(), b"; ", ours.as_bytes()].concat()),
        };
        if let Ok(mut value) = joined {
            value.set_sensitive(true);
            headers.insert(COOKIE, value);
        }
    }
}

impl Cookie {
    /// `name=value; Path=/; Max-Age=60; Secure`, and whether it lives: one whose time is over takes away what was kept.
    fn parse(text: &str, url: &Uri, now: SystemTime) -> Option<(Cookie, bool)> {
        if text.len() > MAX_COOKIE_BYTES {
            return None;
        }
        let mut parts = text.split(';');
        let (name, value) = parts.next()?.split_once('=')?;
        let host = url.host()?.to_ascii_lowercase();
        let folder = url.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut cookie = Cookie {
            name: name.trim().to_owned(),
            value: value.trim().to_owned(),
            domain: host.clone(),
            is_of_host: true,
            path: if folder.is_empty() { "/" } else { folder }.to_owned(),
            is_secure: false,
            ends: None,
        };
        let (mut lasts, mut expires) = (None, None);
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            match key.as_str() {
                "domain" if !value.is_empty() => {
                    cookie.domain = value.trim_start_matches('.').to_ascii_lowercase();
                    cookie.is_of_host = false;
                }
                "path" if value.starts_with('/') => cookie.path = value.to_owned(),
                "secure" => cookie.is_secure = true,
                "max-age" => lasts = value.parse::<i64>().ok(),
                "expires" => expires = time::parse(&value.replace('-', " "), "%a, %d %b %Y %H:%M:%S %Z"),
                _ => {}
            }
        }
        // Nobody sets cookies for others, and nobody for all of a top-level domain.
        let is_below = is_within(&host, &cookie.domain);
        let is_wide = !cookie.is_of_host && !cookie.domain.contains('.') && host != cookie.domain;
        if cookie.name.is_empty() || !is_below || is_wide {
            return None;
        }
        let left = lasts.map(|seconds| seconds.saturating_mul(1_000)).or_else(|| {
            let now = now.duration_since(UNIX_EPOCH).ok()?;
            Some(expires? / 1_000_000 - i64::try_from(now.as_millis()).ok()?)
        });
        let lives = left.is_none_or(|millis| millis > 0);
        // A time beyond all clocks is one that does not end.
        cookie.ends = left.and_then(|millis| Instant::now().checked_add(Duration::from_millis(millis.max(0) as u64)));
        Some((cookie, lives))
    }

    fn is_for(&self, host: &str, path: &str, url: &Uri) -> bool {
        let is_host = host == self.domain || (!self.is_of_host && is_within(host, &self.domain));
        let rest = path.strip_prefix(&self.path);
        let is_path = rest.is_some_and(|rest| rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/'));
        is_host && is_path && (!self.is_secure || url.scheme_str() == Some("https"))
    }
}

/// Whether a host is the domain or one below it. An address has nothing below it (RFC 6265, 5.1.3).
fn is_within(host: &str, domain: &str) -> bool {
    let is_below = || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    host == domain || (is_below() && host.parse::<IpAddr>().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent to `to` after `from` set these.
    fn check(from: &str, set: &[&str], to: &str, expect: &str) {
        let jar = Jar::default();
        for text in set {
            let mut headers = HeaderMap::new();
            headers.insert(SET_COOKIE, text.parse().unwrap());
            jar.keep(&from.parse().unwrap(), &headers);
        }
        let sent = jar.header(&to.parse().unwrap());
        assert_eq!(
            sent.as_ref().map_or("", |value| value.to_str().unwrap()),
            expect,
            "{set:?} to {to}"
        );
    }

    #[test]
    fn cookies_go_back_to_who_set_them() {
        let at = "http://shop.example.com/a/login";
        check(
            at,
            &["s=1; HttpOnly; SameSite=Lax", "t=\"2\""],
            "http://shop.example.com/a",
            "s=1; t=\"2\"",
        );
        check(at, &["s=1", "s=2"], at, "s=2");
        check(at, &["s=1"], "http://shop.example.com/ab", "");
        check(at, &["s=1; Path=/"], "http://shop.example.com/ab", "s=1");
        check(at, &["s=1; Path=/", "t=2"], at, "t=2; s=1");
        check(at, &["s=1"], "http://other.example.com/a/x", "");
        check(
            at,
            &["s=1; Domain=.example.com; Path=/"],
            "http://other.example.com/",
            "s=1",
        );
        check(
            at,
            &["s=1; Domain=example.org", "t=1; Domain=com", "=x", "no pair"],
            at,
            "",
        );
        check(at, &["s=1; Secure"], at, "");
        check(at, &["s=1; Secure"], "https://shop.example.com/a/login", "s=1");
        let long = format!("s={}", "x".repeat(5_000));
        check(at, &[&long], at, "");
    }

    /// `3.4` was the parent of `1.2.3.4`, as of any other address that ends so.
    #[test]
    fn addresses_are_no_domains() {
        let at = "http://10.0.3.4/";
        check(at, &["s=1; Domain=3.4", "t=1; Domain=.0.3.4"], at, "");
        check(at, &["s=1; Domain=10.0.3.4"], at, "s=1");
        check("http://a.3.4/", &["s=1; Domain=3.4"], "http://10.0.3.4/", "");
    }

    #[test]
    fn cookies_end() {
        let at = "http://h/";
        check(at, &["s=1; Max-Age=60"], at, "s=1");
        check(at, &["s=1", "s=; Max-Age=0"], at, "");
        check(at, &["s=1", "s=; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], at, "");
        check(at, &["s=1; Expires=Wed, 01-Jan-2200 00:00:00 GMT"], at, "s=1");
        check(at, &["s=1; Max-Age=9223372036854775807"], at, "s=1");
    }

    #[test]
    fn a_jar_is_bounded() {
        let jar = Jar::default();
        let url: Uri = "http://h/".parse().unwrap();
        for at in 0..80 {
            let mut headers = HeaderMap::new();
            headers.insert(SET_COOKIE, format!("c{at}=1").parse().unwrap());
            jar.keep(&url, &headers);
        }
        let sent = jar.header(&url).unwrap();
        let sent = sent.to_str().unwrap();
        assert!(sent.starts_with("c30=1; ") && sent.ends_with("c79=1"), "{sent}");
    }
}
