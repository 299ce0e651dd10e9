//! Why: a scraped page and a remote-write request are the same thing, series with samples. Here they lie between reading and becoming OTLP, in a few
//! buffers, so that a scraper can relabel, drop and add, and knows which series have ended since the last time.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use model::wire;

use super::{FLAG_NO_RECORDED_VALUE, Kind, STALE_NAN};

/// Labels that one series may have. Prometheus itself has no such bound by default; what it stores has a dozen.
pub const MAX_LABELS: usize = 1_000;

/// Text of all labels together, in bytes: places in it are numbers of 32 bits.
pub const MAX_TEXT_BYTES: usize = u32::MAX as usize;

pub const NAME: &str = "__name__";

/// A stretch of the list's text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    at: u32,
    len: u32,
}

impl Span {
    pub fn len(self) -> u64 {
        u64::from(self.len)
    }
}

/// What is said about series of one family. Number 0 of a list is the one of which nothing was said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Family {
    pub kind: Kind,
    pub name: Span,
    pub help: Span,
    pub unit: Span,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Label {
    pub name: Span,
    pub value: Span,
}

/// A value of a series at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub value: f64,
    /// Milliseconds since 1970, where the sender said so.
    pub time_ms: Option<i64>,
    /// When the counting began, in milliseconds since 1970; 0 where nobody said.
    pub start_ms: i64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Exemplar {
    pub labels: Stretch,
    pub value: f64,
    pub time_ms: Option<i64>,
}

/// What a native histogram is in OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NativeForm {
    Exponential,
    /// With buckets of its own.
    Explicit,
}

/// A native histogram, as the fields of OTLP's point that are neither attributes nor times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Native {
    pub form: NativeForm,
    /// Milliseconds since 1970, where the sender said so.
    pub time_ms: Option<i64>,
    pub start_ms: i64,
    /// Of `bytes`.
    pub body: Stretch,
}

/// From one element of a list to another.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stretch {
    pub start: u32,
    pub end: u32,
}

impl Stretch {
    pub fn of<T>(self, all: &[T]) -> &[T] {
        &all[self.start as usize..self.end as usize]
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Series {
    pub family: u32,
    pub labels: Stretch,
    pub samples: Stretch,
    pub exemplars: Stretch,
    pub natives: Stretch,
    /// It has or had native histograms, and ends as one.
    pub is_native: bool,
}

/// Series in the order in which they came.
#[derive(Debug, Clone, Default)]
pub struct SeriesList {
    pub(crate) text: String,
    pub(crate) labels: Vec<Label>,
    pub(crate) series: Vec<Series>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) exemplars: Vec<Exemplar>,
    pub(crate) natives: Vec<Native>,
    /// What is said of native histograms, encoded.
    pub(crate) bytes: Vec<u8>,
    pub(crate) families: Vec<Family>,
    scratch: LabelSet,
}

/// Labels that are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLabels {
    #[error("a series has no name")]
    NoName,
    #[error("a label has no name")]
    EmptyName,
    #[error("a label is there twice")]
    Duplicate,
    #[error("a series has more than {MAX_LABELS} labels")]
    TooMany,
    #[error("the labels together are longer than {MAX_TEXT_BYTES} bytes")]
    TooLong,
}

/// The labels of one series, to be changed.
#[derive(Debug, Clone, Default)]
pub struct LabelSet {
    /// The first `len` count, the others are kept for their buffers.
    pairs: Vec<(String, String)>,
    len: usize,
    is_changed: bool,
}

impl LabelSet {
    fn clear(&mut self) {
        self.len = 0;
        self.is_changed = false;
    }

    fn push(&mut self, name: &str, value: &str) {
        if self.len == self.pairs.len() {
            self.pairs.push(<(String, String)>::default());
        }
        let (known_name, known_value) = &mut self.pairs[self.len];
        known_name.clear();
        known_name.push_str(name);
        known_value.clear();
        known_value.push_str(value);
        self.len += 1;
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.pairs[..self.len].iter().position(|(known, _)| known == name)
    }

    /// The value of a label; empty where it is not there, which Prometheus takes for the same.
    pub fn get(&self, name: &str) -> &str {
        self.place(name).map_or("", |at| &self.pairs[at].1)
    }

    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.place(name) {
            _ if value.is_empty() => self.remove(name),
            Some(at) if self.pairs[at].1 == value => {}
            Some(at) => {
                self.is_changed = true;
                let known = &mut self.pairs[at].1;
                known.clear();
                known.push_str(value);
            }
            None => {
                self.is_changed = true;
                self.push(name, value);
            }
        }
    }

    pub fn remove(&mut self, name: &str) {
        self.retain(|known, _| known != name);
    }

    /// Removes the labels for which `keep` says no.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        let mut kept = 0;
        for at in 0..self.len {
            let (name, value) = &self.pairs[at];
            if keep(name, value) {
                self.pairs.swap(kept, at);
                kept += 1;
            }
        }
        self.is_changed |= kept != self.len;
        self.len = kept;
    }

    /// Names and values, `__name__` among them, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs[..self.len]
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A series of a list.
#[derive(Debug, Clone, Copy)]
pub struct SeriesRef<'a> {
    pub(crate) list: &'a SeriesList,
    pub(crate) series: &'a Series,
}

impl<'a> SeriesRef<'a> {
    pub fn name(self) -> &'a str {
        self.label(NAME)
    }

    /// The value of a label; empty where it is not there.
    pub fn label(self, name: &str) -> &'a str {
        self.labels()
            .find(|(known, _)| *known == name)
            .map_or("", |(_, value)| value)
    }

    /// Sorted by name, each once, none empty; `__name__` is one of them.
    pub fn labels(self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        let SeriesRef { list, series } = self;
        series
            .labels
            .of(&list.labels)
            .iter()
            .map(move |label| (list.at(label.name), list.at(label.value)))
    }

    pub fn kind(self) -> Kind {
        self.family().kind
    }

    pub fn help(self) -> &'a str {
        self.list.at(self.family().help)
    }

    pub fn unit(self) -> &'a str {
        self.list.at(self.family().unit)
    }

    fn family(self) -> Family {
        self.list.families[self.series.family as usize]
    }

    pub fn samples(self) -> &'a [Sample] {
        self.series.samples.of(&self.list.samples)
    }

    /// How many native histograms it has.
    pub fn histograms(self) -> usize {
        self.series.natives.of(&self.list.natives).len()
    }

    /// Labels, value and, if it was said, time of each exemplar.
    pub fn exemplars(self) -> impl Iterator<Item = (Vec<(&'a str, &'a str)>, f64, Option<i64>)> + use<'a> {
        let list = self.list;
        self.series
            .exemplars
            .of(&list.exemplars)
            .iter()
            .map(move |exemplar| (list.pairs(exemplar.labels), exemplar.value, exemplar.time_ms))
    }

    fn hash(self, hasher: &RandomState) -> u64 {
        self.labels()
            .fold(0u64, |hash, pair| hash.rotate_left(5) ^ hasher.hash_one(pair))
    }

    fn is_same(self, other: SeriesRef<'_>) -> bool {
        self.series.labels.of(&self.list.labels).len() == other.series.labels.of(&other.list.labels).len()
            && self.labels().eq(other.labels())
    }
}

impl SeriesList {
    pub fn new() -> SeriesList {
        let nothing = Family {
            kind: Kind::Unknown,
            name: Span::default(),
            help: Span::default(),
            unit: Span::default(),
        };
        SeriesList {
            families: vec![nothing],
            ..SeriesList::default()
        }
    }

    pub fn len(&self) -> usize {
        self.series.len()
    }

    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// What its native histograms take as OTLP.
    pub fn native_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Memory of all its lists, as far as they are filled.
    pub fn bytes_held(&self) -> usize {
        self.text.len()
            + self.bytes.len()
            + size_of_val(self.labels.as_slice())
            + size_of_val(self.series.as_slice())
            + size_of_val(self.samples.as_slice())
            + size_of_val(self.exemplars.as_slice())
            + size_of_val(self.natives.as_slice())
            + size_of_val(self.families.as_slice())
    }

    pub fn iter(&self) -> impl Iterator<Item = SeriesRef<'_>> {
        self.series.iter().map(|series| SeriesRef { list: self, series })
    }

    /// Hands the labels of each series to `change`, which may alter them and says whether the series stays. A series whose labels are none afterwards
    /// is an error.
    pub fn relabel(&mut self, mut change: impl FnMut(&mut LabelSet) -> bool) -> Result<(), BadLabels> {
        let mut set = std::mem::take(&mut self.scratch);
        let mut kept = 0;
        for at in 0..self.series.len() {
            let mut series = self.series[at];
            set.clear();
            for label in series.labels.of(&self.labels) {
                set.push(self.at(label.name), self.at(label.value));
            }
            if !change(&mut set) {
                continue;
            }
            if set.is_changed {
                series.labels = self.put_labels(set.iter())?;
            }
            self.series[kept] = series;
            kept += 1;
        }
        self.series.truncate(kept);
        self.scratch = set;
        Ok(())
    }

    /// Adds a series of one sample, `name` and all: `up`, `scrape_duration_seconds`. Its time is that of the scrape.
    pub fn push<'t>(
        &mut self,
        labels: impl IntoIterator<Item = (&'t str, &'t str)>,
        kind: Kind,
        value: f64,
    ) -> Result<(), BadLabels> {
        let family = match self
            .families
            .iter()
            .rposition(|family| family.kind == kind && family.name.len == 0)
        {
            Some(known) => known as u32,
            None => self.put_family(kind, "", "", "")?,
        };
        let labels = self.put_labels(labels)?;
        self.begin(family);
        self.put_sample(Sample {
            value,
            time_ms: None,
            start_ms: 0,
        });
        self.end(labels);
        Ok(())
    }

    /// Lets all samples have the time of the scrape (`honor_timestamps: false`).
    pub fn forget_times(&mut self) {
        self.samples.iter_mut().for_each(|sample| sample.time_ms = None);
        self.natives.iter_mut().for_each(|native| native.time_ms = None);
    }

    /// Leaves only what [`SeriesList::end_missing`] has to know the next time: series whose time is the scrape's, without samples and exemplars.
    pub fn forget_samples(&mut self) {
        let samples = std::mem::take(&mut self.samples);
        let natives = std::mem::take(&mut self.natives);
        self.series.retain(|series| {
            let samples = series.samples.of(&samples);
            let natives = series.natives.of(&natives);
            samples
                .iter()
                .all(|sample| sample.time_ms.is_none() && !is_stale(sample.value))
                && natives.iter().all(|native| native.time_ms.is_none())
        });
        for series in &mut self.series {
            (series.samples, series.exemplars, series.natives) = Default::default();
        }
        self.exemplars = Vec::new();
        self.bytes = Vec::new();
    }

    /// Says of every series of `before`, the last scrape of the same target, that is not here any more, that it has ended. For `before` the scrape of a
    /// target that is away, this list is an empty one. Returns how many there were.
    ///
    /// A series that has a time of its own does not end, as Prometheus does it: its time is not the scrape's.
    pub fn end_missing(&mut self, before: &SeriesList) -> Result<usize, BadLabels> {
        let hasher = RandomState::default();
        let mut known: HashTable<u32> = HashTable::with_capacity(self.series.len());
        for (at, series) in self.iter().enumerate() {
            known.insert_unique(series.hash(&hasher), at as u32, |_| 0);
        }
        let mut ended = 0;
        let mut families: Vec<Option<u32>> = vec![None; before.families.len()];
        let mut missing = Vec::new();
        for (at, series) in before.iter().enumerate() {
            let natives = series.series.natives.of(&before.natives);
            let has_own_time = series.samples().iter().any(|sample| sample.time_ms.is_some())
                || natives.iter().any(|native| native.time_ms.is_some());
            let has_ended = series.samples().iter().any(|sample| is_stale(sample.value));
            let is_here = |at: &u32| {
                let series_here = &self.series[*at as usize];
                series.is_same(SeriesRef {
                    list: self,
                    series: series_here,
                })
            };
            if !has_own_time && !has_ended && known.find(series.hash(&hasher), is_here).is_none() {
                missing.push(at);
            }
        }
        for at in missing {
            let old = &before.series[at];
            let family = match families[old.family as usize] {
                Some(family) => family,
                None => {
                    let family = before.families[old.family as usize];
                    let [name, help, unit] = [family.name, family.help, family.unit].map(|span| before.at(span));
                    let family = self.put_family(family.kind, name, help, unit)?;
                    families[old.family as usize] = Some(family);
                    family
                }
            };
            let pairs = before.pairs(old.labels);
            let labels = self.put_labels(pairs)?;
            self.begin(family);
            match old.is_native {
                true => self.put_ended_native()?,
                false => self.put_sample(Sample {
                    value: STALE_NAN,
                    time_ms: None,
                    start_ms: 0,
                }),
            }
            self.end(labels);
            ended += 1;
        }
        Ok(ended)
    }

    pub(crate) fn at(&self, span: Span) -> &str {
        &self.text[span.at as usize..(span.at + span.len) as usize]
    }

    pub(crate) fn pairs(&self, labels: Stretch) -> Vec<(&str, &str)> {
        let labels = labels.of(&self.labels).iter();
        labels
            .map(|label| (self.at(label.name), self.at(label.value)))
            .collect()
    }

    /// Adds to the text.
    pub(crate) fn put_text(&mut self, text: &str) -> Result<Span, BadLabels> {
        let at = self.text.len();
        if at + text.len() > MAX_TEXT_BYTES {
            return Err(BadLabels::TooLong);
        }
        self.text.push_str(text);
        Ok(Span {
            at: at as u32,
            len: text.len() as u32,
        })
    }

    /// What was added to the text since it had `start` bytes.
    pub(crate) fn text_since(&self, start: usize) -> Result<Span, BadLabels> {
        if self.text.len() > MAX_TEXT_BYTES {
            return Err(BadLabels::TooLong);
        }
        Ok(Span {
            at: start as u32,
            len: (self.text.len() - start) as u32,
        })
    }

    pub(crate) fn put_family(&mut self, kind: Kind, name: &str, help: &str, unit: &str) -> Result<u32, BadLabels> {
        let family = Family {
            kind,
            name: self.put_text(name)?,
            help: self.put_text(help)?,
            unit: self.put_text(unit)?,
        };
        self.families.push(family);
        Ok(self.families.len() as u32 - 1)
    }

    fn put_labels<'t>(&mut self, pairs: impl IntoIterator<Item = (&'t str, &'t str)>) -> Result<Stretch, BadLabels> {
        let start = self.labels.len();
        for (name, value) in pairs {
            let name = self.put_text(name)?;
            let value = self.put_text(value)?;
            self.labels.push(Label { name, value });
        }
        self.series_labels(start)
    }

    /// Makes the labels from `start` on those of a series: sorted, each once, none without a value, and a name among them.
    pub(crate) fn series_labels(&mut self, start: usize) -> Result<Stretch, BadLabels> {
        let checked = self.exemplar_labels(start)?;
        let has_name = checked.of(&self.labels).iter().any(|label| self.at(label.name) == NAME);
        if has_name { Ok(checked) } else { Err(BadLabels::NoName) }
    }

    /// The same for an exemplar, which has no name.
    pub(crate) fn exemplar_labels(&mut self, start: usize) -> Result<Stretch, BadLabels> {
        let SeriesList { text, labels, .. } = self;
        let at = |span: Span| &text[span.at as usize..(span.at + span.len) as usize];
        if labels.len() - start > MAX_LABELS {
            return Err(BadLabels::TooMany);
        }
        if labels[start..].iter().any(|label| label.value.len == 0) {
            let mut kept = start;
            for from in start..labels.len() {
                if labels[from].value.len > 0 {
                    labels[kept] = labels[from];
                    kept += 1;
                }
            }
            labels.truncate(kept);
        }
        let these = &mut labels[start..];
        if !these.is_sorted_by(|a, b| at(a.name) < at(b.name)) {
            these.sort_unstable_by(|a, b| at(a.name).cmp(at(b.name)));
            if these.windows(2).any(|two| at(two[0].name) == at(two[1].name)) {
                return Err(BadLabels::Duplicate);
            }
        }
        if these.first().is_some_and(|label| label.name.len == 0) {
            return Err(BadLabels::EmptyName);
        }
        // Each label took a byte of its input at least, and no input has as many as 32 bits count.
        Ok(Stretch {
            start: start as u32,
            end: labels.len() as u32,
        })
    }

    /// Begins a series, whose samples, exemplars and histograms follow.
    pub(crate) fn begin(&mut self, family: u32) {
        let empty = |at: usize| Stretch {
            start: at as u32,
            end: at as u32,
        };
        self.series.push(Series {
            family,
            labels: Stretch::default(),
            samples: empty(self.samples.len()),
            exemplars: empty(self.exemplars.len()),
            natives: empty(self.natives.len()),
            is_native: false,
        });
    }

    pub(crate) fn put_sample(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    /// Adds a native histogram that says that there is none any more.
    fn put_ended_native(&mut self) -> Result<(), BadLabels> {
        let start = self.bytes.len();
        wire::put_fixed64(&mut self.bytes, 4, 0);
        wire::put_tag(&mut self.bytes, 10, wire::VARINT);
        wire::put_varint(&mut self.bytes, u64::from(FLAG_NO_RECORDED_VALUE));
        let body = Stretch {
            start: u32::try_from(start).map_err(|_| BadLabels::TooLong)?,
            end: u32::try_from(self.bytes.len()).map_err(|_| BadLabels::TooLong)?,
        };
        self.natives.push(Native {
            form: NativeForm::Exponential,
            time_ms: None,
            start_ms: 0,
            body,
        });
        Ok(())
    }

    /// Takes back the series that was begun last, and its labels from `labels` on.
    pub(crate) fn take_back(&mut self, labels: usize) {
        if let Some(series) = self.series.pop() {
            self.samples.truncate(series.samples.start as usize);
            self.exemplars.truncate(series.exemplars.start as usize);
            self.natives.truncate(series.natives.start as usize);
        }
        self.labels.truncate(labels);
    }

    /// Ends the series that was begun last.
    pub(crate) fn end(&mut self, labels: Stretch) {
        let (samples, exemplars, natives) = (self.samples.len(), self.exemplars.len(), self.natives.len());
        if let Some(series) = self.series.last_mut() {
            series.labels = labels;
            series.samples.end = samples as u32;
            series.exemplars.end = exemplars as u32;
            series.natives.end = natives as u32;
            series.is_native = !series.natives.is_empty();
        }
    }
}

/// Whether this is the value that says that a series has ended.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN.to_bits()
}
