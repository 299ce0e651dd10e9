//! The `baggage` header as <https://www.w3.org/TR/baggage/> defines it: percent-encoded values, properties kept as
//! they came, at most 64 members and 8,192 bytes passed on.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::baggage::Baggage;

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Members and bytes that the specification obliges everyone to pass on; more is not taken.
const MAX_MEMBERS: usize = 64;
const MAX_BYTES: usize = 8_192;

/// The members of all `baggage` headers. A member against the grammar is left out; the others stay.
pub(super) fn parse(headers: &HeaderMap) -> Option<Baggage> {
    let mut baggage = Baggage::new();
    let mut bytes = 0;
    for line in headers.get_all(BAGGAGE) {
        let Ok(line) = line.to_str() else { continue };
        for member in line.split(',') {
            let member = member.trim_matches([' ', '\t']);
            if member.is_empty() {
                continue;
            }
            bytes += member.len() + 1;
            if bytes > MAX_BYTES || baggage.len() == MAX_MEMBERS {
                return (!baggage.is_empty()).then_some(baggage);
            }
            let (pair, properties) = match member.split_once(';') {
                Some((pair, properties)) => (pair, properties.trim_matches([' ', '\t'])),
                None => (member, ""),
            };
            let Some((key, value)) = pair.split_once('=') else {
                continue;
            };
            let (key, value) = (key.trim_matches([' ', '\t']), value.trim_matches([' ', '\t']));
            if !is_token(key) || !value.bytes().all(is_octet) {
                continue;
            }
            if let Some(value) = decode(value) {
                baggage.insert_with_metadata(key.to_owned(), value, properties.to_owned());
            }
        }
    }
    (!baggage.is_empty()).then_some(baggage)
}

pub(super) fn write(baggage: &Baggage, headers: &mut HeaderMap) {
    let mut line = String::new();
    for (key, (value, properties)) in baggage.iter().take(MAX_MEMBERS) {
        let start = line.len();
        if start > 0 {
            line.push(',');
        }
        line.push_str(key.as_str());
        line.push('=');
        encode(value.as_str(), &mut line);
        if !properties.as_str().is_empty() {
            line.push(';');
            line.push_str(properties.as_str());
        }
        if line.len() > MAX_BYTES || !is_token(key.as_str()) {
            line.truncate(start);
        }
    }
    match HeaderValue::from_str(&line) {
        Ok(value) if !line.is_empty() => {
            headers.insert(BAGGAGE, value);
        }
        _ => {
            headers.remove(BAGGAGE);
        }
    }
}

fn is_token(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// `baggage-octet`: printable ASCII without space, double quote, comma, semicolon and backslash.
fn is_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

fn encode(value: &str, out: &mut String) {
    for byte in value.bytes() {
        if is_octet(byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for nibble in [byte >> 4, byte & 15] {
                out.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
            }
        }
    }
}

/// `None` when the decoded bytes are not UTF-8. A percent sign without two digits stands for itself.
fn decode(value: &str) -> Option<String> {
    if !value.contains('%') {
        return Some(value.to_owned());
    }
    let bytes = value.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3);
        let byte = digits
            .filter(|_| bytes[at] == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Vec<(String, String, String)> {
        let mut map = HeaderMap::new();
        for line in lines {
            map.append(BAGGAGE, HeaderValue::from_str(line).expect("a header value"));
        }
        let mut found: Vec<_> = parse(&map)
            .iter()
            .flatten()
            .map(|(k, (v, m))| (k.to_string(), v.to_string(), m.as_str().to_owned()))
            .collect();
        found.sort();
        found
    }

    fn check(lines: &[&str], expect: &[(&str, &str, &str)]) {
        let expect: Vec<_> = expect
            .iter()
            .map(|(k, v, m)| (k.to_string(), v.to_string(), m.to_string()))
            .collect();
        assert_eq!(read(lines), expect, "{lines:?}");
    }

    #[test]
    fn members() {
        check(&[], &[]);
        check(&["a=1"], &[("a", "1", "")]);
        check(&["a=1,b=2", "c=3"], &[("a", "1", ""), ("b", "2", ""), ("c", "3", "")]);
        check(&[" a = 1 \t, b\t=\t2 "], &[("a", "1", ""), ("b", "2", "")]);
        check(&["a=x%20y%2C%C3%A9"], &[("a", "x y,é", "")]);
        check(&["a=100%,b=%zz"], &[("a", "100%", ""), ("b", "%zz", "")]);
        check(&["a=1=2"], &[("a", "1=2", "")]);
        check(&["a="], &[("a", "", "")]);
        check(&["a=1;p;q=2 , b=2"], &[("a", "1", "p;q=2"), ("b", "2", "")]);
        // Members against the grammar go, the others stay.
        check(&["=1,a b=2,c,d=%ff,e=\"x\",ok=1"], &[("ok", "1", "")]);
    }

    #[test]
    fn bounds() {
        let many: Vec<String> = (0..100).map(|n| format!("k{n}=v")).collect();
        assert_eq!(read(&[&many.join(",")]).len(), MAX_MEMBERS);
        let long = format!("a=1,b={},c=3", "x".repeat(MAX_BYTES));
        check(&[&long], &[("a", "1", "")]);
    }

    #[test]
    fn what_is_written_reads_back() {
        let line = "user.segment=enter%20prise%25;p=1";
        let mut map = HeaderMap::new();
        map.insert(BAGGAGE, HeaderValue::from_static("user.segment=enter%20prise%25;p=1"));
        let baggage = parse(&map).expect("one member");
        map.clear();
        write(&baggage, &mut map);
        assert_eq!(map.get(BAGGAGE).expect("written"), line);
    }
}
