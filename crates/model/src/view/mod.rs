//! Zero-allocation readers of canonical payloads. A view parses the scalars of one message in one pass and remembers
//! where its lists lie; the lists are walked when asked for. On bytes that are not canonical a view never panics, but
//! what it reads is unspecified.

mod ascii;
pub mod group;
pub mod list;
pub mod logs;
pub mod metrics;
pub mod resource;
pub mod traces;
pub mod value;

pub(crate) use ascii::is_ascii;
pub(crate) use ascii::text;
pub use group::{ResourceGroup, ScopeGroup};
pub use list::{List, View};
pub use resource::{Resource, Scope};
pub use value::{AnyValue, Array, Attributes, KeyValue};
