//! Doors on real sockets: what is planned, what opens, what closes, and who is let in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use net::access::{ReadAccess, Token};
use net::{At, DoorSettings, Doors, Endpoint, Mount, Service, TlsFiles, TlsVersion, from_tower, full_body, handler_fn};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

const GRACE: Duration = Duration::from_secs(10);

fn at(text: &str) -> Endpoint {
    text.parse().unwrap()
}

fn says(text: &'static str) -> Service {
    handler_fn(move |_| async move { http::Response::new(full_body(text)) })
}

fn http(at: At, service: Service) -> Mount {
    Mount::Http { at, service }
}

fn path(path: &str, service: Service) -> Mount {
    http(At::Path(path.to_owned()), service)
}

fn get(path: &str, more: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}\r\n").into_bytes()
}

/// Sends a request and returns status and body.
async fn ask_on(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> (u16, String) {
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn ask(address: SocketAddr, request: &[u8]) -> (u16, String) {
    ask_on(TcpStream::connect(address).await.unwrap(), request).await
}

#[test]
fn two_claims_on_one_thing_name_both() {
    let mut doors = Doors::new();
    doors
        .mount(&at("127.0.0.1:4318"), "receiver otlp", path("/v1/traces", says("a")))
        .unwrap();
    doors
        .mount(&at("127.0.0.1:4318"), "receiver loki", path("/loki", says("b")))
        .unwrap();
    let cases: [(&str, Mount, DoorSettings, &str); 4] = [
        (
            "127.0.0.1:4318",
            path("/v1/traces", says("c")),
            DoorSettings::default(),
            "receiver otlp/2 and receiver otlp both want the path /v1/traces on 127.0.0.1:4318; give one of them another address or path",
        ),
        (
            "0.0.0.0:4318",
            path("/other", says("c")),
            DoorSettings::default(),
            "receiver otlp/2 wants 0.0.0.0:4318, which overlaps with 127.0.0.1:4318 of receiver otlp; give one of them another port",
        ),
        (
            "127.0.0.1:4318",
            path("/other", says("c")),
            DoorSettings {
                tls: Some(files()),
                ..DoorSettings::default()
            },
            "receiver otlp/2 and receiver otlp share 127.0.0.1:4318 but ask for different TLS; give one of them another address",
        ),
        (
            "0.0.0.0:16686",
            http(At::Rest, says("c")),
            DoorSettings {
                read: Some(ReadAccess::default()),
                ..DoorSettings::default()
            },
            "receiver otlp/2 would let anyone who reaches 0.0.0.0:16686 read all data; listen on a loopback address, set a token, or set `insecure: true` if the network is trusted",
        ),
    ];
    for (address, mount, settings, want) in cases {
        let error = doors
            .mount_with(&at(address), "receiver otlp/2", mount, settings)
            .unwrap_err();
        assert_eq!(error.to_string(), want);
    }
}

#[tokio::test]
async fn an_address_in_use_names_it_and_who_wanted_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let mut doors = Doors::new();
    doors
        .mount(
            &Endpoint::from(address),
            "receiver otlp (grpc)",
            http(At::Rest, says("x")),
        )
        .unwrap();
    let error = doors.open().await.err().unwrap().to_string();
    let want = format!(
        "cannot listen on {address}, which receiver otlp (grpc) wants: another process already listens there ("
    );
    assert!(error.starts_with(&want), "{error}");
}

#[tokio::test]
async fn the_closest_route_answers() {
    let mut doors = Doors::new();
    let here = at("127.0.0.1:0");
    for (mount, text) in [
        (At::Path("/api/x".into()), "exact"),
        (At::Below("/api/".into()), "api"),
        (At::Below("/api/deep".into()), "deep"),
    ] {
        doors.mount(&here, "test", http(mount, says(text))).unwrap();
    }
    let open = doors.open().await.unwrap();
    let address = open.address_of("test").unwrap();
    for (path, want) in [
        ("/api/x", (200, "exact")),
        ("/api/x/y", (200, "api")),
        ("/api", (200, "api")),
        ("/api/deep/1", (200, "deep")),
        ("/api/deeper", (200, "api")),
        ("/apix", (404, "nothing on this port answers /apix\n")),
    ] {
        let (status, body) = ask(address, &get(path, "")).await;
        assert_eq!((status, body.as_str()), want, "{path}");
    }
    assert!(open.shutdown(GRACE).await);
}

#[tokio::test]
async fn a_tower_service_mounts_too() {
    #[derive(Clone)]
    struct Echo;
    impl tower::Service<net::Request> for Echo {
        type Response = http::Response<http_body_util::Full<bytes::Bytes>>;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;
        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
            std::task::Poll::Ready(Ok(()))
        }
        fn call(&mut self, request: net::Request) -> Self::Future {
            let peer = request.extensions().get::<net::Peer>().unwrap().0;
            let text = format!("{} {}", request.uri().path(), peer.ip());
            std::future::ready(Ok(http::Response::new(text.into_bytes().into())))
        }
    }
    let mut doors = Doors::new();
    doors
        .mount(&at("127.0.0.1:0"), "test", http(At::Rest, from_tower(Echo)))
        .unwrap();
    let open = doors.open().await.unwrap();
    let answer = ask(open.address_of("test").unwrap(), &get("/where", "")).await;
    assert_eq!(answer, (200, "/where 127.0.0.1".to_owned()));
    assert!(open.shutdown(GRACE).await);
}

#[tokio::test]
async fn a_reading_door_checks_host_and_token() {
    let mut doors = Doors::new();
    let read = |tokens: Vec<Token>| DoorSettings {
        read: Some(ReadAccess {
            tokens,
            ..ReadAccess::default()
        }),
        ..DoorSettings::default()
    };
    let here = at("127.0.0.1:0");
    doors
        .mount_with(&here, "plain", http(At::Rest, says("data")), read(vec![]))
        .unwrap();
    doors
        .mount_with(
            &here,
            "guarded",
            http(At::Rest, says("data")),
            read(Token::new("s3cret").into_iter().collect()),
        )
        .unwrap();
    let open = doors.open().await.unwrap();
    let (plain, guarded) = (open.address_of("plain").unwrap(), open.address_of("guarded").unwrap());
    assert_eq!(ask(plain, &get("/", "")).await.0, 200);
    let rebound = b"GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    assert_eq!(ask(plain, rebound).await.0, 403);
    assert_eq!(ask(guarded, &get("/", "")).await.0, 401);
    assert_eq!(ask(guarded, &get("/", "authorization: Bearer wrong\r\n")).await.0, 401);
    assert_eq!(
        ask(guarded, &get("/", "authorization: Bearer s3cret\r\n")).await,
        (200, "data".to_owned())
    );
    assert!(open.shutdown(GRACE).await);
}

#[tokio::test]
async fn closing_waits_for_requests_in_flight_and_takes_no_new_ones() {
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (inside, may_leave) = (entered.clone(), leave.clone());
    let slow = handler_fn(move |_| {
        let (inside, may_leave) = (inside.clone(), may_leave.clone());
        async move {
            inside.notify_one();
            may_leave.notified().await;
            http::Response::new(full_body("finished"))
        }
    });
    let mut doors = Doors::new();
    doors.mount(&at("127.0.0.1:0"), "test", http(At::Rest, slow)).unwrap();
    let open = doors.open().await.unwrap();
    let address = open.address_of("test").unwrap();
    // One that says nothing must not hold the closing up.
    let _silent = TcpStream::connect(address).await.unwrap();
    let request = tokio::spawn(async move { ask(address, &get("/", "")).await });
    entered.notified().await;
    let closing = tokio::spawn(open.shutdown(GRACE));
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!closing.is_finished(), "a request is still in flight");
    leave.notify_one();
    assert_eq!(request.await.unwrap(), (200, "finished".to_owned()));
    assert!(closing.await.unwrap());
}

#[tokio::test]
async fn the_grace_ends_requests_that_never_finish() {
    let entered = Arc::new(Notify::new());
    let inside = entered.clone();
    let stuck = handler_fn(move |_| {
        let inside = inside.clone();
        async move {
            inside.notify_one();
            std::future::pending().await
        }
    });
    let mut doors = Doors::new();
    doors.mount(&at("127.0.0.1:0"), "test", http(At::Rest, stuck)).unwrap();
    let open = doors.open().await.unwrap();
    let mut stream = TcpStream::connect(open.address_of("test").unwrap()).await.unwrap();
    stream.write_all(&get("/", "")).await.unwrap();
    entered.notified().await;
    assert!(!open.shutdown(Duration::ZERO).await);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "no answer was made up");
}

#[tokio::test]
async fn a_full_door_closes_newcomers_and_counts_them() {
    let mut doors = Doors::new();
    let settings = DoorSettings {
        max_connections: Some(2),
        ..DoorSettings::default()
    };
    doors
        .mount_with(&at("127.0.0.1:0"), "test", http(At::Rest, says("x")), settings)
        .unwrap();
    let open = doors.open().await.unwrap();
    let address = open.address_of("test").unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    let mut nothing = Vec::new();
    let _ = third.read_to_end(&mut nothing).await;
    assert!(nothing.is_empty());
    assert_eq!(open.turned_away(), 1);
    // A place that becomes free is taken again.
    held.clear();
    loop {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut answer = Vec::new();
        if stream.write_all(&get("/", "")).await.is_ok()
            && stream.read_to_end(&mut answer).await.is_ok()
            && answer.starts_with(b"HTTP/1.1 200")
        {
            break;
        }
    }
    assert!(open.shutdown(GRACE).await);
}

fn files() -> TlsFiles {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    TlsFiles {
        cert_file: fixtures.join("localhost.crt"),
        key_file: fixtures.join("localhost.key"),
        client_ca_file: None,
        min_version: TlsVersion::default(),
    }
}

#[tokio::test]
async fn a_door_with_a_certificate_speaks_tls_only() {
    use rustls::pki_types::pem::PemObject;
    let mut doors = Doors::new();
    let settings = DoorSettings {
        tls: Some(files()),
        ..DoorSettings::default()
    };
    doors
        .mount_with(&at("127.0.0.1:0"), "test", http(At::Rest, says("secret")), settings)
        .unwrap();
    let open = doors.open().await.unwrap();
    let address = open.address_of("test").unwrap();

    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_file(files().cert_file).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = connector
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .unwrap();
    assert_eq!(ask_on(stream, &get("/", "")).await, (200, "secret".to_owned()));

    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(&get("/", "")).await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "plain text gets no answer in plain text");
    assert!(open.shutdown(GRACE).await);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.crt");
    std::fs::write(&empty, "").unwrap();
    let missing = directory.path().join("missing.crt");
    for (cert_file, why) in [(&empty, "it holds no certificate"), (&missing, "No such file")] {
        let tls = TlsFiles {
            cert_file: cert_file.clone(),
            ..files()
        };
        let mut doors = Doors::new();
        let settings = DoorSettings {
            tls: Some(tls),
            ..DoorSettings::default()
        };
        doors
            .mount_with(&at("127.0.0.1:0"), "test", http(At::Rest, says("x")), settings)
            .unwrap();
        let error = doors.open().await.err().unwrap().to_string();
        assert!(
            error.starts_with("cannot speak TLS on 127.0.0.1:0, which test wants: cannot read the certificate from "),
            "{error}"
        );
        assert!(
            error.contains(why) && error.contains(&cert_file.display().to_string()),
            "{error}"
        );
    }
}
