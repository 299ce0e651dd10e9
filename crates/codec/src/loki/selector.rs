//! A stream's labels as Loki writes them, `{a="1", b="2"}`.

use std::borrow::Cow;

/// Name and value.
pub(super) type Label<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Reads at most `limit` labels. An error says what is wrong.
pub(super) fn parse(text: &str, limit: usize) -> Result<Vec<Label<'_>>, &'static str> {
    let mut rest = text
        .trim()
        .strip_prefix('{')
        .ok_or("it does not begin with {")?
        .trim_start();
    let mut labels = Vec::new();
    loop {
        if let Some(end) = rest.strip_prefix('}') {
            return if end.is_empty() {
                Ok(labels)
            } else {
                Err("something follows the }")
            };
        }
        if labels.len() == limit {
            return Err("there are too many labels");
        }
        let (name, after) = rest.split_once('=').ok_or("a label has no =")?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(['"', ',', '{', '}']) || name.contains(char::is_whitespace) {
            return Err("the name of a label is none");
        }
        let (value, after) = value(after.trim_start())?;
        labels.push((Cow::Borrowed(name), value));
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with('}') => {}
            None => return Err("a label is followed by neither , nor }"),
        }
    }
}

/// A quoted text, as Go has it, and what follows.
fn value(text: &str) -> Result<(Cow<'_, str>, &str), &'static str> {
    const OPEN: &str = "the value of a label does not end";
    if let Some(raw) = text.strip_prefix('`') {
        let (value, after) = raw.split_once('`').ok_or(OPEN)?;
        return Ok((Cow::Borrowed(value), after));
    }
    let text = text.strip_prefix('"').ok_or("the value of a label is not quoted")?;
    let special = text.find(['"', '\\']).ok_or(OPEN)?;
    if text.as_bytes()[special] == b'"' {
        return Ok((Cow::Borrowed(&text[..special]), &text[special + 1..]));
    }
    let mut bytes = Vec::new();
    let mut rest = text;
    loop {
        let special = rest.find(['"', '\\']).ok_or(OPEN)?;
        bytes.extend_from_slice(&rest.as_bytes()[..special]);
        let quote = rest.as_bytes()[special] == b'"';
        rest = &rest[special + 1..];
        if quote {
            let value = String::from_utf8_lossy(&bytes).into_owned();
            return Ok((Cow::Owned(value), rest));
        }
        rest = escaped(rest, &mut bytes).ok_or("the value of a label has an escape that is none")?;
    }
}

/// What stands behind a backslash; gives what follows it.
fn escaped<'a>(text: &'a str, out: &mut Vec<u8>) -> Option<&'a str> {
    let kind = *text.as_bytes().first()?;
    let number = |digits: usize, from: usize, radix| {
        let digits = text.get(from..from + digits)?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
    };
    let (bytes, length) = match kind {
        b'n' => (b'\n', 1),
        b't' => (b'\t', 1),
        b'r' => (b'\r', 1),
        b'a' => (7, 1),
        b'b' => (8, 1),
        b'v' => (11, 1),
        b'f' => (12, 1),
        b'\\' | b'"' | b'\'' => (kind, 1),
        b'x' => (u8::try_from(number(2, 1, 16)?).ok()?, 3),
        b'0'..=b'7' => (u8::try_from(number(3, 0, 8)?).ok()?, 3),
        b'u' | b'U' => {
            let digits = if kind == b'u' { 4 } else { 8 };
            let c = char::from_u32(number(digits, 1, 16)?)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return text.get(1 + digits..);
        }
        _ => return None,
    };
    out.push(bytes);
    text.get(length..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<&[(&str, &str)], &'static str>) {
        let got = parse(text, 3);
        let got = got.map(|labels| {
            let pair = |(name, value): Label<'_>| (name.into_owned(), value.into_owned());
            labels.into_iter().map(pair).collect::<Vec<_>>()
        });
        let own = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
        let expect = expect.map(|labels| labels.iter().map(own).collect());
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn labels_as_loki_writes_them() {
        check("{}", Ok(&[]));
        check(r#" { a = "1" , b="2",} "#, Ok(&[("a", "1"), ("b", "2")]));
        check(
            r#"{a="q\"\\\n\x41\101\u00df",b=`r\w`}"#,
            Ok(&[("a", "q\"\\\nAAß"), ("b", "r\\w")]),
        );
    }

    #[test]
    fn what_is_none_is_said() {
        check("", Err("it does not begin with {"));
        check(r#"{a="1"} x"#, Err("something follows the }"));
        check(r#"{a="1" b="2"}"#, Err("a label is followed by neither , nor }"));
        check(r#"{a="1"#, Err("the value of a label does not end"));
        check("{a=1}", Err("the value of a label is not quoted"));
        check("{a}", Err("a label has no ="));
        check(r#"{="1"}"#, Err("the name of a label is none"));
        check(r#"{a="\q"}"#, Err("the value of a label has an escape that is none"));
        check(r#"{a="\x+1"}"#, Err("the value of a label has an escape that is none"));
        check(r#"{a="1",b="1",c="1",d="1"}"#, Err("there are too many labels"));
    }
}
