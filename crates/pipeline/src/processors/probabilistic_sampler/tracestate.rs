//! Why: probability, threshold and randomness have one spelling that all samplers share, and everything else in a `tracestate` is somebody else's.
//!
//! Source: OpenTelemetry's specification, "TraceState: Handling" and "TraceState: Probability Sampling"; W3C Trace Context, "tracestate".

use std::fmt;

/// Randomness has this many bits.
const BITS: u32 = 56;
const ALL: u64 = 1 << BITS;
/// Hexadecimal digits of them.
const DIGITS: u32 = BITS / 4;
/// The longest value of one member (W3C Trace Context).
const MAX_VALUE: usize = 256;

/// Below it everything is rejected. Ordered: the greater rejects more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold(u64);

/// 56 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Randomness(u64);

impl Threshold {
    pub const ALWAYS: Threshold = Threshold(0);
    /// Keeps nothing; it has no spelling.
    pub const NEVER: Threshold = Threshold(ALL);
    /// The least probability that a threshold can say.
    pub const LEAST_PROBABILITY: f64 = 1.0 / ALL as f64;

    pub fn rejecting(below: u64) -> Threshold {
        Threshold(below.min(ALL))
    }

    /// The threshold for a probability, with so many significant hexadecimal digits: leading digits `f` (of small probabilities) or `0` (of great ones)
    /// do not count, so that small differences from 0 and 1 are kept. A probability below the least is never.
    pub fn of(probability: f64, precision: u32) -> Threshold {
        if probability.is_nan() || probability < Threshold::LEAST_PROBABILITY {
            return Threshold::NEVER;
        }
        if probability >= 1.0 {
            return Threshold::ALWAYS;
        }
        let kept = (probability * ALL as f64).round() as u64;
        let rejected = ALL - kept;
        let leading = kept.min(rejected).max(1).leading_zeros() - (u64::BITS - BITS);
        let digits = (precision + leading / 4).min(DIGITS);
        let shift = 4 * (DIGITS - digits);
        let half = (1u64 << shift) >> 1;
        Threshold(((rejected + half) >> shift) << shift)
    }

    pub fn probability(self) -> f64 {
        (ALL - self.0) as f64 / ALL as f64
    }

    pub fn keeps(self, randomness: Randomness) -> bool {
        randomness.0 >= self.0
    }

    /// 1 to 14 hexadecimal digits; trailing zeros may be missing.
    pub fn parse(text: &str) -> Option<Threshold> {
        let digits = text.len() as u32;
        (1..=DIGITS)
            .contains(&digits)
            .then(|| hexadecimal(text))?
            .map(|value| Threshold(value << (4 * (DIGITS - digits))))
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:014x}", self.0);
        match digits.trim_end_matches('0') {
            "" => f.write_str("0"),
            digits => f.write_str(digits),
        }
    }
}

impl Randomness {
    pub const MOST: Randomness = Randomness(ALL - 1);

    /// The last seven bytes of a trace id.
    pub fn of_trace(id: &[u8; 16]) -> Randomness {
        let [.., a, b, c, d, e, f, g] = *id;
        Randomness(u64::from_be_bytes([0, a, b, c, d, e, f, g]))
    }

    /// As the collector's hashing mode has it: 14 bits of FNV-1a decide, turned around so that the greater ones are kept, and the others fill up.
    pub fn hashed(bytes: &[u8], seed: u32) -> Randomness {
        let hash = seed
            .to_le_bytes()
            .iter()
            .chain(bytes)
            .fold(0x811c_9dc5_u32, |hash, byte| {
                (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
            });
        let low = u64::from(hash & 0x3fff);
        let rest = u64::from(hash >> 18);
        Randomness((0x3fff - low) << 42 | (rest ^ rest << 10) << 14 | low)
    }

    /// Exactly 14 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Randomness> {
        (text.len() as u32 == DIGITS)
            .then(|| hexadecimal(text))?
            .map(Randomness)
    }
}

impl fmt::Display for Randomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:014x}", self.0)
    }
}

/// Small letters only, as the specification has it.
fn hexadecimal(text: &str) -> Option<u64> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.bytes().all(is_digit).then(|| u64::from_str_radix(text, 16).ok())?
}

/// A `tracestate` with OpenTelemetry's member taken apart.
#[derive(Debug, Default)]
pub struct TraceState<'a> {
    threshold: Option<Threshold>,
    randomness: Option<Randomness>,
    /// What else OpenTelemetry's member says, `key:value`.
    others: Vec<&'a str>,
    /// The other members, in their order.
    members: Vec<&'a str>,
}

impl<'a> TraceState<'a> {
    /// `None` if it, or what OpenTelemetry says in it, is not well formed.
    pub fn parse(text: &'a str) -> Option<TraceState<'a>> {
        let mut state = TraceState::default();
        let mut is_there = false;
        for member in text.split(',').map(str::trim).filter(|member| !member.is_empty()) {
            let (key, value) = member.split_once('=')?;
            if key != "ot" {
                state.members.push(member);
                continue;
            }
            if std::mem::replace(&mut is_there, true) || value.len() > MAX_VALUE {
                return None;
            }
            for part in value.split(';') {
                match part.split_once(':')? {
                    ("th", value) => state.threshold = Some(Threshold::parse(value)?),
                    ("rv", value) => state.randomness = Some(Randomness::parse(value)?),
                    _ => state.others.push(part),
                }
            }
        }
        Some(state)
    }

    pub fn threshold(&self) -> Option<Threshold> {
        self.threshold
    }

    pub fn randomness(&self) -> Option<Randomness> {
        self.randomness
    }

    /// Whether no sampler has written in it.
    pub fn is_new(&self) -> bool {
        self.threshold.is_none() && self.randomness.is_none()
    }

    pub fn set_threshold(&mut self, threshold: Option<Threshold>) {
        self.threshold = threshold;
    }

    pub fn set_randomness(&mut self, randomness: Randomness) {
        self.randomness = Some(randomness);
    }
}

impl fmt::Display for TraceState<'_> {
    /// The member that changed goes first (W3C).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threshold = self.threshold.map(|threshold| format!("th:{threshold}"));
        let randomness = self.randomness.map(|randomness| format!("rv:{randomness}"));
        let own = threshold.iter().chain(&randomness).map(String::as_str);
        let own: Vec<&str> = own.chain(self.others.iter().copied()).collect();
        let own = (!own.is_empty()).then(|| format!("ot={}", own.join(";")));
        let members: Vec<&str> = own.as_deref().into_iter().chain(self.members.iter().copied()).collect();
        f.write_str(&members.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_spelled_as_the_specification_does() {
        for (probability, precision, expect) in [
            (1.0, 4, "0"),
            (0.5, 4, "8"),
            (0.25, 4, "c"),
            (1.0 / 3.0, 4, "aaab"),
            (1.0 / 3.0, 14, "aaaaaaaaaaaaac"),
            (0.1, 4, "e666"),
            (0.01, 4, "fd70a"),
            (0.99, 4, "028f6"),
            (Threshold::LEAST_PROBABILITY, 1, "ffffffffffffff"),
        ] {
            let threshold = Threshold::of(probability, precision);
            assert_eq!(threshold.to_string(), expect, "{probability}");
            assert_eq!(Threshold::parse(expect), Some(threshold));
        }
        assert_eq!(Threshold::of(0.0, 4), Threshold::NEVER);
        assert!(!Threshold::NEVER.keeps(Randomness::MOST));
        for bad in ["", "g", "8A", "123456789abcdef", "+8"] {
            assert_eq!(Threshold::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn states_keep_what_is_not_ours() {
        let again = |text: &str| TraceState::parse(text).map(|state| state.to_string());
        assert_eq!(again("").as_deref(), Some(""));
        assert_eq!(
            again("a=b, ot=x:y;rv:0123456789abcd;th:8,c=d").as_deref(),
            Some("ot=th:8;rv:0123456789abcd;x:y,a=b,c=d")
        );
        for bad in ["a", "ot=th:", "ot=rv:1", "ot=th:8,ot=th:8", "ot=x", "ot=th:8;"] {
            assert!(again(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_hash_is_fnv_with_the_seed_before_it() {
        // FNV-1a of "\0\0\0\0a", from its definition by hand in another language.
        let expect = 1896965532_u32;
        let low = u64::from(expect & 0x3fff);
        assert_eq!(Randomness::hashed(b"a", 0).0 >> 42, 0x3fff - low);
        assert_eq!(Randomness::hashed(b"a", 0).0 & 0x3fff, low);
    }
}
