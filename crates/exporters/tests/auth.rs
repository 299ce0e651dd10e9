//! Exporters that name an authenticator, against doors that ask for one: what the one sends is what the other wants, over each protocol.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use model::{Batch, Encoding, Meta, Signal};
use net::{Doors, Open};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use pipeline::config::{Config, Source};
use pipeline::{Ack, Budget, Entry, Exporter, Intake, Ledger, Outcome, Reason};
use prost::Message;
use receivers::Settings;

const RECEIVERS: &str = "
receivers:
  otlp:
    protocols:
      grpc: { endpoint: 127.0.0.1:0, auth: { authenticator: bearertokenauth } }
      http: { endpoint: 127.0.0.1:0, auth: { authenticator: basicauth } }
  loki: { protocols: { http: { endpoint: 127.0.0.1:0, auth: { authenticator: basicauth } } } }
  jaeger: { protocols: { grpc: { endpoint: 127.0.0.1:0, auth: { authenticator: bearertokenauth } } } }
  prometheusremotewrite: { endpoint: 127.0.0.1:0, auth: { authenticator: basicauth } }
extensions:
  basicauth: { htpasswd: { inline: 'user:pass' } }
  bearertokenauth: { filename: TOKEN }
service: { extensions: [basicauth, bearertokenauth], pipelines: { traces: {} } }
";

async fn receivers(token: &str) -> (Open, Ledger) {
    let text = RECEIVERS.replace("TOKEN", token);
    let config = Config::load(vec![Source::new("test", text)], &|_| None).unwrap();
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
        let intake = Intake::new(component.id.as_str(), &ledger, Budget::root("test", 64 << 20), routes);
        settings.mount(intake, &mut doors).unwrap();
    }
    (doors.open().await.unwrap(), ledger)
}

fn batch(signal: Signal) -> Batch {
    let payload = match signal {
        Signal::Traces => ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                scope_spans: vec![ScopeSpans {
                    spans: vec![Span {
                        trace_id: vec![7; 16],
                        span_id: vec![7; 8],
                        ..Span::default()
                    }],
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        }
        .encode_to_vec(),
        Signal::Logs => ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                scope_logs: vec![ScopeLogs {
                    log_records: vec![LogRecord {
                        time_unix_nano: 1_700_000_000_000_000_000,
                        ..LogRecord::default()
                    }],
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            }],
        }
        .encode_to_vec(),
        Signal::Metrics => ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                scope_metrics: vec![ScopeMetrics {
                    metrics: vec![Metric {
                        name: "up".into(),
                        data: Some(metric::Data::Gauge(Gauge {
                            data_points: vec![NumberDataPoint {
                                time_unix_nano: 1_700_000_000_000_000_000,
                                value: Some(number_data_point::Value::AsInt(1)),
                                ..NumberDataPoint::default()
                            }],
                        })),
                        ..Metric::default()
                    }],
                    ..ScopeMetrics::default()
                }],
                ..ResourceMetrics::default()
            }],
        }
        .encode_to_vec(),
    };
    Batch {
        signal,
        encoding: Encoding::Otlp,
        payload: payload.into(),
        items: 1,
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

/// An exporter of a kind to an address, with the authenticators that it may name.
fn exporter(kind: &str, settings: &str, extensions: &str) -> Box<dyn Exporter> {
    let text = format!(
        "exporters: {{ it: {{ {settings} }} }}\nextensions: {{ {extensions}, headers_setter: {{ headers: [ {{ key: Authorization, from_context: authorization }} ] }} }}\n\
         service: {{ extensions: [basicauth, bearertokenauth, headers_setter], pipelines: {{ traces: {{}} }} }}\n"
    );
    let config = Config::load(vec![Source::new("test", text)], &|_| None).unwrap();
    let section = config.section(&config.exporters[0]);
    let told = |problems: pipeline::config::Problems| -> ! { panic!("{problems}") };
    match kind {
        "otlp" => Box::new(
            exporters::otlp::Otlp::new(&exporters::otlp::parse(&section).unwrap_or_else(|it| told(it))).unwrap(),
        ),
        "otlphttp" => Box::new(
            exporters::otlphttp::OtlpHttp::new(&exporters::otlphttp::parse(&section).unwrap_or_else(|it| told(it)))
                .unwrap(),
        ),
        "loki" => Box::new(
            exporters::loki::Loki::new(&exporters::loki::parse(&section).unwrap_or_else(|it| told(it))).unwrap(),
        ),
        "jaeger" => Box::new(
            exporters::jaeger::Jaeger::new(&exporters::jaeger::parse(&section).unwrap_or_else(|it| told(it))).unwrap(),
        ),
        _ => {
            let config = exporters::prometheusremotewrite::parse(&section).unwrap_or_else(|it| told(it));
            Box::new(exporters::prometheusremotewrite::RemoteWrite::new(&config).unwrap())
        }
    }
}

#[tokio::test]
async fn what_an_exporter_sends_is_what_a_door_wants() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    fs::write(&token, "s3cret\n").unwrap();
    let (open, ledger) = receivers(token.to_str().unwrap()).await;
    let at = |who: &str| -> SocketAddr { open.address_of(&format!("receiver {who}")).unwrap() };
    let right = format!(
        "basicauth: {{ client_auth: {{ username: user, password: pass }} }}, bearertokenauth: {{ filename: '{}' }}",
        token.display()
    );
    let wrong = "basicauth: { client_auth: { username: user, password: word } }, bearertokenauth: { token: x }";
    let plain = "tls: { insecure: true }";
    let kinds = [
        (
            "otlp",
            Signal::Traces,
            "bearertokenauth",
            format!("endpoint: '{}', {plain}", at("otlp (grpc)")),
        ),
        (
            "otlphttp",
            Signal::Logs,
            "basicauth",
            format!("endpoint: 'http://{}'", at("otlp (http)")),
        ),
        (
            "loki",
            Signal::Logs,
            "basicauth",
            format!("endpoint: 'http://{}'", at("loki (http)")),
        ),
        (
            "jaeger",
            Signal::Traces,
            "bearertokenauth",
            format!("endpoint: '{}', {plain}", at("jaeger (grpc)")),
        ),
        (
            "prometheusremotewrite",
            Signal::Metrics,
            "basicauth",
            format!("endpoint: 'http://{}/api/v1/write'", at("prometheusremotewrite (http)")),
        ),
    ];
    for (kind, signal, authenticator, settings) in &kinds {
        let named = format!("{settings}, auth: {{ authenticator: {authenticator} }}");
        let outcome = exporter(kind, &named, &right).export(batch(*signal)).await;
        assert_eq!(outcome, Outcome::Delivered, "{kind}");
        for (settings, extensions) in [(&named, wrong), (settings, &right)] {
            let outcome = exporter(kind, settings, extensions).export(batch(*signal)).await;
            let expect = Outcome::retry(std::time::Duration::ZERO, Reason::BackendUnauthorized);
            assert_eq!(outcome, expect, "{kind}");
        }
    }

    // What a sender says goes on as it came. One with a wrong token stopped the exporter, and with it all others.
    for (kind, signal, authenticator, settings) in &kinds {
        let named = format!("{settings}, auth: {{ authenticator: headers_setter }}");
        let exporter = exporter(kind, &named, &right);
        let says = |value: &str| {
            let batch = batch(*signal);
            let meta = Meta {
                headers: vec![("authorization".into(), value.into())],
                ..Meta::clone(&batch.meta)
            };
            Batch {
                meta: Arc::new(meta),
                ..batch
            }
        };
        let known = match *authenticator {
            "basicauth" => "Basic dXNlcjpwYXNz",
            _ => "Bearer s3cret",
        };
        assert_eq!(exporter.export(says(known)).await, Outcome::Delivered, "{kind}");
        let outcome = exporter.export(says("Bearer wrong")).await;
        assert!(
            matches!(&outcome, Outcome::Rejected { reason, items: 1 } if reason.kind == Reason::BackendRejected),
            "{kind}: {outcome:?}"
        );
    }

    // The token is renewed on both sides while everything runs.
    let (kind, signal, authenticator, settings) = &kinds[0];
    let named = format!("{settings}, auth: {{ authenticator: {authenticator} }}");
    let exporter = exporter(kind, &named, &right);
    assert_eq!(exporter.export(batch(*signal)).await, Outcome::Delivered);
    fs::write(&token, "renewed").unwrap();
    assert_eq!(exporter.export(batch(*signal)).await, Outcome::Delivered);
    assert!(open.shutdown(std::time::Duration::from_secs(30)).await);
    ledger.balance().unwrap();
}
