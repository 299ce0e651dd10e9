//! Jaeger's messages as `prost` reads them: the independent decoder. The field numbers are those of jaeger-idl, `proto/api_v2`.
#![allow(dead_code)] // Each test binary uses its part.

#[derive(Clone, PartialEq, prost::Message)]
pub struct PostSpansRequest {
    #[prost(message, optional, tag = "1")]
    pub batch: Option<Batch>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Batch {
    #[prost(message, repeated, tag = "1")]
    pub spans: Vec<Span>,
    #[prost(message, optional, tag = "2")]
    pub process: Option<Process>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Process {
    #[prost(string, tag = "1")]
    pub service_name: String,
    #[prost(message, repeated, tag = "2")]
    pub tags: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    pub operation_name: String,
    #[prost(message, repeated, tag = "4")]
    pub references: Vec<SpanRef>,
    #[prost(uint32, tag = "5")]
    pub flags: u32,
    #[prost(message, optional, tag = "6")]
    pub start_time: Option<Time>,
    #[prost(message, optional, tag = "7")]
    pub duration: Option<Time>,
    #[prost(message, repeated, tag = "8")]
    pub tags: Vec<KeyValue>,
    #[prost(message, repeated, tag = "9")]
    pub logs: Vec<Log>,
    #[prost(message, optional, tag = "10")]
    pub process: Option<Process>,
    #[prost(string, tag = "11")]
    pub process_id: String,
    #[prost(string, repeated, tag = "12")]
    pub warnings: Vec<String>,
}

/// `google.protobuf.Timestamp` and `Duration`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Time {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SpanRef {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    #[prost(int32, tag = "3")]
    pub ref_type: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Log {
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Time>,
    #[prost(message, repeated, tag = "2")]
    pub fields: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(int32, tag = "2")]
    pub v_type: i32,
    #[prost(string, tag = "3")]
    pub v_str: String,
    #[prost(bool, tag = "4")]
    pub v_bool: bool,
    #[prost(int64, tag = "5")]
    pub v_int64: i64,
    #[prost(double, tag = "6")]
    pub v_float64: f64,
    #[prost(bytes = "vec", tag = "7")]
    pub v_binary: Vec<u8>,
}

impl KeyValue {
    pub fn text(key: &str, value: &str) -> Self {
        Self {
            key: key.into(),
            v_str: value.into(),
            ..Self::default()
        }
    }

    pub fn bool(key: &str, value: bool) -> Self {
        Self {
            key: key.into(),
            v_type: 1,
            v_bool: value,
            ..Self::default()
        }
    }

    pub fn int(key: &str, value: i64) -> Self {
        Self {
            key: key.into(),
            v_type: 2,
            v_int64: value,
            ..Self::default()
        }
    }

    pub fn double(key: &str, value: f64) -> Self {
        Self {
            key: key.into(),
            v_type: 3,
            v_float64: value,
            ..Self::default()
        }
    }
}

/// The same batch as Thrift's binary protocol has it, written field by field from `jaeger.thrift`; times are in microseconds there.
pub fn thrift(batch: &Batch) -> Vec<u8> {
    let mut out = Vec::new();
    let process = batch.process.clone().unwrap_or_default();
    field(&mut out, 12, 1);
    text_field(&mut out, 1, &process.service_name);
    list(&mut out, 2, &process.tags, thrift_tag);
    out.push(0);
    list(&mut out, 2, &batch.spans, thrift_span);
    out.push(0);
    out
}

fn field(out: &mut Vec<u8>, kind: u8, id: i16) {
    out.push(kind);
    out.extend(id.to_be_bytes());
}

fn bytes_field(out: &mut Vec<u8>, id: i16, bytes: &[u8]) {
    field(out, 11, id);
    out.extend((bytes.len() as i32).to_be_bytes());
    out.extend(bytes);
}

fn text_field(out: &mut Vec<u8>, id: i16, text: &str) {
    bytes_field(out, id, text.as_bytes());
}

fn long(out: &mut Vec<u8>, id: i16, bytes: &[u8]) {
    field(out, 10, id);
    out.extend(bytes);
}

fn list<T>(out: &mut Vec<u8>, id: i16, items: &[T], write: fn(&mut Vec<u8>, &T)) {
    field(out, 15, id);
    out.push(12);
    out.extend((items.len() as i32).to_be_bytes());
    for item in items {
        write(out, item);
    }
}

fn micros(time: Option<Time>) -> [u8; 8] {
    let time = time.unwrap_or_default();
    (time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000).to_be_bytes()
}

fn thrift_span(out: &mut Vec<u8>, span: &Span) {
    long(out, 1, &span.trace_id[8..]);
    long(out, 2, &span.trace_id[..8]);
    long(out, 3, &span.span_id);
    long(out, 4, &[0; 8]);
    text_field(out, 5, &span.operation_name);
    list(out, 6, &span.references, |out, reference| {
        field(out, 8, 1);
        out.extend(reference.ref_type.to_be_bytes());
        long(out, 2, &reference.trace_id[8..]);
        long(out, 3, &reference.trace_id[..8]);
        long(out, 4, &reference.span_id);
        out.push(0);
    });
    field(out, 8, 7);
    out.extend(span.flags.to_be_bytes());
    long(out, 8, &micros(span.start_time));
    long(out, 9, &micros(span.duration));
    list(out, 10, &span.tags, thrift_tag);
    list(out, 11, &span.logs, |out, log| {
        long(out, 1, &micros(log.timestamp));
        list(out, 2, &log.fields, thrift_tag);
        out.push(0);
    });
    out.push(0);
}

fn thrift_tag(out: &mut Vec<u8>, tag: &KeyValue) {
    text_field(out, 1, &tag.key);
    // STRING, DOUBLE, BOOL, LONG, BINARY
    let kind: i32 = [0, 2, 3, 1, 4][tag.v_type as usize];
    field(out, 8, 2);
    out.extend(kind.to_be_bytes());
    match tag.v_type {
        0 => text_field(out, 3, &tag.v_str),
        1 => {
            field(out, 2, 5);
            out.push(u8::from(tag.v_bool));
        }
        2 => long(out, 6, &tag.v_int64.to_be_bytes()),
        3 => {
            field(out, 4, 4);
            out.extend(tag.v_float64.to_be_bytes());
        }
        _ => bytes_field(out, 7, &tag.v_binary),
    }
    out.push(0);
}
