//! Why: with `include_metadata` a request's headers go with its batch: those that a pipeline behind the receiver names, and no others (see
//! `pipeline::metadata`). Whoever tells tenants apart by a header must not have it cut off, so what is over a bound is refused.

use std::sync::Arc;

use http::{HeaderMap, Uri, header};
use model::{Headers, Signal};

use crate::admit::Core;
use crate::answer::{Kind, Refusal};

/// Headers of one request that are kept; a name may come several times.
const MAX_HEADERS: usize = 64;

/// Bytes of their values together. The record in the journal carries them, and a reader holds them for each value that waits.
const MAX_HEADER_BYTES: usize = 8 << 10;

/// What is kept of a request's headers; nothing without `include_metadata`.
pub(crate) fn kept(
    core: &Core,
    include_metadata: bool,
    signal: Signal,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Headers, Refusal> {
    let mut kept = Headers::new();
    if !include_metadata {
        return Ok(kept);
    }
    let mut bytes = 0;
    for key in core.intake.metadata_keys(signal) {
        let mut keep = |value: &[u8]| {
            bytes += value.len();
            if kept.len() == MAX_HEADERS || bytes > MAX_HEADER_BYTES {
                let message = format!(
                    "the headers that the configuration keeps are more than {MAX_HEADERS}, or longer than {MAX_HEADER_BYTES} bytes together"
                );
                return Err(Refusal::new(Kind::Metadata, message));
            }
            let text = std::str::from_utf8(value)
                .map_err(|_| Refusal::new(Kind::Malformed, format!("the header {key} is not UTF-8")))?;
            kept.push((Arc::clone(key), text.into()));
            Ok(())
        };
        for value in headers.get_all(&**key) {
            keep(value.as_bytes())?;
        }
        // HTTP/2 has it elsewhere.
        if **key == *header::HOST.as_str()
            && !headers.contains_key(header::HOST)
            && let Some(authority) = uri.authority()
        {
            keep(authority.as_str().as_bytes())?;
        }
    }
    Ok(kept)
}
