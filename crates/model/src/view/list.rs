//! Repeated fields, walked in place.

use std::marker::PhantomData;

use crate::wire::{self, Fields};

/// A message that can be read from its bytes.
pub trait View<'a> {
    fn read(message: &'a [u8]) -> Self;
}

/// A repeated message field: the stretch of its parent from the first element to the last, so that walking it does not
/// walk the rest of the parent again.
pub struct List<'a, T> {
    stretch: &'a [u8],
    number: u32,
    element: PhantomData<fn() -> T>,
}

impl<'a, T: View<'a>> List<'a, T> {
    /// The elements with this field number in `stretch`, which starts and ends between fields, such as a whole message.
    pub fn new(stretch: &'a [u8], number: u32) -> Self {
        List {
            stretch,
            number,
            element: PhantomData,
        }
    }

    pub fn iter(&self) -> Iter<'a, T> {
        Iter {
            fields: Fields::new(self.stretch),
            number: self.number,
            element: PhantomData,
        }
    }

    /// Whether there are no elements; does not walk.
    pub fn is_empty(&self) -> bool {
        self.stretch.is_empty()
    }

    /// The number of elements; walks over them without reading them.
    pub fn count(&self) -> usize {
        Fields::new(self.stretch)
            .filter(|(number, _)| *number == self.number)
            .count()
    }

    /// The encoded fields of the whole list.
    pub fn stretch(&self) -> &'a [u8] {
        self.stretch
    }

    /// The number of the field that holds an element.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The bytes of each element.
    pub fn raw(&self) -> impl Iterator<Item = &'a [u8]> + use<'a, T> {
        let number = self.number;
        Fields::new(self.stretch)
            .filter(move |(n, _)| *n == number)
            .map(|(_, payload)| payload.bytes())
    }
}

pub struct Iter<'a, T> {
    fields: Fields<'a>,
    number: u32,
    element: PhantomData<fn() -> T>,
}

impl<'a, T: View<'a>> Iterator for Iter<'a, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        // A list is nearly always unbroken, so that the next field is the next element.
        if let Some(element) = self.fields.next_if(self.number) {
            return Some(T::read(element));
        }
        loop {
            let (number, payload) = self.fields.next()?;
            if number == self.number {
                return Some(T::read(payload.bytes()));
            }
        }
    }
}

impl<'a, T: View<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<'a, T: View<'a>> IntoIterator for &List<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> Clone for List<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for List<'_, T> {}

impl<T> Clone for Iter<'_, T> {
    fn clone(&self) -> Self {
        Iter { ..*self }
    }
}

impl<'a, T: View<'a> + std::fmt::Debug> std::fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Where a list lies in its parent, while the parent is parsed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stretch {
    start: usize,
    end: usize,
}

impl Stretch {
    /// Notes an element: what was left to parse before it, and after it.
    #[inline(always)]
    pub(crate) fn note(&mut self, parent: &[u8], before: &[u8], after: &[u8]) {
        if self.end == 0 {
            self.start = parent.len() - before.len();
        }
        self.end = parent.len() - after.len();
    }

    #[inline(always)]
    pub(crate) fn of<'a>(&self, parent: &'a [u8]) -> &'a [u8] {
        &parent[self.start..self.end]
    }
}

/// Walks the fields of a message and tells what is left before and after each: `(number, value, before, after)`. A run of
/// fields with one tag is told as its first, since in canonical form only lists have more than one element.
#[inline(always)]
pub(crate) fn each_field<'a>(message: &'a [u8], mut visit: impl FnMut(u32, wire::Payload<'a>, &'a [u8], &'a [u8])) {
    let mut fields = Fields::new(message);
    loop {
        let before = fields.rest();
        let Some((number, payload)) = fields.next() else { break };
        if matches!(payload, wire::Payload::Bytes(_)) {
            fields.skip_run(before);
        }
        visit(number, payload, before, fields.rest());
    }
}

/// A packed list of 64-bit numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Packed<'a> {
    bytes: &'a [u8],
}

impl<'a> Packed<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Packed { bytes }
    }

    pub fn len(&self) -> usize {
        self.bytes.len() / 8
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As unsigned integers.
    pub fn integers(&self) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        self.bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// As doubles.
    pub fn doubles(&self) -> impl ExactSizeIterator<Item = f64> + use<'a> {
        self.bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| f64::from_le_bytes(*bytes))
    }
}

/// A packed list of varints.
#[derive(Debug, Clone, Copy, Default)]
pub struct PackedVarints<'a> {
    bytes: &'a [u8],
}

impl<'a> PackedVarints<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        PackedVarints { bytes }
    }

    pub fn iter(&self) -> impl Iterator<Item = u64> + use<'a> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || wire::varint(&mut rest))
    }
}
