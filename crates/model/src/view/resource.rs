//! What telemetry comes from: the resource and the instrumentation scope, the same in all three signals.

use std::sync::Arc;

use super::list::{List, Stretch, View, each_field};
use super::text;
use super::value::Attributes;
use crate::record;

#[derive(Debug, Clone, Copy)]
pub struct Resource<'a> {
    pub attributes: Attributes<'a>,
    pub dropped_attributes_count: u32,
    /// The encoded message: equal bytes are equal resources.
    pub raw: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub name: &'a str,
    pub version: &'a str,
    pub attributes: Attributes<'a>,
    pub dropped_attributes_count: u32,
    /// The encoded message: equal bytes are equal scopes.
    pub raw: &'a [u8],
}

impl<'a> View<'a> for Resource<'a> {
    fn read(raw: &'a [u8]) -> Self {
        let mut attributes = Stretch::default();
        let mut dropped_attributes_count = 0;
        each_field(raw, |number, payload, before, after| match number {
            1 => attributes.note(raw, before, after),
            2 => dropped_attributes_count = payload.varint() as u32,
            _ => {}
        });
        Resource {
            attributes: List::new(attributes.of(raw), 1),
            dropped_attributes_count,
            raw,
        }
    }
}

impl<'a> Resource<'a> {
    /// `service.name`, if it is given as text.
    pub fn service_name(&self) -> Option<&'a str> {
        self.attributes.get_str("service.name")
    }
}

impl<'a> View<'a> for Scope<'a> {
    fn read(raw: &'a [u8]) -> Self {
        let mut attributes = Stretch::default();
        let mut scope = Scope {
            name: "",
            version: "",
            attributes: List::new(&[], 3),
            dropped_attributes_count: 0,
            raw,
        };
        each_field(raw, |number, payload, before, after| match number {
            1 => scope.name = text(payload.bytes()),
            2 => scope.version = text(payload.bytes()),
            3 => attributes.note(raw, before, after),
            4 => scope.dropped_attributes_count = payload.varint() as u32,
            _ => {}
        });
        scope.attributes = List::new(attributes.of(raw), 3);
        scope
    }
}

impl Scope<'_> {
    /// Copies the scope; `schema_url` belongs to what surrounds it.
    pub fn to_owned(&self, schema_url: &str) -> Arc<record::Scope> {
        Arc::new(record::Scope {
            name: self.name.to_owned(),
            version: self.version.to_owned(),
            attributes: self.attributes.to_owned(),
            dropped_attributes_count: self.dropped_attributes_count,
            schema_url: schema_url.to_owned(),
        })
    }
}
