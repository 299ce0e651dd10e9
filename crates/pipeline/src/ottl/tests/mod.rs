//! The language as tables: what a statement makes of a span, and which conditions hold for it. What comes out is decoded by `opentelemetry-proto`, not by
//! the views.

mod hostile;
mod mistakes;
mod naive;
mod page;

use model::Signal;
use model::canonical::canonicalize;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use super::paths::Context;
use crate::processors::{filter, transform};
use crate::testing::{meta, processor, traces};

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, text: &str) -> KeyValue {
    pair(key, Value::StringValue(text.into()))
}

fn wrapped(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

/// The span that the tables are about.
fn sample() -> ExportTraceServiceRequest {
    let tags = ["a", "b"].map(|tag| wrapped(Value::StringValue(tag.into())));
    let inner = KeyValueList {
        values: vec![pair("x", Value::IntValue(1))],
    };
    let map = KeyValueList {
        values: vec![pair("inner", Value::KvlistValue(inner)), text("text", "t")],
    };
    let span = Span {
        trace_id: vec![7; 16],
        span_id: vec![8; 8],
        name: "GET /orders/17".into(),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_250_000_000,
        attributes: vec![
            text("http.method", "GET"),
            pair("http.status_code", Value::IntValue(404)),
            text("url", "https://shop.example/orders/17?token=abc123"),
            pair("tags", Value::ArrayValue(ArrayValue { values: tags.into() })),
            pair("map", Value::KvlistValue(map)),
            pair("ratio", Value::DoubleValue(0.5)),
            pair("flag", Value::BoolValue(true)),
            text("json", r#"{"a":1,"b":{"c":"d"}}"#),
            text("kv", r#"k1=v1 k2="v 2""#),
        ],
        events: vec![
            Event {
                name: "exception".into(),
                attributes: vec![text("exception.message", "boom")],
                time_unix_nano: 1_700_000_000_100_000_000,
                ..Event::default()
            },
            Event {
                name: "retry".into(),
                ..Event::default()
            },
        ],
        status: Some(Status {
            message: "boom".into(),
            code: 2,
        }),
        ..Span::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "shop"), text("host", "h1")],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "lib".into(),
                    version: "1.2".into(),
                    ..InstrumentationScope::default()
                }),
                spans: vec![span],
                ..ScopeSpans::default()
            }],
            schema_url: "https://schema".into(),
        }],
    }
}

fn batch(request: &ExportTraceServiceRequest) -> model::Batch {
    let canonical = canonicalize(Signal::Traces, request.encode_to_vec().into()).expect("is legal");
    model::Batch::from_canonical(Signal::Traces, canonical, None, meta())
}

fn shown(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        None => "nothing".to_owned(),
        Some(Value::StringValue(text)) => format!("'{text}'"),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => format!("{number:?}"),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::BytesValue(bytes)) => format!("{bytes:?}"),
        Some(Value::ArrayValue(list)) => {
            let values: Vec<String> = list.values.iter().map(|value| shown(Some(value))).collect();
            format!("[{}]", values.join(", "))
        }
        Some(Value::KvlistValue(map)) => format!("{{{}}}", pairs(&map.values).join(", ")),
        Some(other) => format!("{other:?}"),
    }
}

fn pairs(attributes: &[KeyValue]) -> Vec<String> {
    attributes
        .iter()
        .map(|pair| format!("{}={}", pair.key, shown(pair.value.as_ref())))
        .collect()
}

/// Everything about the request, one thing a line.
fn lines(request: &ExportTraceServiceRequest) -> Vec<String> {
    let mut lines = Vec::new();
    let mut put =
        |prefix: &str, list: Vec<String>| lines.extend(list.into_iter().map(|line| format!("{prefix}{line}")));
    for resource in &request.resource_spans {
        put(
            "resource.",
            pairs(
                resource
                    .resource
                    .as_ref()
                    .map_or(&[][..], |resource| &resource.attributes),
            ),
        );
        for scope in &resource.scope_spans {
            if let Some(scope) = &scope.scope {
                put("scope.", pairs(&scope.attributes));
                put("scope ", vec![scope.name.clone(), scope.version.clone()]);
            }
            for span in &scope.spans {
                put("", pairs(&span.attributes));
                let status = span.status.clone().unwrap_or_default();
                put(
                    "",
                    vec![
                        format!("name '{}'", span.name),
                        format!("kind {}", span.kind),
                        format!("status {} '{}'", status.code, status.message),
                        format!("times {} {}", span.start_time_unix_nano, span.end_time_unix_nano),
                        format!("ids {:?} {:?} {:?}", span.trace_id, span.span_id, span.parent_span_id),
                        format!("state '{}' dropped {}", span.trace_state, span.dropped_attributes_count),
                    ],
                );
                for event in &span.events {
                    put(&format!("{}.", event.name), pairs(&event.attributes));
                    put("event ", vec![format!("'{}' {}", event.name, event.time_unix_nano)]);
                }
            }
        }
    }
    lines
}

/// What statements change: `-` lines that went, `+` lines that came.
fn changes(statements: &[&str], context: Context) -> String {
    let list: Vec<String> = statements
        .iter()
        .map(|text| format!("'{}'", text.replace('\'', "''")))
        .collect();
    let config = format!(
        "{{ error_mode: propagate, trace_statements: [{{ context: {}, statements: [{}] }}] }}",
        context.name(),
        list.join(", ")
    );
    let before = sample();
    let after = match processor(transform::parse, &config).process(batch(&before)) {
        Ok(after) => after,
        Err(crate::Outcome::Rejected { reason, .. }) => {
            let message = reason.message.to_string();
            return message
                .split_once("`: ")
                .map_or(message.clone(), |(_, fault)| format!("fault: {fault}"));
        }
        Err(other) => return format!("{other:?}"),
    };
    let canonical = canonicalize(Signal::Traces, after.payload.bytes()).expect("is legal");
    assert!(!canonical.rewritten, "{statements:?}: what comes out is canonical");
    let (before, after) = (lines(&before), lines(&traces(&after)));
    let went = before
        .iter()
        .filter(|line| !after.contains(line))
        .map(|line| format!("-{line}"));
    let came = after
        .iter()
        .filter(|line| !before.contains(line))
        .map(|line| format!("+{line}"));
    went.chain(came).collect::<Vec<_>>().join("; ")
}

#[test]
fn what_statements_change() {
    let span = Context::Span;
    let mut wrong = Vec::new();
    for (context, statement, expect) in [
        (span, r#"set(name, "x")"#, "-name 'GET /orders/17'; +name 'x'"),
        (span, r#"set(span.name, "x") where span.kind == SPAN_KIND_CLIENT"#, ""),
        (span, r#"set(attributes["new"], 1)"#, "+new=1"),
        (span, r#"set(attributes["new"], attributes["missing"])"#, ""),
        (
            span,
            r#"set(attributes["http.method"], "POST")"#,
            "-http.method='GET'; +http.method='POST'",
        ),
        (
            span,
            r#"set(attributes["map"]["inner"]["y"], true)"#,
            "-map={inner={x=1}, text='t'}; +map={inner={x=1, y=true}, text='t'}",
        ),
        (span, r#"set(attributes["deep"]["er"], 2)"#, "+deep={er=2}"),
        (
            span,
            r#"set(attributes["tags"][1], "c")"#,
            "-tags=['a', 'b']; +tags=['a', 'c']",
        ),
        (
            span,
            r#"set(attributes["tags"][2], "c")"#,
            "fault: the list has no element 2",
        ),
        (
            span,
            r#"set(attributes["url"]["x"], 1)"#,
            "fault: a text has no key `x`",
        ),
        (span, r#"set(attributes[attributes["http.method"]], 1)"#, "+GET=1"),
        (span, r#"set(attributes["sum"], (1 + 2) * 3 - 4 / 2)"#, "+sum=7"),
        (
            span,
            r#"set(attributes["q"], attributes["http.status_code"] / 8.0)"#,
            "+q=50.5",
        ),
        (span, r#"set(attributes["q"], 1 / 0)"#, "fault: a division by zero"),
        (
            span,
            r#"set(attributes["ms"], Milliseconds(end_time - start_time))"#,
            "+ms=250",
        ),
        (
            span,
            r#"set(start_time_unix_nano, end_time_unix_nano - 1)"#,
            "-times 1700000000000000000 1700000000250000000; +times 1700000000249999999 1700000000250000000",
        ),
        (
            span,
            r#"set(end_time, start_time + Duration("1s"))"#,
            "-times 1700000000000000000 1700000000250000000; +times 1700000000000000000 1700000001000000000",
        ),
        (
            span,
            r#"set(attributes["t"], start_time)"#,
            "fault: a time cannot be kept as a value; convert it, for example with `UnixNano`, `Nanoseconds` or `String`",
        ),
        (
            span,
            r#"set(attributes["t"], String(start_time))"#,
            "+t='2023-11-14T22:13:20Z'",
        ),
        (
            span,
            r#"set(attributes["t"], FormatTime(start_time, "%Y-%m-%d"))"#,
            "+t='2023-11-14'",
        ),
        (
            span,
            "set(status.code, STATUS_CODE_OK)",
            "-status 2 'boom'; +status 1 'boom'",
        ),
        (span, r#"set(status.message, "")"#, "-status 2 'boom'; +status 2 ''"),
        (span, "set(kind, SPAN_KIND_INTERNAL)", "-kind 2; +kind 1"),
        (span, r#"set(kind.string, "Client")"#, "-kind 2; +kind 3"),
        (
            span,
            r#"set(name, 5)"#,
            "fault: a text is needed here, not a whole number",
        ),
        (
            span,
            "set(trace_id, TraceID(0x0102030405060708090a0b0c0d0e0f10))",
            "-ids [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7] [8, 8, 8, 8, 8, 8, 8, 8] []; +ids [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16] [8, 8, 8, 8, 8, 8, 8, 8] []",
        ),
        (
            span,
            "set(span_id, SpanID(0x0000000000000000))",
            "fault: a span's id cannot be all zeros",
        ),
        (
            span,
            r#"set(attributes["id"], trace_id.string)"#,
            "+id='07070707070707070707070707070707'",
        ),
        (
            span,
            r#"set(resource.attributes["seen"], name)"#,
            "+resource.seen='GET /orders/17'",
        ),
        (span, r#"set(scope.name, "other")"#, "-scope lib; +scope other"),
        (
            span,
            r#"set(instrumentation_scope.attributes["k"], scope.version)"#,
            "+scope.k='1.2'",
        ),
        (
            span,
            r#"set(attributes["s"], resource.schema_url)"#,
            "+s='https://schema'",
        ),
        (span, r#"delete_key(attributes, "flag")"#, "-flag=true"),
        (span, r#"delete_key(attributes, "missing")"#, ""),
        (
            span,
            r#"delete_key(attributes["map"], "text")"#,
            "-map={inner={x=1}, text='t'}; +map={inner={x=1}}",
        ),
        (
            span,
            r#"delete_keys(attributes, ["flag", "ratio"])"#,
            "-ratio=0.5; -flag=true",
        ),
        (
            span,
            r#"delete_matching_keys(attributes, "^(http|url)")"#,
            "-http.method='GET'; -http.status_code=404; -url='https://shop.example/orders/17?token=abc123'",
        ),
        (
            span,
            r#"keep_keys(resource.attributes, ["host"])"#,
            "-resource.service.name='shop'",
        ),
        (
            span,
            r#"keep_matching_keys(resource.attributes, "^serv")"#,
            "-resource.host='h1'",
        ),
        (
            span,
            r#"replace_pattern(name, "/orders/\\d+", "/orders/{id}")"#,
            "-name 'GET /orders/17'; +name 'GET /orders/{id}'",
        ),
        (
            span,
            r#"replace_pattern(attributes["url"], "token=([a-z]+)", "token=$1-***")"#,
            "-url='https://shop.example/orders/17?token=abc123'; +url='https://shop.example/orders/17?token=abc-***123'",
        ),
        (
            span,
            r#"replace_pattern(attributes["http.method"], "^(GET)$", "$1", SHA256, "sha:%s")"#,
            "-http.method='GET'; +http.method='sha:14e30cd163c732912e048c4c837e15c4e90c062ebb795ab947d57706e2d10dd8'",
        ),
        (
            span,
            r#"replace_match(name, "GET *", "GET")"#,
            "-name 'GET /orders/17'; +name 'GET'",
        ),
        (span, r#"replace_match(name, "POST *", "POST")"#, ""),
        (
            span,
            r#"replace_all_patterns(attributes, "value", "^G.T$", "got")"#,
            "-http.method='GET'; +http.method='got'",
        ),
        (
            span,
            r#"replace_all_patterns(attributes, "key", "^http\\.", "h_")"#,
            "-http.method='GET'; -http.status_code=404; +h_method='GET'; +h_status_code=404",
        ),
        (
            span,
            r#"replace_all_matches(resource.attributes, "sh?p", "x")"#,
            "-resource.service.name='shop'; +resource.service.name='x'",
        ),
        (
            span,
            "truncate_all(resource.attributes, 3)",
            "-resource.service.name='shop'; +resource.service.name='sho'",
        ),
        (
            span,
            r#"limit(resource.attributes, 1, ["host"])"#,
            "-resource.service.name='shop'",
        ),
        (span, r#"limit(resource.attributes, 1, [])"#, "-resource.host='h1'"),
        (
            span,
            r#"merge_maps(attributes, ParseJSON(attributes["json"]), "upsert")"#,
            "+a=1; +b={c='d'}",
        ),
        (
            span,
            r#"merge_maps(attributes, {"flag": 1, "new": 2}, "insert")"#,
            "+new=2",
        ),
        (
            span,
            r#"merge_maps(attributes, {"flag": 1, "new": 2}, "update")"#,
            "-flag=true; +flag=1",
        ),
        (
            span,
            r#"append(attributes["tags"], "c")"#,
            "-tags=['a', 'b']; +tags=['a', 'b', 'c']",
        ),
        (
            span,
            r#"append(attributes["ratio"], values = [1, "x"])"#,
            "-ratio=0.5; +ratio=[0.5, 1, 'x']",
        ),
        (
            span,
            r#"flatten(attributes["map"])"#,
            "-map={inner={x=1}, text='t'}; +map={inner.x=1, text='t'}",
        ),
        (
            span,
            r#"set(attributes["p"], ParseKeyValue(attributes["kv"]))"#,
            "+p={k1='v1', k2='v 2'}",
        ),
        (
            span,
            r#"set(attributes["p"], ExtractPatterns(name, "^(?P<verb>\\w+) /(?P<what>\\w+)"))"#,
            "+p={verb='GET', what='orders'}",
        ),
        (span, r#"set(attributes["p"], Split(name, "/")[1])"#, "+p='orders'"),
        (
            span,
            r#"set(attributes["p"], Concat([name, kind, nil, "z"], "|"))"#,
            "+p='GET /orders/17|2|<nil>|z'",
        ),
        (span, r#"set(attributes["p"], Substring(name, 0, 3))"#, "+p='GET'"),
        (
            span,
            r#"set(attributes["p"], ToLowerCase(attributes["http.method"]))"#,
            "+p='get'",
        ),
        (
            span,
            r#"set(attributes["p"], Format("%03d|%-4s|%.1f", [7, "a", 0.25]))"#,
            "+p='007|a   |0.2'",
        ),
        (span, r#"set(attributes["p"], Hex("AZ"))"#, "+p='415a'"),
        (span, r#"set(attributes["p"], FNV("a"))"#, "+p=-5808556873153909620"),
        (span, r#"set(attributes["p"], Len(attributes["tags"]))"#, "+p=2"),
        (span, r#"set(attributes["p"], Int("12"))"#, "+p=12"),
        (span, r#"set(attributes["p"], Int("twelve"))"#, ""),
        (
            span,
            r#"set(attributes["p"], ToUpperCase(attributes["ratio"]))"#,
            "fault: ToUpperCase: a text is needed, not a decimal number",
        ),
        (
            span,
            r#"set(attributes["p"], ConvertCase("someTextHere", "snake"))"#,
            "+p='some_text_here'",
        ),
        (
            span,
            r#"set(attributes["p"], UnixSeconds(Time("2023-11-14 22:13", "%Y-%m-%d %H:%M")))"#,
            "+p=1699999980",
        ),
        (
            span,
            r#"set(attributes["p"], ToKeyValueString(attributes["map"]["inner"]))"#,
            "+p='x=1'",
        ),
        (
            span,
            r#"set(attributes["p"], {"a": [1, {"b": nil}]})"#,
            "+p={a=[1, {b=nothing}]}",
        ),
        (
            span,
            r#"set(attributes, {"only": 1})"#,
            "-http.method='GET'; -http.status_code=404; -url='https://shop.example/orders/17?token=abc123'; -tags=['a', 'b']; -map={inner={x=1}, text='t'}; -ratio=0.5; -flag=true; -json='{\"a\":1,\"b\":{\"c\":\"d\"}}'; -kv='k1=v1 k2=\"v 2\"'; +only=1",
        ),
        (
            Context::SpanEvent,
            r#"set(attributes["at"], event_index) where name == "retry""#,
            "+retry.at=1",
        ),
        (
            Context::SpanEvent,
            r#"set(span.attributes["error"], attributes["exception.message"]) where name == "exception""#,
            "+error='boom'",
        ),
        (
            Context::SpanEvent,
            r#"set(span.name, Concat([span.name, name], " "))"#,
            "-name 'GET /orders/17'; +name 'GET /orders/17 exception retry'",
        ),
        (
            Context::Resource,
            r#"set(attributes["env"], "prod") where attributes["service.name"] == "shop""#,
            "+resource.env='prod'",
        ),
        (Context::Scope, r#"set(version, "2")"#, "-scope 1.2; +scope 2"),
    ] {
        let got = changes(&[statement], context);
        if got != expect {
            wrong.push(format!("{statement}\n  got    {got}\n  expect {expect}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn later_statements_see_earlier_ones_and_the_cache() {
    let statements = [
        r#"set(cache["parsed"], ParseJSON(attributes["json"]))"#,
        r#"set(attributes["c"], cache["parsed"]["b"]["c"])"#,
        r#"set(attributes["c"], Concat([attributes["c"], "!"], ""))"#,
        r#"delete_key(attributes, "json") where attributes["c"] == "d!""#,
    ];
    assert_eq!(
        changes(&statements, Context::Span),
        r#"-json='{"a":1,"b":{"c":"d"}}'; +c='d!'"#
    );
}

#[test]
fn which_conditions_hold() {
    for (condition, expect) in [
        ("true", true),
        ("not true", false),
        (r#"name == "GET /orders/17""#, true),
        (r#"IsMatch(name, "^GET /orders/\\d+$")"#, true),
        (r#"IsMatch(attributes["missing"], ".*")"#, false),
        (r#"IsMatch(attributes["http.status_code"], "^4")"#, true),
        (
            r#"attributes["http.status_code"] >= 400 and attributes["http.status_code"] < 500"#,
            true,
        ),
        (r#"attributes["http.status_code"] == 404.0"#, true),
        (r#"attributes["http.status_code"] == "404""#, false),
        (r#"attributes["http.status_code"] != "404""#, true),
        (r#"attributes["missing"] == nil"#, true),
        (r#"attributes["missing"] != nil"#, false),
        (r#"attributes["missing"] < 1"#, false),
        (r#"attributes["missing"]["deeper"] == nil"#, true),
        (r#"attributes["map"]["inner"]["x"] == 1"#, true),
        (r#"attributes["tags"][0] == "a""#, true),
        (r#"attributes["tags"] == ["a", "b"]"#, true),
        (r#"attributes["map"] == {"text": "t", "inner": {"x": 1}}"#, true),
        (r#"attributes["flag"]"#, true),
        (r#"not attributes["flag"] or false"#, false),
        ("false or false and true or true", true),
        ("not false and false", false),
        ("not (false and false)", true),
        ("IsRootSpan()", true),
        ("kind == SPAN_KIND_SERVER", true),
        (r#"kind.string == "Server""#, true),
        (r#"kind.deprecated_string == "SPAN_KIND_SERVER""#, true),
        ("status.code == STATUS_CODE_ERROR", true),
        ("trace_id == TraceID(0x07070707070707070707070707070707)", true),
        ("parent_span_id == SpanID(0x0000000000000000)", true),
        (r#"parent_span_id.string == """#, true),
        (r#"end_time - start_time > Duration("200ms")"#, true),
        ("end_time_unix_nano - start_time_unix_nano == 250000000", true),
        (r#"resource.attributes["service.name"] == "shop""#, true),
        (r#"instrumentation_scope.name == "lib""#, true),
        (r#"HasPrefix(name, "GET") and HasSuffix(name, "17")"#, true),
        (
            r#"IsString(name) and IsInt(kind) and IsMap(attributes) and IsList(attributes["tags"])"#,
            true,
        ),
        (r#"IsDouble(attributes["ratio"]) and IsBool(attributes["flag"])"#, true),
        (r#"ContainsValue(attributes["tags"], "b")"#, true),
        (r#"Index(name, "orders") == 5"#, true),
        (r#"Bool("true")"#, true),
        (r#"Len(attributes) == 9"#, true),
        (r#"-1 < -0.5"#, true),
        (r#"Now() > start_time"#, true),
        (r#"Hour(start_time) == 22 and Weekday(start_time) == 2"#, true),
        (
            r#"TruncateTime(start_time, Duration("1h")) == Time("2023-11-14T22", "%Y-%m-%dT%H")"#,
            true,
        ),
    ] {
        let config = format!("{{ error_mode: propagate, traces: {{ span: ['{condition}'] }} }}");
        let kept = processor(filter::parse, &config).process(batch(&sample()));
        let dropped = kept.expect("no fault").items == 0;
        assert_eq!(dropped, expect, "{condition}");
    }
}
