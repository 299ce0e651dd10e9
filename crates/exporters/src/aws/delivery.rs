//! Why: events have to get into streams that may not exist, in requests that may be answered one by one, and what was taken must not be sent again when
//! the rest is repeated.
//!
//! A batch becomes several requests. What AWS said of each is remembered until all have an answer, so that a repetition sends only what is open. What can
//! still be there twice: a request whose answer was lost, which nobody can know; and what was under way when the process was killed. While AWS is away only the
//! answers are kept; requests are made anew when they are repeated, unless making them twice would bring something else.
//!
//! Source: Amazon CloudWatch Logs API Reference, "PutLogEvents", "CreateLogGroup", "CreateLogStream", "PutRetentionPolicy", "PutIndexPolicy".

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use codec::cloudwatch::{self, Translated};
use model::{Batch, Payload};
use pipeline::{Outcome, Reason};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::api::{Api, Failure, Refusal};
use crate::request::{Packed, Packing, pack_text};

/// How long until a request is repeated that AWS does not permit: somebody has to change something first.
const REFUSED_RETRY_AFTER: Duration = Duration::from_secs(30);

/// Steps towards one request's answer: it goes out, group and stream are made, it goes out again, perhaps with a token.
const MAX_STEPS: usize = 4;

/// Batches that are remembered as partly taken, at least: one for each pipeline that shares the exporter.
const MIN_UNFINISHED: usize = 16;

/// What requests of all batches may take at once, so that a resource that is written with each of its records fills nobody's memory.
const MAX_HELD_KIB: u32 = 64 << 10;

/// Answers that are about what was sent, and would be the same for ever.
const DATA_CODES: [&str; 4] = [
    "InvalidParameterException",
    "ValidationException",
    "SerializationException",
    "RequestEntityTooLargeException",
];

/// Answers that are about who sends.
const PERMISSION_CODES: [&str; 5] = [
    "AccessDenied",
    "AccessDeniedException",
    "NotAuthorized",
    "OptInRequired",
    "UnauthorizedOperation",
];

/// How a group is made that does not exist.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    /// `None`: never.
    pub retention_days: Option<u32>,
    pub tags: BTreeMap<String, String>,
    /// Fields that CloudWatch is to index.
    pub index_fields: Vec<String>,
}

/// Brings events to CloudWatch Logs.
pub struct Delivery {
    api: Api,
    groups: Groups,
    /// Headers of `PutLogEvents`.
    headers: &'static [(&'static str, &'static str)],
    packing: Packing,
    /// Whether requests are kept until they are settled, because making events of a batch a second time would bring something else.
    keeps: bool,
    room: Semaphore,
    max_unfinished: usize,
    unfinished: Mutex<VecDeque<Arc<Work>>>,
}

/// A batch on its way.
struct Work {
    /// Which batch it is: a repetition has the same bytes.
    payload: Payload,
    answers: Mutex<Vec<Option<Settled>>>,
    kept: Option<Arc<Made>>,
}

/// What was made of a batch.
struct Made {
    parts: Vec<Part>,
    rejected: Vec<(u32, &'static str)>,
    filtered: u32,
}

/// One `PutLogEvents`.
struct Part {
    group: String,
    name: String,
    body: Packed,
    /// Of each event.
    items: Vec<u32>,
}

/// What AWS said for good.
#[derive(Debug, PartialEq, Eq)]
enum Settled {
    Taken,
    Refused { items: u32, message: String },
}

impl Delivery {
    /// `in_flight` batches are under way at once for each pipeline.
    pub fn new(api: Api, groups: Groups, packing: Packing, in_flight: usize) -> Delivery {
        Delivery {
            api,
            groups,
            headers: &[],
            packing,
            keeps: false,
            room: Semaphore::new(MAX_HELD_KIB as usize),
            max_unfinished: MIN_UNFINISHED.max(in_flight * 2),
            unfinished: Mutex::default(),
        }
    }

    /// For embedded metrics: events say what they are, and a batch must be translated once only.
    #[must_use]
    pub fn of_metrics(self) -> Delivery {
        Delivery {
            headers: &[("x-amzn-logs-format", "json/emf")],
            keeps: true,
            ..self
        }
    }

    /// Delivers what `translate` makes of the batch, or what is left of it from an earlier attempt. `bytes` is about what that takes; whatever is larger than
    /// all that may be taken goes alone.
    pub async fn deliver(&self, batch: &Batch, bytes: usize, translate: impl FnOnce() -> Translated) -> Outcome {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(MAX_HELD_KIB);
        // It is never closed, so it always grants.
        let _room = self.room.acquire_many(kib).await;
        let (work, made) = self.work(batch, translate);
        for (at, part) in made.parts.iter().enumerate() {
            if work.answers.lock().unwrap_or_else(PoisonError::into_inner)[at].is_some() {
                continue;
            }
            match self.put(part).await {
                Ok(settled) => work.answers.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(settled),
                Err(failure) => return self.later(failure),
            }
        }
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        unfinished.retain(|known| !Arc::ptr_eq(known, &work));
        drop(unfinished);
        made.outcome(&work.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The batch as it was left by an earlier attempt, or a new one, and the requests for it.
    fn work(&self, batch: &Batch, translate: impl FnOnce() -> Translated) -> (Arc<Work>, Arc<Made>) {
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |work: &&Arc<Work>| work.payload == batch.payload;
        let known = unfinished.iter().find(same).cloned();
        let made = match known.as_ref().and_then(|work| work.kept.clone()) {
            Some(made) => made,
            None => Arc::new(self.make_parts(translate())),
        };
        // The same batch becomes the same requests.
        if let Some(work) = known
            && work.answers.lock().unwrap_or_else(PoisonError::into_inner).len() == made.parts.len()
        {
            return (work, made);
        }
        let work = Arc::new(Work {
            payload: batch.payload.clone(),
            answers: Mutex::new(made.parts.iter().map(|_| None).collect()),
            kept: self.keeps.then(|| Arc::clone(&made)),
        });
        if unfinished.len() == self.max_unfinished {
            unfinished.pop_front();
        }
        unfinished.push_back(Arc::clone(&work));
        (work, made)
    }

    fn make_parts(&self, translated: Translated) -> Made {
        let mut parts = Vec::new();
        for stream in translated.streams {
            for put in cloudwatch::puts(&stream) {
                parts.push(Part {
                    group: stream.group.clone(),
                    name: stream.name.clone(),
                    body: pack_text(put.body, self.packing),
                    items: put.items,
                });
            }
        }
        Made {
            parts,
            rejected: translated.rejected,
            filtered: translated.filtered,
        }
    }

    async fn put(&self, part: &Part) -> Result<Settled, Failure> {
        let mut with_token: Option<Packed> = None;
        let mut steps = 0;
        loop {
            steps += 1;
            let body = with_token.as_ref().unwrap_or(&part.body);
            let refusal = match self.api.call("PutLogEvents", body, self.headers).await {
                Ok(answer) => return Ok(settled(&answer.body, part)),
                Err(Failure::Refused(refusal)) => refusal,
                Err(failure) => return Err(failure),
            };
            match refusal.code.as_str() {
                "DataAlreadyAcceptedException" => return Ok(Settled::Taken),
                code if DATA_CODES.contains(&code) || refusal.status == 413 => {
                    return Ok(Settled::Refused {
                        items: part.all(),
                        message: refusal.to_string(),
                    });
                }
                "ResourceNotFoundException" if steps < MAX_STEPS => self.make(part).await?,
                // AWS itself has given up on tokens; what stands in for it may not have.
                "InvalidSequenceTokenException" if steps < MAX_STEPS => {
                    with_token = Some(self.with_token(part, &refusal).ok_or(Failure::Refused(refusal))?);
                }
                _ => return Err(Failure::Refused(refusal)),
            }
        }
    }

    /// The body with the sequence token that is expected.
    fn with_token(&self, part: &Part, refusal: &Refusal) -> Option<Packed> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Expected {
            expected_sequence_token: String,
        }
        let expected: Expected = serde_json::from_slice(&refusal.body).ok()?;
        if part.body.encoding.is_some() {
            return None;
        }
        let token = serde_json::to_string(&expected.expected_sequence_token).ok()?;
        let rest = part.body.bytes.strip_prefix(b"{")?;
        let mut body = format!("{{\"sequenceToken\":{token},").into_bytes();
        body.extend_from_slice(rest);
        Some(pack_text(body, Packing::None))
    }

    /// Makes the stream, and the group if it is missing. Somebody else may do so at the same time.
    async fn make(&self, part: &Part) -> Result<(), Failure> {
        let stream = json!({ "logGroupName": part.group, "logStreamName": part.name });
        match self.ask("CreateLogStream", &stream).await {
            Err(Failure::Refused(refusal)) if refusal.code == "ResourceNotFoundException" => {}
            other => return made(other).map(drop),
        }
        let mut group = json!({ "logGroupName": part.group });
        if !self.groups.tags.is_empty() {
            group["tags"] = json!(self.groups.tags);
        }
        if made(self.ask("CreateLogGroup", &group).await)? {
            tracing::info!(group = part.group, "made a log group");
            self.equip(&part.group).await?;
        }
        made(self.ask("CreateLogStream", &stream).await).map(drop)
    }

    /// What a new group is to have. That we may make a group but not do this is no reason to hold logs back.
    async fn equip(&self, group: &str) -> Result<(), Failure> {
        if let Some(days) = self.groups.retention_days {
            let policy = json!({ "logGroupName": group, "retentionInDays": days });
            self.try_to("PutRetentionPolicy", &policy, group).await?;
        }
        if !self.groups.index_fields.is_empty() {
            let document = json!({ "Fields": self.groups.index_fields }).to_string();
            let policy = json!({ "logGroupIdentifier": group, "policyDocument": document });
            self.try_to("PutIndexPolicy", &policy, group).await?;
        }
        Ok(())
    }

    /// Once more if AWS cannot for now; a refusal is told and passed over.
    async fn try_to(&self, action: &str, policy: &serde_json::Value, group: &str) -> Result<(), Failure> {
        for is_last in [false, true] {
            match self.ask(action, policy).await {
                Ok(()) => return Ok(()),
                Err(Failure::Refused(refusal)) if !is_last && is_passing(&refusal) => {}
                Err(Failure::Refused(refusal)) => {
                    tracing::warn!(
                        group,
                        "{action} for the new group: {refusal}; logs are delivered without it"
                    );
                    return Ok(());
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    async fn ask(&self, action: &str, body: &serde_json::Value) -> Result<(), Failure> {
        let packed = pack_text(body.to_string().into_bytes(), Packing::None);
        self.api.call(action, &packed, &[]).await.map(drop)
    }

    /// What becomes of a batch that could not be delivered now.
    fn later(&self, failure: Failure) -> Outcome {
        let after = match &failure {
            Failure::Unreachable(why) => {
                self.api
                    .complain("unreachable", || tracing::warn!("{why}; it is tried again"));
                Duration::ZERO
            }
            Failure::NoCredentials(why) => {
                self.api.complain("no credentials", || {
                    tracing::warn!("no AWS credentials yet, what is to be sent waits: {why}");
                });
                Duration::ZERO
            }
            Failure::Refused(refusal) => {
                self.api.complain(&refusal.code, || {
                    if PERMISSION_CODES.contains(&refusal.code.as_str()) {
                        tracing::error!("AWS does not permit it, what is to be sent waits: {refusal}");
                    } else {
                        tracing::warn!("AWS does not take it for now, what is to be sent waits: {refusal}");
                    }
                });
                if is_passing(refusal) {
                    refusal.after
                } else {
                    refusal.after.max(REFUSED_RETRY_AFTER)
                }
            }
        };
        Outcome::retry(after, Reason::BackendUnavailable)
    }
}

/// Whether something is there now; `false` if it was there before.
fn made(asked: Result<(), Failure>) -> Result<bool, Failure> {
    match asked {
        Ok(()) => Ok(true),
        Err(Failure::Refused(refusal)) if refusal.code == "ResourceAlreadyExistsException" => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Whether nobody has to do anything but wait.
fn is_passing(refusal: &Refusal) -> bool {
    let code = refusal.code.as_str();
    refusal.status >= 500
        || refusal.status == 429
        || code.contains("Throttl")
        || code.contains("Unavailable")
        || code.contains("LimitExceeded")
        || code == "OperationAbortedException"
        || code == "ResourceNotFoundException"
}

impl Part {
    fn all(&self) -> u32 {
        self.items.iter().copied().fold(0, u32::saturating_add)
    }
}

/// What AWS took: all, or all but those whose time it does not like.
fn settled(body: &[u8], part: &Part) -> Settled {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        rejected_log_events_info: Option<Info>,
    }
    /// Events lie in order of time: the old ones end before an index, the new ones start at one.
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Info {
        too_new_log_event_start_index: Option<usize>,
        too_old_log_event_end_index: Option<usize>,
        expired_log_event_end_index: Option<usize>,
    }
    let answer: Answer = serde_json::from_slice(body).unwrap_or_default();
    let Some(info) = answer.rejected_log_events_info else {
        return Settled::Taken;
    };
    let end = part.items.len();
    let sum = |items: &[u32]| items.iter().copied().fold(0, u32::saturating_add);
    let old = info.too_old_log_event_end_index.unwrap_or_default().min(end);
    let expired = info.expired_log_event_end_index.unwrap_or_default().min(end);
    let past = old.max(expired);
    let new = info.too_new_log_event_start_index.unwrap_or(end).clamp(past, end);
    let mut said = Vec::new();
    if old > 0 {
        said.push(format!("{} older than 14 days", sum(&part.items[..old])));
    }
    if expired > old {
        said.push(format!(
            "{} older than the group's retention",
            sum(&part.items[old..expired])
        ));
    }
    if new < end {
        said.push(format!("{} more than 2 hours ahead", sum(&part.items[new..])));
    }
    match sum(&part.items[..past]).saturating_add(sum(&part.items[new..])) {
        0 => Settled::Taken,
        items => Settled::Refused {
            items,
            message: format!("CloudWatch Logs does not take: {}", said.join(", ")),
        },
    }
}

impl Made {
    fn outcome(&self, answers: &[Option<Settled>]) -> Outcome {
        let mut refused = 0u32;
        let mut messages: Vec<&str> = Vec::new();
        for answer in answers.iter().flatten() {
            if let Settled::Refused { items, message } = answer {
                refused = refused.saturating_add(*items);
                messages.push(message);
            }
        }
        let unfit = self
            .rejected
            .iter()
            .map(|(items, _)| *items)
            .fold(0, u32::saturating_add);
        messages.extend(self.rejected.iter().map(|(_, why)| *why));
        if self.filtered > 0 {
            messages.push("not in the embedded metric format");
        }
        messages.sort_unstable();
        messages.dedup();
        // One word for all: what lost most.
        let (_, reason) = [
            (refused, Reason::BackendRejected),
            (unfit, Reason::BadItem),
            (self.filtered, Reason::Filtered),
        ]
        .into_iter()
        .max_by_key(|(items, _)| *items)
        .unwrap_or((0, Reason::BackendRejected));
        match refused.saturating_add(unfit).saturating_add(self.filtered) {
            0 => Outcome::Delivered,
            items => Outcome::rejected(reason, messages.join("; "), items),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expect: Option<(u32, &str)>) {
        let part = Part {
            group: String::new(),
            name: String::new(),
            body: pack_text(Vec::new(), Packing::None),
            items: vec![1, 2, 4, 8],
        };
        let expect = match expect {
            None => Settled::Taken,
            Some((items, message)) => Settled::Refused {
                items,
                message: format!("CloudWatch Logs does not take: {message}"),
            },
        };
        assert_eq!(settled(body.as_bytes(), &part), expect, "{body}");
    }

    #[test]
    fn what_was_not_taken_is_counted_by_its_events() {
        check("", None);
        check("{}", None);
        check(r#"{"nextSequenceToken":"1"}"#, None);
        check(r#"{"rejectedLogEventsInfo":{}}"#, None);
        let old = r#"{"rejectedLogEventsInfo":{"tooOldLogEventEndIndex":2}}"#;
        check(old, Some((3, "3 older than 14 days")));
        let new = r#"{"rejectedLogEventsInfo":{"tooNewLogEventStartIndex":3}}"#;
        check(new, Some((8, "8 more than 2 hours ahead")));
        let all = r#"{"rejectedLogEventsInfo":{"tooOldLogEventEndIndex":1,"expiredLogEventEndIndex":2,"tooNewLogEventStartIndex":3}}"#;
        check(
            all,
            Some((
                11,
                "1 older than 14 days, 2 older than the group's retention, 8 more than 2 hours ahead",
            )),
        );
        let strange = r#"{"rejectedLogEventsInfo":{"tooOldLogEventEndIndex":900,"tooNewLogEventStartIndex":0}}"#;
        check(strange, Some((15, "15 older than 14 days")));
    }
}
