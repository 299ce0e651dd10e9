//! One log entry as one line of JSON, in the schema of `docs/log-schema.md` (SPEC L1–L5).
//!
//! Fields come in order of importance, because a reader that stops early must have seen the essential ones. A line
//! that would be too long is written again with shorter texts; one with too many fields loses the least important.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use super::names::{GROUPS, canonical, group_name, group_of};
use super::{Entry, Field, level_name};
use crate::tracking::NO_TRACE;

/// What all lines of a process have in common, and their bounds.
#[derive(Debug, Clone)]
pub(crate) struct Format {
    pub service: String,
    pub environment: String,
    /// Bytes of a line with its line break.
    pub max_bytes: usize,
    /// Fields of a line, objects and their members each counted.
    pub max_fields: usize,
}

/// Fields that each line has: 13 plain ones, `source` with five and `tracing` with two members.
const FIXED_FIELDS: usize = 13 + 6 + 3;
/// A text is not cut shorter than this; beyond it fields are removed instead.
const MIN_TEXT: usize = 64;

impl Format {
    /// Appends the entry as a line to `out`.
    pub(crate) fn write(&self, entry: &Entry, out: &mut Vec<u8>) {
        let start = out.len();
        // The message stands in the line twice.
        let mut text = self.max_bytes / 2;
        while text >= MIN_TEXT {
            self.attempt(entry, text, self.max_fields, out);
            if out.len() - start <= self.max_bytes {
                return;
            }
            out.truncate(start);
            text /= 2;
        }
        let mut fields = self.max_fields;
        loop {
            fields = (fields / 2).max(FIXED_FIELDS + 1);
            self.attempt(entry, MIN_TEXT, fields, out);
            if out.len() - start <= self.max_bytes || fields == FIXED_FIELDS + 1 {
                return;
            }
            out.truncate(start);
        }
    }

    fn attempt(&self, entry: &Entry, text: usize, max_fields: usize, out: &mut Vec<u8>) {
        let mut time = [0; 24];
        let time = rfc3339_millis(entry.time, &mut time);
        let level = level_name(entry.level);
        let mut ids = ([0u8; 32], [0u8; 16]);
        let (trace_id, span_id) = match entry.place {
            Some(place) => (
                hex_text(&place.trace_id.to_bytes(), &mut ids.0),
                hex_text(&place.span_id.to_bytes(), &mut ids.1),
            ),
            None => (NO_TRACE, NO_TRACE),
        };
        let file_name = entry.path.rsplit(['/', '\\']).next().unwrap_or("");
        let mut object = Object::open(out, text);
        object.text("@timestamp", time);
        object.text("@level", level);
        object.text("@message", &entry.message);
        object.text("@logger", entry.logger);
        object.text("@thread", &entry.thread);
        object.text("timestamp", time);
        object.text("level", level);
        object.text("message", &entry.message);
        object.text("service", &self.service);
        object.text("environment", &self.environment);
        object.text("tracking_id", trace_id);
        object.text("traceId", trace_id);
        object.key("file");
        object.file(file_name, entry.line);
        object.nested("source", |source| {
            source.text("module", entry.module);
            source.text("function", &entry.function);
            source.number("line", entry.line);
            source.text("filename", file_name);
            source.text("pathname", entry.path);
        });
        object.nested("tracing", |tracing| {
            tracing.text("trace_id", trace_id);
            tracing.text("span_id", span_id);
        });
        self.fields(entry, max_fields, &mut object);
        object.close();
        out.push(b'\n');
    }

    fn fields(&self, entry: &Entry, max_fields: usize, object: &mut Object<'_>) {
        // One place is kept for the marker.
        let mut room = max_fields.saturating_sub(FIXED_FIELDS + 1);
        let mut removed = 0usize;
        let named: Vec<_> = entry
            .fields
            .iter()
            .map(|(name, value)| (canonical(name), value))
            .collect();
        // Looked up once: each group's pass below asks for all of them.
        let places: Vec<Option<(usize, &str)>> = named.iter().map(|(name, _)| group_of(name)).collect();
        let first = |at: usize, name: &str| !named[..at].iter().any(|(earlier, _)| *earlier == name);
        // The schema's groups, then `extra`, then what stands at the top.
        for group in 0..=GROUPS.len() {
            let mut open = false;
            for (at, (name, value)) in named.iter().enumerate() {
                let Some((_, member)) = places[at].filter(|(g, _)| *g == group) else {
                    continue;
                };
                if !first(at, name) {
                    continue;
                }
                let needed = if open { 1 } else { 2 };
                if room < needed {
                    removed += 1;
                    continue;
                }
                room -= needed;
                if !open {
                    object.key(group_name(group));
                    object.begin();
                    open = true;
                }
                object.field(member, value);
            }
            if open {
                object.end();
            }
        }
        for (at, (name, value)) in named.iter().enumerate() {
            if places[at].is_some() || !first(at, name) {
                continue;
            }
            if room == 0 {
                removed += 1;
                continue;
            }
            room -= 1;
            object.field(name, value);
        }
        if removed > 0 {
            object.number("fields_removed", removed);
        }
    }
}

/// A JSON object under construction. Writing into a vector cannot fail.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
    /// Longest text in bytes; longer ones are cut and marked.
    text: usize,
}

impl<'o> Object<'o> {
    fn open(out: &'o mut Vec<u8>, text: usize) -> Object<'o> {
        out.push(b'{');
        Object { out, first: true, text }
    }

    fn close(self) {
        self.out.push(b'}');
    }

    fn begin(&mut self) {
        self.out.push(b'{');
        self.first = true;
    }

    fn end(&mut self) {
        self.out.push(b'}');
        self.first = false;
    }

    fn nested(&mut self, key: &str, fill: impl FnOnce(&mut Self)) {
        self.key(key);
        self.begin();
        fill(self);
        self.end();
    }

    fn key(&mut self, key: &str) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.quoted(key);
        self.out.push(b':');
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.value(value);
    }

    fn number(&mut self, key: &str, value: impl std::fmt::Display) {
        self.key(key);
        let _ = write!(self.out, "{value}");
    }

    fn file(&mut self, name: &str, line: u32) {
        self.value(name);
        self.out.pop();
        let _ = write!(self.out, ":{line}\"");
    }

    fn field(&mut self, key: &str, value: &Field) {
        match value {
            Field::Str(text) => self.text(key, text),
            Field::Shared(text) => self.text(key, text),
            Field::Int(number) => self.number(key, number),
            Field::Uint(number) => self.number(key, number),
            Field::Bool(truth) => self.number(key, truth),
            Field::Float(number) if number.is_finite() => self.number(key, number),
            Field::Float(_) => self.number(key, "null"),
        }
    }

    fn value(&mut self, text: &str) {
        if text.len() <= self.text {
            self.quoted(text);
            return;
        }
        let kept = text.floor_char_boundary(self.text);
        self.quoted(&text[..kept]);
        self.out.pop();
        let _ = write!(self.out, "…[{} bytes cut]\"", text.len() - kept);
    }

    fn quoted(&mut self, text: &str) {
        // Strings always serialise and vectors always take them.
        let _ = serde_json::to_writer(&mut *self.out, text);
    }
}

fn hex_text<'b, const N: usize>(bytes: &[u8], buffer: &'b mut [u8; N]) -> &'b str {
    match hex::encode_to_slice(bytes, buffer) {
        Ok(()) => std::str::from_utf8(buffer).unwrap_or(NO_TRACE),
        Err(_) => NO_TRACE,
    }
}

/// `2026-11-20T18:56:28.123Z`. Times before 1970 are shown as its first moment; years stop at 9999.
pub(crate) fn rfc3339_millis(time: SystemTime, buffer: &mut [u8; 24]) -> &str {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    // 9999-12-31T23:59:59Z
    let seconds = since.as_secs().min(253_402_300_799);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's "days from civil", inverted: eras of 400 years that begin in March.
    let z = days + 719_468;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + z / 146_097 * 400 + u64::from(month <= 2);
    *buffer = *b"0000-00-00T00:00:00.000Z";
    for (at, width, mut value) in [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, second / 3_600),
        (14, 2, second / 60 % 60),
        (17, 2, second % 60),
        (20, 3, u64::from(since.subsec_millis())),
    ] {
        for place in (at..at + width).rev() {
            buffer[place] = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }
    std::str::from_utf8(buffer).expect("digits and punctuation are ASCII")
}

#[cfg(test)]
mod tests {
    use super::super::Place;
    use super::*;
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
    use serde_json::{Value, json};
    use std::borrow::Cow;
    use std::time::Duration;
    use tracing::Level;

    fn entry(message: &str, fields: Vec<(&'static str, Field)>) -> Entry {
        Entry {
            time: UNIX_EPOCH + Duration::from_millis(1_795_200_988_007),
            level: Level::INFO,
            message: Cow::Owned(message.to_owned()),
            logger: "app::orders",
            thread: "worker-1".into(),
            module: "app::orders",
            function: Cow::Borrowed("create"),
            path: "src/orders/create.rs",
            line: 42,
            place: Some(Place {
                trace_id: TraceId::from_bytes([0xab; 16]),
                span_id: SpanId::from_bytes([0xcd; 8]),
                flags: TraceFlags::SAMPLED,
            }),
            fields: fields.into_iter().map(|(k, v)| (Cow::Borrowed(k), v)).collect(),
        }
    }

    fn format() -> Format {
        Format {
            service: "api-gateway".to_owned(),
            environment: "dev".to_owned(),
            max_bytes: 16 * 1024,
            max_fields: 200,
        }
    }

    fn line(format: &Format, entry: &Entry) -> (String, Value) {
        let mut out = Vec::new();
        format.write(entry, &mut out);
        assert!(out.len() <= format.max_bytes, "{} bytes", out.len());
        assert_eq!(out.pop(), Some(b'\n'));
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(!text.contains(['\n', '\r']), "one line: {text}");
        let value = serde_json::from_str(&text).expect("JSON");
        (text, value)
    }

    fn count(value: &Value) -> usize {
        match value {
            Value::Object(members) => members.values().map(|v| 1 + count(v)).sum(),
            _ => 0,
        }
    }

    #[test]
    fn the_fixed_fields_and_their_order() {
        let (text, value) = line(&format(), &entry("created", vec![]));
        assert_eq!(
            value,
            json!({
                "@timestamp": "2026-11-20T18:56:28.007Z", "@level": "INFO", "@message": "created",
                "@logger": "app::orders", "@thread": "worker-1",
                "timestamp": "2026-11-20T18:56:28.007Z", "level": "INFO", "message": "created",
                "service": "api-gateway", "environment": "dev",
                "tracking_id": "ab".repeat(16), "traceId": "ab".repeat(16),
                "file": "create.rs:42",
                "source": {"module": "app::orders", "function": "create", "line": 42,
                           "filename": "create.rs", "pathname": "src/orders/create.rs"},
                "tracing": {"trace_id": "ab".repeat(16), "span_id": "cd".repeat(8)},
            })
        );
        assert_eq!(count(&value), FIXED_FIELDS);
        let at = |key: &str| text.find(&format!("\"{key}\"")).expect(key);
        assert!(at("@timestamp") < at("@level") && at("@message") < at("service"));
        assert!(at("tracking_id") < at("source"));
    }

    #[test]
    fn groups_fold_and_extras_stay() {
        let (_, value) = line(
            &format(),
            &entry(
                "GET /x - 200",
                vec![
                    ("request_method", "GET".into()),
                    ("request.duration", 0.25.into()),
                    ("items", 7u64.into()),
                    ("operation", "checkout".into()),
                    ("request_method", "POST".into()),
                    ("level", "mine".into()),
                    ("ratio", f64::NAN.into()),
                    ("gen_ai.usage.input_tokens", 12i64.into()),
                ],
            ),
        );
        assert_eq!(value["request"], json!({"method": "GET", "duration": 0.25}));
        assert_eq!(value["operation"], json!({"name": "checkout"}));
        assert_eq!(value["items"], 7);
        assert_eq!(value["level"], "INFO");
        assert_eq!(value["extra"], json!({"level": "mine"}));
        assert_eq!(value["ratio"], Value::Null);
        assert_eq!(value["gen_ai.usage.input_tokens"], 12);
    }

    #[test]
    fn outside_a_trace_it_says_so() {
        let mut entry = entry("x", vec![]);
        entry.place = None;
        let (_, value) = line(&format(), &entry);
        assert_eq!(value["tracking_id"], NO_TRACE);
        assert_eq!(value["tracing"]["trace_id"], NO_TRACE);
    }

    #[test]
    fn hostile_texts_stay_inside_one_line() {
        for text in [
            "a\nb\r\n\u{0}\u{1b}[31m\"\\",
            "\u{2028}\u{10ffff}é",
            "}{\",\"level\":\"x",
        ] {
            let (_, value) = line(&format(), &entry(text, vec![("k", text.to_owned().into())]));
            assert_eq!(value["message"], text);
            assert_eq!(value["k"], text);
            assert_eq!(value["level"], "INFO");
        }
    }

    #[test]
    fn long_lines_are_cut_and_say_so() {
        for size in [10_000, 100_000, 1_000_000] {
            // Quotes double when escaped, and é is two bytes: both must not break the bound or the text.
            for unit in ["x", "\"", "é", "\u{1}"] {
                let long = unit.repeat(size);
                let entry = entry(&long, vec![("detail", long.clone().into())]);
                let (_, value) = line(&format(), &entry);
                let message = value["message"].as_str().expect("text");
                assert!(message.ends_with(" bytes cut]"), "{}", &message[message.len() - 40..]);
                assert_eq!(value["tracking_id"], "ab".repeat(16));
            }
        }
    }

    #[test]
    fn too_many_fields_are_removed_and_counted() {
        let names: Vec<&'static str> = (0..300)
            .map(|n| &*Box::leak(format!("k{n}").into_boxed_str()))
            .collect();
        let mut fields: Vec<_> = names.iter().map(|n| (*n, Field::Int(1))).collect();
        fields.push(("request_method", "GET".into()));
        let (_, value) = line(&format(), &entry("x", fields));
        assert_eq!(count(&value), 200);
        assert_eq!(
            value["request"]["method"], "GET",
            "the schema's fields go before extras"
        );
        // 200 - 22 fixed - 1 marker - 2 for request.method leaves 175 of the 300.
        assert_eq!(value["fields_removed"], 125);
    }

    #[test]
    fn fields_too_many_and_too_long_still_fit() {
        let names: Vec<&'static str> = (0..170)
            .map(|n| &*Box::leak(format!("{n:0200}").into_boxed_str()))
            .collect();
        let fields = names.iter().map(|n| (*n, Field::from("y".repeat(500)))).collect();
        let (_, value) = line(&format(), &entry("x", fields));
        assert!(value["fields_removed"].as_u64().expect("a marker") > 0);
    }

    #[test]
    fn times() {
        for (millis, expect) in [
            (0u64, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (4_102_444_799_001, "2099-12-31T23:59:59.001Z"),
            (253_402_300_800_000, "9999-12-31T23:59:59.000Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_millis(millis);
            assert_eq!(rfc3339_millis(time, &mut [0; 24]), expect);
        }
    }
}
