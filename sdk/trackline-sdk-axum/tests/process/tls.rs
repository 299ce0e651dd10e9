//! A service and its collector with TLS between them, set up by the environment alone as an operator does it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::Value;

use crate::Running;
use crate::sink::Sink;

pub fn run(runtime: &tokio::runtime::Runtime) {
    runtime.block_on(everything_arrives_encrypted());
    println!("test tls::everything_arrives_encrypted ... ok");
    runtime.block_on(a_certificate_of_our_own_is_shown());
    println!("test tls::a_certificate_of_our_own_is_shown ... ok");
    runtime.block_on(what_goes_wrong_is_said_once_and_harms_nothing());
    println!("test tls::what_goes_wrong_is_said_once_and_harms_nothing ... ok");
    runtime.block_on(a_file_that_is_missing_is_named());
    println!("test tls::a_file_that_is_missing_is_named ... ok");
    runtime.block_on(calls_of_the_service_speak_tls());
    println!("test tls::calls_of_the_service_speak_tls ... ok");
}

/// An authority that signs for this test, and the directory of its files.
struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// A certificate with its key, in memory and as files.
struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
    certificate_file: String,
    key_file: String,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        fs::write(directory.join("ca.pem"), certificate.pem()).expect("written");
        Authority {
            directory,
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    fn file(&self) -> String {
        self.directory.join("ca.pem").to_str().expect("UTF-8").to_owned()
    }

    fn sign(&self, name: &str) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let file = |kind: &str, text: String| {
            let path = self.directory.join(format!("{name}.{kind}"));
            fs::write(&path, text).expect("written");
            path.to_str().expect("UTF-8").to_owned()
        };
        Identity {
            certificate_file: file("pem", certificate.pem()),
            key_file: file("key", key.serialize_pem()),
            certificate,
            key,
        }
    }

    /// A collector whose certificate is for `name`; it asks for one that this authority signed, or for none.
    async fn collector(&self, name: &str, asks: bool) -> Sink {
        let identity = self.sign(name);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring's versions");
        let builder = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(self.certificate.der().clone()).expect("a certificate");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.serialize_der()));
        let mut config = builder
            .with_single_cert(vec![identity.certificate.der().clone()], key)
            .expect("they belong together");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Sink::start_tls(config).await
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        // What is left behind is small and lies under `target`.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

const PROTOCOLS: [&str; 2] = ["grpc", "http/protobuf"];

async fn everything_arrives_encrypted() {
    let authority = Authority::new("arrives");
    for protocol in PROTOCOLS {
        let sink = authority.collector("localhost", false).await;
        let file = authority.file();
        let bare = sink.url.replace("https://", "");
        // gRPC takes an endpoint without a scheme, and that means TLS.
        let endpoint = if protocol == "grpc" { &bare } else { &sink.url };
        let env = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", file.as_str()),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret"),
        ];
        let service = Running::start("awaited", &env);
        assert_eq!(service.get("/hello").await.status(), 200);
        let lines = service.stop().await;
        assert_eq!(warnings(&lines), Vec::<&str>::new(), "{protocol}");
        assert_eq!(sink.span("GET /hello").service(), "awaited");
        assert!(
            sink.logs().iter().any(|log| log.body() == "the last words"),
            "{protocol}"
        );
        let keys = sink.header("authorization");
        assert!(
            keys.len() >= 2 && keys.iter().all(|key| key == "Bearer s3cret"),
            "{keys:?}"
        );
    }
}

async fn a_certificate_of_our_own_is_shown() {
    let authority = Authority::new("shown");
    let me = authority.sign("me");
    let (asks, asks_not) = (
        authority.collector("localhost", true).await,
        authority.collector("localhost", false).await,
    );
    for protocol in PROTOCOLS {
        let file = authority.file();
        let [traces, logs] = [(&asks, "v1/traces"), (&asks_not, "v1/logs")].map(|(sink, path)| match protocol {
            "grpc" => sink.url.clone(),
            _ => format!("{}/{path}", sink.url),
        });
        let env = [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", traces.as_str()),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", logs.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", file.as_str()),
            ("OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", file.as_str()),
            (
                "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
                me.certificate_file.as_str(),
            ),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", me.key_file.as_str()),
        ];
        let service = Running::start("awaited", &env);
        assert_eq!(service.get("/hello").await.status(), 200);
        let lines = service.stop().await;
        assert_eq!(warnings(&lines), Vec::<&str>::new(), "{protocol}");
    }
    assert_eq!(asks.spans().iter().filter(|s| s.span.name == "GET /hello").count(), 2);
    assert_eq!(asks.logs().len(), 0);
    assert_eq!(
        asks_not
            .logs()
            .iter()
            .filter(|log| log.body() == "the last words")
            .count(),
        2
    );
}

async fn what_goes_wrong_is_said_once_and_harms_nothing() {
    let (authority, stranger) = (Authority::new("known"), Authority::new("stranger"));
    let unknown = stranger.collector("localhost", false).await;
    let misnamed = authority.collector("other.example", false).await;
    let plain = Sink::start().await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("https://{}", listener.local_addr().expect("an address"))
    };
    let cases = [
        (
            unknown.url.clone(),
            "nobody that this service trusts has signed the certificate of localhost",
        ),
        (misnamed.url.clone(), "is for another name"),
        (
            plain.url.replace("http://", "https://"),
            "does not speak TLS on this port",
        ),
        (nobody, "no connection to 127.0.0.1:"),
    ];
    let file = authority.file();
    for (endpoint, words) in &cases {
        for protocol in PROTOCOLS {
            let env = [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", file.as_str()),
                // Each export fails for good after its first attempts.
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
            ];
            let service = Running::start("dropped", &env);
            for _ in 0..2 {
                assert_eq!(service.get("/hello").await.status(), 200);
                assert_eq!(service.get("/flush").await.text().await.expect("a body"), "false");
            }
            let lines = service.stop().await;
            for signal in ["traces", "logs"] {
                let said = warnings(&lines);
                let said: Vec<_> = said
                    .iter()
                    .filter(|line| line.starts_with(&format!("cannot export {signal}")))
                    .collect();
                assert_eq!(said.len(), 1, "{protocol} {endpoint} {said:#?}");
                assert!(said[0].contains(words), "{protocol}: {said:?}, expected {words:?}");
            }
        }
    }
    assert_eq!(unknown.spans().len() + misnamed.spans().len() + plain.spans().len(), 0);
}

async fn a_file_that_is_missing_is_named() {
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:1"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/does/not/exist.pem"),
    ];
    let service = Running::start("awaited", &env);
    assert_eq!(service.get("/hello").await.status(), 200);
    let lines = service.stop().await;
    let said = warnings(&lines);
    assert_eq!(said.len(), 2, "one for each signal: {said:#?}");
    for line in said {
        assert!(
            line.contains("the file /does/not/exist.pem that OTEL_EXPORTER_OTLP_CERTIFICATE names"),
            "{line}"
        );
    }
}

async fn calls_of_the_service_speak_tls() {
    let authority = Authority::new("calls");
    let other = authority.collector("localhost", false).await;
    let url = format!("{}/v1/traces", other.url);
    let file = authority.file();
    for (trusted, answer) in [(file.as_str(), "200 OK"), ("", "UnknownIssuer")] {
        // An empty variable is an unset one: this machine's own certificates count then.
        let env = [
            ("OTEL_SDK_DISABLED", "true"),
            ("TRACKLINE_TEST_CALL", url.as_str()),
            ("SSL_CERT_FILE", trusted),
        ];
        let env = &env[..if trusted.is_empty() { 2 } else { 3 }];
        let service = Running::start("awaited", env);
        let said = service.get("/call").await.text().await.expect("a body");
        assert!(said.contains(answer), "{said}");
        service.stop().await;
    }
    let sent = other.header("traceparent");
    assert!(sent.len() == 1 && sent[0].len() == 55, "the trace went along: {sent:?}");
}

/// The messages of all WARN lines.
fn warnings(lines: &[Value]) -> Vec<&str> {
    let lines = lines.iter().filter(|line| line["level"] == "WARN");
    lines.map(|line| line["message"].as_str().expect("text")).collect()
}
