//! Zero-allocation readers of canonical payloads. A view parses the scalars of one message in one pass and remembers
//! where its lists lie; the lists are walked when asked for. On bytes that are not canonical a view never panics, but
//! what it reads is unspecified.

pub mod list;
pub mod logs;
pub mod metrics;
pub mod resource;
pub mod traces;
pub mod value;

pub use list::{List, View};
pub use resource::{Resource, Scope};
pub use value::{AnyValue, Array, Attributes, KeyValue};

/// Text of a canonical payload. Behind the door it is UTF-8; of anything else, what is.
#[inline(always)]
fn text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}
