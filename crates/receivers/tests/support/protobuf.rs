//! Pages in Prometheus' protobuf, good ones and such as mean harm.

/// The content type of such a page.
pub const PROTOBUF: &str =
    "content-type: application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited\r\n";

/// A message under this number.
pub fn inner(number: u8, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    model::wire::put_bytes(&mut out, u32::from(number), message);
    out
}

pub fn delimited(family: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    model::wire::put_varint(&mut out, family.len() as u64);
    [out, family.to_vec()].concat()
}

/// `a 0`, a gauge.
pub fn gauge() -> Vec<u8> {
    delimited(&[&inner(1, b"a")[..], &[3 << 3, 1], &inner(4, &inner(2, &[]))].concat())
}

/// `b`, a native histogram of five observations.
pub fn one_native() -> Vec<u8> {
    let histogram = [
        &[1 << 3, 5, 5 << 3, 3 << 1][..],
        &inner(12, &[2 << 3, 1]),
        &inner(13, &[5 << 1]),
    ]
    .concat();
    delimited(&[&inner(1, b"b")[..], &[3 << 3, 4], &inner(4, &inner(7, &histogram))].concat())
}

/// A histogram of 1 MiB that would be 450 million labels.
pub fn shared_labels() -> Vec<u8> {
    let labels: Vec<u8> = (0..900u32)
        .flat_map(|at| inner(1, &[inner(1, format!("l{at}").as_bytes()), inner(2, b"x")].concat()))
        .collect();
    let buckets = inner(3, &[]).repeat(500_000);
    delimited(
        &[
            &inner(1, b"a")[..],
            &[3 << 3, 4],
            &inner(4, &[labels, inner(7, &buckets)].concat()),
        ]
        .concat(),
    )
}

/// Native histograms that take 16 KiB each, of which a page has 20,000.
pub fn gaps() -> Vec<u8> {
    // Two buckets, 16,000 apart, with an observation each; a schema of 0.
    let far = [[1 << 3].as_slice(), &[0x80, 0xfa, 0x01], &[2 << 3, 1]].concat();
    let near = [2 << 3, 1];
    let histogram = [
        &[1 << 3, 2][..],
        &inner(12, &near),
        &inner(12, &far),
        &inner(13, &[2, 0]),
    ]
    .concat();
    let metrics: Vec<u8> = (0..20_000u32)
        .flat_map(|at| {
            let label = inner(1, &[inner(1, b"n"), inner(2, at.to_string().as_bytes())].concat());
            inner(4, &[label, inner(7, &histogram)].concat())
        })
        .collect();
    delimited(&[&inner(1, b"a")[..], &[3 << 3, 4], &metrics].concat())
}
