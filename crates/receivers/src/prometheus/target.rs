//! Why: what discovery finds is an address with labels; relabelling makes of it a target, which is a URL to ask, the labels that its series get, and a
//! place in the interval that stays the same over restarts.
//!
//! Source: Prometheus, `scrape/target.go`, "Configuration", `<scrape_config>` and `<relabel_config>`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use codec::prometheus::series::LabelSet;
use md5::{Digest, Md5};
use pipeline::config::units::parse_duration;

use super::job::Job;
use super::relabel;
use crate::client::Asked;

/// Bytes of one target's labels. Those of a pod with all its annotations are a few kilobytes.
const MAX_LABEL_BYTES: usize = 64 << 10;

/// Something that can be scraped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) url: String,
    /// What its series get, sorted by name.
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// The same for the same URL and labels.
    pub(crate) hash: u64,
}

impl Target {
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Makes a target of what was found; `None` if relabelling drops it.
pub(crate) fn make(job: &Job, found: &BTreeMap<String, String>, address: &str) -> Result<Option<Target>, String> {
    let mut labels = LabelSet::default();
    let [interval, timeout] = [job.interval, job.timeout].map(|it| format!("{}ms", it.as_millis()));
    labels.set("job", &job.name);
    labels.set("__scrape_interval__", &interval);
    labels.set("__scrape_timeout__", &timeout);
    labels.set("__metrics_path__", &job.metrics_path);
    labels.set("__scheme__", job.scheme.as_str());
    for (name, values) in &job.params {
        if let Some(first) = values.first() {
            labels.set(&format!("__param_{name}"), first);
        }
    }
    for (name, value) in found {
        labels.set(name, value);
    }
    labels.set("__address__", address);
    let size: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MAX_LABEL_BYTES {
        return Err(format!("its labels are longer than {MAX_LABEL_BYTES} bytes"));
    }
    if !relabel::apply(&job.relabel, &mut labels) {
        return Ok(None);
    }
    let address = labels.get("__address__").to_owned();
    if address.is_empty() {
        return Err("it has no address".to_owned());
    }
    if address.contains('/') {
        return Err(format!("`{address}` is not host:port"));
    }
    let time = |name: &str| {
        let text = labels.get(name);
        parse_duration(text)
            .filter(|it| !it.is_zero())
            .ok_or_else(|| format!("its `{name}` is no duration: `{text}`"))
    };
    let (interval, timeout) = (time("__scrape_interval__")?, time("__scrape_timeout__")?);
    if timeout > interval {
        return Err(format!(
            "its timeout, {timeout:?}, is longer than its interval, {interval:?}"
        ));
    }
    let url = url(job, &labels, &address);
    Asked::check(&url).map_err(|error| error.to_string())?;
    if labels.get("instance").is_empty() {
        labels.set("instance", &address);
    }
    let mut kept: Vec<(String, String)> = labels
        .iter()
        .filter(|(name, _)| !name.starts_with("__"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    kept.sort();
    Ok(Some(Target {
        hash: hash(&url, &kept),
        url,
        labels: kept,
        interval,
        timeout,
    }))
}

fn url(job: &Job, labels: &LabelSet, address: &str) -> String {
    let mut url = format!("{}://{address}", labels.get("__scheme__"));
    let path = labels.get("__metrics_path__");
    if !path.starts_with('/') {
        url.push('/');
    }
    escape(&mut url, path, b"/-._~!$&'()*+,;=:@%");
    // Relabelling may have set parameters, and the first value of those that the job has.
    let mut params: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, values) in &job.params {
        params.insert(name, values.iter().map(String::as_str).collect());
    }
    for (name, value) in labels.iter() {
        let Some(name) = name.strip_prefix("__param_") else {
            continue;
        };
        let values = params.entry(name).or_default();
        match values.first_mut() {
            Some(first) => *first = value,
            None => values.push(value),
        }
    }
    let mut separator = '?';
    for (name, values) in params {
        for value in values {
            url.push(std::mem::replace(&mut separator, '&'));
            escape(&mut url, name, b"-._~");
            url.push('=');
            escape(&mut url, value, b"-._~");
        }
    }
    url
}

/// Appends what may stand in a URL as it is, and the rest in hexadecimal.
fn escape(out: &mut String, text: &str, plain: &[u8]) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

fn hash(url: &str, labels: &[(String, String)]) -> u64 {
    let mut digest = Md5::new();
    digest.update(url);
    for (name, value) in labels {
        digest.update([0xff]);
        digest.update(name);
        digest.update([0xff]);
        digest.update(value);
    }
    let hash: [u8; 16] = digest.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = hash;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// When a target is to be scraped next, in nanoseconds since 1970: the first moment after `now` that lies in the interval where the target's hash puts
/// it. All of them are a whole number of intervals apart, whenever the process was started.
pub(crate) fn next_at(now_nanos: u64, interval: Duration, hash: u64) -> u64 {
    let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    let place = hash % interval;
    let since = (now_nanos % interval + (interval - place)) % interval;
    now_nanos.saturating_add(interval - since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus::config::{Global, ScrapeConfig};

    fn job(yaml: &str) -> Job {
        let source = pipeline::config::Source::new("test", yaml);
        let config: ScrapeConfig = pipeline::config::read(source).unwrap_or_else(|error| panic!("{error}"));
        config.compile(&Global::default()).expect("right")
    }

    fn found(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    fn check(yaml: &str, labels: &[(&str, &str)], address: &str, expect: &str) {
        let got = match make(&job(yaml), &found(labels), address) {
            Ok(Some(target)) => {
                let pairs: Vec<String> = target.pairs().map(|(name, value)| format!("{name}={value}")).collect();
                format!(
                    "{} {} {:?}/{:?}",
                    target.url,
                    pairs.join(","),
                    target.timeout,
                    target.interval
                )
            }
            Ok(None) => "dropped".to_owned(),
            Err(why) => why,
        };
        assert_eq!(got, expect, "{yaml}");
    }

    #[test]
    fn what_is_found_becomes_a_target() {
        check(
            "job_name: a",
            &[],
            "h:1",
            "http://h:1/metrics instance=h:1,job=a 10s/60s",
        );
        check(
            "{ job_name: a/b, scheme: https, metrics_path: 'x y?z', scrape_interval: 5s, params: { q: ['a&b', c], p: [] } }",
            &[("zone", "z"), ("__meta_x", "y"), ("empty", "")],
            "h:1",
            "https://h:1/x%20y%3Fz?q=a%26b&q=c instance=h:1,job=a/b,zone=z 5s/5s",
        );
        check(
            "{ job_name: a, params: { q: [x] }, relabel_configs: [ { source_labels: [__meta_x], target_label: __param_q }, \
             { source_labels: [__address__], regex: '(.*):.*', target_label: instance }, { target_label: job, replacement: other }, \
             { target_label: __address__, replacement: 'proxy:9' }, { target_label: __scrape_timeout__, replacement: 2s }, \
             { target_label: __tmp, replacement: gone } ] }",
            &[("__meta_x", "new")],
            "h:1",
            "http://proxy:9/metrics?q=new instance=h,job=other 2s/60s",
        );
        check(
            "{ job_name: a, relabel_configs: [ { action: keep, source_labels: [zone], regex: x } ] }",
            &[],
            "h:1",
            "dropped",
        );
    }

    #[test]
    fn what_is_none_says_why() {
        let job = |rule: &str| format!("{{ job_name: a, relabel_configs: [ {rule} ] }}");
        check(
            &job("{ target_label: __address__, replacement: '' }"),
            &[],
            "h:1",
            "it has no address",
        );
        check(&job(""), &[], "h:1/x", "`h:1/x` is not host:port");
        check(
            &job("{ target_label: __scrape_interval__, replacement: 1s }"),
            &[],
            "h:1",
            "its timeout, 10s, is longer than its interval, 1s",
        );
        check(
            &job("{ target_label: __scrape_timeout__, replacement: soon }"),
            &[],
            "h:1",
            "its `__scrape_timeout__` is no duration: `soon`",
        );
        check(
            &job("{ target_label: __scheme__, replacement: ftp }"),
            &[],
            "h:1",
            "ftp://h:1/metrics is not a URL that can be asked: `ftp://` is not supported; use http:// or https://",
        );
        check(
            &job(""),
            &[("long", &"x".repeat(MAX_LABEL_BYTES))],
            "h:1",
            "its labels are longer than 65536 bytes",
        );
        check(
            &job(""),
            &[],
            "h o:1",
            "http://h o:1/metrics is not a URL that can be asked: `h o:1` is not host:port",
        );
    }

    #[test]
    fn moments_are_an_interval_apart_and_spread() {
        let interval = Duration::from_secs(15);
        let nanos = 15_000_000_000;
        let mut places = std::collections::BTreeSet::new();
        for n in 0..100 {
            let target = make(&job("job_name: a"), &found(&[]), &format!("h:{n}"))
                .expect("right")
                .expect("kept");
            let now = 1_700_000_000_123_456_789;
            let first = next_at(now, interval, target.hash);
            assert!(first > now && first <= now + nanos);
            assert_eq!(next_at(first, interval, target.hash), first + nanos);
            assert_eq!(next_at(first - 1, interval, target.hash), first);
            assert_eq!(next_at(first + nanos / 3, interval, target.hash), first + nanos);
            places.insert(first % nanos / 1_000_000_000);
        }
        assert!(places.len() > 10, "100 targets lie in only {places:?} of 15 seconds");
    }
}
