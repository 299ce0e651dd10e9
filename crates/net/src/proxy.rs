//! Going out through an HTTP proxy: which one, if any, and the way through it to a host that speaks TLS.
//!
//! Sources: RFC 9110, 9.3.6 (CONNECT); RFC 9112, 3.2.2 (absolute form); what the variables of the environment mean is from Go's `httpproxy`, since the
//! collector's users know it from there.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::dial::{DialConfigError, Target, TlsSetup};
use crate::socket::Socket;
use crate::tls::ClientTls;

/// A proxy's answer to CONNECT has a few headers; nobody may fill our memory.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Where requests go first.
#[derive(Clone)]
pub struct Proxy {
    host: String,
    port: u16,
    /// A proxy that is itself spoken to with TLS.
    tls: Option<TlsSetup>,
    /// `Basic …`; sensitive.
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

/// What is wrong with a proxy's URL. It never holds the URL, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("{0}")]
    Url(String),
    #[error(transparent)]
    Tls(#[from] DialConfigError),
}

impl Proxy {
    /// Reads `http://user:password@host:port`, with `https://` for TLS to the proxy itself.
    pub fn parse(url: &str) -> Result<Proxy, ProxyError> {
        let wrong = |why: &str| ProxyError::Url(why.to_owned());
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(wrong("a proxy is `http://` or `https://`; SOCKS is not spoken here")),
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, authority) = match rest.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, rest),
        };
        let target = Target::parse(authority).map_err(|_| wrong("a proxy is `http://host:port`"))?;
        let authorization = user.map(basic).transpose()?;
        Ok(Proxy {
            port: target.port.unwrap_or(if secure { 443 } else { 80 }),
            tls: match secure {
                true => Some(TlsSetup::read(&ClientTls::default(), false)?.without_http()),
                false => None,
            },
            host: target.host,
            authorization,
        })
    }

    /// The proxy that the environment names for a host: `HTTPS_PROXY` or `HTTP_PROXY`, in capitals or not, unless `NO_PROXY` or the host itself
    /// speaks against it.
    pub fn from_environment(https: bool, host: &str, port: u16) -> Result<Option<Proxy>, ProxyError> {
        Proxy::from_variables(&|name| std::env::var(name).ok(), https, host, port)
    }

    /// As [`Proxy::from_environment`], from any variables.
    pub fn from_variables(
        variable: &dyn Fn(&str) -> Option<String>,
        https: bool,
        host: &str,
        port: u16,
    ) -> Result<Option<Proxy>, ProxyError> {
        let either = |name: &str| {
            let set = variable(name).filter(|value| !value.is_empty());
            set.or_else(|| variable(&name.to_ascii_lowercase()).filter(|value| !value.is_empty()))
        };
        let name = if https { "HTTPS_PROXY" } else { "HTTP_PROXY" };
        let Some(url) = either(name) else { return Ok(None) };
        if !is_for_proxy(&either("NO_PROXY").unwrap_or_default(), host, port) {
            return Ok(None);
        }
        match Proxy::parse(&url) {
            Ok(proxy) => Ok(Some(proxy)),
            Err(ProxyError::Url(why)) => Err(ProxyError::Url(format!("the variable {name}: {why}"))),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Connects to the proxy itself.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Socket>, String> {
        let at = |error: &dyn fmt::Display| format!("the proxy {}:{}: {error}", self.host, self.port);
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let socket = TcpStream::connect((host, self.port))
            .await
            .map_err(|error| at(&error))?;
        socket.set_nodelay(true).map_err(|error| at(&error))?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(socket));
        };
        let name = tls.name(&self.host).map_err(|error| at(&error))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls.config()));
        let stream = connector.connect(name, socket).await;
        Ok(Box::new(stream.map_err(|error| at(&format!("TLS: {error}")))?))
    }

    /// Connects through the proxy to `address`, which is `host:port`.
    pub(crate) async fn tunnel(&self, address: &str) -> Result<Box<dyn Socket>, String> {
        let mut socket = self.connect().await?;
        let at = |error: &dyn fmt::Display| format!("the proxy {}:{}: {error}", self.host, self.port);
        let mut request = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n").into_bytes();
        if let Some(authorization) = &self.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        socket.write_all(&request).await.map_err(|error| at(&error))?;
        socket.flush().await.map_err(|error| at(&error))?;
        // A byte at a time: what comes after the head is the other side's.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() == MAX_HEAD_BYTES {
                return Err(at(&"its answer has no end"));
            }
            head.push(socket.read_u8().await.map_err(|error| at(&error))?);
        }
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line: String = String::from_utf8_lossy(line)
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
        match status {
            Some(status) if status.len() == 3 && status.starts_with('2') => Ok(socket),
            _ => Err(at(&format!("it does not connect us to {address}: {line}"))),
        }
    }
}

/// `user:password`, percent-decoded, as a header's value.
fn basic(user: &str) -> Result<HeaderValue, ProxyError> {
    let mut plain = Vec::with_capacity(user.len());
    let mut rest = user.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'%').then(|| after.get(..2)).flatten();
        let decoded = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        plain.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    if !plain.contains(&b':') {
        plain.push(b':');
    }
    let mut value = HeaderValue::from_str(&format!("Basic {}", base64(&plain)))
        .map_err(|_| ProxyError::Url("the user of the proxy cannot be sent".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            match at <= group.len() {
                true => out.push(char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize])),
                false => out.push('='),
            }
        }
    }
    out
}

/// Whether `NO_PROXY` lets a host be reached through a proxy. This machine itself never is.
fn is_for_proxy(no_proxy: &str, host: &str, port: u16) -> bool {
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .trim_end_matches('.')
        .to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return false;
    }
    !no_proxy.split(',').map(str::trim).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        if entry == "*" {
            return true;
        }
        if let (Some(address), Some((network, bits))) = (address, entry.split_once('/')) {
            return is_in(address, network, bits);
        }
        if let (Some(address), Ok(named)) = (address, entry.parse::<IpAddr>()) {
            return address == named;
        }
        let (name, of_port) = match entry.rsplit_once(':') {
            Some((name, of_port)) if !name.contains(':') || name.ends_with(']') => (name, Some(of_port)),
            _ => (entry.as_str(), None),
        };
        if of_port.is_some_and(|of_port| of_port.parse() != Ok(port)) {
            return false;
        }
        let name = name.trim_start_matches('[').trim_end_matches(']');
        if let (Some(address), Ok(named)) = (address, name.parse::<IpAddr>()) {
            return address == named;
        }
        let domain = name.trim_start_matches("*.").trim_start_matches('.');
        let is_below = host.strip_suffix(domain).is_some_and(|before| before.ends_with('.'));
        !domain.is_empty() && (is_below || (host == domain && !name.starts_with(['.', '*'])))
    })
}

fn is_in(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(no_proxy: &str, host: &str) -> bool {
        let variable = |name: &str| match name {
            "https_proxy" => Some("proxy:3128".to_owned()),
            "NO_PROXY" => Some(no_proxy.to_owned()),
            _ => None,
        };
        let proxy = Proxy::from_variables(&variable, true, host, 443).expect("is right");
        assert!(
            Proxy::from_variables(&variable, false, host, 80)
                .expect("none")
                .is_none(),
            "only for https"
        );
        proxy.is_some()
    }

    #[test]
    fn no_proxy_as_go_reads_it() {
        for (no_proxy, host, expect) in [
            ("", "example.com", true),
            ("", "localhost", false),
            ("", "127.0.0.1", false),
            ("", "[::1]", false),
            ("*", "example.com", false),
            ("example.com", "example.com", false),
            ("example.com", "api.example.com", false),
            ("example.com", "notexample.com", true),
            (".example.com", "api.example.com", false),
            (".example.com", "example.com", true),
            ("*.example.com", "api.example.com", false),
            ("a.b, EXAMPLE.com ", "Api.Example.Com", false),
            ("example.com:443", "example.com", false),
            ("example.com:80", "example.com", true),
            ("10.0.0.0/8", "10.1.2.3", false),
            ("10.0.0.0/8", "11.1.2.3", true),
            ("10.0.0.0/33", "10.1.2.3", true),
            ("0.0.0.0/0", "11.1.2.3", false),
            ("fd00::/8", "[fd12::1]", false),
            ("10.1.2.3", "10.1.2.3", false),
            ("10.1.2.3:443", "10.1.2.3", false),
            ("10.1.2.3:80", "10.1.2.3", true),
            (",,", "example.com", true),
        ] {
            assert_eq!(through(no_proxy, host), expect, "{host} with NO_PROXY={no_proxy}");
        }
    }

    #[test]
    fn urls_of_proxies() {
        let proxy = Proxy::parse("http://me:s%40cret@proxy.example:3128/").expect("is right");
        assert_eq!(format!("{proxy:?}"), "Proxy(proxy.example:3128)");
        // `me:s@cret`
        assert_eq!(proxy.authorization.as_ref().expect("a user"), "Basic bWU6c0BjcmV0");
        assert!(!format!("{:?}", proxy.authorization).contains("Basic"));
        assert_eq!(Proxy::parse("proxy").expect("is right").port, 80);
        for wrong in [
            "socks5://me:s3cret@proxy:1080",
            "http://me:s3cret@",
            "http://me:s3cret@host:x",
        ] {
            let said = Proxy::parse(wrong).expect_err(wrong).to_string();
            assert!(!said.contains("s3cret"), "{said}");
        }
        for (plain, packed) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), packed);
        }
    }
}
