//! Why: what OTLP over gRPC and over HTTP share beyond any sender: the names of its services, and what an answer's body says.
//!
//! Source: the OpenTelemetry Protocol Specification 1.x, "Partial Success".

use model::Signal;
use pipeline::{Outcome, Reason};

use crate::grpc::field;
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
    let partial = field(message, 1).bytes();
    let rejected = field(partial, 1).varint();
    let why = field(partial, 2).bytes();
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
