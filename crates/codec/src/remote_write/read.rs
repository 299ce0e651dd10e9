//! Remote-write requests of both versions become series. What is wrong with one series costs that series: the others are taken, as the specification of 2.0
//! has it ("Partial Write"), and the sender is told.

use std::collections::HashMap;

use model::wire::{self, Payload};

use super::Version;
use super::read_native::{self, BadNative};
use crate::prometheus::Kind;
use crate::prometheus::exposition::SUFFIXES;
use crate::prometheus::series::{BadLabels, Exemplar, Family, Label, NAME, Native, Sample, SeriesList, Span, Stretch};

/// Bytes that are no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("{0} is no protobuf")]
    Protobuf(&'static str),
    #[error("the texts of the request are longer than 4 GiB")]
    TooLong,
}

/// Why a series, or a part of one, was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSeries {
    #[error(transparent)]
    Labels(#[from] BadLabels),
    #[error("the references of its labels come in pairs, and these are odd")]
    OddReferences,
    #[error("a label refers to symbol {symbol}, and there are {count}")]
    NoSymbol { symbol: u64, count: usize },
    #[error("a label is not UTF-8")]
    NotText,
    #[error("{0}")]
    Native(#[from] BadNative),
}

/// What was read.
#[derive(Debug, Clone, Default)]
pub struct Read {
    pub list: SeriesList,
    /// Series that were not taken with all they had, or native histograms that were not.
    pub refused: Vec<Refused>,
    /// Samples and native histograms in them.
    pub refused_items: u64,
    /// Exemplars whose labels are none.
    pub refused_exemplars: u64,
}

/// A series that was refused, for the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its labels as far as they could be read, cut off where they are long.
    pub labels: String,
    pub why: BadSeries,
}

/// So many refused series are named in an answer; more would say nothing new.
const MAX_NAMED: usize = 5;

/// Characters of its labels with which a refused series is named.
const MAX_SHOWN_CHARS: usize = 200;

/// How much memory reading a request takes at most, beside the request, and in 1.0 beside [`Families::bytes`]. Lists grow by doubling, so it is twice what they hold.
pub fn bytes_at_most(message: &[u8], version: Version) -> u64 {
    let numbers = version.numbers();
    // An element of each list of the reader, or a little more; texts are copied once.
    const ELEMENT_BYTES: u64 = 48;
    // What there is of each list in any case.
    const REQUEST_BYTES: u64 = 1024;
    let labels = |message: &[u8]| -> u64 {
        let fields = fields(message, "")
            .map_while(Result::ok)
            .filter(|(number, _)| *number == 1);
        let bytes = fields.map(|(_, payload)| match (numbers.labels_are_references, payload) {
            (false, Payload::Bytes(label)) => ELEMENT_BYTES + label.len() as u64,
            // A label is two references, which take a byte each at least.
            (true, Payload::Bytes(packed)) => size_of::<Label>() as u64 * packed.len().div_ceil(2) as u64,
            _ => ELEMENT_BYTES,
        });
        bytes.sum()
    };
    let series = |message: &[u8]| -> u64 {
        let fields = fields(message, "").map_while(Result::ok);
        let bytes = fields.map(|(number, payload)| match payload {
            Payload::Bytes(body) if number == numbers.histograms => {
                ELEMENT_BYTES + read_native::bytes_at_most(body, [8, 11])
            }
            Payload::Bytes(body) if number == numbers.exemplars => ELEMENT_BYTES + labels(body),
            _ => ELEMENT_BYTES,
        });
        ELEMENT_BYTES + bytes.sum::<u64>() + labels(message)
    };
    let fields = fields(message, "").map_while(Result::ok);
    let bytes = fields.map(|(number, payload)| match payload {
        Payload::Bytes(body) if number == numbers.series => series(body),
        payload => ELEMENT_BYTES + payload.bytes().len() as u64,
    });
    REQUEST_BYTES + 2 * bytes.sum::<u64>()
}

// ---- what is said about families, which requests of 1.0 tell apart from the samples ----

/// Families that senders of 1.0 described, by name.
#[derive(Debug, Clone, Default)]
pub struct Families {
    by_name: HashMap<String, usize>,
    descriptions: Vec<Description>,
    bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Description {
    kind: Kind,
    help: String,
    unit: String,
}

/// What is remembered of families at most, in bytes of their texts: some ten thousand descriptions. Beyond it all are forgotten; senders repeat them every
/// minute.
pub const MAX_FAMILIES_BYTES: usize = 4 << 20;

/// A description that takes more than this is not kept.
const MAX_DESCRIPTION_BYTES: usize = 16 << 10;

/// What an entry takes beside its texts.
const ENTRY_BYTES: usize = 128;

impl Families {
    /// Whether a request of 1.0 says anything about families.
    pub fn are_in(message: &[u8]) -> bool {
        let mut fields = fields(message, "WriteRequest").map_while(Result::ok);
        fields.any(|(number, _)| number == 3)
    }

    /// Remembers what it says. Nothing that is said about a family is a reason to refuse a request.
    pub fn learn(&mut self, message: &[u8]) -> Result<(), BadRequest> {
        for field in fields(message, "WriteRequest") {
            if let (3, Payload::Bytes(metadata)) = field? {
                self.learn_one(metadata)?;
            }
        }
        Ok(())
    }

    fn learn_one(&mut self, metadata: &[u8]) -> Result<(), BadRequest> {
        let (mut kind, mut texts) = (0, [&[][..]; 3]);
        for field in fields(metadata, "MetricMetadata") {
            match field? {
                (1, Payload::Varint(number)) => kind = number,
                (2, Payload::Bytes(text)) => texts[0] = text,
                (4, Payload::Bytes(text)) => texts[1] = text,
                (5, Payload::Bytes(text)) => texts[2] = text,
                _ => {}
            }
        }
        let [Ok(name), Ok(help), Ok(unit)] = texts.map(std::str::from_utf8) else {
            return Ok(());
        };
        let size = ENTRY_BYTES + name.len() + help.len() + unit.len();
        if name.is_empty() || size > MAX_DESCRIPTION_BYTES {
            return Ok(());
        }
        let description = Description {
            kind: kind_of(kind),
            help: help.to_owned(),
            unit: unit.to_owned(),
        };
        let known = self.by_name.get(name);
        if known.is_some_and(|at| self.descriptions[*at] == description) {
            return Ok(());
        }
        if self.bytes + size > MAX_FAMILIES_BYTES {
            *self = Families::default();
        }
        // What is replaced stays, and counts, until all is forgotten.
        self.bytes += size;
        self.by_name.insert(name.to_owned(), self.descriptions.len());
        self.descriptions.push(description);
        Ok(())
    }

    /// Memory it takes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The description of the family that a series belongs to.
    fn of(&self, name: &str) -> Option<usize> {
        if self.by_name.is_empty() {
            return None;
        }
        let known = self.by_name.get(name).copied();
        known.or_else(|| {
            SUFFIXES.iter().find_map(|(suffix, kinds)| {
                let known = *self.by_name.get(name.strip_suffix(suffix)?)?;
                kinds.contains(&self.descriptions[known].kind).then_some(known)
            })
        })
    }
}

// ---- 1.0 ----

/// Reads a `prometheus.WriteRequest`. Types come from what `families` has learned, from this request and earlier ones.
pub fn first_version(message: &[u8], families: &Families) -> Result<Read, BadRequest> {
    let mut reader = Reader::default();
    let mut last: Option<(Span, u32)> = None;
    // The number in the list of each description that is used.
    let mut described = HashMap::new();
    for field in fields(message, "WriteRequest") {
        let (1, Payload::Bytes(series)) = field? else { continue };
        reader.series(series, &FIRST)?;
        // The family is found by the name, which is known now.
        let list = &mut reader.read.list;
        let Some(at) = list.series.len().checked_sub(1).filter(|_| reader.has_taken) else {
            continue;
        };
        let labels = list.series[at].labels.of(&list.labels).iter();
        let mut names = labels.filter(|label| list.at(label.name) == NAME);
        let name = names.next().map(|label| label.value).unwrap_or_default();
        let family = match last {
            Some((known, family)) if list.at(known) == list.at(name) => family,
            _ => match families.of(list.at(name)) {
                None => 0,
                Some(description) => match described.get(&description) {
                    Some(family) => *family,
                    None => {
                        let Description { kind, help, unit } = &families.descriptions[description];
                        let family = list
                            .put_family(*kind, "", help, unit)
                            .map_err(|_| BadRequest::TooLong)?;
                        described.insert(description, family);
                        family
                    }
                },
            },
        };
        last = Some((name, family));
        list.series[at].family = family;
    }
    Ok(reader.read)
}

// ---- 2.0 ----

/// Reads an `io.prometheus.write.v2.Request`.
pub fn second_version(message: &[u8]) -> Result<Read, BadRequest> {
    let mut reader = Reader::default();
    // They may stand behind the series that refer to them.
    for field in fields(message, "Request") {
        if let (4, Payload::Bytes(symbol)) = field? {
            let symbol = match std::str::from_utf8(symbol) {
                Ok(text) => Some(reader.read.list.put_text(text).map_err(|_| BadRequest::TooLong)?),
                Err(_) => None,
            };
            reader.symbols.push(symbol);
        }
    }
    for field in fields(message, "Request") {
        if let (5, Payload::Bytes(series)) = field? {
            reader.series(series, &SECOND)?;
        }
    }
    Ok(reader.read)
}

// ---- both ----

/// Which numbers the fields of a series have.
struct Numbers {
    series: u64,
    labels_are_references: bool,
    exemplars: u64,
    histograms: u64,
}

const FIRST: Numbers = Numbers {
    series: 1,
    labels_are_references: false,
    exemplars: 3,
    histograms: 4,
};

const SECOND: Numbers = Numbers {
    series: 5,
    labels_are_references: true,
    exemplars: 4,
    histograms: 3,
};

impl Version {
    fn numbers(self) -> &'static Numbers {
        match self {
            Version::V1 => &FIRST,
            Version::V2 => &SECOND,
        }
    }
}

struct Reader {
    read: Read,
    /// 2.0: the symbols in the list's text; `None` for one that is not UTF-8.
    symbols: Vec<Option<Span>>,
    /// 2.0: families of the list by the numbers of the request.
    families: HashMap<(u64, u64, u64), u32>,
    /// Whether the last series was.
    has_taken: bool,
}

impl Default for Reader {
    fn default() -> Self {
        let read = Read {
            list: SeriesList::new(),
            ..Read::default()
        };
        Reader {
            read,
            symbols: Vec::new(),
            families: HashMap::new(),
            has_taken: false,
        }
    }
}

impl Reader {
    fn described(&mut self, metadata: &[u8]) -> Result<u32, BadRequest> {
        let (mut kind, mut help, mut unit) = (0, 0, 0);
        for field in fields(metadata, "Metadata") {
            match field? {
                (1, Payload::Varint(number)) => kind = number,
                (3, Payload::Varint(symbol)) => help = symbol,
                (4, Payload::Varint(symbol)) => unit = symbol,
                _ => {}
            }
        }
        let list = &mut self.read.list;
        let symbols = &self.symbols;
        let family = *self.families.entry((kind, help, unit)).or_insert_with(|| {
            // What is said about a series is no reason to refuse it.
            let text = |symbol: u64| {
                let symbol = usize::try_from(symbol).ok().and_then(|at| symbols.get(at));
                symbol.copied().flatten().unwrap_or_default()
            };
            list.families.push(Family {
                kind: kind_of(kind),
                name: Span::default(),
                help: text(help),
                unit: text(unit),
            });
            list.families.len() as u32 - 1
        });
        Ok(family)
    }

    fn series(&mut self, message: &[u8], numbers: &Numbers) -> Result<(), BadRequest> {
        let labels_start = self.read.list.labels.len();
        self.read.list.begin(0);
        self.has_taken = false;
        let (mut created_ms, mut family, mut exemplars) = (0, 0, 0);
        let mut natives: Result<(), BadNative> = Ok(());
        let mut refused_natives = 0;
        for field in fields(message, "TimeSeries") {
            match field? {
                (2, Payload::Bytes(sample)) => {
                    let sample = read_sample(sample)?;
                    self.read.list.put_sample(sample);
                }
                (number, Payload::Bytes(native)) if number == numbers.histograms => {
                    let list = &mut self.read.list;
                    let start = list.bytes.len();
                    match read_native::read(&mut list.bytes, native)? {
                        Ok(told) => {
                            let body = Stretch {
                                start: start as u32,
                                end: list.bytes.len() as u32,
                            };
                            list.natives.push(Native {
                                form: told.form,
                                time_ms: Some(told.time_ms),
                                start_ms: told.start_ms,
                                body,
                            });
                        }
                        Err(bad) => {
                            list.bytes.truncate(start);
                            refused_natives += 1;
                            natives = Err(bad);
                        }
                    }
                }
                (number, Payload::Bytes(_)) if number == numbers.exemplars => exemplars += 1,
                (5, Payload::Bytes(metadata)) if numbers.labels_are_references => family = self.described(metadata)?,
                (6, Payload::Varint(time_ms)) if numbers.labels_are_references => created_ms = time_ms as i64,
                _ => {}
            }
        }
        let labels = match self.labels(message, numbers.labels_are_references, "TimeSeries")? {
            Ok(()) => self.read.list.series_labels(labels_start).map_err(BadSeries::Labels),
            Err(bad) => Err(bad),
        };
        if let Err(why) = natives {
            self.refuse(labels_start, why.into(), refused_natives);
        }
        let labels = match labels {
            Ok(labels) => labels,
            Err(why) => {
                let list = &self.read.list;
                let items = list.series.last().map_or(0, |series| {
                    (list.samples.len() - series.samples.start as usize)
                        + (list.natives.len() - series.natives.start as usize)
                });
                self.refuse(labels_start, why, items as u64);
                self.read.refused_exemplars += exemplars;
                self.read.list.take_back(labels_start);
                return Ok(());
            }
        };
        if exemplars > 0 {
            self.exemplars(message, numbers)?;
        }
        let list = &mut self.read.list;
        if let Some(series) = list.series.last_mut() {
            series.family = family;
            if created_ms != 0 {
                let samples = list.samples[series.samples.start as usize..].iter_mut();
                let natives = list.natives[series.natives.start as usize..].iter_mut();
                let starts = samples.map(|sample| &mut sample.start_ms);
                for start_ms in starts.chain(natives.map(|native| &mut native.start_ms)) {
                    if *start_ms == 0 {
                        *start_ms = created_ms;
                    }
                }
            }
        }
        list.end(labels);
        self.has_taken = true;
        Ok(())
    }

    /// Appends the labels that a message has in field 1.
    fn labels(
        &mut self,
        message: &[u8],
        are_references: bool,
        what: &'static str,
    ) -> Result<Result<(), BadSeries>, BadRequest> {
        if are_references {
            self.references(message, what)
        } else {
            self.texts(message, what)
        }
    }

    fn texts(&mut self, message: &[u8], what: &'static str) -> Result<Result<(), BadSeries>, BadRequest> {
        for field in fields(message, what) {
            let (1, Payload::Bytes(label)) = field? else { continue };
            let (mut name, mut value) = (&[][..], &[][..]);
            for field in fields(label, "Label") {
                match field? {
                    (1, Payload::Bytes(text)) => name = text,
                    (2, Payload::Bytes(text)) => value = text,
                    _ => {}
                }
            }
            let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else {
                return Ok(Err(BadSeries::NotText));
            };
            let list = &mut self.read.list;
            let mut put = |text| list.put_text(text).map_err(|_| BadRequest::TooLong);
            let (name, value) = (put(name)?, put(value)?);
            list.labels.push(Label { name, value });
        }
        Ok(Ok(()))
    }

    fn references(&mut self, message: &[u8], what: &'static str) -> Result<Result<(), BadSeries>, BadRequest> {
        // The first of a pair.
        let mut open = None;
        for field in fields(message, what) {
            // One by one is as legal as packed.
            let single;
            let mut packed = match field? {
                (1, Payload::Bytes(packed)) => packed,
                (1, Payload::Varint(symbol)) => {
                    let mut bytes = Vec::new();
                    wire::put_varint(&mut bytes, symbol);
                    single = bytes;
                    single.as_slice()
                }
                _ => continue,
            };
            while !packed.is_empty() {
                let symbol = wire::varint(&mut packed).ok_or(BadRequest::Protobuf("labels_refs"))?;
                let span = usize::try_from(symbol).ok().and_then(|at| self.symbols.get(at));
                let span = match span {
                    Some(Some(span)) => *span,
                    Some(None) => return Ok(Err(BadSeries::NotText)),
                    None => {
                        let count = self.symbols.len();
                        return Ok(Err(BadSeries::NoSymbol { symbol, count }));
                    }
                };
                match open.take() {
                    None => open = Some(span),
                    Some(name) => self.read.list.labels.push(Label { name, value: span }),
                }
            }
        }
        Ok(if open.is_none() {
            Ok(())
        } else {
            Err(BadSeries::OddReferences)
        })
    }

    fn exemplars(&mut self, message: &[u8], numbers: &Numbers) -> Result<(), BadRequest> {
        for field in fields(message, "TimeSeries") {
            let exemplar = match field? {
                (number, Payload::Bytes(exemplar)) if number == numbers.exemplars => exemplar,
                _ => continue,
            };
            let (mut value, mut time_ms) = (0.0, 0);
            for field in fields(exemplar, "Exemplar") {
                match field? {
                    (2, Payload::Fixed64(bits)) => value = f64::from_bits(bits),
                    (3, Payload::Varint(time)) => time_ms = time as i64,
                    _ => {}
                }
            }
            let start = self.read.list.labels.len();
            let labels = self.labels(exemplar, numbers.labels_are_references, "Exemplar")?;
            let list = &mut self.read.list;
            match labels.and_then(|()| list.exemplar_labels(start).map_err(BadSeries::Labels)) {
                Ok(labels) => list.exemplars.push(Exemplar {
                    labels,
                    value,
                    time_ms: Some(time_ms).filter(|time_ms| *time_ms != 0),
                }),
                Err(_) => {
                    list.labels.truncate(start);
                    self.read.refused_exemplars += 1;
                }
            }
        }
        Ok(())
    }

    fn refuse(&mut self, labels: usize, why: BadSeries, items: u64) {
        let Read {
            list,
            refused,
            refused_items,
            ..
        } = &mut self.read;
        // A series with nothing in it is a mistake all the same.
        *refused_items += items;
        if refused.len() == MAX_NAMED {
            return;
        }
        let mut shown = String::from("{");
        for label in &list.labels[labels..] {
            let at = |span| list.at(span);
            if shown.len() > 1 {
                shown.push_str(", ");
            }
            shown.extend(at(label.name).chars().take(MAX_SHOWN_CHARS));
            shown.push_str("=\"");
            shown.extend(at(label.value).chars().take(MAX_SHOWN_CHARS));
            shown.push('"');
            if shown.len() > MAX_SHOWN_CHARS {
                break;
            }
        }
        if let Some((at, _)) = shown.char_indices().nth(MAX_SHOWN_CHARS) {
            shown.truncate(at);
            shown.push('…');
        } else {
            shown.push('}');
        }
        refused.push(Refused { labels: shown, why });
    }
}

fn read_sample(message: &[u8]) -> Result<Sample, BadRequest> {
    let mut sample = Sample {
        value: 0.0,
        time_ms: Some(0),
        start_ms: 0,
    };
    for field in fields(message, "Sample") {
        match field? {
            (1, Payload::Fixed64(bits)) => sample.value = f64::from_bits(bits),
            (2, Payload::Varint(time)) => sample.time_ms = Some(time as i64),
            (3, Payload::Varint(time)) => sample.start_ms = time as i64,
            _ => {}
        }
    }
    Ok(sample)
}

/// `MetricType` of both versions.
fn kind_of(number: u64) -> Kind {
    match number {
        1 => Kind::Counter,
        2 => Kind::Gauge,
        3 => Kind::Histogram,
        4 => Kind::GaugeHistogram,
        5 => Kind::Summary,
        6 => Kind::Info,
        7 => Kind::StateSet,
        _ => Kind::Unknown,
    }
}

/// Walks a message; the first mistake is the last thing told.
pub(super) fn fields<'a>(
    rest: &'a [u8],
    what: &'static str,
) -> impl Iterator<Item = Result<(u64, Payload<'a>), BadRequest>> {
    wire::strict_fields(rest).map(move |field| field.ok_or(BadRequest::Protobuf(what)))
}
