//! Why: what a target answers to a scrape, in the text format 0.0.4 or OpenMetrics 1.0, with the quoted names that Prometheus 3 brought to both.
//!
//! A page is read wholly or not at all: half of one would say that the series of the other half have ended.

use std::borrow::Cow;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::series::{BadLabels, Exemplar, Label, NAME, Sample, SeriesList, Span, Stretch};
use super::text::Format;
use super::{Kind, naming};

/// A page at most, in bytes. Prometheus has no bound by default; a page of this size has some ten million lines.
pub const MAX_PAGE_BYTES: usize = 1 << 30;

/// What an exemplar's labels may have together (OpenMetrics 1.0, "Exemplars"); Prometheus refuses the page beyond it.
pub(super) const MAX_EXEMPLAR_CHARS: usize = 128;

/// Times beyond this many milliseconds from 1970 are no times: 64 bits of nanoseconds end in 2554.
const MAX_TIME_MS: f64 = 18_446_744_073_709.0;

/// Why a page is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadPage {
    pub line: usize,
    pub what: Cow<'static, str>,
}

type What = Cow<'static, str>;

impl From<BadLabels> for What {
    fn from(bad: BadLabels) -> What {
        bad.to_string().into()
    }
}

/// The format that a content type names; `None` for one that is not a page of metrics in text. A target that names none has 0.0.4.
pub fn format(content_type: &str) -> Option<Format> {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/openmetrics-text") {
        Some(Format::OpenMetrics)
    } else if media_type.is_empty() || media_type.eq_ignore_ascii_case("text/plain") {
        Some(Format::Text)
    } else {
        None
    }
}

/// Reads a page: each line with a value is a series of one sample. `…_created` of OpenMetrics becomes the time at which the counting began.
pub fn read(page: &[u8], format: Format) -> Result<SeriesList, BadPage> {
    if page.len() > MAX_PAGE_BYTES {
        let what = format!("the page is longer than {MAX_PAGE_BYTES} bytes").into();
        return Err(BadPage { line: 1, what });
    }
    let text = std::str::from_utf8(page).map_err(|error| BadPage {
        line: 1 + page[..error.valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count(),
        what: "the text is not UTF-8".into(),
    })?;
    let mut reader = Reader {
        list: SeriesList::new(),
        is_open: format == Format::OpenMetrics,
        by_name: HashTable::new(),
        hasher: RandomState::default(),
        last: None,
        created: Vec::new(),
        has_ended: false,
    };
    let mut lines = 0;
    for line in text.split_inclusive('\n') {
        lines += 1;
        reader.line(line).map_err(|what| BadPage { line: lines, what })?;
    }
    if reader.is_open && !reader.has_ended {
        let what = "the page ends without `# EOF`".into();
        return Err(BadPage { line: lines, what });
    }
    reader.starts();
    Ok(reader.list)
}

struct Reader {
    list: SeriesList,
    is_open: bool,
    /// Families by their name.
    by_name: HashTable<u32>,
    hasher: RandomState,
    /// The name of the last line and its family: most lines have the same.
    last: Option<(Span, u32)>,
    /// Of a family, for labels without the name, the time in milliseconds.
    created: Vec<(u32, Stretch, i64)>,
    has_ended: bool,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), What> {
        if self.has_ended {
            return Err("there is more behind `# EOF`".into());
        }
        if self.is_open && line == "# EOF" {
            self.has_ended = true;
            return Ok(());
        }
        let Some(line) = line.strip_suffix('\n') else {
            return Err("the last line does not end, so the page may be cut off".into());
        };
        if let Some(comment) = line.strip_prefix('#') {
            return self.comment(comment);
        }
        let mut rest = Rest(line);
        rest.blanks();
        if rest.0.is_empty() {
            return if self.is_open {
                Err("the line is empty".into())
            } else {
                Ok(())
            };
        }
        self.sample(rest)
    }

    /// `# TYPE name type`, `# HELP name text`, `# UNIT name unit`; everything else is a remark.
    fn comment(&mut self, comment: &str) -> Result<(), What> {
        if self.is_open && comment == " EOF" {
            self.has_ended = true;
            return Ok(());
        }
        let mut rest = Rest(comment);
        rest.blanks();
        let word = rest.word();
        if !matches!(word, "TYPE" | "HELP" | "UNIT") {
            return Ok(());
        }
        rest.blanks();
        let quoted;
        let name = if rest.0.starts_with('"') {
            let mut text = String::new();
            rest.quoted(&mut text)?;
            quoted = text;
            quoted.as_str()
        } else {
            let name = rest.word();
            if !naming::is_plain_metric(name) {
                return Err(format!("`{}` is no name of a metric", shown(name)).into());
            }
            name
        };
        let text = rest.0.strip_prefix([' ', '\t']).unwrap_or(rest.0);
        let family = self.family(name)?;
        match word {
            "TYPE" => {
                let kind = Kind::from_word(text.trim_matches([' ', '\t']))
                    .ok_or_else(|| What::from(format!("`{}` is no type", shown(text))))?;
                self.list.families[family as usize].kind = kind;
            }
            "UNIT" => self.list.families[family as usize].unit = self.list.put_text(text.trim_matches([' ', '\t']))?,
            _ => {
                let start = self.list.text.len();
                unescape(&mut self.list.text, text);
                self.list.families[family as usize].help = self.list.text_since(start)?;
            }
        }
        Ok(())
    }

    /// The family of this name, which is made if there is none.
    fn family(&mut self, name: &str) -> Result<u32, What> {
        if let Some(known) = self.known(name) {
            return Ok(known);
        }
        let family = self.list.put_family(Kind::Unknown, name, "", "")?;
        let Reader {
            list, by_name, hasher, ..
        } = self;
        let hash = |at: &u32| hasher.hash_one(list.at(list.families[*at as usize].name));
        by_name.insert_unique(hasher.hash_one(name), family, hash);
        // A line may have asked for a name in vain before.
        self.last = None;
        Ok(family)
    }

    fn known(&self, name: &str) -> Option<u32> {
        let is_it = |at: &u32| self.list.at(self.list.families[*at as usize].name) == name;
        self.by_name.find(self.hasher.hash_one(name), is_it).copied()
    }

    /// The family that the series of this name belong to; 0 where nothing was said about it.
    fn family_of(&self, name: &str) -> u32 {
        if let Some(known) = self.known(name) {
            return known;
        }
        for (suffix, kinds) in SUFFIXES {
            if let Some(base) = name.strip_suffix(suffix)
                && let Some(known) = self.known(base)
                && kinds.contains(&self.list.families[known as usize].kind)
            {
                return known;
            }
        }
        0
    }

    fn sample(&mut self, mut rest: Rest<'_>) -> Result<(), What> {
        let labels_start = self.list.labels.len();
        let name = rest.until(|c| matches!(c, '{' | ' ' | '\t'));
        if !name.is_empty() {
            if !naming::is_plain_metric(name) {
                return Err(format!("`{}` is no name of a metric", shown(name)).into());
            }
            let value = self.list.put_text(name)?;
            let name = self.list.put_text(NAME)?;
            self.list.labels.push(Label { name, value });
        }
        rest.blanks();
        if rest.0.starts_with('{') {
            self.braces(&mut rest, true)?;
        }
        let labels = self.list.series_labels(labels_start)?;
        let name = labels
            .of(&self.list.labels)
            .iter()
            .find(|label| self.list.at(label.name) == NAME)
            .map(|label| label.value)
            .unwrap_or_default();
        rest.blanks();
        let value = number(rest.word())?;
        rest.blanks();
        let mut time_ms = None;
        if !rest.0.is_empty() && !rest.0.starts_with('#') {
            time_ms = Some(self.time(rest.word())?);
            rest.blanks();
        }
        let family = match self.last {
            Some((last, family)) if self.list.at(last) == self.list.at(name) => family,
            _ => self.family_of(self.list.at(name)),
        };
        self.last = Some((name, family));
        if self.is_created(name, family) {
            let start_ms = millis(value).ok_or("the time of creation is no time")?;
            self.created.push((family, labels, start_ms));
            return Ok(());
        }
        self.list.begin(family);
        self.list.put_sample(Sample {
            value,
            time_ms,
            start_ms: 0,
        });
        if self.is_open && rest.0.starts_with('#') {
            rest.0 = &rest.0[1..];
            self.exemplar(&mut rest)?;
        }
        if !rest.0.is_empty() {
            return Err(format!("`{}` is more than a value and a time", shown(rest.0)).into());
        }
        self.list.end(labels);
        Ok(())
    }

    /// `{name="value",…}`; a quoted text without a value is the metric's name where one may stand.
    fn braces(&mut self, rest: &mut Rest<'_>, is_series: bool) -> Result<(), What> {
        rest.0 = &rest.0[1..];
        loop {
            rest.blanks();
            if let Some(behind) = rest.0.strip_prefix('}') {
                rest.0 = behind;
                return Ok(());
            }
            let start = self.list.text.len();
            if rest.0.starts_with('"') {
                rest.quoted(&mut self.list.text)?;
            } else {
                let name = rest.until(|c| !(c.is_ascii_alphanumeric() || c == '_'));
                if !naming::is_plain_label(name) {
                    return Err(format!("a label's name is expected before `{}`", shown(rest.0)).into());
                }
                self.list.text.push_str(name);
            }
            let mut name = self.list.text_since(start)?;
            rest.blanks();
            let value = if let Some(behind) = rest.0.strip_prefix('=') {
                if is_series && self.list.at(name) == NAME {
                    return Err("`__name__` stands before the braces".into());
                }
                rest.0 = behind;
                rest.blanks();
                if !rest.0.starts_with('"') {
                    return Err(format!("a label's value in quotes is expected before `{}`", shown(rest.0)).into());
                }
                let start = self.list.text.len();
                rest.quoted(&mut self.list.text)?;
                self.list.text_since(start)?
            } else if is_series {
                // A name of its own; a second one is a label that is there twice.
                std::mem::replace(&mut name, self.list.put_text(NAME)?)
            } else {
                return Err(format!("`=` is expected before `{}`", shown(rest.0)).into());
            };
            self.list.labels.push(Label { name, value });
            rest.blanks();
            if let Some(behind) = rest.0.strip_prefix(',') {
                rest.0 = behind;
            } else if !rest.0.starts_with('}') {
                return Err(format!("`,` or `}}` is expected before `{}`", shown(rest.0)).into());
            }
        }
    }

    /// `{labels} value [time]`, behind a `#`.
    fn exemplar(&mut self, rest: &mut Rest<'_>) -> Result<(), What> {
        rest.blanks();
        if !rest.0.starts_with('{') {
            return Err("an exemplar begins with labels in braces".into());
        }
        let start = self.list.labels.len();
        self.braces(rest, false)?;
        let labels = self.list.exemplar_labels(start)?;
        let chars = |span| self.list.at(span).chars().count();
        let size: usize = labels
            .of(&self.list.labels)
            .iter()
            .map(|label| chars(label.name) + chars(label.value))
            .sum();
        if size > MAX_EXEMPLAR_CHARS {
            let what = format!("the labels of an exemplar have more than {MAX_EXEMPLAR_CHARS} characters");
            return Err(what.into());
        }
        rest.blanks();
        let value = number(rest.word())?;
        rest.blanks();
        let time_ms = match rest.word() {
            "" => None,
            time => Some(self.time(time)?),
        };
        rest.blanks();
        self.list.exemplars.push(Exemplar { labels, value, time_ms });
        Ok(())
    }

    /// Milliseconds; OpenMetrics has seconds.
    fn time(&self, text: &str) -> Result<i64, What> {
        let time_ms = if self.is_open {
            number(text).ok().and_then(millis)
        } else {
            text.parse().ok()
        };
        time_ms.ok_or_else(|| format!("`{}` is no time", shown(text)).into())
    }

    fn is_created(&self, name: Span, family: u32) -> bool {
        let kind = self.list.families[family as usize].kind;
        let family_name = self.list.families[family as usize].name;
        self.is_open
            && family != 0
            && matches!(kind, Kind::Counter | Kind::Histogram | Kind::Summary)
            && self.list.at(name).strip_suffix("_created") == Some(self.list.at(family_name))
    }

    /// Gives each series the time at which its family said that it was created.
    fn starts(&mut self) {
        if self.created.is_empty() {
            return;
        }
        let Reader {
            list, hasher, created, ..
        } = self;
        let key = |family: u32, labels: Stretch| {
            let labels = labels.of(&list.labels).iter();
            let pairs = labels.map(|label| (list.at(label.name), list.at(label.value)));
            (
                family,
                pairs.filter(|(name, _)| !matches!(*name, NAME | "le" | "quantile")),
            )
        };
        let hash = |family: u32, labels: Stretch| {
            let mut hash = hasher.hash_one(family);
            for pair in key(family, labels).1 {
                hash = hash.rotate_left(5) ^ hasher.hash_one(pair);
            }
            hash
        };
        let same = |a: (u32, Stretch), b: (u32, Stretch)| a.0 == b.0 && key(a.0, a.1).1.eq(key(b.0, b.1).1);
        let mut table = HashTable::with_capacity(created.len());
        for (at, (family, labels, _)) in created.iter().enumerate() {
            table.insert_unique(hash(*family, *labels), at, |_| 0);
        }
        let mut starts = Vec::new();
        for series in &list.series {
            if series.family == 0 {
                continue;
            }
            let of = (series.family, series.labels);
            let found = table.find(hash(of.0, of.1), |at| same((created[*at].0, created[*at].1), of));
            if let Some(at) = found {
                starts.push((series.samples.start, created[*at].2));
            }
        }
        for (sample, start_ms) in starts {
            list.samples[sample as usize].start_ms = start_ms;
        }
    }
}

/// What the series of a family end in, by its type.
pub(crate) const SUFFIXES: [(&str, &[Kind]); 8] = [
    ("_bucket", &[Kind::Histogram, Kind::GaugeHistogram]),
    ("_sum", &[Kind::Histogram, Kind::Summary]),
    ("_count", &[Kind::Histogram, Kind::Summary]),
    ("_total", &[Kind::Counter]),
    ("_created", &[Kind::Counter, Kind::Histogram, Kind::Summary]),
    ("_info", &[Kind::Info]),
    ("_gsum", &[Kind::GaugeHistogram]),
    ("_gcount", &[Kind::GaugeHistogram]),
];

/// What of a line has not been read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn blanks(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn until(&mut self, ends: impl Fn(char) -> bool) -> &'a str {
        let at = self.0.find(ends).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(at);
        self.0 = rest;
        word
    }

    fn word(&mut self) -> &'a str {
        self.until(|c| matches!(c, ' ' | '\t'))
    }

    /// Appends what stands between the quotes that begin here.
    fn quoted(&mut self, out: &mut String) -> Result<(), What> {
        let text = &self.0[1..];
        let mut from = 0;
        loop {
            let Some(at) = text[from..].find(['"', '\\']).map(|at| from + at) else {
                return Err(format!("the text in quotes does not end: `{}`", shown(self.0)).into());
            };
            if text.as_bytes()[at] == b'"' {
                unescape(out, &text[..at]);
                self.0 = &text[at + 1..];
                return Ok(());
            }
            // What is escaped is one character, of any length.
            from = at + 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8);
        }
    }
}

/// `\\`, `\n` and `\"` mean one character; a backslash before any other stays, as Prometheus has it.
fn unescape(out: &mut String, mut text: &str) {
    while let Some(at) = text.find('\\') {
        out.push_str(&text[..at]);
        let (meant, length) = match text.as_bytes().get(at + 1) {
            Some(b'\\') => ("\\", 2),
            Some(b'n') => ("\n", 2),
            Some(b'"') => ("\"", 2),
            _ => ("\\", 1),
        };
        out.push_str(meant);
        text = &text[at + length..];
    }
    out.push_str(text);
}

fn number(text: &str) -> Result<f64, What> {
    text.parse()
        .map_err(|_| format!("`{}` is no number", shown(text)).into())
}

/// Seconds as milliseconds.
fn millis(seconds: f64) -> Option<i64> {
    let time_ms = (seconds * 1000.0).round();
    (time_ms.abs() <= MAX_TIME_MS).then_some(time_ms as i64)
}

/// As much of the sender's text as belongs into an error.
fn shown(text: &str) -> &str {
    /// Characters; enough to find the place.
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => &text[..at],
        None => text,
    }
}
