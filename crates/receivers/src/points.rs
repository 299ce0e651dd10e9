//! Why: what a receiver measures itself is a few numbers with attributes; this writes them as OTLP without a struct in between.

use std::convert::Infallible;

use model::wire;

/// An attribute's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Int(i64),
}

pub(crate) type Attribute<'a> = (&'a str, Value<'a>);

/// What a metric is, in its own words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Description {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Gauge,
    /// A sum that may go down, and is told as a whole each time.
    UpDown,
}

/// One measurement.
pub(crate) struct Point<'a> {
    pub(crate) attributes: Vec<Attribute<'a>>,
    pub(crate) value: i64,
}

/// The metrics of one resource and scope, as an OTLP request.
pub(crate) struct Points {
    out: Vec<u8>,
    resource: wire::OpenLength,
    scope: wire::OpenLength,
    time_unix_nano: u64,
}

/// OTLP's number for "a sum since the start".
const CUMULATIVE: u64 = 2;

/// A guess at a nested message's bytes: most lengths take one byte, and a wrong guess costs a move.
const SHORT: usize = 100;
const LONG: usize = 1000;

impl Points {
    pub(crate) fn new(resource: &[Attribute<'_>], scope: &str, time_unix_nano: u64) -> Points {
        let mut out = Vec::with_capacity(LONG);
        wire::put_tag(&mut out, 1, wire::BYTES);
        let open_resource = wire::open_length(&mut out, LONG);
        if !resource.is_empty() {
            message(&mut out, 1, SHORT, |out| attributes(out, 1, resource));
        }
        wire::put_tag(&mut out, 2, wire::BYTES);
        let open_scope = wire::open_length(&mut out, LONG);
        message(&mut out, 1, SHORT, |out| {
            wire::put_bytes(out, 1, scope.as_bytes());
            wire::put_bytes(out, 2, env!("CARGO_PKG_VERSION").as_bytes());
        });
        Points {
            out,
            resource: open_resource,
            scope: open_scope,
            time_unix_nano,
        }
    }

    pub(crate) fn metric(&mut self, description: &Description, points: &[Point<'_>]) {
        if points.is_empty() {
            return;
        }
        let time = self.time_unix_nano;
        message(&mut self.out, 2, LONG, |out| {
            wire::put_bytes(out, 1, description.name.as_bytes());
            wire::put_bytes(out, 2, description.about.as_bytes());
            wire::put_bytes(out, 3, description.unit.as_bytes());
            let number = match description.shape {
                Shape::Gauge => 5,
                Shape::UpDown => 7,
            };
            message(out, number, LONG, |out| {
                for point in points {
                    message(out, 1, SHORT, |out| {
                        wire::put_fixed64(out, 3, time);
                        wire::put_fixed64(out, 6, point.value.cast_unsigned());
                        attributes(out, 7, &point.attributes);
                    });
                }
                if description.shape == Shape::UpDown {
                    wire::put_tag(out, 2, wire::VARINT);
                    wire::put_varint(out, CUMULATIVE);
                }
            });
        });
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let mut out = self.out;
        wire::close_length(&mut out, self.scope);
        wire::close_length(&mut out, self.resource);
        out
    }
}

fn attributes(out: &mut Vec<u8>, number: u32, list: &[Attribute<'_>]) {
    for (key, value) in list {
        message(out, number, SHORT, |out| {
            wire::put_bytes(out, 1, key.as_bytes());
            message(out, 2, SHORT, |out| match value {
                Value::Text(text) => wire::put_bytes(out, 1, text.as_bytes()),
                Value::Int(number) => {
                    wire::put_tag(out, 3, wire::VARINT);
                    wire::put_varint(out, number.cast_unsigned());
                }
            });
        });
    }
}

fn message(out: &mut Vec<u8>, number: u32, expected_len: usize, body: impl FnOnce(&mut Vec<u8>)) {
    let written = wire::put_message(out, number, expected_len, |out| {
        body(out);
        Ok::<(), Infallible>(())
    });
    match written {
        Ok(()) => {}
        Err(never) => match never {},
    }
}
