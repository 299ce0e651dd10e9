//! Edits of encoded batches. Nothing is decoded: protobuf lets requests be concatenated, and everything else is a list
//! of splices, applied in one copy. An edit that changes nothing returns the batch as it was, wire form included; one
//! that changes only the beginning keeps the rest of a gzip wire form.

pub mod attributes;
pub mod divide;
pub mod inner;
mod layout;
pub mod message;
pub mod scrub;
pub mod select;
pub mod shift;
mod splice;
pub mod split;
pub mod visit;

pub use attributes::{Changes, Level, Owner, edit_attributes, put_value};
pub use divide::divide;
pub use select::select;
pub use shift::{latest, shift};
pub use split::split;
pub use visit::{Fate, Visit, visit};

use crate::batch::{Batch, Compression, Wire};
use crate::gzip;
use crate::payload::Payload;

/// Joins batches of one signal and encoding into one, which takes its `meta` from the first. `None` if there are no
/// batches or their signals differ. A single batch comes back as it is.
pub fn concat(batches: &[Batch]) -> Option<Batch> {
    let (first, rest) = batches.split_first()?;
    if rest.is_empty() {
        return Some(first.clone());
    }
    if rest
        .iter()
        .any(|batch| (batch.signal, batch.encoding) != (first.signal, first.encoding))
    {
        return None;
    }
    let items = batches
        .iter()
        .fold(0u32, |items, batch| items.saturating_add(batch.items));
    Some(first.edited(Payload::joined(batches.iter().map(|batch| &batch.payload)), items))
}

/// The wire form of batches that were joined, without compressing or inflating; `None` if not all of them have gzip's.
pub fn concat_wires(batches: &[Batch]) -> Option<Wire> {
    let members: Option<Vec<&[u8]>> = batches
        .iter()
        .map(|batch| match &batch.wire {
            Some(Wire {
                compression: Compression::Gzip,
                bytes,
            }) => Some(&bytes[..]),
            _ => None,
        })
        .collect();
    Some(Wire {
        compression: Compression::Gzip,
        bytes: gzip::join(&members?)?.into(),
    })
}
