//! What a request says about a person is not passed on whole.

use std::net::IpAddr;

/// The network that an address is in: the first three bytes of an IPv4 address, the first three groups of an IPv6 one.
pub(crate) fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0")
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}::")
        }
    }
}

/// A URL without user and password, and with the values of parameters that carry secrets replaced.
pub(crate) fn url(url: &reqwest::Url) -> String {
    let mut url = url.clone();
    // Fails only for URLs that cannot have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    let hidden = |name: &str| {
        let name = name.to_ascii_lowercase();
        SECRET_PARAMETERS.iter().any(|secret| name.contains(secret))
    };
    if url.query_pairs().any(|(name, _)| hidden(&name)) {
        let kept: Vec<(String, String)> = url
            .query_pairs()
            .map(|(name, value)| {
                let value = if hidden(&name) { "REDACTED".into() } else { value };
                (name.into_owned(), value.into_owned())
            })
            .collect();
        url.query_pairs_mut().clear().extend_pairs(kept);
    }
    url.into()
}

/// Parts of parameter names that mark a secret.
const SECRET_PARAMETERS: [&str; 8] = [
    "key",
    "token",
    "secret",
    "password",
    "passwd",
    "signature",
    "sig",
    "credential",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_masked() {
        for (address, expect) in [
            ("203.0.113.77", "203.0.113.0"),
            ("::ffff:203.0.113.77", "203.0.113.0"),
            ("2001:db8:1234:5678::1", "2001:db8:1234::"),
            ("::1", "0:0:0::"),
        ] {
            assert_eq!(network(address.parse().expect("an address")), expect);
        }
    }

    #[test]
    fn urls_lose_their_secrets() {
        for (given, expect) in [
            ("http://h/p?a=1#f", "http://h/p?a=1"),
            ("http://user:pw@h:8/p", "http://h:8/p"),
            ("http://h/?api_key=x&a=1", "http://h/?api_key=REDACTED&a=1"),
            ("http://h/?X-Amz-Signature=abc", "http://h/?X-Amz-Signature=REDACTED"),
        ] {
            assert_eq!(url(&given.parse().expect("a URL")), expect);
        }
    }
}
