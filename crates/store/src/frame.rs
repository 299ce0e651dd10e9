//! Dense columns: one value or none per row, in order. What a flush and a merge hand to the part writer, and what a part reader returns.

use std::sync::Arc;

use crate::column::Spec;
use crate::texts::Texts;

/// Values of one column for a stretch of rows.
#[derive(Clone, Debug)]
pub enum Data {
    /// Code 0 is absent, code `c` is `texts[c - 1]`. `plain` says that most values are unique, so that looking for equal ones is wasted.
    Text {
        codes: Vec<u32>,
        texts: Arc<Texts>,
        plain: bool,
    },
    /// Integers, doubles (as bits) and booleans (0 and 1). Absent rows hold 0. `None` is "all present".
    Words {
        values: Vec<u64>,
        present: Option<Vec<bool>>,
    },
    /// Ids one after another. Absent rows hold zeros.
    Ids {
        width: usize,
        bytes: Vec<u8>,
        present: Option<Vec<bool>>,
    },
}

impl Data {
    pub fn rows(&self) -> usize {
        match self {
            Data::Text { codes, .. } => codes.len(),
            Data::Words { values, .. } => values.len(),
            Data::Ids { width, bytes, .. } => bytes.len() / width,
        }
    }

    #[inline]
    pub fn is_present(&self, row: usize) -> bool {
        match self {
            Data::Text { codes, .. } => codes[row] != 0,
            Data::Words { present, .. } | Data::Ids { present, .. } => present.as_ref().is_none_or(|p| p[row]),
        }
    }

    #[inline]
    pub fn text(&self, row: usize) -> Option<&str> {
        match self {
            Data::Text { codes, texts, .. } if codes[row] != 0 => Some(texts.get(codes[row] as usize - 1)),
            _ => None,
        }
    }

    #[inline]
    pub fn word(&self, row: usize) -> Option<u64> {
        match self {
            Data::Words { values, .. } if self.is_present(row) => Some(values[row]),
            _ => None,
        }
    }

    #[inline]
    pub fn id(&self, row: usize) -> Option<&[u8]> {
        match self {
            Data::Ids { width, bytes, .. } if self.is_present(row) => Some(&bytes[row * width..(row + 1) * width]),
            _ => None,
        }
    }

    /// The rows at `picks`, in that order.
    pub fn pick(&self, picks: &[u32]) -> Data {
        fn flags(present: Option<&Vec<bool>>, picks: &[u32]) -> Option<Vec<bool>> {
            present.map(|p| picks.iter().map(|&i| p[i as usize]).collect())
        }
        match self {
            Data::Text { codes, texts, plain } => Data::Text {
                codes: picks.iter().map(|&i| codes[i as usize]).collect(),
                texts: Arc::clone(texts),
                plain: *plain,
            },
            Data::Words { values, present } => Data::Words {
                values: picks.iter().map(|&i| values[i as usize]).collect(),
                present: flags(present.as_ref(), picks),
            },
            Data::Ids { width, bytes, present } => {
                let mut picked = Vec::with_capacity(picks.len() * width);
                for &i in picks {
                    picked.extend_from_slice(&bytes[i as usize * width..(i as usize + 1) * width]);
                }
                Data::Ids {
                    width: *width,
                    bytes: picked,
                    present: flags(present.as_ref(), picks),
                }
            }
        }
    }
}

/// A column and its values.
#[derive(Clone, Debug)]
pub struct Column {
    pub spec: Spec,
    pub data: Data,
}

/// Rows of one block: the columns that were asked for and that the block has.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    pub rows: usize,
    pub columns: Vec<Column>,
}

impl Frame {
    pub fn column(&self, name: &str) -> Option<&Data> {
        self.columns.iter().find(|c| &*c.spec.name == name).map(|c| &c.data)
    }
}
