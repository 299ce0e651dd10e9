//! CloudWatch Logs as its documentation has it, written for these tests: it computes each request's signature anew from what arrived, holds the limits, and
//! misbehaves on demand.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use net::{At, DoorSettings, Doors, Mount, Request, Response, full_body, handler_fn};
use serde_json::{Value, json};

use super::*;

#[derive(Debug, Default)]
pub struct Group {
    pub retention: Option<i64>,
    pub tags: Value,
    pub index: Option<Value>,
    /// Times and messages by stream, in the order of their arrival.
    pub streams: BTreeMap<String, Vec<(i64, String)>>,
}

#[derive(Default)]
pub struct State {
    pub groups: BTreeMap<String, Group>,
    /// Actions, in order.
    pub calls: Vec<String>,
    pub headers: Vec<HeaderMap>,
    /// The next answers to an action: status and code.
    pub faults: VecDeque<(&'static str, u16, &'static str)>,
    /// Known keys and secrets.
    pub keys: BTreeMap<String, String>,
    /// What our clock is ahead of the tester's.
    pub ahead_seconds: i64,
    /// Whether `PutLogEvents` wants the token of the last answer.
    pub wants_token: bool,
    tokens: u64,
}

#[derive(Clone, Default)]
pub struct StandIn(Arc<Mutex<State>>);

impl StandIn {
    pub async fn open() -> (StandIn, net::Open, SocketAddr) {
        let stand_in = StandIn::default();
        stand_in.state().keys.insert(ID.to_owned(), SECRET.to_owned());
        let (open, address) = open_door("aws", {
            let stand_in = stand_in.clone();
            move |request| stand_in.clone().answer(request)
        })
        .await;
        (stand_in, open, address)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic")
    }

    /// How often an action was called.
    pub fn count(&self, action: &str) -> usize {
        self.state().calls.iter().filter(|call| *call == action).count()
    }

    pub fn fault(&self, action: &'static str, status: u16, code: &'static str) {
        self.state().faults.push_back((action, status, code));
    }

    /// Lets one pass, before faults that come later.
    pub fn pass(&self, action: &'static str) {
        self.fault(action, 200, "");
    }

    /// The messages of a stream.
    pub fn messages(&self, group: &str, stream: &str) -> Vec<String> {
        let state = self.state();
        let events = state.groups.get(group).and_then(|group| group.streams.get(stream));
        let events = events.unwrap_or_else(|| panic!("no {group} {stream} in {:?}", state.groups));
        events.iter().map(|(_, message)| message.clone()).collect()
    }

    async fn answer(self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let mut state = self.state();
        let (status, answer) = match state.serve(&head.method, head.uri.path(), &head.headers, &body) {
            Ok(answer) => (200, answer),
            Err((status, code, message)) => {
                let token = state.tokens.to_string();
                let answer = json!({ "__type": code, "message": message, "expectedSequenceToken": token });
                (status, answer)
            }
        };
        let seconds = now_milli() / 1000 + state.ahead_seconds;
        let mut response = Response::new(full_body(answer.to_string()));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        let headers = response.headers_mut();
        headers.insert("date", HeaderValue::from_str(&http_date(seconds)).expect("a date"));
        response
    }
}

type Refused = (u16, String, String);

fn refused<T>(code: &str, message: impl Into<String>) -> Result<T, Refused> {
    Err((400, code.to_owned(), message.into()))
}

impl State {
    fn serve(&mut self, method: &http::Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Result<Value, Refused> {
        let text = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let Some(action) = text("x-amz-target").strip_prefix("Logs_20140328.") else {
            return refused("UnknownOperationException", "");
        };
        self.calls.push(action.to_owned());
        self.headers.push(headers.clone());
        if let Some(at) = self.faults.iter().position(|(of, _, _)| *of == action) {
            let (_, status, code) = self.faults.remove(at).expect("there");
            if status != 200 {
                return Err((status, code.to_owned(), "as the test asked".to_owned()));
            }
        }
        self.check_signature(method, path, headers, body)?;
        assert_eq!(text("content-type"), "application/x-amz-json-1.1");
        let plain = match text("content-encoding") {
            "gzip" => {
                let mut out = vec![0; 8 << 20];
                let mut inflater = libdeflater::Decompressor::new();
                let length = inflater.gzip_decompress(body, &mut out).expect("gzip");
                out.truncate(length);
                out
            }
            _ => body.to_vec(),
        };
        let Ok(body) = serde_json::from_slice::<Value>(&plain) else {
            return refused("SerializationException", "no JSON");
        };
        let name = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let group_name = name("logGroupName");
        match action {
            "CreateLogGroup" => {
                let right = |c: char| c.is_ascii_alphanumeric() || "_-/.#".contains(c);
                if group_name.is_empty() || group_name.len() > 512 || !group_name.chars().all(right) {
                    return refused("InvalidParameterException", "1 validation error detected: logGroupName");
                }
                if self.groups.contains_key(&group_name) {
                    return refused(
                        "ResourceAlreadyExistsException",
                        "The specified log group already exists",
                    );
                }
                let group = Group {
                    tags: body["tags"].clone(),
                    ..Group::default()
                };
                self.groups.insert(group_name, group);
            }
            "PutRetentionPolicy" => self.group(&group_name)?.retention = body["retentionInDays"].as_i64(),
            "PutIndexPolicy" => {
                let document = serde_json::from_str(&name("policyDocument")).expect("a document");
                self.group(&name("logGroupIdentifier"))?.index = Some(document);
            }
            "CreateLogStream" => {
                let streams = &mut self.group(&group_name)?.streams;
                if streams.contains_key(&name("logStreamName")) {
                    return refused(
                        "ResourceAlreadyExistsException",
                        "The specified log stream already exists",
                    );
                }
                streams.insert(name("logStreamName"), Vec::new());
            }
            "PutLogEvents" => return self.put(&group_name, &name("logStreamName"), &body),
            _ => return refused("UnknownOperationException", action),
        }
        Ok(json!({}))
    }

    fn group(&mut self, name: &str) -> Result<&mut Group, Refused> {
        match self.groups.get_mut(name) {
            Some(group) => Ok(group),
            None => refused("ResourceNotFoundException", "The specified log group does not exist."),
        }
    }

    fn put(&mut self, group: &str, stream: &str, body: &Value) -> Result<Value, Refused> {
        let (wants_token, tokens, ahead) = (self.wants_token, self.tokens, self.ahead_seconds * 1000);
        let group = self.group(group)?;
        let retention = group.retention;
        let Some(stream) = group.streams.get_mut(stream) else {
            return refused("ResourceNotFoundException", "The specified log stream does not exist.");
        };
        if wants_token && tokens > 0 && body["sequenceToken"].as_str() != Some(&tokens.to_string()) {
            return refused("InvalidSequenceTokenException", "The given sequenceToken is invalid.");
        }
        let events = body["logEvents"].as_array().cloned().unwrap_or_default();
        let event = |event: &Value| {
            (
                event["timestamp"].as_i64().expect("a time"),
                event["message"].as_str().expect("a text").to_owned(),
            )
        };
        let events: Vec<(i64, String)> = events.iter().map(event).collect();
        let bytes: usize = events.iter().map(|(_, message)| message.len() + 26).sum();
        if events.is_empty() || events.len() > 10_000 || bytes > 1_048_576 {
            return refused(
                "InvalidParameterException",
                format!("{} events, {bytes} bytes", events.len()),
            );
        }
        if events.iter().any(|(time, message)| message.is_empty() || *time < 0) {
            return refused("InvalidParameterException", "an empty message, or a negative time");
        }
        if !events.is_sorted_by_key(|(time, _)| *time) {
            return refused(
                "InvalidParameterException",
                "Log events in a single PutLogEvents request must be in chronological order.",
            );
        }
        const DAY: i64 = 24 * 3600 * 1000;
        let now = now_milli() + ahead;
        let too_old = events.partition_point(|(time, _)| *time < now - 14 * DAY);
        let expired = events.partition_point(|(time, _)| *time < now - retention.unwrap_or(10_000) * DAY);
        let too_new = events.partition_point(|(time, _)| *time <= now + 2 * 3600 * 1000);
        let taken = &events[too_old.max(expired)..too_new];
        if let (Some(first), Some(last)) = (taken.first(), taken.last())
            && last.0 - first.0 > DAY
        {
            return refused(
                "InvalidParameterException",
                "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.",
            );
        }
        stream.extend_from_slice(taken);
        self.tokens += 1;
        let mut answer = json!({ "nextSequenceToken": self.tokens.to_string() });
        let mut info = serde_json::Map::new();
        for (key, index, is_there) in [
            ("tooOldLogEventEndIndex", too_old, too_old > 0),
            ("expiredLogEventEndIndex", expired, expired > 0),
            ("tooNewLogEventStartIndex", too_new, too_new < events.len()),
        ] {
            if is_there {
                info.insert(key.to_owned(), json!(index));
            }
        }
        if !info.is_empty() {
            answer["rejectedLogEventsInfo"] = Value::Object(info);
        }
        Ok(answer)
    }

    /// As "Create a signed AWS API request" tells it, from the request as it arrived.
    fn check_signature(
        &self,
        method: &http::Method,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(), Refused> {
        let text = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let authorization = text("authorization");
        let Some(fields) = authorization.strip_prefix("AWS4-HMAC-SHA256 ") else {
            return refused("MissingAuthenticationTokenException", "Missing Authentication Token");
        };
        let fields: BTreeMap<&str, &str> = fields.split(", ").filter_map(|field| field.split_once('=')).collect();
        let credential: Vec<&str> = fields["Credential"].split('/').collect();
        let [id, day, region, service, end] = credential[..] else {
            return refused("IncompleteSignatureException", "Credential");
        };
        assert_eq!((region, service, end), ("us-east-1", "logs", "aws4_request"));
        let date = text("x-amz-date");
        assert!(date.starts_with(day), "{date} {day}");
        let Some(secret) = self.keys.get(id) else {
            return refused(
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            );
        };
        let names: Vec<&str> = fields["SignedHeaders"].split(';').collect();
        for needed in ["host", "x-amz-date", "x-amz-target", "content-type"] {
            assert!(names.contains(&needed), "{needed} is not signed: {names:?}");
        }
        assert!(!headers.contains_key("x-amz-security-token") || names.contains(&"x-amz-security-token"));
        let mut canonical = vec![method.to_string(), path.to_owned(), String::new()];
        canonical.extend(names.iter().map(|name| format!("{name}:{}", text(name).trim())));
        canonical.extend([String::new(), names.join(";"), sha256(body)]);
        let scope = format!("{day}/{region}/{service}/aws4_request");
        let hashed = sha256(canonical.join("\n").as_bytes());
        let to_sign = ["AWS4-HMAC-SHA256", &date, &scope, &hashed].join("\n");
        let mut key = hmac(format!("AWS4{secret}").as_bytes(), day.as_bytes());
        for part in [region, service, "aws4_request"] {
            key = hmac(&key, part.as_bytes());
        }
        let signature: String = hmac(&key, to_sign.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if signature != fields["Signature"] {
            return refused(
                "InvalidSignatureException",
                "The request signature we calculated does not match the signature you provided.",
            );
        }
        let seconds = now_milli() / 1000 + self.ahead_seconds;
        if (seconds - seconds_of(&date)).abs() > 300 {
            return refused(
                "InvalidSignatureException",
                format!("Signature expired: {date} is now earlier than it may be"),
            );
        }
        Ok(())
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 2104, written out.
fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    let mut block = [0u8; 64];
    match key.len() {
        0..=64 => block[..key.len()].copy_from_slice(key),
        _ => block[..32].copy_from_slice(&sha2::Sha256::digest(key)),
    }
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = sha2::Sha256::digest([&pad(0x36)[..], data].concat());
    sha2::Sha256::digest([&pad(0x5c)[..], &inner[..]].concat()).to_vec()
}

/// `20150830T123600Z` in seconds since 1970, counted year by year.
fn seconds_of(stamp: &str) -> i64 {
    let number = |from: usize, to: usize| stamp[from..to].parse::<i64>().expect("digits");
    let (year, month, day) = (number(0, 4), number(4, 6), number(6, 8));
    let days = (1970..year).map(days_of_year).sum::<i64>()
        + (1..month).map(|month| days_of_month(year, month)).sum::<i64>()
        + day
        - 1;
    days * 86_400 + number(9, 11) * 3600 + number(11, 13) * 60 + number(13, 15)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && year % 100 != 0 || year % 400 == 0
}

fn days_of_year(year: i64) -> i64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn http_date(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let weekday = DAYS[(days % 7) as usize];
    let mut year = 1970;
    while days >= days_of_year(year) {
        days -= days_of_year(year);
        year += 1;
    }
    let mut month = 1;
    while days >= days_of_month(year, month) {
        days -= days_of_month(year, month);
        month += 1;
    }
    format!(
        "{weekday}, {:02} {} {year} {:02}:{:02}:{:02} GMT",
        days + 1,
        MONTHS[month as usize - 1],
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// A door on a port of its own.
pub async fn open_door<F>(name: &str, answer: impl Fn(Request) -> F + Send + Sync + 'static) -> (net::Open, SocketAddr)
where
    F: Future<Output = Response> + Send + 'static,
{
    let mut doors = Doors::new();
    let mount = Mount::Http {
        at: At::Rest,
        service: handler_fn(answer),
    };
    let any = "127.0.0.1:0".parse().expect("an endpoint");
    doors
        .mount_with(&any, name, mount, DoorSettings::default())
        .expect("free");
    let open = doors.open().await.expect("opens");
    let address = open.address_of(name).expect("open");
    (open, address)
}
