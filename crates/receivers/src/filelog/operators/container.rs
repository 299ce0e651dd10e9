//! Lines as container runtimes write them around the line of a program.

use std::path::Path;

use codec::log_line::{Json, Members, Record, instant, owned};
use model::instant::parse_rfc3339;

use super::place::{find, merge, upsert};

/// The attribute that says whether a line goes on in the next.
const TAG: &str = "logtag";
/// It does. Several tags are parted by colons, of which this is the first.
const PART: &str = "P";

/// Whether the line of the program ends with this one. What a runtime did not write is whole.
pub fn is_whole(record: &Record<'_>) -> bool {
    let tag = find(&record.attributes, TAG).and_then(Json::as_text);
    tag.and_then(|tag| tag.split(':').next()) != Some(PART)
}

/// `{"log": "…\n", "stream": "stdout", "time": "…"}`, as Docker's `json-file` driver writes it.
pub fn docker(record: &mut Record<'_>) {
    let Some(members) = record.body.as_text().and_then(Json::object).map(owned) else {
        return;
    };
    if !members
        .iter()
        .any(|(key, value)| key == "log" && value.as_text().is_some())
    {
        return;
    }
    let mut is_whole = true;
    let mut attributes = Members::new();
    for (key, value) in members {
        match (key.as_ref(), value) {
            ("log", Json::Text(text)) => {
                let end = text.strip_suffix('\n');
                is_whole = end.is_some();
                let line = end.unwrap_or(&text);
                record.body = Json::Text(line.strip_suffix('\r').unwrap_or(line).to_owned().into());
            }
            ("stream", value) => attributes.push(("log.iostream".into(), value)),
            ("time", value) => {
                if let Some(time) = instant(&value) {
                    record.time_unix_nano = time;
                }
            }
            (_, value) => attributes.push((key, value)),
        }
    }
    if !is_whole {
        attributes.push((TAG.into(), Json::Text(PART.into())));
    }
    merge(&mut record.attributes, attributes);
}

/// `TIME stdout F …`, as containerd and CRI-O write it.
pub fn cri(record: &mut Record<'_>) {
    let Some(text) = record.body.as_text() else { return };
    let mut words = text.splitn(4, ' ');
    let (Some(time), Some(stream), Some(tag)) = (words.next(), words.next(), words.next()) else {
        return;
    };
    let (Some(time), "stdout" | "stderr") = (parse_rfc3339(time), stream) else {
        return;
    };
    let (stream, tag) = (stream.to_owned(), tag.to_owned());
    let line = words.next().unwrap_or_default().to_owned();
    record.time_unix_nano = time;
    upsert(&mut record.attributes, "log.iostream".into(), Json::Text(stream.into()));
    upsert(&mut record.attributes, TAG.into(), Json::Text(tag.into()));
    record.body = Json::Text(line.into());
}

/// `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/RESTARTS.log`.
pub fn pod(path: &Path, record: &mut Record<'_>) {
    let mut names = path.iter().rev().map(|name| name.to_str().unwrap_or_default());
    let (Some(file), Some(container), Some(pod)) = (names.next(), names.next(), names.next()) else {
        return;
    };
    let restarts = file.split('.').next().filter(|number| number.parse::<u32>().is_ok());
    let parts: Vec<&str> = pod.split('_').collect();
    let ([namespace, name, uid], Some(restarts)) = (&parts[..], restarts) else {
        return;
    };
    for (key, value) in [
        ("k8s.namespace.name", *namespace),
        ("k8s.pod.name", name),
        ("k8s.pod.uid", uid),
        ("k8s.container.name", container),
        ("k8s.container.restart_count", restarts),
    ] {
        upsert(&mut record.resource, key.into(), Json::Text(value.to_owned().into()));
    }
}
