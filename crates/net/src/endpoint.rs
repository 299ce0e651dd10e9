//! An address as a config writes it: `host:port`, `[v6]:port` or `:port`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// Where to listen. An empty host means every interface, as in the collector.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address to listen on: {why}; write it as host:port, for example 127.0.0.1:4317")]
pub struct BadEndpoint {
    /// The text as it was given.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let bad = |why| BadEndpoint {
            text: text.to_owned(),
            why,
        };
        if text.contains("://") {
            return Err(bad("it has a scheme"));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("it has no port"))?;
        let port = port
            .parse()
            .map_err(|_| bad("the port is not a number from 0 to 65535"))?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(v6) => Host::Ip(IpAddr::V6(
                v6.parse()
                    .map_err(|_| bad("the brackets do not hold an IPv6 address"))?,
            )),
            None if host.is_empty() => Host::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            None if host.contains(':') => return Err(bad("an IPv6 address needs brackets")),
            None if host.contains(|c: char| c.is_whitespace() || c == '/') => {
                return Err(bad("the host has a space or a slash"));
            }
            None => match host.parse::<IpAddr>() {
                Ok(ip) => Host::Ip(ip),
                Err(_) => Host::Name(host.to_ascii_lowercase()),
            },
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: Host::Ip(address.ip()),
            port: address.port(),
        }
    }
}

impl Endpoint {
    /// The port; 0 lets the system choose.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether only this machine can reach it. A name other than `localhost` counts as reachable from elsewhere, because
    /// what it resolves to may change after we looked.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.is_loopback(),
            Host::Name(name) => name == "localhost",
        }
    }

    /// Whether it stands for every interface of the machine.
    pub fn is_wildcard(&self) -> bool {
        matches!(&self.host, Host::Ip(ip) if ip.is_unspecified())
    }

    /// Whether a listener on `self` and one on `other` would fight over the same socket address.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.port != 0 && self.port == other.port && (self == other || self.is_wildcard() || other.is_wildcard())
    }

    /// The address to bind. `localhost` is 127.0.0.1 without asking anyone; of other names the first IPv4 address wins,
    /// as in the collector.
    pub(crate) async fn resolve(&self) -> std::io::Result<SocketAddr> {
        let name = match &self.host {
            Host::Ip(ip) => return Ok(SocketAddr::new(*ip, self.port)),
            Host::Name(name) if name == "localhost" => {
                return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port));
            }
            Host::Name(name) => name,
        };
        let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), self.port)).await?.collect();
        found
            .iter()
            .find(|a| a.is_ipv4())
            .or(found.first())
            .copied()
            .ok_or_else(|| std::io::Error::other("the name has no address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_configs_write() {
        let cases = [
            ("127.0.0.1:4317", "127.0.0.1:4317", true, false),
            ("0.0.0.0:4318", "0.0.0.0:4318", false, true),
            (":4317", "0.0.0.0:4317", false, true),
            ("[::1]:4317", "[::1]:4317", true, false),
            ("[::]:4317", "[::]:4317", false, true),
            ("LocalHost:80", "localhost:80", true, false),
            ("collector.internal:80", "collector.internal:80", false, false),
        ];
        for (text, shown, loopback, wildcard) in cases {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(endpoint.is_loopback(), loopback, "{text}");
            assert_eq!(endpoint.is_wildcard(), wildcard, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_an_address() {
        let cases = [
            ("4317", "it has no port"),
            ("localhost", "it has no port"),
            ("localhost:", "the port is not a number from 0 to 65535"),
            ("localhost:65536", "the port is not a number from 0 to 65535"),
            ("http://localhost:4318", "it has a scheme"),
            ("::1:4317", "an IPv6 address needs brackets"),
            ("[::g]:1", "the brackets do not hold an IPv6 address"),
            ("a b:1", "the host has a space or a slash"),
        ];
        for (text, why) in cases {
            assert_eq!(text.parse::<Endpoint>().unwrap_err().why, why, "{text}");
        }
    }

    #[test]
    fn a_wildcard_overlaps_every_host_on_its_port() {
        let at = |text: &str| text.parse::<Endpoint>().unwrap();
        assert!(at("0.0.0.0:1").overlaps(&at("127.0.0.1:1")));
        assert!(at("127.0.0.1:1").overlaps(&at("[::]:1")));
        assert!(!at("127.0.0.1:1").overlaps(&at("127.0.0.2:1")));
        assert!(!at("0.0.0.0:1").overlaps(&at("0.0.0.0:2")));
        assert!(
            !at("0.0.0.0:0").overlaps(&at("0.0.0.0:0")),
            "port 0 is a new port each time"
        );
    }
}
