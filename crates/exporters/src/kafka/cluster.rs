//! The brokers of a cluster: connections to them, who leads which partition, and one question at a time on a connection.
//!
//! A connection is one request's until its answer has been read; then it is kept for the next. A request that is given up takes its connection with it,
//! so an answer never reaches the wrong one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use codec::kafka::{self, Api, Code, code};
use net::dial::DialError;
use net::socket::{Dialer, Socket, unguessable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::sasl::{Login, Mechanism, Scram};

/// The most that is read of an answer; the metadata of a topic of 10,000 partitions has 400 KiB.
const MAX_ANSWER_BYTES: u32 = 16 << 20;

/// Memory for an answer before its first byte has come.
const ANSWER_START_BYTES: usize = 4 << 10;

/// Idle connections to one broker that are kept: what a window of requests in flight uses.
const MAX_IDLE_CONNECTIONS: usize = 16;

/// Topics whose leaders are remembered. Where an attribute names the topic, strangers may name many.
const MAX_TOPICS: usize = 1_000;

/// How long one broker may take to say who leads, connecting included, before the next is asked.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);

/// Host and port.
pub type Address = (Arc<str>, u16);

/// What a cluster needs to be reached.
pub struct Settings {
    pub brokers: Vec<Address>,
    pub client_id: String,
    pub login: Option<Login>,
    pub idle_timeout: Duration,
    pub refresh_interval: Duration,
    pub create_topics: bool,
}

pub struct Cluster {
    settings: Settings,
    dialer: Dialer,
    known: tokio::sync::Mutex<Known>,
    idle: Mutex<HashMap<Address, Vec<(Instant, Connection)>>>,
    correlation: AtomicI32,
}

#[derive(Default)]
struct Known {
    brokers: Vec<Address>,
    topics: HashMap<Arc<str>, (Instant, Arc<[Partition]>)>,
}

/// Where a partition's records go; nowhere while it has no leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub index: i32,
    pub leader: Option<Address>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("{0}")]
    Dial(#[from] DialError),
    #[error("the connection to {address} broke: {why}")]
    Broken { address: String, why: String },
    #[error("{address} does not let us in: {why}")]
    Login { address: String, why: String },
    /// About a topic.
    #[error("the topic `{topic}`: {} ({code})", code::name(*.code))]
    Topic { topic: Arc<str>, code: Code },
    #[error("none of the brokers answers")]
    Nobody,
}

struct Connection {
    socket: Box<dyn Socket>,
}

impl Cluster {
    pub fn new(settings: Settings, dialer: Dialer) -> Cluster {
        Cluster {
            settings,
            dialer,
            known: tokio::sync::Mutex::default(),
            idle: Mutex::default(),
            correlation: AtomicI32::new(0),
        }
    }

    /// The partitions of a topic by their index, at least one.
    pub async fn partitions(&self, topic: &Arc<str>) -> Result<Arc<[Partition]>, CallError> {
        // Held while asking: whoever comes meanwhile waits for the same answer.
        let mut known = self.known.lock().await;
        if let Some((since, partitions)) = known.topics.get(topic)
            && since.elapsed() < self.settings.refresh_interval
        {
            return Ok(Arc::clone(partitions));
        }
        let metadata = self.metadata(&known.brokers, topic).await?;
        let brokers: HashMap<i32, Address> = metadata
            .brokers
            .into_iter()
            .filter_map(|broker| Some((broker.id, (broker.host.into(), u16::try_from(broker.port).ok()?))))
            .collect();
        known.brokers = brokers.values().cloned().collect();
        let found = metadata.topics.into_iter().find(|found| *found.name == **topic);
        let failed = |code| CallError::Topic {
            topic: Arc::clone(topic),
            code,
        };
        let found = found.ok_or(failed(code::UNKNOWN_TOPIC_OR_PARTITION))?;
        if found.code != code::NONE {
            return Err(failed(found.code));
        }
        let mut partitions: Vec<Partition> = found
            .partitions
            .iter()
            .map(|partition| Partition {
                index: partition.index,
                leader: brokers.get(&partition.leader).cloned(),
            })
            .collect();
        partitions.sort_by_key(|partition| partition.index);
        if partitions.iter().all(|partition| partition.leader.is_none()) {
            return Err(failed(code::LEADER_NOT_AVAILABLE));
        }
        let partitions: Arc<[Partition]> = partitions.into();
        if known.topics.len() >= MAX_TOPICS {
            known.topics.clear();
        }
        known
            .topics
            .insert(Arc::clone(topic), (Instant::now(), Arc::clone(&partitions)));
        Ok(partitions)
    }

    /// What is known of a topic is wrong.
    pub async fn forget(&self, topic: &str) {
        self.known.lock().await.topics.remove(topic);
    }

    /// Asks the brokers one after the other, beginning anywhere; those of the configuration last, in case all others have moved away.
    async fn metadata(&self, known: &[Address], topic: &str) -> Result<kafka::Metadata, CallError> {
        let mut error = CallError::Nobody;
        let body = {
            let mut body = Vec::new();
            kafka::put_metadata(&mut body, [topic].into_iter(), self.settings.create_topics);
            body
        };
        let turned = |list: &[Address]| {
            let mut list = list.to_vec();
            if !list.is_empty() {
                let by = fastrand::usize(..list.len());
                list.rotate_left(by);
            }
            list
        };
        for address in turned(known).into_iter().chain(turned(&self.settings.brokers)) {
            let asked = tokio::time::timeout(METADATA_TIMEOUT, self.call(&address, Api::Metadata, &body));
            match asked.await {
                Ok(Ok(answer)) => match kafka::metadata(&answer) {
                    Ok(metadata) => return Ok(metadata),
                    Err(why) => error = broken(&address, why.to_string()),
                },
                Ok(Err(why)) => error = why,
                Err(_) => error = broken(&address, format!("no answer in {METADATA_TIMEOUT:?}")),
            }
        }
        Err(error)
    }

    /// Asks a broker; its answer.
    pub async fn call(&self, address: &Address, api: Api, body: &[u8]) -> Result<Vec<u8>, CallError> {
        let mut connection = self.connection(address).await?;
        let answer = self.ask(&mut connection, api, body).await;
        let answer = answer.map_err(|why| broken(address, why))?;
        self.keep(address, connection);
        Ok(answer)
    }

    /// Tells a broker something that it does not answer.
    pub async fn tell(&self, address: &Address, api: Api, body: &[u8]) -> Result<(), CallError> {
        let mut connection = self.connection(address).await?;
        let message = self.message(api, body).1;
        let told = async {
            connection.socket.write_all(&message).await?;
            connection.socket.flush().await
        };
        told.await.map_err(|error| broken(address, error.to_string()))?;
        self.keep(address, connection);
        Ok(())
    }

    fn message(&self, api: Api, body: &[u8]) -> (i32, Vec<u8>) {
        let number = self.correlation.fetch_add(1, Ordering::Relaxed);
        let put = |out: &mut Vec<u8>| out.extend_from_slice(body);
        (number, kafka::request(api, number, &self.settings.client_id, put))
    }

    async fn ask(&self, connection: &mut Connection, api: Api, body: &[u8]) -> Result<Vec<u8>, String> {
        let (number, message) = self.message(api, body);
        let socket = &mut connection.socket;
        let exchange = async {
            socket.write_all(&message).await?;
            socket.flush().await?;
            let length = socket.read_u32().await?;
            if length > MAX_ANSWER_BYTES {
                return Ok(None);
            }
            let mut answer = Vec::with_capacity(ANSWER_START_BYTES.min(length as usize));
            socket.take(u64::from(length)).read_to_end(&mut answer).await?;
            std::io::Result::Ok((answer.len() == length as usize).then_some(answer))
        };
        let answer = exchange.await.map_err(|error| error.to_string())?;
        let answer = answer.ok_or("the answer ends early, or is too long to be one")?;
        let (of, body) = kafka::answer(&answer).map_err(|error| error.to_string())?;
        if of != number {
            return Err("the answer is to another request".to_owned());
        }
        Ok(body.to_vec())
    }

    async fn connection(&self, address: &Address) -> Result<Connection, CallError> {
        let idle = || {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.get_mut(address)?.pop()
        };
        while let Some((since, connection)) = idle() {
            if since.elapsed() < self.settings.idle_timeout {
                return Ok(connection);
            }
        }
        let socket = self.dialer.connect(&address.0, address.1).await?;
        let mut connection = Connection { socket };
        if let Some(login) = &self.settings.login {
            self.log_in(&mut connection, login)
                .await
                .map_err(|why| CallError::Login {
                    address: text(address),
                    why,
                })?;
        }
        Ok(connection)
    }

    fn keep(&self, address: &Address, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(address.clone()).or_default();
        if kept.len() < MAX_IDLE_CONNECTIONS {
            kept.push((Instant::now(), connection));
        }
    }

    async fn log_in(&self, connection: &mut Connection, login: &Login) -> Result<(), String> {
        let mut body = Vec::new();
        kafka::put_sasl_handshake(&mut body, login.mechanism.name());
        let answer = self.ask(connection, Api::SaslHandshake, &body).await?;
        let (handshake, mechanisms) = kafka::sasl_handshake(&answer).map_err(|error| error.to_string())?;
        if handshake != code::NONE {
            let known = mechanisms.join(", ");
            let wanted = login.mechanism.name();
            return Err(format!("it does not know {wanted}; it knows {known}"));
        }
        if login.mechanism == Mechanism::Plain {
            self.step(connection, &login.plain()).await?;
            return Ok(());
        }
        let nonce = unguessable::<18>().ok_or("the system has no random numbers")?;
        let scram = Scram::new(login, model::base64::encode(&nonce));
        let server_first = self.step(connection, &scram.first()).await?;
        let (last, expected) = scram.last(&server_first)?;
        let server_last = self.step(connection, &last).await?;
        if server_last.split(|byte| *byte == b',').next() != Some(&expected[..]) {
            return Err("it does not show that it knows the password".to_owned());
        }
        Ok(())
    }

    async fn step(&self, connection: &mut Connection, step: &[u8]) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        kafka::put_sasl_authenticate(&mut body, step);
        let answer = self.ask(connection, Api::SaslAuthenticate, &body).await?;
        match kafka::sasl_authenticate(&answer).map_err(|error| error.to_string())? {
            (code::NONE, _, next) => Ok(next),
            (code, words, _) => Err(format!(
                "{} ({code}) {}",
                code::name(code),
                crate::request::shortened(&words)
            )),
        }
    }
}

fn text(address: &Address) -> String {
    format!("{}:{}", address.0, address.1)
}

fn broken(address: &Address, why: String) -> CallError {
    CallError::Broken {
        address: text(address),
        why,
    }
}
