//! Why: what a line of a file or of standard input becomes is one question, whoever reads it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use codec::log_line::{Json, Members, Record, Request, write_attributes};
use pipeline::processors::actions::Scalar;

use crate::filelog::{Entry, Held, Operators};

/// Values of `attributes` and `resource` in the configuration.
pub(crate) type Values = BTreeMap<String, Scalar>;

/// How lines become records.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    /// Lines in the log schema become what they say; otherwise every line is a body.
    pub reads_schema: bool,
    pub keeps_leading_spaces: bool,
    pub keeps_trailing_spaces: bool,
    /// What is done with a line before that.
    pub operators: Operators,
    /// The resource's attributes, encoded.
    pub resource: Vec<u8>,
}

impl Lines {
    /// A line without its end, and without the spaces around it if so configured.
    pub(crate) fn trim<'l>(&self, mut line: &'l [u8]) -> &'l [u8] {
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if !self.keeps_leading_spaces {
            line = line.trim_ascii_start();
        }
        if !self.keeps_trailing_spaces {
            line = line.trim_ascii_end();
        }
        line
    }

    /// Adds a line of the file `path` to the request. `attributes` are encoded.
    pub(crate) fn push(
        &self,
        line: &[u8],
        attributes: &[u8],
        path: Option<&Path>,
        offset: Option<u64>,
        observed_unix_nano: u64,
        request: &mut Request,
    ) -> Pushed {
        let text = String::from_utf8_lossy(line);
        let mut record = Record::plain(&*text);
        let is_kept = self.operators.apply(&mut record, path);
        if is_kept {
            self.write(record, attributes, offset, observed_unix_nano, request);
        }
        Pushed {
            is_mended: matches!(text, std::borrow::Cow::Owned(_)),
            is_dropped: !is_kept,
        }
    }

    /// Sends the line that begins at `start` of the file through operators that put lines together.
    pub(crate) fn enter(&self, line: &[u8], start: u64, path: &Path, held: &mut Held) {
        let text = String::from_utf8_lossy(line);
        let entry = Entry {
            start,
            mended: u64::from(matches!(text, std::borrow::Cow::Owned(_))),
            record: Some(Record::plain(&*text)),
        };
        self.operators.enter(held, entry, Some(path));
    }

    /// Adds what has passed the operators to the request.
    pub(crate) fn write(
        &self,
        mut record: Record<'_>,
        attributes: &[u8],
        offset: Option<u64>,
        observed_unix_nano: u64,
        request: &mut Request,
    ) {
        if self.reads_schema {
            record.read_body();
        }
        match offset {
            None => request.push(&record, &self.resource, observed_unix_nano, attributes),
            Some(offset) => {
                let mut attributes = attributes.to_vec();
                let offset = Json::Int(i64::try_from(offset).unwrap_or(i64::MAX));
                write_attributes(6, &[("log.file.record_offset".into(), offset)], &mut attributes);
                request.push(&record, &self.resource, observed_unix_nano, &attributes);
            }
        }
    }
}

/// What became of a line.
pub(crate) struct Pushed {
    /// It was not UTF-8.
    pub is_mended: bool,
    /// An operator dropped it.
    pub is_dropped: bool,
}

/// Configured values as encoded attributes under this field number.
pub(crate) fn encoded(values: &Values, number: u32) -> Vec<u8> {
    let members: Members<'_> = values
        .iter()
        .map(|(key, value)| {
            let value = match value {
                Scalar::Text(text) => Json::Text(text.into()),
                Scalar::Int(number) => Json::Int(*number),
                Scalar::Double(number) => Json::Double(*number),
                Scalar::Bool(truth) => Json::Bool(*truth),
            };
            (key.into(), value)
        })
        .collect();
    let mut out = Vec::new();
    write_attributes(number, &members, &mut out);
    out
}

pub(crate) fn now_unix_nano() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
