//! Why: what is found in a text is taken out so that nothing of it is left: overlapping finds are one, and what only shows once its neighbour is gone is
//! found too.

use std::fmt::Write;
use std::ops::Range;

use hmac::{Hmac, Mac};
use regex::{Regex, RegexSet};
use sha2::{Digest, Sha256, Sha512};

use super::presets::Presets;

/// How often a text is looked through again after something was taken out of it; what then still shows something is replaced as a whole.
const ROUNDS: u32 = 4;

/// What stands in the place of what was found.
#[derive(Debug, Clone)]
pub enum Mask {
    Text(String),
    Hash(Hash),
}

/// Names of hash functions as the collector's `redaction` has them.
#[derive(Debug, Clone)]
pub enum Hash {
    Md5,
    Sha1,
    Sha256,
    Sha3,
    HmacSha256(Vec<u8>),
    HmacSha512(Vec<u8>),
}

impl Mask {
    /// Appends what stands for `secret`.
    pub fn put(&self, secret: &[u8], out: &mut String) {
        match self {
            Mask::Text(text) => out.push_str(text),
            Mask::Hash(hash) => {
                for byte in hash.of(secret) {
                    // Writing to a string does not fail.
                    let _ = write!(out, "{byte:02x}");
                }
            }
        }
    }

    /// Whether a whole value is nothing but what a mask left.
    pub fn is_all_of(&self, value: &str) -> bool {
        matches!(self, Mask::Text(text) if text == value)
    }
}

impl Hash {
    fn of(&self, secret: &[u8]) -> Vec<u8> {
        match self {
            Hash::Md5 => md5::Md5::digest(secret).to_vec(),
            Hash::Sha1 => sha1::Sha1::digest(secret).to_vec(),
            Hash::Sha256 => Sha256::digest(secret).to_vec(),
            Hash::Sha3 => sha3::Sha3_256::digest(secret).to_vec(),
            Hash::HmacSha256(key) => signed::<Hmac<Sha256>>(key, secret),
            Hash::HmacSha512(key) => signed::<Hmac<Sha512>>(key, secret),
        }
    }
}

fn signed<M: Mac + hmac::KeyInit>(key: &[u8], secret: &[u8]) -> Vec<u8> {
    // An HMAC takes keys of every length.
    let mac = <M as hmac::KeyInit>::new_from_slice(key);
    mac.map(|mut mac| {
        mac.update(secret);
        mac.finalize().into_bytes().to_vec()
    })
    .unwrap_or_default()
}

/// Everything that must not be in a text.
#[derive(Debug)]
pub struct Secrets {
    pub presets: Presets,
    /// All patterns of the configuration in one pass, and each for where it matches.
    pub any: RegexSet,
    pub each: Vec<Regex>,
    pub mask: Mask,
}

impl Secrets {
    fn find(&self, text: &str, found: &mut Vec<Range<usize>>) {
        self.presets.find(text, found);
        if self.each.is_empty() {
            return;
        }
        for index in self.any.matches(text) {
            let places = self.each[index].find_iter(text).map(|place| place.range());
            found.extend(places.filter(|place| !place.is_empty()));
        }
    }

    /// The text without what must not be in it; `None` if it may stay as it is. `found` is kept by the caller for its buffer.
    pub fn mask(&self, text: &str, found: &mut Vec<Range<usize>>) -> Option<String> {
        found.clear();
        self.find(text, found);
        if found.is_empty() {
            return None;
        }
        let mut text = text.to_owned();
        let mut done = Vec::new();
        for _ in 0..ROUNDS {
            text = self.take_out(&text, found, &mut done);
            found.clear();
            self.find(&text, found);
            // A mask or a hash may itself match; that is not what it stands for.
            found.retain(|place| !lies_within(place, &done));
            if found.is_empty() {
                return Some(text);
            }
        }
        let mut whole = String::new();
        self.mask.put(text.as_bytes(), &mut whole);
        Some(whole)
    }

    /// Replaces what was found, with the earlier replacements that it touches; notes where the replacements are now.
    fn take_out(&self, text: &str, found: &mut [Range<usize>], done: &mut Vec<Range<usize>>) -> String {
        found.sort_unstable_by_key(|place| place.start);
        let mut out = String::with_capacity(text.len());
        let mut replaced = Vec::with_capacity(found.len() + done.len());
        let mut copied = 0;
        let mut new = found.iter().cloned().peekable();
        let mut old = done.iter().cloned().peekable();
        loop {
            let from_new = match (new.peek(), old.peek()) {
                (Some(new), Some(old)) => new.start <= old.start,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => break,
            };
            let Some(mut place) = (if from_new { new.next() } else { old.next() }) else {
                break;
            };
            let mut is_new = from_new;
            loop {
                if let Some(next) = new.next_if(|next| next.start < place.end) {
                    place.end = place.end.max(next.end);
                    is_new = true;
                } else if let Some(next) = old.next_if(|next| next.start < place.end) {
                    place.end = place.end.max(next.end);
                } else {
                    break;
                }
            }
            out.push_str(&text[copied..place.start]);
            let start = out.len();
            if is_new {
                self.mask.put(&text.as_bytes()[place.clone()], &mut out);
            } else {
                out.push_str(&text[place.clone()]);
            }
            replaced.push(start..out.len());
            copied = place.end;
        }
        out.push_str(&text[copied..]);
        *done = replaced;
        out
    }
}

/// Whether a place lies in one of these, which are in order.
fn lies_within(place: &Range<usize>, places: &[Range<usize>]) -> bool {
    let after = places.partition_point(|other| other.start <= place.start);
    after > 0 && place.end <= places[after - 1].end
}

#[cfg(test)]
mod tests {
    use super::super::presets::Preset;
    use super::*;

    fn secrets(presets: &[Preset], patterns: &[&str], mask: Mask) -> Secrets {
        Secrets {
            presets: presets.iter().copied().collect(),
            any: RegexSet::new(patterns).expect("patterns"),
            each: patterns
                .iter()
                .map(|pattern| Regex::new(pattern).expect("a pattern"))
                .collect(),
            mask,
        }
    }

    fn check(patterns: &[&str], text: &str, expect: Option<&str>) {
        let presets = [Preset::Email, Preset::Ssn, Preset::Card];
        let secrets = secrets(&presets, patterns, Mask::Text("****".into()));
        assert_eq!(secrets.mask(text, &mut Vec::new()).as_deref(), expect);
    }

    #[test]
    fn finds_become_masks() {
        check(&[], "nothing here", None);
        check(
            &["secret-[0-9]+"],
            "a secret-12, and anna@example.com!",
            Some("a ****, and ****!"),
        );
        // Of two patterns that overlap nothing is left, whichever is written first.
        check(&["abc", "bcd"], "xabcdx", Some("x****x"));
        check(&["bcd", "abc"], "xabcdx", Some("x****x"));
        // The address is what kept the number from being one.
        check(&[], "x@y.com123-45-6789", Some("********"));
        // A pattern that matches the mask too.
        check(&[r"\*+", "x+"], "axxb", Some("a****b"));
        check(&["^"], "axxb", None);
        // A text that goes on matching is replaced as a whole in the end.
        check(&[r"\*+a", "b"], "baaaaaaaaa", Some("****"));
    }

    #[test]
    fn hashes_are_those_of_others() {
        let of = |hash: Hash| {
            let mut out = String::new();
            Mask::Hash(hash).put(b"abc", &mut out);
            out
        };
        // The test vectors of RFC 1321, FIPS 180-4 and FIPS 202; HMACs from OpenSSL.
        assert_eq!(of(Hash::Md5), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(of(Hash::Sha1), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(
            of(Hash::Sha256),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            of(Hash::Sha3),
            "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"
        );
        assert_eq!(
            of(Hash::HmacSha256(b"key".to_vec())),
            "9c196e32dc0175f86f4b1cb89289d6619de6bee699e4c378e68309ed97a1a6ab"
        );
        assert_eq!(
            of(Hash::HmacSha512(b"key".to_vec())),
            "3926a207c8c42b0c41792cbd3e1a1aaaf5f7a25704f62dfc939c4987dd7ce060009c5bb1c2447355b3216f10b537e9afa7b64a4e5391b0d631172d07939e087a"
        );
    }

    #[test]
    fn a_hash_is_not_hashed_again() {
        let secrets = secrets(&[Preset::Email], &["[0-9a-f]{8,}"], Mask::Hash(Hash::Sha1));
        let masked = secrets.mask("to anna@example.com", &mut Vec::new()).expect("found");
        let mut hash = String::from("to ");
        Mask::Hash(Hash::Sha1).put(b"anna@example.com", &mut hash);
        assert_eq!(masked, hash);
    }
}
