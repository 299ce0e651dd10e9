//! Why: the words of the language. Every mistake has its place.

use super::Mistake;

#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    /// A name in lower case, or a keyword.
    Lower(String),
    /// A name that begins in upper case.
    Upper(String),
    Text(String),
    Int(i64),
    Double(f64),
    Bytes(Vec<u8>),
    /// Brackets, operators, commas.
    Sign(&'static str),
    End,
}

impl Word {
    /// What it is, in a message.
    pub fn describe(&self) -> String {
        match self {
            Word::Lower(name) | Word::Upper(name) => format!("`{name}`"),
            Word::Text(_) => "a text".to_owned(),
            Word::Int(_) | Word::Double(_) => "a number".to_owned(),
            Word::Bytes(_) => "bytes".to_owned(),
            Word::Sign(sign) => format!("`{sign}`"),
            Word::End => "the end".to_owned(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    pub word: Word,
    pub at: usize,
    pub end: usize,
}

/// Longer ones first.
const SIGNS: [&str; 21] = [
    "==", "!=", "<=", ">=", "<", ">", "=", "(", ")", "[", "]", "{", "}", ",", ".", ":", "+", "-", "*", "/", "!",
];

/// The words of a text, the last of which is `End`.
pub fn words(text: &str) -> Result<Vec<Token>, Mistake> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (word, end) = word(text, at, first)?;
        tokens.push(Token { word, at, end });
        at = end;
    }
    tokens.push(Token {
        word: Word::End,
        at,
        end: at,
    });
    Ok(tokens)
}

fn word(text: &str, at: usize, first: char) -> Result<(Word, usize), Mistake> {
    let rest = &text[at..];
    let run = |accept: fn(char) -> bool| rest.find(|c| !accept(c)).unwrap_or(rest.len());
    match first {
        '"' => quoted(text, at),
        'a'..='z' => {
            let len = run(|c| c.is_ascii_alphanumeric() || c == '_');
            Ok((Word::Lower(rest[..len].to_owned()), at + len))
        }
        'A'..='Z' => {
            let len = run(|c| c.is_ascii_alphanumeric() || c == '_');
            Ok((Word::Upper(rest[..len].to_owned()), at + len))
        }
        '0' if rest.starts_with("0x") => {
            let len = 2 + rest[2..]
                .find(|c: char| !c.is_ascii_hexdigit())
                .unwrap_or(rest.len() - 2);
            let digits = &rest.as_bytes()[2..len];
            if digits.is_empty() || digits.len() % 2 == 1 {
                return Err(Mistake::new(
                    at,
                    at + len,
                    "bytes need two hexadecimal digits each after `0x`",
                ));
            }
            let digit = |digit: u8| (digit as char).to_digit(16).unwrap_or_default() as u8;
            let bytes = digits.chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1]));
            Ok((Word::Bytes(bytes.collect()), at + len))
        }
        '0'..='9' => number(rest, at),
        '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => number(rest, at),
        _ => match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            Some(&"!") => Err(Mistake::new(
                at,
                at + 1,
                "`!` means nothing; a condition is turned around with `not`",
            )),
            Some(sign) => Ok((Word::Sign(sign), at + sign.len())),
            None => {
                let message = match first {
                    '\'' | '`' => "texts stand in double quotes".to_owned(),
                    '&' => "`&` means nothing; conditions are joined with `and`".to_owned(),
                    '|' => "`|` means nothing; conditions are joined with `or`".to_owned(),
                    other => format!("`{}` means nothing here", other.escape_debug()),
                };
                Err(Mistake::new(at, at + first.len_utf8(), message))
            }
        },
    }
}

fn number(rest: &str, at: usize) -> Result<(Word, usize), Mistake> {
    let digits = |from: usize| {
        from + rest[from..]
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len() - from)
    };
    let mut len = digits(0);
    let mut whole = true;
    if rest[len..].starts_with('.') {
        whole = false;
        len = digits(len + 1);
    }
    if rest[len..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[len + 1..].starts_with(['+', '-']));
        let end = digits(len + 1 + sign);
        if end > len + 1 + sign {
            whole = false;
            len = end;
        }
    }
    let text = &rest[..len];
    let word = if whole {
        text.parse().map(Word::Int).map_err(|_| "a whole number beyond 64 bits")
    } else {
        text.parse().map(Word::Double).map_err(|_| "this is not a number")
    };
    word.map(|word| (word, at + len))
        .map_err(|message| Mistake::new(at, at + len, message))
}

fn quoted(text: &str, at: usize) -> Result<(Word, usize), Mistake> {
    let mut out = String::new();
    let mut chars = text[at + 1..].char_indices();
    while let Some((offset, c)) = chars.next() {
        let here = at + 1 + offset;
        match c {
            '"' => return Ok((Word::Text(out), here + 1)),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some(c @ ('"' | '\\' | '\'')) => out.push(c),
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('a') => out.push('\u{7}'),
                Some('b') => out.push('\u{8}'),
                Some('f') => out.push('\u{c}'),
                Some('v') => out.push('\u{b}'),
                Some(kind @ ('x' | 'u' | 'U')) => {
                    let count = match kind {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let digits: String = chars.by_ref().take(count).map(|(_, c)| c).collect();
                    let read = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                    // A sign is no digit, though Rust reads one.
                    let is_hex = digits.len() == count && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                    match read.filter(|_| is_hex) {
                        Some(c) => out.push(c),
                        None => {
                            let message = format!("`\\{kind}` needs {count} hexadecimal digits of a character");
                            return Err(Mistake::new(here, here + 2, message));
                        }
                    }
                }
                Some(other) => {
                    let message =
                        format!("`\\{other}` is no escape; write `\\\\{other}` for a backslash and what follows");
                    return Err(Mistake::new(here, here + 1 + other.len_utf8(), message));
                }
                None => break,
            },
            c => out.push(c),
        }
    }
    Err(Mistake::new(at, text.len(), "this text has no end: a `\"` is missing"))
}
