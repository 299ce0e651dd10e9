//! Why: what most people must not keep looks the same everywhere, so nobody should have to write patterns for it. Each set is found by hand-written
//! rules, because a check digit is no regular expression; one pass over a text says which of them can apply at all.
//!
//! Every rule looks at each byte a bounded number of times, so that hostile texts (a megabyte of digits or of `@`) cost what others do.

use std::ops::Range;

use serde::Deserialize;

/// A ready-made set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// `name@host.tld`, also with `%40` for the `@`.
    Email,
    /// `+` and 8 to 15 digits, or `(555) 123-4567` and its likes. Bare numbers are not taken for phones.
    Phone,
    /// US social security numbers with hyphens: `123-45-6789`.
    Ssn,
    /// Payment card numbers of 13 to 19 digits, with spaces, hyphens or nothing between, whose issuer exists and whose check digit (Luhn) is right.
    Card,
    /// What follows `Bearer`.
    Bearer,
    /// AWS access key ids.
    AwsKey,
    /// JSON web tokens.
    Jwt,
    /// The values of keys such as `password`, `api_key`, `authorization` or `session_token`.
    Password,
}

impl Preset {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The sets that are looked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Presets(u8);

impl FromIterator<Preset> for Presets {
    fn from_iter<I: IntoIterator<Item = Preset>>(presets: I) -> Presets {
        Presets(presets.into_iter().fold(0, |bits, preset| bits | preset.bit()))
    }
}

/// The shortest text that any set matches: `a@b.co`.
const SHORTEST: usize = 6;
/// Places that the first pass looks at together: a vector register's worth.
const LANES: usize = 16;
/// The bytes that it needs for them: it looks at four in a row.
const WINDOW: usize = LANES + 3;
/// Fewer digits than this are no number of any set (a social security number has 9; the first pass does not count the last three bytes).
const FEWEST_DIGITS: u32 = 5;
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 8..=15;
/// Separators that may stand in a row in an international phone number: `) `.
const PHONE_SEPARATORS: usize = 2;
/// The least length of a token after `Bearer`, so that "bearer of news" is none.
const TOKEN_LEAST: usize = 8;
/// From this length on a token needs no digit to be one.
const TOKEN_CERTAIN: usize = 20;
/// The least length of a token's first two parts.
const JWT_PART_LEAST: usize = 8;
const AWS_KEY_LEN: usize = 20;

impl Presets {
    pub fn has(self, preset: Preset) -> bool {
        self.0 & preset.bit() != 0
    }

    /// Adds where `text` holds something of the sets. The places may overlap; they begin and end between characters.
    pub fn find(self, text: &str, found: &mut Vec<Range<usize>>) {
        let bytes = text.as_bytes();
        if bytes.len() < SHORTEST || self.0 & !Preset::Password.bit() == 0 {
            return;
        }
        let hints = hints(bytes);
        if hints.at && self.has(Preset::Email) {
            emails(bytes, found);
        }
        if hints.bearer && self.has(Preset::Bearer) {
            bearers(bytes, found);
        }
        if hints.jwt && self.has(Preset::Jwt) {
            jwts(bytes, found);
        }
        if hints.aws && self.has(Preset::AwsKey) {
            aws_keys(bytes, found);
        }
        let numbers = Preset::Phone.bit() | Preset::Ssn.bit() | Preset::Card.bit();
        if hints.digits >= FEWEST_DIGITS && self.0 & numbers != 0 {
            self.numbers(bytes, found);
        }
    }

    /// Whether the values of a key are secret by its name.
    pub fn is_secret_key(self, key: &str) -> bool {
        self.has(Preset::Password) && is_secret_key(key.as_bytes())
    }

    /// What is made of digits.
    fn numbers(self, bytes: &[u8], found: &mut Vec<Range<usize>>) {
        let mut at = 0;
        while let Some(offset) = bytes[at..].iter().position(u8::is_ascii_digit) {
            let start = at + offset;
            let end = start + digits(&bytes[start..]);
            at = end;
            if self.has(Preset::Phone)
                && start > 0
                && bytes[start - 1] == b'+'
                && !before_is_alphanumeric(bytes, start - 1)
                && let Some(end) = international_phone(bytes, start)
            {
                found.push(start - 1..end);
            }
            if before_is_alphanumeric(bytes, start) {
                continue;
            }
            if end - start == 3 {
                if self.has(Preset::Ssn) && is_ssn(&bytes[start..]) {
                    found.push(start..start + "123-45-6789".len());
                }
                if self.has(Preset::Phone)
                    && let Some(len) = american_phone(&bytes[start..])
                {
                    found.push(start..start + len);
                }
            }
            if self.has(Preset::Card)
                && let Some(end) = card(bytes, start)
            {
                found.push(start..end);
            }
        }
    }
}

/// Which sets a text can hold something of.
struct Hints {
    at: bool,
    bearer: bool,
    jwt: bool,
    aws: bool,
    digits: u32,
}

/// One pass without branches over a window at a time, in a form that the compiler turns into vector instructions. The last window overlaps the one before,
/// so a digit may be counted twice; these are hints.
fn hints(bytes: &[u8]) -> Hints {
    let mut seen = Seen::default();
    let mut rest = bytes;
    while let Some(window) = rest.first_chunk() {
        seen.add(window);
        rest = &rest[LANES..];
    }
    if let Some(window) = bytes.last_chunk() {
        seen.add(window);
    } else {
        let mut window = [0; WINDOW];
        window[..bytes.len()].copy_from_slice(bytes);
        seen.add(&window);
    }
    let any = |lanes: [u8; LANES]| lanes.iter().fold(0, |all, lane| all | lane) != 0;
    Hints {
        at: any(seen.at),
        bearer: any(seen.bearer),
        jwt: any(seen.jwt),
        aws: any(seen.aws),
        digits: seen.digits.iter().map(|count| u32::from(*count)).sum(),
    }
}

/// What was seen, by lane.
#[derive(Default)]
struct Seen {
    at: [u8; LANES],
    bearer: [u8; LANES],
    jwt: [u8; LANES],
    aws: [u8; LANES],
    digits: [u8; LANES],
}

impl Seen {
    /// Looks at the four bytes that begin at each of the first `LANES` of a window.
    #[inline(always)]
    fn add(&mut self, window: &[u8; WINDOW]) {
        for lane in 0..LANES {
            let [a, b, c, d] = [window[lane], window[lane + 1], window[lane + 2], window[lane + 3]];
            self.at[lane] |= u8::from(a == b'@') | (u8::from(a == b'%') & u8::from(b == b'4') & u8::from(c == b'0'));
            self.bearer[lane] |= u8::from(a | 0x20 == b'b')
                & u8::from(b | 0x20 == b'e')
                & u8::from(c | 0x20 == b'a')
                & u8::from(d | 0x20 == b'r');
            self.jwt[lane] |= u8::from(a == b'e') & u8::from(b == b'y') & u8::from(c == b'J');
            self.aws[lane] |= u8::from(a == b'A') & u8::from(d == b'A') & (u8::from(c == b'I') | u8::from(c == b'C'));
            self.digits[lane] = self.digits[lane].saturating_add(u8::from(a.wrapping_sub(b'0') < 10));
        }
    }
}

/// How many digits a text begins with.
fn digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn before_is_alphanumeric(bytes: &[u8], at: usize) -> bool {
    at > 0 && bytes[at - 1].is_ascii_alphanumeric()
}

fn ends_word(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_none_or(|byte| !byte.is_ascii_alphanumeric())
}

fn emails(bytes: &[u8], found: &mut Vec<Range<usize>>) {
    let is_local = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'%' | b'+' | b'-' | 0x80..);
    // Where the name before the last `%40` began: the walk back from the next one need not be walked again.
    let mut known: Option<(usize, usize)> = None;
    let mut at = 0;
    while let Some(offset) = bytes[at..].iter().position(|byte| matches!(byte, b'@' | b'%')) {
        let sign = at + offset;
        let after = match bytes[sign] {
            b'@' => sign + 1,
            _ if bytes[sign..].starts_with(b"%40") => sign + 3,
            _ => {
                at = sign + 1;
                continue;
            }
        };
        at = after;
        let mut start = sign;
        loop {
            match known {
                Some((end, begun)) if start == end => {
                    start = begun;
                    break;
                }
                _ if start > 0 && is_local(bytes[start - 1]) => start -= 1,
                _ => break,
            }
        }
        known = (bytes[sign] == b'%').then_some((after, start));
        if start < sign
            && let Some(end) = host(bytes, after)
        {
            found.push(start..end);
        }
    }
}

/// Where the longest host name with a top-level domain ends that begins here.
fn host(bytes: &[u8], start: usize) -> Option<usize> {
    let is_label = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte >= 0x80;
    let (mut at, mut end) = (start, None);
    loop {
        let label = bytes[at..].iter().take_while(|byte| is_label(byte)).count();
        if label == 0 {
            return end;
        }
        let letters = bytes[at..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        if at > start && letters >= 2 {
            end = Some(at + letters);
        }
        at += label;
        if bytes.get(at) != Some(&b'.') {
            return end;
        }
        at += 1;
    }
}

fn international_phone(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut count, mut end) = (start, 0, None);
    loop {
        let run = digits(&bytes[at..bytes.len().min(at + PHONE_DIGITS.end() + 1)]);
        count += run;
        at += run;
        if run == 0 || count > *PHONE_DIGITS.end() {
            return end;
        }
        if count >= *PHONE_DIGITS.start() && ends_word(bytes, at) {
            end = Some(at);
        }
        let separators = bytes[at..]
            .iter()
            .take(PHONE_SEPARATORS)
            .take_while(|byte| matches!(byte, b' ' | b'(' | b')' | b'.' | b'-'))
            .count();
        if separators == 0 {
            return end;
        }
        at += separators;
    }
}

/// The length of a number such as `555-123-4567` or `555) 123-4567`, whose first three digits are there.
fn american_phone(bytes: &[u8]) -> Option<usize> {
    let mut at = 3;
    if bytes.get(at) == Some(&b')') {
        at += 1;
        at += usize::from(bytes.get(at) == Some(&b' '));
    } else if is_gap(bytes, at) {
        at += 1;
    } else {
        return None;
    }
    if digits(bytes.get(at..)?) != 3 || !is_gap(bytes, at + 3) || digits(bytes.get(at + 4..)?) != 4 {
        return None;
    }
    at += 8;
    ends_word(bytes, at).then_some(at)
}

fn is_gap(bytes: &[u8], at: usize) -> bool {
    matches!(bytes.get(at), Some(b' ' | b'.' | b'-'))
}

fn is_ssn(bytes: &[u8]) -> bool {
    let [a, b, c, b'-', d, e, b'-', f, g, h, i, ..] = bytes else {
        return false;
    };
    let (area, group, serial) = ([*a, *b, *c], [*d, *e], [*f, *g, *h, *i]);
    group.iter().chain(&serial).all(u8::is_ascii_digit)
        && ends_word(bytes, 11)
        && area != *b"000"
        && area != *b"666"
        && *a != b'9'
        && group != *b"00"
        && serial != *b"0000"
}

/// Where the longest card number ends that begins here, at the start of a run of digits.
fn card(bytes: &[u8], start: usize) -> Option<usize> {
    // The fraction of a number is none.
    if start >= 2 && bytes[start - 1] == b'.' && bytes[start - 2].is_ascii_digit() {
        return None;
    }
    let mut number = [0u8; *CARD_DIGITS.end()];
    let (mut at, mut count, mut end) = (start, 0, None);
    while let Some(byte) = bytes.get(at) {
        if !byte.is_ascii_digit() {
            break;
        }
        if count == number.len() {
            return end;
        }
        number[count] = byte - b'0';
        count += 1;
        at += 1;
        if bytes.get(at).is_some_and(u8::is_ascii_digit) {
            continue;
        }
        if CARD_DIGITS.contains(&count) && ends_word(bytes, at) && is_issued(&number[..count]) && luhn(&number[..count])
        {
            end = Some(at);
        }
        at += usize::from(matches!(bytes.get(at), Some(b' ' | b'-')));
    }
    end
}

/// Whether some issuer has numbers that begin like this and are this long. Source: ISO/IEC 7812 ranges as the issuers publish them.
fn is_issued(number: &[u8]) -> bool {
    let begin = number
        .iter()
        .take(4)
        .fold(0u32, |all, digit| all * 10 + u32::from(*digit));
    match (begin, number.len()) {
        // Visa
        (4000..=4999, 13 | 16 | 19) => true,
        // Mastercard
        (5100..=5599 | 2221..=2720, 16) => true,
        // American Express
        (3400..=3499 | 3700..=3799, 15) => true,
        // Discover, Diners, UnionPay, Maestro
        (6011 | 6440..=6599, 16..=19) => true,
        (3000..=3059 | 3095 | 3600..=3699 | 3800..=3999, 14..=19) => true,
        (6200..=6299 | 8100..=8199, 16..=19) => true,
        (5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763, 13..=19) => true,
        // JCB
        (3528..=3589, 16..=19) => true,
        _ => false,
    }
}

/// The check digit of ISO/IEC 7812-1.
fn luhn(number: &[u8]) -> bool {
    let sum: u32 = number
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit @ 0..=4) => digit * 2,
            (_, digit) => digit * 2 - 9,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn bearers(bytes: &[u8], found: &mut Vec<Range<usize>>) {
    const WORD: &[u8] = b"bearer";
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"._~+/=-".contains(byte);
    let mut at = 0;
    while let Some(offset) = bytes[at..].iter().position(|byte| byte | 0x20 == b'b') {
        let start = at + offset;
        at = start + 1;
        let word = bytes.get(start..start + WORD.len());
        if before_is_alphanumeric(bytes, start) || !word.is_some_and(|word| word.eq_ignore_ascii_case(WORD)) {
            continue;
        }
        let after = start + WORD.len();
        let token = after
            + bytes[after..]
                .iter()
                .take_while(|byte| matches!(byte, b' ' | b'\t'))
                .count();
        let len = bytes[token..].iter().take_while(|byte| is_token(byte)).count();
        let has_digit = || bytes[token..token + len].iter().any(u8::is_ascii_digit);
        if token > after && (len >= TOKEN_CERTAIN || (len >= TOKEN_LEAST && has_digit())) {
            found.push(token..token + len);
            at = token + len;
        } else {
            at = token;
        }
    }
}

fn aws_keys(bytes: &[u8], found: &mut Vec<Range<usize>>) {
    for (start, key) in bytes.windows(AWS_KEY_LEN).enumerate() {
        if key[0] == b'A'
            && [b"AKIA", b"ASIA", b"ABIA", b"ACCA"]
                .iter()
                .any(|begin| key.starts_with(*begin))
            && key
                .iter()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
            && !before_is_alphanumeric(bytes, start)
            && ends_word(bytes, start + AWS_KEY_LEN)
        {
            found.push(start..start + AWS_KEY_LEN);
        }
    }
}

fn jwts(bytes: &[u8], found: &mut Vec<Range<usize>>) {
    let part = |from: usize| {
        let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        from + bytes[from..].iter().take_while(is_part).count()
    };
    let mut at = 0;
    while let Some(offset) = bytes[at..].iter().position(|byte| *byte == b'e') {
        let start = at + offset;
        at = start + 1;
        if before_is_alphanumeric(bytes, start) || !bytes[start..].starts_with(b"eyJ") {
            continue;
        }
        let header = part(start);
        // Whatever else begins in this part has the same end and is shorter.
        at = header;
        if header - start < JWT_PART_LEAST || bytes.get(header) != Some(&b'.') {
            continue;
        }
        let payload = part(header + 1);
        if payload - header <= JWT_PART_LEAST || bytes.get(payload) != Some(&b'.') {
            continue;
        }
        let mut end = part(payload + 1);
        while bytes.get(end) == Some(&b'.') && part(end + 1) > end + 1 {
            end = part(end + 1);
        }
        found.push(start..end);
        at = end;
    }
}

/// Whether a key's name says that its value is a secret: words anywhere in it, others only where they end it.
fn is_secret_key(key: &[u8]) -> bool {
    let is_at = |at: usize, word: &[u8]| {
        let mut rest = key[at..].iter();
        // A letter of the word may be written large, and `_` in it may be `-`, `.` or nothing.
        word.iter().all(|wanted| match wanted {
            b'_' => {
                let mut ahead = rest.clone();
                if matches!(ahead.next(), Some(b'_' | b'-' | b'.')) {
                    rest = ahead;
                }
                true
            }
            _ => rest.next().is_some_and(|byte| byte.eq_ignore_ascii_case(wanted)),
        })
    };
    let ends_with = |word: &[u8]| {
        let start = key.len().checked_sub(word.len());
        start.is_some_and(|start| key[start..].eq_ignore_ascii_case(word))
    };
    let ends_as_word = |word: &[u8]| {
        let before = key.len().checked_sub(word.len() + 1);
        ends_with(word) && before.is_none_or(|before| !key[before].is_ascii_alphanumeric())
    };
    for (at, byte) in key.iter().enumerate() {
        let words: &[&[u8]] = match byte | 0x20 {
            b'p' => &[b"password", b"passwd", b"passphrase", b"private_key"],
            b's' => &[b"secret"],
            b'a' => &[b"api_key", b"authorization", b"access_key"],
            b'c' => &[b"credential"],
            _ => continue,
        };
        if words.iter().any(|word| is_at(at, word)) {
            return true;
        }
    }
    ends_with(b"token") || ends_as_word(b"pwd") || ends_as_word(b"cookie")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Preset; 8] = [
        Preset::Email,
        Preset::Phone,
        Preset::Ssn,
        Preset::Card,
        Preset::Bearer,
        Preset::AwsKey,
        Preset::Jwt,
        Preset::Password,
    ];

    #[track_caller]
    fn check(text: &str, expect: &[&str]) {
        let mut found = Vec::new();
        Presets::from_iter(ALL).find(text, &mut found);
        let mut got: Vec<&str> = found.into_iter().map(|place| &text[place]).collect();
        got.sort_by_key(|place| place.as_ptr());
        assert_eq!(got, expect, "in {text:?}");
    }

    #[test]
    fn addresses() {
        check(
            "mail anna.smith+x@mail.example.co.uk, now",
            &["anna.smith+x@mail.example.co.uk"],
        );
        check("?user=anna%40example.com&x=1", &["anna%40example.com"]);
        check("jürgen@example.de.", &["jürgen@example.de"]);
        check("a@b.co", &["a@b.co"]);
        check("@types/node, a@b, @@@@, x@.com, me@10.0.0.1", &[]);
        check("a@a@a@b.com", &["a@b.com"]);
        check("q%40%40example.com", &["q%40%40example.com"]);
    }

    #[test]
    fn phones() {
        check("call +49 (30) 1234-5678 today", &["+49 (30) 1234-5678"]);
        check(
            "call (555) 123-4567 or 555.123.4567",
            &["555) 123-4567", "555.123.4567"],
        );
        check("a+12345678901 10.0.0.1 1700000000 2023-11-20 +1234567", &[]);
    }

    #[test]
    fn social_security_numbers() {
        check("ssn 123-45-6789.", &["123-45-6789"]);
        check(
            "000-45-6789 666-45-6789 900-45-6789 123-00-6789 123-45-0000 1123-45-6789 123-45-67890",
            &[],
        );
    }

    #[test]
    fn cards() {
        check("paid with 4111 1111 1111 1111 ok", &["4111 1111 1111 1111"]);
        check("4111111111111111", &["4111111111111111"]);
        check("order 12 4111-1111-1111-1111 3", &["4111-1111-1111-1111"]);
        check("amex 378282246310005", &["378282246310005"]);
        check("a wrong check digit 4111111111111112", &[]);
        check("in hex 0a4111111111111111, as a fraction 0.4111111111111111", &[]);
        check("nanoseconds 1700000000000000000", &[]);
    }

    #[test]
    fn tokens() {
        check("Authorization: Bearer abc.DEF-123_x== end", &["abc.DEF-123_x=="]);
        check("the bearer of this letter, bearer authentication", &[]);
        check(
            "id AKIAIOSFODNN7EXAMPLE, AKIAIOSFODNN7EXAMPLES",
            &["AKIAIOSFODNN7EXAMPLE"],
        );
        let jwt = "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln";
        check(&format!("token_{jwt} ?t={jwt}."), &[jwt, jwt]);
        check("eyJhbGciOiJI eyJ.eyJzdWIi.x eyJhbGciOiJI.short.x", &[]);
    }

    #[test]
    fn names_of_secrets() {
        for key in [
            "password",
            "db.Password",
            "user_passwd",
            "client_secret",
            "x-api-key",
            "apiKey",
            "http.request.header.authorization",
            "aws.secretAccessKey",
            "access_token",
            "sessionToken",
            "pwd",
            "http.request.header.cookie",
            "privateKey",
        ] {
            assert!(is_secret_key(key.as_bytes()), "{key}");
        }
        for key in [
            "gen_ai.usage.input_tokens",
            "passenger",
            "process.cpwd",
            "author",
            "key",
            "http.route",
            "",
        ] {
            assert!(!is_secret_key(key.as_bytes()), "{key}");
        }
    }

    /// How often a rule looks at bytes is hard to count, but not what it yields: these texts have a match begin or nearly begin everywhere. Debug builds
    /// need minutes for them as soon as one rule is quadratic.
    #[test]
    fn hostile_texts_end() {
        const LEN: usize = 1 << 18;
        for piece in [
            "1",
            "1 ",
            "+1",
            "4-",
            "@",
            "%40",
            "a%40",
            "a@a.",
            "bearer ",
            "eyJ",
            "-eyJ",
            "eyJaaaaaaaa.",
            "AKIA",
            "A",
            "é@",
        ] {
            let text = piece.repeat(LEN / piece.len());
            let mut found = Vec::new();
            Presets::from_iter(ALL).find(&text, &mut found);
            assert!(found.len() <= text.len());
            for place in found {
                assert!(text.is_char_boundary(place.start) && text.is_char_boundary(place.end));
            }
        }
    }
}
