//! Doors with an authenticator: who has no valid credentials is told so in the protocol's own words before the body is read, and is counted.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::{Batch, Signal};
use net::{Doors, Open};
use pipeline::config::{Config, Source};
use pipeline::{Ack, Budget, Entry, Intake, Ledger};
use receivers::Settings;
use support::{JSON, PROTOBUF, TRACE_EXPORT, call, frame, post, spans};

const YAML: &str = "
receivers:
  otlp:
    protocols:
      grpc: { endpoint: 127.0.0.1:0, auth: { authenticator: bearertokenauth } }
      http: { endpoint: 127.0.0.1:0, auth: { authenticator: basicauth/senders }, cors: { allowed_origins: ['*'] } }
  loki:
    protocols: { http: { endpoint: 127.0.0.1:0, auth: { authenticator: basicauth/senders } } }
  jaeger:
    protocols:
      grpc: { endpoint: 127.0.0.1:0, auth: { authenticator: basicauth/senders } }
      thrift_http: { endpoint: 127.0.0.1:0, auth: { authenticator: bearertokenauth } }
  prometheusremotewrite: { endpoint: 127.0.0.1:0, auth: { authenticator: basicauth/senders } }
extensions:
  basicauth/senders: { htpasswd: { inline: 'user:pass' } }
  bearertokenauth: { tokens: [s3cret, other] }
service:
  extensions: [basicauth/senders, bearertokenauth]
  pipelines: { traces: {} }
";

const BASIC: (&str, &str) = ("authorization", "Basic dXNlcjpwYXNz");
const BEARER: (&str, &str) = ("authorization", "Bearer other");
const WRONG: (&str, &str) = ("authorization", "Bearer s3cre");

struct Running {
    open: Open,
    ledger: Ledger,
}

impl Running {
    async fn start() -> Running {
        let config = Config::load(vec![Source::new("test", YAML)], &|_| None).unwrap();
        let (ledger, mut doors) = (Ledger::new(), Doors::new());
        for component in &config.receivers {
            let section = config.section(component);
            let settings: Box<dyn Settings> = match component.id.as_str() {
                "otlp" => Box::new(receivers::otlp::Config::parse(&section).unwrap()),
                "loki" => Box::new(receivers::loki::Config::parse(&section).unwrap()),
                "jaeger" => Box::new(receivers::jaeger::Config::parse(&section).unwrap()),
                _ => Box::new(receivers::prometheusremotewrite::Config::parse(&section).unwrap()),
            };
            let entry: Arc<dyn Entry> = Arc::new(|_: Batch, ack: Ack| ack.delivered());
            let routes = Signal::ALL.map(|signal| (signal, Arc::clone(&entry))).to_vec();
            let budget = Budget::root("test", 64 << 20);
            let intake = Intake::new(component.id.as_str(), &ledger, budget, routes);
            settings.mount(intake, &mut doors).unwrap();
        }
        let open = doors.open().await.unwrap();
        Running { open, ledger }
    }

    fn at(&self, who: &str) -> SocketAddr {
        self.open.address_of(&format!("receiver {who}")).unwrap()
    }

    /// How often a receiver's book for a signal has it as rejected for want of credentials.
    fn unauthorized(&self, receiver: &str, signal: Signal) -> u64 {
        let books = self.ledger.json();
        let doors = books["doors"].as_array().unwrap();
        let is_it = |door: &&serde_json::Value| door["receiver"] == receiver && door["signal"] == signal.as_str();
        let door = doors.iter().find(is_it).unwrap();
        door["rejected"]["unauthorized"].as_u64().unwrap_or(0)
    }
}

#[tokio::test]
async fn who_is_nobody_is_told_so_in_the_protocols_own_words() {
    let running = Running::start().await;

    // OTLP over gRPC: UNAUTHENTICATED.
    let grpc = running.at("otlp (grpc)");
    for headers in [&[][..], &[WRONG], &[BASIC]] {
        let answer = call(grpc, TRACE_EXPORT, headers, frame(0, &spans(1))).await;
        assert_eq!((answer.http_status, answer.status), (200, 16), "{headers:?}");
        assert!(answer.details.is_none(), "nothing to try again");
    }
    let answer = call(grpc, TRACE_EXPORT, &[BEARER], frame(0, &spans(1))).await;
    assert_eq!(answer.status, 0, "{}", answer.message);

    // OTLP over HTTP: 401, a status in the sender's format, and a challenge.
    let http = running.at("otlp (http)");
    let answer = post(http, "/v1/traces", &[PROTOBUF], &spans(1)).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("content-type"), Some("application/x-protobuf"));
    assert!(answer.header("www-authenticate").unwrap().starts_with("Basic realm="));
    assert_eq!(answer.body[..2], [0x08, 16], "google.rpc.Status says UNAUTHENTICATED");
    let answer = post(http, "/v1/traces", &[JSON, WRONG], b"{").await;
    assert_eq!(answer.status, 401, "the body is not looked at");
    assert!(String::from_utf8(answer.body).unwrap().contains("\"code\":16"));
    let answer = post(http, "/v1/traces", &[PROTOBUF, BASIC], &spans(1)).await;
    assert_eq!(answer.status, 200);
    // A browser asks without credentials whether it may send them.
    let preflight =
        "OPTIONS /v1/traces HTTP/1.1\r\nhost: test\r\norigin: http://a\r\naccess-control-request-method: POST\r\n\r\n";
    assert_eq!(support::raw_http(http, preflight.as_bytes()).await.status, 204);

    let text = ("content-type", "application/json");
    let lines = br#"{"streams":[{"stream":{"a":"b"},"values":[["1700000000000000000","line"]]}]}"#;
    let loki = running.at("loki (http)");
    assert_eq!(post(loki, "/loki/api/v1/push", &[text], lines).await.status, 401);
    assert_eq!(post(loki, "/loki/api/v1/push", &[text, BASIC], lines).await.status, 204);

    let jaeger = running.at("jaeger (grpc)");
    let method = "/jaeger.api_v2.CollectorService/PostSpans";
    assert_eq!(call(jaeger, method, &[BEARER], frame(0, &[])).await.status, 16);
    assert_eq!(call(jaeger, method, &[BASIC], frame(0, &[])).await.status, 0);
    let thrift = running.at("jaeger (thrift_http)");
    let answer = post(thrift, "/api/traces", &[("content-type", "application/x-thrift")], b"x").await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (401, Some("Bearer"))
    );

    let write = running.at("prometheusremotewrite (http)");
    let packed = [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
    ];
    let nothing = [0];
    assert_eq!(post(write, "/api/v1/write", &packed, &nothing).await.status, 401);
    let with = [packed[0], packed[1], BASIC];
    assert_eq!(post(write, "/api/v1/write", &with, &nothing).await.status, 204);

    for (receiver, signal, expect) in [
        ("otlp", Signal::Traces, 5),
        ("loki", Signal::Logs, 1),
        ("jaeger", Signal::Traces, 2),
        ("prometheusremotewrite", Signal::Metrics, 1),
    ] {
        assert_eq!(running.unauthorized(receiver, signal), expect, "{receiver}");
    }
    assert!(running.open.shutdown(Duration::from_secs(10)).await);
    running.ledger.balance().unwrap();
}

#[test]
fn a_name_that_leads_nowhere_is_shown_with_what_was_meant() {
    let check = |from: &str, to: &str, expect: &str| {
        assert!(YAML.contains(from));
        let config = Config::load(vec![Source::new("test", YAML.replacen(from, to, 1))], &|_| None).unwrap();
        let said = config
            .receivers
            .iter()
            .find_map(|component| {
                let section = config.section(component);
                match component.id.as_str() {
                    "otlp" => receivers::otlp::Config::parse(&section).err(),
                    _ => receivers::loki::Config::parse(&section).err(),
                }
            })
            .unwrap()
            .to_string();
        assert!(said.contains(expect), "{said}\n{expect}");
        for secret in ["user:pass", "userpass", "s3cret"] {
            assert!(!said.contains(secret), "{said}");
        }
    };
    check(
        "authenticator: bearertokenauth",
        "authenticator: bearertokenaut",
        "test:5:61: the extension `bearertokenaut` is not defined",
    );
    check(
        "authenticator: bearertokenauth",
        "authenticator: bearertokenaut",
        "^^^^^^^^^^^^^^ did you mean `bearertokenauth`?",
    );
    check(
        "extensions: [basicauth/senders, bearertokenauth]",
        "extensions: [basicauth/senders]",
        "`service.extensions` does not list `bearertokenauth`",
    );
    check(
        "htpasswd: { inline: 'user:pass' }",
        "client_auth: { username: user, password: pass }",
        "`basicauth/senders` knows no senders",
    );
    check(
        "htpasswd: { inline: 'user:pass' }",
        "htpasswd: { inline: 'userpass' }",
        "line 1: expected `name:password`",
    );
}
