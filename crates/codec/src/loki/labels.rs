//! A stream's labels: made from attributes, written as Loki's selector or as JSON.

use model::view::AnyValue;

use crate::value_text;

/// Labels of one record, in memory that is used again for the next.
#[derive(Default)]
pub(super) struct Labels {
    text: Vec<u8>,
    /// Where name and value lie in `text`: start, end of the name, end of the value.
    pairs: Vec<(usize, usize, usize)>,
}

impl Labels {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.pairs.clear();
    }

    /// Sets a label; of two with one name the later is kept.
    pub(super) fn set(&mut self, name: &str, value: &AnyValue<'_>) {
        self.set_with(name, |out| value_text::write_text(value, out));
    }

    pub(super) fn set_with(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        write_name(name, &mut self.text);
        let middle = self.text.len();
        value(&mut self.text);
        let pair = (start, middle, self.text.len());
        let same = self
            .pairs
            .iter()
            .position(|&(from, to, _)| self.text[from..to] == self.text[start..middle]);
        match same {
            // A hint may name a long value many times.
            Some(at) if self.text[self.pairs[at].1..self.pairs[at].2] == self.text[middle..] => {
                self.text.truncate(start)
            }
            Some(at) => self.pairs[at] = pair,
            None => self.pairs.push(pair),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Whether an attribute of this name is a label.
    pub(super) fn has(&self, attribute: &str) -> bool {
        self.pairs
            .iter()
            .any(|&(from, to, _)| is_name(&self.text[from..to], attribute))
    }

    /// Brings them in the order that makes equal sets equal.
    pub(super) fn sort(&mut self) {
        let text = &self.text;
        self.pairs.sort_by(|a, b| text[a.0..a.1].cmp(&text[b.0..b.1]));
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.pairs
            .iter()
            .map(|&(start, middle, end)| (&self.text[start..middle], &self.text[middle..end]))
    }

    /// `{a="1", b="2"}`.
    pub(super) fn write_selector(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (index, (name, value)) in self.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(name);
            out.push(b'=');
            write_quoted(value, out);
        }
        out.push(b'}');
    }

    /// `{"a":"1","b":"2"}`.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (index, (name, value)) in self.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            for (part, end) in [(name, b':'), (value, b' ')] {
                value_text::write_json_text(std::str::from_utf8(part).unwrap_or_default(), out);
                if end == b':' {
                    out.push(end);
                }
            }
        }
        out.push(b'}');
    }
}

/// The byte that a label's name has where the attribute's name has this one, at this place.
fn name_byte(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte } else { b'_' }
}

/// Loki's names are letters, digits and underscores, and do not begin with a digit.
pub(super) fn write_name(name: &str, out: &mut Vec<u8>) {
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
        out.extend_from_slice(b"key_");
    }
    out.extend(
        name.chars()
            .map(|c| u8::try_from(c).map_or(b'_', |byte| if c.is_ascii() { name_byte(byte) } else { b'_' })),
    );
}

/// Whether `write_name(name)` gives `label`.
fn is_name(label: &[u8], name: &str) -> bool {
    let rest = match name.as_bytes().first() {
        Some(first) if !first.is_ascii_digit() => Some(label),
        _ => label.strip_prefix(b"key_"),
    };
    let Some(rest) = rest else { return false };
    let mut chars = name.chars();
    let mut label = rest.iter();
    loop {
        match (chars.next(), label.next()) {
            (None, None) => return true,
            (Some(c), Some(&byte)) if byte == if c.is_ascii() { name_byte(c as u8) } else { b'_' } => {}
            _ => return false,
        }
    }
}

/// A text as LogQL quotes it, which is Go's way.
fn write_quoted(value: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in value {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 | 0x7f => {
                let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                out.extend_from_slice(b"\\x");
                out.extend_from_slice(&digits);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_what_loki_takes() {
        let mut labels = Labels::default();
        labels.set("service.name", &AnyValue::Str("a \"b\"\n\u{1}ß"));
        labels.set("1st", &AnyValue::Int(5));
        labels.set("größe", &AnyValue::Bool(true));
        labels.set("1st", &AnyValue::Int(6));
        labels.sort();
        let mut out = Vec::new();
        labels.write_selector(&mut out);
        let expect = r#"{gr__e="true", key_1st="6", service_name="a \"b\"\n\x01ß"}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expect);
        let mut out = Vec::new();
        labels.write_json(&mut out);
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["service_name"], "a \"b\"\n\u{1}ß");
        for (attribute, is) in [
            ("service.name", true),
            ("service_name", true),
            ("1st", true),
            ("st", false),
            ("größe", true),
            ("service", false),
            ("", false),
        ] {
            assert_eq!(labels.has(attribute), is, "{attribute}");
        }
    }
}
