//! What a scan asks for.

use std::ops::Range;

use crate::{Dataset, Filter};

/// Which columns a scan returns.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Columns {
    /// Every column that the block has.
    #[default]
    All,
    /// These: a column of the dataset (`name`, `duration_ns`), or a level and key (`resource.service.name`), which brings every typed column
    /// of that key. A column that a block lacks is absent from its batch.
    Named(Vec<String>),
}

/// A question to one dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// Spans or log records.
    pub dataset: Dataset,
    /// Rows whose time (a span's start, a record's time, or its observed time if it has none) is in this range.
    pub time: Range<u64>,
    /// Which rows.
    pub filter: Filter,
    /// Which columns.
    pub columns: Columns,
    /// Blocks in order of time, the newest first, or the oldest first. Rows inside a block are in stored order.
    pub newest_first: bool,
}
