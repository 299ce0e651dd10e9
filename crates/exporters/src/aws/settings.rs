//! What both exporters check alike in their settings.

use std::collections::BTreeMap;
use std::time::Duration;

use codec::cloudwatch::{Name, Template};
use net::dial::Target;
use pipeline::config::{Problems, Section};
use pipeline::sending::Sending;

use super::api::{Reach, unsigned_headers};
use super::credentials::Role;
use super::delivery::Groups;
use super::metadata::is_region;
use crate::request::{BuildError, Packing};
use crate::sender::Shared;

/// Days that CloudWatch Logs can keep, as its API has them; 0 is for ever.
const RETENTION_DAYS: [u32; 23] = [
    0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
];

/// AWS's bounds on tags.
const MAX_TAGS: usize = 50;
const MAX_TAG_KEY_CHARS: usize = 128;
const MAX_TAG_VALUE_CHARS: usize = 256;

/// Keys of the Collector that change nothing here, and why.
const WITHOUT_EFFECT: [(&str, &str); 4] = [
    (
        "num_workers",
        "without effect: `sending_queue.num_consumers` says how many requests are under way",
    ),
    (
        "max_retries",
        "without effect: `retry_on_failure` says how often it is tried again",
    ),
    (
        "local_mode",
        "without effect: the machine is only asked for what nothing else tells",
    ),
    (
        "resource_arn",
        "without effect: it is for the Collector's exporters of traces",
    ),
];

/// The settings on how AWS is reached.
pub(crate) struct Access<'a> {
    pub region: &'a Option<String>,
    pub endpoint: &'a Option<String>,
    pub role_arn: &'a Option<String>,
    pub external_id: &'a Option<String>,
    pub no_verify_ssl: bool,
    pub proxy_address: &'a Option<String>,
    pub log_retention: u32,
    pub tags: &'a BTreeMap<String, String>,
}

impl Access<'_> {
    /// An empty value is none, as for the Collector.
    pub fn reach(&self, shared: &Shared) -> Result<Reach, BuildError> {
        Ok(Reach {
            service: "logs",
            target: "Logs_20140328",
            region: given(self.region),
            endpoint: given(self.endpoint),
            role: given(self.role_arn).map(|arn| Role {
                arn,
                external_id: given(self.external_id),
            }),
            tls: shared.tls.clone().unwrap_or_default(),
            headers: unsigned_headers(&shared.headers)?,
        })
    }

    pub fn groups(&self, index_fields: &[String]) -> Groups {
        Groups {
            retention_days: Some(self.log_retention).filter(|days| *days > 0),
            tags: self.tags.clone(),
            index_fields: index_fields.to_vec(),
        }
    }

    pub fn check(&self, section: &Section<'_>, shared: &Shared) -> Result<(), Problems> {
        if let Some(region) = given(self.region)
            && !is_region(&region)
        {
            return Err(section.problem(
                &["region"],
                format!("region: `{region}` is not a region such as `us-east-1`"),
            ));
        }
        if let Some(endpoint) = given(self.endpoint) {
            let wrong = |why: String| section.problem(&["endpoint"], format!("endpoint: {why}"));
            let target = Target::parse(&endpoint).map_err(wrong)?;
            if !matches!(target.path.as_str(), "" | "/") {
                return Err(wrong(format!("AWS's API has no path; leave `{}` out", target.path)));
            }
        }
        if self.no_verify_ssl {
            let why = "a certificate that nobody has checked proves nothing; name the one to trust with `tls: { ca_file: … }`";
            return Err(section.problem(&["no_verify_ssl"], why));
        }
        if given(self.proxy_address).is_some() {
            let why = "this exporter goes through no proxy yet; name what is reachable, such as a VPC endpoint, with `endpoint`";
            return Err(section.problem(&["proxy_address"], why));
        }
        if given(self.external_id).is_some() && given(self.role_arn).is_none() {
            return Err(section.problem(&["external_id"], "`external_id` needs `role_arn`"));
        }
        if section.sets(&["auth"]) {
            let why = "AWS wants signed requests, and how they are signed is found as AWS's own clients find it; leave `auth` out";
            return Err(section.problem(&["auth"], why));
        }
        if section.sets(&["compression"]) && shared.compression == Packing::Zstd {
            return Err(section.problem(&["compression"], "CloudWatch Logs takes `gzip` or `none`"));
        }
        if !RETENTION_DAYS.contains(&self.log_retention) {
            let days: Vec<String> = RETENTION_DAYS.iter().map(u32::to_string).collect();
            let why = format!(
                "CloudWatch Logs cannot keep for {} days; it can for {} (0 is for ever)",
                self.log_retention,
                days.join(", ")
            );
            return Err(section.problem(&["log_retention"], why));
        }
        self.check_tags(section)?;
        for (key, why) in WITHOUT_EFFECT {
            if section.sets(&[key]) {
                section.warn(&[key], why);
            }
        }
        Ok(())
    }

    fn check_tags(&self, section: &Section<'_>) -> Result<(), Problems> {
        if self.tags.len() > MAX_TAGS {
            return Err(section.problem(
                &["tags"],
                format!("AWS takes {MAX_TAGS} tags, these are {}", self.tags.len()),
            ));
        }
        let right = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
        for (key, value) in self.tags {
            let (key_chars, value_chars) = (key.chars().count(), value.chars().count());
            let fits = (1..=MAX_TAG_KEY_CHARS).contains(&key_chars) && (1..=MAX_TAG_VALUE_CHARS).contains(&value_chars);
            if !fits || !key.chars().chain(value.chars()).all(right) {
                let why = format!(
                    "a tag has a key of 1 to {MAX_TAG_KEY_CHARS} and a value of 1 to {MAX_TAG_VALUE_CHARS} letters, digits, spaces and `_.:/=+-@`"
                );
                return Err(section.problem(&["tags", key], why));
            }
        }
        Ok(())
    }
}

/// A name of a group or stream, checked.
pub(crate) fn template(section: &Section<'_>, key: &str, of: Name, text: &str) -> Result<Template, Problems> {
    Template::parse(of, text).map_err(|why| section.problem(&[key], format!("{key}: {why}")))
}

/// How requests are sent: `request_timeout_seconds` is the Collector's word for `timeout`.
pub(crate) fn sending(sending: Sending, shared: &Shared, request_timeout_seconds: Option<u64>) -> Sending {
    let timeout = request_timeout_seconds
        .filter(|seconds| *seconds > 0 && shared.timeout.is_none())
        .map(Duration::from_secs);
    Sending {
        timeout: timeout.unwrap_or(sending.timeout),
        ..sending
    }
}

/// Nothing unless it was written: CloudWatch Logs takes either, and next to it the network costs nothing.
pub(crate) fn packing(is_set: bool, shared: &Shared) -> Packing {
    if is_set { shared.compression } else { Packing::None }
}

fn given(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}
