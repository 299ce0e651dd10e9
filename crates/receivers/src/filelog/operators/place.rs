//! Where in a record an operator reads and writes.

use std::borrow::Cow;
use std::collections::HashMap;

use codec::log_line::{Json, Members, Record};

/// Members up to which a key is looked for one by one; a line may have thousands.
const FEW_MEMBERS: usize = 32;

/// `body`, `attributes.x`, `attributes["x.y"]`, `resource.x`; without a key all attributes, or all of the resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub root: Root,
    pub keys: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    Body,
    Attributes,
    Resource,
}

impl Place {
    pub fn parse(text: &str) -> Result<Place, String> {
        let end = text.find(['.', '[']).unwrap_or(text.len());
        let root = match &text[..end] {
            "body" | "$body" => Root::Body,
            "attributes" => Root::Attributes,
            "resource" => Root::Resource,
            _ => {
                return Err(format!(
                    "`{text}` does not begin with `body`, `attributes` or `resource`"
                ));
            }
        };
        let wrong = || format!("`{text}` is not a field; write it like attributes.key or attributes[\"a.key\"]");
        let (mut keys, mut rest) = (Vec::new(), &text[end..]);
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                keys.push(after[..end].to_owned());
                rest = &after[end..];
            } else {
                let inner = rest.strip_prefix('[').ok_or_else(wrong)?;
                let quote = inner
                    .chars()
                    .next()
                    .filter(|quote| matches!(quote, '"' | '\''))
                    .ok_or_else(wrong)?;
                let (key, after) = inner[1..].split_once(quote).ok_or_else(wrong)?;
                keys.push(key.to_owned());
                rest = after.strip_prefix(']').ok_or_else(wrong)?;
            }
        }
        match keys.iter().any(String::is_empty) {
            true => Err(wrong()),
            false => Ok(Place { root, keys }),
        }
    }

    /// The same where one value is meant.
    pub fn of_value(text: &str) -> Result<Place, String> {
        let place = Place::parse(text)?;
        match place.is_of_all() {
            true => Err(format!("`{text}` is all of them; name one, such as {text}.key")),
            false => Ok(place),
        }
    }

    /// Whether it is all attributes, or all of the resource, which only an object can be put into.
    pub fn is_of_all(&self) -> bool {
        self.root != Root::Body && self.keys.is_empty()
    }

    /// The value there. All attributes are none: [`Place::members`].
    pub fn get<'r, 'a>(&self, record: &'r Record<'a>) -> Option<&'r Json<'a>> {
        let (mut members, keys) = match self.root {
            Root::Body if self.keys.is_empty() => return Some(&record.body),
            Root::Body => match &record.body {
                Json::Object(members) => (members, &self.keys[..]),
                _ => return None,
            },
            Root::Attributes => (&record.attributes, &self.keys[..]),
            Root::Resource => (&record.resource, &self.keys[..]),
        };
        let (last, path) = keys.split_last()?;
        for key in path {
            members = match find(members, key)? {
                Json::Object(inner) => inner,
                _ => return None,
            };
        }
        find(members, last)
    }

    /// All attributes, or all of the resource, if that is meant.
    pub fn members<'r, 'a>(&self, record: &'r Record<'a>) -> Option<&'r Members<'a>> {
        match self.root {
            Root::Attributes if self.keys.is_empty() => Some(&record.attributes),
            Root::Resource if self.keys.is_empty() => Some(&record.resource),
            _ => None,
        }
    }

    pub fn copy<'a>(&self, record: &Record<'a>) -> Option<Json<'a>> {
        match self.members(record) {
            Some(members) => Some(Json::Object(members.clone())),
            None => self.get(record).cloned(),
        }
    }

    pub fn take<'a>(&self, record: &mut Record<'a>) -> Option<Json<'a>> {
        let mut members = match self.root {
            Root::Body if self.keys.is_empty() => return Some(std::mem::replace(&mut record.body, Json::Null)),
            Root::Body => match &mut record.body {
                Json::Object(members) => members,
                _ => return None,
            },
            Root::Attributes if self.keys.is_empty() => {
                return Some(Json::Object(std::mem::take(&mut record.attributes)));
            }
            Root::Resource if self.keys.is_empty() => return Some(Json::Object(std::mem::take(&mut record.resource))),
            Root::Attributes => &mut record.attributes,
            Root::Resource => &mut record.resource,
        };
        let (last, path) = self.keys.split_last()?;
        for key in path {
            let at = members.iter().position(|(name, _)| name == key)?;
            members = match &mut members[at].1 {
                Json::Object(inner) => inner,
                _ => return None,
            };
        }
        let at = members.iter().position(|(name, _)| name == last)?;
        Some(members.remove(at).1)
    }

    /// Puts a value there; an object at a root is merged into it.
    pub fn set<'a>(&self, record: &mut Record<'a>, value: Json<'a>) {
        let mut members = match self.root {
            Root::Body if self.keys.is_empty() => {
                record.body = value;
                return;
            }
            Root::Body => {
                if !matches!(record.body, Json::Object(_)) {
                    record.body = Json::Object(Vec::new());
                }
                match &mut record.body {
                    Json::Object(members) => members,
                    _ => return,
                }
            }
            Root::Attributes => &mut record.attributes,
            Root::Resource => &mut record.resource,
        };
        let Some((last, path)) = self.keys.split_last() else {
            if let Json::Object(values) = value {
                merge(members, values);
            }
            return;
        };
        for key in path {
            let at = match members.iter().position(|(name, _)| name == key) {
                Some(at) => at,
                None => {
                    members.push((key.clone().into(), Json::Object(Vec::new())));
                    members.len() - 1
                }
            };
            if !matches!(members[at].1, Json::Object(_)) {
                members[at].1 = Json::Object(Vec::new());
            }
            members = match &mut members[at].1 {
                Json::Object(inner) => inner,
                _ => return,
            };
        }
        upsert(members, last.clone().into(), value);
    }
}

pub fn find<'r, 'a>(members: &'r Members<'a>, key: &str) -> Option<&'r Json<'a>> {
    members.iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

pub fn upsert<'a>(members: &mut Members<'a>, key: Cow<'a, str>, value: Json<'a>) {
    match members.iter_mut().find(|(name, _)| *name == key) {
        Some((_, there)) => *there = value,
        None => members.push((key, value)),
    }
}

/// Puts in each of these, in time that does not grow with the square of their number.
pub fn merge<'a>(members: &mut Members<'a>, values: Members<'a>) {
    if members.len() + values.len() <= FEW_MEMBERS {
        values.into_iter().for_each(|(key, value)| upsert(members, key, value));
        return;
    }
    let mut places = HashMap::with_capacity(members.len() + values.len());
    for (at, (key, _)) in members.iter().enumerate() {
        places.entry(key.clone()).or_insert(at);
    }
    for (key, value) in values {
        match places.get(&key) {
            Some(at) => members[*at].1 = value,
            None => {
                places.insert(key.clone(), members.len());
                members.push((key, value));
            }
        }
    }
}
