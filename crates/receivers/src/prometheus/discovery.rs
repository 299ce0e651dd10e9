//! Why: targets come and go. Files and services that name them are read again and again, and what cannot be read changes nothing: a discovery that is away
//! is no reason to stop looking at those it named.
//!
//! Source: Prometheus, "Configuration", `<file_sd_config>`, `<http_sd_config>`, and "Writing HTTP Service Discovery".

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use net::dial::Reading;
use pipeline::Budget;
use pipeline::config::yaml::MAX_SOURCE_BYTES;
use pipeline::config::{Source, read};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::config::StaticConfig;
use super::job::{Way, is_target_file};
use crate::client::{Asked, Asking};

/// How often files are looked at for changes. Looking is a few system calls a file.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Files of one configuration; the rest is not read.
const MAX_FILES: usize = 1_000;

/// Bytes of a service's answer: a hundred bytes each for more targets than one process scrapes.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// What one source names, all of it at once.
pub(crate) struct Found {
    /// Which of the job's sources it is.
    pub(crate) source: usize,
    pub(crate) groups: Vec<Group>,
}

/// Addresses with the labels that they have in common.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Group {
    pub(crate) targets: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Group {
    pub(crate) fn new(config: StaticConfig, about: Option<(&str, &str)>) -> Group {
        let mut labels = config.labels;
        if let Some((name, value)) = about {
            labels.insert(name.to_owned(), value.to_owned());
        }
        Group {
            targets: config.targets,
            labels,
        }
    }
}

/// Files, as far as they could be read.
pub(crate) struct Files {
    pub(crate) source: usize,
    pub(crate) patterns: Vec<String>,
    pub(crate) refresh: Duration,
}

/// What was seen of a file the last time.
#[derive(Default)]
struct Known {
    stamp: Option<(SystemTime, u64)>,
    groups: Vec<Group>,
    /// Whether it could not be read.
    is_bad: bool,
}

impl Files {
    /// Tells what the files name, at once and whenever that changes, until nobody listens.
    pub(crate) async fn watch(self, to: mpsc::Sender<Found>) {
        let mut known: HashMap<PathBuf, Known> = HashMap::new();
        let mut told: Option<Vec<Group>> = None;
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut read_at = Instant::now();
        loop {
            ticks.tick().await;
            let all = read_at.elapsed() >= self.refresh;
            if all {
                read_at = Instant::now();
            }
            let patterns = self.patterns.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let groups = look(&patterns, &mut known, all);
                (known, groups)
            });
            let groups;
            (known, groups) = match looked.await {
                Ok(looked) => looked,
                // It does not panic; if the process ends, so do we.
                Err(_) => return,
            };
            if told.as_ref() != Some(&groups) {
                told = Some(groups.clone());
                let found = Found {
                    source: self.source,
                    groups,
                };
                if to.send(found).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Reads what has changed, or everything. A file that is gone takes its targets with it; one that cannot be read keeps those that it had.
fn look(patterns: &[String], known: &mut HashMap<PathBuf, Known>, all: bool) -> Vec<Group> {
    let paths = paths(patterns);
    known.retain(|path, _| paths.contains(path));
    let mut groups = Vec::new();
    for path in paths {
        let file = known.entry(path.clone()).or_default();
        let stamp = std::fs::metadata(&path)
            .ok()
            .and_then(|data| Some((data.modified().ok()?, data.len())));
        if all || stamp.is_none() || stamp != file.stamp {
            file.stamp = stamp;
            match read_file(&path) {
                Ok(read) => {
                    file.groups = read;
                    if std::mem::take(&mut file.is_bad) {
                        tracing::info!("{} can be read again", path.display());
                    }
                }
                Err(why) => {
                    if !std::mem::replace(&mut file.is_bad, true) {
                        tracing::warn!("{}: {why}; the targets that it named before stay", path.display());
                    }
                }
            }
        }
        groups.extend(file.groups.iter().cloned());
    }
    groups
}

/// The files that exist, sorted, each once.
pub(crate) fn paths(patterns: &[String]) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for pattern in patterns {
        let (folder, name) = match pattern.rsplit_once('/') {
            Some(("", name)) => (Path::new("/"), name),
            Some((folder, name)) => (Path::new(folder), name),
            None => (Path::new("."), pattern.as_str()),
        };
        if !name.contains('*') {
            let path = PathBuf::from(pattern);
            if path.exists() {
                paths.push(path);
            }
            continue;
        }
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let matching = names.filter(|found| matches(name, found));
        paths.extend(matching.take(MAX_FILES).map(|found| match pattern.contains('/') {
            true => folder.join(found),
            false => PathBuf::from(found),
        }));
    }
    paths.sort();
    paths.dedup();
    paths.truncate(MAX_FILES);
    paths
}

/// Whether a name is what a pattern says, in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let last = parts.pop();
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    last.is_none_or(|last| rest.len() >= last.len() && rest.ends_with(last)) && (last.is_some() || rest.is_empty())
}

fn read_file(path: &Path) -> Result<Vec<Group>, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_SOURCE_BYTES as u64 {
        return Err(format!("it is larger than {MAX_SOURCE_BYTES} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let name = path.display().to_string();
    if !is_target_file(&name) {
        return Err("its name does not end in .json, .yml or .yaml".to_owned());
    }
    let configs: Vec<StaticConfig> = if name.to_ascii_lowercase().ends_with(".json") {
        serde_json::from_str(&text).map_err(|error| error.to_string())?
    } else {
        read(Source::new(name.clone(), text)).map_err(|problems| problems.to_string().trim().to_owned())?
    };
    groups(configs, ("__meta_filepath", &name))
}

fn groups(configs: Vec<StaticConfig>, about: (&str, &str)) -> Result<Vec<Group>, String> {
    if let Some(wrong) = configs.iter().find_map(|config| config.check().err()) {
        return Err(wrong.message);
    }
    Ok(configs
        .into_iter()
        .map(|config| Group::new(config, Some(about)))
        .collect())
}

/// A service that names targets.
pub(crate) struct Service {
    pub(crate) source: usize,
    pub(crate) url: String,
    pub(crate) refresh: Duration,
    asked: Asked,
    budget: Budget,
}

impl Service {
    /// Reads certificates.
    pub(crate) fn new(
        source: usize,
        (url, refresh, way): &(String, Duration, Way),
        budget: Budget,
    ) -> Result<Service, crate::settings::MountError> {
        let mut asking = Asking::new(&way.tls, way.login.clone(), way.headers.clone())?;
        asking.follows_redirects = way.follows_redirects;
        Ok(Service {
            source,
            url: url.clone(),
            refresh: *refresh,
            asked: Asked::new(Arc::new(asking), url)?,
            budget,
        })
    }

    /// Tells what the service names, at once and whenever that changes, until nobody listens.
    pub(crate) async fn watch(self, to: mpsc::Sender<Found>) {
        let mut told: Option<Vec<Group>> = None;
        let mut is_bad = false;
        loop {
            let asked = timeout(self.refresh, self.ask()).await;
            match asked.unwrap_or_else(|_| Err(format!("no answer in {:?}", self.refresh))) {
                Ok(groups) => {
                    if std::mem::take(&mut is_bad) {
                        tracing::info!("{} names targets again", self.url);
                    }
                    if told.as_ref() != Some(&groups) {
                        told = Some(groups.clone());
                        let found = Found {
                            source: self.source,
                            groups,
                        };
                        if to.send(found).await.is_err() {
                            return;
                        }
                    }
                }
                Err(why) => {
                    if !std::mem::replace(&mut is_bad, true) {
                        tracing::warn!("{}: {why}; the targets that it named before stay", self.url);
                    }
                }
            }
            sleep(self.refresh).await;
        }
    }

    async fn ask(&self) -> Result<Vec<Group>, String> {
        let mut lease = self
            .budget
            .try_reserve(0)
            .ok_or("there is no memory for its answer now")?;
        let mut room = |bytes: u64| lease.grow(bytes);
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(
            HeaderName::from_static("x-prometheus-refresh-interval-seconds"),
            HeaderValue::from_str(&self.refresh.as_secs_f64().to_string()).map_err(|error| error.to_string())?,
        );
        let keep = Reading::Keep {
            limit_bytes: MAX_ANSWER_BYTES,
            room: &mut room,
        };
        let answer = self
            .asked
            .ask(&Method::GET, &headers, Bytes::new(), keep)
            .await
            .map_err(|error| error.to_string())?;
        if answer.status != StatusCode::OK {
            return Err(format!("HTTP {}", answer.status.as_u16()));
        }
        let kind = answer
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(format!("its answer is `{kind}`, not application/json"));
        }
        // What is read takes several times as much as its text.
        if !lease.grow(answer.body.len() as u64 * 4) {
            return Err("there is no memory for its answer now".to_owned());
        }
        let configs: Vec<StaticConfig> = serde_json::from_slice(&answer.body)
            .map_err(|error| format!("its answer is no list of targets: {error}"))?;
        groups(configs, ("__meta_url", &self.url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expect) in [
            ("a.json", "a.json", true),
            ("a.json", "b.json", false),
            ("*.json", "b.json", true),
            ("*.json", ".json", true),
            ("tg_*.json", "tg_.jso", false),
            ("tg_*.json", "tg_x.json", true),
            ("tg_*.json", "xtg_x.json", false),
            ("a*a", "a", false),
            ("a*b*c", "a1b2bc", true),
            ("a*b*c", "a1c", false),
            ("*", "anything", true),
        ] {
            assert_eq!(matches(pattern, name), expect, "{pattern} {name}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_keeps_its_targets_and_one_that_is_gone_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut known = HashMap::new();
        let patterns = [at("*.json").display().to_string(), at("x.yml").display().to_string()];
        let mut look = |all| {
            let groups = look(&patterns, &mut known, all);
            let mut names: Vec<String> = groups.into_iter().flat_map(|group| group.targets).collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(look(false), "");
        std::fs::write(at("a.json"), r#"[{"targets":["a:1","a:2"],"labels":{"zone":"z"}}]"#).unwrap();
        std::fs::write(at("x.yml"), "- targets: [ 'x:1' ]\n- labels: { a: b }\n").unwrap();
        std::fs::write(at("other.yml"), "- targets: [ 'o:1' ]\n").unwrap();
        assert_eq!(look(false), "a:1 a:2 x:1");
        for bad in [
            "",
            "[",
            r#"[{"targets":"a"}]"#,
            r#"[{"target":["a:1"]}]"#,
            r#"[{"targets":["a/b"]}]"#,
            "[null]",
        ] {
            std::fs::write(at("a.json"), bad).unwrap();
            assert_eq!(look(true), "a:1 a:2 x:1", "{bad}");
        }
        std::fs::write(at("a.json"), "[]").unwrap();
        assert_eq!(look(false), "x:1");
        std::fs::remove_file(at("x.yml")).unwrap();
        assert_eq!(look(false), "");
    }

    #[test]
    fn mistakes_in_files_are_told_with_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.yml");
        std::fs::write(&path, "- targets: [ 'x:1' ]\n  label: { a: b }\n").unwrap();
        let said = read_file(&path).unwrap_err();
        assert!(
            said.contains("x.yml:2") && said.contains("did you mean `labels`?"),
            "{said}"
        );
        std::fs::write(&path, vec![b' '; MAX_SOURCE_BYTES + 1]).unwrap();
        assert!(read_file(&path).unwrap_err().contains("larger than"));
    }
}
