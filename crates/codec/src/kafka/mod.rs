//! Kafka's protocol as far as a producer needs it: four requests and their answers, and record batches.
//!
//! The versions are the oldest that every broker of today takes (Kafka 1.0 to 4.x, and services that speak its protocol): Metadata 4, Produce 3 (7 where
//! a batch is packed with zstd, which came with it), SaslHandshake 1, SaslAuthenticate 0. None of them has the compact encoding that later ones have.
//!
//! Source: the Apache Kafka documentation, "Protocol" and "Message Format" (record batch, magic 2).

mod records;

use std::sync::Arc;

pub use records::{Compression, Header, Record, batch, record_len};

/// Where a request stands in the protocol, and which version of it we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    Produce,
    ProduceZstd,
    Metadata,
    SaslHandshake,
    SaslAuthenticate,
}

impl Api {
    const fn key_and_version(self) -> (i16, i16) {
        match self {
            Api::Produce => (0, 3),
            Api::ProduceZstd => (0, 7),
            Api::Metadata => (3, 4),
            Api::SaslHandshake => (17, 1),
            Api::SaslAuthenticate => (36, 0),
        }
    }
}

/// What a broker says about a request or a part of it, by number; 0 is success.
pub type Code = i16;

/// The codes that a producer acts on.
pub mod code {
    use super::Code;

    pub const NONE: Code = 0;
    pub const UNKNOWN_TOPIC_OR_PARTITION: Code = 3;
    pub const LEADER_NOT_AVAILABLE: Code = 5;
    pub const NOT_LEADER_OR_FOLLOWER: Code = 6;
    pub const MESSAGE_TOO_LARGE: Code = 10;
    pub const INVALID_TOPIC: Code = 17;
    pub const RECORD_LIST_TOO_LARGE: Code = 18;
    pub const INVALID_TIMESTAMP: Code = 32;
    pub const UNSUPPORTED_FOR_MESSAGE_FORMAT: Code = 43;
    pub const INVALID_RECORD: Code = 87;

    /// The name under which Kafka's documentation has it, for those that a producer meets.
    pub fn name(code: Code) -> &'static str {
        match code {
            -1 => "UNKNOWN_SERVER_ERROR",
            2 => "CORRUPT_MESSAGE",
            3 => "UNKNOWN_TOPIC_OR_PARTITION",
            5 => "LEADER_NOT_AVAILABLE",
            6 => "NOT_LEADER_OR_FOLLOWER",
            7 => "REQUEST_TIMED_OUT",
            10 => "MESSAGE_TOO_LARGE",
            17 => "INVALID_TOPIC_EXCEPTION",
            18 => "RECORD_LIST_TOO_LARGE",
            19 => "NOT_ENOUGH_REPLICAS",
            20 => "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
            21 => "INVALID_REQUIRED_ACKS",
            29 => "TOPIC_AUTHORIZATION_FAILED",
            31 => "CLUSTER_AUTHORIZATION_FAILED",
            32 => "INVALID_TIMESTAMP",
            33 => "UNSUPPORTED_SASL_MECHANISM",
            34 => "ILLEGAL_SASL_STATE",
            35 => "UNSUPPORTED_VERSION",
            43 => "UNSUPPORTED_FOR_MESSAGE_FORMAT",
            56 => "KAFKA_STORAGE_ERROR",
            58 => "SASL_AUTHENTICATION_FAILED",
            76 => "UNSUPPORTED_COMPRESSION_TYPE",
            87 => "INVALID_RECORD",
            89 => "THROTTLING_QUOTA_EXCEEDED",
            _ => "an error of Kafka's",
        }
    }
}

/// An answer that is not what the protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer ends early or has a length that cannot be")]
pub struct BadAnswer;

/// A request with its length in front; `body` writes what follows the header.
pub fn request(api: Api, correlation: i32, client_id: &str, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![0; 4];
    let (key, version) = api.key_and_version();
    out.extend_from_slice(&key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&correlation.to_be_bytes());
    put_text(&mut out, client_id);
    body(&mut out);
    // Our requests are a batch of a few MiB at most.
    let length = i32::try_from(out.len() - 4).unwrap_or(i32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// The number of the request that an answer is for, and the rest of it.
pub fn answer(message: &[u8]) -> Result<(i32, &[u8]), BadAnswer> {
    let (number, rest) = message.split_first_chunk().ok_or(BadAnswer)?;
    Ok((i32::from_be_bytes(*number), rest))
}

/// Asks for the leaders of topics.
pub fn put_metadata<'a>(out: &mut Vec<u8>, topics: impl ExactSizeIterator<Item = &'a str>, create_topics: bool) {
    put_count(out, topics.len());
    topics.for_each(|topic| put_text(out, topic));
    out.push(u8::from(create_topics));
}

/// Who has what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    pub brokers: Vec<Broker>,
    pub topics: Vec<Topic>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    pub host: String,
    pub port: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    pub code: Code,
    pub partitions: Vec<Partition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    pub index: i32,
    pub code: Code,
    /// The broker that takes what is written, by its id; -1 where there is none.
    pub leader: i32,
}

/// Reads the answer to [`put_metadata`].
pub fn metadata(body: &[u8]) -> Result<Metadata, BadAnswer> {
    let mut reader = Reader(body);
    reader.i32()?; // throttle time
    let mut metadata = Metadata::default();
    for _ in 0..reader.count()? {
        let broker = Broker {
            id: reader.i32()?,
            host: reader.text()?.to_owned(),
            port: reader.i32()?,
        };
        reader.optional_text()?; // rack
        metadata.brokers.push(broker);
    }
    reader.optional_text()?; // cluster id
    reader.i32()?; // controller
    for _ in 0..reader.count()? {
        let mut topic = Topic {
            code: reader.i16()?,
            name: reader.text()?.to_owned(),
            partitions: Vec::new(),
        };
        reader.take(1)?; // whether it is Kafka's own
        for _ in 0..reader.count()? {
            topic.partitions.push(Partition {
                code: reader.i16()?,
                index: reader.i32()?,
                leader: reader.i32()?,
            });
            for _ in 0..2 {
                let brokers = reader.count()?; // replicas, and those in sync
                reader.take(brokers.checked_mul(4).ok_or(BadAnswer)?)?;
            }
        }
        metadata.topics.push(topic);
    }
    Ok(metadata)
}

/// A record batch and where it goes.
#[derive(Debug, Clone)]
pub struct Produce<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub batch: &'a [u8],
}

/// Hands record batches over, at most one for a partition. `acks` is 0, 1 or -1 for all replicas in sync.
pub fn put_produce(out: &mut Vec<u8>, acks: i16, timeout_ms: i32, batches: &[Produce<'_>]) {
    out.extend_from_slice(&(-1i16).to_be_bytes()); // no transaction
    out.extend_from_slice(&acks.to_be_bytes());
    out.extend_from_slice(&timeout_ms.to_be_bytes());
    // A topic may be named once for each of its partitions.
    put_count(out, batches.len());
    for batch in batches {
        put_text(out, batch.topic);
        put_count(out, 1);
        out.extend_from_slice(&batch.partition.to_be_bytes());
        put_count(out, batch.batch.len());
        out.extend_from_slice(batch.batch);
    }
}

/// What a broker says of one partition's batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Produced {
    /// Shared by the topic's partitions: a name of 32 KiB may stand before a partition for every 22 bytes of the answer.
    pub topic: Arc<str>,
    pub partition: i32,
    pub code: Code,
}

/// Reads the answer to [`put_produce`], and for how many milliseconds the broker asks to send nothing.
pub fn produced(api: Api, body: &[u8]) -> Result<(Vec<Produced>, u32), BadAnswer> {
    let mut reader = Reader(body);
    let mut all = Vec::new();
    for _ in 0..reader.count()? {
        let topic: Arc<str> = reader.text()?.into();
        for _ in 0..reader.count()? {
            all.push(Produced {
                topic: Arc::clone(&topic),
                partition: reader.i32()?,
                code: reader.i16()?,
            });
            reader.take(16)?; // offset and time
            if api == Api::ProduceZstd {
                reader.take(8)?; // first offset of the log
            }
        }
    }
    Ok((all, u32::try_from(reader.i32()?).unwrap_or(0)))
}

/// Asks for a way to show who we are.
pub fn put_sasl_handshake(out: &mut Vec<u8>, mechanism: &str) {
    put_text(out, mechanism);
}

/// Reads the answer to [`put_sasl_handshake`]: its code, and the mechanisms that the broker knows.
pub fn sasl_handshake(body: &[u8]) -> Result<(Code, Vec<String>), BadAnswer> {
    let mut reader = Reader(body);
    let code = reader.i16()?;
    let mut mechanisms = Vec::new();
    for _ in 0..reader.count()? {
        mechanisms.push(reader.text()?.to_owned());
    }
    Ok((code, mechanisms))
}

/// One step of the mechanism that was agreed on.
pub fn put_sasl_authenticate(out: &mut Vec<u8>, step: &[u8]) {
    put_count(out, step.len());
    out.extend_from_slice(step);
}

/// Reads the answer to [`put_sasl_authenticate`]: its code, the broker's words about it, and the mechanism's next step.
pub fn sasl_authenticate(body: &[u8]) -> Result<(Code, String, Vec<u8>), BadAnswer> {
    let mut reader = Reader(body);
    let code = reader.i16()?;
    let words = reader.optional_text()?.unwrap_or_default().to_owned();
    let length = reader.count()?;
    Ok((code, words, reader.take(length)?.to_vec()))
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // Kafka's texts are names; what is longer than a name can be is cut, and the broker says that it does not know it.
    let text = &text.as_bytes()[..text.len().min(i16::MAX as usize)];
    out.extend_from_slice(&(text.len() as i16).to_be_bytes());
    out.extend_from_slice(text);
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&i32::try_from(count).unwrap_or(i32::MAX).to_be_bytes());
}

/// Steps through an answer. What it counts is never trusted with memory: every element is read before the next.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], BadAnswer> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(BadAnswer)?;
        self.0 = rest;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], BadAnswer> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(BadAnswer)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn i16(&mut self) -> Result<i16, BadAnswer> {
        self.chunk().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, BadAnswer> {
        self.chunk().map(i32::from_be_bytes)
    }

    /// Of an array or of bytes; -1 is none.
    fn count(&mut self) -> Result<usize, BadAnswer> {
        match self.i32()? {
            -1 => Ok(0),
            count => usize::try_from(count).map_err(|_| BadAnswer),
        }
    }

    fn optional_text(&mut self) -> Result<Option<&'a str>, BadAnswer> {
        let length = self.i16()?;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| BadAnswer)?;
        std::str::from_utf8(self.take(length)?).map(Some).map_err(|_| BadAnswer)
    }

    fn text(&mut self) -> Result<&'a str, BadAnswer> {
        self.optional_text()?.ok_or(BadAnswer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A metadata answer as a broker of 4.1 gave it: one broker, one topic of two partitions.
    fn metadata_answer() -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&0i32.to_be_bytes());
        put_count(&mut out, 1);
        out.extend_from_slice(&7i32.to_be_bytes());
        put_text(&mut out, "kafka-1");
        out.extend_from_slice(&9092i32.to_be_bytes());
        out.extend_from_slice(&(-1i16).to_be_bytes());
        put_text(&mut out, "cluster");
        out.extend_from_slice(&7i32.to_be_bytes());
        put_count(&mut out, 1);
        out.extend_from_slice(&0i16.to_be_bytes());
        put_text(&mut out, "otlp_spans");
        out.push(0);
        put_count(&mut out, 2);
        for (index, leader) in [(0i32, 7i32), (1, -1)] {
            let code = if leader < 0 { code::LEADER_NOT_AVAILABLE } else { 0 };
            out.extend_from_slice(&code.to_be_bytes());
            out.extend_from_slice(&index.to_be_bytes());
            out.extend_from_slice(&leader.to_be_bytes());
            for _ in 0..2 {
                put_count(&mut out, 1);
                out.extend_from_slice(&7i32.to_be_bytes());
            }
        }
        out
    }

    #[test]
    fn metadata_says_who_leads() {
        let read = metadata(&metadata_answer()).expect("is whole");
        assert_eq!(read.brokers[0].host, "kafka-1");
        let leaders: Vec<i32> = read.topics[0]
            .partitions
            .iter()
            .map(|partition| partition.leader)
            .collect();
        assert_eq!((read.topics[0].name.as_str(), leaders), ("otlp_spans", vec![7, -1]));
    }

    #[test]
    fn answers_that_end_early_or_count_too_much_are_errors() {
        let whole = metadata_answer();
        for end in 0..whole.len() {
            assert_eq!(metadata(&whole[..end]), Err(BadAnswer), "{end}");
        }
        let mut endless = whole;
        endless[4..8].copy_from_slice(&i32::MAX.to_be_bytes());
        assert_eq!(metadata(&endless), Err(BadAnswer));
        assert_eq!(produced(Api::Produce, &[0x7f, 0xff, 0xff, 0xff]), Err(BadAnswer));
        assert_eq!(sasl_authenticate(&[0, 0, 0xff, 0xff, 0x80, 0, 0, 0]), Err(BadAnswer));
    }

    #[test]
    fn a_long_topic_of_many_partitions_is_held_once() {
        let topic = "t".repeat(i16::MAX as usize);
        let mut body = Vec::new();
        put_count(&mut body, 1);
        put_text(&mut body, &topic);
        put_count(&mut body, 2);
        for partition in [0i32, 1] {
            body.extend_from_slice(&partition.to_be_bytes());
            body.extend_from_slice(&[0; 2 + 16]);
        }
        body.extend_from_slice(&[0; 4]);
        let (all, _) = produced(Api::Produce, &body).expect("is whole");
        assert_eq!((&*all[0].topic, all[1].partition), (topic.as_str(), 1));
        assert!(Arc::ptr_eq(&all[0].topic, &all[1].topic));
    }

    #[test]
    fn a_request_begins_with_its_length_and_number() {
        let request = request(Api::Metadata, 5, "me", |out| put_metadata(out, ["t"].into_iter(), true));
        let expect = [
            &[0, 0, 0, 20, 0, 3, 0, 4, 0, 0, 0, 5, 0, 2, b'm', b'e'][..],
            &[0, 0, 0, 1, 0, 1, b't', 1],
        ];
        assert_eq!(request, expect.concat());
    }
}
