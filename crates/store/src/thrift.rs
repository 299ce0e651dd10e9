//! Writes the Thrift compact protocol, as much of it as Parquet's page headers and footer need.
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>

use crate::encoding::{put_varint, zigzag};

#[derive(Clone, Copy)]
pub enum Element {
    I32 = 5,
    Binary = 8,
    Struct = 12,
}

/// Structs are opened, filled in field order and closed.
#[derive(Default)]
pub struct Thrift {
    out: Vec<u8>,
    last: i16,
    outer: Vec<i16>,
}

impl Thrift {
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    fn field(&mut self, id: i16, kind: u8) {
        let delta = id - self.last;
        if (1..=15).contains(&delta) {
            self.out.push((delta as u8) << 4 | kind);
        } else {
            self.out.push(kind);
            put_varint(&mut self.out, zigzag(i64::from(id)));
        }
        self.last = id;
    }

    pub fn bool(&mut self, id: i16, value: bool) {
        self.field(id, if value { 1 } else { 2 });
    }

    pub fn i8(&mut self, id: i16, value: i8) {
        self.field(id, 3);
        self.out.push(value as u8);
    }

    pub fn i32(&mut self, id: i16, value: i32) {
        self.field(id, 5);
        put_varint(&mut self.out, zigzag(i64::from(value)));
    }

    pub fn i64(&mut self, id: i16, value: i64) {
        self.field(id, 6);
        put_varint(&mut self.out, zigzag(value));
    }

    pub fn binary(&mut self, id: i16, value: &[u8]) {
        self.field(id, 8);
        self.binary_element(value);
    }

    pub fn list(&mut self, id: i16, element: Element, length: usize) {
        self.field(id, 9);
        if length < 15 {
            self.out.push((length as u8) << 4 | element as u8);
        } else {
            self.out.push(0xf0 | element as u8);
            put_varint(&mut self.out, length as u64);
        }
    }

    pub fn i32_element(&mut self, value: i32) {
        put_varint(&mut self.out, zigzag(i64::from(value)));
    }

    pub fn binary_element(&mut self, value: &[u8]) {
        put_varint(&mut self.out, value.len() as u64);
        self.out.extend_from_slice(value);
    }

    pub fn open(&mut self, id: i16) {
        self.field(id, 12);
        self.open_element();
    }

    /// A struct as an element of a list.
    pub fn open_element(&mut self) {
        self.outer.push(self.last);
        self.last = 0;
    }

    pub fn close(&mut self) {
        self.out.push(0);
        self.last = self.outer.pop().unwrap_or(0);
    }

    /// Ends the outermost struct.
    pub fn stop(&mut self) {
        self.out.push(0);
    }
}
