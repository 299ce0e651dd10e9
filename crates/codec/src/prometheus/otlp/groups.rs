//! Why: what is one histogram or summary in OTLP is many series in Prometheus. They become one point only where that point says exactly what they said.

use std::cmp::Ordering;
use std::hash::BuildHasher;

use super::{Builder, EMPTY, Form, Group, NONE, Part, Role, What, nanos};
use crate::prometheus::Kind;
use crate::prometheus::series::{NAME, SeriesRef, is_stale};

impl<'a> Builder<'a> {
    /// What a series is of its histogram or summary, and that one's name; `None` for a series of its own.
    pub(super) fn role(&self, series: u32, kind: Kind, name: &'a str) -> Option<(&'a str, Role)> {
        let value = |wanted: &str| {
            let mut labels = self.labels(series);
            labels.find(|(name, _)| *name == wanted).map(|(_, value)| value)
        };
        let bound = |wanted: &str| value(wanted).and_then(|text| text.parse().ok());
        let whole = |special: &str| value(special).is_none();
        match kind {
            Kind::Histogram => {
                if let Some(base) = name.strip_suffix("_bucket") {
                    return Some((base, Role::Bucket(bound("le")?)));
                }
                let sum = name.strip_suffix("_sum").map(|base| (base, Role::Sum));
                let count = || name.strip_suffix("_count").map(|base| (base, Role::Count));
                sum.or_else(count).filter(|_| whole("le"))
            }
            Kind::Summary => {
                if let Some(quantile) = value("quantile") {
                    return Some((name, Role::Quantile(quantile.parse().ok()?)));
                }
                let sum = name.strip_suffix("_sum").map(|base| (base, Role::Sum));
                let count = || name.strip_suffix("_count").map(|base| (base, Role::Count));
                sum.or_else(count)
            }
            _ => None,
        }
    }

    /// Puts a sample to those of the same point.
    #[expect(clippy::too_many_arguments, reason = "they are one key and one value")]
    pub(super) fn part(
        &mut self,
        scope: u32,
        family: u32,
        base: &'a str,
        time_ms: i64,
        series: u32,
        sample: u32,
        role: Role,
    ) {
        let list = self.list;
        let special = match list.families[family as usize].kind {
            Kind::Summary => "quantile",
            _ => "le",
        };
        let attributes = |series: u32| {
            let series = &list.series[series as usize];
            let labels = SeriesRef { list, series }.labels();
            labels.filter(move |(name, _)| *name != NAME && *name != special)
        };
        let Builder {
            groups,
            by_group,
            hasher,
            parts,
            ..
        } = self;
        let is_it = |at: &u32| {
            let known = &groups[*at as usize];
            known.time_ms == time_ms
                && known.scope == scope
                && known.family == family
                && known.base == base
                && attributes(parts[known.parts.first as usize].series).eq(attributes(series))
        };
        let last = groups.len().wrapping_sub(1) as u32;
        let group = if !groups.is_empty() && is_it(&last) {
            last
        } else {
            let hash = |scope: u32, family: u32, base: &str, time_ms: i64, series: u32| {
                let mut hash = hasher.hash_one((scope, family, base, time_ms));
                for pair in attributes(series) {
                    hash = hash.rotate_left(5) ^ hasher.hash_one(pair);
                }
                hash
            };
            let hashed = hash(scope, family, base, time_ms, series);
            match by_group.find(hashed, is_it) {
                Some(known) => *known,
                None => {
                    let number = groups.len() as u32;
                    groups.push(Group {
                        scope,
                        family,
                        base,
                        time_ms,
                        parts: EMPTY,
                    });
                    let of = |at: &u32| {
                        let group = &groups[*at as usize];
                        // The newest has no part yet, and is not asked for.
                        let first = parts.get(group.parts.first as usize).map_or(series, |part| part.series);
                        hash(group.scope, group.family, group.base, group.time_ms, first)
                    };
                    by_group.insert_unique(hashed, number, of);
                    number
                }
            }
        };
        let number = parts.len() as u32;
        parts.push(Part {
            series,
            sample,
            role,
            next: NONE,
        });
        let chain = &mut groups[group as usize].parts;
        match chain.last {
            NONE => chain.first = number,
            last => parts[last as usize].next = number,
        }
        chain.last = number;
    }

    /// Makes points of the groups that are whole, and of the others a number each.
    pub(super) fn groups(&mut self) {
        let mut ordered = Vec::new();
        for at in 0..self.groups.len() as u32 {
            let Group {
                scope, family, base, ..
            } = self.groups[at as usize];
            let kind = self.list.families[family as usize].kind;
            self.parts_of(at, &mut ordered);
            let form = match kind {
                Kind::Summary => Form::Summary,
                _ => Form::Histogram,
            };
            if self.is_whole(kind, &ordered) {
                self.point(scope, form, base, family, What::Group(at));
                continue;
            }
            for part in &ordered {
                let series = self.series(part.series);
                let name = SeriesRef {
                    list: self.list,
                    series,
                }
                .name();
                self.number(part.series, part.sample, name, kind);
            }
        }
    }

    /// The parts of a group: buckets by their bounds, quantiles as they came, then sum and count.
    pub(super) fn parts_of(&self, group: u32, out: &mut Vec<Part>) {
        out.clear();
        let mut at = self.groups[group as usize].parts.first;
        while at != NONE {
            let part = self.parts[at as usize];
            out.push(part);
            at = part.next;
        }
        out.sort_by(|a, b| match (a.role, b.role) {
            (Role::Bucket(a), Role::Bucket(b)) => a.total_cmp(&b),
            (a, b) => rank(a).cmp(&rank(b)),
        });
    }

    /// Whether a point says exactly what these samples say.
    pub(super) fn is_whole(&self, kind: Kind, parts: &[Part]) -> bool {
        let sample = |part: &Part| self.list.samples[part.sample as usize];
        let Some((first, [.., sum, count])) = parts.first().zip(Some(parts)) else {
            return false;
        };
        let rest = &parts[..parts.len() - 2];
        if !matches!((sum.role, count.role), (Role::Sum, Role::Count)) {
            return false;
        }
        let (start_ms, ended) = (sample(first).start_ms, is_stale(sample(first).value));
        let alike = |part: &Part| sample(part).start_ms == start_ms && is_stale(sample(part).value) == ended;
        if !parts.iter().all(alike) || nanos(start_ms).is_none() {
            return false;
        }
        let total = sample(count).value;
        if !ended && !is_count(total) {
            return false;
        }
        if kind == Kind::Summary {
            let mut quantiles: Vec<f64> = Vec::with_capacity(rest.len());
            for part in rest {
                match part.role {
                    Role::Quantile(quantile) if !quantile.is_nan() => quantiles.push(quantile),
                    _ => return false,
                }
            }
            quantiles.sort_by(f64::total_cmp);
            return quantiles.windows(2).all(|two| two[0] != two[1]);
        }
        let (mut below, mut bound) = (0.0, f64::NEG_INFINITY);
        for part in rest {
            let Role::Bucket(le) = part.role else { return false };
            if le.partial_cmp(&bound) != Some(Ordering::Greater) {
                return false;
            }
            bound = le;
            let value = sample(part).value;
            if !ended {
                if !is_count(value) || value < below {
                    return false;
                }
                below = value;
            }
        }
        bound == f64::INFINITY && (ended || below == total)
    }
}

fn rank(role: Role) -> u8 {
    match role {
        Role::Bucket(_) => 0,
        Role::Quantile(_) => 1,
        Role::Sum => 2,
        Role::Count => 3,
    }
}

/// Whether a value is a number of observations: whole, and such that it is the same after a walk through 64 bits.
fn is_count(value: f64) -> bool {
    const END: f64 = 18_446_744_073_709_551_616.0;
    value.is_sign_positive() && value < END && value.fract() == 0.0
}
