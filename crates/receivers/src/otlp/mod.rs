//! OTLP over gRPC and HTTP.
//!
//! ```yaml
//! receivers:
//!   otlp:
//!     protocols:
//!       grpc:
//!         endpoint: 127.0.0.1:4317
//!       http:
//!         endpoint: 127.0.0.1:4318
//!         cors:
//!           allowed_origins: ["https://app.example.com"]
//! ```
//!
//! gRPC: unary `Export` of the three collector services, compressed with gzip or zstd. HTTP: POST of protobuf or JSON on
//! `/v1/traces`, `/v1/logs`, `/v1/metrics`, compressed with gzip, zstd or deflate. Both come together in `crate::admit`.

mod answer;
mod config;
mod cors;
mod http;

use std::sync::Arc;
use std::time::Duration;

use model::Signal;
use net::auth::AuthError;
use net::{At, Collision, DoorSettings, Doors, Mount, handler_fn};
use pipeline::Intake;

pub use config::{BadConfig, Config, DEFAULT_GRPC_ENDPOINT, DEFAULT_HTTP_ENDPOINT, GrpcConfig, HttpConfig, Protocols};
pub use cors::{BadHeaderName, CorsConfig};

use crate::admit::Core;
use crate::body;
use crate::guard::Guard;
use crate::settings::{self, Counters};
use crate::unary::{self, Method};
use cors::Cors;
use http::HttpDoor;

/// The collector services, one per signal.
const fn service_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "opentelemetry.proto.collector.trace.v1.TraceService",
        Signal::Logs => "opentelemetry.proto.collector.logs.v1.LogsService",
        Signal::Metrics => "opentelemetry.proto.collector.metrics.v1.MetricsService",
    }
}

/// Why the receiver cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error(transparent)]
    Config(#[from] BadConfig),
    #[error(transparent)]
    Cors(#[from] BadHeaderName),
    #[error(transparent)]
    Collision(#[from] Collision),
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// What the receiver left behind when it was mounted.
#[derive(Debug)]
pub struct Mounted {
    /// How `net::Open::address_of` knows the gRPC door.
    pub grpc: Option<String>,
    /// How it knows the HTTP door.
    pub http: Option<String>,
    /// Counts that the ledger does not hold.
    pub counters: Arc<Counters>,
    /// What the operator should hear about the configuration.
    pub warnings: Vec<String>,
}

/// Mounts the receiver's routes on the doors. Requests are answered once the doors open.
pub fn mount(config: &Config, intake: Intake, doors: &mut Doors) -> Result<Mounted, MountError> {
    mount_with(config, intake, doors, body::PATIENCE)
}

fn mount_with(config: &Config, intake: Intake, doors: &mut Doors, patience: Duration) -> Result<Mounted, MountError> {
    config.check()?;
    let receiver = Arc::clone(intake.receiver());
    let Protocols { grpc, http } = &config.protocols;
    let core = Core::new(intake, patience);
    let mut mounted = Mounted {
        grpc: None,
        http: None,
        counters: Arc::clone(&core.counters),
        warnings: Vec::new(),
    };
    if let Some(config) = grpc {
        let who = format!("receiver {receiver} (grpc)");
        let limit = (config.max_recv_msg_size_mib << 20) as usize;
        let guard = Guard::new(config.auth.as_ref())?;
        for signal in Signal::ALL {
            let (core, guard) = (Arc::clone(&core), guard.clone());
            let method = Method {
                service: service_name(signal),
                name: "Export",
                signal,
                translation: None,
                limit,
                include_metadata: config.include_metadata,
                reply: |accepted| Ok(accepted.proto()),
            };
            let mount = Mount::Grpc {
                name: method.service,
                service: handler_fn(move |request| unary::answer(Arc::clone(&core), guard.clone(), method, request)),
            };
            let settings = DoorSettings {
                tls: config.tls.clone(),
                max_concurrent_streams: config.max_concurrent_streams.map(u32::from),
                ..DoorSettings::default()
            };
            doors.mount_with(&config.endpoint, &who, mount, settings)?;
        }
        if config.keepalive.is_some() {
            mounted.warnings.push(format!(
                "receiver {receiver}: protocols.grpc.keepalive has no effect, doors keep connections alive by themselves"
            ));
        }
        mounted.grpc = Some(who);
    }
    if let Some(config) = http {
        let who = format!("receiver {receiver} (http)");
        let cors = config.cors.as_ref().map(Cors::new).transpose()?.flatten();
        let door = Arc::new(HttpDoor {
            core,
            guard: Guard::new(config.auth.as_ref())?,
            limit: config.max_request_body_size as usize,
            include_metadata: config.include_metadata,
            cors,
        });
        for (signal, path) in [
            (Signal::Traces, &config.traces_url_path),
            (Signal::Logs, &config.logs_url_path),
            (Signal::Metrics, &config.metrics_url_path),
        ] {
            let door = Arc::clone(&door);
            let mount = Mount::Http {
                at: At::Path(path.clone()),
                service: handler_fn(move |request| http::answer(Arc::clone(&door), signal, request)),
            };
            let settings = DoorSettings {
                tls: config.tls.clone(),
                ..DoorSettings::default()
            };
            doors.mount_with(&config.endpoint, &who, mount, settings)?;
        }
        mounted.http = Some(who);
    }
    Ok(mounted)
}

impl settings::Settings for Config {
    fn mount(self: Box<Self>, intake: Intake, doors: &mut Doors) -> Result<settings::Mounted, settings::MountError> {
        let Mounted { counters, warnings, .. } = mount(&self, intake, doors)?;
        Ok(settings::Mounted {
            counters,
            warnings,
            ..Default::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::{Ack, Budget, Ledger};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// With no patience at all, a body that is not there with its head has stalled.
    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let (ledger, budget) = (Ledger::new(), Budget::root("test", 1 << 20));
        let entry = |_: model::Batch, ack: Ack| ack.delivered();
        let intake = Intake::new("otlp", &ledger, budget.clone(), vec![(Signal::Logs, Arc::new(entry))]);
        let mut config = Config::both();
        config.protocols.grpc = None;
        config.protocols.http.as_mut().unwrap().endpoint = "127.0.0.1:0".parse().unwrap();
        let mut doors = Doors::new();
        let mounted = mount_with(&config, intake, &mut doors, Duration::ZERO).unwrap();
        let open = doors.open().await.unwrap();
        let mut stream = TcpStream::connect(open.address_of(&mounted.http.unwrap()).unwrap())
            .await
            .unwrap();
        let head =
            b"POST /v1/logs HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
        stream.write_all(head).await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 408");
        drop(stream);
        assert!(open.shutdown(Duration::from_secs(10)).await);
        assert_eq!(ledger.snapshot().doors[1].refused.total(), 1);
        assert_eq!(budget.used_bytes(), 0);
    }
}
