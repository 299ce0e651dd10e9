//! The command line's side of the HTTP API: one blocking GET, bounded in time and size.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A server on this machine or in this network answers a connection well within this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the server's own bound on a query, so that its answer, not ours, is what people read.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer read: several times the server's own bounds on one story.
const MAX_ANSWER_BYTES: usize = 512 << 20;

/// Holds the token for a server that asks for one.
const TOKEN_VARIABLE: &str = "TRACKLINE_TOKEN";

/// Where the server is.
#[derive(Clone, Debug)]
pub struct Server {
    host: String,
    port: u16,
    /// A path before `/api`, when the server stands behind a proxy; without a slash at the end.
    prefix: String,
}

/// What the server said.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

/// Why there is no usable address, or no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("`{url}` is not a server's address: {why}; it should look like http://127.0.0.1:16686")]
    Address { url: String, why: String },
    #[error(
        "no Trackline server answers at {address} ({why}); start one with `trackline serve`, or name it with --server URL or TRACKLINE_URL"
    )]
    Unreachable { address: String, why: String },
    #[error("the server at {address} broke off its answer: {why}")]
    BrokenOff { address: String, why: String },
}

impl Server {
    pub fn parse(url: &str) -> Result<Server, ClientError> {
        let bad = |why: &str| ClientError::Address {
            url: url.to_owned(),
            why: why.to_owned(),
        };
        let with_scheme = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let uri: http::Uri = with_scheme
            .parse()
            .map_err(|error: http::uri::InvalidUri| bad(&error.to_string()))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(bad("the command line speaks plain http only")),
            _ => return Err(bad("the scheme is not http")),
        }
        let host = uri.host().ok_or_else(|| bad("it names no host"))?;
        Ok(Server {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(80),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// One GET; `path` is encoded already.
    pub fn get(&self, path: &str) -> Result<Answer, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| self.unreachable(&error))?;
        runtime.block_on(async {
            match tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(path)).await {
                Ok(answer) => answer,
                Err(_) => Err(self.unreachable(&format_args!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
            }
        })
    }

    async fn exchange(&self, path: &str) -> Result<Answer, ClientError> {
        let bare_host = self.host.trim_start_matches('[').trim_end_matches(']');
        let connect = TcpStream::connect((bare_host, self.port));
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(stream) => stream.map_err(|error| self.unreachable(&error))?,
            Err(_) => {
                return Err(self.unreachable(&format_args!("no connection within {} s", CONNECT_TIMEOUT.as_secs())));
            }
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(&error))?;
        tokio::spawn(connection);
        let mut request = hyper::Request::get(format!("{}{path}", self.prefix));
        // From the environment only: an argument would stand in the process list.
        if let Ok(token) = std::env::var(TOKEN_VARIABLE) {
            request = request.header("authorization", format!("Bearer {}", token.trim()));
        }
        let request = request
            .header("host", self.address())
            .header("accept", "application/json")
            .header("user-agent", concat!("trackline/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| self.unreachable(&error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let broken = |why: String| ClientError::BrokenOff {
            address: self.address(),
            why,
        };
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| broken(error.to_string()))?
            .to_bytes();
        Ok(Answer { status, body })
    }

    fn unreachable(&self, why: &dyn std::fmt::Display) -> ClientError {
        ClientError::Unreachable {
            address: self.address(),
            why: why.to_string(),
        }
    }
}

/// A value as part of a path or a query string (RFC 3986: everything but unreserved characters is encoded).
pub fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_scheme_port_and_path() {
        for (url, host, port, prefix) in [
            ("http://127.0.0.1:16686", "127.0.0.1", 16686, ""),
            ("localhost:9", "localhost", 9, ""),
            ("http://[::1]:16686/", "[::1]", 16686, ""),
            ("http://proxy/trackline/", "proxy", 80, "/trackline"),
        ] {
            let server = Server::parse(url).unwrap();
            assert_eq!(
                (server.host.as_str(), server.port, server.prefix.as_str()),
                (host, port, prefix)
            );
        }
        for url in ["https://x", "ftp://x", "http://", "http://a b"] {
            assert!(matches!(Server::parse(url), Err(ClientError::Address { .. })), "{url}");
        }
    }

    #[test]
    fn values_are_encoded_for_a_query_string() {
        assert_eq!(encode("a b&c=ü/1-2_3.4~"), "a%20b%26c%3D%C3%BC%2F1-2_3.4~");
    }

    #[test]
    fn nobody_at_the_port_is_said_with_what_to_do() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let error = Server::parse(&format!("127.0.0.1:{port}"))
            .unwrap()
            .get("/")
            .unwrap_err();
        assert!(error.to_string().contains("trackline serve"), "{error}");
    }
}
