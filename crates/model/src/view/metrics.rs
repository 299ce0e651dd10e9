//! Views over `ExportMetricsServiceRequest`.

use super::group::{self, ResourceGroup};
use super::list::{List, Packed, PackedVarints, Stretch, View, each_field};
use super::text;
use super::value::Attributes;
use crate::id::{SpanId, TraceId};
use crate::wire::Payload;

/// The resources of a request.
pub fn resource_metrics(payload: &[u8]) -> List<'_, ResourceGroup<'_, Metric<'_>>> {
    group::resources(payload)
}

/// Every metric of a request.
pub fn metrics(payload: &[u8]) -> impl Iterator<Item = Metric<'_>> {
    group::items(payload)
}

#[derive(Debug, Clone, Copy)]
pub struct Metric<'a> {
    pub name: &'a str,
    pub description: &'a str,
    pub unit: &'a str,
    pub metadata: Attributes<'a>,
    pub data: Data<'a>,
    /// The encoded message.
    pub raw: &'a [u8],
}

/// The points of a metric. `temporality` is as sent: 1 delta, 2 cumulative.
#[derive(Debug, Clone, Copy)]
pub enum Data<'a> {
    /// None, or of a kind that OTLP does not define.
    None,
    Gauge {
        points: List<'a, NumberPoint<'a>>,
    },
    Sum {
        points: List<'a, NumberPoint<'a>>,
        temporality: i32,
        is_monotonic: bool,
    },
    Histogram {
        points: List<'a, HistogramPoint<'a>>,
        temporality: i32,
    },
    ExponentialHistogram {
        points: List<'a, ExponentialHistogramPoint<'a>>,
        temporality: i32,
    },
    Summary {
        points: List<'a, SummaryPoint<'a>>,
    },
}

impl<'a> View<'a> for Metric<'a> {
    fn read(raw: &'a [u8]) -> Self {
        let mut metadata = Stretch::default();
        let mut metric = Metric {
            name: "",
            description: "",
            unit: "",
            metadata: List::new(&[], 12),
            data: Data::None,
            raw,
        };
        each_field(raw, |number, payload, before, after| match number {
            1 => metric.name = text(payload.bytes()),
            2 => metric.description = text(payload.bytes()),
            3 => metric.unit = text(payload.bytes()),
            5 => {
                metric.data = Data::Gauge {
                    points: points(payload.bytes()).0,
                }
            }
            7 => {
                let (points, temporality, is_monotonic) = points(payload.bytes());
                metric.data = Data::Sum {
                    points,
                    temporality,
                    is_monotonic,
                };
            }
            9 => {
                let (points, temporality, _) = points(payload.bytes());
                metric.data = Data::Histogram { points, temporality };
            }
            10 => {
                let (points, temporality, _) = points(payload.bytes());
                metric.data = Data::ExponentialHistogram { points, temporality };
            }
            11 => {
                metric.data = Data::Summary {
                    points: points(payload.bytes()).0,
                }
            }
            12 => metadata.note(raw, before, after),
            _ => {}
        });
        metric.metadata = List::new(metadata.of(raw), 12);
        metric
    }
}

/// Every kind of data has its points in field 1, and the temporality and monotonicity, if any, in 2 and 3.
fn points<'a, T: View<'a>>(data: &'a [u8]) -> (List<'a, T>, i32, bool) {
    let mut stretch = Stretch::default();
    let (mut temporality, mut is_monotonic) = (0, false);
    each_field(data, |number, payload, before, after| match number {
        1 => stretch.note(data, before, after),
        2 => temporality = payload.varint() as i32,
        3 => is_monotonic = payload.varint() != 0,
        _ => {}
    });
    (List::new(stretch.of(data), 1), temporality, is_monotonic)
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Number {
    #[default]
    None,
    Int(i64),
    Double(f64),
}

impl Number {
    fn read(payload: Payload<'_>, as_int: bool) -> Self {
        let bits = payload.fixed64();
        if as_int {
            Number::Int(bits as i64)
        } else {
            Number::Double(f64::from_bits(bits))
        }
    }
}

/// A point of a gauge or a sum.
#[derive(Debug, Clone, Copy)]
pub struct NumberPoint<'a> {
    pub attributes: Attributes<'a>,
    pub start_unix_nano: u64,
    pub time_unix_nano: u64,
    pub value: Number,
    pub exemplars: List<'a, Exemplar<'a>>,
    pub flags: u32,
    /// The encoded message.
    pub raw: &'a [u8],
}

impl<'a> View<'a> for NumberPoint<'a> {
    fn read(raw: &'a [u8]) -> Self {
        let (mut attributes, mut exemplars) = (Stretch::default(), Stretch::default());
        let mut point = NumberPoint {
            attributes: List::new(&[], 7),
            start_unix_nano: 0,
            time_unix_nano: 0,
            value: Number::None,
            exemplars: List::new(&[], 5),
            flags: 0,
            raw,
        };
        each_field(raw, |number, payload, before, after| match number {
            2 => point.start_unix_nano = payload.fixed64(),
            3 => point.time_unix_nano = payload.fixed64(),
            4 => point.value = Number::read(payload, false),
            5 => exemplars.note(raw, before, after),
            6 => point.value = Number::read(payload, true),
            7 => attributes.note(raw, before, after),
            8 => point.flags = payload.varint() as u32,
            _ => {}
        });
        point.attributes = List::new(attributes.of(raw), 7);
        point.exemplars = List::new(exemplars.of(raw), 5);
        point
    }
}

#[derive(Debug, Clone, Copy)]
pub struct HistogramPoint<'a> {
    pub attributes: Attributes<'a>,
    pub start_unix_nano: u64,
    pub time_unix_nano: u64,
    pub count: u64,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// One more than the bounds, or both empty.
    pub bucket_counts: Packed<'a>,
    pub explicit_bounds: Packed<'a>,
    pub exemplars: List<'a, Exemplar<'a>>,
    pub flags: u32,
    /// The encoded message.
    pub raw: &'a [u8],
}

impl<'a> View<'a> for HistogramPoint<'a> {
    fn read(raw: &'a [u8]) -> Self {
        let (mut attributes, mut exemplars) = (Stretch::default(), Stretch::default());
        let mut point = HistogramPoint {
            attributes: List::new(&[], 9),
            start_unix_nano: 0,
            time_unix_nano: 0,
            count: 0,
            sum: None,
            min: None,
            max: None,
            bucket_counts: Packed::default(),
            explicit_bounds: Packed::default(),
            exemplars: List::new(&[], 8),
            flags: 0,
            raw,
        };
        each_field(raw, |number, payload, before, after| match number {
            2 => point.start_unix_nano = payload.fixed64(),
            3 => point.time_unix_nano = payload.fixed64(),
            4 => point.count = payload.fixed64(),
            5 => point.sum = Some(f64::from_bits(payload.fixed64())),
            6 => point.bucket_counts = Packed::new(payload.bytes()),
            7 => point.explicit_bounds = Packed::new(payload.bytes()),
            8 => exemplars.note(raw, before, after),
            9 => attributes.note(raw, before, after),
            10 => point.flags = payload.varint() as u32,
            11 => point.min = Some(f64::from_bits(payload.fixed64())),
            12 => point.max = Some(f64::from_bits(payload.fixed64())),
            _ => {}
        });
        point.attributes = List::new(attributes.of(raw), 9);
        point.exemplars = List::new(exemplars.of(raw), 8);
        point
    }
}

#[derive(Debug, Clone, Copy)]
pub struct ExponentialHistogramPoint<'a> {
    pub attributes: Attributes<'a>,
    pub start_unix_nano: u64,
    pub time_unix_nano: u64,
    pub count: u64,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub scale: i32,
    pub zero_count: u64,
    pub zero_threshold: f64,
    pub positive: Option<Buckets<'a>>,
    pub negative: Option<Buckets<'a>>,
    pub exemplars: List<'a, Exemplar<'a>>,
    pub flags: u32,
    /// The encoded message.
    pub raw: &'a [u8],
}

impl<'a> View<'a> for ExponentialHistogramPoint<'a> {
    fn read(raw: &'a [u8]) -> Self {
        let (mut attributes, mut exemplars) = (Stretch::default(), Stretch::default());
        let mut point = ExponentialHistogramPoint {
            attributes: List::new(&[], 1),
            start_unix_nano: 0,
            time_unix_nano: 0,
            count: 0,
            sum: None,
            min: None,
            max: None,
            scale: 0,
            zero_count: 0,
            zero_threshold: 0.0,
            positive: None,
            negative: None,
            exemplars: List::new(&[], 11),
            flags: 0,
            raw,
        };
        each_field(raw, |number, payload, before, after| match number {
            1 => attributes.note(raw, before, after),
            2 => point.start_unix_nano = payload.fixed64(),
            3 => point.time_unix_nano = payload.fixed64(),
            4 => point.count = payload.fixed64(),
            5 => point.sum = Some(f64::from_bits(payload.fixed64())),
            6 => point.scale = zigzag(payload.varint()),
            7 => point.zero_count = payload.fixed64(),
            8 => point.positive = Some(Buckets::read(payload.bytes())),
            9 => point.negative = Some(Buckets::read(payload.bytes())),
            10 => point.flags = payload.varint() as u32,
            11 => exemplars.note(raw, before, after),
            12 => point.min = Some(f64::from_bits(payload.fixed64())),
            13 => point.max = Some(f64::from_bits(payload.fixed64())),
            14 => point.zero_threshold = f64::from_bits(payload.fixed64()),
            _ => {}
        });
        point.attributes = List::new(attributes.of(raw), 1);
        point.exemplars = List::new(exemplars.of(raw), 11);
        point
    }
}

/// The buckets of one sign of an exponential histogram.
#[derive(Debug, Clone, Copy, Default)]
pub struct Buckets<'a> {
    pub offset: i32,
    pub bucket_counts: PackedVarints<'a>,
}

impl<'a> View<'a> for Buckets<'a> {
    fn read(message: &'a [u8]) -> Self {
        let mut buckets = Buckets::default();
        each_field(message, |number, payload, _, _| match number {
            1 => buckets.offset = zigzag(payload.varint()),
            2 => buckets.bucket_counts = PackedVarints::new(payload.bytes()),
            _ => {}
        });
        buckets
    }
}

#[derive(Debug, Clone, Copy)]
pub struct SummaryPoint<'a> {
    pub attributes: Attributes<'a>,
    pub start_unix_nano: u64,
    pub time_unix_nano: u64,
    pub count: u64,
    pub sum: f64,
    pub quantiles: List<'a, Quantile>,
    pub flags: u32,
    /// The encoded message.
    pub raw: &'a [u8],
}

impl<'a> View<'a> for SummaryPoint<'a> {
    fn read(raw: &'a [u8]) -> Self {
        let (mut attributes, mut quantiles) = (Stretch::default(), Stretch::default());
        let mut point = SummaryPoint {
            attributes: List::new(&[], 7),
            start_unix_nano: 0,
            time_unix_nano: 0,
            count: 0,
            sum: 0.0,
            quantiles: List::new(&[], 6),
            flags: 0,
            raw,
        };
        each_field(raw, |number, payload, before, after| match number {
            2 => point.start_unix_nano = payload.fixed64(),
            3 => point.time_unix_nano = payload.fixed64(),
            4 => point.count = payload.fixed64(),
            5 => point.sum = f64::from_bits(payload.fixed64()),
            6 => quantiles.note(raw, before, after),
            7 => attributes.note(raw, before, after),
            8 => point.flags = payload.varint() as u32,
            _ => {}
        });
        point.attributes = List::new(attributes.of(raw), 7);
        point.quantiles = List::new(quantiles.of(raw), 6);
        point
    }
}

/// The value below which a share (0 to 1) of the observations lie.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quantile {
    pub quantile: f64,
    pub value: f64,
}

impl<'a> View<'a> for Quantile {
    fn read(message: &'a [u8]) -> Self {
        let mut quantile = Quantile::default();
        each_field(message, |number, payload, _, _| match number {
            1 => quantile.quantile = f64::from_bits(payload.fixed64()),
            2 => quantile.value = f64::from_bits(payload.fixed64()),
            _ => {}
        });
        quantile
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Exemplar<'a> {
    pub filtered_attributes: Attributes<'a>,
    pub time_unix_nano: u64,
    pub value: Number,
    /// `None` where the sender gave none that is valid.
    pub trace_id: Option<TraceId>,
    pub span_id: Option<SpanId>,
    /// The encoded message.
    pub raw: &'a [u8],
}

impl<'a> View<'a> for Exemplar<'a> {
    fn read(raw: &'a [u8]) -> Self {
        let mut attributes = Stretch::default();
        let mut exemplar = Exemplar {
            filtered_attributes: List::new(&[], 7),
            time_unix_nano: 0,
            value: Number::None,
            trace_id: None,
            span_id: None,
            raw,
        };
        each_field(raw, |number, payload, before, after| match number {
            2 => exemplar.time_unix_nano = payload.fixed64(),
            3 => exemplar.value = Number::read(payload, false),
            4 => exemplar.span_id = SpanId::from_bytes(payload.bytes()),
            5 => exemplar.trace_id = TraceId::from_bytes(payload.bytes()),
            6 => exemplar.value = Number::read(payload, true),
            7 => attributes.note(raw, before, after),
            _ => {}
        });
        exemplar.filtered_attributes = List::new(attributes.of(raw), 7);
        exemplar
    }
}

/// A `sint32` as a varint holds it.
fn zigzag(value: u64) -> i32 {
    let value = value as u32;
    (value >> 1) as i32 ^ -((value & 1) as i32)
}
