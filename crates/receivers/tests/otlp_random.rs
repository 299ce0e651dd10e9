//! Ten thousand random strings at each door: every one gets an end, none takes the door or its books with it.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

const STRINGS: u64 = 10_000;
/// Connections at a time; far below the door's bound, so that none is turned away unread.
const AT_A_TIME: usize = 64;
/// Far more than any of them takes; a door that waits for a sender that has said its last would hang here.
const PATIENCE: Duration = Duration::from_secs(30);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A string that gets a random distance into the protocols before it goes wrong, and whether it is a whole request, after
/// which the door closes by itself.
fn string(seed: u64, samples: &[(&str, Vec<u8>)]) -> (Vec<u8>, bool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut noise: Vec<u8> = (0..random.usize(0..300)).map(|_| random.u8(..)).collect();
    let mutated = |random: &mut fastrand::Rng, sample: &[u8]| {
        let mut bytes = sample.to_vec();
        for _ in 0..random.usize(1..8) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        bytes.truncate(random.usize(1..=bytes.len()));
        bytes
    };
    let kind = random.u8(..6);
    let bytes = match kind {
        0 => noise,
        // HTTP/1 with a body that is nearly telemetry.
        1 | 2 => {
            let (coding, sample) = random.choice(samples).unwrap();
            let body = mutated(&mut random, sample);
            let head = format!(
                "POST /v1/traces HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/x-protobuf\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            [head.into_bytes(), body].concat()
        }
        // A head that is nearly one.
        3 => {
            let mut head = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec();
            let at = random.usize(..head.len());
            head[at] = random.u8(..);
            head
        }
        // HTTP/2: preface and empty settings, then frames of random kinds.
        _ => {
            let mut bytes = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
            while !noise.is_empty() {
                let rest = noise.split_off(noise.len().min(random.usize(1..60)));
                bytes.extend([
                    0,
                    0,
                    noise.len() as u8,
                    random.u8(..10),
                    random.u8(..),
                    0,
                    0,
                    0,
                    random.u8(..4),
                ]);
                bytes.append(&mut noise);
                noise = rest;
            }
            bytes
        }
    };
    (bytes, matches!(kind, 1 | 2))
}

async fn throw(address: SocketAddr, bytes: &[u8], whole: bool) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Half of the strings are refused before they are read to their end.
    if stream.write_all(bytes).await.is_err() || (!whole && stream.shutdown().await.is_err()) {
        return;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    let mut out = vec![0; compressor.zlib_compress_bound(data.len())];
    let len = compressor.zlib_compress(data, &mut out).unwrap();
    out.truncate(len);
    out
}

async fn check(door: impl Fn(&Running) -> SocketAddr) {
    let running = start().await;
    let address = door(&running);
    let telemetry = spans(2);
    let samples: Arc<[(&str, Vec<u8>)]> = Arc::new([
        ("identity", telemetry.clone()),
        ("gzip", gzip(&telemetry)),
        ("gzip", [gzip(&telemetry), gzip(&telemetry)].concat()),
        ("zstd", zstd::bulk::compress(&telemetry, 1).unwrap()),
        ("deflate", zlib(&telemetry)),
    ]);
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut throws = tokio::task::JoinSet::new();
    for seed in 0..STRINGS {
        let place = places.clone().acquire_owned().await.unwrap();
        let samples = samples.clone();
        throws.spawn(async move {
            let (bytes, whole) = string(seed, &samples);
            let ended = tokio::time::timeout(PATIENCE, throw(address, &bytes, whole)).await;
            drop(place);
            assert!(ended.is_ok(), "the door still waits after string {seed}: {bytes:?}");
        });
    }
    while let Some(thrown) = throws.join_next().await {
        thrown.unwrap();
    }
    assert_eq!(running.open.turned_away(), 0);
    if address == running.http {
        let malformed = running.turned_away(model::Signal::Traces, "malformed");
        assert!(malformed > STRINGS / 10, "many came as far as the decoder: {malformed}");
    }
    assert_eq!(
        post(running.http, "/v1/traces", &[PROTOBUF], &spans(1)).await.status,
        200
    );
    assert_eq!(
        call(running.grpc, TRACE_EXPORT, &[], frame(0, &spans(1))).await.status,
        0
    );
    running.finish().await;
}

#[tokio::test]
async fn random_strings_at_the_http_door() {
    check(|running| running.http).await;
}

#[tokio::test]
async fn random_strings_at_the_grpc_door() {
    check(|running| running.grpc).await;
}
