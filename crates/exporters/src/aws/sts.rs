//! Credentials that are exchanged for others: a role is assumed, or a web identity's token is shown.
//!
//! Source: AWS Security Token Service API Reference, "AssumeRole" and "AssumeRoleWithWebIdentity".

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use net::ClientTls;
use net::dial::{Answer, Target};

use super::api::{authority, host_suffix};
use super::credentials::{Credentials, Role, Secret, Surroundings, ask, seconds_of};
use super::sign::{Scope, Signed, authorization, stamp};
use crate::request::shortened;

const TIMEOUT: Duration = Duration::from_secs(10);
const VERSION: &str = "2011-06-15";
const CONTENT_TYPE: &str = "application/x-www-form-urlencoded";

/// Who we say that we are; it is in the account's trail.
const SESSION_NAME: &str = "trackline";

pub(super) async fn assume_role(
    surroundings: &Surroundings,
    tls: &ClientTls,
    region: &str,
    role: &Role,
    with: &Credentials,
) -> Result<Credentials, String> {
    let url = endpoint(surroundings, region);
    let host = authority(&Target::parse(&url)?);
    let mut form = vec![
        ("Action", "AssumeRole"),
        ("Version", VERSION),
        ("RoleArn", &role.arn),
        ("RoleSessionName", SESSION_NAME),
    ];
    if let Some(id) = &role.external_id {
        form.push(("ExternalId", id));
    }
    let body = encoded(&form);
    let now = surroundings.now_seconds();
    let date = stamp(now);
    let mut headers: Vec<(&'static str, &str)> =
        vec![("content-type", CONTENT_TYPE), ("host", &host), ("x-amz-date", &date)];
    if let Some(token) = &with.session_token {
        headers.push(("x-amz-security-token", token.reveal()));
    }
    let request = Signed {
        method: "POST",
        headers: &headers,
        body: body.as_bytes(),
    };
    let scope = Scope { region, service: "sts" };
    let authorization = authorization(&request, scope, with, now);
    headers.push(("authorization", &authorization));
    let answer = ask(Method::POST, &url, &headers, Bytes::from(body), tls, TIMEOUT).await?;
    read(&answer, "an assumed role")
}

/// The token's file, the role and the session's name come from the environment, as EKS sets them.
pub(super) async fn with_web_identity(
    surroundings: &Surroundings,
    tls: &ClientTls,
    region: &str,
    file: &str,
) -> Result<Credentials, String> {
    let role = surroundings
        .variable("AWS_ROLE_ARN")
        .ok_or("AWS_WEB_IDENTITY_TOKEN_FILE is set, AWS_ROLE_ARN is not")?;
    let name = surroundings.variable("AWS_ROLE_SESSION_NAME");
    let token = std::fs::read_to_string(file).map_err(|error| format!("{file} cannot be read: {error}"))?;
    let body = encoded(&[
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", VERSION),
        ("RoleArn", &role),
        ("RoleSessionName", name.as_deref().unwrap_or(SESSION_NAME)),
        ("WebIdentityToken", token.trim()),
    ]);
    let url = endpoint(surroundings, region);
    let headers = [("content-type", CONTENT_TYPE)];
    let answer = ask(Method::POST, &url, &headers, Bytes::from(body), tls, TIMEOUT).await?;
    read(&answer, "a web identity")
}

/// With its slash: HTTP has no empty path.
fn endpoint(surroundings: &Surroundings, region: &str) -> String {
    let named = surroundings.variable("AWS_ENDPOINT_URL_STS");
    let url = named.unwrap_or_else(|| format!("https://sts.{region}.{}", host_suffix(region)));
    format!("{}/", url.trim_end_matches('/'))
}

fn encoded(form: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in form {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    out
}

/// The answer is XML with a few elements of plain text.
fn read(answer: &Answer, source: &'static str) -> Result<Credentials, String> {
    let text = String::from_utf8_lossy(&answer.body);
    if !answer.status.is_success() {
        let code = element(&text, "Code").unwrap_or_default();
        let message = element(&text, "Message").unwrap_or_default();
        let said = shortened(&format!("{code} {message}"));
        return Err(format!("HTTP {}: {}", answer.status.as_u16(), said.trim()));
    }
    let given = |name: &str| element(&text, name).ok_or_else(|| format!("the answer has no {name}"));
    let end = given("Expiration")?;
    Ok(Credentials {
        access_key_id: given("AccessKeyId")?,
        secret_access_key: Secret::new(given("SecretAccessKey")?),
        session_token: Some(Secret::new(given("SessionToken")?)),
        expires_at_seconds: Some(seconds_of(&end).ok_or_else(|| format!("`{}` is not a time", shortened(&end)))?),
        source,
    })
}

fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once(&format!("</{name}>"))?;
    Some(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded() {
        let form = encoded(&[("RoleArn", "arn:aws:iam::1:role/a b"), ("X", "é~")]);
        assert_eq!(form, "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fa%20b&X=%C3%A9~");
    }

    #[test]
    fn endpoints() {
        let none = Surroundings::of(&[]);
        assert_eq!(endpoint(&none, "us-east-1"), "https://sts.us-east-1.amazonaws.com/");
        assert_eq!(
            endpoint(&none, "cn-north-1"),
            "https://sts.cn-north-1.amazonaws.com.cn/"
        );
        let named = Surroundings::of(&[("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")]);
        assert_eq!(endpoint(&named, "us-east-1"), "http://127.0.0.1:1/");
    }
}
