//! Why: what OTLP over gRPC and over HTTP share on the sending side: the settings, how a payload is packed, and what an answer's body says.
//!
//! Source: the OpenTelemetry Protocol Specification 1.x, "Partial Success" and "Compression".

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use model::{Batch, Compression, Signal};
use net::dial::ClientTls;
use pipeline::sending::{OnFull, Queue, Retry, Sending};
use pipeline::{Outcome, Reason};
use serde::Deserialize;

/// A backend's words in our log and ledger are cut here.
const MAX_MESSAGE_BYTES: usize = 512;

/// The collector's default is gzip; level 1 of a fast library packs telemetry nearly as well as the usual level 6.
const GZIP_LEVEL: i32 = 1;
const ZSTD_LEVEL: i32 = 1;

/// `compression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    #[default]
    Gzip,
    Zstd,
    None,
}

/// `tls`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// No TLS at all. Default `false`.
    pub insecure: bool,
    /// Certificates to trust, PEM. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, PEM, where the backend asks for one.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
    /// The name that the backend's certificate must have, if it is not the endpoint's host.
    pub server_name_override: Option<String>,
}

impl Tls {
    /// What is wrong with it, and at which key.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => Err(("cert_file", "`cert_file` needs `key_file`")),
            (None, Some(_)) => Err(("key_file", "`key_file` needs `cert_file`")),
            _ => Ok(()),
        }
    }

    pub fn client(&self) -> ClientTls {
        ClientTls {
            ca_file: self.ca_file.clone(),
            identity: self.cert_file.clone().zip(self.key_file.clone()),
            server_name: self.server_name_override.clone(),
        }
    }
}

/// How requests are sent, from the keys that all senders have.
pub fn sending(
    timeout: Duration,
    retry: &Retry,
    queue: &Queue,
    on_full: OnFull,
    dead_letter: Option<&PathBuf>,
) -> Sending {
    Sending {
        on_full,
        dead_letter: dead_letter.cloned(),
        ..Sending::new(timeout, retry.clone(), queue)
    }
}

/// Headers by name.
pub type Headers = BTreeMap<String, String>;

/// A payload on its way out.
pub struct Packed {
    pub bytes: Bytes,
    /// The name in `content-encoding` and `grpc-encoding`.
    pub encoding: Option<&'static str>,
}

thread_local! {
    static GZIP: RefCell<libdeflater::Compressor> = RefCell::new(libdeflater::Compressor::new(
        libdeflater::CompressionLvl::new(GZIP_LEVEL).unwrap_or_default(),
    ));
}

/// Packs a payload; what came in packed the same way and was not edited goes out as it came.
pub fn pack(batch: &Batch, packing: Packing) -> Packed {
    let wire = |compression| {
        batch
            .wire
            .as_ref()
            .filter(|wire| wire.compression == compression)
            .map(|wire| wire.bytes.clone())
    };
    let plain = || Packed {
        bytes: batch.payload.clone(),
        encoding: None,
    };
    match packing {
        Packing::None => plain(),
        Packing::Gzip => {
            let bytes = wire(Compression::Gzip)
                .unwrap_or_else(|| GZIP.with_borrow_mut(|gzip| compress_gzip(gzip, &batch.payload)));
            Packed {
                bytes,
                encoding: Some("gzip"),
            }
        }
        Packing::Zstd => {
            let bytes = wire(Compression::Zstd).map_or_else(
                || zstd::bulk::compress(&batch.payload, ZSTD_LEVEL),
                |it| Ok(it.to_vec()),
            );
            // It fails only for want of memory; unpacked is always right.
            bytes.map_or_else(
                |_| plain(),
                |bytes| Packed {
                    bytes: bytes.into(),
                    encoding: Some("zstd"),
                },
            )
        }
    }
}

/// A text or JSON is packed the same way.
pub fn pack_text(text: Vec<u8>, packing: Packing) -> Packed {
    match packing {
        Packing::None => Packed {
            bytes: text.into(),
            encoding: None,
        },
        Packing::Gzip => Packed {
            bytes: GZIP.with_borrow_mut(|gzip| compress_gzip(gzip, &text)),
            encoding: Some("gzip"),
        },
        Packing::Zstd => match zstd::bulk::compress(&text, ZSTD_LEVEL) {
            Ok(bytes) => Packed {
                bytes: bytes.into(),
                encoding: Some("zstd"),
            },
            Err(_) => Packed {
                bytes: text.into(),
                encoding: None,
            },
        },
    }
}

fn compress_gzip(gzip: &mut libdeflater::Compressor, payload: &[u8]) -> Bytes {
    let mut out = vec![0; gzip.gzip_compress_bound(payload.len())];
    // The bound is the bound: there is room.
    let length = gzip.gzip_compress(payload, &mut out).unwrap_or_default();
    out.truncate(length);
    out.into()
}

/// The names that OTLP has for a signal, in its services and its paths.
pub fn service(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "opentelemetry.proto.collector.trace.v1.TraceService",
        Signal::Logs => "opentelemetry.proto.collector.logs.v1.LogsService",
        Signal::Metrics => "opentelemetry.proto.collector.metrics.v1.MetricsService",
    }
}

/// The outcome that a successful answer's message tells: all taken, or some rejected. The message is `{1: {1: rejected items, 2: why}}` for all signals.
pub fn outcome_of(message: &[u8]) -> Outcome {
    let Some(partial) = protobuf::field(message, 1).and_then(protobuf::Field::bytes) else {
        return Outcome::Delivered;
    };
    let rejected = protobuf::field(partial, 1)
        .and_then(protobuf::Field::varint)
        .unwrap_or(0);
    let why = protobuf::field(partial, 2)
        .and_then(protobuf::Field::bytes)
        .unwrap_or_default();
    let why = String::from_utf8_lossy(why);
    match u32::try_from(rejected) {
        Ok(0) if why.is_empty() => Outcome::Delivered,
        Ok(0) => {
            tracing::warn!("the backend took everything and warns: {}", shortened(&why));
            Outcome::Delivered
        }
        Ok(rejected) => Outcome::rejected(Reason::BackendRejected, shortened(&why), rejected),
        // A negative count is nonsense; the request as such succeeded.
        Err(_) => Outcome::Delivered,
    }
}

/// A stranger's text, short enough and without control characters.
pub fn shortened(text: &str) -> String {
    let mut end = text.len().min(MAX_MESSAGE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Just enough protobuf to read a status.
pub mod protobuf {
    /// One field.
    #[derive(Clone, Copy)]
    pub enum Field<'a> {
        Varint(u64),
        Bytes(&'a [u8]),
        Other,
    }

    impl<'a> Field<'a> {
        pub fn bytes(self) -> Option<&'a [u8]> {
            match self {
                Field::Bytes(bytes) => Some(bytes),
                Field::Varint(_) | Field::Other => None,
            }
        }

        pub fn varint(self) -> Option<u64> {
            match self {
                Field::Varint(number) => Some(number),
                Field::Bytes(_) | Field::Other => None,
            }
        }
    }

    /// The last field of this number. What does not decode ends the walk: an answer that is garbage says nothing.
    pub fn field(message: &[u8], number: u64) -> Option<Field<'_>> {
        fields(message)
            .filter(|(found, _)| *found == number)
            .last()
            .map(|(_, field)| field)
    }

    pub fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
        std::iter::from_fn(move || {
            let tag = varint(&mut rest)?;
            let field = match tag & 7 {
                0 => Field::Varint(varint(&mut rest)?),
                1 => take(&mut rest, 8).map(|_| Field::Other)?,
                2 => {
                    let length = usize::try_from(varint(&mut rest)?).ok()?;
                    Field::Bytes(take(&mut rest, length)?)
                }
                5 => take(&mut rest, 4).map(|_| Field::Other)?,
                _ => return None,
            };
            Some((tag >> 3, field))
        })
    }

    fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
        let (taken, left) = rest.split_at_checked(length)?;
        *rest = left;
        Some(taken)
    }

    fn varint(rest: &mut &[u8]) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = *take(rest, 1)?.first()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spans;
    use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
    use prost::Message;

    fn check(partial: Option<(i64, &str)>, expect: &Outcome) {
        let partial_success = partial.map(|(rejected_spans, message)| ExportTracePartialSuccess {
            rejected_spans,
            error_message: message.into(),
        });
        let message = ExportTraceServiceResponse { partial_success }.encode_to_vec();
        assert_eq!(&outcome_of(&message), expect, "{partial:?}");
    }

    #[test]
    fn partial_success() {
        check(None, &Outcome::Delivered);
        check(Some((0, "")), &Outcome::Delivered);
        check(Some((0, "slow down")), &Outcome::Delivered);
        check(
            Some((3, "bad\nids")),
            &Outcome::rejected(Reason::BackendRejected, "bad ids", 3),
        );
        check(Some((-1, "?")), &Outcome::Delivered);
    }

    #[test]
    fn garbage_answers_say_nothing() {
        for garbage in [
            &b"\xff\xff\xff"[..],
            b"\x0a\xff",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"<html>",
        ] {
            assert_eq!(outcome_of(garbage), Outcome::Delivered);
        }
    }

    #[test]
    fn packed_is_what_was_meant() {
        let batch = spans(&["a", "b"]);
        let gzip = pack(&batch, Packing::Gzip);
        let mut out = vec![0; batch.payload.len()];
        libdeflater::Decompressor::new()
            .gzip_decompress(&gzip.bytes, &mut out)
            .expect("gzip");
        assert_eq!((out.as_slice(), gzip.encoding), (&batch.payload[..], Some("gzip")));
        let zstd = pack(&batch, Packing::Zstd);
        let out = zstd::bulk::decompress(&zstd.bytes, batch.payload.len()).expect("zstd");
        assert_eq!((out.as_slice(), zstd.encoding), (&batch.payload[..], Some("zstd")));
        let came_packed = Batch {
            wire: Some(model::Wire {
                compression: Compression::Gzip,
                bytes: "as it came".into(),
            }),
            ..batch
        };
        assert_eq!(pack(&came_packed, Packing::Gzip).bytes, "as it came");
        assert_eq!(pack(&came_packed, Packing::None).bytes, came_packed.payload);
    }
}
