//! Why: what passes through is joined without being copied. Requests that follow each other are one request, so a joined payload is the list of its parts
//! until somebody wants to read it; an exporter that sends the parts' own compressed bytes never does.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

/// The bytes of an encoded request. Cloning copies none of them.
#[derive(Clone)]
pub struct Payload(Form);

#[derive(Clone)]
enum Form {
    Whole(Bytes),
    Parts(Arc<Parts>),
}

struct Parts {
    parts: Vec<Bytes>,
    len: usize,
    /// In one piece, once it was asked for.
    whole: OnceLock<Bytes>,
}

impl Payload {
    /// One after the other, which costs nothing until it is read.
    pub fn joined<'a>(payloads: impl IntoIterator<Item = &'a Payload>) -> Payload {
        let parts: Vec<Bytes> = payloads.into_iter().map(Payload::bytes).collect();
        Payload(Form::Parts(Arc::new(Parts {
            len: parts.iter().map(Bytes::len).sum(),
            parts,
            whole: OnceLock::new(),
        })))
    }

    /// In bytes. Unlike reading, asking joins nothing.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Whole(bytes) => bytes.len(),
            Form::Parts(parts) => parts.len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In one piece.
    pub fn bytes(&self) -> Bytes {
        self.whole().clone()
    }

    fn whole(&self) -> &Bytes {
        match &self.0 {
            Form::Whole(bytes) => bytes,
            Form::Parts(parts) => parts.whole.get_or_init(|| parts.parts.concat().into()),
        }
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.whole()
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Payload {
        Payload(Form::Whole(bytes))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Payload {
        Bytes::from(bytes).into()
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Payload) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Payload {}

impl PartialEq<Bytes> for Payload {
    fn eq(&self, other: &Bytes) -> bool {
        self[..] == other[..]
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_payloads_are_one_after_the_other_and_are_put_together_once() {
        let [one, two] = ["one", " two"].map(|text| Payload::from(Bytes::from(text)));
        let joined = Payload::joined([&one, &Payload::joined([]), &two]);
        let clone = joined.clone();
        assert_eq!(joined.len(), 7);
        assert_eq!(&joined[..], b"one two");
        assert_eq!(clone.as_ptr(), joined.as_ptr());
        assert!(clone == Bytes::from("one two") && clone != one);
        assert_eq!(one.bytes().as_ptr(), one.as_ptr());
    }
}
