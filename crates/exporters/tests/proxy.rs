//! Exporters over HTTP through a real proxy, which is written here: CONNECT for https, whole URLs for http, and a password.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use model::{Batch, Encoding, Meta, Signal};
use net::{At, DoorSettings, Doors, Mount, Response, TlsFiles, TlsVersion, empty_body, handler_fn};
use pipeline::config::{Config, Problems, Section, Source};
use pipeline::{Exporter, Outcome, Reason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// `me:s3cret`.
const ALLOWED: &str = "Basic bWU6czNjcmV0";

#[derive(Clone, Default)]
struct Proxy {
    /// First lines of what it was asked.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn open() -> (Proxy, SocketAddr) {
        let proxy = Proxy::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let serving = proxy.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let proxy = serving.clone();
                tokio::spawn(async move { proxy.serve(socket).await });
            }
        });
        (proxy, address)
    }

    async fn serve(self, mut socket: TcpStream) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).expect("text");
        let line = head.lines().next()?.to_owned();
        let headers = head.split_once("\r\n")?.1.to_owned();
        self.asked.lock().expect("no panic").push(line.clone());
        let is_allowed = headers.lines().any(|header| {
            let (name, value) = header.split_once(": ").unwrap_or_default();
            name.eq_ignore_ascii_case("proxy-authorization") && value == ALLOWED
        });
        if !is_allowed {
            let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
            socket.write_all(answer).await.ok()?;
            return None;
        }
        let mut words = line.split(' ');
        let mut backend = match (words.next()?, words.next()?) {
            ("CONNECT", address) => {
                let backend = TcpStream::connect(address).await.ok()?;
                socket
                    .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    .await
                    .ok()?;
                backend
            }
            (method, url) => {
                let (address, path) = url.strip_prefix("http://")?.split_once('/')?;
                let mut backend = TcpStream::connect(address).await.ok()?;
                let head = format!("{method} /{path} HTTP/1.1\r\n{headers}");
                backend.write_all(head.as_bytes()).await.ok()?;
                backend
            }
        };
        tokio::io::copy_bidirectional(&mut socket, &mut backend).await.ok()?;
        None
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../net/tests/fixtures")
        .join(name)
}

/// A backend that takes everything, and how often it was asked.
async fn backend(tls: bool) -> (net::Open, SocketAddr, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let noting = Arc::clone(&seen);
    let service = handler_fn(move |request: net::Request| {
        let noting = Arc::clone(&noting);
        async move {
            assert!(
                !request.headers().contains_key("proxy-authorization") || !tls,
                "a tunnel hides nothing in it"
            );
            noting.lock().expect("no panic").push(request.uri().path().to_owned());
            drop(request.into_body().collect().await);
            Response::new(empty_body())
        }
    });
    let settings = DoorSettings {
        tls: tls.then(|| TlsFiles {
            cert_file: fixture("localhost.crt"),
            key_file: fixture("localhost.key"),
            client_ca_file: None,
            min_version: TlsVersion::default(),
        }),
        ..DoorSettings::default()
    };
    let mut doors = Doors::new();
    let any = "127.0.0.1:0".parse().expect("an endpoint");
    let mount = Mount::Http { at: At::Rest, service };
    doors.mount_with(&any, "backend", mount, settings).expect("free");
    let open = doors.open().await.expect("opens");
    let address = open.address_of("backend").expect("open");
    (open, address, seen)
}

fn parsed<T>(exporter: &str, parse: impl Fn(&Section<'_>) -> Result<T, Problems>) -> Result<T, String> {
    let text = format!("exporters:\n  it: {{ {exporter} }}\nservice: {{ pipelines: {{ logs: {{}} }} }}\n");
    let config = Config::load(vec![Source::new("test.yaml", text)], &|_| None).map_err(|error| error.to_string())?;
    parse(&config.section(&config.exporters[0])).map_err(|error| error.to_string())
}

fn settings<T>(exporter: &str, parse: impl Fn(&Section<'_>) -> Result<T, Problems>) -> T {
    parsed(exporter, parse).unwrap_or_else(|error| panic!("{error}"))
}

fn empty(signal: Signal) -> Batch {
    Batch {
        signal,
        encoding: Encoding::Otlp,
        payload: Vec::new().into(),
        items: 0,
        wire: None,
        meta: Arc::new(Meta {
            received_at_unix_nano: 0,
            receiver: "otlp".into(),
            peer: None,
            headers: Vec::new(),
            source_offset: None,
        }),
    }
}

#[tokio::test]
async fn requests_go_through_the_proxy_that_is_named() {
    let (proxy, at) = Proxy::open().await;
    for tls in [false, true] {
        let (_open, address, seen) = backend(tls).await;
        let (scheme, port) = (if tls { "https" } else { "http" }, address.port());
        let more = format!(
            "tls: {{ ca_file: '{}' }}, proxy_url: 'http://me:s3cret@{at}'",
            fixture("localhost.crt").display()
        );
        let text = format!("endpoint: '{scheme}://localhost:{port}', {more}");
        let exporter = exporters::otlphttp::OtlpHttp::new(&settings(&text, exporters::otlphttp::parse)).expect("made");
        // Twice, of which the second goes on the connection that is there.
        for _ in 0..2 {
            assert_eq!(exporter.export(empty(Signal::Traces)).await, Outcome::Delivered);
        }
        assert_eq!(*seen.lock().expect("no panic"), ["/v1/traces", "/v1/traces"]);
        let expect = match tls {
            true => format!("CONNECT localhost:{port} HTTP/1.1"),
            false => format!("POST http://localhost:{port}/v1/traces HTTP/1.1"),
        };
        assert_eq!(proxy.asked()[0], expect);
    }
}

#[tokio::test]
async fn a_proxy_that_does_not_let_us_through_loses_nothing() {
    let (proxy, at) = Proxy::open().await;
    let again = |outcome: &Outcome| {
        matches!(
            outcome,
            Outcome::Retry {
                reason: Reason::BackendUnavailable,
                ..
            }
        )
    };
    for scheme in ["http", "https"] {
        let text = format!("endpoint: '{scheme}://localhost:1', proxy_url: 'http://me:wrong@{at}'");
        let exporter = exporters::otlphttp::OtlpHttp::new(&settings(&text, exporters::otlphttp::parse)).expect("made");
        let outcome = exporter.export(empty(Signal::Traces)).await;
        assert!(again(&outcome), "{scheme}: {outcome:?}");
        assert_eq!(proxy.asked().len(), 1);
    }
    // One that is not there.
    let text = "endpoint: 'http://localhost:1', proxy_url: 'http://127.0.0.1:1'";
    let exporter = exporters::otlphttp::OtlpHttp::new(&settings(text, exporters::otlphttp::parse)).expect("made");
    assert!(again(&exporter.export(empty(Signal::Traces)).await));
}

#[test]
fn its_password_is_shown_nowhere() {
    let right = "endpoint: 'http://a/', proxy_url: 'http://me:s3cret@proxy:3128'";
    let wrong = "endpoint: 'http://a/', proxy_url: 'socks5://me:s3cret@proxy:1080'";
    let mut said = vec![
        format!("{:?}", settings(right, exporters::otlphttp::parse)),
        format!("{:?}", settings(right, exporters::loki::parse)),
        format!("{:?}", settings(right, exporters::prometheusremotewrite::parse)),
    ];
    said.extend(parsed(wrong, exporters::otlphttp::parse).err());
    said.extend(parsed(wrong, exporters::loki::parse).err());
    said.extend(parsed(wrong, exporters::prometheusremotewrite::parse).err());
    assert_eq!(said.len(), 6);
    for said in &said {
        assert!(!said.contains("s3cret"), "{said}");
    }
    assert!(
        said[3..].iter().all(|said| said.contains("SOCKS is not spoken here")),
        "{said:?}"
    );
}
