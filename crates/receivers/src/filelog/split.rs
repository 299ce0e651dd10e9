//! Where one entry ends and the next begins, in bytes that are still arriving.

use std::ops::Range;

use memchr::memchr;
use regex::bytes::Regex;

/// What tells entries apart.
#[derive(Debug, Clone)]
pub enum Ends {
    Newline,
    /// An entry begins where this matches.
    Start(Regex),
    /// An entry ends where this has matched.
    End(Regex),
}

#[derive(Debug, Clone)]
pub struct Splitter {
    pub ends: Ends,
    /// What the pattern matched is no part of an entry.
    pub omits_pattern: bool,
    /// Bytes of an entry; a longer one is handed on in pieces.
    pub max_log_size: usize,
}

/// The first entry of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub text: Range<usize>,
    /// Bytes up to where the next one begins.
    pub consumed: usize,
}

impl Splitter {
    /// The entry that the buffer begins with, if all of it is there. `is_all`: behind the buffer there is nothing yet, so a match at its end may still
    /// become another. `flush`: nothing more is waited for.
    pub fn first(&self, buffer: &[u8], is_all: bool, flush: bool) -> Option<Entry> {
        let whole = |text: Range<usize>, consumed| Some(Entry { text, consumed });
        let found = match &self.ends {
            Ends::Newline => memchr(b'\n', buffer).map(|at| (0..at, at + 1)),
            Ends::Start(pattern) => {
                let mut starts = pattern.find_iter(buffer).filter(|found| !found.is_empty());
                let first = starts.next();
                match first {
                    // What stands before the first beginning is an entry of its own.
                    Some(first) if first.start() > 0 => Some((0..first.start(), first.start())),
                    Some(first) => {
                        let from = if self.omits_pattern { first.end() } else { 0 };
                        starts.next().map(|second| (from..second.start(), second.start()))
                    }
                    None => None,
                }
            }
            Ends::End(pattern) => {
                let found = pattern.find_iter(buffer).find(|found| !found.is_empty());
                found.filter(|found| found.end() < buffer.len() || is_all).map(|found| {
                    let to = if self.omits_pattern { found.start() } else { found.end() };
                    (0..to, found.end())
                })
            }
        };
        match found {
            Some((text, consumed)) if text.len() <= self.max_log_size => whole(text, consumed),
            _ if buffer.len() > self.max_log_size => {
                let piece = whole_characters(buffer, self.max_log_size);
                whole(0..piece, piece)
            }
            _ if flush && is_all && !buffer.is_empty() => {
                let from = match &self.ends {
                    Ends::Start(pattern) if self.omits_pattern => {
                        let first = pattern.find(buffer).filter(|found| found.start() == 0);
                        first.map_or(0, |found| found.end())
                    }
                    _ => 0,
                };
                whole(from..buffer.len(), buffer.len())
            }
            _ => None,
        }
    }
}

/// At most so many bytes, without cutting a character in two.
fn whole_characters(buffer: &[u8], limit: usize) -> usize {
    let is_inside = |at: &usize| buffer.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    // A character has four bytes at most; what has more is none.
    let from = limit.saturating_sub(3).max(1);
    (from..=limit).rev().find(|at| !is_inside(at)).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splitter(ends: Ends) -> Splitter {
        Splitter {
            ends,
            omits_pattern: false,
            max_log_size: 20,
        }
    }

    /// All entries of a text of which nothing follows; what is left at the end, too, if `flush`.
    fn all(splitter: &Splitter, text: &str, flush: bool) -> Vec<String> {
        let mut rest = text.as_bytes();
        let mut entries = Vec::new();
        while let Some(entry) = splitter.first(rest, true, flush) {
            assert!(entry.consumed > 0, "it goes on");
            entries.push(String::from_utf8_lossy(&rest[entry.text]).into_owned());
            rest = &rest[entry.consumed..];
        }
        entries
    }

    #[test]
    fn lines() {
        let lines = splitter(Ends::Newline);
        assert_eq!(all(&lines, "a\n\nbc\nrest", false), ["a", "", "bc"]);
        assert_eq!(all(&lines, "a\nrest", true), ["a", "rest"]);
        let long = format!("{}\nb\n", "ö".repeat(15));
        assert_eq!(all(&lines, &long, false), ["ö".repeat(10), "ö".repeat(5), "b".into()]);
        // Bytes that are no text are cut wherever the bound is.
        assert_eq!(lines.first(&[0x80; 50], true, false).unwrap().consumed, 20);
    }

    #[test]
    fn entries_that_begin_with_a_pattern() {
        let mut starts = splitter(Ends::Start(Regex::new(r"(?m)^\d+ ").unwrap()));
        assert_eq!(all(&starts, "junk\n1 a\n  b\n2 c\n", false), ["junk\n", "1 a\n  b\n"]);
        assert_eq!(all(&starts, "1 a\n2 c\n", true), ["1 a\n", "2 c\n"]);
        starts.omits_pattern = true;
        assert_eq!(all(&starts, "1 a\n2 c\n", true), ["a\n", "c\n"]);
    }

    #[test]
    fn entries_that_end_with_a_pattern() {
        let mut ends = splitter(Ends::End(Regex::new("(?m)END").unwrap()));
        assert_eq!(all(&ends, "a\nEND b ENDc", false), ["a\nEND", " b END"]);
        ends.omits_pattern = true;
        assert_eq!(all(&ends, "a END", false), ["a "]);
        assert_eq!(ends.first(b"a END", false, false), None, "more may come");
    }
}
