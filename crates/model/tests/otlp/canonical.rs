//! What the canonical form says is what protobuf says, after the door's rules.

use bytes::Bytes;
use model::Signal;
use model::canonical::{Canonical, canonicalize};
use model::schema;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message;

use super::arbitrary::Source;
use super::normal::Normal;
use super::scramble::scramble;

/// Canonicalises a scrambled message, after comparing it with what prost reads.
pub fn checked<M: Message + Default + Normal + std::fmt::Debug>(
    signal: Signal,
    message: &M,
    choices: &[u8],
) -> Canonical {
    let plain = message.encode_to_vec();
    let schema = schema::request(signal);
    let sent = scramble(schema, &plain, &mut Source(choices), &[0xff]);
    let canonical = canonicalize(signal, Bytes::from(sent.clone())).expect("what was generated is legal");

    let repaired = scramble(schema, &plain, &mut Source(choices), "\u{fffd}".as_bytes());
    let mut expected = M::decode(&*repaired).expect("what was generated is legal");
    let (kept, rejected) = expected.normalise();
    let read = M::decode(&*canonical.payload).expect("canonical form is legal");
    // Encoded, because NaN is not equal to itself.
    assert_eq!(
        read.encode_to_vec(),
        expected.encode_to_vec(),
        "canonical form reads {read:#?}, not {expected:#?}"
    );
    assert_eq!(canonical.items, kept);
    assert_eq!(canonical.rejected.iter().map(|(_, count)| count).sum::<u32>(), rejected);
    assert_eq!(canonical.rewritten, canonical.payload != sent);

    let again = canonicalize(signal, canonical.payload.clone()).expect("canonical form is legal");
    assert!(!again.rewritten, "canonical form is not canonical: {read:#?}");
    assert_eq!(again.payload.as_ptr(), canonical.payload.as_ptr());
    canonical
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn traces(bytes in prop::collection::vec(any::<u8>(), 0..2000), choices in prop::collection::vec(any::<u8>(), 0..600)) {
        checked(Signal::Traces, &Source(&bytes).traces(), &choices);
    }

    #[test]
    fn logs(bytes in prop::collection::vec(any::<u8>(), 0..2000), choices in prop::collection::vec(any::<u8>(), 0..600)) {
        checked(Signal::Logs, &Source(&bytes).logs(), &choices);
    }

    #[test]
    fn metrics(bytes in prop::collection::vec(any::<u8>(), 0..2000), choices in prop::collection::vec(any::<u8>(), 0..600)) {
        checked(Signal::Metrics, &Source(&bytes).metrics(), &choices);
    }

    /// Damage is either an error or a payload that prost reads, too.
    #[test]
    fn damaged_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..1000),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut payload = Source(&bytes).traces().encode_to_vec();
        prop_assume!(!payload.is_empty());
        for (index, byte) in damage {
            *index.get_mut(&mut payload) = byte;
        }
        if let Ok(canonical) = canonicalize(Signal::Traces, payload.into()) {
            prop_assert!(ExportTraceServiceRequest::decode(canonical.payload).is_ok());
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        for signal in Signal::ALL {
            if let Ok(canonical) = canonicalize(signal, Bytes::from(bytes.clone())) {
                let read = match signal {
                    Signal::Traces => ExportTraceServiceRequest::decode(canonical.payload).is_ok(),
                    Signal::Logs => ExportLogsServiceRequest::decode(canonical.payload).is_ok(),
                    Signal::Metrics => ExportMetricsServiceRequest::decode(canonical.payload).is_ok(),
                };
                prop_assert!(read);
            }
        }
    }
}

/// What an SDK sends is canonical already: the slow path is for what no SDK sends.
#[test]
fn what_prost_encodes_is_not_rewritten() {
    let mut message = Source(&[3; 4000]).traces();
    message.normalise();
    let payload = Bytes::from(message.encode_to_vec());
    assert!(payload.len() > 1000);
    let canonical = canonicalize(Signal::Traces, payload).expect("is legal");
    assert!(!canonical.rewritten);
}
