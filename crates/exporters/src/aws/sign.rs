//! Why: a request to AWS carries a signature over itself, made with a key that never leaves this machine. AWS's own crates for it would bring a dozen
//! others along for the page that this is; it is held against AWS's published vectors and against botocore instead.
//!
//! Only what we send is covered: the path `/` and no query.
//!
//! Source: AWS Signature Version 4, "Create a signed AWS API request".

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use model::instant::date_of;
use sha2::{Digest, Sha256};

use super::credentials::Credentials;

/// Where a signature is valid.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub region: &'a str,
    pub service: &'a str,
}

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    pub method: &'a str,
    /// Every header that is part of the signature: `host`, `x-amz-date` and, where there is one, `x-amz-security-token` must be among them.
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

/// The `Authorization` header of a request that is sent at `at_seconds` since 1970.
pub fn authorization(request: &Signed<'_>, scope: Scope<'_>, credentials: &Credentials, at_seconds: u64) -> String {
    let stamp = stamp(at_seconds);
    let day = &stamp[..8];
    let (headers, names) = canonical_headers(request.headers);
    let canonical = format!(
        "{}\n/\n\n{headers}\n{names}\n{}",
        request.method,
        hex(&Sha256::digest(request.body))
    );
    let within = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{stamp}\n{within}\n{}",
        hex(&Sha256::digest(canonical.as_bytes()))
    );
    let secret = format!("AWS4{}", credentials.secret_access_key.reveal());
    let key = [day, scope.region, scope.service, "aws4_request"]
        .iter()
        .fold(secret.into_bytes(), |key, part| keyed(&key, part.as_bytes()));
    format!(
        "AWS4-HMAC-SHA256 Credential={}/{within}, SignedHeaders={names}, Signature={}",
        credentials.access_key_id,
        hex(&keyed(&key, to_sign.as_bytes()))
    )
}

/// Headers by name, one a line, and their names; several of one name become one with commas, and spaces inside a value one space.
fn canonical_headers(headers: &[(&str, &str)]) -> (String, String) {
    let mut sorted: Vec<(String, String)> = headers
        .iter()
        .map(|(name, value)| {
            let words: Vec<&str> = value.split_whitespace().collect();
            (name.to_ascii_lowercase(), words.join(" "))
        })
        .collect();
    // Stable: values of one name keep their order.
    sorted.sort_by(|one, other| one.0.cmp(&other.0));
    let (mut lines, mut names) = (String::new(), String::new());
    let mut last = "";
    for (name, value) in &sorted {
        if name == last {
            lines.pop();
            lines.push(',');
        } else {
            if !names.is_empty() {
                names.push(';');
            }
            names.push_str(name);
            lines.push_str(name);
            lines.push(':');
        }
        lines.push_str(value);
        lines.push('\n');
        last = name;
    }
    (lines, names)
}

fn keyed(key: &[u8], data: &[u8]) -> Vec<u8> {
    // A key of any length will do, says the type as well as RFC 2104.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return Vec::new();
    };
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
}

/// A time as `x-amz-date` has it: `20150830T123600Z`.
pub fn stamp(at_seconds: u64) -> String {
    let (days, of_day) = (at_seconds / 86_400, at_seconds % 86_400);
    let (year, month, day) = date_of(days as i64);
    format!(
        "{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::credentials::Secret;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Vector {
        name: String,
        method: String,
        headers: Vec<(String, String)>,
        body: String,
        authorization: String,
    }

    fn example() -> Credentials {
        Credentials {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session_token: None,
            expires_at_seconds: None,
            source: "a test",
        }
    }

    /// The suite that AWS publishes with its clients, as far as it has the path `/` and no query.
    #[test]
    fn vectors_of_aws() {
        let vectors: Vec<Vector> =
            serde_json::from_str(include_str!("../../tests/fixtures/sigv4.json")).expect("vectors");
        assert!(vectors.len() > 10);
        for vector in vectors {
            let headers: Vec<(&str, &str)> = vector
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let request = Signed {
                method: &vector.method,
                headers: &headers,
                body: vector.body.as_bytes(),
            };
            let scope = Scope {
                region: "us-east-1",
                service: "service",
            };
            // 2015-08-30T12:36:00Z
            let got = authorization(&request, scope, &example(), 1_440_938_160);
            assert_eq!(got, vector.authorization, "{}", vector.name);
        }
    }

    #[test]
    fn stamps() {
        assert_eq!(stamp(0), "19700101T000000Z");
        assert_eq!(stamp(1_440_938_160), "20150830T123600Z");
        assert_eq!(stamp(951_782_399), "20000228T235959Z");
        assert_eq!(stamp(951_782_400), "20000229T000000Z");
        assert_eq!(stamp(4_107_542_399), "21000228T235959Z");
        assert_eq!(stamp(4_107_542_400), "21000301T000000Z");
    }
}
