//! Finds clocks that disagree, and by how much.
//!
//! A server span happens inside the client span that called it. Each such pair across two hosts bounds the
//! difference of their clocks: the correction δ of the callee must satisfy `parent.start ≤ child.start + δ` and
//! `child.end + δ ≤ parent.end`. All pairs between two hosts are intersected; when 0 is outside of what remains, the
//! clocks disagree, and the middle of it is the estimate (Cristian's algorithm: the way there takes as long as the
//! way back). Unlike a correction pair by pair, all spans of a host move together.

use std::collections::HashMap;

use model::record::SpanRecord;

use crate::tree::Tree;

/// Differences below this are the jitter of well-kept clocks and not worth a mark.
const TOLERANCE_NS: i64 = 1_000_000;

/// The client side of a call, in OTLP's numbering.
const CLIENT: u8 = 3;
/// The server side of a call, in OTLP's numbering.
const SERVER: u8 = 2;

/// What two hosts' pairs of spans allow the correction to be.
#[derive(Clone, Copy)]
struct Bounds {
    low: i64,
    high: i64,
}

impl Bounds {
    fn correction(self) -> i64 {
        let Bounds { low, high } = self;
        if low <= TOLERANCE_NS && high >= -TOLERANCE_NS {
            0
        } else if low <= high && high < i64::MAX {
            // The two may be far apart in a hostile trace; the sum must not overflow.
            ((i128::from(low) + i128::from(high)) / 2) as i64
        } else if low > TOLERANCE_NS {
            // Callees that outlive their callers leave only the starts to go by.
            low
        } else {
            0
        }
    }
}

/// For each span, in the order given, what to add to its times; empty when all clocks agree.
///
/// `host` gives a number to the host of each span: spans with equal numbers share a clock.
pub fn corrections(spans: &[SpanRecord], tree: &Tree, host: &[u32]) -> Vec<i64> {
    let mut pairs: HashMap<(u32, u32), Bounds> = HashMap::new();
    for (i, child) in spans.iter().enumerate() {
        let Some(p) = tree.parent(i as u32) else { continue };
        let parent = &spans[p as usize];
        let (from, to) = (host[p as usize], host[i]);
        if from == to || parent.kind != CLIENT || child.kind != SERVER {
            continue;
        }
        let low = distance(child.start_unix_nano, parent.start_unix_nano);
        let high = distance(child.end_unix_nano, parent.end_unix_nano);
        // A callee that took longer than its caller waited bounds one side only.
        let high = if high < low { i64::MAX } else { high };
        let bounds = pairs.entry((from, to)).or_insert(Bounds { low, high });
        bounds.low = bounds.low.max(low);
        bounds.high = bounds.high.min(high);
    }
    if pairs.values().all(|bounds| bounds.correction() == 0) {
        return Vec::new();
    }

    // Walk in tree order, so that a parent's correction is known before its children's.
    let mut of_host: HashMap<u32, i64> = HashMap::new();
    let mut corrections = vec![0i64; spans.len()];
    for &i in &tree.order {
        let own = host[i as usize];
        let correction = match of_host.get(&own) {
            Some(&known) => known,
            None => {
                let inherited = tree.parent(i).map_or(0, |p| {
                    let step = pairs
                        .get(&(host[p as usize], own))
                        .map_or(0, |bounds| bounds.correction());
                    corrections[p as usize].saturating_add(step)
                });
                of_host.insert(own, inherited);
                inherited
            }
        };
        corrections[i as usize] = correction;
    }
    corrections
}

/// `to − from`, held within `i64` for times that are centuries apart.
fn distance(from: u64, to: u64) -> i64 {
    (i128::from(to) - i128::from(from)).clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::span;

    const MS: u64 = 1_000_000;
    const NONE: [i64; 0] = [];

    /// A client span on host 0 and a server span below it on host 1, each `(start, end)` in ms.
    fn pair(client: (u64, u64), server: (u64, u64)) -> Vec<i64> {
        let mut spans = [
            span(1, 0, 0, 1_000 * MS),
            span(2, 1, client.0 * MS, client.1 * MS),
            span(3, 2, server.0 * MS, server.1 * MS),
            span(4, 3, server.0 * MS, server.1 * MS),
        ];
        spans[1].kind = CLIENT;
        spans[2].kind = SERVER;
        let tree = Tree::build(&spans);
        corrections(&spans, &tree, &[0, 0, 1, 1])
            .into_iter()
            .map(|ns| ns / MS as i64)
            .collect()
    }

    #[test]
    fn a_server_inside_its_client_needs_nothing() {
        assert_eq!(pair((100, 200), (110, 190)), NONE);
    }

    #[test]
    fn a_server_that_starts_before_its_client_moves_to_the_middle_with_all_its_host() {
        assert_eq!(pair((100, 200), (10, 90)), [0, 0, 100, 100]);
    }

    #[test]
    fn a_clock_ahead_moves_back() {
        assert_eq!(pair((100, 200), (500, 580)), [0, 0, -390, -390]);
    }

    #[test]
    fn a_server_that_outlives_its_client_is_no_skew() {
        assert_eq!(pair((100, 200), (110, 400)), NONE);
    }

    #[test]
    fn a_server_that_outlives_its_client_may_not_start_before_it() {
        assert_eq!(pair((100, 200), (50, 400)), [0, 0, 50, 50]);
    }

    #[test]
    fn times_centuries_apart_do_not_overflow() {
        let mut spans = [span(1, 0, 0, 10), span(2, 1, u64::MAX, u64::MAX)];
        spans[0].kind = CLIENT;
        spans[1].kind = SERVER;
        let tree = Tree::build(&spans);
        assert_eq!(corrections(&spans, &tree, &[0, 1]), [0, i64::MIN]);
    }

    #[test]
    fn several_calls_between_two_hosts_agree_on_one_correction() {
        let mut spans = [
            span(1, 0, 0, 1_000 * MS),
            span(2, 1, 100 * MS, 200 * MS),
            span(3, 2, 50 * MS, 100 * MS),
            span(4, 1, 300 * MS, 360 * MS),
            span(5, 4, 260 * MS, 300 * MS),
        ];
        for i in [1, 3] {
            spans[i].kind = CLIENT;
            spans[i + 1].kind = SERVER;
        }
        let tree = Tree::build(&spans);
        // The first pair allows 50..100 ms, the second 40..60 ms: together 50..60.
        let found = corrections(&spans, &tree, &[0, 0, 1, 0, 1]);
        assert_eq!(found, [0, 0, 55 * MS as i64, 0, 55 * MS as i64]);
    }
}
