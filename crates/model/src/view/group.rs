//! How every request is nested, whatever its signal: resources, in them scopes, in them items. The walk over these levels exists once, here; the signals
//! differ in their item.

use std::marker::PhantomData;
use std::sync::Arc;

use super::list::{List, View};
use super::resource::{Resource, Scope};
use super::text;
use crate::record;
use crate::wire::{Fields, Payload};

/// A message that has its owner first, then a list, and a schema URL anywhere: the shape of `Resource{Spans,Logs,Metrics}`
/// and of `Scope{Spans,Logs,Metrics}`.
pub struct Group<'a, Owner, Element> {
    /// The encoded message.
    pub raw: &'a [u8],
    /// The encoded owner; empty if there is none.
    owner: &'a [u8],
    /// From the first element of the list on.
    list: &'a [u8],
    holds: PhantomData<fn() -> (Owner, Element)>,
}

/// What one scope of a resource sent.
pub type ScopeGroup<'a, Item> = Group<'a, Scope<'a>, Item>;
/// What one resource sent.
pub type ResourceGroup<'a, Item> = Group<'a, Resource<'a>, ScopeGroup<'a, Item>>;

impl<'a, Owner, Element> View<'a> for Group<'a, Owner, Element> {
    /// Reads up to the first element of the list and no further.
    fn read(raw: &'a [u8]) -> Self {
        let mut fields = Fields::new(raw);
        let mut owner: &[u8] = &[];
        let list = loop {
            let before = fields.rest();
            match fields.next() {
                Some((1, Payload::Bytes(bytes))) => owner = bytes,
                Some((2, _)) => break before,
                Some(_) => {}
                None => break &[],
            }
        };
        Group {
            raw,
            owner,
            list,
            holds: PhantomData,
        }
    }
}

impl<'a, Owner: View<'a>, Element: View<'a>> Group<'a, Owner, Element> {
    /// The resource or scope that sent it.
    pub fn owner(&self) -> Owner {
        Owner::read(self.owner)
    }

    /// The scopes of a resource, or the items of a scope.
    pub fn list(&self) -> List<'a, Element> {
        List::new(self.list, 2)
    }

    /// Steps over the list to find it.
    pub fn schema_url(&self) -> &'a str {
        let url = Fields::new(self.raw).find(|(number, _)| *number == 3);
        url.map_or("", |(_, payload)| text(payload.bytes()))
    }
}

/// The resources of a request.
pub fn resources<'a, Item: View<'a>>(payload: &'a [u8]) -> List<'a, ResourceGroup<'a, Item>> {
    List::new(payload, 1)
}

/// Every item of a request.
pub fn items<'a, Item: View<'a>>(payload: &'a [u8]) -> impl Iterator<Item = Item> {
    resources(payload)
        .iter()
        .flat_map(|resource| resource.list().iter())
        .flat_map(|scope: ScopeGroup<'a, Item>| scope.list().iter())
}

/// Where an item comes from, copied once and shared between its rows.
pub struct Origin<'a> {
    pub resource: Arc<record::Attributes>,
    pub resource_schema_url: &'a str,
    pub scope: Arc<record::Scope>,
}

/// Every item of a request as an owned row.
pub(super) fn records<'a, Item: View<'a>, Row>(
    payload: &'a [u8],
    to_record: impl Fn(&Item, &Origin<'a>) -> Row,
) -> Vec<Row> {
    let mut records = Vec::new();
    for group in resources(payload) {
        let resource = Arc::new(group.owner().attributes.to_owned());
        for scope in group.list() {
            let origin = Origin {
                resource: Arc::clone(&resource),
                resource_schema_url: group.schema_url(),
                scope: scope.owner().to_owned(scope.schema_url()),
            };
            records.extend(scope.list().iter().map(|item| to_record(&item, &origin)));
        }
    }
    records
}
