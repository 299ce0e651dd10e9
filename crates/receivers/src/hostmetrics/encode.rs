//! Measurements as an OTLP request of metrics, written as they are read.

use model::wire::{BYTES, FIXED64, VARINT, close_length, open_length, put_bytes, put_fixed64, put_tag, put_varint};

/// A metric as it is described to whoever reads it.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub unit: &'static str,
    pub about: &'static str,
    pub kind: Kind,
    /// Whether it is collected unless the configuration says otherwise.
    pub is_default: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    /// A sum that only grows.
    Counter,
    /// A sum that may fall.
    Sum,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Int(i64),
    Double(f64),
}

impl From<u64> for Number {
    fn from(number: u64) -> Number {
        Number::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Number {
        Number::Double(number)
    }
}

/// OTLP's `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u64 = 2;

/// Since when and until when.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// When the counters began: the boot, or the start of the process they are of.
    pub start_unix_nano: u64,
    pub now_unix_nano: u64,
}

/// A request under construction.
#[derive(Debug, Default)]
pub struct Request {
    pub out: Vec<u8>,
    pub points: u32,
}

impl Request {
    /// Adds a resource with what one scraper measured. `attributes` are the resource's.
    pub fn resource(&mut self, scope: &str, attributes: &[(&str, Value<'_>)], fill: impl FnOnce(&mut Scope<'_>)) {
        let (before, points) = (self.out.len(), self.points);
        put_tag(&mut self.out, 1, BYTES);
        let group = open_length(&mut self.out, 2_000);
        put_tag(&mut self.out, 1, BYTES);
        let resource = open_length(&mut self.out, 0);
        for (key, value) in attributes {
            put_attribute(1, key, *value, &mut self.out);
        }
        close_length(&mut self.out, resource);
        put_tag(&mut self.out, 2, BYTES);
        let metrics = open_length(&mut self.out, 2_000);
        put_tag(&mut self.out, 1, BYTES);
        let name = open_length(&mut self.out, 0);
        put_bytes(&mut self.out, 1, scope.as_bytes());
        close_length(&mut self.out, name);
        fill(&mut Scope { request: self });
        close_length(&mut self.out, metrics);
        close_length(&mut self.out, group);
        if self.points == points {
            self.out.truncate(before);
        }
    }
}

/// A value of an attribute.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    Text(&'a str),
    Int(i64),
}

/// Where one scraper's metrics go.
pub struct Scope<'r> {
    request: &'r mut Request,
}

impl Scope<'_> {
    /// Adds a metric with the points that `fill` puts; none, no metric.
    pub fn metric(&mut self, metric: &Metric, span: Span, fill: impl FnOnce(&mut Points<'_>)) {
        let out = &mut self.request.out;
        let before = out.len();
        put_tag(out, 2, BYTES);
        let open = open_length(out, 1_000);
        put_bytes(out, 1, metric.name.as_bytes());
        put_bytes(out, 2, metric.about.as_bytes());
        put_bytes(out, 3, metric.unit.as_bytes());
        put_tag(out, if metric.kind == Kind::Gauge { 5 } else { 7 }, BYTES);
        let data = open_length(out, 1_000);
        let mut points = Points {
            out,
            span,
            is_gauge: metric.kind == Kind::Gauge,
            count: 0,
        };
        fill(&mut points);
        let count = points.count;
        if metric.kind != Kind::Gauge {
            put_tag(out, 2, VARINT);
            put_varint(out, CUMULATIVE);
            if metric.kind == Kind::Counter {
                put_tag(out, 3, VARINT);
                put_varint(out, 1);
            }
        }
        close_length(out, data);
        close_length(out, open);
        match count {
            0 => out.truncate(before),
            _ => self.request.points += count,
        }
    }
}

/// Where one metric's points go.
pub struct Points<'r> {
    out: &'r mut Vec<u8>,
    span: Span,
    is_gauge: bool,
    count: u32,
}

impl Points<'_> {
    pub fn put(&mut self, value: impl Into<Number>, attributes: &[(&str, &str)]) {
        self.count += 1;
        put_tag(self.out, 1, BYTES);
        let open = open_length(self.out, 100);
        if !self.is_gauge {
            put_fixed64(self.out, 2, self.span.start_unix_nano);
        }
        put_fixed64(self.out, 3, self.span.now_unix_nano);
        match value.into() {
            Number::Double(number) => {
                put_tag(self.out, 4, FIXED64);
                self.out.extend_from_slice(&number.to_le_bytes());
            }
            Number::Int(number) => {
                put_tag(self.out, 6, FIXED64);
                self.out.extend_from_slice(&number.to_le_bytes());
            }
        }
        for (key, value) in attributes {
            put_attribute(7, key, Value::Text(value), self.out);
        }
        close_length(self.out, open);
    }
}

fn put_attribute(number: u32, key: &str, value: Value<'_>, out: &mut Vec<u8>) {
    put_tag(out, number, BYTES);
    let pair = open_length(out, 0);
    put_bytes(out, 1, key.as_bytes());
    put_tag(out, 2, BYTES);
    let open = open_length(out, 0);
    match value {
        Value::Text(text) => put_bytes(out, 1, text.as_bytes()),
        Value::Int(number) => {
            put_tag(out, 3, VARINT);
            put_varint(out, number as u64);
        }
    }
    close_length(out, open);
    close_length(out, pair);
}
