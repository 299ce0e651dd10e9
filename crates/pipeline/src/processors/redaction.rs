//! Why: what must not be kept is taken out before anything becomes durable: attributes by their keys, parts of texts by patterns and ready-made sets. It
//! looks at the attributes of resources, scopes, spans, events, links, log records, data points and exemplars, and at the bodies of log records, down
//! to the last value of nested maps and lists.
//!
//! As in the collector, attributes that `allowed_keys` does not name are removed, unless `allow_all_keys` is set. A configuration that names `presets`
//! and no `allowed_keys` is about values and keeps all keys.
//!
//! ```yaml
//! processors:
//!   redaction:
//!     presets: [email, card, bearer, jwt, aws_key, password]
//!     blocked_values: ["customer-[0-9]{6}"]
//!     summary: info
//! ```

mod masking;
mod presets;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use model::Batch;
use model::edit::scrub::{Added, Fate, Scrub, ScrubValue, scrub, scrub_value};
use model::view::{AnyValue, View};
use model::wire::put_bytes;
use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use serde::Deserialize;
use serde::de::IgnoredAny;

use self::masking::{Hash, Mask, Secrets};
use self::presets::{Preset, Presets};
use super::Step;
use crate::ack::Outcome;
use crate::component::Processor;
use crate::config::{Problems, Section};

/// Compiled size of one list of patterns; real lists take some 100 KiB.
const PATTERNS_BYTES: usize = 16 << 20;
/// What matching may remember of a list's states, per thread. At the bound it begins anew, so that time stays linear.
const PATTERN_STATES_BYTES: usize = 4 << 20;

const HASHES: &str = "md5, sha1, sha256, sha3, hmac-sha256 and hmac-sha512";

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Keep attributes whatever their keys. Default `false`; `true` if there are `presets` and no `allowed_keys`.
    pub allow_all_keys: Option<bool>,
    /// Keys of attributes that are kept; all others are removed. Maps in log bodies are held to them too.
    pub allowed_keys: Vec<String>,
    /// Keys of attributes that are kept and not looked into.
    pub ignored_keys: Vec<String>,
    /// The same as patterns.
    pub ignored_key_patterns: Vec<String>,
    /// Patterns of keys whose values are masked as a whole.
    pub blocked_key_patterns: Vec<String>,
    /// Patterns of what is masked within values.
    pub blocked_values: Vec<String>,
    /// Patterns of values that are left alone, whatever else they hold.
    pub allowed_values: Vec<String>,
    /// Also look at numbers and booleans; where something is found they become text. Default `false`.
    pub redact_all_types: bool,
    /// Put a hash in the place of what is found: `md5`, `sha1`, `sha256`, `sha3`, `hmac-sha256` or `hmac-sha512`. Numbers can be guessed from plain hashes; an `hmac` cannot be without its key.
    pub hash_function: Option<String>,
    /// The key for `hmac-sha256` and `hmac-sha512`.
    pub hmac_key: Option<String>,
    /// Put this text in the place of what is found. Default `****`.
    pub mask: Option<String>,
    /// Attributes that say what was done: `debug` (keys and numbers), `info` (numbers) or `silent` (none, default).
    pub summary: Summary,
    /// Ready-made sets: `email`, `phone`, `ssn`, `card` (with its check digit), `bearer`, `aws_key`, `jwt`, and `password` (by the names of keys).
    pub presets: Vec<Preset>,
    /// Also look at the names of spans and events. Default `false`.
    pub span_names: bool,
    /// Also look at the status messages of spans. Default `false`.
    pub status_messages: bool,
    /// The collector's sanitizer of URLs; not supported.
    pub url_sanitizer: Option<IgnoredAny>,
    /// The collector's sanitizer of database statements; not supported.
    pub db_sanitizer: Option<IgnoredAny>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Summary {
    Debug,
    Info,
    #[default]
    #[serde(alias = "")]
    Silent,
}

pub fn parse(section: &Section<'_>) -> Result<Step, Problems> {
    let config: Config = section.parse()?;
    for (key, is_set) in [
        ("url_sanitizer", config.url_sanitizer.is_some()),
        ("db_sanitizer", config.db_sanitizer.is_some()),
    ] {
        if is_set {
            let problem = format!("`{key}` is not supported; name what must go as patterns in `blocked_values`");
            return Err(section.problem(&[key], problem));
        }
    }
    if config.mask.is_some() && config.hash_function.is_some() {
        return Err(section.problem(&["mask"], "`mask` and `hash_function` exclude each other"));
    }
    let redaction = Redaction::new(&config).map_err(|(key, problem)| section.problem(&[key], problem))?;
    Ok(Step::InRequest(Arc::new(redaction)))
}

#[derive(Debug)]
struct Redaction {
    /// `None` keeps all.
    allowed_keys: Option<HashSet<String>>,
    ignored_keys: HashSet<String>,
    ignored_key_patterns: RegexSet,
    blocked_key_patterns: RegexSet,
    allowed_values: RegexSet,
    secrets: Secrets,
    redact_all_types: bool,
    summary: Summary,
    span_names: bool,
    status_messages: bool,
}

fn patterns(key: &'static str, patterns: &[String]) -> Result<RegexSet, (&'static str, String)> {
    RegexSetBuilder::new(patterns)
        .size_limit(PATTERNS_BYTES)
        .dfa_size_limit(PATTERN_STATES_BYTES)
        .build()
        .map_err(|error| (key, format!("{key}: {error}")))
}

impl Redaction {
    fn new(config: &Config) -> Result<Redaction, (&'static str, String)> {
        let each = config.blocked_values.iter().map(|pattern| {
            RegexBuilder::new(pattern)
                .size_limit(PATTERNS_BYTES)
                .dfa_size_limit(PATTERN_STATES_BYTES)
                .build()
                .map_err(|error| ("blocked_values", format!("blocked_values: {error}")))
        });
        let presets: Presets = config.presets.iter().copied().collect();
        let all_keys = config
            .allow_all_keys
            .unwrap_or(!config.presets.is_empty() && config.allowed_keys.is_empty());
        Ok(Redaction {
            allowed_keys: (!all_keys).then(|| config.allowed_keys.iter().cloned().collect()),
            ignored_keys: config.ignored_keys.iter().cloned().collect(),
            ignored_key_patterns: patterns("ignored_key_patterns", &config.ignored_key_patterns)?,
            blocked_key_patterns: patterns("blocked_key_patterns", &config.blocked_key_patterns)?,
            allowed_values: patterns("allowed_values", &config.allowed_values)?,
            secrets: Secrets {
                presets,
                each: each.collect::<Result<Vec<Regex>, _>>()?,
                any: patterns("blocked_values", &config.blocked_values)?,
                mask: mask(config)?,
            },
            redact_all_types: config.redact_all_types,
            summary: config.summary,
            span_names: config.span_names,
            status_messages: config.status_messages,
        })
    }

    fn is_ignored(&self, key: &str) -> bool {
        self.ignored_keys.contains(key)
            || (!self.ignored_key_patterns.is_empty() && self.ignored_key_patterns.is_match(key))
    }

    fn is_removed(&self, key: &str) -> bool {
        self.allowed_keys.as_ref().is_some_and(|allowed| !allowed.contains(key))
    }

    fn is_masked(&self, key: &str) -> bool {
        self.secrets.presets.is_secret_key(key)
            || (!self.blocked_key_patterns.is_empty() && self.blocked_key_patterns.is_match(key))
    }

    fn is_allowed(&self, text: &str) -> bool {
        !self.allowed_values.is_empty() && self.allowed_values.is_match(text)
    }
}

fn mask(config: &Config) -> Result<Mask, (&'static str, String)> {
    let key = || match config.hmac_key.as_deref() {
        Some(key) if !key.is_empty() => Ok(key.as_bytes().to_vec()),
        _ => Err(("hash_function", "an hmac needs `hmac_key`".to_owned())),
    };
    let hash = match config.hash_function.as_deref() {
        None | Some("") => return Ok(Mask::Text(config.mask.clone().unwrap_or_else(|| "****".to_owned()))),
        Some("md5") => Hash::Md5,
        Some("sha1") => Hash::Sha1,
        Some("sha256") => Hash::Sha256,
        Some("sha3") => Hash::Sha3,
        Some("hmac-sha256") => Hash::HmacSha256(key()?),
        Some("hmac-sha512") => Hash::HmacSha512(key()?),
        Some(other) => return Err(("hash_function", format!("there is no `{other}`; there are {HASHES}"))),
    };
    Ok(Mask::Hash(hash))
}

impl Processor for Redaction {
    fn process(&self, batch: Batch) -> Result<Batch, Outcome> {
        let mut pass = Pass {
            redaction: self,
            owners: Vec::new(),
            found: Vec::new(),
        };
        Ok(scrub(&batch, &mut pass))
    }
}

/// What the summary attributes are called; for what was done in a log record's body, `body.` stands before the last two words.
const SUMMARIES: [(Done, &str, &str); 4] = [
    (Done::Removed, "redacted", "redaction.redacted"),
    (Done::Masked, "masked", "redaction.masked"),
    (Done::Allowed, "allowed", "redaction.allowed"),
    (Done::Ignored, "ignored", "redaction.ignored"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Removed,
    Masked,
    Allowed,
    Ignored,
}

/// One batch on its way through.
struct Pass<'r> {
    redaction: &'r Redaction,
    /// What was done to the owner at hand and to those around it; empty without a summary.
    owners: Vec<Tally>,
    /// A buffer.
    found: Vec<Range<usize>>,
}

/// What was done, by `Done`, first to attributes, then in a body.
#[derive(Debug, Default)]
struct Tally {
    keys: [[Vec<String>; 4]; 2],
    /// What an earlier redaction wrote.
    earlier: [[i64; 4]; 2],
}

impl Pass<'_> {
    fn note(&mut self, done: Done, key: &str, in_body: bool) {
        if let Some(owner) = self.owners.last_mut() {
            owner.keys[usize::from(in_body)][done as usize].push(key.to_owned());
        }
    }

    /// Writes what stands for a value whose key says that it is a secret. Numbers and booleans say little and stay, unless all types are meant.
    fn mask_whole(&self, value: &[u8], out: &mut Vec<u8>) -> Fate {
        let mask = &self.redaction.secrets.mask;
        let shown = match AnyValue::read(value) {
            AnyValue::Empty => return Fate::Keep,
            AnyValue::Str(text) if text.is_empty() || mask.is_all_of(text) => return Fate::Keep,
            AnyValue::Str(text) => text.as_bytes(),
            AnyValue::Bool(_) | AnyValue::Int(_) | AnyValue::Double(_) if !self.redaction.redact_all_types => {
                return Fate::Keep;
            }
            _ => value,
        };
        let mut text = String::new();
        mask.put(shown, &mut text);
        put_bytes(out, 1, text.as_bytes());
        Fate::Replace
    }

    /// A text with what was found in it replaced.
    fn mask_text(&mut self, text: &str) -> Option<String> {
        self.redaction.secrets.mask(text, &mut self.found)
    }

    /// The value of an attribute that stays. Returns what became of it.
    fn value(&mut self, key: &str, value: &[u8], out: &mut Vec<u8>) -> Fate {
        // Most values are texts and most of them are fine; for those nothing is copied.
        if let AnyValue::Str(text) = AnyValue::read(value) {
            if self.redaction.is_allowed(text) {
                self.note(Done::Allowed, key, false);
                return Fate::Keep;
            }
            let Some(masked) = self.mask_text(text) else {
                return Fate::Keep;
            };
            put_bytes(out, 1, masked.as_bytes());
            return Fate::Replace;
        }
        let mut inside = Inside {
            pass: self,
            is_body: false,
        };
        match scrub_value(value, &mut inside, out) {
            true => Fate::Replace,
            false => Fate::Keep,
        }
    }

    /// Whether this is a summary that an earlier redaction wrote, which is then taken up into ours.
    fn take_up(&mut self, key: &str, value: &[u8]) -> bool {
        let Some(owner) = self.owners.last_mut() else {
            return false;
        };
        let Some(rest) = key.strip_prefix("redaction.") else {
            return false;
        };
        let (in_body, rest) = match rest.strip_prefix("body.") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let Some((word, what)) = rest.split_once('.') else {
            return false;
        };
        let Some((done, ..)) = SUMMARIES.into_iter().find(|(_, known, _)| *known == word) else {
            return false;
        };
        let (body, done) = (usize::from(in_body), done as usize);
        match (what, AnyValue::read(value)) {
            ("count", AnyValue::Int(count)) => {
                owner.earlier[body][done] = owner.earlier[body][done].saturating_add(count);
            }
            // The names of keys that it wrote are only repeated where they are not secrets themselves.
            ("keys", AnyValue::Str(keys)) => {
                let keys = self
                    .redaction
                    .secrets
                    .mask(keys, &mut self.found)
                    .unwrap_or_else(|| keys.to_owned());
                let list = &mut owner.keys[body][done];
                let before = list.len();
                list.extend(keys.split(',').filter(|key| !key.is_empty()).map(str::to_owned));
                // They were counted by who wrote them.
                owner.earlier[body][done] -= (list.len() - before) as i64;
            }
            _ => return false,
        }
        true
    }
}

impl Scrub for Pass<'_> {
    fn enter(&mut self, _: &'static str) {
        if self.redaction.summary != Summary::Silent {
            self.owners.push(Tally::default());
        }
    }

    fn pair(&mut self, key: &str, value: &[u8], out: &mut Vec<u8>) -> Fate {
        let redaction = self.redaction;
        if redaction.is_ignored(key) {
            self.note(Done::Ignored, key, false);
            return Fate::Keep;
        }
        if !self.owners.is_empty() && self.take_up(key, value) {
            return Fate::Remove;
        }
        if redaction.is_removed(key) {
            self.note(Done::Removed, key, false);
            return Fate::Remove;
        }
        let fate = match redaction.is_masked(key) {
            true if !matches!(AnyValue::read(value), AnyValue::Str(text) if redaction.is_allowed(text)) => {
                match self.mask_whole(value, out) {
                    Fate::Keep => self.value(key, value, out),
                    fate => fate,
                }
            }
            _ => self.value(key, value, out),
        };
        if fate == Fate::Replace {
            self.note(Done::Masked, key, false);
        }
        fate
    }

    fn body(&mut self, value: &[u8], out: &mut Vec<u8>) -> bool {
        let is_text = matches!(AnyValue::read(value), AnyValue::Str(_));
        let mut inside = Inside {
            pass: self,
            is_body: true,
        };
        let changed = scrub_value(value, &mut inside, out);
        if changed && is_text {
            self.note(Done::Masked, "body", true);
        }
        changed
    }

    fn text(&mut self, owner: &'static str, number: u32, text: &str, out: &mut Vec<u8>) -> bool {
        // The fields' numbers are OTLP's: `Span.name`, `Event.name`, `Status.message`.
        let is_meant = match (owner, number) {
            ("Span", 5) | ("Event", 2) => self.redaction.span_names,
            ("Status", 2) => self.redaction.status_messages,
            _ => false,
        };
        if !is_meant || self.redaction.is_allowed(text) {
            return false;
        }
        let Some(masked) = self.mask_text(text) else {
            return false;
        };
        out.extend_from_slice(masked.as_bytes());
        true
    }

    fn leave(&mut self, added: &mut Added) {
        let Some(owner) = self.owners.pop() else { return };
        let with_keys = self.redaction.summary == Summary::Debug;
        for (in_body, (keys, earlier)) in owner.keys.into_iter().zip(owner.earlier).enumerate() {
            for (((_, word, name), mut keys), earlier) in SUMMARIES.into_iter().zip(keys).zip(earlier) {
                let count = (keys.len() as i64).saturating_add(earlier).max(0);
                if count == 0 {
                    continue;
                }
                let name = match in_body {
                    0 => name.to_owned(),
                    _ => format!("redaction.body.{word}"),
                };
                keys.sort_unstable();
                if (with_keys && word != "ignored") && !keys.is_empty() {
                    added.text(&format!("{name}.keys"), &keys.join(","));
                }
                added.int(&format!("{name}.count"), count);
            }
        }
    }
}

/// What is inside a value: of an attribute, or of a log record's body.
struct Inside<'p, 'r> {
    pass: &'p mut Pass<'r>,
    is_body: bool,
}

impl ScrubValue for Inside<'_, '_> {
    fn text(&mut self, text: &str, out: &mut Vec<u8>) -> bool {
        if self.pass.redaction.is_allowed(text) {
            return false;
        }
        let masked = self.pass.mask_text(text);
        if let Some(masked) = &masked {
            put_bytes(out, 1, masked.as_bytes());
        }
        masked.is_some()
    }

    fn scalar(&mut self, value: &[u8], out: &mut Vec<u8>) -> bool {
        if !self.pass.redaction.redact_all_types {
            return false;
        }
        let shown = match AnyValue::read(value) {
            AnyValue::Bool(value) => value.to_string(),
            AnyValue::Int(value) => value.to_string(),
            AnyValue::Double(value) => value.to_string(),
            _ => return false,
        };
        self.text(&shown, out)
    }

    fn pair(&mut self, key: &str, value: &[u8], out: &mut Vec<u8>) -> Option<Fate> {
        let redaction = self.pass.redaction;
        if redaction.is_ignored(key) {
            return Some(Fate::Keep);
        }
        if self.is_body && redaction.is_removed(key) {
            self.pass.note(Done::Removed, key, true);
            return Some(Fate::Remove);
        }
        let text = AnyValue::read(value).as_str();
        if text.is_some_and(|text| redaction.is_allowed(text)) {
            return Some(Fate::Keep);
        }
        let mut fate = None;
        if redaction.is_masked(key) {
            fate = Some(self.pass.mask_whole(value, out)).filter(|fate| *fate != Fate::Keep);
        }
        // Texts are looked through here, where their key is known.
        if let (None, Some(text)) = (fate, text) {
            fate = Some(if self.text(text, out) {
                Fate::Replace
            } else {
                Fate::Keep
            });
        }
        if fate == Some(Fate::Replace) && self.is_body {
            self.pass.note(Done::Masked, key, true);
        }
        fate
    }
}

#[cfg(test)]
mod tests;
