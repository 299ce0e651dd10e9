//! Why: the settings that every exporter to a backend has, in one place and with the collector's names. An exporter declares what is its own as a struct
//! that refuses unknown keys; [`Sender`] reads both from one map, so that a mistake is still told at its line with the nearest right name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use net::ClientTls;
use net::auth::Auth;
use net::dial::headers;
use pipeline::config::{Problems, Section};
use pipeline::sending::{OnFull, Queue, Retry, Sending};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use crate::authenticator;
use crate::request::Packing;

/// What one exporter has beyond the shared settings.
pub trait Own: DeserializeOwned {
    /// `timeout` where none is set.
    const TIMEOUT: Duration;
}

/// All settings of an exporter to a backend.
#[derive(Debug, Clone)]
pub struct Sender<O> {
    pub own: O,
    pub shared: Shared,
}

/// What all of them have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shared {
    /// Default: TLS with the system's certificates, where the endpoint is secure.
    pub tls: Option<ClientTls>,
    /// Sent along with each request. Default: none.
    pub headers: Headers,
    /// Who we are, in the words of an extension: it sets a header with each request. Default: nobody. AWS has credentials of its own.
    pub auth: Option<Auth>,
    /// `gzip` (default), `zstd` or `none`.
    pub compression: Packing,
    /// For one attempt. Default 30s, and 5s for `otlp`.
    pub timeout: Option<Duration>,
    /// What happens when the backend refuses for now or is not reached.
    pub retry_on_failure: Retry,
    /// The queue is the journal; these are its bounds for this exporter.
    pub sending_queue: Queue,
    /// At the journal's bound: `skip_oldest` (default) or `refuse`.
    pub on_full: OnFull,
    /// A directory for requests that the backend refuses for good, or that are given up. Default: none; they are dropped and counted.
    pub dead_letter: Option<PathBuf>,
}

/// Headers by name.
pub type Headers = BTreeMap<String, String>;

impl<O: Own> Sender<O> {
    /// Reads the settings and checks what is shared; what is the exporter's own is its own to check.
    pub fn parse(section: &Section<'_>) -> Result<Sender<O>, Problems> {
        let mut sender: Sender<O> = section.parse()?;
        authenticator::look_up(section, &[], &mut sender.shared.auth)?;
        headers(&sender.shared.headers).map_err(|why| section.problem(&["headers"], why))?;
        if let Some(Err((key, why))) = sender.shared.tls.as_ref().map(ClientTls::check) {
            return Err(section.problem(&["tls", key], why));
        }
        Ok(sender)
    }

    /// How requests are sent.
    pub fn sending(&self) -> Sending {
        let shared = &self.shared;
        let timeout = shared.timeout.unwrap_or(O::TIMEOUT);
        Sending {
            on_full: shared.on_full,
            dead_letter: shared.dead_letter.clone(),
            ..Sending::new(timeout, shared.retry_on_failure.clone(), &shared.sending_queue)
        }
    }
}

/// `timeout`, as a value of its own.
#[derive(Deserialize)]
#[serde(transparent)]
struct Timeout(#[serde(deserialize_with = "pipeline::config::optional_duration")] Option<Duration>);

impl Shared {
    const KEYS: [&str; 9] = [
        "tls",
        "headers",
        "auth",
        "compression",
        "timeout",
        "retry_on_failure",
        "sending_queue",
        "on_full",
        "dead_letter",
    ];

    /// Reads the value of `key` if it is one of ours; whether it was.
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        match key {
            "tls" => self.tls = Some(map.next_value()?),
            "headers" => self.headers = map.next_value()?,
            "auth" => self.auth = map.next_value()?,
            "compression" => self.compression = map.next_value()?,
            "timeout" => self.timeout = map.next_value::<Timeout>()?.0,
            "retry_on_failure" => self.retry_on_failure = map.next_value()?,
            "sending_queue" => self.sending_queue = map.next_value()?,
            "on_full" => self.on_full = map.next_value()?,
            "dead_letter" => self.dead_letter = map.next_value()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl<'de, O: Own> Deserialize<'de> for Sender<O> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sender<O>, D::Error> {
        deserializer.deserialize_map(Both(PhantomData))
    }
}

/// Reads a map into both structs.
struct Both<O>(PhantomData<O>);

impl<'de, O: Own> Visitor<'de> for Both<O> {
    type Value = Sender<O>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Sender<O>, A::Error> {
        let mut shared = Shared::default();
        let own = O::deserialize(Rest {
            map,
            shared: &mut shared,
            own: &[],
        })?;
        Ok(Sender { own, shared })
    }
}

/// What is left of a map for the exporter's own struct, while shared settings are taken out on the way.
struct Rest<'s, A> {
    map: A,
    shared: &'s mut Shared,
    /// The names of the own struct's fields, which only serde knows.
    own: &'static [&'static str],
}

impl<'de, A: MapAccess<'de>> Deserializer<'de> for Rest<'_, A> {
    type Error = A::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.own = fields;
        visitor.visit_map(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, A::Error> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Rest<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key_seed(Known(self.own))? {
            if self.own.contains(&&*key) || !self.shared.take(&key, &mut self.map)? {
                return seed.deserialize(key.into_deserializer()).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// A key that one of the two structs knows. It is refused here, while the reader below still knows its place.
struct Known(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Known {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        let key = String::deserialize(deserializer)?;
        if self.0.contains(&key.as_str()) || Shared::KEYS.contains(&key.as_str()) {
            return Ok(Cow::Owned(key));
        }
        // Serde wants names that live for ever. It is a mistake in a configuration that is read once, and few words long.
        let all = [self.0, &Shared::KEYS].concat().leak();
        Err(D::Error::unknown_field(&key, all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::config::{Config, Source};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        address: String,
        #[serde(default)]
        depth: Option<u32>,
    }

    impl Own for Example {
        const TIMEOUT: Duration = Duration::from_secs(7);
    }

    fn read(settings: &str) -> Result<Sender<Example>, String> {
        let text = format!("exporters:\n  it: {settings}\nservice: {{ pipelines: {{ traces: {{}} }} }}\n");
        let config =
            Config::load(vec![Source::new("test.yaml", text)], &|_| None).map_err(|error| error.to_string())?;
        Sender::parse(&config.section(&config.exporters[0])).map_err(|error| error.to_string())
    }

    #[test]
    fn both_kinds_of_keys_in_any_order() {
        let sender = read(
            "{ timeout: 2s, address: x, headers: { a: b }, depth: 3, tls: { ca_file: ca.pem }, compression: zstd, on_full: refuse, \
             dead_letter: /d, retry_on_failure: { enabled: false }, sending_queue: { num_consumers: 3 } }",
        )
        .expect("right");
        assert_eq!((sender.own.address.as_str(), sender.own.depth), ("x", Some(3)));
        let shared = &sender.shared;
        assert_eq!((shared.headers["a"].as_str(), shared.compression), ("b", Packing::Zstd));
        assert_eq!(
            shared.tls.as_ref().and_then(|tls| tls.ca_file.clone()),
            Some("ca.pem".into())
        );
        let sending = sender.sending();
        assert_eq!(sending.timeout, Duration::from_secs(2));
        assert_eq!(
            (sending.on_full, sending.dead_letter),
            (OnFull::Refuse, Some("/d".into()))
        );
        assert!(!shared.retry_on_failure.enabled);
        assert_eq!(shared.sending_queue.num_consumers, 3);
    }

    #[test]
    fn what_is_not_set_has_its_default() {
        let sender = read("{ address: x }").expect("right");
        assert_eq!(sender.shared, Shared::default());
        assert_eq!(sender.sending().timeout, Duration::from_secs(7));
        let sender = read("{ address: x, tls: }").expect("right");
        assert_eq!(
            sender.shared.tls,
            Some(ClientTls::default()),
            "the key alone is no mistake"
        );
    }

    #[test]
    fn each_key_is_read() {
        for key in Shared::KEYS {
            let said = read(&format!("{{ address: x, {key}: [] }}")).expect_err("a list fits none of them");
            assert!(
                !said.contains("unknown key") && said.contains("test.yaml:2"),
                "{key}: {said}"
            );
        }
    }

    fn check(settings: &str, expect: &[&str]) {
        let said = read(settings).expect_err("wrong");
        for words in expect {
            assert!(said.contains(words), "{said}\nexpected: {words}");
        }
    }

    #[test]
    fn mistakes_are_told_at_their_place_with_the_nearest_name() {
        check(
            "{ address: x, headrs: {} }",
            &["unknown key `headrs`", "did you mean `headers`?", "test.yaml:2"],
        );
        check(
            "{ address: x, dept: 1 }",
            &["unknown key `dept`", "did you mean `depth`?"],
        );
        check("{ timeout: 2s }", &["the key `address` is missing"]);
        check("{ address: x, timeout: soon, depth: deep }", &["soon", "deep"]);
        check(
            "{ address: x, tls: { cert_file: a } }",
            &["`cert_file` needs `key_file`"],
        );
        check(
            "{ address: x, tls: { key_file: a } }",
            &["`key_file` needs `cert_file`"],
        );
        check(
            "{ address: x, headers: { 'a b': c } }",
            &["`a b` is not the name of a header"],
        );
    }
}
