//! What a container's endpoint (ECS, EKS) and a machine's metadata service (EC2) hand out.
//!
//! Source: AWS SDKs and Tools Reference Guide, "Container credential provider" and "IMDS credential provider".

use std::net::IpAddr;

use bytes::Bytes;
use http::Method;
use net::ClientTls;
use net::dial::{Answer, Target};

use super::credentials::{Credentials, LOCAL_TIMEOUT, Surroundings, Written, ask};

/// Where EC2 answers, unless `AWS_EC2_METADATA_SERVICE_ENDPOINT` says otherwise.
const MACHINE: &str = "http://169.254.169.254";

/// How long a token of the metadata service is to be valid; it is used at once.
const TOKEN_TTL_SECONDS: &str = "60";

const ROLE_PATH: &str = "/latest/meta-data/iam/security-credentials/";

/// Addresses that a container's endpoint may have without TLS: those that AWS gives it.
const CONTAINER_ADDRESSES: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// The container's credentials; `None` where nothing says that there is an endpoint.
pub(super) async fn of_container(surroundings: &Surroundings) -> Option<Result<Credentials, String>> {
    let relative = surroundings.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let full = surroundings.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let url = match (relative, full) {
        (Some(path), _) => format!("{}{path}", surroundings.container),
        (None, Some(url)) => match may_be_asked(&url) {
            Ok(()) => url,
            Err(why) => return Some(Err(why)),
        },
        (None, None) => return None,
    };
    Some(container(surroundings, &url).await)
}

async fn container(surroundings: &Surroundings, url: &str) -> Result<Credentials, String> {
    let token = match surroundings.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(path) => {
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{path} cannot be read: {error}"))?;
            Some(text.trim().to_owned())
        }
        None => surroundings.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    };
    let headers: Vec<(&'static str, &str)> = token.iter().map(|token| ("authorization", token.as_str())).collect();
    let answer = get(url, &headers).await?;
    Written::read(&answer.body, "the container")
}

/// A token must not go over the wire in the clear.
fn may_be_asked(url: &str) -> Result<(), String> {
    let target = Target::parse(url).map_err(|why| format!("AWS_CONTAINER_CREDENTIALS_FULL_URI: {why}"))?;
    let host = target.host.trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<IpAddr>().ok();
    let is_near = host == "localhost"
        || address.is_some_and(|address| address.is_loopback())
        || CONTAINER_ADDRESSES.contains(&host);
    match target.https {
        Some(true) => Ok(()),
        Some(false) if is_near => Ok(()),
        Some(false) | None => Err(format!(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https, or http on loopback or on an address of ECS or EKS, not {host}"
        )),
    }
}

/// The credentials of the role that the machine has.
pub(super) async fn of_machine(surroundings: &Surroundings) -> Result<Credentials, String> {
    let machine = Machine::open(surroundings).await?;
    let roles = machine.text(ROLE_PATH).await?;
    let role = roles.lines().next().map(str::trim).filter(|role| !role.is_empty());
    let role = role.ok_or("this machine has no role")?;
    let answer = machine.get(&format!("{ROLE_PATH}{role}")).await?;
    Written::read(&answer.body, "the machine's role")
}

/// The region in which the machine is.
pub(super) async fn region_of_machine(surroundings: &Surroundings) -> Result<String, String> {
    let machine = Machine::open(surroundings).await?;
    let region = machine.text("/latest/meta-data/placement/region").await?;
    Some(region.trim().to_owned())
        .filter(|region| is_region(region))
        .ok_or_else(|| "the metadata service names no region".to_owned())
}

/// Whether a text can be a region's name, which becomes part of a host's.
pub(super) fn is_region(text: &str) -> bool {
    let right = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 64 && text.chars().all(right) && !text.starts_with('-') && !text.ends_with('-')
}

/// The metadata service, with a token of version 2.
struct Machine {
    base: String,
    token: String,
}

impl Machine {
    async fn open(surroundings: &Surroundings) -> Result<Machine, String> {
        let disabled = surroundings.variable("AWS_EC2_METADATA_DISABLED");
        if disabled.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Err("AWS_EC2_METADATA_DISABLED is set".to_owned());
        }
        let base = surroundings
            .variable("AWS_EC2_METADATA_SERVICE_ENDPOINT")
            .unwrap_or_else(|| MACHINE.to_owned());
        let base = base.trim_end_matches('/').to_owned();
        let answer = ask(
            Method::PUT,
            &format!("{base}/latest/api/token"),
            &[("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_TTL_SECONDS)],
            Bytes::new(),
            &ClientTls::default(),
            LOCAL_TIMEOUT,
        )
        .await
        .and_then(|answer| success(answer, "the metadata service's token"))?;
        let token = String::from_utf8(answer.body.to_vec()).map_err(|_| "the token is no text".to_owned())?;
        Ok(Machine { base, token })
    }

    async fn get(&self, path: &str) -> Result<Answer, String> {
        get(
            &format!("{}{path}", self.base),
            &[("x-aws-ec2-metadata-token", &self.token)],
        )
        .await
    }

    async fn text(&self, path: &str) -> Result<String, String> {
        let answer = self.get(path).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }
}

async fn get(url: &str, headers: &[(&'static str, &str)]) -> Result<Answer, String> {
    ask(
        Method::GET,
        url,
        headers,
        Bytes::new(),
        &ClientTls::default(),
        LOCAL_TIMEOUT,
    )
    .await
    .and_then(|answer| success(answer, url))
}

/// Tells the status only: the body may hold secrets.
fn success(answer: Answer, what: &str) -> Result<Answer, String> {
    match answer.status.as_u16() {
        200..=299 => Ok(answer),
        status => Err(format!("{what}: HTTP {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_do_not_go_in_the_clear() {
        for right in [
            "https://example.com/x",
            "http://127.0.0.1:80/x",
            "http://[::1]/x",
            "http://localhost/",
            "http://169.254.170.23/v1",
            "http://[fd00:ec2::23]/v1",
        ] {
            assert_eq!(may_be_asked(right), Ok(()), "{right}");
        }
        for wrong in ["http://example.com/x", "http://10.0.0.1/", "127.0.0.1/", "ftp://x", ""] {
            assert!(may_be_asked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn regions() {
        assert!(is_region("us-east-1") && is_region("us-gov-west-1"));
        for wrong in ["", "us east", "evil.com/", "-a", "a-", "US", &"a".repeat(65)] {
            assert!(!is_region(wrong), "{wrong}");
        }
    }
}
