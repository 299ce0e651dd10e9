//! A walk over a batch that may change everything it sees: resources, scopes, and spans, log records or metrics. All changes are applied in one copy.

use super::layout::{Element, children, elements};
use super::splice::{Reserved, Splices};
use crate::batch::{Batch, Signal};
use crate::edit::inner::Inner;
use crate::wire::put_bytes;

/// What shall become of a span, a log record or a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Keep,
    Drop,
    /// By what was written.
    Replace,
}

/// What sees a batch. `group` is the encoded message around a resource or scope (it holds the schema URL); resources and scopes that are not there are
/// empty.
pub trait Visit<'a> {
    /// How deep to go: 1 sees resources, 2 also scopes, 3 also items.
    fn depth(&self) -> u32;

    /// Whether `leave_resource` and `leave_scope` may change something.
    fn changes_owners(&self) -> bool;

    fn enter_resource(&mut self, resource: &'a [u8], group: &'a [u8]) -> Fate {
        let _ = (resource, group);
        Fate::Keep
    }

    /// After everything in it was seen: the resource as it shall be, if it changed.
    fn leave_resource(&mut self) -> Option<&[u8]> {
        None
    }

    fn enter_scope(&mut self, scope: &'a [u8], group: &'a [u8]) -> Fate {
        let _ = (scope, group);
        Fate::Keep
    }

    /// As `leave_resource`.
    fn leave_scope(&mut self) -> Option<&[u8]> {
        None
    }

    /// A span, a log record or a metric.
    fn item(&mut self, item: &'a [u8], out: &mut Vec<u8>) -> Fate {
        let _ = (item, out);
        Fate::Keep
    }
}

/// Walks a batch and makes the changes that `visitor` wants. A scope or resource that loses its last item goes with it; one that held none stays.
/// What is written must be canonical. Where nothing changes, the batch comes back as it was, wire form included.
pub fn visit<'a>(batch: &'a Batch, visitor: &mut impl Visit<'a>) -> Batch {
    let mut pass = Pass {
        splices: Splices::new(&batch.payload),
        visitor,
        recount: false,
        may_lose_points: batch.signal == Signal::Metrics,
    };
    pass.resources(&batch.payload);
    let recount = pass.recount;
    match pass.splices.apply() {
        Some(payload) => {
            let items = if recount {
                count(batch.signal, &payload)
            } else {
                batch.items
            };
            batch.edited(payload, items)
        }
        None => batch.clone(),
    }
}

/// The items of a payload, counted.
pub fn count(signal: Signal, payload: &[u8]) -> u32 {
    children(payload, &[1])
        .map(|resource| count_in_resource(signal, resource.body))
        .sum()
}

/// The items of one resource: of the encoded group around it.
pub fn count_in_resource(signal: Signal, group: &[u8]) -> u32 {
    children(group, &[2])
        .map(|scope| count_in_scope(signal, scope.body))
        .sum()
}

/// The items of one scope: of the encoded group around it.
pub fn count_in_scope(signal: Signal, group: &[u8]) -> u32 {
    let items = children(group, &[2]);
    match signal {
        Signal::Traces | Signal::Logs => items.count() as u32,
        Signal::Metrics => items.map(|metric| Inner::Points.count(metric.body)).sum(),
    }
}

struct Pass<'a, 'v, V> {
    splices: Splices<'a>,
    visitor: &'v mut V,
    /// Something was dropped, or a metric replaced, which may have lost points.
    recount: bool,
    may_lose_points: bool,
}

/// The resource or scope that leads a group: itself, and the part of the group that it takes up.
struct Owner<'a> {
    body: &'a [u8],
    whole: &'a [u8],
}

fn owner(group: &[u8]) -> Owner<'_> {
    let mut elements = elements(group).filter_map(|(_, element)| element);
    match elements.find(|element| element.number <= 2) {
        Some(element) if element.number == 1 => Owner {
            body: element.body,
            whole: element.whole,
        },
        _ => Owner {
            body: &[],
            whole: &group[..0],
        },
    }
}

impl<'a, V: Visit<'a>> Pass<'a, '_, V> {
    fn resources(&mut self, payload: &'a [u8]) {
        for group in children(payload, &[1]) {
            let open = self.splices.open(group);
            let owner = owner(group.body);
            let fate = self.visitor.enter_resource(owner.body, group.body);
            let reserved = self.reserve(&owner);
            let (mut change, mut dropped, mut left) = (0, false, false);
            if fate != Fate::Drop && self.visitor.depth() > 1 {
                for scope in children(group.body, &[2]) {
                    let (inner, emptied) = self.scope(scope);
                    change += inner;
                    dropped |= emptied;
                    left |= !emptied;
                }
            }
            if fate == Fate::Drop || (dropped && !left) {
                self.splices.undo(open);
                self.splices.cut(group.whole);
                self.recount = true;
                continue;
            }
            change += fill(&mut self.splices, reserved, &owner, self.visitor.leave_resource());
            self.splices.close(open, change);
        }
    }

    /// Returns the change in length, and whether it went with its last item.
    fn scope(&mut self, group: Element<'a>) -> (i64, bool) {
        let open = self.splices.open(group);
        let owner = owner(group.body);
        let fate = self.visitor.enter_scope(owner.body, group.body);
        let reserved = self.reserve(&owner);
        let (mut change, mut dropped, mut left) = (0, false, false);
        if fate != Fate::Drop && self.visitor.depth() > 2 {
            for item in children(group.body, &[2]) {
                let start = self.splices.mark();
                match self.visitor.item(item.body, self.splices.scratch()) {
                    Fate::Keep => left = true,
                    Fate::Drop => {
                        change += self.splices.cut(item.whole);
                        dropped = true;
                    }
                    Fate::Replace => {
                        change += self.splices.replace_marked(item, start);
                        self.recount |= self.may_lose_points;
                        left = true;
                    }
                }
            }
        }
        if fate == Fate::Drop || (dropped && !left) {
            self.splices.undo(open);
            self.recount = true;
            return (self.splices.cut(group.whole), true);
        }
        self.recount |= dropped;
        change += fill(&mut self.splices, reserved, &owner, self.visitor.leave_scope());
        (self.splices.close(open, change), false)
    }

    fn reserve(&mut self, owner: &Owner<'a>) -> Option<Reserved> {
        self.visitor.changes_owners().then(|| self.splices.reserve(owner.whole))
    }
}

fn fill(splices: &mut Splices<'_>, reserved: Option<Reserved>, owner: &Owner<'_>, changed: Option<&[u8]>) -> i64 {
    match (reserved, changed) {
        (Some(reserved), Some(changed)) => splices.fill(reserved, owner.whole, |out| put_bytes(out, 1, changed)),
        (Some(reserved), None) => {
            splices.give_up(reserved);
            0
        }
        (None, _) => 0,
    }
}
