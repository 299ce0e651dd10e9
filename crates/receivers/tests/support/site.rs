//! Something that can be asked over HTTP: a service with a health page, an exposition, a discovery endpoint, and each of them when it misbehaves.
#![allow(dead_code)] // Each test binary uses its part.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::{Batch, Signal};
use net::Doors;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, metric, number_data_point};
use pipeline::{Ack, Budget, Entry, Intake, Ledger, Outcome};
use prost::Message;
use receivers::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A wait that ends well before it; longer is a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a site does with a request.
#[derive(Clone)]
pub enum Reply {
    /// A status, headers (each with its line end) and a body with its length.
    Whole(u16, &'static str, Vec<u8>),
    /// A head, and then the same bytes for ever.
    Endless(&'static str, Vec<u8>),
    /// Nothing, while the connection stays open.
    Silence,
    /// These bytes as they are, and the end of the connection.
    Raw(Vec<u8>),
}

impl Reply {
    /// The same with more bytes at the end of the body.
    pub fn raw_tail(self, tail: &[u8]) -> Reply {
        match self {
            Reply::Whole(status, headers, body) => Reply::Whole(status, headers, [&body[..], tail].concat()),
            other => other,
        }
    }
}

/// A request as it came: its first line and headers, and its body.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

type Answering = Arc<Mutex<Box<dyn FnMut(&Seen) -> Reply + Send>>>;

pub struct Site {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    answering: Answering,
    serving: JoinHandle<()>,
}

impl Site {
    pub async fn start(answer: impl FnMut(&Seen) -> Reply + Send + 'static) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answering: Answering = Arc::new(Mutex::new(Box::new(answer)));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (asked, kept) = (answering.clone(), seen.clone());
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, asked.clone(), kept.clone()));
            }
        });
        Site {
            address,
            seen,
            answering,
            serving,
        }
    }

    /// From now on it answers so.
    pub fn answers(&self, answer: impl FnMut(&Seen) -> Reply + Send + 'static) {
        *self.answering.lock().unwrap() = Box::new(answer);
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut stream: TcpStream, answering: Answering, kept: Arc<Mutex<Vec<Seen>>>) {
    while let Some(seen) = read_request(&mut stream).await {
        kept.lock().unwrap().push(seen.clone());
        let reply = (answering.lock().unwrap())(&seen);
        match reply {
            Reply::Whole(status, headers, body) => {
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n");
                if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
                    return;
                }
            }
            Reply::Raw(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Reply::Endless(head, bytes) => {
                if stream.write_all(head.as_bytes()).await.is_err() {
                    return;
                }
                while stream.write_all(&bytes).await.is_ok() {}
                return;
            }
            Reply::Silence => {
                // Until the other side has had enough.
                let mut buffer = [0; 64];
                while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
                return;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let seen = Seen {
                head: String::from_utf8(bytes[..end].to_vec()).unwrap(),
                body: bytes[end + 4..].to_vec(),
            };
            let length: usize = seen.header("content-length").map_or(0, |v| v.parse().unwrap());
            if seen.body.len() >= length {
                return Some(seen);
            }
        }
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
    }
}

/// A receiver that works by itself, over a graph that a test can look into.
pub struct Working {
    pub ledger: Ledger,
    pub budget: Budget,
    pub batches: watch::Receiver<Vec<Batch>>,
    pub outcome: Arc<Mutex<Outcome>>,
    pub warnings: Vec<String>,
    stop: watch::Sender<bool>,
    work: JoinHandle<()>,
}

impl Working {
    pub fn start(name: &str, settings: impl Settings, budget_bytes: u64) -> Working {
        let ledger = Ledger::new();
        let budget = Budget::root("test", budget_bytes);
        let (arrived, batches) = watch::channel(Vec::new());
        let outcome = Arc::new(Mutex::new(Outcome::Delivered));
        let answer = outcome.clone();
        let entry: Arc<dyn Entry> = Arc::new(move |batch: Batch, ack: Ack| {
            let outcome = answer.lock().unwrap().clone();
            if outcome == Outcome::Delivered {
                arrived.send_modify(|list: &mut Vec<Batch>| list.push(batch));
            }
            ack.resolve(outcome);
        });
        let intake = Intake::new(name, &ledger, budget.clone(), vec![(Signal::Metrics, entry)]);
        let mounted = Box::new(settings).mount(intake, &mut Doors::new()).unwrap();
        let (stop, stopped) = watch::channel(false);
        let work = tokio::spawn((mounted.work.unwrap())(stopped));
        Working {
            ledger,
            budget,
            batches,
            outcome,
            warnings: mounted.warnings,
            stop,
            work,
        }
    }

    /// Waits until the points that have arrived, as text, say what is wanted.
    pub async fn until(&mut self, what: &str, mut is_there: impl FnMut(&[String]) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        let waited = tokio::time::timeout(
            PATIENCE,
            self.batches.wait_for(|batches| {
                lines = batches.iter().flat_map(told).collect();
                is_there(&lines)
            }),
        )
        .await;
        assert!(
            waited.is_ok(),
            "{what}: it did not come; there is\n{}",
            lines.join("\n")
        );
        lines
    }

    /// Stops it and checks that nothing is unaccounted for.
    pub async fn finish(self) {
        self.stop.send(true).unwrap();
        tokio::time::timeout(PATIENCE, self.work)
            .await
            .expect("it ends")
            .unwrap();
        self.ledger.balance().unwrap();
        drop(self.batches);
        assert_eq!(self.budget.used_bytes(), 0, "all reserved memory was given back");
    }

    /// How many points were turned away for a reason.
    pub fn turned_away(&self, reason: &str) -> u64 {
        let books = self.ledger.json();
        let doors = books["doors"].as_array().unwrap();
        let door = doors.iter().find(|d| d["signal"] == "metrics").unwrap();
        ["refused", "rejected"]
            .iter()
            .map(|kind| door[kind][reason].as_u64().unwrap_or(0))
            .sum()
    }
}

/// The points of a batch, one a line: `resource| name{attributes} value`, with a remark where it is not a plain number.
pub fn told(batch: &Batch) -> Vec<String> {
    let request = ExportMetricsServiceRequest::decode(&batch.payload[..]).unwrap();
    let mut lines = Vec::new();
    for resource in &request.resource_metrics {
        let about = resource
            .resource
            .as_ref()
            .map(|it| pairs(&it.attributes))
            .unwrap_or_default();
        for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            let mut line = |kind: &str, attributes: &[KeyValue], flags: u32, value: String| {
                let stale = if flags & 1 == 1 { " stale" } else { "" };
                let name = &metric.name;
                lines.push(format!(
                    "{about}| {kind} {name}{{{}}} {value}{stale}",
                    pairs(attributes)
                ));
            };
            match metric.data.as_ref().unwrap() {
                metric::Data::Gauge(gauge) => {
                    for point in &gauge.data_points {
                        line("gauge", &point.attributes, point.flags, number(point));
                    }
                }
                metric::Data::Sum(sum) => {
                    for point in &sum.data_points {
                        let kind = if sum.is_monotonic { "counter" } else { "sum" };
                        let ids: Vec<String> = point
                            .exemplars
                            .iter()
                            .map(|it| {
                                format!(
                                    " trace={}",
                                    it.trace_id.iter().map(|b| format!("{b:02x}")).collect::<String>()
                                )
                            })
                            .collect();
                        line(kind, &point.attributes, point.flags, number(point) + &ids.concat());
                    }
                }
                metric::Data::Histogram(histogram) => {
                    for point in &histogram.data_points {
                        let value = format!(
                            "{} {:?} {:?} {:?}",
                            point.count, point.sum, point.explicit_bounds, point.bucket_counts
                        );
                        line("histogram", &point.attributes, point.flags, value);
                    }
                }
                metric::Data::Summary(summary) => {
                    for point in &summary.data_points {
                        let quantiles: Vec<_> =
                            point.quantile_values.iter().map(|it| (it.quantile, it.value)).collect();
                        line(
                            "summary",
                            &point.attributes,
                            point.flags,
                            format!("{} {} {quantiles:?}", point.count, point.sum),
                        );
                    }
                }
                metric::Data::ExponentialHistogram(histogram) => {
                    for point in &histogram.data_points {
                        line("exponential", &point.attributes, point.flags, point.count.to_string());
                    }
                }
            }
        }
    }
    lines
}

/// Points of the year 2023 and later are about now; older ones have been given a time.
const NOW_UNIX_NANO: u64 = 1_680_000_000_000_000_000;

fn number(point: &NumberDataPoint) -> String {
    let value = match point.value {
        Some(number_data_point::Value::AsInt(value)) => value.to_string(),
        Some(number_data_point::Value::AsDouble(value)) => value.to_string(),
        None => "-".to_owned(),
    };
    match point.time_unix_nano {
        time if time < NOW_UNIX_NANO => format!("{value} at {}", time / 1_000_000),
        _ => value,
    }
}

fn pairs(attributes: &[KeyValue]) -> String {
    let mut list: Vec<String> = attributes
        .iter()
        .map(|pair| format!("{}={}", pair.key, text(pair.value.as_ref())))
        .collect();
    list.sort();
    list.join(",")
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}
