//! Record batches: what a partition's log consists of, and what one Produce request carries for a partition.

/// How the records of a batch are packed; its number in the batch's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    #[default]
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

/// Name and value.
pub type Header = (String, Vec<u8>);

/// One message.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub key: Option<&'a [u8]>,
    pub value: &'a [u8],
    pub headers: &'a [Header],
}

/// Bytes of a batch before its records.
const BATCH_HEADER_BYTES: usize = 61;

/// The longest variable-length number of 64 bits; a record has one for its length and one for its number in the batch, of which none is longer here.
const MAX_VARINT_BYTES: usize = 10;

/// At most so many bytes are added by a record of this key and value to a batch, a batch's own included: what a producer counts against
/// `max.message.bytes` of a topic before compression.
pub fn record_len(key: usize, value: usize, headers: &[Header]) -> usize {
    let headers = headers
        .iter()
        .map(|(name, value)| name.len() + value.len() + 2 * MAX_VARINT_BYTES);
    BATCH_HEADER_BYTES + 1 + 6 * MAX_VARINT_BYTES + key + value + headers.sum::<usize>()
}

/// A batch of records of one time, ready for [`put_produce`](super::put_produce). `pack` compresses, by the way that `compression` names.
pub fn batch<'a, E>(
    records: impl Iterator<Item = Record<'a>>,
    time_unix_ms: i64,
    compression: Compression,
    pack: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    let mut plain = Vec::new();
    let mut record = Vec::new();
    let mut count = 0i32;
    for (number, it) in (0i32..).zip(records) {
        record.clear();
        record.push(0); // attributes
        put_varint(&mut record, 0); // ms after the batch's time
        put_varint(&mut record, i64::from(number));
        match it.key {
            Some(key) => put_delimited(&mut record, key),
            None => put_varint(&mut record, -1),
        }
        put_delimited(&mut record, it.value);
        put_varint(&mut record, it.headers.len() as i64);
        for (name, value) in it.headers {
            put_delimited(&mut record, name.as_bytes());
            put_delimited(&mut record, value);
        }
        put_delimited(&mut plain, &record);
        count = number + 1;
    }
    let packed = match compression {
        Compression::None => plain,
        _ => pack(plain)?,
    };
    let mut out = Vec::with_capacity(BATCH_HEADER_BYTES + packed.len());
    out.extend_from_slice(&0i64.to_be_bytes()); // the broker gives the offset
    let length = i32::try_from(BATCH_HEADER_BYTES - 12 + packed.len()).unwrap_or(i32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&(-1i32).to_be_bytes()); // leader's epoch: the broker's to know
    out.push(2); // magic
    out.extend_from_slice(&[0; 4]); // the checksum of what follows
    let summed = out.len();
    out.extend_from_slice(&(compression as i16).to_be_bytes());
    out.extend_from_slice(&(count - 1).to_be_bytes());
    out.extend_from_slice(&time_unix_ms.to_be_bytes());
    out.extend_from_slice(&time_unix_ms.to_be_bytes());
    out.extend_from_slice(&(-1i64).to_be_bytes()); // producer, epoch, sequence: not idempotent
    out.extend_from_slice(&(-1i16).to_be_bytes());
    out.extend_from_slice(&(-1i32).to_be_bytes());
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&packed);
    let sum = crc32c::crc32c(&out[summed..]);
    out[summed - 4..summed].copy_from_slice(&sum.to_be_bytes());
    Ok(out)
}

/// A signed number, zigzag and seven bits a byte.
fn put_varint(out: &mut Vec<u8>, number: i64) {
    model::wire::put_varint(out, ((number << 1) ^ (number >> 63)) as u64);
}

fn put_delimited(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_laid_out_as_kafka_reads_it() {
        let headers = [("h".to_owned(), b"1".to_vec())];
        let records = [
            Record {
                key: Some(b"k"),
                value: b"v",
                headers: &headers,
            },
            Record {
                key: None,
                value: b"",
                headers: &[],
            },
        ];
        let none = |plain: Vec<u8>| Ok::<_, ()>(plain);
        let out = batch(records.into_iter(), 1_000, Compression::None, none).expect("is plain");
        let first = [24, 0, 0, 0, 2, b'k', 2, b'v', 2, 2, b'h', 2, b'1'];
        let second = [12, 0, 0, 2, 1, 0, 0];
        assert_eq!(out[BATCH_HEADER_BYTES..], [&first[..], &second].concat());
        assert_eq!(out[8..12], ((out.len() - 12) as i32).to_be_bytes());
        assert_eq!(out[16], 2);
        assert_eq!(out[17..21], crc32c::crc32c(&out[21..]).to_be_bytes());
        assert_eq!(
            (&out[23..27], &out[57..61]),
            (&1i32.to_be_bytes()[..], &2i32.to_be_bytes()[..])
        );
        assert!(out.len() <= record_len(1, 1, &headers) + record_len(0, 0, &[]));
    }
}
