//! Puts the spans of a trace in tree order, whatever was sent: missing parents, cycles, ids given twice, chains of
//! any depth.
//!
//! Nothing here recurses, so the depth of a hostile trace costs no stack; every step is linear but for one sort.

use std::collections::HashMap;

use model::SpanId;
use model::record::SpanRecord;

/// Marks "no span" in the index arrays, which would otherwise be twice as large as `Option`s.
const NONE: u32 = u32::MAX;

/// The client side of a call, in OTLP's numbering.
const CLIENT: u8 = 3;
/// The server side of a call, in OTLP's numbering.
const SERVER: u8 = 2;

/// The shape of one trace; all arrays but `order` are indexed like the spans it was built from.
#[derive(Debug, PartialEq, Eq)]
pub struct Tree {
    /// Every span once, depth first, siblings by start.
    pub order: Vec<u32>,
    parent: Vec<u32>,
    pub depth: Vec<u32>,
    pub orphan: Vec<bool>,
    /// The first span without a parent, by start.
    root: u32,
}

impl Tree {
    pub fn build(spans: &[SpanRecord]) -> Tree {
        let count = spans.len();
        debug_assert!(
            count < NONE as usize,
            "a trace of four billion spans does not fit in memory"
        );
        let mut sorted: Vec<u32> = (0..count as u32).collect();
        let key = |i: u32| (spans[i as usize].start_unix_nano, spans[i as usize].span_id);
        sorted.sort_unstable_by_key(|&i| (key(i), i));

        let parent = parents(spans, &sorted);
        let mut orphan: Vec<bool> = (0..count)
            .map(|i| spans[i].parent_span_id.is_some() && parent[i] == NONE)
            .collect();

        // Children as one array with a range per parent; filled in start order, so siblings come out sorted.
        let mut first = vec![0u32; count + 1];
        for &p in parent.iter().filter(|&&p| p != NONE) {
            first[p as usize + 1] += 1;
        }
        for i in 0..count {
            first[i + 1] += first[i];
        }
        let mut next = first.clone();
        let mut children = vec![0u32; first[count] as usize];
        for &i in &sorted {
            let p = parent[i as usize];
            if p != NONE {
                children[next[p as usize] as usize] = i;
                next[p as usize] += 1;
            }
        }

        let mut tops: Vec<u32> = sorted.iter().copied().filter(|&i| parent[i as usize] == NONE).collect();
        tops.sort_by_key(|&i| orphan[i as usize]);
        let root = tops.first().copied().filter(|&i| !orphan[i as usize]).unwrap_or(NONE);

        let mut tree = Tree {
            order: Vec::with_capacity(count),
            depth: vec![NONE; count],
            orphan: Vec::new(),
            parent,
            root,
        };
        for top in tops {
            tree.descend(top, &first, &children);
        }
        // What no top leads to lies on or below a cycle: the earliest span of each is cut loose as an orphan.
        for &i in &sorted {
            if tree.depth[i as usize] == NONE {
                tree.parent[i as usize] = NONE;
                orphan[i as usize] = true;
                tree.descend(i, &first, &children);
            }
        }
        tree.orphan = orphan;
        tree
    }

    fn descend(&mut self, top: u32, first: &[u32], children: &[u32]) {
        let mut stack = vec![(top, 0)];
        while let Some((i, depth)) = stack.pop() {
            if self.depth[i as usize] != NONE {
                continue;
            }
            self.depth[i as usize] = depth;
            self.order.push(i);
            let range = first[i as usize] as usize..first[i as usize + 1] as usize;
            stack.extend(children[range].iter().rev().map(|&child| (child, depth + 1)));
        }
    }

    /// The parent that is here, if any.
    pub fn parent(&self, i: u32) -> Option<u32> {
        Some(self.parent[i as usize]).filter(|&p| p != NONE)
    }

    /// The span without a parent; `None` when it is missing.
    pub fn root(&self) -> Option<u32> {
        Some(self.root).filter(|&root| root != NONE)
    }

    /// The number of levels.
    pub fn levels(&self) -> u32 {
        self.depth.iter().max().map_or(0, |depth| depth + 1)
    }

    /// How many spans name a parent that is not here.
    pub fn orphans(&self) -> usize {
        self.orphan.iter().filter(|&&orphan| orphan).count()
    }
}

/// Who is whose parent. Zipkin-style tracers give a call's client and server span one id: there the server span
/// becomes the client's child, and takes the children that name the shared id.
fn parents(spans: &[SpanRecord], sorted: &[u32]) -> Vec<u32> {
    let mut by_id: HashMap<SpanId, u32> = HashMap::with_capacity(spans.len());
    let mut shared: Vec<(u32, u32)> = Vec::new();
    for &i in sorted {
        let span = &spans[i as usize];
        match by_id.entry(span.span_id) {
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(i);
            }
            std::collections::hash_map::Entry::Occupied(mut slot) => {
                let other = *slot.get();
                match (spans[other as usize].kind, span.kind) {
                    (CLIENT, SERVER) => {
                        shared.push((i, other));
                        slot.insert(i);
                    }
                    (SERVER, CLIENT) => shared.push((other, i)),
                    _ => {}
                }
            }
        }
    }
    let mut parent = vec![NONE; spans.len()];
    for (i, span) in spans.iter().enumerate() {
        if let Some(&found) = span.parent_span_id.and_then(|id| by_id.get(&id))
            && found != i as u32
        {
            parent[i] = found;
        }
    }
    for (server, client) in shared {
        parent[server as usize] = client;
    }
    parent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::span;

    /// Each span is `(id, parent, start)`; the expectation is one `depth:id` per span in tree order, `!` for orphans.
    fn check(spans: &[(u8, u8, u64)], expect: &str) {
        let records: Vec<SpanRecord> = spans
            .iter()
            .map(|&(id, parent, start)| span(id, parent, start, start + 10))
            .collect();
        let tree = Tree::build(&records);
        let shown: Vec<String> = tree
            .order
            .iter()
            .map(|&i| {
                let orphan = if tree.orphan[i as usize] { "!" } else { "" };
                format!("{}:{}{orphan}", tree.depth[i as usize], spans[i as usize].0)
            })
            .collect();
        assert_eq!(shown.join(" "), expect);
    }

    #[test]
    fn siblings_come_by_start_and_children_before_the_next_sibling() {
        check(&[(3, 1, 30), (4, 2, 25), (2, 1, 20), (1, 0, 10)], "0:1 1:2 2:4 1:3");
    }

    #[test]
    fn orphans_come_after_the_root_even_when_their_clock_is_ahead() {
        check(&[(1, 0, 10), (5, 9, 1), (6, 5, 2)], "0:1 0:5! 1:6");
    }

    #[test]
    fn a_cycle_is_cut_at_its_earliest_span() {
        check(&[(1, 0, 1), (2, 3, 20), (3, 2, 30), (4, 3, 40)], "0:1 0:2! 1:3 2:4");
    }

    #[test]
    fn a_span_that_is_its_own_parent_is_an_orphan() {
        check(&[(1, 1, 5)], "0:1!");
    }

    #[test]
    fn nothing_is_a_tree_too() {
        let tree = Tree::build(&[]);
        assert_eq!((tree.order.len(), tree.levels(), tree.root()), (0, 0, None));
    }

    #[test]
    fn a_shared_id_puts_the_server_below_the_client() {
        let mut client = span(2, 1, 20, 40);
        client.kind = CLIENT;
        let mut server = span(2, 1, 25, 35);
        server.kind = SERVER;
        let spans = [span(1, 0, 10, 50), server, client, span(3, 2, 28, 30)];
        let tree = Tree::build(&spans);
        assert_eq!(tree.order, [0, 2, 1, 3]);
        assert_eq!(tree.depth, [0, 2, 1, 3]);
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_spans_needs_no_stack() {
        let spans: Vec<SpanRecord> = (0..100_000u64)
            .map(|i| {
                let mut record = span(1, 0, i, i + 1);
                record.span_id = SpanId((i + 1).to_be_bytes());
                record.parent_span_id = (i > 0).then(|| SpanId(i.to_be_bytes()));
                record
            })
            .collect();
        assert_eq!(Tree::build(&spans).levels(), 100_000);
    }
}
