//! Why: keys that the doors of all receivers have are read, and refused, in one way.

use std::num::NonZeroU32;

use net::Endpoint;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Largest request, compressed and inflated, in MiB. The collector's HTTP default is 20 and its gRPC default 4; a batch that is
/// too large is lost, so the bound is generous and the memory budget is what protects us.
pub const DEFAULT_MAX_REQUEST_MIB: u64 = 64;

/// `grpc:` with nothing behind it is an explicit null, which means "with its defaults", unlike a key that is not there.
pub(crate) fn named<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Some(Option::<T>::deserialize(deserializer)?.unwrap_or_default()))
}

// What is wrong with a value is said while it is read, because then it has a line and a column.

pub(crate) fn parsed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Endpoint, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

pub(crate) fn tcp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("tcp" | "tcp4" | "tcp6") => Ok(()),
        Some(other) => Err(D::Error::custom(format!("`{other}` is not possible; only tcp is"))),
    }
}

/// A limit above this many bytes does not fit gRPC's length field.
const MAX_REQUEST_BYTES: u64 = u32::MAX as u64;

pub(crate) fn mebibytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        mebibytes if (1..=MAX_REQUEST_BYTES >> 20).contains(&mebibytes) => Ok(mebibytes),
        _ => Err(D::Error::custom("must be from 1 to 4095 MiB")),
    }
}

pub(crate) fn at_least_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU32>, D::Error> {
    match Option::<u32>::deserialize(deserializer)?.map(NonZeroU32::new) {
        None => Ok(None),
        Some(None) => Err(D::Error::custom("must be at least 1")),
        Some(number) => Ok(number),
    }
}

pub(crate) fn body_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        bytes if (1..=MAX_REQUEST_BYTES).contains(&bytes) => Ok(bytes),
        _ => Err(D::Error::custom("must be from 1 to 4294967295 bytes")),
    }
}

pub(crate) fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let path = String::deserialize(deserializer)?;
    if path.is_empty() || path.contains(['?', '#', ' ']) {
        return Err(D::Error::custom(format!(
            "`{path}` is not a path; write it like /v1/traces"
        )));
    }
    Ok(format!("/{}", path.trim_start_matches('/')))
}
