//! Keeping some items of a batch and dropping the others.

use super::layout::{Path, children, path};
use super::splice::Splices;
use crate::batch::Batch;

/// Keeps the items that `keep` says, asked once for each by its index in the order in which views walk. A scope, metric
/// or resource that loses its last item goes with it; one that held none stays.
pub fn select(batch: &Batch, keep: impl FnMut(u32) -> bool) -> Batch {
    let mut selection = Selection {
        splices: Splices::new(&batch.payload),
        keep,
        index: 0,
        kept: 0,
    };
    selection.level(&batch.payload, path(batch.signal));
    match selection.splices.apply() {
        Some(payload) => batch.edited(payload, selection.kept),
        None => batch.clone(),
    }
}

struct Selection<'a, F> {
    splices: Splices<'a>,
    keep: F,
    index: u32,
    kept: u32,
}

impl<'a, F: FnMut(u32) -> bool> Selection<'a, F> {
    /// Returns the change in length, and whether anything was dropped and nothing is left.
    fn level(&mut self, message: &'a [u8], path: Path) -> (i64, bool) {
        let Some((numbers, inner)) = path.split_first() else {
            return (0, false);
        };
        let mut change = 0;
        let (mut left, mut dropped) = (false, false);
        for element in children(message, numbers) {
            let keep = if inner.is_empty() {
                let keep = (self.keep)(self.index);
                self.index += 1;
                self.kept += u32::from(keep);
                keep
            } else {
                let open = self.splices.open(element);
                let (inner_change, emptied) = self.level(element.body, inner);
                if emptied {
                    self.splices.undo(open);
                } else {
                    change += self.splices.close(open, inner_change);
                }
                !emptied
            };
            if keep {
                left = true;
            } else {
                dropped = true;
                change += self.splices.cut(element.whole);
            }
        }
        (change, dropped && !left)
    }
}
