//! Why: native histograms are only in the pages in protobuf, a chain of `MetricFamily` messages with their lengths before them.
//!
//! What a page says becomes the same series as in text: a family of classic histograms the series of their buckets, sums and counts; a native histogram one
//! series under the family's own name. As with text, a page is read wholly or not at all.
//!
//! Source: `io/prometheus/client/metrics.proto` (prometheus/client_model); which of two forms of a histogram counts is as in Prometheus' own parser.

use std::borrow::Cow;

use model::wire::{self, Payload};

use super::exposition::{MAX_EXEMPLAR_CHARS, MAX_PAGE_BYTES};
use super::series::{BadLabels, Exemplar, Label, NAME, Native, Sample, SeriesList, Span, Stretch};
use super::{Kind, number};
use crate::remote_write::read_native::{self, Histogram, Number};

/// What is asked for, and what names such a page.
pub const MEDIA_TYPE: &str =
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

/// Characters of a metric's name in what is said of it.
const MAX_SHOWN_CHARS: usize = 100;

/// Why a page is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the family {family}: {what}")]
pub struct BadFamily {
    /// Its name, or its number where that could not be read.
    pub family: String,
    pub what: Cow<'static, str>,
}

type What = Cow<'static, str>;

/// Which histograms are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Native ones. Without it of each histogram only its classic buckets are.
    pub natives: bool,
    /// The classic buckets of histograms that are native too.
    pub classics_beside: bool,
}

/// Whether a content type names such a page.
pub fn is_it(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let is_protobuf = parts
        .next()
        .is_some_and(|kind| kind.eq_ignore_ascii_case("application/vnd.google.protobuf"));
    // Messages of any other kind, or written in any other way, are another format.
    let has = |wanted: &str| {
        let mut parameters = content_type.split(';').skip(1).map(str::trim);
        parameters.any(|parameter| parameter.eq_ignore_ascii_case(wanted))
    };
    is_protobuf && has("proto=io.prometheus.client.MetricFamily") && has("encoding=delimited")
}

/// What a page will be, counted without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    pub series: u64,
    pub labels: u64,
    /// Of native histograms once they are read, of what names the parts of classic ones, and of exemplars.
    pub bytes: u64,
}

/// Counts series and labels of a page, no less than there are.
pub fn size(page: &[u8]) -> Size {
    let mut size = Size::default();
    for family in families(page).map_while(Result::ok) {
        // The name may stand behind the metrics, and is written for each of their series all the same.
        let names = fields(family).map_while(Result::ok).filter(|(number, _)| *number == 1);
        let name_bytes = names.map(|(_, name)| name.bytes().len()).max().unwrap_or(0) as u64;
        size.bytes += FAMILY_BYTES;
        for (number, payload) in fields(family).map_while(Result::ok) {
            if let (4, Payload::Bytes(metric)) = (number, payload) {
                size.metric(metric, name_bytes);
            }
        }
    }
    size
}

/// A family in the list, and `__name__`, which its series share.
const FAMILY_BYTES: u64 = 40;

/// `_bucket` behind a name, and a bound as a label.
const PART_BYTES: u64 = 40;

/// An exemplar in the list and where it was found: twice, as one histogram's and as one of its buckets'.
const EXEMPLAR_BYTES: u64 = 2 * (size_of::<Exemplar>() + size_of::<&[u8]>()) as u64;

impl Size {
    fn metric(&mut self, metric: &[u8], name_bytes: u64) {
        let (mut labels, mut parts) = (2, 1);
        for (number, payload) in fields(metric).map_while(Result::ok) {
            match (number, payload) {
                (1, _) => labels += 1,
                (3, Payload::Bytes(counter)) => self.exemplars(counter, 2),
                (4 | 7, Payload::Bytes(data)) => {
                    // The quantiles, or the buckets; and sum, count, the bucket without a bound, the histogram as a native one.
                    parts += 4;
                    for (part, payload) in fields(data).map_while(Result::ok) {
                        parts += u64::from(part == 3);
                        if let (7, 3, Payload::Bytes(bucket)) = (number, part, payload) {
                            self.exemplars(bucket, 3);
                        }
                    }
                    if number == 7 {
                        self.exemplars(data, 16);
                        self.bytes += read_native::bytes_at_most(data, [9, 12]);
                    }
                }
                _ => {}
            }
        }
        self.series += parts;
        self.labels += parts * labels;
        self.bytes += parts * (name_bytes + PART_BYTES);
    }

    /// Those of a message that has them under this number.
    fn exemplars(&mut self, message: &[u8], number: u64) {
        for (found, payload) in fields(message).map_while(Result::ok) {
            if let Payload::Bytes(exemplar) = payload
                && found == number
            {
                let pairs = fields(exemplar)
                    .map_while(Result::ok)
                    .filter(|(number, _)| *number == 1);
                self.labels += 2 * pairs.count() as u64;
                self.bytes += EXEMPLAR_BYTES + exemplar.len() as u64;
            }
        }
    }
}

/// Reads a page: a series of one sample, or of one native histogram, for each thing that it says.
pub fn read(page: &[u8], wanted: Wanted) -> Result<SeriesList, BadFamily> {
    let numbered = |at: usize, what: What| BadFamily {
        family: format!("number {}", at + 1),
        what,
    };
    if page.len() > MAX_PAGE_BYTES {
        return Err(numbered(
            0,
            format!("the page is longer than {MAX_PAGE_BYTES} bytes").into(),
        ));
    }
    let mut reader = Reader {
        list: SeriesList::new(),
        wanted,
    };
    for (at, family) in families(page).enumerate() {
        let family = family.map_err(|what| numbered(at, what))?;
        reader.family(family).map_err(|what| match name_of(family) {
            Some(name) => BadFamily {
                family: name.chars().take(MAX_SHOWN_CHARS).collect(),
                what,
            },
            None => numbered(at, what),
        })?;
    }
    Ok(reader.list)
}

fn families(mut page: &[u8]) -> impl Iterator<Item = Result<&[u8], What>> {
    std::iter::from_fn(move || {
        if page.is_empty() {
            return None;
        }
        let family = wire::delimited(&mut page);
        if family.is_none() {
            page = &[];
        }
        Some(family.ok_or("the page ends within it, so it may be cut off".into()))
    })
}

fn fields(rest: &[u8]) -> impl Iterator<Item = Result<(u64, Payload<'_>), What>> {
    wire::strict_fields(rest).map(|field| field.ok_or(What::from("it is no protobuf")))
}

fn name_of(family: &[u8]) -> Option<&str> {
    // The last of several counts, as protobuf has it.
    let names = fields(family).map_while(Result::ok).filter(|(number, _)| *number == 1);
    let name = std::str::from_utf8(names.last()?.1.bytes()).ok()?;
    Some(name).filter(|name| !name.is_empty())
}

fn text(bytes: &[u8]) -> Result<&str, What> {
    std::str::from_utf8(bytes).map_err(|_| "a text is not UTF-8".into())
}

fn double(payload: Payload<'_>) -> f64 {
    f64::from_bits(payload.fixed64())
}

fn said(bad: BadLabels) -> What {
    bad.to_string().into()
}

/// A `Timestamp` in milliseconds.
fn millis(message: &[u8]) -> Result<i64, What> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    for field in fields(message) {
        match field? {
            (1, payload) => seconds = payload.varint() as i64,
            (2, payload) => nanos = payload.varint() as i32 as i64,
            _ => {}
        }
    }
    let millis = seconds
        .checked_mul(1_000)
        .and_then(|ms| ms.checked_add(nanos / 1_000_000));
    millis.ok_or("a time is beyond all times".into())
}

struct Reader {
    list: SeriesList,
    wanted: Wanted,
}

/// What all series of a metric have.
struct Common<'p> {
    family: u32,
    name: &'p str,
    /// The metric's own labels, whose texts are in the list.
    labels: Vec<Label>,
    /// Where `__name__` is.
    name_key: Span,
    time_ms: Option<i64>,
    start_ms: i64,
}

impl Reader {
    fn family(&mut self, family: &[u8]) -> Result<(), What> {
        let (mut name, mut help, mut unit, mut kind) = ("", "", "", 0);
        for field in fields(family) {
            match field? {
                (1, payload) => name = text(payload.bytes())?,
                (2, payload) => help = text(payload.bytes())?,
                (3, payload) => kind = payload.varint(),
                (5, payload) => unit = text(payload.bytes())?,
                _ => {}
            }
        }
        if name.is_empty() {
            return Err("it has no name".into());
        }
        let kind = match kind {
            0 => Kind::Counter,
            1 => Kind::Gauge,
            2 => Kind::Summary,
            3 => Kind::Unknown,
            4 => Kind::Histogram,
            5 => Kind::GaugeHistogram,
            other => return Err(format!("its type {other} is not known").into()),
        };
        let number = self.list.put_family(kind, name, help, unit).map_err(said)?;
        let name_key = self.list.put_text(NAME).map_err(said)?;
        for field in fields(family) {
            if let (4, Payload::Bytes(metric)) = field? {
                let common = Common {
                    family: number,
                    name,
                    labels: Vec::new(),
                    name_key,
                    time_ms: None,
                    start_ms: 0,
                };
                self.metric(metric, kind, common)?;
            }
        }
        Ok(())
    }

    fn metric(&mut self, metric: &[u8], kind: Kind, mut common: Common<'_>) -> Result<(), What> {
        let wanted = match kind {
            Kind::Gauge => 2,
            Kind::Counter => 3,
            Kind::Summary => 4,
            Kind::Histogram | Kind::GaugeHistogram => 7,
            _ => 5,
        };
        let mut data = None;
        for field in fields(metric) {
            match field? {
                (1, Payload::Bytes(pair)) => common.labels.push(self.pair(pair)?),
                (6, Payload::Varint(time_ms)) => common.time_ms = Some(time_ms as i64),
                (number, Payload::Bytes(message)) if number == wanted => data = Some(message),
                _ => {}
            }
        }
        let data = data.ok_or_else(|| What::from(format!("a metric has no value of its type, {}", kind.word())))?;
        match kind {
            Kind::Histogram | Kind::GaugeHistogram => self.histogram(data, kind, common),
            Kind::Summary => self.summary(data, common),
            _ => {
                let (mut value, mut exemplars) = (0.0, Vec::new());
                for field in fields(data) {
                    match field? {
                        (1, payload) => value = double(payload),
                        (2, Payload::Bytes(exemplar)) if kind == Kind::Counter => exemplars.push(exemplar),
                        (3, Payload::Bytes(created)) if kind == Kind::Counter => common.start_ms = millis(created)?,
                        _ => {}
                    }
                }
                self.sample(&common, "", None, value, &exemplars)
            }
        }
    }

    /// A `LabelPair`.
    fn pair(&mut self, message: &[u8]) -> Result<Label, What> {
        let (mut name, mut value) = ("", "");
        for field in fields(message) {
            match field? {
                (1, payload) => name = text(payload.bytes())?,
                (2, payload) => value = text(payload.bytes())?,
                _ => {}
            }
        }
        Ok(Label {
            name: self.list.put_text(name).map_err(said)?,
            value: self.list.put_text(value).map_err(said)?,
        })
    }

    /// The labels of a series of the metric, its name among them.
    fn labels(&mut self, common: &Common<'_>, suffix: &str, bound: Option<(&str, f64)>) -> Result<Stretch, What> {
        let start = self.list.labels.len();
        // The parts of a histogram share the texts of its labels, so there may be more labels than bytes were read.
        if start + common.labels.len() + 2 > u32::MAX as usize {
            return Err("its labels are more than 32 bits count".into());
        }
        self.list.labels.extend_from_slice(&common.labels);
        let text_start = self.list.text.len();
        self.list.text.push_str(common.name);
        self.list.text.push_str(suffix);
        let value = self.list.text_since(text_start).map_err(said)?;
        self.list.labels.push(Label {
            name: common.name_key,
            value,
        });
        if let Some((name, bound)) = bound {
            let name = self.list.put_text(name).map_err(said)?;
            let text_start = self.list.text.len();
            number::canonical(&mut self.list.text, bound);
            let value = self.list.text_since(text_start).map_err(said)?;
            self.list.labels.push(Label { name, value });
        }
        self.list.series_labels(start).map_err(said)
    }

    fn sample(
        &mut self,
        common: &Common<'_>,
        suffix: &str,
        bound: Option<(&str, f64)>,
        value: f64,
        exemplars: &[&[u8]],
    ) -> Result<(), What> {
        let labels = self.labels(common, suffix, bound)?;
        self.list.begin(common.family);
        self.list.put_sample(Sample {
            value,
            time_ms: common.time_ms,
            start_ms: common.start_ms,
        });
        for exemplar in exemplars {
            self.exemplar(exemplar)?;
        }
        self.list.end(labels);
        Ok(())
    }

    fn exemplar(&mut self, message: &[u8]) -> Result<(), What> {
        let start = self.list.labels.len();
        let (mut value, mut time_ms) = (0.0, None);
        for field in fields(message) {
            match field? {
                (1, Payload::Bytes(pair)) => {
                    let label = self.pair(pair)?;
                    self.list.labels.push(label);
                }
                (2, payload) => value = double(payload),
                (3, Payload::Bytes(time)) => time_ms = Some(millis(time)?),
                _ => {}
            }
        }
        let labels = self.list.exemplar_labels(start).map_err(said)?;
        let chars = |span: Span| self.list.at(span).chars().count();
        let pairs = labels.of(&self.list.labels).iter();
        if pairs.map(|label| chars(label.name) + chars(label.value)).sum::<usize>() > MAX_EXEMPLAR_CHARS {
            let what = format!("the labels of an exemplar have more than {MAX_EXEMPLAR_CHARS} characters");
            return Err(what.into());
        }
        self.list.exemplars.push(Exemplar { labels, value, time_ms });
        Ok(())
    }

    fn summary(&mut self, data: &[u8], mut common: Common<'_>) -> Result<(), What> {
        let (mut count, mut sum, mut quantiles) = (0, 0.0, Vec::new());
        for field in fields(data) {
            match field? {
                (1, payload) => count = payload.varint(),
                (2, payload) => sum = double(payload),
                (3, Payload::Bytes(quantile)) => {
                    let (mut of, mut value) = (0.0, 0.0);
                    for field in fields(quantile) {
                        match field? {
                            (1, payload) => of = double(payload),
                            (2, payload) => value = double(payload),
                            _ => {}
                        }
                    }
                    quantiles.push((of, value));
                }
                (4, Payload::Bytes(created)) => common.start_ms = millis(created)?,
                _ => {}
            }
        }
        for (of, value) in quantiles {
            self.sample(&common, "", Some(("quantile", of)), value, &[])?;
        }
        self.sample(&common, "_sum", None, sum, &[])?;
        self.sample(&common, "_count", None, count as f64, &[])
    }

    fn histogram(&mut self, data: &[u8], kind: Kind, mut common: Common<'_>) -> Result<(), What> {
        let mut histogram = Histogram::default();
        let (mut buckets, mut exemplars, mut has_spans) = (Vec::new(), Vec::new(), false);
        let bad = |_| What::from("a native histogram is no protobuf");
        for field in fields(data) {
            match field? {
                (1, Payload::Varint(count)) => histogram.count = Number::Int(count),
                // The whole one counts where both are told and this is none.
                (4, Payload::Fixed64(bits)) if f64::from_bits(bits) > 0.0 => {
                    histogram.count = Number::Float(f64::from_bits(bits));
                }
                (2, payload) => histogram.sum = double(payload),
                (3, Payload::Bytes(bucket)) => buckets.push(bucket),
                (5, Payload::Varint(schema)) => histogram.schema = read_native::unzigzag(schema),
                (6, payload) => histogram.zero_threshold = double(payload),
                (7, Payload::Varint(count)) => histogram.zero_count = Number::Int(count),
                (8, Payload::Fixed64(bits)) if f64::from_bits(bits) > 0.0 => {
                    histogram.zero_count = Number::Float(f64::from_bits(bits));
                }
                (number @ (9 | 12), Payload::Bytes(span)) => {
                    has_spans = true;
                    let side = if number == 9 {
                        &mut histogram.negative
                    } else {
                        &mut histogram.positive
                    };
                    side.spans.push(read_native::span_of(span).map_err(bad)?);
                }
                (10, payload) => read_native::deltas(&mut histogram.negative.deltas, payload).map_err(bad)?,
                (11, payload) => read_native::doubles(&mut histogram.negative.counts, payload).map_err(bad)?,
                (13, payload) => read_native::deltas(&mut histogram.positive.deltas, payload).map_err(bad)?,
                (14, payload) => read_native::doubles(&mut histogram.positive.counts, payload).map_err(bad)?,
                (15, Payload::Bytes(created)) => common.start_ms = millis(created)?,
                (16, Payload::Bytes(exemplar)) => exemplars.push(exemplar),
                _ => {}
            }
        }
        let has_zero = !matches!(histogram.zero_count, Number::None | Number::Int(0)) || histogram.zero_threshold > 0.0;
        let is_native = self.wanted.natives && (has_spans || has_zero);
        if is_native {
            // What the buckets have of exemplars is the histogram's where it has none itself.
            let own = !exemplars.is_empty();
            for bucket in buckets.iter().filter(|_| !own) {
                let found = fields(bucket).map_while(Result::ok);
                exemplars.extend(
                    found
                        .filter(|(number, _)| *number == 3)
                        .map(|(_, payload)| payload.bytes()),
                );
            }
            self.native(&common, &histogram, &exemplars)?;
        }
        match is_native && !self.wanted.classics_beside {
            true => Ok(()),
            false => self.classic(&common, kind, &histogram, &buckets),
        }
    }

    fn native(&mut self, common: &Common<'_>, histogram: &Histogram, exemplars: &[&[u8]]) -> Result<(), What> {
        let labels = self.labels(common, "", None)?;
        self.list.begin(common.family);
        let start = self.list.bytes.len();
        let form = read_native::write(&mut self.list.bytes, histogram).map_err(|bad| What::from(bad.to_string()))?;
        if self.list.bytes.len() > u32::MAX as usize {
            return Err("the native histograms of the page take more than 4 GiB".into());
        }
        self.list.natives.push(Native {
            form,
            time_ms: common.time_ms,
            start_ms: common.start_ms,
            body: Stretch {
                start: start as u32,
                end: self.list.bytes.len() as u32,
            },
        });
        for exemplar in exemplars {
            self.exemplar(exemplar)?;
        }
        self.list.end(labels);
        Ok(())
    }

    fn classic(
        &mut self,
        common: &Common<'_>,
        kind: Kind,
        histogram: &Histogram,
        buckets: &[&[u8]],
    ) -> Result<(), What> {
        let count = histogram.count.approximately();
        let mut has_all = false;
        for bucket in buckets {
            let (mut bound, mut value, mut float, mut exemplars) = (0.0, 0, 0.0, Vec::new());
            for field in fields(bucket) {
                match field? {
                    (1, payload) => value = payload.varint(),
                    (2, payload) => bound = double(payload),
                    (3, Payload::Bytes(exemplar)) => exemplars.push(exemplar),
                    (4, payload) => float = double(payload),
                    _ => {}
                }
            }
            has_all |= bound == f64::INFINITY;
            let value = if float > 0.0 { float } else { value as f64 };
            self.sample(common, "_bucket", Some(("le", bound)), value, &exemplars)?;
        }
        if !has_all {
            self.sample(common, "_bucket", Some(("le", f64::INFINITY)), count, &[])?;
        }
        let (sum, total) = match kind {
            Kind::GaugeHistogram => ("_gsum", "_gcount"),
            _ => ("_sum", "_count"),
        };
        self.sample(common, sum, None, histogram.sum, &[])?;
        self.sample(common, total, None, count, &[])
    }
}

#[cfg(test)]
mod tests;
