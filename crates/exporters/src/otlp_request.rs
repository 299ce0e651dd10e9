//! Why: what OTLP over gRPC and over HTTP share beyond any sender: the names of its services, and what an answer's body says.
//!
//! Source: the OpenTelemetry Protocol Specification 1.x, "Partial Success".

use model::Signal;
use pipeline::{Outcome, Reason};

use crate::request::shortened;

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
}
